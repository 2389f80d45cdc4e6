//! Calls that wait as tasks: which changes of a task are right.
//!
//! A task waits for the holds of its call. Once people have answered, one poll claims it
//! ([`Ledger::start_task`]), the call is made as the client would make it again, and the task gets
//! its end. The claim is in the store before the call is made, so no second poll, on no replica,
//! makes it too; if the end is missing after a crash, nobody knows whether the server got the call.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Kept, Ledger, Plan};
use crate::limits::{SETTLE_WITHIN, TASK_KEPT, millis};
use crate::record::{HoldState, Record, RecordKey, TaskRecord, TaskState};
use crate::store::Write;
use bartizan_gate::question::task::{HeldRequest, OwnTaskState};

/// There are too many tasks already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTask;

impl Ledger {
    /// The task `id`.
    pub fn task(&self, id: &str) -> Option<&TaskRecord> {
        self.tasks.get(id).map(|kept| &*kept.record)
    }

    /// What has become of `task` at the time `at_ms`.
    pub fn standing(&self, task: &TaskRecord, at_ms: u64) -> OwnTaskState {
        match &task.state {
            TaskState::Waiting => self.waits(task, at_ms),
            TaskState::Running => OwnTaskState::Running,
            TaskState::Completed { result } => OwnTaskState::Completed(result.clone()),
            TaskState::Failed { error } => OwnTaskState::Failed(error.clone()),
            TaskState::Cancelled => OwnTaskState::Cancelled,
            TaskState::Unknown => OwnTaskState::Unknown,
            TaskState::Dropped => OwnTaskState::Dropped,
        }
    }

    fn waits(&self, task: &TaskRecord, at_ms: u64) -> OwnTaskState {
        let mut asked = None;
        let mut pending = false;
        for id in &task.holds {
            let Some(hold) = self.hold(id) else { return OwnTaskState::Expired };
            match self.state(hold, at_ms) {
                HoldState::Pending => pending = true,
                HoldState::Refused => return OwnTaskState::Refused,
                HoldState::Expired => return OwnTaskState::Expired,
                HoldState::Cancelled => return OwnTaskState::Cancelled,
                // Where another call has used the grant, this one, made again, gets a hold of its
                // own and waits for that.
                HoldState::Granted | HoldState::Spent | HoldState::Unknown => {}
            }
            asked = asked.or(Some(&hold.asked));
        }
        match asked {
            Some(asked) if !pending => OwnTaskState::Ready(HeldRequest {
                method: asked.subject.method.clone(),
                target: asked.subject.target.clone(),
                shown: asked.shown.clone(),
            }),
            Some(_) => OwnTaskState::Waiting,
            None => OwnTaskState::Expired,
        }
    }

    /// How many tasks wait for the hold `id`, apart from the task `but`.
    pub fn tasks_waiting(&self, id: &str, but: Option<&str>) -> usize {
        let waits = |kept: &&Kept<TaskRecord>| {
            let task = &kept.record;
            task.state == TaskState::Waiting
                && but != Some(&*task.id)
                && task.holds.iter().any(|hold| **hold == *id)
        };
        self.tasks.values().filter(waits).count()
    }

