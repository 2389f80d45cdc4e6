//! Builds a running firewall from a configuration, and stops it in order.
//!
//! Everything is built once, here: state directory, journal, packs, policy, gate, edges. No port
//! accepts connections until all of it is ready, and an error names the part that failed. Stopping
//! accepts no new calls, lets calls in progress end, and then closes the journal. `cli` calls it,
//! and so do `lock` and `demo`.

mod state;
mod background;
mod checkpoints;
mod closing;
mod keeping;
mod limit_log;
pub mod diagnostics;
mod services;
mod webhooks;
mod replicas;
mod retention;
mod approvals;
mod overview;
mod metering;
mod process;
pub mod policies;
mod terminate;
pub(crate) mod confinement;
mod descriptors;
pub(crate) mod edges;
mod listing;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::checkpoints::Checkpoints;
use self::closing::Closing;
use self::keeping::Keeper;
use self::limit_log::LimitLog;
use self::metering::Metering;
use self::policies::Current;
use self::retention::Keeping;
use crate::config::{Config, Front, OtlpProtocol};
use crate::confine::support;
use crate::policy::Ready;
use bartizan_audit::decisions::{self, DecisionLogs};
use bartizan_audit::journal::Journal;
use bartizan_audit::otlp::{
    self, CollectorClient, CollectorTransport, MetricsSender, OtlpConfig, Progress, Repeats, Signal,
};
use bartizan_edge::Shared;
use bartizan_edge::admin::{Component, Readiness};
use bartizan_edge::client::ExitReason;
use bartizan_edge::clock::Clock;
use bartizan_gate::duty::pdp::{NoPolicy, Pdp};
use bartizan_gate::evidence::record::{AuditRecord, Event};
use bartizan_gate::evidence::step::AuditSink as _;
use bartizan_gate::session::{Gate, Protected};
use bartizan_rego::RegoPdp;

pub use self::closing::{CLOSE_MAX, NotClosed};

/// How long decisions are collected before they are sent in one request.
const LOGS_LINGER: Duration = Duration::from_secs(1);

/// How long a client of pipes takes at most to end after the drain time: its server is stopped, and
/// the rest of its output is read.
const STDIO_END_MAX: Duration = Duration::from_secs(10);

/// Settings of a run that are not part of the configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The program that proves policies with its subcommand `policy-prove`, and starts servers
    /// with its subcommand `confine`; normally this program itself.
    pub prover: PathBuf,
    /// How requests of exports are repeated that a collector or a service for decision logs does not
    /// take.
    pub repeats: Repeats,
}

impl RunOptions {
    /// Options that prove policies with the program `prover`, and the defaults of the others.
    pub fn new(prover: PathBuf) -> Self {
        Self { prover, repeats: Repeats::default() }
    }

    /// Options that prove policies with the running program.
    ///
    /// # Errors
    ///
    /// The path of the running program cannot be determined.
    pub fn this_program() -> Result<Self, StartError> {
        let prover = crate::policy::prove::Prover::this_program().map_err(|error| {
            StartError::new(
                "program",
                format!("the path of this program cannot be determined: {error}"),
            )
        })?;
        Ok(Self::new(prover.program))
    }
}

/// Why a firewall cannot start. All parts that had started are stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// The part that failed: `state`, `journal`, `pack`, `policy`, `listen`, `servers.<name>`.
    pub subject: String,
    /// What happened; several lines are several errors.
    pub what: String,
    /// What to do next, if known.
    pub hint: Option<String>,
}

