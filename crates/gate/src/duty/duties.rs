//! The redactions that hold for messages of which nobody can tell the call that caused them.
//!
//! A notification or a request of the server names no call. It may concern any call that the server
//! got on this line, also one that was cancelled or answered long ago. So it is redacted as every
//! such call demands: the table only grows, and ends with its line.

use std::collections::HashMap;
use std::sync::Arc;

use super::redact::{REDACTIONS_MAX, Redaction};
use crate::memory::{Charge, ENTRY_BYTES, MemoryBudget};

/// Redactions that hold for every message without a call of its own on one line: a session, or a
/// connection that sessions share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duties {
    redactions: Vec<Redaction>,
    /// More than the table may hold were demanded, so that no message can be judged by it.
    overflowed: bool,
}

impl Duties {
    /// Different redactions in one table at most. Of a line with more, no message passes that names
    /// no call.
    pub const REDACTIONS_MAX: usize = REDACTIONS_MAX;

    /// The redactions of one call.
    pub(crate) fn of(redactions: &[Redaction]) -> Self {
        let mut duties = Self::default();
        duties.add(redactions);
        duties
    }

    /// Adds the redactions of a call.
    pub(crate) fn add(&mut self, redactions: &[Redaction]) {
        for redaction in redactions {
            if self.redactions.contains(redaction) {
                continue;
            }
            if self.redactions.len() >= Self::REDACTIONS_MAX {
                self.overflowed = true;
                return;
            }
            self.redactions.push(redaction.clone());
        }
    }

    /// Adds the redactions of another table.
    pub fn merge(&mut self, other: &Self) {
        self.add(&other.redactions);
        self.overflowed |= other.overflowed;
    }

    /// The bytes of the table.
    pub(crate) fn bytes(&self) -> usize {
        let sizes = self.redactions.iter().map(|it| match it {
            Redaction::Pointer(pointer) => pointer.len(),
            Redaction::Secrets => 0,
        });
        sizes.fold(0, |sum, text| sum.saturating_add(text).saturating_add(size_of::<Redaction>()))
    }

    /// What must be removed; `None` if more was demanded than the table holds.
    pub(crate) fn redactions(&self) -> Option<&[Redaction]> {
        (!self.overflowed).then_some(&*self.redactions)
    }
}

/// The duties of each principal's calls to one server, for clients without a session: nothing tells
/// which of a principal's calls caused a message that comes outside any session.
#[derive(Debug, Default)]
pub(crate) struct PrincipalDuties {
    by_principal: HashMap<Box<str>, (Duties, Charge)>,
    /// The duties of all further principals together.
    others: Duties,
}

impl PrincipalDuties {
    /// Principals with a table of their own. All further ones share one.
    const PRINCIPALS_MAX: usize = 4096;

    /// Adds the redactions of a call of `principal`.
    pub(crate) fn add(
        &mut self,
        principal: &str,
        redactions: &[Redaction],
        memory: &Arc<MemoryBudget>,
    ) {
        if redactions.is_empty() {
            return;
        }
        if let Some((duties, charge)) = self.by_principal.get_mut(principal) {
            let before = duties.bytes();
            duties.add(redactions);
            let more = duties.bytes().saturating_sub(before);
            if more > 0 {
                charge.join(memory.count(principal, more));
            }
        } else if self.by_principal.len() < Self::PRINCIPALS_MAX {
            let duties = Duties::of(redactions);
            let bytes = principal.len().saturating_add(duties.bytes());
            let charge = memory.count(principal, bytes.saturating_add(ENTRY_BYTES));
            self.by_principal.insert(principal.into(), (duties, charge));
        } else {
            self.others.add(redactions);
        }
    }

    /// What the calls of `principal` demand.
    pub(crate) fn of(&self, principal: &str) -> &Duties {
        self.by_principal.get(principal).map_or(&self.others, |(duties, _)| duties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_beyond_the_bound_share_one_table() {
        let memory = MemoryBudget::new(1 << 30);
        let mut tables = PrincipalDuties::default();
        for number in 0..PrincipalDuties::PRINCIPALS_MAX {
            tables.add(&number.to_string(), &[Redaction::Secrets], &memory);
        }
        let pointer = Redaction::pointer("/result/a").unwrap();
        let pointer = [pointer];
        tables.add("late", &pointer, &memory);
        assert_eq!(tables.of("0").redactions().unwrap(), [Redaction::Secrets]);
        assert_eq!(tables.of("late").redactions().unwrap(), pointer);
        assert_eq!(tables.of("later").redactions().unwrap(), pointer);
        drop(tables);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_table_only_grows_and_says_when_it_is_full() {
        let pointer = |number| Redaction::pointer(&format!("/result/{number}")).unwrap();
        let mut duties = Duties::default();
        for number in 0..Duties::REDACTIONS_MAX {
            duties.add(&[pointer(number), pointer(0)]);
        }
        assert_eq!(duties.redactions().unwrap().len(), Duties::REDACTIONS_MAX);
        let mut other = Duties::of(&[pointer(1)]);
        other.merge(&duties);
        assert_eq!(other.redactions().unwrap().len(), Duties::REDACTIONS_MAX);
        duties.add(&[Redaction::Secrets]);
        assert_eq!(duties.redactions(), None);
        other = Duties::of(&[pointer(1)]);
        other.merge(&duties);
        assert_eq!(other.redactions(), None);
    }
}
