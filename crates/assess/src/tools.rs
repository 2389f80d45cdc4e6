//! One tool: its classification, where it comes from, and the findings about it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use bartizan_gate::question::pack::{Absent, Effect, EnvironmentForm, Pack, ToolEntry};

use crate::findings::Collector;
use crate::hints::{self, Hint};
use crate::kinds;
use crate::observed::Item;

/// How the pack was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// The user named it.
    Named,
    /// The server's name and tools resemble it.
    Found,
}

/// The pack that describes the server.
#[derive(Debug, Clone, Copy)]
pub struct PackInUse<'a> {
    /// The pack.
    pub pack: &'a Pack,
    /// Its JSON text, which also says how sure its author was of each tool.
    pub text: &'a str,
    /// How it was chosen.
    pub chosen: Chosen,
}

/// An argument that names environments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EnvironmentPlace {
    /// An RFC 6901 pointer below the arguments, `*` for each element.
    pub at: String,
    /// `name`, `keys`, `id`, `segment` or `patch`, as in a pack.
    pub form: &'static str,
}

/// One tool of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolRow {
    /// Its name as the server wrote it, for the files of a starter policy.
    #[serde(skip)]
    pub(crate) raw_name: String,
    /// Its name.
    pub name: String,
    /// Its description, shortened.
    pub description: String,
    /// The effect with which the firewall would decide: the pack's, or `unknown`.
    pub effect: &'static str,
    /// `pack`, or `none` if no pack describes it.
    pub source: &'static str,
    /// How sure the classification is: the word of a pack that the user named, `unstated` if it has
    /// none; `low` for a pack that was found and for hints; `none` if there are not even hints.
    pub confidence: String,
    /// The worst of the effect and of the hints, which can only make it worse. `unknown` if there is
    /// no pack and no hint of a change.
    pub worst: &'static str,
    /// What the hints speak for at worst; absent if there are none.
    pub hinted: Option<&'static str>,
    /// The hints.
    pub hints: Vec<String>,
    /// Arguments that name environments.
    pub environments: Vec<EnvironmentPlace>,
    /// `pack` or `hint`: where `environments` comes from; `not certain` if it is empty and no pack
    /// describes the tool.
    pub environments_source: &'static str,
    /// Tags that the pack gives it.
    pub tags: Vec<String>,
    /// How many operations the pack knows behind this one tool.
    pub operations: usize,
    /// What the gate flags in the definition.
    pub flags: Vec<&'static str>,
    /// The digest of the definition, as in a lock.
    pub digest: String,
}

/// How sure the pack's author was of each tool.
pub(crate) fn confidences(text: &str) -> BTreeMap<String, String> {
    let Ok(pack) = serde_json::from_str::<Value>(text) else { return BTreeMap::new() };
    let tools = pack.get("tools").and_then(Value::as_object);
    let confidence = |(name, entry): (&String, &Value)| {
        Some((name.clone(), entry.get("confidence")?.as_str()?.to_owned()))
    };
    tools.into_iter().flatten().filter_map(confidence).collect()
}

/// Classifies a tool; `shown` are its name and description for readers.
pub(crate) fn row(
    item: &Item,
    pack: Option<PackInUse<'_>>,
    confidences: &BTreeMap<String, String>,
    (name, description): (String, String),
) -> ToolRow {
    let entry = pack.and_then(|it| it.pack.tools.get(item.name.as_str()));
    let annotated = hints::of_annotations(&item.definition);
    // People have reviewed a pack, so words of a name do not speak against it; the server's own
    // admission does.
    let hints: Vec<Hint> = if entry.is_some() {
        annotated.into_iter().collect()
    } else {
        let guesses = [hints::of_name(&item.name), hints::of_arguments(&item.definition)];
        annotated.into_iter().chain(guesses.into_iter().flatten()).collect()
    };
    let hinted = hints.iter().map(|hint| hint.effect).max();
    let worst = match (entry, hinted) {
        (Some(entry), hinted) => hinted.map_or(entry.effect, |hint| hint.max(entry.effect)),
        (None, Some(hint)) if hint > Effect::Read => hint,
        (None, _) => Effect::Unknown,
    };
    let confidence = match entry {
        // Only the server's own names speak for this pack.
        Some(_) if pack.is_some_and(|it| it.chosen == Chosen::Found) => "low",
        Some(_) => confidences.get(&item.name).map_or("unstated", String::as_str),
        None if hints.is_empty() => "none",
        None => "low",
    };
    let (environments, environments_source) = environments(item, entry);
    ToolRow {
        raw_name: item.name.clone(),
        name,
        description,
        effect: entry.map_or(Effect::Unknown, |entry| entry.effect).as_str(),
        source: if entry.is_some() { "pack" } else { "none" },
        confidence: confidence.to_owned(),
        worst: worst.as_str(),
        hinted: hinted.map(Effect::as_str),
        hints: hints.into_iter().map(|hint| hint.why).collect(),
        environments,
        environments_source,
        tags: entry.map(tags).unwrap_or_default(),
        operations: entry.map_or(0, |entry| variants(entry).len().saturating_sub(1)),
        flags: item.flags.clone(),
        digest: item.digest.clone(),
    }
}

/// The entry and those of its operations.
fn variants(entry: &ToolEntry) -> Vec<&ToolEntry> {
    let dispatch = entry.dispatch.iter();
    let cases = dispatch.flat_map(|it| it.cases.values().chain(&it.otherwise));
    std::iter::once(entry).chain(cases).collect()
}

