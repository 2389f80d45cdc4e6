//! Fences of a Markdown document, and what is inside: words of a command, lines that it printed.

/// One fenced block.
#[derive(Debug)]
pub(crate) struct Fence {
    /// Page and line, for messages.
    pub(crate) place: String,
    /// The info string without `file=`.
    pub(crate) language: String,
    /// The file that it is to be written to.
    pub(crate) file: Option<String>,
    /// What is inside.
    pub(crate) body: String,
}

/// All fences of `text`, the page `page`.
pub(crate) fn fences(page: &str, text: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut open: Option<Fence> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(fence), None) => {
                fence.body.push_str(line);
                fence.body.push('\n');
            }
            (Some(_), Some("")) => fences.extend(open.take()),
            (None, Some(info)) if !info.is_empty() => {
                let (files, language): (Vec<&str>, Vec<&str>) =
                    info.split(' ').partition(|word| word.starts_with("file="));
                open = Some(Fence {
                    place: format!("{page}:{}", index + 1),
                    language: language.join(" "),
                    file: files.first().map(|file| file["file=".len()..].to_owned()),
                    body: String::new(),
                });
            }
            (None, None) => {}
            (_, Some(_)) => panic!("{page}:{}: a stray fence", index + 1),
        }
    }
    assert!(open.is_none(), "{page}: a fence is not closed");
    fences
}

/// The commands of an `sh` fence: one a line, `\` joins lines, ` # ` begins a comment.
pub(super) fn commands(body: &str) -> Vec<String> {
    let joined = body.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.split(" # ").next());
    lines.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The words of one command, as a shell splits them; quotes are kept apart from nothing else.
pub(super) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "an open quote: {command}");
    words.extend(word);
    words
}

/// Whether `printed` is what `expected` shows. A line `…` stands for any lines, `…` in a line for
/// any text.
pub(super) fn compare(place: &str, expected: &str, printed: &str) {
    let pattern: Vec<&str> = expected.lines().map(str::trim_end).collect();
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    assert!(
        matches(&pattern, &lines, |pattern| *pattern == "…", |a, b| line_matches(a, b)),
        "{place}: shown:\n{expected}\nprinted:\n{printed}"
    );
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let line: Vec<char> = line.chars().collect();
    matches(&pattern, &line, |c| *c == '…', |a, b| a == b)
}

/// A pattern with wildcards against items, greedy with one step back.
fn matches<T>(
    pattern: &[T],
    items: &[T],
    any: impl Fn(&T) -> bool,
    same: impl Fn(&T, &T) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while item < items.len() {
        if at < pattern.len() && any(&pattern[at]) {
            back = Some((at, item));
            at += 1;
        } else if at < pattern.len() && same(&pattern[at], &items[item]) {
            at += 1;
            item += 1;
        } else if let Some((wildcard, from)) = back {
            back = Some((wildcard, from + 1));
            (at, item) = (wildcard + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(any)
}

#[test]
fn wildcards_match_lines_and_text() {
    let cases = [
        ("a\nb\n", "a\nb", true),
        ("a\n…\nd", "a\nb\nc\nd", true),
        ("a\n…\nd", "a\nd", true),
        ("a\n…\nd", "a\nb", false),
        ("x … z", "x y z", true),
        ("x … z", "x y w", false),
        ("…\nb\n…", "a\nc", false),
        ("a", "a\nb", false),
    ];
    for (pattern, printed, expected) in cases {
        let compared = std::panic::catch_unwind(|| compare("here", pattern, printed));
        assert_eq!(compared.is_ok(), expected, "{pattern:?} {printed:?}");
    }
}

#[test]
fn commands_are_split_as_a_shell_splits_them() {
    let body = "a 'b c' \"d 'e\" \\\n  f''g\nh  # i\n";
    let split: Vec<Vec<String>> = commands(body).iter().map(|line| words(line)).collect();
    assert_eq!(split, [vec!["a", "b c", "d 'e", "fg"], vec!["h"]]);
}
