//! OAuth discovery: metadata about a route's resource (RFC 9728), and, if configured, the endpoints
//! of MCP 2025-03-26 at the server's origin.
//!
//! These requests are no MCP messages: no policy is asked, and only refusals are recorded.
//! Everybody may send them, so each route has a rate limit, and none of our credentials goes to the
//! server with them. Their bodies may hold tokens, so no body is logged. Redirects are not
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
use super::connection_state::ConnectionState;
use super::rejection::Rejection;
use super::reply::{self, ReplyBody};
use super::{ListenerState, RouteState, admission};
use crate::oauth::metadata::{DOCUMENT_BYTES_MAX, relabelled};
use crate::oauth::{
    Forward, OAuth, ORIGIN_ENDPOINTS, PublicUrl, RESOURCE_METADATA, Terminate, challenge,
};
use crate::upstream::{HttpUpstream, Media, media};
use bartizan_gate::session::{DoorRefusal, UpstreamFailure};

/// Timeout of one request to the server.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Requests that one route answers in one second.
const RATE: u64 = 20;

/// What one discovery path gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SiteKind {
    /// Metadata about the resource.
    Metadata,
    /// An OAuth endpoint of MCP 2025-03-26, with its path.
    Endpoint(&'static str),
}

/// One discovery path of a route.
#[derive(Debug, Clone)]
pub(super) struct Site {
    route: Arc<RouteState>,
    asked: SiteKind,
    method: Method,
    allowance: Arc<SiteRate>,
}

/// The discovery paths of all routes.
#[derive(Debug)]
pub(super) struct Sites(HashMap<Box<str>, Site>);

impl Sites {
    /// The discovery paths of `routes`. A route's metadata is found below the path of its public
    /// URL and below its own paths; if only one route has OAuth, also at the well-known path
    /// itself.
    pub(super) fn of<'a>(routes: impl Iterator<Item = &'a Arc<RouteState>>) -> Self {
        let mut sites = HashMap::new();
        let mut more = Vec::new();
        let routes: Vec<_> = routes.filter(|route| route.oauth.is_some()).collect();
        for route in &routes {
            let Some(oauth) = &route.oauth else { continue };
            let site = Site {
                route: Arc::clone(route),
                asked: SiteKind::Metadata,
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
                    let site = Site { asked: SiteKind::Endpoint(path), method, ..site.clone() };
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

    /// The discovery path that a request names. Only `/authorize` may have a query.
    pub(super) fn find(&self, parts: &Parts) -> Option<Site> {
        let site = self.0.get(parts.uri.path())?;
        let plain =
            admission::path(&parts.uri).is_some() || site.asked == SiteKind::Endpoint("/authorize");
        plain.then(|| site.clone())
    }
}

/// Rate limit of one route: at most [`RATE`] requests in each second of uptime.
#[derive(Debug, Default)]
struct SiteRate(Mutex<SecondCount>);

#[derive(Debug, Default)]
struct SecondCount {
    questions: u64,
    /// The second of uptime that is counted.
    second: u64,
}

impl SiteRate {
    fn take(&self, uptime: Duration) -> bool {
        let mut spent = lock(&self.0);
        if uptime.as_secs() != spent.second {
            *spent = SecondCount { questions: 0, second: uptime.as_secs() };
        }
        spent.questions = spent.questions.saturating_add(1);
        spent.questions <= RATE
    }
}

impl Site {
    /// Answers a request for this path; an error is the rejection to send.
    pub(super) async fn answer(
        self,
        inner: &ListenerState,
        peer: &ConnectionState,
        parts: Parts,
        body: Incoming,
    ) -> Result<Response<ReplyBody>, Rejection> {
        let reject = |why| Rejection::from(why, Some(&self.route));
        if peer.is_ambiguous() {
            return Err(reject(DoorRefusal::Framing));
        }
        admission::admit_head(&parts, &self.route.allowed, &inner.config.limits).map_err(reject)?;
        if parts.method != self.method {
            let allowed = HeaderValue::from_str(self.method.as_str()).ok();
            let header = allowed.map(|allowed| (ALLOW, allowed));
            return Err(Rejection { header, ..reject(DoorRefusal::MethodNotAllowed) });
        }
        let slot = inner.exchanges.take(1).ok_or_else(|| reject(DoorRefusal::TooMany))?;
        if !self.allowance.take(inner.shared.clock.uptime()) {
            return Err(reject(DoorRefusal::TooMany));
        }
        let (forward, server) = match (&self.route.oauth, self.route.upstream.http()) {
            (Some(OAuth::Terminate(resource)), _) => return Ok(own_metadata(resource)),
            (Some(OAuth::Forward(forward)), Some(server)) => (forward, server),
            (Some(OAuth::Forward(_)) | None, _) => return Err(reject(DoorRefusal::UnknownPath)),
        };
        let response = match self.asked {
            SiteKind::Metadata => match public(&self.route, &parts) {
                Some(public) => server_metadata(forward, server, &public).await,
                None => return Err(reject(DoorRefusal::Host)),
            },
            SiteKind::Endpoint(_) => {
                let limits =
                    BodyLimits { bytes_max: DOCUMENT_BYTES_MAX, ..inner.body_limits(None) };
                let arrival = peer.body_arrives();
                let (body, _memory) = body::read(body, limits).await.map_err(reject)?;
                drop(arrival);
                if peer.is_ambiguous() {
                    return Err(reject(DoorRefusal::Framing));
                }
                endpoint(server, &parts, body).await
            }
        };
        drop(slot);
        Ok(response)
    }
}

/// The URL at which the client reaches `route`: the configured one, else one made from the
/// request's host, which admission has limited to loopback names. `None` without OAuth.
pub(super) fn public<'a>(route: &'a RouteState, parts: &Parts) -> Option<Cow<'a, PublicUrl>> {
    if let Some(public) = route.oauth.as_ref()?.public() {
        return Some(Cow::Borrowed(public));
    }
    let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| parts.uri.authority().map(::http::uri::Authority::as_str))?;
    PublicUrl::parse(&format!("http://{host}{}", route.path)).map(Cow::Owned)
}

/// Our own metadata, where we verify access tokens.
fn own_metadata(resource: &Terminate) -> Response<ReplyBody> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply::whole(200, headers, resource.metadata())
}

/// The server's metadata with our URL as its `resource`. Nothing is cached.
async fn server_metadata(
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
        let answer = match ask(server, request).await {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::debug!(?failure, "fetching a server's OAuth metadata failed");
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
            Ok(_) => tracing::warn!("a server's OAuth metadata is not application/json; withheld"),
            Err(problem) => {
                tracing::warn!(?problem, "a server's OAuth metadata is invalid; withheld");
            }
        }
        status = StatusCode::BAD_GATEWAY;
    }
    reply::bare(status)
}

/// Forwards a request to an OAuth endpoint of MCP 2025-03-26. A redirect goes back to the client,
/// whose browser follows it.
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
    match ask(server, request).await {
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

async fn ask(
    server: &HttpUpstream,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, UpstreamFailure> {
    let answered = tokio::time::timeout(ANSWER_MAX, server.ask(request)).await;
    answered.unwrap_or(Err(UpstreamFailure::TimedOut))
}

/// Replaces the metadata URL in the server's challenges by `ours`. Does nothing where we verify
/// tokens ourselves: the server's challenges are removed earlier.
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
