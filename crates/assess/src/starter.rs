//! The files of a first policy for the server: a pack with what is known, the tools that were there,
//! and a configuration.
//!
//! The files open nothing that the baseline does not open. A tool whose effect only hints speak of is
//! written as `exec`, or as `destructive`, which the baseline refuses, until a person has changed it.
//! So is every tool if the pack was found by the server's names and not named by the user.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use bartizan_gate::question::pack::Pack;
use bartizan_gate::wire::inert;

use crate::assessment::{Assessment, Chosen, PackInUse, ToolRow};
use crate::kinds::WITHHELD;
use crate::observed::{MASK, Observed, Reach};

/// Longest name of a tool that a pack may have, bytes; it has no control characters either.
const TOOL_NAME_BYTES_MAX: usize = 256;
/// Longest name of a server, characters.
const SERVER_CHARS_MAX: usize = 63;

/// A file of the starter: path below the directory, and text.
pub type StarterFile = (String, String);

/// How the configuration reaches the server.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// The URL; empty if a program is started.
    pub url: String,
    /// The program and its arguments, without credentials.
    pub command: Vec<String>,
    /// Headers with values that may stand in a file: references, no credentials. A header without
    /// one gets a reference to a variable of its own name.
    pub headers: Vec<(String, Option<String>)>,
}

/// The files for the server, whose policies `baseline` are file names and texts.
///
/// # Errors
///
/// Problems of the pack that was made, which a test would show.
pub fn files(
    assessment: &Assessment,
    observed: &Observed,
    pack: Option<PackInUse<'_>>,
    way: &Way,
    baseline: &[StarterFile],
) -> Result<Vec<StarterFile>, String> {
    // What a pack says that only the server's own names speak for must open nothing.
    let pack = pack.filter(|it| it.chosen == Chosen::Named);
    let name = server_name(assessment, observed, pack);
    let made = pack_text(assessment, pack, &name)?;
    let mut files = vec![
        ("bartizan.yaml".to_owned(), configuration(way, &name)),
        (format!("{name}.pack.json"), made),
        ("policy/assessed.rego".to_owned(), rules(assessment, &name)),
        ("policy/assessed_test.rego".to_owned(), tests(assessment)),
    ];
    let data = json!({"baseline": {"allow_tools": { name: [] }}});
    files.push(("policy/data.json".to_owned(), format!("{data:#}\n")));
    let baseline = baseline.iter().map(|(file, text)| (format!("policy/{file}"), text.clone()));
    files.extend(baseline);
    Ok(files)
}

/// A name for the server: the pack's, else what it calls itself, else its program's.
fn server_name(
    assessment: &Assessment,
    observed: &Observed,
    pack: Option<PackInUse<'_>>,
) -> String {
    let own = assessment.server.name.as_str();
    let program = match &observed.reach {
        Reach::Program(words) => words.first().map_or("", String::as_str),
        Reach::Http { .. } => "",
    };
    let named = pack.map_or(own, |it| &it.pack.name);
    [named, program]
        .into_iter()
        .map(slug)
        .find(|slug| !slug.is_empty())
        .unwrap_or_else(|| "server".to_owned())
}

/// Lower-case letters, digits and hyphens, as packs and configurations have them.
fn slug(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let slug: String = plain.take(SERVER_CHARS_MAX).collect();
    slug.to_ascii_lowercase().trim_matches('-').to_owned()
}

/// The pack: the one in use, made worse where annotations are, with all other tools of the server.
fn pack_text(
    assessment: &Assessment,
    pack: Option<PackInUse<'_>>,
    name: &str,
) -> Result<String, String> {
    let known = pack.and_then(|it| serde_json::from_str(it.text).ok());
    let mut made: Value = known.unwrap_or_else(|| json!({"version": 1, "name": name, "tools": {}}));
    let tools = made.get_mut("tools").and_then(Value::as_object_mut);
    let tools = tools.ok_or_else(|| "the pack has no tools".to_owned())?;
    for tool in &assessment.tools {
        let fits = (1..=TOOL_NAME_BYTES_MAX).contains(&tool.raw_name.len())
            && !tool.raw_name.chars().any(char::is_control);
        match tools.get_mut(&tool.raw_name).and_then(Value::as_object_mut) {
            Some(entry) => worsen(entry, tool),
            None if fits => {
                tools.insert(tool.raw_name.clone(), entry(tool));
            }
            // No pack can name it, so it stays unknown.
            None => {}
        }
    }
    let text = inert::escaped(&format!("{made:#}\n"));
    Pack::read(text.as_bytes()).map_err(|problems| {
        let first = problems.first().map(|it| format!("{}: {}", it.path, it.message));
        first.unwrap_or_default()
    })?;
    Ok(text)
}

