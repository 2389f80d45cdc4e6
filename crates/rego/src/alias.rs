//! Names in a message that some reader takes for a name that the policy compares.
//!
//! A rule on `input.tool.arguments.key` does not see a member `Key`, `key\u0000` or one in full-width
//! letters, and a server that folds names reads it all the same (`docs/strict-profile.md`, P5). So a
//! message with such a member, at a level that the policy reads, is denied whatever the rules say.
//! Where a rule names its members in its text, these names are compared. Where it reads a value
//! whole, or by a computed name, any text of the policy or of its data may be the name, so all of
//! them are compared. [`engines`](super::engines) and [`replay`](super::replay) call it.

use std::collections::BTreeSet;

use regorus::Value as Rego;
use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead, Span};

use super::reads::ReadSet;
use super::value::Trail;
use super::walk::{SETS, Step, Visit, Walk, rule_ref};
use bartizan_gate::question::access::{AccessRequest, Resource};
use bartizan_gate::wire::document::{Kind, Value};
use bartizan_gate::wire::frame::KnownNames;

/// Longest text of a policy or its data that counts as a name, bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest pointer that is reported, characters.
const POINTER_CHARS_MAX: usize = 256;

/// The parts of `input` whose members senders name, as paths below `input`.
pub(super) const PARTS: [&[&str]; 5] = [
    &["tool", "arguments"],
    &["prompt", "arguments"],
    &["params"],
    &["answer", "content"],
    &["answer", "result"],
];

/// The package of the rules that decide.
const PACKAGE: &str = "mcp";
/// The rules of `mcp/decision.rego` that combine the elements of others.
const COMBINING: [&str; 3] = ["decision", "limit_all", "listing"];

/// The texts of a policy that may be names of members: its strings, the names that it takes from
/// variables, and all names and strings of its data.
pub(super) fn texts(modules: &[Ref<Module>], data: &Rego) -> KnownNames {
    let mut known = KnownNames::NONE;
    let mut add = |text: &str| {
        if text.len() <= NAME_BYTES_MAX {
            known.insert(text);
        }
    };
    let rules =
        modules.iter().flat_map(|module| module.policy.iter().map(move |rule| (module, rule)));
    for (module, rule) in rules {
        let decides = module.package.refr.span().text() == PACKAGE;
        if decides && combines(rule) {
            continue;
        }
        let said = if decides { said(rule) } else { BTreeSet::new() };
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Expr(
                    expr @ (Expr::String { value, .. } | Expr::RawString { value, .. }),
                ) if !said.contains(&std::ptr::from_ref(expr.span())) => {
                    value.as_string().iter().for_each(|text| add(text));
                }
                Visit::Ref(reference) => {
                    let fixed = match reference.root {
                        // The set of what is read forgets them where another rule reads the whole.
                        Some("input") => Some(below_a_part(&reference.prefix())),
                        // They are in the data.
                        Some("data") => Some(Vec::new()),
                        _ => None,
                    };
                    let steps = reference.steps.iter();
                    let computed =
                        steps.skip_while(|it| fixed.is_some() && matches!(it, Step::Name(_)));
                    let computed = computed.filter_map(|step| match step {
                        Step::Name(name) => Some(&**name),
                        Step::Index(_) => None,
                    });
                    fixed.iter().flatten().copied().chain(computed).for_each(&mut add);
                }
                Visit::Expr(_) | Visit::Call { .. } | Visit::Statement(_) => {}
            }
        }
    }
    let mut todo = vec![data];
    while let Some(value) = todo.pop() {
        match value {
            Rego::String(text) => add(text),
            Rego::Array(items) => todo.extend(items.iter()),
            Rego::Set(items) => todo.extend(items.iter()),
            Rego::Object(members) => todo.extend(members.iter().flat_map(|(a, b)| [a, b])),
            _ => {}
        }
    }
    known
}

/// Whether a rule only combines the elements of the rules that decide, as `mcp/decision.rego` does:
/// its names are those of the decision's document.
fn combines(rule: &Rule) -> bool {
    let reads_input = |visit: Visit<'_>| match visit {
        Visit::Ref(reference) => reference.root == Some("input"),
        _ => false,
    };
    let name = rule_ref(rule).span().text();
    COMBINING.contains(&name) && !Walk::rule(rule).any(reads_input)
}

/// The strings of a rule that an element of the decision consists of, such as `"code"` and the
/// code. They are what the rule says, and are not compared with anything.
fn said(rule: &Rule) -> BTreeSet<*const Span> {
    let Rule::Spec { head: RuleHead::Set { refr, key: Some(element), .. }, .. } = rule else {
        return BTreeSet::new();
    };
    let Expr::Object { fields, .. } = element.as_ref() else { return BTreeSet::new() };
    if !SETS.contains(&refr.span().text()) {
        return BTreeSet::new();
    }
    let both = fields.iter().flat_map(|(_, name, value)| [name, value]);
    both.map(|expr| std::ptr::from_ref(expr.span())).collect()
}

