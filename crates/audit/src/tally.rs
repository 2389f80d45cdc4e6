//! Counts calls by the values of a field.
//!
//! A call counts once for each value that its records have, however many records these are; a
//! record of the program itself counts as it is; a `repeated` record counts as often as it says. Of a
//! denial only the reasons that deny count.
//! [`Tally`]s of parts of a journal are put together in order.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;
use std::path::Path;

use super::calls::{Found, ends};
use super::entry::JournalRecord;
use super::filter::{Field, Filter, Matcher};
use super::scan::Scan;
use super::tail::ReadError;

/// Values that are told apart; calls with others are counted together.
const VALUES_MAX: usize = 100_000;

/// What stands for the value of records that have none.
pub const NONE: &str = "-";
/// What stands for the values beyond the largest number of them.
pub const OTHERS: &str = "(others)";

/// The values of a call by their numbers, and whether it has ended.
#[derive(Debug, Clone, Default)]
struct Counted {
    values: Vec<u32>,
    ended: bool,
}

/// Calls, counted.
#[derive(Debug, Default)]
pub struct Tally {
    numbers: HashMap<String, u32>,
    /// How many, by the number of the value.
    counts: Vec<u64>,
    /// By a hash of their ids: the calls of this part, or after [`append`](Self::append) those that
    /// have not ended.
    calls: HashMap<u64, Counted>,
}

impl Tally {
    /// Counts `entry` by `field`; without one all are counted together.
    fn count(&mut self, field: Option<Field>, entry: &JournalRecord) {
        let mut values = Vec::new();
        match field {
            None => values.push(self.number("")),
            Some(Field::Rule) if is_denied(entry) => {
                values.extend(denying(entry).map(|code| self.number(code)));
            }
            Some(field) => {
                field.any(entry, &mut |value| {
                    values.push(self.number(value));
                    false
                });
            }
        }
        if let Some(repeated) = entry.repeated {
            if values.is_empty() {
                values.push(self.number(NONE));
            }
            for value in values {
                self.add(value, repeated);
            }
            return;
        }
        let ended = ends(&entry.event);
        match &entry.call {
            Some(call) => {
                let mut hasher = DefaultHasher::new();
                call.hash(&mut hasher);
                self.enter(hasher.finish(), Counted { values, ended });
            }
            None if values.is_empty() => {
                let none = self.number(NONE);
                self.add(none, 1);
            }
            None => {
                for value in values {
                    self.add(value, 1);
                }
            }
        }
    }

    fn number(&mut self, value: &str) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let full = self.numbers.len() >= VALUES_MAX && value != OTHERS;
        if full {
            return self.number(OTHERS);
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(value.to_owned(), number);
        self.counts.push(0);
        number
    }

    fn add(&mut self, value: u32, times: u64) {
        let count = usize::try_from(value).ok().and_then(|value| self.counts.get_mut(value));
        if let Some(count) = count {
            *count = count.saturating_add(times);
        }
    }

    /// Counts the values of a call that it did not have before.
    fn enter(&mut self, call: u64, Counted { values, ended }: Counted) {
        let known = self.calls.entry(call).or_default();
        known.ended |= ended;
        let fresh: Vec<u32> = values.into_iter().filter(|it| !known.values.contains(it)).collect();
        known.values.extend(&fresh);
        for value in fresh {
            self.add(value, 1);
        }
    }

    /// Adds `later`, the part of the journal that follows. Only calls that may go on are kept.
    pub fn append(&mut self, later: Self) {
        let Self { numbers, mut counts, calls } = later;
        let mut names: Vec<(String, u32)> = numbers.into_iter().collect();
        names.sort_by_key(|(_, number)| *number);
        let ours: Vec<u32> = names.iter().map(|(name, _)| self.number(name)).collect();
        let our = |value: u32| usize::try_from(value).ok().and_then(|it| ours.get(it)).copied();
        let mut to_others = Vec::new();
        for (call, Counted { values, ended }) in calls {
            // They are counted again here, unless the call had them before.
            for value in &values {
                let count = usize::try_from(*value).ok().and_then(|it| counts.get_mut(it));
                if let Some(count) = count {
                    *count = count.saturating_sub(1);
                }
            }
            let values = values.into_iter().filter_map(our).collect();
            self.enter(call, Counted { values, ended });
            if self.calls.get(&call).is_some_and(|it| it.ended) {
                to_others.push(self.calls.remove(&call));
            }
        }
        for (value, count) in ours.iter().zip(counts) {
            self.add(*value, count);
        }
        let without = to_others.iter().flatten().filter(|it| it.values.is_empty()).count();
        if without > 0 {
            let none = self.number(NONE);
            self.add(none, u64::try_from(without).unwrap_or(u64::MAX));
        }
    }

    /// Each value and how often it was counted, the most frequent first.
    pub fn values(mut self) -> Vec<(String, u64)> {
        let without = self.calls.values().filter(|it| it.values.is_empty()).count();
        if without > 0 {
            let none = self.number(NONE);
            self.add(none, u64::try_from(without).unwrap_or(u64::MAX));
        }
        let Self { numbers, counts, .. } = self;
        let count =
            |number: u32| usize::try_from(number).ok().and_then(|it| counts.get(it)).copied();
        let values = numbers.into_iter().map(|(name, it)| (name, count(it).unwrap_or_default()));
        let mut values: Vec<_> = values.filter(|(_, count)| *count > 0).collect();
        values.sort_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
        values
    }
}

