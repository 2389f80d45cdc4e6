//! The fields of `input` and their JSON Schema (draft 2020-12).
//!
//! [`FIELDS`] is the one list of fields that a policy may read. The schema that
//! `bartizan policy schema` prints is made from it, and the linter finds unknown paths with it.
//! `input` builds the values; a test checks that they agree with the list.

use serde_json::{Map, Value, json};

use super::input::VERSION;

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    /// A string.
    Text,
    /// An integer of at least 0.
    Count,
    /// An integer.
    Number,
    /// A boolean.
    Flag,
    /// An array of strings.
    Texts,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An object with exactly the fields that [`FIELDS`] lists below it.
    Fields,
    /// An array of such objects.
    Each,
    /// An object with any names and string values.
    TextsByName,
    /// An object with any names and values.
    Anything,
}

/// One field of `input`.
pub(super) struct Field {
    /// Its path below `input`, such as `tool.name`. Elements of an array have no step of their own.
    pub(super) path: &'static str,
    /// Its type.
    pub(super) holds: FieldType,
    /// When it is present.
    pub(super) presence: Presence,
}

/// When a field is present, where the object that contains it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Always.
    Always,
    /// In each message of some kind: every call of a tool has `tool`. A rule that reads the field is
    /// about these messages.
    Kind,
    /// Where the operator has configured what it is about, such as a lock file.
    Configured,
    /// Where a client, a server or an identity provider has given it, or something could be read.
    Sometimes,
}

const fn always(path: &'static str, holds: FieldType) -> Field {
    Field { path, holds, presence: Presence::Always }
}

const fn kind(path: &'static str, holds: FieldType) -> Field {
    Field { path, holds, presence: Presence::Kind }
}

const fn configured(path: &'static str, holds: FieldType) -> Field {
    Field { path, holds, presence: Presence::Configured }
}

const fn sometimes(path: &'static str, holds: FieldType) -> Field {
    Field { path, holds, presence: Presence::Sometimes }
}

const EFFECTS: FieldType = FieldType::OneOf(&["read", "write", "destructive", "exec", "unknown"]);

const SOURCES: FieldType =
    FieldType::OneOf(&["arguments", "absent", "unmapped", "unreadable", "none"]);

const DRIFTS: FieldType = FieldType::OneOf(&["none", "changed", "added", "unlocked", "unseen"]);

const WEEKDAYS: FieldType = FieldType::OneOf(&[
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
]);

