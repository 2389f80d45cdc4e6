//! `bartizan.lock`: the reviewed tools of each server.
//!
//! A JSON file for review by people and comparison by version control: sorted, one member per line,
//! whole definitions, invisible characters escaped. Next to each definition is its digest, so an
//! edit by hand is detected. [`ask`] creates the content; during a run the gate compares every list
//! with it.

pub(crate) mod client;
pub mod ask;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;

use bartizan_audit::inert;
use bartizan_gate::catalog::drift::DefinitionLock;
use bartizan_gate::catalog::lists::{canonical_text, digest};
use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value, write_string};

/// Version of the file format.
const VERSION: i64 = 1;

/// Largest size of a file, bytes.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Limits for parsing a file: those of a definition, and the few levels around it.
const LIMITS: DocumentLimits = DocumentLimits {
    bytes_max: FILE_BYTES_MAX,
    depth_max: 136,
    number_chars_max: 4096,
    values_max: 1 << 24,
};

/// The tools of each server by the server's name and the tool's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockFile {
    servers: BTreeMap<String, BTreeMap<String, LockedTool>>,
}

/// One reviewed tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedTool {
    /// The digest of the definition, `sha256:<hex>`.
    pub digest: Box<str>,
    /// The effect that the server's pack gives it, for the reviewer.
    pub effect: Box<str>,
    /// Kinds of invisible characters in it, for the reviewer.
    pub flags: Vec<Box<str>>,
    /// The definition as canonical JSON.
    pub definition: String,
}

/// A tool that differs between two locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolChange {
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// `added`, `removed` or `changed`.
    #[serde(rename = "change")]
    pub what: &'static str,
    /// The digest before; absent if the tool is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<str>>,
    /// The digest now; absent if the tool is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<Box<str>>,
    /// The members that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberChange>,
}

/// A member that differs between two definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberChange {
    /// A JSON pointer (RFC 6901) to the member.
    pub pointer: String,
    /// The JSON text before; absent if the member is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The JSON text now; absent if the member is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

impl LockFile {
    /// Reads the lock file at `path`.
    ///
    /// # Errors
    ///
    /// Why it cannot be read or is not a lock.
    pub fn read(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if usize::try_from(size).map_or(true, |size| size > FILE_BYTES_MAX) {
            return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
        }
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        Self::parse(bytes.into())
    }

    /// Parses the content of a lock file.
    ///
    /// # Errors
    ///
    /// Why it is not a lock.
    pub fn parse(bytes: Bytes) -> Result<Self, String> {
        let document = Document::read(bytes, &LIMITS).map_err(|_| "is no strict JSON")?;
        let root = document.root();
        only(root, &["version", "servers"], "")?;
        if root.get("version").and_then(Value::as_i64) != Some(VERSION) {
            return Err(format!("is not of version {VERSION}"));
        }
        let mut servers = BTreeMap::new();
        for (server, value) in members(root.get("servers"), "servers")? {
            only(value, &["tools"], &server)?;
            let mut tools = BTreeMap::new();
            for (tool, value) in members(value.get("tools"), &server)? {
                let locked = LockedTool::read(value)
                    .map_err(|what| format!("{server}/{}: {what}", shown(&tool)))?;
                tools.insert(tool, locked);
            }
            servers.insert(server, tools);
        }
        Ok(Self { servers })
    }

    /// The content of the file.
    pub fn text(&self) -> String {
        let mut out = format!("{{\n  \"version\": {VERSION},\n  \"servers\": {{");
        for (index, (server, tools)) in self.servers.iter().enumerate() {
            out.push_str(if index > 0 { ",\n    " } else { "\n    " });
            out.push_str(&literal(server));
            out.push_str(": {\n      \"tools\": {");
            for (index, (tool, locked)) in tools.iter().enumerate() {
                out.push_str(if index > 0 { ",\n        " } else { "\n        " });
                out.push_str(&literal(tool));
                out.push_str(": ");
                locked.write(&mut out);
            }
            out.push_str(if tools.is_empty() { "}" } else { "\n      }" });
            out.push_str("\n    }");
        }
        out.push_str(if self.servers.is_empty() { "}\n}\n" } else { "\n  }\n}\n" });
        out
    }

    /// The lock with which the gate compares the tools of `server`.
    pub fn of_server(&self, server: &str) -> DefinitionLock {
        let Some(tools) = self.servers.get(server) else { return DefinitionLock::Unlocked };
        let digests = tools.iter().map(|(tool, it)| (tool.as_str().into(), it.digest.clone()));
        DefinitionLock::Locked(digests.collect())
    }

    /// The numbers of servers and of tools.
    pub fn counts(&self) -> (usize, usize) {
        (self.servers.len(), self.servers.values().map(BTreeMap::len).sum())
    }

    /// The tools that `name` matches, as server and tool: `server/tool`, or `tool` on any server.
    pub fn find(&self, name: &str) -> Vec<(String, String)> {
        let tools = self.servers.iter().flat_map(|(server, tools)| {
            tools.keys().map(move |tool| (server.clone(), tool.clone()))
        });
        tools.filter(|(server, tool)| tool == name || format!("{server}/{tool}") == name).collect()
    }

