//! A process that keeps a store is killed at any moment, again and again.
//!
//! It says each step before it begins it and after it is done. Whatever it said, the next one must
//! find: what was done is there, and what was only begun is there or not.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bartizan_approvals::store::embedded::{EmbeddedStore, FILE_NAME};
use bartizan_approvals::{ApprovalLimits, Approvals, HoldState, HoldView};
use bartizan_gate::duty::hold::Hold;
use bartizan_gate::evidence::record::Now;

use crate::calls::person;
use crate::{Random, made, number};

/// Names the folder of the store for the child.
const FOLDER: &str = "BARTIZAN_APPROVALS_KILL_FOLDER";
/// Names the number of the run for the child: it must not use the calls of another one.
const RUN: &str = "BARTIZAN_APPROVALS_KILL_RUN";
/// Lines that the child may write at most until it is killed.
const LINES: usize = 60;

fn now() -> Now {
    Now { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) }
}

fn call(name: &str) -> Hold {
    made::hold(made::Parts {
        principal: "p".into(),
        target: "t".into(),
        environment: "e".into(),
        shown: format!(r#"{{"n":"{name}"}}"#),
        revision: "r".into(),
        approvers: Vec::new(),
        quorum: 1,
        ttl: Duration::from_hours(1),
        scopes: Vec::new(),
    })
}

fn open(folder: &Path) -> Arc<Approvals> {
    let store = EmbeddedStore::open(&folder.join(FILE_NAME)).unwrap();
    let limits = ApprovalLimits {
        holds_per_principal: 10_000,
        holds_per_server: 10_000,
        holds: 10_000,
        asks: 1_000_000,
        history: 40,
        ..ApprovalLimits::default()
    };
    Arc::new(Approvals::open(Box::new(store), limits, Box::new(now)).unwrap())
}

fn grant(approvals: &Approvals, id: &str) {
    let seen = approvals.get(id).unwrap();
    approvals.grant(id, &seen.digest, &person(0), "yes", None, now()).unwrap();
}

#[test]
#[ignore = "a child of other tests"]
fn child() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let run = std::env::var(RUN).unwrap();
    let mut out = std::io::stdout().lock();
    let mut say = |what: &str, name: &str| {
        out.write_all(format!("\n!{what} {name}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    say("open", "");
    let approvals = open(Path::new(&folder));
    for round in 0.. {
        let name = |what: &str| format!("{run}.{round}.{what}");
        for what in ["pending", "granted", "spent", "cancelled"] {
            let name = name(what);
            say("ask", &name);
            let waiter = approvals.ask(&call(&name), now()).unwrap();
            say("asked", &name);
            if what == "cancelled" {
                say("cancel", &name);
                waiter.cancel(now());
                say("cancelled", &name);
                continue;
            }
            if what != "pending" {
                say("grant", &name);
                grant(&approvals, &waiter.id().to_string());
                say("granted", &name);
            }
            if what == "spent" {
                say("spend", &name);
                let approval = waiter.spend(now()).unwrap();
                say("sent", &name);
                approvals.settle(&approval.hold, now());
            }
        }
        // So that the table stays small.
        for what in ["pending", "granted"] {
            let name = name(what);
            say("cancel", &name);
            approvals.ask(&call(&name), now()).unwrap().cancel(now());
            say("cancelled", &name);
        }
    }
}

/// The file as it is on the disk, without what the process still has, is what a killed one leaves.
#[test]
fn the_end_of_a_call_is_known_after_a_kill_that_follows_a_tick() {
    let folder = tempfile::tempdir().unwrap();
    let approvals = open(folder.path());
    let waiter = approvals.ask(&call("one"), now()).unwrap();
    let id = waiter.id().to_string();
    grant(&approvals, &id);
    let approval = waiter.spend(now()).unwrap();
    approvals.settle(&approval.hold, now());
    let left = |ticked: bool| {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
        let state = open(copy.path()).get(&id).unwrap().state;
        assert_eq!(state == HoldState::Spent, ticked, "{state:?}");
    };
    left(false);
    approvals.tick(now());
    left(true);
}

/// Starts a child, kills it after some lines, and returns the last thing that it said of each call.
fn killed(folder: &Path, run: u64, random: &mut Random) -> BTreeMap<String, String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(RUN, run.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut said = BTreeMap::new();
    let mut hear = |line: &str| {
        if let Some((what, name)) = line.strip_prefix('!').and_then(|line| line.split_once(' ')) {
            said.insert(name.to_owned(), what.to_owned());
        }
    };
    for _ in 0..2 * random.below(LINES) {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        hear(line.trim_end());
    }
    // Into the middle of the step after that line.
    for _ in 0..random.below(200_000) {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    // The last line may be cut off.
    rest.rsplit_once('\n').map_or("", |(whole, _)| whole).lines().for_each(hear);
    said.remove("");
    said
}

/// Whether `state` may follow after the child said `what` last.
fn may_follow(what: &str, state: Option<HoldState>) -> bool {
    use HoldState::{Cancelled, Granted, Pending, Spent, Unknown};
    match what {
        "ask" => state.is_none() || state == Some(Pending),
        "asked" => state == Some(Pending),
        "grant" => [Some(Pending), Some(Granted)].contains(&state),
        "granted" => state == Some(Granted),
        "spend" => [Some(Granted), Some(Unknown)].contains(&state),
        // A finished hold may have left the history.
        "sent" => [Some(Spent), Some(Unknown), None].contains(&state),
        "cancel" => [Some(Pending), Some(Granted), Some(Cancelled)].contains(&state),
        "cancelled" => [Some(Cancelled), None].contains(&state),
        other => panic!("{other}"),
    }
}

#[test]
fn a_process_that_is_killed_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(number("KILL_SEED", 7));
    let approvals = open(folder.path());
    drop(approvals.ask(&call("old pending"), now()).unwrap());
    let old = approvals.ask(&call("old granted"), now()).unwrap();
    grant(&approvals, &old.id().to_string());
    drop((old, approvals));
    let mut met = BTreeMap::new();
    for run in 0..number("KILLS", 30) {
        let said = killed(folder.path(), run, &mut random);
        let approvals = open(folder.path());
        let views = approvals.list(&HoldState::ALL);
        let of = |name: &str| -> Vec<&HoldView> {
            let shown = call(name).shown;
            views.iter().filter(|view| view.shown.as_bytes() == &*shown).collect()
        };
        assert_eq!(of("old pending")[0].state, HoldState::Pending);
        assert_eq!(of("old granted")[0].state, HoldState::Granted);
        for (name, what) in &said {
            let found = of(name);
            assert!(found.len() <= 1, "doubled: {name}");
            let state = found.first().map(|view| view.state);
            assert!(may_follow(what, state), "run {run}, {name}: said {what}, is {state:?}");
            *met.entry(what.clone()).or_insert(0_u64) += 1;
            // Whoever waited goes on with the same hold; what was sent is not sent again.
            let waiter = approvals.ask(&call(name), now()).unwrap();
            let same = found.first().is_some_and(|view| *view.id == *waiter.id().to_string());
            assert_eq!(same, state.is_some_and(HoldState::is_open));
            let sent = state == Some(HoldState::Granted);
            assert_eq!(waiter.state() == HoldState::Granted, sent);
            if sent {
                waiter.spend(now()).unwrap();
            } else {
                waiter.cancel(now());
            }
        }
    }
    println!("last words: {met:?}");
    assert!(met.len() >= 4, "{met:?}");
}
