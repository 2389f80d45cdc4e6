//! How a command fails: what it says, and its exit code.
//!
//! Every message has the same form, on standard error: `error: subject: what happened: value`,
//! then a `hint:` line where there is a next step. Standard output is left to results.

use std::fmt;
use std::process::ExitCode;

use crate::config::Problems;
use crate::run::StartError;
use bartizan_gate::wire::unseen::is_unseen;
use bartizan_rego::PolicyProblem;

/// A command ended without doing what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    reports: Vec<Report>,
    exit: Exit,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what it was asked to.
    Done,
    /// 1: it tried, and something went wrong, or what it looked at is not as it should be.
    Failed,
    /// 64: it was asked wrongly: bad arguments, a bad configuration (`EX_USAGE` of sysexits).
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

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    subject: String,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// Something went wrong with `subject`: exit code 1.
    pub fn failed(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { reports: vec![Report::new(subject, what)], exit: Exit::Failed }
    }

    /// `subject` was given wrongly: exit code 64.
    pub fn usage(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { reports: vec![Report::new(subject, what)], exit: Exit::Usage }
    }

    /// Everything wrong with a configuration, called `subject`: exit code 64.
    pub fn configuration(subject: &str, problems: &Problems) -> Self {
        let reports = problems.list().iter().map(|problem| Report {
            subject: match (problem.location.path.as_str(), problem.location.line) {
                ("", None) => subject.to_owned(),
                _ => format!("{subject}: {}", problem.location),
            },
            what: problem.what.clone(),
            hint: Some(problem.hint.clone()),
        });
        Self { reports: reports.collect(), exit: Exit::Usage }
    }

    /// Everything wrong with a policy. `exit` says whether it was named in a configuration.
    pub fn policy(problems: &[PolicyProblem], exit: Exit) -> Self {
        let reports = problems.iter().map(|problem| Report {
            subject: match (problem.file.as_str(), problem.line) {
                ("", _) => "policy".to_owned(),
                (file, None) => format!("policy: {file}"),
                (file, Some(line)) => format!("policy: {file} (line {line})"),
            },
            what: problem.message.clone(),
            hint: problem.hint.clone(),
        });
        Self { reports: reports.collect(), exit }
    }

    /// This failure and `other` as one; the graver exit code stands.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        self.reports.extend(other.reports);
        if other.exit == Exit::Usage {
            self.exit = Exit::Usage;
        }
        self
    }

    /// The next step for what was reported last.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(report) = self.reports.last_mut() {
            report.hint = Some(hint.into());
        }
        self
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl Report {
    fn new(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: subject.into(), what: what.into(), hint: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, report) in self.reports.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "error: {}: {}", plain(&report.subject), plain(&report.what))?;
            if let Some(hint) = &report.hint {
                write!(f, "\nhint: {}", plain(hint))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// `text` on one line, with nothing in it that a terminal obeys or a person cannot see.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unseen(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

impl From<StartError> for Failure {
    /// Each line of what went wrong is a report of its own; the hint follows the last.
    fn from(error: StartError) -> Self {
        let mut reports: Vec<Report> =
            error.what.lines().map(|line| Report::new(error.subject.as_str(), line)).collect();
        if let Some(last) = reports.last_mut() {
            last.hint = error.hint;
        }
        Self { reports, exit: Exit::Failed }
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
