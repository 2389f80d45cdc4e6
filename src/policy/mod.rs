//! Policies: found, proven, and put in place of the ones before.
//!
//! [`load`] reads files into sources and gives them a revision; [`prove`] tries those sources in a
//! child process, because a policy can overflow the stack or eat all memory and neither can be
//! caught; [`watch`] does both again whenever a file changes, and leaves the old policy whole
//! until the new one is proven. [`embedded`] is what runs where nothing is configured. Evaluation
//! itself is [`gate::rego`](bartizan_rego).

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

use self::load::{Fingerprint, Loaded, PolicyFiles};
use self::prove::Prover;
use bartizan_gate::duty::decision::{Engine, PolicyRevision};
use bartizan_rego::{EvalLimits, Policy, PolicyProblem, PolicySources, Proof, RegoPdp};

/// How a policy comes to answer.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// Which files.
    pub files: PolicyFiles,
    /// Bounds on one evaluation.
    pub limits: EvalLimits,
    /// Who proves.
    pub prover: Prover,
    /// Evaluations at once; each has its own copy of program and data.
    pub workers: usize,
    /// Of how many decisions by the compiled engine one is made again by the strict one.
    pub shadow_one_in: u32,
}

/// A proven policy, ready to answer.
#[derive(Debug)]
pub struct Ready {
    /// What answers.
    pub pdp: Arc<RegoPdp>,
    /// Its revision.
    pub revision: PolicyRevision,
    /// The engine that it runs on: compiled where the proof allows it.
    pub engine: Engine,
    /// What the proof found.
    pub proof: Proof,
    /// What the files looked like.
    pub fingerprint: Fingerprint,
}

/// Loads, proves and compiles. All problems of the first step that has any.
pub async fn prepare(settings: &PolicySettings) -> Result<Ready, Vec<PolicyProblem>> {
    let files = settings.files.clone();
    let loaded = blocking(move || load::load(&files)).await??;
    prove_and_build(settings, loaded).await
}

/// Proves what was loaded, and compiles it.
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
    let (pdp, engine, doubt) = blocking(move || build(&settings, &serving, compiled)).await??;
    if let Some(doubt) = doubt {
        proof.compiled = false;
        proof.reasons.push(doubt);
    }
    let pdp = Arc::new(pdp);
    Ok(Ready { pdp, revision, engine, proof, fingerprint })
}

/// Builds what answers. Where the compiled engine was proven and still will not start, the strict
/// one answers and the reason is given.
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
            Err(problem) => doubt = Some(problem.message),
        }
    }
    Ok((RegoPdp::strict(compile()?, settings.workers), Engine::Strict, doubt))
}

/// Runs what blocks on a thread of its own. A panic there is a problem like any other.
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
