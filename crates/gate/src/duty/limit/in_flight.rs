//! Limits of calls in flight at once: a call holds one place for each from its permit to its end.
//!
//! A call gives its places back when the last copy of [`Places`] is dropped, so whatever drops the
//! call in flight gives them back, a panic included. The server may still be at work on a call for
//! whose answer nobody waits (cancelled, timed out): its places are [owed](Places::owed), and come
//! back with the late answer or after a while. Otherwise cancelling would lift the limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;

use super::level::TIME_NS_MAX;
use super::table::BucketKey;
use super::{BUCKET_BYTES, Exceeded, Wait};
use crate::duty::decision::{Bound, Limit};

/// Keys with calls in flight at once; the calls of further ones share one count for each rule.
pub(super) const KEYS_MAX: usize = 4096;
/// Shared counts at once. A policy names few; a call that would need one more is refused.
const SHARED_MAX: usize = 256;
/// Places that are owed come back at the end of such a part of the time, ns: up to so much later.
const GRAIN_NS: u64 = 1_000_000_000;

/// The calls in flight of all keys.
#[derive(Debug, Default)]
pub(super) struct PlaceTable {
    own: HashMap<Arc<BucketKey>, Calls>,
    shared: HashMap<Arc<BucketKey>, Calls>,
    /// Not before this uptime (ns) are all keys looked through for places that are owed no longer.
    prune_at: u64,
}

/// The calls of one key.
#[derive(Debug, Default)]
struct Calls {
    open: u32,
    /// Until when places count that are owed, and how many.
    owed: Vec<(u64, u32)>,
}

impl Calls {
    /// The places that are taken at `now`.
    fn count(&mut self, now: u64) -> u32 {
        self.owed.retain(|(until, _)| now < *until);
        self.owed.iter().fold(self.open, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn is_empty(&self) -> bool {
        self.open == 0 && self.owed.is_empty()
    }

    /// One place is owed until `until`.
    fn owe(&mut self, until: u64) {
        self.open = self.open.saturating_sub(1);
        let end = end_of_grain(until);
        match self.owed.iter_mut().find(|(other, _)| *other == end) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.owed.push((end, 1)),
        }
    }

    /// Gives one place back that is owed until `until`, unless its time is over.
    fn settle(&mut self, until: u64) {
        let end = end_of_grain(until);
        if let Some((_, count)) = self.owed.iter_mut().find(|(other, _)| *other == end) {
            *count = count.saturating_sub(1);
            self.owed.retain(|(_, count)| *count > 0);
        }
    }
}

/// The end of the grain of time in which `until` is: all places that are owed until then come back
/// at its end, so that few times have to be kept.
fn end_of_grain(until: u64) -> u64 {
    until.div_ceil(GRAIN_NS).saturating_mul(GRAIN_NS)
}

impl PlaceTable {
    /// Takes a place of `limit`, of which there are `most`.
    fn take(&mut self, limit: &Limit, most: u32, now: u64) -> Result<Place, Wait> {
        if most == 0 {
            return Err(Wait::Forever);
        }
        let (own, shared) = (BucketKey::of(limit), BucketKey::shared(limit));
        let (mut taken, mut earliest) = (0_u32, None);
        for calls in [self.own.get_mut(&own), self.shared.get_mut(&shared)].into_iter().flatten() {
            // Those that share a count may be of this key.
            taken = taken.saturating_add(calls.count(now));
            let until = calls.owed.iter().map(|(until, _)| *until).min();
            earliest = [earliest, until].into_iter().flatten().min();
        }
        if taken >= most {
            let until = earliest.map(|until| Duration::from_nanos(until.saturating_sub(now)));
            return Err(Wait::ForEnd(until));
        }
        let without_room = !self.own.contains_key(&own) && !self.has_room(now);
        if without_room && self.shared.len() >= SHARED_MAX && !self.shared.contains_key(&shared) {
            return Err(Wait::ForEnd(None));
        }
        let key = if without_room { shared } else { own };
        let table = self.of(without_room);
        let key = match table.get_key_value(&key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key),
        };
        let calls = table.entry(Arc::clone(&key)).or_default();
        calls.open = calls.open.saturating_add(1);
        Ok(Place { key, shares: without_room })
    }

    fn of(&mut self, shared: bool) -> &mut HashMap<Arc<BucketKey>, Calls> {
        if shared { &mut self.shared } else { &mut self.own }
    }

    /// Whether there is room for the calls of one more key.
    fn has_room(&mut self, now: u64) -> bool {
        if self.own.len() >= KEYS_MAX && now >= self.prune_at {
            for table in [&mut self.own, &mut self.shared] {
                table.retain(|_, calls| calls.count(now) > 0);
            }
            self.prune_at = now.saturating_add(GRAIN_NS);
        }
        self.own.len() < KEYS_MAX
    }