impl StartError {
    fn new(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: subject.into(), what: what.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StartError {}

/// A running firewall.
#[must_use]
pub struct Running {
    shared: Shared,
    keeper: Arc<Keeper>,
    limit_log: Arc<LimitLog>,
    checkpoints: Checkpoints,
    journal: Arc<Journal>,
    protected: Vec<Arc<Protected>>,
    serving: Serving,
    reload: Arc<Notify>,
    hurry: Arc<Notify>,
    export: Export,
    drain: Duration,
}

/// The tasks that export the journal. They end after all others, so that the last records are
/// exported, too.
#[derive(Debug, Default)]
struct Export {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// How far each has come, by its name in metrics.
    progress: Vec<(&'static str, Arc<Progress>)>,
    repeats: Repeats,
}

impl Export {
    fn start(
        config: &Config,
        current: &Current,
        journal: &Journal,
        repeats: Repeats,
    ) -> Result<Self, StartError> {
        let mut export = Self { repeats, ..Self::default() };
        if let Some(logs) = &config.audit.decision_logs {
            let logs = DecisionLogs {
                service: services::open("audit.decision_logs", &logs.remote)?,
                labels: logs.labels.clone(),
                path: decision_path(&config.policy.entrypoint),
                state: config.state.clone(),
                linger: LOGS_LINGER,
                repeats,
            };
            let stop = export.stop.clone();
            let progress = decisions::start(logs, current.masker(), journal, &export.tasks, stop);
            export.progress.push(("decision_logs", progress));
        }
        if let Some(otlp) = &config.otlp {
            for signal in &otlp.signals {
                export.follow(otlp, *signal, config.state.clone(), journal)?;
            }
        }
        Ok(export)
    }

    /// Starts sending `signal`.
    fn follow(
        &mut self,
        otlp: &crate::config::OtlpConfig,
        signal: Signal,
        state: PathBuf,
        journal: &Journal,
    ) -> Result<(), StartError> {
        let mut settings = OtlpConfig::new(signal, collector(otlp)?, state);
        settings.repeats = self.repeats;
        settings.headers = collector_headers(otlp)?;
        settings.resource = otlp.resource.clone().into_iter().collect();
        let progress = otlp::start(settings, journal, &self.tasks, self.stop.clone());
        self.progress.push((signal.exporter(), progress));
        Ok(())
    }

    /// Starts sending metrics, if `config` wants that.
    fn meter(&self, config: &Config, metering: &Metering, boot: &str) -> Result<(), StartError> {
        let Some(otlp) = &config.otlp else { return Ok(()) };
        let Some(interval) = otlp.metrics else { return Ok(()) };
        let resource = otlp.resource.clone().into_iter().collect();
        let (collector, headers) = (collector(otlp)?, collector_headers(otlp)?);
        let sender = MetricsSender::new(collector, headers, resource, boot);
        metering.send(sender, interval, &self.tasks, self.stop.clone());
        Ok(())
    }

    async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A client of the collector.
fn collector(otlp: &crate::config::OtlpConfig) -> Result<CollectorClient, StartError> {
    let transport = match otlp.protocol {
        OtlpProtocol::Http => CollectorTransport::Http(services::open("otlp", &otlp.remote)?),
        OtlpProtocol::Grpc => CollectorTransport::Grpc(services::open_grpc("otlp", &otlp.remote)?),
    };
    Ok(CollectorClient::new(transport, otlp.compression))
}

/// Headers of each request to it.
fn collector_headers(otlp: &crate::config::OtlpConfig) -> Result<HeaderMap, StartError> {
    let mut headers = HeaderMap::new();
    for (name, secret) in &otlp.headers {
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
            StartError::new(format!("otlp.headers.{name}"), "is not a valid header value")
        })?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// A rule in the form of decision logs: `mcp/decision` for `data.mcp.decision`.
fn decision_path(entrypoint: &str) -> String {
    entrypoint.split('.').skip(1).collect::<Vec<_>>().join("/")
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("address", &self.address()).finish_non_exhaustive()
    }
}

enum Serving {
    Http { address: SocketAddr, admin: SocketAddr, done: JoinHandle<()> },
    Stdio(Pin<Box<dyn Future<Output = ExitReason> + Send>>),
}

/// Builds everything that `config` describes, and starts it. On HTTP the listeners are bound when
/// this returns; on stdio [`Running::serve_until`] serves.
///
/// # Errors
///
/// The part that failed. Everything that had started is stopped.
pub async fn start(mut config: Config, options: RunOptions) -> Result<Running, StartError> {
    if matches!(config.front, Front::Http { .. }) {
        descriptors::fit(&mut config)?;
    }
    let clock = Clock::start();
    let (state, lock) = state::StateDirectory::open(&mut config)?;
    let boot = state::boot()?;
    let journal = Arc::new(state.journal(lock, &config, &boot, clock.now())?);
    let started = build(&config, options, clock, &state, &boot, &journal).await;
    if let Err(error) = &started {
        // Record the failure, too, and close the journal.
        let mut record = AuditRecord::new(Event::Policy, clock.now());
        record.note = Some(format!("not started: {error}").into());
        drop(journal.keep(&record));
        drop(journal.close(clock.now()));
    }
    started
}

async fn build(
    config: &Config,
    options: RunOptions,
    clock: Clock,
    state: &state::StateDirectory,
    boot: &str,
    journal: &Arc<Journal>,
) -> Result<Running, StartError> {
    warn_of(config);
    let (readiness, checkpoints) = signed(config, journal)?;
    let protected = edges::protected(config)?;
    // Bind before the proof of the policy, so that a port in use is reported at once; serve after
    // it.
    let sockets = edges::bind(config)?;
    let launching = edges::Launching { program: options.prover.clone(), support: support() };
    confinement::record_lacking(config, launching.support, journal, clock.now());
    let prover = policies::prover(options.prover);
    let origin = policies::PolicyOrigin::new(config, prover, policies::workers())?;
    let current = Current::default();
    let metrics = metering::metrics(&protected, &current, boot);
    let interval = config.audit.repeat_interval;
    let keeper = Arc::new(Keeper::new(journal, &readiness, interval, &metrics, clock));
    let ready = policies::first(&origin, &*keeper, clock).await?;
    let replicas = replicas::Replicas::open(config)?;
    let holding = approvals::open(config, replicas.as_ref(), clock)?;
    let gate = Gate::new(config.gate(boot.into(), state.digest_key), deciding(ready.as_ref()));
    let gate = gate.keeping(config.limits.kept_bytes).recording(config.audit.inputs);
    let (gate, limit_log) = LimitLog::attach(&config.state, gate, clock.now())?;
    let gate = Arc::new(replicas::Replicas::joined(replicas.as_ref(), gate));
    let shared = Shared {
        gate,
        sink: Arc::<Keeper>::clone(&keeper),
        clock,
        aside: Arc::default(),
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
        holding,
    };
    keeper.tend(&shared);
    checkpoints.tend(&shared, &readiness);
    limit_log.tend(&shared);
    replicas::tend(replicas.as_ref(), &shared, &readiness);
    tell_of_policy(&readiness, ready.is_some());
    let reload = policies::follow(&shared, &readiness, origin, ready, &current);
    let export = Export::start(config, &current, journal, options.repeats)?;
    Keeping::tend(&config.audit, &shared, &readiness, &checkpoints, (journal, &export.progress));
    let overview = overview::of(config, &protected, journal);
    let answering = approvals::answering(config, &shared, overview)?;
    let facts = metering::Facts::new(config, &shared, &readiness, journal, &export.progress);
    let metering = Metering::start(metrics, facts, &shared);
    export.meter(config, &metering, boot)?;
    let edges = edges::Edges { sockets, launching: &launching, answering, metering: &metering };
    let serving = edges::serve(config, protected.clone(), edges, &shared, &readiness)?;
    if matches!(serving, Serving::Http { .. }) {
        listed(config, &protected, &launching, &shared);
    }
    Ok(Running {
        shared,
        keeper,
        limit_log,
        checkpoints,
        journal: Arc::clone(journal),
        protected,
        serving,
        reload,
        hurry: Arc::default(),
        export,
        drain: config.limits.drain,
    })
}

/// Keeps what each of `servers` lists known.
fn listed(
    config: &Config,
    servers: &[Arc<Protected>],
    launching: &edges::Launching,
    shared: &Shared,
) {
    let config = Arc::new(config.clone());
    for (index, server) in servers.iter().enumerate() {
        listing::keep_listed(&config, index, launching, shared, server);
    }
}

/// What decides at the start.
fn deciding(ready: Option<&Ready>) -> Arc<dyn Pdp> {
    match ready {
        Some(ready) => Arc::<RegoPdp>::clone(&ready.pdp),
        None => Arc::new(NoPolicy),
    }
}

/// Says that the journal is ready, and opens what signs it.
fn signed(config: &Config, journal: &Arc<Journal>) -> Result<(Readiness, Checkpoints), StartError> {
    let readiness = Readiness::new();
    readiness.ready(Component::Journal);
    let settings = &config.audit.checkpoints;
    let checkpoints = Checkpoints::open(settings, &config.state, journal, &readiness)?;
    Ok((readiness, checkpoints))
}

/// Logs what is allowed in `config` and probably not meant.
fn warn_of(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!(at = warning.at, what = warning.what, "configuration");
    }
}

/// Says whether there is a policy at the start.
fn tell_of_policy(readiness: &Readiness, is_ready: bool) {
    if is_ready {
        readiness.ready(Component::Policy);
    } else {
        let why = "the bundle service has not delivered a valid policy yet; see the log";
        readiness.not_ready(Component::Policy, why);
    }
}

impl Running {
    /// The address for agents; `None` on stdio.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.serving {
            Serving::Http { address, .. } => Some(*address),
            Serving::Stdio(_) => None,
        }
    }

