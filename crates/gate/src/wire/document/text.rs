//! Text inside JSON: finds the end of a run of plain bytes, writes literals, removes white space.
//!
//! [`minify`] and [`literal_len`] expect bytes that `read` has accepted; on other bytes they end
//! without a panic, but their result is meaningless.

use std::ops::Range;

use super::tree::wide;

/// The length of the run at the start of `bytes` that may stand in a string without an escape: no
/// `"`, no `\`, no byte below 0x20. Tests eight bytes at a time.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut len = 0_usize;
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        let stops = stops(u64::from_le_bytes(*chunk));
        if stops != 0 {
            // The lowest flag is exact. A higher one may come from a borrow of the subtraction.
            return len.saturating_add(wide(stops.trailing_zeros() >> 3));
        }
        len = len.saturating_add(8);
        rest = tail;
    }
    len.saturating_add(plain_len_bytewise(rest))
}

fn plain_len_bytewise(bytes: &[u8]) -> usize {
    let stop = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    bytes.iter().position(stop).unwrap_or(bytes.len())
}

/// Sets the high bit of each byte of `word` that is `"`, `\` or below 0x20.
fn stops(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    const SPACES: u64 = 0x2020_2020_2020_2020;
    const QUOTES: u64 = 0x2222_2222_2222_2222;
    const SLASHES: u64 = 0x5c5c_5c5c_5c5c_5c5c;
    let (quote, slash) = (word ^ QUOTES, word ^ SLASHES);
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let slashes = slash.wrapping_sub(ONES) & !slash;
    let controls = word.wrapping_sub(SPACES) & !word;
    (quotes | slashes | controls) & HIGHS
}

/// Appends `text` as a JSON string literal. Escapes `"`, `\`, everything below 0x20, 0x7f to 0x9f,
/// U+2028 and U+2029. The gate writes every string literal with this function.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for piece in text.split_inclusive(must_escape) {
        let mut before = piece.chars();
        match before.next_back() {
            Some(last) if must_escape(last) => {
                out.extend_from_slice(before.as_str().as_bytes());
                write_escape(out, last);
            }
            Some(_) | None => out.extend_from_slice(piece.as_bytes()),
        }
    }
    out.push(b'"');
}

fn must_escape(char: char) -> bool {
    matches!(
        char,
        '"' | '\\' | '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}'
    )
}

/// Appends one escape; `char` is one of [`must_escape`], which are all below U+10000.
fn write_escape(out: &mut Vec<u8>, char: char) {
    match char {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(format!("{:04x}", u32::from(char)).as_bytes());
        }
    }
}

/// Returns `raw` without white space between tokens and with non-ASCII line separators escaped.
pub(super) fn minify(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, tail)) = rest.split_first() {
        rest = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => tail,
            b'"' => {
                let (literal, tail) = rest.split_at(literal_len(rest));
                copy_literal(&mut out, literal);
                tail
            }
            _ => {
                out.push(*byte);
                tail
            }
        };
    }
    out
}

/// Returns, for each of `ranges` of the decoded text, the range of `literal` (both quotes included)
/// that decodes to it. `ranges` must be in order, must not overlap and must not cut a character.
/// The result is shorter than `ranges` where the literal ends before one of them.
pub(super) fn literal_ranges(literal: &[u8], ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut at, mut decoded) = (1_usize, 0_usize);
    let mut seek = |to: usize| {
        while decoded < to {
            let (raw_len, decoded_len) = unit(literal.get(at..)?)?;
            at = at.saturating_add(raw_len);
            decoded = decoded.saturating_add(decoded_len);
        }
        Some(at)
    };
    ranges.iter().map_while(|range| Some(seek(range.start)?..seek(range.end)?)).collect()
}

/// The length of the byte or escape at the start of `rest`: in the literal, and decoded.
fn unit(rest: &[u8]) -> Option<(usize, usize)> {
    match rest {
        [b'\\', b'u', hex @ ..] => {
            let digits = std::str::from_utf8(hex.get(..4)?).ok()?;
            Some(match u32::from_str_radix(digits, 16).ok()? {
                0..0x80 => (6, 1),
                0x80..0x800 => (6, 2),
                0xd800..0xe000 => (12, 4),
                _ => (6, 3),
            })
        }
        [b'\\', _, ..] => Some((2, 1)),
        [_, ..] => Some((1, 1)),
        [] => None,
    }
}

