//! Held calls whose clients wait for them as tasks: where the gate finds them, and who makes the call
//! once it is approved.
//!
//! A poll that finds a call approved claims it in the store. Whoever has the claim makes the call, in
//! a task of the program that no client can end, and its answer is kept for later polls. If the
//! claim is dropped without an answer, nobody knows whether the server got the call, and it is never
//! made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::Shared;
use crate::aside;
use crate::clock::Clock;
use bartizan_approvals::{Approvals, NewTask, TaskState, TaskView};
use bartizan_gate::question::task::{OwnTask, OwnTasks};
use bartizan_gate::session::{Gate, TaskEnd};

/// What a held request may become.
#[derive(Clone, Copy)]
pub(crate) enum AsTask<'a> {
    /// Nothing: its transport cannot make a call by itself, or only the server checks who calls, and
    /// it sees no poll.
    Never,
    /// A task, if its client takes one.
    Offered,
    /// It is the call of a task, which waits on if the call is held anew.
    Made(&'a Making),
}

/// Finds tasks among the holds.
#[derive(Debug)]
struct Desk {
    approvals: Arc<Approvals>,
    page: Option<Box<str>>,
}

impl OwnTasks for Desk {
    fn find(&self, name: &str, principal: &str, server: &str) -> Option<OwnTask> {
        // A store that is shared may be read.
        let task = aside::long(|| self.approvals.task(name, principal, server))?;
        Some(seen(task, self.page.as_deref()))
    }
}

/// Has the gate find tasks among the holds of `approvals`, which are approved at `page`.
pub(crate) fn serve(gate: &Gate, approvals: &Arc<Approvals>, page: Option<&str>) {
    let desk = Desk { approvals: Arc::clone(approvals), page: page.map(Into::into) };
    gate.find_tasks_in(Arc::new(desk));
}

/// A task as the gate writes it.
pub(crate) fn seen(task: TaskView, page: Option<&str>) -> OwnTask {
    OwnTask {
        page: page.map(|page| format!("{page}{}", task.hold).into()),
        name: task.id,
        what: task.what,
        hold: task.hold,
        state: task.state,
        created_unix_ms: task.created_unix_ms,
        changed_unix_ms: task.changed_unix_ms,
        ttl_ms: task.ttl_ms,
    }
}

/// The call of a task, which nobody else makes.
#[derive(Debug)]
pub(crate) struct Making {
    approvals: Arc<Approvals>,
    clock: Clock,
    gate: Arc<Gate>,
    task: Box<str>,
    /// The id of the call's request.
    id: Box<str>,
    /// Whether its end is known.
    over: AtomicBool,
}

impl Making {
    /// Claims the call of the task `task`, whose request has the id `id`; `None` if it must not be
    /// made. It may wait for the disk.
    pub(crate) fn claim(shared: &Shared, task: &str, id: &str) -> Option<Self> {
        let approvals = Arc::clone(&shared.holding.as_ref()?.approvals);
        aside::long(|| approvals.start_task(task, shared.now())).ok()?;
        Some(Self {
            approvals,
            clock: shared.clock,
            gate: Arc::clone(&shared.gate),
            task: task.into(),
            id: id.into(),
            over: AtomicBool::new(false),
        })
    }

    /// The call is held anew, so its task waits for that. It may wait for the disk.
    pub(crate) fn waits(&self, anew: &NewTask<'_>) {
        if !self.over.swap(true, Ordering::AcqRel) {
            let waits = || self.approvals.task_waits(&self.task, anew, self.clock.now());
            if aside::long(waits).is_err() {
                tracing::warn!(
                    task = &*self.task,
                    "not stored that it waits again: it becomes unknown in time"
                );
            }
        }
    }

    /// Keeps the end of the call, if `message`, which may go to its client, is that. Whether it was.
    pub(crate) fn ends(&self, message: &Bytes) -> bool {
        let Some(end) = TaskEnd::of(message, &self.id, self.gate.frame_limits()) else {
            return false;
        };
        self.end(&match end {
            TaskEnd::Result(result) => TaskState::Completed { result },
            TaskEnd::Error(error) => TaskState::Failed { error },
        });
        true
    }

    fn end(&self, end: &TaskState) {
        if !self.over.swap(true, Ordering::AcqRel) {
            aside::long(|| self.approvals.end_task(&self.task, end, self.clock.now()));
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.end(&TaskState::Unknown);
    }
}

/// Cancels a task while it waits. It may wait for the disk.
pub(crate) fn cancel(shared: &Shared, task: &str) {
    if let Some(holding) = &shared.holding {
        aside::long(|| holding.approvals.cancel_task(task, shared.now()));
    }
}
