//! The approvals API of the operators' listener: what `bartizan approvals` calls.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /approvals`, with `?state=` and a state, `ended` or `all`; `pending` by default; `?max=`, `?before=` and `?since=` | The held calls. |
//! | `GET /approvals/changes?after=N` | The number of the latest change, once it is not N; at the latest after [`CHANGES_WAIT`]. |
//! | `GET /approvals/{id}` | One held call, whole. |
//! | `POST /approvals/{id}/grant`, `POST /approvals/{id}/refuse` | What it is now. |
//! | `GET` and `POST /callback/{link}` | A page for people, see `callback`; the link is the token. |
//!
//! [`super::overview`] has what else they may look at.
//!
//! Each but the last needs `Authorization: Bearer` with an approver's token, or cookie and key of a
//! session of [`super::sign_in`]; the network address proves nothing. No cookie is worth anything by
//! itself, so no other site can use a browser's; a request that names another site as its origin is
//! refused all the same. Each answer, also one that does not count, is in the journal before it takes
//! effect.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, HOST, ORIGIN};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

mod callback;
mod pages;

use self::pages::{NO_SESSION, Page};
use super::answer::{Answer, BODY_BYTES_MAX, Verdict};
use super::approvers::{Approvers, Caller, FailureLimit};
use super::overview::{AUDIT, Overview, SERVERS};
use super::places::{Place, Slots};
use super::record;
use super::reply::{self, And, Body, Problem};
use super::sign_in::{NoSession, SignIn};
use crate::Shared;
use crate::upstream::{Media, media};
use crate::webhook::link::{Links, PATH as LINKS};
use bartizan_approvals::{AnswerError, Approvals, Approver, HoldState, HoldView};
use bartizan_gate::evidence::record::AuditRecord;
use bartizan_gate::session::{DoorFacts, DoorRefusal};
use bartizan_outbound::is_coded;

/// Where all of it is.
const ROOT: &str = "/approvals";
/// Time for the body of an answer.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Held calls in a list at most.
const LISTED_MAX: usize = 500;
/// Bytes of the held calls in a list at most.
const LISTED_BYTES_MAX: usize = 4 << 20;
/// Of a body that is too large, so much is read before it is refused, bytes.
const DISCARDED_BYTES_MAX: usize = 256 << 10;
/// How long a request for changes waits for one.
pub const CHANGES_WAIT: Duration = Duration::from_secs(25);
/// Timeout for a whole connection of an approver: its request and its answer.
pub(super) const REQUEST: Duration = Duration::from_mins(1);

/// What approvers reach.
pub struct ApprovalsApi {
    approvals: Arc<Approvals>,
    approvers: Approvers,
    failures: FailureLimit,
    slots: Arc<Slots>,
    shared: Shared,
    sign_in: Option<SignIn>,
    overview: Option<Arc<Overview>>,
    /// The links of webhooks, if any sends some.
    links: Option<Arc<Links>>,
}

/// A request, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    List(Wanted),
    Changes { after: Option<u64> },
    One(Box<str>),
    Answer(Box<str>, Verdict),
    Records(Box<str>),
    RecordsAfter(Option<u64>),
    Servers,
}

/// Which held calls a list has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    states: Vec<HoldState>,
    /// Only those that got into their state then or later, milliseconds since 1970.
    since_ms: u64,
    /// How many at most.
    max: usize,
    /// Only those that were asked before this one.
    before: Option<Box<str>>,
}

/// A list, in which the parameters of each call are left out.
#[derive(Debug, Serialize)]
struct Listed {
    /// The id of the approver who asks.
    approver: Box<str>,
    /// The number of the latest change that it may have.
    change: u64,
    approvals: Vec<Value>,
    /// How many are left out.
    more: usize,
}

#[derive(Debug, Serialize)]
struct One {
    approval: Value,
}

#[derive(Debug, Serialize)]
struct Changed {
    /// The number of the latest change.
    change: u64,
}

impl fmt::Debug for ApprovalsApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalsApi").finish_non_exhaustive()
    }
}

impl ApprovalsApi {
    /// Serves `approvals` to `approvers`.
    pub fn new(approvals: Arc<Approvals>, approvers: Approvers, shared: Shared) -> Self {
        Self {
            approvals,
            approvers,
            failures: FailureLimit::default(),
            slots: Arc::default(),
            shared,
            sign_in: None,
            overview: None,
            links: None,
        }
    }