/// The names of a path below `input` that come after one of [`PARTS`].
fn below_a_part<'a>(path: &[&'a str]) -> Vec<&'a str> {
    PARTS.iter().find_map(|part| path.strip_prefix(*part)).unwrap_or_default().to_vec()
}

/// The RFC 6901 pointer, below `input`, of a member that some reader takes for one that the policy
/// reads.
pub(super) fn in_request(
    request: &AccessRequest<'_>,
    reads: &ReadSet,
    texts: &KnownNames,
) -> Option<String> {
    let [tool, prompt, params, content, result] = PARTS;
    let (first, second) = match request.resource {
        Resource::Tool { arguments, .. } => ((tool, arguments), None),
        Resource::Prompt { arguments, .. } => ((prompt, arguments), None),
        Resource::Answer { result: answer, .. } => {
            let said = answer.and_then(|answer| answer.get("content"));
            ((content, said), Some((result, answer)))
        }
        Resource::Uri(_) | Resource::Uris(_) | Resource::Task { .. } | Resource::Whole => {
            ((params, request.params), None)
        }
    };
    let parts = [Some(first), second, Some((params, request.params))];
    parts.into_iter().flatten().find_map(|(part, value)| in_part(part, value?, reads, texts))
}

/// [`in_request`] for an input that was recorded.
pub(super) fn in_recorded(root: Value<'_>, reads: &ReadSet, texts: &KnownNames) -> Option<String> {
    PARTS.iter().find_map(|part| {
        let value = part.iter().try_fold(root, |at, name| at.get(name))?;
        in_part(part, value, reads, texts)
    })
}

fn in_part(part: &[&str], value: Value<'_>, reads: &ReadSet, texts: &KnownNames) -> Option<String> {
    let reads = part.iter().try_fold(reads, |reads, name| reads.member(name))?;
    let found = imitation(value, reads, texts)?;
    Some(found.pointer(part).chars().take(POINTER_CHARS_MAX).collect())
}

