//! The policy of a run: proven before anything is served, followed while it serves, and every
//! change of it in the log and in the journal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::{StartError, services};
use crate::config::{BundleConfig, BundleServiceConfig, BundleSource, Config};
use crate::policy::bundle::LocalBundle;
use crate::policy::bundle::signature::Signing;
use crate::policy::last_good::LastGood;
use crate::policy::load::{LoadLimits, PolicyFiles};
use crate::policy::poll::{BundleService, Polling, Refused, poll};
use crate::policy::prove::Prover;
use crate::policy::watch::{Answering, POLL, PolicyEvent, Source, Triggers, watch};
use crate::policy::{PolicySettings, Ready, prepare};
use bartizan_audit::decisions::Masker;
use bartizan_audit::journal::Journal;
use bartizan_edge::Shared;
use bartizan_edge::admin::{Component, Readiness};
use bartizan_edge::clock::Clock;
use bartizan_gate::duty::decision::PolicyRevision;
use bartizan_gate::evidence::record::{AuditRecord, DecisionFacts, Event, Finding, Now};
use bartizan_gate::evidence::step::AuditSink;
use bartizan_rego::{Demotion, Entrypoints, EvalLimits, Policy, PolicyProblem, RegoPdp, RuleQuery};
use bartizan_sync::lock;

/// How long the proof of one revision may take.
const PROOF_MAX: Duration = Duration::from_mins(1);
/// Events that wait to be recorded; following waits when there are more.
const EVENTS_MAX: usize = 16;
/// Problems of a refused policy that a record names.
const PROBLEMS_RECORDED_MAX: usize = 5;

/// How the policy of a configuration comes to answer.
#[derive(Debug)]
pub enum Origin {
    /// From files, which are followed.
    Files(PolicySettings),
    /// From a bundle service, which is asked. The files of the settings are none.
    Service(PolicySettings, Box<BundleService>),
}

impl Origin {
    /// What `config` means, proven by `prover` and answered by `workers` at once. Reads keys and
    /// certificates, and no policy.
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

/// The keys of a bundle.
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
    })
}

/// The policy that answers now, for those who ask it something else than decisions.
#[derive(Debug, Clone, Default)]
pub(super) struct Current(Arc<Mutex<Option<Policy>>>);

/// What says which parts of a decision may not be logged (OPA, "Masking Sensitive Data").
const MASK: &str = "data.system.log.mask";

impl Current {
    fn set(&self, policy: &Policy) {
        *lock(&self.0) = Some(policy.clone());
    }

    /// Asks it for the mask of a decision that is to be logged.
    pub(super) fn masker(&self) -> Masker {
        let current = self.clone();
        let mut query: Option<RuleQuery> = None;
        Box::new(move |event| {
            let policy = lock(&current.0).clone();
            let policy = policy.ok_or("there is no policy yet that could say what to mask")?;
            let same = query.take().filter(|query| *query.revision() == policy.revision());
            let query = query.insert(match same {
                Some(same) => same,
                None => RuleQuery::new(&policy, MASK).map_err(|problem| problem.to_string())?,
            });
            query.evaluate(event).map_err(|problem| problem.to_string())
        })
    }
}

/// Who proves the policies of a run.
pub(super) fn prover(program: PathBuf) -> Prover {
    Prover { program, wall: PROOF_MAX }
}

/// Evaluations at once.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The first policy. Without one nothing starts where it comes from files; where it comes from a
/// service, the last good one stands in, and without that nothing passes until there is one.
pub(super) async fn first(
    origin: &Origin,
    journal: &Journal,
    clock: Clock,
) -> Result<Option<Ready>, StartError> {
    let rejected = |source, candidate, problems: Vec<PolicyProblem>| {
        let what = summary(&problems, usize::MAX);
        tell(&PolicyEvent::Rejected { source, candidate, problems }, journal, clock.now());
        what
    };
    let (source, ready) = match origin {
        Origin::Files(settings) => {
            let ready = prepare(settings).await.map_err(|problems| {
                StartError::new("policy", rejected(Source::Files, None, problems))
                    .hint("`bartizan policy check` says the same without starting anything")
            })?;
            (Source::Files, ready)
        }
        Origin::Service(settings, service) => match service.last_good(settings).await {
            Ok(Some(ready)) => (Source::LastGood, ready),
            Ok(None) => return Ok(None),
            Err(Refused { candidate, problems }) => {
                rejected(Source::LastGood, Some(candidate), problems);
                return Ok(None);
            }
        },
    };
    tell(&PolicyEvent::loaded(&ready, source), journal, clock.now());
    Ok(Some(ready))
}

