//! The assessment: every tool classified, findings, layers and score.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use bartizan_gate::evidence::finding::{Layer, TAXONOMY};
use bartizan_gate::question::pack::{Effect, Pack};
use bartizan_gate::wire::unseen::TWIN;

use crate::aivss::{self, Aivss, Scoring};
use crate::factors;
use crate::findings::Collector;
use crate::kinds;
use crate::layers::LAYERS;
use crate::observed::{Item, Observed, Reach};
use crate::search::{Contents, Search};
use crate::tools;

pub use crate::findings::{FindingRow, Subject};
pub use crate::kinds::Severity;
pub use crate::layers::LayerStatus;
pub use crate::tools::{Chosen, EnvironmentPlace, PackInUse, ToolRow};

/// Longest name that a report shows, characters.
const NAME_CHARS_MAX: usize = 200;
/// Longest description or instruction that a report shows, characters.
const TEXT_CHARS_MAX: usize = 300;
/// Characters of a look-alike name that a finding lists.
const CODE_POINTS_MAX: usize = 8;

/// The pack, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackRow {
    /// Its name.
    pub name: String,
    /// How it was chosen.
    pub chosen: Chosen,
    /// How many of the server's tools it describes.
    pub known: usize,
    /// How many tools it describes that the server did not list.
    pub not_listed: usize,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerRow {
    /// Its address or program.
    pub address: String,
    /// `http`, `https` or `program`.
    pub transport: &'static str,
    /// Its name, by its own account.
    pub name: String,
    /// Its version, by its own account.
    pub version: String,
    /// The protocol version that was spoken.
    pub protocol: String,
    /// The capabilities that it declares.
    pub capabilities: Vec<String>,
    /// Its instructions for models, shortened.
    pub instructions: String,
}

/// An entry that is no tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryRow {
    /// `resource`, `template` or `prompt`.
    pub list: &'static str,
    /// Its name, URI or template.
    pub name: String,
    /// Its description, shortened.
    pub description: String,
    /// What the gate flags in it.
    pub flags: Vec<&'static str>,
}

/// One layer of MAESTRO, or the threats across layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerRow {
    /// The id of the layer, `L1` to `L7`, or `X`.
    pub layer: &'static str,
    /// Its published name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// What is known.
    pub status: LayerStatus,
    /// The ids of findings whose threats are of this layer.
    pub findings: Vec<String>,
    /// What lists do not show.
    pub not_certain: Vec<&'static str>,
}

/// Counts for the head of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Tools by their effect: the worse one of pack and annotations, or `unknown` without a pack.
    pub tools: BTreeMap<&'static str, usize>,
    /// Entries by the word for their list.
    pub entries: BTreeMap<&'static str, usize>,
    /// Findings by severity.
    pub findings: BTreeMap<&'static str, usize>,
}

/// The threat model of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Assessment {
    /// Names the form of this document: `bartizan-assessment/1`.
    pub format: &'static str,
    /// The server.
    pub server: ServerRow,
    /// The pack; absent if none describes the server.
    pub pack: Option<PackRow>,
    /// Counts.
    pub summary: Summary,
    /// The seven layers, then what goes across them.
    pub layers: Vec<LayerRow>,
    /// The findings, the most urgent first.
    pub findings: Vec<FindingRow>,
    /// The score.
    pub aivss: Aivss,
    /// The tools, sorted by name.
    pub tools: Vec<ToolRow>,
    /// Resources, templates and prompts.
    pub entries: Vec<EntryRow>,
    /// What was not assessed, and why.
    pub gaps: Vec<String>,
    /// The versions of the taxonomies.
    pub taxonomy: &'static str,
}

impl Assessment {
    /// Assesses what a server showed.
    pub fn new(observed: &Observed, pack: Option<PackInUse<'_>>, scoring: &Scoring) -> Self {
        let mut search = Search::new();
        let mut found = Collector::default();
        let server = server(observed, &mut search, &mut found);
        let (tools, entries) = entries(observed, pack, &mut search, &mut found);
        let mut gaps = gaps(observed, pack, &mut found);
        if search.gave_up {
            gaps.push("some texts were too long to search for credentials".to_owned());
        }
        let findings = found.rows();
        let layers = layers(&findings, observed);
        let summary = summary(&tools, &entries, &findings);
        let aivss = aivss::of(scoring, factors::rows(scoring, observed, &tools));
        let pack = pack.map(|it| pack_row(it, observed));
        let (format, taxonomy) = ("bartizan-assessment/1", TAXONOMY);
        Self {
            format,
            server,
            pack,
            summary,
            layers,
            findings,
            aivss,
            tools,
            entries,
            gaps,
            taxonomy,
        }
    }