    /// Lets approvers sign in at an issuer, too.
    #[must_use]
    pub fn with_sign_in(self, sign_in: SignIn) -> Self {
        Self { sign_in: Some(sign_in), ..self }
    }

    /// Shows approvers `overview`, too.
    #[must_use]
    pub fn with_overview(self, overview: Overview) -> Self {
        Self { overview: Some(Arc::new(overview)), ..self }
    }

    /// Answers `links`, too.
    #[must_use]
    pub fn with_links(self, links: Arc<Links>) -> Self {
        Self { links: Some(links), ..self }
    }

    /// Whether it answers requests for `path`.
    pub(super) fn has(path: &str) -> bool {
        let is_below = |root: &&str| {
            path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.starts_with(LINKS)
            || [ROOT, AUDIT, SERVERS].iter().any(is_below)
            || Page::of(path).is_some()
    }

    /// Answers `request` of `peer`, whose connection is at `place`.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
        place: &Place,
    ) -> Response<Body> {
        if request.uri().path().starts_with(LINKS) {
            return self.follow(request, peer, place).await;
        }
        match self.handle(request, peer, place).await {
            Ok(response) => response,
            Err(problem) => problem.response(),
        }
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
        place: &Place,
    ) -> Result<Response<Body>, Problem> {
        let (parts, body) = request.into_parts();
        if let Some(page) = Page::of(parts.uri.path()) {
            return self.page(page, &parts, peer, place).await;
        }
        let by = self.authenticate(&parts.method, &parts.headers, peer)?;
        let slot = self.slots.take(&by.approver.id).ok_or(BUSY)?;
        place.leave_for(slot);
        let target = Target::of(&parts.method, parts.uri.path(), parts.uri.query())?;
        match target {
            Target::Changes { after } => self.changed(self.approvals.changes(), after).await,
            Target::RecordsAfter(after) => self.changed(self.overview()?.head(), after).await,
            Target::Records(query) => self.records(query).await,
            Target::Servers => {
                let overview = self.overview()?;
                blocking(move || Ok(reply::of(&overview.servers(&self.shared)))).await
            }
            Target::List(wanted) => blocking(move || Ok(self.list(&wanted, &by.approver))).await,
            Target::One(id) => {
                blocking(move || {
                    let found = self.approvals.get(&id).ok_or(UNKNOWN)?;
                    Ok(reply::of(&One { approval: shown(&found, true) }))
                })
                .await
            }
            Target::Answer(id, verdict) => {
                let body = read(&parts.headers, body).await?;
                let answer = Answer::read(body, verdict).map_err(malformed)?;
                blocking(move || {
                    let hold = self.judge(&id, verdict, &answer, &by)?;
                    Ok(reply::of(&One { approval: shown(&hold, true) }))
                })
                .await
            }
        }
    }

