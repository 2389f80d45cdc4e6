//! What people are told of a held call outside of the console: each text bounded, without secrets of
//! known forms, and with no character that is not seen. What a format gives a meaning to, such as
//! `<` or `*`, is not escaped here but by the format.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use bartizan_approvals::parameters::Parameters;
use bartizan_approvals::{HoldState, HoldView};
use bartizan_gate::duty::redact::{Redaction, RedactionScope, redact};
use bartizan_gate::evidence::text::{Message, Name, Text, TextKind};
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bartizan_gate::wire::inert;

/// Characters of one fact. Each takes up to ten when it is escaped.
const FACT_CHARS_MAX: usize = 190;
/// Characters of the rule's message.
const MESSAGE_CHARS_MAX: usize = 290;
/// Characters of the name of what is called in the title.
const TITLE_CHARS_MAX: usize = 80;
/// Entries of a list that are named; the others are counted.
const ENTRIES_MAX: usize = 12;

/// As large as the firewall's own bounds can be.
const LIMITS: DocumentLimits = DocumentLimits {
    bytes_max: 256 << 20,
    depth_max: 130,
    number_chars_max: 4096,
    values_max: 1 << 24,
};

/// A held call for people.
#[derive(Debug)]
pub(crate) struct Story {
    /// What is called, in one line.
    pub(crate) title: String,
    /// The rule's message.
    pub(crate) message: String,
    /// Names and values, each in one line.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// What has become of it, in one line.
    pub(crate) end: String,
}

/// The parameters of a held call.
#[derive(Debug)]
pub(crate) enum Params {
    /// Nothing but secrets is left out.
    Shown {
        /// Indented JSON.
        text: String,
        /// Size of the parameters as they would be sent, bytes.
        bytes: usize,
        /// Secrets in whose place a marker stands.
        secrets: usize,
    },
    /// They cannot be searched for secrets.
    Withheld {
        /// Why.
        why: &'static str,
    },
}

impl Params {
    /// Whether all of them are shown. What stands behind a marker need not be a secret: an agent can
    /// write anything in the form of one.
    pub(crate) fn are_shown(&self) -> bool {
        matches!(self, Self::Shown { secrets: 0, .. })
    }

    /// Those of `hold`. The whole of them is searched for secrets.
    pub(crate) fn of(hold: &HoldView) -> Self {
        let raw = Bytes::copy_from_slice(hold.shown.as_bytes());
        let Ok(document) = Document::read(raw, &LIMITS) else {
            return Self::Withheld { why: "they are no strict JSON" };
        };
        let searched = vec![(String::new(), document.root())];
        let scope = RedactionScope { searched, ..RedactionScope::default() };
        match redact(&document, &scope, &[Redaction::Secrets], &LIMITS) {
            Err(_) => Self::Withheld { why: "they cannot be searched for secrets" },
            Ok(redacted) => {
                let read = std::str::from_utf8(&redacted.body).ok().and_then(Parameters::read);
                read.map_or(Self::Withheld { why: "they are no strict JSON" }, |params| {
                    let (bytes, secrets) = (hold.shown.len(), redacted.places.len());
                    Self::Shown { text: params.pretty().trim_end().to_owned(), bytes, secrets }
                })
            }
        }
    }
}

impl Story {
    pub(crate) fn of(hold: &HoldView) -> Self {
        let called = hold.target.as_ref().unwrap_or(&hold.method);
        let title = format!("{} on {}", line(called, TITLE_CHARS_MAX), line(&hold.server, 40));
        Self {
            title,
            message: text::<Message>(&hold.message, MESSAGE_CHARS_MAX),
            facts: facts(hold),
            end: end(hold),
        }
    }
}

