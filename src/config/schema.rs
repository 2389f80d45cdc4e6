//! The table of keys as a JSON Schema (2020-12).
//!
//! Whatever the reader accepts, the schema accepts. It refuses less: it knows no files and no
//! variables, and compares no two values.

use serde_json::{Map, Value, json};

use super::form::OFF;
use super::table::{Absent, Condition, Shape, Table};
use crate::yaml::{self, Kind};

/// The schema of a file with the keys of `table`.
pub(super) fn text(table: &Table) -> String {
    let mut schema = of_table(table);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Configuration of Bartizan (bartizan.yaml)"));
    format!("{:#}\n", Value::Object(schema))
}

fn of_table(table: &Table) -> Map<String, Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut dependent: Map<String, Value> = Map::new();
    let mut conditions = Vec::new();
    for row in &table.rows {
        let mut schema = of_shape(&row.shape);
        schema.insert("description".to_owned(), plain(row.doc).into());
        match &row.absent {
            Absent::Default(text) => drop(schema.insert("default".to_owned(), value_of(text))),
            Absent::Refused if row.only.is_none() => required.push(row.key),
            Absent::Refused | Absent::Means(_) => {}
        }
        properties.insert(row.key.to_owned(), Value::Object(schema));
        // An empty list or mapping says nothing, so the reader takes it without the other key.
        let but_empty = if row.shape.takes_empty(&Kind::List(Vec::new())) {
            Some(json!({"const": []}))
        } else if row.shape.takes_empty(&Kind::Map(Vec::new())) {
            Some(json!({"const": {}}))
        } else {
            None
        };
        match (row.only, but_empty) {
            (Some(Condition { key, value: None, .. }), None) => {
                dependent.insert(row.key.to_owned(), json!([key]));
            }
            (Some(Condition { key, value: None, .. }), Some(empty)) => conditions.push(json!({
                "if": {"required": [key]},
                "else": {"properties": {row.key: empty}},
            })),
            (Some(Condition { key, value: Some(value), .. }), empty) => conditions.push(json!({
                "if": {"properties": {key: {"const": value}}},
                "else": {"properties": {row.key: empty.unwrap_or(json!(false))}},
            })),
            (None, _) => {}
        }
    }
    for keys in &table.exclusive {
        let one: Vec<Value> = keys.iter().map(|key| json!({"required": [key]})).collect();
        conditions.push(json!({"oneOf": one}));
    }
    let mut schema = object(json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    }));
    let optional = [
        ("required", (!required.is_empty()).then(|| json!(required))),
        ("dependentRequired", (!dependent.is_empty()).then(|| json!(dependent))),
        ("allOf", (!conditions.is_empty()).then(|| json!(conditions))),
    ];
    let words = optional.into_iter().filter_map(|(word, value)| Some((word.to_owned(), value?)));
    schema.extend(words);
    schema
}

fn of_shape(shape: &Shape) -> Map<String, Value> {
    object(match shape {
        Shape::Text { pattern, references } => {
            let mut schema = object(json!({"type": "string", "minLength": 1}));
            if let Some(pattern) = pattern {
                schema.insert("pattern".to_owned(), json!(pattern));
            }
            if !references {
                schema.insert("not".to_owned(), json!({"pattern": r"\$\{"}));
            }
            Value::Object(schema)
        }
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Count { low, high } => json!({"type": "integer", "minimum": low, "maximum": high}),
        Shape::Bytes { low, high } => json!({"anyOf": [
            {"type": "integer", "minimum": low, "maximum": high},
            {"type": "string", "pattern": r"^[0-9]+\s*(B|KiB|MiB|GiB)?$"},
        ]}),
        Shape::Time { off: false, .. } => time(),
        Shape::Time { off: true, .. } => json!({"anyOf": [time(), {"const": OFF}]}),
        Shape::Word(words) => json!({"enum": words}),
        Shape::List { item, alone, empty } => {
            let item = of_shape(item);
            let mut list = object(json!({"type": "array", "items": item.clone()}));
            if !empty {
                list.insert("minItems".to_owned(), json!(1));
            }
            if *alone { json!({"anyOf": [item, list]}) } else { Value::Object(list) }
        }
        Shape::ByName { pattern, item, empty, .. } => {
            let mut map = object(json!({"type": "object", "additionalProperties": of_shape(item)}));
            if let Some(pattern) = pattern {
                map.insert("propertyNames".to_owned(), json!({"pattern": pattern}));
            }
            if !empty {
                map.insert("minProperties".to_owned(), json!(1));
            }
            Value::Object(map)
        }
        Shape::Section(table) => Value::Object(of_table(table)),
        Shape::WordOr { word, section } => json!({"anyOf": [of_shape(word), of_shape(section)]}),
    })
}

/// A length of time as `humantime` reads it, which takes a fraction, and white space around digits.
fn time() -> Value {
    json!({
        "type": "string",
        "pattern": r"^\s*([0-9][0-9\s]*(\.[0-9\s]+)?[A-Za-zµ]+\s*)+$",
    })
}

/// The members of a value that is an object.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// A default, written as in a file, as JSON.
fn value_of(text: &str) -> Value {
    let json = yaml::to_json(text).unwrap_or_default();
    serde_json::from_str(&json).unwrap_or_else(|_| text.into())
}

/// `doc` with the texts of links in the place of links, which lead nowhere from a schema.
fn plain(doc: &str) -> String {
    let mut out = String::with_capacity(doc.len());
    let mut rest = doc;
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(text, target)| {
            let (_, after) = target.split_once(')')?;
            (!text.contains(']')).then_some((text, after))
        });
        out.push_str(before);
        rest = if let Some((text, after)) = link {
            out.push_str("docs/");
            out.push_str(text);
            after
        } else {
            out.push('[');
            after
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_names_of_pages() {
        let doc = "See [policy.md](policy.md#packs). `[\"*\"]` is all.";
        assert_eq!(plain(doc), "See docs/policy.md. `[\"*\"]` is all.");
    }
}
