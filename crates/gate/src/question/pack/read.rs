//! Reads a pack and reports every problem, each with a pointer and what to write instead.

mod tool;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{BaselineRate, Effect, Pack, PackProblem, Scope, ToolEntry};
use crate::question::rate::Rate;
use crate::wire::document::{Document, DocumentLimits, Kind, Unreadable, Value};

/// Size of one pack, bytes.
const PACK_BYTES_MAX: usize = 4 << 20;
/// Nesting of a pack's document, levels; the format itself needs 4.
const PACK_DEPTH_MAX: usize = 16;
/// Tools in one pack.
const TOOLS_MAX: usize = 4096;
/// Length of a tool's name, bytes; MCP recommends at most 128 characters.
const TOOL_NAME_BYTES_MAX: usize = 256;
/// Pointers, tags or argument names of one tool.
const ITEMS_MAX: usize = 64;
/// Steps of one pointer.
const POINTER_STEPS_MAX: usize = 16;
/// Problems reported for one pack; further ones are dropped.
const PROBLEMS_MAX: usize = 100;

/// Reads a pack from its JSON text.
pub(super) fn pack(json: &[u8]) -> Result<Pack, Vec<PackProblem>> {
    let limits = DocumentLimits {
        bytes_max: PACK_BYTES_MAX,
        depth_max: PACK_DEPTH_MAX,
        ..DocumentLimits::default()
    };
    let mut reading = PackReader { problems: Vec::new(), scopes: BTreeMap::new() };
    let document = match Document::read(Bytes::copy_from_slice(json), &limits) {
        Ok(document) => document,
        Err(unreadable) => {
            reading.problem("", describe(json, &unreadable));
            return Err(reading.problems);
        }
    };
    let pack = reading.pack(document.root());
    if reading.problems.is_empty() { Ok(pack) } else { Err(reading.problems) }
}

/// Explains a breach of the strict profile to a person who edits the file.
fn describe(json: &[u8], unreadable: &Unreadable) -> String {
    let line = |at: usize| {
        let newlines = json.iter().take(at).filter(|byte| **byte == b'\n').count();
        newlines.saturating_add(1)
    };
    match *unreadable {
        Unreadable::TooLarge => {
            format!("the pack is larger than {PACK_BYTES_MAX} bytes; split it by server")
        }
        Unreadable::NotUtf8 { at } => {
            format!(
                "line {}: not UTF-8; save the file as UTF-8 without a byte order mark",
                line(at)
            )
        }
        Unreadable::NotJson { at } => {
            format!("line {}: not JSON; look for a missing or trailing comma", line(at))
        }
        Unreadable::TooDeep { at } => {
            format!("line {}: nested deeper than {PACK_DEPTH_MAX}; no member needs that", line(at))
        }
        Unreadable::BadNumber { at } => {
            format!("line {}: a number too long or too large; `version` is the only one", line(at))
        }
        Unreadable::LoneSurrogate { at } => {
            format!("line {}: an escape names half a character; write the whole pair", line(at))
        }
        Unreadable::TooMany => "too many values; split the pack by server".to_owned(),
        Unreadable::DuplicateName { at } => {
            format!("line {}: a member is named twice; keep one", line(at))
        }
        Unreadable::ReservedName { at } => {
            format!("line {}: a reserved member name; rename it", line(at))
        }
    }
}

/// Reads one pack. It collects problems and continues, so that a run reports all of them.
struct PackReader {
    problems: Vec<PackProblem>,
    /// The scope of each session fact read so far.
    scopes: BTreeMap<Box<str>, Scope>,
}

