//! The scripts, on a real server. `REPLICAS_TEST_PORT` says where one is that may be emptied;
//! `tests/interop/redis.sh` starts it.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use bartizan_approvals::store::{Store as _, StoreError};
use bartizan_approvals::{ApprovalLimits, Approvals, Approver, HoldState, NoHold};
use bartizan_gate::duty::hold::{GrantScope, Hold, HoldKey};
use bartizan_gate::duty::limit::Wait;
use bartizan_gate::duty::limit::shared::{NotShared, SharedForm, SharedLimits as _, SharedTake};
use bartizan_gate::evidence::record::Now;
use bartizan_replicas::holds::RecordKeys;
use bartizan_replicas::{Link, LinkConfig, SharedCounts, SharedHolds};

static PREFIXES: AtomicU32 = AtomicU32::new(0);

/// A name that no other test uses.
fn fresh_prefix() -> String {
    format!("test-{}-{}", std::process::id(), PREFIXES.fetch_add(1, Ordering::Relaxed))
}

fn link(prefix: &str) -> Arc<Link> {
    let link = Link::new(&LinkConfig {
        host: "127.0.0.1".into(),
        port: std::env::var("REPLICAS_TEST_PORT").unwrap().parse().unwrap(),
        tls: false,
        ca_pem: None,
        database: 0,
        user: None,
        password: std::env::var("REPLICAS_TEST_PASSWORD").ok().map(Into::into),
        prefix: prefix.into(),
        timeout: Duration::from_secs(2),
    });
    let link = Arc::new(link.unwrap());
    link.probe().unwrap();
    link
}

fn store(prefix: &str) -> SharedHolds {
    SharedHolds::new(link(prefix), RecordKeys::new(vec![[7; 32]]))
}

fn now() -> Now {
    Now { uptime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000) }
}

fn replica(prefix: &str) -> Arc<Approvals> {
    let limits = ApprovalLimits { asks: 1_000_000, ..ApprovalLimits::default() };
    Arc::new(Approvals::open(Box::new(store(prefix)), limits, Box::new(now)).unwrap())
}

