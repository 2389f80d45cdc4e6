//! `GET /metrics`: what a run counts and measures, as text for Prometheus. It needs no token; the page
//! names nothing that an agent or a server chose.

use std::sync::Arc;

use ::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::reply::{Body, json};

/// The path.
pub(super) const PATH: &str = "/metrics";
/// Pages that are made at once. Making one reads files: if the disk hangs, no more threads wait for it,
/// and further requests end with their connections.
const PAGES_AT_ONCE: usize = 1;

/// Makes the page.
pub trait MetricsPage: Send + Sync {
    /// The value of `Content-Type`, and the text, for the value of `Accept`. May read files.
    fn page(&self, accept: &str) -> (&'static str, Bytes);
}

/// The page, and how many of it are made.
#[derive(Clone)]
pub(super) struct Scraping {
    page: Arc<dyn MetricsPage>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Scraping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scraping").finish_non_exhaustive()
    }
}

impl Scraping {
    pub(super) fn new(page: Arc<dyn MetricsPage>) -> Self {
        Self { page, places: Arc::new(Semaphore::new(PAGES_AT_ONCE)) }
    }

    /// The answer to `request`.
    pub(super) async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = json(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let accepts = request.headers().get_all(ACCEPT).iter();
        let accepts: Vec<&str> = accepts.filter_map(|value| value.to_str().ok()).collect();
        let accept = accepts.join(",");
        let page = Arc::clone(&self.page);
        // It is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let made = tokio::task::spawn_blocking(move || {
            let made = page.page(&accept);
            drop(place);
            made
        });
        match made.await {
            Ok((kind, text)) => {
                let mut response = json(StatusCode::OK, text);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }
            // A panic, which the hook has logged.
            Err(_) => json(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
        }
    }
}
