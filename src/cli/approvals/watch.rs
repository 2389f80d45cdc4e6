//! `bartizan approvals watch`: prints held calls as they come, and what becomes of them.
//!
//! Each reading asks for what got into its state since the newest change that was read before, so a hold
//! that is granted and used at once is told, too: at least the last of its states. If the firewall goes
//! away, it waits with growing pauses and goes on where it was.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::client::{CallFailure, Client};
use super::held::{Held, Listed};
use super::show;
use crate::cli::{Failure, print};

/// Least time between two lists, so that many changes at once are one.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before the first attempt to reach a firewall that went away. Each further one is twice as
/// long, up to [`AWAY_PAUSE_MAX`].
const AWAY_PAUSE: Duration = Duration::from_millis(250);
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Holds whose state is remembered, about.
const KNOWN_MAX: usize = 10_000;

/// What was told.
struct Watch<'a> {
    client: &'a Client,
    json: bool,
    /// When the newest change was that was read, milliseconds since 1970 by the firewall's clock.
    since_ms: u64,
    /// The states that were read of holds that changed then, or that wait.
    known: BTreeMap<String, String>,
}

/// Prints until the firewall refuses to answer; one that cannot be reached any more is waited for.
pub(super) async fn run(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let mut watch = Watch { client, json, since_ms: 0, known: BTreeMap::new() };
    let mut change = watch.begin().await?;
    loop {
        tokio::time::sleep(PAUSE).await;
        let read = match client.changed(change).await {
            Ok(()) => watch.news().await,
            Err(failure) => Err(failure.into()),
        };
        change = match read {
            Ok(read) => read,
            Err(Stop::Call(lost)) if lost.passes => watch.back(&lost).await?,
            Err(Stop::Call(lost)) => return Err(lost.into()),
            Err(Stop::Output(failure)) => return Err(failure),
        };
    }
}

/// Why a reading ended.
enum Stop {
    /// A call failed.
    Call(CallFailure),
    /// The answer could not be read, or nothing can be printed.
    Output(Failure),
}

impl From<CallFailure> for Stop {
    fn from(failure: CallFailure) -> Self {
        Self::Call(failure)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Output(failure)
    }
}

impl Watch<'_> {
    /// Tells what waits, and takes all else as known. Returns the number of the latest change.
    async fn begin(&mut self) -> Result<u64, Failure> {
        let waiting = self.client.list("pending").await?.read()?;
        let all = self.client.since(0).await?.read()?;
        for held in &waiting.approvals {
            self.tell("held", held, || show::come(held))?;
        }
        for held in all.approvals.iter().chain(&waiting.approvals) {
            self.know(held);
        }
        self.forget();
        Ok(waiting.change)
    }

    /// Tells what has changed. Returns the number of the latest change.
    async fn news(&mut self) -> Result<u64, Stop> {
        let Listed { change, approvals, more } = self.client.since(self.since_ms).await?.read()?;
        for held in &approvals {
            if self.known.get(&held.id) == Some(&held.state) {
                continue;
            }
            if held.state == "pending" {
                self.tell("held", held, || show::come(held))?;
            } else {
                self.tell("changed", held, || show::gone(held))?;
            }
            self.know(held);
        }
        if more > 0 {
            say(&format!("{more} more changes at once are not shown; see `approvals list`"));
        }
        self.forget();
        Ok(change)
    }

    /// Waits until the firewall answers again, and tells what has changed meanwhile.
    async fn back(&mut self, lost: &CallFailure) -> Result<u64, Failure> {
        let what = lost.failure.to_string();
        let what = what.lines().next().unwrap_or_default();
        say(&format!("{what}; trying again until it is back"));
        let mut pause = AWAY_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            match self.news().await {
                Ok(change) => {
                    say("the firewall is back");
                    return Ok(change);
                }
                Err(Stop::Call(lost)) if lost.passes => {
                    pause = pause.saturating_mul(2).min(AWAY_PAUSE_MAX);
                }
                Err(Stop::Call(lost)) => return Err(lost.into()),
                Err(Stop::Output(failure)) => return Err(failure),
            }
        }
    }

    fn know(&mut self, held: &Held) {
        self.since_ms = self.since_ms.max(held.changed_unix_ms);
        self.known.insert(held.id.clone(), held.state.clone());
    }

    /// Forgets ended holds when there are many: those that changed in the last moment are asked for
    /// again, and no more.
    fn forget(&mut self) {
        if self.known.len() > KNOWN_MAX {
            self.known.retain(|_, state| state == "pending" || state == "granted");
            // The ended ones of this moment would be told again.
            self.since_ms = self.since_ms.saturating_add(1);
        }
    }

    fn tell(&self, event: &str, held: &Held, line: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = if self.json {
            let value = json!({ "event": event, "approval": held });
            bartizan_audit::inert::escaped(&value.to_string()) + "\n"
        } else {
            line()
        };
        print(&text).map(drop)
    }
}

/// Says something about the watch itself, beside what is printed for programs.
fn say(what: &str) {
    // If nobody reads standard error, the watch still goes on.
    drop(writeln!(std::io::stderr(), "{what}"));
}