/// Makes a reviewed entry worse if the server itself admits a worse effect.
fn worsen(entry: &mut Map<String, Value>, tool: &ToolRow) {
    if tool.worst == tool.effect {
        return;
    }
    let notes = format!(
        "TODO: the pack says `{}`, the server's annotations say `{}`; the worse one stands here.",
        tool.effect, tool.worst
    );
    entry.insert("effect".to_owned(), Value::from(tool.worst));
    entry.insert("notes".to_owned(), Value::from(notes));
}

/// The entry of a tool that nobody has reviewed.
fn entry(tool: &ToolRow) -> Value {
    let effect = if tool.worst == "destructive" { "destructive" } else { "exec" };
    let looks = match (tool.source, tool.hinted) {
        ("pack", _) => format!("a pack that was found by names says `{}`", tool.effect),
        (_, Some(hinted)) => format!("it looks like `{hinted}`"),
        (_, None) => "no hint".to_owned(),
    };
    let notes = format!("TODO: not reviewed, so `{effect}`; {looks}. Say what it does at worst.");
    let mut entry = json!({"effect": effect, "confidence": "low", "notes": notes});
    let places: Vec<Value> =
        tool.environments.iter().map(|place| json!({"at": place.at, "form": place.form})).collect();
    if let (false, Some(members)) = (places.is_empty(), entry.as_object_mut()) {
        members.insert("environments".to_owned(), Value::from(places));
        members.insert("absent".to_owned(), Value::from("all"));
    }
    entry
}

/// A set of Rego, an element on each line. JSON strings are valid Rego.
fn set<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut lines: Vec<String> = names
        .map(|name| format!("\t{},\n", inert::escaped(&Value::from(name).to_string())))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.is_empty() { "set()".to_owned() } else { format!("{{\n{}}}", lines.concat()) }
}

/// The tools that a finding withholds.
fn withheld(assessment: &Assessment) -> impl Iterator<Item = &str> {
    let findings = assessment.findings.iter();
    let findings = findings.filter(|it| WITHHELD.iter().any(|kind| kind.name == it.kind));
    let shown: HashSet<&str> = findings
        .flat_map(|it| &it.subjects)
        .filter(|it| it.list == "tool")
        .map(|it| it.name.as_str())
        .collect();
    let tools = assessment.tools.iter();
    tools.filter(move |tool| shown.contains(&*tool.name)).map(|tool| tool.raw_name.as_str())
}

fn rules(assessment: &Assessment, name: &str) -> String {
    let all = set(assessment.tools.iter().map(|tool| tool.raw_name.as_str()));
    let withheld = set(withheld(assessment));
    let name = Value::from(name);
    format!(
        "{HEAD}package mcp\n\n\
         # The server's name in the configuration.\nassessed_server := {name}\n\n\
         # The tools that the server listed when it was assessed.\nassessed_tools := {all}\n\n\
         # REVIEW: tools with a finding that a person should settle. Take out what is settled.\n\
         withheld_tools := {withheld}\n\n{RULES}"
    )
}

fn tests(assessment: &Assessment) -> String {
    // A server may call a tool whatever it likes, so a name that it has not listed is made.
    let mut new = "never-listed".to_owned();
    while assessment.tools.iter().any(|tool| tool.raw_name == new) {
        new.push('-');
    }
    TESTS.replace("NEVER_LISTED", &new)
}

