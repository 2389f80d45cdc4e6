//! One step of a session: taken under its lock, recorded after it.

use super::sessions::SharedSession;
use crate::Shared;
use bartizan_gate::evidence::record::{CallId, Now};
use bartizan_gate::evidence::step::{Act, Released, Step, Unrecorded};
use bartizan_gate::session::{Gate, Session};

/// What came of one step.
pub(super) enum Turn {
    /// The act, its record kept.
    Act(Act),
    /// There was nothing to do: the call is settled already.
    Settled,
    /// No record, so no act; and what the client is told, if anything.
    Refused(Option<Released>),
}

/// One step of `session`, recorded. The lock is held for the step alone. A lock that is poisoned
/// closes the session: a bug may have left it in no known state.
pub(super) fn turn(
    shared: &Shared,
    session: &SharedSession,
    step: impl FnOnce(&mut Session, &Gate, Now) -> Option<Step>,
) -> Turn {
    let now = shared.now();
    let step = match session.lock() {
        Ok(mut session) => step(&mut session, &shared.gate, now),
        Err(_) => return Turn::Refused(None),
    };
    let Some(step) = step else { return Turn::Settled };
    match shared.record(step) {
        Ok(act) => Turn::Act(act),
        Err(Unrecorded { call, refusal, .. }) => {
            if let (Some(call), Ok(mut session)) = (call, session.lock()) {
                session.forget(&call);
            }
            Turn::Refused(refusal)
        }
    }
}

/// Closes what `session` has in flight: nobody will come for it any more.
pub(super) fn abandon(shared: &Shared, session: &SharedSession) {
    let calls = session.lock().map(|session| session.in_flight()).unwrap_or_default();
    for call in calls {
        give_up(shared, session, &call);
    }
}

/// Closes `call`: nobody will come for its answer any more.
pub(super) fn give_up(shared: &Shared, session: &SharedSession, call: &CallId) {
    record(&turn(shared, session, |session, _, now| session.client_gone(call, now)));
}

/// The record was what mattered; there is nobody to act for.
pub(super) fn record(turn: &Turn) {
    if let Turn::Refused(_) = turn {
        tracing::error!("an outcome could not be recorded");
    }
}
