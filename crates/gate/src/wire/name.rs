//! P10: names and ids that every reader reads as the same text.
//!
//! Tools, prompts, methods and tasks are looked up by these texts, in rules, packs, locks and the
//! server, and a person reads them in a record. A text that some reader trims, folds, cuts or cannot
//! show is refused before anybody compares it. `session` calls [`bad_name`] for each request and
//! notification, of either side.

use unicode_normalization::is_nfkc;

use super::document::{Kind, Value};
use super::fold::is_alias;
use super::method::Method;
use super::unseen::is_unseen;

/// Longest name of a method, tool, prompt, argument of a completion, or level, bytes. MCP recommends
/// 128 characters for tools (2025-11-25, server/tools, "Tool Names").
pub const NAME_BYTES_MAX: usize = 256;
/// Longest id of a task, bytes.
pub const TASK_ID_BYTES_MAX: usize = 1024;

/// Whether `text` is a name that all readers read alike: 1 to `bytes_max` bytes; no control, bidi or
/// invisible character (`unseen`); no white space but single or repeated U+0020 between other
/// characters; and in the form NFKC, which refuses full-width letters, ligatures, and letters with
/// combining marks that have a precomposed form. Letters of any script and of either case pass.
pub fn is_good(text: &str, bytes_max: usize) -> bool {
    if text.is_empty() || text.len() > bytes_max {
        return false;
    }
    let edges_seen = !text.starts_with(' ') && !text.ends_with(' ');
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return edges_seen;
    }
    let hidden = |c: char| is_unseen(c) || (c.is_whitespace() && c != ' ');
    edges_seen && !text.chars().any(hidden) && is_nfkc(text)
}

/// Returns which text of a request or notification is no good name: `method`, or the member of
/// `params` that holds it. A method that some reader takes for one of MCP is none either (P9:
/// `Tools/Call`). `row` is the method's row in any revision; for a method without one nothing says
/// which members are names.
pub fn bad_name(
    method: &str,
    row: Option<&Method>,
    params: Option<Value<'_>>,
) -> Option<&'static str> {
    let imitates = || Method::all().any(|known| is_alias(method, known.name));
    if !is_good(method, NAME_BYTES_MAX) || (row.is_none() && imitates()) {
        return Some("method");
    }
    let (Some(_), Some(params)) = (row, params) else { return None };
    let bad = |value: Option<Value<'_>>, bytes_max| {
        value.and_then(Value::as_str).is_some_and(|text| !is_good(text, bytes_max))
    };
    let below = |outer, inner| params.get(outer).and_then(|value| value.get(inner));
    let names = [
        ("name", params.get("name")),
        ("level", params.get("level")),
        ("ref", below("ref", "type")),
        ("ref", below("ref", "name")),
        ("argument", below("argument", "name")),
    ];
    if let Some((member, _)) = names.into_iter().find(|(_, name)| bad(*name, NAME_BYTES_MAX)) {
        return Some(member);
    }
    if bad(params.get("taskId"), TASK_ID_BYTES_MAX) {
        return Some("taskId");
    }
    let tasks = below("notifications", "taskIds").filter(|ids| ids.kind() == Kind::Array);
    let mut tasks = tasks.into_iter().flat_map(Value::elements);
    tasks.any(|id| bad(Some(id), TASK_ID_BYTES_MAX)).then_some("notifications")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_every_reader_sees() {
        for name in ["get_flag", "a", "Search docs", "日本語", "é", "tools/call", "x.y-z:1", "Код"]
        {
            assert!(is_good(name, NAME_BYTES_MAX), "{name:?}");
        }
        for name in [
            "",
            " ",
            " a",
            "a ",
            "a\0",
            "a\tb",
            "a\n",
            "\u{7f}a",
            "a\u{85}",
            "a\u{a0}b",
            "a\u{3000}b",
            "a\u{2028}b",
            "a\u{200b}",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{e0061}",
            "a\u{fe0f}",
            "a\u{feff}",
            "\u{ff47}et_flag",
            "e\u{301}",
            "\u{fb01}le",
            "\u{212a}",
            "a\u{2800}",
        ] {
            assert!(!is_good(name, NAME_BYTES_MAX), "{name:?}");
        }
        assert_eq!(bad_name("tools/call", Method::named("tools/call"), None), None);
        assert_eq!(bad_name("vendor/run", None, None), None);
        assert_eq!(bad_name("Tools/Call", None, None), Some("method"));
        assert!(is_good(&"a".repeat(NAME_BYTES_MAX), NAME_BYTES_MAX));
        assert!(!is_good(&"a".repeat(NAME_BYTES_MAX + 1), NAME_BYTES_MAX));
    }
}
