//! Reloading a policy when its files change: a valid policy replaces the old one, an invalid one
//! does not.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan::policy::approving::Approving;
use bartizan::policy::load::PolicyFiles;
use bartizan::policy::prove::Prover;
use bartizan::policy::watch::{Answering, PolicyEvent, Triggers, watch};
use bartizan::policy::{PolicySettings, prepare};
use bartizan_gate::duty::decision::PolicyRevision;
use bartizan_gate::duty::pdp::Pdp as _;
use bartizan_rego::{EvalLimits, PolicyProblem, RegoPdp};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(2);

const GOOD: &str = r#"package mcp

permit contains {"code": "one", "message": "first"} if input.method == "ping"
"#;

const BETTER: &str = r#"package mcp

permit contains {"code": "two", "message": "second"} if input.method == "ping"
"#;

fn settings(paths: Vec<PathBuf>) -> PolicySettings {
    PolicySettings {
        files: PolicyFiles { paths, ..PolicyFiles::default() },
        limits: EvalLimits::default(),
        prover: Prover {
            program: env!("CARGO_BIN_EXE_bartizan").into(),
            wall: Duration::from_mins(1),
        },
        workers: 1,
        shadow_one_in: 100,
        approving: Approving::Unknown,
    }
}

/// A watched policy.
struct Watched {
    installed: Arc<Mutex<Vec<PolicyRevision>>>,
    events: mpsc::Receiver<PolicyEvent>,
    again: Arc<Notify>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    async fn start(path: &Path, poll: Duration) -> Self {
        Self::start_with(path, poll, Duration::from_mins(1)).await
    }

    /// With another time for the proofs of changes.
    async fn start_with(path: &Path, poll: Duration, wall: Duration) -> Self {
        let mut settings = settings(vec![path.to_path_buf()]);
        let ready = prepare(&settings).await.unwrap();
        settings.prover.wall = wall;
        let installed = Arc::new(Mutex::new(vec![ready.revision]));
        let answering = Answering { pdp: ready.pdp, fingerprint: ready.fingerprint };
        let (send, events) = mpsc::channel(16);
        let triggers =
            Triggers { again: Arc::new(Notify::new()), poll, stop: CancellationToken::new() };
        let install = {
            let installed = Arc::clone(&installed);
            move |pdp: Arc<RegoPdp>| installed.lock().unwrap().push(pdp.revision())
        };
        let tracker = tokio_util::task::TaskTracker::new();
        let (again, stop) = (Arc::clone(&triggers.again), triggers.stop.clone());
        let task = tracker.spawn(watch(settings, answering, triggers, install, send));
        Self { installed, events, again, stop, task }
    }

    fn answering(&self) -> PolicyRevision {
        self.installed.lock().unwrap().last().unwrap().clone()
    }

    async fn event(&mut self) -> PolicyEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event").unwrap()
    }

    async fn loaded(&mut self) -> PolicyRevision {
        match self.event().await {
            PolicyEvent::Loaded { revision, .. } => {
                assert_eq!(self.answering(), revision);
                revision
            }
            other => panic!("{other:?}"),
        }
    }

    async fn rejected(&mut self) -> Vec<PolicyProblem> {
        match self.event().await {
            PolicyEvent::Rejected { problems, .. } => problems,
            other => panic!("{other:?}"),
        }
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("an end").unwrap();
    }
}

/// So long that only events and triggers can be what was noticed.
const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_proven_change_replaces_the_policy() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.rego");
    fs::write(&file, GOOD).unwrap();
    let mut watched = Watched::start(directory.path(), NEVER).await;
    let first = watched.answering();

    fs::write(&file, BETTER).unwrap();
    let second = watched.loaded().await;
    assert_ne!(first, second);

    fs::write(&file, GOOD).unwrap();
    assert_eq!(watched.loaded().await, first);
    watched.end().await;
}

