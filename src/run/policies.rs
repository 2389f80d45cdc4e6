//! The policy of a run: proves it before anything is served, follows its source, and reports every
//! change in the log and in the journal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::{StartError, services};
use crate::config::{
    BundleConfig, BundleServiceConfig, BundleSource, Config, OAuthMode, ServerConfig,
};
use crate::policy::approving::{Answerers, Approving};
use crate::policy::bundle::LocalBundle;
use crate::policy::bundle::signature::Signing;
use crate::policy::last_good::LastGood;
use crate::policy::load::{LoadLimits, PolicyFiles};
use crate::policy::poll::{BundleService, Change, Polling, Refused, poll};
use crate::policy::prove::Prover;
use crate::policy::watch::{Answering, POLL, PolicyEvent, Source, Triggers, watch};
use crate::policy::{PolicySettings, Ready, prepare};
use bartizan_audit::decisions::Masker;
use bartizan_edge::Shared;
use bartizan_edge::admin::{Component, Readiness};
use bartizan_edge::clock::Clock;
use bartizan_gate::duty::decision::PolicyRevision;
use bartizan_gate::duty::pdp::ExpiredPolicy;
use bartizan_gate::evidence::record::{
    AuditRecord, DecisionFacts, Event, Finding, Now, ReasonFacts,
};
use bartizan_gate::evidence::step::AuditSink;
use bartizan_gate::session::Mode;
use bartizan_rego::{
    Demotion, Entrypoints, EvalLimits, Lint, Policy, PolicyProblem, Proof, RuleQuery,
};
use bartizan_sync::{caught, lock};

/// Time limit for the proof of one revision.
const PROOF_MAX: Duration = Duration::from_mins(1);
/// Largest number of events that wait to be recorded; the watcher waits if there are more.
const EVENTS_MAX: usize = 16;
/// Problems of a rejected policy that its record lists.
const PROBLEMS_RECORDED_MAX: usize = 5;

/// Where the policy of a configuration comes from.
#[derive(Debug)]
pub enum PolicyOrigin {
    /// Files, which are watched for changes.
    Files(PolicySettings),
    /// A bundle service, which is polled. The settings then name no files.
    Service(PolicySettings, Box<BundleService>),
}

impl PolicyOrigin {
    /// The source that `config` names, to be proven by `prover` and evaluated by `workers` threads.
    /// Reads keys and certificates, but no policy.
    ///
    /// # Errors
    ///
    /// A key or certificate cannot be read.
    pub fn new(config: &Config, prover: Prover, workers: usize) -> Result<Self, StartError> {
        let policy = &config.policy;
        let files = PolicyFiles {
            paths: policy.paths.clone(),
            bundle: None,
            entrypoints: Entrypoints {
                decision: policy.entrypoint.clone(),
                listing: policy.listing_entrypoint.clone(),
            },
            limits: LoadLimits::default(),
        };
        let mut settings = PolicySettings {
            files,
            limits: EvalLimits::default(),
            prover,
            workers,
            shadow_one_in: policy.shadow_one_in,
            approving: approving(config),
        };
        let Some(bundle) = &policy.bundle else { return Ok(Self::Files(settings)) };
        let signing = signing(bundle)?;
        match &bundle.source {
            BundleSource::Path(path) => {
                settings.files.bundle = Some(LocalBundle { path: path.clone(), signing });
                Ok(Self::Files(settings))
            }
            BundleSource::Service(service) => {
                let service = self::service(service, signing, &config.state)?;
                Ok(Self::Service(settings, Box::new(service)))
            }
        }
    }
}

