//! What is under `deploy/`: every configuration means something, every command line is one, every
//! file that a manifest names is there, and the policy that ships decides as its tests say.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use bartizan::cli;
use bartizan::config::{Config, Front, PackRef, Surroundings};
use bartizan::policy::embedded;
use bartizan::policy::load::{self, PolicyFiles};
use bartizan_rego::{self, EvalLimits};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Reads a configuration as if every secret and every path that it names existed.
fn configuration(path: &Path) -> Config {
    let surroundings = Surroundings {
        env: &|_| Some("s3cret".to_owned()),
        read: &|_, _| Ok(b"s3cret\n".to_vec()),
        exists: &|_| true,
    };
    let text = fs::read_to_string(path).unwrap();
    Config::parse_in(&text, path.parent().unwrap(), &surroundings)
        .unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()))
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
    files.sort();
    files
}

#[test]
fn every_configuration_loads() {
    let mut paths = files(&deploy().join("config"), "yaml");
    assert!(paths.len() >= 3, "{paths:?}");
    paths.push(deploy().join("kubernetes/base/bartizan.yaml"));
    for path in paths {
        let config = configuration(&path);
        for server in &config.servers {
            if let Some(PackRef::Embedded(name)) = &server.pack {
                assert!(embedded::pack(name).is_some(), "{}: no pack {name}", path.display());
            }
        }
    }
}

#[test]
fn the_sidecar_listens_to_its_pod_alone() {
    let config = configuration(&deploy().join("kubernetes/base/bartizan.yaml"));
    let Front::Http { listen, admin } = config.front else { panic!("no listener") };
    assert!(listen.ip().is_loopback(), "{listen}");
    let deployment = fs::read_to_string(deploy().join("kubernetes/base/deployment.yaml")).unwrap();
    assert!(deployment.contains(&format!("containerPort: {}", admin.port())));
    assert!(deployment.contains(&format!("http://127.0.0.1:{}/mcp", listen.port())));
    let grace = deployment.split("terminationGracePeriodSeconds: ").nth(1).unwrap();
    let grace: u64 = grace.lines().next().unwrap().parse().unwrap();
    assert!(grace > config.limits.drain.as_secs(), "killed before it has drained");
    let credential = "mountPath: /run/secrets/flag-service";
    assert_eq!(deployment.matches(credential).count(), 1, "mounted into the sidecar alone");
}

#[test]
fn what_a_kustomization_names_is_there() {
    let base = deploy().join("kubernetes/base");
    let text = fs::read_to_string(base.join("kustomization.yaml")).unwrap();
    let named: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|item| {
            Path::new(item).extension().is_some_and(|end| end == "yaml" || end == "rego")
        })
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    for name in &named {
        assert!(base.join(name).is_file(), "{name} is not there");
    }
    for path in files(&base.join("policies"), "rego") {
        let name = format!("policies/{}", path.file_name().unwrap().to_str().unwrap());
        assert!(named.contains(&name.as_str()), "{name} would not be mounted");
    }
}

#[test]
fn desktop_clients_start_a_valid_command() {
    let mut started = 0;
    for path in files(&deploy().join("desktop"), "json") {
        let text = fs::read_to_string(&path).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, server) in file["mcpServers"].as_object().unwrap() {
            assert_eq!(server["command"], "bartizan", "{name}");
            let args = server["args"].as_array().unwrap().iter();
            let args = args.map(|arg| OsString::from(arg.as_str().unwrap()));
            let line = std::iter::once(OsString::from("bartizan")).chain(args);
            cli::accepts(line).unwrap_or_else(|why| panic!("{name}: {why}"));
            started += 1;
        }
    }
    assert!(started >= 3, "{started}");
    let wrong = ["bartizan", "wrap", "--pck", "x", "--", "y"].map(OsString::from);
    assert!(cli::accepts(wrong).is_err(), "accepts anything");
}

#[test]
fn the_policy_of_the_sidecar_passes_its_tests() {
    let files = PolicyFiles {
        paths: vec![deploy().join("kubernetes/base/policies")],
        ..PolicyFiles::default()
    };
    let loaded = load::load(&files).unwrap();
    let outcomes = bartizan_rego::run_tests(&loaded.proving, &EvalLimits::default()).unwrap();
    let own = outcomes.iter().filter(|outcome| outcome.name.contains("mcp_agent_test")).count();
    assert!(own >= 5, "{outcomes:?}");
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
