//! What must be true of holds, told only by what callers were told and by the true time.

use std::collections::{BTreeMap, BTreeSet};

use bartizan_approvals::{AnswerError, HoldState, HoldView, NoHold};
use bartizan_gate::duty::hold::Approval;

use crate::calls::{Call, PEOPLE, limits};

/// Which run of which replica.
pub(crate) type Run = (usize, u64);

/// What is known of one hold.
#[derive(Debug)]
pub(crate) struct Known {
    /// How many were known before.
    pub(crate) number: usize,
    pub(crate) call: Call,
    /// When a call first got it, true milliseconds.
    pub(crate) asked_ms: u64,
    /// By how much clocks that were set may prolong it, milliseconds.
    pub(crate) slack_ms: u64,
    /// Who said yes, or may have: whether he chose the wider grant.
    grants: BTreeMap<usize, bool>,
    /// Who was told that his yes counts.
    told: BTreeSet<usize>,
    /// Somebody was told that it is granted.
    granted: bool,
    /// True time of the last yes.
    granted_ms: u64,
    /// Somebody was told that it is over: refused, cancelled or spent.
    over: Option<&'static str>,
    /// Something may have ended it.
    maybe_over: bool,
    /// It may be older than `asked_ms`.
    older: bool,
    /// Its last call was cancelled in this run, which could not store that.
    cancelled_in: Option<Run>,
    /// Holds that were spent through its wider grant.
    through: BTreeSet<String>,
}

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) known: BTreeMap<String, Known>,
    /// No clock is ever set.
    pub(crate) honest: bool,
    /// One replica at a time.
    pub(crate) exclusive: bool,
    /// A record was put back, and perhaps not every replica has got over it: one that could not tell
    /// whether what it wrote was taken ends all that is open once more.
    pub(crate) unsettled: bool,
    /// By how much clocks that differ may prolong a hold, milliseconds.
    pub(crate) base_slack_ms: u64,
    /// True time until which each principal cools down for sure.
    cooling_ms: [u64; 2],
    refusals_ms: [Vec<u64>; 2],
    /// Calls of which nobody knows whether they got a hold.
    doubtful: Vec<Call>,
    /// How often each thing happened.
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

/// A yes that was given.
#[derive(Debug)]
pub(crate) struct Yes {
    pub(crate) id: String,
    pub(crate) who: usize,
    /// With the wider grant.
    pub(crate) wider: bool,
    /// With the digest of this hold.
    pub(crate) right: bool,
}

/// An outcome, with when and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) run: Run,
    pub(crate) ms: u64,
    /// The store failed meanwhile.
    pub(crate) fault: bool,
    /// A step of the other replica came between the plan and the commit.
    pub(crate) inside: bool,
}

impl Oracle {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn of(&mut self, id: &str) -> &mut Known {
        self.known.get_mut(id).unwrap()
    }

    /// A call got the hold `id`, or none.
    pub(crate) fn asked(&mut self, call: Call, got: Result<&str, NoHold>, through: bool, at: At) {
        let id = match got {
            Ok(id) => id,
            Err(NoHold::Unavailable) => {
                assert!(at.fault, "no hold, and no fault");
                self.doubtful.push(call);
                return self.supersede(call, |known| known.maybe_over = true);
            }
            Err(NoHold::CoolingDown { .. }) => return self.count("cooling down"),
            Err(NoHold::Full(_)) => return self.count("full"),
        };
        if let Some(known) = self.known.get(id) {
            assert_eq!(known.call, call, "a call attached to a hold of another one");
            assert_eq!(known.over, None, "a call attached to a hold that is over");
            assert_ne!(known.cancelled_in, Some(at.run), "attached to a cancelled hold");
            assert!(known.may_live(at.ms), "a call attached to an expired hold");
            return self.count("attached");
        }
        self.supersede(call, |known| known.over = Some("superseded"));
        let twin = self.known.values().find(|it| it.call == call && it.lives(at.ms));
        assert!(twin.is_none() || !self.honest, "two holds of one call: {twin:?}");
        let cools = at.ms < self.cooling_ms[call.principal];
        // It may be one that was made when nobody was told.
        let older = self.doubtful.contains(&call);
        let late = through || at.inside || older || !self.honest;
        assert!(late || !cools, "a new hold in a cool-down");
        let known = Known {
            number: self.known.len(),
            call,
            asked_ms: at.ms,
            slack_ms: self.base_slack_ms,
            grants: BTreeMap::new(),
            told: BTreeSet::new(),
            granted: false,
            granted_ms: 0,
            over: None,
            maybe_over: older || self.unsettled,
            older,
            cancelled_in: None,
            through: BTreeSet::new(),
        };
        self.known.insert(id.into(), known);
        self.count("held");
    }

