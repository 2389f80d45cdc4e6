//! The definitions of a server's tools, as each viewer was shown them last, and what is unverified.
//!
//! A server may show two principals different definitions, so one principal's list replaces nothing
//! that another was shown. A tool counts as changed, or as flagged, for everybody as soon as anybody
//! was shown it so, until that viewer is shown it otherwise or [`VIEW_TTL`] has passed. It counts as
//! seen only for the viewer itself, or for all if we have listed the server ourselves.
//!
//! Whatever was seen before the server said that its tools changed is not seen any more: the epoch
//! has gone on. [`ListingState`] wakes the task that then lists the server again, and lets calls
//! wait for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::catalog::drift::DefinitionLock;
use crate::catalog::flags::is_header_name;
use crate::catalog::lists::ListedDefinition;
use crate::memory::{Charge, ENTRY_BYTES, MemoryBudget};
use crate::question::status::Drift;
use crate::wire::document::{Kind, Value};

/// How long what one viewer was shown counts for others.
pub(super) const VIEW_TTL: Duration = Duration::from_hours(24);

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
    /// The definition as the server wrote it; kept only after `Protected::keep_texts`.
    pub text: Option<Box<str>>,
    /// The memory of its texts. It ends with the last viewer who shares them.
    memory: TextCharge,
}

/// What a definition is charged for; no part of what it says.
#[derive(Debug, Clone, Default)]
struct TextCharge {
    _charge: Option<Charge>,
}

impl PartialEq for TextCharge {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for TextCharge {}

impl ToolDefinition {
    /// `x-mcp-header` annotations of one tool at most; further ones are ignored.
    const PARAMETERS_MAX: usize = 64;
    /// Size of one annotation, header and pointer, bytes; larger ones are ignored.
    const PARAMETER_BYTES_MAX: usize = 1024;

    pub(super) fn of(
        entry: &ListedDefinition<'_>,
        flags: &[&'static str],
        keeps_text: bool,
    ) -> Self {
        let mut parameters = Vec::new();
        if let Some(schema) = entry.value.get("inputSchema") {
            annotations(schema, &mut String::new(), &mut parameters);
        }
        let text = keeps_text.then(|| String::from_utf8_lossy(entry.value.raw()).into());
        let digest = entry.digest.clone();
        let memory = TextCharge::default();
        Self { digest, parameters, flags: flags.to_vec(), text, memory }
    }

    /// The size of its texts, bytes.
    fn bytes(&self) -> usize {
        let parameters = self.parameters.iter();
        let sizes = parameters.map(|(header, at)| header.len().saturating_add(at.len()));
        let text = self.text.as_deref().map_or(0, str::len);
        sizes.chain([text]).fold(self.digest.len(), usize::saturating_add)
    }
}

/// What is known about a tool when one principal calls it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolStatus {
    /// Its definition: as this principal was shown it, else as we were, else as anybody was.
    pub definition: Option<Arc<ToolDefinition>>,
    /// Its drift from the lock; `None` where no lock file is configured.
    pub drift: Option<Drift>,
    /// The flags of all its definitions.
    pub flags: Vec<&'static str>,
}

/// One viewer's definition of one tool.
#[derive(Debug)]
struct ToolView {
    definition: Arc<ToolDefinition>,
    /// The epoch in which it was shown.
    epoch: u64,
    /// The uptime at which it was shown.
    since: Duration,
    /// Whether it differs from the lock.
    drifted: bool,
    _charge: Charge,
}

/// To whom a list is shown, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// Absent if we are shown it ourselves.
    pub(super) principal: Option<&'a str>,
    /// Who is charged for it.
    pub(super) owner: &'a str,
    pub(super) epoch: u64,
    /// The uptime.
    pub(super) now: Duration,
}

/// All views of one tool.
#[derive(Debug, Default)]
struct ToolViews {
    /// What we were shown ourselves.
    ours: Option<ToolView>,
    principals: HashMap<Box<str>, ToolView>,
    latest: Option<Arc<ToolDefinition>>,
    /// How many views differ from the lock.
    drifted: usize,
    /// How many views have each flag.
    flagged: BTreeMap<&'static str, usize>,
}

