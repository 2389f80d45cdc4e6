//! The failure of a command: its messages and its exit code.
//!
//! Every message goes to standard error in the same form: `error: subject: what happened: value`,
//! then a `hint:` line if there is a next step. Standard output is only for results.

use std::fmt;
use std::process::ExitCode;

use crate::config::Problems;
use crate::run::StartError;
use bartizan_gate::wire::unseen::is_unseen;
use bartizan_rego::PolicyProblem;

/// Why a command failed: one or more messages and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    messages: Vec<FailureMessage>,
    exit: Exit,
}

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: success.
    Done,
    /// 1: something failed, or what the command checked is not as it should be.
    Failed,
    /// 64: wrong arguments or a wrong configuration (`EX_USAGE` of sysexits.h).
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::Usage => Self::from(64),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FailureMessage {
    subject: String,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure about `subject`, exit code 1.
    pub fn failed(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { messages: vec![FailureMessage::new(subject, what)], exit: Exit::Failed }
    }

    /// A wrong argument or setting `subject`, exit code 64.
    pub fn usage(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { messages: vec![FailureMessage::new(subject, what)], exit: Exit::Usage }
    }

    /// All problems of the configuration called `subject`, exit code 64.
    pub fn configuration(subject: &str, problems: &Problems) -> Self {
        let messages = problems.list().iter().map(|problem| FailureMessage {
            subject: match (problem.location.path.as_str(), problem.location.line) {
                ("", None) => subject.to_owned(),
                _ => format!("{subject}: {}", problem.location),
            },
            what: problem.what.clone(),
            hint: Some(problem.hint.clone()),
        });
        Self { messages: messages.collect(), exit: Exit::Usage }
    }

    /// All problems of a policy. `exit` depends on whether a configuration named the policy.
    pub fn policy(problems: &[PolicyProblem], exit: Exit) -> Self {
        let messages = problems.iter().map(|problem| FailureMessage {
            subject: match (problem.file.as_str(), problem.line) {
                ("", _) => "policy".to_owned(),
                (file, None) => format!("policy: {file}"),
                (file, Some(line)) => format!("policy: {file} (line {line})"),
            },
            what: problem.message.clone(),
            hint: problem.hint.clone(),
        });
        Self { messages: messages.collect(), exit }
    }

    /// Both failures as one, with the higher of the two exit codes.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        self.messages.extend(other.messages);
        if other.exit == Exit::Usage {
            self.exit = Exit::Usage;
        }
        self
    }

    /// Adds a hint to the last message.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(message) = self.messages.last_mut() {
            message.hint = Some(hint.into());
        }
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl FailureMessage {
    fn new(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: subject.into(), what: what.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.messages.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "error: {}: {}", plain(&message.subject), plain(&message.what))?;
            if let Some(hint) = &message.hint {
                write!(f, "\nhint: {}", plain(hint))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// `text` on one line, with control and invisible characters escaped.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unseen(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl From<StartError> for Failure {
    /// Each line of the error becomes a message of its own; the hint follows the last one.
    fn from(error: StartError) -> Self {
        let mut messages: Vec<FailureMessage> = error
            .what
            .lines()
            .map(|line| FailureMessage::new(error.subject.as_str(), line))
            .collect();
        if let Some(last) = messages.last_mut() {
            last.hint = error.hint;
        }
        Self { messages, exit: Exit::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_one_form() {
        let failure =
            Failure::failed("state", "cannot be written: /x\u{1b}[2J\u{202e}\n").hint("chmod");
        let failure = failure.joined(Failure::failed("otlp", "is not there"));
        assert_eq!(
            failure.to_string(),
            "error: state: cannot be written: /x\\u{1b}[2J\\u{202e}\\n\nhint: chmod\nerror: otlp: is not there"
        );
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(Failure::usage("x", "y").exit(), Exit::Usage);
    }
}
