//! The hash chain of the journal: checks that each line follows from the line before it.
//!
//! Pure: no files, no clock. Recovery and the signer of checkpoints check lines with [`HashChain`].
//! The writer uses only [`hash`] and not the check, and [`verify`](super::verify) uses neither, so
//! that an error in one of them shows as a broken chain. `docs/audit.md` describes the format for
//! other verifiers.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// A SHA-256 hash as 64 lower-case hexadecimal digits.
pub type Hex = [u8; 64];

/// The `prev` of the first record of a journal: 64 zeros.
pub const GENESIS: Hex = [b'0'; 64];

/// The SHA-256 hash of `line`, which is a whole record without its LF.
pub fn hash(line: &[u8]) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = GENESIS;
    for (pair, byte) in hex.chunks_exact_mut(2).zip(Sha256::digest(line)) {
        for (to, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *to = DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    hex
}

/// The members of a record that the chain and the balance of intents and outcomes need.
#[derive(Debug, Deserialize)]
pub struct Link<'a> {
    /// `seq`, the sequence number.
    pub seq: u64,
    /// `boot`, the run of the program that wrote the record.
    #[serde(borrow)]
    pub boot: Cow<'a, str>,
    /// `prev`, the hash of the line before, hexadecimal.
    #[serde(borrow)]
    pub prev: Cow<'a, str>,
    /// `event`, the kind of record.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// `call`, the id of the call that the record is about, if it is about one.
    pub call: Option<Cow<'a, str>>,
    /// `open` of a `rotation` record: ids of calls without outcome.
    #[serde(default)]
    pub open: Vec<Cow<'a, str>>,
    /// `open_elided` of a `rotation` record: open calls that `open` leaves out.
    #[serde(default)]
    pub open_elided: u64,
}

/// What is wrong with a record or with the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainFault {
    /// The last line of the file has no LF.
    Torn,
    /// The line is longer than [`LINE_BYTES_MAX`](super::segment::LINE_BYTES_MAX) bytes.
    TooLong,
    /// The line is not a JSON object with the journal's members.
    Unreadable {
        /// The JSON parser's error.
        cause: String,
    },
    /// The record's `seq` is not the one before plus one.
    Sequence {
        /// The `seq` that was found.
        found: u64,
    },
    /// `prev` is not the hash of the line before: the record or its neighbour was changed, or the
    /// record was copied here from elsewhere.
    Changed,
    /// The record is missing: the segment that should begin with it begins with a later one.
    Missing,
    /// The number in a segment's file name is not the `seq` of its first record.
    Name,
    /// A segment after the first does not begin with a `rotation` record, or a `rotation` record
    /// stands inside a segment.
    Rotation,
    /// The `open` list of a `rotation` record differs from the calls that are open by the records
    /// before it.
    OpenCalls,
    /// An outcome of a call that has no intent, or that already has its outcome.
    OutcomeWithoutIntent {
        /// The id of the call.
        call: String,
    },
    /// The record's event is none that this program knows. A journal whose records it does not
    /// understand cannot be called whole.
    UnknownEvent {
        /// The event.
        event: String,
    },
    /// The journal was closed in order while a call had no outcome.
    StoppedWithOpenCall {
        /// The id of the call.
        call: String,
    },
    /// A `checkpoint` record that says nothing, or is signed by nobody who is known.
    Checkpoint {
        /// What is wrong with it.
        cause: String,
    },
    /// The records that a checkpoint covers have another root than it has.
    Rewritten {
        /// The last record that it covers.
        last: u64,
        /// Which checkpoint says so.
        by: String,
    },
    /// The record is not the one whose hash was saved.
    OtherHead {
        /// Where the hash was saved.
        by: String,
    },
    /// The journal ends before a record that a checkpoint or a saved hash covers.
    CutOff {
        /// What covers it, and what that is.
        by: String,
    },
    /// All that a checkpoint or a saved hash covers was removed, so nothing here can be compared with
    /// it.
    NotComparable {
        /// Which checkpoint, or where the hash was saved.
        by: String,
    },
    /// A key was given, and nothing is signed with it.
    Unsigned,
    /// An intent without outcome, although its run ended and a later run should have recorded an
    /// unknown outcome for it.
    Unsettled {
        /// The id of the call.
        call: String,
    },
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("the line is cut off"),
            Self::TooLong => f.write_str("the line is longer than any that the journal writes"),
            Self::Unreadable { cause } => write!(f, "not a journal record: {cause}"),
            Self::Sequence { found } => write!(f, "record {found} is in its place"),
            Self::Changed => f.write_str("the record is not the one that was chained here"),
            Self::Missing => f.write_str("the record is not there"),
            Self::Name => f.write_str("the file's name does not tell its first record"),
            Self::Rotation => {
                f.write_str("`rotation` is missing at the start of the file, or is inside it")
            }
            Self::OpenCalls => f.write_str("`open` does not list the calls that were open"),
            Self::OutcomeWithoutIntent { call } => {
                write!(f, "outcome of call `{call}`, which is not open")
            }
            Self::UnknownEvent { event } => write!(f, "unknown event `{event}`"),
            Self::StoppedWithOpenCall { call } => {
                write!(f, "the journal was closed while call `{call}` had no outcome")
            }
            Self::Checkpoint { cause } => write!(f, "the checkpoint cannot be trusted: {cause}"),
            Self::Rewritten { last, by } => {
                write!(f, "this record or a later one up to {last} was rewritten, as {by} shows")
            }
            Self::OtherHead { by } => {
                write!(f, "not the record whose hash {by} has: it, or one before it, was rewritten")
            }
            Self::CutOff { by } => write!(f, "the journal ends before it, but {by}"),
            Self::NotComparable { by } => {
                write!(
                    f,
                    "cannot be compared with {by}, which covers only records before this one: it \
                     proves nothing about what is here; use one that was saved later"
                )
            }
            Self::Unsigned => f.write_str("no checkpoint covers it or any other record"),
            Self::Unsettled { call } => {
                write!(f, "intent of call `{call}` never got its outcome, though its run ended")
            }
        }
    }
}

