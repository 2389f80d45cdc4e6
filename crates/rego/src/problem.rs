//! Problems of a policy, with place and hint, and regorus's error texts as such problems.
//!
//! The program prints them. Whether a problem keeps a policy from running is the caller's decision.

use bartizan_gate::wire::document::Unreadable;

/// Longest part of regorus's message that is kept, characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// One problem of a policy. Its `Display` is `file:line: message`, then a `hint:` line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// The source's path as given; `data` for the data; empty where the problem is not in one file.
    pub file: String,
    /// The line, counted from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong: lower case, no period.
    pub message: String,
    /// The next step, where one is known.
    pub hint: Option<String>,
}

impl PolicyProblem {
    /// A problem without a file.
    pub(super) fn unlocated(message: impl Into<String>) -> Self {
        Self { file: String::new(), line: None, message: message.into(), hint: None }
    }

    /// A problem at a line of a file.
    pub(super) fn at(file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: Some(line), message: message.into(), hint: None }
    }

    /// The same problem with the next step.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A problem from an error text of regorus. `file` is used where the text names none.
    pub(super) fn from_regorus(error: &str, file: &str) -> Self {
        let parsed = RegorusError::parse(error);
        Self {
            file: parsed.file.unwrap_or_else(|| file.to_owned()),
            line: parsed.line,
            message: parsed.text,
            hint: None,
        }
    }
}

impl std::fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => write!(f, "policy: {}", self.message)?,
            (file, None) => write!(f, "{file}: {}", self.message)?,
            (file, Some(line)) => write!(f, "{file}:{line}: {}", self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PolicyProblem {}

/// Why a JSON text is not strict JSON (`docs/strict-profile.md`, P2 to P6): the byte offset, where
/// one is known, and the cause.
pub fn unreadable_cause(unreadable: &Unreadable) -> (Option<usize>, &'static str) {
    use Unreadable as U;
    match *unreadable {
        U::TooLarge | U::TooMany => (None, "too large"),
        U::NotUtf8 { at } => (Some(at), "not UTF-8, or begins with a byte order mark"),
        U::NotJson { at } => (Some(at), "not JSON"),
        U::TooDeep { at } => (Some(at), "nested too deep"),
        U::BadNumber { at } => (Some(at), "a number too long or too large"),
        U::LoneSurrogate { at } => (Some(at), "an escape is half of a surrogate pair"),
        U::DuplicateName { at } => (Some(at), "a name is given twice"),
        U::ReservedName { at } => (Some(at), "a reserved name"),
    }
}

/// The message for a JSON text that is not strict JSON, with the byte offset.
pub fn not_strict_json(unreadable: &Unreadable) -> String {
    match unreadable_cause(unreadable) {
        (Some(at), cause) => format!("not strict JSON: byte {at}: {cause}"),
        (None, cause) => format!("not strict JSON: {cause}"),
    }
}

/// The parts of an error text of regorus, which shows the source line and a caret below it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RegorusError {
    /// The file, where the text names one.
    pub(super) file: Option<String>,
    /// The line, counted from 1, where the text names one.
    pub(super) line: Option<u32>,
    /// The message, at most [`MESSAGE_CHARS_MAX`] characters.
    pub(super) text: String,
}

impl RegorusError {
    /// Parses an error text.
    pub(super) fn parse(error: &str) -> Self {
        let location = error.lines().find_map(|line| line.trim().strip_prefix("--> "));
        let mut parts = location.unwrap_or_default().rsplitn(3, ':');
        let _column = parts.next();
        let line = parts.next().and_then(|line| line.parse().ok());
        let file = parts.next().map(str::to_owned);
        let message = error.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
        let message = message.or_else(|| error.lines().find(|line| !line.trim().is_empty()));
        let text = message.unwrap_or("unknown error").trim();
        let text = text.chars().take(MESSAGE_CHARS_MAX).collect();
        Self { file, line, text }
    }

    /// `file:line: message` in one line, for the reason of a denial.
    pub(super) fn one_line(self) -> String {
        match (self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: {}", self.text),
            _ => self.text,
        }
    }
}

/// Kinds of errors of an evaluation, in words of the engine or of our built-ins. The first that
/// occurs in an error text is kept; nothing else of the text is, because it can hold operands.
const KINDS: &[&str] = &[
    "exceeded time limit",
    "expects string argument",
    "expects numeric argument",
    "expects boolean argument",
    "expects array argument",
    "expects object argument",
    "expects set argument",
    "expects set of sets",
    "expects a string",
    "expects a shift",
    "requires set/array argument",
    "requires array/object/set argument",
    "requires string array",
    "has no exact value",
    "has no result for these arguments",
    "panicked on these arguments",
    "the result is longer than",
    "the result has more than",
    "is too long",
    "operand must be integer",
    "must be an integer",
    "could not parse number",
    "could not parse",
    "division by zero",
    "divide by zero",
    "modulo by zero",
    "modulo on floating-point number",
    "invalid regex",
    "invalid glob",
    "invalid semver",
    "not a valid",
    "cannot be indexed",
    "multiple outputs",
    "internal error",
    "the interpreter panicked",
];

/// What the error text of an evaluation says without the values that it met: the built-in, if
/// `builtins` has it, and the kind of error. The text goes into records, so it is put together from
/// words that are known beforehand, and nothing of it is cut out of `error`.
pub(super) fn without_values(
    error: &RegorusError,
    files: &[&str],
    builtins: impl Iterator<Item = &'static str>,
) -> String {
    let text = error.text.strip_prefix("policy: ").unwrap_or(&error.text);
    let begins = |name: &&str| text.strip_prefix(*name).is_some_and(|rest| rest.starts_with(':'));
    let kind = KINDS.iter().find(|kind| text.contains(**kind)).unwrap_or(&"it failed");
    let kind = kind.to_owned();
    let what = match builtins.filter(begins).max_by_key(|name| name.len()) {
        Some(name) => format!("`{name}`: {kind}"),
        None => kind.to_owned(),
    };
    let place = error.file.as_deref().filter(|file| files.contains(file)).zip(error.line);
    match place {
        Some((file, line)) => format!("{file}:{line}: {what}"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_without_the_values_that_it_met() {
        let told = |text: &str| {
            let error = RegorusError::parse(text);
            without_values(&error, &["a.rego"], ["startswith", "start", "time.clock"].into_iter())
        };
        for (text, expected) in [
            (
                "\n--> a.rego:7:1\n  |\nerror: policy: startswith: `startswith` expects string argument. Got `{\"p\":1}` instead",
                "a.rego:7: `startswith`: expects string argument",
            ),
            ("startswith: s3cret", "`startswith`: it failed"),
            ("s3cret: could not parse s3cret", "could not parse"),
            ("bad\n--> s3cret:7:1\nerror: s3cret", "it failed"),
            ("time.clock: \n--> a.rego:3:1", "a.rego:3: `time.clock`: it failed"),
            ("", "it failed"),
        ] {
            assert_eq!(told(text), expected);
        }
    }

    #[test]
    fn an_error_from_regorus_is_one_line() {
        let error = "\n--> a:b.rego:7:13\n  |\n7 | x\n  | ^\nerror: `f` expects a string";
        assert_eq!(RegorusError::parse(error).one_line(), "a:b.rego:7: `f` expects a string");
        assert_eq!(RegorusError::parse("plain").one_line(), "plain");
        assert_eq!(RegorusError::parse("").one_line(), "unknown error");
    }
}
