//! Counting in bounded memory, for names that others choose.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Keys that are kept of a table after it has been cut; it is cut at twice as many.
const KEYS_KEPT: usize = 1000;

/// How often each key occurred: exact as long as there are few keys.
///
/// If there are many, those with the lowest counts are dropped together now and then (lossy counting).
/// A key that was dropped and comes again begins anew, so a count may be too low, by
/// [`missed`](Self::missed) at most; no key with a higher count is missing.
#[derive(Debug)]
pub(super) struct Top<K> {
    counts: HashMap<K, u64>,
    total: u64,
    missed: u64,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), total: 0, missed: 0 }
    }
}

impl<K: Ord + std::hash::Hash> Top<K> {
    /// Counts `key` so many times more.
    pub(super) fn add(&mut self, key: K, times: u64) {
        self.total = self.total.saturating_add(times);
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(times);
        if self.counts.len() >= KEYS_KEPT.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let mut all: Vec<(K, u64)> = std::mem::take(&mut self.counts).into_iter().collect();
        all.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
        let dropped = all.get(KEYS_KEPT).map_or(0, |(_, count)| *count);
        self.missed = self.missed.saturating_add(dropped);
        all.truncate(KEYS_KEPT);
        self.counts = all.into_iter().collect();
    }

    /// All that was counted.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// By how much a count may be too low.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    /// The most frequent keys, and how often all others occurred.
    pub(super) fn first(&self, max: usize) -> (Vec<(&K, u64)>, u64) {
        let mut all: Vec<(&K, u64)> =
            self.counts.iter().map(|(key, count)| (key, *count)).collect();
        all.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then_with(|| a.cmp(b)));
        all.truncate(max);
        let shown = all.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        (all, self.total.saturating_sub(shown))
    }
}

/// Bars of a timeline at most.
const BARS_MAX: u64 = 96;
/// Width of a bar that a timeline begins with.
const BAR_FIRST: Duration = Duration::from_mins(1);

/// How many calls there were when, in bars of the same width; it doubles as often as it must so that
/// there are at most [`BARS_MAX`] bars.
#[derive(Debug)]
pub(super) struct Timeline<const N: usize> {
    width: u64,
    /// By the number of the bar since the epoch.
    bars: BTreeMap<u64, [u64; N]>,
}

impl<const N: usize> Default for Timeline<N> {
    fn default() -> Self {
        Self { width: BAR_FIRST.as_secs(), bars: BTreeMap::new() }
    }
}

impl<const N: usize> Timeline<N> {
    /// Counts something of the kind `kind`, below `N`, at so many seconds since the epoch.
    pub(super) fn add(&mut self, seconds: u64, kind: usize, times: u64) {
        let bar =
            self.bars.entry(seconds.checked_div(self.width).unwrap_or_default()).or_insert([0; N]);
        if let Some(count) = bar.get_mut(kind) {
            *count = count.saturating_add(times);
        }
        while self.span() > BARS_MAX {
            self.width = self.width.saturating_mul(2);
            let mut wider = BTreeMap::new();
            for (number, bar) in std::mem::take(&mut self.bars) {
                let all: &mut [u64; N] = wider.entry(number / 2).or_insert([0; N]);
                for (all, count) in all.iter_mut().zip(bar) {
                    *all = all.saturating_add(count);
                }
            }
            self.bars = wider;
        }
    }

    fn span(&self) -> u64 {
        let ends = self.bars.keys().next().zip(self.bars.keys().next_back());
        ends.map_or(0, |(first, last)| last.saturating_sub(*first).saturating_add(1))
    }

    /// Width of a bar, seconds.
    pub(super) fn width(&self) -> u64 {
        self.width
    }

    /// All bars from the first to the last with a count: when each begins, seconds since the epoch,
    /// and its counts.
    pub(super) fn bars(&self) -> Vec<(u64, [u64; N])> {
        let first = self.bars.keys().next().copied().unwrap_or_default();
        (0..self.span())
            .map(|number| {
                let number = first.saturating_add(number);
                let counts = self.bars.get(&number).copied().unwrap_or([0; N]);
                (number.saturating_mul(self.width), counts)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_keys_are_counted_among_any_number_of_others() {
        let mut top = Top::default();
        for number in 0..100_000_u64 {
            top.add(format!("once {number}"), 1);
            if number % 10 == 0 {
                top.add("often".to_owned(), 1);
            }
            assert!(top.counts.len() <= 2 * KEYS_KEPT);
        }
        assert_eq!(top.total(), 110_000);
        let (first, rest) = top.first(1);
        let (name, count) = *first.first().unwrap();
        assert_eq!(name, "often");
        assert!(count <= 10_000 && count + top.missed() >= 10_000, "{count} {}", top.missed());
        assert_eq!(count + rest, 110_000);
        let mut few = Top::default();
        for (key, times) in [("b", 2), ("a", 2), ("c", 7)] {
            few.add(key, times);
        }
        assert_eq!(few.first(2), (vec![(&"c", 7), (&"a", 2)], 2));
        assert_eq!(few.missed(), 0);
    }

    #[test]
    fn a_timeline_has_few_bars_whatever_time_it_covers() {
        let mut day = Timeline::<2>::default();
        for minute in 0..1440 {
            day.add(1_796_000_000 + minute * 60, usize::from(minute % 3 == 0), 1);
        }
        let bars = day.bars();
        assert!((48..=96).contains(&bars.len()), "{}", bars.len());
        assert_eq!(bars.iter().map(|(_, [a, b])| a + b).sum::<u64>(), 1440);
        assert_eq!(bars.iter().map(|(_, counts)| counts[1]).sum::<u64>(), 480);
        assert!(bars.is_sorted_by(|a, b| b.0 - a.0 == day.width()));
        day.add(0, 0, 1);
        day.add(u64::MAX, 1, 1);
        assert!(day.bars().len() <= 96);
        assert_eq!(Timeline::<1>::default().bars(), []);
    }
}
