//! One call that waits for a hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bartizan_gate::duty::hold::{Approval, HoldId, HoldKey};
use bartizan_gate::evidence::record::Now;
use tokio::sync::watch;

use super::Approvals;
use crate::record::HoldState;

/// A call that waits. If it is dropped, the call waits no longer, and the hold stays for a later
/// call with the same bytes.
pub struct Waiter {
    approvals: Arc<Approvals>,
    id: HoldId,
    name: Box<str>,
    key: HoldKey,
    expires_unix_ms: u64,
    bell: watch::Receiver<()>,
    /// Whether this call is counted among those that wait.
    counted: bool,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("id", &self.name).finish_non_exhaustive()
    }
}

impl Waiter {
    pub(super) fn new(
        approvals: Arc<Approvals>,
        id: HoldId,
        key: HoldKey,
        expires_unix_ms: u64,
        bell: watch::Receiver<()>,
    ) -> Self {
        let name = id.to_string().into();
        Self { approvals, id, name, key, expires_unix_ms, bell, counted: true }
    }

    /// The hold's id.
    pub fn id(&self) -> &HoldId {
        &self.id
    }

    /// When the hold expires, milliseconds since 1970, by the wall clock as it was when this call
    /// asked.
    pub fn expires_unix_ms(&self) -> u64 {
        self.expires_unix_ms
    }

    /// The state of the hold now.
    pub fn state(&self) -> HoldState {
        self.approvals.standing(&self.name).0
    }

    /// Waits until the hold is no longer pending, and returns its state. It needs a runtime with
    /// time. It may be called again, and dropped before its end.
    pub async fn decided(&mut self) -> HoldState {
        loop {
            self.bell.borrow_and_update();
            let (state, left_ms) = self.approvals.standing(&self.name);
            match state {
                HoldState::Pending => {}
                // The client is told only what the store has: else a crash could bring it back.
                HoldState::Expired if !self.approvals.is_written(&self.name, state) => {
                    self.approvals.tick_aside().await;
                    return HoldState::Expired;
                }
                HoldState::Granted
                | HoldState::Refused
                | HoldState::Expired
                | HoldState::Cancelled
                | HoldState::Spent
                | HoldState::Unknown => return state,
            }
            let expiry = tokio::time::sleep(Duration::from_millis(left_ms));
            tokio::select! {
                changed = self.bell.changed() => {
                    if changed.is_err() {
                        return HoldState::Unknown;
                    }
                }
                () = expiry => {}
            }
        }
    }

    /// Spends the grant: this one call may be sent, and no other. That is in the store before this
    /// returns, so it may wait for the disk. Once the call's outcome is recorded, say so with
    /// [`Approvals::settle`].
    ///
    /// # Errors
    ///
    /// The hold's state, if the call must not be sent: another call was faster, or the time is
    /// over. [`HoldState::Unknown`] if the store does not say.
    pub fn spend(self, now: Now) -> Result<Approval, HoldState> {
        let hold = self.approvals.spend(&self.name, now)?;
        let through = hold.through.as_ref().map(|through| through.scope.clone());
        Ok(Approval {
            hold: self.id.clone(),
            key: self.key,
            groups: hold.asked.subject.approvers.clone(),
            quorum: hold.asked.subject.quorum,
            approvers: hold.granted_by(),
            reason: hold.granted_because(),
            scope: through.or_else(|| hold.scope.clone()),
            granted_unix_ms: hold.changed_ms,
        })
    }

    /// The call is cancelled. If no other call waits for the hold, that ends it: no answer does
    /// anything any more. It may wait for the disk.
    pub fn cancel(mut self, now: Now) {
        self.counted = false;
        self.approvals.cancel(&self.name, now);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.counted {
            self.approvals.detach(&self.name);
        }
    }
}
