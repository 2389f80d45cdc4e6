//! Calls that were judged by session facts, and that the server may still carry out.
//!
//! A server may carry out what it was sent in any order as long as it has answered neither. A call
//! that was judged for one project would land in another one if a selection of that other project
//! were sent while the call is in flight (threat H8). So a call is noted before it is judged, and
//! a selection of a fact that it was told is refused until the call has its answer, or until it has
//! been without one for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;

/// Entries among which ended ones may stay until they are looked for.
const PRUNED_FROM: usize = 16;

/// A fact as a call was told it: its name, and whether the state of the session has it.
type FactName = (bool, Box<str>);

/// Calls that were judged by facts.
#[derive(Debug, Default)]
pub struct FactReaders {
    calls: Vec<Arc<Reading>>,
    /// Until when calls may be carried out that are no longer known one by one, by principal and
    /// fact.
    forgotten: BTreeMap<(Box<str>, FactName), Duration>,
    /// The number of calls from which on ended ones are removed.
    prune_at: usize,
}

#[derive(Debug)]
struct Reading {
    principal: Box<str>,
    noted: Mutex<Noted>,
}

#[derive(Debug)]
struct Noted {
    /// What the call was told; empty once the call is over.
    facts: Vec<FactName>,
    end: End,
}

/// How far a call is.
#[derive(Debug, Clone, Copy)]
enum End {
    InFlight,
    /// Nobody waits for its answer; the uptime from which on it counts as never carried out.
    Owed(Duration),
    /// The same, and its answer would not be known as its own.
    Lost(Duration),
}

/// The note that a call was judged by facts. The call is over once this is dropped, unless its
/// answer is [owed](Self::owed).
#[derive(Debug)]
pub struct FactReader(Arc<Reading>);

impl Drop for FactReader {
    fn drop(&mut self) {
        let mut noted = lock(&self.0.noted);
        match noted.end {
            End::InFlight => noted.facts.clear(),
            End::Owed(until) | End::Lost(until) => noted.end = End::Lost(until),
        }
    }
}

impl FactReader {
    /// For how long a call counts as one that the server may still carry out, after the wait for
    /// its answer has ended without one. Servers that heed a cancellation send no answer, so only
    /// time can tell.
    pub const OWED_FOR: Duration = Duration::from_secs(30);

    /// Notes that a call of `principal` is judged by facts with the names `of_session`, which the
    /// state of its session has, and `beyond`, which outlive the session.
    pub fn of<'a>(
        principal: &str,
        of_session: impl IntoIterator<Item = &'a Box<str>>,
        beyond: impl IntoIterator<Item = &'a Box<str>>,
    ) -> Self {
        let of_session = of_session.into_iter().map(|name| (true, name.clone()));
        let facts =
            of_session.chain(beyond.into_iter().map(|name| (false, name.clone()))).collect();
        let noted = Mutex::new(Noted { facts, end: End::InFlight });
        Self(Arc::new(Reading { principal: principal.into(), noted }))
    }

    /// The call sets the fact `name` itself, to a value that it names, so it does not act on what
    /// was selected before.
    pub fn sets(&self, name: &str) {
        lock(&self.0.noted).facts.retain(|(_, told)| **told != *name);
    }

    /// The server carries out nothing of the call any more.
    pub fn ended(&self) {
        lock(&self.0.noted).facts.clear();
    }

    /// The wait for the answer has ended without it: the server may carry the call out until the
    /// uptime `until`.
    pub fn owed(&self, until: Duration) {
        lock(&self.0.noted).end = End::Owed(until);
    }

    /// The call is in flight after all: the cancellation that ended it was not sent.
    pub fn still_in_flight(&self) {
        lock(&self.0.noted).end = End::InFlight;
    }

    /// What it costs, bytes.
    pub fn bytes(&self) -> usize {
        let facts = &lock(&self.0.noted).facts;
        let each = facts.iter().map(|(_, name)| name.len().saturating_add(size_of::<FactName>()));
        // Twice, because an ended call may stay for as long as another one.
        let bytes = each.fold(size_of::<Reading>(), usize::saturating_add);
        bytes.saturating_add(self.0.principal.len()).saturating_mul(2)
    }
}

