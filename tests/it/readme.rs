//! The documents: every command and example of the pages at the root and in `docs/` runs, every
//! table that says what the program does says it rightly, and what a page cites of the sources is
//! there.
//!
//! A document runs in a directory of its own, top to bottom: fences with `file=` are written
//! there, `sh` fences run, a `text` fence is what the commands before it printed. What is not
//! recognised fails, so nothing goes untested; commands that are too expensive to run here are
//! listed with the reason (`stage::NOT_RUN`). `fence` reads documents, `stage` runs their
//! commands, `tables` holds their tables to the code, `cited` the tests, threats, files and
//! functions that they name.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod cited;
pub(crate) mod fence;
mod stage;
mod strictness;
pub(crate) mod tables;

use std::collections::BTreeSet;
use std::path::Path;

use bartizan::config::{Config, Surroundings};
use bartizan::policy::embedded;
use bartizan_audit::entry::JournalRecord;
use bartizan_gate::question::pack::Pack;
use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy, PolicySources};
use serde_json::Value;

use fence::{Fence, fences};
use stage::Stage;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Pages with examples; a test below plays each.
const PLAYED: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "docs/configuration.md",
    "docs/policy.md",
    "docs/audit.md",
    "docs/oauth.md",
    "docs/approvals.md",
    "docs/assess.md",
];

/// The text of a file of the repository.
fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn the_readme_holds() {
    play("README.md");
}

#[test]
fn the_contributors_page_holds() {
    play("CONTRIBUTING.md");
}

#[test]
fn the_configuration_page_holds() {
    play("docs/configuration.md");
}

#[test]
fn the_policy_page_holds() {
    play("docs/policy.md");
}

#[test]
fn the_audit_page_holds() {
    play("docs/audit.md");
}

#[test]
fn the_oauth_page_holds() {
    play("docs/oauth.md");
}

#[test]
fn the_approvals_page_holds() {
    play("docs/approvals.md");
}

#[test]
fn the_assessment_page_holds() {
    play("docs/assess.md");
}

/// Every page with examples is one of the above, and every link and path in every page leads
/// somewhere.
#[test]
fn no_page_is_left_out_and_no_link_is_dead() {
    let pages = pages();
    assert!(pages.len() > 20, "{pages:?}");
    for page in &pages {
        let text = text_of(page);
        if !PLAYED.contains(&page.as_str()) {
            // A drawing shows no output of a program, so there is nothing to run.
            let examples = fences(page, &text);
            let examples = examples.iter().filter(|fence| fence.language != "text drawing");
            assert_eq!(examples.count(), 0, "{page}: has examples that no test here plays");
        }
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = root().join(page).parent().unwrap().to_path_buf();
            let target = if file.is_empty() { root().join(page) } else { folder.join(file) };
            assert!(target.exists(), "{page}: `{link}` leads nowhere");
            if !anchor.is_empty() {
                let slugs = headings(&std::fs::read_to_string(&target).unwrap());
                assert!(slugs.contains(anchor), "{page}: `{link}`: no such heading");
            }
        }
        for path in paths(&text) {
            assert!(root().join(&path).exists(), "{page}: `{path}` is not there");
        }
    }
}

/// Every page can be found from the README.
#[test]
fn the_readme_leads_to_every_page() {
    let readme = text_of("README.md");
    let more = readme.split("## More").nth(1).unwrap();
    for page in pages() {
        let folder = page.starts_with("docs/decisions/") && more.contains("`docs/decisions/`");
        let linked = more.contains(&format!("]({page})"));
        assert!(linked || folder || page == "README.md", "{page} is not in \"More\"");
    }
}

/// Every command that is said not to be run here stands in some page.
#[test]
fn what_is_not_run_here_is_in_a_page() {
    let texts: String = PLAYED.iter().map(|page| text_of(page)).collect();
    for (command, reason) in stage::NOT_RUN {
        assert!(
            texts.contains(&format!("\n{command}\n")),
            "`{command}` ({reason}): no page has it"
        );
    }
}

/// Pages for people: those at the root and those in `docs/`.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![root().to_path_buf(), root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && folder != root() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                pages.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    pages
}

