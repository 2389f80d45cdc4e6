//! A granted call is sent, or given up.
//!
//! "Spent" is on the disk before the call is sent, so a crash between the two never sends it twice
//! (threats I2, I7). How the call ended is written later. If that is missing after a crash, the
//! hold is unknown: the server may have got the call or not, and a person must look.

use super::{Ledger, Plan};
use crate::record::{HoldRecord, HoldState};
use crate::store::Lasting;

impl Ledger {
    /// The plan to send the call of the hold `id`.
    ///
    /// # Errors
    ///
    /// It is not granted, or no longer; its state.
    pub fn spend(&self, id: &str, at_ms: u64) -> Result<Plan<HoldRecord>, HoldState> {
        let hold = self.hold(id).ok_or(HoldState::Unknown)?;
        let state = self.state(hold, at_ms);
        if state != HoldState::Granted {
            return Err(state);
        }
        Ok(Plan::new(self.finish(hold, HoldState::Spent, at_ms), hold.clone()))
    }

    /// The plan to write that the end of the call of the hold `id` is known.
    pub fn settle(&self, id: &str) -> Plan<()> {
        match self.hold(id) {
            Some(hold) if self.unsettled.contains(id) => {
                let settled = HoldRecord { settled: true, ..hold.clone() };
                Plan { lasting: Lasting::Later, ..Plan::new(vec![self.put_hold(settled)], ()) }
            }
            Some(_) | None => Plan::nothing(()),
        }
    }

    /// The plan for the end of the last call that waited for the hold `id`.
    pub fn cancel(&self, id: &str, at_ms: u64) -> Plan<()> {
        match self.hold(id) {
            Some(hold) if self.state(hold, at_ms).is_open() => {
                Plan::new(self.finish(hold, HoldState::Cancelled, at_ms), ())
            }
            Some(_) | None => Plan::nothing(()),
        }
    }
}
