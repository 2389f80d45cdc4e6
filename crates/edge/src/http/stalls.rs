//! Ends HTTP/2 streams whose client takes nothing of the answer.
//!
//! Over HTTP/1 the socket's write deadline covers a client that does not read. A client of HTTP/2
//! can read the connection, answer pings, and give one stream a window of 0: the socket never
//! stalls, and the stream would be held for ever (threat K6). hyper runs each stream as a task of
//! our [`Tracked`] executor, and polls the body only when the client has taken what came before. So
//! a task whose body is neither polled nor waiting for the server waits for the client; after the
//! write deadline it is dropped, which resets that stream and no other.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task_local;
use tokio_util::task::TaskTracker;

use super::lanes::Lane;

/// The stream has a body.
const BODY: u64 = 1;
/// The body waits for the server.
const AWAITS: u64 = 2;
/// One piece that was taken.
const TAKEN: u64 = 4;

task_local! {
    static WATCH: Arc<StreamWatch>;
}

/// How far one stream's body has come: [`BODY`], [`AWAITS`], and a count of [`TAKEN`].
#[derive(Debug, Default)]
pub(super) struct StreamWatch(AtomicU64);

impl StreamWatch {
    fn state(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The watch of the HTTP/2 stream that this task serves, from now on with a body; `None` in any
    /// other task.
    pub(super) fn of_body() -> Option<Arc<Self>> {
        let watch = WATCH.try_with(Arc::clone).ok()?;
        watch.0.store(BODY, Ordering::Relaxed);
        Some(watch)
    }

    /// The body was polled; `taken`: and gave a piece.
    pub(super) fn polled(&self, taken: bool) {
        let before = self.state() & !AWAITS;
        let after = if taken { before.wrapping_add(TAKEN) } else { before | AWAITS };
        self.0.store(after, Ordering::Relaxed);
    }
}

/// Runs the streams of HTTP/2 connections in the tracker that shutdown waits for, and ends those
/// that stall.
#[derive(Clone)]
pub(super) struct Tracked {
    pub(super) tasks: TaskTracker,
    /// The lane of the connection.
    pub(super) lane: Lane,
    /// For a client to take the next piece of a body.
    pub(super) write: Duration,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let watch = Arc::<StreamWatch>::default();
        let watched = until_stalled(future, Arc::clone(&watch), self.write);
        drop(self.tasks.spawn(self.lane.paced(WATCH.scope(watch, watched))));
    }
}

/// Runs `stream` to its end, or until its client has taken nothing for `write`.
async fn until_stalled<F: Future>(stream: F, watch: Arc<StreamWatch>, write: Duration) {
    let mut stream = pin!(stream);
    let mut waiting = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let state = watch.state();
        if state & (BODY | AWAITS) != BODY {
            waiting = None;
            return Poll::Pending;
        }
        let (since, timer) =
            waiting.get_or_insert_with(|| (state, Box::pin(tokio::time::sleep(write))));
        if *since != state {
            (*since, *timer) = (state, Box::pin(tokio::time::sleep(write)));
        }
        timer.as_mut().poll(cx)
    })
    .await;
}