    /// Who sends a request with `headers`. Whoever is nobody is recorded, and then told so.
    fn authenticate(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<Arc<Caller>, Problem> {
        if !is_own_site(headers) {
            return Err(self.stranger(DoorRefusal::Origin, peer, OTHER_SITE));
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (token, more) = (values.next(), values.next());
        let sign_in = self.sign_in.as_ref().filter(|_| SignIn::is_meant(headers));
        match (token, more, sign_in) {
            (None, None, Some(sign_in)) => {
                let found = sign_in.caller(method, headers, self.shared.clock.uptime());
                found.map_err(|why| match why {
                    NoSession::Origin => self.stranger(DoorRefusal::Origin, peer, OTHER_SITE),
                    NoSession::Unknown => self.stranger(DoorRefusal::BadToken, peer, NO_SESSION),
                })
            }
            (Some(value), None, None) => {
                let found = bearer(value).and_then(|token| self.approvers.find(token));
                let found = found.map(|approver| Arc::new(Caller::of(approver)));
                found.ok_or_else(|| self.stranger(DoorRefusal::BadToken, peer, BAD_TOKEN))
            }
            _ => Err(self.stranger(DoorRefusal::NoToken, peer, NO_TOKEN)),
        }
    }

    /// Records an attempt without a right token. Returns `problem`, or that there were too many.
    fn stranger(&self, why: DoorRefusal, peer: IpAddr, problem: Problem) -> Problem {
        let note = "a request for the approvals on `admin`".to_owned();
        self.note_stranger(why, peer, note).err().unwrap_or(problem)
    }

    /// Records an attempt without a right token. Fails if it cannot, or if there were too many.
    fn note_stranger(&self, why: DoorRefusal, peer: IpAddr, note: String) -> Result<(), Problem> {
        let now = self.shared.now();
        let facts = DoorFacts { peer: Some(peer), note: Some(note), ..DoorFacts::default() };
        if self.shared.record(self.shared.gate.refuse_at_door(why, facts, now)).is_err() {
            return Err(UNRECORDED);
        }
        if !self.failures.allows(peer, now.uptime) {
            return Err(FAILURES);
        }
        // The limit bounds these lines, too. The token is in no line.
        tracing::warn!(%peer, why = why.code(), "a request on `admin` came from no approver");
        Ok(())
    }

    fn list(&self, wanted: &Wanted, by: &Approver) -> Response<Body> {
        // Before the list, so that a change in between is not missed.
        let change = *self.approvals.changes().borrow();
        let Wanted { states, since_ms, max, before } = wanted;
        let (mut holds, mut more) =
            self.approvals.summaries(states, *since_ms, *max, before.as_deref());
        let waits = *states == [HoldState::Pending];
        // What is left out for its size is what is left out for its number: the calls that were asked
        // last of those that wait, and else the ones that were asked first.
        if !waits {
            holds.reverse();
        }
        let (mut approvals, mut bytes) = (Vec::new(), 0_usize);
        for hold in &holds {
            let listed = shown(hold, false);
            bytes = bytes.saturating_add(listed.to_string().len());
            if bytes > LISTED_BYTES_MAX {
                more = more.saturating_add(1);
            } else {
                approvals.push(listed);
            }
        }
        if !waits {
            approvals.reverse();
        }
        reply::of(&Listed { approver: by.id.clone(), change, approvals, more })
    }

    /// Waits until `changes` is not at `after`.
    async fn changed(
        &self,
        mut changes: watch::Receiver<u64>,
        after: Option<u64>,
    ) -> Result<Response<Body>, Problem> {
        let change = tokio::select! {
            () = self.shared.closing.cancelled() => return Err(STOPPING),
            waited = tokio::time::timeout(
                CHANGES_WAIT,
                changes.wait_for(|change| Some(*change) != after),
            ) => match waited {
                Ok(Ok(change)) => *change,
                // Nobody changes anything any more.
                Ok(Err(_)) => return Err(STOPPING),
                Err(_late) => after.unwrap_or_default(),
            },
        };
        Ok(reply::of(&Changed { change }))
    }

    fn overview(&self) -> Result<Arc<Overview>, Problem> {
        self.overview.clone().ok_or(NOT_FOUND)
    }

    async fn records(&self, query: Box<str>) -> Result<Response<Body>, Problem> {
        let overview = self.overview()?;
        let turn = overview.readings().acquire_owned().await.map_err(|_closed| STOPPING)?;
        blocking(move || {
            let found = overview.recent(&query);
            drop(turn);
            let found = found.map_err(|error| {
                tracing::error!(%error, "the journal cannot be read for an approver");
                UNREADABLE
            })?;
            Ok(reply::json(StatusCode::OK, found.ok_or(QUERY)?))
        })
        .await
    }

    /// Answers the hold `id`: recorded first, then done.
    fn judge(
        &self,
        id: &str,
        verdict: Verdict,
        answer: &Answer,
        caller: &Caller,
    ) -> Result<HoldView, Problem> {
        let now = self.shared.now();
        let found = self.approvals.get(id);
        let by = &*caller.approver;
        let said = record::Said { id, verdict, answer, by, about: found.as_ref() };
        // That an approver's id is the principal's is seen with the answer; it has other names, too.
        if found.as_ref().is_some_and(|hold| caller.is_principal(&hold.principal)) {
            return Err(self.not_counted(&said, &AnswerError::NotAllowed));
        }
        let (digest, scope) = (answer.digest.as_deref(), answer.scope.as_deref());
        let seen = |hold: &HoldView| digest.is_none_or(|digest| *digest == *hold.digest);
        if !found.as_ref().is_none_or(seen) {
            return Err(self.not_counted(&said, &AnswerError::WrongDigest));
        }
        let (digest, reason) = (digest.unwrap_or_default(), &*answer.reason);
        let objection = match verdict {
            Verdict::Grant => self.approvals.may_grant(id, digest, by, reason, scope, now),
            Verdict::Refuse => self.approvals.may_refuse(id, by, reason, now),
        };
        objection.map_err(|error| self.not_counted(&said, &error))?;
        self.keep(&record::of(&said, None, now))?;
        let done = match verdict {
            Verdict::Grant => self.approvals.grant(id, digest, by, reason, scope, now),
            Verdict::Refuse => self.approvals.refuse(id, by, reason, now),
        };
        // Somebody else may have been faster, or the store may not take it.
        let view = done.map_err(|error| self.not_counted(&said, &error))?;
        tracing::info!(
            hold = %view.id,
            answer = verdict.as_str(),
            by = ?by.id,
            state = %view.state,
            "an approver answered a held call"
        );
        Ok(view)
    }

    /// Records an answer that does not count. Returns why it does not, or that there were too many.
    fn not_counted(&self, said: &record::Said<'_>, error: &AnswerError) -> Problem {
        let now = self.shared.now();
        if !self.failures.allows_approver(said.by, now.uptime) {
            return FAILURES;
        }
        // The limit bounds these lines, too. Whether there is such a hold is known only by `about`.
        tracing::warn!(
            hold = ?said.about.map(|hold| &*hold.id).unwrap_or_default(),
            answer = said.verdict.as_str(),
            by = ?said.by.id,
            why = record::code(error),
            "an answer of an approver does not count"
        );
        match self.keep(&record::of(said, Some(error), now)) {
            Ok(()) => objected(error),
            Err(unrecorded) => unrecorded,
        }
    }

    fn keep(&self, record: &AuditRecord) -> Result<(), Problem> {
        self.shared.sink.keep(record).map_err(|unkept| {
            tracing::error!(cause = unkept.cause, "the answer of an approver was not recorded");
            UNRECORDED
        })
    }
}

/// A hold as JSON; without its parameters unless `whole`.
fn shown(hold: &HoldView, whole: bool) -> Value {
    let mut value = serde_json::to_value(hold).unwrap_or_default();
    let left_out: &[&str] = if whole { &["excerpt"] } else { &["shown", "previous"] };
    if let Some(members) = value.as_object_mut() {
        for name in left_out {
            members.remove(*name);
        }
    }
    value
}

/// Why an answer does not count, for the approver.
fn objected(error: &AnswerError) -> Problem {
    let (status, message, hint) = match error {
        AnswerError::Unknown => return UNKNOWN,
        AnswerError::NotPending(state) => {
            (StatusCode::CONFLICT, not_pending(*state), "`show` says what became of it")
        }
        AnswerError::WrongDigest => (
            StatusCode::CONFLICT,
            "the digest is not that of the held call",
            "look at it with `show`, and name the digest that it prints",
        ),
        AnswerError::NotAllowed => (
            StatusCode::FORBIDDEN,
            "this approver may not answer it: it is in none of the groups, or is who asks",
            "ask somebody of the groups that `show` names as approvers",
        ),
        AnswerError::AlreadyAnswered => (
            StatusCode::CONFLICT,
            "this approver has granted it already",
            "another approver must grant it, too",
        ),
        AnswerError::ScopeNotOffered => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "the rule offers no such scope",
            "`show` names those that it offers",
        ),
        AnswerError::ReasonTooLong => {
            (StatusCode::PAYLOAD_TOO_LARGE, "the reason is too long", "write at most 1024 bytes")
        }
        AnswerError::Unavailable => {
            let message = "the store of held calls does not take it";
            let hint = "see the log of the program, and look at the call again with `show`";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Problem::new(status, record::code(error), message, hint).and(And::Later);
        }
    };
    Problem::new(status, record::code(error), message, hint)
}

fn not_pending(state: HoldState) -> &'static str {
    match state {
        HoldState::Pending => "it still waits",
        HoldState::Granted => "it was granted already",
        HoldState::Refused => "it was refused already",
        HoldState::Expired => "its time is over",
        HoldState::Cancelled => "the call was cancelled",
        HoldState::Spent => "it was granted already, and the call was sent",
        HoldState::Unknown => {
            "it was granted already; nobody knows whether the server got the call"
        }
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Changes,
    One,
    Grant,
    Refuse,
    Records,
    RecordsAfter,
    Servers,
}

/// The requests of approvers: method, path, what it names. `{id}` is one part of a path; a path with
/// another word in its place comes first.
const ROUTES: [(&str, &str, Kind); 8] = [
    ("GET", ROOT, Kind::List),
    ("GET", "/approvals/changes", Kind::Changes),
    ("GET", "/approvals/{id}", Kind::One),
    ("POST", "/approvals/{id}/grant", Kind::Grant),
    ("POST", "/approvals/{id}/refuse", Kind::Refuse),
    ("GET", AUDIT, Kind::Records),
    ("GET", "/audit/changes", Kind::RecordsAfter),
    ("GET", SERVERS, Kind::Servers),
];

/// The part of `path` in the place of `{id}` in `pattern`, empty if `pattern` has none; `None` if the
/// path is another one.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (mut parts, mut id) = (path.split('/'), "");
    for wanted in pattern.split('/') {
        let part = parts.next()?;
        if wanted == "{id}" {
            id = part;
        } else if wanted != part {
            return None;
        }
    }
    parts.next().is_none().then_some(id)
}

