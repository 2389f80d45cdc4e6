//! The demo: a service, Bartizan in front of it, and an agent that tries its luck.
//!
//! Everything runs in one process on loopback and is real: rmcp serves and rmcp asks, in both
//! protocol eras, and what is said of a rule is read from the audit journal. The demo judges each
//! attempt against what ought to happen; one surprise, and it fails. It decides nothing about
//! traffic itself, and the firewall is handed in already able to start, so that tests can put
//! something else in its place.

mod agent;
mod flags;
mod journal;
mod server;
mod service;
mod show;
mod vendor;

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::agent::{Agent, Attempt, Expected, Seen};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::verify::{self, Extent, verify};
use bartizan_peer::client::HttpClient;

pub use self::server::{FlagService, PATH, Reached, serve_flag_service, serve_vendor};
pub use self::vendor::Vendor;

/// What a firewall is to be started on.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The MCP endpoint to protect.
    pub upstream: String,
    /// Whose server that is.
    pub vendor: Vendor,
    /// The environment that its writes are pinned to.
    pub environment: &'static str,
    /// An empty directory of its own.
    pub state: PathBuf,
}

/// A firewall that runs.
pub struct Firewall {
    /// Where agents reach the service through it.
    pub url: String,
    /// The directory of its journal.
    pub journal: PathBuf,
    /// Drains it; done when the journal is closed. Nothing happens until it is awaited.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Firewall").field("url", &self.url).finish_non_exhaustive()
    }
}

/// How the demo is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the firewall keeps its state: an empty directory.
    pub state: PathBuf,
    /// Go on serving until Ctrl-C.
    pub stay: bool,
    /// Whose server is protected.
    pub vendor: Vendor,
}

/// Why the demo could not be given at all.
#[derive(Debug)]
pub enum DemoError {
    /// A socket or a file failed; what was being done.
    Io(&'static str, io::Error),
    /// The firewall did not start.
    Firewall(String),
    /// The journal could not be read back.
    Journal(String),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(doing, error) => write!(f, "{doing}: {error}"),
            Self::Firewall(text) => write!(f, "the firewall did not start: {text}"),
            Self::Journal(text) => write!(f, "the journal cannot be read back: {text}"),
        }
    }
}

impl std::error::Error for DemoError {}

fn doing(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |error| DemoError::Io(what, error)
}

/// What the demo came to, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Lines of the script.
    pub attempts: usize,
    /// Those that passed, a flood by its first call.
    pub passed: usize,
    /// Those that ended in a refusal.
    pub refused: usize,
    /// Those that went otherwise than they should.
    pub faults: usize,
    /// Bodies that the server received.
    pub reached: usize,
    /// Bodies that the server received and the agent did not send.
    pub altered: usize,
    /// Whether production is as it was.
    pub production_unchanged: bool,
    /// What the verification of the journal found, or what is wrong with it.
    pub journal: Result<verify::JournalSummary, String>,
}

impl Summary {
    /// Whether all of it is as it should be.
    pub fn is_as_expected(&self) -> bool {
        self.faults == 0 && self.altered == 0 && self.production_unchanged && self.journal.is_ok()
    }
}

/// One attempt, judged.
#[derive(Debug, Clone)]
struct Judged {
    era: &'static str,
    what: &'static str,
    verdict: &'static str,
    rule: String,
    reached: usize,
    fault: Option<String>,
}

impl Judged {
    fn reached_text(&self) -> String {
        match self.reached {
            0 => "no".to_owned(),
            1 => "yes".to_owned(),
            more if self.verdict == REFUSED => format!("{more} messages, then none"),
            more => format!("yes, {more} messages"),
        }
    }
}

/// Gives the demo and says what it came to.
///
/// `start` puts a firewall in front of the service; what is shown goes to `out`.
pub async fn run<F, S>(
    options: &Options,
    start: F,
    out: &mut (dyn Write + Send),
) -> Result<Summary, DemoError>
where
    F: FnOnce(Setting) -> S,
    S: Future<Output = Result<Firewall, String>>,
{
    let closing = CancellationToken::new();
    let service = served(options.vendor, 0, &closing).await?;
    let setting = Setting {
        upstream: service.url(),
        vendor: options.vendor,
        environment: "staging",
        state: options.state.clone(),
    };
    let Firewall { url, journal, stop } = start(setting).await.map_err(DemoError::Firewall)?;
    let stage = Stage { vendor: options.vendor, service, url, journal, http: HttpClient::new() };
    let production = stage.service.snapshot("production");
    let judged = stage.play(out).await?;
    let mut stop = Some(stop);
    if !options.stay
        && let Some(stop) = stop.take()
    {
        stop.await; // first, so that the journal is whole when it is shown
    }
    let summary = stage.sum_up(&judged, &production, out)?;
    if let Some(stop) = stop {
        show::invitation(out, &stage.url, &stage.journal).map_err(doing("writing"))?;
        tokio::signal::ctrl_c().await.map_err(doing("waiting for Ctrl-C"))?;
        stop.await;
    }
    closing.cancel();
    stage.service.closed().await;
    Ok(summary)
}

