//! Buckets by name, in tables of bounded size, and ordered by the time at which each is free again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::Wait;
use super::level::{Before, Form, Level};
use crate::duty::decision::{Bound, Limit};
use crate::wire::hex::hex;

/// Overflow buckets at once, one for each combination of code and bound. A policy names few; an
/// event that would need one more while none of these is free is refused.
const OVERFLOW_BUCKETS_MAX: usize = 256;

/// Longest name of a bucket that is kept as it is, bytes. Of a longer one the digest is kept.
const NAME_BYTES_MAX: usize = 48;

/// How a name begins: of a bucket for one key, of one that keys share, and of a digest of either.
const OWN: u8 = 0;
const SHARED: u8 = 1;
const DIGEST: u8 = 2;

/// The name of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BucketKey {
    /// The rule's code and key, or their digest.
    name: Box<[u8]>,
    /// A rule with a changed bound uses another bucket.
    pub(super) bound: Bound,
}

impl BucketKey {
    /// The name of the bucket for `limit` and its key.
    pub(super) fn of(limit: &Limit) -> Self {
        Self::named(limit, OWN, &limit.key)
    }

    /// The name of the overflow bucket for `limit`.
    pub(super) fn shared(limit: &Limit) -> Self {
        Self::named(limit, SHARED, "")
    }

    /// A rule may count by a text that a client chooses, and the names are kept, so a long one
    /// becomes its digest. A bucket that outlives the program is named by a digest, so that no text
    /// of a call reaches the disk.
    fn named(limit: &Limit, begin: u8, key: &str) -> Self {
        let code = limit.code.as_bytes();
        // A length before the code, so that no two pairs make the same name.
        let length = code.len().to_be_bytes();
        let parts = [&[begin][..], &length, code, key.as_bytes()];
        let bytes = parts.iter().map(|part| part.len()).fold(0, usize::saturating_add);
        let name: Vec<u8> = if bytes <= NAME_BYTES_MAX && !limit.bound.is_kept() {
            parts.concat()
        } else {
            let mut digest = Sha256::new();
            for part in parts {
                digest.update(part);
            }
            digested(&digest.finalize())
        };
        Self { name: name.into(), bound: limit.bound }
    }

    /// A digest of the rule's code and key, in hexadecimal digits; with `shared`, of the bucket that
    /// keys without room share.
    pub(super) fn digest_of(limit: &Limit, shared: bool) -> String {
        let (begin, key) = if shared { (SHARED, "") } else { (OWN, &*limit.key) };
        let code = limit.code.as_bytes();
        let mut digest = Sha256::new();
        for part in [&[begin][..], &code.len().to_be_bytes(), code, key.as_bytes()] {
            digest.update(part);
        }
        hex(&digest.finalize())
    }

    /// The digest of the name in hexadecimal digits, where it is one.
    pub(super) fn digest(&self) -> Option<String> {
        let (begin, digest) = self.name.split_first()?;
        (*begin == DIGEST).then(|| hex(digest))
    }

    /// The bucket with this digest of a name, in hexadecimal digits.
    pub(super) fn with_digest(digits: &str, bound: Bound) -> Self {
        let pair = |at: &[u8]| u8::from_str_radix(std::str::from_utf8(at).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.as_bytes().chunks(2).filter_map(pair).collect();
        Self { name: digested(&bytes).into(), bound }
    }
}

fn digested(digest: &[u8]) -> Vec<u8> {
    [&[DIGEST], digest].concat()
}

/// Buckets of keys of their own, and buckets that keys without room share. Under one lock, so that
/// one call takes from several buckets atomically.
pub(super) struct BucketTables {
    pub(super) own: BucketTable,
    pub(super) overflow: BucketTable,
}

/// What was taken from one bucket, to give it back if a later bucket refuses.
pub(super) struct Taken {
    pub(super) key: Arc<BucketKey>,
    pub(super) overflow: bool,
    before: Before,
}

impl BucketTables {
    pub(super) fn new(buckets_max: usize) -> Self {
        Self {
            own: BucketTable::new(buckets_max),
            overflow: BucketTable::new(OVERFLOW_BUCKETS_MAX),
        }
    }

