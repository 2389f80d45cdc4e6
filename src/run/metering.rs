//! The metrics of a run: which names may be labels, and what is read when somebody asks.
//!
//! Nothing here waits for the disk while a page is made, because metrics matter most while the disk
//! hangs: a task looks at the journal's files from time to time, and the page shows what it saw last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::background::keep_running;
use super::policies::Current;
use super::process;
use crate::config::Config;
use bartizan_audit::journal::Journal;
use bartizan_audit::otlp::{MetricsSender, Progress};
use bartizan_audit::segment;
use bartizan_edge::Shared;
use bartizan_edge::admin::{About, MetricsPage, Readiness};
use bartizan_edge::http::UsageReader;
use bartizan_gate::catalog::drift::DefinitionLock;
use bartizan_gate::session::Protected;
use bartizan_metrics::text::{self, Format};
use bartizan_metrics::{Metrics, Names, Readings, Source};
use bartizan_sync::lock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the journal's files are looked at.
const DISK_EVERY: Duration = Duration::from_secs(5);
/// How often the number of the last record is noted, for the age of what is not exported.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// Longest time that the last metrics are waited for.
const LAST_MAX: Duration = Duration::from_secs(5);
/// Notes that are kept; if there are more, every second one is dropped.
const MARKS_MAX: usize = 4_096;

/// The metrics of a run with `servers`, whose policy is `current`.
pub(super) fn metrics(servers: &[Arc<Protected>], current: &Current, boot: &str) -> Arc<Metrics> {
    let known = servers.iter().map(|server| {
        let pack = server.facts.pack.iter().flat_map(|pack| pack.tools.keys());
        let locked = match &server.lock {
            DefinitionLock::Locked(tools) => Some(tools.keys()),
            DefinitionLock::Off | DefinitionLock::Unlocked => None,
        };
        let tools = pack.chain(locked.into_iter().flatten()).cloned().collect();
        (server.facts.name.clone(), tools)
    });
    let current = current.clone();
    let names = Names::new(known, Box::new(move |code: &str| current.names(code)));
    let about = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", boot)];
    Arc::new(Metrics::new(names, "bartizan", &about))
}

