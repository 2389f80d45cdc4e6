//! Keeps what limits of long periods have counted, so that a restart does not refill them.
//!
//! The file is a log in the state directory. Each line has the buckets that one call changed, and is
//! written with one `write(2)` before the call passes, like a record of the journal: no line is lost
//! if the program is killed, and at most those of the last [`SYNC_EVERY`] if the machine fails. Of
//! two lines that name a bucket, the later one counts. When the file has grown, and at each start,
//! it is replaced by one that names each bucket once (a new file, synced and renamed).

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bartizan_edge::Shared;
use bartizan_gate::duty::limit::{KeptBucket, KeptForm, LimitStore, NotKept};
use bartizan_gate::evidence::record::Now;
use bartizan_gate::session::Gate;
use bartizan_sync::lock;
use serde::{Deserialize, Serialize};

use super::StartError;
use super::background::keep_running;

/// The file in the state directory.
pub(super) const FILE: &str = "limits.log";
/// How often written lines are flushed to the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Growth after which the file is replaced by a shorter one, bytes; more if it has many buckets.
const GROWTH_BYTES: u64 = 1 << 20;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    /// When it was written, Unix time in ms. It decreases in no run, and between two.
    at: u64,
    /// The buckets that changed.
    buckets: std::borrow::Cow<'a, [KeptBucket]>,
}

/// The log.
#[derive(Debug)]
pub(super) struct LimitLog {
    path: PathBuf,
    log: Mutex<OpenLog>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    /// The length of the whole lines.
    bytes: u64,
    /// The length at which the file is replaced.
    replace_at: u64,
    /// Whether lines were written that are not flushed.
    dirty: bool,
    /// Whether a part of a line may follow the whole ones.
    torn: bool,
}

/// What an earlier run has kept.
#[derive(Debug, Default)]
struct Earlier {
    buckets: Vec<KeptBucket>,
    /// The latest time of a line, Unix time in ms.
    latest: u64,
}

impl LimitLog {
    /// Reads what earlier runs have kept in the directory `state`, and lets `gate` continue with it
    /// and keep here what it counts.
    ///
    /// # Errors
    ///
    /// The file cannot be read or replaced, or is damaged in a way that a crash does not explain.
    pub(super) fn attach(
        state: &Path,
        gate: Gate,
        now: Now,
    ) -> Result<(Gate, Arc<Self>), StartError> {
        let path = state.join(FILE);
        let failed = |what: &str, error: &io::Error| {
            StartError::new("state", format!("`{}`: {what}: {error}", path.display())).hint(
                "move the file away; limits of long periods then begin anew, as if nothing had been counted",
            )
        };
        let earlier = read(&path).map_err(|error| failed("cannot be read", &error))?;
        let wall = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A clock that was set back must not give back what was taken: time goes on from the latest
        // that an earlier run has seen.
        let wall = milliseconds(wall).max(earlier.latest);
        let zero = wall.saturating_sub(milliseconds(now.uptime));
        let file = replace(&path, wall, &earlier.buckets);
        let file = file.map_err(|error| failed("cannot be replaced", &error))?;
        let log = Arc::new(Self { path: path.clone(), log: Mutex::new(file) });
        let store: Arc<dyn LimitStore> = Arc::<Self>::clone(&log);
        Ok((gate.keeping_limits(store, &earlier.buckets, zero), log))
    }

    /// Starts the task that flushes the file, and replaces it when it has grown.
    pub(super) fn tend(self: &Arc<Self>, shared: &Shared) {
        let (log, gate, clock) = (Arc::clone(self), Arc::clone(&shared.gate), shared.clock);
        keep_running(shared, "log of limits", move || {
            let (log, gate) = (Arc::clone(&log), Arc::clone(&gate));
            async move {
                let mut ticks = tokio::time::interval(SYNC_EVERY);
                loop {
                    ticks.tick().await;
                    if log.is_due() {
                        let (log, gate) = (Arc::clone(&log), Arc::clone(&gate));
                        let work = move || log.flush(&gate, clock.uptime());
                        drop(tokio::task::spawn_blocking(work).await);
                    }
                }
            }
        });
    }

    fn is_due(&self) -> bool {
        let log = lock(&self.log);
        log.dirty || log.bytes >= log.replace_at
    }

    /// Flushes the file, or replaces it if it has grown.
    pub(super) fn flush(&self, gate: &Gate, uptime: Duration) {
        let mut log = lock(&self.log);
        if log.bytes >= log.replace_at {
            // Under the lock, so that no line is written between what the gate says and the file.
            let (at, buckets) = gate.limits().kept(uptime);
            match replace(&self.path, at, &buckets) {
                Ok(shorter) => *log = shorter,
                Err(error) => {
                    log.replace_at = log.bytes.saturating_add(GROWTH_BYTES);
                    tracing::warn!(%error, "the log of limits cannot be replaced by a shorter one");
                }
            }
        }
        if !std::mem::take(&mut log.dirty) {
            return;
        }
        let file = log.file.try_clone();
        drop(log);
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            tracing::warn!(%error, "the log of limits cannot be flushed to the disk");
        }
    }
}

impl LimitStore for LimitLog {
    fn keep(&self, at_unix_ms: u64, buckets: &[KeptBucket]) -> Result<(), NotKept> {
        let line =
            line(at_unix_ms, buckets).map_err(|error| NotKept { cause: error.to_string() })?;
        let mut log = lock(&self.log);
        log.append(&line).map_err(|error| {
            let cause = format!("`{}` cannot be written: {error}", self.path.display());
            tracing::error!(cause, "what a limit has counted is not kept; refusing");
            NotKept { cause }
        })
    }
}

