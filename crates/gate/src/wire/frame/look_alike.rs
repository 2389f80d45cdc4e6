//! P5: names that differ from a known name but that some reader takes for it.
//!
//! There are readers that ignore case, fold letters beyond ASCII, stop at a NUL, or trim. A name is
//! folded in all these ways and compared. The folded form is only used to refuse, never to match.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::wire::fold::{fold, is_printable};

/// Names that somebody compares byte for byte: a rule of the policy, a duty, a pack. It tells which
/// other names some reader takes for one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNames {
    /// The folded form of each name, and whether that form is itself a known name.
    folded: BTreeMap<Box<str>, bool>,
    /// The names that differ from their folded form.
    others: BTreeSet<Box<str>>,
    /// Most characters of a folded form.
    chars_max: usize,
}

impl KnownNames {
    /// No names.
    pub const NONE: Self = Self { folded: BTreeMap::new(), others: BTreeSet::new(), chars_max: 0 };

    /// Adds a name. One that folds to nothing is left out: no reader takes another name for it.
    pub fn insert(&mut self, name: &str) {
        let Some(folded) = fold(name, usize::MAX).filter(|folded| !folded.is_empty()) else {
            return;
        };
        self.chars_max = self.chars_max.max(folded.chars().count());
        if *folded == *name {
            self.folded.insert(folded.into(), true);
        } else {
            self.folded.entry(folded.into()).or_insert(false);
            self.others.insert(name.into());
        }
    }

    /// Whether `name` is none of the names, but the same as one of them to some reader. The work is
    /// bounded by the longest known name, except for one look at each character.
    pub fn imitated_by(&self, name: &str) -> bool {
        let folded = if !is_printable(name) {
            fold(name, self.chars_max).map(Cow::Owned)
        } else if name.len() > self.chars_max {
            None
        } else if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Some(Cow::Owned(name.to_ascii_lowercase()))
        } else {
            Some(Cow::Borrowed(name))
        };
        let Some(folded) = folded else { return false };
        match self.folded.get(&*folded) {
            Some(true) if *folded == *name => false,
            Some(_) => !self.others.contains(name),
            None => false,
        }
    }
}

impl<'a> FromIterator<&'a str> for KnownNames {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut known = Self::NONE;
        names.into_iter().for_each(|name| known.insert(name));
        known
    }
}

/// Whether `name` is not one of `known` (ASCII) but folds to one of them.
pub fn is_look_alike(name: &str, known: &[&str]) -> bool {
    if is_printable(name) {
        // Most names are printable ASCII: only their case can be folded.
        return known.iter().any(|known| name.eq_ignore_ascii_case(known) && name != *known);
    }
    let longest = known.iter().map(|known| known.len()).max().unwrap_or(0);
    let Some(folded) = fold(name, longest) else { return false };
    known.iter().any(|known| folded.eq_ignore_ascii_case(known) && name != *known)
}

/// Whether `name` is none of `known` (ASCII, in camel case), but a look-alike of one of them, or the
/// same name written with `_` or `-` between its words. Libraries that name members in snake case
/// often read both spellings.
pub fn is_other_spelling(name: &str, known: &[&str]) -> bool {
    const BETWEEN_WORDS: [char; 2] = ['_', '-'];
    if is_look_alike(name, known) {
        return true;
    }
    if !name.contains(BETWEEN_WORDS) || known.contains(&name) {
        return false;
    }
    if is_printable(name) {
        // Most names are printable ASCII: only their case can be folded.
        let letters = || name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
        let lower = |known: &&str| {
            let known = known.bytes().map(|byte| byte.to_ascii_lowercase());
            letters().map(|byte| byte.to_ascii_lowercase()).eq(known)
        };
        return known.iter().any(lower);
    }
    let joined = name.replace(BETWEEN_WORDS, "");
    known.contains(&&*joined) || is_look_alike(&joined, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_are_told_from_the_known_and_the_unlike() {
        let known = ["params", "taskId", "uri"];
        for name in [
            "Params",
            "PARAMS",
            "param\u{17f}",
            "params\0",
            "\0params",
            "pa\0rams",
            " params",
            "params\t",
            "par ams",
            "params\u{a0}",
            "params\u{200b}",
            "pa\u{ad}rams",
            "params\u{fe0f}",
            "params\u{2800}",
            "params\u{e0061}",
            "ｐａｒａｍｓ",
            "𝐩𝐚𝐫𝐚𝐦𝐬",
            "tas\u{212a}Id",
            "taskid",
            "taskId\0",
            "tasKId",
            "tas\u{212a}\u{131}d",
            "ur\u{131}",
        ] {
            assert!(is_look_alike(name, &known), "{name:?}");
        }
        for name in [
            "params",
            "taskId",
            "uri",
            "",
            "param",
            "paramss",
            "task_id",
            "uris",
            "p\u{430}rams",
            "param\u{e9}",
            "url",
            "\0",
            " ",
        ] {
            assert!(!is_look_alike(name, &known), "{name:?}");
        }
    }

    #[test]
    fn a_name_in_snake_case_is_another_spelling() {
        let known = ["structuredContent", "content"];
        for name in [
            "structured_content",
            "structured-content",
            "Structured_Content",
            "STRUCTURED_CONTENT",
            "structured_\u{200b}content",
            "structuredcontent",
            "Content",
            "con_tent",
        ] {
            assert!(is_other_spelling(name, &known), "{name:?}");
        }
        for name in ["structuredContent", "content", "structured_contents", "content_type", "_", ""]
        {
            assert!(!is_other_spelling(name, &known), "{name:?}");
        }
    }

    #[test]
    fn a_name_that_is_known_imitates_no_other_one() {
        let known: KnownNames = ["key", "Key", "straße", "é", " "].into_iter().collect();
        for name in ["key", "Key", "straße", "é", "", " ", "\0", "keys", "e", "stra", "\u{200b}"]
        {
            assert!(!known.imitated_by(name), "{name:?}");
        }
        for name in [
            "KEY",
            "key\0",
            "\u{212a}ey",
            "\u{ff4b}ey",
            "k\u{200b}ey",
            "k\u{e0065}ey",
            "STRASSE",
            "e\u{301}",
            "E\u{301}",
            "É",
            "str\u{ad}aſſe",
        ] {
            assert!(known.imitated_by(name), "{name:?}");
        }
        assert!(!KnownNames::NONE.imitated_by("key"));
        assert!(!known.imitated_by(&("key".to_owned() + &"\u{fdfa}".repeat(1 << 20))));
    }

    #[test]
    fn a_long_name_is_given_up_before_it_is_normalised() {
        assert_eq!(fold(&("name".to_owned() + &"\u{301}".repeat(1 << 20)), 15), None);
        assert_eq!(fold(&("\u{200b}".repeat(1 << 20) + "Name"), 15).as_deref(), Some("name"));
    }
}
