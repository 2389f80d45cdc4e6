//! The factors of AIVSS, as far as lists show them. Each is 0, 0.5, 1 or not certain.

use crate::aivss::{Factor, FactorRow, Scoring};
use crate::hints::takes_free_text;
use crate::observed::Observed;
use crate::tools::ToolRow;

/// A value and its basis; no value if nothing is certain.
type Judged = (Option<f64>, &'static str);

/// What is asked of the inventory.
struct Inventory<'a> {
    observed: &'a Observed,
    tools: &'a [ToolRow],
}

impl Inventory<'_> {
    fn any(&self, effects: &[&str]) -> bool {
        self.tools.iter().any(|tool| effects.contains(&tool.worst))
    }

    fn tagged(&self, tag: &str) -> bool {
        self.tools.iter().any(|tool| tool.tags.iter().any(|it| it == tag))
    }

    /// Whether all tools are known to read only.
    fn only_reads(&self) -> bool {
        !self.tools.is_empty() && self.tools.iter().all(|tool| tool.worst == "read")
    }
}

/// The ten factors of the version: what the user says, else what the lists show.
pub(crate) fn rows(scoring: &Scoring, observed: &Observed, tools: &[ToolRow]) -> Vec<FactorRow> {
    let inventory = Inventory { observed, tools };
    let row = |(factor, name): &(Factor, &'static str)| {
        let given = scoring.factors.iter().find(|(given, _)| given == factor);
        let (value, basis) = given.map_or_else(
            || judged(*factor, &inventory),
            |(_, value)| (Some(*value), "given by the user"),
        );
        FactorRow { name, value, basis: basis.to_owned() }
    };
    scoring.version.factors().iter().map(row).collect()
}

fn judged(factor: Factor, inventory: &Inventory<'_>) -> Judged {
    let Inventory { observed, tools } = *inventory;
    match factor {
        Factor::Autonomy => autonomy(inventory),
        Factor::Planning => (None, "a list does not show whether the server plans"),
        Factor::Language => language(inventory),
        Factor::Tools => match () {
            () if tools.is_empty() => (None, "no tool was listed"),
            () if inventory.any(&["exec"]) || tools.iter().any(|tool| tool.operations > 0) => {
                (Some(1.0), "a tool runs what the call carries, or has many operations behind it")
            }
            () => (Some(0.5), "a fixed list of tools"),
        },
        Factor::Memory => match () {
            () if inventory.tagged("session-state") => {
                (Some(1.0), "a tool decides what later calls act on")
            }
            () if inventory.any(&["write", "destructive", "exec"]) => {
                (Some(0.5), "changes outlive the call")
            }
            () if inventory.only_reads() => (Some(0.0), "all tools only read"),
            () => (None, "effects are not known"),
        },
        Factor::Context => {
            let gives = |listed: &crate::observed::Listed| !listed.items.is_empty();
            if gives(&observed.resources) || gives(&observed.templates) || inventory.any(&["read"])
            {
                (Some(0.5), "it gives the agent data about its surroundings")
            } else {
                (None, "a list does not show what the server knows")
            }
        }
        Factor::Identity => {
            if inventory.tagged("credential-read") {
                (Some(1.0), "a tool gives out or makes credentials")
            } else {
                (None, "a list does not show as whom the server acts")
            }
        }
        Factor::Agents => (None, "a list does not show which agents share the server"),
        Factor::NonDeterminism => (None, "nothing was called, so no answers were compared"),
        Factor::Opacity => opacity(inventory),
        Factor::SelfModification => self_modification(inventory),
    }
}

fn autonomy(inventory: &Inventory<'_>) -> Judged {
    match () {
        () if inventory.any(&["destructive", "exec"]) => {
            (Some(1.0), "a call destroys or runs code at once, without a person")
        }
        () if inventory.any(&["unknown"]) => (None, "the effects of some tools are not known"),
        () if inventory.any(&["write"]) => (Some(0.5), "a call changes something without a person"),
        () if inventory.only_reads() => (Some(0.0), "all tools only read"),
        () => (None, "effects are not known"),
    }
}

fn language(inventory: &Inventory<'_>) -> Judged {
    let Inventory { observed, .. } = *inventory;
    let is_free = observed.tools.items.iter().any(|item| takes_free_text(&item.definition));
    match () {
        () if is_free || !observed.prompts.items.is_empty() => {
            (Some(0.5), "tools or prompts take free text")
        }
        () if observed.tools.items.is_empty() => (None, "no tool was listed"),
        () => (Some(0.0), "no tool takes free text"),
    }
}

fn opacity(inventory: &Inventory<'_>) -> Judged {
    let tools = inventory.tools;
    let unknown = tools.iter().filter(|tool| tool.source == "none").count();
    match () {
        () if tools.is_empty() => (None, "no tool was listed"),
        () if unknown == 0 => (Some(0.0), "a pack describes every tool"),
        () if unknown.saturating_mul(2) > tools.len() => {
            (Some(1.0), "no pack describes most of the tools")
        }
        () => (Some(0.5), "no pack describes some of the tools"),
    }
}

fn self_modification(inventory: &Inventory<'_>) -> Judged {
    match () {
        () if inventory.any(&["exec"]) => (Some(1.0), "a tool runs what the call carries"),
        () if inventory.observed.declares("/tools/listChanged") => {
            (Some(0.5), "it says that its tools may change during a session")
        }
        () if inventory.tagged("approval-control") => {
            (Some(0.5), "a tool acts on the approvals that limit it")
        }
        () => (None, "a list does not show whether the server changes itself"),
    }
}