/// Method and path of each request that is answered here, and of the pages of sign-ins and links; a name
/// in braces stands for one part of a path. `docs/approvals.md` lists them.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = ROUTES.iter().map(|(method, path, _)| (*method, *path));
    let pages = pages::ROUTES.iter().map(|(method, path, _)| (*method, *path));
    own.chain(pages).chain(callback::ROUTES)
}

impl Target {
    /// What a request with `method`, `path` and `query` asks for.
    fn of(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Problem> {
        let mut found = ROUTES.iter().filter_map(|(method, pattern, kind)| {
            matched(pattern, path).map(|id| (*method, *kind, id))
        });
        let (wanted, kind, id) = found.next().ok_or(NOT_FOUND)?;
        if method.as_str() != wanted {
            return Err(METHOD.and(And::Allow(wanted)));
        }
        Ok(match kind {
            Kind::List => Self::List(Wanted::of(query)?),
            Kind::Changes => Self::Changes { after: after(query)? },
            Kind::Records => Self::Records(query.unwrap_or_default().into()),
            Kind::RecordsAfter => Self::RecordsAfter(after(query)?),
            Kind::Servers | Kind::One | Kind::Grant | Kind::Refuse
                if !query.unwrap_or_default().is_empty() =>
            {
                return Err(QUERY);
            }
            Kind::Servers => Self::Servers,
            Kind::One => Self::One(id.into()),
            Kind::Grant => Self::Answer(id.into(), Verdict::Grant),
            Kind::Refuse => Self::Answer(id.into(), Verdict::Refuse),
        })
    }
}

impl Wanted {
    /// What `query` asks for.
    fn of(query: Option<&str>) -> Result<Self, Problem> {
        let (mut state, mut since, mut max, mut before) = (None, None, None, None);
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(QUERY)?;
            let place = match name {
                "state" => &mut state,
                "since" => &mut since,
                "max" => &mut max,
                "before" => &mut before,
                _ => return Err(QUERY),
            };
            if place.replace(value).is_some() {
                return Err(QUERY);
            }
        }
        let max = max.map_or(Some(LISTED_MAX), |max| max.parse().ok()).ok_or(QUERY)?;
        if !(1..=LISTED_MAX).contains(&max) {
            return Err(QUERY);
        }
        let states = states(state.unwrap_or("pending"))?;
        let since_ms = since.map_or(Some(0), |since| since.parse().ok()).ok_or(QUERY)?;
        Ok(Self { states, since_ms, max, before: before.map(Box::from) })
    }
}