/// What is read when somebody asks.
pub(super) struct Facts {
    shared: Shared,
    readiness: Readiness,
    journal: Arc<Journal>,
    exporters: Vec<(&'static str, Arc<Progress>)>,
    mode: &'static str,
    bodies_max: u64,
    started: SystemTime,
    usage: OnceLock<UsageReader>,
    disk: DiskFacts,
    marks: Mutex<Marks>,
}

/// What the journal's files take, as last seen, bytes.
#[derive(Debug, Default)]
struct DiskFacts {
    size: AtomicU64,
    /// 0 until it was seen first.
    seen: AtomicU64,
    free: AtomicU64,
}

impl Facts {
    /// What is known of a run; says what reports of `readiness` tell about it, too.
    pub(super) fn new(
        config: &Config,
        shared: &Shared,
        readiness: &Readiness,
        journal: &Arc<Journal>,
        exporters: &[(&'static str, Arc<Progress>)],
    ) -> Self {
        let now = shared.now();
        let mode = shared.gate.mode().as_str();
        let gate = Arc::clone(&shared.gate);
        readiness.describe(About {
            version: env!("CARGO_PKG_VERSION"),
            mode,
            policy: Box::new(move || gate.policy().revision()),
        });
        Self {
            shared: shared.clone(),
            readiness: readiness.clone(),
            journal: Arc::clone(journal),
            exporters: exporters.to_vec(),
            mode,
            bodies_max: config.limits.bodies_bytes,
            started: now.wall.checked_sub(now.uptime).unwrap_or(now.wall),
            usage: OnceLock::new(),
            disk: DiskFacts::default(),
            marks: Mutex::default(),
        }
    }

    fn journal(&self, into: &mut Readings) {
        into.put("bartizan.journal.seq", &[], self.journal.last_seq());
        into.put("bartizan.calls", &[], number(self.journal.open_calls()));
        if self.disk.seen.load(Ordering::Relaxed) > 0 {
            into.put("bartizan.journal.size", &[], self.disk.size.load(Ordering::Relaxed));
            into.put("bartizan.journal.free", &[], self.disk.free.load(Ordering::Relaxed));
        }
        let now = self.shared.clock.uptime();
        for (name, progress) in &self.exporters {
            let labels = [("exporter", *name)];
            let next = progress.next();
            let behind = self.journal.last_seq().saturating_add(1).saturating_sub(next);
            let waiting = lock(&self.marks).age(next, now).filter(|_| behind > 0);
            into.put("bartizan.exporter.lag", &labels, behind);
            let waiting = waiting.unwrap_or_default().as_secs_f64();
            into.put_f64("bartizan.exporter.lag.time", &labels, waiting);
            into.put("bartizan.exporter.sent", &labels, progress.sent());
            into.put("bartizan.exporter.lost", &labels, progress.lost());
            into.put("bartizan.exporter.dead_letters", &labels, progress.dead_letters());
        }
    }

    fn agents(&self, into: &mut Readings) {
        let memory = self.shared.gate.memory();
        into.put("bartizan.memory.used", &[("table", "kept")], number(memory.used()));
        into.put("bartizan.memory.limit", &[("table", "kept")], number(memory.bytes_max()));
        if let Some(usage) = self.usage.get().and_then(UsageReader::read) {
            into.put("bartizan.connections", &[], usage.connections);
            into.put("bartizan.requests", &[], usage.requests);
            into.put("bartizan.streams", &[], usage.streams);
            for (server, open) in &usage.sessions {
                into.put("bartizan.sessions", &[("server", server)], *open);
            }
            into.put("bartizan.memory.used", &[("table", "bodies")], usage.bodies);
            into.put("bartizan.memory.limit", &[("table", "bodies")], self.bodies_max);
        }
        if let Some(holding) = &self.shared.holding {
            for (state, count) in holding.approvals.counts() {
                into.put("bartizan.holds", &[("state", state.as_str())], number(count));
            }
        }
    }

    fn program(&self, into: &mut Readings) {
        let revision = self.shared.gate.policy().revision();
        into.put("bartizan.policy.info", &[("revision", &revision)], 1);
        into.put("bartizan.ready", &[], u64::from(self.readiness.is_ready()));
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("mode", self.mode)];
        into.put("bartizan.build.info", &labels, 1);
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        into.put_f64("process.start.time", &[], started.as_secs_f64());
        into.put_f64("process.cpu", &[], self.shared.clock.used().as_secs_f64());
        let known = [
            ("process.resident.memory", process::resident_bytes()),
            ("process.open.fds", process::open_descriptors()),
            ("process.max.fds", process::descriptors_max()),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                into.put(name, &[], value);
            }
        }
    }
}

impl Source for Facts {
    fn read(&self, into: &mut Readings) {
        self.journal(into);
        self.agents(into);
        self.program(into);
    }
}

/// The metrics, and the page that shows them.
pub(super) struct Metering {
    metrics: Arc<Metrics>,
    facts: Arc<Facts>,
}

impl Metering {
    /// Reads `facts` into `metrics` from now on, and looks at files and positions from time to time.
    pub(super) fn start(metrics: Arc<Metrics>, facts: Facts, shared: &Shared) -> Arc<Self> {
        let facts = Arc::new(facts);
        let source: Arc<dyn Source> = Arc::<Facts>::clone(&facts);
        metrics.read_from(&source);
        let marked = Arc::clone(&facts);
        keep_running(shared, "notes of the journal's position", move || {
            let facts = Arc::clone(&marked);
            let mut ticks = tokio::time::interval(MARK_EVERY);
            async move {
                loop {
                    ticks.tick().await;
                    let now = facts.shared.clock.uptime();
                    lock(&facts.marks).note(facts.journal.last_seq(), now);
                }
            }
        });
        let measured = Arc::clone(&facts);
        keep_running(shared, "sizes of the journal", move || {
            let facts = Arc::clone(&measured);
            let mut ticks = tokio::time::interval(DISK_EVERY);
            async move {
                loop {
                    ticks.tick().await;
                    let facts = Arc::clone(&facts);
                    // It waits for the disk; a panic in it is logged by the hook.
                    drop(tokio::task::spawn_blocking(move || measure(&facts)).await);
                }
            }
        });
        Arc::new(Self { metrics, facts })
    }