/// Plays one document.
fn play(page: &str) {
    let text = text_of(page);
    let mut stage = Stage::new(page);
    let mut rules = embedded::decision();
    let mut printed: Option<String> = None;
    let fences = fences(page, &text);
    assert!(!fences.is_empty());
    for fence in fences {
        let before = printed.take();
        let Fence { place, language, file, body } = &fence;
        if let Some(file) = file {
            stage.write(file, body);
        }
        match language.as_str() {
            "sh" => printed = Some(stage.run(place, body)),
            "text" => {
                let printed = before.unwrap_or_else(|| panic!("{place}: follows no commands"));
                fence::compare(place, body, &printed);
            }
            "yaml" => configuration(place, body),
            "rego" => {
                rules.push(Module { path: place.clone(), text: body.clone() });
                compile(place, &rules);
            }
            "json" => json(place, body, &mut stage),
            "json pack" => {
                let read = Pack::read(body.as_bytes());
                read.unwrap_or_else(|problems| panic!("{place}: {problems:?}"));
            }
            "mermaid" => diagram(place, body),
            other => panic!("{place}: nothing here knows the language `{other}`"),
        }
    }
    stage.end();
}

/// A whole configuration must be valid if everything that it names exists.
fn configuration(place: &str, body: &str) {
    // Tokens must be long, and each approver's another one. Webhooks have secrets of other forms.
    let secret = |name: &str| match name.rsplit('/').next() {
        Some("chat-url") => "https://chat.example.com/services/s3cret".to_owned(),
        Some("webhook-secret") => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
        _ => format!("{name:-<16}s3cret-s3cret-s3cret"),
    };
    let surroundings = Surroundings {
        env: &|name| Some(secret(name)),
        read: &|path, _| Ok(secret(path.to_str().unwrap_or_default()).into_bytes()),
        exists: &|_| true,
    };
    let read = Config::parse_in(body, Path::new("/"), &surroundings);
    read.unwrap_or_else(|problems| panic!("{place}:\n{problems}"));
}

fn compile(place: &str, rules: &[Module]) {
    let sources =
        PolicySources { modules: rules.to_vec(), data: None, revision: "document".into() };
    let compiled = Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default());
    compiled.unwrap_or_else(|problems| panic!("{place}: {problems:#?}"));
}

/// A desktop configuration is run, a record is one, anything else is JSON at least.
fn json(place: &str, body: &str, stage: &mut Stage) {
    let value: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{place}: {error}"));
    if let Some(servers) = value.get("mcpServers") {
        for server in servers.as_object().unwrap().values() {
            assert_eq!(server["command"], "bartizan", "{place}");
            let args = server["args"].as_array().unwrap().iter();
            let args: Vec<String> = args.map(|arg| arg.as_str().unwrap().to_owned()).collect();
            stage.wrap(place, &args);
        }
    } else if value.get("seq").is_some() {
        let entry = JournalRecord::read(body.trim_end().as_bytes());
        let entry = entry.unwrap_or_else(|error| panic!("{place}: {error}"));
        tables::record_is_documented(place, &value);
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let random = |call: String| call.len() == 32 && call.bytes().all(hex);
        assert!(entry.call.is_some_and(random), "{place}");
    }
}

/// Every sender and receiver in a sequence diagram must be declared as a participant.
fn diagram(place: &str, body: &str) {
    let mut lines = body.lines().map(str::trim);
    assert_eq!(lines.next(), Some("sequenceDiagram"), "{place}");
    let mut parts = BTreeSet::new();
    let mut arrows = 0;
    for line in lines {
        if let Some(part) = line.strip_prefix("participant ") {
            parts.insert(part.split(' ').next().unwrap());
        } else if let Some((from, rest)) = line.split_once("->>") {
            let (to, _) = rest.split_once(':').unwrap();
            assert!(parts.contains(from) && parts.contains(to), "{place}: {line}");
            arrows += 1;
        } else {
            let word = line.split(' ').next().unwrap();
            assert!(["alt", "else", "end"].contains(&word), "{place}: {line}");
        }
    }
    assert!(arrows > 0, "{place}");
}

/// Targets of links inside the repository.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// What a heading is called in links to it.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then_some(title.trim())
    });
    let slug = |title: &str| {
        let kept = title.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

/// Paths of the repository that stand in backticks.
fn paths(text: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    // A command may have arguments behind its path.
    let quoted = prose.split('`').skip(1).step_by(2).filter_map(|text| text.split(' ').next());
    quoted.filter(|text| is_path(text)).map(str::to_owned).collect()
}

/// Whether `text` names something in the repository.
fn is_path(text: &str) -> bool {
    const FOLDERS: &[&str] = &[
        ".ci/",
        ".github/",
        "benches/",
        "crates/",
        "deploy/",
        "docs/",
        "fuzz/",
        "policies/",
        "src/",
        "tests/",
    ];
    FOLDERS.iter().any(|folder| text.starts_with(folder))
}
