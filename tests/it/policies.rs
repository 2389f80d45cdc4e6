//! The policies that ship: each compiles, its tests pass, and with the demo's pack it gives the
//! verdicts that its documentation promises, on both engines. And how policy files are found.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bartizan::policy::embedded;
use bartizan::policy::load::{LoadLimits, Loaded, PolicyFiles, load};
use bartizan_gate::duty::decision::{Decision, Effect, Engine, Listing, Obligation, Origin};
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::question::access::{
    AccessRequest, Action, Principal, Resource, Server, WallTime,
};
use bartizan_gate::question::operation::Operation;
use bartizan_gate::question::pack::{Effect as Does, Pack};
use bartizan_gate::question::status::DefinitionStatus;
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bartizan_gate::wire::method::Method;
use bartizan_gate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};
use bartizan_rego::{Entrypoints, EvalLimits, Policy, RegoPdp, prove, run_tests};
use bytes::Bytes;

pub(crate) fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

/// Every file below `directory` whose name ends in `ending`.
pub(crate) fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn loaded(paths: &[PathBuf]) -> Loaded {
    let files = PolicyFiles { paths: paths.to_vec(), ..PolicyFiles::default() };
    load(&files).unwrap_or_else(|problems| panic!("{paths:?}: {problems:#?}"))
}

#[test]
fn every_policy_compiles_and_its_tests_pass() {
    let policies = policies();
    let groups: Vec<Vec<PathBuf>> = vec![
        vec![],
        vec![policies.join("baseline")],
        vec![policies.join("examples/open")],
        vec![policies.join("baseline"), policies.join("examples/read-only")],
        vec![policies.join("baseline"), policies.join("examples/review-rollouts")],
        // As `opa test policies/` loads them.
        vec![policies.clone()],
    ];
    for paths in groups {
        let loaded = loaded(&paths);
        Policy::compile(&loaded.serving, &Entrypoints::default(), &EvalLimits::default())
            .unwrap_or_else(|problems| panic!("{paths:?}: {problems:#?}"));
        let outcomes = run_tests(&loaded.proving, &EvalLimits::default()).unwrap();
        let failed: Vec<_> = outcomes.iter().filter(|test| !test.passed).collect();
        assert!(failed.is_empty(), "{paths:?}: {failed:#?}");
        let tested: BTreeSet<&str> = outcomes.iter().map(|test| &*test.file).collect();
        for module in &loaded.serving.modules {
            let test = module.path.replace(".rego", "_test.rego");
            assert!(tested.contains(&*test), "{} has no test beside it", module.path);
        }
    }
}

#[test]
fn what_ships_runs_on_the_compiled_engine() {
    for paths in [vec![], vec![policies().join("examples/open")]] {
        let loaded = loaded(&paths);
        let proof =
            prove(&loaded.proving, &Entrypoints::default(), &EvalLimits::default(), loaded.seed)
                .unwrap();
        assert!(proof.compiled, "{paths:?}: {:?}", proof.reasons);
    }
}

