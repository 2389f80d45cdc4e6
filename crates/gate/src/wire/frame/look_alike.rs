//! Rule P5: names that are not a known one but that some reader takes for it.
//!
//! Readers have been seen to ignore case, to fold letters beyond ASCII, to stop at a NUL and to
//! trim. A name is folded in all these ways at once and compared; nothing is ever matched by its
//! folded form, only refused.

use unicode_normalization::UnicodeNormalization;

use crate::wire::unseen::is_unseen;

/// Whether `name` is not among `known`, which are ASCII, yet folds to one of them.
pub fn is_look_alike(name: &str, known: &[&str]) -> bool {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        // Most names end here: nothing to strip, nothing to fold but case.
        return known.iter().any(|known| name.eq_ignore_ascii_case(known) && name != *known);
    }
    let longest = known.iter().map(|known| known.len()).max().unwrap_or(0);
    let Some(folded) = fold(name, longest) else { return false };
    known.iter().any(|known| folded.eq_ignore_ascii_case(known) && name != *known)
}

/// The folded form, if it can be as short as `chars_max`. Each character that is not stripped
/// leaves at least one, so the count is known before the work of normalising, which is thereby
/// bounded: a name may be megabytes of combining marks.
fn fold(name: &str, chars_max: usize) -> Option<String> {
    let mut visible = name.chars().filter(|char| !is_stripped(*char));
    let start: String = visible.by_ref().take(chars_max).collect();
    if visible.next().is_some() {
        return None;
    }
    // Upper case first: `ı` and `ſ` have an ASCII upper case but are lower case already.
    let folded = start.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    Some(folded.filter(|char| !is_stripped(*char)).collect())
}

/// White space and all that cannot be seen. NFKC casefolding removes a part of it
/// (`Default_Ignorable_Code_Point`), readers that trim or stop at a NUL another one.
fn is_stripped(char: char) -> bool {
    char.is_whitespace() || is_unseen(char)
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
    fn a_long_name_is_given_up_before_it_is_normalised() {
        assert_eq!(fold(&("name".to_owned() + &"\u{301}".repeat(1 << 20)), 15), None);
        assert_eq!(fold(&("\u{200b}".repeat(1 << 20) + "Name"), 15).as_deref(), Some("name"));
    }
}
