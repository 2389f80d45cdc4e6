//! The demo: a service, Bartizan in front of it, and an agent that makes permitted and forbidden
//! calls.
//!
//! Everything runs in one process on loopback and is real: rmcp is server and client, in both
//! protocol eras, and the rule shown for each attempt is read from the audit journal. The demo
//! compares each attempt with its expected result; one difference fails the demo. The caller
//! (`bartizan demo`, tests) passes a function that starts the firewall, so that tests can put
//! something else in its place.

mod agent;
mod approver;
mod flags;
mod journal;
mod server;
mod service;
mod show;
mod vendor;

use std::fmt;
use std::future::{Future, pending};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::agent::{Agent, Answer, Attempt, Expected, Seen};
use bartizan_audit::entry::JournalRecord;
use bartizan_audit::verify::{self, Extent, verify};
use bartizan_gate::evidence::record::Event;
use bartizan_peer::client::HttpClient;

pub use self::approver::Approver;
pub use self::server::{FlagService, PATH, ReceivedRequest, serve_flag_service, serve_vendor};
pub use self::vendor::Vendor;

/// What the firewall to start must protect.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The MCP endpoint to protect.
    pub upstream: String,
    /// The vendor whose server that is.
    pub vendor: Vendor,
    /// The environment that its writes are pinned to.
    pub environment: &'static str,
    /// An empty directory for the firewall's state.
    pub state: PathBuf,
}

/// A running firewall.
pub struct Firewall {
    /// Where agents reach the service through it.
    pub url: String,
    /// How a person answers calls that it holds; `None` if it holds none.
    pub approver: Option<Approver>,
    /// The directory of its journal.
    pub journal: PathBuf,
    /// Stops it; ready when the journal is closed. Does nothing until it is awaited.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Firewall").field("url", &self.url).finish_non_exhaustive()
    }
}

/// How to run the demo.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// An empty directory for the firewall's state.
    pub state: PathBuf,
    /// Whether the demo itself grants the call that waits for a person.
    pub auto: bool,
    /// Whether to go on serving until [`Self::interrupt`] is cancelled.
    pub stay: bool,
    /// The vendor whose server is protected.
    pub vendor: Vendor,
    /// Ends the demo early, in order, when it is cancelled; with `stay` it is the only end.
    pub interrupt: CancellationToken,
}

