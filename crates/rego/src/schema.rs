//! The JSON Schema of `input`.
//!
//! One list of fields says what a policy may read: the schema is made of it, and so are the lints
//! about paths that do not exist. `input` builds the values; a test holds the two together.

use serde_json::{Map, Value, json};

use super::input::VERSION;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    Count,
    Flag,
    Texts,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// An object with the fields below it and no others.
    Fields,
    /// Such objects, in an array.
    Each,
    /// An object of texts by free names.
    TextsByName,
    /// An object of anything by free names.
    Anything,
}

/// One field.
pub(super) struct Field {
    /// Its path below `input`, with dots.
    pub(super) path: &'static str,
    /// What it holds.
    pub(super) holds: Holds,
    /// Whether it is there whenever what it is in is there.
    pub(super) always: bool,
}

const fn always(path: &'static str, holds: Holds) -> Field {
    Field { path, holds, always: true }
}

const fn sometimes(path: &'static str, holds: Holds) -> Field {
    Field { path, holds, always: false }
}

const EFFECTS: Holds = Holds::OneOf(&["read", "write", "destructive", "exec", "unknown"]);

const SOURCES: Holds = Holds::OneOf(&["arguments", "absent", "unmapped", "unreadable", "none"]);

const DRIFTS: Holds = Holds::OneOf(&["none", "changed", "added", "unlocked"]);

const WEEKDAYS: Holds =
    Holds::OneOf(&["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]);

/// Every field, what holds fields before those.
pub(super) static FIELDS: &[Field] = &[
    always("version", Holds::Count),
    always("phase", Holds::OneOf(&["call", "list"])),
    always("direction", Holds::OneOf(&["to_server", "to_client"])),
    always("method", Holds::Text),
    sometimes("trace_id", Holds::Text),
    always("principal", Holds::Fields),
    always("principal.id", Holds::Text),
    always("principal.kind", Holds::Text),
    always("principal.groups", Holds::Texts),
    always("principal.claims", Holds::TextsByName),
    sometimes("client", Holds::Fields),
    always("client.name", Holds::Text),
    always("client.version", Holds::Text),
    always("server", Holds::Fields),
    always("server.name", Holds::Text),
    sometimes("server.environment", Holds::Text),
    always("server.labels", Holds::TextsByName),
    sometimes("server.rates", Holds::Anything),
    always("protocol", Holds::Fields),
    sometimes("protocol.revision", Holds::Text),
    always("protocol.era", Holds::OneOf(&["legacy", "modern"])),
    always("protocol.transport", Holds::OneOf(&["http", "stdio"])),
    always("operation", Holds::Fields),
    sometimes("operation.name", Holds::Text),
    always("operation.effect", EFFECTS),
    always("operation.environments", Holds::Texts),
    always("operation.environment_source", SOURCES),
    always("operation.tags", Holds::Texts),
    sometimes("operation.pack", Holds::Text),
    always("session", Holds::Fields),
    always("session.facts", Holds::TextsByName),
    always("session.tainted", Holds::Flag),
    always("time", Holds::Fields),
    always("time.unix_ms", Holds::Count),
    always("time.rfc3339", Holds::Text),
    always("time.weekday", WEEKDAYS),
    always("time.hour", Holds::Count),
    sometimes("tool", Holds::Fields),
    always("tool.name", Holds::Text),
    always("tool.arguments", Holds::Anything),
    sometimes("tool.definition", Holds::Text),
    sometimes("tool.drift", DRIFTS),
    sometimes("tool.flags", Holds::Texts),
    sometimes("prompt", Holds::Fields),
    always("prompt.name", Holds::Text),
    always("prompt.arguments", Holds::Anything),
    sometimes("resource", Holds::Fields),
    always("resource.uri", Holds::Text),
    always("resource.ambiguous", Holds::Flag),
    sometimes("resources", Holds::Fields),
    always("resources.uris", Holds::Texts),
    sometimes("task", Holds::Fields),
    always("task.id", Holds::Text),
    sometimes("task.method", Holds::Text),
    sometimes("task.tool", Holds::Text),
    sometimes("task.operation", Holds::Fields),
    sometimes("task.operation.name", Holds::Text),
    always("task.operation.effect", EFFECTS),
    always("task.operation.environments", Holds::Texts),
    always("task.operation.environment_source", SOURCES),
    always("task.operation.tags", Holds::Texts),
    sometimes("task.operation.pack", Holds::Text),
    sometimes("params", Holds::Anything),
    sometimes("tools", Holds::Each),
    always("tools.name", Holds::Text),
    always("tools.definition", Holds::Text),
    sometimes("tools.drift", DRIFTS),
    sometimes("tools.flags", Holds::Texts),
    sometimes("tools.operation", Holds::Fields),
    sometimes("tools.operation.name", Holds::Text),
    always("tools.operation.effect", EFFECTS),
    always("tools.operation.environments", Holds::Texts),
    always("tools.operation.environment_source", SOURCES),
    always("tools.operation.tags", Holds::Texts),
    sometimes("tools.operation.pack", Holds::Text),
    sometimes("entries", Holds::Each),
    always("entries.name", Holds::Text),
    always("entries.definition", Holds::Text),
    sometimes("entries.flags", Holds::Texts),
];

/// Fields right below `path`; the empty one is the input itself.
pub(super) fn below(path: &str) -> impl Iterator<Item = (&'static str, &'static Field)> {
    FIELDS.iter().filter_map(move |field| {
        let name = match path {
            "" => field.path,
            path => field.path.strip_prefix(path)?.strip_prefix('.')?,
        };
        (!name.contains('.')).then_some((name, field))
    })
}

/// The JSON Schema (2020-12) of `input`, as text.
pub fn input_schema() -> String {
    let mut schema = fields("");
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "input of a Bartizan policy".into());
    format!("{:#}\n", Value::Object(schema))
}

/// An object with the fields below `path`.
fn fields(path: &str) -> Map<String, Value> {
    let properties: Map<String, Value> =
        below(path).map(|(name, field)| (name.to_owned(), schema_of(field))).collect();
    let required: Vec<&str> =
        below(path).filter(|(_, field)| field.always).map(|(name, _)| name).collect();
    let mut object = Map::new();
    object.insert("type".into(), "object".into());
    object.insert("properties".into(), properties.into());
    object.insert("required".into(), required.into());
    object.insert("additionalProperties".into(), false.into());
    object
}

fn schema_of(field: &Field) -> Value {
    if field.path == "version" {
        return json!({"const": VERSION});
    }
    match field.holds {
        Holds::Text => json!({"type": "string"}),
        Holds::Count => json!({"type": "integer", "minimum": 0}),
        Holds::Flag => json!({"type": "boolean"}),
        Holds::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Holds::OneOf(texts) => json!({"type": "string", "enum": texts}),
        Holds::Fields => Value::Object(fields(field.path)),
        Holds::Each => json!({"type": "array", "items": fields(field.path)}),
        Holds::TextsByName => {
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        }
        // `params` of an unknown method may be an array, and `uris` what a client makes of them.
        Holds::Anything if field.path == "params" => json!({}),
        Holds::Anything => json!({"type": "object"}),
    }
}
