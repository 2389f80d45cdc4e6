//! `glob.match` as OPA defines it (OPA docs, "Built-in Functions", "Glob"): the patterns of the Go
//! library gobwas/glob.
//!
//! `*` matches any characters without a delimiter, `**` any characters, `?` one character that is
//! no delimiter, `[abc]`, `[a-z]` and their negation with `!` one character, `{a,b}` one of the
//! patterns, and `\` makes the next character literal. regorus's own function differs from OPA for
//! `:` as a delimiter and for `**` next to text, so it is not used.
//!
//! gobwas has faults of its own: its matchers for `?` and `[!a]` take an empty text, it cuts characters
//! of several bytes apart, lets the texts before and after a `*` overlap, and misses matches of `{}`
//! beside wildcards. Where one may show, the call is an error ([`doubt`]): a policy that was tested
//! with OPA would mean something else here.
//!
//! Matching simulates a nondeterministic automaton: it keeps the set of positions that the pattern
//! so far can reach. Its cost is at most the product of both lengths for any pattern; it never
//! backtracks.

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `*`
    Run,
    /// `**`
    AnyRun,
    /// `?`
    One,
    /// `[...]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `{a,b}`
    Either(Vec<Vec<Self>>),
}

/// Deepest nesting of `{}`. The recursive reader relies on it.
const NESTING_MAX: usize = 8;

/// Most branches of a `{}` with wildcards. Each is compared with each.
const BRANCHES_MAX: usize = 64;

/// Whether the whole of `text` matches `pattern`. An empty `delimiters` makes `*` match like `**`.
///
/// # Errors
///
/// The pattern is malformed; the message quotes it.
pub(super) fn matches(pattern: &str, delimiters: &[char], text: &str) -> Result<bool, String> {
    let mut reader = Reader { rest: pattern.chars().peekable(), pattern };
    let tokens = reader.sequence(0)?;
    if let Some(why) = doubt(&tokens, pattern, delimiters, text) {
        return Err(reader.malformed(why));
    }
    let text: Vec<char> = text.chars().collect();
    let mut at = vec![false; text.len().saturating_add(1)];
    if let Some(first) = at.first_mut() {
        *first = true;
    }
    let end = advance(&tokens, delimiters, &text, at);
    Ok(end.last().copied().unwrap_or(false))
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    pattern: &'a str,
}

impl Reader<'_> {
    fn malformed(&self, what: &str) -> String {
        format!("glob pattern `{}`: {what}", self.pattern)
    }

    /// Reads tokens to the end of the pattern, or inside `{}` (`depth` > 0) up to `,` or `}`.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        while let Some(&next) = self.rest.peek() {
            if depth > 0 && (next == ',' || next == '}') {
                break;
            }
            self.rest.next();
            tokens.push(match next {
                '*' => {
                    let mut stars = 1_usize;
                    while self.rest.next_if_eq(&'*').is_some() {
                        stars = stars.saturating_add(1);
                    }
                    if stars > 1 { Token::AnyRun } else { Token::Run }
                }
                '?' => Token::One,
                '\\' => {
                    let escaped = self.rest.next();
                    Token::Literal(escaped.ok_or_else(|| self.malformed("ends after `\\`"))?)
                }
                '[' => self.class()?,
                '{' => self.either(depth.saturating_add(1))?,
                literal => Token::Literal(literal),
            });
        }
        Ok(tokens)
    }

    fn either(&mut self, depth: usize) -> Result<Token, String> {
        if depth > NESTING_MAX {
            return Err(self.malformed("`{}` nests deeper than 8 levels"));
        }
        let mut branches = Vec::new();
        loop {
            branches.push(self.sequence(depth)?);
            match self.rest.next() {
                Some('}') => return Ok(Token::Either(branches)),
                Some(_) => {}
                None => return Err(self.malformed("`{` is not closed")),
            }
        }
    }

    fn class(&mut self) -> Result<Token, String> {
        let negated = self.rest.next_if_eq(&'!').is_some();
        let mut ranges = Vec::new();
        loop {
            let low = match self.rest.next() {
                Some(']') if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
                Some(']') => return Err(self.malformed("`[` is closed at once")),
                Some('\\') => self.rest.next(),
                other => other,
            };
            let low = low.ok_or_else(|| self.malformed("`[` is not closed"))?;
            let high = if self.rest.next_if_eq(&'-').is_some() {
                self.rest.next().ok_or_else(|| self.malformed("`[` is not closed"))?
            } else {
                low
            };
            if high < low {
                return Err(self.malformed("a range runs backwards"));
            }
            ranges.push((low, high));
        }
    }
}

