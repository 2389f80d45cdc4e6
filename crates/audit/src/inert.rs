//! Text that cannot act on whoever looks at it.
//!
//! Names of tools, methods and principals come from strangers and end on an analyst's terminal.
//! This is the one list of characters that are never shown or written as themselves, and the two
//! ways to write them: as JSON escapes in the journal and as `\u{..}` for a person.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Whether `c` could steer a terminal, reorder or hide text, or break a line: controls (C0, DEL,
/// C1), line and paragraph separators, bidi marks and overrides, zero-width and other invisible
/// characters, variation selectors, tags.
pub fn is_hostile(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Appends `text` to `out` with every hostile character as `\u{..}`, cut after `chars_max`
/// characters of it with a mark that says so. A backslash is doubled, so that no text can pass
/// for an escape.
pub fn push(out: &mut String, text: &str, chars_max: usize) {
    for (count, c) in text.chars().enumerate() {
        if count >= chars_max {
            out.push('…');
            return;
        }
        if is_hostile(c) {
            // Writing to a `String` cannot fail.
            write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default();
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
}

/// Appends `value` to `out` as JSON with every hostile character escaped.
pub(super) fn write_json<T: Serialize>(value: &T, out: &mut Vec<u8>) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Inert))
}

/// Compact JSON that escapes what [`is_hostile`] names; the rest is serde's default.
struct Inert;

impl Formatter for Inert {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        if fragment.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut utf8 = [0; 4];
        let mut utf16 = [0; 2];
        for c in fragment.chars() {
            if is_hostile(c) {
                for unit in c.encode_utf16(&mut utf16) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                writer.write_all(c.encode_utf8(&mut utf8).as_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: &[(&str, &str, &str)] = &[
        ("plain", "plain", r#""plain""#),
        ("über", "über", r#""über""#),
        ("a\u{1b}[2Jb", r"a\u{1b}[2Jb", r#""a\u001b[2Jb""#),
        ("a\nb", r"a\u{a}b", r#""a\nb""#),
        ("\u{7f}\u{9b}", r"\u{7f}\u{9b}", r#""\u007f\u009b""#),
        ("\u{202e}txt", r"\u{202e}txt", r#""\u202etxt""#),
        ("\u{200b}\u{feff}", r"\u{200b}\u{feff}", r#""\u200b\ufeff""#),
        ("\u{2028}", r"\u{2028}", r#""\u2028""#),
        ("\u{e0041}", r"\u{e0041}", r#""\udb40\udc41""#),
        (r"\u{1b}", r"\\u{1b}", r#""\\u{1b}""#),
    ];

    #[test]
    fn hostile_characters_are_written_as_escapes() {
        for &(text, shown, json) in CASES {
            let mut out = String::new();
            push(&mut out, text, 100);
            assert_eq!(out, shown);
            let mut out = Vec::new();
            write_json(&text, &mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out, json);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text, "same meaning");
        }
    }

    #[test]
    fn long_text_is_cut() {
        let mut out = String::new();
        push(&mut out, "abcdef", 3);
        assert_eq!(out, "abc…");
    }
}
