//! Flags of a definition: what people cannot see in it ([`unseen`]), and what its schemas make their
//! readers do. Passed to the policy as `flags`.
//!
//! A schema is text of the server that the client's libraries act on. A validator that follows a
//! reference fetches what the server names, from inside the client's network, and a client writes
//! the name of an `x-mcp-header` into the head of a request (threat G17).

use crate::wire::document::{Kind, Value};
use crate::wire::frame::{is_look_alike, is_other_spelling};
use crate::wire::unseen;

/// The flag for a reference to another document in a schema.
pub const REMOTE_REFERENCE: &str = "remote-reference";
/// The flag for an `x-mcp-header` that is not a valid header name, or comes twice.
pub const HEADER_NAME: &str = "header-name";

/// The members of a definition that are JSON Schemas.
const SCHEMAS: [&str; 2] = ["inputSchema", "outputSchema"];
/// The keywords that are compared in all their spellings. `id` is not: many objects have it.
const KEYWORDS: [&str; 6] =
    ["$ref", "$dynamicRef", "$recursiveRef", "$schema", "$id", "x-mcp-header"];
/// Keywords that name a schema to go on with (JSON Schema 2020-12 §8.2.3, 2019-09 §8.2.4).
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// The dialects that validators have built in, without an empty fragment at the end.
const DIALECTS: [&str; 9] = [
    "http://json-schema.org/schema",
    "http://json-schema.org/draft-03/schema",
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft-07/schema",
    "https://json-schema.org/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
];
/// Longest name of an `x-mcp-header`, bytes.
const HEADER_BYTES_MAX: usize = 128;

/// Returns the flag with this name, if there is one.
pub fn named(name: &str) -> Option<&'static str> {
    let own = [HEADER_NAME, REMOTE_REFERENCE].into_iter().find(|flag| *flag == name);
    own.or_else(|| unseen::named(name))
}

/// Whether a flag is about a schema, not about text that people cannot see.
pub fn is_of_schema(flag: &str) -> bool {
    [HEADER_NAME, REMOTE_REFERENCE].contains(&flag)
}

/// Returns the flags of a definition, in a fixed order, without duplicates. `is_twin` comes from
/// [`unseen::twins`] of its page. What some reader takes for a schema, or in it for a keyword, counts
/// as that.
pub fn of(definition: Value<'_>, is_twin: bool) -> Vec<&'static str> {
    let mut found = SchemaFlags::default();
    let is_schema = |name: &str| SCHEMAS.contains(&name) || is_other_spelling(name, &SCHEMAS);
    for (name, schema) in definition.members() {
        if name.as_str().is_some_and(is_schema) {
            found.headers.clear();
            found.value(schema);
        }
    }
    let mut flags = unseen::of(definition, is_twin);
    flags.extend(found.header.then_some(HEADER_NAME));
    flags.extend(found.remote.then_some(REMOTE_REFERENCE));
    flags
}

/// Whether `name` may follow `Mcp-Param-` in the name of a header (MCP 2026-07-28, Streamable HTTP
/// "Parameter Headers"; RFC 9110 §5.6.2).
pub fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=HEADER_BYTES_MAX).contains(&name.len()) && name.bytes().all(token)
}

#[derive(Default)]
struct SchemaFlags {
    header: bool,
    remote: bool,
    /// The header names of one schema, lower case.
    headers: std::collections::BTreeSet<String>,
}

impl SchemaFlags {
    /// Checks every member at every depth, also in examples and defaults: some libraries follow
    /// references wherever they stand. Recursive; the document's own depth limit bounds it.
    fn value(&mut self, value: Value<'_>) {
        value.elements().for_each(|element| self.value(element));
        for (name, member) in value.members() {
            let text = member.as_str();
            let name = name.as_str().unwrap_or_default();
            let known = KEYWORDS.iter().find(|known| is_look_alike(name, &[known]));
            match (known.copied().unwrap_or(name), text) {
                (name, Some(text)) if REFERENCES.contains(&name) => {
                    self.remote |= !text.starts_with('#');
                }
                ("$schema", Some(text)) => {
                    let dialect = text.strip_suffix('#').unwrap_or(text);
                    self.remote |= !DIALECTS.contains(&dialect);
                }
                ("$id" | "id", Some(text)) => self.remote |= names_a_site(text),
                // A property of this name has a schema, which is an object.
                ("x-mcp-header", text) if member.kind() != Kind::Object => {
                    let valid = text.filter(|text| is_header_name(text));
                    self.header |=
                        valid.is_none_or(|text| !self.headers.insert(text.to_ascii_lowercase()));
                }
                _ => {}
            }
            self.value(member);
        }
    }
}