impl ToolViews {
    fn counted(&mut self, view: &ToolView) {
        self.drifted = self.drifted.saturating_add(usize::from(view.drifted));
        for flag in &view.definition.flags {
            let count = self.flagged.entry(flag).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn uncounted(&mut self, view: &ToolView) {
        self.drifted = self.drifted.saturating_sub(usize::from(view.drifted));
        for flag in &view.definition.flags {
            if let Some(count) = self.flagged.get_mut(flag) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn is_suspect(&self) -> bool {
        self.drifted > 0 || self.flagged.values().any(|count| *count > 0)
    }
}

/// The definitions of one server's tools.
#[derive(Debug, Default)]
pub(super) struct DefinitionTable {
    tools: HashMap<Box<str>, ToolViews>,
    /// How many tools each principal was shown.
    shown: HashMap<Box<str>, usize>,
}

impl DefinitionTable {
    /// What is known when `principal` calls `tool` in `epoch`.
    pub(super) fn status(
        &self,
        (tool, principal): (&str, &str),
        lock: &DefinitionLock,
        epoch: u64,
    ) -> ToolStatus {
        let Some(views) = self.tools.get(tool) else {
            return ToolStatus { drift: lock.drift(tool, None), ..ToolStatus::default() };
        };
        let own = views.principals.get(principal);
        let shown = own.or(views.ours.as_ref()).map(|view| &view.definition);
        let definition = shown.or(views.latest.as_ref()).cloned();
        let seen = [own, views.ours.as_ref()].into_iter().flatten().any(|it| it.epoch >= epoch);
        let digest = definition.as_deref().map(|it| &*it.digest).filter(|_| seen);
        let drift = match lock.drift(tool, digest) {
            Some(Drift::None | Drift::Unseen) if views.drifted > 0 => Some(Drift::Changed),
            drift => drift,
        };
        ToolStatus { definition, drift, flags: self.flags(tool) }
    }

    /// Whether anybody was shown a definition of `tool` that differs from the lock.
    pub(super) fn is_drifted(&self, tool: &str) -> bool {
        self.tools.get(tool).is_some_and(|views| views.drifted > 0)
    }

    /// The flags of all definitions of `tool`.
    pub(super) fn flags(&self, tool: &str) -> Vec<&'static str> {
        let flagged = self.tools.get(tool).into_iter().flat_map(|views| &views.flagged);
        flagged.filter(|(_, count)| **count > 0).map(|(flag, _)| *flag).collect()
    }

    /// The definition of `tool` that was shown last to anybody.
    pub(super) fn latest(&self, tool: &str) -> Option<&Arc<ToolDefinition>> {
        self.tools.get(tool)?.latest.as_ref()
    }

    /// The definitions that were shown last, by name.
    pub(super) fn all(&self) -> BTreeMap<Box<str>, Arc<ToolDefinition>> {
        let tools = self.tools.iter();
        let latest =
            tools.filter_map(|(name, it)| Some((name.clone(), Arc::clone(it.latest.as_ref()?))));
        latest.collect()
    }

    /// Whether `principal` may be shown one tool more than `tools_max` allows: it knows `tool`
    /// already, or fewer.
    pub(super) fn has_room(&self, principal: &str, tool: &str, tools_max: usize) -> bool {
        self.shown.get(principal).is_none_or(|count| *count < tools_max)
            || self.tools.get(tool).is_some_and(|it| it.principals.contains_key(principal))
    }

    /// Forgets what `principal` was shown of `tool`; `None` means ourselves.
    pub(super) fn forget(&mut self, principal: Option<&str>, tool: &str) {
        let Some(views) = self.tools.get_mut(tool) else { return };
        let old = match principal {
            Some(principal) => views.principals.remove(principal),
            None => views.ours.take(),
        };
        let Some(old) = old else { return };
        views.uncounted(&old);
        if let Some(count) = principal.and_then(|principal| self.shown.get_mut(principal)) {
            *count = count.saturating_sub(1);
        }
        if views.ours.is_none() && views.principals.is_empty() {
            self.tools.remove(tool);
        }
    }

    /// Keeps one definition that somebody is shown, and how it stands to the lock. Without room it
    /// is not kept, so it is unseen.
    pub(super) fn keep(
        &mut self,
        shown: &Shown<'_>,
        (name, mut definition, drift): (&str, Arc<ToolDefinition>, Option<Drift>),
        memory: &Arc<MemoryBudget>,
    ) {
        let same = self.latest(name).filter(|known| ***known == *definition).cloned();
        self.forget(shown.principal, name);
        let mut bytes = ENTRY_BYTES.saturating_add(name.len());
        if same.is_none() {
            let texts = definition.bytes();
            match Arc::get_mut(&mut definition) {
                Some(own) => {
                    let Ok(charge) = memory.charge(shown.owner, texts) else { return };
                    own.memory = TextCharge { _charge: Some(charge) };
                }
                // Somebody else shares it, so it counts once more.
                None => bytes = bytes.saturating_add(texts),
            }
        }
        let Ok(charge) = memory.charge(shown.owner, bytes) else { return };
        let view = ToolView {
            definition: same.unwrap_or(definition),
            epoch: shown.epoch,
            since: shown.now,
            drifted: drift == Some(Drift::Changed),
            _charge: charge,
        };
        self.show(shown.principal, name, view);
    }

    /// Keeps what `principal` was shown of `tool`; `None` means ourselves.
    fn show(&mut self, principal: Option<&str>, tool: &str, view: ToolView) {
        self.forget(principal, tool);
        let views = self.tools.entry(tool.into()).or_default();
        if views.is_suspect() {
            let old: Vec<Box<str>> = views
                .principals
                .iter()
                .filter(|(_, it)| view.since.saturating_sub(it.since) >= VIEW_TTL)
                .map(|(principal, _)| principal.clone())
                .collect();
            for name in old {
                if let Some(gone) = views.principals.remove(&name) {
                    views.uncounted(&gone);
                    if let Some(count) = self.shown.get_mut(&name) {
                        *count = count.saturating_sub(1);
                    }
                }
            }
        }
        views.counted(&view);
        views.latest = Some(Arc::clone(&view.definition));
        match principal {
            Some(principal) => {
                views.principals.insert(principal.into(), view);
                let count = self.shown.entry(principal.into()).or_default();
                *count = count.saturating_add(1);
            }
            None => views.ours = Some(view),
        }
    }

    /// Forgets what we were shown ourselves before `epoch`: the server has it no more.
    pub(super) fn forget_ours_before(&mut self, epoch: u64) {
        let before = |it: &ToolViews| it.ours.as_ref().is_some_and(|view| view.epoch < epoch);
        let old: Vec<Box<str>> = self
            .tools
            .iter()
            .filter(|(_, views)| before(views))
            .map(|(name, _)| name.clone())
            .collect();
        for tool in old {
            self.forget(None, &tool);
        }
    }
}

/// Which definitions are out of date, who lists them anew, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct ListingState {
    /// Whether a task lists the server.
    attached: bool,
    /// Counts how often the server's definitions have, or may have, changed.
    epoch: u64,
    /// The newest epoch for which listing has ended, well or not.
    ended: u64,
    /// Whether the last listing succeeded.
    found: bool,
    /// Listing again is advised, though nothing says that anything has changed.
    advised: bool,
    lister: Option<Waker>,
    waiting: Vec<Waker>,
}

impl ListingState {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A task lists the server from now on; it is wanted at once.
    pub(super) fn attach(&mut self) {
        self.attached = true;
        self.changed();
    }

    pub(super) fn changed(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.wake_lister();
    }

    pub(super) fn advise(&mut self) {
        self.advised = self.attached;
        self.wake_lister();
    }

    fn wake_lister(&mut self) {
        if let Some(lister) = self.lister.take() {
            lister.wake();
        }
    }

    pub(super) fn poll_wanted(&mut self, cx: &Context<'_>) -> Poll<u64> {
        if self.epoch > self.ended || std::mem::take(&mut self.advised) {
            return Poll::Ready(self.epoch);
        }
        self.lister = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Listing for `epoch` has ended. If it failed and had not failed before, nothing is seen until
    /// it is listed: the server may come back as another one.
    pub(super) fn end(&mut self, epoch: u64, found: bool) {
        if std::mem::replace(&mut self.found, found) && !found {
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.ended = if found { self.ended.max(epoch) } else { self.epoch };
        self.waiting.drain(..).for_each(Waker::wake);
    }

    pub(super) fn poll_ended(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.attached || self.ended >= self.epoch {
            return Poll::Ready(());
        }
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Collects `x-mcp-header` annotations along chains of `properties` only, as the specification
/// allows (MCP 2026-07-28, Streamable HTTP "Parameter Headers").
fn annotations(schema: Value<'_>, at: &mut String, found: &mut Vec<(Box<str>, Box<str>)>) {
    let Some(properties) = schema.get("properties") else { return };
    for (name, property) in properties.members() {
        let Some(name) = name.as_str() else { continue };
        if property.kind() != Kind::Object || found.len() >= ToolDefinition::PARAMETERS_MAX {
            continue;
        }
        let length = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let fits = |header: &&str| {
            header.len().saturating_add(at.len()) <= ToolDefinition::PARAMETER_BYTES_MAX
        };
        let header = property.get("x-mcp-header").and_then(Value::as_str);
        if let Some(header) = header.filter(fits).filter(|header| is_header_name(header)) {
            found.push((header.to_ascii_lowercase().into(), at.as_str().into()));
        }
        annotations(property, at, found);
        at.truncate(length);
    }
}