#[tokio::test]
async fn what_is_not_proven_leaves_the_old_policy_whole() {
    let nested = format!("package mcp\n\nx := {}1{}", "[".repeat(40), "]".repeat(40));
    let huge = format!("package mcp\n\n# {}\n", "x".repeat(17 << 20));
    let cases: &[(&str, &str, &str)] = &[
        ("broken", "package mcp\n\npermit contains {", ""),
        ("empty", "", ""),
        ("not Rego", "{\"permit\": true}", ""),
        (
            "recursive",
            "package mcp\n\nf(x) := f(x + 1)\n\npermit contains {\"message\": f(1)}",
            "recursion",
        ),
        (
            "in a ring",
            "package mcp\n\na := b\n\nb := a\n\npermit contains {\"message\": \"x\"} if a",
            "recursion",
        ),
        ("nested", &nested, ""),
        ("huge", &huge, "bytes"),
        (
            "reaching out",
            "package mcp\n\npermit contains {\"message\": \"x\"} if {\n\thttp.send({\"method\": \
             \"get\", \"url\": \"http://127.0.0.1\"}).status_code == 200\n}",
            "http.send",
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.rego");
    fs::write(&file, GOOD).unwrap();
    let mut watched = Watched::start(directory.path(), NEVER).await;
    let first = watched.answering();
    for (what, text, expected) in cases {
        fs::write(&file, text).unwrap();
        let problems = watched.rejected().await;
        assert!(
            problems.iter().any(|problem| problem.message.contains(expected)),
            "{what}: {problems:?}"
        );
        assert_eq!(watched.answering(), first, "{what}");
    }
    fs::remove_file(&file).unwrap();
    let problems = watched.rejected().await;
    assert!(problems.iter().any(|it| it.message.contains("no `.rego` file")), "{problems:?}");
    assert_eq!(watched.installed.lock().unwrap().len(), 1);

    fs::write(&file, BETTER).unwrap();
    assert_ne!(watched.loaded().await, first);
    watched.end().await;
}

#[tokio::test]
async fn a_policy_that_never_ends_leaves_the_old_one_whole() {
    // The test in it fails at the time limit, unless the proof as a whole runs into its own.
    let looping = r#"package mcp

permit contains {"code": "slow", "message": "after all"} if {
	all := numbers.range(1, 2000)
	count([1 | some a in all; some b in all; some c in all; a * b * c == 0]) == 0
}

test_it_permits if count(permit) > 0
"#;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.rego");
    fs::write(&file, GOOD).unwrap();
    let mut watched = Watched::start_with(directory.path(), NEVER, Duration::from_secs(5)).await;
    let first = watched.answering();
    fs::write(&file, looping).unwrap();
    let problems = watched.rejected().await;
    assert!(!problems.is_empty());
    assert_eq!(watched.answering(), first);
    watched.end().await;
}

#[tokio::test]
async fn a_test_that_fails_refuses_the_policy() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("rules.rego"), GOOD).unwrap();
    let tests = directory.path().join("rules_test.rego");
    let test = |code: &str| {
        format!(
            "package mcp_test\n\ntest_ping if {{\n\tsome rule in data.mcp.permit with \
             input as {{\"method\": \"ping\"}}\n\trule.code == \"{code}\"\n}}\n"
        )
    };
    fs::write(&tests, test("one")).unwrap();
    let mut watched = Watched::start(directory.path(), NEVER).await;
    let first = watched.answering();
    fs::write(&tests, test("other")).unwrap();
    let problems = watched.rejected().await;
    let [problem] = &*problems else { panic!("{problems:?}") };
    assert!(problem.message.contains("test_ping"), "{problem:?}");
    assert_eq!(Path::new(&problem.file), tests);
    assert_eq!(watched.answering(), first);
    watched.end().await;
}

/// As the kubelet does it: files are links through `..data`, which is swapped by a rename.
#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path();
    let publish = |version: &str, text: &str| {
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("rules.rego"), text).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    publish("..2026_01", GOOD);
    symlink("..data/rules.rego", mount.join("rules.rego")).unwrap();
    let mut watched = Watched::start(mount, NEVER).await;
    let first = watched.answering();

    publish("..2026_02", BETTER);
    fs::remove_dir_all(mount.join("..2026_01")).unwrap();
    assert_ne!(watched.loaded().await, first);

    publish("..2026_03", GOOD);
    fs::remove_dir_all(mount.join("..2026_02")).unwrap();
    assert_eq!(watched.loaded().await, first);
    watched.end().await;
}

#[tokio::test]
async fn a_link_to_a_release_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    for (release, text) in [("1", GOOD), ("2", BETTER)] {
        fs::create_dir_all(directory.path().join("releases").join(release)).unwrap();
        fs::write(directory.path().join("releases").join(release).join("a.rego"), text).unwrap();
    }
    let current = directory.path().join("current");
    symlink("releases/1", &current).unwrap();
    let mut watched = Watched::start(&current, NEVER).await;
    let first = watched.answering();

    symlink("releases/2", directory.path().join("next")).unwrap();
    fs::rename(directory.path().join("next"), &current).unwrap();
    assert_ne!(watched.loaded().await, first);

    // The watch is on the new release now.
    fs::write(directory.path().join("releases/2/a.rego"), GOOD).unwrap();
    assert_eq!(watched.loaded().await, first);
    watched.end().await;
}

#[tokio::test]
async fn a_trigger_reads_again_without_a_change() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("rules.rego"), GOOD).unwrap();
    let mut watched = Watched::start(directory.path(), NEVER).await;
    let first = watched.answering();
    watched.again.notify_one();
    assert_eq!(watched.loaded().await, first);
    assert_eq!(watched.installed.lock().unwrap().len(), 2);
    watched.end().await;
}

/// A link that is swapped where no event is asked for.
#[tokio::test]
async fn what_no_event_tells_is_found_by_looking() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (release, text) in [("far/1", GOOD), ("far/2", BETTER)] {
        fs::create_dir_all(path(release)).unwrap();
        fs::write(path(release).join("a.rego"), text).unwrap();
    }
    symlink("1", path("far/current")).unwrap();
    fs::create_dir(path("near")).unwrap();
    symlink("../far/current", path("near/policies")).unwrap();
    let mut watched = Watched::start(&path("near/policies"), Duration::from_millis(50)).await;
    let first = watched.answering();
    symlink("2", path("far/next")).unwrap();
    fs::rename(path("far/next"), path("far/current")).unwrap();
    assert_ne!(watched.loaded().await, first);
    watched.end().await;
}

#[tokio::test]
async fn a_child_that_gives_no_answer_refuses_the_policy() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("rules.rego"), GOOD).unwrap();
    // Each of these is started as `<program> policy-prove`.
    for (program, wall, expected) in [
        ("/no/such/program", PATIENCE, "did not start"),
        ("/bin/cat", PATIENCE, "ended with code 1"),
        ("/bin/echo", PATIENCE, "gave no answer"),
        ("/bin/true", PATIENCE, "gave no answer"),
        // Writes without end.
        ("/usr/bin/yes", Duration::from_millis(300), "took longer than"),
    ] {
        let mut settings = settings(vec![directory.path().to_path_buf()]);
        settings.prover = Prover { program: program.into(), wall };
        let problems = prepare(&settings).await.unwrap_err();
        let [problem] = &*problems else { panic!("{program}: {problems:?}") };
        assert!(problem.message.contains(expected), "{program}: {problem:?}");
        assert!(problem.hint.is_some(), "{program}");
    }
}