#[test]
fn the_program_carries_every_file() {
    let mut embedded: Vec<(String, String)> = [
        embedded::decision(),
        embedded::decision_tests(),
        embedded::baseline(),
        embedded::baseline_tests(),
    ]
    .into_iter()
    .flatten()
    .map(|module| (module.path.replace("embedded/", ""), module.text))
    .collect();
    embedded.sort();
    let mut on_disk: Vec<(String, String)> = ["mcp", "baseline"]
        .iter()
        .flat_map(|directory| files(&policies().join(directory), ".rego"))
        .map(|path| {
            let name = path.strip_prefix(policies()).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    on_disk.sort();
    assert_eq!(embedded, on_disk);

    let packs: BTreeSet<String> = files(&policies().join("packs"), "pack.json")
        .iter()
        .map(|path| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> =
        embedded::PACKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(packs, known);
}

/// Both engines with the policy below `paths`.
fn engines(paths: &[PathBuf]) -> [RegoPdp; 2] {
    let loaded = loaded(paths);
    let policy = || {
        Policy::compile(&loaded.serving, &Entrypoints::default(), &EvalLimits::default()).unwrap()
    };
    [RegoPdp::strict(policy(), 1), RegoPdp::compiled(policy(), 1, 1).unwrap()]
}

/// What a question differs in from another.
struct Question<'a> {
    pin: Option<&'a str>,
    packed: bool,
    direction: Direction,
    method: &'a str,
    tool: Option<(&'a str, &'a str)>,
}

impl<'a> Question<'a> {
    fn call(pin: Option<&'a str>, tool: &'a str, arguments: &'a str) -> Self {
        let direction = Direction::ToServer;
        Self { pin, packed: true, direction, method: "tools/call", tool: Some((tool, arguments)) }
    }

    fn method(direction: Direction, method: &'a str) -> Self {
        Self { pin: Some("staging"), packed: true, direction, method, tool: None }
    }

    fn ask<T>(&self, with: impl FnOnce(&AccessRequest<'_>) -> T) -> T {
        let pack = Pack::read(embedded::pack("flag-service").unwrap().as_bytes()).unwrap();
        let server = Server {
            name: "flags".into(),
            environment: self.pin.map(Into::into),
            pack: self.packed.then(|| Arc::new(pack)),
            ..Server::default()
        };
        let principal = Principal { id: "agent-1".into(), ..Principal::default() };
        let arguments = self.tool.map_or("{}", |(_, arguments)| arguments);
        let arguments = Bytes::copy_from_slice(arguments.as_bytes());
        let document = Document::read(arguments, &DocumentLimits::default()).unwrap();
        let root = document.root();
        let (action, resource, operation) = if let Some((name, _)) = self.tool {
            (
                Action::CallTool,
                Resource::Tool {
                    name,
                    arguments: Some(root),
                    definition: None,
                    status: DefinitionStatus::default(),
                },
                Operation::of_call(server.pack.as_deref(), name, Some(root)),
            )
        } else {
            let row = Method::find(self.method, self.direction, None);
            let action = row.map_or(Action::Unknown, |row| row.action);
            (action, Resource::Whole, Operation::of_method(Does::Read))
        };
        with(&AccessRequest {
            principal: &principal,
            client: None,
            server: &server,
            protocol: Protocol {
                revision: Some(Revision::V20251125),
                era: Era::Legacy,
                transport: Transport::Http,
            },
            direction: self.direction,
            method: self.method,
            action,
            resource,
            params: None,
            operation: operation.into(),
            facts: [].into(),
            time: WallTime { unix_ms: 1_790_000_000_000 },
            approval: None,
            trace_id: None,
        })
    }

    fn decide(&self, engines: &[RegoPdp; 2]) -> Decision {
        let [strict, compiled] = engines;
        let answer = self.ask(|request| strict.decide(request));
        let other = self.ask(|request| compiled.decide(request));
        assert_eq!(answer.engine, Engine::Strict);
        assert_eq!(other.engine, Engine::Compiled);
        assert_eq!(compiled.demotion(), None);
        assert_eq!(Decision { engine: Engine::Strict, ..other }, answer);
        answer
    }
}

fn codes(decision: &Decision) -> Vec<&str> {
    decision.reasons.iter().map(|reason| &*reason.code).collect()
}

fn limits(decision: &Decision) -> Vec<&str> {
    let code = |obligation: &'_ Obligation| match obligation {
        Obligation::Limit { .. } => Some(()),
        Obligation::Hold(_) | Obligation::Set { .. } | Obligation::Redact { .. } => None,
    };
    assert!(decision.obligations.iter().all(|it| code(it).is_some()));
    let mut codes: Vec<&str> = decision
        .obligations
        .iter()
        .filter_map(|obligation| match obligation {
            Obligation::Limit(limit) => Some(&*limit.code),
            Obligation::Hold(_) | Obligation::Set { .. } | Obligation::Redact { .. } => None,
        })
        .collect();
    codes.sort_unstable();
    codes
}

#[test]
fn the_baseline_judges_the_flag_service() {
    use Effect::{Deny, Permit};
    let engines = engines(&[]);
    let staging = Some("staging");
    let cases: &[(Option<&str>, &str, &str, Effect, &str)] = &[
        (staging, "list_flags", "{}", Permit, "reads"),
        (staging, "get_flag", r#"{"environment":"production"}"#, Permit, "reads"),
        (None, "get_audit_log", "{}", Permit, "reads"),
        (staging, "update_flag", r#"{"environment":"staging"}"#, Permit, "pinned-writes"),
        (staging, "set_rollout", r#"{"environment":"staging"}"#, Permit, "pinned-writes"),
        (staging, "create_flag", r#"{"environments":["staging"]}"#, Permit, "pinned-writes"),
        (staging, "update_flag", r#"{"environment":"production"}"#, Deny, "wrong-environment"),
        (staging, "update_flag", r#"{"environment":"Staging"}"#, Deny, "wrong-environment"),
        (staging, "update_flag", r#"{"environment":"staging "}"#, Deny, "wrong-environment"),
        (staging, "update_flag", "{}", Deny, "absent-environment"),
        (staging, "update_flag", r#"{"environment":null}"#, Deny, "absent-environment"),
        (staging, "update_flag", r#"{"environment":""}"#, Deny, "absent-environment"),
        (staging, "update_flag", r#"{"environment":1}"#, Deny, "unreadable-environment"),
        (staging, "update_flag", r#"{"environment":{}}"#, Deny, "unreadable-environment"),
        (
            staging,
            "update_flag",
            r#"{"environment":"staging","Environment":"production"}"#,
            Deny,
            "unreadable-environment",
        ),
        (staging, "create_flag", "{}", Deny, "absent-environment"),
        (
            staging,
            "create_flag",
            r#"{"environments":["staging","production"]}"#,
            Deny,
            "wrong-environment",
        ),
        (None, "update_flag", r#"{"environment":"staging"}"#, Deny, "no-pin"),
        (staging, "delete_flag", r#"{"environment":"staging"}"#, Deny, "destructive"),
        (staging, "delete_flag", r#"{"environment":"production"}"#, Deny, "wrong-environment"),
        (staging, "delete_flag", "{}", Deny, "absent-environment"),
        (
            staging,
            "replace_flag",
            r#"{"rules":[{"environments":["staging"]}]}"#,
            Deny,
            "destructive",
        ),
        (
            staging,
            "replace_flag",
            r#"{"rules":[{"environments":["staging"]},{}]}"#,
            Deny,
            "absent-environment",
        ),
        (staging, "run_script", r#"{"code":"x"}"#, Deny, "exec"),
        (staging, "no_such_tool", "{}", Deny, "unknown-tool"),
        (staging, "Update_flag", r#"{"environment":"staging"}"#, Deny, "unknown-tool"),
    ];
    for (pin, tool, arguments, effect, code) in cases {
        let decision = Question::call(*pin, tool, arguments).decide(&engines);
        assert_eq!(
            (decision.effect, &*codes(&decision)),
            (*effect, &[*code][..]),
            "{tool} {arguments}"
        );
        let duties: &[&str] = match (effect, *code) {
            // Refused calls count as calls, too.
            (Deny, _) | (Permit, "reads") => &["calls"],
            (Permit, _) => &["calls", "writes"],
        };
        assert_eq!(limits(&decision), duties, "{tool} {arguments}");
    }
    let approval = Question::call(staging, "approve_review", "{}").decide(&engines);
    assert_eq!(approval.effect, Deny);
    let said: BTreeSet<&str> = codes(&approval).into_iter().collect();
    assert_eq!(said, BTreeSet::from(["approval-control"]));
}

#[test]
fn the_baseline_opens_the_protocol() {
    let engines = engines(&[]);
    let cases = [
        (Direction::ToServer, "initialize", Effect::Permit, "protocol"),
        (Direction::ToServer, "server/discover", Effect::Permit, "protocol"),
        (Direction::ToServer, "tools/list", Effect::Permit, "protocol"),
        (Direction::ToServer, "resources/read", Effect::Permit, "published"),
        (Direction::ToServer, "completion/complete", Effect::Permit, "published"),
        (Direction::ToServer, "notifications/initialized", Effect::Permit, "notices"),
        (Direction::ToClient, "notifications/message", Effect::Permit, "notices"),
        (Direction::ToClient, "roots/list", Effect::Permit, "server-requests"),
        (Direction::ToClient, "sampling/createMessage", Effect::Permit, "server-requests"),
        (Direction::ToClient, "elicitation/create", Effect::Permit, "server-requests"),
        (Direction::ToServer, "vendor/reindex", Effect::Deny, "unknown-method"),
        (Direction::ToClient, "resources/read", Effect::Deny, "unknown-method"),
    ];
    for (direction, method, effect, code) in cases {
        let decision = Question::method(direction, method).decide(&engines);
        assert_eq!((decision.effect, &*codes(&decision)), (effect, &[code][..]), "{method}");
    }
}

#[test]
fn without_a_pack_nothing_but_what_is_named_may_be_called() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data.json");
    fs::write(&data, r#"{"baseline": {"allow_tools": {"flags": ["echo"]}}}"#).unwrap();
    let engines = engines(&[policies().join("baseline"), data]);
    for (tool, effect, code) in
        [("echo", Effect::Permit, "allowed-tools"), ("echo2", Effect::Deny, "unknown-tool")]
    {
        let question = Question { packed: false, ..Question::call(None, tool, "{}") };
        let decision = question.decide(&engines);
        assert_eq!((decision.effect, &*codes(&decision)), (effect, &[code][..]), "{tool}");
    }
}

#[test]
fn the_open_example_permits_what_is_well_formed() {
    let engines = engines(&[policies().join("examples/open")]);
    for question in [
        Question::call(None, "anything", "{}"),
        Question::call(Some("staging"), "delete_flag", "{}"),
        Question::method(Direction::ToServer, "vendor/reindex"),
        Question::method(Direction::ToClient, "elicitation/create"),
    ] {
        let decision = question.decide(&engines);
        assert_eq!((decision.effect, &*codes(&decision)), (Effect::Permit, &["open"][..]));
    }
}

#[test]
fn the_open_example_stands_back_behind_the_baseline() {
    let engines = engines(&[policies().join("baseline"), policies().join("examples/open")]);
    let decision = Question::call(None, "anything", "{}").decide(&engines);
    assert_eq!((decision.effect, &*codes(&decision)), (Effect::Deny, &["unknown-tool"][..]));
}

#[test]
fn a_policy_of_ones_own_needs_nothing_but_rules() {
    let directory = tempfile::tempdir().unwrap();
    let rule =
        "package mcp\n\npermit contains {\"message\": \"ping\"} if input.method == \"ping\"\n";
    fs::write(directory.path().join("own.rego"), rule).unwrap();
    let engines = engines(&[directory.path().to_path_buf()]);
    let ping = Question::method(Direction::ToServer, "ping").decide(&engines);
    assert_eq!(ping.effect, Effect::Permit);
    let other = Question::method(Direction::ToServer, "tools/list").decide(&engines);
    assert_eq!(other.effect, Effect::Deny);
    assert_eq!(other.reasons[0].origin, Origin::NotApplicable);
}

#[test]
fn the_baseline_hides_nothing() {
    let question = Question::method(Direction::ToServer, "tools/list");
    for engine in engines(&[]) {
        let entry = ListEntry {
            name: "delete_flag",
            operation: Some(Operation::of_method(Does::Destructive)),
            digest: "sha256:0",
            definition: None,
            status: DefinitionStatus::default(),
        };
        let listing = question.ask(|request| engine.list(request, &[entry]));
        let Listing::Hide { names, .. } = listing else { panic!("{listing:?}") };
        assert!(names.is_empty());
    }
}

const RULE: &str = "package mcp\n";

/// Writes files below a new directory.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn revision(files: &[(&str, &str)]) -> String {
    let directory = tree(files);
    loaded(&[directory.path().to_path_buf()]).serving.revision.to_string()
}

#[test]
fn a_revision_names_what_decides() {
    let first = revision(&[("a.rego", RULE), ("b.rego", RULE)]);
    assert_eq!(first.len(), "sha256:0123456789abcdef".len());
    assert!(first.starts_with("sha256:"));
    // The revision does not depend on the directory or on other files in it.
    assert_eq!(
        revision(&[
            ("b.rego", RULE),
            ("a.rego", RULE),
            ("a_test.rego", "package t\n"),
            ("README.md", "x"),
            (".hidden.rego", "broken"),
            (".git/c.rego", "broken"),
        ]),
        first
    );
    for other in [
        &[("a.rego", RULE)][..],
        &[("a.rego", RULE), ("c.rego", RULE)],
        &[("a.rego", RULE), ("d/b.rego", RULE)],
        &[("a.rego", RULE), ("b.rego", "package mcp\n\nx := 1\n")],
        &[("a.rego", RULE), ("b.rego", RULE), ("data.json", "{}")],
    ] {
        assert_ne!(revision(other), first, "{other:?}");
    }
}

#[test]
fn tests_are_kept_for_the_proof() {
    let directory = tree(&[("a.rego", RULE), ("a_test.rego", "package t\n")]);
    let loaded = loaded(&[directory.path().to_path_buf()]);
    let names = |modules: &[bartizan_rego::Module]| -> Vec<String> {
        let name = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
        modules.iter().map(|module| name(&module.path)).collect()
    };
    assert_eq!(names(&loaded.serving.modules), ["a.rego", "decision.rego"]);
    assert_eq!(
        names(&loaded.proving.modules),
        ["a.rego", "decision.rego", "a_test.rego", "decision_test.rego"]
    );
}

#[test]
fn the_decision_is_added_unless_there_is_one() {
    let has = |loaded: &Loaded| {
        let embedded = "embedded/mcp/decision.rego";
        loaded.serving.modules.iter().any(|module| module.path == embedded)
    };
    let own = tree(&[("mcp/decision.rego", RULE)]);
    assert!(!has(&loaded(&[own.path().to_path_buf()])));
    assert!(!has(&loaded(&[own.path().join("mcp")])));
    assert!(!has(&loaded(&[own.path().join("mcp/decision.rego")])));
    let other = tree(&[("a.rego", RULE)]);
    assert!(has(&loaded(&[other.path().to_path_buf()])));
    let entrypoints = |decision: &str, listing: &str| {
        let files = PolicyFiles {
            paths: vec![other.path().to_path_buf()],
            entrypoints: Entrypoints { decision: decision.into(), listing: listing.into() },
            ..PolicyFiles::default()
        };
        has(&load(&files).unwrap())
    };
    assert!(!entrypoints("data.a.verdict", "data.a.listing"));
    // One of the two is still needed.
    assert!(entrypoints("data.a.verdict", "data.mcp.listing"));
    assert!(entrypoints("data.mcp.decision", "data.a.listing"));
}

#[test]
fn data_files_are_put_together() {
    let directory = tree(&[
        ("a.rego", RULE),
        ("data.json", r#"{"x": {"n": 1.50, "big": 12345678901234567890123}, "e": {}}"#),
        ("x/data.json", r#"{"m": "é\u2028\""}"#),
        ("x/y/data.json", r#"{"z": [1, {"k": null}]}"#),
    ]);
    let loaded = loaded(&[directory.path().to_path_buf()]);
    assert_eq!(
        loaded.serving.data.unwrap(),
        r#"{"e":{},"x":{"big":12345678901234567890123,"m":"é\u2028\"","n":1.50,"y":{"z":[1, {"k": null}]}}}"#
    );
}

#[test]
fn what_cannot_be_loaded_is_named() {
    type Tree<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Tree<'_>, &str, &str)] = &[
        (&[("a.txt", "")], "", "no `.rego` file"),
        (&[("a_test.rego", RULE)], "", "no `.rego` file"),
        (&[("a.rego", RULE), ("data.yaml", "a: 1")], "data.yaml", "must be JSON"),
        (&[("a.rego", RULE), ("data.json", "[]")], "data.json", "not an object"),
        (&[("a.rego", RULE), ("data.json", "{\"a\":1,}")], "data.json", "not JSON"),
        (&[("a.rego", RULE), ("data.json", "{\"a\":1,\"a\":2}")], "data.json", "twice"),
        (
            &[("a.rego", RULE), ("data.json", "{\"x\":{\"k\":1}}"), ("x/data.json", "{\"k\":1}")],
            "x/data.json",
            "`data.x.k`",
        ),
        (
            &[("a.rego", RULE), ("data.json", "{\"x\":1}"), ("x/data.json", "{\"k\":1}")],
            "x/data.json",
            "`data.x`",
        ),
    ];
    for (files, file, expected) in cases {
        let directory = tree(files);
        let files =
            PolicyFiles { paths: vec![directory.path().to_path_buf()], ..PolicyFiles::default() };
        let problems = load(&files).unwrap_err();
        let [problem] = &*problems else { panic!("{problems:?}") };
        assert!(problem.message.contains(expected), "{problem:?}");
        assert!(problem.file.ends_with(file), "{problem:?}");
        assert!(problem.hint.is_some(), "{problem:?}");
    }
    let files = PolicyFiles { paths: vec!["/no/such/path".into()], ..PolicyFiles::default() };
    assert!(load(&files).unwrap_err()[0].message.contains("cannot be opened"));
}

#[test]
fn every_problem_is_named_at_once() {
    let directory = tree(&[("data.yaml", ""), ("b/data.json", "["), ("c.rego", RULE)]);
    fs::write(directory.path().join("d.rego"), b"package mcp\n# \xff\n").unwrap();
    let files = PolicyFiles {
        paths: vec![directory.path().to_path_buf(), "/no/such/path".into()],
        ..PolicyFiles::default()
    };
    let problems = load(&files).unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:#?}");
    let utf8 = problems.iter().find(|problem| problem.file.ends_with("d.rego")).unwrap();
    assert_eq!(utf8.line, Some(2));
}

#[test]
fn reading_is_bounded() {
    let directory = tree(&[("a.rego", RULE), ("b.rego", RULE), ("c/d/e.rego", RULE)]);
    let with = |limits: LoadLimits| {
        let paths = vec![directory.path().to_path_buf()];
        load(&PolicyFiles { paths, limits, ..PolicyFiles::default() })
            .err()
            .map(|problems| problems[0].message.clone())
            .unwrap_or_default()
    };
    let limits = LoadLimits::default();
    let bytes = u64::try_from(RULE.len()).unwrap();
    assert_eq!(with(LoadLimits { files_max: 3, ..limits }), "");
    assert!(with(LoadLimits { files_max: 2, ..limits }).contains("more than 2 files"));
    assert_eq!(with(LoadLimits { file_bytes_max: bytes, ..limits }), "");
    assert!(with(LoadLimits { file_bytes_max: bytes - 1, ..limits }).contains("bytes"));
    assert_eq!(with(LoadLimits { total_bytes_max: 3 * bytes, ..limits }), "");
    assert!(with(LoadLimits { total_bytes_max: 3 * bytes - 1, ..limits }).contains("bytes"));
    assert_eq!(with(LoadLimits { depth_max: 2, ..limits }), "");
    assert!(with(LoadLimits { depth_max: 1, ..limits }).contains("more than 1 directories"));
    assert_eq!(with(LoadLimits { entries_max: 5, ..limits }), "");
    assert!(with(LoadLimits { entries_max: 4, ..limits }).contains("more than 4 entries"));
}

#[test]
fn links_stay_inside_the_directory_that_was_named() {
    let outside = tree(&[("secret.rego", RULE), ("inner/more.rego", RULE)]);
    for (target, link) in [("secret.rego", "a.rego"), ("inner", "a")] {
        let directory = tree(&[("own.rego", RULE)]);
        symlink(outside.path().join(target), directory.path().join(link)).unwrap();
        let paths = vec![directory.path().to_path_buf()];
        let problems = load(&PolicyFiles { paths, ..PolicyFiles::default() });
        // A link to a directory elsewhere is as much a way out as one to a file.
        let problems = problems.unwrap_err();
        assert!(problems[0].message.contains("links outside"), "{link}: {problems:?}");
    }
    // Links inside the directory are followed once, so a cycle of links ends.
    let directory = tree(&[("real/own.rego", RULE)]);
    symlink("real/own.rego", directory.path().join("again.rego")).unwrap();
    symlink("..", directory.path().join("real/up")).unwrap();
    let loaded = loaded(&[directory.path().to_path_buf()]);
    assert_eq!(loaded.serving.modules.len(), 2);
    // The named path itself may be a link.
    let around = tempfile::tempdir().unwrap();
    symlink(directory.path(), around.path().join("link")).unwrap();
    assert_eq!(self::loaded(&[around.path().join("link")]).serving.modules.len(), 2);
}
