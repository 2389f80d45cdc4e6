//! A protected server, with what its lists and answers have shown: tool definitions, tasks,
//! handles. One value for each server, shared by its sessions.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::definitions::{DefinitionTable, ListingState, Shown, ToolDefinition, ToolStatus};
use super::ids::IdMemory;
use super::tasks::Tasks;
use crate::catalog::drift::DefinitionLock;
use crate::catalog::lists::ListPage;
use crate::duty::duties::PrincipalDuties;
use crate::evidence::record::{Now, ServerAddress};
use crate::evidence::text::{Name, Text};
use crate::memory::MemoryBudget;
use crate::question::access::Server;
use crate::question::handles::{Facts, HandleStore, KnownHandles, ScopeState};
use crate::question::operation::ResolutionContext;
use crate::question::status::Drift;
use crate::wire::document::Value;
use bartizan_sync::{lock, read, write};

/// The form in which the agent sees a refusal by policy (`refusals` in the configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalForm {
    /// A JSON-RPC error.
    Error,
    /// For `tools/call`, a tool result with `isError: true` that a model can read.
    ToolResult,
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
    /// Whether the server is told the trace context of the CLIENT span. Default: `false`.
    pub propagate: bool,
    /// Where it is, for records. Default: `None`, as for a command.
    pub address: Option<ServerAddress>,
    /// The reviewed definitions of its tools. Default: no lock.
    pub lock: DefinitionLock,
    /// Its name, as records have it.
    record_name: OnceLock<Text<Name>>,
    keeps_texts: AtomicBool,
    /// Digests of definitions about which a notice was recorded.
    told: Mutex<HashSet<Box<str>>>,
    definitions: RwLock<DefinitionTable>,
    listing: Mutex<ListingState>,
    /// The digest of the name and version by which the server last called itself.
    identity: Mutex<Option<[u8; 32]>>,
    tasks: Mutex<Tasks>,
    handle_store: Arc<Mutex<HandleStore>>,
    id_memory: IdMemory,
    /// What each principal's calls demand of messages that come to it outside any session.
    duties: Mutex<PrincipalDuties>,
}

impl Protected {
    /// Definitions kept for each principal at most. Calls of further tools are decided by name and
    /// pack alone; with a lock they are unseen.
    pub const TOOLS_MAX: usize = 4096;

    /// Creates a server without definitions, tasks and handles.
    pub fn new(facts: Server, refusal: RefusalForm) -> Self {
        Self {
            facts,
            refusal,
            batches: false,
            propagate: false,
            address: None,
            lock: DefinitionLock::Off,
            record_name: OnceLock::new(),
            keeps_texts: AtomicBool::new(false),
            told: Mutex::default(),
            definitions: RwLock::default(),
            listing: Mutex::default(),
            identity: Mutex::default(),
            tasks: Mutex::default(),
            handle_store: Arc::default(),
            id_memory: IdMemory::default(),
            duties: Mutex::default(),
        }
    }

    /// Its name, as records have it.
    pub(super) fn record_name(&self) -> &Text<Name> {
        self.record_name.get_or_init(|| self.facts.name.as_ref().into())
    }

    /// What its sessions use to remember ids.
    pub(super) fn id_memory(&self) -> &IdMemory {
        &self.id_memory
    }

    /// What the calls of each principal demand of messages that come outside any session.
    pub(super) fn duties(&self) -> MutexGuard<'_, PrincipalDuties> {
        lock(&self.duties)
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
            let owner = format!("server {}", self.facts.name);
            let shown = Shown { principal: None, owner: &owner, epoch, now: now.uptime };
            let mut definitions = write(&self.definitions);
            for (name, definition) in tools.tools() {
                let drift = self.lock.drift(&name, Some(&definition.digest));
                definitions.keep(&shown, (&name, definition, drift), memory);
            }
            definitions.forget_ours_before(epoch);
        }
        lock(&self.listing).end(epoch, tools.is_some());
    }

    /// Ready when no listing is under way or due.
    pub fn poll_listed(&self, cx: &Context<'_>) -> Poll<()> {
        lock(&self.listing).poll_ended(cx)
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
        let shown = Shown { principal: Some(principal), owner: principal, epoch, now: now.uptime };
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
            definitions.keep(&shown, (entry.name, definition, drift), memory);
        }
    }
}