/// Who may answer holds. In observe mode it does not matter.
fn approving(config: &Config) -> Approving {
    let approvals = &config.approvals;
    if config.mode == Mode::Observe {
        return Approving::Unknown;
    }
    if !approvals.has_approvers() {
        return Approving::Nobody;
    }
    let tokens = approvals.approvers.iter().map(|it| (it.id.clone(), it.groups.clone()));
    let links = approvals.webhooks.iter().filter_map(|webhook| {
        Some((webhook.callback.as_ref()?.approver.clone(), webhook.groups.clone()))
    });
    let takes_tokens = |server: &ServerConfig| {
        let oauth = server.oauth.as_ref();
        oauth.is_some_and(|oauth| matches!(oauth.mode, OAuthMode::Terminate(_)))
    };
    let same = !config.servers.iter().any(takes_tokens);
    Approving::By(Answerers {
        known: tokens.chain(links).collect(),
        sign_in: approvals.oidc.as_ref().map(|oidc| {
            oidc.people.groups.iter().map(|(group, _)| group.as_str().into()).collect()
        }),
        principal: same.then(|| config.principal.id.clone()),
    })
}

/// The keys that may sign a bundle.
fn signing(bundle: &BundleConfig) -> Result<Option<Arc<Signing>>, StartError> {
    let Some(signing) = &bundle.signing else { return Ok(None) };
    let signing = signing.read_keys().map_err(|what| {
        StartError::new("policy.bundle.signing", what)
            .hint("give the PEM of a public key that fits the algorithm")
    })?;
    Ok(Some(Arc::new(signing)))
}

fn service(
    config: &BundleServiceConfig,
    signing: Option<Arc<Signing>>,
    state: &Path,
) -> Result<BundleService, StartError> {
    let polling = config.polling;
    Ok(BundleService {
        service: services::open("policy.bundle", &config.remote)?,
        last_good: LastGood::new(state, &config.remote.url.to_string()),
        bytes_max: config.bytes,
        polling: Polling {
            min: polling.min_delay,
            max: polling.max_delay,
            long: polling.long_polling_timeout,
        },
        signing,
        rising: config.rising,
        max_age: config.max_age,
        clock: Clock::start(),
    })
}

/// The current policy, for uses other than decisions.
#[derive(Debug, Clone, Default)]
pub(super) struct Current(Arc<Mutex<Option<Policy>>>);

/// The rule that names the parts of a decision that must not be logged (Open Policy Agent
/// documentation, "Masking Sensitive Data").
const MASK: &str = "data.system.log.mask";

impl Current {
    fn set(&self, policy: &Policy) {
        *lock(&self.0) = Some(policy.clone());
    }

    /// Whether `code` stands in the policy.
    pub(super) fn names(&self, code: &str) -> bool {
        let policy = lock(&self.0).clone();
        policy.is_some_and(|policy| policy.names(code))
    }

    /// A function that evaluates the mask rule for a decision before it is logged.
    pub(super) fn masker(&self) -> Masker {
        let current = self.clone();
        let mut query: Option<RuleQuery> = None;
        Box::new(move |event| {
            let policy = lock(&current.0).clone();
            let policy = policy.ok_or("no policy is loaded yet, so the mask is unknown")?;
            let same = query.take().filter(|query| *query.revision() == policy.revision());
            let query = query.insert(match same {
                Some(same) => same,
                None => RuleQuery::new(&policy, MASK).map_err(|problem| problem.to_string())?,
            });
            query.evaluate(event).map_err(|problem| problem.to_string())
        })
    }
}

/// The prover of a run's policies.
pub(super) fn prover(program: PathBuf) -> Prover {
    Prover { program, wall: PROOF_MAX }
}

/// Number of evaluations of policy at once: one for each processor, and one that is long.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).saturating_add(1)
}

/// Loads the first policy. From files, the start fails without a valid one. From a service, the
/// last good policy on disk is used instead; without that, every message is refused until the
/// service delivers one.
pub(super) async fn first(
    origin: &PolicyOrigin,
    sink: &dyn AuditSink,
    clock: Clock,
) -> Result<Option<Ready>, StartError> {
    let rejected = |source, candidate, problems: Vec<PolicyProblem>| {
        let what = summary(&problems, usize::MAX);
        report(&PolicyEvent::Rejected { source, candidate, problems }, 0, sink, clock.now());
        what
    };
    let (source, ready) = match origin {
        PolicyOrigin::Files(settings) => {
            let ready = prepare(settings).await.map_err(|problems| {
                StartError::new("policy", rejected(Source::Files, None, problems))
                    .hint("`bartizan policy check` says the same without starting anything")
            })?;
            (Source::Files, ready)
        }
        PolicyOrigin::Service(settings, service) => match service.last_good(settings).await {
            Ok(Some(ready)) => (Source::LastGood, ready),
            Ok(None) => return Ok(None),
            Err(Refused { candidate, problems }) => {
                rejected(Source::LastGood, Some(candidate), problems);
                return Ok(None);
            }
        },
    };
    report(&PolicyEvent::loaded(&ready, source), 0, sink, clock.now());
    Ok(Some(ready))
}