    /// The plan for a task that waits for its holds, or for other ones than before.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub fn wait_as_task(&self, task: TaskRecord, at_ms: u64) -> Result<Plan<()>, NoTask> {
        let mut writes = Vec::new();
        let expect = match self.tasks.get(&task.id) {
            // Only the one that makes the call says that it waits again.
            Some(kept) if kept.record.state == TaskState::Running => kept.version,
            Some(_) => return Err(NoTask),
            None => {
                writes.extend(self.room_for_task(&task.principal)?);
                0
            }
        };
        let latest = task.holds.iter().filter_map(|id| self.hold(id)).map(|it| it.asked.expires_ms);
        let expires_ms = latest.max().unwrap_or(at_ms).saturating_add(millis(TASK_KEPT));
        let record =
            TaskRecord { state: TaskState::Waiting, changed_ms: at_ms, expires_ms, ..task };
        writes.push(Write::Put { record: Record::Task(Arc::new(record)), expect });
        Ok(Plan::new(writes, ()))
    }

    /// Writes that make room for one more task of `principal`: the oldest that have ended give way.
    fn room_for_task(&self, principal: &str) -> Result<Vec<Write>, NoTask> {
        let limits = &self.limits;
        let own = |kept: &&Kept<TaskRecord>| *kept.record.principal == *principal;
        let oldest = |kept: &[&Kept<TaskRecord>]| {
            let ended = kept.iter().filter(|kept| kept.record.state.is_ended());
            let oldest = ended.min_by_key(|kept| kept.record.changed_ms)?;
            let key = RecordKey::task(&oldest.record.id);
            Some(Write::Remove { key, expect: oldest.version })
        };
        let owned: Vec<_> = self.tasks.values().filter(own).collect();
        if owned.len() >= limits.tasks_per_principal {
            return oldest(&owned).map(|write| vec![write]).ok_or(NoTask);
        }
        if self.tasks.len() >= limits.tasks {
            let all: Vec<_> = self.tasks.values().collect();
            return oldest(&all).map(|write| vec![write]).ok_or(NoTask);
        }
        Ok(Vec::new())
    }

    /// The plan to make the call of the task `id`: of all who poll, one gets it.
    ///
    /// # Errors
    ///
    /// The call must not be made: it waits, somebody makes it already, or it is over.
    pub fn start_task(&self, id: &str, at_ms: u64) -> Result<Plan<()>, NoTask> {
        let task = self.task(id).ok_or(NoTask)?;
        if !matches!(self.standing(task, at_ms), OwnTaskState::Ready(_)) {
            return Err(NoTask);
        }
        Ok(Plan::new(vec![self.put_task(task, TaskState::Running, at_ms)], ()))
    }

    /// The plan for the end of the call of the task `id`. What has no room is not kept: of the
    /// principal with most bytes the oldest results give way.
    pub fn end_task(&self, id: &str, end: TaskState, at_ms: u64) -> Plan<()> {
        let Some(task) = self.task(id).filter(|task| task.state == TaskState::Running) else {
            return Plan::nothing(());
        };
        let limits = &self.limits;
        let end = if end.bytes() > limits.task_result_bytes { TaskState::Dropped } else { end };
        let mut kept: BTreeMap<(&str, u64, &str), &TaskRecord> = BTreeMap::new();
        for other in self.tasks.values().map(|kept| &*kept.record) {
            if other.state.bytes() > 0 {
                kept.insert((&other.principal, other.changed_ms, &other.id), other);
            }
        }
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        for other in kept.values() {
            let bytes = used.entry(&other.principal).or_default();
            *bytes = bytes.saturating_add(other.state.bytes());
        }
        let own = used.entry(&task.principal).or_default();
        *own = own.saturating_add(end.bytes());
        let mut writes = Vec::new();
        loop {
            let all = used.values().fold(0, |sum: usize, bytes| sum.saturating_add(*bytes));
            let most =
                used.iter().max_by_key(|(_, bytes)| **bytes).map(|(who, bytes)| (*who, *bytes));
            let Some((who, bytes)) = most else { break };
            if all <= limits.task_bytes && bytes <= limits.task_bytes_per_principal {
                break;
            }
            let first = kept.range((who, 0, "")..).next().filter(|((of, ..), _)| *of == who);
            let Some((key, oldest)) = first.map(|(key, oldest)| (*key, *oldest)) else { break };
            kept.remove(&key);
            used.insert(who, bytes.saturating_sub(oldest.state.bytes()));
            writes.push(self.put_task(oldest, TaskState::Dropped, oldest.changed_ms));
        }
        let mut ended = task.clone();
        ended.expires_ms = at_ms.saturating_add(millis(TASK_KEPT));
        writes.push(self.put_task(&ended, end, at_ms));
        Plan::new(writes, ())
    }

    /// The plan to cancel the task `id`, and those of its holds for which nobody else waits. A call
    /// that is being made goes on.
    pub fn cancel_task(&self, id: &str, waits: impl Fn(&str) -> bool, at_ms: u64) -> Plan<()> {
        let Some(task) = self.task(id) else { return Plan::nothing(()) };
        let standing = self.standing(task, at_ms);
        if !matches!(standing, OwnTaskState::Waiting | OwnTaskState::Ready(_)) {
            return Plan::nothing(());
        }
        let mut writes = vec![self.put_task(task, TaskState::Cancelled, at_ms)];
        for hold in task.holds.iter().filter_map(|id| self.hold(id)) {
            let of = &*hold.asked.id;
            let alone = !waits(of) && self.tasks_waiting(of, Some(id)) == 0;
            if alone && self.state(hold, at_ms).is_open() {
                writes.extend(self.finish(hold, HoldState::Cancelled, at_ms));
            }
        }
        Plan::new(writes, ())
    }

    /// What must be written about tasks: those that are over are removed, and a call of which nobody
    /// said how it ended is unknown.
    pub(super) fn tasks_due(&self, at_ms: u64) -> impl Iterator<Item = Vec<Write>> {
        self.tasks.values().filter_map(move |kept| {
            let task = &*kept.record;
            let late = task.changed_ms.saturating_add(millis(SETTLE_WITHIN)) <= at_ms;
            if task.state == TaskState::Running {
                return late.then(|| vec![self.put_task(task, TaskState::Unknown, at_ms)]);
            }
            let key = RecordKey::task(&task.id);
            (task.expires_ms <= at_ms).then(|| vec![Write::Remove { key, expect: kept.version }])
        })
    }

    /// What the last owner of the store left behind: calls of which nobody said how they ended. With
    /// `set_back`, when nobody knows how much time has passed, all tasks are over.
    pub(super) fn tasks_left(&self, set_back: bool) -> impl Iterator<Item = Write> {
        self.tasks.values().filter_map(move |kept| {
            let task = &*kept.record;
            if set_back {
                let key = RecordKey::task(&task.id);
                return Some(Write::Remove { key, expect: kept.version });
            }
            let running = task.state == TaskState::Running;
            running.then(|| self.put_task(task, TaskState::Unknown, task.changed_ms))
        })
    }

    /// A write of `task` in another state, over the version that the ledger has.
    fn put_task(&self, task: &TaskRecord, state: TaskState, changed_ms: u64) -> Write {
        let expect = self.tasks.get(&task.id).map_or(0, |kept| kept.version);
        let record = TaskRecord { changed_ms, state, ..task.clone() };
        Write::Put { record: Record::Task(Arc::new(record)), expect }
    }
}
