//! The life cycle of a policy: load, prove, build, replace.
//!
//! [`load`] reads files into sources and computes their revision. [`prove`] tries the sources in a
//! child process, because a policy can overflow the stack or exhaust memory, and a process cannot
//! catch either. [`watch`] repeats both when a file changes, [`poll`] when a bundle service sends a
//! bundle; the running policy stays until the new one is proven. [`embedded`] holds the policies
//! that run where none is configured. [`recorded`], [`replay`] and [`learn`] serve the policy
//! author. The evaluation is in [`bartizan_rego`]. `run` and the command line call this module.

pub mod approving;
pub mod bundle;
mod data;
pub mod embedded;
mod files;
mod find;
pub mod last_good;
pub mod learn;
pub mod load;
pub mod poll;
pub mod prove;
pub mod recorded;
pub mod replay;
mod sources;
pub mod watch;

use std::sync::Arc;

use self::approving::Approving;
use self::load::{Fingerprint, Loaded, PolicyFiles};
use self::prove::Prover;
use bartizan_gate::duty::decision::{Engine, PolicyRevision};
use bartizan_rego::{
    EvalLimits, Lint, Policy, PolicyProblem, PolicySources, Proof, RegoPdp, unanswered_holds,
    ungrantable_holds, warnings,
};

/// The settings for loading, proving and evaluating a policy.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// The files to load, or the limits of a bundle that is received.
    pub files: PolicyFiles,
    /// Limits of a policy and of each evaluation.
    pub limits: EvalLimits,
    /// The program that runs proofs.
    pub prover: Prover,
    /// Most evaluations at one time. Each has its own copy of policy and data in memory.
    pub workers: usize,
    /// One decision of the compiled engine in this many is checked against the strict engine.
    pub shadow_one_in: u32,
    /// Who may answer `hold` rules. A policy whose holds nobody can grant gets warnings.
    pub approving: Approving,
}

/// A proven policy, ready for questions.
#[derive(Debug)]
pub struct Ready {
    /// The decision point.
    pub pdp: Arc<RegoPdp>,
    /// The revision of the policy.
    pub revision: PolicyRevision,
    /// The engine that evaluates: compiled where the proof allows it.
    pub engine: Engine,
    /// The result of the proof.
    pub proof: Proof,
    /// What its author should know, though it runs.
    pub warnings: Vec<Lint>,
    /// The state of the files when they were loaded, to notice a change.
    pub fingerprint: Fingerprint,
}

/// Loads, proves and builds a policy.
///
/// # Errors
///
/// All problems of the first of these steps that has any.
pub async fn prepare(settings: &PolicySettings) -> Result<Ready, Vec<PolicyProblem>> {
    let files = settings.files.clone();
    let loaded = blocking(move || load::load(&files)).await??;
    prove_and_build(settings, loaded).await
}

/// Proves loaded sources and builds the decision point.
async fn prove_and_build(
    settings: &PolicySettings,
    loaded: Loaded,
) -> Result<Ready, Vec<PolicyProblem>> {
    let Loaded { serving, proving, seed, fingerprint, roots } = loaded;
    let entrypoints = &settings.files.entrypoints;
    let mut proof =
        prove::prove(&settings.prover, &proving, entrypoints, roots.as_deref(), seed).await?;
    let revision = serving.revision.clone();
    let settings = settings.clone();
    let compiled = proof.compiled;
    let (built, warnings) =
        blocking(move || (build(&settings, &serving, compiled), told(&settings, &serving))).await?;
    let (pdp, engine, doubt) = built?;
    if let Some(doubt) = doubt {
        proof.compiled = false;
        proof.reasons.push(doubt);
    }
    let pdp = Arc::new(pdp);
    Ok(Ready { pdp, revision, engine, proof, warnings, fingerprint })
}

/// What the author of a policy should know, though it runs. That the built-in policies hold calls is
/// no news.
fn told(settings: &PolicySettings, sources: &PolicySources) -> Vec<Lint> {
    let mut told = warnings(sources, &settings.limits);
    let select = |path: &str| !path.starts_with(embedded::PREFIX);
    match &settings.approving {
        Approving::Unknown => {}
        Approving::Nobody => told.extend(unanswered_holds(sources, &settings.limits, &select)),
        Approving::By(answerers) => {
            let judge = |groups: &[&str], quorum| answerers.objection(groups, quorum);
            told.extend(ungrantable_holds(sources, &settings.limits, &select, &judge));
        }
    }
    told
}

/// Builds the decision point. Where the proof allows the compiled engine but it cannot be built, the
/// strict engine is used, and the third value says why.
fn build(
    settings: &PolicySettings,
    sources: &PolicySources,
    compiled: bool,
) -> Result<(RegoPdp, Engine, Option<String>), Vec<PolicyProblem>> {
    let compile = || Policy::compile(sources, &settings.files.entrypoints, &settings.limits);
    let mut doubt = None;
    if compiled {
        match RegoPdp::compiled(compile()?, settings.workers, settings.shadow_one_in) {
            Ok(pdp) => return Ok((pdp, Engine::Compiled, None)),
            Err(reasons) => doubt = Some(reasons.join("; ")),
        }
    }
    Ok((RegoPdp::strict(compile()?, settings.workers), Engine::Strict, doubt))
}

/// Runs blocking work on a thread of Tokio's blocking pool. A panic becomes a problem.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Vec<PolicyProblem>> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        vec![PolicyProblem {
            file: String::new(),
            line: None,
            message: format!("the policy could not be read: {error}"),
            hint: Some("report this as a bug".to_owned()),
        }]
    })
}
