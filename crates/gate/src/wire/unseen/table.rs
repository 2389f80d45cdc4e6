//! The table of characters that a person cannot see.
//!
//! It is derived from the Unicode Character Database (UAX #44). The lines that it is derived from
//! stand in `ucd.txt` beside this file, and the tests derive it again from there and,
//! independently, from the tables of the crate `regex`. In the table is
//!
//! - `Default_Ignorable_Code_Point`: what a reader of text shows as nothing if it does not support
//!   it. Zero-width characters, joiners, the soft hyphen, the Hangul fillers, variation selectors,
//!   tag characters, marks of direction, and the code points that are reserved for more of them.
//! - `General_Category` Cc (controls: a terminal obeys them) and Zl and Zp (a line ends there).
//! - `General_Category` Cf (format characters), but not `Prepended_Concatenation_Mark`: these have
//!   a shape, for instance the Arabic number sign. Cf adds the interlinear annotation characters
//!   and the joiners of Egyptian hieroglyphs to what is default ignorable.
//! - Letters, marks and symbols whose shape is empty, which no property says: the blank of Braille
//!   (U+2800), the blanks of Egyptian hieroglyphs (U+13441, U+13442), the filler of Khitan
//!   (U+16FE4) and the null notehead (U+1D159).
//!
//! Not in the table are spaces (Zs): a person sees a space, of whatever width. Nor are private-use,
//! unassigned and non-characters: a person sees a box.

use std::cmp::Ordering;

use self::Unseen::{Bidi, Control, Invisible, Separator};

/// Why a character cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    /// A control character (`General_Category` Cc), tab and line ends among them.
    Control,
    /// A line or paragraph separator (Zl, Zp).
    Separator,
    /// An embedding, override or isolate of the writing direction, or its end (UAX #9, section 2):
    /// what stands after it is shown in another place. The marks of direction, which are letters
    /// without a shape, are [`Unseen::Invisible`].
    Bidi,
    /// It shows nothing, or a blank.
    Invisible,
}

/// The first and the last character of each range, in ascending order. The ranges do not overlap.
const RANGES: &[(char, char, Unseen)] = &[
    ('\u{0}', '\u{1f}', Control),
    ('\u{7f}', '\u{9f}', Control),
    ('\u{ad}', '\u{ad}', Invisible),
    ('\u{34f}', '\u{34f}', Invisible),
    ('\u{61c}', '\u{61c}', Invisible),
    ('\u{115f}', '\u{1160}', Invisible),
    ('\u{17b4}', '\u{17b5}', Invisible),
    ('\u{180b}', '\u{180f}', Invisible),
    ('\u{200b}', '\u{200f}', Invisible),
    ('\u{2028}', '\u{2029}', Separator),
    ('\u{202a}', '\u{202e}', Bidi),
    ('\u{2060}', '\u{2065}', Invisible),
    ('\u{2066}', '\u{2069}', Bidi),
    ('\u{206a}', '\u{206f}', Invisible),
    ('\u{2800}', '\u{2800}', Invisible),
    ('\u{3164}', '\u{3164}', Invisible),
    ('\u{fe00}', '\u{fe0f}', Invisible),
    ('\u{feff}', '\u{feff}', Invisible),
    ('\u{ffa0}', '\u{ffa0}', Invisible),
    ('\u{fff0}', '\u{fffb}', Invisible),
    ('\u{13430}', '\u{1343f}', Invisible),
    ('\u{13441}', '\u{13442}', Invisible),
    ('\u{16fe4}', '\u{16fe4}', Invisible),
    ('\u{1bca0}', '\u{1bca3}', Invisible),
    ('\u{1d159}', '\u{1d159}', Invisible),
    ('\u{1d173}', '\u{1d17a}', Invisible),
    ('\u{e0000}', '\u{e0fff}', Invisible),
];

