//! OPA bundles: which are accepted, which are refused, and which policy is used meanwhile.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod archives;
mod configuration;
mod make;
pub(crate) mod rig;
mod service;
mod signed;
pub(crate) mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bartizan::policy::approving::Approving;
use bartizan::policy::bundle::LocalBundle;
use bartizan::policy::bundle::signature::Signing;
use bartizan::policy::load::PolicyFiles;
use bartizan::policy::prove::Prover;
use bartizan::policy::{PolicySettings, Ready, prepare};
use bartizan_rego::{EvalLimits, PolicyProblem};

/// Proves the bundle at `path`.
async fn prove(path: &Path, signing: Option<Signing>) -> Result<Ready, Vec<PolicyProblem>> {
    let bundle = LocalBundle { path: path.to_path_buf(), signing: signing.map(Arc::new) };
    let settings = PolicySettings {
        files: PolicyFiles { bundle: Some(bundle), ..PolicyFiles::default() },
        limits: EvalLimits::default(),
        prover: Prover {
            program: env!("CARGO_BIN_EXE_bartizan").into(),
            wall: Duration::from_mins(1),
        },
        workers: 1,
        shadow_one_in: 100,
        approving: Approving::Unknown,
    };
    prepare(&settings).await
}

/// Proves a tarball.
async fn prove_bytes(bytes: &[u8], signing: Option<Signing>) -> Result<Ready, Vec<PolicyProblem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.tar.gz");
    std::fs::write(&path, bytes).unwrap();
    prove(&path, signing).await
}

/// That one of the problems says `expected`.
#[track_caller]
fn refused(outcome: Result<Ready, Vec<PolicyProblem>>, expected: &str) {
    let problems = outcome.expect_err(expected);
    let said = problems.iter().any(|problem| problem.to_string().contains(expected));
    assert!(said, "{expected}: {problems:?}");
}