/// Why gobwas may have another answer for this pattern and text.
fn doubt(tokens: &[Token], pattern: &str, delimiters: &[char], text: &str) -> Option<&'static str> {
    if pattern.is_empty() || pattern.contains("***") {
        return Some("`***` or nothing, which OPA reads in its own way");
    }
    let branches: Vec<&[Token]> = match tokens {
        [Token::Either(branches)] => branches.iter().map(Vec::as_slice).collect(),
        _ => Vec::new(),
    };
    let is_wild = |token: &Token| match token {
        Token::Either(branches) => !branches.iter().all(|branch| is_plain(branch)),
        _ => false,
    };
    // gobwas factors out what branches have in common, and forgets a branch that has no more.
    let within = |branch: &[Token], of: &[Token]| of.starts_with(branch) || of.ends_with(branch);
    let is_alone = |at: usize, branch: &[Token]| {
        !branches.iter().enumerate().any(|(of, other)| of != at && within(branch, other))
    };
    let is_group_of_globs = !branches.is_empty()
        && branches.len() <= BRANCHES_MAX
        && branches.iter().enumerate().all(|(at, it)| is_simple(it) && is_alone(at, it));
    if tokens.iter().any(is_wild) && !is_group_of_globs {
        return Some("wildcards or nothing in `{}`, which OPA does not match reliably");
    }
    let is_ascii = text.is_ascii() && pattern.is_ascii();
    let takes_nothing = |token: &Token| match token {
        Token::One | Token::Class { negated: true, .. } => true,
        Token::Class { .. } | Token::Either(_) => !is_ascii,
        Token::Literal(_) | Token::Run | Token::AnyRun => false,
    };
    if (text.is_empty() || !is_ascii) && tokens.iter().any(takes_nothing) {
        return Some("`?`, `[]` or `{}` with an empty text or one beyond ASCII");
    }
    let is_run = |token: &Token| matches!(token, Token::Run | Token::AnyRun);
    let beside = |one: &Token, other: &Token| *one == Token::One && is_run(other);
    if text.contains(delimiters)
        && tokens.iter().zip(tokens.iter().skip(1)).any(|(l, r)| beside(l, r) || beside(r, l))
    {
        return Some("`?` beside `*` with a delimiter in the text");
    }
    let overlap = overlaps(tokens, text) || branches.iter().any(|branch| overlaps(branch, text));
    overlap.then_some("the text before and after a `*` overlaps")
}

/// Whether a text begins and ends with the literals around the wildcards of a pattern, and is shorter
/// than both together.
fn overlaps(tokens: &[Token], text: &str) -> bool {
    let literal = |token: &Token| match token {
        Token::Literal(literal) => Some(*literal),
        _ => None,
    };
    let before: String = tokens.iter().map_while(literal).collect();
    let after: Vec<char> = tokens.iter().rev().map_while(literal).collect();
    let after: String = after.into_iter().rev().collect();
    tokens.iter().any(|token| matches!(token, Token::Run | Token::AnyRun))
        && text.len() < before.len().saturating_add(after.len())
        && text.starts_with(&before)
        && text.ends_with(&after)
}

/// Whether a branch of `{}` has a literal, and apart from literals only `*` and `**`.
fn is_simple(branch: &[Token]) -> bool {
    branch.iter().any(|token| matches!(token, Token::Literal(_)))
        && branch.iter().all(|it| matches!(it, Token::Literal(_) | Token::Run | Token::AnyRun))
}

