//! The kinds of findings of an assessment, with their severity, advice and taxonomy ids.
//!
//! Where a finding is what the firewall would record as an event, its ids are those of that event
//! (`bartizan_gate::evidence::finding`). An assessment sees a capability and no event, so the others
//! are `related`, except where the definition itself is the attack.

use serde::Serialize;

use bartizan_gate::evidence::finding::{Finding, Layer, Maestro, Mitre, Owasp, Tags};

/// How urgent a finding is; compares by urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Do not connect an agent before it is settled.
    High,
    /// Needs a rule or a decision.
    Medium,
    /// Worth knowing.
    Low,
}

impl Severity {
    /// The most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Medium, Self::Low];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// Where the ids of a kind are.
#[derive(Debug, Clone, Copy)]
enum Ids {
    /// In the table of events.
    Event(Finding),
    /// Here.
    Own(Tags),
}

/// A kind of finding.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name in JSON.
    pub(crate) name: &'static str,
    pub(crate) severity: Severity,
    /// What is wrong, one sentence without a full stop.
    pub(crate) title: &'static str,
    /// What to do about it.
    pub(crate) advice: &'static str,
    ids: Ids,
}

impl Kind {
    /// The taxonomy ids.
    pub(crate) fn tags(&'static self) -> &'static Tags {
        match &self.ids {
            Ids::Event(finding) => finding.tags(),
            Ids::Own(tags) => tags,
        }
    }
}

/// Ids that are not in the table of events.
const fn related(
    layer: Layer,
    threats: &'static [&'static str],
    mcp: &'static [&'static str],
    asi: &'static [&'static str],
    atlas: &'static [&'static str],
) -> Ids {
    Ids::Own(Tags {
        strength: "related",
        maestro: Maestro::new(layer, threats),
        owasp: Owasp { mcp, asi },
        mitre: Mitre { atlas },
    })
}

/// What a call can do that no pin limits: the ids of the event `env_pin_violation`.
const UNPINNED: Ids = related(
    Layer::L7,
    &["L7/Agent Tool Misuse", "L4/Lateral Movement", "X/Privilege Escalation"],
    &["MCP02:2025"],
    &["ASI02", "ASI03"],
    &["AML.T0053"],
);

