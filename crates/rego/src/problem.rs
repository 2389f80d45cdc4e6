//! What is wrong with a policy, and where.

/// Longest message that is kept, characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// One thing wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// The source's path as given; `data` for the data; empty for the policy as a whole.
    pub file: String,
    /// The line, from 1, where one is known.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl PolicyProblem {
    /// A problem of the policy as a whole.
    pub(super) fn whole(message: impl Into<String>) -> Self {
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

    /// A problem as regorus tells it.
    pub(super) fn of_regorus(error: &str, file: &str) -> Self {
        let message = Message::of(error);
        Self {
            file: message.file.unwrap_or_else(|| file.to_owned()),
            line: message.line,
            message: message.text,
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

/// An error text of regorus, taken apart: it draws the source line and a caret around it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The file that it names.
    pub(super) file: Option<String>,
    /// The line that it names.
    pub(super) line: Option<u32>,
    /// What it says.
    pub(super) text: String,
}

impl Message {
    /// Takes `error` apart.
    pub(super) fn of(error: &str) -> Self {
        let place = error.lines().find_map(|line| line.trim().strip_prefix("--> "));
        let mut parts = place.unwrap_or_default().rsplitn(3, ':');
        let _column = parts.next();
        let line = parts.next().and_then(|line| line.parse().ok());
        let file = parts.next().map(str::to_owned);
        let said = error.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
        let said = said.or_else(|| error.lines().find(|line| !line.trim().is_empty()));
        let text = said.unwrap_or("unknown error").trim();
        let text = text.chars().take(MESSAGE_CHARS_MAX).collect();
        Self { file, line, text }
    }

    /// In one line, for a reason.
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
    fn an_error_of_regorus_is_one_line() {
        let error = "\n--> a:b.rego:7:13\n  |\n7 | x\n  | ^\nerror: `f` expects a string";
        assert_eq!(Message::of(error).one_line(), "a:b.rego:7: `f` expects a string");
        assert_eq!(Message::of("plain").one_line(), "plain");
        assert_eq!(Message::of("").one_line(), "unknown error");
    }
}