/// Whether a branch of `{}` is a text that is not empty, or a choice of such texts.
fn is_plain(branch: &[Token]) -> bool {
    let plain = |token: &Token| match token {
        Token::Literal(_) => true,
        Token::Either(branches) => branches.iter().all(|branch| is_plain(branch)),
        _ => false,
    };
    !branch.is_empty() && branch.iter().all(plain)
}

/// The positions reachable after `tokens` from the positions in `at`.
fn advance(tokens: &[Token], delimiters: &[char], text: &[char], at: Vec<bool>) -> Vec<bool> {
    let mut at = at;
    for token in tokens {
        at = match token {
            Token::Run => run(&at, text, |c| !delimiters.contains(&c)),
            Token::AnyRun => run(&at, text, |_| true),
            Token::Literal(literal) => step(&at, text, |c| c == *literal),
            Token::One => step(&at, text, |c| !delimiters.contains(&c)),
            Token::Class { negated, ranges } => step(&at, text, |c| {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }),
            Token::Either(branches) => {
                let mut union = vec![false; at.len()];
                for branch in branches {
                    let reached = advance(branch, delimiters, text, at.clone());
                    for (slot, reached) in union.iter_mut().zip(reached) {
                        *slot |= reached;
                    }
                }
                union
            }
        };
    }
    at
}

/// The positions after one character that fits.
fn step(at: &[bool], text: &[char], fits: impl Fn(char) -> bool) -> Vec<bool> {
    let moved = at.iter().zip(text).map(|(here, c)| *here && fits(*c));
    std::iter::once(false).chain(moved).collect()
}

/// The positions after any number of characters that fit, none included.
fn run(at: &[bool], text: &[char], fits: impl Fn(char) -> bool) -> Vec<bool> {
    let mut open = false;
    let mut reached = Vec::with_capacity(at.len());
    for (index, here) in at.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| text.get(before));
        open = *here || (open && before.is_some_and(|c| fits(*c)));
        reached.push(open);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_gobwas_glob() {
        for (pattern, delimiters, text, expected) in [
            ("a*", ".", "abc", true),
            ("a*", ".", "a.bc", false),
            ("a*", "", "a.bc", true),
            ("*", ":", "q:r", false),
            ("*:*", ":", "q:r", true),
            ("b**", ".", "bx.y", true),
            ("**.y", ".", "a.b.y", true),
            ("*.y", ".", "a.b.y", false),
            ("?at", ".", "cat", true),
            ("?at", ".", ".at", false),
            ("?at", ".", "at", false),
            ("[abc]x", ".", "bx", true),
            ("[!abc]x", ".", "bx", false),
            ("[!abc]x", ".", ".x", true),
            ("[a-c]x", "", "dx", false),
            ("[\\]]x", "", "]x", true),
            ("{get,list}-*", ".", "list-flags", true),
            ("{get,list}-*", ".", "drop-flags", false),
            ("{a,{b,c}}d", "", "cd", true),
            ("{*.x,y}", ".", "q.x", true),
            ("\\*", "", "*", true),
            ("\\*", "", "a", false),
            ("a,b}", "", "a,b}", true),
            ("delete*", ".", "delete_flag", true),
        ] {
            let delimiters: Vec<char> = delimiters.chars().collect();
            assert_eq!(matches(pattern, &delimiters, text), Ok(expected), "{pattern} {text}");
        }
        for pattern in ["[", "[]", "[a", "{a", "{a,b", "a\\", "[z-a]", "{{{{{{{{{a}}}}}}}}}"] {
            assert!(matches(pattern, &[], "a").is_err(), "{pattern}");
        }
    }

    #[test]
    fn the_cost_is_bounded_by_both_lengths() {
        let pattern = "*a".repeat(200);
        let text = "a".repeat(4_000);
        assert_eq!(matches(&format!("{pattern}b"), &[], &text), Ok(false));
    }
}