/// Follows the source until the program closes; each proven change decides from the next message
/// on. Notify what is returned to read it again, even if no file changed.
pub(super) fn follow(
    shared: &Shared,
    readiness: &Readiness,
    origin: PolicyOrigin,
    ready: Option<Ready>,
    current: &Current,
) -> Arc<Notify> {
    let again = Arc::new(Notify::new());
    let approvals = shared.holding.as_ref().map(|holding| Arc::clone(&holding.approvals));
    let worthless = move |revision: &PolicyRevision| {
        approvals.as_ref().map_or(0, |approvals| approvals.worthless_grants(revision))
    };
    if let Some(ready) = &ready {
        current.set(ready.pdp.policy());
        tell_of_worthless(worthless(&ready.revision));
    }
    let (events, mut happened) = mpsc::channel(EVENTS_MAX);
    let triggers = Triggers { again: Arc::clone(&again), poll: POLL, stop: shared.closing.clone() };
    let (gate, readiness, current) = (Arc::clone(&shared.gate), readiness.clone(), current.clone());
    let install = move |change| match change {
        Change::To(pdp) => {
            current.set(pdp.policy());
            gate.replace_policy(pdp);
            readiness.ready(Component::Policy);
        }
        // Before the swap, so that nobody is sent here for refusals.
        Change::Expired(revision) => {
            readiness
                .not_ready(Component::Policy, "the policy is older than `max_age`; see the log");
            gate.replace_policy(Arc::new(ExpiredPolicy { revision }));
        }
    };
    let tasks = &shared.tasks;
    match (origin, ready) {
        (PolicyOrigin::Files(settings), Some(ready)) => {
            let now = Answering { pdp: ready.pdp, fingerprint: ready.fingerprint };
            let install = move |pdp| install(Change::To(pdp));
            tasks.spawn(async move { watch(settings, now, triggers, install, events).await });
        }
        // Impossible: `first` returns an error instead.
        (PolicyOrigin::Files(_), None) => {}
        (PolicyOrigin::Service(settings, service), ready) => {
            let now = ready.map(|ready| ready.pdp);
            tasks.spawn(poll(settings, *service, now, triggers, install, events));
        }
    }
    let (sink, clock) = (Arc::clone(&shared.sink), shared.clock);
    shared.tasks.spawn(async move {
        while let Some(event) = happened.recv().await {
            let told = async {
                let grants = if let PolicyEvent::Loaded { revision, .. } = &event {
                    worthless(revision)
                } else {
                    0
                };
                report(&event, grants, &*sink, clock.now());
            };
            if caught(told).await.is_err() {
                tracing::error!("a policy event was not recorded because of a panic");
            }
        }
    });
    again
}

/// Logs that `grants` approvals that no call has used yet are of another policy.
fn tell_of_worthless(grants: usize) {
    if grants > 0 {
        tracing::warn!(
            grants,
            "a new policy makes grants worthless that no call has used yet: the same calls are held anew"
        );
    }
}