fn tags(entry: &ToolEntry) -> Vec<String> {
    let mut tags: Vec<String> = variants(entry)
        .into_iter()
        .flat_map(|entry| entry.tags.iter().chain(entry.tags_if.keys()))
        .map(ToString::to_string)
        .collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// The arguments that name environments, and who says so.
fn environments(item: &Item, entry: Option<&ToolEntry>) -> (Vec<EnvironmentPlace>, &'static str) {
    let Some(entry) = entry else {
        let found = hints::environments(&item.definition);
        let source = if found.is_empty() { "not certain" } else { "hint" };
        let place = |place: hints::Place| EnvironmentPlace {
            at: place.at,
            form: if place.is_id { "id" } else { "name" },
        };
        return (found.into_iter().map(place).collect(), source);
    };
    let paths = variants(entry).into_iter().flat_map(|entry| &entry.environments);
    let mut places: Vec<EnvironmentPlace> = paths
        .map(|path| EnvironmentPlace {
            at: path.at.to_string(),
            form: match path.form {
                EnvironmentForm::Name => "name",
                EnvironmentForm::Keys => "keys",
                EnvironmentForm::Id => "id",
                EnvironmentForm::Segment(_) => "segment",
                EnvironmentForm::Patch(_) => "patch",
            },
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    (places, "pack")
}

/// Adds the findings about one tool's classification.
pub(crate) fn findings(item: &Item, row: &ToolRow, found: &mut Collector) {
    let mut add = |kind, detail: &str| found.add(kind, "tool", &row.name, detail);
    let reasons = || {
        let source =
            if row.source == "pack" { "the pack says so".to_owned() } else { row.hints.join("; ") };
        if source.is_empty() { "no hint".to_owned() } else { source }
    };
    match row.worst {
        "exec" => add(&kinds::EXEC, &reasons()),
        "destructive" => add(&kinds::DESTRUCTIVE, &reasons()),
        _ => {}
    }
    if let Some(detail) = contradiction(item, row) {
        add(&kinds::CONTRADICTED, &detail);
    }
    if row.source == "none" {
        let looks = row.hinted.map_or("no hint", |effect| effect);
        add(&kinds::UNCLASSIFIED, &format!("looks like: {looks}"));
    }
    if row.tags.iter().any(|tag| tag == "approval-control") {
        add(&kinds::APPROVAL_CONTROL, "tag `approval-control`");
    }
    if row.tags.iter().any(|tag| tag == "credential-read") {
        add(&kinds::CREDENTIAL_READ, "tag `credential-read`");
    } else if row.source == "none" && hints::is_of_credentials(&item.name) {
        add(&kinds::CREDENTIAL_READ, "its name is about credentials");
    } else if row.source == "none" && hints::shows_variables(item.text("description")) {
        add(&kinds::CREDENTIAL_READ, "its description is about environment variables");
    }
    if hints::takes_address(&item.definition) {
        add(&kinds::ADDRESS, "an argument is called like an address");
    }
    if item.text("description").trim().is_empty() {
        add(&kinds::UNDESCRIBED, "no description");
    }
}

/// Adds the findings about environments: `entry` is what the pack says.
pub(crate) fn environment_findings(
    row: &ToolRow,
    entry: Option<&ToolEntry>,
    found: &mut Collector,
) {
    let Some(entry) = entry else {
        let changes = matches!(row.worst, "write" | "destructive" | "exec");
        if changes && row.environments.is_empty() {
            let detail = "no argument has a name like `environment`";
            found.add(&kinds::NO_ENVIRONMENT, "tool", &row.name, detail);
        }
        return;
    };
    let all = variants(entry);
    // What a tool dispatches to says more than the tool itself.
    let own = if all.len() > 1 { all.get(1..).unwrap_or_default() } else { &all };
    let changing = || own.iter().filter(|it| it.effect > Effect::Read && it.absent != Absent::None);
    if changing().any(|it| it.environments.is_empty()) {
        let detail = "the pack knows no argument for it";
        found.add(&kinds::NO_ENVIRONMENT, "tool", &row.name, detail);
    }
    let absent = changing().filter(|it| !it.environments.is_empty()).map(|it| it.absent);
    let reached = absent.map(|absent| match absent {
        Absent::All => "without an environment it reaches all of them",
        Absent::Production => "without an environment it reaches production",
        Absent::None => "without an environment it reaches none",
    });
    if let Some(detail) = reached.min() {
        found.add(&kinds::ABSENT_ENVIRONMENT, "tool", &row.name, detail);
    }
}

/// Why the annotations of a tool are contradicted; `None` if they are not.
fn contradiction(item: &Item, row: &ToolRow) -> Option<String> {
    let harmless = if hints::claims_to_read(&item.definition) {
        "`readOnlyHint` is true"
    } else if hints::claims_to_spare(&item.definition)
        && matches!(row.worst, "destructive" | "exec")
    {
        "`destructiveHint` is false"
    } else {
        return None;
    };
    if row.source == "pack" {
        let worse = row.effect != "read";
        return worse.then(|| format!("{harmless}, but the pack says `{}`", row.effect));
    }
    let guesses = [hints::of_name(&item.name), hints::of_arguments(&item.definition)];
    let worst = guesses.into_iter().flatten().max_by_key(|hint| hint.effect);
    let worst = worst.filter(|hint| hint.effect > Effect::Read)?;
    Some(format!("{harmless}, but {}", worst.why))
}
