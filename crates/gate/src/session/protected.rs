//! A protected server, with what its lists and answers have shown: tool definitions, tasks,
//! handles. One value for each server, shared by its sessions.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::definitions::{DefinitionTable, ListingState, ToolStatus, ToolView};
use super::tasks::Tasks;
use crate::catalog::drift::DefinitionLock;
use crate::catalog::flags::is_header_name;
use crate::catalog::lists::{ListPage, ListedDefinition};
use crate::evidence::record::Now;
use crate::memory::{ENTRY_BYTES, MemoryBudget};
use crate::question::access::Server;
use crate::question::handles::{Facts, HandleStore, KnownHandles, ScopeState};
use crate::question::operation::ResolutionContext;
use crate::question::status::Drift;
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
    /// policy reads definitions.
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
    definitions: RwLock<DefinitionTable>,
    listing: Mutex<ListingState>,
    /// The digest of the name and version by which the server last called itself.
    identity: Mutex<Option<[u8; 32]>>,
    tasks: Mutex<Tasks>,
    handle_store: Arc<Mutex<HandleStore>>,
}

impl Protected {
    /// Definitions kept for each principal at most. Calls of further tools are decided by name and
    /// pack alone; with a lock they are unseen.
    pub const TOOLS_MAX: usize = 4096;
    /// `x-mcp-header` annotations of one tool at most; further ones are ignored.
    const PARAMETERS_MAX: usize = 64;
    /// Size of one annotation, header and pointer, bytes; larger ones are ignored.
    const PARAMETER_BYTES_MAX: usize = 1024;

