//! A table of tasks with their owners and the requests that created them.
//!
//! Knowing a task id proves nothing (MCP 2025-11-25, tasks, "Security Considerations"; the tasks
//! extension says the same): only the principal whose request created a task may name it. The table
//! is bounded; an evicted task is unknown, and requests about it are refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::duty::redact::{REDACTIONS_MAX, Redaction};
use crate::memory::{Charge, MemoryBudget};
use crate::question::access::TaskOrigin;

use super::sizes;

/// A task with the same id belongs to another principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignTask;

/// The request that created a task, with the redactions that the policy demanded then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCreation {
    /// What the request was.
    pub origin: TaskOrigin,
    /// What must be removed from the task's result, whenever it comes.
    pub redact: Vec<Redaction>,
}

/// The tasks that one side of a conversation runs.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    known: HashMap<Box<str>, Task>,
    /// Counts uses, to find the least recently used task.
    uses: u64,
}

#[derive(Debug, Clone)]
struct Task {
    owner: Box<str>,
    creation: Arc<TaskCreation>,
    last_use: u64,
    /// The uptime at which the peer may delete it, as it stated when the task was created.
    expires: Option<Duration>,
    _charge: Charge,
}

/// When a task was made, and how long it lives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lifetime {
    /// The uptime.
    pub now: Duration,
    /// How long the peer keeps it, if it said so.
    pub ttl: Option<Duration>,
}

impl Tasks {
    /// Tasks at most. When the table is full, expired ones are evicted, else the least recently
    /// used one of the owner that has most.
    pub const TASKS_MAX: usize = 4096;
    /// Longest id, method and tool name, bytes; a task with a longer one is not remembered, so it
    /// is unknown.
    pub const NAME_BYTES_MAX: usize = 1024;
    /// Names of environments stored with a task, bytes in all; a task with more counts as reaching
    /// every environment.
    const ENVIRONMENTS_BYTES_MAX: usize = 4096;

    /// Remembers that a request of `owner` created the task `id` at `now` (uptime), for `ttl` if
    /// the peer stated one. If the peer states the same task twice, the later request replaces the
    /// earlier, except that the redactions of both hold. If `memory` has no room, the owner's least
    /// recently used tasks give way.
    ///
    /// # Errors
    ///
    /// The id belongs to another principal, or to requests with too many different redactions.
    pub fn remember(
        &mut self,
        id: &str,
        owner: &str,
        mut creation: TaskCreation,
        Lifetime { now, ttl }: Lifetime,
        memory: &Arc<MemoryBudget>,
    ) -> Result<(), ForeignTask> {
        if self.known.get(id).is_some_and(|task| *task.owner != *owner) {
            return Err(ForeignTask);
        }
        if let Some(known) = self.known.get(id) {
            // It may be either request's task, so its results are redacted as both demand.
            let fresh = |it: &&Redaction| !creation.redact.contains(it);
            let more: Vec<_> = known.creation.redact.iter().filter(fresh).cloned().collect();
            creation.redact.extend(more);
            if creation.redact.len() > REDACTIONS_MAX {
                return Err(ForeignTask);
            }
        }
        let TaskCreation { origin, .. } = &creation;
        let names = [id, &origin.method, origin.tool.as_deref().unwrap_or_default()];
        if names.iter().any(|name| name.len() > Self::NAME_BYTES_MAX) {
            return Ok(());
        }
        if self.known.len() >= Self::TASKS_MAX && !self.known.contains_key(id) {
            self.forget_some(now);
        }
        let creation = bounded(creation);
        let names = [
            id,
            owner,
            &creation.origin.method,
            creation.origin.tool.as_deref().unwrap_or_default(),
        ];
        let names =
            names.iter().map(|name| name.len()).fold(sizes::TASK_BYTES, usize::saturating_add);
        let parts = sizes::operation(&creation.origin.operation)
            .saturating_add(sizes::redactions(&creation.redact));
        let bytes = names.saturating_add(parts);
        self.known.remove(id);
        let Some(charge) = self.charge(owner, bytes, memory) else { return Ok(()) };
        let task = Task {
            owner: owner.into(),
            creation: Arc::new(creation),
            _charge: charge,
            last_use: self.next_use(),
            expires: ttl.map(|ttl| now.saturating_add(ttl)),
        };
        self.known.insert(id.into(), task);
        Ok(())
    }

    /// Returns the request that created the task `id`, if `owner` owns it.
    pub fn creation(&mut self, id: &str, owner: &str) -> Option<Arc<TaskCreation>> {
        let last_use = self.next_use();
        let task = self.known.get_mut(id).filter(|task| *task.owner == *owner)?;
        task.last_use = last_use;
        Some(Arc::clone(&task.creation))
    }

    /// Whether `owner` owns the task `id`.
    pub fn is_of(&self, id: &str, owner: &str) -> bool {
        self.known.get(id).is_some_and(|task| *task.owner == *owner)
    }

    /// Charges `owner` for a task; its least recently used ones give way. `None` if that is not
    /// enough: the task stays unknown.
    fn charge(&mut self, owner: &str, bytes: usize, memory: &Arc<MemoryBudget>) -> Option<Charge> {
        loop {
            if let Ok(charge) = memory.charge(owner, bytes) {
                return Some(charge);
            }
            let own = self.known.iter().filter(|(_, task)| *task.owner == *owner);
            let oldest = own.min_by_key(|(_, task)| task.last_use).map(|(id, _)| id.clone())?;
            self.known.remove(&oldest);
        }
    }

    fn next_use(&mut self) -> u64 {
        self.uses = self.uses.wrapping_add(1);
        self.uses
    }

