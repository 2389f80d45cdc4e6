//! Serving threads: each connection stays on one of them, with all that its requests need.
//!
//! A worker is a runtime with one thread. What a connection awaits (its socket, the connection to
//! the server, timers, the tasks of its HTTP/2 streams) is registered with the runtime of its
//! worker, so a plain call goes from its first byte to its last without a wake of another thread. A
//! runtime of several threads would wake one of them for nearly every event. Decision record 0025
//! has the measurement.
//!
//! The runtime is tokio's multi-threaded one with a single worker thread, not the `current_thread`
//! one: long work ([`crate::aside`]) can then hand the worker's other tasks to a thread of its own.

use std::io;
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;
use tokio::runtime::{Builder, Handle, Runtime};

use super::lanes::Lanes;
use crate::aside::processors;
use crate::clock::Clock;

/// Tasks that a busy thread runs before it looks for new input and timers. With tokio's default, 61,
/// what an agent sends could wait for 61 tasks of others.
pub const TASKS_BETWEEN_EVENTS: u32 = 8;

/// Tasks that a busy thread runs before it takes one of the queue that threads share, where half of
/// its own queue goes when that is full. With tokio's default a task that a burst of others has
/// pushed there waits until the burst is over. ([`super::lanes`] keeps tasks of one address out of
/// these queues; they only pass through.)
pub const TASKS_BETWEEN_QUEUES: u32 = 1;

/// Over this time, at least, it is measured how busy each worker is.
const LOAD_WINDOW: Duration = Duration::from_millis(100);

/// A worker that works all the time has so many steps of load. Each connection that it got in this
/// window counts as one more.
const LOAD_STEPS: u128 = 4;

/// The workers of a listener.
pub(super) struct Workers {
    first: Worker,
    others: Vec<Worker>,
    measured: Mutex<Measured>,
}

/// One serving thread.
struct Worker {
    /// `None` for the runtime in which the listener itself runs.
    own: Option<Runtime>,
    handle: Handle,
    lanes: Arc<Lanes>,
    connections: Arc<AtomicUsize>,
}

/// How busy the workers were in the last window.
#[derive(Debug, Default)]
struct Measured {
    /// When the window ended, as uptime.
    at: Duration,
    /// Of each worker.
    loads: Vec<Load>,
}

#[derive(Debug, Clone, Default)]
struct Load {
    /// The time that it had worked in total when the window ended.
    worked: Duration,
    /// See [`LOAD_STEPS`].
    steps: u128,
}

/// A place of one connection on a worker; counted until it is dropped.
#[derive(Debug)]
pub(super) struct WorkerPlace(Arc<AtomicUsize>);

impl Drop for WorkerPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker for one connection.
pub(super) struct Assigned {
    /// Where the tasks of the connection run.
    pub(super) handle: Handle,
    /// The lanes of the worker.
    pub(super) lanes: Arc<Lanes>,
    /// To be kept as long as the connection is open.
    pub(super) place: WorkerPlace,
}

impl Workers {
    /// Starts `threads` workers; with 0, connections are served by the runtime in which the
    /// listener runs. Must be called in that runtime. Fails if the system gives no thread.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let worker = |own: Option<Runtime>, handle: Handle, lanes| Worker {
            own,
            handle,
            lanes,
            connections: Arc::default(),
        };
        let start = |number: usize| {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name(format!("serve-{number}"))
                .event_interval(TASKS_BETWEEN_EVENTS)
                .global_queue_interval(TASKS_BETWEEN_QUEUES)
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            Ok::<_, io::Error>(worker(Some(runtime), handle, Lanes::new(1)))
        };
        let first = if threads == 0 {
            worker(None, Handle::current(), Lanes::new(processors()))
        } else {
            start(0)?
        };
        let others = (1..threads).map(start).collect::<io::Result<_>>()?;
        Ok(Self { first, others, measured: Mutex::default() })
    }

    /// Whether the workers have threads of their own, which end when this is dropped.
    pub(super) fn have_threads(&self) -> bool {
        self.first.own.is_some()
    }

    fn all(&self) -> impl Iterator<Item = &Worker> {
        iter::once(&self.first).chain(&self.others)
    }

    /// The worker for a new connection: the one with the least load in the last window, and of
    /// several such the one with the fewest connections.
    pub(super) fn assign(&self, clock: &Clock) -> Assigned {
        let worker = if self.others.is_empty() { &self.first } else { self.least_loaded(clock) };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Assigned {
            handle: worker.handle.clone(),
            lanes: Arc::clone(&worker.lanes),
            place: WorkerPlace(Arc::clone(&worker.connections)),
        }
    }

    fn least_loaded(&self, clock: &Clock) -> &Worker {
        let mut measured = lock(&self.measured);
        let worked = |worker: &Worker| worker.handle.metrics().worker_total_busy_duration(0);
        measured.renew(clock.uptime(), self.all().map(worked));
        let connections = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let loads = self.all().zip(&mut measured.loads);
        let least = loads.min_by_key(|(worker, load)| (load.steps, connections(worker)));
        least.map_or(&self.first, |(worker, load)| {
            load.steps = load.steps.saturating_add(1);
            worker
        })
    }
}