/// The states that `name` stands for.
fn states(name: &str) -> Result<Vec<HoldState>, Problem> {
    match name {
        "all" => Ok(HoldState::ALL.to_vec()),
        "ended" => Ok(HoldState::ALL.into_iter().filter(|state| !state.is_open()).collect()),
        other => {
            let found = HoldState::ALL.into_iter().find(|state| state.as_str() == other);
            found.map(|state| vec![state]).ok_or(QUERY)
        }
    }
}

/// The number of `?after=`.
fn after(query: Option<&str>) -> Result<Option<u64>, Problem> {
    match query.unwrap_or_default() {
        "" => Ok(None),
        other => {
            let number = other.strip_prefix("after=").and_then(|number| number.parse().ok());
            number.map(Some).ok_or(QUERY)
        }
    }
}

/// Whether the request comes from no web page, or from one of this listener: a browser says so by
/// `Origin` (RFC 6454) or `Sec-Fetch-Site` (Fetch Metadata), and no page can change that.
fn is_own_site(headers: &HeaderMap) -> bool {
    if !is_same_site(headers) {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    let mut hosts = headers.get_all(HOST).iter();
    match (origins.next(), origins.next(), hosts.next(), hosts.next()) {
        (None, _, _, _) => true,
        (Some(origin), None, Some(host), None) => {
            let origin = origin.as_bytes();
            let named =
                origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            named.is_some_and(|named| named.eq_ignore_ascii_case(host.as_bytes()))
        }
        (Some(_), _, _, _) => false,
    }
}

/// Whether no page of another site sends the request, so far as the browser says (Fetch Metadata).
fn is_same_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    matches!(site, None | Some(b"same-origin" | b"none"))
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The body of an answer, which must be JSON and small.
async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Problem> {
    if media(headers) != Some(Media::Json) || is_coded(headers) {
        return Err(MEDIA_TYPE);
    }
    in_time(body).await
}

/// The bytes of `body`, which must be small and come soon.
async fn in_time(body: Incoming) -> Result<Bytes, Problem> {
    tokio::time::timeout(BODY_TIME, collect(body)).await.unwrap_or(Err(SLOW))
}

/// The bytes of `body`. If there are too many, some more are read and thrown away: a connection that
/// is closed with unread bytes loses the answer.
async fn collect(mut body: Incoming) -> Result<Bytes, Problem> {
    let mut found = Vec::new();
    let mut size = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(malformed("the body broke off")) };
        let Ok(data) = frame.into_data() else { continue };
        size = size.saturating_add(data.len());
        if size > DISCARDED_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        if size <= BODY_BYTES_MAX {
            found.extend_from_slice(&data);
        }
    }
    if size > BODY_BYTES_MAX { Err(TOO_LARGE) } else { Ok(found.into()) }
}

