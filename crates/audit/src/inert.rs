//! Escapes text so that it cannot control a terminal or hide from a reader.
//!
//! Names of tools, methods and principals come from untrusted peers and are shown on an analyst's
//! terminal. Invisible and control characters are therefore always escaped: as JSON
//! escapes in the journal, as `\u{..}` in output for people. The journal's writer, `pretty` and
//! `bartizan lock` use it.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

pub use bartizan_gate::wire::inert::{escaped, push, push_markup};

/// Appends `value` to `out` as compact JSON with every invisible character escaped.
///
/// # Errors
///
/// As `serde_json`, if `value` cannot be serialised.
pub fn write_json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Inert))
}

/// A formatter for compact JSON that escapes invisible characters; everything else is as
/// serde writes it.
struct Inert;

impl Formatter for Inert {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        if fragment.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        // serde has already escaped LF, so the fragment contains none.
        writer.write_all(escaped(fragment).as_bytes())
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
        ("\u{2800}\u{1d173}", r"\u{2800}\u{1d173}", r#""\u2800\ud834\udd73""#),
        ("\u{e0041}", r"\u{e0041}", r#""\udb40\udc41""#),
        (r"\u{1b}", r"\\u{1b}", r#""\\u{1b}""#),
    ];

    #[test]
    fn unseen_characters_are_written_as_escapes() {
        for &(text, shown, json) in CASES {
            let mut out = String::new();
            push(&mut out, text, 100);
            assert_eq!(out, shown);
            let mut out = Vec::new();
            write_json(&text, &mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out, json);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text, "same meaning");
            assert_eq!(escaped(&serde_json::to_string(text).unwrap()), json);
        }
    }

    #[test]
    fn long_text_is_cut() {
        let mut out = String::new();
        push(&mut out, "abcdef", 3);
        assert_eq!(out, "abc…");
    }
}
