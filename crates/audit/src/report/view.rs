//! What a report has, and in which order: the same in each form.

use std::fmt::Write as _;

use super::count::Top;
use super::{NONE, ProgramEvents, Report, Verdict};

/// Rows of a table at most.
const ROWS_MAX: usize = 15;

/// How close findings are to what they name, the closest first.
pub(super) const STRENGTHS: [&str; 3] = ["direct", "related", "control-evidence"];

/// A value in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// A text, which may come from a peer.
    Text(String),
    Number(u64),
    /// A verdict or a strength, one of a few words.
    Word(String),
    /// A time, or a name that records have; it is not divided over lines.
    Whole(String),
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

/// A chart. A page has both, a terminal the layers; the tables say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chart {
    /// Calls over time, by verdict.
    Timeline,
    /// Findings by layer and strength.
    Layers,
}

/// A part of a report.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// What it says, in a sentence or two.
    pub(super) about: String,
    pub(super) chart: Option<Chart>,
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// What is not in the table.
    pub(super) note: Option<String>,
}

impl Section {
    fn new(title: &'static str, about: impl Into<String>, head: &[&'static str]) -> Self {
        let (about, head) = (about.into(), head.to_vec());
        Self { title, about, chart: None, head, rows: Vec::new(), note: None }
    }

    /// Adds a row for each of the most frequent keys, and says what the others had.
    fn top<K: Ord + std::hash::Hash>(
        mut self,
        top: &Top<K>,
        row: impl Fn(&K) -> Vec<Cell>,
    ) -> Self {
        let (first, rest) = top.first(ROWS_MAX);
        for (key, count) in first {
            let mut cells = row(key);
            cells.push(count.into());
            self.rows.push(cells);
        }
        let mut notes = Vec::new();
        if rest > 0 {
            notes.push(format!("{rest} more of {} are not shown", top.total()));
        }
        if top.missed() > 0 {
            let missed = top.missed();
            notes
                .push(format!("there are so many names that counts may be up to {missed} too low"));
        }
        self.note = (!notes.is_empty()).then(|| format!("{}.", notes.join("; ")));
        self
    }

    fn events(mut self, events: &ProgramEvents) -> Self {
        let rows = events.kept.iter().map(|event| {
            vec![
                Cell::Whole(short(&event.time)),
                Cell::Word(event.event.clone()),
                (&event.text).into(),
            ]
        });
        self.rows = rows.collect();
        self.note = (events.more > 0).then(|| format!("{} later ones are not shown.", events.more));
        self
    }
}

/// A number that a page shows large: what it counts, and whether somebody should look at it.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: u64,
    pub(super) alarming: bool,
}

