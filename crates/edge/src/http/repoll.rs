//! A future that polls itself again when it is woken from inside its own poll, instead of being
//! rescheduled.
//!
//! The parts of one connection (the client's side, the server's side, bodies) live in one task and
//! wake each other through it. The runtime treats such a wake like a task that yields: it queues
//! the task and wakes another worker, which finds nothing to do, twice for each request. Here a
//! wake from inside a poll only asks for another round of the same poll. The number of rounds is
//! limited; after that the scheduler is woken, so no connection keeps a worker to itself.
//!
//! Decision record 0013 has the measurement. A loom model that tries every order of a poll and a
//! wake shows that no wake is lost.

mod future;
#[cfg(test)]
mod model;

pub(super) use self::future::Repoll;

/// The lock and the atomics of [`future`].
mod sync {
    pub(super) use std::sync::Mutex;
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
}

#[cfg(test)]
mod tests {
    use super::future::ROUNDS_MAX;
    use super::*;
    use std::cmp::Ordering::{Equal, Greater, Less};
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Wake, Waker};

    /// Counts the wakes that reach the scheduler.
    #[derive(Default)]
    struct Scheduler(AtomicUsize);

    impl Wake for Scheduler {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself so many times, then leaves its waker behind and waits for it.
    fn restless(times: usize, left: &Arc<Mutex<Option<Waker>>>) -> Repoll<()> {
        let (mut count, left) = (0_usize, Arc::clone(left));
        Repoll::new(poll_fn(move |cx| {
            match count.cmp(&times) {
                Less => cx.waker().wake_by_ref(),
                Equal => *left.lock().unwrap() = Some(cx.waker().clone()),
                Greater => return Poll::Ready(()),
            }
            count = count.saturating_add(1);
            Poll::Pending
        }))
    }

    #[test]
    fn only_wakes_from_outside_and_what_is_left_over_reach_the_scheduler() {
        let scheduler = Arc::new(Scheduler::default());
        let outer = Waker::from(Arc::clone(&scheduler));
        let mut cx = Context::from_waker(&outer);
        let wakes = || scheduler.0.load(Ordering::SeqCst);
        let left = Arc::default();

        let mut repoll = restless(ROUNDS_MAX - 1, &left);
        assert!(Pin::new(&mut repoll).poll(&mut cx).is_pending());
        assert_eq!(wakes(), 0, "its own wakes were rounds");
        left.lock().unwrap().take().unwrap().wake();
        assert_eq!(wakes(), 1, "a wake from outside");
        assert!(Pin::new(&mut repoll).poll(&mut cx).is_ready());

        let mut repoll = restless(ROUNDS_MAX, &left);
        assert!(Pin::new(&mut repoll).poll(&mut cx).is_pending());
        assert_eq!(wakes(), 2, "rounds are bounded");
        assert!(Pin::new(&mut repoll).poll(&mut cx).is_pending());
        assert_eq!(wakes(), 2);
    }
}
