//! Characters that a person cannot see, and where they make a definition suspect.
//!
//! There is one table of them, [`table`]; it says what is in it and why. It has three uses:
//!
//! - *Text for people.* [`is_unseen`]: the journal, `bartizan.lock`, a learned policy, and on a
//!   terminal the lines of `audit tail`, errors and the demo escape all characters of the table,
//!   because each of them hides or moves text, ends the line, or makes different texts look alike.
//! - *Names that look alike* (P5, in [`super::frame`]). All characters of the table, and white
//!   space: a reader that trims, stops at a NUL or ignores what it cannot show reads the name as a
//!   known one.
//! - *Flags of a definition*, in this file. A client shows its user a description that the model
//!   reads differently (the threats "tool poisoning" and "shadowing"). [`kind`]: all characters of
//!   the table, except tab and line ends, which format a text, and except characters that a script
//!   or an emoji needs at that position (joiners, one variation selector, the tags of an emoji
//!   flag). A further flag marks a name that imitates another one. Only definitions are checked,
//!   never arguments or answers.

mod table;

use std::collections::HashMap;

use unicode_security::confusable_detection::skeleton;

pub use self::table::is_unseen;
use self::table::{Unseen, kind};
use super::document::{Kind, Value};

/// The flag for invisible characters that neither a script nor an emoji needs at that position.
pub const INVISIBLE: &str = "invisible";
/// The flag for embeddings, overrides and isolates of the writing direction (UAX #9).
pub const BIDI: &str = "bidi";
/// The flag for control characters except tab and line ends; terminal escape sequences begin with
/// one.
pub const CONTROL: &str = "control";
/// The flag for a name that looks the same as another name of the same page (UTS #39).
pub const TWIN: &str = "twin";

/// Returns the flag with this name, if there is one.
pub fn named(name: &str) -> Option<&'static str> {
    [INVISIBLE, BIDI, CONTROL, TWIN].into_iter().find(|flag| *flag == name)
}

/// Returns the flags of a definition, in a fixed order, without duplicates. `is_twin` comes from
/// [`twins`] of its page.
pub fn of(definition: Value<'_>, is_twin: bool) -> Vec<&'static str> {
    let mut found = UnseenFlags::default();
    found.value(definition);
    let UnseenFlags { bidi, control, invisible } = found;
    [(bidi, BIDI), (control, CONTROL), (invisible, INVISIBLE), (is_twin, TWIN)]
        .into_iter()
        .filter_map(|(there, flag)| there.then_some(flag))
        .collect()
}

/// Returns for each of `names` whether it imitates another one: its UTS #39 skeleton equals another
/// name's, and it is not plain ASCII.
pub fn twins(names: &[&str]) -> Vec<bool> {
    if names.iter().all(|name| name.is_ascii()) {
        return vec![false; names.len()];
    }
    let looks: Vec<String> = names.iter().map(|name| skeleton(name).collect()).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for look in &looks {
        let count = counts.entry(look).or_default();
        *count = count.saturating_add(1);
    }
    let is_twin = |look: &String| counts.get(look.as_str()).is_some_and(|count| *count > 1);
    names.iter().zip(&looks).map(|(name, look)| !name.is_ascii() && is_twin(look)).collect()
}

/// Tag characters of one emoji flag at most, CANCEL TAG included (UTS #51).
const FLAG_TAGS_MAX: usize = 6;

#[derive(Default)]
struct UnseenFlags {
    bidi: bool,
    control: bool,
    invisible: bool,
}

impl UnseenFlags {
    /// Checks all texts and names. Recursive; the document's own depth limit bounds it.
    fn value(&mut self, value: Value<'_>) {
        match value.kind() {
            Kind::String => self.text(value.as_str().unwrap_or_default()),
            Kind::Array => value.elements().for_each(|element| self.value(element)),
            Kind::Object => {
                for (name, member) in value.members() {
                    self.value(name);
                    self.value(member);
                }
            }
            Kind::Null | Kind::Bool | Kind::Number => {}
        }
    }

    fn text(&mut self, text: &str) {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')) {
            return;
        }
        let mut before = None;
        let mut chars = text.chars().peekable();
        // The number of tags of the emoji flag that is being read.
        let mut flag: Option<usize> = None;
        while let Some(char) = chars.next() {
            let after = chars.peek().copied();
            match kind(char) {
                Some(Unseen::Control) => self.control |= !matches!(char, '\t' | '\n' | '\r'),
                Some(Unseen::Bidi) => self.bidi = true,
                // The tags of a flag follow a black flag and end with CANCEL TAG (UTS #51).
                Some(Unseen::Invisible) if matches!(char, '\u{e0020}'..='\u{e007f}') => {
                    self.invisible |= flag.is_none_or(|tags| tags >= FLAG_TAGS_MAX);
                }
                Some(Unseen::Invisible) => self.invisible |= !is_needed(char, before, after),
                // A line ends here.
                Some(Unseen::Separator) | None => {}
            }
            flag = match flag {
                Some(_) if char == '\u{e007f}' => None,
                Some(tags) if is_tag(char) => Some(tags.saturating_add(1)),
                Some(_) => {
                    self.invisible = true;
                    None
                }
                None => (char == '\u{1f3f4}' && after.is_some_and(is_tag)).then_some(0),
            };
            before = Some(char);
        }
        self.invisible |= flag.is_some();
    }
}

