//! Checks of a source's tokens before regorus parses it.
//!
//! regorus's parser takes exponential time on nested literals, its number parser takes minutes on a
//! large exponent, and its analysis recurses along every chain of operators. All three show in the
//! tokens, so a source that would cause one is refused without parsing. Strings, raw strings and
//! comments are skipped. Syntax errors are left to the parser.

use super::problem::PolicyProblem;
use super::{EvalLimits, Module, number};

/// The problems of one source; none means that it may be parsed.
pub(super) fn problems(module: &Module, limits: &EvalLimits) -> Vec<PolicyProblem> {
    if module.text.len() > limits.source_bytes_max {
        let message = format!("larger than {} bytes", limits.source_bytes_max);
        return vec![PolicyProblem {
            file: module.path.clone(),
            ..PolicyProblem::unlocated(message)
        }];
    }
    let mut scan = Scan {
        module,
        limits,
        line: 1,
        open: Vec::new(),
        chain: 0,
        memberships: 0,
        after_operator: false,
        after_line_end: false,
        problems: Vec::new(),
    };
    scan.run();
    scan.problems
}

struct Scan<'a> {
    module: &'a Module,
    limits: &'a EvalLimits,
    line: u32,
    /// The open brackets.
    open: Vec<char>,
    /// Operators, dots and indexes so far in this expression.
    chain: usize,
    /// How often `in` occurred so far in this expression. Each becomes a call around those before it.
    memberships: usize,
    /// Whether the last token was an operator, dot or opening bracket, so that the expression
    /// continues after it.
    after_operator: bool,
    /// Whether a line ended after the last token.
    after_line_end: bool,
    problems: Vec<PolicyProblem>,
}

