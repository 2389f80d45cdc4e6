//! Copies of what a pointer removes: the texts, numbers and names that must not stand elsewhere in
//! the message.

use std::ops::Range;

use super::{PLACES_MAX, Unredactable};
use crate::wire::document::Value;

/// The shortest text, bytes, of which copies elsewhere in the answer are removed too.
pub(super) const COPY_BYTES_MIN: usize = 8;
/// Different texts of which copies are removed, at most; an answer with more is withheld.
const COPIES_MAX: usize = 64;
/// Digits of a name from which on it is taken for data.
const NAME_DIGITS_MAX: usize = 4;
/// Longest exponent of a number that is read, digits. No longer one is finite (A12).
const EXPONENT_DIGITS_MAX: usize = 4;

/// What has been removed by pointers.
#[derive(Debug, Default)]
pub(super) struct Copies {
    texts: Vec<String>,
    /// Those of `texts` that are numbers: another notation of one is a copy, too.
    numbers: Vec<Decimal>,
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// How often a text is read to find all copies in it.
    pub(super) fn readings(&self) -> usize {
        self.texts.len()
    }

    /// Remembers every text and number in `value`, and every name that is data.
    pub(super) fn remember(&mut self, value: Value<'_>) -> Result<(), Unredactable> {
        if let Some(text) = value.as_str().or_else(|| value.as_number()) {
            self.text(text)?;
        }
        for (name, member) in value.members() {
            if let Some(name) = name.as_str().filter(|name| is_data(name)) {
                self.text(name)?;
            }
            self.remember(member)?;
        }
        value.elements().try_for_each(|element| self.remember(element))
    }

    fn text(&mut self, text: &str) -> Result<(), Unredactable> {
        let text = text.trim();
        if text.len() < COPY_BYTES_MIN || self.texts.iter().any(|copy| copy == text) {
            return Ok(());
        }
        if self.texts.len() >= COPIES_MAX {
            return Err(Unredactable::TooMuch);
        }
        self.numbers.extend(
            Decimal::begins(text)
                .filter(|(_, length)| *length == text.len())
                .map(|(number, _)| number),
        );
        self.texts.push(text.to_owned());
        Ok(())
    }

    /// Whether a number is one that was removed, in any notation.
    pub(super) fn is_number(&self, literal: &str) -> bool {
        let read = Decimal::begins(literal.trim_start_matches('-'));
        self.texts.iter().any(|copy| copy == literal)
            || read.is_some_and(|(number, _)| self.numbers.contains(&number))
    }

    /// Where copies stand in `text`. More than [`PLACES_MAX`] of one are not all listed.
    pub(super) fn places(&self, text: &str) -> Vec<Range<usize>> {
        let mut places = Vec::new();
        for copy in &self.texts {
            // One more than may be, so that too many are noticed.
            let found = text.match_indices(copy.as_str()).take(PLACES_MAX.saturating_add(1));
            places.extend(found.map(|(at, _)| at..at.saturating_add(copy.len())));
        }
        if !self.numbers.is_empty() {
            places.extend(self.numbers_in(text).take(PLACES_MAX.saturating_add(1)));
        }
        places
    }

    /// Where removed numbers stand in `text`, in any notation.
    fn numbers_in<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
        let mut from = 0_usize;
        std::iter::from_fn(move || {
            loop {
                let rest = text.get(from..)?;
                let start = from.saturating_add(rest.find(|it: char| it.is_ascii_digit())?);
                let (number, length) = Decimal::begins(text.get(start..)?)?;
                from = start.saturating_add(length);
                if self.numbers.contains(&number) {
                    return Some(start..from);
                }
            }
        })
    }
}

/// Whether the name of a member is data, such as a key or an address, and not a word of the object's
/// form. Words occur elsewhere with nothing to hide: they have letters, at most one number of a few
/// digits, and what stands between words.
fn is_data(name: &str) -> bool {
    let digits = name.chars().filter(char::is_ascii_digit).count();
    let groups = name.split(|it: char| !it.is_ascii_digit()).filter(|it| !it.is_empty()).count();
    let worded = |it: char| it.is_alphanumeric() || "_-$./: ".contains(it);
    digits >= NAME_DIGITS_MAX || groups > 1 || !name.chars().all(worded)
}

/// A number without its sign, whatever its notation: `1.5e3` and `1500.0` are one.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    /// Its digits, without zeros at either end.
    digits: String,
    /// The power of ten of the last digit.
    exponent: i64,
}

impl Decimal {
    /// Reads the number at the start of `text`, which begins with a digit, and its length in bytes.
    fn begins(text: &str) -> Option<(Self, usize)> {
        let digits = |from: usize| {
            let rest = text.get(from..).unwrap_or_default();
            rest.bytes().take_while(u8::is_ascii_digit).count()
        };
        let whole = digits(0);
        if whole == 0 {
            return None;
        }
        let mut end = whole;
        let mut read = text.get(..whole)?.to_owned();
        let mut exponent = 0_i64;
        if text.get(end..)?.starts_with('.') {
            let after = end.saturating_add(1);
            let fraction = digits(after);
            if fraction > 0 {
                end = after.saturating_add(fraction);
                read.push_str(text.get(after..end)?);
                exponent = exponent.saturating_sub(i64::try_from(fraction).unwrap_or(i64::MAX));
            }
        }
        if text.get(end..)?.starts_with(['e', 'E']) {
            let after = end.saturating_add(1);
            let sign = usize::from(text.get(after..)?.starts_with(['+', '-']));
            let power = digits(after.saturating_add(sign));
            let to = after.saturating_add(sign).saturating_add(power);
            if (1..=EXPONENT_DIGITS_MAX).contains(&power) {
                let power: i64 = text.get(after..to)?.parse().ok()?;
                exponent = exponent.saturating_add(power);
                end = to;
            }
        }
        let significant = read.trim_start_matches('0');
        let trimmed = significant.trim_end_matches('0');
        let zeros = significant.len().saturating_sub(trimmed.len());
        let exponent = exponent.saturating_add(i64::try_from(zeros).unwrap_or(i64::MAX));
        Some((Self { digits: trimmed.to_owned(), exponent }, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_in_each_notation() {
        let read = |text: &str| Decimal::begins(text).unwrap();
        let (number, _) = read("123456789012");
        for text in [
            "123456789012.0",
            "1.23456789012E+11",
            "1.23456789012e11",
            "0.123456789012e12",
            "1234567890120e-1",
            "000123456789012.00",
        ] {
            assert_eq!((&read(text).0, read(text).1), (&number, text.len()), "{text}");
        }
        for text in ["123456789013", "1.23456789012e12", "12345678901.2", "1"] {
            assert_ne!(read(text).0, number, "{text}");
        }
        assert_eq!(read("5. Then").1, 1);
        assert_eq!(read("5.e").1, 1);
        assert_eq!(read("5e").1, 1);
        assert_eq!(read("5e99999").1, 1);
        assert!(Decimal::begins("e5").is_none());
    }

    #[test]
    fn names_of_an_objects_form_are_no_data() {
        for name in [
            "description",
            "createdAt",
            "address_line_1",
            "oauth2Token",
            "content-type",
            "a/b",
            "größe",
        ] {
            assert!(!is_data(name), "{name}");
        }
        for name in ["tok-5f1c-zz-91ab", "alice@example.com", "AKIAQYLPMN5HFIQR7XYA", "20260102"] {
            assert!(is_data(name), "{name}");
        }
    }
}
