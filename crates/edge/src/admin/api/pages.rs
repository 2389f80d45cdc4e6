//! What the page of approvers calls to sign in and out: see [`super::super::sign_in`].

use std::net::IpAddr;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::{ApprovalsApi, BUSY, METHOD, NOT_FOUND, OTHER_SITE};
use crate::admin::places::Place;
use crate::admin::reply::{self, And, Body, Problem};
use crate::admin::sign_in::{Offer, SignIn, Trouble};
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

impl Page {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/console/options" => Self::Options,
            "/console/sign-in" => Self::Begin,
            "/console/callback" => Self::Callback,
            "/console/session" => Self::Session,
            "/console/sign-out" => Self::SignOut,
            _ => return None,
        })
    }

    fn check_method(self, method: &Method) -> Result<(), Problem> {
        let (wanted, allowed) = match self {
            Self::SignOut => (Method::POST, "POST"),
            Self::Options | Self::Begin | Self::Callback | Self::Session => (Method::GET, "GET"),
        };
        if *method == wanted { Ok(()) } else { Err(METHOD.and(And::Allow(allowed))) }
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
                let began = sign_in.begin(self.shared.clock.uptime()).await;
                began.or_else(|trouble| self.failed(sign_in, trouble, peer))
            }
            Page::Callback => {
                let query = parts.uri.query().unwrap_or_default();
                let finished = self.finish(sign_in, headers, query, place).await?;
                finished.or_else(|trouble| self.failed(sign_in, trouble, peer))
            }
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
        headers: &HeaderMap,
        query: &str,
        place: &Place,
    ) -> Result<Result<Response<Body>, Trouble>, Problem> {
        let now = self.shared.now();
        let attempt = match sign_in.attempt(headers, query, now.uptime) {
            Ok(attempt) => attempt,
            Err(trouble) => return Ok(Err(trouble)),
        };
        place.leave_for(self.slots.take(SIGN_INS).ok_or(BUSY)?);
        Ok(sign_in.finish(&attempt, query, now).await)
    }

    /// Records that nobody was signed in, and sends the browser to the page, which says so.
    fn failed(
        &self,
        sign_in: &SignIn,
        trouble: Trouble,
        peer: IpAddr,
    ) -> Result<Response<Body>, Problem> {
        let note = format!("a sign-in of an approver on `admin`: {}", trouble.note());
        self.note_stranger(trouble.refusal(), peer, note)?;
        Ok(sign_in.failed(trouble))
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
