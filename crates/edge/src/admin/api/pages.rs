//! What the page of approvers calls to sign in and out: see [`super::super::sign_in`].

use std::net::IpAddr;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::{ApprovalsApi, BUSY, METHOD, NOT_FOUND, OTHER_SITE};
use crate::admin::places::Place;
use crate::admin::reply::{self, And, Body, Problem};
use crate::admin::sign_in::{Attempt, Offer, SignIn, Trouble};
use bartizan_gate::session::DoorRefusal;

/// Whose slots answers of the issuer take. No approver has this id: it has a character that none has.
const SIGN_INS: &str = "\0sign-ins";

/// A request, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Options,
    Begin,
    Callback,
    Session,
    SignOut,
}

#[derive(Debug, Serialize)]
struct Options<'a> {
    /// How to sign in at an issuer, if one can.
    sign_in: Option<Offer<'a>>,
}

/// Who sends the request.
#[derive(Debug, Serialize)]
struct Who<'a> {
    id: &'a str,
    groups: &'a [Box<str>],
}

/// Method, path and what it names.
pub(super) const ROUTES: [(&str, &str, Page); 5] = [
    ("GET", "/console/options", Page::Options),
    ("GET", "/console/sign-in", Page::Begin),
    ("GET", "/console/callback", Page::Callback),
    ("GET", "/console/session", Page::Session),
    ("POST", "/console/sign-out", Page::SignOut),
];

impl Page {
    pub(super) fn of(path: &str) -> Option<Self> {
        ROUTES.iter().find(|(_, known, _)| *known == path).map(|(_, _, page)| *page)
    }

    fn check_method(self, method: &Method) -> Result<(), Problem> {
        let found = ROUTES.iter().find(|(_, _, page)| *page == self);
        match found.map(|(wanted, _, _)| *wanted) {
            Some(wanted) if wanted != method.as_str() => Err(METHOD.and(And::Allow(wanted))),
            _ => Ok(()),
        }
    }
}

impl ApprovalsApi {
    /// Answers a request for `page` of `peer`, whose connection is at `place`.
    pub(super) async fn page(
        &self,
        page: Page,
        parts: &Parts,
        peer: IpAddr,
        place: &Place,
    ) -> Result<Response<Body>, Problem> {
        page.check_method(&parts.method)?;
        if page == Page::Options {
            let sign_in = self.sign_in.as_ref().map(SignIn::offer);
            return Ok(reply::of(&Options { sign_in }));
        }
        let sign_in = self.sign_in.as_ref().ok_or(NOT_FOUND)?;
        let headers = &parts.headers;
        match page {
            Page::Begin | Page::Callback if !is_navigation(headers) => {
                Err(self.stranger(DoorRefusal::Origin, peer, OTHER_SITE))
            }
            Page::Begin => {
                let query = parts.uri.query().unwrap_or_default();
                let began = sign_in.begin(query, self.shared.clock.uptime()).await;
                began.or_else(|trouble| self.failed(sign_in, trouble, None, peer))
            }
            Page::Callback => self.finish(sign_in, parts, peer, place).await,
            Page::Options | Page::Session => {
                let by = self.authenticate(&parts.method, headers, peer)?;
                Ok(reply::of(&Who { id: &by.approver.id, groups: &by.approver.groups }))
            }
            Page::SignOut => {
                self.authenticate(&parts.method, headers, peer)?;
                Ok(sign_in.sign_out(headers))
            }
        }
    }

    /// Takes an answer of the issuer. Only one to a sign-in that this browser began may take longer than
    /// a probe.
    async fn finish(
        &self,
        sign_in: &SignIn,
        parts: &Parts,
        peer: IpAddr,
        place: &Place,
    ) -> Result<Response<Body>, Problem> {
        let (headers, now) = (&parts.headers, self.shared.now());
        let query = parts.uri.query().unwrap_or_default();
        let attempt = match sign_in.attempt(headers, query, now.uptime) {
            Ok(attempt) => attempt,
            Err(trouble) => return self.failed(sign_in, trouble, None, peer),
        };
        place.leave_for(self.slots.take(SIGN_INS).ok_or(BUSY)?);
        let visitor = sign_in.visitor(headers, peer);
        let finished = sign_in.finish(&attempt, query, visitor, now).await;
        finished.or_else(|trouble| self.failed(sign_in, trouble, Some(&attempt), peer))
    }

    /// Records that nobody was signed in, and sends the browser to the page, which says so.
    fn failed(
        &self,
        sign_in: &SignIn,
        trouble: Trouble,
        attempt: Option<&Attempt>,
        peer: IpAddr,
    ) -> Result<Response<Body>, Problem> {
        let note = format!("a sign-in of an approver on `admin`: {}", trouble.note());
        self.note_stranger(trouble.refusal(), peer, note)?;
        Ok(sign_in.failed(trouble, attempt))
    }
}

/// Whether a browser goes there as to a page of its own, not for a part of another page. A client that
/// does not say what for is no browser of today.
fn is_navigation(headers: &HeaderMap) -> bool {
    let document = headers.get("sec-fetch-dest").map(HeaderValue::as_bytes);
    matches!(document, None | Some(b"document"))
}

/// There is no session.
pub(super) const NO_SESSION: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "no-session",
    "nobody is signed in here, or no longer",
    "sign in again",
);
