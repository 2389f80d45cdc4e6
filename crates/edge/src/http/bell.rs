//! A connection that wakes itself goes on at once, not by way of the scheduler.
//!
//! The parts of one connection (the client's side, the server's side, bodies) live in one task and
//! wake each other through it. To the runtime such a wake is a task that yields: it queues the
//! task and calls another worker to help, who finds nothing to do, for each request twice. Here a
//! wake from inside a poll only asks for another round of the same poll. Rounds are bounded, and
//! what is left over goes to the scheduler, so no connection keeps a worker to itself.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Rounds of one poll.
const ROUNDS_MAX: usize = 4;

/// What the parts ring.
#[derive(Debug, Default)]
struct Bell {
    task: Mutex<Option<Waker>>,
    /// A poll is going on, which looks at `rung` before it ends.
    polling: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    /// Remembers whom to wake.
    fn belongs_to(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order, and the other way round in `poll`: one of the two sees the other.
        self.rung.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst)
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

/// A future whose wakes of itself cost another round and not a trip through the scheduler.
pub(super) struct Belled<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<T> Belled<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        let bell = Arc::new(Bell::default());
        Self { work: Box::pin(work), waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl<T> Future for Belled<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Self { work, bell, waker } = &mut *self;
        bell.belongs_to(cx.waker());
        bell.polling.store(true, Ordering::SeqCst);
        for _ in 0..ROUNDS_MAX {
            bell.rung.swap(false, Ordering::SeqCst);
            if let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if !bell.rung.load(Ordering::SeqCst) {
                break;
            }
        }
        bell.polling.store(false, Ordering::SeqCst);
        if bell.rung.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering::{Equal, Greater, Less};
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    /// Counts the wakes that reach the scheduler.
    #[derive(Default)]
    struct Scheduler(AtomicUsize);

    impl Wake for Scheduler {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself so many times, then leaves its waker behind and waits for it.
    fn restless(times: usize, left: &Arc<Mutex<Option<Waker>>>) -> Belled<()> {
        let (mut count, left) = (0_usize, Arc::clone(left));
        Belled::new(poll_fn(move |cx| {
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

        let mut belled = restless(ROUNDS_MAX - 1, &left);
        assert!(Pin::new(&mut belled).poll(&mut cx).is_pending());
        assert_eq!(wakes(), 0, "its own wakes were rounds");
        left.lock().unwrap().take().unwrap().wake();
        assert_eq!(wakes(), 1, "a wake from outside");
        assert!(Pin::new(&mut belled).poll(&mut cx).is_ready());

        let mut belled = restless(ROUNDS_MAX, &left);
        assert!(Pin::new(&mut belled).poll(&mut cx).is_pending());
        assert_eq!(wakes(), 2, "rounds are bounded");
        assert!(Pin::new(&mut belled).poll(&mut cx).is_pending());
        assert_eq!(wakes(), 2);
    }
}