/// The length of the string literal at the start of `bytes`, both quotes included.
fn literal_len(bytes: &[u8]) -> usize {
    let mut at = 1_usize;
    loop {
        at = at.saturating_add(plain_len(bytes.get(at..).unwrap_or_default()));
        match bytes.get(at) {
            Some(b'\\') => at = at.saturating_add(2),
            Some(b'"') => return at.saturating_add(1),
            Some(_) | None => return bytes.len(),
        }
    }
}

/// Appends a literal with U+0085 (`c2 85`), U+2028 and U+2029 (`e2 80 a8`, `a9`) escaped.
fn copy_literal(out: &mut Vec<u8>, literal: &[u8]) {
    let mut rest = literal;
    loop {
        let run = rest.iter().position(|byte| matches!(byte, 0xc2 | 0xe2)).unwrap_or(rest.len());
        let (plain, marked) = rest.split_at(run);
        out.extend_from_slice(plain);
        let (copied, tail): (&[u8], &[u8]) = match marked {
            [] => return,
            [0xc2, 0x85, tail @ ..] => (b"\\u0085", tail),
            [0xe2, 0x80, 0xa8, tail @ ..] => (b"\\u2028", tail),
            [0xe2, 0x80, 0xa9, tail @ ..] => (b"\\u2029", tail),
            [_, tail @ ..] => (marked.get(..1).unwrap_or_default(), tail),
        };
        out.extend_from_slice(copied);
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_run_ends_where_the_slow_scan_says() {
        let marks = [b'"', b'\\', 0, 0x1f, 0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xff];
        for length in 0..20 {
            for at in 0..length {
                for mark in marks {
                    for second in marks {
                        let mut bytes = vec![b'a'; length];
                        bytes[at] = mark;
                        if let Some(next) = bytes.get_mut(at + 1) {
                            *next = second;
                        }
                        assert_eq!(plain_len(&bytes), plain_len_bytewise(&bytes), "{bytes:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_written_literal_holds_no_control_and_no_line_end() {
        for (text, literal) in [
            ("", r#""""#),
            ("plain é 🇩🇪", r#""plain é 🇩🇪""#),
            ("\"\\/", r#""\"\\/""#),
            ("a\n\r\tb", r#""a\n\r\tb""#),
            (
                "\0\u{1f}\u{7f}\u{80}\u{85}\u{9f}\u{a0}",
                "\"\\u0000\\u001f\\u007f\\u0080\\u0085\\u009f\u{a0}\"",
            ),
            ("\u{2027}\u{2028}\u{2029}\u{202a}", "\"\u{2027}\\u2028\\u2029\u{202a}\""),
        ] {
            let mut out = Vec::new();
            write_string(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), literal);
        }
    }

    #[test]
    fn ranges_of_a_text_are_found_in_its_literal() {
        let literal = r#""aé\n\u00e9\ud83c\udde9x""#;
        // Decoded: a(1) é(2) newline(1) é(2) U+1F1E9(4) x(1).
        let find = |ranges: &[Range<usize>]| {
            let found = literal_ranges(literal.as_bytes(), ranges);
            found.into_iter().map(|range| literal.get(range).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(find(&[0..1, 1..3, 3..4]), ["a", "é", "\\n"]);
        assert_eq!(find(&[3..6, 6..10, 10..11]), ["\\n\\u00e9", "\\ud83c\\udde9", "x"]);
        assert_eq!(find(&[10..11, 40..50]), ["x"]);
    }

    #[test]
    fn minify_touches_only_white_space_and_separators() {
        for (raw, want) in [
            (" [ 1 , \"a b\" ] \r\n", "[1,\"a b\"]"),
            (r#"{ "a\\" : "\" \\\" " }"#, r#"{"a\\":"\" \\\" "}"#),
            ("\"\u{2028}\u{2029}\u{85}â\u{2022}Â\"", "\"\\u2028\\u2029\\u0085â\u{2022}Â\""),
        ] {
            assert_eq!(String::from_utf8(minify(raw.as_bytes())).unwrap(), want);
        }
    }
}
