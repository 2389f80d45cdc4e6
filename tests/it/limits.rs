//! Limits through their public interface: exact numbers, then the bound of each form for any clock.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_gate::duty::decision::{Bound, Limit, Rate};
use bartizan_gate::duty::limit::{
    Exceeded, KeptBucket, LimitStore, NotCounted, NotKept, Places, RateLimits, Wait,
};
use proptest::prelude::*;

/// One hour, ms: from this period on, what is counted outlives the program.
const HOUR: u64 = 3_600_000;

fn limit(key: &str, bound: Bound) -> Limit {
    Limit { code: "writes".into(), key: key.into(), bound, cost: 1 }
}

fn rate(count: u32, period_ms: u64) -> Rate {
    Rate { count, period: Duration::from_millis(period_ms) }
}

fn bucket(key: &str, count: u32, period_ms: u64, burst: u32) -> Limit {
    limit(key, Bound::Bucket { rate: rate(count, period_ms), burst })
}

fn sliding(key: &str, count: u32, period_ms: u64) -> Limit {
    limit(key, Bound::Sliding(rate(count, period_ms)))
}

fn fixed(key: &str, count: u32, period_ms: u64) -> Limit {
    limit(key, Bound::Fixed(rate(count, period_ms)))
}

fn concurrent(key: &str, most: u32) -> Limit {
    limit(key, Bound::InFlight(most))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn just_before(at: Duration) -> Duration {
    at.saturating_sub(Duration::from_nanos(1))
}

/// The code of the limit that refuses, and when to come again.
fn spend(
    limits: &RateLimits,
    by: &[Limit],
    at: Duration,
) -> Result<Option<Places>, (Box<str>, Wait)> {
    limits.spend(by.iter(), at).map_err(|why| match why {
        NotCounted::Exceeded(Exceeded { code, wait }) => (code, wait),
        NotCounted::NotKept(NotKept { cause }) => panic!("{cause}"),
    })
}

/// Spends from `by` until refused; how many went through, and the refusal.
fn drain(limits: &RateLimits, by: &[Limit], at: Duration) -> (u32, Box<str>, Wait) {
    let mut passed = 0;
    loop {
        match spend(limits, by, at) {
            Ok(_) => passed += 1,
            Err((code, wait)) => return (passed, code, wait),
        }
        assert!(passed < 100_000, "never refused");
    }
}

fn passed(limits: &RateLimits, by: &Limit, at: Duration) -> u32 {
    drain(limits, std::slice::from_ref(by), at).0
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let limits = RateLimits::new(8);
    let by = [bucket("a", 10, 1000, 5)];
    assert_eq!(drain(&limits, &by, ms(0)), (5, "writes".into(), Wait::For(ms(100))));
    assert_eq!(drain(&limits, &by, ms(99)), (0, "writes".into(), Wait::For(ms(1))));
    assert_eq!(drain(&limits, &by, ms(100)).0, 1);
    assert_eq!(drain(&limits, &by, ms(450)).0, 3);
    assert_eq!(drain(&limits, &by, ms(60_000)).0, 5);
}

/// What a reader of `10/m` expects: not 19 in 58 s, as of a bucket that refills.
#[test]
fn a_rate_alone_lets_through_its_count_in_any_stretch_of_its_period() {
    let limits = RateLimits::new(8);
    let by = sliding("a", 10, 60_000);
    let mut through = Vec::new();
    for second in 0..180 {
        for _ in 0..passed(&limits, &by, ms(second * 1000)) {
            through.push(second);
        }
    }
    assert_eq!(through, [[0; 10], [60; 10], [120; 10]].concat());
    // Spread over the minute, each counts for a minute.
    let limits = RateLimits::new(8);
    let by = sliding("b", 10, 60_000);
    for second in 0..10 {
        assert!(spend(&limits, std::slice::from_ref(&by), ms(6_000 * second)).is_ok());
    }
    assert_eq!(
        drain(&limits, std::slice::from_ref(&by), ms(59_999)),
        (0, "writes".into(), Wait::For(ms(1)))
    );
    assert_eq!(passed(&limits, &by, ms(60_000)), 1);
    assert_eq!(passed(&limits, &by, ms(65_999)), 0);
    assert_eq!(passed(&limits, &by, ms(72_000)), 2);
}

#[test]
fn a_large_count_is_never_exceeded_and_waits_at_most_a_tenth_longer() {
    let limits = RateLimits::new(8);
    let by = sliding("a", 600, 60_000);
    let (through, _, wait) = drain(&limits, std::slice::from_ref(&by), ms(1234));
    assert_eq!(through, 600);
    let Wait::For(wait) = wait else { panic!("{wait:?}") };
    assert!((ms(60_000)..=ms(66_000)).contains(&wait), "{wait:?}");
    assert_eq!(passed(&limits, &by, just_before(ms(1234) + wait)), 0);
    assert_eq!(passed(&limits, &by, ms(1234) + wait), 600);
}

#[test]
fn a_fixed_window_begins_with_the_first_event_and_then_anew() {
    let limits = RateLimits::new(8);
    let by = fixed("a", 10, 60_000);
    assert!(spend(&limits, std::slice::from_ref(&by), ms(5_000)).is_ok());
    let refused = drain(&limits, std::slice::from_ref(&by), ms(64_000));
    assert_eq!(refused, (9, "writes".into(), Wait::For(ms(1000))), "the window began at 5 s");
    // Around the end of a window twice the count may come: this is what `fixed` means.
    assert_eq!(passed(&limits, &by, ms(65_000)), 10);
    assert_eq!(passed(&limits, &by, ms(124_999)), 0);
    // Nothing happened for long, so the next window begins with the next event.
    assert!(spend(&limits, std::slice::from_ref(&by), ms(200_000)).is_ok());
    assert_eq!(passed(&limits, &by, ms(259_999)), 9);
    assert_eq!(passed(&limits, &by, ms(260_000)), 10);
}

#[test]
fn zero_means_zero_in_every_form() {
    let limits = RateLimits::new(8);
    for by in [
        bucket("a", 0, 1000, 5),
        bucket("a", 5, 1000, 0),
        bucket("a", 5, 0, 5),
        sliding("a", 0, 1000),
        sliding("a", 5, 0),
        fixed("a", 0, 1000),
        fixed("a", 5, 0),
        concurrent("a", 0),
    ] {
        for at in [ms(0), ms(1_000_000), Duration::MAX] {
            let refused = drain(&limits, std::slice::from_ref(&by), at);
            assert_eq!(refused, (0, "writes".into(), Wait::Forever), "{by:?}");
        }
    }
}

#[test]
fn a_call_takes_what_it_costs() {
    for by in [bucket("a", 10, 60_000, 10), sliding("a", 10, 60_000), fixed("a", 10, 60_000)] {
        let limits = RateLimits::new(8);
        let costing = |cost| [Limit { cost, ..by.clone() }];
        let waits = |cost| spend(&limits, &costing(cost), ms(0)).unwrap_err().1;
        for cost in [11, 12, u32::MAX] {
            assert_eq!(waits(cost), Wait::Forever, "{cost} of {by:?}");
        }
        assert!(spend(&limits, &costing(7), ms(0)).is_ok());
        assert!(matches!(waits(4), Wait::For(_)), "{by:?}");
        assert!(spend(&limits, &costing(3), ms(0)).is_ok(), "a smaller one fits");
        assert!(matches!(waits(1), Wait::For(_)));
        assert_eq!(waits(11), Wait::Forever, "also while others wait");
        let Wait::For(wait) = waits(10) else { panic!() };
        assert!(spend(&limits, &costing(10), just_before(wait)).is_err());
        assert!(spend(&limits, &costing(10), wait).is_ok(), "{by:?}");
    }
    // A cost of 0, which no policy can give, is one of 1.
    let limits = RateLimits::new(8);
    let free = Limit { cost: 0, ..sliding("b", 2, 1000) };
    assert_eq!(passed(&limits, &free, ms(0)), 2);
}

#[test]
fn buckets_are_told_apart_by_every_part_of_their_name() {
    let limits = RateLimits::new(16);
    let mut other_code = bucket("a", 10, 1000, 2);
    other_code.code = "reads".into();
    for by in [
        bucket("a", 10, 1000, 2),
        bucket("b", 10, 1000, 2),
        bucket("a", 11, 1000, 2),
        bucket("a", 10, 1001, 2),
        sliding("a", 2, 1000),
        fixed("a", 2, 1000),
        other_code,
    ] {
        assert_eq!(passed(&limits, &by, ms(0)), 2);
    }
    assert_eq!(passed(&limits, &bucket("a", 10, 1000, 3), ms(0)), 3);
    // Buckets of long periods are named by a digest.
    let mut other_code = sliding("a", 2, HOUR);
    other_code.code = "read".into();
    other_code.key = "sa".into();
    let mut moved = sliding("a", 2, HOUR);
    (moved.code, moved.key) = ("reads".into(), "a".into());
    for by in [sliding("a", 2, HOUR), sliding("b", 2, HOUR), fixed("a", 2, HOUR), other_code, moved]
    {
        assert_eq!(passed(&limits, &by, ms(0)), 2);
    }
}

#[test]
fn a_call_spends_from_all_its_limits_or_from_none() {
    for [wide, narrow] in [
        [bucket("wide", 10, 10_000, 10), bucket("narrow", 3, 3000, 3)],
        [sliding("wide", 10, 10_000), sliding("narrow", 3, 3000)],
        [fixed("wide", 10, 10_000), fixed("narrow", 3, 3000)],
        [fixed("wide", 10, 10_000), sliding("narrow", 3, 3000)],
    ] {
        let limits = RateLimits::new(8);
        let narrow = Limit { code: "narrow".into(), ..narrow };
        let both = [wide.clone(), narrow];
        let (through, code, _) = drain(&limits, &both, ms(0));
        assert_eq!((through, &*code), (3, "narrow"));
        for _ in 0..50 {
            spend(&limits, &both, ms(0)).unwrap_err();
        }
        assert_eq!(passed(&limits, &wide, ms(0)), 7);
        let twice = Limit { key: "twice".into(), ..wide };
        assert_eq!(drain(&limits, &[twice.clone(), twice.clone()], ms(0)).0, 5);
        assert_eq!(passed(&limits, &twice, ms(0)), 0);
        assert!(spend(&limits, &[], ms(0)).is_ok());
    }
}

#[test]
fn a_refusal_names_the_limit_that_takes_longest() {
    let minute = Limit { code: "minute".into(), ..sliding("a", 2, 60_000) };
    let day = Limit { code: "day".into(), ..sliding("a", 2, 24 * HOUR) };
    let never = Limit { code: "never".into(), cost: 4, ..sliding("a", 3, HOUR) };
    let busy = Limit { code: "busy".into(), ..concurrent("a", 1) };
    let limits = RateLimits::new(8);
    let by = |list: &[&Limit]| -> Vec<Limit> { list.iter().map(|it| (*it).clone()).collect() };
    assert_eq!(passed(&limits, &minute, ms(0)), 2);
    let place = spend(&limits, &by(&[&busy]), ms(0)).unwrap();
    // Of a place it is not known when it is free.
    let refused = spend(&limits, &by(&[&busy, &minute, &day]), ms(0)).unwrap_err();
    assert_eq!(refused, ("minute".into(), Wait::For(ms(60_000))));
    assert_eq!(passed(&limits, &day, ms(0)), 2, "nothing was taken of those that permit it");
    for order in [[&minute, &busy, &day], [&day, &minute, &busy], [&busy, &day, &minute]] {
        let refused = spend(&limits, &by(&order), ms(0)).unwrap_err();
        assert_eq!(refused, ("day".into(), Wait::For(ms(24 * HOUR))));
    }
    let refused = spend(&limits, &by(&[&day, &never, &busy]), ms(0)).unwrap_err();
    assert_eq!(refused, ("never".into(), Wait::Forever));
    drop(place);
    assert!(spend(&limits, &by(&[&busy]), ms(0)).is_ok());
}

#[test]
fn a_reserved_place_is_taken_by_its_call_alone_and_given_back_once() {
    let limits = RateLimits::new(8);
    let (one, rate) = (concurrent("a", 1), sliding("a", 2, 1000));
    let both = [one.clone(), rate.clone()];
    let with = |reserved: &Option<Places>| limits.spend_with(both.iter(), reserved.as_ref(), ms(0));
    let reserved = limits.reserve(both.iter(), ms(0)).unwrap();
    assert!(limits.reserve(both.iter(), ms(0)).is_err());
    let taken = with(&reserved).unwrap();
    drop(reserved);
    assert!(limits.reserve(both.iter(), ms(0)).is_err(), "the call has it");
    drop(taken);
    let reserved = limits.reserve(both.iter(), ms(0)).unwrap();
    drop(with(&reserved).unwrap());
    // A refused call gives its reserved place back, too.
    drop(reserved);
    let reserved = limits.reserve(both.iter(), ms(0)).unwrap();
    assert!(with(&reserved).is_err(), "the rate is spent");
    let other = limits.reserve(both.iter(), ms(0)).unwrap();
    drop(reserved);
    assert!(limits.reserve(both.iter(), ms(0)).is_err(), "given back once");
    drop(other);
    assert!(limits.reserve([rate].iter(), ms(0)).unwrap().is_none());
}

#[test]
fn a_clock_that_jumps_back_gives_nothing() {
    let forms: [fn(&str) -> Limit; 3] =
        [|key| bucket(key, 1, 1000, 2), |key| sliding(key, 2, 2000), |key| fixed(key, 2, 2000)];
    for form in forms {
        let limits = RateLimits::new(1);
        let (a, b) = (form("a"), form("b"));
        assert_eq!(passed(&limits, &a, ms(100_000)), 2);
        assert_eq!(passed(&limits, &a, ms(0)), 0);
        assert_eq!(passed(&limits, &a, ms(100_999)), 0);
        let one = passed(&limits, &a, ms(101_000));
        assert_eq!(one, u32::from(matches!(a.bound, Bound::Bucket { .. })));
        // `a` is free by 104 s and leaves for `b`; a clock set back must not bring it back free.
        assert_eq!(passed(&limits, &b, ms(104_000)), 2);
        assert_eq!(passed(&limits, &a, ms(0)), 2, "the overflow bucket, once");
        assert_eq!(passed(&limits, &a, ms(0)), 0);
    }
}

#[test]
fn keys_without_room_share_one_bucket() {
    let forms: [fn(&str) -> Limit; 3] =
        [|key| bucket(key, 3, 3 * HOUR, 3), |key| sliding(key, 3, HOUR), |key| fixed(key, 3, HOUR)];
    for form in forms {
        let limits = RateLimits::new(4);
        let mut through = 0;
        for i in 0..10_000 {
            through += passed(&limits, &form(&i.to_string()), ms(i / 10));
        }
        assert_eq!(through, 4 * 3 + 3);
        // Another rule has an overflow bucket of its own.
        assert_eq!(passed(&limits, &bucket("x", 2, HOUR, 7), ms(1000)), 7);
        // A bucket that is free again is removed, and its place in the table is free.
        assert_eq!(passed(&limits, &form("new"), ms(4 * HOUR)), 3);
    }
}

#[test]
fn leaving_the_overflow_bucket_gives_no_extra_events() {
    for long in [bucket("long", 1, 60_000, 4), sliding("long", 4, 60_000), fixed("long", 4, 60_000)]
    {
        let limits = RateLimits::new(1);
        assert_eq!(passed(&limits, &bucket("short", 1, 1000, 1), ms(0)), 1);
        assert_eq!(passed(&limits, &long, ms(0)), 4, "in the overflow bucket");
        // `short` is free at 1 s and leaves; `long` gets a bucket of its own, as spent as the other.
        assert_eq!(passed(&limits, &long, ms(1000)), 0);
        assert_eq!(passed(&limits, &long, ms(59_999)), 0);
        assert!(passed(&limits, &long, ms(60_000)) > 0);
    }
}

#[test]
fn a_fixed_window_that_has_ended_is_not_left_for_a_shared_one() {
    let limits = RateLimits::new(1);
    let key = fixed("key", 4, 1000);
    let other = |name| spend(&limits, &[fixed(name, 4, 1000)], ms(500)).is_ok();
    let mut through = Vec::new();
    let mut pass = |at, most| {
        let spend = |_: &u32| spend(&limits, std::slice::from_ref(&key), ms(at)).is_ok();
        let count = u32::try_from((0..most).filter(spend).count()).unwrap();
        through.push((at, count));
    };
    pass(0, 1);
    assert!(other("shared"), "its window ends at 1,500 ms");
    pass(999, 4);
    // This key would take the place of the first one, which would go on in the shared window.
    assert!(spend(&limits, &[fixed("late", 4, 1000)], ms(1000)).is_ok());
    pass(1000, 4);
    pass(1500, 4);
    assert!(most_in(&through, 1000, false) <= 8, "{through:?}");
}

#[test]
fn overflow_buckets_are_bounded_too() {
    let limits = RateLimits::new(0);
    let spent = |i: &u64| spend(&limits, &[bucket("a", 1, 3_600_000 + i, 1)], ms(0)).is_ok();
    assert_eq!((0..1000).filter(spent).count(), 256);
}

#[test]
fn a_call_in_flight_holds_its_place_until_it_is_dropped() {
    let limits = RateLimits::new(8);
    let by = [concurrent("a", 2)];
    let take = |at| spend(&limits, &by, at);
    let (one, two) = (take(ms(0)).unwrap(), take(ms(0)).unwrap());
    assert!(one.is_some());
    let refused = ("writes".into(), Wait::ForEnd(None));
    assert_eq!(take(Duration::MAX).unwrap_err(), refused, "time gives no place back");
    assert!(spend(&limits, &[concurrent("b", 2)], ms(0)).is_ok(), "another key");
    let copy = one.clone();
    drop(one);
    assert_eq!(take(ms(0)).unwrap_err(), refused, "a copy holds the same place");
    drop(copy);
    let three = take(ms(0)).unwrap();
    assert_eq!(take(ms(0)).unwrap_err(), refused);
    drop((two, three));
    let both = (take(ms(0)).unwrap(), take(ms(0)).unwrap());
    assert_eq!(take(ms(0)).unwrap_err(), refused);
    drop(both);
}

#[test]
fn a_place_that_is_owed_comes_back_with_time_or_with_the_late_answer() {
    let limits = RateLimits::new(8);
    let by = [concurrent("a", 1)];
    let take = |at| spend(&limits, &by, at);
    for late_answer in [false, true] {
        let base = if late_answer { 100_000 } else { 0 };
        let place = take(ms(base)).unwrap().unwrap();
        place.owed(ms(base + 30_000));
        place.owed(ms(base + 31_000));
        assert_eq!(take(ms(base)).unwrap_err().1, Wait::ForEnd(Some(ms(30_000))), "{late_answer}");
        if late_answer {
            place.ended();
            let other = take(ms(base + 1)).unwrap();
            place.ended();
            drop(place);
            assert!(take(ms(base + 1)).is_err(), "given back once");
            drop(other);
            continue;
        }
        drop(place);
        assert_eq!(take(ms(29_999)).unwrap_err().1, Wait::ForEnd(Some(ms(1))));
        assert!(take(ms(30_000)).is_ok());
    }
    // A cancellation that was not sent after all.
    let place = take(ms(200_000)).unwrap().unwrap();
    place.owed(ms(200_001));
    place.still_in_flight();
    assert_eq!(take(ms(300_000)).unwrap_err().1, Wait::ForEnd(None));
    drop(place);
    assert!(take(ms(300_000)).is_ok());
}

#[test]
fn a_refused_call_holds_no_place() {
    let limits = RateLimits::new(8);
    let (free, full) = (concurrent("free", 1), concurrent("full", 1));
    let held = spend(&limits, std::slice::from_ref(&full), ms(0)).unwrap();
    spend(&limits, &[free.clone(), full.clone()], ms(0)).unwrap_err();
    spend(&limits, &[free.clone(), sliding("none", 0, 1000)], ms(0)).unwrap_err();
    let same = [free.clone(), free.clone()];
    spend(&limits, &same, ms(0)).unwrap_err();
    let rated = sliding("rated", 1, 1000);
    spend(&limits, &[rated.clone(), full.clone()], ms(0)).unwrap_err();
    assert!(spend(&limits, &[rated, free], ms(0)).is_ok(), "nothing was taken");
    drop(held);
    assert!(spend(&limits, &[full], ms(0)).is_ok());
}

#[test]
fn keys_in_flight_are_bounded_and_further_ones_share_a_count() {
    let limits = RateLimits::new(8);
    let held: Vec<_> = (0..5000)
        .filter_map(|i| spend(&limits, &[concurrent(&i.to_string(), 3)], ms(0)).ok().flatten())
        .collect();
    assert_eq!(held.len(), 4096 + 3);
    assert!(
        spend(&limits, &[concurrent("0", 3)], ms(0)).is_err(),
        "those that share may be its own"
    );
    drop(held);
    let held: Vec<_> = (0..300)
        .filter_map(|i| spend(&limits, &[concurrent(&i.to_string(), 3)], ms(0)).ok().flatten())
        .collect();
    assert_eq!(held.len(), 300);
}

/// A store that keeps each bucket as it was last, as a file of lines would.
#[derive(Default)]
struct Kept {
    buckets: Mutex<BTreeMap<(bool, String), KeptBucket>>,
    latest: Mutex<u64>,
    full: Mutex<bool>,
}

impl LimitStore for Kept {
    fn keep(&self, at_unix_ms: u64, buckets: &[KeptBucket]) -> Result<(), NotKept> {
        if *self.full.lock().unwrap() {
            return Err(NotKept { cause: "full".into() });
        }
        let mut latest = self.latest.lock().unwrap();
        *latest = at_unix_ms.max(*latest);
        let mut kept = self.buckets.lock().unwrap();
        for bucket in buckets {
            let text = serde_json::to_string(bucket).unwrap();
            let read: KeptBucket = serde_json::from_str(&text).unwrap();
            assert_eq!(read, *bucket);
            let name = (
                bucket.shared,
                format!("{}{:?}{:?}", bucket.key, bucket.period, (bucket.count, bucket.form)),
            );
            if kept.get(&name).is_none_or(|older| older.seq < bucket.seq) {
                kept.insert(name, read);
            }
        }
        Ok(())
    }
}

impl Kept {
    /// The limits of the next run, which begins at the wall time `wall_ms`.
    fn next_run(self: &Arc<Self>, buckets_max: usize, wall_ms: u64) -> RateLimits {
        let buckets: Vec<_> = self.buckets.lock().unwrap().values().cloned().collect();
        let zero = wall_ms.max(*self.latest.lock().unwrap());
        let store = Arc::<Self>::clone(self);
        RateLimits::new(buckets_max).keeping(store, &buckets, zero)
    }
}

#[test]
fn limits_of_long_periods_outlive_a_restart_and_short_ones_do_not() {
    for by in [
        bucket("a", 24, 24 * HOUR, 24),
        sliding("a", 24, 24 * HOUR),
        sliding("a", 8, 24 * HOUR),
        fixed("a", 24, 24 * HOUR),
        sliding("a", 24, HOUR),
    ] {
        let kept = Arc::new(Kept::default());
        let start = 1_700_000_000_000;
        let limits = kept.next_run(8, start);
        let all = passed(&limits, &by, ms(1000));
        drop(limits);
        // An hour less a second later, and with a clock that was set back.
        for wall in [start + HOUR - 2000, start - 1_000_000] {
            let limits = kept.next_run(8, wall);
            assert_eq!(passed(&limits, &by, ms(500)), 0, "{by:?}");
        }
        let limits = kept.next_run(8, start + 27 * HOUR);
        assert_eq!(passed(&limits, &by, ms(0)), all, "{by:?}");
    }
    let kept = Arc::new(Kept::default());
    // A burst that is back only after an hour or more is a budget, whatever the period.
    let budget = bucket("a", 1, 60_000, 60);
    assert_eq!(passed(&kept.next_run(8, 5), &budget, ms(0)), 60);
    assert_eq!(passed(&kept.next_run(8, 5), &budget, ms(0)), 0);
    let kept = Arc::new(Kept::default());
    let burst = bucket("a", 1, 60_000, 59);
    assert_eq!(passed(&kept.next_run(8, 5), &burst, ms(0)), 59);
    assert_eq!(passed(&kept.next_run(8, 5), &burst, ms(0)), 59);
    let short = sliding("a", 2, HOUR - 1);
    assert_eq!(passed(&kept.next_run(8, 5), &short, ms(0)), 2);
    assert_eq!(passed(&kept.next_run(8, 5), &short, ms(0)), 2);
    assert!(kept.buckets.lock().unwrap().is_empty());
}

#[test]
fn a_restart_gives_back_as_much_as_the_time_does() {
    let kept = Arc::new(Kept::default());
    let by = bucket("a", 24, 24 * HOUR, 24);
    assert_eq!(passed(&kept.next_run(8, 10 * HOUR), &by, ms(0)), 24);
    assert_eq!(passed(&kept.next_run(8, 12 * HOUR), &by, ms(0)), 2);
    let limits = kept.next_run(8, 12 * HOUR);
    assert_eq!(passed(&limits, &by, ms(HOUR)), 1, "uptime goes on from there");
    // The clock is set back: the time since then is unknown, so it gives nothing.
    assert_eq!(passed(&kept.next_run(8, 0), &by, ms(HOUR - 1000)), 0);
    // Times are kept in whole milliseconds, and a part of one counts to its end.
    let by = sliding("b", 1, HOUR);
    let limits = kept.next_run(8, 20 * HOUR);
    assert!(spend(&limits, std::slice::from_ref(&by), Duration::from_micros(500)).is_ok());
    assert_eq!(passed(&kept.next_run(8, 21 * HOUR), &by, ms(0)), 0);
    assert_eq!(passed(&kept.next_run(8, 21 * HOUR), &by, ms(1)), 1);
}

#[test]
fn a_call_whose_count_cannot_be_kept_does_not_pass() {
    let kept = Arc::new(Kept::default());
    let limits = kept.next_run(8, 0);
    *kept.full.lock().unwrap() = true;
    let by = [sliding("a", 3, HOUR), concurrent("a", 1)];
    let refused = limits.spend(by.iter(), ms(0)).unwrap_err();
    assert_eq!(refused, NotCounted::NotKept(NotKept { cause: "full".into() }));
    assert!(spend(&limits, &by[1..], ms(0)).is_ok(), "its place is free");
    assert!(spend(&limits, &[sliding("a", 3, 1000)], ms(0)).is_ok(), "nothing to be kept");
    *kept.full.lock().unwrap() = false;
    assert_eq!(passed(&limits, &by[0], ms(0)), 2, "what was taken stays taken");
}

#[test]
fn no_text_of_a_call_is_kept() {
    let kept = Arc::new(Kept::default());
    let limits = kept.next_run(0, 0);
    assert!(spend(&limits, &[sliding("hunter2", 3, HOUR)], ms(0)).is_ok());
    let text = format!("{:?} {:?}", kept.buckets.lock().unwrap(), limits.kept(ms(0)));
    assert!(!text.contains("hunter2") && !text.contains("writes"), "{text}");
}

#[test]
fn what_is_kept_names_each_used_bucket_once() {
    let kept = Arc::new(Kept::default());
    let limits = kept.next_run(3, 1000);
    for key in ["a", "b", "c", "d"] {
        assert!(spend(&limits, &[sliding(key, 9, HOUR), fixed("short", 99, 1000)], ms(5)).is_ok());
    }
    let (at, buckets) = limits.kept(ms(5));
    assert_eq!((at, buckets.len()), (1005, 3));
    assert_eq!(buckets.iter().filter(|bucket| bucket.shared).count(), 1);
    assert_eq!(limits.kept(ms(2 * HOUR)).1, [], "nothing counts any more");
}

/// One attempt: how far the clock moves (ms, possibly back), which keys pay, and how much.
fn attempts() -> impl Strategy<Value = Vec<(i64, Vec<usize>, u32)>> {
    let keys = proptest::collection::vec(0_usize..6, 1..4);
    let jump = prop_oneof![4 => Just(0_i64), 4 => 0..400_i64, 1 => -50_000..50_000_i64];
    let cost = prop_oneof![4 => Just(1_u32), 1 => 2..4_u32];
    proptest::collection::vec((jump, keys, cost), 1..400)
}

/// What passed by each of six keys: when (the furthest that the clock was, ms), and how much.
fn run(
    attempts: Vec<(i64, Vec<usize>, u32)>,
    bound: Bound,
    buckets_max: usize,
) -> Vec<Vec<(u64, u32)>> {
    let limits = RateLimits::new(buckets_max);
    let mut passed: Vec<Vec<(u64, u32)>> = vec![Vec::new(); 6];
    let (mut clock, mut furthest) = (100_000_u64, 0_u64);
    for (jump, picked, cost) in attempts {
        clock = clock.saturating_add_signed(jump);
        furthest = furthest.max(clock);
        let by = |i: &usize| Limit { cost, ..limit(&i.to_string(), bound) };
        let by: Vec<Limit> = picked.iter().map(by).collect();
        if spend(&limits, &by, ms(clock)).is_ok() {
            for i in picked {
                passed[i].push((furthest, cost));
            }
        }
    }
    passed
}

/// The most that passed in any stretch of `length` ms that includes its first instant, and its last
/// one if `closed`.
fn most_in(events: &[(u64, u32)], length: u64, closed: bool) -> u32 {
    let within =
        |first: u64, at: u64| if closed { at <= first + length } else { at < first + length };
    let from = |i: usize| {
        let inside = events[i..].iter().take_while(|(at, _)| within(events[i].0, *at));
        inside.map(|(_, cost)| cost).sum()
    };
    (0..events.len()).map(from).max().unwrap_or(0)
}

proptest! {
    /// A token bucket: in any stretch of time at most the burst and what the rate gives, for every
    /// clock schedule (also one that goes back), table size, mix of keys and costs.
    #[test]
    fn no_stretch_holds_more_than_rate_and_burst(
        attempts in attempts(),
        count in 1_u32..20,
        period in 1_u64..3000,
        burst in 1_u32..8,
        buckets_max in 0_usize..8,
    ) {
        for events in run(attempts, Bound::Bucket { rate: rate(count, period), burst }, buckets_max) {
            for (length, gives) in [(0, 0), (period, count), (3 * period, 3 * count)] {
                let most = most_in(&events, length, true);
                prop_assert!(most <= burst + gives, "{} in {} ms", most, length);
            }
        }
    }

    /// A rate alone: at most its count in any stretch of its period.
    #[test]
    fn no_stretch_of_the_period_holds_more_than_the_count_of_a_rate_alone(
        attempts in attempts(),
        count in prop_oneof![1_u32..40, Just(16_u32), Just(17)],
        period in 1_u64..3000,
        buckets_max in 0_usize..8,
    ) {
        for events in run(attempts, Bound::Sliding(rate(count, period)), buckets_max) {
            let most = most_in(&events, period, false);
            prop_assert!(most <= count, "{} in {} ms", most, period);
        }
    }

    /// A fixed window: at most its count in each window, where one begins with the first event after
    /// the last has ended; so at most twice the count in any stretch of its period.
    #[test]
    fn no_fixed_window_holds_more_than_the_count(
        attempts in attempts(),
        count in 1_u32..20,
        period in 1_u64..3000,
        buckets_max in 0_usize..8,
    ) {
        for events in run(attempts, Bound::Fixed(rate(count, period)), buckets_max) {
            prop_assert!(most_in(&events, period, false) <= 2 * count);
            if buckets_max < 6 {
                // A shared window may have begun with the event of another key.
                continue;
            }
            let (mut ends, mut taken) = (0, 0);
            for (at, cost) in events {
                if at >= ends {
                    (ends, taken) = (at + period, 0);
                }
                taken += cost;
                prop_assert!(taken <= count, "{} in the window that ends at {}", taken, ends);
            }
        }
    }

    /// What the bound permits passes: no form refuses a call for which it has room.
    #[test]
    fn nothing_is_refused_that_the_bound_permits(
        attempts in proptest::collection::vec((0_u64..500, 1_u32..4), 1..300),
        count in 1_u32..=16,
        period in 1_u64..3000,
        burst in 1_u32..8,
    ) {
        let limits = RateLimits::new(8);
        let (slide, fix) = (sliding("s", count, period), fixed("f", count, period));
        let fill = bucket("b", count, u64::from(count) * period, burst);
        let mut slid: Vec<(u64, u32)> = Vec::new();
        let (mut ends, mut taken) = (0, 0);
        // Tokens in parts of a millisecond's refill, `period` each.
        let (mut tokens, mut filled) = (u64::from(burst) * period, 0);
        let mut now = 0;
        for (pause, cost) in attempts {
            now += pause;
            let pays = |by: &Limit| {
                spend(&limits, &[Limit { cost, ..by.clone() }], ms(now)).is_ok()
            };
            let recent: u32 =
                slid.iter().filter(|(at, _)| now < at + period).map(|(_, cost)| cost).sum();
            let room = recent + cost <= count;
            prop_assert_eq!(pays(&slide), room);
            if room {
                slid.push((now, cost));
            }
            if now >= ends && cost <= count {
                (ends, taken) = (now + period, 0);
            }
            let room = taken + cost <= count;
            prop_assert_eq!(pays(&fix), room);
            taken += if room { cost } else { 0 };
            tokens = (tokens + now - filled).min(u64::from(burst) * period);
            filled = now;
            let room = tokens >= u64::from(cost) * period;
            prop_assert_eq!(pays(&fill), room);
            tokens -= if room { u64::from(cost) * period } else { 0 };
        }
    }

    /// A refusal names a wait after which the call does pass, and before which it does not.
    #[test]
    fn the_wait_is_exact(
        count in 1_u32..40,
        period in 1_u64..3000,
        burst in 1_u32..8,
        cost in 1_u32..5,
        pauses in proptest::collection::vec(0_u64..2000, 0..40),
    ) {
        for bound in [
            Bound::Bucket { rate: rate(count, period), burst },
            Bound::Sliding(rate(count, period)),
            Bound::Fixed(rate(count, period)),
        ] {
            let limits = RateLimits::new(1);
            let by = [limit("a", bound)];
            let mut now = ms(0);
            for pause in &pauses {
                now += ms(*pause);
                drop(spend(&limits, &by, now));
            }
            drain(&limits, &by, now);
            let by = [Limit { cost, ..limit("a", bound) }];
            let most = if let Bound::Bucket { burst, .. } = bound { burst } else { count };
            match spend(&limits, &by, now).unwrap_err().1 {
                Wait::For(wait) => {
                    prop_assert!(cost <= most);
                    let early = just_before(now + wait);
                    prop_assert!(spend(&limits, &by, early).is_err());
                    prop_assert!(spend(&limits, &by, now + wait).is_ok());
                }
                other @ (Wait::ForEnd(_) | Wait::Forever) => {
                    prop_assert_eq!(other, Wait::Forever);
                    prop_assert!(cost > most);
                }
            }
        }
    }

    /// At most as many calls in flight as the limit permits, in any order of beginnings and ends.
    #[test]
    fn no_more_calls_are_in_flight_than_the_limit_permits(
        steps in proptest::collection::vec((0_u8..5, 0_usize..8, 0_u64..20_000), 1..300),
        most in 1_usize..5,
    ) {
        let limits = RateLimits::new(8);
        let by = [concurrent("a", u32::try_from(most).unwrap())];
        let mut open: Vec<Places> = Vec::new();
        let mut owed: Vec<(u64, Places)> = Vec::new();
        let mut now = 0;
        for (step, pick, pause) in steps {
            now += pause;
            match step {
                0 | 1 => {
                    let owing = owed.iter().filter(|(until, _)| now < *until).count();
                    // Owed places come back up to a second late, together with later ones.
                    let surely = owed.iter().filter(|(until, _)| now < until + 1000).count();
                    match spend(&limits, &by, ms(now)) {
                        Ok(place) => {
                            prop_assert!(open.len() + owing < most);
                            open.extend(place);
                        }
                        Err(_) => prop_assert!(open.len() + surely >= most),
                    }
                }
                2 if !open.is_empty() => drop(open.swap_remove(pick % open.len())),
                3 if !open.is_empty() => {
                    let place = open.swap_remove(pick % open.len());
                    place.owed(ms(now + 30_000));
                    owed.push((now + 30_000, place));
                }
                4 if !owed.is_empty() => {
                    let (_, place) = owed.swap_remove(pick % owed.len());
                    place.ended();
                }
                _ => {}
            }
        }
    }

    /// The bounds hold over restarts, at whatever time, also with a clock that is set back.
    #[test]
    fn a_restart_refills_nothing(
        steps in proptest::collection::vec((0_u64..2 * HOUR, 1_u32..4, 0_u8..8), 1..120),
        count in 1_u32..30,
        burst in 1_u32..8,
        set_back in 0_u64..10 * HOUR,
    ) {
        let period = 4 * HOUR;
        for bound in [
            Bound::Bucket { rate: rate(count, period), burst },
            Bound::Sliding(rate(count, period)),
            Bound::Fixed(rate(count, period)),
        ] {
            let kept = Arc::new(Kept::default());
            // True time, and what the wall clock shows.
            let (mut time, mut began, mut behind) = (20 * HOUR, 20 * HOUR, 0);
            let mut limits = kept.next_run(8, time);
            let mut events = Vec::new();
            for (pause, cost, restart) in &steps {
                time += pause;
                if *restart < 2 {
                    behind += u64::from(*restart) * set_back;
                    limits = kept.next_run(8, time.saturating_sub(behind));
                    began = time;
                }
                let by = [Limit { cost: *cost, ..limit("a", bound) }];
                if spend(&limits, &by, ms(time - began)).is_ok() {
                    events.push((time, *cost));
                }
            }
            let most = most_in(&events, period, false);
            let bound = match bound {
                Bound::Bucket { .. } => burst + count,
                Bound::Fixed(_) => 2 * count,
                Bound::Sliding(_) | Bound::InFlight(_) => count,
            };
            prop_assert!(most <= bound, "{} of {}", most, bound);
        }
    }

    /// No input makes the arithmetic overflow.
    #[test]
    fn nothing_overflows(
        count: u32,
        burst: u32,
        cost: u32,
        periods in proptest::collection::vec(any::<u64>(), 1..4),
        times in proptest::collection::vec(any::<u64>(), 1..20),
    ) {
        let limits = RateLimits::new(2);
        let kept = Arc::new(Kept::default());
        let keeping = kept.next_run(2, u64::MAX);
        for at in times {
            for period in &periods {
                for period in [Duration::from_nanos(*period), Duration::from_secs(*period)] {
                    let rate = Rate { count, period };
                    for bound in
                        [Bound::Bucket { rate, burst }, Bound::Sliding(rate), Bound::Fixed(rate)]
                    {
                        let by = [Limit { cost, ..limit("k", bound) }];
                        drop(spend(&limits, &by, Duration::from_secs(at)));
                        drop(spend(&keeping, &by, Duration::from_secs(at)));
                        drop(kept.next_run(2, at));
                    }
                }
            }
        }
    }
}
