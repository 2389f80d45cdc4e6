//! `bartizan policy explain`: prints what the firewall would do with one message, and why.
//!
//! Uses the same session, gate and policy as the firewall, with fresh rate limits, no upstream, and
//! a record that is printed instead of written. The output is that of this evaluation; nothing is
//! evaluated a second time.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::{ExplainArgs, Failure, INPUT_BYTES_MAX, read_input};
use crate::cli::print;
use crate::config::PackRef;
use bartizan_edge::clock::Clock;
use bartizan_gate::duty::decision::{
    Bound, Decision, GrantScope, HoldRule, Limit, Listing, Obligation, Origin, PolicyRevision,
    Rate, Redaction,
};
use bartizan_gate::duty::hold::TTL_DEFAULT;
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::evidence::record::{AuditRecord, DecisionFacts, Event};
use bartizan_gate::question::access::{AccessRequest, Principal, Server};
use bartizan_gate::session::{Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, Session};
use bartizan_gate::wire::frame::FrameLimits;
use bartizan_gate::wire::protocol::Transport;
use bartizan_rego::RegoPdp;
use bartizan_sync::lock;

/// A policy decision point that stores its last decision.
#[derive(Debug)]
struct Witness {
    policy: RegoPdp,
    answer: Arc<Mutex<Option<Decision>>>,
}

impl Pdp for Witness {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let decision = self.policy.decide(request);
        *lock(&self.answer) = Some(decision.clone());
        decision
    }

    fn list(&self, request: &AccessRequest<'_>, entries: &[ListEntry<'_>]) -> Listing {
        self.policy.list(request, entries)
    }

    fn revision(&self) -> PolicyRevision {
        self.policy.revision()
    }
}

/// Runs `bartizan policy explain`.
pub(super) fn run(args: ExplainArgs) -> Result<ExitCode, Failure> {
    let message = read_input(&args.input)?;
    let facts = server(&args)?;
    let principal = Principal {
        id: args.principal.into(),
        kind: "agent".into(),
        groups: args.group.into_iter().map(Into::into).collect(),
        ..Principal::default()
    };
    let policy = args.source.compile("data.mcp.decision")?;
    let answer = Arc::new(Mutex::new(None));
    let witness = Witness { policy: RegoPdp::strict(policy, 1), answer: Arc::clone(&answer) };
    let gate = Gate::new(config(), Arc::new(witness));
    let server = Arc::new(Protected::new(facts, RefusalForm::Error));
    let mut session = Session::new(Arc::new(principal), server, Transport::Stdio);
    // As where approvers are configured: a call that a rule holds waits.
    let arrival =
        Arrival { raw: message.trim_end().to_owned().into(), may_wait: true, ..Arrival::default() };
    let step = session.client_frame(&gate, &arrival, Clock::start().now());
    let answer = lock(&answer).take();
    print(&text(step.audit_record(), answer.as_ref()))
}

fn server(args: &ExplainArgs) -> Result<Server, Failure> {
    let pack = args.pack.as_deref().map(|pack| {
        PackRef::named(pack).read().map_err(|error| {
            Failure::usage(format!("--pack: {pack}"), error.whats.join("; ")).hint(error.hint)
        })
    });
    let texts = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, text)| (name.as_str().into(), text.as_str().into())).collect()
    };
    Ok(Server {
        name: args.server.as_str().into(),
        environment: args.environment.as_deref().map(Into::into),
        labels: texts(&args.label),
        environment_ids: texts(&args.environment_id),
        pack: pack.transpose()?,
    })
}

/// The configuration of a gate for one message.
fn config() -> GateConfig {
    let mut frame = FrameLimits::default();
    frame.document.bytes_max = usize::try_from(INPUT_BYTES_MAX).unwrap_or(usize::MAX);
    GateConfig {
        mode: Mode::Enforce,
        frame,
        in_flight_max: 1,
        buckets_max: 64,
        boot: "explain".into(),
        digest_key: [0; 32],
    }
}

/// The explanation as text: a key and a value on each line.
fn text(record: &AuditRecord, answer: Option<&Decision>) -> String {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: &str| lines.push(format!("{key:<11} {value}"));
    if let Some(method) = &record.method {
        line("method", method);
    }
    if let Some(tool) = record.target.as_ref().and_then(|target| target.tool.as_deref()) {
        line("tool", tool);
    }
    if let Some(operation) = &record.operation {
        line("operation", &format!("{} in {:?}", operation.effect, operation.environments));
    }
    match &record.decision {
        None => line("effect", "none: the message asks nothing"),
        Some(decision) => verdict(record.event, decision, &mut line),
    }
    for obligation in answer.into_iter().flat_map(|decision| &decision.obligations) {
        match obligation {
            Obligation::Hold(rule) => hold(rule, &mut line),
            Obligation::Limit(limit) => line("obligation", &limited(limit)),
            Obligation::Set { pointer, value } => {
                line("obligation", &format!("set {pointer} to {value}"));
            }
            Obligation::Redact { code, redaction } => {
                line("obligation", &redacted(code, redaction));
            }
        }
    }
    if let Some(decision) = &record.decision {
        if let Some(told) = &decision.told {
            line("told", told);
        }
        line("engine", decision.engine);
        line("revision", &decision.policy);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn verdict(event: Event, decision: &DecisionFacts, line: &mut impl FnMut(&str, &str)) {
    let held = event == Event::Hold;
    line("effect", if held { "hold" } else { decision.effect });
    for reason in &decision.reasons {
        // A held call was not refused: its rules stand below, with who may grant it.
        if held && reason.origin == Origin::Undischarged.as_str() {
            continue;
        }
        line("reason", &format!("{} ({}): {}", reason.code, reason.origin, reason.message));
    }
}

fn bounded(bound: Bound) -> String {
    let per = |rate: Rate| format!("{} in {}", rate.count, humantime::format_duration(rate.period));
    match bound {
        Bound::Sliding(rate) => per(rate),
        Bound::Fixed(rate) => format!("{}, fixed window", per(rate)),
        Bound::Bucket { rate, burst } => format!("{}, burst {burst}", per(rate)),
        Bound::InFlight(most) => format!("{most} in flight"),
    }
}

/// A rule that holds the call, and who may grant it.
fn hold(rule: &HoldRule, line: &mut impl FnMut(&str, &str)) {
    let HoldRule { code, message, tell: _, approvers, ttl, quorum, scopes } = rule;
    line("hold", &format!("{code}: {message}"));
    let groups = approvers.join(", ");
    line("  approvers", if approvers.is_empty() { "any approver" } else { &groups });
    line("  quorum", &quorum.to_string());
    line("  ttl", &humantime::format_duration(ttl.unwrap_or(TTL_DEFAULT)).to_string());
    for GrantScope { code, lasts, count } in scopes {
        let lasts = humantime::format_duration(*lasts);
        line("  scope", &format!("{code}: {count} calls in {lasts}"));
    }
}

fn limited(limit: &Limit) -> String {
    let Limit { code, key, bound, cost } = limit;
    let cost = if *cost == 1 { String::new() } else { format!(", takes {cost}") };
    format!("limit {code}: {}{cost}, for `{key}`", bounded(*bound))
}

fn redacted(code: &str, redaction: &Redaction) -> String {
    match redaction {
        Redaction::Pointer(pointer) => format!("redact {code}: {pointer} of the answer"),
        Redaction::Secrets => format!("redact {code}: secrets in the answer"),
    }
}
