//! A protected server, with what its lists and answers have shown: tool definitions, tasks,
//! handles. One value for each server, shared by its sessions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use super::tasks::Tasks;
use crate::catalog::drift::DefinitionLock;
use crate::catalog::flags::is_header_name;
use crate::catalog::lists::ListPage;
use crate::question::access::Server;
use crate::question::handles::{Facts, HandleStore, KnownHandles, ScopeState};
use crate::question::operation::ResolutionContext;
use crate::wire::document::{Kind, Value};
use bartizan_sync::{lock, read, write};

/// The form in which the agent sees a refusal by policy (`refusals` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalForm {
    /// A JSON-RPC error.
    Error,
    /// For `tools/call`, a tool result with `isError: true` that a model can read.
    ToolResult,
}

/// A tool as it was last listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolDefinition {
    /// `sha256:<hex>` of its canonical form; see [`digest`](crate::catalog::lists::digest).
    pub digest: Box<str>,
    /// `x-mcp-header` annotations of its input schema: lower-case header suffix, and RFC 6901
    /// pointer below the arguments (MCP 2026-07-28, Streamable HTTP "Parameter Headers").
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// Flags, such as invisible characters; see [`crate::catalog::flags`].
    pub flags: Vec<&'static str>,
    /// The definition as the server wrote it; kept after [`Protected::keep_texts`], and where the
    /// policy reads definitions, up to [`Protected::TEXTS_BYTES_MAX`].
    pub text: Option<Box<str>>,
}

/// A protected server. Shared by its sessions; each table has its own lock.
#[derive(Debug)]
pub struct Protected {
    /// What the policy sees of the server.
    pub facts: Server,
    /// The form of refusals by policy.
    pub refusal: RefusalForm,
    /// Whether batches may pass (P7), over HTTP and in MCP 2025-03-26 alone. Default: `false`.
    pub batches: bool,
    /// The reviewed definitions of its tools. Default: no lock.
    pub lock: DefinitionLock,
    keeps_texts: AtomicBool,
    /// Digests of definitions about which a notice was recorded.
    told: Mutex<HashSet<Box<str>>>,
    tools: RwLock<HashMap<Box<str>, Arc<ToolDefinition>>>,
    tasks: Mutex<Tasks>,
    handle_store: Arc<Mutex<HandleStore>>,
}

impl Protected {
    /// Definitions kept at most. Calls of further tools are decided by name and pack alone.
    pub const TOOLS_MAX: usize = 4096;
    /// `x-mcp-header` annotations of one tool at most; further ones are ignored.
    const PARAMETERS_MAX: usize = 64;
    /// Definitions that are kept for the policy, bytes in all; further ones are absent from its
    /// input.
    pub const TEXTS_BYTES_MAX: usize = 4 << 20;

    /// Creates a server without definitions, tasks and handles.
    pub fn new(facts: Server, refusal: RefusalForm) -> Self {
        Self {
            facts,
            refusal,
            batches: false,
            lock: DefinitionLock::Off,
            keeps_texts: AtomicBool::new(false),
            told: Mutex::default(),
            tools: RwLock::default(),
            tasks: Mutex::default(),
            handle_store: Arc::default(),
        }
    }