    /// Takes what one event of `limit` costs, at `now`.
    pub(super) fn take(&mut self, limit: &Limit, now: u64) -> Result<Taken, Wait> {
        let form = Form::of(limit.bound).ok_or(Wait::Forever)?;
        let key = BucketKey::of(limit);
        let event = (form, limit.cost.max(1), now);
        if let Some(taken) = self.own.take(&key, event) {
            return taken.map(|(key, before)| Taken { key, overflow: false, before });
        }
        let shared = BucketKey::shared(limit);
        let own = self.own.make_room(now);
        if own {
            // While the overflow bucket is not free, this key may be among those that used it, so
            // its own bucket begins as the overflow bucket is.
            let level = self.overflow.level(&shared).cloned();
            self.own.insert(key.clone(), level.unwrap_or_else(|| Level::new(form)));
        } else if self.overflow.level(&shared).is_none() {
            if !self.overflow.make_room(now) {
                return Err(self.overflow.next_free(now));
            }
            self.overflow.insert(shared.clone(), Level::new(form));
        }
        let (table, key) = if own { (&mut self.own, &key) } else { (&mut self.overflow, &shared) };
        let taken = table.take(key, event).unwrap_or(Err(Wait::Forever));
        taken.map(|(key, before)| Taken { key, overflow: !own, before })
    }

    /// Whether the key of `limit` has no bucket of its own, and there is no room for one.
    pub(super) fn is_crowded(&mut self, limit: &Limit, now: u64) -> bool {
        self.own.level(&BucketKey::of(limit)).is_none() && !self.own.make_room(now)
    }

    pub(super) fn give_back(&mut self, taken: &Taken) {
        self.of(taken.overflow).undo(&taken.key, &taken.before);
    }

    pub(super) fn of(&mut self, overflow: bool) -> &mut BucketTable {
        if overflow { &mut self.overflow } else { &mut self.own }
    }
}

/// Buckets by name, and ordered by the time at which each will be free again.
pub(super) struct BucketTable {
    buckets_max: usize,
    by_key: HashMap<Arc<BucketKey>, Bucket>,
    /// Key: when the bucket is free (uptime, ns), then the order of creation.
    by_free: BTreeMap<(u64, u64), Arc<BucketKey>>,
    made: u64,
}

struct Bucket {
    level: Level,
    made: u64,
}

impl Bucket {
    fn order(&self) -> (u64, u64) {
        (self.level.free_at(), self.made)
    }
}

impl BucketTable {
    fn new(buckets_max: usize) -> Self {
        Self { buckets_max, by_key: HashMap::new(), by_free: BTreeMap::new(), made: 0 }
    }

    pub(super) fn level(&self, key: &BucketKey) -> Option<&Level> {
        self.by_key.get(key).map(|bucket| &bucket.level)
    }

    /// Each bucket, with its level.
    pub(super) fn all(&self) -> impl Iterator<Item = (&BucketKey, &Level)> {
        self.by_key.iter().map(|(key, bucket)| (&**key, &bucket.level))
    }

    /// Evicts a free bucket if the table is full. Returns whether one more bucket fits.
    fn make_room(&mut self, now: u64) -> bool {
        if self.by_key.len() < self.buckets_max {
            return true;
        }
        match self.by_free.first_key_value() {
            Some(((free, _), _)) if *free <= now => {}
            _ => return false,
        }
        if let Some((_, key)) = self.by_free.pop_first() {
            self.by_key.remove(&key);
        }
        self.by_key.len() < self.buckets_max
    }

    pub(super) fn insert(&mut self, key: BucketKey, level: Level) {
        self.made = self.made.wrapping_add(1);
        let bucket = Bucket { level, made: self.made };
        let key = Arc::new(key);
        self.by_free.insert(bucket.order(), Arc::clone(&key));
        if let Some(replaced) = self.by_key.insert(key, bucket) {
            self.by_free.remove(&replaced.order());
        }
    }

    /// Takes from the bucket `key`; `None` if there is none.
    fn take(
        &mut self,
        key: &BucketKey,
        (form, cost, now): (Form, u32, u64),
    ) -> Option<Result<(Arc<BucketKey>, Before), Wait>> {
        let bucket = self.by_key.get_mut(key)?;
        let from = bucket.order();
        // A refusal changes no order.
        let before = match bucket.level.take(form, cost, now) {
            Ok(before) => before,
            Err(wait) => return Some(Err(wait)),
        };
        let to = bucket.order();
        let key = self.reorder(from, to);
        Some(key.map(|key| (key, before)).ok_or(Wait::Forever))
    }

    fn undo(&mut self, key: &BucketKey, before: &Before) {
        let Some(bucket) = self.by_key.get_mut(key) else { return };
        let from = bucket.order();
        bucket.level.undo(before);
        let to = bucket.order();
        self.reorder(from, to);
    }

    /// Moves the bucket at `from` in the order. Each bucket has a place there.
    fn reorder(&mut self, from: (u64, u64), to: (u64, u64)) -> Option<Arc<BucketKey>> {
        let key = self.by_free.remove(&from)?;
        self.by_free.insert(to, Arc::clone(&key));
        Some(key)
    }

    /// When the next bucket is free and may be evicted.
    fn next_free(&self, now: u64) -> Wait {
        self.by_free.first_key_value().map_or(Wait::Forever, |((free, _), _)| {
            Wait::For(Duration::from_nanos(free.saturating_sub(now)))
        })
    }
}