    /// Copies one tool from `now`, or removes it if `now` does not have it.
    pub fn renew(&mut self, now: &Self, server: &str, tool: &str) {
        match now.servers.get(server).and_then(|tools| tools.get(tool)) {
            Some(locked) => {
                let tools = self.servers.entry(server.to_owned()).or_default();
                tools.insert(tool.to_owned(), locked.clone());
            }
            None => {
                self.servers.get_mut(server).map(|tools| tools.remove(tool));
            }
        }
    }

    /// The tools that differ in `now`, sorted by server and tool.
    pub fn diff(&self, now: &Self) -> Vec<ToolChange> {
        let none = BTreeMap::new();
        let mut changes = Vec::new();
        for server in keys(&self.servers, &now.servers) {
            let before = self.servers.get(server).unwrap_or(&none);
            let now = now.servers.get(server).unwrap_or(&none);
            for tool in keys(before, now) {
                let (was, is) = (before.get(tool), now.get(tool));
                let what = match (was, is) {
                    (Some(was), Some(is)) if was.digest == is.digest => continue,
                    (Some(_), Some(_)) => "changed",
                    (None, _) => "added",
                    (Some(_), None) => "removed",
                };
                changes.push(ToolChange {
                    server: server.clone(),
                    tool: tool.clone(),
                    what,
                    before: was.map(|it| it.digest.clone()),
                    now: is.map(|it| it.digest.clone()),
                    members: member_changes(was, is),
                });
            }
        }
        changes
    }
}

impl LockedTool {
    /// A tool with the definition that its server sent.
    ///
    /// # Errors
    ///
    /// The definition is not strict JSON.
    pub fn new(definition: &str, effect: &str, flags: &[&str]) -> Result<Self, String> {
        let document = Document::read(Bytes::copy_from_slice(definition.as_bytes()), &LIMITS)
            .map_err(|_| "the definition is no strict JSON")?;
        Ok(Self {
            digest: digest(document.root()),
            effect: effect.into(),
            flags: flags.iter().map(|flag| (*flag).into()).collect(),
            definition: canonical_text(document.root()),
        })
    }

    fn read(value: Value<'_>) -> Result<Self, String> {
        only(value, &["digest", "effect", "flags", "definition"], "it")?;
        let text = |name| value.get(name).and_then(Value::as_str);
        let definition = value.get("definition").ok_or("`definition` is missing")?;
        let digest = digest(definition);
        if text("digest") != Some(&digest) {
            return Err("`digest` is not that of `definition`: it was changed by hand".to_owned());
        }
        let flags = value.get("flags").into_iter().flat_map(Value::elements);
        Ok(Self {
            digest,
            effect: text("effect").ok_or("`effect` is missing")?.into(),
            flags: flags.filter_map(Value::as_str).map(Into::into).collect(),
            definition: canonical_text(definition),
        })
    }

    fn write(&self, out: &mut String) {
        let indent = "\n          ";
        write!(out, "{{{indent}\"digest\": {}", literal(&self.digest)).unwrap_or_default();
        write!(out, ",{indent}\"effect\": {}", literal(&self.effect)).unwrap_or_default();
        if !self.flags.is_empty() {
            let flags: Vec<_> = self.flags.iter().map(|flag| literal(flag)).collect();
            write!(out, ",{indent}\"flags\": [{}]", flags.join(", ")).unwrap_or_default();
        }
        write!(out, ",{indent}\"definition\": ").unwrap_or_default();
        if let Some(document) = self.document() {
            pretty(document.root(), 10, out);
        }
        out.push_str("\n        }");
    }

    fn document(&self) -> Option<Document> {
        Document::read(self.definition.clone().into(), &LIMITS).ok()
    }
}

