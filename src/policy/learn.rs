//! Drafts a policy from a journal (`bartizan policy learn`).
//!
//! The draft permits the calls and messages that passed, and nothing else: by principal, server,
//! tool, effect and environments. A person must review it; a comment with REVIEW marks the lines
//! that need it most. A journal has no arguments, so the draft permits any.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::replay::{ReplayError, Source, read_lines};
use bartizan_audit::entry::{JournalRecord, OperationRecord};
use bartizan_audit::inert;
use bartizan_gate::question::uri;
use bartizan_gate::wire::method::{Action, Method};
use bartizan_gate::wire::unseen::is_unseen;

/// Most kinds of calls and messages in one draft.
pub const SEEN_MAX: usize = 2_000;

/// Longest comment, characters.
const COMMENT_CHARS_MAX: usize = 200;

/// One kind of tool call. Calls with equal fields are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    principal: String,
    server: String,
    tool: String,
    operation: String,
    effect: String,
    environments: Vec<String>,
    source: String,
    tags: Vec<String>,
}

/// One kind of message that calls no tool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    principal: String,
    server: String,
    direction: String,
    method: String,
    /// The prompt's name or the resource's URI; empty for other methods.
    target: String,
}

/// How often one kind was seen, and how often and by which rules the running policy denied it (in
/// observe mode).
#[derive(Debug, Default)]
struct Times {
    count: u64,
    denied: u64,
    codes: BTreeSet<String>,
}

/// The calls and messages that a journal holds.
#[derive(Debug, Default)]
pub struct Seen {
    calls: BTreeMap<Call, Times>,
    messages: BTreeMap<Message, Times>,
    /// Servers and tools that a pack describes.
    packed: BTreeSet<(String, String)>,
    /// The time of the first record, and of the last, RFC 3339.
    first: Option<String>,
    last: Option<String>,
    /// How many records are about messages that passed.
    pub records: u64,
    /// How many records were left out, because their kind came after the first [`SEEN_MAX`].
    pub elided: u64,
}

/// The files of a draft: name and text of each.
pub type Draft = Vec<(String, String)>;

/// Reads the calls and messages of `sources`. Non-empty `servers` and `principals` select those
/// names; an empty list selects all.
///
/// # Errors
///
/// A source cannot be read, or a line of it is no record.
pub fn learn(
    sources: &[Source],
    servers: &[String],
    principals: &[String],
) -> Result<Seen, ReplayError> {
    let mut seen = Seen::default();
    let mut failed = None;
    read_lines(sources, |source, line, bytes| match JournalRecord::read(&bytes) {
        Ok(entry) => {
            let named = |names: &[String], name: Option<&str>| {
                names.is_empty() || name.is_some_and(|name| names.iter().any(|it| it == name))
            };
            if named(servers, entry.server.as_deref())
                && named(principals, entry.principal.as_deref())
            {
                seen.record(&entry);
            }
            true
        }
        Err(what) => {
            let place = sources.get(source).map_or_else(String::new, Source::shown);
            failed = Some(ReplayError { place: format!("{place}:{line}"), what });
            false
        }
    })?;
    failed.map_or(Ok(seen), Err)
}

impl Seen {
    fn record(&mut self, entry: &JournalRecord) {
        let went_through = matches!(entry.event.as_str(), "intent" | "notice");
        let (Some(decision), Some(method)) = (&entry.decision, &entry.method) else { return };
        if !went_through || decision.engine == "none" {
            return;
        }
        self.records = self.records.saturating_add(1);
        self.first.get_or_insert_with(|| entry.time.clone());
        self.last = Some(entry.time.clone());
        let principal = entry.principal.clone().unwrap_or_default();
        let server = entry.server.clone().unwrap_or_default();
        let direction = entry.direction.clone().unwrap_or_default();
        let target = entry.target.clone().unwrap_or_default();
        let full = self.calls.len().saturating_add(self.messages.len()) >= SEEN_MAX;
        let calls_tool = is_action(method, Action::CallTool) && direction == "to_server";
        let called = target.tool.filter(|_| calls_tool);
        let times = if let (Some(tool), Some(operation)) = (called, &entry.operation) {
            if operation.pack.is_some() {
                self.packed.insert((server.clone(), tool.clone()));
            }
            let call = call(principal, server, tool, operation);
            if full && !self.calls.contains_key(&call) {
                self.elided = self.elided.saturating_add(1);
                return;
            }
            self.calls.entry(call).or_default()
        } else {
            let target = target.prompt.or(target.uri).unwrap_or_default();
            let method = method.clone();
            let message = Message { principal, server, direction, method, target };
            if full && !self.messages.contains_key(&message) {
                self.elided = self.elided.saturating_add(1);
                return;
            }
            self.messages.entry(message).or_default()
        };
        times.count = times.count.saturating_add(1);
        if decision.effect == "deny" {
            times.denied = times.denied.saturating_add(1);
            times.codes.extend(decision.reasons.iter().map(|reason| reason.code.clone()));
        }
    }

