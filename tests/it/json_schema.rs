//! A validator for the part of JSON Schema (2020-12) that our own schemas use. A word that it does
//! not know fails, so that nothing goes unchecked.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use regex::Regex;
use serde_json::Value;

/// Everything in `value` that `schema` refuses, each with its path below `path`.
pub(crate) fn refusals(path: &str, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(path, schema, value, &mut found);
    found
}

fn accepts(schema: &Value, value: &Value) -> bool {
    refusals("", schema, value).is_empty()
}

fn check(path: &str, schema: &Value, value: &Value, found: &mut Vec<String>) {
    let words = match schema {
        Value::Bool(true) => return,
        Value::Bool(false) => return found.push(format!("{path}: may not be there")),
        Value::Object(words) => words,
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            panic!("{path}: no schema: {schema}")
        }
    };
    for (word, rule) in words {
        if let Err(what) = keyword(word, rule, schema, value) {
            found.push(format!("{path}: {what}: {value}"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if let Some(schema) = schema["properties"].get(name) {
            check(&path, schema, member, found);
        } else if let Some(schema) = words.get("additionalProperties") {
            check(&path, schema, member, found);
        }
    }
    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = words.get("items") {
            check(&format!("{path}[{index}]"), schema, element, found);
        }
    }
    for schema in words.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        check(path, schema, value, found);
    }
    if let Some(condition) = words.get("if") {
        let branch = if accepts(condition, value) { "then" } else { "else" };
        if let Some(schema) = words.get(branch) {
            check(path, schema, value, found);
        }
    }
}

/// Holds `value` against one word of `schema` that is not about its members.
fn keyword(word: &str, rule: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let texts = || rule.as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let how_many = || rule.as_array().unwrap().iter().filter(|rule| accepts(rule, value)).count();
    let length = |length: Option<usize>| length.and_then(|length| u64::try_from(length).ok());
    let holds = match word {
        // About members, or about nothing.
        "$schema"
        | "title"
        | "description"
        | "default"
        | "properties"
        | "additionalProperties"
        | "items"
        | "allOf"
        | "if"
        | "then"
        | "else" => true,
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("nothing here knows the type `{other}`"),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "const" => rule == value,
        "not" => !accepts(rule, value),
        "anyOf" => how_many() >= 1,
        "oneOf" => how_many() == 1,
        "minimum" => value.as_i64().is_none_or(|value| value >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|value| value <= rule.as_i64().unwrap()),
        "pattern" => {
            let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
            value.as_str().is_none_or(|text| pattern.is_match(text))
        }
        "minLength" => {
            let chars = length(value.as_str().map(|text| text.chars().count()));
            chars.is_none_or(|chars| chars >= rule.as_u64().unwrap())
        }
        "minItems" => {
            let items = length(value.as_array().map(Vec::len));
            items.is_none_or(|items| items >= rule.as_u64().unwrap())
        }
        "minProperties" => {
            let members = length(value.as_object().map(serde_json::Map::len));
            members.is_none_or(|members| members >= rule.as_u64().unwrap())
        }
        "propertyNames" => {
            let mut names = value.as_object().into_iter().flatten().map(|(name, _)| name);
            names.all(|name| accepts(rule, &Value::from(name.as_str())))
        }
        "required" => {
            let missing = texts().find(|name| value.is_object() && value.get(name).is_none());
            return missing.map_or(Ok(()), |name| Err(format!("`{name}` is missing")));
        }
        "dependentRequired" => {
            let rules = rule.as_object().unwrap().iter();
            let mut written = rules.filter(|(name, _)| value.get(name).is_some());
            written.all(|(_, needs)| {
                let mut needs = needs.as_array().unwrap().iter();
                needs.all(|name| value.get(name.as_str().unwrap()).is_some())
            })
        }
        other => panic!("nothing here knows the word `{other}` of {schema}"),
    };
    if holds { Ok(()) } else { Err(format!("breaks `{word}` ({rule})")) }
}

#[test]
fn each_word_refuses_what_breaks_it() {
    use serde_json::json;
    for (schema, good, bad) in [
        (json!({"type": "object"}), json!({}), json!([])),
        (json!({"type": "integer"}), json!(3), json!(1.5)),
        (json!({"type": "boolean"}), json!(true), json!("true")),
        (json!({"enum": ["a"]}), json!("a"), json!("b")),
        (json!({"const": 1}), json!(1), json!("1")),
        (json!({"not": {"type": "string"}}), json!(1), json!("1")),
        (json!({"anyOf": [{"const": 1}, {"const": 2}]}), json!(2), json!(3)),
        (
            json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1}),
            json!({"a": 1, "b": 1}),
        ),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 3}]}), json!(3), json!(4)),
        (json!({"minimum": 1}), json!(1), json!(0)),
        (json!({"pattern": "^a+$"}), json!("aa"), json!("ab")),
        (json!({"minLength": 1}), json!("é"), json!("")),
        (json!({"type": "array", "minItems": 1}), json!([1]), json!([])),
        (json!({"minProperties": 1}), json!({"a": 1}), json!({})),
        (json!({"items": {"type": "string"}}), json!(["a"]), json!(["a", 1])),
        (json!({"propertyNames": {"pattern": "^a"}}), json!({"ab": 1}), json!({"b": 1})),
        (json!({"properties": {"a": {"const": 1}}}), json!({"a": 1, "b": 2}), json!({"a": 2})),
        (
            json!({"properties": {"a": {}}, "additionalProperties": false}),
            json!({"a": 1}),
            json!({"b": 1}),
        ),
        (json!({"additionalProperties": {"type": "string"}}), json!({"a": "b"}), json!({"a": 1})),
        (json!({"required": ["a"]}), json!({"a": 1}), json!({})),
        (json!({"dependentRequired": {"a": ["b"]}}), json!({"b": 1}), json!({"a": 1})),
        (
            json!({
                "if": {"properties": {"m": {"const": "x"}}},
                "else": {"properties": {"k": false}},
            }),
            json!({"m": "x", "k": 1}),
            json!({"m": "y", "k": 1}),
        ),
    ] {
        assert_eq!(refusals("v", &schema, &good), [""; 0], "{schema}");
        assert!(!refusals("v", &schema, &bad).is_empty(), "{schema}: takes {bad}");
    }
}
