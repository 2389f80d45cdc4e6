//! A model of one task and one other thread: the same source as [`super::Repoll`], on loom's atomics,
//! in every order of their steps.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;

#[expect(clippy::duplicate_mod, reason = "the same source on other atomics")]
#[path = "future.rs"]
mod future;

mod sync {
    pub(super) use loom::sync::Mutex;
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
}

use self::future::Repoll;

/// A scheduler that polls the task once for each time that it was woken, or more often.
struct Scheduler(AtomicUsize);

impl Wake for Scheduler {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What the task waits for, and whom to wake when it comes.
struct Event {
    came: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Event {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        *self.waiting.lock().unwrap() = Some(cx.waker().clone());
        if self.came.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn come(&self) {
        self.came.store(true, SeqCst);
        let waiting = self.waiting.lock().unwrap().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Runs a task that wakes itself `own` times before it waits for an event of another thread,
/// as a scheduler does: it is polled again only if it was woken, and with `asks` only if a part asked
/// for it, too. It must end.
fn no_wake_is_lost(own: usize, asks: bool) {
    loom::model(move || {
        let event = Arc::new(Event { came: AtomicBool::new(false), waiting: Mutex::new(None) });
        let scheduler = Arc::new(Scheduler(AtomicUsize::new(0)));
        let (awaited, mut left) = (Arc::clone(&event), own);
        let mut task = Repoll::new(poll_fn(move |cx| {
            if left > 0 {
                left = left.saturating_sub(1);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            awaited.poll(cx)
        }));
        let other = thread::spawn(move || event.come());
        let waker = Waker::from(Arc::clone(&scheduler));
        let mut poll = || {
            let wanted = !asks || task.wants_poll(&waker);
            wanted && Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_ready()
        };
        let mut done = poll();
        if !done && scheduler.0.swap(0, SeqCst) > 0 {
            done = poll();
        }
        other.join().unwrap();
        while !done {
            assert!(scheduler.0.swap(0, SeqCst) > 0, "the task sleeps and nobody wakes it");
            done = poll();
        }
    });
}

#[test]
fn no_wake_of_another_thread_is_lost() {
    no_wake_is_lost(0, false);
    no_wake_is_lost(0, true);
}

#[test]
fn no_wake_of_another_thread_is_lost_between_rounds() {
    no_wake_is_lost(1, false);
    no_wake_is_lost(1, true);
}