    /// The holds that end because `call` is held under other conditions.
    fn supersede(&mut self, call: Call, ended: impl Fn(&mut Known)) {
        let others = self.known.values_mut().filter(|it| it.over.is_none());
        others.filter(|it| it.call.is_under_other_terms(call)).for_each(ended);
    }

    /// Somebody said yes.
    pub(crate) fn granted(&mut self, yes: &Yes, said: Result<&HoldView, &AnswerError>, at: At) {
        let Yes { ref id, who, wider, right } = *yes;
        let known = self.of(id);
        let allowed =
            right && known.call.may_answer(who) && (!wider || known.call.offer().is_some());
        match said {
            Ok(view) => {
                assert!(allowed, "{} granted it: {known:?}", PEOPLE[who].0);
                assert_eq!(known.over, None, "granted after it was over");
                assert_ne!(known.cancelled_in, Some(at.run), "granted after its cancel");
                assert!(known.may_live(at.ms), "granted after it expired");
                assert_eq!(*view.shown, *known.call.shown(), "the approver saw another call");
                known.grants.insert(who, wider);
                assert!(known.told.insert(who), "{} granted it twice", PEOPLE[who].0);
                if view.state == HoldState::Granted {
                    assert!(known.grants.len() >= known.call.quorum(), "too few: {known:?}");
                    (known.granted, known.granted_ms) = (true, at.ms);
                    self.count("granted");
                }
            }
            Err(AnswerError::Unavailable) => {
                assert!(at.fault, "no answer, and no fault");
                if allowed && !known.told.contains(&who) {
                    *known.grants.entry(who).or_default() |= wider;
                    known.granted_ms = at.ms;
                }
            }
            Err(error) => assert_ne!(*error, AnswerError::NotPending(HoldState::Pending)),
        }
    }

    /// Somebody said no.
    pub(crate) fn refused(&mut self, id: &str, who: usize, said: Result<(), &AnswerError>, at: At) {
        let known = self.of(id);
        match said {
            Ok(()) => {
                assert!(known.call.may_answer(who), "{} refused it", PEOPLE[who].0);
                assert!(known.over.is_none() && !known.granted, "refused too late: {known:?}");
                known.over = Some("refused");
                let principal = known.call.principal;
                self.cool(principal, at.ms);
                self.count("refused");
            }
            Err(AnswerError::Unavailable) => {
                assert!(at.fault, "no answer, and no fault");
                known.maybe_over = true;
            }
            Err(_) => {}
        }
    }

    fn cool(&mut self, principal: usize, ms: u64) {
        let limits = limits();
        let refusals = &mut self.refusals_ms[principal];
        refusals.retain(|it| it + limits.refusals_within.as_millis() as u64 > ms);
        refusals.push(ms);
        if refusals.len() >= limits.refusals {
            self.cooling_ms[principal] = ms + limits.cool_down.as_millis() as u64;
        }
    }

