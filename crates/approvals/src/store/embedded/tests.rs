//! The store on a disk that loses power, fails, is damaged, or is not private.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bartizan_gate::evidence::record::Now;
use redb::{BackendError, StorageBackend};

use super::*;
use crate::record::HoldState;
use crate::service::Approvals;
use crate::service::made::{ann, call};
use crate::{AnswerError, ApprovalLimits, NoHold};

/// One thing that redb did to the disk since the last flush.
#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct State {
    /// As redb reads it.
    now: Vec<u8>,
    /// What was flushed.
    flushed: Vec<u8>,
    pending: Vec<Pending>,
    /// How many more writes, changes of length and flushes there are before the power fails.
    left: u64,
    done: u64,
}

/// A disk that loses its power.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        self.done += 1;
        Ok(())
    }
}

fn apply_to(content: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write(at, data) => {
            let at = usize::try_from(*at).unwrap();
            if content.len() < at + data.len() {
                content.resize(at + data.len(), 0);
            }
            content[at..at + data.len()].copy_from_slice(data);
        }
        Pending::Length(length) => content.resize(usize::try_from(*length).unwrap(), 0),
    }
}

type Backend<T> = Result<T, io::Error>;

impl StorageBackend for Disk {
    fn len(&self) -> Backend<u64> {
        Ok(u64::try_from(bartizan_sync::lock(&self.0).now.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Backend<()> {
        let at = usize::try_from(offset).unwrap();
        let state = bartizan_sync::lock(&self.0);
        let found = state.now.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Backend<()> {
        self.change(Pending::Length(len))
    }

    fn sync_data(&self) -> Backend<()> {
        let mut state = bartizan_sync::lock(&self.0);
        state.step()?;
        state.flushed = state.now.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Backend<()> {
        self.change(Pending::Write(offset, data.to_vec()))
    }

    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<(), BackendError> {
        Ok(())
    }
}

impl Disk {
    fn change(&self, pending: Pending) -> Backend<()> {
        let mut state = bartizan_sync::lock(&self.0);
        state.step()?;
        apply_to(&mut state.now, &pending);
        state.pending.push(pending);
        Ok(())
    }

    /// The disk after the power came back: what was flushed, and of the rest what `seed` chooses,
    /// the last of which may be torn. Seed 0 keeps all (a killed process), seed 1 nothing.
    fn after(&self, seed: u64) -> Self {
        let state = bartizan_sync::lock(&self.0);
        let mut content = state.flushed.clone();
        let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for pending in &state.pending {
            bits = bits.rotate_left(7).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ seed;
            match (seed, pending) {
                (1, _) => {}
                (0, pending) => apply_to(&mut content, pending),
                (_, Pending::Write(at, data)) if bits >> 62 == 1 => {
                    let torn = data[..data.len() / 2].to_vec();
                    apply_to(&mut content, &Pending::Write(*at, torn));
                }
                (_, pending) if bits >> 62 > 1 => apply_to(&mut content, pending),
                _ => {}
            }
        }
        let state =
            State { now: content.clone(), flushed: content, left: u64::MAX, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn store(&self) -> Result<EmbeddedStore, OpenError> {
        let disk = self.clone();
        let open = Box::new(move || builder().create_with_backend(disk.clone()));
        EmbeddedStore::opened(open, Path::new("disk"))
    }
}

fn now(ms: u64) -> Now {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + ms);
    Now { uptime: Duration::from_millis(ms), wall }
}

fn approvals(store: impl Store + 'static) -> Result<Arc<Approvals>, OpenError> {
    let opened = Approvals::open(Box::new(store), ApprovalLimits::default(), Box::new(|| now(10)));
    opened.map(Arc::new)
}

/// A disk with an empty store, a pending hold of call 1 and a granted one of call 2.
fn prepared() -> Disk {
    let disk = Disk::default();
    bartizan_sync::lock(&disk.0).left = u64::MAX;
    let database = builder().create_with_backend(disk.clone()).unwrap();
    initialise(&database).unwrap();
    drop(database);
    let approvals = approvals(disk.store().unwrap()).unwrap();
    drop(approvals.ask(&call(1), now(10)).unwrap());
    let waiter = approvals.ask(&call(2), now(10)).unwrap();
    grant(&approvals, &waiter.id().to_string()).unwrap();
    drop((waiter, approvals));
    disk.after(0)
}

fn grant(approvals: &Approvals, id: &str) -> Result<(), AnswerError> {
    let seen = approvals.get(id).unwrap();
    approvals.grant(id, &seen.digest, &ann(), "fine", None, now(10)).map(drop)
}

/// What the caller was told before the power failed.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four answers")]
struct Told {
    asked: bool,
    spent: bool,
    granted: bool,
    cancelled: bool,
}

/// Spends the granted hold, grants the pending one, asks for another one, and cancels that.
fn work(disk: &Disk) -> Told {
    let mut told = Told::default();
    let Ok(store) = disk.store() else { return told };
    let Ok(approvals) = approvals(store) else { return told };
    let Ok(granted) = approvals.ask(&call(2), now(10)) else { return told };
    told.spent = granted.spend(now(10)).is_ok();
    let Ok(pending) = approvals.ask(&call(1), now(10)) else { return told };
    told.granted = grant(&approvals, &pending.id().to_string()).is_ok();
    let Ok(other) = approvals.ask(&call(3), now(10)) else { return told };
    told.asked = true;
    other.cancel(now(10));
    told.cancelled = approvals.fault().is_none();
    told
}

/// What must be true after the power came back.
fn check(disk: &Disk, told: &Told) {
    let approvals = approvals(disk.store().unwrap()).unwrap();
    let find = |number: u64| {
        let mut found = approvals.list(&HoldState::ALL);
        found.retain(|view| view.shown.as_bytes() == &*call(number).shown);
        assert!(found.len() <= 1, "doubled: {found:?}");
        found.pop()
    };
    let spent = find(2).unwrap().state;
    assert!(!told.spent || spent == HoldState::Unknown, "{spent}: {told:?}");
    assert!([HoldState::Granted, HoldState::Unknown].contains(&spent), "{spent}: {told:?}");
    let granted = find(1).unwrap().state;
    assert!(!told.granted || granted == HoldState::Granted, "{granted}: {told:?}");
    assert!(granted.is_open(), "{granted}: {told:?}");
    let other = find(3).map(|view| view.state);
    assert!(!told.asked || other.is_some(), "{told:?}");
    assert!(!told.cancelled || other == Some(HoldState::Cancelled), "{other:?}: {told:?}");
    // Whoever waited can go on: the same call finds its hold again, and sends it at most once.
    let again = approvals.ask(&call(2), now(10)).unwrap().spend(now(10));
    assert_eq!(again.is_ok(), spent == HoldState::Granted);
    drop(grant(&approvals, &find(1).unwrap().id));
    approvals.ask(&call(1), now(10)).unwrap().spend(now(10)).unwrap();
    assert_eq!(find(1).unwrap().state, HoldState::Spent);
}

#[test]
fn losing_power_at_any_write_loses_and_doubles_nothing() {
    let disk = prepared();
    let whole = disk.after(0);
    assert!(work(&whole).cancelled);
    let steps = bartizan_sync::lock(&whole.0).done;
    assert!(steps > 20, "{steps}");
    for cut in 0..=steps {
        for seed in [0, 1, 1000 + cut, 2000 + cut] {
            let run = disk.after(0);
            bartizan_sync::lock(&run.0).left = cut;
            let told = work(&run);
            // The last steps are those of closing it.
            assert!(told.cancelled || cut < steps, "{cut} of {steps}: {told:?}");
            check(&run.after(seed), &told);
        }
    }
}

#[test]
fn the_file_does_not_grow_with_what_is_over() {
    let disk = prepared();
    let limits = ApprovalLimits { history: 20, asks: 10_000, ..ApprovalLimits::default() };
    let store = Box::new(disk.store().unwrap());
    let approvals = Arc::new(Approvals::open(store, limits, Box::new(|| now(10))).unwrap());
    let length = || bartizan_sync::lock(&disk.0).now.len();
    let mut after_some = 0;
    for number in 10..610 {
        approvals.ask(&call(number), now(10)).unwrap().cancel(now(10));
        if number == 60 {
            after_some = length();
        }
    }
    approvals.tick(now(10));
    assert_eq!(approvals.list(&[HoldState::Cancelled]).len(), 20);
    // Ids are random, so the tables fill their pages a little differently each time.
    assert!(length() <= 2 * after_some, "{} after {after_some}", length());
}

#[test]
fn a_disk_that_fails_grants_nothing_and_may_come_back() {
    let disk = prepared();
    let approvals = approvals(disk.store().unwrap()).unwrap();
    let pending = approvals.ask(&call(1), now(10)).unwrap();
    bartizan_sync::lock(&disk.0).left = 0;
    let id = pending.id().to_string();
    assert_eq!(grant(&approvals, &id), Err(AnswerError::Unavailable));
    assert_eq!(pending.state(), HoldState::Pending);
    assert_eq!(approvals.ask(&call(4), now(10)).unwrap_err(), NoHold::Unavailable);
    let granted = approvals.list(&[HoldState::Granted]).len();
    assert_eq!(granted, 1);
    assert!(approvals.fault().is_some());
    bartizan_sync::lock(&disk.0).left = u64::MAX;
    grant(&approvals, &id).unwrap();
    assert_eq!(pending.state(), HoldState::Granted);
    assert!(approvals.fault().is_none());
    pending.spend(now(10)).unwrap();
}

#[test]
fn the_file_is_its_owners_alone_and_one_process_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(EmbeddedStore::open(&path).unwrap_err(), OpenError::InUse(path.clone()));
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(EmbeddedStore::open(&path).unwrap_err(), OpenError::NotPrivate(path.clone()));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    assert_eq!(EmbeddedStore::open(&path).unwrap_err(), OpenError::NotPrivate(path.clone()));
    fs::remove_file(&path).unwrap();
    // A crash while the first file was made leaves this one, which counts for nothing.
    fs::write(path.with_extension("new"), "half").unwrap();
    drop(EmbeddedStore::open(&path).unwrap());
}

#[test]
fn a_damaged_file_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let opened = approvals(EmbeddedStore::open(&path).unwrap()).unwrap();
    let waiter = opened.ask(&call(1), now(10)).unwrap();
    grant(&opened, &waiter.id().to_string()).unwrap();
    drop((waiter, opened));
    let whole = fs::read(&path).unwrap();
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let error = EmbeddedStore::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(..)), "{error:?}");
        assert!(error.to_string().contains("move it away"), "{error}");
    };
    refused(b"");
    refused(b"not a database");
    refused(&whole[..whole.len() / 2]);
    let place = whole.windows(7).position(|part| part == b"granted").unwrap();
    let mut changed = whole.clone();
    changed[place] ^= 1;
    refused(&changed);
    fs::write(&path, &whole).unwrap();
    approvals(EmbeddedStore::open(&path).unwrap()).unwrap();
}

#[test]
fn one_changed_bit_anywhere_is_found_or_means_nothing() {
    let disk = prepared();
    let states = |disk: &Disk| -> Result<Vec<_>, OpenError> {
        let views = approvals(disk.store()?)?.list(&HoldState::ALL);
        Ok(views.into_iter().map(|view| (view.shown, view.state)).collect())
    };
    let before = states(&disk.after(0)).unwrap();
    assert_eq!(before.len(), 2);
    let used: Vec<usize> = {
        let state = bartizan_sync::lock(&disk.0);
        let bytes = state.now.iter().enumerate();
        bytes.filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect()
    };
    let mut found = 0;
    for (number, at) in used.iter().step_by((used.len() / 600).max(1)).enumerate() {
        let damaged = disk.after(0);
        bartizan_sync::lock(&damaged.0).now[*at] ^= 1 << (number % 8);
        match states(&damaged) {
            Ok(after) => assert_eq!(after, before, "byte {at}"),
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged(..)), "byte {at}: {error:?}");
                found += 1;
            }
        }
    }
    assert!(found > 10, "{found} of {}", used.len());
}

#[test]
fn a_record_that_claims_what_nobody_granted_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let opened = approvals(EmbeddedStore::open(&path).unwrap()).unwrap();
    let id = opened.ask(&call(1), now(10)).unwrap().id().to_string();
    drop(opened);
    // Whoever can write the file can forge all of it; a defect of ours would stop here.
    let database = builder().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(RECORDS).unwrap();
        let name = format!("hold/{id}");
        let (version, text) = {
            let found = table.get(&*name).unwrap().unwrap();
            let (version, text) = found.value();
            (version, String::from_utf8(text.to_vec()).unwrap())
        };
        let forged = text.replace("\"state\":\"pending\"", "\"state\":\"granted\"");
        assert_ne!(forged, text);
        table.insert(&*name, (version, forged.as_bytes())).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("contradicts itself"), "{error}");
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    drop(EmbeddedStore::open(&path).unwrap());
    let database = builder().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(SCHEMA_KEY, SCHEMA + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(EmbeddedStore::open(&path).unwrap_err(), OpenError::Newer(path, SCHEMA + 1));
}