    /// Whether no call and no message was seen.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.messages.is_empty()
    }

    /// The number of kinds of calls, and of kinds of other messages.
    pub fn kinds(&self) -> (usize, usize) {
        (self.calls.len(), self.messages.len())
    }

    /// The draft: rules, their tests, and a pack for each server that has tools without one.
    pub fn draft(&self) -> Draft {
        let mut files = vec![
            ("learned.rego".to_owned(), self.rules()),
            ("learned_test.rego".to_owned(), self.tests()),
        ];
        files.extend(self.packs());
        files
    }

    fn rules(&self) -> String {
        let mut text = String::from(HEAD);
        let [from, to] = [&self.first, &self.last].map(|time| time.as_deref().unwrap_or("?"));
        let records = self.records;
        text.push_str(["#   Seen from ", from, " to ", to, ": "].concat().as_str());
        text.push_str(&records.to_string());
        text.push_str(" messages.\n");
        text.push_str("package mcp\n\n");
        text.push_str(CALLS_HEAD);
        text.push_str(open(self.calls.is_empty()));
        for (call, times) in &self.calls {
            comment(&mut text, &remarks(call, times));
            entry(&mut text, &call.row());
        }
        text.push_str(close(self.calls.is_empty()));
        text.push_str(MESSAGES_HEAD);
        text.push_str(open(self.messages.is_empty()));
        for (message, times) in &self.messages {
            comment(&mut text, &denials(times));
            entry(&mut text, &message.row());
        }
        text.push_str(close(self.messages.is_empty()));
        text.push_str(RULES);
        text
    }

    fn tests(&self) -> String {
        let mut text = String::from(TESTS_HEAD);
        text.push_str("seen := [\n");
        for call in self.calls.keys() {
            entry(&mut text, &call.input());
        }
        for message in self.messages.keys() {
            entry(&mut text, &message.input());
        }
        text.push_str("]\n\n");
        text.push_str(TESTS);
        text
    }

    /// Drafts of packs. A person must fill in the effects; until then each tool has the effect
    /// `exec`.
    fn packs(&self) -> Draft {
        let mut servers: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for (call, times) in &self.calls {
            let packed = self.packed.contains(&(call.server.clone(), call.tool.clone()));
            if call.effect == "unknown" && !packed {
                let tools = servers.entry(&call.server).or_default();
                let count = tools.entry(&call.tool).or_default();
                *count = count.saturating_add(times.count);
            }
        }
        let pack = |(server, tools): (&str, BTreeMap<&str, u64>)| {
            let name = slug(server);
            let tools: serde_json::Map<String, Value> = tools
                .into_iter()
                .map(|(tool, count)| {
                    let notes = format!("TODO: seen {count} times; say what it does at worst");
                    let entry = json!({"effect": "exec", "confidence": "low", "notes": notes});
                    (tool.to_owned(), entry)
                })
                .collect();
            let pack = json!({"version": 1, "name": name, "tools": tools});
            (format!("{name}.pack.json"), inert::escaped(&format!("{pack:#}\n")))
        };
        servers.into_iter().map(pack).collect()
    }
}

const HEAD: &str = "# Learned from a journal
#
# Permits what was seen and nothing else. A draft: look at every line, above all at those that
# say REVIEW, and take out what an agent has no business doing. Arguments are not in a journal,
# so each call is open with any argument; add rules for those that matter.
";

const CALLS_HEAD: &str =
    "# Principal, server, tool, operation behind the tool, effect, environments, and how the call
# named them.
learned_calls := ";

const MESSAGES_HEAD: &str =
    "# Principal, server, direction, method, and the prompt or resource, if it has one.
learned_messages := ";

const RULES: &str = r#"permit contains {"code": "learned-call", "message": "calls like this one were seen"} if {
	input.direction == "to_server"
	input.method == "tools/call"
	call := [
		input.principal.id,
		input.server.name,
		input.tool.name,
		object.get(input.operation, "name", ""),
		input.operation.effect,
		input.operation.environments,
		input.operation.environment_source,
	]
	call in learned_calls
}

permit contains {"code": "learned-message", "message": "messages like this one were seen"} if {
	message := [
		input.principal.id,
		input.server.name,
		input.direction,
		input.method,
		learned_target,
	]
	message in learned_messages
}

learned_target := input.resource.uri if {
	input.resource.uri
} else := input.prompt.name if {
	input.prompt.name
} else := ""
"#;

const TESTS_HEAD: &str = r#"package mcp_learned_test

# Only the codes of learned.rego count, so that these tests hold beside other rules.
codes(message) := {rule.code |
	some rule in data.mcp.permit with input as message
	rule.code in {"learned-call", "learned-message"}
}

"#;

const TESTS: &str = r#"test_what_was_seen_passes if {
	every message in seen {
		count(codes(message)) == 1
	}
}

