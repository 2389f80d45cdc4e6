//! P5: names that differ from a known name but that some reader takes for it.
//!
//! There are readers that ignore case, fold letters beyond ASCII, stop at a NUL, or trim. A name is
//! folded in all these ways and compared. The folded form is only used to refuse, never to match.

use crate::wire::fold::{fold, is_printable};

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