    /// Changes the calls of `place`, and removes them if none is left.
    fn change(&mut self, place: &Place, change: impl FnOnce(&mut Calls)) {
        let table = self.of(place.shares);
        let calls = table.entry(Arc::clone(&place.key)).or_default();
        change(calls);
        if calls.is_empty() {
            table.remove(&place.key);
        }
    }
}

/// One place: in the count of a key, or in one that keys without room share.
#[derive(Debug)]
struct Place {
    key: Arc<BucketKey>,
    shares: bool,
}

/// The places that one call has in limits of calls in flight. Copies are of the same places.
#[derive(Debug, Clone)]
pub struct Places(Arc<Held>);

#[derive(Debug)]
struct Held {
    table: Arc<Mutex<PlaceTable>>,
    places: Vec<Place>,
    /// [`OPEN`], [`ENDED`], or until when (uptime, ns) the places are owed. Written under the lock
    /// of the table.
    until: AtomicU64,
}

/// The places are held.
const OPEN: u64 = 0;
/// The places are given back.
const ENDED: u64 = u64::MAX;

impl Held {
    /// Sets the state to `to` if `may` is true for the one before, and tells each count of both.
    fn turn(&self, to: u64, may: fn(u64) -> bool, change: impl Fn(&mut Calls, u64)) {
        self.turn_in(&mut lock(&self.table), to, may, change);
    }

    /// [`Held::turn`] under a lock that the caller has.
    fn turn_in(
        &self,
        table: &mut PlaceTable,
        to: u64,
        may: fn(u64) -> bool,
        change: impl Fn(&mut Calls, u64),
    ) {
        let from = self.until.load(Ordering::Relaxed);
        if !may(from) {
            return;
        }
        self.until.store(to, Ordering::Relaxed);
        for place in &self.places {
            table.change(place, |calls| change(calls, from));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What is owed comes back by itself.
        self.turn(ENDED, is_open, |calls, _| close(calls));
    }
}

fn is_open(state: u64) -> bool {
    state == OPEN
}

/// Gives one open place back.
fn close(calls: &mut Calls) {
    calls.open = calls.open.saturating_sub(1);
}

impl Places {
    /// Takes a place of each of `limits` that bounds calls in flight, or of none of them. `None` if
    /// none does. What the call has `reserved` is given back first, and nobody can take it in between.
    ///
    /// # Errors
    ///
    /// The first limit that is reached.
    pub(super) fn take<'a>(
        table: &Arc<Mutex<PlaceTable>>,
        limits: impl Iterator<Item = &'a Limit>,
        reserved: Option<&Self>,
        now: u64,
    ) -> Result<Option<Self>, Exceeded> {
        let mut counts = lock(table);
        if let Some(Self(reserved)) = reserved {
            reserved.turn_in(&mut counts, ENDED, is_open, |calls, _| close(calls));
        }
        let mut places: Vec<Place> = Vec::new();
        let mut refused: Option<Exceeded> = None;
        for limit in limits {
            let Bound::InFlight(most) = limit.bound else { continue };
            match counts.take(limit, most, now) {
                Ok(place) => places.push(place),
                Err(wait) => Exceeded::by(limit, wait).or_longer(&mut refused),
            }
        }
        if let Some(refused) = refused {
            for place in &places {
                counts.change(place, close);
            }
            return Err(refused);
        }
        if places.is_empty() {
            return Ok(None);
        }
        let table = Arc::clone(table);
        Ok(Some(Self(Arc::new(Held { table, places, until: AtomicU64::new(OPEN) }))))
    }

    /// Nobody waits for the answer any more, but the server may be at work on the call until the
    /// uptime `until`: the places count until then. The first such time holds.
    pub fn owed(&self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX).clamp(1, TIME_NS_MAX);
        self.0.turn(until, is_open, |calls, _| calls.owe(until));
    }

    /// The server is no longer at work on the call.
    pub fn ended(&self) {
        self.0.turn(
            ENDED,
            |from| from != ENDED,
            |calls, from| match from {
                OPEN => close(calls),
                until => calls.settle(until),
            },
        );
    }

    /// The call is in flight after all: the cancellation that ended it was not sent.
    pub fn still_in_flight(&self) {
        let is_owed = |from| from != OPEN && from != ENDED;
        self.0.turn(OPEN, is_owed, |calls, until| {
            calls.settle(until);
            calls.open = calls.open.saturating_add(1);
        });
    }

    /// What they cost, bytes.
    pub fn bytes(&self) -> usize {
        let each = BUCKET_BYTES.saturating_add(size_of::<Place>());
        self.0.places.len().saturating_mul(each).saturating_add(size_of::<Held>())
    }
}
