//! A text as it reads without the escapes of JSON that it holds behind other text, such as
//! `Result: {"key": "\\u0041…"}`. Such a text is not JSON, so it cannot be read as a document.

use std::ops::Range;

/// A text without the JSON escapes of another text, and where each of its bytes comes from.
pub(super) struct Unescaped {
    pub(super) text: String,
    /// For each byte of `text`, and for its end, the byte of the first text at which its character
    /// or escape begins; empty for the first text itself.
    from: Vec<u32>,
}

impl Unescaped {
    /// The first text itself.
    pub(super) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), from: Vec::new() }
    }

    /// The range of the first text that `range` of this one comes from.
    pub(super) fn source(&self, range: &Range<usize>) -> Range<usize> {
        let at = |index: usize| match self.from.get(index) {
            Some(from) => usize::try_from(*from).unwrap_or(usize::MAX),
            None => index,
        };
        at(range.start)..at(range.end)
    }

    /// This text without one level of escapes; `None` if it has none.
    pub(super) fn next(&self) -> Option<Self> {
        if !self.text.contains('\\') {
            return None;
        }
        let mut next = Self { text: String::new(), from: Vec::new() };
        let mut rest = self.text.as_str();
        let mut read = false;
        while let Some(first) = rest.chars().next() {
            let at = self.text.len().saturating_sub(rest.len());
            let (is, length) = match escape(rest) {
                Some(escape) => {
                    read = true;
                    escape
                }
                None => (first, first.len_utf8()),
            };
            let source = u32::try_from(self.source(&(at..at)).start).unwrap_or(u32::MAX);
            next.from.extend(std::iter::repeat_n(source, is.len_utf8()));
            next.text.push(is);
            rest = rest.get(length..).unwrap_or_default();
        }
        let end = self.source(&(self.text.len()..self.text.len())).start;
        next.from.push(u32::try_from(end).unwrap_or(u32::MAX));
        read.then_some(next)
    }
}

/// Whether `text` has an escape by which a secret could read otherwise; other escapes mean white
/// space, or a backslash.
pub(super) fn hides(text: &str) -> bool {
    text.match_indices('\\').any(|(at, _)| {
        let rest = text.get(at..).unwrap_or_default();
        escape(rest).is_some_and(|(is, _)| is.is_ascii_graphic() && is != '\\')
    })
}

/// The character that the JSON escape at the start of `text` means, and the length of the escape;
/// `None` if there is none. Half of a surrogate pair means nothing, so it stays as it is.
fn escape(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| plain)
    };
    let short = match text.strip_prefix('\\')?.chars().next()? {
        it @ ('"' | '\\' | '/') => it,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let first = unit(text)?;
            let second = text.get(6..).and_then(unit);
            return match (first, second) {
                (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                    let high = first.checked_sub(0xD800)?.checked_mul(0x400)?;
                    let low = low.checked_sub(0xDC00)?;
                    let code = 0x1_0000_u32.checked_add(high)?.checked_add(low)?;
                    char::from_u32(code).map(|it| (it, 12))
                }
                _ => char::from_u32(first).map(|it| (it, 6)),
            };
        }
        _ => return None,
    };
    Some((short, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_of_escapes_is_read_and_places_are_kept() {
        let text = r#"é: {\"k\": \"\\u0041\u00e9\ud83d\ude00\x \ud83d"}"#;
        let first = Unescaped::of(text).next().unwrap();
        assert_eq!(first.text, r#"é: {"k": "\u0041é😀\x \ud83d"}"#);
        let at = first.text.find('😀').unwrap();
        assert_eq!(text.get(first.source(&(at..at + 4))), Some(r"\ud83d\ude00"));
        let second = first.next().unwrap();
        assert_eq!(second.text, r#"é: {"k": "Aé😀\x \ud83d"}"#);
        let at = second.text.find('A').unwrap();
        assert_eq!(text.get(second.source(&(at..at + 1))), Some(r"\\u0041"));
        assert!(second.next().is_none());
        assert!(Unescaped::of("no escapes").next().is_none());
    }

    #[test]
    fn only_some_escapes_hide_something() {
        for (text, expected) in [
            (r"a \\ b", false),
            (r"a \n b", false),
            (r"C:\users", false),
            (r"\u0041", true),
            (r"\/", true),
            (r"\\u0041", true),
        ] {
            assert_eq!(hides(text), expected, "{text}");
        }
    }
}