    /// The assessment as JSON, indented, with every invisible character escaped.
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON, which a test would show.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let text = serde_json::to_string_pretty(self)?;
        Ok(bartizan_gate::wire::inert::escaped(&text) + "\n")
    }
}

/// Finds the pack that describes most of the tools: at least half of them, or at least one if the
/// server's name has the pack's first word. Gives its index.
pub fn resembling(observed: &Observed, packs: &[Pack]) -> Option<usize> {
    let name = observed.identity.pointer("/serverInfo/name").and_then(Value::as_str);
    let name = name.unwrap_or_default().to_ascii_lowercase();
    let tools = observed.tools.items.len();
    let known = packs.iter().enumerate().map(|(index, pack)| {
        let known = observed.tools.items.iter();
        let known = known.filter(|tool| pack.tools.contains_key(tool.name.as_str())).count();
        let vendor = pack.name.split('-').next().unwrap_or_default();
        let is_named = !vendor.is_empty() && name.contains(vendor);
        (index, known, is_named)
    });
    let fits = |(_, known, is_named): &(usize, usize, bool)| {
        *known > 0 && (*is_named || known.saturating_mul(2) >= tools)
    };
    // The first of equals: `max_by_key` alone would take the last.
    let best = known.filter(fits).rev().max_by_key(|(_, known, is_named)| (*known, *is_named));
    best.map(|(index, _, _)| index)
}

fn pack_row(it: PackInUse<'_>, observed: &Observed) -> PackRow {
    let listed: HashSet<&str> =
        observed.tools.items.iter().map(|item| item.name.as_str()).collect();
    let known = it.pack.tools.keys().filter(|name| listed.contains(&***name)).count();
    let not_listed = it.pack.tools.len().saturating_sub(known);
    PackRow { name: it.pack.name.to_string(), chosen: it.chosen, known, not_listed }
}

/// What the server says of itself, with the findings about it as a whole.
fn server(observed: &Observed, search: &mut Search, found: &mut Collector) -> ServerRow {
    let identity = &observed.identity;
    let text = |at: &str| identity.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let name = search.shown(text("/serverInfo/name"), NAME_CHARS_MAX);
    if let Ok(item) = Item::read("", &identity.to_string()) {
        texts(&item, "server", &name, search, found);
    }
    let capabilities = identity.get("capabilities").and_then(Value::as_object);
    let capabilities = capabilities.into_iter().flatten();
    match &observed.reach {
        Reach::Http { encrypted, loopback, with_headers } => {
            if !encrypted && !loopback {
                found.add(&kinds::PLAIN_HTTP, "server", &name, "the address is not https");
            }
            if !with_headers && !loopback {
                found.add(&kinds::NO_CREDENTIAL, "server", &name, "no header was given to send");
            }
        }
        Reach::Program(words) if fetches_anything(words) => {
            let detail = "the package or image has no exact version or digest";
            found.add(&kinds::UNPINNED_PROGRAM, "server", &name, detail);
        }
        Reach::Program(_) => {}
    }
    if observed.declares("/tools/listChanged") {
        let detail = "it declares the capability `tools.listChanged`";
        found.add(&kinds::LIST_CHANGES, "server", &name, detail);
    }
    ServerRow {
        address: search.shown(&observed.address, TEXT_CHARS_MAX),
        transport: match observed.reach {
            Reach::Http { encrypted: true, .. } => "https",
            Reach::Http { .. } => "http",
            Reach::Program(_) => "program",
        },
        name,
        version: search.shown(text("/serverInfo/version"), NAME_CHARS_MAX),
        protocol: search.shown(text("/protocolVersion"), NAME_CHARS_MAX),
        capabilities: capabilities.map(|(name, _)| search.shown(name, NAME_CHARS_MAX)).collect(),
        instructions: search.shown(text("/instructions"), TEXT_CHARS_MAX),
    }
}