pub(crate) const HIDDEN_TEXT: Kind = Kind {
    name: "hidden_text",
    severity: Severity::High,
    title: "Text that a person cannot see, but a model reads",
    advice: "Do not use the server until its operator explains the characters. The baseline hides and denies such tools.",
    ids: Ids::Event(Finding::HiddenUnicodeToolDescription),
};
pub(crate) const LOOK_ALIKE: Kind = Kind {
    name: "look_alike_name",
    severity: Severity::High,
    title: "A name that is, or looks like, another name of the list",
    advice: "Find out which of the two is meant. The baseline hides and denies the imitation.",
    ids: Ids::Event(Finding::HiddenUnicodeToolDescription),
};
pub(crate) const UNSAFE_SCHEMA: Kind = Kind {
    name: "unsafe_schema",
    severity: Severity::High,
    title: "A schema that refers to another document, or names an invalid header",
    advice: "Validators that follow the reference fetch what the server names. The baseline hides and denies such tools.",
    ids: Ids::Event(Finding::UnsafeToolSchema),
};
pub(crate) const CREDENTIAL: Kind = Kind {
    name: "credential_in_definition",
    severity: Severity::High,
    title: "A credential in a definition",
    advice: "Have it revoked: every client that lists the server receives it.",
    ids: Ids::Event(Finding::ResponseSecretLeak),
};
pub(crate) const CONTRADICTED: Kind = Kind {
    name: "contradicted_annotation",
    severity: Severity::High,
    title: "An annotation says that a tool is harmless, and its name, its arguments or the pack say otherwise",
    advice: "Clients that trust annotations call it without asking. Classify it in a pack, and let no client approve calls by annotation.",
    ids: related(
        Layer::L7,
        &["L7/Inaccurate Agent Capability Description", "L7/Agent Tool Misuse"],
        &["MCP03:2025"],
        &["ASI04", "ASI02"],
        &["AML.T0110"],
    ),
};
pub(crate) const INSTRUCTION: Kind = Kind {
    name: "instruction_in_definition",
    severity: Severity::High,
    title: "A definition with a sentence that tells a model what to do or hide",
    advice: "Read the whole text. Withhold the tool if the sentence is not about its own use.",
    ids: related(
        Layer::L7,
        &["L7/Inaccurate Agent Capability Description", "L7/Agent Goal Manipulation"],
        &["MCP03:2025", "MCP06:2025"],
        &["ASI01", "ASI04"],
        &["AML.T0051.001", "AML.T0110"],
    ),
};
pub(crate) const EXEC: Kind = Kind {
    name: "runs_code",
    severity: Severity::High,
    title: "A tool that runs what the call carries",
    advice: "No rule can limit it by its arguments. Leave it refused, or hold every call for a person.",
    ids: related(
        Layer::L7,
        &["L7/Agent Tool Misuse", "L4/Lateral Movement"],
        &["MCP05:2025"],
        &["ASI05", "ASI02"],
        &["AML.T0053"],
    ),
};
pub(crate) const DESTRUCTIVE: Kind = Kind {
    name: "destroys",
    severity: Severity::Medium,
    title: "A tool that removes or replaces, or changes at once what end users get",
    advice: "The baseline refuses it. Open it by name, and only with approval by a person.",
    ids: related(
        Layer::L7,
        &["L7/Agent Tool Misuse"],
        &["MCP02:2025"],
        &["ASI02"],
        &["AML.T0053", "AML.T0101"],
    ),
};
pub(crate) const NO_ENVIRONMENT: Kind = Kind {
    name: "environment_not_named",
    severity: Severity::Medium,
    title: "A tool that changes something, and no known argument names the environment",
    advice: "A pin cannot check its calls. Use a credential that reaches one environment only, or hold the calls.",
    ids: UNPINNED,
};
pub(crate) const ABSENT_ENVIRONMENT: Kind = Kind {
    name: "absent_environment_reaches_all",
    severity: Severity::Medium,
    title: "A call that leaves the environment out reaches production",
    advice: "Pin the server to an environment. The baseline then denies calls that leave it out.",
    ids: UNPINNED,
};
pub(crate) const UNCLASSIFIED: Kind = Kind {
    name: "unclassified",
    severity: Severity::Medium,
    title: "A tool whose effect nobody has reviewed",
    advice: "The baseline refuses it. Say in a pack what it does at worst.",
    ids: related(Layer::L7, &["L7/Agent Tool Misuse"], &["MCP02:2025"], &["ASI02"], &[]),
};
pub(crate) const APPROVAL_CONTROL: Kind = Kind {
    name: "acts_on_approvals",
    severity: Severity::Medium,
    title: "A tool that grants, withdraws or carries out the vendor's own approvals",
    advice: "Leave it refused: an agent must not approve its own changes.",
    ids: related(Layer::L7, &["L7/Agent Tool Misuse"], &["MCP02:2025"], &["ASI09"], &[]),
};
pub(crate) const CREDENTIAL_READ: Kind = Kind {
    name: "reads_credentials",
    severity: Severity::Medium,
    title: "A tool that seems to give out or make credentials",
    advice: "Leave it refused, or let answers pass only with credentials removed (`redact`).",
    ids: related(
        Layer::X,
        &["X/Data Leakage", "L2/Data Exfiltration"],
        &["MCP01:2025"],
        &["ASI03"],
        &["AML.T0098"],
    ),
};
pub(crate) const PLAIN_HTTP: Kind = Kind {
    name: "unencrypted_transport",
    severity: Severity::High,
    title: "Calls, answers and credentials cross the network unencrypted",
    advice: "Use an https address.",
    ids: related(Layer::L4, &[], &["MCP07:2025"], &["ASI07"], &[]),
};
pub(crate) const NO_CREDENTIAL: Kind = Kind {
    name: "lists_without_credential",
    severity: Severity::Medium,
    title: "The server answered a caller that showed no credential",
    advice: "Find out whether calls need one. The server may rely on its network alone.",
    ids: related(Layer::L7, &["L7/Agent Identity Attack"], &["MCP07:2025"], &["ASI03"], &[]),
};
pub(crate) const UNPINNED_PROGRAM: Kind = Kind {
    name: "unpinned_program",
    severity: Severity::Medium,
    title: "The command fetches a program without naming an exact version or digest",
    advice: "Pin the version, or the digest of an image, so that another program cannot take its place.",
    ids: related(
        Layer::X,
        &["X/Supply Chain Attacks", "L4/Compromised Container Images"],
        &["MCP04:2025"],
        &["ASI04"],
        &["AML.T0010.005"],
    ),
};
pub(crate) const UNREADABLE: Kind = Kind {
    name: "unreadable_list",
    severity: Severity::Medium,
    title: "A list could not be read whole",
    advice: "Its other entries were not assessed. The firewall withholds what it cannot read in one way only.",
    ids: Ids::Event(Finding::MalformedFrame),
};
pub(crate) const ADDRESS: Kind = Kind {
    name: "takes_address",
    severity: Severity::Low,
    title: "A tool with an argument that is an address",
    advice: "It may reach what the server's network can reach. Limit the server's egress.",
    ids: related(Layer::L4, &["L4/Lateral Movement"], &[], &["ASI02"], &[]),
};
pub(crate) const LIST_CHANGES: Kind = Kind {
    name: "definitions_may_change",
    severity: Severity::Low,
    title: "The server says that its definitions may change during a session",
    advice: "Lock them with `bartizan lock`, so that a change is noticed and refused.",
    ids: related(
        Layer::X,
        &["X/Supply Chain Attacks", "L7/Inaccurate Agent Capability Description"],
        &["MCP03:2025", "MCP04:2025"],
        &["ASI04"],
        &["AML.T0109"],
    ),
};
pub(crate) const UNDESCRIBED: Kind = Kind {
    name: "undescribed",
    severity: Severity::Low,
    title: "A tool without a description",
    advice: "Nobody can review what it does from its definition.",
    ids: related(Layer::L7, &["L7/Inaccurate Agent Capability Description"], &[], &["ASI04"], &[]),
};

