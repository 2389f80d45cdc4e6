//! Who sends a request: the one principal of the configuration, or whom an access token names.
//!
//! Every front asks [`caller`] before it looks at a body. A token that ends here is taken out of
//! the request there, so nothing behind can see it, send it on, or write it down.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderValue, Uri};

use super::turned_away::TurnedAway;
use super::{Inner, RouteState};
use crate::oauth::token::BadToken;
use crate::oauth::{Bearer, NoEntry, OAuth, Terminate};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::DoorRefusal;

/// The parameter that would carry a token in a request target (RFC 6750 §2.3).
const PARAMETER: &str = "access_token";

/// Who sends a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    /// Until when we were told so, by uptime; absent where no token says it.
    pub(super) until: Option<Duration>,
}

/// Who sends a request with `headers` to `route`. An access token that ends here is removed from
/// them. The door has let the request pass, so there is at most one `Authorization`.
pub(super) async fn caller(
    inner: &Inner,
    route: &Arc<RouteState>,
    headers: &mut HeaderMap,
) -> Result<Caller, TurnedAway> {
    if let Some(principal) = &route.principal {
        return Ok(Caller { principal: Arc::clone(principal), until: None });
    }
    let Some(OAuth::Terminate(resource)) = &route.oauth else {
        return Err(TurnedAway::from(DoorRefusal::NoToken, Some(route)));
    };
    let header = headers.remove(AUTHORIZATION);
    let Some(token) = header.as_ref().and_then(token) else {
        return Err(challenged(DoorRefusal::NoToken, route, resource, None));
    };
    let now = inner.shared.now();
    match resource.admit(token, now).await {
        Ok(Bearer { principal, left }) => {
            Ok(Caller { principal, until: Some(now.uptime.saturating_add(left)) })
        }
        Err(NoEntry::Bad(bad)) => {
            let expired = bad == BadToken::Expired;
            let why = if expired { DoorRefusal::ExpiredToken } else { DoorRefusal::BadToken };
            let away = challenged(why, route, resource, Some("invalid_token"));
            Err(TurnedAway { note: Some(bad.as_str()), ..away })
        }
        Err(NoEntry::Scope(principal)) => {
            let away = challenged(DoorRefusal::Scope, route, resource, Some("insufficient_scope"));
            Err(TurnedAway { principal: Some(principal), ..away })
        }
        Err(NoEntry::Unchecked) => Err(TurnedAway::from(DoorRefusal::NoKeys, Some(route))),
    }
}

/// Waits until a token has expired that holds until `until`; forever where there is none. Both are
/// uptime.
pub(super) async fn expired(until: Option<Duration>, now: Duration) {
    match until {
        Some(until) => tokio::time::sleep(until.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}

/// Why a request whose target is no route of ours is refused. The right path with a token behind
/// it gets an answer of its own, so that whoever put it there learns where it belongs.
pub(super) fn stray(inner: &Inner, uri: &Uri) -> TurnedAway {
    let named = |pair: &str| pair.split('=').next() == Some(PARAMETER);
    let has_token = uri.query().is_some_and(|query| query.split('&').any(named));
    let route = inner.routes.get(uri.path()).or_else(|| inner.legacy.get(uri.path()));
    let route = route.filter(|_| has_token);
    match route.map(|route| (route, &route.oauth)) {
        Some((route, Some(OAuth::Terminate(resource)))) => {
            challenged(DoorRefusal::TokenInQuery, route, resource, Some("invalid_request"))
        }
        _ => TurnedAway::from(DoorRefusal::UnknownPath, None),
    }
}

fn challenged(
    why: DoorRefusal,
    route: &Arc<RouteState>,
    resource: &Terminate,
    error: Option<&str>,
) -> TurnedAway {
    let challenge = HeaderValue::from_str(&resource.challenge(error)).ok();
    let header = challenge.map(|challenge| (WWW_AUTHENTICATE, challenge));
    TurnedAway { header, ..TurnedAway::from(why, Some(route)) }
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn token(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}