fn facts(hold: &HoldView) -> Vec<(&'static str, String)> {
    let selected = hold.facts.iter().map(|(name, value)| format!("{name} {value}"));
    let effect = std::iter::once(hold.effect.to_string());
    let tags = hold.tags.iter().map(ToString::to_string);
    let texts = |texts: &[Box<str>]| listed(texts.iter().map(ToString::to_string));
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    let mut approvers = or(texts(&hold.approvers), "any approver");
    if hold.quorum > 1 {
        write!(approvers, "; {} must grant it", hold.quorum).unwrap_or_default();
    }
    let all = [
        ("Agent", line(&hold.principal, FACT_CHARS_MAX)),
        ("Calls itself", line(hold.client.as_deref().unwrap_or_default(), FACT_CHARS_MAX)),
        ("Server", line(&hold.server, FACT_CHARS_MAX)),
        ("Environments", or(texts(&hold.environments), "none is known")),
        ("Method", line(&hold.method, FACT_CHARS_MAX)),
        ("Effect", listed(effect.chain(tags))),
        ("Selected before", listed(selected)),
        ("Rule", line(&hold.code, FACT_CHARS_MAX)),
        ("Approvers", approvers),
        ("Waits until", moment(hold.expires_unix_ms)),
        ("Held call", line(&hold.id, FACT_CHARS_MAX)),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// What has become of `hold`, and by whom.
fn end(hold: &HoldView) -> String {
    let mut end = match hold.state {
        HoldState::Pending => "waits",
        HoldState::Granted => "granted",
        HoldState::Spent | HoldState::Unknown => "granted, and the call was sent",
        HoldState::Refused => "refused",
        HoldState::Expired => "over: nobody answered in time",
        HoldState::Cancelled => "over: the call was cancelled",
    }
    .to_owned();
    for answer in &hold.answers {
        let by = line(&answer.by, FACT_CHARS_MAX);
        let why = text::<Message>(&answer.reason, FACT_CHARS_MAX);
        write!(end, "; {by}: {why}").unwrap_or_default();
    }
    end
}

/// A time in UTC.
pub(crate) fn moment(unix_ms: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    let at = at.unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A name, in one line.
pub(crate) fn line(of: &str, chars_max: usize) -> String {
    text::<Name>(of, chars_max)
}

fn text<K: TextKind>(of: &str, chars_max: usize) -> String {
    let mut out = String::new();
    inert::push(&mut out, &Text::<K>::new(of), chars_max);
    out
}

fn listed(mut texts: impl Iterator<Item = String>) -> String {
    let named: Vec<String> = texts.by_ref().take(ENTRIES_MAX).collect();
    let more = texts.count();
    let mut out = line(&named.join(", "), FACT_CHARS_MAX);
    if more > 0 {
        write!(out, " and {more} more").unwrap_or_default();
    }
    out
}

/// The beginning of `text` that has at most `bytes_max` bytes once `escape` has escaped each of its
/// characters, and whether something was cut off. No escape is cut.
pub(crate) fn fitted<E: AsRef<str>>(
    text: &str,
    bytes_max: usize,
    mut escape: impl FnMut(char) -> E,
) -> (String, bool) {
    let mut out = String::new();
    for character in text.chars() {
        let escaped = escape(character);
        if out.len().saturating_add(escaped.as_ref().len()) > bytes_max {
            return (out, true);
        }
        out.push_str(escaped.as_ref());
    }
    (out, false)
}

/// What is said below the parameters: what of them is not there. Empty if nothing is missing.
pub(crate) fn missing(params: &Params, cut: bool) -> String {
    match params {
        Params::Withheld { why } => {
            format!("The parameters are not shown here: {why}. Look at them in the console.")
        }
        Params::Shown { bytes, secrets, .. } => {
            let mut said = Vec::new();
            if cut {
                said.push(format!(
                    "This is the beginning of {bytes} bytes; the pages behind the links show all."
                ));
            }
            if *secrets > 0 {
                said.push(format!(
                    "[redacted] stands for {secrets} secrets, or what looks like some: only the \
                     console shows them, so only there the call can be granted."
                ));
            }
            said.join(" ")
        }
    }
}
