//! A protected server and what its lists have taught us about its tools.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use super::tasks::Tasks;
use crate::catalog::drift::Lock;
use crate::catalog::lists::Page;
use crate::question::access::Server;
use crate::question::handles::{Facts, Memory, OfPrincipal};
use crate::question::operation::Knowledge;
use crate::wire::document::{Kind, Value};
use bartizan_sync::{lock, read, write};

/// How a refusal by policy looks to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalForm {
    /// A JSON-RPC error.
    Error,
    /// For `tools/call`, a tool result with `isError: true` that a model can read.
    ToolResult,
}

/// A tool as it was last listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// `sha256:<hex>` of its canonical form.
    pub digest: Box<str>,
    /// `x-mcp-header` annotations of its input schema: lower-case header suffix and RFC 6901
    /// pointer below the arguments (2026-07-28, Streamable HTTP "Parameter Headers").
    pub parameters: Vec<(Box<str>, Box<str>)>,
    /// What people cannot see in it; see [`crate::wire::unseen`].
    pub flags: Vec<&'static str>,
    /// The definition as the server wrote it, after [`Protected::keep_texts`].
    pub text: Option<Box<str>>,
}

/// A protected server; shared by its sessions.
#[derive(Debug)]
pub struct Protected {
    /// What policy sees.
    pub facts: Server,
    /// How refusals look.
    pub refusal: RefusalForm,
    /// Whether batches may pass, where MCP 2025-03-26 is spoken over HTTP. Off at first.
    pub batches: bool,
    /// Its tools as they were reviewed. None at first.
    pub lock: Lock,
    keeps_texts: AtomicBool,
    /// Digests of definitions that were told of.
    told: Mutex<HashSet<Box<str>>>,
    tools: RwLock<HashMap<Box<str>, Arc<Definition>>>,
    tasks: Mutex<Tasks>,
    memory: Arc<Mutex<Memory>>,
}

impl Protected {
    /// Tools remembered at most; a server with more is still enforced, by name and pack.
    pub const TOOLS_MAX: usize = 4096;
    /// Annotations of one tool at most.
    const PARAMETERS_MAX: usize = 64;

    /// A server of which nothing has been learnt.
    pub fn new(facts: Server, refusal: RefusalForm) -> Self {
        Self {
            facts,
            refusal,
            batches: false,
            lock: Lock::Off,
            keeps_texts: AtomicBool::new(false),
            told: Mutex::default(),
            tools: RwLock::default(),
            tasks: Mutex::default(),
            memory: Arc::default(),
        }
    }

    /// The tasks that this server runs, whoever asked for them.
    pub fn tasks(&self) -> MutexGuard<'_, Tasks> {
        lock(&self.tasks)
    }

    /// What its answers taught.
    pub fn memory(&self) -> &Arc<Mutex<Memory>> {
        &self.memory
    }

    /// The handles that its answers gave to `principal`, at `now` (uptime).
    pub fn handles<'a>(&'a self, principal: &'a str, now: Duration) -> OfPrincipal<'a> {
        OfPrincipal { memory: &self.memory, principal, now }
    }

    /// The session facts of `principal`, at `now` (uptime).
    pub fn session_facts(&self, principal: &str, now: Duration) -> Facts {
        lock(&self.memory).facts(principal, now)
    }

    /// What a call of one of its tools is resolved against, but for handles.
    pub fn knowledge(&self) -> Knowledge<'_> {
        Knowledge {
            pack: self.facts.pack.as_deref(),
            environment_ids: Some(&self.facts.environment_ids),
            handles: None,
        }
    }

    /// `tool` as it was last listed.
    pub fn definition(&self, tool: &str) -> Option<Arc<Definition>> {
        read(&self.tools).get(tool).cloned()
    }

    /// From now on, keeps definitions whole, for those who want to read them.
    pub fn keep_texts(&self) {
        self.keeps_texts.store(true, Ordering::Relaxed);
    }

    /// The tools that were listed so far, by name.
    pub fn tools(&self) -> BTreeMap<Box<str>, Arc<Definition>> {
        let tools = read(&self.tools);
        tools.iter().map(|(name, definition)| (name.clone(), Arc::clone(definition))).collect()
    }

    /// Whether this is the first notice about the definition with `digest`, which it then counts as
    /// given. `false` also once [`Protected::TOOLS_MAX`] definitions have had theirs.
    pub fn first_notice(&self, digest: &str) -> bool {
        let mut told = lock(&self.told);
        told.len() < Self::TOOLS_MAX && told.insert(digest.into())
    }

    /// Remembers a page of tools that passed, each with its flags.
    pub fn learn(&self, page: &Page<'_>, flags: &[Vec<&'static str>]) {
        let mut tools = write(&self.tools);
        let keeps_texts = self.keeps_texts.load(Ordering::Relaxed);
        for (entry, flags) in page.entries.iter().zip(flags) {
            if tools.len() >= Self::TOOLS_MAX && !tools.contains_key(entry.name) {
                continue;
            }
            let same =
                |known: &Arc<Definition>| known.digest == entry.digest && known.flags == *flags;
            if tools.get(entry.name).is_some_and(same) {
                continue;
            }
            let mut parameters = Vec::new();
            if let Some(schema) = entry.value.get("inputSchema") {
                annotations(schema, &mut String::new(), &mut parameters);
            }
            let text = keeps_texts.then(|| String::from_utf8_lossy(entry.value.raw()).into());
            let definition =
                Definition { digest: entry.digest.clone(), parameters, flags: flags.clone(), text };
            tools.insert(entry.name.into(), Arc::new(definition));
        }
    }
}

/// Collects annotations along a pure chain of `properties`, as the specification allows them.
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
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
            found.push((header.to_ascii_lowercase().into(), at.as_str().into()));
        }
        annotations(property, at, found);
        at.truncate(length);
    }
}
