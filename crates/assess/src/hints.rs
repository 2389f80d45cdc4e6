//! Hints about a tool that no pack describes: words of its name, its annotations, and the names of
//! its arguments.
//!
//! All of it is written by the server, so a hint can only make a tool's classification worse. A tool
//! that looks like a reading one stays unknown.

use serde_json::Value;

use bartizan_gate::question::pack::Effect;

/// Longest part of a name that is read, characters.
const NAME_CHARS_MAX: usize = 256;
/// Environments of one tool's schema at most.
const PLACES_MAX: usize = 16;
/// Levels of a schema that are read.
const SCHEMA_DEPTH_MAX: usize = 8;

const DESTROYS: &[&str] = &[
    "clear",
    "delete",
    "destroy",
    "drop",
    "erase",
    "kill",
    "overwrite",
    "purge",
    "remove",
    "replace",
    "reset",
    "revoke",
    "rollback",
    "terminate",
    "truncate",
    "uninstall",
    "wipe",
];
const RUNS: &[&str] = &[
    "bash", "code", "command", "eval", "evaluate", "exec", "execute", "run", "script", "shell",
    "sql",
];
const WRITES: &[&str] = &[
    "add",
    "apply",
    "approve",
    "archive",
    "assign",
    "cancel",
    "change",
    "close",
    "commit",
    "copy",
    "create",
    "deploy",
    "disable",
    "edit",
    "enable",
    "grant",
    "import",
    "insert",
    "invite",
    "launch",
    "merge",
    "modify",
    "move",
    "patch",
    "post",
    "publish",
    "put",
    "register",
    "release",
    "rename",
    "restart",
    "save",
    "send",
    "set",
    "start",
    "stop",
    "submit",
    "sync",
    "toggle",
    "unarchive",
    "update",
    "upload",
    "upsert",
    "write",
];
const READS: &[&str] = &[
    "check",
    "compare",
    "count",
    "describe",
    "discover",
    "fetch",
    "find",
    "get",
    "list",
    "lookup",
    "read",
    "search",
    "show",
    "summarize",
    "view",
];
/// Names of arguments whose value is run.
const RUN_ARGUMENTS: &[&str] = &["bash", "code", "command", "cmd", "script", "shell", "sql"];
/// Names of arguments that hold an address.
const ADDRESS_ARGUMENTS: &[&str] =
    &["url", "uri", "endpoint", "webhook", "webhookurl", "callbackurl"];
/// Names of arguments that name an environment, in lower case without `_` and `-`.
const ENVIRONMENT_ARGUMENTS: &[&str] = &[
    "env",
    "envs",
    "environment",
    "environments",
    "environmentid",
    "environmentids",
    "environmentkey",
    "environmentkeys",
    "environmentname",
    "environmentnames",
    "envid",
    "envkey",
    "envname",
];
/// Words of a name that stand for credentials.
const CREDENTIALS: &[&str] = &[
    "credential",
    "credentials",
    "key",
    "keys",
    "password",
    "secret",
    "secrets",
    "token",
    "tokens",
];

/// What a tool seems to do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The worst effect that this hint speaks for.
    pub effect: Effect,
    /// What it is taken from, in words of ours.
    pub why: String,
}

/// Where a schema seems to take an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// An RFC 6901 pointer below the arguments, `*` for each element.
    pub at: String,
    /// Whether the values seem to be identifiers instead of names.
    pub is_id: bool,
}

