//! The body for receivers of one's own: JSON with a `type`, a `timestamp` and `data`, as Standard
//! Webhooks recommends. Texts of strangers are bounded, without secrets of known forms, and hold no
//! character that is not seen; whoever shows them must still escape them for where they are shown.

use bytes::Bytes;
use serde::Serialize;

use super::Ways;
use super::story::{Params, Story, fitted, line, missing, moment};
use bartizan_approvals::{HoldView, Verdict};

/// Size of the parameters, bytes; the rest is cut off.
const PARAMS_BYTES_MAX: usize = 16 << 10;
/// Characters of one text.
const TEXT_CHARS_MAX: usize = 190;

#[derive(Debug, Serialize)]
struct Told<'a> {
    r#type: &'static str,
    /// When it was held, or when it ended.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    hold: Hold<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Shown>,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: String,
    links: WaysTold<'a>,
}

/// The members of `GET /approvals/{id}` that a receiver needs.
#[derive(Debug, Serialize)]
struct Hold<'a> {
    id: &'a str,
    state: &'static str,
    digest: &'a str,
    principal: String,
    client: Option<String>,
    server: String,
    method: String,
    target: Option<String>,
    effect: String,
    tags: Vec<String>,
    environments: Vec<String>,
    code: String,
    message: &'a str,
    approvers: Vec<String>,
    quorum: u32,
    answers: Vec<Answer>,
    asked_unix_ms: u64,
    changed_unix_ms: u64,
    expires_unix_ms: u64,
}

#[derive(Debug, Serialize)]
struct Answer {
    by: String,
    verdict: Verdict,
    reason: String,
    unix_ms: u64,
}

#[derive(Debug, Serialize)]
struct Shown {
    /// Indented JSON; its beginning, if it is cut.
    text: String,
    cut: bool,
    /// Size of all parameters, bytes.
    bytes: usize,
    /// Secrets in whose place a marker stands.
    secrets: usize,
}

#[derive(Debug, Serialize)]
struct WaysTold<'a> {
    console: Option<&'a str>,
    grant: Option<&'a str>,
    refuse: Option<&'a str>,
    /// Until when the two before take an answer.
    answer_until_unix_ms: Option<u64>,
}

/// The body that asks.
pub(super) fn asking(hold: &HoldView, story: &Story, params: &Params, ways: &Ways) -> Bytes {
    let shown = match params {
        Params::Withheld { .. } => None,
        Params::Shown { text, bytes, secrets } => {
            let (text, cut) = fitted(text, PARAMS_BYTES_MAX, |character| character.to_string());
            Some(Shown { text, cut, bytes: *bytes, secrets: *secrets })
        }
    };
    let note = missing(params, shown.as_ref().is_some_and(|shown| shown.cut));
    told("approval.asked", hold.asked_unix_ms, hold, story, shown, note, ways)
}

/// The body that says what has become of it.
pub(super) fn ended(hold: &HoldView, story: &Story, ways: &Ways) -> Bytes {
    told("approval.ended", hold.changed_unix_ms, hold, story, None, String::new(), ways)
}

#[expect(clippy::too_many_arguments, reason = "each is a different part of the body")]
fn told(
    r#type: &'static str,
    unix_ms: u64,
    hold: &HoldView,
    story: &Story,
    params: Option<Shown>,
    note: String,
    ways: &Ways,
) -> Bytes {
    let answer = ways.answer.as_ref();
    let links = WaysTold {
        console: ways.console.as_deref(),
        grant: answer.map(|answer| &*answer.grant),
        refuse: answer.map(|answer| &*answer.refuse),
        answer_until_unix_ms: answer.map(|answer| answer.until_unix_ms),
    };
    let hold = described(hold, story);
    let told =
        Told { r#type, timestamp: moment(unix_ms), data: Data { hold, params, note, links } };
    // Values of our own types can always be written.
    serde_json::to_vec(&told).unwrap_or_default().into()
}

fn described<'a>(hold: &'a HoldView, story: &'a Story) -> Hold<'a> {
    let one = |text: &str| line(text, TEXT_CHARS_MAX);
    let all = |texts: &[Box<str>]| texts.iter().map(|text| one(text)).collect();
    let answers = hold.answers.iter().map(|answer| Answer {
        by: one(&answer.by),
        verdict: answer.verdict,
        reason: one(&answer.reason),
        unix_ms: answer.unix_ms,
    });
    Hold {
        id: &hold.id,
        state: hold.state.as_str(),
        digest: &hold.digest,
        principal: one(&hold.principal),
        client: hold.client.as_deref().map(one),
        server: one(&hold.server),
        method: one(&hold.method),
        target: hold.target.as_deref().map(one),
        effect: one(&hold.effect),
        tags: all(&hold.tags),
        environments: all(&hold.environments),
        code: one(&hold.code),
        message: &story.message,
        approvers: all(&hold.approvers),
        quorum: hold.quorum,
        answers: answers.collect(),
        asked_unix_ms: hold.asked_unix_ms,
        changed_unix_ms: hold.changed_unix_ms,
        expires_unix_ms: hold.expires_unix_ms,
    }
}