/// The state of the chain between two lines: what the next line must continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashChain {
    /// Sequence number that the next line must have.
    pub next_seq: u64,
    /// The hash of the line before; `None` where that line is not available (its segment was moved
    /// away), so that the next `prev` is not checked.
    pub prev: Option<Hex>,
}

impl HashChain {
    /// The state before the first record of a journal.
    pub const START: Self = Self { next_seq: 1, prev: Some(GENESIS) };

    /// Checks `bytes` as the next line, and moves on to the line after it.
    ///
    /// # Errors
    ///
    /// The first fault found. [`ChainFault::Changed`] says only that this line and the line before
    /// do not fit together: either one may have been changed.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<Link<'a>, ChainFault> {
        let link: Link<'a> =
            super::entry::read(bytes).map_err(|cause| ChainFault::Unreadable { cause })?;
        if link.seq != self.next_seq {
            return Err(ChainFault::Sequence { found: link.seq });
        }
        if self.prev.is_some_and(|prev| prev != link.prev.as_bytes()) {
            return Err(ChainFault::Changed);
        }
        self.next_seq = self.next_seq.saturating_add(1);
        self.prev = Some(hash(bytes));
        Ok(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_lower_case_hex() {
        // FIPS 180-2, appendix B.1.
        let expected = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(&hash(b"abc"), expected);
    }

    #[test]
    fn only_the_next_line_is_taken() {
        let first =
            format!(r#"{{"seq":1,"boot":"b","prev":"{}","event":"start"}}"#, "0".repeat(64));
        let mut chain = HashChain::START;
        assert_eq!(chain.take(first.as_bytes()).unwrap().event, "start");
        assert_eq!(chain.prev, Some(hash(first.as_bytes())));
        let again = chain.take(first.as_bytes()).unwrap_err();
        assert_eq!(again, ChainFault::Sequence { found: 1 });
        let foreign = first.replace("\"seq\":1", "\"seq\":2");
        assert_eq!(chain.take(foreign.as_bytes()).unwrap_err(), ChainFault::Changed);
        let twice = first.replace("\"seq\":1", "\"seq\":2,\"seq\":2");
        assert!(matches!(chain.take(twice.as_bytes()), Err(ChainFault::Unreadable { .. })));
    }
}