impl Report {
    /// The time that the report is about.
    pub(super) fn range(&self) -> String {
        let or = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_ref().or(found.as_ref()).map_or_else(|| NONE.to_owned(), |it| short(it))
        };
        let beginning = self.beginning.as_ref().map(|it| format!("; {it}")).unwrap_or_default();
        let (from, to) = (or(&self.since, &self.first), or(&self.until, &self.last));
        if self.first.is_none() && (self.since.is_none() || self.until.is_none()) {
            let time = match (&self.since, &self.until) {
                (Some(_), _) => format!(" from {from} on (UTC)"),
                (_, Some(_)) => format!(" before {to} (UTC)"),
                (None, None) => String::new(),
            };
            return format!("no records{time}{beginning}");
        }
        format!("{from} to {to} (UTC){beginning}")
    }

    fn of(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or_default()
    }

    /// The numbers to begin with.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let direct = self.findings.values().filter(|it| it.strength == "direct");
        let direct = direct.fold(0_u64, |sum, it| sum.saturating_add(it.count));
        let figure = |name, value, alarming: bool| Figure { name, value, alarming };
        let sinks = u64::try_from(self.sinks.kept.len()).unwrap_or(u64::MAX);
        let sinks = sinks.saturating_add(self.sinks.more);
        let observed = self.of(Verdict::Observed);
        vec![
            figure("calls", self.calls, false),
            figure("denied", self.of(Verdict::Denied), false),
            figure("denied, let through", observed, observed > 0),
            figure("approvals asked", self.holds.asked, false),
            figure("direct findings", direct, direct > 0),
            figure("gaps and failed sinks", sinks, sinks > 0),
        ]
    }

    /// How often there were findings in a layer, by [`STRENGTHS`].
    pub(super) fn layer(&self, layer: &str) -> [u64; 3] {
        STRENGTHS.map(|strength| {
            let found = self.findings.values();
            let found = found.filter(|it| it.layer == layer && it.strength == strength);
            found.fold(0_u64, |sum, it| sum.saturating_add(it.count))
        })
    }

    /// All parts of the report.
    pub(super) fn sections(&self) -> Vec<Section> {
        let mut sections = vec![self.time(), self.threats(), self.operations()];
        sections.extend([self.denied_calls(), self.people(), self.limits(), self.tools()]);
        let failures = Section::new(
            "Calls that did not end well",
            "By server and outcome. `tool_error` is the tool's own answer.",
            &["Server", "Outcome", "Calls"],
        );
        sections.push(
            failures.top(&self.failures, |[server, outcome]| vec![server.into(), outcome.into()]),
        );
        sections.push(
            Section::new(
                "Starts, policies and recoveries",
                "What changed in the firewall itself.",
                &["Time", "Event", "What"],
            )
            .events(&self.changes),
        );
        sections.push(
            Section::new(
                "Gaps and failed sinks",
                "Times without records, and services that did not work: the store of replicas, webhooks.",
                &["Time", "Event", "What"],
            )
            .events(&self.sinks),
        );
        sections
    }

    fn time(&self) -> Section {
        let mut section = Section::new(
            "Calls over time",
            format!("Calls: {}. Agents: {}.", self.calls, self.agents()),
            &["Verdict", "Calls"],
        );
        section.chart = Some(Chart::Timeline);
        for verdict in Verdict::ALL {
            let count = self.of(verdict);
            if count > 0 {
                section.rows.push(vec![Cell::Word(verdict.name().to_owned()), count.into()]);
            }
        }
        section
    }

    fn agents(&self) -> String {
        let (first, _) = self.principals.first(usize::MAX);
        let names = first.iter().map(|((name, _), _)| &**name);
        let mut names: Vec<&str> = names.filter(|name| *name != NONE).collect();
        names.sort_unstable();
        names.dedup();
        let more = if self.principals.missed() > 0 { "more than " } else { "" };
        format!("{more}{}", names.len())
    }

    /// Findings by MAESTRO layer, with their threats.
    fn threats(&self) -> Section {
        let about = "What the events relate to in MAESTRO (2025-02). `direct`: the event is what the \
            threat names; `related`: it may belong to it; `control-evidence`: a control worked. \
            No finding says that an attack took place.";
        let head = ["Layer", "Finding", "Strength", "Threats", "Last", "Events"];
        let mut section = Section::new("Findings by MAESTRO layer", about, &head);
        section.chart = Some(Chart::Layers);
        let mut found: Vec<_> = self.findings.iter().collect();
        found.sort_by(|(_, a), (_, b)| a.layer.cmp(&b.layer).then_with(|| b.count.cmp(&a.count)));
        for (name, finding) in found {
            section.rows.push(vec![
                Cell::Text(format!("{} {}", finding.layer, finding.layer_name)),
                Cell::Whole(name.clone()),
                Cell::Word(finding.strength.clone()),
                Cell::Text(finding.threats.join("; ")),
                Cell::Whole(short(&finding.last)),
                finding.count.into(),
            ]);
        }
        section
    }

    fn operations(&self) -> Section {
        Section::new(
            "Calls by effect, environment and decision",
            "A call that reaches several environments is in several rows. `*` is any of them.",
            &["Effect", "Environment", "Decision", "Calls"],
        )
        .top(&self.operations, |(effect, environment, verdict)| {
            vec![effect.into(), environment.into(), Cell::Word(verdict.name().to_owned())]
        })
    }

    fn denied_calls(&self) -> Section {
        Section::new(
            "Most denied",
            "By the rule that decided, also where it was not enforced.",
            &["Rule", "Tool or method", "Principal", "Calls"],
        )
        .top(&self.denied, |cells| cells.iter().map(Into::into).collect())
    }

    fn people(&self) -> Section {
        let holds = &self.holds;
        let mut about = format!(
            "{} asked; {} granted, {} refused, {} expired, {} cancelled.",
            holds.asked, holds.granted, holds.refused, holds.expired, holds.cancelled
        );
        if holds.invalid > 0 {
            write!(about, " {} answers did not count.", holds.invalid).unwrap_or_default();
        }
        let head = ["Approver", "Answer", "Who asked", "Tool", "Reason", "Times"];
        Section::new("Who approved what", about, &head)
            .top(&holds.answers, |cells| cells.iter().map(Into::into).collect())
    }

    fn limits(&self) -> Section {
        Section::new(
            "Limits",
            "Calls over a limit.",
            &["Limit", "Tool or method", "Principal", "Calls"],
        )
        .top(&self.limited, |cells| cells.iter().map(Into::into).collect())
    }

    fn tools(&self) -> Section {
        Section::new(
            "Tools that are not what they were",
            "Definitions that differ from the lock, or hold what people do not see.",
            &["Server", "Tool", "What", "Events"],
        )
        .top(&self.drift, |cells| cells.iter().map(Into::into).collect())
    }
}

/// A time without its fraction of a second, as people write it.
pub(super) fn short(time: &str) -> String {
    match (time.get(..10), time.get(11..19)) {
        (Some(day), Some(clock)) => format!("{day} {clock}"),
        _ => time.to_owned(),
    }
}
