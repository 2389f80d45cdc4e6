//! Held calls in the shared store.
//!
//! Each record has a key of its own, with a time to live as a safety net: it is longer than any hold
//! and its history. Beside them are `meta` (the number of the last batch, the clock), `log` (which
//! batch wrote each record) and `gone` (which batch removed a record).
//!
//! A record begins with a MAC over its name and content, under a key that the firewalls share: who
//! can write to the store and does not have the key can grant nothing. He can still put back an older
//! record of the same name, or remove one. A firewall that has seen what followed notices that
//! ([`bartizan_approvals::ledger::Ledger::take`]); one that has not cannot know.
//!
//! The store can lose what it has taken: a copy that took over was behind, or it was restored from a
//! backup. Then a spent hold would be granted once more. So each firewall remembers the last batch
//! that it has seen; if the store is behind that, it has lost some ([`Delta::rolled_back`]). Batches
//! count in an epoch. A store that was emptied has none, and has lost all of them. One that has lost
//! something, or in which an older record was put back, gets a new epoch, so that every firewall reads
//! it anew. The number of the new one is higher, so that an older copy is known by its epoch, too. A
//! firewall that has seen nothing begins with number 1: that is why an emptied store gets its new epoch
//! from one that has seen the old one, as soon as it reads, and not with the next call.

use std::sync::{Arc, Mutex};

use bartizan_approvals::record::{Record, RecordKey};
use bartizan_approvals::store::{
    Batch, CommitError, Delta, Mark, Store, StoreError, Version, Write, decode, encode,
};
use bartizan_gate::wire::hex::hex;
use bartizan_sync::lock;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::link::{Link, LinkError, Script};

/// The form of what is in the store; another one is not read.
const FORM: &str = "1";
/// How long a record lives that nobody touches, milliseconds: 100 days. A hold lasts at most 30 days
/// and is kept as long as history.
const LIFE_MS: &str = "8640000000";
/// Names of removed records that are kept; a firewall that has missed more reads everything.
const GONE_MAX: &str = "1000";
/// The highest number of a batch: beyond it, numbers of Lua and of sorted sets are not exact.
const VERSION_MAX: Version = (1 << 53) - 1;
/// Bytes of a MAC, in hexadecimal digits.
const MAC_CHARS: usize = 64;
/// Random bits that name an epoch, bytes.
const EPOCH_BYTES: usize = 16;

/// Keys of the MACs of records. The first one makes them; each of them is accepted.
#[derive(Clone)]
pub struct RecordKeys(Vec<[u8; 32]>);

impl RecordKeys {
    /// These keys; there must be one at least, or no record is read.
    pub fn new(keys: Vec<[u8; 32]>) -> Self {
        Self(keys)
    }

    fn mac(key: &[u8; 32], name: &str, content: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        mac.update(&name.len().to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(content);
        Some(mac)
    }

    /// `content` after its MAC.
    fn seal(&self, name: &str, content: &[u8]) -> Option<Vec<u8>> {
        let mac = Self::mac(self.0.first()?, name, content)?.finalize().into_bytes();
        Some([hex(&mac).as_bytes(), content].concat())
    }

    /// The content of `sealed`, if a holder of one of the keys wrote it under this name.
    fn open<'a>(&self, name: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, content) = sealed.split_at_checked(MAC_CHARS)?;
        let mac = std::str::from_utf8(mac).ok()?;
        let pairs = mac.as_bytes().chunks(2);
        let bytes: Vec<u8> = pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        let genuine =
            |key| Self::mac(key, name, content).is_some_and(|mac| mac.verify_slice(&bytes).is_ok());
        self.0.iter().any(genuine).then_some(content)
    }
}

/// The held calls of all firewalls that share a store.
pub struct SharedHolds {
    link: Arc<Link>,
    keys: RecordKeys,
    read: Script,
    write: Script,
    seen: Mutex<Seen>,
}

