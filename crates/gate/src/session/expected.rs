//! What a request allows its server to send: embedded requests that the client declared support
//! for, progress with the request's token, notifications of the request's subscriptions.

use std::collections::HashSet;

use crate::memory::ENTRY_BYTES;
use crate::wire::document::{Kind, Value};
use crate::wire::frame::{Frame, Id};
use crate::wire::headers::{META_CLIENT_CAPABILITIES, TASKS_EXTENSION};
use crate::wire::method::{Method, Offer, Role};
use crate::wire::protocol::{Era, Protocol};

use super::sizes;

/// What a request's answer and its notifications are checked against.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    /// The capabilities that the client declares on this request; none in the legacy era.
    pub(super) declared: Declared,
    /// The progress token, if it has one.
    pub(super) token: Option<Id>,
    /// The subscription filter, if the request is `subscriptions/listen`.
    pub(super) listen: Option<Box<Listen>>,
}

/// The capabilities that a client declares on one request (MCP 2026-07-28, `clientCapabilities`).
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent capabilities")]
pub(super) struct Declared {
    sampling: bool,
    roots: bool,
    elicitation_form: bool,
    elicitation_url: bool,
    /// The tasks extension: answers may be tasks.
    pub(super) tasks: bool,
}

/// The filter of one `subscriptions/listen`.
#[derive(Debug, Clone, Default)]
pub(super) struct Listen {
    uris: Vec<Box<str>>,
    tasks: HashSet<Box<str>>,
}

impl Expected {
    pub(super) fn of(frame: &Frame, method: Option<&Method>, protocol: Protocol) -> Self {
        let Some(params) = frame.params() else { return Self::default() };
        let meta = params.get("_meta");
        let capabilities = meta
            .filter(|_| protocol.era == Era::Modern)
            .and_then(|meta| meta.get(META_CLIENT_CAPABILITIES));
        let listens = method.is_some_and(|method| method.role == Role::Listen);
        Self {
            declared: capabilities.map(Declared::of).unwrap_or_default(),
            token: frame.progress_token(),
            listen: listens.then(|| Box::new(Listen::of(params))),
        }
    }

    /// The bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        let token = self.token.as_ref().map_or(0, sizes::id);
        let listen = self
            .listen
            .as_deref()
            .map_or(0, |listen| sizes::texts(listen.texts()).saturating_add(ENTRY_BYTES));
        token.saturating_add(listen)
    }
}

impl Declared {
    fn of(capabilities: Value<'_>) -> Self {
        let has = |name| capabilities.get(name).is_some_and(|it| it.kind() == Kind::Object);
        let elicitation =
            |mode| capabilities.get("elicitation").and_then(|modes| modes.get(mode)).is_some();
        let url = elicitation("url");
        Self {
            sampling: has("sampling"),
            roots: has("roots"),
            // `{}` means forms, as in revisions before modes existed.
            elicitation_form: has("elicitation") && (elicitation("form") || !url),
            elicitation_url: url,
            tasks: capabilities
                .get("extensions")
                .is_some_and(|extensions| extensions.get(TASKS_EXTENSION).is_some()),
        }
    }

    /// Whether it opens URLs for its user (`elicitation.url`).
    pub(super) fn opens_urls(self) -> bool {
        self.elicitation_url
    }

    /// Whether the client declared support for `method` with `params` (MCP 2026-07-28,
    /// basic/patterns/mrtr: a server must not send other requests).
    pub(super) fn allows(self, method: Option<&Method>, params: Option<Value<'_>>) -> bool {
        match method.and_then(|method| method.offer) {
            Some(Offer::Sampling) => self.sampling,
            Some(Offer::Roots) => self.roots,
            Some(Offer::Elicitation) => {
                let mode = params.and_then(|params| params.get("mode"));
                match mode.map(Value::as_str) {
                    None | Some(Some("form")) => self.elicitation_form,
                    Some(Some("url")) => self.elicitation_url,
                    Some(_) => false,
                }
            }
            None => false,
        }
    }
}

impl Listen {
    fn of(params: Value<'_>) -> Self {
        Self {
            uris: texts(params, "resourceSubscriptions").map(Into::into).collect(),
            tasks: texts(params, "taskIds").map(Into::into).collect(),
        }
    }