/// All of them, the most urgent first, as reports list them.
pub(crate) const ALL: [&Kind; 20] = [
    &HIDDEN_TEXT,
    &LOOK_ALIKE,
    &UNSAFE_SCHEMA,
    &CREDENTIAL,
    &CONTRADICTED,
    &INSTRUCTION,
    &EXEC,
    &PLAIN_HTTP,
    &DESTRUCTIVE,
    &NO_ENVIRONMENT,
    &ABSENT_ENVIRONMENT,
    &UNCLASSIFIED,
    &APPROVAL_CONTROL,
    &CREDENTIAL_READ,
    &NO_CREDENTIAL,
    &UNPINNED_PROGRAM,
    &UNREADABLE,
    &ADDRESS,
    &LIST_CHANGES,
    &UNDESCRIBED,
];

/// The kinds for which the starter policy withholds a tool until a person has looked.
pub(crate) const WITHHELD: [&Kind; 6] =
    [&HIDDEN_TEXT, &LOOK_ALIKE, &UNSAFE_SCHEMA, &CREDENTIAL, &CONTRADICTED, &INSTRUCTION];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LAYERS;

    #[test]
    fn kinds_are_sorted_by_urgency_and_named_once() {
        assert!(ALL.is_sorted_by_key(|kind| kind.severity));
        let mut names: Vec<_> = ALL.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn the_page_lists_every_kind() {
        let page = include_str!("../../../docs/assess.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| {
            let mut cells = line.split(" | ");
            Some((cells.next()?.trim_end_matches('`'), cells.next()?))
        });
        let rows: Vec<_> =
            rows.filter(|row| Severity::ALL.iter().any(|it| it.as_str() == row.1)).collect();
        let mut known: Vec<_> = ALL.iter().map(|it| (it.name, it.severity.as_str())).collect();
        let mut shown = rows.clone();
        known.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, known);
    }

    #[test]
    fn every_threat_is_of_a_layer_that_reports_show() {
        let shown = LAYERS.each_ref().map(|it| it.layer);
        assert_eq!(shown, Layer::ALL);
        for tags in Finding::ALL.iter().map(|it| it.tags()).chain(ALL.iter().map(|it| it.tags())) {
            for threat in tags.maestro.threats {
                let (layer, _) = threat.split_once('/').unwrap_or_default();
                assert!(shown.iter().any(|it| it.id == layer), "{threat}");
            }
        }
    }
}