    /// Creates a server without definitions, tasks and handles.
    pub fn new(facts: Server, refusal: RefusalForm) -> Self {
        Self {
            facts,
            refusal,
            batches: false,
            lock: DefinitionLock::Off,
            keeps_texts: AtomicBool::new(false),
            told: Mutex::default(),
            definitions: RwLock::default(),
            listing: Mutex::default(),
            identity: Mutex::default(),
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

    /// What is known about `tool` when `principal` calls it.
    pub fn status(&self, tool: &str, principal: &str) -> ToolStatus {
        let epoch = lock(&self.listing).epoch();
        read(&self.definitions).status((tool, principal), &self.lock, epoch)
    }

    /// The drift of `tool`, whose definition somebody is shown now with `digest`: the worst of this
    /// one and of those that others were shown.
    pub fn drift(&self, tool: &str, digest: &str) -> Option<Drift> {
        match self.lock.drift(tool, Some(digest)) {
            Some(Drift::None) if read(&self.definitions).is_drifted(tool) => Some(Drift::Changed),
            drift => drift,
        }
    }

    /// The flags of all definitions of `tool` that anybody was shown.
    pub fn flags(&self, tool: &str) -> Vec<&'static str> {
        read(&self.definitions).flags(tool)
    }

    /// From now on keeps the text of definitions, not only their digests (`bartizan lock`).
    pub fn keep_texts(&self) {
        self.keeps_texts.store(true, Ordering::Relaxed);
    }

    /// The definitions that were listed so far, by name.
    pub fn tools(&self) -> BTreeMap<Box<str>, Arc<ToolDefinition>> {
        read(&self.definitions).all()
    }

    /// The server says, or shows, that its definitions may have changed: none is seen any more,
    /// until it is listed again.
    pub fn definitions_changed(&self) {
        lock(&self.listing).changed();
    }

    /// Listing the server again is advised, though nothing says that its definitions have changed:
    /// a session of it has begun, it could not be reached, or some time has passed.
    pub fn advise_listing(&self) {
        lock(&self.listing).advise();
    }

    /// Notes the name and version by which the server calls itself. If they are others than before,
    /// it is another server, and its definitions may have changed.
    pub(super) fn identified(&self, info: Value<'_>) {
        if self.lock == DefinitionLock::Off {
            return;
        }
        let text = |name| info.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut digest = Sha256::new();
        for part in [text("name"), "\0", text("version")] {
            digest.update(part.as_bytes());
        }
        let now: [u8; 32] = digest.finalize().into();
        let before = lock(&self.identity).replace(now);
        if before.is_some_and(|before| before != now) {
            self.definitions_changed();
        }
    }

    /// A task lists this server whenever [`Protected::poll_listing`] says so.
    pub fn attach_lister(&self) {
        lock(&self.listing).attach();
    }

    /// Ready when the server should be listed; the value is for [`Protected::listed`]. One task may
    /// wait.
    pub fn poll_listing(&self, cx: &Context<'_>) -> Poll<u64> {
        lock(&self.listing).poll_wanted(cx)
    }

    /// Listing has ended. `tools` is what it found, absent if it failed: if it succeeded before,
    /// nothing is seen until it is listed. `epoch` is the value with which it began.
    pub fn listed(&self, epoch: u64, tools: Option<&Self>, memory: &Arc<MemoryBudget>, now: Now) {
        if let Some(tools) = tools {
            let mut definitions = write(&self.definitions);
            for (name, definition) in tools.tools() {
                let drifted = self.lock.drift(&name, Some(&definition.digest));
                self.show(
                    &mut definitions,
                    None,
                    (&name, definition),
                    (drifted, epoch),
                    memory,
                    now,
                );
            }
            definitions.forget_ours_before(epoch);
        }
        lock(&self.listing).end(epoch, tools.is_some());
    }

    /// Ready when no listing is under way or due.
    pub fn poll_listed(&self, cx: &Context<'_>) -> Poll<()> {
        lock(&self.listing).poll_ended(cx)
    }

    /// Keeps one definition. Without room it is not kept, so it is unseen.
    fn show(
        &self,
        definitions: &mut DefinitionTable,
        principal: Option<&str>,
        (name, definition): (&str, Arc<ToolDefinition>),
        (drift, epoch): (Option<Drift>, u64),
        memory: &Arc<MemoryBudget>,
        now: Now,
    ) {
        let latest = definitions.latest(name);
        let same = latest.filter(|known| ***known == *definition).cloned();
        let texts = if same.is_some() { 0 } else { definition.bytes() };
        let bytes = ENTRY_BYTES.saturating_add(name.len()).saturating_add(texts);
        let owner = principal.map_or_else(|| format!("server {}", self.facts.name), Into::into);
        definitions.forget(principal, name);
        let Ok(charge) = memory.charge(&owner, bytes) else { return };
        let view = ToolView {
            definition: same.unwrap_or(definition),
            epoch,
            since: now.uptime,
            drifted: drift == Some(Drift::Changed),
            _charge: charge,
        };
        definitions.show(principal, name, view);
    }

    /// Returns `true` once for each definition, named by its `digest`, so that one notice is
    /// recorded. `false` for all further ones after [`Protected::TOOLS_MAX`] definitions.
    pub fn first_notice(&self, digest: &str) -> bool {
        let mut told = lock(&self.told);
        told.len() < Self::TOOLS_MAX && told.insert(digest.into())
    }

    /// Keeps the definitions of a page of tools that `principal` is shown, each with its flags;
    /// with their texts if the policy `reads` them.
    pub fn remember_page(
        &self,
        principal: &str,
        (page, flags): (&ListPage<'_>, &[Vec<&'static str>]),
        reads: bool,
        memory: &Arc<MemoryBudget>,
        now: Now,
    ) {
        let epoch = lock(&self.listing).epoch();
        let mut definitions = write(&self.definitions);
        let keeps_texts = reads || self.keeps_texts.load(Ordering::Relaxed);
        for (entry, flags) in page.entries.iter().zip(flags) {
            if !definitions.has_room(principal, entry.name, Self::TOOLS_MAX) {
                continue;
            }
            let same = |known: &&Arc<ToolDefinition>| {
                known.digest == entry.digest
                    && known.flags == *flags
                    && (known.text.is_some() || !keeps_texts)
            };
            let definition = match definitions.latest(entry.name).filter(same) {
                Some(known) => Arc::clone(known),
                None => Arc::new(ToolDefinition::of(entry, flags, keeps_texts)),
            };
            let drift = self.lock.drift(entry.name, Some(&entry.digest));
            let shown = (entry.name, definition);
            self.show(&mut definitions, Some(principal), shown, (drift, epoch), memory, now);
        }
    }
}

impl ToolDefinition {
    fn of(entry: &ListedDefinition<'_>, flags: &[&'static str], keeps_text: bool) -> Self {
        let mut parameters = Vec::new();
        if let Some(schema) = entry.value.get("inputSchema") {
            annotations(schema, &mut String::new(), &mut parameters);
        }
        let text = keeps_text.then(|| String::from_utf8_lossy(entry.value.raw()).into());
        let digest = entry.digest.clone();
        Self { digest, parameters, flags: flags.to_vec(), text }
    }

    /// The size of its texts, bytes.
    fn bytes(&self) -> usize {
        let parameters = self.parameters.iter();
        let sizes = parameters.map(|(header, at)| header.len().saturating_add(at.len()));
        let text = self.text.as_deref().map_or(0, str::len);
        sizes.chain([text]).fold(self.digest.len(), usize::saturating_add)
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
        let fits =
            |header: &&str| header.len().saturating_add(at.len()) <= Protected::PARAMETER_BYTES_MAX;
        let header = property.get("x-mcp-header").and_then(Value::as_str);
        if let Some(header) = header.filter(fits).filter(|header| is_header_name(header)) {
            found.push((header.to_ascii_lowercase().into(), at.as_str().into()));
        }
        annotations(property, at, found);
        at.truncate(length);
    }
}
