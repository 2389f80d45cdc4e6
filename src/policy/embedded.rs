//! The policies and packs that are compiled into the program. They are used where a configuration
//! names none.
//!
//! The texts are the files of `policies/`. They are loaded and proven like any other policy. The
//! loader (`load`, `sources`) and the configuration call this module.

use bartizan_rego::Module;

/// With what the paths of their modules begin.
pub const PREFIX: &str = "embedded/";

/// A policy file: its path below `policies/` and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../policies/", $path)))),+]
    };
}

macro_rules! packs {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../policies/packs/", $name, "/pack.json")))),+]
    };
}

const DECISION: &[File] = files!["mcp/decision.rego"];

const DECISION_TESTS: &[File] = files!["mcp/decision_test.rego"];

const BASELINE: &[File] = files![
    "baseline/definitions.rego",
    "baseline/limits.rego",
    "baseline/protocol.rego",
    "baseline/tools.rego"
];

const BASELINE_TESTS: &[File] = files![
    "baseline/definitions_test.rego",
    "baseline/limits_test.rego",
    "baseline/protocol_test.rego",
    "baseline/tools_test.rego",
];

const REVIEW_ROLLOUTS: &[File] = files!["examples/review-rollouts/review_rollouts.rego"];

/// The packs: name and JSON text for [`Pack::read`](bartizan_gate::question::pack::Pack::read),
/// sorted by name.
pub const PACKS: &[File] = packs![
    "amplitude",
    "cequence-gateway",
    "configcat",
    "devcycle",
    "flag-service",
    "flagsmith",
    "github",
    "growthbook",
    "harness",
    "kubernetes",
    "launchdarkly",
    "posthog",
    "statsig-docs",
    "statsig-v1",
    "statsig-v3",
    "stigg",
    "stripe",
    "unleash",
];

/// The JSON text of the pack with this name; `None` where there is none.
pub fn pack(name: &str) -> Option<&'static str> {
    PACKS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// `mcp/decision.rego`, which combines the rules of any policy into the decision.
pub fn decision() -> Vec<Module> {
    modules(DECISION)
}

/// The tests of [`decision`].
pub fn decision_tests() -> Vec<Module> {
    modules(DECISION_TESTS)
}

/// The baseline: the default policy.
pub fn baseline() -> Vec<Module> {
    modules(BASELINE)
}

/// The tests of [`baseline`].
pub fn baseline_tests() -> Vec<Module> {
    modules(BASELINE_TESTS)
}

/// An example to load beside [`baseline`]: it holds rollouts for a person's approval.
pub fn review_rollouts() -> Vec<Module> {
    modules(REVIEW_ROLLOUTS)
}

fn modules(files: &[File]) -> Vec<Module> {
    files
        .iter()
        .map(|(path, text)| Module { path: format!("{PREFIX}{path}"), text: (*text).to_owned() })
        .collect()
}