fn configuration(way: &Way, name: &str) -> String {
    let quoted = |text: &str| inert::escaped(&Value::from(text).to_string());
    let mut lines = vec!["servers:".to_owned(), format!("  \"{name}\":")];
    if way.command.is_empty() {
        lines.push(format!("    url: {}", quoted(&way.url)));
    } else {
        let words: Vec<String> = way.command.iter().map(|word| quoted(word)).collect();
        if way.command.iter().any(|word| word.contains(MASK)) {
            lines.push(COMMAND_CREDENTIAL.to_owned());
        }
        lines.push(format!("    command: [{}]", words.join(", ")));
    }
    if !way.headers.is_empty() {
        lines.push("    headers:".to_owned());
    }
    for (header, value) in &way.headers {
        let variable: String = header
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        let value = value.clone().unwrap_or_else(|| format!("${{env:{variable}}}"));
        lines.push(format!("      {}: {}", quoted(header), quoted(&value)));
    }
    lines.push(format!("    pack: ./{name}.pack.json"));
    lines.push("    # environment: staging".to_owned());
    lines.push("policy:\n  paths: [policy]\nstate: state\n".to_owned());
    format!("{CONFIGURATION}{}", lines.join("\n"))
}

/// What stands above a command that had a credential in it.
const COMMAND_CREDENTIAL: &str = "    \
    # `[credential]` stands for a credential. A command takes no references, so give it to the\n    \
    # program as a variable: `env: {NAME: \"${env:NAME}\"}`.";

const CONFIGURATION: &str = "\
# Written by `bartizan assess`. Review the pack and the policy, then pin the server to an environment.
# To notice when the server changes a tool, run `bartizan lock -c bartizan.yaml` and add
# `lock: bartizan.lock`.
";

const HEAD: &str = "\
# Assessed tools
#
# For use with the baseline. Denies tools that the server did not list when it was assessed, and
# tools with a finding. It permits nothing: what is open is in tools.rego and in the pack.
";

const RULES: &str = r#"deny contains {"code": "not-assessed", "message": "the server did not list this tool when it was assessed"} if {
	assessed_call
	not input.tool.name in assessed_tools
}

deny contains {"code": "assessment-finding", "message": "the assessment found something in this tool that nobody has settled"} if {
	assessed_call
	input.tool.name in withheld_tools
}

assessed_call if {
	input.method == "tools/call"
	input.direction == "to_server"
	input.server.name == assessed_server
}
"#;

const TESTS: &str = r#"package mcp_assessed_test

call(server, tool) := {
	"direction": "to_server",
	"method": "tools/call",
	"principal": {"id": "agent"},
	"server": {"name": server},
	"tool": {"name": tool, "arguments": {}},
}

# Only the codes of assessed.rego count, so that these tests hold beside other rules.
codes(message) := {rule.code |
	some rule in data.mcp.deny with input as message
	rule.code in {"not-assessed", "assessment-finding"}
}

test_an_assessed_tool_is_not_denied_here if {
	every name in data.mcp.assessed_tools - data.mcp.withheld_tools {
		codes(call(data.mcp.assessed_server, name)) == set()
	}
}

test_a_tool_with_a_finding_is_denied if {
	every name in data.mcp.withheld_tools {
		"assessment-finding" in codes(call(data.mcp.assessed_server, name))
	}
}

test_a_new_tool_is_denied if {
	codes(call(data.mcp.assessed_server, "NEVER_LISTED")) == {"not-assessed"}
}

test_another_server_is_no_concern if {
	codes(call("never configured", "NEVER_LISTED")) == set()
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_name_that_files_can_have() {
        assert_eq!(slug("My Server/../x"), "my-server----x");
        assert_eq!(slug("../.."), "");
        assert_eq!(slug(&"a".repeat(99)).len(), SERVER_CHARS_MAX);
    }

    #[test]
    fn a_set_holds_any_name() {
        assert_eq!(set(["b", "a", "b"].into_iter()), "{\n\t\"a\",\n\t\"b\",\n}");
        assert_eq!(set(["\"\u{202e}\n"].into_iter()), "{\n\t\"\\\"\\u202e\\n\",\n}");
        assert_eq!(set([].into_iter()), "set()");
    }
}
