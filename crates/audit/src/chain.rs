//! The hash chain: does this line follow from the one before?
//!
//! Pure. Recovery and [`verify`](super::verify) walk segments with [`Chain`]; the writer takes only
//! [`hash`], so a mistake in one shows in the other.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// A line's hash, in lower-case hex.
pub type Hex = [u8; 64];

/// `prev` of the first line of all.
pub const GENESIS: Hex = [b'0'; 64];

/// SHA-256 of `line`, which has no LF.
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

/// The members that tie records together.
#[derive(Debug, Deserialize)]
pub struct Link<'a> {
    /// Sequence number.
    pub seq: u64,
    /// The run that wrote it.
    #[serde(borrow)]
    pub boot: Cow<'a, str>,
    /// Hash of the line before.
    #[serde(borrow)]
    pub prev: Cow<'a, str>,
    /// The event.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// The call.
    pub call: Option<Cow<'a, str>>,
    /// Calls open at a rotation.
    #[serde(default)]
    pub open: Vec<Cow<'a, str>>,
    /// How many more there were.
    #[serde(default)]
    pub open_elided: u64,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The last line is cut off.
    Torn,
    /// Longer than any line that the journal writes.
    TooLong,
    /// Not a JSON object with the journal's members.
    Unreadable {
        /// What the reader says.
        cause: String,
    },
    /// Its `seq` is not the next one.
    Sequence {
        /// Its `seq`.
        found: u64,
    },
    /// The record was changed, or put here from elsewhere: the next one's `prev`, or its own, is
    /// not as it should be.
    Changed,
    /// It is not there.
    Missing,
    /// A segment's name does not tell the `seq` of its first record.
    Name,
    /// A segment does not begin with a `rotation` record, or one is inside.
    Rotation,
    /// A `rotation` record lists other open calls than there are.
    OpenCalls,
    /// An outcome of a call that has no intent, or already has its outcome.
    OutcomeWithoutIntent {
        /// The call.
        call: String,
    },
    /// An intent whose run ended and which no later run settled.
    Unsettled {
        /// The call.
        call: String,
    },
}

impl fmt::Display for Fault {
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
            Self::Unsettled { call } => {
                write!(f, "intent of call `{call}` never got its outcome, though its run ended")
            }
        }
    }
}

/// Where the walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Sequence number that the next line must have.
    pub next_seq: u64,
    /// Hash of the last line; `None` where it is not known.
    pub prev: Option<Hex>,
}

impl Chain {
    /// Before the first line of all.
    pub const START: Self = Self { next_seq: 1, prev: Some(GENESIS) };

    /// Takes `bytes` as the next line. [`Fault::Changed`] here means that it and the line before do
    /// not fit: either may be the changed one.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<Link<'a>, Fault> {
        let link: Link<'a> =
            super::entry::read(bytes).map_err(|cause| Fault::Unreadable { cause })?;
        if link.seq != self.next_seq {
            return Err(Fault::Sequence { found: link.seq });
        }
        if self.prev.is_some_and(|prev| prev != link.prev.as_bytes()) {
            return Err(Fault::Changed);
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
        let mut chain = Chain::START;
        assert_eq!(chain.take(first.as_bytes()).unwrap().event, "start");
        assert_eq!(chain.prev, Some(hash(first.as_bytes())));
        let again = chain.take(first.as_bytes()).unwrap_err();
        assert_eq!(again, Fault::Sequence { found: 1 });
        let foreign = first.replace("\"seq\":1", "\"seq\":2");
        assert_eq!(chain.take(foreign.as_bytes()).unwrap_err(), Fault::Changed);
        let twice = first.replace("\"seq\":1", "\"seq\":2,\"seq\":2");
        assert!(matches!(chain.take(twice.as_bytes()), Err(Fault::Unreadable { .. })));
    }
}