/// Whether a command is one that fetches a package or image, and names no exact one.
fn fetches_anything(words: &[String]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let program = program.rsplit('/').next().unwrap_or_default();
    let pins: &[&str] = match program {
        "npx" | "bunx" | "pnpx" | "pnpm" | "yarn" => &["@"],
        "uvx" | "pipx" | "uv" => &["==", "@"],
        "docker" | "podman" | "nerdctl" => {
            return !arguments.iter().any(|it| it.contains("@sha256:"));
        }
        _ => return false,
    };
    let has_version = |word: &String| {
        pins.iter().any(|pin| {
            let version = word.rsplit_once(pin).map(|(_, version)| version);
            version.is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    !arguments.iter().any(has_version)
}

/// The rows of all entries, with the findings about each.
fn entries(
    observed: &Observed,
    pack: Option<PackInUse<'_>>,
    search: &mut Search,
    found: &mut Collector,
) -> (Vec<ToolRow>, Vec<EntryRow>) {
    let confidences = pack.map(|it| tools::confidences(it.text)).unwrap_or_default();
    let mut tools = Vec::new();
    let mut others = Vec::new();
    for (list, listed) in observed.lists() {
        for item in &listed.items {
            let name = search.shown(&item.name, NAME_CHARS_MAX);
            texts(item, list, &name, search, found);
            let description = search.shown(item.text("description"), TEXT_CHARS_MAX);
            if list == "tool" {
                let row = tools::row(item, pack, &confidences, (name, description));
                tools::findings(item, &row, found);
                let entry = pack.and_then(|it| it.pack.tools.get(item.name.as_str()));
                tools::environment_findings(&row, entry, found);
                tools.push(row);
            } else {
                others.push(EntryRow { list, name, description, flags: item.flags.clone() });
            }
        }
    }
    (tools, others)
}

/// The findings about the texts and schemas of one definition.
fn texts(item: &Item, list: &'static str, name: &str, search: &mut Search, found: &mut Collector) {
    for flag in &item.flags {
        let kind = match *flag {
            TWIN => &kinds::LOOK_ALIKE,
            flag if bartizan_gate::catalog::flags::is_of_schema(flag) => &kinds::UNSAFE_SCHEMA,
            _ => &kinds::HIDDEN_TEXT,
        };
        let look_alike = if *flag == TWIN { code_points(&item.name) } else { String::new() };
        found.add(kind, list, name, &format!("flag `{flag}`{look_alike}"));
    }
    if item.is_repeated {
        found.add(&kinds::LOOK_ALIKE, list, name, "the list has several entries of this name");
    }
    let mut contents = Contents::default();
    search.contents(&item.definition, &mut contents);
    if !contents.credentials.is_empty() {
        let rules = contents.credentials.join("`, `");
        found.add(&kinds::CREDENTIAL, list, name, &format!("found by rule `{rules}`"));
    }
    if let Some(said) = contents.instruction {
        found.add(&kinds::INSTRUCTION, list, name, &format!("it contains \"{said}\""));
    }
}

/// The characters of a name by which it differs from the plain one that it looks like.
fn code_points(name: &str) -> String {
    let other = name.chars().filter(|c| !c.is_ascii()).take(CODE_POINTS_MAX);
    let other: Vec<String> = other.map(|c| format!("U+{:04X}", u32::from(c))).collect();
    format!(": its letters are not all ASCII ({})", other.join(" "))
}

/// What was not assessed, with the findings about lists that could not be read.
fn gaps(observed: &Observed, pack: Option<PackInUse<'_>>, found: &mut Collector) -> Vec<String> {
    let mut gaps = Vec::new();
    for (list, listed) in observed.lists() {
        if let Some(gap) = &listed.gap {
            gaps.push(format!("the list of {list}s is not whole: {gap}"));
            found.add(&kinds::UNREADABLE, "server", &format!("{list}s"), gap);
        }
        if !listed.offered {
            gaps.push(format!("the server declares no {list}s, so none were asked for"));
        }
    }
    match pack.map(|it| it.chosen) {
        Some(Chosen::Found) => gaps.push(
            "the pack was found by the server's own names, which do not prove who runs it; check the address, then name the pack with --pack"
                .to_owned(),
        ),
        Some(Chosen::Named) => {}
        None => gaps.push(
            "no pack describes the server, so effects are hints from names and annotations"
                .to_owned(),
        ),
    }
    gaps.push("only lists were asked for: nothing was called, read or fetched".to_owned());
    gaps
}

fn layers(findings: &[FindingRow], observed: &Observed) -> Vec<LayerRow> {
    let is_whole = observed.lists().iter().all(|(_, listed)| listed.gap.is_none());
    let row = |layer: &crate::layers::LayerText| {
        let Layer { id, name } = layer.layer;
        let of_layer = |finding: &&FindingRow| {
            let threats = finding.tags.maestro.threats.iter();
            let mut layers = threats.filter_map(|threat| threat.split_once('/'));
            finding.tags.maestro.layer == id || layers.any(|(layer, _)| layer == id)
        };
        let found: Vec<String> =
            findings.iter().filter(of_layer).map(|finding| finding.id.clone()).collect();
        let status = match (found.is_empty(), layer.is_visible && is_whole) {
            (false, _) => LayerStatus::Findings,
            (true, true) => LayerStatus::NothingFound,
            (true, false) => LayerStatus::NotCertain,
        };
        LayerRow {
            layer: id,
            name,
            about: layer.about,
            status,
            findings: found,
            not_certain: layer.unknown.to_vec(),
        }
    };
    LAYERS.iter().map(row).collect()
}

fn summary(tools: &[ToolRow], entries: &[EntryRow], findings: &[FindingRow]) -> Summary {
    let mut summary = Summary::default();
    // As the table of tools has it: what a tool that no pack describes looks like is a guess.
    let counted = |tool: &ToolRow| if tool.source == "pack" { tool.worst } else { tool.effect };
    let effects = [Effect::Read, Effect::Write, Effect::Destructive, Effect::Exec, Effect::Unknown];
    for effect in effects {
        let count = tools.iter().filter(|tool| counted(tool) == effect.as_str()).count();
        summary.tools.insert(effect.as_str(), count);
    }
    summary.entries.insert("tool", tools.len());
    for list in ["resource", "template", "prompt"] {
        let count = entries.iter().filter(|entry| entry.list == list).count();
        summary.entries.insert(list, count);
    }
    for severity in Severity::ALL {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        summary.findings.insert(severity.as_str(), count);
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fetches_names_an_exact_version() {
        for (command, expected) in [
            ("npx -y some-server", true),
            ("npx -y @scope/some-server", true),
            ("npx -y @scope/some-server@latest", true),
            ("npx -y @scope/some-server@1.2.3", false),
            ("/usr/bin/uvx server", true),
            ("uvx server==1.2", false),
            ("docker run -i image:1", true),
            ("docker run -i image@sha256:00", false),
            ("./server", false),
            ("", false),
        ] {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            assert_eq!(fetches_anything(&words), expected, "{command}");
        }
    }

    #[test]
    fn the_way_to_the_server_is_judged() {
        use crate::observed::Listed;
        let http =
            |encrypted, loopback, with_headers| Reach::Http { encrypted, loopback, with_headers };
        let program =
            |command: &str| Reach::Program(command.split(' ').map(str::to_owned).collect());
        for (reach, expected) in [
            (http(false, false, false), "unencrypted_transport lists_without_credential"),
            (http(false, false, true), "unencrypted_transport"),
            (http(true, false, false), "lists_without_credential"),
            (http(true, false, true), ""),
            (http(false, true, false), ""),
            (program("npx x"), "unpinned_program"),
            (program("npx x@1.2.3"), ""),
        ] {
            let observed = Observed {
                address: String::new(),
                reach,
                identity: Value::Null,
                tools: Listed::default(),
                resources: Listed::default(),
                templates: Listed::default(),
                prompts: Listed::default(),
            };
            let made = Assessment::new(&observed, None, &Scoring::default());
            let kinds: Vec<&str> = made.findings.iter().map(|it| it.kind).collect();
            assert_eq!(kinds.join(" "), expected);
        }
    }
}
