//! The service with a store in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bartizan_gate::duty::hold::GrantScope;

use super::made::{ann, call, person};
use super::*;
use crate::limits::{APPROVER_BYTES_MAX, Bound};
use crate::record::{RecordKey, Verdict};
use crate::store::memory::MemoryStore;

/// A clock that a test moves.
#[derive(Clone, Default)]
struct Hand {
    uptime_ms: Arc<AtomicU64>,
    /// By how much the wall clock is ahead of the true time.
    ahead_ms: Arc<AtomicU64>,
}

const START_MS: u64 = 1_800_000_000_000;

impl Hand {
    fn now(&self) -> Now {
        let uptime = self.uptime_ms.load(Ordering::Relaxed);
        let wall = START_MS + uptime + self.ahead_ms.load(Ordering::Relaxed);
        Now {
            uptime: Duration::from_millis(uptime),
            wall: SystemTime::UNIX_EPOCH + Duration::from_millis(wall),
        }
    }

    fn pass(&self, seconds: u64) {
        self.uptime_ms.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

struct Desk {
    hand: Hand,
    store: Arc<MemoryStore>,
    limits: ApprovalLimits,
    approvals: Arc<Approvals>,
}

impl Desk {
    fn new(limits: ApprovalLimits) -> Self {
        Self::on(Arc::new(MemoryStore::new()), limits, Hand::default())
    }

    fn on(store: Arc<MemoryStore>, limits: ApprovalLimits, hand: Hand) -> Self {
        let clock = hand.clone();
        let clock = Box::new(move || clock.now());
        let opened = Approvals::open(Box::new(Arc::clone(&store)), limits.clone(), clock);
        Self { hand, store, limits, approvals: Arc::new(opened.unwrap()) }
    }

    /// The process ends and is started again, with the wall clock at `START_MS + wall_ms`.
    fn restarted(self, wall_ms: u64) -> Self {
        let hand = Hand::default();
        hand.ahead_ms.store(wall_ms, Ordering::Relaxed);
        Self::on(self.store, self.limits, hand)
    }

    fn ask(&self, hold: &Hold) -> Result<Waiter, NoHold> {
        self.approvals.ask(hold, self.hand.now())
    }

    fn grant_by(
        &self,
        waiter: &Waiter,
        by: &Approver,
        scope: Option<&str>,
    ) -> Result<HoldView, AnswerError> {
        let id = waiter.id().to_string();
        let seen = self.approvals.get(&id).unwrap();
        self.approvals.grant(&id, &seen.digest, by, "fine", scope, self.hand.now())
    }

    fn grant(&self, waiter: &Waiter) -> Result<HoldView, AnswerError> {
        self.grant_by(waiter, &ann(), None)
    }

    fn refuse(&self, waiter: &Waiter) -> Result<HoldView, AnswerError> {
        self.approvals.refuse(&waiter.id().to_string(), &ann(), "no", self.hand.now())
    }

    fn spend(&self, waiter: Waiter) -> Result<bartizan_gate::duty::hold::Approval, HoldState> {
        waiter.spend(self.hand.now())
    }

    fn state(&self, id: &HoldId) -> HoldState {
        self.approvals.get(&id.to_string()).unwrap().state
    }
}

fn desk() -> Desk {
    Desk::new(ApprovalLimits::default())
}

#[test]
fn identical_calls_share_a_hold_and_one_of_them_is_sent() {
    let desk = desk();
    let one = desk.ask(&call(1)).unwrap();
    let two = desk.ask(&call(1)).unwrap();
    assert_eq!(one.id(), two.id());
    assert_eq!(desk.approvals.get(&one.id().to_string()).unwrap().waiting, 2);
    assert_eq!(one.state(), HoldState::Pending);
    desk.grant(&one).unwrap();
    assert_eq!((one.state(), two.state()), (HoldState::Granted, HoldState::Granted));
    let approval = desk.spend(two).unwrap();
    assert_eq!(approval.key, call(1).key);
    assert_eq!(approval.approvers, ["ann".into()]);
    assert_eq!(&*approval.reason, "fine");
    assert_eq!(approval.granted_unix_ms, START_MS);
    assert_eq!(desk.spend(one).unwrap_err(), HoldState::Spent);
    let next = desk.ask(&call(1)).unwrap();
    assert_ne!(*next.id(), approval.hold);
    assert_eq!(next.state(), HoldState::Pending);
}

#[test]
fn anything_else_in_the_key_is_another_hold() {
    let changes: [fn(&mut Hold); 12] = [
        |hold| hold.effect = "destructive".into(),
        |hold| hold.tags.clear(),
        |hold| drop(hold.facts.insert("project".into(), "8".into())),
        |hold| hold.principal = "q".into(),
        |hold| hold.server = "other".into(),
        |hold| hold.method = "resources/read".into(),
        |hold| hold.target = None,
        |hold| hold.shown = "{}".into(),
        |hold| hold.definition = Some("d2".into()),
        |hold| hold.revision = "r2".into(),
        |hold| hold.environments = vec!["staging".into()],
        |hold| hold.code = "ask-too".into(),
    ];
    let desk = desk();
    let first = desk.ask(&call(1)).unwrap();
    desk.grant(&first).unwrap();
    for change in changes {
        let mut hold = call(1);
        change(&mut hold);
        let waiter = desk.ask(&hold.keyed()).unwrap();
        assert_ne!(waiter.id(), first.id());
        assert_eq!(waiter.state(), HoldState::Pending);
    }
    assert_eq!(desk.ask(&call(1)).unwrap().state(), HoldState::Granted);
}

#[test]
fn a_rule_that_asks_other_people_now_ends_what_was_begun() {
    let changes: [fn(&mut Hold); 3] = [
        |hold| hold.quorum = 2,
        |hold| hold.approvers = vec!["security".into()],
        |hold| hold.scopes.clear(),
    ];
    for change in changes {
        let desk = desk();
        let first = desk.ask(&call(1)).unwrap();
        desk.grant(&first).unwrap();
        let mut stricter = call(1);
        change(&mut stricter);
        let second = desk.ask(&stricter.keyed()).unwrap();
        assert_eq!((first.state(), second.state()), (HoldState::Cancelled, HoldState::Pending));
        assert_eq!(desk.spend(first).unwrap_err(), HoldState::Cancelled);
    }
}

#[test]
fn the_requester_and_strangers_answer_nothing() {
    let desk = desk();
    let mut hold = call(1);
    hold.approvers = vec!["ops".into()];
    let waiter = desk.ask(&hold.keyed()).unwrap();
    let stranger = Approver { id: "eve".into(), groups: vec!["dev".into()] };
    let long = person(&"x".repeat(APPROVER_BYTES_MAX + 1));
    for by in [person("p"), person("P"), person(""), stranger, long] {
        assert_eq!(desk.grant_by(&waiter, &by, None), Err(AnswerError::NotAllowed));
        let id = waiter.id().to_string();
        let refused = desk.approvals.refuse(&id, &by, "", desk.hand.now());
        assert_eq!(refused, Err(AnswerError::NotAllowed));
    }
    desk.grant(&waiter).unwrap();
}

#[test]
fn a_quorum_is_of_different_people() {
    let desk = desk();
    let mut hold = call(1);
    hold.quorum = 2;
    let waiter = desk.ask(&hold.keyed()).unwrap();
    assert_eq!(desk.grant(&waiter).unwrap().state, HoldState::Pending);
    assert_eq!(desk.grant(&waiter), Err(AnswerError::AlreadyAnswered));
    let view = desk.grant_by(&waiter, &person("bob"), None).unwrap();
    assert_eq!(view.state, HoldState::Granted);
    let by: Vec<_> = view.answers.iter().map(|answer| (&*answer.by, answer.verdict)).collect();
    assert_eq!(by, [("ann", Verdict::Grant), ("bob", Verdict::Grant)]);
    let error = desk.grant_by(&waiter, &person("cy"), None).unwrap_err();
    assert_eq!(error, AnswerError::NotPending(HoldState::Granted));
    assert_eq!(&*desk.spend(waiter).unwrap().reason, "fine; fine");
}

#[test]
fn an_answer_names_what_was_seen_and_its_reason_is_bounded() {
    let desk = desk();
    let one = desk.ask(&call(1)).unwrap();
    let two = desk.ask(&call(2)).unwrap();
    let seen = desk.approvals.get(&two.id().to_string()).unwrap();
    let id = one.id().to_string();
    let now = desk.hand.now();
    let grant = |digest: &str, reason: &str, scope| {
        desk.approvals.grant(&id, digest, &ann(), reason, scope, now).map(drop)
    };
    assert_eq!(grant(&seen.digest, "", None), Err(AnswerError::WrongDigest));
    assert_eq!(grant("", "", None), Err(AnswerError::WrongDigest));
    let digest = desk.approvals.get(&id).unwrap().digest;
    let long = "x".repeat(desk.limits.reason_bytes + 1);
    assert_eq!(grant(&digest, &long, None), Err(AnswerError::ReasonTooLong));
    assert_eq!(grant(&digest, "", Some("everything")), Err(AnswerError::ScopeNotOffered));
    assert_eq!(grant(&digest, &"x".repeat(desk.limits.reason_bytes), None), Ok(()));
    let unknown = desk.approvals.refuse("0", &ann(), "", now);
    assert_eq!(unknown, Err(AnswerError::Unknown));
}

#[test]
fn a_hold_expires_whichever_clock_is_set() {
    for ahead_ms in [0, 1_000_000] {
        let desk = desk();
        desk.hand.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        let pending = desk.ask(&call(1)).unwrap();
        let granted = desk.ask(&call(2)).unwrap();
        desk.grant(&granted).unwrap();
        assert_eq!(pending.expires_unix_ms(), START_MS + ahead_ms + 60_000);
        desk.hand.ahead_ms.store(0, Ordering::Relaxed);
        desk.hand.pass(59);
        assert_eq!((pending.state(), granted.state()), (HoldState::Pending, HoldState::Granted));
        desk.hand.pass(1);
        assert_eq!((pending.state(), granted.state()), (HoldState::Expired, HoldState::Expired));
        let error = desk.grant(&pending).unwrap_err();
        assert_eq!(error, AnswerError::NotPending(HoldState::Expired));
        assert_eq!(desk.spend(granted).unwrap_err(), HoldState::Expired);
        let next = desk.ask(&call(2)).unwrap();
        assert_eq!(next.state(), HoldState::Pending);
    }
}

#[test]
fn a_restart_keeps_holds_unless_the_clock_was_set_back() {
    let desk = desk();
    let pending = desk.ask(&call(1)).unwrap().id().clone();
    let waiter = desk.ask(&call(2)).unwrap();
    desk.grant(&waiter).unwrap();
    let granted = waiter.id().clone();
    drop(waiter);
    let desk = desk.restarted(50_000);
    assert_eq!(desk.state(&pending), HoldState::Pending);
    assert_eq!(desk.state(&granted), HoldState::Granted);
    assert_eq!(*desk.ask(&call(1)).unwrap().id(), pending);
    let desk = desk.restarted(49_999);
    assert_eq!(desk.state(&pending), HoldState::Expired);
    assert_eq!(desk.state(&granted), HoldState::Expired);
    // The clock goes on from where it is now.
    let waiter = desk.ask(&call(1)).unwrap();
    assert_eq!(waiter.expires_unix_ms(), START_MS + 49_999 + 60_000);
    let id = waiter.id().clone();
    drop(waiter);
    assert_eq!(desk.restarted(50_000).state(&id), HoldState::Pending);
}

#[test]
fn the_stored_clock_follows_while_a_hold_is_open() {
    let desk = desk();
    let id = desk.ask(&call(1)).unwrap().id().clone();
    desk.hand.pass(40);
    desk.approvals.tick(desk.hand.now());
    // Set back by a minute while it was down: nobody knows how long that was.
    assert_eq!(desk.restarted(0).state(&id), HoldState::Expired);
}

#[test]
fn what_was_sent_before_a_crash_is_unknown_unless_its_end_is_known() {
    let desk = desk();
    let [one, two] = [1, 2].map(|number| {
        let waiter = desk.ask(&call(number)).unwrap();
        desk.grant(&waiter).unwrap();
        desk.spend(waiter).unwrap().hold
    });
    desk.approvals.settle(&one, desk.hand.now());
    let desk = desk.restarted(1);
    assert_eq!((desk.state(&one), desk.state(&two)), (HoldState::Spent, HoldState::Unknown));
    let again = desk.ask(&call(2)).unwrap();
    assert_ne!(*again.id(), two);
    assert_eq!(again.state(), HoldState::Pending);
}

#[test]
fn a_spent_hold_of_which_nobody_says_more_is_unknown_in_the_end() {
    let desk = desk();
    let waiter = desk.ask(&call(1)).unwrap();
    desk.grant(&waiter).unwrap();
    let id = desk.spend(waiter).unwrap().hold;
    desk.hand.pass(crate::limits::SETTLE_WITHIN.as_secs());
    desk.approvals.tick(desk.hand.now());
    assert_eq!(desk.state(&id), HoldState::Unknown);
}

#[test]
fn the_last_cancel_ends_a_hold_and_dropping_does_not() {
    let desk = desk();
    let [one, two, three] = [(); 3].map(|()| desk.ask(&call(1)).unwrap());
    let id = one.id().clone();
    one.cancel(desk.hand.now());
    assert_eq!(desk.state(&id), HoldState::Pending);
    drop(two);
    assert_eq!(desk.state(&id), HoldState::Pending);
    three.cancel(desk.hand.now());
    assert_eq!(desk.state(&id), HoldState::Cancelled);
    let refused = desk.approvals.refuse(&id.to_string(), &ann(), "", desk.hand.now());
    assert_eq!(refused, Err(AnswerError::NotPending(HoldState::Cancelled)));
    // A granted one, too; and one that no call waits for stays.
    let waiter = desk.ask(&call(1)).unwrap();
    desk.grant(&waiter).unwrap();
    let id = waiter.id().clone();
    waiter.cancel(desk.hand.now());
    assert_eq!(desk.state(&id), HoldState::Cancelled);
    let waiter = desk.ask(&call(1)).unwrap();
    let id = waiter.id().clone();
    drop(waiter);
    assert_eq!(*desk.ask(&call(1)).unwrap().id(), id);
}

#[test]
fn holds_are_bounded_by_principal_server_number_and_bytes() {
    let bytes = crate::record::Asked::new(&call(1), &"0".repeat(32), 0, 0).bytes();
    let limits = ApprovalLimits::default();
    let cases = [
        (ApprovalLimits { holds_per_principal: 2, ..limits.clone() }, Bound::Principal),
        (ApprovalLimits { holds_per_server: 2, ..limits.clone() }, Bound::Server),
        (ApprovalLimits { holds: 2, ..limits.clone() }, Bound::Total),
        (
            ApprovalLimits { bytes_per_principal: 3 * bytes - 1, ..limits.clone() },
            Bound::PrincipalBytes,
        ),
        (ApprovalLimits { bytes: 3 * bytes - 1, ..limits.clone() }, Bound::TotalBytes),
    ];
    for (limits, bound) in cases {
        let desk = Desk::new(limits);
        let one = desk.ask(&call(1)).unwrap();
        drop(desk.ask(&call(2)).unwrap());
        assert_eq!(desk.ask(&call(3)).unwrap_err(), NoHold::Full(bound));
        desk.ask(&call(2)).unwrap();
        // What is over makes room.
        desk.refuse(&one).unwrap();
        desk.ask(&call(3)).unwrap();
        desk.hand.pass(60);
        desk.ask(&call(4)).unwrap();
    }
    let desk = Desk::new(ApprovalLimits { bytes_per_hold: bytes - 1, ..limits.clone() });
    assert_eq!(desk.ask(&call(1)).unwrap_err(), NoHold::Full(Bound::HoldBytes));
    let desk = Desk::new(ApprovalLimits { bytes_per_hold: bytes, ..limits.clone() });
    desk.ask(&call(1)).unwrap();
    let desk = Desk::new(ApprovalLimits { holds: 0, ..limits });
    assert_eq!(desk.ask(&call(1)).unwrap_err(), NoHold::Full(Bound::Total));
}

fn cooling(asked: Result<Waiter, NoHold>) -> u64 {
    let error = asked.unwrap_err();
    let NoHold::CoolingDown { retry_after } = error else { panic!("{error}") };
    retry_after.as_secs()
}

#[test]
fn refusals_in_a_row_cool_down_longer_and_longer() {
    let desk = desk();
    for number in 1..=3 {
        desk.refuse(&desk.ask(&call(number)).unwrap()).unwrap();
    }
    assert_eq!(cooling(desk.ask(&call(4))), 60);
    let mut other = call(4);
    other.principal = "q".into();
    desk.ask(&other.keyed()).unwrap();
    let desk = desk.restarted(10_000);
    assert_eq!(cooling(desk.ask(&call(4))), 50);
    desk.hand.pass(50);
    desk.refuse(&desk.ask(&call(4)).unwrap()).unwrap();
    assert_eq!(cooling(desk.ask(&call(5))), 120);
    desk.hand.pass(120);
    desk.refuse(&desk.ask(&call(5)).unwrap()).unwrap();
    assert_eq!(cooling(desk.ask(&call(6))), 240);
    // A day later nobody remembers.
    desk.hand.pass(25 * 3600);
    for number in 1..=2 {
        desk.refuse(&desk.ask(&call(number)).unwrap()).unwrap();
    }
    desk.refuse(&desk.ask(&call(7)).unwrap()).unwrap();
    assert_eq!(cooling(desk.ask(&call(8))), 60);
}

#[test]
fn asking_and_cancelling_does_not_wear_people_out_either() {
    let desk = Desk::new(ApprovalLimits { asks: 3, ..ApprovalLimits::default() });
    for number in 1..=3 {
        desk.ask(&call(number)).unwrap().cancel(desk.hand.now());
        desk.hand.pass(100);
    }
    assert_eq!(cooling(desk.ask(&call(4))), 300);
    desk.hand.pass(300);
    desk.ask(&call(4)).unwrap();
    assert_eq!(cooling(desk.ask(&call(5))), 100);
    let none = Desk::new(ApprovalLimits { asks: 0, ..ApprovalLimits::default() });
    assert_eq!(cooling(none.ask(&call(1))), 600);
}

#[test]
fn a_wider_grant_covers_what_the_rule_offers_and_no_more() {
    let desk = desk();
    let waiting = desk.ask(&call(9)).unwrap();
    let first = desk.ask(&call(1)).unwrap();
    desk.grant_by(&first, &ann(), Some("more")).unwrap();
    let approval = desk.spend(first).unwrap();
    assert_eq!(approval.scope.as_deref(), Some("more"));
    // A call that waited already is the second one.
    assert_eq!(waiting.state(), HoldState::Granted);
    let view = desk.approvals.get(&waiting.id().to_string()).unwrap();
    assert_eq!(view.granted_through.as_deref(), Some(&*approval.hold.to_string()));
    let changes: [fn(&mut Hold); 11] = [
        |hold| hold.effect = "destructive".into(),
        |hold| hold.tags.clear(),
        |hold| drop(hold.facts.insert("project".into(), "8".into())),
        |hold| hold.principal = "q".into(),
        |hold| hold.server = "other".into(),
        |hold| hold.target = Some("delete".into()),
        |hold| hold.environments = vec!["staging".into()],
        |hold| hold.definition = Some("d2".into()),
        |hold| hold.revision = "r2".into(),
        |hold| hold.code = "ask-too".into(),
        |hold| hold.scopes = vec![GrantScope { count: 2, ..hold.scopes[0].clone() }],
    ];
    for change in changes {
        let mut hold = call(2);
        change(&mut hold);
        assert_eq!(desk.ask(&hold.keyed()).unwrap().state(), HoldState::Pending);
    }
    // The third and last one, also after a restart, with its own key.
    let desk = desk.restarted(1);
    let third = desk.ask(&call(2)).unwrap();
    assert_eq!(third.state(), HoldState::Granted);
    let approval = desk.spend(third).unwrap();
    assert_eq!((approval.key, approval.scope.as_deref()), (call(2).key, Some("more")));
    assert_eq!(approval.approvers, ["ann".into()]);
    assert_eq!(desk.ask(&call(3)).unwrap().state(), HoldState::Pending);
}

#[test]
fn a_wider_grant_ends_in_time_and_takes_a_quorum() {
    let desk = desk();
    desk.grant_by(&desk.ask(&call(1)).unwrap(), &ann(), Some("more")).unwrap();
    desk.hand.pass(30);
    assert_eq!(desk.ask(&call(2)).unwrap().state(), HoldState::Pending);
    let two = |number| Hold { quorum: 2, ..call(number) }.keyed();
    let waiter = desk.ask(&two(3)).unwrap();
    desk.grant_by(&waiter, &ann(), Some("more")).unwrap();
    let view = desk.grant_by(&waiter, &person("bob"), None).unwrap();
    assert_eq!((view.state, view.scope), (HoldState::Granted, None));
    assert_eq!(desk.ask(&two(4)).unwrap().state(), HoldState::Pending);
    let waiter = desk.ask(&two(5)).unwrap();
    desk.grant_by(&waiter, &ann(), Some("more")).unwrap();
    desk.grant_by(&waiter, &person("bob"), Some("more")).unwrap();
    assert_eq!(desk.ask(&two(6)).unwrap().state(), HoldState::Granted);
    // Zero means zero.
    let mut none = call(7);
    none.server = "third".into();
    none.scopes[0].count = 0;
    let waiter = desk.ask(&none.keyed()).unwrap();
    let said = desk.grant_by(&waiter, &ann(), Some("more"));
    assert_eq!(said, Err(AnswerError::ScopeNotOffered));
}

#[test]
fn history_is_bounded_and_shows_the_call_before() {
    let desk = Desk::new(ApprovalLimits { history: 3, ..ApprovalLimits::default() });
    let mut ids = Vec::new();
    for number in 1..=5 {
        let waiter = desk.ask(&call(number)).unwrap();
        desk.grant(&waiter).unwrap();
        ids.push(desk.spend(waiter).unwrap().hold.to_string());
        desk.hand.pass(1);
    }
    desk.approvals.tick(desk.hand.now());
    let kept: Vec<String> =
        desk.approvals.list(&HoldState::ALL).iter().map(|view| view.id.to_string()).collect();
    assert_eq!(kept, ids[2..]);
    let waiter = desk.ask(&call(6)).unwrap();
    let view = desk.approvals.get(&waiter.id().to_string()).unwrap();
    assert_eq!(view.previous.as_deref().map(str::as_bytes), Some(&*call(5).shown));
    let text = serde_json::to_string(&view).unwrap();
    assert!(text.contains(r#""state":"pending""#), "{text}");
    desk.refuse(&waiter).unwrap();
    desk.hand.pass(31 * 24 * 3600);
    desk.approvals.tick(desk.hand.now());
    assert_eq!(desk.approvals.list(&HoldState::ALL), []);
}

#[tokio::test]
async fn waiters_are_woken_by_answers_and_by_time() {
    let desk = desk();
    let mut changes = desk.approvals.changes();
    let mut one = desk.ask(&call(1)).unwrap();
    let short = Hold { ttl: Duration::from_millis(20), ..call(2) };
    let mut two = desk.ask(&short).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let id = one.id().to_string();
    let approvals = Arc::clone(&desk.approvals);
    let now = desk.hand.now();
    let refusing = async {
        tokio::task::yield_now().await;
        approvals.refuse(&id, &ann(), "no", now).unwrap();
    };
    let (state, ()) = tokio::join!(one.decided(), refusing);
    assert_eq!(state, HoldState::Refused);
    assert_eq!(one.decided().await, HoldState::Refused, "again");
    assert!(changes.has_changed().unwrap());
    // It waits for the runtime's clock; when that rings, this one has got there.
    let hand = desk.hand.clone();
    let passing = async { hand.pass(1) };
    let (state, ()) = tokio::join!(two.decided(), passing);
    assert_eq!(state, HoldState::Expired);
    let record = desk.approvals.list(&[HoldState::Expired]);
    assert_eq!(record.len(), 1);
    assert_eq!(record[0].waiting, 1);
}

#[test]
fn one_of_many_threads_spends_a_grant() {
    let desk = desk();
    for number in 0..20 {
        let waiters: Vec<Waiter> = (0..8).map(|_| desk.ask(&call(number)).unwrap()).collect();
        desk.grant(&waiters[0]).unwrap();
        let now = desk.hand.now();
        let spending: Vec<_> = waiters
            .into_iter()
            .map(|waiter| std::thread::spawn(move || waiter.spend(now)))
            .collect();
        let spent: Vec<_> = spending.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(spent.iter().filter(|spent| spent.is_ok()).count(), 1);
        assert!(spent.iter().all(|spent| spent.is_ok() || *spent == Err(HoldState::Spent)));
    }
}

#[test]
fn two_replicas_share_holds() {
    let store = Arc::new(MemoryStore::shared());
    let hand = Hand::default();
    let [one, two] =
        [(); 2].map(|()| Desk::on(Arc::clone(&store), ApprovalLimits::default(), hand.clone()));
    let here = one.ask(&call(1)).unwrap();
    let there = two.ask(&call(1)).unwrap();
    assert_eq!(here.id(), there.id());
    two.grant(&there).unwrap();
    two.spend(there).unwrap();
    assert_eq!(one.spend(here).unwrap_err(), HoldState::Spent);
    // A replica that begins later leaves the others' calls alone.
    let three = Desk::on(store, ApprovalLimits::default(), hand);
    assert_eq!(three.approvals.list(&[HoldState::Spent]).len(), 1);
}

/// Two replicas, and what the store had for the hold of a call while it was pending, while it was
/// granted with a wider grant, and when that had been used once; the call was sent by then.
fn spent_with(limits: &ApprovalLimits) -> ([Desk; 2], Arc<MemoryStore>, String, Vec<Record>) {
    let store = Arc::new(MemoryStore::shared());
    let hand = Hand::default();
    let desks = [(); 2].map(|()| Desk::on(Arc::clone(&store), limits.clone(), hand.clone()));
    let waiter = desks[0].ask(&call(1)).unwrap();
    let id = waiter.id().to_string();
    let (hold, wider) = (RecordKey::hold(&id), RecordKey::wider(&id));
    let mut before = vec![store.record(&hold)];
    desks[1].approvals.tick(hand.now());
    desks[1].grant_by(&waiter, &ann(), Some("more")).unwrap();
    before.extend([store.record(&hold), store.record(&wider)]);
    desks[0].spend(waiter).unwrap();
    let other = desks[0].ask(&call(2)).unwrap();
    assert_eq!(other.state(), HoldState::Granted, "through the wider grant");
    desks[0].spend(other).unwrap();
    desks[1].approvals.tick(hand.now());
    (desks, store, id, before)
}

/// Somebody who can read and write a shared store, and has no key, puts back a record as it was.
#[test]
fn a_record_that_is_put_back_is_noticed_and_all_that_is_open_is_over() {
    let without_history = ApprovalLimits { history: 0, ..ApprovalLimits::default() };
    for (number, by, limits) in [
        (0, 0, ApprovalLimits::default()),
        (1, 0, ApprovalLimits::default()),
        (1, 1, ApprovalLimits::default()),
        (2, 0, ApprovalLimits::default()),
        (2, 1, ApprovalLimits::default()),
        // Removed meanwhile.
        (1, 0, without_history.clone()),
        (1, 1, without_history),
    ] {
        let (desks, store, id, before) = spent_with(&limits);
        let waiting = desks[1].ask(&Hold { principal: "q".into(), ..call(7) }.keyed()).unwrap();
        store.put_back(before[number].clone());
        let noticed = desks[by].approvals.losses();
        let again = desks[by].ask(&call(3)).unwrap();
        assert_eq!(*noticed.borrow(), 1, "record {number}, replica {by}");
        assert_eq!(again.state(), HoldState::Pending, "no wider grant is left");
        for desk in &desks {
            desk.approvals.tick(desk.hand.now());
            let now = desk.approvals.get(&id).map(|hold| hold.state);
            assert!(now.is_none_or(|state| !state.is_open()), "{now:?}");
        }
        assert!(!waiting.state().is_open(), "{}", waiting.state());
        let total: u64 = desks.iter().map(|desk| *desk.approvals.losses().borrow()).sum();
        assert_eq!(total, 1, "one notices, and the other goes on");
        desks[1 - by].grant(&again).unwrap();
        desks[by].spend(again).unwrap();
    }
}

#[test]
fn what_was_put_back_is_over_although_the_store_is_away_when_it_is_noticed() {
    let (hand, store) = (Hand::default(), Frail::new());
    let approvals = store.approvals(&hand);
    let waiter = approvals.ask(&call(1), hand.now()).unwrap();
    let id = waiter.id().to_string();
    let digest = approvals.get(&id).unwrap().digest;
    approvals.grant(&id, &digest, &ann(), "yes", None, hand.now()).unwrap();
    let granted = lock(&store.store).record(&RecordKey::hold(&id));
    waiter.spend(hand.now()).unwrap();
    lock(&store.store).put_back(granted);
    // It is read, and what follows from it cannot be written.
    store.take_no_writes(true);
    assert_eq!(approvals.ask(&call(1), hand.now()).unwrap_err(), NoHold::Unavailable);
    assert_eq!(approvals.get(&id).unwrap().state, HoldState::Expired, "nobody sees it as granted");
    store.take_no_writes(false);
    let again = approvals.ask(&call(1), hand.now()).unwrap();
    assert_ne!(again.id().to_string(), id);
    assert_eq!(approvals.get(&id).unwrap().state, HoldState::Expired);
    assert_eq!(*approvals.losses().borrow(), 1);
}

/// Whatever one record is like in the store, the other calls go on.
#[test]
fn a_record_that_is_gone_from_a_shared_store_holds_up_no_other_call() {
    let store = Arc::new(MemoryStore::shared());
    let desk = Desk::on(Arc::clone(&store), ApprovalLimits::default(), Hand::default());
    let gone = desk.ask(&call(1)).unwrap();
    assert!(store.lose(&RecordKey::hold(&gone.id().0)));
    desk.hand.pass(61);
    let other = desk.ask(&call(2)).unwrap();
    desk.grant(&other).unwrap();
    desk.spend(other).unwrap();
    assert!(desk.approvals.fault().is_none());
}

/// A shared store that can lose what was written, and be away.
#[derive(Default)]
struct Frail {
    store: Mutex<MemoryStore>,
    last_seen: AtomicU64,
    is_away: AtomicBool,
    is_read_only: AtomicBool,
}

impl Frail {
    fn new() -> Arc<Self> {
        Arc::new(Self { store: Mutex::new(MemoryStore::shared()), ..Self::default() })
    }

    fn away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    fn take_no_writes(&self, is_read_only: bool) {
        self.is_read_only.store(is_read_only, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::Relaxed) { Err(StoreError::new("away")) } else { Ok(()) }
    }

    fn approvals(self: &Arc<Self>, hand: &Hand) -> Arc<Approvals> {
        let clock = hand.clone();
        let (store, clock) = (Box::new(Arc::clone(self)), Box::new(move || clock.now()));
        Arc::new(Approvals::open(store, ApprovalLimits::default(), clock).unwrap())
    }
}

impl Store for Frail {
    fn is_exclusive(&self) -> bool {
        false
    }

    fn changes_since(&self, cursor: Version) -> Result<Delta, StoreError> {
        self.check()?;
        let store = lock(&self.store);
        let last_seen = self.last_seen.load(Ordering::Relaxed);
        let rolled_back = store.changes_since(cursor)?.cursor < last_seen;
        let delta = store.changes_since(if rolled_back { 0 } else { cursor })?;
        if !rolled_back {
            self.last_seen.store(delta.cursor, Ordering::Relaxed);
        }
        Ok(Delta { rolled_back, ..delta })
    }

    fn commit(&self, batch: &Batch) -> Result<Version, CommitError> {
        self.check().map_err(CommitError::Fault)?;
        if self.is_read_only.load(Ordering::Relaxed) {
            return Err(CommitError::Fault(StoreError::new("read-only")));
        }
        let number = lock(&self.store).commit(batch)?;
        self.last_seen.store(number, Ordering::Relaxed);
        Ok(number)
    }
}

#[test]
fn a_store_that_has_lost_something_grants_nothing_of_what_is_left() {
    for lost_after_grant in [true, false] {
        let (hand, store) = (Hand::default(), Frail::new());
        let approvals = store.approvals(&hand);
        let waiter = approvals.ask(&call(1), hand.now()).unwrap();
        let id = waiter.id().to_string();
        let view = approvals.get(&id).unwrap();
        let pending = lock(&store.store).copy();
        let scope = Some("more");
        approvals.grant(&id, &view.digest, &ann(), "yes", scope, hand.now()).unwrap();
        let granted = lock(&store.store).copy();
        waiter.spend(hand.now()).unwrap();
        *lock(&store.store) = if lost_after_grant { granted } else { pending };
        let again = approvals.ask(&call(1), hand.now()).unwrap();
        assert_ne!(again.id().to_string(), id, "the old hold is over");
        assert_eq!(again.state(), HoldState::Pending, "nor does the wider grant cover it");
        assert_eq!(again.spend(hand.now()), Err(HoldState::Pending));
        let old = approvals.get(&id).unwrap().state;
        assert_eq!(old, HoldState::Expired);
        let late = approvals.grant(&id, &view.digest, &ann(), "yes", None, hand.now());
        assert_eq!(late.unwrap_err(), AnswerError::NotPending(HoldState::Expired));
    }
}

#[test]
fn a_shared_store_may_be_away_at_the_start_and_later() {
    let (hand, store) = (Hand::default(), Frail::new());
    store.away(true);
    let approvals = store.approvals(&hand);
    assert!(approvals.fault().is_some());
    assert_eq!(approvals.ask(&call(1), hand.now()).unwrap_err(), NoHold::Unavailable);
    store.away(false);
    approvals.tick(hand.now());
    assert!(approvals.fault().is_none());
    let waiter = approvals.ask(&call(1), hand.now()).unwrap();
    let view = approvals.get(&waiter.id().to_string()).unwrap();
    store.away(true);
    let lost = approvals.grant(&view.id, &view.digest, &ann(), "yes", None, hand.now());
    assert_eq!(lost.unwrap_err(), AnswerError::Unavailable);
    assert_eq!(waiter.state(), HoldState::Pending, "it waits on");
    store.away(false);
    let other = store.approvals(&hand);
    other.grant(&view.id, &view.digest, &ann(), "yes", None, hand.now()).unwrap();
    approvals.tick(hand.now());
    assert_eq!(waiter.state(), HoldState::Granted, "the same call goes on");
    waiter.spend(hand.now()).unwrap();
    let late = other.ask(&call(1), hand.now()).unwrap();
    assert_eq!(late.state(), HoldState::Pending, "spent once among all");
}
