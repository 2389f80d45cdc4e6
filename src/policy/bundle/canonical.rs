//! The canonical JSON that OPA hashes for a signature.
//!
//! Members are sorted by name, there is no white space, numbers keep their text, and strings are
//! escaped as Go's `encoding/json` does without HTML escapes (OPA documentation, "Signing"). Files
//! that differ only in layout have the same hash.

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value};
use bytes::Bytes;

/// Largest number of values in one file.
const VALUES_MAX: usize = 1 << 23;

/// `text` as canonical JSON.
///
/// # Errors
///
/// It is not strict JSON.
pub(super) fn canonical(text: &str) -> Result<Vec<u8>, String> {
    let limits = DocumentLimits {
        bytes_max: text.len(),
        values_max: VALUES_MAX,
        ..DocumentLimits::default()
    };
    let document = Document::read(Bytes::copy_from_slice(text.as_bytes()), &limits)
        .map_err(|_| "not strict JSON".to_owned())?;
    let mut out = Vec::with_capacity(text.len());
    write(&mut out, document.root());
    Ok(out)
}

/// Recursive; the parser limits the depth of the document.
fn write(out: &mut Vec<u8>, value: Value<'_>) {
    match value.kind() {
        Kind::Object => {
            let mut members: Vec<(&str, Value<'_>)> = value
                .members()
                .map(|(name, value)| (name.as_str().unwrap_or_default(), value))
                .collect();
            members.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                string(out, name);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
        Kind::Array => {
            out.push(b'[');
            for (at, value) in value.elements().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(out, value);
            }
            out.push(b']');
        }
        Kind::String => string(out, value.as_str().unwrap_or_default()),
        Kind::Null | Kind::Bool | Kind::Number => out.extend_from_slice(value.raw()),
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        let escape = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{2028}' => "\\u2028",
            '\u{2029}' => "\\u2029",
            '\0'..='\u{1f}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                continue;
            }
            plain => {
                out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        out.extend_from_slice(escape.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_does_not_matter_and_numbers_keep_their_text() {
        for (text, expected) in [
            ("{ \"b\" : [ 1.0 , 1e3, -0 ],\n\"a\": {} }", r#"{"a":{},"b":[1.0,1e3,-0]}"#),
            (r#"{"B":1,"a":2,"é":3,"Z":null}"#, r#"{"B":1,"Z":null,"a":2,"é":3}"#),
            (r#""<a href=\"x\">&\u0041\/""#, r#""<a href=\"x\">&A/""#),
            (
                "\"\\u2028\u{2029}\\u0001\\b\\f\\n\\r\\t\u{7f}\\\\\"",
                "\"\\u2028\\u2029\\u0001\\b\\f\\n\\r\\t\u{7f}\\\\\"",
            ),
            ("[true,false,null,[]]", "[true,false,null,[]]"),
        ] {
            assert_eq!(String::from_utf8(canonical(text).unwrap()).unwrap(), expected);
        }
        assert!(canonical("{\"a\":1,\"a\":1}").is_err());
        assert!(canonical("").is_err());
    }
}