async fn served(
    vendor: Vendor,
    port: u16,
    closing: &CancellationToken,
) -> Result<FlagService, DemoError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(doing("binding the service to loopback"))?;
    serve_vendor(vendor, listener, closing.clone()).map_err(doing("serving the service"))
}

/// Serves what stands in for `vendor` alone on `port` of loopback, 0 for any, until Ctrl-C: for
/// other clients, and for tests of interoperability.
pub async fn serve_alone(
    vendor: Vendor,
    port: u16,
    out: &mut (dyn Write + Send),
) -> Result<(), DemoError> {
    let closing = CancellationToken::new();
    let service = served(vendor, port, &closing).await?;
    writeln!(out, "{}", service.url()).map_err(doing("writing"))?;
    out.flush().map_err(doing("writing"))?;
    tokio::signal::ctrl_c().await.map_err(doing("waiting for Ctrl-C"))?;
    closing.cancel();
    service.closed().await;
    Ok(())
}

/// Everybody on it.
struct Stage {
    vendor: Vendor,
    service: FlagService,
    url: String,
    journal: PathBuf,
    http: HttpClient,
}

impl Stage {
    async fn play(&self, out: &mut (dyn Write + Send)) -> Result<Vec<Judged>, DemoError> {
        show::opening(out, self.vendor.title(), &self.service.url(), &self.url)
            .map_err(doing("writing"))?;
        let mut agent = Agent::new(&self.url, self.http.clone());
        let mut judged = Vec::new();
        for attempt in self.vendor.script() {
            let one = self.attempt(&mut agent, &attempt).await?;
            judged.push(one.clone());
            show::attempt(out, judged.len(), &one).map_err(doing("writing"))?;
        }
        agent.close().await;
        Ok(judged)
    }

    fn sum_up(
        &self,
        judged: &[Judged],
        production: &serde_json::Value,
        out: &mut dyn Write,
    ) -> Result<Summary, DemoError> {
        show::records(out, &self.records(1)?).map_err(doing("writing"))?;
        let received = self.service.received_since(0);
        let count = |verdict| judged.iter().filter(|one| one.verdict == verdict).count();
        let summary = Summary {
            attempts: judged.len(),
            passed: count(PASSED),
            refused: count(REFUSED),
            faults: judged.iter().filter(|one| one.fault.is_some()).count(),
            reached: received.len(),
            altered: received.iter().filter(|body| !self.http.sent(body)).count(),
            production_unchanged: self.service.snapshot("production") == *production,
            journal: verify(&self.journal, Extent::Whole).map_err(|error| error.to_string()),
        };
        show::summary(out, &summary).map_err(doing("writing"))?;
        Ok(summary)
    }

    async fn attempt(&self, agent: &mut Agent, attempt: &Attempt) -> Result<Judged, DemoError> {
        let reached_before = self.service.received_count();
        let next = self.records(1)?.last().map_or(1, |entry| entry.seq.saturating_add(1));
        let seen = agent.attempt(attempt).await;
        let reached = self.service.received_count().saturating_sub(reached_before);
        Ok(judge(attempt, &seen, reached, &self.records(next)?))
    }

    fn records(&self, from_seq: u64) -> Result<Vec<JournalRecord>, DemoError> {
        journal::read(&self.journal, from_seq)
    }
}

const PASSED: &str = "passed";
const REFUSED: &str = "REFUSED";
const FAILED: &str = "FAILED";

