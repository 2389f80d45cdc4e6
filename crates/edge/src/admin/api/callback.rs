//! The pages behind the links of webhooks, at `/callback/{link}`.
//!
//! `GET` shows the held call whole and changes nothing, because chats and mail scanners fetch what
//! they find in a message. `POST`, which the page's one button sends with a reason, gives the answer.
//! The page has no script; what agents wrote is escaped, and its policy (Content Security Policy)
//! lets nothing run or load but the style sheet of the console.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use ::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;

use super::super::answer::{Answer, Verdict as Given};
use super::super::approvers::Caller;
use super::super::message::field;
use super::super::places::Place;
use super::super::reply::{self, And, Body, Problem};
use super::{ApprovalsApi, BUSY, NOT_FOUND, OTHER_SITE, blocking, in_time, is_same_site, objected};
use crate::webhook::link::{BadLink, Link, PATH};
use crate::webhook::story::{Params, Story, missing};
use bartizan_approvals::{AnswerError, HoldState, HoldView, Verdict};
use bartizan_gate::session::DoorRefusal;
use bartizan_gate::wire::inert::push_markup;

/// What the page may do: look like the console, and be sent to where it came from.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Method and path of each request.
pub(super) const ROUTES: [(&str, &str); 2] =
    [("GET", "/callback/{link}"), ("POST", "/callback/{link}")];
const FORM: &str = "application/x-www-form-urlencoded";

impl ApprovalsApi {
    /// Answers `request` of `peer` for a link, whose connection is at `place`.
    pub(super) async fn follow(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
        place: &Place,
    ) -> Response<Body> {
        match self.followed(request, peer, place).await {
            Ok(response) => response,
            Err(problem) => refused(&problem, None),
        }
    }

    async fn followed(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
        place: &Place,
    ) -> Result<Response<Body>, Problem> {
        let (parts, body) = request.into_parts();
        let links = self.links.as_ref().ok_or(NOT_FOUND)?;
        let token = parts.uri.path().strip_prefix(PATH).unwrap_or_default();
        let link = links.open(token, self.shared.now()).map_err(|bad| match bad {
            BadLink::Forged => self.stranger(DoorRefusal::BadToken, peer, NO_LINK),
            BadLink::Expired => OVER,
        })?;
        let slot = self.slots.take(&link.approver.id).ok_or(BUSY)?;
        place.leave_for(slot);
        match parts.method {
            Method::GET | Method::HEAD => blocking(move || self.look(&link)).await,
            Method::POST => {
                let reason = reason(&parts.headers, body).await?;
                blocking(move || self.act(&link, reason)).await
            }
            _ => Err(METHOD.and(And::Allow("GET, HEAD, POST"))),
        }
    }

    /// The page of a link. Nothing changes.
    fn look(&self, link: &Link) -> Result<Response<Body>, Problem> {
        let hold = self.approvals.get(&link.hold).ok_or(GONE)?;
        let (story, params) = (Story::of(&hold), Params::of(&hold));
        Ok(match self.objection(link, &hold, &params) {
            Some(problem) => refused(&problem, Some(&story)),
            None => asking(link, &story, &params),
        })
    }

    /// Gives the answer that a link stands for.
    fn act(&self, link: &Link, reason: Box<str>) -> Result<Response<Body>, Problem> {
        let hold = self.approvals.get(&link.hold).ok_or(GONE)?;
        let story = Story::of(&hold);
        if let Some(problem) = unfit(link, &hold, &Params::of(&hold)) {
            return Ok(refused(&problem, Some(&story)));
        }
        let answer = Answer { digest: Some(link.digest.clone()), reason, scope: None };
        let by = Caller::of(Arc::clone(&link.approver));
        let done = self.judge(&link.hold, given(link.verdict), &answer, &by);
        Ok(match done {
            Ok(hold) => answered(&hold),
            Err(problem) => refused(&problem, Some(&story)),
        })
    }

    /// Why the answer would do nothing now.
    fn objection(&self, link: &Link, hold: &HoldView, params: &Params) -> Option<Problem> {
        let (id, by, now) = (&link.hold, &link.approver, self.shared.now());
        if link.digest != hold.digest {
            return Some(objected(&AnswerError::WrongDigest));
        }
        let objection = match link.verdict {
            Verdict::Grant => self.approvals.may_grant(id, &link.digest, by, "", None, now),
            Verdict::Refuse => self.approvals.may_refuse(id, by, "", now),
        };
        objection.err().map(|error| objected(&error)).or_else(|| unfit(link, hold, params))
    }
}

/// Why the call cannot be granted by a link: the page cannot show all of it, or several people must
/// grant it, and whoever follows the link may be one who has granted it already (threat I3).
fn unfit(link: &Link, hold: &HoldView, params: &Params) -> Option<Problem> {
    if link.verdict == Verdict::Refuse {
        return None;
    }
    if !link.counts_for(hold) {
        return Some(SEVERAL);
    }
    (!params.are_shown()).then_some(WITHHELD)
}

fn given(verdict: Verdict) -> Given {
    match verdict {
        Verdict::Grant => Given::Grant,
        Verdict::Refuse => Given::Refuse,
    }
}