/// Why the demo could not run.
#[derive(Debug)]
pub enum DemoError {
    /// A socket or file operation failed; the text says which.
    Io(&'static str, io::Error),
    /// The firewall did not start.
    Firewall(String),
    /// A command of `bartizan approvals` failed; the text is what it said.
    Approvals(String),
    /// The journal could not be read back.
    Journal(String),
    /// It was interrupted before it was through.
    Interrupted,
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(doing, error) => write!(f, "{doing}: {error}"),
            Self::Firewall(text) => write!(f, "the firewall did not start: {text}"),
            Self::Approvals(text) => write!(f, "bartizan approvals: {text}"),
            Self::Journal(text) => write!(f, "the journal cannot be read back: {text}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for DemoError {}

fn doing(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |error| DemoError::Io(what, error)
}

/// The demo's results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoSummary {
    /// Attempts of the script.
    pub attempts: usize,
    /// Attempts that passed.
    pub passed: usize,
    /// Attempts that ended in a refusal.
    pub refused: usize,
    /// Attempts with an unexpected result.
    pub faults: usize,
    /// Bodies that the server received.
    pub reached: usize,
    /// Bodies that the server received but the agent did not send.
    pub altered: usize,
    /// Whether the state of production is unchanged.
    pub production_unchanged: bool,
    /// The result of verifying the journal, or the error.
    pub journal: Result<verify::JournalSummary, String>,
}

impl DemoSummary {
    /// Whether everything is as expected.
    pub fn is_as_expected(&self) -> bool {
        self.faults == 0 && self.altered == 0 && self.production_unchanged && self.journal.is_ok()
    }
}

/// One attempt and its result.
#[derive(Debug, Clone)]
struct AttemptReport {
    era: &'static str,
    what: &'static str,
    verdict: &'static str,
    rule: String,
    reached: usize,
    fault: Option<String>,
}

impl AttemptReport {
    fn reached_text(&self) -> String {
        match self.reached {
            0 => "no".to_owned(),
            1 if self.verdict == REFUSED => "1 message, then none".to_owned(),
            1 => "yes".to_owned(),
            more if self.verdict == REFUSED => format!("{more} messages, then none"),
            more => format!("yes, {more} messages"),
        }
    }
}

/// Runs the demo and returns its results.
///
/// `start` starts a firewall in front of the service; the report is written to `out`. Fails if a
/// socket, the firewall or the journal fails.
pub async fn run<F, S>(
    options: &DemoOptions,
    start: F,
    out: &mut (dyn Write + Send),
) -> Result<DemoSummary, DemoError>
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
    let started = tokio::select! {
        started = start(setting) => started.map_err(DemoError::Firewall)?,
        () = options.interrupt.cancelled() => return Err(DemoError::Interrupted),
    };
    let Firewall { url, approver, journal, stop } = started;
    let stage = Stage {
        vendor: options.vendor,
        service,
        url,
        approver,
        auto: options.auto,
        journal,
        http: HttpClient::new(),
    };
    let production = stage.service.snapshot("production");
    let played = tokio::select! {
        report = stage.play(out) => Some(report?),
        () = options.interrupt.cancelled() => None,
    };
    let Some(report) = played else {
        stop.await; // writes its last records before the caller deletes them
        closing.cancel();
        return Err(DemoError::Interrupted);
    };
    let mut stop = Some(stop);
    if !options.stay
        && let Some(stop) = stop.take()
    {
        stop.await; // first, so that the journal is whole when it is shown
    }
    let summary = stage.sum_up(&report, &production, out)?;
    if let Some(stop) = stop {
        show::invitation(out, &stage.url, &stage.journal).map_err(doing("writing"))?;
        tokio::select! {
            () = options.interrupt.cancelled() => {}
            failed = stage.leave_one_held(out) => return Err(failed),
        }
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

/// Serves the stand-in for `vendor` without a firewall on `port` of loopback (0 for any) until
/// Ctrl-C, for other clients and for interoperability tests. Fails if the socket or `out` fails.
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

/// The running parts of the demo.
struct Stage {
    vendor: Vendor,
    service: FlagService,
    url: String,
    approver: Option<Approver>,
    auto: bool,
    journal: PathBuf,
    http: HttpClient,
}

impl Stage {
    async fn play(&self, out: &mut (dyn Write + Send)) -> Result<Vec<AttemptReport>, DemoError> {
        show::opening(out, self.vendor.title(), &self.service.url(), &self.url)
            .map_err(doing("writing"))?;
        let mut agent = Agent::new(&self.url, self.http.clone());
        let mut report = Vec::new();
        for attempt in self.vendor.script() {
            let one = self.attempt(&mut agent, &attempt, out).await?;
            report.push(one.clone());
            show::attempt(out, report.len(), &one).map_err(doing("writing"))?;
        }
        agent.close().await;
        Ok(report)
    }

    fn sum_up(
        &self,
        report: &[AttemptReport],
        production: &serde_json::Value,
        out: &mut dyn Write,
    ) -> Result<DemoSummary, DemoError> {
        show::records(out, &self.records(1)?).map_err(doing("writing"))?;
        let received = self.service.received_since(0);
        let count = |verdict| report.iter().filter(|one| one.verdict == verdict).count();
        let summary = DemoSummary {
            attempts: report.len(),
            passed: count(PASSED),
            refused: count(REFUSED),
            faults: report.iter().filter(|one| one.fault.is_some()).count(),
            reached: received.len(),
            altered: received.iter().filter(|body| !self.http.sent(body)).count(),
            production_unchanged: self.service.snapshot("production") == *production,
            journal: verify(&self.journal, Extent::Whole).map_err(|error| error.to_string()),
        };
        show::summary(out, &summary).map_err(doing("writing"))?;
        Ok(summary)
    }

    async fn attempt(
        &self,
        agent: &mut Agent,
        attempt: &Attempt,
        out: &mut (dyn Write + Send),
    ) -> Result<AttemptReport, DemoError> {
        let reached_before = self.service.received_count();
        let next = self.records(1)?.last().map_or(1, |entry| entry.seq.saturating_add(1));
        let seen = match (attempt.expected, &self.approver) {
            (Expected::Held(answer), Some(approver)) => {
                let mut call = pin!(agent.attempt(attempt));
                tokio::select! {
                    seen = &mut call => seen, // nothing held it
                    asked = self.ask(approver, answer, out) => {
                        asked?;
                        let seen = call.await;
                        if answer == Answer::Grant && !self.auto {
                            show::answer_of_person(out, &seen).map_err(doing("writing"))?;
                        }
                        seen
                    }
                }
            }
            _ => agent.attempt(attempt).await,
        };
        let reached = self.service.received_count().saturating_sub(reached_before);
        Ok(evaluate(attempt, &seen, reached, &self.records(next)?, self.auto))
    }

    /// Waits until a call is held. Then answers it, or says how a person does.
    async fn ask(
        &self,
        approver: &Approver,
        answer: Answer,
        out: &mut (dyn Write + Send),
    ) -> Result<(), DemoError> {
        let id = approver.held().await?;
        let command = approver.typed(&id, answer);
        if self.auto || answer == Answer::Refuse {
            show::answered(out, &command).map_err(doing("writing"))?;
            return approver.answer(&id, answer).await;
        }
        show::asked(out, &command).map_err(doing("writing"))
    }

    /// Makes a call that is held, so that there is something to answer, and says what became of it.
    /// Then waits for ever; returns only if something fails.
    async fn leave_one_held(&self, out: &mut (dyn Write + Send)) -> DemoError {
        let Some(approver) = &self.approver else {
            return pending().await;
        };
        let mut agent = Agent::new(&self.url, self.http.clone());
        let [connect, call] = agent::left_held();
        agent.attempt(&connect).await;
        loop {
            let mut calling = pin!(agent.attempt(&call));
            tokio::select! {
                // The flood has used up the rate limit.
                _ = &mut calling => sleep(REPEAT).await,
                held = approver.held() => {
                    if let Err(error) = held {
                        return error;
                    }
                    let told = show::console(out, &approver.admin, &approver.token_file);
                    let Err(error) = told.and(show::became(out, &calling.await)) else {
                        return pending().await;
                    };
                    return DemoError::Io("writing", error);
                }
            }
        }
    }

    fn records(&self, from_seq: u64) -> Result<Vec<JournalRecord>, DemoError> {
        journal::read(&self.journal, from_seq)
    }
}

/// How long after a refusal the call that is left waiting is made again.
const REPEAT: Duration = Duration::from_secs(5);

const PASSED: &str = "passed";
const REFUSED: &str = "REFUSED";
const FAILED: &str = "FAILED";

/// Compares what the agent and the server saw, and the journal's record, with what is expected.
fn evaluate(
    attempt: &Attempt,
    seen: &Seen,
    reached: usize,
    records: &[JournalRecord],
    auto: bool,
) -> AttemptReport {
    let decision = match seen {
        Seen::Refusal { decision, .. } => decision.as_deref(),
        Seen::Answer(_) | Seen::Failure(_) => None,
    };
    let (method, tool) = attempt.target();
    let record = journal::decided(records, decision, method, tool);
    let blamed = |grounds| record.is_some_and(|record| journal::is_on(record, grounds));
    let held = record.is_some_and(|record| record.event == Event::Hold.as_str());
    let fault = match (seen, attempt.expected) {
        (Seen::Failure(text), _) => Some(text.clone()),
        (_, _) if record.is_none() => Some("the journal has no record of it".to_owned()),
        (Seen::Answer(_), Expected::Passed) if reached > 0 => None,
        (Seen::Refusal { .. }, Expected::Refused(grounds)) if reached == 0 && blamed(grounds) => {
            None
        }
        (Seen::Answer(_), Expected::Held(Answer::Grant)) if held && reached > 0 => None,
        // A person may refuse it, or not answer.
        (Seen::Refusal { .. }, Expected::Held(answer))
            if held && reached == 0 && (answer == Answer::Refuse || !auto) =>
        {
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
    AttemptReport {
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

    use super::agent::{AgentAction, AttemptKind};
    use bartizan_audit::entry::{DecisionRecord, ReasonRecord, TargetRecord};
    use bartizan_gate::duty::decision::Origin;

    fn record(event: Event, origin: &str) -> JournalRecord {
        let reason = ReasonRecord {
            code: "some-rule".to_owned(),
            origin: origin.to_owned(),
            ..ReasonRecord::default()
        };
        JournalRecord {
            event: event.as_str().to_owned(),
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
            let attempt = Attempt {
                era: AttemptKind::Modern,
                what: "try",
                action: AgentAction::Call("x", json!({})),
                expected,
            };
            let report = evaluate(&attempt, seen, reached, &[record(Event::Denial, origin)], true);
            assert_eq!(report.fault.is_none(), right, "{expected:?} {seen:?} {reached} {origin}");
            assert_eq!(report.rule, "some-rule");
            let report = evaluate(&attempt, seen, reached, &[], true);
            assert!(report.fault.is_some(), "without a record nothing is as it should be");
        }
    }

    #[test]
    fn a_held_call_passes_by_a_grant_alone() {
        let answer = Seen::Answer("a result".to_owned());
        let (grant, refuse) = (Answer::Grant, Answer::Refuse);
        for (expected, auto, seen, reached, event, right) in [
            (grant, true, &answer, 1, Event::Hold, true),
            (grant, true, &answer, 1, Event::Intent, false), // nothing held it
            (grant, true, &answer, 0, Event::Hold, false),
            (grant, true, &refusal(0), 0, Event::Hold, false),
            (grant, false, &answer, 1, Event::Hold, true),
            (grant, false, &refusal(0), 0, Event::Hold, true), // a person did not grant it
            (grant, false, &refusal(0), 1, Event::Hold, false),
            (grant, false, &refusal(0), 0, Event::Denial, false),
            (refuse, true, &refusal(0), 0, Event::Hold, true),
            (refuse, true, &refusal(0), 0, Event::Denial, false),
            (refuse, false, &answer, 1, Event::Hold, false),
            (refuse, true, &refusal(0), 1, Event::Hold, false),
        ] {
            let attempt = Attempt {
                era: AttemptKind::Legacy,
                what: "try",
                action: AgentAction::Call("x", json!({})),
                expected: Expected::Held(expected),
            };
            let report = evaluate(&attempt, seen, reached, &[record(event, "rule")], auto);
            assert_eq!(report.fault.is_none(), right, "{expected:?} {auto} {seen:?} {event:?}");
        }
    }

    #[test]
    fn one_thing_wrong_is_enough() {
        let right = DemoSummary {
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
            DemoSummary { faults: 1, ..right.clone() },
            DemoSummary { altered: 1, ..right.clone() },
            DemoSummary { production_unchanged: false, ..right.clone() },
            DemoSummary { journal: Err("broken".to_owned()), ..right },
        ] {
            assert!(!wrong.is_as_expected(), "{wrong:?}");
        }
    }
}
