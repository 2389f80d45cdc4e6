//! The arguments that `audit tail`, `audit query` and `audit session` share: whose journal, and which
//! of its records.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::AuditError;
use crate::cli::Failure;
use crate::config::{Config, Problems};
use bartizan_audit::calls::find;
use bartizan_audit::filter::{Field, Filter};
use bartizan_audit::inert;
use bartizan_audit::tally::{NONE, OTHERS, tally};

/// Seconds of a day in UTC, which has no time of summer.
const DAY: Duration = Duration::from_hours(24);

/// Values that are shown in place of one that no record has.
const SHOWN_MAX: usize = 10;
/// Characters of a value that is shown.
const NAME_CHARS_MAX: usize = 100;

/// Where the journal is.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The configuration file, whose `state` is the directory of the journal. Nothing else of it is
    /// read, so its secrets are not needed.
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "BARTIZAN_CONFIG",
        default_value = "bartizan.yaml"
    )]
    pub config: PathBuf,
    /// The state directory, instead of that of the configuration.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl PlaceArgs {
    /// The state directory.
    ///
    /// # Errors
    ///
    /// The configuration cannot be read, or its `state` is no path.
    pub fn state(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let wrong = |problems: Problems| {
            Failure::configuration(&self.config.display().to_string(), &problems)
        };
        Config::read_state(&self.config).map_err(wrong)
    }
}

/// A parser for the values of `field`.
fn values(field: Field) -> PossibleValuesParser {
    PossibleValuesParser::new(field.known().unwrap_or_default())
}

/// Which records. Each option but the times may be repeated; a record has one of the values of each
/// option that is given.
#[derive(Debug, Clone, Args)]
pub struct SelectArgs {
    /// Only records since this time: `2026-11-29`, `2026-11-29T08:00:00Z`, `today`, `yesterday`, or
    /// so long ago: `15m`, `12h`, `7d`. All times are UTC; a day begins at midnight.
    #[arg(long, value_name = "TIME", value_parser = When::read)]
    pub since: Option<When>,
    /// Only records before this time, which is written in the same way.
    #[arg(long, value_name = "TIME", value_parser = When::read)]
    pub until: Option<When>,
    /// Only records of operations that reach this environment.
    #[arg(long, value_name = "NAME")]
    pub environment: Vec<String>,
    /// Only records with this reason: the code of a rule, or one of the firewall's own.
    #[arg(long, value_name = "CODE")]
    pub rule: Vec<String>,
    /// Only records of operations with this effect.
    #[arg(long, value_parser = values(Field::Effect))]
    pub effect: Vec<String>,
    /// Only records about this tool.
    #[arg(long, value_name = "NAME")]
    pub tool: Vec<String>,
    /// Only records of this principal.
    #[arg(long, value_name = "ID")]
    pub principal: Vec<String>,
    /// Only records of this conversation.
    #[arg(long, value_name = "ID")]
    pub session: Vec<String>,
    /// Only records of this call: its decision id, or at least the first 8 digits of it.
    #[arg(long, value_name = "ID")]
    pub call: Vec<String>,
    /// Only records with this decision; `held`: an approver is asked.
    #[arg(long, value_parser = values(Field::Decision))]
    pub decision: Vec<String>,
    /// Only records with this outcome.
    #[arg(long, value_parser = values(Field::Outcome))]
    pub outcome: Vec<String>,
    /// Only records with this finding.
    #[arg(long, value_parser = values(Field::Finding), hide_possible_values = true)]
    pub finding: Vec<String>,
    /// Only records in this MAESTRO layer.
    #[arg(long, value_parser = values(Field::Layer))]
    pub layer: Vec<String>,
    /// Only records of this protected server.
    #[arg(long, value_name = "NAME")]
    pub server: Vec<String>,
    /// Only records with this MCP method.
    #[arg(long)]
    pub method: Vec<String>,
    /// Only records with this event.
    #[arg(long, value_parser = values(Field::Event), hide_possible_values = true)]
    pub event: Vec<String>,
    /// Only records of calls from this network address.
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Vec<String>,
    /// Only records of clients that call themselves so.
    #[arg(long, value_name = "NAME")]
    pub client: Vec<String>,
}

impl SelectArgs {
    /// The filter, at the time `now`.
    pub fn filter(&self, now: SystemTime) -> Filter {
        let text = |when: Option<When>| when.map(|when| when.text(now));
        let mut filter = Filter::default().within(text(self.since), text(self.until));
        for field in Field::ALL {
            for value in self.wanted(field) {
                filter.want(field, value);
            }
        }
        filter
    }

    /// Checks that some record of the journal in `directory` has each wanted value, at whatever time: a
    /// summary of nothing would look as if nothing had happened.
    ///
    /// # Errors
    ///
    /// No record has it, or the journal cannot be read.
    pub(super) fn check(&self, directory: &Path) -> Result<(), AuditError> {
        for field in Field::ALL.into_iter().filter(|field| field.known().is_none()) {
            for value in self.wanted(field) {
                let only = Filter::default().and(field, value.as_str());
                let found = find(directory, 1, &only, 1).map_err(AuditError::Read)?;
                if found.found.is_empty() {
                    return Err(AuditError::Argument(unknown(directory, field, value)?));
                }
            }
        }
        Ok(())
    }