/// Does `work` where it delays no probe: it may wait for the disk.
async fn blocking(
    work: impl FnOnce() -> Result<Response<Body>, Problem> + Send + 'static,
) -> Result<Response<Body>, Problem> {
    // A panic is an error here, and leaves the listener alone.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(INTERNAL))
}

fn malformed(message: &'static str) -> Problem {
    let hint = "send a JSON object with `reason`, and with `digest` to grant";
    Problem::new(StatusCode::BAD_REQUEST, "malformed", message, hint)
}

const BUSY: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "busy",
    "too many requests of approvers at once",
    "try again",
)
.and(And::Later);
const OTHER_SITE: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "other-site",
    "the request comes from a page of another site",
    "send it from the command line, or from a page of this address",
);
const NO_TOKEN: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "no-token",
    "approvers authenticate with a token",
    "send `Authorization: Bearer` with the token of an approver, once",
)
.and(And::Challenge);
const BAD_TOKEN: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "bad-token",
    "this is no approver's token",
    "use the token that `approvals.approvers` of the configuration names",
)
.and(And::Challenge);
const FAILURES: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too-many-failures",
    "too many attempts that failed",
    "wait a minute; a right token is taken at any time",
)
.and(And::Later);
const NOT_FOUND: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "not-found",
    "there is nothing at this path",
    "see docs/approvals.md for the paths",
);
const QUERY: Problem = Problem::new(
    StatusCode::BAD_REQUEST,
    "query",
    "the query is not one that this path takes",
    "write `?state=` with a state, `ended` or `all`, `max=` with a number up to 500, `before=` with an \
     id and `since=` with milliseconds since 1970 after `/approvals`, `?after=` with a number after \
     `/changes`, filters after `/audit` as docs/approvals.md says",
);
const METHOD: Problem = Problem::new(
    StatusCode::METHOD_NOT_ALLOWED,
    "method",
    "this path does not take the method",
    "read with GET, answer with POST",
);
const MEDIA_TYPE: Problem = Problem::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "media-type",
    "the body is not sent as JSON",
    "send `Content-Type: application/json`, and no content coding",
);
const TOO_LARGE: Problem = Problem::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "too-large",
    "the body is larger than 16 KiB",
    "shorten the reason",
);
const SLOW: Problem = Problem::new(
    StatusCode::REQUEST_TIMEOUT,
    "slow",
    "the body did not arrive in time",
    "try again",
);
const STOPPING: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "stopping",
    "the program is stopping",
    "try again once it runs again; holds are kept",
)
.and(And::Later);
const UNRECORDED: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "not-recorded",
    "it cannot be recorded, so it does not happen",
    "see `/readyz` for what is wrong with the journal, then try again",
);
const UNREADABLE: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "unreadable",
    "the journal cannot be read",
    "see the log of the program",
);
const INTERNAL: Problem = Problem::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "an internal error",
    "see the log of the program",
);
const UNKNOWN: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "unknown-hold",
    "there is no such held call",
    "`bartizan approvals list --state all` lists those that are known",
);