impl OpenLog {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
        }
        self.torn = true;
        self.file.write_all(line)?;
        self.torn = false;
        self.bytes = self.bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        self.dirty = true;
        Ok(())
    }
}

fn line(at: u64, buckets: &[KeptBucket]) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { at, buckets: buckets.into() })?;
    line.push(b'\n');
    Ok(line)
}

/// Writes a file with a line for each bucket, and renames it over the one at `path`.
fn replace(path: &Path, at: u64, buckets: &[KeptBucket]) -> io::Result<OpenLog> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut text = Vec::new();
    // Also without buckets: the time of the line stays.
    text.extend(line(at, &[])?);
    for bucket in buckets {
        text.extend(line(at, std::slice::from_ref(bucket))?);
    }
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let replace_at = bytes.saturating_mul(4).max(GROWTH_BYTES);
    Ok(OpenLog { file, bytes, replace_at, dirty: false, torn: false })
}

/// One whole line, without its end; `None` where it is damaged.
#[expect(clippy::disallowed_methods, reason = "our own file")]
fn parsed(line: &[u8]) -> Option<Line<'static>> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let digest = |key: &str| key.len() == 64 && key.bytes().all(|it| it.is_ascii_hexdigit());
    line.buckets.iter().all(|bucket| digest(&bucket.key)).then_some(line)
}

/// Reads the file at `path`. What a crash left unfinished at its end is left out: the call that it
/// was written for did not pass.
fn read(path: &Path) -> io::Result<Earlier> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Earlier::default()),
        Err(error) => return Err(error),
    };
    let mut latest = 0;
    let mut last: HashMap<(bool, Box<str>, u32, Duration, KeptForm), KeptBucket> = HashMap::new();
    let mut torn = None;
    for (number, line) in (1_u64..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        let whole = line.strip_suffix(b"\n");
        let Some(Line { at, buckets }) = whole.and_then(parsed) else {
            torn = torn.or(Some(number));
            continue;
        };
        if let Some(torn) = torn {
            let what = format!("line {torn} is damaged");
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        latest = at.max(latest);
        for bucket in buckets.into_owned() {
            let KeptBucket { shared, count, period, form, .. } = bucket;
            let name = (shared, bucket.key.clone(), count, period, form);
            if last.get(&name).is_none_or(|older| older.seq < bucket.seq) {
                last.insert(name, bucket);
            }
        }
    }
    if let Some(line) = torn {
        tracing::warn!(line, "the end of the log of limits was not written whole and is left out");
    }
    let mut buckets: Vec<KeptBucket> = last.into_values().collect();
    buckets.sort_by_key(|bucket| bucket.seq);
    Ok(Earlier { buckets, latest })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use std::time::SystemTime;

    use bartizan_gate::duty::decision::{Bound, Limit, Rate};
    use bartizan_gate::duty::pdp::NoPolicy;
    use bartizan_gate::session::{GateConfig, Mode};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn gate() -> Gate {
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: bartizan_gate::wire::frame::FrameLimits::default(),
            in_flight_max: 1,
            buckets_max: 100,
            boot: "boot".into(),
            digest_key: [0; 32],
        };
        Gate::new(config, Arc::new(NoPolicy))
    }

    fn at(hours: u32) -> Now {
        Now { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH + 500_000 * HOUR + hours * HOUR }
    }

    fn attach(state: &Path, now: Now) -> (Gate, Arc<LimitLog>) {
        LimitLog::attach(state, gate(), now).unwrap()
    }

    /// How many calls of `key` pass.
    fn passed(gate: &Gate, key: &str, count: u32) -> u32 {
        let bound = Bound::Fixed(Rate { count, period: 24 * HOUR });
        let limit = Limit { code: "c".into(), key: key.into(), bound, cost: 1 };
        let spend = |_: &u32| gate.limits().spend(std::iter::once(&limit), Duration::ZERO).is_ok();
        u32::try_from((0..count).filter(spend).count()).unwrap()
    }

    #[test]
    fn a_log_that_has_grown_is_replaced_by_a_shorter_one_with_the_same_counts() {
        let folder = tempfile::tempdir().unwrap();
        let length = || fs::metadata(folder.path().join(FILE)).unwrap().len();
        let (one, log) = attach(folder.path(), at(0));
        assert_eq!(passed(&one, "a", 9000), 9000);
        assert!(length() > GROWTH_BYTES && log.is_due());
        log.flush(&one, Duration::ZERO);
        assert!(length() < 1000 && !log.is_due(), "{}", length());
        assert_eq!(passed(&one, "b", 3), 3, "it goes on in the new file");
        drop((one, log));
        let (two, _log) = attach(folder.path(), at(1));
        assert_eq!((passed(&two, "a", 9000), passed(&two, "b", 3)), (0, 0));
        assert_eq!(passed(&two, "c", 3), 3);
        assert!(!folder.path().join("limits.new").exists());
    }

    #[test]
    fn a_clock_that_was_set_back_gives_nothing_back_however_often() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(passed(&attach(folder.path(), at(100)).0, "a", 3), 3);
        for hours in [0, 200, 50, 100, 0] {
            let expected = if hours == 200 { 3 } else { 0 };
            assert_eq!(passed(&attach(folder.path(), at(hours)).0, "a", 3), expected, "{hours}");
        }
    }

    #[test]
    fn a_line_that_could_not_be_written_whole_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (gate, log) = attach(folder.path(), at(0));
        // As after a write that stopped in the middle.
        {
            let mut open = lock(&log.log);
            open.file.write_all(b"{\"at\": 1").unwrap();
            open.torn = true;
        }
        assert_eq!(passed(&gate, "a", 3), 3);
        drop((gate, log));
        assert_eq!(passed(&attach(folder.path(), at(1)).0, "a", 3), 0);
    }
}
