//! Messages that wait in a queue or are still arriving, charged to the principal whom they are for.
//!
//! A server may send an event or a line of megabytes to each of thousands of readers, and a reader
//! may be slow. So what is buffered for a reader counts in the gate's budget of memory, from the
//! first [`FREE_BYTES`] on, until the last reference to the bytes is dropped (threat K15). What does
//! not fit ends the stream or the exchange that it is for, with a reason that names the limit.

use std::sync::Arc;

use bartizan_gate::memory::{Charge, MemoryBudget, NoRoom};
use bartizan_gate::session::UpstreamFailure;
use bytes::Bytes;

/// Size up to which a message is not charged while it arrives, bytes. So many may be kept for each
/// request, stream and child beside the budget.
pub const FREE_BYTES: usize = 4 << 10;
/// Steps in which the charge of an arriving message grows, bytes.
const STEP_BYTES: usize = 64 << 10;

/// Whose memory is charged.
#[derive(Debug, Clone)]
pub struct Account {
    memory: Arc<MemoryBudget>,
    owner: Arc<str>,
}

/// Bytes that are charged until the last reference to them is dropped.
struct ChargedBytes {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Account {
    /// That of the principal `owner`.
    pub fn new(memory: &Arc<MemoryBudget>, owner: &str) -> Self {
        Self { memory: Arc::clone(memory), owner: owner.into() }
    }

    /// The memory of all owners.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// `bytes`, charged.
    ///
    /// # Errors
    ///
    /// There is no room for them; they are given back.
    pub(crate) fn hold(&self, bytes: Bytes) -> Result<Bytes, Bytes> {
        match self.memory.charge(&self.owner, bytes.len()) {
            Ok(charge) => Ok(charged(bytes, charge)),
            Err(NoRoom) => Err(bytes),
        }
    }

    /// `bytes`, charged even if there is no room: a message that was charged while it arrived, in
    /// the form in which it goes on. One of at most [`FREE_BYTES`] is not charged.
    pub(crate) fn count(&self, bytes: Bytes) -> Bytes {
        if bytes.len() <= FREE_BYTES {
            return bytes;
        }
        let charge = self.memory.count(&self.owner, bytes.len());
        charged(bytes, charge)
    }

    /// For a message that arrives in pieces.
    pub(crate) fn arriving(&self) -> ArrivingMessage {
        ArrivingMessage { account: self.clone(), charge: None }
    }
}

fn charged(bytes: Bytes, charge: Charge) -> Bytes {
    Bytes::from_owner(ChargedBytes { bytes, _charge: charge })
}

/// The charge for messages that arrive in pieces, one after the other.
#[derive(Debug)]
pub(crate) struct ArrivingMessage {
    account: Account,
    charge: Option<Charge>,
}

impl ArrivingMessage {
    /// So many bytes of the current message are buffered now.
    ///
    /// # Errors
    ///
    /// There is no room for them.
    pub(crate) fn buffered(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= FREE_BYTES {
            self.charge = None;
            return Ok(());
        }
        let bytes = bytes.checked_next_multiple_of(STEP_BYTES).unwrap_or(bytes);
        match &mut self.charge {
            Some(charge) => charge.resize(bytes),
            none => {
                *none = Some(self.account.memory.charge(&self.account.owner, bytes)?);
                Ok(())
            }
        }
    }

    /// The message is whole; its bytes stay charged.
    ///
    /// # Errors
    ///
    /// There is no room for them.
    pub(crate) fn whole(&mut self, bytes: Bytes) -> Result<Bytes, NoRoom> {
        let charge = self.charge.take();
        if bytes.len() <= FREE_BYTES {
            return Ok(bytes);
        }
        let charge = match charge {
            Some(mut charge) => {
                charge.resize(bytes.len())?;
                charge
            }
            None => self.account.memory.charge(&self.account.owner, bytes.len())?,
        };
        Ok(charged(bytes, charge))
    }
}

/// Why a message of the server does not reach its reader.
pub(crate) fn no_room() -> UpstreamFailure {
    UpstreamFailure::Unreadable(
        "no memory is left to keep its messages for this principal (`limits.kept_bytes`)".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_charged_until_the_last_reference_is_dropped() {
        let memory = MemoryBudget::new(1 << 20);
        let account = Account::new(&memory, "a");
        let held = account.hold(Bytes::from(vec![1; 100])).unwrap();
        let part = held.slice(10..20);
        drop(held);
        assert_eq!(memory.used_by("a"), 100);
        drop(part);
        assert_eq!(memory.used(), 0);
        assert_eq!(account.hold(Bytes::from(vec![1; 1 << 20])).unwrap_err().len(), 1 << 20);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn an_arriving_message_is_charged_as_it_grows() {
        let memory = MemoryBudget::new(1 << 20);
        let mut arriving = Account::new(&memory, "a").arriving();
        arriving.buffered(FREE_BYTES).unwrap();
        assert_eq!(memory.used(), 0);
        for (buffered, charged) in [(FREE_BYTES + 1, 64 << 10), (70 << 10, 128 << 10), (0, 0)] {
            arriving.buffered(buffered).unwrap();
            assert_eq!(memory.used(), charged);
        }
        arriving.buffered(400 << 10).unwrap();
        let whole = arriving.whole(Bytes::from(vec![1; 400 << 10])).unwrap();
        assert_eq!(memory.used(), 400 << 10);
        assert_eq!(arriving.buffered(400 << 10), Err(NoRoom), "half of all is one owner's");
        assert!(arriving.whole(Bytes::from(vec![1; 400 << 10])).is_err());
        drop((whole, arriving));
        assert_eq!(memory.used(), 0);
    }
}
