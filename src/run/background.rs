//! Tasks with a duty for the whole run. A panic in one is logged, and the task begins anew: a duty
//! must not end for ever because of one call, record or file.

use std::time::Duration;

use bartizan_edge::Shared;
use bartizan_sync::caught;

/// Pause before a task that panicked begins anew.
pub(super) const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Runs what `begin` returns until the program closes, and begins anew after each panic. `what` names
/// the duty in the log.
pub(super) fn keep_running<F>(
    shared: &Shared,
    what: &'static str,
    mut begin: impl FnMut() -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let closing = shared.closing.clone();
    let running = async move {
        while caught(async { begin().await }).await.is_err() {
            tracing::error!(what, "a background task was interrupted by a panic; it begins anew");
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    };
    shared.tasks.spawn(async move { closing.run_until_cancelled(running).await });
}
