//! Authentication: the principal of a request, from the configuration or from its access token.
//!
//! Each listener path (Streamable HTTP, HTTP+SSE) calls [`caller`] before it reads a body. Where we
//! verify access tokens ourselves, [`caller`] removes the token from the request, so that no later
//! code can see it, forward it or log it.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderValue, Uri};

use super::rejection::Rejection;
use super::{ListenerState, RouteState};
use crate::oauth::token::BadToken;
use crate::oauth::{Bearer, OAuth, Terminate, TokenRefusal};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::DoorRefusal;

/// The query parameter that would carry a token (RFC 6750 §2.3).
const PARAMETER: &str = "access_token";

/// Who sends a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) principal: Arc<Principal>,
    /// When the access token expires, as uptime; `None` where the principal is configured.
    pub(super) until: Option<Duration>,
}

/// Authenticates a request with `headers` to `route`. A verified access token is removed from them.
/// `admission` has checked that there is at most one `Authorization`. An error is the rejection to
/// send: no token, a bad or expired one, a missing scope, or keys that cannot be fetched.
pub(super) async fn caller(
    inner: &ListenerState,
    route: &Arc<RouteState>,
    headers: &mut HeaderMap,
) -> Result<Caller, Rejection> {
    if let Some(principal) = &route.principal {
        return Ok(Caller { principal: Arc::clone(principal), until: None });
    }
    let Some(OAuth::Terminate(resource)) = &route.oauth else {
        return Err(Rejection::from(DoorRefusal::NoToken, Some(route)));
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
        Err(TokenRefusal::Bad(bad)) => {
            let expired = bad == BadToken::Expired;
            let why = if expired { DoorRefusal::ExpiredToken } else { DoorRefusal::BadToken };
            let rejection = challenged(why, route, resource, Some("invalid_token"));
            Err(Rejection { note: Some(bad.as_str()), ..rejection })
        }
        Err(TokenRefusal::Scope(principal)) => {
            let rejection =
                challenged(DoorRefusal::Scope, route, resource, Some("insufficient_scope"));
            Err(Rejection { principal: Some(principal), ..rejection })
        }
        Err(TokenRefusal::Unchecked) => Err(Rejection::from(DoorRefusal::NoKeys, Some(route))),
    }
}

/// Waits until `until`, when the caller's token expires; never ends where that is `None`. `until`
/// and `now` are uptime.
pub(super) async fn expired(until: Option<Duration>, now: Duration) {
    match until {
        Some(until) => tokio::time::sleep(until.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}

/// The rejection of a request for a path that no route has. If only a query that carries a token
/// makes the target unknown, the answer says so: tokens belong in `Authorization` (RFC 6750 §2.3).
pub(super) fn unknown_path(inner: &ListenerState, uri: &Uri) -> Rejection {
    let named = |pair: &str| pair.split('=').next() == Some(PARAMETER);
    let has_token = uri.query().is_some_and(|query| query.split('&').any(named));
    let route = inner.routes.get(uri.path()).or_else(|| inner.legacy.get(uri.path()));
    let route = route.filter(|_| has_token);
    match route.map(|route| (route, &route.oauth)) {
        Some((route, Some(OAuth::Terminate(resource)))) => {
            challenged(DoorRefusal::TokenInQuery, route, resource, Some("invalid_request"))
        }
        _ => Rejection::from(DoorRefusal::UnknownPath, None),
    }
}

fn challenged(
    why: DoorRefusal,
    route: &Arc<RouteState>,
    resource: &Terminate,
    error: Option<&str>,
) -> Rejection {
    let challenge = HeaderValue::from_str(&resource.challenge(error)).ok();
    let header = challenge.map(|challenge| (WWW_AUTHENTICATE, challenge));
    Rejection { header, ..Rejection::from(why, Some(route)) }
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn token(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}
