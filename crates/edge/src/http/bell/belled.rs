//! The future and its waker. The parent module says what they are for, and gives the atomics and
//! the lock: those of `std`, or of loom for the model.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::sync::{AtomicBool, Mutex, Ordering};

/// Rounds of one poll.
pub(super) const ROUNDS_MAX: usize = 4;

/// The waker that the parts get.
#[derive(Debug, Default)]
struct Bell {
    /// The waker of the task.
    task: Mutex<Option<Waker>>,
    /// A poll is going on; it looks at `rung` before it ends.
    polling: AtomicBool,
    /// A part asked to be polled.
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
        // Store, then load. `poll` ends with the same on the other's field (store `polling`, load
        // `rung`), and both are sequentially consistent, so one of the two sees the other's store
        // and no wake is lost.
        self.rung.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst)
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

/// A future whose wakes of itself cost another round and not a trip through the scheduler.
pub(in super::super) struct Belled<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<T> Belled<T> {
    pub(in super::super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
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
            // Before the parts look at their state: a wake during this round asks for another.
            bell.rung.store(false, Ordering::SeqCst);
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