/// Every field. An object comes before the fields in it.
pub(super) static FIELDS: &[Field] = &[
    always("version", FieldType::Count),
    always("phase", FieldType::OneOf(&["call", "answer", "list"])),
    always("direction", FieldType::OneOf(&["to_server", "to_client"])),
    always("method", FieldType::Text),
    sometimes("trace_id", FieldType::Text),
    always("principal", FieldType::Fields),
    always("principal.id", FieldType::Text),
    always("principal.kind", FieldType::Text),
    always("principal.groups", FieldType::Texts),
    always("principal.claims", FieldType::TextsByName),
    sometimes("client", FieldType::Fields),
    always("client.name", FieldType::Text),
    always("client.version", FieldType::Text),
    always("server", FieldType::Fields),
    always("server.name", FieldType::Text),
    sometimes("server.environment", FieldType::Text),
    always("server.labels", FieldType::TextsByName),
    configured("server.rates", FieldType::Anything),
    always("protocol", FieldType::Fields),
    sometimes("protocol.revision", FieldType::Text),
    always("protocol.era", FieldType::OneOf(&["legacy", "modern"])),
    always("protocol.transport", FieldType::OneOf(&["http", "stdio"])),
    always("operation", FieldType::Fields),
    sometimes("operation.name", FieldType::Text),
    always("operation.effect", EFFECTS),
    always("operation.environments", FieldType::Texts),
    always("operation.environment_source", SOURCES),
    always("operation.tags", FieldType::Texts),
    sometimes("operation.pack", FieldType::Text),
    always("session", FieldType::Fields),
    always("session.facts", FieldType::TextsByName),
    sometimes("approval", FieldType::Fields),
    always("approval.hold", FieldType::Text),
    always("approval.approvers", FieldType::Texts),
    always("approval.reason", FieldType::Text),
    sometimes("approval.scope", FieldType::Text),
    always("approval.granted_unix_ms", FieldType::Count),
    always("time", FieldType::Fields),
    always("time.unix_ms", FieldType::Count),
    always("time.rfc3339", FieldType::Text),
    always("time.weekday", WEEKDAYS),
    always("time.hour", FieldType::Count),
    kind("tool", FieldType::Fields),
    always("tool.name", FieldType::Text),
    always("tool.arguments", FieldType::Anything),
    sometimes("tool.definition", FieldType::Anything),
    sometimes("tool.definition_digest", FieldType::Text),
    configured("tool.drift", DRIFTS),
    sometimes("tool.flags", FieldType::Texts),
    kind("prompt", FieldType::Fields),
    always("prompt.name", FieldType::Text),
    always("prompt.arguments", FieldType::Anything),
    kind("resource", FieldType::Fields),
    always("resource.uri", FieldType::Text),
    always("resource.ambiguous", FieldType::Flag),
    sometimes("resource.parsed", FieldType::Fields),
    always("resource.parsed.scheme", FieldType::Text),
    always("resource.parsed.host", FieldType::Text),
    sometimes("resource.parsed.port", FieldType::Count),
    always("resource.parsed.path", FieldType::Text),
    always("resource.parsed.segments", FieldType::Texts),
    sometimes("resource.parsed.query", FieldType::Text),
    kind("resources", FieldType::Fields),
    always("resources.uris", FieldType::Texts),
    kind("task", FieldType::Fields),
    always("task.id", FieldType::Text),
    sometimes("task.method", FieldType::Text),
    sometimes("task.tool", FieldType::Text),
    sometimes("task.operation", FieldType::Fields),
    sometimes("task.operation.name", FieldType::Text),
    always("task.operation.effect", EFFECTS),
    always("task.operation.environments", FieldType::Texts),
    always("task.operation.environment_source", SOURCES),
    always("task.operation.tags", FieldType::Texts),
    sometimes("task.operation.pack", FieldType::Text),
    sometimes("params", FieldType::Anything),
    kind("elicitation", FieldType::Fields),
    always("elicitation.mode", FieldType::Text),
    always("elicitation.url", FieldType::Text),
    sometimes("elicitation.ambiguous", FieldType::Flag),
    sometimes("elicitation.parsed", FieldType::Fields),
    always("elicitation.parsed.scheme", FieldType::Text),
    always("elicitation.parsed.host", FieldType::Text),
    sometimes("elicitation.parsed.port", FieldType::Count),
    always("elicitation.parsed.path", FieldType::Text),
    always("elicitation.parsed.segments", FieldType::Texts),
    sometimes("elicitation.parsed.query", FieldType::Text),
    kind("answer", FieldType::Fields),
    always("answer.outcome", FieldType::OneOf(&["result", "error"])),
    sometimes("answer.error_code", FieldType::Number),
    sometimes("answer.action", FieldType::Text),
    sometimes("answer.content", FieldType::Anything),
    sometimes("answer.result", FieldType::Anything),
    sometimes("answer.roots", FieldType::Each),
    always("answer.roots.uri", FieldType::Text),
    always("answer.roots.ambiguous", FieldType::Flag),
    kind("tools", FieldType::Each),
    always("tools.name", FieldType::Text),
    sometimes("tools.definition", FieldType::Anything),
    always("tools.definition_digest", FieldType::Text),
    configured("tools.drift", DRIFTS),
    sometimes("tools.flags", FieldType::Texts),
    sometimes("tools.operation", FieldType::Fields),
    sometimes("tools.operation.name", FieldType::Text),
    always("tools.operation.effect", EFFECTS),
    always("tools.operation.environments", FieldType::Texts),
    always("tools.operation.environment_source", SOURCES),
    always("tools.operation.tags", FieldType::Texts),
    sometimes("tools.operation.pack", FieldType::Text),
    kind("entries", FieldType::Each),
    always("entries.name", FieldType::Text),
    sometimes("entries.definition", FieldType::Anything),
    always("entries.definition_digest", FieldType::Text),
    sometimes("entries.flags", FieldType::Texts),
];

/// The names and fields of the object at `path`; the empty path is `input` itself.
pub(super) fn below(path: &str) -> impl Iterator<Item = (&'static str, &'static Field)> {
    FIELDS.iter().filter_map(move |field| {
        let name = match path {
            "" => field.path,
            path => field.path.strip_prefix(path)?.strip_prefix('.')?,
        };
        (!name.contains('.')).then_some((name, field))
    })
}

/// The field at `path`.
pub(super) fn field(path: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.path == path)
}

/// The JSON Schema (draft 2020-12) of `input` as JSON text, with a final line feed.
pub fn input_schema() -> String {
    let mut schema = fields("");
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), "input of a Bartizan policy".into());
    format!("{:#}\n", Value::Object(schema))
}

/// The schema of the object at `path`.
fn fields(path: &str) -> Map<String, Value> {
    let properties: Map<String, Value> =
        below(path).map(|(name, field)| (name.to_owned(), schema_of(field))).collect();
    let required: Vec<&str> = below(path)
        .filter(|(_, field)| field.presence == Presence::Always)
        .map(|(name, _)| name)
        .collect();
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
        FieldType::Text => json!({"type": "string"}),
        FieldType::Count => json!({"type": "integer", "minimum": 0}),
        FieldType::Number => json!({"type": "integer"}),
        FieldType::Flag => json!({"type": "boolean"}),
        FieldType::Texts => json!({"type": "array", "items": {"type": "string"}}),
        FieldType::OneOf(texts) => json!({"type": "string", "enum": texts}),
        FieldType::Fields => Value::Object(fields(field.path)),
        FieldType::Each => json!({"type": "array", "items": fields(field.path)}),
        FieldType::TextsByName => {
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        }
        // JSON-RPC 2.0 (4.2) allows an array as `params`, so those of an unknown method have any type.
        // The content of a sampled message is an object, an array or a text.
        FieldType::Anything if matches!(field.path, "params" | "answer.content") => json!({}),
        FieldType::Anything => json!({"type": "object"}),
    }
}
