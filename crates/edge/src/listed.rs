//! Waits for a listing of a locked server that is under way, so that an agent that does not list
//! its tools itself is not refused meanwhile.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use bartizan_gate::session::Protected;

/// How long a message waits. After that, the gate refuses calls of tools that nobody has listed.
const LISTING_WAIT: Duration = Duration::from_secs(5);

/// Waits until no listing of `server` is under way or due, at most [`LISTING_WAIT`].
pub(crate) async fn listed(server: &Protected) {
    let ended = timeout(LISTING_WAIT, poll_fn(|cx| server.poll_listed(cx))).await;
    if ended.is_err() {
        tracing::debug!(server = %server.facts.name, "listing takes long; not waiting for it");
    }
}