    /// The address for operators; `None` on stdio.
    pub fn admin(&self) -> Option<SocketAddr> {
        match &self.serving {
            Serving::Http { admin, .. } => Some(*admin),
            Serving::Stdio(_) => None,
        }
    }

    /// Notify it to reload the policy, even if no file changed.
    pub fn reload_trigger(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// The protected servers, in the order of the configuration.
    pub fn protected(&self) -> &[Arc<Protected>] {
        &self.protected
    }

    /// The state directory: the configured one, or one beside it ([`Config::numbers_state`]).
    pub fn state(&self) -> &Path {
        let journal = self.journal.directory();
        journal.parent().unwrap_or(journal)
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Notify it, once the stop has begun, to end what the stop waits for: first the calls in
    /// progress, then the disk.
    pub fn hurry_trigger(&self) -> Arc<Notify> {
        Arc::clone(&self.hurry)
    }

    /// On stdio: serves the client until it closes its input or `stop` resolves, then stops;
    /// returns why the client ended, unless that is not known because the disk hangs. On HTTP: waits
    /// for `stop`, then stops; returns `None`.
    ///
    /// # Errors
    ///
    /// As [`Running::stop`].
    pub async fn serve_until(
        mut self,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<ExitReason>, NotClosed> {
        let mut reason = None;
        if let Serving::Stdio(serving) = &mut self.serving {
            // In a task of its own: it may hang in a write, and the stop must not.
            let serving = std::mem::replace(serving, Box::pin(std::future::pending()));
            let mut serving = self.shared.tasks.spawn(serving);
            let mut stop = std::pin::pin!(stop);
            tokio::select! {
                ended = &mut serving => reason = Some(ended),
                () = &mut stop => {
                    self.shared.closing.cancel();
                    let ended_by = self.drain.saturating_add(STDIO_END_MAX);
                    tokio::select! {
                        ended = tokio::time::timeout(ended_by, &mut serving) => reason = ended.ok(),
                        () = self.hurry.notified() => {}
                    }
                    if reason.is_none() {
                        self.drain = Duration::ZERO;
                    }
                }
            }
        } else {
            stop.await;
        }
        let reason = reason.map(|ended| match ended {
            Ok(reason) => reason,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => ExitReason::Closing,
            },
        });
        self.stop().await?;
        Ok(reason)
    }

    /// Stops a firewall whose journal is thrown away: that it was not closed is only logged.
    pub(crate) async fn end(self) {
        if let Err(error) = self.stop().await {
            tracing::error!(%error, "the journal was not closed");
        }
    }

    /// Stops: accepts no new calls, lets calls in progress end within the drain time, then closes
    /// the journal within [`CLOSE_MAX`].
    ///
    /// # Errors
    ///
    /// The journal could not be closed in order, or not in time.
    pub async fn stop(self) -> Result<(), NotClosed> {
        let Self {
            shared,
            keeper,
            limit_log,
            checkpoints,
            journal,
            serving,
            export,
            hurry,
            drain,
            ..
        } = self;
        shared.closing.cancel();
        shared.tasks.close();
        let drained = async {
            if let Serving::Http { done, .. } = serving {
                drop(done.await);
            }
            shared.tasks.wait().await;
        };
        tokio::select! {
            drained = tokio::time::timeout(drain, drained) => if drained.is_err() {
                tracing::warn!(drain_ms = %drain.as_millis(), "the drain time passed; calls in progress were ended");
            },
            () = hurry.notified() => {
                tracing::warn!("a further signal came; calls in progress were ended");
            }
        }
        let closing = Closing { shared, keeper, limit_log, checkpoints, journal, export, hurry };
        closing.run().await
    }
}
