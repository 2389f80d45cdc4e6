//! Slash-separated paths in arguments: only those that every reader resolves to the same place.
//!
//! A server may hand a path to a file system, a URL parser, a shell or a JSON Pointer. Each of them
//! has spellings of its own for a separator or for "one level up". Nothing is resolved here: a path
//! in which one of these could do something is not read at all (threats E11, H7).

use unicode_normalization::is_nfkc;

use crate::wire::unseen::is_unseen;

/// Characters that some reader takes for a separator, or for the end of a path or of a segment:
/// backslashes, escapes and what begins a query, a fragment or parameters in a URL.
const CUTS: [char; 5] = ['\\', '%', '?', '#', ';'];

/// Whether decoded text has a character that some reader takes for another one, for a slash or for
/// nothing: it is not in the form NFKC, cannot be seen, is white space of another width than U+0020,
/// or looks like a slash.
pub(super) fn is_doubtful(text: &str) -> bool {
    // NFKC keeps these slashes; it turns full-width ones into ASCII.
    let slash = |c: char| matches!(c, '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{2571}');
    let doubtful = |c: char| is_unseen(c) || slash(c) || (c.is_whitespace() && c != ' ');
    text.contains(doubtful) || !is_nfkc(text)
}

/// Returns the segments of a path, which may begin with one slash. `None` if a segment is empty (so
/// also for a repeated or trailing separator), consists of dots, begins or ends with white space,
/// ends with a dot, or has a character that is a separator, an end or nothing to some reader, or
/// that is not in the form NFKC.
pub(super) fn segments(path: &str) -> Option<impl Iterator<Item = &str>> {
    let below_root = path.strip_prefix('/').unwrap_or(path);
    below_root.split('/').all(is_normal).then(|| below_root.split('/'))
}

/// Whether a segment means itself to every reader.
fn is_normal(segment: &str) -> bool {
    // Windows drops dots and spaces at the end of a name; `.` and `..` end with a dot, too.
    !segment.is_empty()
        && !segment.ends_with('.')
        && segment.trim() == segment
        && !segment.contains(CUTS)
        && !is_doubtful(segment)
}

/// Whether a segment has only letters, digits and marks of ASCII that no reader changes; a pack's own
/// paths consist of such segments.
pub(super) fn is_plain_segment(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+=,:-".contains(&byte);
    is_normal(segment) && segment.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_mean_themselves_have_segments() {
        for path in ["a", "/a", "a/b", "/a/b.c/..d", "a/日本", "a/b c", "a/~1", "a/é"] {
            assert!(segments(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "//a",
            "a//b",
            "a/",
            "a/.",
            "a/..",
            "../a",
            "a/../b",
            "./a",
            "a/...",
            "a/b.",
            "a/b /c",
            " a",
            "a\t/b",
            "a\\b",
            "a%2fb",
            "a/%2e%2e/b",
            "a/%252e/b",
            "a?b",
            "a#b",
            "a;b/c",
            "a\0",
            "a/b\n",
            "a\u{2215}b",
            "a\u{2044}b",
            "a\u{ff0f}b",
            "a/\u{ff0e}\u{ff0e}/b",
            "a/e\u{301}",
            "a/\u{2024}\u{2024}/b",
            "a/b\u{200b}",
            "a/\u{2025}/b",
            "a\u{29f8}b",
            "a\u{202e}b",
        ] {
            assert!(segments(path).is_none(), "{path:?}");
        }
        assert!(is_plain_segment("environments") && !is_plain_segment("a b"));
    }
}