test_nothing_else_passes if {
	every message in seen {
		every change in [
			{"principal": {"id": "never seen"}},
			{"server": {"name": "never seen"}},
			{"method": "never/seen"},
			{"direction": "never seen"},
		] {
			codes(object.union(message, change)) == set()
		}
	}
}

test_no_other_tool_passes if {
	every message in [message | some message in seen; message.tool] {
		every change in [
			{"tool": {"name": "never seen"}},
			{"operation": {"name": "never seen"}},
			{"operation": {"effect": "never seen"}},
			{"operation": {"environments": ["never seen"]}},
			{"operation": {"environment_source": "never seen"}},
		] {
			codes(object.union(message, change)) == set()
		}
	}
}
"#;

/// The text before the rows of a set. In Rego the empty set is `set()`.
fn open(empty: bool) -> &'static str {
    if empty { "set()" } else { "{\n" }
}

/// The text after the rows of a set.
fn close(empty: bool) -> &'static str {
    if empty { "\n\n" } else { "}\n\n" }
}

fn call(principal: String, server: String, tool: String, operation: &OperationRecord) -> Call {
    Call {
        principal,
        server,
        tool,
        operation: operation.name.clone().unwrap_or_default(),
        effect: operation.effect.clone(),
        environments: operation.environments.clone(),
        source: operation.environment_source.clone(),
        tags: operation.tags.clone(),
    }
}

impl Call {
    fn row(&self) -> Value {
        json!([
            self.principal,
            self.server,
            self.tool,
            self.operation,
            self.effect,
            self.environments,
            self.source,
        ])
    }

    fn input(&self) -> Value {
        let mut operation = json!({
            "effect": self.effect,
            "environments": self.environments,
            "environment_source": self.source,
            "tags": self.tags,
        });
        if let (false, Some(members)) = (self.operation.is_empty(), operation.as_object_mut()) {
            members.insert("name".to_owned(), Value::from(self.operation.as_str()));
        }
        json!({
            "direction": "to_server",
            "method": "tools/call",
            "principal": {"id": self.principal},
            "server": {"name": self.server},
            "tool": {"name": self.tool, "arguments": {}},
            "operation": operation,
        })
    }
}

impl Message {
    fn row(&self) -> Value {
        json!([self.principal, self.server, self.direction, self.method, self.target])
    }

    fn input(&self) -> Value {
        let mut input = json!({
            "direction": self.direction,
            "method": self.method,
            "principal": {"id": self.principal},
            "server": {"name": self.server},
        });
        if let (false, Some(members)) = (self.target.is_empty(), input.as_object_mut()) {
            let target = self.target.as_str();
            if is_action(&self.method, Action::GetPrompt) {
                members.insert("prompt".to_owned(), json!({"name": target, "arguments": {}}));
            } else {
                members.insert(
                    "resource".to_owned(),
                    json!({"uri": target, "ambiguous": uri::read(target, false).ambiguous}),
                );
            }
        }
        input
    }
}

/// The remarks on a call for the person who reviews the draft.
fn remarks(call: &Call, times: &Times) -> Vec<String> {
    let mut remarks = denials(times);
    if !call.tags.is_empty() {
        remarks.push(format!("Tags: {}.", call.tags.join(" ")));
    }
    if call.effect == "unknown" {
        remarks.push("REVIEW: no pack says what this tool does.".to_owned());
    }
    if matches!(call.effect.as_str(), "destructive" | "exec") {
        remarks.push(format!("REVIEW: the effect is `{}`.", call.effect));
    }
    if call.effect != "read" && call.environments.iter().any(|it| it == "*") {
        remarks.push("REVIEW: reaches every environment.".to_owned());
    }
    remarks
}

fn denials(times: &Times) -> Vec<String> {
    let mut remarks = vec![format!("Seen {} times.", times.count)];
    if times.denied > 0 {
        let codes: Vec<&str> = times.codes.iter().map(String::as_str).collect();
        remarks.push(format!(
            "REVIEW: the policy that ran was against {} of them: {}.",
            times.denied,
            codes.join(" ")
        ));
    }
    remarks
}

/// Appends one element of a set, on a line of its own. JSON text is valid Rego.
fn entry(text: &mut String, value: &Value) {
    text.push('\t');
    text.push_str(&inert::escaped(&value.to_string()));
    text.push_str(",\n");
}

/// Appends a comment. Control characters in names become spaces, so that it stays on one line.
fn comment(text: &mut String, remarks: &[String]) {
    let line: String = remarks.join(" ").chars().take(COMMENT_CHARS_MAX).collect();
    text.push_str("\t# ");
    text.extend(line.chars().map(|c| if is_unseen(c) { ' ' } else { c }));
    text.push('\n');
}

/// A name for a pack, from a server's name: lower case letters, digits and hyphens.
fn slug(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let slug = plain.collect::<String>().to_ascii_lowercase();
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "server".to_owned() } else { slug.to_owned() }
}

/// Whether the method called `name` does `action`.
fn is_action(name: &str, action: Action) -> bool {
    Method::named(name).is_some_and(|method| method.action == action)
}