fn call(number: u64) -> Hold {
    Hold {
        key: HoldKey([0; 32]),
        call: "call".into(),
        principal: "p".into(),
        server: "flags".into(),
        method: "tools/call".into(),
        target: Some("write".into()),
        effect: "write".into(),
        tags: Vec::new(),
        environments: Vec::new(),
        facts: std::collections::BTreeMap::new(),
        shown: format!(r#"{{"n":{number}}}"#).into_bytes().into(),
        definition: None,
        revision: "r".into(),
        code: "ask".into(),
        message: "A person must look.".into(),
        approvers: Vec::new(),
        quorum: 1,
        ttl: Duration::from_mins(1),
        client: None,
        scopes: vec![GrantScope { code: "more".into(), lasts: Duration::from_secs(30), count: 3 }],
        also: Vec::new(),
    }
    .keyed()
}

fn grant(approvals: &Approvals, id: &str, scope: Option<&str>) {
    let ann = Approver { id: "ann".into(), groups: Vec::new() };
    approvals.tick(now());
    let digest = approvals.get(id).unwrap().digest;
    approvals.grant(id, &digest, &ann, "yes", scope, now()).unwrap();
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn a_grant_is_spent_once_by_many_replicas() {
    let prefix = fresh_prefix();
    let replicas: Vec<_> = (0..8).map(|_| replica(&prefix)).collect();
    for round in 0..20 {
        let waiters: Vec<_> =
            replicas.iter().map(|it| it.ask(&call(round), now()).unwrap()).collect();
        let id = waiters[0].id().to_string();
        assert!(waiters.iter().all(|waiter| waiter.id().to_string() == id), "one hold of a call");
        grant(&replicas[1], &id, None);
        let spending = waiters.into_iter().map(|it| std::thread::spawn(move || it.spend(now())));
        let spent: Vec<_> =
            spending.collect::<Vec<_>>().into_iter().map(std::thread::JoinHandle::join).collect();
        let won = spent.into_iter().filter(|it| it.as_ref().unwrap().is_ok()).count();
        assert_eq!(won, 1, "round {round}");
        let late = replicas[2].ask(&call(round), now()).unwrap();
        assert_ne!(late.id().to_string(), id);
        late.cancel(now());
    }
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn many_replicas_that_ask_at_once_keep_the_bounds_of_a_wider_grant() {
    let prefix = fresh_prefix();
    let replicas: Vec<_> = (0..4).map(|_| replica(&prefix)).collect();
    let first = replicas[0].ask(&call(0), now()).unwrap();
    grant(&replicas[0], &first.id().to_string(), Some("more"));
    let asking = replicas.iter().zip(1..).map(|(it, number)| {
        let it = Arc::clone(it);
        std::thread::spawn(move || it.ask(&call(number), now()).unwrap().state())
    });
    let states: Vec<_> =
        asking.collect::<Vec<_>>().into_iter().map(|it| it.join().unwrap()).collect();
    let granted = states.iter().filter(|state| **state == HoldState::Granted).count();
    assert_eq!(granted, 2, "three calls, and the first is one of them: {states:?}");
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn removed_records_are_told_of_and_history_is_bounded() {
    let prefix = fresh_prefix();
    let (one, two) = (replica(&prefix), replica(&prefix));
    for number in 0..1200 {
        one.ask(&call(number), now()).unwrap().cancel(now());
        if number == 100 {
            two.tick(now());
        }
    }
    // It has missed more removals than are kept.
    two.tick(now());
    one.tick(now());
    let ids = |it: &Approvals| -> Vec<String> {
        it.list(&HoldState::ALL).into_iter().map(|view| view.id.to_string()).collect()
    };
    assert_eq!(ids(&one).len(), 1000);
    assert_eq!(ids(&one), ids(&two));
    let fresh = replica(&prefix);
    assert_eq!(ids(&one), ids(&fresh));
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn nothing_is_read_that_was_written_under_another_key() {
    let prefix = fresh_prefix();
    drop(replica(&prefix).ask(&call(1), now()).unwrap());
    let stranger = SharedHolds::new(link(&prefix), RecordKeys::new(vec![[8; 32]]));
    let error = stranger.changes_since(0).unwrap_err();
    let said = "a record was not written under a key of `replicas.keys`";
    assert_eq!(error, StoreError::new(said));
    let rotated = SharedHolds::new(link(&prefix), RecordKeys::new(vec![[8; 32], [7; 32]]));
    assert_eq!(rotated.changes_since(0).unwrap().records.len(), 2, "the hold and its slot");
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn what_is_lost_grants_nothing_and_an_emptied_store_is_noticed() {
    let prefix = fresh_prefix();
    let replicas = [replica(&prefix), replica(&prefix)];
    let waiter = replicas[0].ask(&call(1), now()).unwrap();
    let id = waiter.id().to_string();
    replicas[1].tick(now());
    let server = Server::of(&prefix);
    let saved = server.save();
    grant(&replicas[0], &id, Some("more"));
    let granted = server.save();
    waiter.spend(now()).unwrap();
    replicas[1].tick(now());
    for (left, by) in [(granted, 1), (saved, 0)] {
        server.restore(&left);
        let again = replicas[by].ask(&call(1), now()).unwrap();
        assert_ne!(again.id().to_string(), id, "what is left of the old one is over");
        assert_eq!(again.state(), HoldState::Pending);
        assert_eq!(again.spend(now()), Err(HoldState::Pending));
        for replica in &replicas {
            replica.tick(now());
            assert_eq!(replica.get(&id).unwrap().state, HoldState::Expired);
        }
    }
    let waiter = replicas[0].ask(&call(2), now()).unwrap();
    server.empty();
    replicas[0].tick(now());
    assert_eq!(waiter.state(), HoldState::Unknown);
    assert!(replicas[0].list(&HoldState::ALL).is_empty());
    assert_eq!(*replicas[0].losses().borrow(), 2, "that is a loss, too");
    // One that begins now has not seen it: what it writes is not taken for an older copy.
    let fresh = replica(&prefix).ask(&call(2), now()).unwrap();
    for replica in replicas.iter().rev() {
        replica.tick(now());
        let held = replica.get(&fresh.id().to_string()).map(|hold| hold.state);
        assert_eq!(held, Some(HoldState::Pending));
    }
    assert_eq!(*replicas[1].losses().borrow(), 1, "it learns of it by the new epoch");
    grant(&replicas[1], &fresh.id().to_string(), None);
    fresh.spend(now()).unwrap();
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn a_record_that_is_put_back_without_the_key_is_noticed() {
    for by in 0..2 {
        let prefix = fresh_prefix();
        let replicas = [replica(&prefix), replica(&prefix)];
        let waiter = replicas[0].ask(&call(1), now()).unwrap();
        let id = waiter.id().to_string();
        grant(&replicas[1], &id, None);
        let server = Server::of(&prefix);
        let key = format!("{}hold/{id}", server.0);
        let kept = format!("before-{by}");
        Server::ask(&["copy", &key, &kept]);
        waiter.spend(now()).unwrap();
        replicas[1].tick(now());
        // Under a new number, so that all read it.
        let next = Server::ask(&["hincrby", &format!("{}meta", server.0), "batches", "1"]);
        Server::ask(&["copy", &kept, &key, "replace"]);
        Server::ask(&["hset", &key, "version", next.trim()]);
        Server::ask(&["zadd", &format!("{}log", server.0), next.trim(), &format!("hold/{id}")]);
        Server::ask(&["del", &kept]);
        let again = replicas[by].ask(&call(1), now()).unwrap();
        assert_eq!(again.state(), HoldState::Pending);
        assert_eq!(*replicas[by].losses().borrow(), 1);
        for replica in &replicas {
            replica.tick(now());
            assert_eq!(replica.get(&id).unwrap().state, HoldState::Expired);
        }
        assert_eq!(*replicas[1 - by].losses().borrow(), 0, "it learns of it by the new epoch");
        let fresh = replica(&prefix);
        assert_eq!(fresh.get(&id).unwrap().state, HoldState::Expired);
    }
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn what_another_version_wrote_is_neither_read_nor_written() {
    let prefix = fresh_prefix();
    let replica = replica(&prefix);
    drop(replica.ask(&call(1), now()).unwrap());
    let server = Server::of(&prefix);
    let meta = format!("{}meta", server.0);
    Server::ask(&["hset", &meta, "form", "2"]);
    let asked = replica.ask(&call(2), now()).map(|waiter| waiter.state());
    assert_eq!(asked, Err(NoHold::Unavailable));
    let said = StoreError::new("another version of this program wrote it");
    assert_eq!(replica.fault(), Some(said));
    Server::ask(&["hset", &meta, "form", "1"]);
    replica.ask(&call(2), now()).unwrap();
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn numbers_that_are_not_exact_are_refused() {
    for number in ["9007199254740991", "9007199254740992", "1e300", "inf", "nan", "-1", "x"] {
        let prefix = fresh_prefix();
        let replica = replica(&prefix);
        let waiter = replica.ask(&call(1), now()).unwrap();
        let server = Server::of(&prefix);
        Server::ask(&["hset", &format!("{}meta", server.0), "batches", number]);
        let asked = replica.ask(&call(2), now()).map(|waiter| waiter.state());
        assert_eq!(asked, Err(NoHold::Unavailable), "{number}");
        assert_eq!(waiter.state(), HoldState::Pending, "{number}: it waits");
        assert!(replica.fault().is_some(), "{number}");
    }
}

const MINUTE_NS: u64 = 60_000_000_000;

fn take(name: &str, form: SharedForm, cost: u32) -> SharedTake {
    SharedTake { name: name.into(), form, cost }
}

fn forms() -> [SharedForm; 4] {
    let hour = 60 * MINUTE_NS;
    [
        SharedForm::Bucket { interval: MINUTE_NS, burst: 10 },
        SharedForm::Fixed { period: hour, count: 10 },
        SharedForm::Sliding { period: hour, count: 10, part: 1 },
        SharedForm::Sliding { period: hour, count: 40, part: hour / 10 },
    ]
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn sixteen_clients_of_two_firewalls_get_exactly_the_quota() {
    let prefix = fresh_prefix();
    let counts =
        [Arc::new(SharedCounts::new(link(&prefix))), Arc::new(SharedCounts::new(link(&prefix)))];
    for (form, quota) in forms().into_iter().zip([10, 10, 10, 40]) {
        let clients = (0..16).map(|client| {
            let counts = Arc::clone(&counts[client % 2]);
            let name = format!("{form:?}");
            std::thread::spawn(move || {
                (0..20).filter(|_| counts.take(&[take(&name, form, 1)]).is_ok()).count()
            })
        });
        let clients: Vec<_> = clients.collect();
        let passed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(passed, quota, "{form:?}");
    }
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn all_limits_of_a_call_are_taken_or_none() {
    let counts = SharedCounts::new(link(&fresh_prefix()));
    let narrow = SharedForm::Fixed { period: MINUTE_NS, count: 2 };
    for (number, form) in forms().into_iter().enumerate() {
        let wide = take(&format!("wide {number}"), form, 1);
        let limit = take(&format!("narrow {number}"), narrow, 1);
        let both = [wide.clone(), limit.clone()];
        let passed = (0..9).filter(|_| counts.take(&both).is_ok()).count();
        assert_eq!(passed, 2, "{form:?}");
        let Err(NotShared::Exceeded { number, wait: Wait::For(wait) }) = counts.take(&both) else {
            panic!("{form:?}")
        };
        assert!(number == 1 && wait <= Duration::from_mins(1), "{form:?}");
        let left = (0..50).filter(|_| counts.take(std::slice::from_ref(&wide)).is_ok()).count();
        assert_eq!(
            left,
            if matches!(form, SharedForm::Sliding { count: 40, .. }) { 38 } else { 8 }
        );
        // One that stands twice is paid twice, and what costs more than there ever is never passes.
        let twice = take(&format!("twice {number} {form:?}"), narrow, 1);
        assert_eq!(counts.take(&[twice.clone(), twice.clone()]), Ok(()));
        assert!(counts.take(&[twice]).is_err());
        let never = counts.take(&[take("never", form, 41)]);
        assert_eq!(never, Err(NotShared::Exceeded { number: 0, wait: Wait::Forever }));
    }
}

#[test]
#[ignore = "run by tests/interop/redis.sh"]
fn what_was_taken_comes_back_with_the_time_of_the_store_and_leaves_nothing_behind() {
    let prefix = fresh_prefix();
    let counts = SharedCounts::new(link(&prefix));
    let short = 300_000_000;
    let forms = [
        SharedForm::Bucket { interval: short, burst: 1 },
        SharedForm::Fixed { period: short, count: 1 },
        SharedForm::Sliding { period: short, count: 1, part: 1 },
    ];
    for form in forms {
        let take = [take(&format!("{form:?}"), form, 1)];
        assert_eq!(counts.take(&take), Ok(()));
        let Err(NotShared::Exceeded { wait: Wait::For(wait), .. }) = counts.take(&take) else {
            panic!("{form:?}")
        };
        assert!(wait <= Duration::from_millis(300), "{form:?}: {wait:?}");
        std::thread::sleep(wait);
        assert_eq!(counts.take(&take), Ok(()), "{form:?}");
    }
    let server = Server::of(&prefix);
    while !server.keys().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What stands under one prefix, by `redis-cli`.
struct Server(String);

impl Server {
    fn of(prefix: &str) -> Self {
        Self(format!("{{{prefix}}}:"))
    }

    fn ask(args: &[&str]) -> String {
        let port = std::env::var("REPLICAS_TEST_PORT").unwrap();
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-p", &port]).args(args);
        if let Ok(password) = std::env::var("REPLICAS_TEST_PASSWORD") {
            command.env("REDISCLI_AUTH", password);
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn keys(&self) -> Vec<String> {
        let all = Self::ask(&["keys", "*"]);
        all.lines().filter(|key| key.starts_with(&self.0)).map(str::to_owned).collect()
    }

    /// Copies every key to another name; the number of the copy.
    fn save(&self) -> String {
        let copy = format!("copy-{}-", PREFIXES.fetch_add(1, Ordering::Relaxed));
        for key in self.keys() {
            Self::ask(&["copy", &key, &format!("{copy}{key}")]);
        }
        copy
    }

    fn restore(&self, copy: &str) {
        self.empty();
        let begin = format!("{copy}{}", self.0);
        for key in Self::ask(&["keys", "*"]).lines().filter(|key| key.starts_with(&begin)) {
            Self::ask(&["copy", key, key.strip_prefix(copy).unwrap()]);
        }
    }

    fn empty(&self) {
        for key in self.keys() {
            Self::ask(&["del", &key]);
        }
    }
}