/// Writes an event to the log and to the journal; `worthless` is how many unused grants a policy that
/// was loaded makes worthless. The policy is used whether or not the record can
/// be written, because each decision's record names the policy's revision.
fn report(event: &PolicyEvent, worthless: usize, sink: &dyn AuditSink, now: Now) {
    let mut record = AuditRecord::new(Event::Policy, now);
    let (finding, note) = match event {
        PolicyEvent::Loaded { source, revision, engine, proof, warnings } => {
            tracing::info!(
                %revision,
                source = from(*source),
                engine = engine.as_str(),
                tests = proof.tests.len(),
                inputs = proof.inputs,
                "policy loaded"
            );
            for Lint { file, line, code, message, hint } in warnings {
                tracing::warn!(file, line, code, what = message, hint, "policy warning");
            }
            record.decision = Some(about(revision, engine.as_str()));
            (Finding::PolicyReload, loaded(*source, proof, worthless))
        }
        PolicyEvent::Rejected { source, candidate, problems } => {
            let candidate = candidate.as_deref().unwrap_or_default();
            for problem in problems {
                tracing::error!(candidate, problem = %shown(problem), "policy refused");
            }
            let named =
                if candidate.is_empty() { String::new() } else { format!(" ({candidate})") };
            let what = summary(problems, PROBLEMS_RECORDED_MAX);
            let note = format!("refused{}{named}: {what}", from(*source));
            (Finding::PolicyReloadRejected, note)
        }
        PolicyEvent::Demoted { demotion } => {
            // Its answers are not logged: they can hold values of the call.
            let Demotion { revision, question, .. } = demotion;
            tracing::error!(
                %revision,
                question,
                "the engines disagreed; policy demoted to the strict engine"
            );
            record.decision = Some(about(revision, "strict"));
            let note = format!("the engines disagreed on a {question}: the strict one answers");
            (Finding::PolicyReload, note)
        }
        PolicyEvent::Expired { revision, what } => {
            tracing::error!(
                %revision,
                what,
                "the policy has become too old; everything is refused until a newer one comes"
            );
            record.decision = Some(about(revision, "none"));
            (Finding::PolicyReloadRejected, format!("expired: {what}"))
        }
        // These do not change the policy.
        PolicyEvent::Interrupted => {
            return tracing::error!("following the policy's source was interrupted by a panic");
        }
        PolicyEvent::ServiceFailed { what } => return tracing::warn!(what, "bundle service"),
        PolicyEvent::Recovered => return tracing::info!("the bundle service answers again"),
    };
    record.note = Some(note.into());
    if let Err(unkept) = sink.keep(&record.with_finding(finding)) {
        tracing::error!(cause = %unkept.cause, "the policy event was not recorded");
    }
}

/// The note on a policy that was loaded; the log says it if it makes grants worthless.
fn loaded(source: Source, proof: &Proof, worthless: usize) -> String {
    tell_of_worthless(worthless);
    let grants = match worthless {
        0 => String::new(),
        grants => format!("; {grants} unused grants of held calls are worthless now"),
    };
    let why = proof.reasons.first().map(|why| format!("; not compiled: {why}"));
    format!(
        "loaded{}; {} tests passed, {} inputs compared{grants}{}",
        from(source),
        proof.tests.len(),
        proof.inputs,
        why.unwrap_or_default()
    )
}

/// The source of a policy as part of a note; empty for files.
fn from(source: Source) -> &'static str {
    match source {
        Source::Files => "",
        Source::Service => " from the bundle service",
        Source::LastGood => " from the last good bundle on disk",
    }
}

/// The `decision` member of a record about a policy: it names revision and engine where decisions
/// name them.
fn about(revision: &PolicyRevision, engine: &'static str) -> DecisionFacts {
    DecisionFacts {
        effect: "permit",
        enforced: false,
        reasons: Vec::<ReasonFacts>::new().into(),
        obligations: Vec::<String>::new().into(),
        policy: revision.into(),
        engine,
        told: None,
    }
}

fn shown(problem: &PolicyProblem) -> String {
    let place = match problem.line {
        Some(line) => format!("{}:{line}", problem.file),
        None => problem.file.clone(),
    };
    let hint = problem.hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    if place.is_empty() {
        format!("{}{hint}", problem.message)
    } else {
        format!("{place}: {}{hint}", problem.message)
    }
}

fn summary(problems: &[PolicyProblem], max: usize) -> String {
    let mut text = problems.iter().take(max).map(shown).collect::<Vec<_>>().join("\n");
    let more = problems.len().saturating_sub(max);
    if more > 0 {
        text.push_str("\nfurther problems: ");
        text.push_str(&more.to_string());
    }
    text
}