/// Follows the origin until closing; each proven change answers from the next question on.
pub(super) fn follow(
    shared: &Shared,
    readiness: &Readiness,
    origin: Origin,
    ready: Option<Ready>,
    current: &Current,
    again: &Arc<Notify>,
) {
    if let Some(ready) = &ready {
        current.set(ready.pdp.policy());
    }
    let (events, mut happened) = mpsc::channel(EVENTS_MAX);
    let triggers = Triggers { again: Arc::clone(again), poll: POLL, stop: shared.closing.clone() };
    let (gate, readiness, current) = (Arc::clone(&shared.gate), readiness.clone(), current.clone());
    let install = move |pdp: Arc<RegoPdp>| {
        current.set(pdp.policy());
        gate.replace_policy(pdp);
        readiness.ready(Component::Policy);
    };
    let tasks = &shared.tasks;
    match (origin, ready) {
        (Origin::Files(settings), Some(ready)) => {
            let now = Answering { pdp: ready.pdp, fingerprint: ready.fingerprint };
            tasks.spawn(async move { watch(settings, now, triggers, install, events).await });
        }
        // There is none: `first` gives an error instead.
        (Origin::Files(_), None) => {}
        (Origin::Service(settings, service), ready) => {
            let now = ready.map(|ready| ready.pdp);
            tasks.spawn(poll(settings, *service, now, triggers, install, events));
        }
    }
    let (sink, clock) = (Arc::clone(&shared.sink), shared.clock);
    shared.tasks.spawn(async move {
        while let Some(event) = happened.recv().await {
            tell(&event, &*sink, clock.now());
        }
    });
}

/// Puts an event into the log and the journal. The policy answers whether or not the record is
/// kept: each decision names its revision anyway.
fn tell(event: &PolicyEvent, sink: &dyn AuditSink, now: Now) {
    let mut record = AuditRecord::new(Event::Policy, now);
    let (finding, note) = match event {
        PolicyEvent::Loaded { source, revision, engine, proof } => {
            tracing::info!(
                %revision,
                source = from(*source),
                engine = engine.as_str(),
                tests = proof.tests.len(),
                inputs = proof.inputs,
                "policy loaded"
            );
            record.decision = Some(about(revision, engine.as_str()));
            let why = proof.reasons.first().map(|why| format!("; not compiled: {why}"));
            let note = format!(
                "loaded{}; {} tests passed, {} inputs compared{}",
                from(*source),
                proof.tests.len(),
                proof.inputs,
                why.unwrap_or_default()
            );
            (Finding::PolicyReload, note)
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
            let Demotion { revision, question, strict, compiled } = demotion;
            tracing::error!(
                %revision,
                question,
                strict,
                compiled,
                "the engines disagreed; policy demoted to the strict engine"
            );
            record.decision = Some(about(revision, "strict"));
            let note = format!("the engines disagreed on a {question}: the strict one answers");
            (Finding::PolicyReload, note)
        }
        // Neither changes the policy.
        PolicyEvent::ServiceFailed { what } => return tracing::warn!(what, "bundle service"),
        PolicyEvent::Recovered => return tracing::info!("the bundle service answers again"),
    };
    record.note = Some(note.into());
    if let Err(unkept) = sink.keep(&record.with_finding(finding)) {
        tracing::error!(cause = %unkept.cause, "the policy event was not recorded");
    }
}

/// Where a policy came from, to follow what became of it; files need no word.
fn from(source: Source) -> &'static str {
    match source {
        Source::Files => "",
        Source::Service => " from the bundle service",
        Source::LastGood => " from the last good bundle on disk",
    }
}

/// A record about a policy says which one in the same place as every decision by it.
fn about(revision: &PolicyRevision, engine: &'static str) -> DecisionFacts {
    DecisionFacts {
        effect: "permit",
        enforced: false,
        reasons: Vec::new(),
        obligations: Vec::new(),
        policy: Arc::clone(revision),
        engine,
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
        text.push_str("\nand more: ");
        text.push_str(&more.to_string());
    }
    text
}