/// The keys of both maps, each once, sorted.
fn keys<'a, T>(one: &'a BTreeMap<String, T>, other: &'a BTreeMap<String, T>) -> Vec<&'a String> {
    let mut keys: Vec<_> = one.keys().chain(other.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn members<'a>(value: Option<Value<'a>>, at: &str) -> Result<Vec<(String, Value<'a>)>, String> {
    let value = value.filter(|value| value.kind() == Kind::Object);
    let value = value.ok_or_else(|| format!("{at}: is no object"))?;
    let name =
        |(name, value): (Value<'a>, _)| (name.as_str().unwrap_or_default().to_owned(), value);
    Ok(value.members().map(name).collect())
}

fn only(value: Value<'_>, known: &[&str], at: &str) -> Result<(), String> {
    let names = value.members().filter_map(|(name, _)| name.as_str());
    match names.into_iter().find(|name| !known.contains(name)) {
        Some(unknown) => Err(format!("{at}: unknown member {}", shown(unknown))),
        None => Ok(()),
    }
}

/// The members that differ between two definitions, down to values that are neither objects nor
/// arrays.
fn member_changes(was: Option<&LockedTool>, is: Option<&LockedTool>) -> Vec<MemberChange> {
    let leaves = |tool: Option<&LockedTool>| {
        let mut found = BTreeMap::new();
        if let Some(document) = tool.and_then(LockedTool::document) {
            leaves(document.root(), &mut String::new(), &mut found);
        }
        found
    };
    let (before, now) = (leaves(was), leaves(is));
    if was.is_none() || is.is_none() {
        return Vec::new();
    }
    keys(&before, &now)
        .into_iter()
        .filter(|pointer| before.get(*pointer) != now.get(*pointer))
        .map(|pointer| MemberChange {
            pointer: pointer.clone(),
            before: before.get(pointer).cloned(),
            now: now.get(pointer).cloned(),
        })
        .collect()
}

/// Recursive, here and in [`pretty`]; the parser limits the depth of the document.
fn leaves(value: Value<'_>, at: &mut String, found: &mut BTreeMap<String, String>) {
    if value.is_empty() {
        let mut text = String::new();
        pretty(value, 0, &mut text);
        found.insert(at.clone(), text);
        return;
    }
    let length = at.len();
    for (name, member) in value.members() {
        let name = shown(name.as_str().unwrap_or_default());
        write!(at, "/{}", name.replace('~', "~0").replace('/', "~1")).unwrap_or_default();
        leaves(member, at, found);
        at.truncate(length);
    }
    for (index, element) in value.elements().enumerate() {
        write!(at, "/{index}").unwrap_or_default();
        leaves(element, at, found);
        at.truncate(length);
    }
}

/// Canonical JSON, indented by two spaces per level.
fn pretty(value: Value<'_>, indent: usize, out: &mut String) {
    let inner = indent.saturating_add(2);
    let (open, close) = if value.kind() == Kind::Array { ('[', ']') } else { ('{', '}') };
    match value.kind() {
        Kind::String => out.push_str(&literal(value.as_str().unwrap_or_default())),
        Kind::Null | Kind::Bool | Kind::Number => {
            out.push_str(&String::from_utf8_lossy(value.raw()));
        }
        Kind::Array | Kind::Object if value.is_empty() => out.extend([open, close]),
        Kind::Array | Kind::Object => {
            out.push(open);
            let mut members: Vec<_> = value.members().collect();
            members.sort_by_key(|(name, _)| name.as_str());
            for (index, (name, member)) in members.into_iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let name = literal(name.as_str().unwrap_or_default());
                write!(out, "{comma}\n{:inner$}{name}: ", "").unwrap_or_default();
                pretty(member, inner, out);
            }
            for (index, element) in value.elements().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                write!(out, "{comma}\n{:inner$}", "").unwrap_or_default();
                pretty(element, inner, out);
            }
            write!(out, "\n{:indent$}{close}", "").unwrap_or_default();
        }
    }
}

/// A JSON string literal with invisible characters escaped.
fn literal(text: &str) -> String {
    let mut bytes = Vec::new();
    write_string(&mut bytes, text);
    inert::escaped(&String::from_utf8_lossy(&bytes))
}

/// A name with invisible characters escaped.
pub(crate) fn shown(name: &str) -> String {
    let quoted = literal(name);
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_audit::entry::JournalRecord;
    use bartizan_audit::pretty;
    use bartizan_gate::wire::unseen::{self, is_unseen};

    /// One character as the lock, the journal and the output for people write it, without the
    /// layout that each adds.
    fn written(text: &str) -> [String; 3] {
        let entry = JournalRecord { note: Some(text.to_owned()), ..JournalRecord::default() };
        let line = pretty::line(&entry, pretty::Colour::None);
        let empty = JournalRecord { note: Some(String::new()), ..JournalRecord::default() };
        let layout = pretty::line(&empty, pretty::Colour::None);
        let mut json = Vec::new();
        inert::write_json(&text, &mut json).unwrap();
        let json = String::from_utf8(json).unwrap();
        [
            shown(text),
            json.trim_matches('"').to_owned(),
            line.strip_prefix(&layout).unwrap().to_owned(),
        ]
    }

    fn flags(text: &str) -> Vec<&'static str> {
        let json = serde_json::to_vec(text).unwrap();
        unseen::of(Document::read(json.into(), &LIMITS).unwrap().root(), false)
    }

    /// Short enough that no writer cuts the text.
    const TEXT_CHARS: usize = 100;

    #[test]
    fn lock_journal_printer_and_flags_agree_on_every_character() {
        let (unseen, seen): (Vec<char>, Vec<char>) =
            ('\0'..=char::MAX).partition(|char| is_unseen(*char));
        for char in unseen {
            let text = char.to_string();
            for written in written(&text) {
                assert!(written.chars().all(|it| matches!(it, '!'..='~')), "{char:?}: {written}");
                assert!(written.starts_with('\\'), "{char:?}: {written}");
            }
            // A definition may contain line breaks.
            let lays_out = matches!(char, '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}');
            assert_eq!(flags(&text).len(), usize::from(!lays_out), "{char:?}");
        }
        for chars in seen.chunks(TEXT_CHARS) {
            let text: String = chars.iter().filter(|it| !matches!(it, '"' | '\\')).collect();
            for written in written(&text) {
                assert_eq!(written, text);
            }
            assert!(flags(&text).is_empty(), "{text:?}");
        }
    }
}