impl Measured {
    /// Begins a new window at `now` (uptime) if the last one is over. `worked`: how long each worker
    /// has worked in total.
    fn renew(&mut self, now: Duration, worked: impl Iterator<Item = Duration>) {
        let window = now.saturating_sub(self.at);
        if window < LOAD_WINDOW && !self.loads.is_empty() {
            return;
        }
        let load = |(index, worked): (usize, Duration)| {
            // Before the first window, what a thread did to begin does not count.
            let before = self.loads.get(index).map_or(worked, |load| load.worked);
            let share = worked.saturating_sub(before).as_nanos().saturating_mul(LOAD_STEPS);
            let steps = share.checked_div(window.as_nanos()).unwrap_or_default();
            Load { worked, steps: steps.min(LOAD_STEPS) }
        };
        self.loads = worked.enumerate().map(load).collect();
        self.at = now;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in iter::once(&mut self.first).chain(&mut self.others) {
            if let Some(runtime) = worker.own.take() {
                // The listener may be dropped in a runtime, where nothing may wait.
                runtime.shutdown_background();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(workers: &Workers, assigned: &[Assigned]) -> Vec<usize> {
        let number = |one: &Assigned| {
            workers.all().position(|worker| worker.handle.id() == one.handle.id()).unwrap()
        };
        assigned.iter().map(number).collect()
    }

    #[test]
    fn idle_workers_get_connections_by_turns_and_a_closed_one_makes_room() {
        let workers = Workers::start(2).unwrap();
        let clock = Clock::start();
        let mut open: Vec<_> = (0..4).map(|_| workers.assign(&clock)).collect();
        let first = numbers(&workers, &open);
        assert_eq!(first.iter().filter(|worker| **worker == 0).count(), 2, "{first:?}");
        open.retain(|one| one.handle.id() != workers.first.handle.id());
        let connections = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        assert_eq!(workers.all().map(connections).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_busy_worker_gets_fewer_of_the_connections_of_a_window() {
        let secs = Duration::from_secs;
        let mut measured = Measured::default();
        measured.renew(secs(10), [secs(1), secs(9)].into_iter());
        measured.renew(secs(20), [secs(11), secs(9)].into_iter());
        let steps = |measured: &Measured| -> Vec<u128> {
            measured.loads.iter().map(|load| load.steps).collect()
        };
        assert_eq!(steps(&measured), [LOAD_STEPS, 0]);
        // Within the window nothing is measured again.
        measured.renew(secs(20), [secs(11), secs(20)].into_iter());
        assert_eq!(steps(&measured), [LOAD_STEPS, 0]);
        measured.renew(secs(22), [secs(11), secs(10)].into_iter());
        assert_eq!(steps(&measured), [0, LOAD_STEPS / 2]);
    }

    #[tokio::test]
    async fn without_threads_the_runtime_of_the_listener_serves() {
        let workers = Workers::start(0).unwrap();
        let one = workers.assign(&Clock::start());
        assert_eq!(one.handle.id(), Handle::current().id());
    }
}