    /// The tasks that this server runs, for all principals.
    pub fn tasks(&self) -> MutexGuard<'_, Tasks> {
        lock(&self.tasks)
    }

    /// The handles and session facts of its answers, for all principals.
    pub fn handle_store(&self) -> &Arc<Mutex<HandleStore>> {
        &self.handle_store
    }

    /// The handles that were issued to `principal`, and those that `session` holds, at `now`
    /// (uptime).
    pub fn handles<'a>(
        &'a self,
        principal: &'a str,
        session: Option<&'a Mutex<ScopeState>>,
        now: Duration,
    ) -> KnownHandles<'a> {
        KnownHandles { store: &self.handle_store, session, principal, now }
    }

    /// The session facts of `principal` that outlive a session, at `now` (uptime).
    pub fn session_facts(&self, principal: &str, now: Duration) -> Facts {
        lock(&self.handle_store).facts(principal, now)
    }

    /// What a call of one of its tools is classified with, except handles.
    pub fn resolution_context(&self) -> ResolutionContext<'_> {
        ResolutionContext {
            pack: self.facts.pack.as_deref(),
            environment_ids: Some(&self.facts.environment_ids),
            handles: None,
        }
    }

    /// The definition of `tool` as last listed.
    pub fn definition(&self, tool: &str) -> Option<Arc<ToolDefinition>> {
        read(&self.tools).get(tool).cloned()
    }

    /// From now on keeps the text of definitions, not only their digests (`bartizan lock`).
    pub fn keep_texts(&self) {
        self.keeps_texts.store(true, Ordering::Relaxed);
    }

    /// The definitions that were listed so far, by name.
    pub fn tools(&self) -> BTreeMap<Box<str>, Arc<ToolDefinition>> {
        let tools = read(&self.tools);
        tools.iter().map(|(name, definition)| (name.clone(), Arc::clone(definition))).collect()
    }

    /// Returns `true` once for each definition, named by its `digest`, so that one notice is
    /// recorded. `false` for all further ones after [`Protected::TOOLS_MAX`] definitions.
    pub fn first_notice(&self, digest: &str) -> bool {
        let mut told = lock(&self.told);
        told.len() < Self::TOOLS_MAX && told.insert(digest.into())
    }

    /// Keeps the definitions of a page of tools, each with its flags.
    /// `read`: the policy reads definitions.
    pub fn remember_page(&self, page: &ListPage<'_>, flags: &[Vec<&'static str>], read: bool) {
        let mut tools = write(&self.tools);
        let keeps_texts = self.keeps_texts.load(Ordering::Relaxed);
        let text_bytes = |tool: &Arc<ToolDefinition>| tool.text.as_deref().map_or(0, str::len);
        let mut kept: usize = tools.values().map(text_bytes).sum();
        for (entry, flags) in page.entries.iter().zip(flags) {
            if tools.len() >= Self::TOOLS_MAX && !tools.contains_key(entry.name) {
                continue;
            }
            let same = |known: &Arc<ToolDefinition>| {
                known.digest == entry.digest
                    && known.flags == *flags
                    && (known.text.is_some() || !read)
            };
            if tools.get(entry.name).is_some_and(same) {
                continue;
            }
            let mut parameters = Vec::new();
            if let Some(schema) = entry.value.get("inputSchema") {
                annotations(schema, &mut String::new(), &mut parameters);
            }
            let raw = entry.value.raw();
            let replaced = tools.get(entry.name).map_or(0, text_bytes);
            let after = kept.saturating_sub(replaced).saturating_add(raw.len());
            let keeps = keeps_texts || (read && after <= Self::TEXTS_BYTES_MAX);
            kept = if keeps { after } else { kept.saturating_sub(replaced) };
            let text = keeps.then(|| String::from_utf8_lossy(raw).into());
            let definition = ToolDefinition {
                digest: entry.digest.clone(),
                parameters,
                flags: flags.clone(),
                text,
            };
            tools.insert(entry.name.into(), Arc::new(definition));
        }
    }
}

/// Collects `x-mcp-header` annotations along chains of `properties` only, as the specification
/// allows (MCP 2026-07-28, Streamable HTTP "Parameter Headers").
fn annotations(schema: Value<'_>, at: &mut String, found: &mut Vec<(Box<str>, Box<str>)>) {
    let Some(properties) = schema.get("properties") else { return };
    for (name, property) in properties.members() {
        let Some(name) = name.as_str() else { continue };
        if property.kind() != Kind::Object || found.len() >= Protected::PARAMETERS_MAX {
            continue;
        }
        let length = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let header = property.get("x-mcp-header").and_then(Value::as_str);
        if let Some(header) = header.filter(|header| is_header_name(header)) {
            found.push((header.to_ascii_lowercase().into(), at.as_str().into()));
        }
        annotations(property, at, found);
        at.truncate(length);
    }
}