/// Whether `entry` is about a message that was denied.
fn is_denied(entry: &JournalRecord) -> bool {
    entry.decision.as_ref().is_some_and(|decision| decision.effect == "deny")
}

/// The codes of the reasons of a denial that deny. After a permit that a limit or an approver has
/// overruled, that comes first, and the rules that permitted follow.
fn denying(entry: &JournalRecord) -> impl Iterator<Item = &str> {
    let reasons = entry.decision.iter().flat_map(|decision| &decision.reasons);
    let is_overruled = reasons.clone().next().is_some_and(|first| first.origin != "rule");
    let denies = move |origin: &str| !is_overruled || origin != "rule";
    reasons.filter(move |it| denies(&it.origin)).map(|it| it.code.as_str())
}

/// Counts the calls with records that `filter` admits by `field`, or all of them together under an
/// empty name.
///
/// # Errors
///
/// As [`Scan::run`].
pub fn tally(
    directory: &Path,
    filter: &Filter,
    field: Option<Field>,
) -> Result<Found<Vec<(String, u64)>>, ReadError> {
    let matcher = Matcher::new(filter);
    let (mut all, mut unreadable) = (Tally::default(), 0_u64);
    Scan { directory, from_seq: 1, filter }.run(
        |found: &mut Found<Tally>, line| match matcher.read(line) {
            Ok(Some(entry)) => found.found.count(field, &entry),
            Ok(None) => {}
            Err(_) => found.unreadable = found.unreadable.saturating_add(1),
        },
        |found| {
            all.append(found.found);
            unreadable = unreadable.saturating_add(found.unreadable);
            ControlFlow::Continue(())
        },
    )?;
    Ok(Found { found: all.values(), unreadable })
}

#[cfg(test)]
mod tests {
    use super::super::entry::{DecisionRecord, OperationRecord, ReasonRecord};
    use super::*;

    fn entry(event: &str, call: &str, environments: &[&str]) -> JournalRecord {
        let environments = environments.iter().map(|it| (*it).to_owned()).collect();
        JournalRecord {
            event: event.to_owned(),
            call: (!call.is_empty()).then(|| call.to_owned()),
            operation: Some(OperationRecord { environments, ..OperationRecord::default() }),
            ..JournalRecord::default()
        }
    }

    #[test]
    fn of_a_denial_the_rules_that_deny_are_counted() {
        let reasons = |codes: &[(&str, &str)]| {
            let reason = |(code, origin): &(&str, &str)| ReasonRecord {
                code: (*code).to_owned(),
                origin: (*origin).to_owned(),
                ..ReasonRecord::default()
            };
            codes.iter().map(reason).collect()
        };
        let decided = |event: &str, call: &str, effect: &str, codes: &[(&str, &str)]| {
            let decision = DecisionRecord {
                effect: effect.to_owned(),
                reasons: reasons(codes),
                ..DecisionRecord::default()
            };
            JournalRecord { decision: Some(decision), ..entry(event, call, &[]) }
        };
        let mut tally = Tally::default();
        for entry in [
            decided("denial", "a", "deny", &[("two-pairs", "rule"), ("no-friday", "rule")]),
            decided("denial", "b", "deny", &[("spent", "limited"), ("writes", "rule")]),
            decided("intent", "c", "permit", &[("reads", "rule")]),
        ] {
            tally.count(Some(Field::Rule), &entry);
        }
        let expected = [("no-friday", 1), ("reads", 1), ("spent", 1), ("two-pairs", 1)];
        assert_eq!(tally.values(), expected.map(|(name, count)| (name.to_owned(), count)));
    }

    /// However the journal is cut into parts, the same is counted.
    #[test]
    fn a_call_counts_once_for_each_value() {
        let mut repeated = entry("repeated", "c", &["staging"]);
        repeated.repeated = Some(40);
        let entries = vec![
            entry("start", "", &[]),
            entry("hold", "a", &["staging"]),
            entry("intent", "a", &["staging", "production"]),
            entry("intent", "b", &[]),
            entry("outcome", "a", &["staging", "production"]),
            entry("denial", "c", &["staging"]),
            repeated,
            entry("outcome", "b", &[]),
            entry("intent", "d", &["production"]),
            entry("intent", "e", &[]),
        ];
        for size in 1..=entries.len() {
            let counted = |field| {
                let mut all = Tally::default();
                for part in entries.chunks(size) {
                    let mut tally = Tally::default();
                    for entry in part {
                        tally.count(field, entry);
                    }
                    all.append(tally);
                }
                all.values()
            };
            let expected = [("staging", 42), ("-", 3), ("production", 2)];
            let expected = expected.map(|(name, count)| (name.to_owned(), count));
            assert_eq!(counted(Some(Field::Environment)), expected, "{size}");
            assert_eq!(counted(None), [(String::new(), 46)], "{size}");
        }
    }

    #[test]
    fn values_beyond_the_largest_number_are_counted_together() {
        let mut tally = Tally::default();
        for number in 0..VALUES_MAX.saturating_add(5) {
            tally.count(Some(Field::Environment), &entry("start", "", &[&number.to_string()]));
        }
        assert_eq!(tally.values().first(), Some(&(OTHERS.to_owned(), 5)));
    }
}
