//! Escapes text so that it cannot control a terminal or hide from a reader: invisible and control
//! characters ([`is_unseen`]) become escapes that a person can see. Also so that it is no markup.

use std::fmt::Write as _;

use super::unseen::is_unseen;

/// Appends `text` to `out` with every invisible character as `\u{..}`. After `chars_max` characters
/// of `text` the rest is left out and a mark says so. A backslash is doubled, so that no text can
/// imitate an escape.
pub fn push(out: &mut String, text: &str, chars_max: usize) {
    for (count, c) in text.chars().enumerate() {
        if count >= chars_max {
            out.push('…');
            return;
        }
        if is_unseen(c) {
            // Writing to a `String` cannot fail.
            write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default();
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
}

/// Appends `text` so that nothing of it is markup, in an element or in a quoted attribute of HTML.
pub fn push_markup(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

/// `json` with every invisible character except LF as a JSON escape. Valid JSON can contain such
/// characters only inside strings and LF only between tokens, so the meaning stays the same.
pub fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unseen(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                write!(out, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            out.push(c);
        }
    }
    out
}