    fn forget_some(&mut self, now: Duration) {
        self.known.retain(|_, task| task.expires.is_none_or(|end| end > now));
        if self.known.len() >= Self::TASKS_MAX {
            // One of the owner that has most, so that nobody evicts the tasks of others by making
            // many.
            let mut counts: HashMap<&str, usize> = HashMap::new();
            for task in self.known.values() {
                let count = counts.entry(&*task.owner).or_default();
                *count = count.saturating_add(1);
            }
            let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(owner, _)| owner);
            let of_most = self.known.iter().filter(|(_, task)| Some(&*task.owner) == most);
            let oldest = of_most.min_by_key(|(_, task)| task.last_use);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                self.known.remove(&id);
            }
        }
    }
}

fn bounded(mut creation: TaskCreation) -> TaskCreation {
    let names = &mut creation.origin.operation.environments;
    if names.iter().map(|name| name.len()).sum::<usize>() > Tasks::ENVIRONMENTS_BYTES_MAX {
        *names = vec!["*".into()];
    }
    creation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::operation::Operation;
    use crate::question::pack::Effect;

    fn creation(tool: &str) -> TaskCreation {
        let origin = TaskOrigin {
            method: "tools/call".into(),
            tool: Some(tool.into()),
            operation: Operation::of_method(Effect::Write),
        };
        TaskCreation { origin, redact: Vec::new() }
    }

    fn lives(now: Duration, ttl: Option<Duration>) -> Lifetime {
        Lifetime { now, ttl }
    }

    fn memory() -> Arc<MemoryBudget> {
        MemoryBudget::new(64 << 20)
    }

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn a_task_is_its_owners_alone() {
        let mut tasks = Tasks::default();
        assert_eq!(tasks.remember("t", "a", creation("x"), lives(NOW, None), &memory()), Ok(()));
        assert_eq!(
            tasks.remember("t", "b", creation("y"), lives(NOW, None), &memory()),
            Err(ForeignTask)
        );
        assert_eq!(tasks.creation("t", "b"), None);
        assert_eq!(tasks.creation("u", "a"), None);
        assert_eq!(tasks.creation("t", "a").unwrap().origin.tool.as_deref(), Some("x"));
        assert!(tasks.is_of("t", "a") && !tasks.is_of("t", "b"));
    }

    #[test]
    fn a_full_table_forgets_the_expired_and_then_the_least_used() {
        let mut tasks = Tasks::default();
        let late = NOW + Duration::from_secs(5);
        tasks
            .remember(
                "old",
                "a",
                creation("x"),
                lives(NOW, Some(Duration::from_secs(2))),
                &memory(),
            )
            .unwrap();
        for number in 1..Tasks::TASKS_MAX {
            tasks
                .remember(&number.to_string(), "a", creation("x"), lives(NOW, None), &memory())
                .unwrap();
        }
        assert!(tasks.creation("1", "a").is_some());
        tasks.remember("new", "a", creation("x"), lives(late, None), &memory()).unwrap();
        assert!(!tasks.is_of("old", "a") && tasks.is_of("1", "a") && tasks.is_of("2", "a"));
        tasks.remember("newer", "a", creation("x"), lives(late, None), &memory()).unwrap();
        assert!(tasks.is_of("1", "a") && !tasks.is_of("2", "a") && tasks.is_of("new", "a"));
        assert_eq!(tasks.known.len(), Tasks::TASKS_MAX);
    }

    #[test]
    fn who_makes_many_tasks_evicts_none_of_others() {
        let mut tasks = Tasks::default();
        tasks.remember("mine", "b", creation("x"), lives(NOW, None), &memory()).unwrap();
        for number in 0..Tasks::TASKS_MAX.saturating_add(10) {
            tasks
                .remember(&number.to_string(), "a", creation("x"), lives(NOW, None), &memory())
                .unwrap();
        }
        assert!(tasks.is_of("mine", "b"));
        assert_eq!(tasks.known.len(), Tasks::TASKS_MAX);
        tasks.remember("also", "b", creation("x"), lives(NOW, None), &memory()).unwrap();
        assert!(tasks.is_of("mine", "b") && tasks.is_of("also", "b"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut tasks = Tasks::default();
        let long = "x".repeat(Tasks::NAME_BYTES_MAX + 1);
        tasks.remember(&long, "a", creation("x"), lives(NOW, None), &memory()).unwrap();
        tasks.remember("t", "a", creation(&long), lives(NOW, None), &memory()).unwrap();
        assert!(tasks.known.is_empty());
        let mut wide = creation("x");
        wide.origin.operation.environments = vec![long.clone().into(); 5];
        tasks.remember("t", "a", wide, lives(NOW, None), &memory()).unwrap();
        assert_eq!(
            tasks.creation("t", "a").unwrap().origin.operation.environments,
            [Box::from("*")]
        );
    }

    #[test]
    fn without_memory_the_owners_least_used_task_gives_way() {
        let memory = MemoryBudget::new(8 * sizes::TASK_BYTES);
        let mut tasks = Tasks::default();
        let remember = |tasks: &mut Tasks, id: &str, owner: &str| {
            tasks.remember(id, owner, creation("x"), lives(NOW, None), &memory).unwrap();
        };
        remember(&mut tasks, "theirs", "b");
        for id in ["1", "2", "3", "4", "5", "6"] {
            remember(&mut tasks, id, "a");
            assert!(tasks.is_of(id, "a") && memory.used() <= memory.bytes_max());
        }
        assert!(tasks.is_of("theirs", "b") && !tasks.is_of("1", "a"));
        let none = MemoryBudget::new(0);
        tasks.remember("none", "a", creation("x"), lives(NOW, None), &none).unwrap();
        assert!(!tasks.is_of("none", "a"));
        drop(tasks);
        assert_eq!(memory.used(), 0);
    }
}