impl Scan<'_> {
    fn problem(&mut self, message: String, hint: &str) {
        // One problem of each kind is enough.
        if self.problems.iter().all(|problem| problem.message != message) {
            let problem = PolicyProblem::at(&self.module.path, self.line, message);
            self.problems.push(problem.hint(hint));
        }
    }

    fn run(&mut self) {
        let mut rest = self.module.text.as_str();
        while let Some(character) = rest.chars().next() {
            rest = match character {
                '"' => self.skip_string(rest),
                '`' => self.skip_raw(rest),
                '#' => rest.find('\n').and_then(|end| rest.get(end..)).unwrap_or(""),
                '0'..='9' => self.number(rest),
                letter if letter.is_alphabetic() || letter == '_' => {
                    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                    let (word, rest) =
                        end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, ""));
                    self.token(word == "in");
                    if word == "in" {
                        self.membership();
                    }
                    rest
                }
                other => {
                    self.sign(other);
                    rest.get(other.len_utf8()..).unwrap_or("")
                }
            };
        }
    }

    /// Counts a token. The end of a line ends an expression, unless an operator is next to it.
    fn token(&mut self, joins: bool) {
        if self.after_line_end && !joins && !self.after_operator {
            self.begin();
        }
        self.after_line_end = false;
        self.after_operator = joins;
        if joins {
            self.chain = self.chain.saturating_add(1);
            if self.chain > self.limits.chain_max {
                self.problem(
                    format!(
                        "an expression has more than {} operators, dots and indexes",
                        self.limits.chain_max
                    ),
                    "split it into rules, or use a set, an array or a comprehension",
                );
            }
        }
    }

    /// Another expression begins.
    fn begin(&mut self) {
        self.chain = 0;
        self.memberships = 0;
    }

    /// Counts an `in`.
    fn membership(&mut self) {
        self.memberships = self.memberships.saturating_add(1);
        let max = self.limits.call_nesting_max;
        if self.memberships > max {
            self.problem(
                format!("an expression has more than {max} `in`"),
                "write a statement for each",
            );
        }
    }

    fn sign(&mut self, sign: char) {
        match sign {
            '\n' => {
                self.line = self.line.saturating_add(1);
                self.after_line_end = true;
            }
            '[' | '{' | '(' => {
                self.token(true);
                self.open.push(sign);
                self.depth(sign);
            }
            ']' | '}' | ')' => {
                self.token(false);
                self.open.pop();
            }
            ',' | ';' => {
                self.token(false);
                self.begin();
            }
            '.' | '+' | '-' | '*' | '/' | '%' | '|' | '&' | '=' | '<' | '>' | '!' | ':' => {
                self.token(true);
            }
            _ => {}
        }
    }

    /// Checks the nesting depth after an opening bracket. Parentheses are no literals, and have
    /// a limit of their own, because the parser recurses into them too.
    fn depth(&mut self, sign: char) {
        let max = if sign == '(' { self.limits.call_nesting_max } else { self.limits.nesting_max };
        let depth = self.open.iter().filter(|open| (**open == '(') == (sign == '(')).count();
        if depth > max {
            self.problem(
                format!("brackets nest deeper than {max}"),
                "move the inner part to a rule of its own",
            );
        }
    }

    fn skip_string<'t>(&mut self, text: &'t str) -> &'t str {
        self.token(false);
        let mut escaped = false;
        for (at, character) in text.char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                // A string cannot contain a line feed. The parser reports it.
                '"' => return text.get(at.saturating_add(1)..).unwrap_or(""),
                '\n' => return text.get(at..).unwrap_or(""),
                _ => {}
            }
        }
        ""
    }

    fn skip_raw<'t>(&mut self, text: &'t str) -> &'t str {
        self.token(false);
        for (at, character) in text.char_indices().skip(1) {
            match character {
                '`' => return text.get(at.saturating_add(1)..).unwrap_or(""),
                '\n' => self.line = self.line.saturating_add(1),
                _ => {}
            }
        }
        ""
    }

    fn number<'t>(&mut self, text: &'t str) -> &'t str {
        self.token(false);
        let mut end = 0_usize;
        let mut power = false;
        for (at, character) in text.char_indices() {
            let part = match character {
                '0'..='9' | '.' | 'e' | 'E' => true,
                '+' | '-' => power,
                _ => false,
            };
            if !part {
                break;
            }
            power = matches!(character, 'e' | 'E');
            end = at.saturating_add(1);
        }
        let (literal, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        if number::exact(literal).is_none() {
            let shown: String = literal.chars().take(40).collect();
            self.problem(
                format!("the number `{shown}` has no exact value here"),
                "integers have at most 64 bits, other numbers at most 17 digits",
            );
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Option<String> {
        let module = Module { path: "p.rego".to_owned(), text: text.to_owned() };
        problems(&module, &EvalLimits::default()).first().map(ToString::to_string)
    }

    #[test]
    fn sources_that_overload_the_parser_are_refused() {
        let nested = |open: &str, close: &str, depth| {
            format!("package p\n\nx := {}1{}", open.repeat(depth), close.repeat(depth))
        };
        for text in [
            nested("[", "]", 13),
            nested("{", "}", 13),
            nested("{\"a\": ", "}", 13),
            nested("f(", ")", 40),
            format!("package p\n\nx := {}", "1 + ".repeat(500)),
            format!("package p\n\nx := 1{}", " in [2]".repeat(40)),
            format!("package p\n\nx := y{}", ".a".repeat(500)),
            format!("package p\n\nx := y{}", "[0]".repeat(500)),
            format!("package p\n\nx := 1{}", " + 1".repeat(500)),
            "package p\n\nx := 18446744073709551617".to_owned(),
            "package p\n\nx := 1e100000000".to_owned(),
        ] {
            let problem = first(&text).unwrap_or_default();
            assert!(problem.starts_with("p.rego:3: "), "{problem}: {text}");
        }
        let broken = format!("package p\nx := 1{}", "\n+ 1".repeat(500));
        assert!(first(&broken).is_some());
        let broken = format!("package p\nx if 1 {}", "in\n[2] ".repeat(40));
        assert!(first(&broken).is_some_and(|it| it.contains("more than 24 `in`")));
    }

    #[test]
    fn ordinary_sources_pass() {
        for text in [
            "package p\nx := \"[[[[[[[[[[[[[[[\"",
            "package p\nx := `[[[[[[[[[[[[[[[`",
            "package p\n# [[[[[[[[[[[[[[[\nx := 1.5e3 - 2",
            "package p\nx := \"\\\"[[[[[[[[[[[[[[[\"",
            "package p\nx := [1, [2, {\"a\": {3}}]]",
            "package p\nx := a1[\"2e999999\"]",
        ] {
            assert_eq!(first(text), None, "{text}");
        }
        let many = "x if input.a.b == 1\n".repeat(2_000);
        assert_eq!(first(&format!("package p\n{many}")), None);
        let list = "\"a.b\", ".repeat(2_000);
        assert_eq!(first(&format!("package p\nx := {{{list}}}")), None);
    }
}
