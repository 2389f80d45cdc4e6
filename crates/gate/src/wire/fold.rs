//! The folded form of a name: what readers that ignore case, fold letters beyond ASCII, trim, or
//! stop at a NUL make of it. It is used to refuse look-alikes (P5), never to match.
//!
//! A name may be megabytes long, and one character may become 18 (U+FDFA), so the work has a bound
//! before it begins: folding stops once the result is longer than the name that it is compared
//! with.

use unicode_normalization::UnicodeNormalization;

use super::unseen::is_unseen;
use crate::steps;

/// Characters that compose to one at most (canonical composition, UAX #15): a Greek letter with
/// three marks.
const COMPOSED_MAX: usize = 4;

/// The mark that the full lower case of `İ` has behind its `i`. Readers that map one character to
/// one (UnicodeData.txt, `Simple_Lowercase_Mapping`) leave it out.
const DOT_ABOVE: char = '\u{307}';

/// Returns the folded form of `name`; `None` if it is longer than `chars_max` characters.
///
/// Takes a step for each character that is stripped, and at most about `8 * chars_max` for the rest,
/// whatever the length of the name and whatever its characters expand to.
pub(crate) fn fold(name: &str, chars_max: usize) -> Option<String> {
    // Each visible character yields at least one, except where several compose. More than this many
    // cannot fold to `chars_max`, and a run of marks is not normalised further than that.
    let enough = chars_max.saturating_mul(COMPOSED_MAX).saturating_add(1);
    let visible = name.chars().inspect(|_| steps::count()).filter(|char| !is_stripped(*char));
    // Convert to upper case first: `ı` and `ſ` are lower case and have an ASCII upper case.
    let folded = visible
        .take(enough)
        .nfkc()
        .inspect(|_| steps::count())
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .filter(|char| !is_stripped(*char) && *char != DOT_ABOVE);
    let mut text = String::new();
    for (before, char) in folded.enumerate() {
        if before >= chars_max {
            return None;
        }
        text.push(char);
    }
    Some(text)
}

/// Whether `member` differs from `name` in its bytes but folds to the same text.
pub(crate) fn is_alias(member: &str, name: &str) -> bool {
    if member == name {
        return false;
    }
    if is_printable(member) && is_printable(name) {
        // Most names are printable ASCII: only their case can be folded.
        return member.eq_ignore_ascii_case(name);
    }
    let Some(folded) = fold(name, usize::MAX) else { return false };
    fold(member, folded.chars().count()).is_some_and(|member| member == folded)
}

/// Whether a text is printable ASCII without spaces.
pub(crate) fn is_printable(text: &str) -> bool {
    text.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Whether a character is white space or invisible. Some readers remove
/// `Default_Ignorable_Code_Point` (NFKC casefolding), others trim white space or stop at a NUL; all
/// of these are stripped here.
fn is_stripped(char: char) -> bool {
    char.is_whitespace() || is_unseen(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_folds_to_the_same_text() {
        for (member, name, alias) in [
            ("Environment", "environment", true),
            ("environment\0", "environment", true),
            ("ｅnvironment", "environment", true),
            ("environment\u{200b}", "environment", true),
            ("environmen", "environment", false),
            ("environment", "environment", false),
            ("E\u{301}tat", "\u{e9}tat", true),
            ("\u{1f82}", "\u{3b1}\u{313}\u{300}\u{345}", true),
            ("\u{3b1}\u{313}\u{300}\u{345}", "\u{1f82}", true),
            ("STRASSE", "stra\u{df}e", true),
            ("env\u{130}ronment", "environment", true),
            ("envi\u{307}ronment", "environment", true),
            ("ENV\u{131}RONMENT", "environment", true),
        ] {
            assert_eq!(is_alias(member, name), alias, "{member:?} {name:?}");
        }
    }

    #[test]
    fn the_work_is_bounded_before_it_begins() {
        const CHARS: usize = 1 << 20;
        let name = "environment";
        for long in ["\u{fdfa}", "\u{301}", "e\u{301}", "\u{1100}\u{1161}\u{11a8}", "\u{fb03}"] {
            let long = long.repeat(CHARS);
            let (steps, alias) = steps::of(|| is_alias(&long, name));
            assert!(!alias && steps < 200, "{steps} steps for {} bytes", long.len());
            let after_name = name.to_owned() + &long;
            let (steps, alias) = steps::of(|| is_alias(&after_name, name));
            assert!(!alias && steps < 200, "{steps} steps for {} bytes", after_name.len());
        }
        // What is stripped must be read, once.
        let (steps, alias) =
            steps::of(|| is_alias(&("\u{200b}".repeat(CHARS) + "Environment"), name));
        assert!(alias && steps < CHARS + 200, "{steps} steps");
    }

    #[test]
    fn many_names_that_expand_cost_a_few_steps_each() {
        const NAMES: usize = 30_000;
        let name = "\u{fdfa}".repeat(40);
        let (steps, _) =
            steps::of(|| (0..NAMES).filter(|_| is_alias(&name, "environment")).count());
        assert!(steps < NAMES * 100, "{steps} steps");
    }
}
