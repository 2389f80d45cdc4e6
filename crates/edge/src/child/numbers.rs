//! What a child gets as ids in place of the numbers of exchanges.
//!
//! Numbers count the exchanges of all clients that share a child. A child that shows ids, or that
//! several agents reach, would tell one of them how busy the others are (threat D11). So each number
//! goes out as another one, under a permutation that is random for each child.

use std::hash::{BuildHasher, RandomState};

use bartizan_gate::wire::frame::Id;

/// Bits of half a number. Both halves are an integer that every reader of JSON keeps exactly.
const HALF_BITS: u32 = 26;
const HALF_MASK: u64 = (1 << HALF_BITS) - 1;
/// Rounds of the Feistel network. Four make a permutation that cannot be told from a random one
/// (Luby and Rackoff, 1988).
const ROUNDS: [u8; 4] = [0, 1, 2, 3];

/// A random permutation of the integers from 0 to 2^52 - 1.
#[derive(Debug)]
pub(super) struct Numbers(RandomState);

impl Numbers {
    pub(super) fn new() -> Self {
        Self(RandomState::new())
    }

    /// What the child gets as the number of an exchange.
    pub(super) fn wire(&self, number: i64) -> i64 {
        let (mut left, mut right) = halves(number);
        for round in ROUNDS {
            (left, right) = (right, left ^ self.mixed(round, right));
        }
        joined(left, right)
    }

    /// The number of an exchange in what the child wrote as an id.
    pub(super) fn number_of(&self, id: &Id) -> Option<i64> {
        match id {
            Id::Number(wire) => self.of_wire(Some(*wire)),
            Id::Text(_) => None,
        }
    }

    /// The number that goes out as `wire`; `None` if none does.
    pub(super) fn of_wire(&self, wire: Option<i64>) -> Option<i64> {
        let wire = wire.filter(|wire| (0..1 << (2 * HALF_BITS)).contains(wire))?;
        let (mut left, mut right) = halves(wire);
        for round in ROUNDS.into_iter().rev() {
            (left, right) = (right ^ self.mixed(round, left), left);
        }
        Some(joined(left, right))
    }

    fn mixed(&self, round: u8, half: u64) -> u64 {
        self.0.hash_one((round, half)) & HALF_MASK
    }
}

fn halves(number: i64) -> (u64, u64) {
    let number = number.unsigned_abs();
    ((number >> HALF_BITS) & HALF_MASK, number & HALF_MASK)
}

fn joined(left: u64, right: u64) -> i64 {
    i64::try_from((left << HALF_BITS) | right).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_goes_out_as_one_of_its_own_and_comes_back() {
        let numbers = Numbers::new();
        let mut seen = BTreeSet::new();
        for number in (0..5000).chain([1 << 26, (1 << 52) - 1]) {
            let wire = numbers.wire(number);
            assert!((0..1 << 52).contains(&wire) && seen.insert(wire), "{number}: {wire}");
            assert_eq!(numbers.of_wire(Some(wire)), Some(number));
        }
        for odd in [-1, 1 << 52, i64::MAX, i64::MIN] {
            assert_eq!(numbers.of_wire(Some(odd)), None);
        }
        assert_eq!(numbers.number_of(&Id::Text("7".into())), None);
    }

    #[test]
    fn what_goes_out_does_not_count() {
        let numbers = Numbers::new();
        let wires: Vec<i64> = (1..=64).map(|number| numbers.wire(number)).collect();
        let rising = wires.windows(2).filter(|two| two.first() < two.last()).count();
        assert!((10..54).contains(&rising), "{wires:?}");
        let other = Numbers::new();
        assert!((1..=64).any(|number| other.wire(number) != numbers.wire(number)));
    }
}
