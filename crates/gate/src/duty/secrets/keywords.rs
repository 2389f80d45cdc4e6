//! Finds which of some hundred short words occur in a text, in any case, in one pass.
//!
//! Nearly every text that is searched for secrets holds none of the words, so what matters is how
//! fast a text is let go. Three neighbouring characters, each as one of 32 classes, are looked up in
//! a set of 4 KiB; only where a word may begin are words compared. The work is linear: a bounded
//! number of words is compared for each byte, whatever the text is.

/// Bits of one class.
const CLASS_BITS: usize = 5;
/// Characters of one group.
const GROUP: usize = 3;
/// The number of groups.
const GROUPS: usize = 1 << (GROUP * CLASS_BITS);
/// Words of the set of groups.
const SET_WORDS: usize = GROUPS / 64;

/// The words, and for each the number that is told where it occurs.
pub(super) struct Keywords {
    /// Which groups may begin a word.
    begins: Box<[u64; SET_WORDS]>,
    /// Words of at least [`GROUP`] characters, in the order of their first group.
    words: Vec<Keyword>,
    /// Shorter words.
    short: Vec<Keyword>,
}

struct Keyword {
    /// The group of its first characters; 0 for a shorter word.
    group: usize,
    /// In lower case, not empty.
    text: Box<[u8]>,
    number: usize,
}

impl Keywords {
    /// Of words in lower-case ASCII, each with its number; `None` if one is empty or is no such word.
    pub(super) fn new(words: impl IntoIterator<Item = (String, usize)>) -> Option<Self> {
        let mut all =
            Self { begins: Box::new([0; SET_WORDS]), words: Vec::new(), short: Vec::new() };
        for (word, number) in words {
            let lower = word.is_ascii() && word.bytes().all(|byte| !byte.is_ascii_uppercase());
            if word.is_empty() || !lower {
                return None;
            }
            let text: Box<[u8]> = word.into_bytes().into();
            // What follows a shorter word may be anything.
            let free = GROUP.saturating_sub(text.len()).saturating_mul(CLASS_BITS);
            let group = text.iter().take(GROUP).fold(0, |group, byte| after(group, *byte)) << free;
            for group in (group..GROUPS).take(1 << free) {
                if let Some(bits) = all.begins.get_mut(group / 64) {
                    *bits |= 1 << (group % 64);
                }
            }
            let long = text.len() >= GROUP;
            let group = if long { group } else { 0 };
            if long { &mut all.words } else { &mut all.short }.push(Keyword {
                group,
                text,
                number,
            });
        }
        all.words.sort_by_key(|word| word.group);
        Some(all)
    }

    /// Calls `found` with the number of each word that occurs in `text`, once or more often.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(usize)) {
        for (start, [one, two, three]) in text.array_windows().enumerate() {
            let group = after(after(class(*one), *two), *three);
            if self.may_begin(group) {
                self.begin(group, text.get(start..).unwrap_or_default(), &mut found);
            }
        }
        // A short word may stand at the end.
        for start in text.len().saturating_sub(GROUP.saturating_sub(1))..text.len() {
            let rest = text.get(start..).unwrap_or_default();
            let padded = rest.iter().copied().chain([0; GROUP]).take(GROUP);
            if self.may_begin(padded.fold(0, after)) {
                short(&self.short, rest, &mut found);
            }
        }
    }

    fn may_begin(&self, group: usize) -> bool {
        self.begins.get(group / 64).is_some_and(|bits| bits >> (group % 64) & 1 != 0)
    }

    /// Tells of the words with which `rest` begins; its first characters are of `group`.
    #[cold]
    fn begin(&self, group: usize, rest: &[u8], found: &mut impl FnMut(usize)) {
        let from = self.words.partition_point(|word| word.group < group);
        let words = self.words.get(from..).unwrap_or_default();
        let words = words.iter().take_while(|word| word.group == group);
        words.filter(|word| word.begins(rest)).for_each(|word| found(word.number));
        short(&self.short, rest, found);
    }
}

fn short(words: &[Keyword], rest: &[u8], found: &mut impl FnMut(usize)) {
    words.iter().filter(|word| word.begins(rest)).for_each(|word| found(word.number));
}

impl Keyword {
    fn begins(&self, rest: &[u8]) -> bool {
        rest.get(..self.text.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.text))
    }
}

/// The classes of `group`, then that of `byte`.
fn after(group: usize, byte: u8) -> usize {
    group << CLASS_BITS | class(byte)
}

/// The class of a byte.
fn class(byte: u8) -> usize {
    #[expect(clippy::indexing_slicing, reason = "every byte has a class")]
    usize::from(CLASSES[usize::from(byte)])
}

/// The class of each byte. Both cases of a letter have one class.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let class = match byte {
            b'a'..=b'z' => byte - b'a' + 1,
            b'A'..=b'Z' => byte - b'A' + 1,
            b'0'..=b'9' => 27,
            b'-' => 28,
            b'_' => 29,
            b'.' => 30,
            b':' | b'~' | b'<' | b'=' => 31,
            _ => 0,
        };
        #[expect(clippy::indexing_slicing, clippy::as_conversions, reason = "below 128")]
        {
            classes[byte as usize] = class;
        }
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn found(words: &[&str], text: &str) -> BTreeSet<usize> {
        let words = words.iter().enumerate().map(|(at, word)| ((*word).to_owned(), at));
        let mut found = BTreeSet::new();
        Keywords::new(words).unwrap().find(text.as_bytes(), |number| {
            found.insert(number);
        });
        found
    }

    #[test]
    fn the_words_that_occur_are_found_wherever_they_stand() {
        let words = [":", "ey", "sk", "q~", "s.", "api", "key", "akia", "api_key", "a b c", "key"];
        let seen = |text: &str| {
            let lower = text.to_ascii_lowercase();
            let occurs = words.iter().enumerate().filter(|(_, word)| lower.contains(**word));
            occurs.map(|(at, _)| at).collect::<BTreeSet<_>>()
        };
        let pieces = ["", "a", "x", " ", "é", ":", "s", ".", "~", "0", "K", "\0", "\u{212a}"];
        for word in words.iter().copied().chain(pieces) {
            for before in words.iter().copied().chain(pieces) {
                for after in pieces {
                    for text in [
                        format!("{before}{word}{after}"),
                        format!("{before}{word}{after}").to_ascii_uppercase(),
                        format!("{after}{before}{after}{word}"),
                    ] {
                        assert_eq!(found(&words, &text), seen(&text), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_words_in_lower_case_are_taken() {
        for bad in ["", "Key", "é"] {
            assert!(Keywords::new([(bad.to_owned(), 0)]).is_none(), "{bad:?}");
        }
    }
}
