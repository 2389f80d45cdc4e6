//! The future and its waker. The parent module explains them and provides the atomics and the lock:
//! those of `std`, or of loom for the model.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::sync::{AtomicBool, Mutex, Ordering};

/// Most rounds of one poll.
pub(super) const ROUNDS_MAX: usize = 4;

/// The waker that the future's parts get.
#[derive(Debug, Default)]
struct RepollWaker {
    /// The waker of the task.
    task: Mutex<Option<Waker>>,
    /// A poll is going on; it looks at `woken` before it ends.
    polling: AtomicBool,
    /// A part asked to be polled.
    woken: AtomicBool,
}

impl RepollWaker {
    /// Stores the waker of the task.
    fn set_task(&self, task: &Waker) {
        let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
    }
}

impl Wake for RepollWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Store, then load. `poll` ends with the same on the other's field (store `polling`, load
        // `woken`), and both are sequentially consistent, so one of the two sees the other's store
        // and no wake is lost.
        self.woken.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst)
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

/// A future whose wakes from inside its own poll cost another round instead of a trip through the
/// scheduler.
pub(in super::super) struct Repoll<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    state: Arc<RepollWaker>,
    waker: Waker,
}

impl<T> Repoll<T> {
    pub(in super::super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        // The first poll is asked for.
        let state =
            Arc::new(RepollWaker { woken: AtomicBool::new(true), ..RepollWaker::default() });
        Self { work: Box::pin(work), waker: Waker::from(Arc::clone(&state)), state }
    }
}

impl<T> Repoll<T> {
    /// Whether a part has asked to be polled since the last poll, or else will wake `task` when it
    /// does.
    pub(in super::super) fn wants_poll(&self, task: &Waker) -> bool {
        self.state.set_task(task);
        self.state.woken.load(Ordering::SeqCst)
    }
}

impl<T> Future for Repoll<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Self { work, state, waker } = &mut *self;
        state.set_task(cx.waker());
        state.polling.store(true, Ordering::SeqCst);
        for _ in 0..ROUNDS_MAX {
            // Before the parts look at their state: a wake during this round asks for another.
            state.woken.store(false, Ordering::SeqCst);
            if let Poll::Ready(output) = work.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if !state.woken.load(Ordering::SeqCst) {
                break;
            }
        }
        state.polling.store(false, Ordering::SeqCst);
        if state.woken.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