/// The lower-case words of a name: `getFlag_v2` has `get`, `flag` and `v2`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars().take(NAME_CHARS_MAX) {
        let begins = !c.is_ascii_alphanumeric()
            || (c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()));
        if begins {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_ascii_alphanumeric(), words.last_mut()) {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The worst word of a tool's name.
pub fn of_name(name: &str) -> Option<Hint> {
    let table = [
        (Effect::Read, READS),
        (Effect::Write, WRITES),
        (Effect::Destructive, DESTROYS),
        (Effect::Exec, RUNS),
    ];
    let words = words(name);
    let found = words.iter().filter_map(|word| {
        let row = table.iter().find(|(_, known)| known.contains(&word.as_str()));
        row.map(|(effect, _)| (*effect, word))
    });
    let (effect, word) = found.max_by_key(|(effect, _)| *effect)?;
    Some(Hint { effect, why: format!("its name has the word `{word}`") })
}

/// What the annotations say; nothing if they say nothing about effects.
pub fn of_annotations(definition: &Value) -> Option<Hint> {
    let (effect, why) = match (read_only(definition), destructive(definition)) {
        (_, Some(true)) => (Effect::Destructive, "its annotation `destructiveHint` is true"),
        (Some(true), _) => (Effect::Read, "its annotation `readOnlyHint` is true"),
        (Some(false), _) => (Effect::Write, "its annotation `readOnlyHint` is false"),
        // It says nothing about tools that only read.
        (None, _) => return None,
    };
    Some(Hint { effect, why: why.to_owned() })
}

/// Whether the annotation `readOnlyHint` is true.
pub fn claims_to_read(definition: &Value) -> bool {
    read_only(definition) == Some(true)
}

/// Whether the annotation `destructiveHint` is false.
pub fn claims_to_spare(definition: &Value) -> bool {
    destructive(definition) == Some(false)
}

fn read_only(definition: &Value) -> Option<bool> {
    annotation(definition, "readOnlyHint")
}

fn destructive(definition: &Value) -> Option<bool> {
    annotation(definition, "destructiveHint")
}

/// What an annotation of a tool says; nothing if it is absent or no boolean.
fn annotation(definition: &Value, name: &str) -> Option<bool> {
    definition.get("annotations")?.get(name)?.as_bool()
}

/// Whether an argument seems to hold what the tool runs.
pub fn of_arguments(definition: &Value) -> Option<Hint> {
    let name = argument(definition, RUN_ARGUMENTS)?;
    Some(Hint { effect: Effect::Exec, why: format!("it has an argument `{name}`") })
}

/// Whether an argument seems to hold an address that the tool reaches.
pub fn takes_address(definition: &Value) -> bool {
    argument(definition, ADDRESS_ARGUMENTS).is_some()
}

/// Whether the name of a tool seems to be about credentials.
pub fn is_of_credentials(name: &str) -> bool {
    words(name).iter().any(|word| CREDENTIALS.contains(&word.as_str()))
}

/// Whether a description is about environment variables, which often hold credentials.
pub fn shows_variables(description: &str) -> bool {
    description.to_ascii_lowercase().contains("environment variable")
}

/// Whether a schema has an argument of free text: a string without a list of values.
pub fn takes_free_text(definition: &Value) -> bool {
    let properties = definition.pointer("/inputSchema/properties").and_then(Value::as_object);
    properties.into_iter().flatten().any(|(_, schema)| {
        schema.get("type").and_then(Value::as_str) == Some("string")
            && schema.get("enum").is_none()
            && schema.get("const").is_none()
    })
}

/// The first of `known` that is a top-level argument.
fn argument<'k>(definition: &Value, known: &[&'k str]) -> Option<&'k str> {
    let properties = definition.pointer("/inputSchema/properties")?.as_object()?;
    let names: Vec<String> = properties.keys().map(|name| plain(name)).collect();
    known.iter().find(|known| names.iter().any(|name| name == *known)).copied()
}

/// `name` in lower case without `_` and `-`.
fn plain(name: &str) -> String {
    let kept = name.chars().take(NAME_CHARS_MAX).filter(|c| !matches!(c, '_' | '-'));
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

/// Where the input schema seems to take environments.
pub fn environments(definition: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    if let Some(schema) = definition.get("inputSchema") {
        places(schema, &mut String::new(), 0, &mut found);
    }
    found
}

/// Recursive; bounded by [`SCHEMA_DEPTH_MAX`].
fn places(schema: &Value, at: &mut String, depth: usize, found: &mut Vec<Place>) {
    if depth >= SCHEMA_DEPTH_MAX {
        return;
    }
    let length = at.len();
    let deeper = depth.saturating_add(1);
    if let Some(items) = schema.get("items") {
        at.push_str("/*");
        places(items, at, deeper, found);
        at.truncate(length);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        // The names of pointers in a pack: not empty, and `*` has another meaning there.
        if name.is_empty() || name == "*" || found.len() >= PLACES_MAX {
            continue;
        }
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let plain = plain(name);
        if ENVIRONMENT_ARGUMENTS.contains(&plain.as_str()) {
            let is_id = plain.ends_with("id") || plain.ends_with("ids");
            found.push(Place { at: at.clone(), is_id });
        } else {
            places(schema, at, deeper, found);
        }
        at.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_speaks_for_its_worst_word() {
        for (name, expected) in [
            ("get_flag", Some(Effect::Read)),
            ("getFlag", Some(Effect::Read)),
            ("Get_List_of_Gates", Some(Effect::Read)),
            ("update-flag", Some(Effect::Write)),
            ("get_or_delete", Some(Effect::Destructive)),
            ("DeleteFlag", Some(Effect::Destructive)),
            ("run_sql", Some(Effect::Exec)),
            ("list_runs", Some(Effect::Read)),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(of_name(name).map(|hint| hint.effect), expected, "{name}");
        }
    }

    #[test]
    fn annotations_are_read_for_the_worst() {
        let effect = |annotations: Value| {
            of_annotations(&json!({ "annotations": annotations })).map(|hint| hint.effect)
        };
        assert_eq!(effect(json!({"readOnlyHint": true})), Some(Effect::Read));
        assert_eq!(effect(json!({"readOnlyHint": false})), Some(Effect::Write));
        let both = json!({"readOnlyHint": true, "destructiveHint": true});
        assert_eq!(effect(both), Some(Effect::Destructive));
        assert_eq!(effect(json!({"destructiveHint": false})), None);
        assert_eq!(effect(json!({"title": "x"})), None);
        assert_eq!(effect(json!({"readOnlyHint": "true"})), None);
    }

    #[test]
    fn environments_are_found_in_a_schema() {
        let definition = json!({"inputSchema": {"properties": {
            "environment_id": {"type": "string"},
            "rules": {"items": {"properties": {"a/b": {"properties": {"env": {}}}}}},
            "name": {"type": "string"},
        }}});
        let found = environments(&definition);
        let at: Vec<_> = found.iter().map(|place| (place.at.as_str(), place.is_id)).collect();
        assert_eq!(at, [("/environment_id", true), ("/rules/*/a~1b/env", false)]);
    }
}
