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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_from_regorus_is_one_line() {
        let error = "\n--> a:b.rego:7:13\n  |\n7 | x\n  | ^\nerror: `f` expects a string";
        assert_eq!(RegorusError::parse(error).one_line(), "a:b.rego:7: `f` expects a string");
        assert_eq!(RegorusError::parse("plain").one_line(), "plain");
        assert_eq!(RegorusError::parse("").one_line(), "unknown error");
    }
}