    /// A call was to be sent.
    pub(crate) fn spent(
        &mut self,
        id: &str,
        call: Call,
        said: Result<(&Approval, &HoldView), HoldState>,
        at: At,
    ) {
        let honest = self.honest;
        let known = self.of(id);
        let (approval, view) = match said {
            Ok(said) => said,
            Err(state) => {
                let must = honest && known.granted && known.lives(at.ms) && !at.fault;
                assert!(!must, "a granted call could not be sent: {state}, {known:?}");
                known.maybe_over |= at.fault;
                return;
            }
        };
        assert_eq!(known.over, None, "sent after it was over: {known:?}");
        assert_ne!(known.cancelled_in, Some(at.run), "sent after its cancel");
        assert!(known.may_live(at.ms), "sent at {} after it expired: {known:?}", at.ms);
        assert_eq!(known.call, call, "another call was sent");
        assert_eq!(approval.key, call.hold().key, "the approval is for another call");
        assert_eq!(*view.shown, *call.shown(), "another call was shown");
        assert_eq!(view.state, HoldState::Spent);
        known.over = Some("spent");
        let asked_ms = if known.older { 0 } else { known.asked_ms };
        let names: BTreeSet<_> = approval.approvers.iter().cloned().collect();
        assert!(names.len() >= call.quorum(), "{names:?} is no quorum");
        let Some(origin) = view.granted_through.as_deref() else {
            let granted = |name: &str| known.grants.keys().any(|&who| PEOPLE[who].0 == name);
            assert!(names.iter().all(|name| granted(name)), "{names:?}: {known:?}");
            return self.count("spent");
        };
        let wider = self.of(origin);
        let (lasts_ms, count) = wider.call.offer().unwrap();
        assert!(wider.call.same_subject(call), "a wider grant for {:?}: {call:?}", wider.call);
        let chosen = wider.grants.values().filter(|chosen| **chosen).count();
        assert!(chosen >= call.quorum(), "nobody chose a wider grant: {wider:?}");
        let until = wider.granted_ms + lasts_ms + wider.slack_ms;
        assert!(asked_ms < until, "through a wider grant that was over: {wider:?}");
        assert!(wider.through.insert(id.into()));
        assert!(wider.through.len() < count, "a wider grant for too many: {wider:?}");
        self.count("spent through");
    }

    /// The last call that waited in this run was cancelled.
    pub(crate) fn cancelled(&mut self, id: &str, at: At) {
        let known = self.of(id);
        known.maybe_over = true;
        if at.fault {
            known.cancelled_in = Some(at.run);
        } else if known.over.is_none() {
            known.over = Some("cancelled");
        }
        self.count("cancelled");
    }

    /// The store has lost batches that every replica has seen: whatever was open is over.
    pub(crate) fn rolled_back(&mut self) {
        for known in self.known.values_mut() {
            known.over = known.over.or(Some("lost"));
            // Nothing that was chosen counts any more, a wider grant neither.
            known.grants.clear();
        }
        (self.cooling_ms, self.refusals_ms) = Default::default();
        self.count("rolled back");
    }

    /// Somebody has put back a record that every replica has seen change: whatever was open may be
    /// over.
    pub(crate) fn put_back(&mut self) {
        self.known.values_mut().for_each(|known| known.maybe_over = true);
        self.unsettled = true;
        self.count("put back");
    }

    /// What a replica shows agrees with what is known.
    pub(crate) fn look(&mut self, views: &[HoldView], run: Run, ms: u64, complete: bool) {
        let mut open: BTreeMap<&str, HoldState> = BTreeMap::new();
        for view in views.iter().filter(|view| view.state.is_open()) {
            open.insert(&view.id, view.state);
            let Some(known) = self.known.get(&*view.id) else { continue };
            // Without the store, a replica does not know what another one did.
            assert!(known.over.is_none() || !complete, "open after it was over: {known:?}");
            assert_ne!(known.cancelled_in, Some(run), "open after its cancel");
            assert!(known.may_live(ms), "open after it expired: {known:?}");
            assert_eq!(*view.shown, *known.call.shown());
        }
        if complete && self.exclusive {
            for principal in ["p0", "p1"] {
                let own =
                    views.iter().filter(|it| it.state.is_open() && *it.principal == *principal);
                assert!(own.count() <= limits().holds_per_principal, "too many of {principal}");
            }
        }
        if !(complete && self.honest) {
            return;
        }
        for (id, known) in self.known.iter().filter(|(_, known)| known.lives(ms)) {
            let state = open.get(&**id);
            assert!(state.is_some(), "lost: {id} {known:?}");
            assert!(!known.granted || state == Some(&HoldState::Granted), "{id} {known:?}");
        }
    }
}

impl Known {
    /// It is open for sure.
    fn lives(&self, ms: u64) -> bool {
        self.over.is_none() && !self.maybe_over && ms < self.asked_ms + self.call.ttl_ms()
    }

    /// It may not have expired yet.
    fn may_live(&self, ms: u64) -> bool {
        ms < self.asked_ms + self.call.ttl_ms() + self.slack_ms
    }
}