    /// Sends the metrics with `sender` each `interval`, as a task in `tasks`, and once more after
    /// `stop`.
    pub(super) fn send(
        &self,
        sender: MetricsSender,
        interval: Duration,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) {
        let metrics = Arc::clone(&self.metrics);
        tasks.spawn(async move {
            let mut failed = None;
            loop {
                let stopped =
                    stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none();
                let collecting = Arc::clone(&metrics);
                let once = async {
                    let collected = tokio::task::spawn_blocking(move || collecting.collect()).await;
                    let collected = collected.map_err(|error| error.to_string())?;
                    sender.send(&collected).await
                };
                let sent = if stopped {
                    let sent = tokio::time::timeout(LAST_MAX, once).await;
                    sent.unwrap_or_else(|_| Err("no answer in time".to_owned()))
                } else {
                    // At the stop the last totals go instead of these.
                    let Some(sent) = stop.run_until_cancelled(once).await else { continue };
                    sent
                };
                let cause = sent.err();
                if cause != failed {
                    if let Some(cause) = &cause {
                        tracing::warn!(cause, "the collector does not take metrics");
                    } else {
                        tracing::info!("the collector takes metrics again");
                    }
                    failed = cause;
                }
                if stopped {
                    return;
                }
            }
        });
    }

    /// Reads what agents use from `usage`.
    pub(super) fn reads_usage(&self, usage: UsageReader) {
        drop(self.facts.usage.set(usage));
    }
}

impl MetricsPage for Metering {
    fn page(&self, accept: &str) -> (&'static str, Bytes) {
        let format = Format::accepted(accept);
        let text = text::write(&self.metrics.collect(), format);
        (format.content_type(), text.into())
    }
}

/// Looks at the journal's files.
fn measure(facts: &Facts) {
    let directory = facts.journal.directory();
    let (Ok(size), Ok(free)) = (segment::total_bytes(directory), segment::free_bytes(directory))
    else {
        return;
    };
    facts.disk.size.store(size, Ordering::Relaxed);
    facts.disk.free.store(free, Ordering::Relaxed);
    facts.disk.seen.store(1, Ordering::Relaxed);
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// When records were written: the last number at some times.
#[derive(Debug, Default)]
struct Marks(Vec<(u64, Duration)>);

impl Marks {
    /// The last record was `seq` at `now`.
    fn note(&mut self, seq: u64, now: Duration) {
        if self.0.last().is_some_and(|(last, _)| *last >= seq) {
            return;
        }
        if self.0.len() >= MARKS_MAX {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push((seq, now));
    }

    /// Since when record `seq` has been there, at least: since the first time at which it was noted.
    /// `None` if it is newer.
    fn age(&self, seq: u64, now: Duration) -> Option<Duration> {
        let at = self.0.partition_point(|(last, _)| *last < seq);
        let (_, since) = self.0.get(at)?;
        Some(now.saturating_sub(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_old_as_its_first_note() {
        let seconds = Duration::from_secs;
        let mut marks = Marks::default();
        for (seq, at) in [(5, 1), (5, 2), (9, 3)] {
            marks.note(seq, seconds(at));
        }
        let ages: Vec<_> = [1, 5, 6, 9, 10].map(|seq| marks.age(seq, seconds(10))).to_vec();
        let old = |at| Some(seconds(at));
        assert_eq!(ages, [old(9), old(9), old(7), old(7), None]);
        for seq in 10..30_000 {
            marks.note(seq, seconds(seq));
        }
        assert!(marks.0.len() <= MARKS_MAX);
        let age = marks.age(20_000, seconds(30_000)).unwrap();
        assert!(age <= seconds(10_000) && age >= seconds(9_900), "{age:?}");
    }
}
