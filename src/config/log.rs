//! `log`: the program's own diagnostics, on standard error.

use tracing_subscriber::EnvFilter;

use super::form::{text, word};
use super::problem::wrong;
use super::section::Section;

/// The program's own diagnostics, on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks (`format`).
    pub format: LogFormat,
    /// Which lines (`filter`), such as `info` or `bartizan::edge=debug,warn`; `warn,child=info` for
    /// `bartizan wrap`.
    pub filter: String,
}

/// How a line of diagnostics looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let filter = text().try_map(|text, _| match EnvFilter::try_new(&text) {
            Ok(_) => Ok(text),
            Err(error) => wrong(
                format!("is no filter: {error}"),
                "write a level, or targets with levels, like `info,bartizan::edge=debug`",
            ),
        });
        Self {
            format: s
                .key(
                    "format",
                    word([("text", LogFormat::Text), ("json", LogFormat::Json)]),
                    "How a line of the program's own diagnostics on standard error looks: `text` \
                     or `json`.",
                )
                .or(LogFormat::Text),
            filter: s
                .key(
                    "filter",
                    filter.shown(String::clone),
                    "Which lines: a level, or targets with levels, like \
                     `warn,bartizan::edge=debug`.",
                )
                .or("info".to_owned()),
        }
    }
}