/// The path to a member of `value` that imitates one that is read. The recursion is as deep as the
/// message, which the strict reader bounds (P3).
fn imitation<'a>(value: Value<'a>, reads: &ReadSet, texts: &KnownNames) -> Option<Trail<'a>> {
    match value.kind() {
        Kind::Array if reads.is_everything() => {
            let mut items = value.elements().enumerate();
            items.find_map(|(at, item)| Some(imitation(item, reads, texts)?.below_index(at)))
        }
        Kind::Object => value.members().find_map(|(name, member)| {
            let name = name.as_str().unwrap_or_default();
            let computed = reads.reads_names() && texts.imitated_by(name);
            if computed || reads.known().imitated_by(name) {
                return Some(Trail::here().below_name(name));
            }
            let inner = imitation(member, reads.member(name)?, texts)?;
            Some(inner.below_name(name))
        }),
        Kind::Array | Kind::Null | Kind::Bool | Kind::Number | Kind::String => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{FIELDS, FieldType};
    use bartizan_gate::catalog::lists::ListPage;
    use bartizan_gate::wire::document::{Document, DocumentLimits};
    use bartizan_gate::wire::frame::{Frame, FrameLimits, Malformed, Sender, is_ambiguous_answer};
    use bartizan_gate::wire::method::List;

    /// How a look-alike of the name by which a field of `input` is found in a message is held off.
    enum Held {
        /// No message names it: it comes from the configuration, a token, a pack, or this program.
        Firewall,
        /// A sender says it of itself. No rule can rely on it under any name.
        Claim,
        /// It is the kind of the message, or a member of an error without others.
        Envelope,
        /// [`Frame::read`] refuses look-alikes of these members of `params`.
        Params(&'static [&'static str]),
        /// [`is_ambiguous_answer`] finds look-alikes of this member of an answer.
        Answer(&'static str),
        /// It finds those of this member of a root.
        Root(&'static str),
        /// [`ListPage::read`] refuses look-alikes of the list or of an entry's name.
        Listed,
        /// It is one of [`PARTS`]: [`in_request`] denies look-alikes of what the policy reads.
        Part,
    }

    /// Each field of `input`. What the firewall makes stands for all below it.
    const HELD: &[(&str, Held)] = &[
        ("version", Held::Firewall),
        ("phase", Held::Firewall),
        ("direction", Held::Firewall),
        ("method", Held::Envelope),
        ("trace_id", Held::Claim),
        ("principal", Held::Firewall),
        ("client", Held::Claim),
        ("server", Held::Firewall),
        ("protocol", Held::Firewall),
        ("operation", Held::Firewall),
        ("session", Held::Firewall),
        ("approval", Held::Firewall),
        ("time", Held::Firewall),
        ("tool.name", Held::Params(&["name"])),
        ("tool.arguments", Held::Part),
        ("tool.definition", Held::Listed),
        ("tool.definition_digest", Held::Firewall),
        ("tool.drift", Held::Firewall),
        ("tool.flags", Held::Listed),
        ("prompt.name", Held::Params(&["name", "ref"])),
        ("prompt.arguments", Held::Part),
        ("resource", Held::Params(&["uri", "ref"])),
        ("resources.uris", Held::Params(&["notifications"])),
        ("task.id", Held::Params(&["taskId"])),
        ("task.method", Held::Firewall),
        ("task.tool", Held::Firewall),
        ("task.operation", Held::Firewall),
        ("params", Held::Part),
        ("elicitation", Held::Params(&["mode", "url"])),
        ("answer.outcome", Held::Envelope),
        ("answer.error_code", Held::Envelope),
        ("answer.action", Held::Answer("action")),
        ("answer.content", Held::Answer("content")),
        ("answer.content", Held::Part),
        ("answer.result", Held::Part),
        ("answer.roots", Held::Answer("roots")),
        ("answer.roots.uri", Held::Root("uri")),
        ("answer.roots.ambiguous", Held::Root("uri")),
        ("tools", Held::Listed),
        ("entries", Held::Listed),
    ];

    fn look_alikes(name: &str) -> [String; 3] {
        [name.to_uppercase(), format!("{name}\u{200b}"), format!(" {name}")]
    }

    fn document(value: &serde_json::Value) -> Document {
        Document::read(value.to_string().into(), &DocumentLimits::default()).unwrap()
    }

    #[test]
    fn each_field_of_the_input_is_read_by_a_name_without_look_alikes() {
        // What the message's own names lead to is listed one by one, so that a new field fails here.
        for field in FIELDS {
            let container = matches!(field.holds, FieldType::Fields | FieldType::Each);
            let covers = |path: &str, held: &Held| {
                let below = field.path.strip_prefix(path).is_some_and(|it| it.starts_with('.'));
                let whole = !matches!(held, Held::Answer(_) | Held::Root(_) | Held::Part);
                field.path == path || below && whole
            };
            let held = HELD.iter().any(|(path, held)| covers(path, held));
            let inside =
                |path: &str| path.strip_prefix(field.path).is_some_and(|it| it.starts_with('.'));
            let by_members = container && HELD.iter().any(|(path, _)| inside(path));
            assert!(held || by_members, "nothing says who names `{}`", field.path);
        }
        for (path, held) in HELD {
            assert!(FIELDS.iter().any(|field| field.path == *path), "no field `{path}`");
            let parts: Vec<&str> = path.split('.').collect();
            let names = match held {
                Held::Firewall | Held::Claim | Held::Envelope => continue,
                Held::Part => {
                    assert!(PARTS.contains(&&*parts), "{path}");
                    continue;
                }
                Held::Params(names) => names.to_vec(),
                Held::Answer(name) | Held::Root(name) => vec![*name],
                Held::Listed => vec!["tools", "name"],
            };
            for (name, alias) in
                names.iter().flat_map(|name| look_alikes(name).map(|alias| (*name, alias)))
            {
                let refused = match held {
                    Held::Params(_) => {
                        let frame = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "x",
                            "params": {name: {}, alias: {}}});
                        let limits = FrameLimits::default();
                        [Sender::Client, Sender::Server].into_iter().all(|sender| {
                            let read = Frame::read(frame.to_string().into(), sender, &limits);
                            matches!(read, Err(Malformed::LookAlike { .. }))
                        })
                    }
                    Held::Root(_) => {
                        let root = serde_json::json!({name: "a", alias: "b"});
                        is_ambiguous_answer(document(&serde_json::json!({"roots": [root]})).root())
                    }
                    Held::Answer(_) => is_ambiguous_answer(
                        document(&serde_json::json!({name: [], alias: []})).root(),
                    ),
                    _ => {
                        let entry = serde_json::json!({"name": "a"});
                        let mut list = serde_json::json!({"tools": [entry]});
                        let at = if name == "name" { &mut list["tools"][0] } else { &mut list };
                        at[alias] = serde_json::json!([]);
                        ListPage::read(document(&list).root(), List::Tools).is_err()
                    }
                };
                assert!(refused, "{path}: a look-alike of `{name}`");
            }
        }
    }
}