    /// Whether updates of `uri` were subscribed to: of the URI itself, or of a resource that
    /// contains it (MCP 2026-07-28, `ResourceUpdatedNotification`: it "might be a sub-resource").
    pub(super) fn covers(&self, uri: &str) -> bool {
        self.uris.iter().any(|subscribed| {
            uri.strip_prefix(&**subscribed).is_some_and(|rest| {
                rest.is_empty() || subscribed.ends_with('/') || rest.starts_with(['/', '?', '#'])
            })
        })
    }

    /// All texts of the filter.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.uris.iter().chain(&self.tasks).map(|text| &**text)
    }

    /// Whether updates of `task` were subscribed to.
    pub(super) fn follows(&self, task: &str) -> bool {
        self.tasks.contains(task)
    }
}

/// The texts of one list in the filter of a `subscriptions/listen`.
pub(super) fn texts<'a>(params: Value<'a>, list: &str) -> impl Iterator<Item = &'a str> {
    let list = params.get("notifications").and_then(|filter| filter.get(list));
    list.into_iter().flat_map(Value::elements).filter_map(Value::as_str)
}

/// Whether two ids have the same text. A server that keeps ids as text may refer to a request with
/// the id `1` as `"1"`.
pub(super) fn reads_alike(id: &Id, other: &Id) -> bool {
    match (id, other) {
        (Id::Number(number), Id::Text(text)) | (Id::Text(text), Id::Number(number)) => {
            number.to_string() == **text
        }
        (Id::Number(_), Id::Number(_)) | (Id::Text(_), Id::Text(_)) => id == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::document::{Document, DocumentLimits};

    #[test]
    fn a_subscription_covers_what_it_contains_and_no_neighbour() {
        let listen = Listen {
            uris: vec!["file:///a".into(), "note://b/".into()],
            tasks: HashSet::from(["t".into()]),
        };
        for (uri, covered) in [
            ("file:///a", true),
            ("file:///a/x", true),
            ("file:///a?x", true),
            ("file:///a#x", true),
            ("file:///ab", false),
            ("file:///", false),
            ("note://b/c", true),
            ("note://c", false),
        ] {
            assert_eq!(listen.covers(uri), covered, "{uri}");
        }
        assert!(listen.follows("t") && !listen.follows("u"));
    }

    #[test]
    fn only_declared_kinds_are_allowed() {
        let cases = [
            ("{}", ""),
            (r#"{"sampling":{}}"#, "sampling"),
            (r#"{"roots":{},"sampling":true}"#, "roots"),
            (r#"{"elicitation":{}}"#, "form"),
            (r#"{"elicitation":{"url":{}}}"#, "url"),
            (r#"{"elicitation":{"url":{},"form":{}}}"#, "form url"),
        ];
        for (capabilities, expected) in cases {
            let read = |text: &str| {
                Document::read(text.to_owned().into(), &DocumentLimits::default()).unwrap()
            };
            let document = read(capabilities);
            let declared = Declared::of(document.root());
            let url = read(r#"{"mode":"url"}"#);
            let form = read(r#"{"mode":"form"}"#);
            let odd = read(r#"{"mode":"x"}"#);
            let ask = |method, params: &Document| {
                declared.allows(Method::named(method), Some(params.root()))
            };
            let allowed: Vec<_> = [
                ("sampling", ask("sampling/createMessage", &form)),
                ("roots", declared.allows(Method::named("roots/list"), None)),
                ("form", ask("elicitation/create", &form)),
                ("url", ask("elicitation/create", &url)),
                ("odd", ask("elicitation/create", &odd)),
                ("tools", declared.allows(Method::named("tools/call"), None)),
            ]
            .into_iter()
            .filter_map(|(name, allowed)| allowed.then_some(name))
            .collect();
            assert_eq!(allowed.join(" "), expected, "{capabilities}");
        }
    }

    #[test]
    fn ids_read_alike_across_spellings() {
        let text = |text: &str| Id::Text(text.into());
        assert!(reads_alike(&Id::Number(1), &text("1")));
        assert!(reads_alike(&text("1"), &Id::Number(1)));
        assert!(!reads_alike(&Id::Number(1), &text("01")));
        assert!(!reads_alike(&text("a"), &text("b")));
    }
}
