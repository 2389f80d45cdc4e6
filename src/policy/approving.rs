//! Who may answer holds, for a look at whether anybody can grant what a rule holds.
//!
//! `check` and the start ask it for each `hold` whose `approvers` and `quorum` stand in the policy
//! literally. What a call says cannot be known before it comes, so it judges only what is certain.

use std::collections::BTreeSet;

use bartizan_rego::Objection;

/// What is known of those who answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approving {
    /// Nothing, because there is no configuration, or it does not matter.
    Unknown,
    /// Nobody may answer.
    Nobody,
    /// These may.
    By(Answerers),
}

/// Those who may answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answerers {
    /// Ids of approvers with their groups, those of webhooks' links included.
    pub known: Vec<(Box<str>, Vec<Box<str>>)>,
    /// The groups of people who sign in at an issuer, if they can: nobody knows how many they are.
    pub sign_in: Option<Vec<Box<str>>>,
    /// The principal of all calls, if the configuration names it. Nobody grants calls of a principal
    /// with their own id.
    pub principal: Option<Box<str>>,
}

impl Answerers {
    /// Why nobody can grant a call that asks one of `groups` (none: anybody), `quorum` of them, and the
    /// next step; `None` if it may be granted.
    pub fn objection(&self, groups: &[&str], quorum: u32) -> Option<Objection> {
        let asked = |of: &[Box<str>]| {
            groups.is_empty() || of.iter().any(|group| groups.contains(&&**group))
        };
        if self.sign_in.as_ref().is_some_and(|of| asked(of)) {
            return None;
        }
        let ids = self.known.iter().filter(|(_, of)| asked(of)).map(|(id, _)| id);
        let ids: BTreeSet<String> = ids.map(|id| id.to_ascii_lowercase()).collect();
        let own = self.principal.as_ref().map(|id| id.to_ascii_lowercase());
        let able = ids.iter().filter(|id| Some(*id) != own.as_ref()).count();
        if usize::try_from(quorum).is_ok_and(|quorum| able >= quorum) {
            return None;
        }
        let among =
            if groups.is_empty() { String::new() } else { format!(" in {}", listed(groups)) };
        if ids.is_empty() {
            let message = format!("nobody can grant what this rule holds: no approver is{among}");
            return Some(Objection { message, hint: self.hint() });
        }
        let himself = if able < ids.len() {
            let own = self.principal.as_deref().unwrap_or_default();
            format!(", because `{own}` is the principal, and nobody grants their own calls")
        } else {
            String::new()
        };
        let message = format!(
            "nobody can grant what this rule holds: it takes {quorum} of the approvers{among}, and \
             {able} can{himself}"
        );
        Some(Objection { message, hint: self.hint() })
    }

    fn hint(&self) -> String {
        let known = self.known.iter().flat_map(|(_, of)| of);
        let known: BTreeSet<&str> =
            known.chain(self.sign_in.iter().flatten()).map(|group| &**group).collect();
        let known: Vec<&str> = known.into_iter().collect();
        let groups = if known.is_empty() {
            "no approver has a group".to_owned()
        } else {
            format!("there are {}", listed(&known))
        };
        format!(
            "change the rule's `approvers` or `quorum`, or add approvers or their `groups` in \
             `approvals` of the configuration; {groups}"
        )
    }
}

fn listed(groups: &[&str]) -> String {
    format!("`{}`", groups.join("`, `"))
}