impl PackReader {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(PackProblem { path: path.to_owned(), message: message.into() });
        }
    }

    fn pack(&mut self, root: Value<'_>) -> Pack {
        const KNOWN: [&str; 9] = [
            "version",
            "name",
            "notes",
            "owned_headers",
            "owned_query",
            "headers",
            "credential_header",
            "rates",
            "tools",
        ];
        let mut pack = Pack::default();
        if !self.object("", root) {
            return pack;
        }
        self.known("", root, &KNOWN);
        match root.get("version").map(Value::as_i64) {
            Some(Some(1)) => {}
            Some(_) => self.problem("/version", "not a version that is known; write 1"),
            None => self.problem("/version", "missing; write 1"),
        }
        match root.get("name").map(Value::as_str) {
            Some(Some(name)) if is_slug(name) => pack.name = name.into(),
            Some(_) => self.problem("/name", "not a name; use a-z, 0-9 and `-`, at most 64"),
            None => self.problem("/name", "missing; write the name that configurations use"),
        }
        self.text("/notes", root.get("notes"));
        pack.owned_headers =
            self.strings("/owned_headers", root.get("owned_headers"), header_problem);
        pack.owned_query = self.strings("/owned_query", root.get("owned_query"), |name| {
            let legal = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            (!legal).then(|| "not the name of a query parameter".to_owned())
        });
        pack.headers = self.map("/headers", root.get("headers"), Self::header);
        pack.rates = self.map("/rates", root.get("rates"), Self::rate);
        pack.credential_header = root.get("credential_header").and_then(|value| {
            self.string("/credential_header", value, header_problem).map(Into::into)
        });
        match root.get("tools") {
            Some(tools) => pack.tools = self.tools(tools),
            None => self.problem("/tools", "missing; write an object from tool names to entries"),
        }
        pack
    }

    fn tools(&mut self, value: Value<'_>) -> BTreeMap<Box<str>, ToolEntry> {
        let mut tools = BTreeMap::new();
        if !self.object("/tools", value) {
            return tools;
        }
        if value.len() > TOOLS_MAX {
            self.problem("/tools", format!("more than {TOOLS_MAX} tools; split the pack"));
            return tools;
        }
        for (name, entry) in value.members() {
            let name = name.as_str().unwrap_or_default();
            let path = format!("/tools/{}", escape(name));
            self.name(&path, name);
            if let Some(entry) = self.tool(&path, entry) {
                tools.insert(name.into(), entry);
            }
        }
        tools
    }

    /// Checks the name of a tool or of one of its operations.
    fn name(&mut self, path: &str, name: &str) {
        if name.is_empty() || name.len() > TOOL_NAME_BYTES_MAX || name.chars().any(char::is_control)
        {
            self.problem(
                path,
                format!("not a tool name; use 1 to {TOOL_NAME_BYTES_MAX} bytes, none control"),
            );
        }
    }

    fn header(&mut self, path: &str, name: &str, value: Value<'_>) -> Option<Box<str>> {
        if let Some(message) = header_problem(name) {
            self.problem(path, message);
        }
        let legal = |text: &str| {
            let visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            (text.is_empty() || !visible || text.trim() != text)
                .then(|| "not a header value; write visible ASCII".to_owned())
        };
        self.string(path, value, legal).map(Into::into)
    }

    fn rate(&mut self, path: &str, effect: &str, value: Value<'_>) -> Option<BaselineRate> {
        if Effect::of_pack(effect).is_none() {
            self.problem(path, "not an effect; use `read`, `write`, `destructive` or `exec`");
        }
        if !self.object(path, value) {
            return None;
        }
        self.known(path, value, &["rate", "burst"]);
        let rate = self.required(&format!("{path}/rate"), value.get("rate"), |text| {
            Rate::parse(text).is_none().then(|| "not a rate; write `600/m` or `100/15m`".to_owned())
        });
        let burst = value.get("burst").and_then(Value::as_i64).map(u32::try_from);
        let Some(Ok(burst)) = burst else {
            self.problem(&format!("{path}/burst"), "not a count; write how many may come at once");
            return None;
        };
        Some(BaselineRate { rate: rate?, burst })
    }

    /// Reads an object whose members all have the same form; empty where it is absent.
    fn map<T>(
        &mut self,
        path: &str,
        value: Option<Value<'_>>,
        read: impl Fn(&mut Self, &str, &str, Value<'_>) -> Option<T>,
    ) -> BTreeMap<Box<str>, T> {
        let mut found = BTreeMap::new();
        let Some(value) = value else { return found };
        if !self.object(path, value) {
            return found;
        }
        if value.len() > ITEMS_MAX {
            self.problem(path, format!("more than {ITEMS_MAX} members"));
            return found;
        }
        for (name, member) in value.members() {
            let name = name.as_str().unwrap_or_default();
            if let Some(member) = read(self, &format!("{path}/{}", escape(name)), name, member) {
                found.insert(name.into(), member);
            }
        }
        found
    }

    /// Reads a string that must be present.
    fn required(
        &mut self,
        path: &str,
        value: Option<Value<'_>>,
        check: impl Fn(&str) -> Option<String>,
    ) -> Option<Box<str>> {
        let Some(value) = value else {
            self.problem(path, "missing");
            return None;
        };
        self.string(path, value, check).map(Into::into)
    }

    fn object(&mut self, path: &str, value: Value<'_>) -> bool {
        let is = value.kind() == Kind::Object;
        if !is {
            self.problem(path, "not an object; write `{…}`");
        }
        is
    }

    fn known(&mut self, path: &str, value: Value<'_>, known: &[&str]) {
        for (name, _) in value.members() {
            let name = name.as_str().unwrap_or_default();
            if !known.contains(&name) {
                self.problem(
                    &format!("{path}/{}", escape(name)),
                    format!("not a member of this object; it may hold `{}`", known.join("`, `")),
                );
            }
        }
    }

    fn text(&mut self, path: &str, value: Option<Value<'_>>) {
        if value.is_some_and(|value| value.kind() != Kind::String) {
            self.problem(path, "not a string; write text in double quotes");
        }
    }

    fn string<'a>(
        &mut self,
        path: &str,
        value: Value<'a>,
        check: impl Fn(&str) -> Option<String>,
    ) -> Option<&'a str> {
        let Some(text) = value.as_str() else {
            self.problem(path, "not a string; write text in double quotes");
            return None;
        };
        match check(text) {
            Some(message) => {
                self.problem(path, message);
                None
            }
            None => Some(text),
        }
    }

    fn strings(
        &mut self,
        path: &str,
        value: Option<Value<'_>>,
        check: impl Fn(&str) -> Option<String>,
    ) -> Vec<Box<str>> {
        let mut found = Vec::new();
        let Some(value) = value else { return found };
        if value.kind() != Kind::Array {
            self.problem(path, "not an array; write `[\"…\"]`");
            return found;
        }
        if value.len() > ITEMS_MAX {
            self.problem(path, format!("more than {ITEMS_MAX} elements"));
            return found;
        }
        let mut seen = BTreeSet::new();
        for (index, element) in value.elements().enumerate() {
            let path = format!("{path}/{index}");
            if let Some(text) = self.string(&path, element, &check) {
                if seen.insert(text) {
                    found.push(text.into());
                } else {
                    self.problem(&path, format!("`{text}` stands here twice; keep one"));
                }
            }
        }
        found
    }

    fn choice<T>(
        &mut self,
        path: &str,
        value: Value<'_>,
        parse: impl Fn(&str) -> Option<T>,
        choices: &str,
    ) -> Option<T> {
        let found = value.as_str().and_then(parse);
        if found.is_none() {
            self.problem(path, format!("not a value that is known; write {choices}"));
        }
        found
    }
}