/// Judges what was seen against what ought to be, by what the journal says of it.
fn judge(attempt: &Attempt, seen: &Seen, reached: usize, records: &[JournalRecord]) -> Judged {
    let decision = match seen {
        Seen::Refusal { decision, .. } => decision.as_deref(),
        Seen::Answer(_) | Seen::Failure(_) => None,
    };
    let (method, tool) = attempt.target();
    let record = journal::decided(records, decision, method, tool);
    let blamed = |grounds| record.is_some_and(|record| journal::is_on(record, grounds));
    let fault = match (seen, attempt.expected) {
        (Seen::Failure(text), _) => Some(text.clone()),
        (_, _) if record.is_none() => Some("the journal has no record of it".to_owned()),
        (Seen::Answer(_), Expected::Passed) if reached > 0 => None,
        (Seen::Refusal { .. }, Expected::Refused(grounds)) if reached == 0 && blamed(grounds) => {
            None
        }
        (Seen::Refusal { passed, .. }, Expected::Throttled(ground))
            if reached == *passed && blamed(&[ground]) =>
        {
            None
        }
        (Seen::Answer(text), _) => Some(format!("{text}; {reached} messages reached the server")),
        (Seen::Refusal { text, .. }, _) => Some(format!(
            "{text}; {reached} messages reached the server, or the grounds are others"
        )),
    };
    let verdict = match seen {
        Seen::Answer(_) => PASSED,
        Seen::Refusal { .. } => REFUSED,
        Seen::Failure(_) => FAILED,
    };
    let rule = record.map(|record| journal::codes(record, attempt.expected.grounds()));
    Judged {
        era: attempt.era.as_str(),
        what: attempt.what,
        verdict,
        rule: rule.unwrap_or_default().join(", "),
        reached,
        fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use super::agent::{Act, Era};
    use bartizan_audit::entry::{DecisionRecord, ReasonRecord, TargetRecord};
    use bartizan_gate::duty::decision::Origin;

    fn record(origin: &str) -> JournalRecord {
        let reason = ReasonRecord {
            code: "some-rule".to_owned(),
            origin: origin.to_owned(),
            ..ReasonRecord::default()
        };
        JournalRecord {
            call: Some("c1".to_owned()),
            method: Some("tools/call".to_owned()),
            target: Some(TargetRecord { tool: Some("x".to_owned()), ..TargetRecord::default() }),
            decision: Some(DecisionRecord { reasons: vec![reason], ..DecisionRecord::default() }),
            ..JournalRecord::default()
        }
    }

    fn refusal(passed: usize) -> Seen {
        Seen::Refusal { passed, decision: Some("c1".to_owned()), text: "no".to_owned() }
    }

    #[test]
    fn only_what_was_expected_is_without_fault() {
        let answer = Seen::Answer("a result".to_owned());
        let failure = Seen::Failure("no answer".to_owned());
        let refused = Expected::Refused(&[Origin::Rule, Origin::NotApplicable]);
        let throttled = Expected::Throttled(Origin::Limited);
        for (expected, seen, reached, origin, right) in [
            (Expected::Passed, &answer, 1, "rule", true),
            (Expected::Passed, &answer, 0, "rule", false), // answered by somebody else
            (Expected::Passed, &refusal(0), 0, "rule", false),
            (Expected::Passed, &failure, 1, "rule", false),
            (refused, &refusal(0), 0, "rule", true),
            (refused, &refusal(0), 0, "not_applicable", true),
            (refused, &refusal(0), 0, "indeterminate", false), // refused, for the wrong reason
            (refused, &refusal(0), 1, "rule", false),          // refused, yet it got through
            (refused, &answer, 1, "rule", false),
            (refused, &failure, 0, "rule", false),
            (throttled, &refusal(3), 3, "limited", true),
            (throttled, &refusal(3), 4, "limited", false),
            (throttled, &refusal(3), 3, "rule", false),
            (throttled, &answer, 200, "rule", false),
        ] {
            let attempt =
                Attempt { era: Era::Modern, what: "try", act: Act::Call("x", json!({})), expected };
            let judged = judge(&attempt, seen, reached, &[record(origin)]);
            assert_eq!(judged.fault.is_none(), right, "{expected:?} {seen:?} {reached} {origin}");
            assert_eq!(judged.rule, "some-rule");
            let judged = judge(&attempt, seen, reached, &[]);
            assert!(judged.fault.is_some(), "without a record nothing is as it should be");
        }
    }

    #[test]
    fn one_thing_wrong_is_enough() {
        let right = Summary {
            attempts: 2,
            passed: 1,
            refused: 1,
            faults: 0,
            reached: 1,
            altered: 0,
            production_unchanged: true,
            journal: Ok(verify::JournalSummary::default()),
        };
        assert!(right.is_as_expected());
        for wrong in [
            Summary { faults: 1, ..right.clone() },
            Summary { altered: 1, ..right.clone() },
            Summary { production_unchanged: false, ..right.clone() },
            Summary { journal: Err("broken".to_owned()), ..right },
        ] {
            assert!(!wrong.is_as_expected(), "{wrong:?}");
        }
    }
}