/// Whether an identifier makes relative references absolute at some site: it has a scheme other than
/// `urn`, or an authority (RFC 3986 §4.2).
fn names_a_site(identifier: &str) -> bool {
    let scheme = identifier.split(['/', '?', '#']).next().and_then(|it| it.split_once(':'));
    let site = scheme.is_some_and(|(scheme, _)| !scheme.eq_ignore_ascii_case("urn"));
    site || identifier.starts_with("//") || identifier.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::document::{Document, DocumentLimits};

    fn flags(schema: &str) -> Vec<&'static str> {
        let text = format!(r#"{{"name":"t","inputSchema":{schema},"$ref":"https://e/"}}"#);
        let document = Document::read(text.into(), &DocumentLimits::default()).unwrap();
        of(document.root(), false)
    }

    #[test]
    fn a_schema_refers_to_itself_alone() {
        for schema in [
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"$dynamicRef":"#b","$anchor":"b"}}}"##,
            r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#,
            r#"{"$schema":"https://json-schema.org/draft/2020-12/schema"}"#,
            r#"{"$id":"Tool","properties":{"$ref":{"type":"string"},"id":{"type":"string"}}}"#,
            r#"{"$id":"urn:example:tool"}"#,
        ] {
            assert_eq!(flags(schema), [""; 0], "{schema}");
        }
        for schema in [
            r#"{"$ref":"https://evil.example/schema.json"}"#,
            r#"{"$ref":"http://169.254.169.254/latest/meta-data"}"#,
            r#"{"$ref":"file:///etc/passwd"}"#,
            r#"{"$ref":"other.json#/a"}"#,
            r#"{"$ref":"//evil.example/a"}"#,
            r#"{"$ref":""}"#,
            r#"{"properties":{"a":{"items":[{"$dynamicRef":"https://evil.example/#m"}]}}}"#,
            r#"{"$recursiveRef":"x"}"#,
            r#"{"\u0024ref":"x"}"#,
            r#"{"$Ref":"https://evil.example/"}"#,
            r#"{" $ref":"https://evil.example/"}"#,
            r#"{"$SCHEMA":"https://evil.example/meta"}"#,
            r#"{"default":{"$ref":"https://evil.example/"}}"#,
            r#"{"$schema":"https://evil.example/meta"}"#,
            r#"{"$schema":"https://json-schema.org.evil.example/draft-07/schema"}"#,
            r#"{"$id":"https://evil.example/tool"}"#,
            r#"{"id":"//evil.example/tool"}"#,
        ] {
            assert_eq!(flags(schema), [REMOTE_REFERENCE], "{schema}");
        }
    }

    #[test]
    fn a_schema_is_one_in_any_spelling_of_its_name() {
        for name in ["InputSchema", "input_schema", "OUTPUTSCHEMA", "output-schema", "outputSchema"]
        {
            let text =
                format!(r#"{{"name":"t","inputSchema":{{}},"{name}":{{"$ref":"https://e/"}}}}"#);
            let document = Document::read(text.into(), &DocumentLimits::default()).unwrap();
            assert_eq!(of(document.root(), false), [REMOTE_REFERENCE], "{name}");
        }
    }

    #[test]
    fn a_header_has_the_name_of_one() {
        let property =
            |name: &str| format!(r#"{{"properties":{{"a":{{"x-mcp-header":{name}}}}}}}"#);
        for name in [r#""Region""#, r#""x-1_2.3~""#] {
            assert_eq!(flags(&property(name)), [""; 0], "{name}");
        }
        for name in [
            r#""a\r\nEvil: 1""#,
            r#""a\rb""#,
            r#""a\nb""#,
            r#""""#,
            r#"" a""#,
            r#""a b""#,
            r#""a:b""#,
            r#""\u00e9""#,
            "1",
            "null",
            r#"["a"]"#,
        ] {
            assert_eq!(flags(&property(name)), [HEADER_NAME], "{name}");
        }
        let long = format!("\"{}\"", "a".repeat(129));
        assert_eq!(flags(&property(&long)), [HEADER_NAME]);
        assert_eq!(flags(r#"{"properties":{"a":{"X-MCP-Header":"a b"}}}"#), [HEADER_NAME]);
        let twice = r#"{"properties":{"a":{"x-mcp-header":"R"},"b":{"x-mcp-header":"r"}}}"#;
        assert_eq!(flags(twice), [HEADER_NAME]);
        assert_eq!(flags(r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#), [""; 0]);
        for flag in [HEADER_NAME, REMOTE_REFERENCE, "bidi"] {
            assert_eq!(named(flag), Some(flag));
        }
        assert_eq!(named("x"), None);
    }
}
