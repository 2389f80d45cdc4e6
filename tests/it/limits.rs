//! Rate limits through their public interface: exact numbers, then the upper bound for any clock.

#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use std::time::Duration;

use bartizan_gate::duty::decision::Rate;
use bartizan_gate::duty::limit::{BucketKey, RateLimits};
use proptest::prelude::*;

fn bucket(key: &str, count: u32, period_ms: u64, burst: u32) -> BucketKey {
    BucketKey {
        code: "writes".into(),
        key: key.into(),
        rate: Rate { count, period: Duration::from_millis(period_ms) },
        burst,
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Spends from `keys` until refused; how many went through, and the refusal.
fn drain(
    limits: &RateLimits,
    keys: &[BucketKey],
    at: Duration,
) -> (u32, BucketKey, Option<Duration>) {
    let mut passed = 0;
    loop {
        match limits.spend(keys, at) {
            Ok(()) => passed += 1,
            Err((key, spent)) => return (passed, key, spent.retry_after),
        }
        assert!(passed < 100_000, "never refused");
    }
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let limits = RateLimits::new(8);
    let keys = [bucket("a", 10, 1000, 5)];
    assert_eq!(drain(&limits, &keys, ms(0)), (5, keys[0].clone(), Some(ms(100))));
    assert_eq!(drain(&limits, &keys, ms(99)), (0, keys[0].clone(), Some(ms(1))));
    assert_eq!(drain(&limits, &keys, ms(100)).0, 1);
    assert_eq!(drain(&limits, &keys, ms(450)).0, 3);
    assert_eq!(drain(&limits, &keys, ms(60_000)).0, 5);
}

#[test]
fn zero_means_zero() {
    let limits = RateLimits::new(8);
    for keys in [[bucket("a", 0, 1000, 5)], [bucket("a", 5, 1000, 0)], [bucket("a", 5, 0, 5)]] {
        for at in [ms(0), ms(1_000_000), Duration::MAX] {
            assert_eq!(drain(&limits, &keys, at), (0, keys[0].clone(), None));
        }
    }
}

#[test]
fn buckets_are_told_apart_by_every_part_of_their_name() {
    let limits = RateLimits::new(8);
    let mut other_code = bucket("a", 10, 1000, 2);
    other_code.code = "reads".into();
    for key in [
        bucket("a", 10, 1000, 2),
        bucket("b", 10, 1000, 2),
        bucket("a", 11, 1000, 2),
        bucket("a", 10, 1001, 2),
        other_code,
    ] {
        assert_eq!(drain(&limits, &[key], ms(0)).0, 2);
    }
    assert_eq!(drain(&limits, &[bucket("a", 10, 1000, 3)], ms(0)).0, 3);
}

#[test]
fn a_call_spends_from_all_its_buckets_or_from_none() {
    let limits = RateLimits::new(8);
    let (wide, narrow) = (bucket("wide", 1, 1000, 10), bucket("narrow", 1, 1000, 3));
    let both = [wide.clone(), narrow.clone()];
    assert_eq!(drain(&limits, &both, ms(0)), (3, narrow, Some(ms(1000))));
    for _ in 0..50 {
        limits.spend(&both, ms(0)).unwrap_err();
    }
    assert_eq!(drain(&limits, std::slice::from_ref(&wide), ms(0)).0, 7);
    let twice = [bucket("twice", 1, 1000, 5), bucket("twice", 1, 1000, 5)];
    assert_eq!(drain(&limits, &twice, ms(0)).0, 2);
    assert_eq!(drain(&limits, &twice[..1], ms(0)).0, 1);
    assert!(limits.spend(&[], ms(0)).is_ok());
}

#[test]
fn a_clock_that_jumps_back_gives_nothing() {
    let limits = RateLimits::new(1);
    let (a, b) = ([bucket("a", 1, 1000, 2)], [bucket("b", 1, 1000, 2)]);
    assert_eq!(drain(&limits, &a, ms(100_000)).0, 2);
    assert_eq!(drain(&limits, &a, ms(0)).0, 0);
    assert_eq!(drain(&limits, &a, ms(100_999)).0, 0);
    assert_eq!(drain(&limits, &a, ms(101_000)).0, 1);
    // `a` is full at 103 s and leaves for `b`; a clock set back must not bring it back full.
    assert_eq!(drain(&limits, &b, ms(103_000)).0, 2);
    assert_eq!(drain(&limits, &a, ms(0)).0, 2, "the overflow bucket, once");
    assert_eq!(drain(&limits, &a, ms(0)).0, 0);
}

#[test]
fn keys_without_room_share_one_bucket() {
    let limits = RateLimits::new(4);
    let mut passed = 0;
    for i in 0..10_000 {
        passed += drain(&limits, &[bucket(&i.to_string(), 1, 3_600_000, 3)], ms(i / 10)).0;
    }
    assert_eq!(passed, 4 * 3 + 3);
    // Another rule has an overflow bucket of its own.
    assert_eq!(drain(&limits, &[bucket("x", 2, 3_600_000, 7)], ms(1000)).0, 7);
    // A bucket that is full again is removed, and its place in the table is free.
    let later = ms(4 * 3_600_000);
    assert_eq!(drain(&limits, &[bucket("new", 1, 3_600_000, 3)], later).0, 3);
}

#[test]
fn leaving_the_overflow_bucket_gives_no_extra_events() {
    let limits = RateLimits::new(1);
    let (short, long) = (bucket("short", 1, 1000, 1), bucket("long", 1, 60_000, 4));
    assert_eq!(drain(&limits, std::slice::from_ref(&short), ms(0)).0, 1);
    assert_eq!(drain(&limits, std::slice::from_ref(&long), ms(0)).0, 4, "in the overflow bucket");
    // `short` is full at 1 s and leaves; `long` gets a bucket of its own, as empty as the other.
    assert_eq!(drain(&limits, std::slice::from_ref(&long), ms(1000)).0, 0);
    assert_eq!(drain(&limits, &[long], ms(60_000)).0, 1);
}

#[test]
fn overflow_buckets_are_bounded_too() {
    let limits = RateLimits::new(0);
    let passed = (0..1000)
        .filter(|i| limits.spend(&[bucket("a", 1, 3_600_000 + i, 1)], ms(0)).is_ok())
        .count();
    assert_eq!(passed, 256);
}

/// One attempt: how far the clock moves (ms, possibly back), and which keys pay.
fn attempts() -> impl Strategy<Value = Vec<(i64, Vec<usize>)>> {
    let keys = proptest::collection::vec(0_usize..6, 1..4);
    let jump = prop_oneof![4 => Just(0_i64), 4 => 0..400_i64, 1 => -50_000..50_000_i64];
    proptest::collection::vec((jump, keys), 1..400)
}

proptest! {
    /// At most rate + burst events of one key in any window of the period, for every clock
    /// schedule (also one that goes back), table size, and mix of keys.
    #[test]
    fn no_window_holds_more_than_rate_and_burst(
        attempts in attempts(),
        count in 1_u32..20,
        period in 1_u64..3000,
        burst in 1_u32..8,
        buckets_max in 0_usize..8,
    ) {
        let limits = RateLimits::new(buckets_max);
        let names: Vec<BucketKey> =
            (0..6).map(|i| bucket(&i.to_string(), count, period, burst)).collect();
        let mut passed: Vec<Vec<u64>> = vec![Vec::new(); names.len()];
        let (mut clock, mut furthest) = (100_000_u64, 0_u64);
        for (jump, picked) in attempts {
            clock = clock.saturating_add_signed(jump);
            furthest = furthest.max(clock);
            let keys: Vec<BucketKey> = picked.iter().map(|i| names[*i].clone()).collect();
            if limits.spend(&keys, ms(clock)).is_ok() {
                for i in picked {
                    passed[i].push(furthest);
                }
            }
        }
        let most = usize::try_from(count + burst).unwrap();
        for events in passed {
            for (i, first) in events.iter().enumerate() {
                let inside = events[i..].iter().take_while(|at| **at <= first + period).count();
                prop_assert!(inside <= most, "{} events in {} ms", inside, period);
            }
        }
    }

    /// A refusal names a wait after which the bucket does pay, and before which it does not.
    #[test]
    fn the_wait_is_exact(count in 1_u32..20, period in 1_u64..3000, burst in 1_u32..8) {
        let limits = RateLimits::new(1);
        let keys = [bucket("a", count, period, burst)];
        let (_, _, wait) = drain(&limits, &keys, ms(0));
        let wait = wait.unwrap();
        prop_assert!(limits.spend(&keys, wait.saturating_sub(Duration::from_nanos(1))).is_err());
        prop_assert!(limits.spend(&keys, wait).is_ok());
    }

    /// No input makes the arithmetic overflow.
    #[test]
    fn nothing_overflows(
        count: u32,
        burst: u32,
        periods in proptest::collection::vec(any::<u64>(), 1..4),
        times in proptest::collection::vec(any::<u64>(), 1..20),
    ) {
        let limits = RateLimits::new(2);
        for at in times {
            for period in &periods {
                for duration in [Duration::from_nanos(*period), Duration::from_secs(*period)] {
                    let key = BucketKey {
                        code: "c".into(),
                        key: "k".into(),
                        rate: Rate { count, period: duration },
                        burst,
                    };
                    if let Err((key, _)) = limits.spend(&[key], Duration::from_secs(at)) {
                        prop_assert_eq!(key.burst, burst);
                    }
                }
            }
        }
    }
}
