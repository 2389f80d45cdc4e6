//! What clients ask for before they have a token: metadata about a route's resource, and where
//! the operator says so the endpoints of MCP 2025-03-26 at the server's origin.
//!
//! These are no messages of MCP: no policy is asked and nothing but a refusal is recorded. They
//! are open to everybody, so each route answers only so many a second, and no credential of ours
//! goes to the server with them. Their bodies may hold tokens: none is logged. Redirects are not
//! followed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, PRAGMA, WWW_AUTHENTICATE,
};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bartizan_sync::lock;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;

use super::body::{self, BodyLimits};
use super::reply::{self, ReplyBody};
use super::turned_away::TurnedAway;
use super::wire::Peer;
use super::{Inner, RouteState, door};
use crate::oauth::metadata::{DOCUMENT_BYTES_MAX, relabelled};
use crate::oauth::{
    Forward, OAuth, ORIGIN_ENDPOINTS, PublicUrl, RESOURCE_METADATA, Terminate, challenge,
};
use crate::upstream::{HttpUpstream, Media, media};
use bartizan_gate::session::{DoorRefusal, UpstreamFailure};

/// For the server to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that one route answers in a second, over time and at once.
const RATE: u64 = 20;

/// What is asked for at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Metadata about the resource.
    Metadata,
    /// An endpoint of 2025-03-26, with its path.
    Endpoint(&'static str),
}

/// A path beside the routes' own.
#[derive(Debug, Clone)]
pub(super) struct Site {
    route: Arc<RouteState>,
    asked: Asked,
    method: Method,
    allowance: Arc<Allowance>,
}

/// The paths beside the routes' own.
#[derive(Debug)]
pub(super) struct Sites(HashMap<Box<str>, Site>);

impl Sites {
    /// Those of `routes`. A route's metadata is found by the path of its public URL and by both of
    /// its own; without a path, too, where it is the only one that has any.
    pub(super) fn of<'a>(routes: impl Iterator<Item = &'a Arc<RouteState>>) -> Self {
        let mut sites = HashMap::new();
        let mut more = Vec::new();
        let routes: Vec<_> = routes.filter(|route| route.oauth.is_some()).collect();
        for route in &routes {
            let Some(oauth) = &route.oauth else { continue };
            let site = Site {
                route: Arc::clone(route),
                asked: Asked::Metadata,
                method: Method::GET,
                allowance: Arc::default(),
            };
            for path in iter::once(&*route.path).chain(route.streams.path()) {
                let path = path.trim_end_matches('/');
                more.push((format!("{RESOURCE_METADATA}{path}"), site.clone()));
            }
            if routes.len() == 1 {
                more.push((RESOURCE_METADATA.to_owned(), site.clone()));
            }
            if matches!(oauth, OAuth::Forward(forward) if forward.has_origin_endpoints()) {
                for (path, method) in ORIGIN_ENDPOINTS {
                    let site = Site { asked: Asked::Endpoint(path), method, ..site.clone() };
                    more.push((path.to_owned(), site));
                }
            }
            if let Some(public) = oauth.public() {
                sites.insert(public.metadata_path().into(), site);
            }
        }
        for (path, site) in more {
            sites.entry(path.into()).or_insert(site);
        }
        Self(sites)
    }

    /// The site that `parts` ask for. Routes come first; a query belongs to `/authorize` alone.
    pub(super) fn find(&self, parts: &Parts) -> Option<Site> {
        let site = self.0.get(parts.uri.path())?;
        let plain = door::path(&parts.uri).is_some() || site.asked == Asked::Endpoint("/authorize");
        plain.then(|| site.clone())
    }
}

/// How many questions a route answers: at most [`RATE`] at once, and as many a second.
#[derive(Debug, Default)]
struct Allowance(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    questions: u64,
    /// The second in which they were, by uptime.
    second: u64,
}

impl Allowance {
    fn take(&self, uptime: Duration) -> bool {
        let mut spent = lock(&self.0);
        if uptime.as_secs() != spent.second {
            *spent = Spent { questions: 0, second: uptime.as_secs() };
        }
        spent.questions = spent.questions.saturating_add(1);
        spent.questions <= RATE
    }
}