fn is_tag(char: char) -> bool {
    matches!(char, '\u{e0000}'..='\u{e007f}')
}

/// Whether an invisible character has its proper use at this position.
fn is_needed(char: char, before: Option<char>, after: Option<char>) -> bool {
    let seen = |it: char| !it.is_ascii() && !is_unseen(it);
    let letter = |it: Option<char>| it.is_some_and(|it| it.is_alphabetic() && seen(it));
    let symbol = |it: Option<char>| it.is_some_and(|it| it >= '\u{203c}' && !it.is_alphabetic());
    match char {
        // Joiners: between letters of scripts that join, and inside emoji.
        '\u{200c}' | '\u{200d}' => {
            (letter(before) && letter(after))
                || (symbol(before) && symbol(after))
                || (before == Some('\u{94d}') && letter(after))
        }
        // Marks of direction: beside a letter that is not ASCII.
        '\u{200e}' | '\u{200f}' | '\u{61c}' => letter(before) || letter(after),
        // One selector after a symbol that shows something, or after what makes a keycap.
        '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(|it| {
            let keycap = matches!(it, '0'..='9' | '#' | '*') && after == Some('\u{20e3}');
            let signs = matches!(it, '\u{a9}' | '\u{ae}');
            let drawn = it >= '\u{203c}' && !it.is_alphabetic() && !is_unseen(it);
            keycap || signs || drawn
        }),
        // Joiners and blanks of Egyptian hieroglyphs, the filler of Khitan: beside a letter.
        '\u{13430}'..='\u{1343f}' | '\u{13441}' | '\u{13442}' | '\u{16fe4}' => {
            letter(before) || letter(after)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::document::{Document, DocumentLimits};

    fn flags(text: &str) -> Vec<&'static str> {
        let json = serde_json::json!({"name": "t", "inputSchema": {"properties": {"a": [text]}}});
        let bytes = json.to_string().into_bytes().into();
        of(Document::read(bytes, &DocumentLimits::default()).unwrap().root(), false)
    }

    #[test]
    fn what_cannot_be_seen_is_flagged() {
        let tags: String =
            "do it".chars().map(|it| char::from_u32(0xe0000 + u32::from(it)).unwrap()).collect();
        for (text, expected) in [
            (format!("hello{tags}"), INVISIBLE),
            (format!("\u{1f3f4}{tags}"), INVISIBLE),
            (format!("\u{1f3f4}{tags}{tags}\u{e007f}"), INVISIBLE),
            ("a\u{200b}b".to_owned(), INVISIBLE),
            ("a\u{200d}b".to_owned(), INVISIBLE),
            ("a\u{2060}b".to_owned(), INVISIBLE),
            ("a\u{feff}".to_owned(), INVISIBLE),
            ("a\u{fe0f}b".to_owned(), INVISIBLE),
            ("\u{1f600}\u{fe0f}\u{fe0f}".to_owned(), INVISIBLE),
            ("\u{1f600}\u{e0101}".to_owned(), INVISIBLE),
            ("a\u{3164}b".to_owned(), INVISIBLE),
            ("a\u{200e}b".to_owned(), INVISIBLE),
            ("a\u{2800}b".to_owned(), INVISIBLE),
            ("a\u{fff9}b\u{fffa}c\u{fffb}".to_owned(), INVISIBLE),
            ("a\u{13441}b".to_owned(), INVISIBLE),
            ("\u{13441}\u{13441}".to_owned(), INVISIBLE),
            ("a\u{202e}b".to_owned(), BIDI),
            ("a\u{2066}b\u{2069}".to_owned(), BIDI),
            ("\u{1b}[8mhidden\u{1b}[0m".to_owned(), CONTROL),
            ("\u{9b}8m".to_owned(), CONTROL),
            ("a\u{8}b".to_owned(), CONTROL),
        ] {
            assert_eq!(flags(&text), [expected], "{text:?}");
        }
        assert_eq!(flags("\u{202e}\u{1b}\u{200b}"), [BIDI, CONTROL, INVISIBLE]);
    }

    #[test]
    fn what_people_write_is_not() {
        for text in [
            "Plain, with\ttabs and\r\nlines.",
            "naïve café, 日本語, 한국어, Ελληνικά",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "שלום\u{200f}!",
            "👩\u{200d}👩\u{200d}👧 ❤\u{fe0f} 1\u{fe0f}\u{20e3} ©\u{fe0f} 👍🏽",
            "🏳\u{fe0f}\u{200d}🌈",
            "𓂋\u{13430}𓏤\u{13441}𓊖",
            "One line.\u{2028}Another.\u{2029}A paragraph.",
            "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f} Scotland",
        ] {
            assert!(flags(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn names_that_look_the_same_are_twins() {
        assert_eq!(
            twins(&["delete_flag", "d\u{435}lete_flag", "get_flag", "get-flag"]),
            [false, true, false, false]
        );
        assert_eq!(twins(&["get_l", "get_I", "é", "ü"]), [false; 4]);
    }
}