fn pointer_problem(pointer: &str) -> Option<String> {
    if !pointer.starts_with('/') {
        return Some("not a pointer; begin with `/`, as in `/rules/*/environments`".to_owned());
    }
    if pointer.split('/').skip(1).any(str::is_empty) {
        return Some("a step of the pointer is empty; name every step".to_owned());
    }
    if pointer.split('/').count() > POINTER_STEPS_MAX {
        return Some(format!("more than {POINTER_STEPS_MAX} steps"));
    }
    let bad_escape =
        pointer.split('~').skip(1).any(|rest| !rest.starts_with('0') && !rest.starts_with('1'));
    bad_escape.then(|| "`~` must be followed by 0 or 1 (RFC 6901 §3)".to_owned())
}

/// Headers of the message itself or of its routing; a pack may not own them.
const ROUTING_HEADERS: [&str; 12] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "origin",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn header_problem(name: &str) -> Option<String> {
    // A field name is a token (RFC 9110 §5.6.2).
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Some("not a header name (RFC 9110 §5.1)".to_owned());
    }
    if name.chars().any(|c| c.is_ascii_uppercase()) {
        return Some(format!("not in lower case; write `{}`", name.to_ascii_lowercase()));
    }
    if ROUTING_HEADERS.contains(&name) || name.starts_with("mcp-") {
        return Some(format!("`{name}` belongs to the message itself; leave it out"));
    }
    None
}

/// Whether `text` is a valid name of a pack, tag or fact.
fn is_slug(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 64
        && text.chars().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Escapes one step of a pointer (RFC 6901 §3).
fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}