/// Why `char` cannot be seen; nothing if it can.
pub(super) fn kind(char: char) -> Option<Unseen> {
    if matches!(char, ' '..='~') {
        return None;
    }
    let found = RANGES.binary_search_by(|(first, last, _)| {
        if *last < char {
            Ordering::Less
        } else if *first > char {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    });
    found.ok().and_then(|index| RANGES.get(index)).map(|(_, _, kind)| *kind)
}

/// Whether `char` cannot be seen. Such a character is not written as itself to a terminal, a log,
/// the journal or a lock: it could steer the terminal, end the line, or make two texts look alike
/// that differ.
pub fn is_unseen(char: char) -> bool {
    kind(char).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use regex::Regex;

    /// What the module's documentation names.
    const BLANKS: [char; 5] = [
        '\u{2800}',  // BRAILLE PATTERN BLANK
        '\u{13441}', // EGYPTIAN HIEROGLYPH FULL BLANK
        '\u{13442}', // EGYPTIAN HIEROGLYPH HALF BLANK
        '\u{16fe4}', // KHITAN SMALL SCRIPT FILLER
        '\u{1d159}', // MUSICAL SYMBOL NULL NOTEHEAD
    ];

    /// `Bidi_Control` that moves nothing: ARABIC LETTER MARK, LEFT-TO-RIGHT MARK and
    /// RIGHT-TO-LEFT MARK (UAX #9, section 2.6).
    const MARKS: [char; 3] = ['\u{61c}', '\u{200e}', '\u{200f}'];

    /// The characters that have a property.
    type HaveProperty<'a> = &'a dyn Fn(&str) -> BTreeSet<char>;

    /// The table as the module's documentation describes it.
    fn derived(have: HaveProperty<'_>, blanks: &BTreeSet<char>) -> Vec<(char, char, Unseen)> {
        let controls = have("Cc");
        let separators = &have("Zl") | &have("Zp");
        let mut bidi = have("Bidi_Control");
        bidi.retain(|char| !MARKS.contains(char));
        let shaped = have("Prepended_Concatenation_Mark");
        let mut format = have("Cf");
        format.retain(|char| !shaped.contains(char));
        let invisible = &(&have("Default_Ignorable_Code_Point") | &format) | blanks;
        let mut ranges: Vec<(char, char, Unseen)> = Vec::new();
        for char in '\0'..=char::MAX {
            let kind = match char {
                _ if controls.contains(&char) => Control,
                _ if separators.contains(&char) => Separator,
                _ if bidi.contains(&char) => Bidi,
                _ if invisible.contains(&char) => Invisible,
                _ => continue,
            };
            match ranges.last_mut() {
                Some((_, last, of)) if *of == kind && (*last..=char).nth(1) == Some(char) => {
                    *last = char;
                }
                _ => ranges.push((char, char, kind)),
            }
        }
        ranges
    }

    fn assert_is_table(derived: &[(char, char, Unseen)]) {
        let mut rows = String::new();
        for (first, last, kind) in derived {
            let (first, last) = (first.escape_unicode(), last.escape_unicode());
            writeln!(rows, "    ('{first}', '{last}', {kind:?}),").unwrap();
        }
        assert!(derived == RANGES, "`RANGES` is not what Unicode says; it should be:\n{rows}");
    }

    #[test]
    fn the_table_is_what_the_unicode_character_database_says() {
        let text = include_str!("ucd.txt");
        let lines = || text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let code = |text: &str| char::from_u32(u32::from_str_radix(text, 16).unwrap()).unwrap();
        let have = |property: &str| -> BTreeSet<char> {
            let mut found = BTreeSet::new();
            for line in lines().filter(|line| line.contains('#')) {
                let (codes, rest) = line.split_once(';').unwrap();
                if rest.split_once('#').unwrap().0.trim() == property {
                    let codes = codes.trim();
                    let (first, last) = codes.split_once("..").unwrap_or((codes, codes));
                    found.extend(code(first)..=code(last));
                }
            }
            assert!(!found.is_empty(), "{property} is not in the extract");
            found
        };
        // Of `UnicodeData.txt` only the blanks are in the extract.
        let blanks: BTreeSet<char> = lines()
            .filter(|line| !line.contains('#'))
            .map(|line| code(line.split(';').next().unwrap()))
            .collect();
        assert_eq!(blanks, BLANKS.into());
        assert_is_table(&derived(&have, &blanks));
    }

    #[test]
    fn the_table_is_what_another_copy_of_the_database_says() {
        let all: String = ('\0'..=char::MAX).collect();
        let have = |property: &str| -> BTreeSet<char> {
            let matching = Regex::new(&format!(r"\p{{{property}}}")).unwrap();
            matching.find_iter(&all).filter_map(|found| found.as_str().chars().next()).collect()
        };
        assert_is_table(&derived(&have, &BLANKS.into()));
    }

    #[test]
    fn a_character_is_looked_up_in_the_table() {
        for char in '\0'..=char::MAX {
            let row = RANGES.iter().find(|(first, last, _)| (*first..=*last).contains(&char));
            assert_eq!(kind(char), row.map(|(_, _, kind)| *kind), "{char:?}");
            assert_eq!(is_unseen(char), row.is_some(), "{char:?}");
        }
    }
}
