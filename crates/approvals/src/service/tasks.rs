//! Calls that wait as tasks, for those who make and ask for them.

use std::collections::BTreeSet;

use bartizan_gate::evidence::record::Now;
use bartizan_gate::question::task::OwnTaskState;
use bartizan_sync::lock;

use super::{Approvals, Failed, ID_BYTES, fresh_id};
use crate::ledger::NoTask;
use crate::record::{TaskRecord, TaskState};

/// A call that waits as a task, as its maker describes it.
#[derive(Debug, Clone)]
pub struct NewTask<'a> {
    /// Whose call it is.
    pub principal: &'a str,
    /// Its server.
    pub server: &'a str,
    /// What it is, in words for its client.
    pub what: &'a str,
    /// The holds that it waits for.
    pub holds: Vec<Box<str>>,
}

/// A task as its client may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Names it.
    pub id: Box<str>,
    /// What the call is, in words for its client.
    pub what: Box<str>,
    /// The first hold that it waits for.
    pub hold: Box<str>,
    /// What has become of it.
    pub state: OwnTaskState,
    /// When it was made, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When that last changed in the store, milliseconds since 1970.
    pub changed_unix_ms: u64,
    /// How long after it was made it is kept, milliseconds.
    pub ttl_ms: u64,
}

impl Approvals {
    /// Makes a task, under a name that nobody can guess. It is in the store before this returns. It
    /// may wait for the disk.
    ///
    /// # Errors
    ///
    /// There are too many tasks, or the store did not take it.
    pub fn make_task(&self, task: &NewTask<'_>, now: Now) -> Result<TaskView, NoTask> {
        let id = fresh_id().ok_or(NoTask)?;
        self.task_waits(&id, task, now)?;
        self.known_task(&id, task.principal, task.server).ok_or(NoTask)
    }

    /// The call of the task `id` was made, and is held anew: the task waits for its holds. It may
    /// wait for the disk.
    ///
    /// # Errors
    ///
    /// Its call was not made by [`Approvals::start_task`], or the store did not take it.
    pub fn task_waits(&self, id: &str, task: &NewTask<'_>, now: Now) -> Result<(), NoTask> {
        let mut writer = lock(&self.writer);
        let done = self.change(&mut writer, now, |ledger, at_ms| {
            let created_ms = ledger.task(id).map_or(at_ms, |task| task.created_ms);
            let record = TaskRecord {
                id: id.into(),
                principal: task.principal.into(),
                server: task.server.into(),
                what: task.what.into(),
                holds: task.holds.clone(),
                created_ms,
                changed_ms: at_ms,
                expires_ms: at_ms,
                state: TaskState::Waiting,
            };
            ledger.wait_as_task(record, at_ms)
        });
        done.map_err(|_: Failed<NoTask>| NoTask)
    }

    /// The task `id`, if it is of this principal and server. If it is not known and the store is
    /// shared, it is read first, because another replica may have made the task just now.
    pub fn task(&self, id: &str, principal: &str, server: &str) -> Option<TaskView> {
        if let Some(task) = self.known_task(id, principal, server) {
            return Some(task);
        }
        // A shared store is not asked for what nobody has made.
        if self.store.is_exclusive() || id.len() != 2 * ID_BYTES {
            return None;
        }
        let mut writer = lock(&self.writer);
        self.refresh::<()>(&mut writer, (self.clock)()).ok()?;
        drop(writer);
        self.known_task(id, principal, server)
    }

    fn known_task(&self, id: &str, principal: &str, server: &str) -> Option<TaskView> {
        let now = (self.clock)();
        let inner = lock(&self.inner);
        let at_ms = inner.ledger.time(now);
        let task = inner.ledger.task(id)?;
        let its = *task.principal == *principal && *task.server == *server;
        if !its || task.expires_ms <= at_ms {
            return None;
        }
        Some(TaskView {
            id: task.id.clone(),
            what: task.what.clone(),
            hold: task.holds.first().cloned().unwrap_or_default(),
            state: inner.ledger.standing(task, at_ms),
            created_unix_ms: task.created_ms,
            changed_unix_ms: task.changed_ms,
            ttl_ms: task.expires_ms.saturating_sub(task.created_ms),
        })
    }

    /// Claims the call of the task `id`: whoever gets `Ok` makes it, and says how it ended with
    /// [`Approvals::end_task`]. Of all who ask, on all replicas, one gets it. It may wait for the
    /// disk.
    ///
    /// # Errors
    ///
    /// The call must not be made.
    pub fn start_task(&self, id: &str, now: Now) -> Result<(), NoTask> {
        let mut writer = lock(&self.writer);
        let done = self.change(&mut writer, now, |ledger, at_ms| ledger.start_task(id, at_ms));
        done.map_err(|_: Failed<NoTask>| NoTask)
    }

    /// The call of the task `id` has ended so; nothing where the task waits again. If the store does
    /// not take it, the task becomes unknown in time. It may wait for the disk.
    pub fn end_task(&self, id: &str, end: &TaskState, now: Now) {
        let mut writer = lock(&self.writer);
        drop(self.change(&mut writer, now, |ledger, at_ms| {
            Ok::<_, ()>(ledger.end_task(id, end.clone(), at_ms))
        }));
    }

    /// Cancels the task `id` while it waits, and its holds if nobody else waits for them. It may wait
    /// for the disk.
    pub fn cancel_task(&self, id: &str, now: Now) {
        let mut writer = lock(&self.writer);
        let waiting: BTreeSet<Box<str>> = lock(&self.inner).waiting.keys().cloned().collect();
        drop(self.change(&mut writer, now, |ledger, at_ms| {
            Ok::<_, ()>(ledger.cancel_task(id, |hold| waiting.contains(hold), at_ms))
        }));
    }
}