impl FactReaders {
    /// Adds a call that is about to be judged at `now` (uptime).
    pub fn add(&mut self, reader: &FactReader, now: Duration) {
        if self.calls.len() >= self.prune_at {
            self.prune(now);
        }
        self.calls.push(Arc::clone(&reader.0));
    }

    /// Whether the server may still carry out a call other than `own` that was told the fact
    /// `name`, which the state of a session has (`of_session`) or not. `principal`: a call of this
    /// one; absent: of anybody.
    pub fn any(
        &mut self,
        (of_session, name): (bool, &str),
        principal: Option<&str>,
        own: Option<&FactReader>,
        now: Duration,
    ) -> bool {
        self.prune(now);
        let mut calls =
            self.calls.iter().filter(|call| !own.is_some_and(|own| Arc::ptr_eq(&own.0, call)));
        let same = |told: &FactName| told.0 == of_session && *told.1 == *name;
        let of = |who: &str| principal.is_none_or(|principal| *principal == *who);
        calls.any(|call| of(&call.principal) && lock(&call.noted).facts.iter().any(same))
            || self.forgotten.keys().any(|(who, told)| of(who) && same(told))
    }

    /// Forgets all calls: the server that they were sent to carries them out nowhere any more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn prune(&mut self, now: Duration) {
        let Self { calls, forgotten, prune_at } = self;
        forgotten.retain(|_, until| now < *until);
        calls.retain(|call| {
            let noted = lock(&call.noted);
            match noted.end {
                _ if noted.facts.is_empty() => false,
                End::InFlight => true,
                End::Owed(until) => now < until,
                End::Lost(until) => {
                    for told in noted.facts.iter().filter(|_| now < until) {
                        let last = forgotten.entry((call.principal.clone(), told.clone()));
                        let last = last.or_default();
                        *last = until.max(*last);
                    }
                    false
                }
            }
        });
        *prune_at = calls.len().saturating_mul(2).max(PRUNED_FROM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_call_counts_until_it_is_over_or_its_time_is() {
        let mut readers = FactReaders::default();
        let reader = FactReader::of("a", [&"s".into()], [&"p".into()]);
        readers.add(&reader, at(0));
        assert!(readers.any((true, "s"), Some("a"), None, at(1)));
        assert!(readers.any((false, "p"), None, None, at(1)));
        assert!(!readers.any((false, "p"), Some("b"), None, at(1)), "another's");
        assert!(!readers.any((false, "s"), None, None, at(1)), "of the session");
        assert!(!readers.any((true, "s"), None, Some(&reader), at(1)), "its own");
        reader.sets("s");
        assert!(!readers.any((true, "s"), None, None, at(1)));
        reader.owed(at(31));
        drop(reader);
        assert!(readers.any((false, "p"), Some("a"), None, at(30)));
        assert!(readers.calls.is_empty(), "kept by name");
        assert!(!readers.any((false, "p"), Some("a"), None, at(31)));
        assert!(readers.forgotten.is_empty());
    }

    #[test]
    fn what_has_ended_is_removed_and_what_is_lost_is_kept_once_for_each_name() {
        let mut readers = FactReaders::default();
        for number in 0..10_000 {
            let reader = FactReader::of("a", [], [&"p".into()]);
            readers.add(&reader, at(0));
            if number % 2 == 0 {
                reader.owed(at(30));
            }
        }
        assert!(readers.calls.len() <= PRUNED_FROM);
        assert!(readers.any((false, "p"), Some("a"), None, at(1)));
        assert_eq!((readers.calls.len(), readers.forgotten.len()), (0, 1));
    }
}