/// The reason in the form that the page sends.
async fn reason(headers: &HeaderMap, body: Incoming) -> Result<Box<str>, Problem> {
    if !is_same_site(headers) {
        return Err(OTHER_SITE);
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(media), None) = (types.next(), types.next()) else { return Err(NO_FORM) };
    if !media.as_bytes().eq_ignore_ascii_case(FORM.as_bytes()) {
        return Err(NO_FORM);
    }
    let body = in_time(body).await?;
    let body = std::str::from_utf8(&body).map_err(|_| NO_FORM)?;
    let reason = field(body, "reason").map_err(|()| NO_FORM)?.ok_or(NO_FORM)?;
    let reason = reason.trim();
    if reason.is_empty() { Err(NO_REASON) } else { Ok(reason.into()) }
}

/// The page that asks for the answer of `link`.
fn asking(link: &Link, story: &Story, params: &Params) -> Response<Body> {
    let mut body = String::new();
    told(&mut body, story);
    push(&mut body, "<dl>");
    for (name, value) in &story.facts {
        push(&mut body, "<dt>");
        push_markup(&mut body, name);
        push(&mut body, "</dt><dd>");
        push_markup(&mut body, value);
        push(&mut body, "</dd>");
    }
    push(&mut body, "</dl>");
    if let Params::Shown { text: shown, bytes, .. } = params {
        write!(body, "<h3 id=\"shown-title\">What would be sent: {bytes} bytes</h3>")
            .unwrap_or_default();
        push(&mut body, "<pre id=\"shown\" tabindex=\"0\" aria-labelledby=\"shown-title\">");
        push_markup(&mut body, shown);
        push(&mut body, "</pre>");
    }
    paragraph(&mut body, &missing(params, false));
    let (class, verb) = match link.verdict {
        Verdict::Grant => ("grant", "Grant"),
        Verdict::Refuse => ("refuse", "Refuse"),
    };
    push(&mut body, "<form method=\"post\"><label for=\"reason\">Your name, and why</label>");
    push(&mut body, "<input id=\"reason\" name=\"reason\" maxlength=\"500\" required>");
    write!(
        body,
        "<div class=\"buttons\"><button type=\"submit\" class=\"{class}\">{verb} this call</button>\
         </div></form>"
    )
    .unwrap_or_default();
    paragraph(&mut body, &format!("The answer counts as that of {}.", link.approver.id));
    page(StatusCode::OK, &format!("{verb} a held call"), &body)
}

/// The page after an answer that counts.
fn answered(hold: &HoldView) -> Response<Body> {
    let said = match hold.state {
        HoldState::Pending => {
            let grants = hold.answers.iter().filter(|it| it.verdict == Verdict::Grant).count();
            format!("Your grant counts. {grants} of {} approvers have granted it.", hold.quorum)
        }
        HoldState::Refused => "The call is refused.".to_owned(),
        HoldState::Granted
        | HoldState::Spent
        | HoldState::Unknown
        | HoldState::Expired
        | HoldState::Cancelled => "The call is granted, once.".to_owned(),
    };
    let mut body = String::new();
    told(&mut body, &Story::of(hold));
    paragraph(&mut body, &said);
    page(StatusCode::OK, "The answer is recorded", &body)
}

/// The page that says why nothing was done, and what has become of the call.
fn refused(problem: &Problem, story: Option<&Story>) -> Response<Body> {
    let mut body = String::new();
    if let Some(story) = story {
        told(&mut body, story);
    }
    paragraph(&mut body, &format!("Nothing was done: {}.", problem.message));
    if let Some(story) = story {
        paragraph(&mut body, &format!("The held call: {}.", story.end));
    }
    let mut response = page(problem.status, "Nothing was done", &body);
    response.headers_mut().extend(problem.and.header());
    response
}

fn told(body: &mut String, story: &Story) {
    push(body, "<h2>");
    push_markup(body, &story.title);
    push(body, "</h2>");
    paragraph(body, &story.message);
}

/// A page with `title`, a text of the program, and `body`, which is escaped already.
fn page(status: StatusCode, title: &str, body: &str) -> Response<Body> {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title} - Bartizan</title>\n\
         <link rel=\"stylesheet\" href=\"../console/style.css\">\n</head>\n<body>\n\
         <header><h1>Bartizan <span>approvals</span></h1></header>\n<main>\n{body}\n</main>\n\
         </body>\n</html>\n"
    );
    let mut response = reply::json(status, Bytes::from(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HTML);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

fn push(body: &mut String, markup: &'static str) {
    body.push_str(markup);
}

/// A paragraph with a text that is not escaped yet; nothing for an empty one.
fn paragraph(body: &mut String, said: &str) {
    if !said.is_empty() {
        push(body, "<p>");
        push_markup(body, said);
        push(body, "</p>");
    }
}

const NO_LINK: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "bad-link",
    "this is no link of this firewall, or its configuration has changed since",
    "use the console or the command line",
);
const OVER: Problem = Problem::new(
    StatusCode::GONE,
    "link-over",
    "the time of this link is over",
    "use the console or the command line",
);
const GONE: Problem = Problem::new(
    StatusCode::GONE,
    "unknown-hold",
    "the held call of this link is no longer known",
    "the call must be made again",
);
const WITHHELD: Problem = Problem::new(
    StatusCode::CONFLICT,
    "not-shown",
    "not all parameters can be shown here, so they cannot be granted here",
    "use the console or the command line",
);
const SEVERAL: Problem = Problem::new(
    StatusCode::CONFLICT,
    "several-people",
    "several people must grant it, and a link does not say who follows it",
    "use the console or the command line",
);
const METHOD: Problem = Problem::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method",
    "this path does not take the method",
    "open the link in a browser",
);
const NO_FORM: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "malformed",
    "this is not what the page of this link sends",
    "open the link in a browser",
);
const NO_REASON: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "malformed",
    "a reason is missing",
    "go back, and say who you are and why",
);