    /// The values of the option of `field`.
    fn wanted(&self, field: Field) -> &[String] {
        match field {
            Field::Call => &self.call,
            Field::Session => &self.session,
            Field::Environment => &self.environment,
            Field::Rule => &self.rule,
            Field::Finding => &self.finding,
            Field::Layer => &self.layer,
            Field::Tool => &self.tool,
            Field::Principal => &self.principal,
            Field::Peer => &self.peer,
            Field::Client => &self.client,
            Field::Server => &self.server,
            Field::Method => &self.method,
            Field::Event => &self.event,
            Field::Decision => &self.decision,
            Field::Effect => &self.effect,
            Field::Outcome => &self.outcome,
        }
    }
}

/// Says that no record has `value`, and which values records have.
fn unknown(directory: &Path, field: Field, value: &str) -> Result<String, AuditError> {
    let all = tally(directory, &Filter::default(), Some(field)).map_err(AuditError::Read)?;
    let names = all.found.iter().map(|(name, _)| name.as_str());
    let names = names.filter(|name| ![NONE, OTHERS].contains(name)).take(SHOWN_MAX);
    let mut text = format!("no record of the journal has the {} `", field.name());
    inert::push(&mut text, value, NAME_CHARS_MAX);
    text.push('`');
    for (index, name) in names.enumerate() {
        text.push_str(if index == 0 { "; some have: " } else { ", " });
        inert::push(&mut text, name, NAME_CHARS_MAX);
    }
    Ok(text)
}

/// A point in time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This one.
    At(SystemTime),
    /// So long before now.
    Ago(Duration),
    /// The beginning of the day that is so many days before today.
    Day(u32),
}

impl When {
    /// Reads a time as a person writes it.
    ///
    /// # Errors
    ///
    /// What may be written.
    pub fn read(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected RFC 3339, a date such as `2026-11-29`, `today`, `yesterday`, or how long ago, \
             such as `15m`"
                .to_owned()
        };
        match text {
            "now" => return Ok(Self::Ago(Duration::ZERO)),
            "today" => return Ok(Self::Day(0)),
            "yesterday" => return Ok(Self::Day(1)),
            _ => {}
        }
        let is_date = text.len() == 10 && text.bytes().filter(|c| *c == b'-').count() == 2;
        let whole = if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() };
        if let Some(time) = rfc3339(&whole) {
            return Ok(Self::At(time));
        }
        humantime::parse_duration(text).map(Self::Ago).map_err(|_| expected())
    }

    /// In the form in which records hold times.
    fn text(self, now: SystemTime) -> String {
        let time = match self {
            Self::At(time) => Some(time),
            Self::Ago(span) => now.checked_sub(span),
            Self::Day(before) => now.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|now| {
                let into_day = now.as_nanos().checked_rem(DAY.as_nanos())?;
                let midnight = now.checked_sub(Duration::from_nanos(into_day.try_into().ok()?))?;
                let day = midnight.checked_sub(DAY.checked_mul(before)?)?;
                SystemTime::UNIX_EPOCH.checked_add(day)
            }),
        };
        let time = time.unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH);
        humantime::format_rfc3339_micros(time).to_string()
    }
}

/// A time in RFC 3339, in UTC or with an offset.
fn rfc3339(text: &str) -> Option<SystemTime> {
    let (local, offset) = match text.len().checked_sub(6).and_then(|at| text.split_at_checked(at)) {
        Some((local, offset)) if offset.starts_with(['+', '-']) && local.contains('T') => {
            (local, Some(offset))
        }
        _ => (text, None),
    };
    let time = humantime::parse_rfc3339_weak(local).ok()?;
    let Some(offset) = offset else { return Some(time) };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let span = Duration::from_secs(hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)?);
    // A clock that is ahead of UTC shows a later time.
    if offset.starts_with('+') { time.checked_sub(span) } else { time.checked_add(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = rfc3339("2026-11-30T19:20:30.5Z").unwrap();
        for (text, expected) in [
            ("2026-11-29", "2026-11-29T00:00:00.000000Z"),
            ("2026-11-29T08:00:00Z", "2026-11-29T08:00:00.000000Z"),
            ("2026-11-29 08:00:00", "2026-11-29T08:00:00.000000Z"),
            ("2026-11-29T08:00:00+02:00", "2026-11-29T06:00:00.000000Z"),
            ("2026-11-29T23:30:00.25-01:30", "2026-11-30T01:00:00.250000Z"),
            ("today", "2026-11-30T00:00:00.000000Z"),
            ("yesterday", "2026-11-29T00:00:00.000000Z"),
            ("15m", "2026-11-30T19:05:30.500000Z"),
            ("7d", "2026-11-23T19:20:30.500000Z"),
            ("now", "2026-11-30T19:20:30.500000Z"),
            ("100000y", "1970-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(When::read(text).map(|it| it.text(now)).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "tomorrow", "2026-13-01", "2026-11-29T08:00:00+25:00", "08:00", "ü", "5"]
        {
            let wrong = When::read(text).unwrap_err();
            assert!(wrong.contains("RFC 3339"), "{text}: {wrong}");
        }
    }
}
