//! The policy of a run: proven before anything is served, followed while it serves, and every
//! change of it in the log and in the journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::StartError;
use crate::audit::journal::Journal;
use crate::config::{BundleConfig, BundleSource, Config, PolicyConfig};
use crate::edge::Shared;
use crate::edge::clock::Clock;
use crate::gate::decision::PolicyRevision;
use crate::gate::record::{AuditRecord, DecisionFacts, Event, Finding, Now};
use crate::gate::rego::{Demotion, Entrypoints, EvalLimits, PolicyProblem};
use crate::gate::step::AuditSink;
use crate::policy::bundle::LocalBundle;
use crate::policy::bundle::signature::Signing;
use crate::policy::load::{LoadLimits, PolicyFiles};
use crate::policy::prove::Prover;
use crate::policy::watch::{Answering, POLL, PolicyEvent, Triggers, watch};
use crate::policy::{PolicySettings, Ready, prepare};

/// How long the proof of one revision may take.
const PROOF_MAX: Duration = Duration::from_mins(1);
/// Events that wait to be recorded; following waits when there are more.
const EVENTS_MAX: usize = 16;
/// Problems of a refused policy that a record names.
const PROBLEMS_RECORDED_MAX: usize = 5;

/// Which files a configuration means.
pub fn files(policy: &PolicyConfig) -> Result<PolicyFiles, StartError> {
    let entrypoints = Entrypoints {
        decision: policy.entrypoint.clone(),
        listing: policy.listing_entrypoint.clone(),
    };
    let bundle = policy.bundle.as_ref().map(local).transpose()?;
    let paths = policy.paths.clone();
    Ok(PolicyFiles { paths, bundle, entrypoints, limits: LoadLimits::default() })
}

fn local(bundle: &BundleConfig) -> Result<LocalBundle, StartError> {
    let BundleSource::Path(path) = &bundle.source;
    Ok(LocalBundle { path: path.clone(), signing: signing(bundle)? })
}

/// The keys of a bundle.
fn signing(bundle: &BundleConfig) -> Result<Option<Arc<Signing>>, StartError> {
    let Some(signing) = &bundle.signing else { return Ok(None) };
    let signing = signing.read().map_err(|what| {
        StartError::new("policy.bundle.signing", what)
            .hint("give the PEM of a public key that fits the algorithm")
    })?;
    Ok(Some(Arc::new(signing)))
}

/// How the policy of `config` comes to answer.
pub(super) fn settings(config: &Config, prover: PathBuf) -> Result<PolicySettings, StartError> {
    Ok(PolicySettings {
        files: files(&config.policy)?,
        limits: EvalLimits::default(),
        prover: Prover { program: prover, wall: PROOF_MAX },
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        shadow_one_in: config.policy.shadow_one_in,
    })
}

/// The first policy: without one nothing starts.
pub(super) async fn first(
    settings: &PolicySettings,
    journal: &Journal,
    clock: Clock,
) -> Result<Ready, StartError> {
    match prepare(settings).await {
        Ok(ready) => {
            let event = PolicyEvent::Loaded {
                revision: Arc::clone(&ready.revision),
                engine: ready.engine,
                proof: ready.proof.clone(),
            };
            tell(&event, journal, clock.now());
            Ok(ready)
        }
        Err(problems) => {
            let what = summary(&problems, usize::MAX);
            tell(&PolicyEvent::Rejected { problems }, journal, clock.now());
            Err(StartError::new("policy", what)
                .hint("`bartizan policy check` says the same without starting anything"))
        }
    }
}

/// Follows the files until closing; each proven change answers from the next question on.
pub(super) fn follow(shared: &Shared, settings: PolicySettings, ready: Ready, again: &Arc<Notify>) {
    let (events, mut happened) = mpsc::channel(EVENTS_MAX);
    let triggers = Triggers { again: Arc::clone(again), poll: POLL, stop: shared.closing.clone() };
    let gate = Arc::clone(&shared.gate);
    let install = move |pdp| gate.replace_policy(pdp);
    let answering = Answering { pdp: ready.pdp, fingerprint: ready.fingerprint };
    shared.tasks.spawn(async move { watch(settings, answering, triggers, install, events).await });
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
        PolicyEvent::Loaded { revision, engine, proof } => {
            tracing::info!(
                %revision,
                engine = engine.as_str(),
                tests = proof.tests.len(),
                inputs = proof.inputs,
                "policy loaded"
            );
            record.decision = Some(about(revision, engine.as_str()));
            let why = proof.reasons.first().map(|why| format!("; not compiled: {why}"));
            let note = format!(
                "loaded; {} tests passed, {} inputs compared{}",
                proof.tests.len(),
                proof.inputs,
                why.unwrap_or_default()
            );
            (Finding::PolicyReload, note)
        }
        PolicyEvent::Rejected { problems } => {
            for problem in problems {
                tracing::error!(problem = %shown(problem), "policy refused");
            }
            let note = format!("refused: {}", summary(problems, PROBLEMS_RECORDED_MAX));
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
    };
    record.note = Some(note.into());
    if let Err(unkept) = sink.keep(&record.with_finding(finding)) {
        tracing::error!(cause = %unkept.cause, "the policy event was not recorded");
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
