//! The calls of the simulation, and the people who answer.

use std::time::Duration;

use bartizan_approvals::{ApprovalLimits, Approver};
use bartizan_gate::duty::hold::{GrantScope, Hold};

use crate::Random;

/// The longest step of time, milliseconds.
pub(crate) const STEP_MAX_MS: u64 = 3_000;

/// A call that must be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) principal: usize,
    pub(crate) tool: usize,
    argument: usize,
    environment: usize,
    revision: usize,
    /// The rule asks one more approver than usual, under the same code.
    stricter: bool,
}

/// What each tool's rule asks: quorum, group, time to live in seconds, and a wider grant: its
/// time in seconds and its count.
type Rule = (u32, Option<&'static str>, u64, Option<(u64, u32)>);
const RULES: [Rule; 3] =
    [(1, None, 30, Some((25, 3))), (2, Some("ops"), 60, Some((20, 2))), (1, Some("ops"), 15, None)];

/// Who answers: a name and groups. The last two are principals.
pub(crate) const PEOPLE: [(&str, &[&str]); 5] = [
    ("ann", &["ops", "dev"]),
    ("bob", &["ops"]),
    ("cy", &["dev"]),
    ("p0", &["ops"]),
    ("P1", &["ops"]),
];

pub(crate) fn person(number: usize) -> Approver {
    let (name, groups) = PEOPLE[number];
    Approver { id: name.into(), groups: groups.iter().map(|&group| group.into()).collect() }
}

pub(crate) fn limits() -> ApprovalLimits {
    ApprovalLimits {
        holds_per_principal: 6,
        asks: 100_000,
        refusals: 3,
        refusals_within: Duration::from_mins(10),
        cool_down: Duration::from_secs(20),
        history: 30,
        ..ApprovalLimits::default()
    }
}

impl Call {
    pub(crate) fn random(random: &mut Random) -> Self {
        Self {
            principal: random.below(2),
            tool: random.below(3),
            argument: random.below(2),
            environment: usize::from(random.chance(20)),
            revision: usize::from(random.chance(10)),
            stricter: random.chance(4),
        }
    }

    /// Whether a wider grant for the one covers the other.
    pub(crate) fn same_subject(self, other: Self) -> bool {
        Self { argument: 0, ..self } == Self { argument: 0, ..other }
    }

    /// Whether both have one key, and their rule asks other people.
    pub(crate) fn is_under_other_terms(self, other: Self) -> bool {
        self.stricter != other.stricter
            && Self { stricter: false, ..self } == Self { stricter: false, ..other }
    }

    pub(crate) fn principal_name(self) -> String {
        format!("p{}", self.principal)
    }

    pub(crate) fn shown(self) -> String {
        format!(r#"{{"name":"t{}","arguments":{{"n":{}}}}}"#, self.tool, self.argument)
    }

    pub(crate) fn quorum(self) -> usize {
        RULES[self.tool].0 as usize + usize::from(self.stricter)
    }

    pub(crate) fn ttl_ms(self) -> u64 {
        RULES[self.tool].2 * 1000
    }

    /// Time in milliseconds and count of the wider grant.
    pub(crate) fn offer(self) -> Option<(u64, usize)> {
        RULES[self.tool].3.map(|(secs, count)| (secs * 1000, count as usize))
    }

    pub(crate) fn may_answer(self, who: usize) -> bool {
        let (name, groups) = PEOPLE[who];
        let member = RULES[self.tool].1.is_none_or(|group| groups.contains(&group));
        member && name.to_lowercase() != self.principal_name()
    }

    pub(crate) fn hold(self) -> Hold {
        let (_, group, ttl, offer) = RULES[self.tool];
        let scope = |(secs, count)| GrantScope {
            code: "more".into(),
            lasts: Duration::from_secs(secs),
            count,
        };
        crate::made::hold(crate::made::Parts {
            principal: self.principal_name(),
            target: format!("t{}", self.tool),
            environment: format!("e{}", self.environment),
            shown: self.shown(),
            revision: format!("r{}", self.revision),
            approvers: group.into_iter().map(Into::into).collect(),
            quorum: self.quorum() as u32,
            ttl: Duration::from_secs(ttl),
            scopes: offer.map(scope).into_iter().collect(),
        })
    }
}