/// What this firewall has seen of the store.
#[derive(Debug, Default)]
struct Seen {
    /// The name of the epoch; empty for none.
    epoch: String,
    /// The highest number of an epoch.
    number: u64,
    /// The last batch in it.
    last: Version,
    /// The epoch that a store is in that has lost batches. The next commit ends it.
    rolled_back: Option<String>,
}

impl Seen {
    /// Whether a store in `epoch`, with `last` as its last batch, has lost some that were seen.
    fn is_ahead_of(&self, epoch: &str, last: Version) -> bool {
        if self.epoch == epoch { last < self.last } else { number_of(epoch) <= self.number }
    }

    /// Takes note of the last batch in the epoch that the store is in.
    fn follow(&mut self, epoch: String, last: Version) {
        let number = self.number.max(number_of(&epoch));
        *self = Self { epoch, number, last, rolled_back: None };
    }

    /// A name for the epoch after all that were seen: its number and random bits.
    fn next_epoch(&self) -> Option<String> {
        let mut bits = [0; EPOCH_BYTES];
        getrandom::fill(&mut bits).ok()?;
        Some(format!("{}.{}", self.number.saturating_add(1), hex(&bits)))
    }
}

/// The number of an epoch; 0 if it has none.
fn number_of(epoch: &str) -> u64 {
    epoch.split('.').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl std::fmt::Debug for SharedHolds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedHolds").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What the script `read.lua` gives, as it says.
type Given = (String, String, Version, u64, bool, Vec<String>, Vec<(String, Version, Vec<u8>)>);

/// The same, with the records.
struct Read {
    epoch: String,
    last: Version,
    mark_ms: u64,
    whole: bool,
    gone: Vec<RecordKey>,
    records: Vec<(Record, Version)>,
}

impl SharedHolds {
    /// The held calls in the store at `link`; `keys` are the same in each firewall.
    pub fn new(link: Arc<Link>, keys: RecordKeys) -> Self {
        Self {
            link,
            keys,
            read: Script::new(include_str!("scripts/read.lua")),
            write: Script::new(include_str!("scripts/write.lua")),
            seen: Mutex::default(),
        }
    }

    /// The keys that both scripts name.
    fn names(&self) -> [String; 3] {
        ["meta", "log", "gone"].map(|name| self.link.key(name))
    }

    /// How the names of the keys of records begin.
    fn prefix(&self) -> String {
        self.link.key("")
    }

    fn read(&self, seen: &Seen, cursor: Version) -> Result<Read, StoreError> {
        let prefix = self.prefix();
        let (from, last) = (cursor.to_string(), seen.last.to_string());
        let args = [&*prefix, &*seen.epoch, &*from, &*last].map(str::as_bytes);
        let (form, epoch, last, mark_ms, whole, gone, sealed): Given =
            self.link.run(&self.read, &self.names(), &args).map_err(fault)?;
        if !form.is_empty() && form != FORM {
            return Err(StoreError::new("another version of this program wrote it"));
        }
        if last > VERSION_MAX || sealed.iter().any(|(_, version, _)| *version > VERSION_MAX) {
            return Err(no_number());
        }
        let gone = gone.iter().map(|name| RecordKey::named(name)).collect();
        let mut records = Vec::new();
        for (name, version, content) in sealed {
            let content = self.keys.open(&name, &content).ok_or_else(|| {
                StoreError::new("a record was not written under a key of `replicas.keys`")
            })?;
            records.push((decode(&name, content)?, version));
        }
        Ok(Read { epoch, last, mark_ms, whole, gone, records })
    }

    fn write(&self, seen: &Seen, batch: &Batch) -> Result<(Version, String), CommitError> {
        let epoch = seen.next_epoch();
        let epoch = epoch.ok_or_else(|| CommitError::Fault(StoreError::new("no random bits")))?;
        let (set, mark) = match batch.mark {
            Mark::Raise(mark) => ("0", mark.to_string()),
            Mark::Set(mark) => ("1", mark.to_string()),
        };
        let (prefix, last) = (self.prefix(), seen.last.to_string());
        let anew = if batch.anew || seen.rolled_back.is_some() { "1" } else { "0" };
        let known = seen.rolled_back.as_ref().unwrap_or(&seen.epoch);
        let head =
            [&*prefix, FORM, &**known, &*epoch, &*last, anew, &*mark, set, LIFE_MS, GONE_MAX];
        let mut args: Vec<Vec<u8>> = head.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        for write in &batch.writes {
            let (what, key, expect, content) = match write {
                Write::Put { record, expect } => {
                    let content = encode(record).map_err(CommitError::Fault)?;
                    let key = record.key();
                    let sealed = self.keys.seal(key.as_str(), &content);
                    let sealed = sealed
                        .ok_or_else(|| CommitError::Fault(StoreError::new("there is no key")))?;
                    ("put", key, expect, sealed)
                }
                Write::Remove { key, expect } => ("remove", key.clone(), expect, Vec::new()),
            };
            args.push(what.as_bytes().to_vec());
            args.push(key.as_str().as_bytes().to_vec());
            args.push(expect.to_string().into_bytes());
            args.push(content);
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let written = self.link.run(&self.write, &self.names(), &args);
        let (number, epoch): (i64, String) =
            written.map_err(|error| CommitError::Fault(fault(error)))?;
        match Version::try_from(number) {
            Ok(0) => Err(CommitError::Conflict),
            Ok(number) => Ok((number, epoch)),
            Err(_) => Err(CommitError::Fault(no_number())),
        }
    }
}

impl Store for SharedHolds {
    fn is_exclusive(&self) -> bool {
        false
    }

    fn changes_since(&self, cursor: Version) -> Result<Delta, StoreError> {
        let mut seen = lock(&self.seen);
        let read = self.read(&seen, cursor)?;
        let rolled_back = seen.is_ahead_of(&read.epoch, read.last);
        if rolled_back && read.epoch.is_empty() {
            tracing::error!("the shared store of holds was emptied: the held calls are gone");
        }
        if rolled_back {
            seen.rolled_back = Some(read.epoch);
        } else {
            seen.follow(read.epoch, read.last);
        }
        Ok(Delta {
            whole: read.whole,
            rolled_back,
            removed: read.gone,
            records: read.records,
            cursor: read.last,
            mark_ms: read.mark_ms,
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Version, CommitError> {
        let mut seen = lock(&self.seen);
        let written = self.write(&seen, batch);
        // Only the commit that follows a reading may begin a new epoch.
        seen.rolled_back = None;
        let (number, epoch) = written?;
        seen.follow(epoch, number);
        Ok(number)
    }
}

/// The error for a store whose batches cannot be told apart by their numbers any more. That takes
/// longer than anything lasts, unless somebody sets the number.
fn no_number() -> StoreError {
    StoreError::new("somebody else has changed the number of its batches: empty it")
}

fn fault(error: LinkError) -> StoreError {
    StoreError::new(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_under_its_own_name_and_keys_alone() {
        let (old, new) = ([1; 32], [2; 32]);
        let before = RecordKeys::new(vec![old]);
        let after = RecordKeys::new(vec![new, old]);
        let sealed = before.seal("hold/a", b"{}").unwrap();
        for (keys, name, expected) in [
            (&before, "hold/a", true),
            (&after, "hold/a", true),
            (&RecordKeys::new(vec![new]), "hold/a", false),
            (&RecordKeys::new(Vec::new()), "hold/a", false),
            (&before, "hold/b", false),
            (&before, "hold/", false),
        ] {
            let content = keys.open(name, &sealed);
            assert_eq!(content, expected.then_some(&b"{}"[..]), "{name}");
        }
        let newer = after.seal("hold/a", b"{}").unwrap();
        assert_eq!(before.open("hold/a", &newer), None, "the first key makes the MAC");
        assert_eq!(RecordKeys::new(Vec::new()).seal("hold/a", b"{}"), None);
        for index in 0..sealed.len() {
            let mut bad = sealed.clone();
            *bad.get_mut(index).unwrap() ^= 1;
            assert_eq!(before.open("hold/a", &bad), None, "{index}");
            assert_eq!(before.open("hold/a", sealed.get(..index).unwrap()), None, "{index}");
        }
    }
}