impl Site {
    /// Answers a request for it.
    pub(super) async fn answer(
        self,
        inner: &Inner,
        peer: &Peer,
        parts: Parts,
        body: Incoming,
    ) -> Result<Response<ReplyBody>, TurnedAway> {
        let away = |why| TurnedAway::from(why, Some(&self.route));
        if peer.is_ambiguous() {
            return Err(away(DoorRefusal::Framing));
        }
        door::admit_head(&parts, &self.route.allowed, inner.config.limits.headers_max)
            .map_err(away)?;
        if parts.method != self.method {
            let allowed = HeaderValue::from_str(self.method.as_str()).ok();
            let header = allowed.map(|allowed| (ALLOW, allowed));
            return Err(TurnedAway { header, ..away(DoorRefusal::MethodNotAllowed) });
        }
        let slot = inner.exchanges.take(1).ok_or_else(|| away(DoorRefusal::TooMany))?;
        if !self.allowance.take(inner.shared.clock.uptime()) {
            return Err(away(DoorRefusal::TooMany));
        }
        let (forward, server) = match (&self.route.oauth, self.route.upstream.http()) {
            (Some(OAuth::Terminate(resource)), _) => return Ok(ours(resource)),
            (Some(OAuth::Forward(forward)), Some(server)) => (forward, server),
            (Some(OAuth::Forward(_)) | None, _) => return Err(away(DoorRefusal::UnknownPath)),
        };
        let response = match self.asked {
            Asked::Metadata => match public(&self.route, &parts) {
                Some(public) => theirs(forward, server, &public).await,
                None => return Err(away(DoorRefusal::Host)),
            },
            Asked::Endpoint(_) => {
                let limits = BodyLimits {
                    bytes_max: DOCUMENT_BYTES_MAX,
                    budget: &inner.body_budget,
                    patience: inner.config.timeouts.body,
                };
                let (body, _budget) = body::read(body, limits).await.map_err(away)?;
                if peer.is_ambiguous() {
                    return Err(away(DoorRefusal::Framing));
                }
                endpoint(server, &parts, body).await
            }
        };
        drop(slot);
        Ok(response)
    }
}

/// The URL at which the client that sent `parts` dials `route`. The request passed the door, so
/// where none is configured its host is a loopback name.
pub(super) fn public<'a>(route: &'a RouteState, parts: &Parts) -> Option<Cow<'a, PublicUrl>> {
    if let Some(public) = route.oauth.as_ref()?.public() {
        return Some(Cow::Borrowed(public));
    }
    let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| parts.uri.authority().map(::http::uri::Authority::as_str))?;
    PublicUrl::parse(&format!("http://{host}{}", route.path)).map(Cow::Owned)
}

/// The metadata of a resource of our own.
fn ours(resource: &Terminate) -> Response<ReplyBody> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply::whole(200, headers, resource.metadata())
}

/// The server's own metadata, with our address. Nothing is kept: what the server says now is what
/// the client gets.
async fn theirs(
    forward: &Forward,
    server: &HttpUpstream,
    public: &PublicUrl,
) -> Response<ReplyBody> {
    let mut status = StatusCode::BAD_GATEWAY;
    for source in forward.sources() {
        let mut request = Request::get(&*source).body(Full::default());
        if let Ok(request) = &mut request {
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
        let Ok(request) = request else { continue };
        let answer = match asked(server, request).await {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::debug!(?failure, "a server's metadata was not had");
                continue;
            }
        };
        if answer.status() != StatusCode::OK {
            if !answer.status().is_redirection() && !answer.status().is_success() {
                status = answer.status();
            }
            continue;
        }
        let (parts, body) = answer.into_parts();
        let told = relabelled(body, forward.theirs(), public.as_str());
        match told {
            Ok(body) if media(&parts.headers) == Some(Media::Json) => {
                return reply::whole(200, reply::headers(&parts.headers, None), body);
            }
            Ok(_) => tracing::warn!("a server's metadata is not of type application/json"),
            Err(problem) => tracing::warn!(?problem, "a server's metadata was withheld"),
        }
        status = StatusCode::BAD_GATEWAY;
    }
    reply::bare(status)
}

/// One of the endpoints of 2025-03-26, as the server answers it. A redirect is for the client's
/// browser.
async fn endpoint(server: &HttpUpstream, parts: &Parts, body: Bytes) -> Response<ReplyBody> {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::builder().method(parts.method.clone()).uri(target);
    let Ok(mut request) = request.body(Full::new(body)) else {
        return reply::bare(StatusCode::BAD_GATEWAY);
    };
    for name in [ACCEPT, AUTHORIZATION, CONTENT_TYPE] {
        let value = parts.headers.get(&name).cloned();
        request.headers_mut().extend(value.map(|value| (name, value)));
    }
    match asked(server, request).await {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let mut headers = reply::headers(&parts.headers, None);
            for name in [LOCATION, PRAGMA] {
                headers.extend(parts.headers.get(&name).map(|value| (name, value.clone())));
            }
            reply::whole(parts.status.as_u16(), headers, body)
        }
        Err(failure) => {
            tracing::debug!(?failure, "an endpoint at a server's origin did not answer");
            reply::bare(StatusCode::BAD_GATEWAY)
        }
    }
}

async fn asked(
    server: &HttpUpstream,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, UpstreamFailure> {
    let answered = tokio::time::timeout(PATIENCE, server.ask(request)).await;
    answered.unwrap_or(Err(UpstreamFailure::TimedOut))
}

/// Names our metadata, `ours`, in the server's challenges instead of its own. Where tokens end
/// here, none comes this far.
pub(super) fn relabel(oauth: &OAuth, ours: &str, headers: &mut HeaderMap) {
    let OAuth::Forward(forward) = oauth else { return };
    let ::http::header::Entry::Occupied(mut challenges) = headers.entry(WWW_AUTHENTICATE) else {
        return;
    };
    for value in challenges.iter_mut() {
        let Some((text, named)) = challenge::relabelled(value.as_bytes(), ours) else { continue };
        forward.learn(&named);
        if let Ok(told) = HeaderValue::from_bytes(&text) {
            *value = told;
        }
    }
}
