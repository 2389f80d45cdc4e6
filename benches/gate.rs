//! What the gate costs, step by step. One group a step; figures are for one core.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a wrong bench may end in a panic"
)]

use bartizan::policy::embedded;
use bartizan_gate::duty::decision::{
    Decision, Effect, Engine, Listing, Origin, PolicyRevision, Reason,
};
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::evidence::record::{AuditRecord, Now};
use bartizan_gate::evidence::step::{Act, AuditSink, Unkept};
use bartizan_gate::question::access::{
    AccessRequest, Action, Principal, Resource, Server, WallTime,
};
use bartizan_gate::question::operation::Operation;
use bartizan_gate::question::pack::Pack;
use bartizan_gate::question::status::DefinitionStatus;
use bartizan_gate::session::{Arrival, Gate, GateConfig, Mode, Protected, RefusalForm, Session};
use bartizan_gate::wire::document::Value;
use bartizan_gate::wire::frame::{Frame, FrameLimits, Sender};
use bartizan_gate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};
use bartizan_rego::{Entrypoints, EvalLimits, Policy, PolicySources, RegoPdp};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A `tools/call` of exactly 1 KiB, as an agent writes it: the call that all groups use.
fn call() -> Bytes {
    let head = concat!(
        r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"update_flag","#,
        r#""arguments":{"id":"checkout_redesign","environment":"staging","isEnabled":true,"#,
        r#""tags":["checkout","experiment","web"],"passPercentage":25.5,"holdoutIDs":[],"rules":["#,
        r#"{"name":"staff","environments":["staging"],"passPercentage":100,"conditions":["#,
        r#"{"type":"email","operator":"str_ends_with_any","targetValue":["@example.com"]}]},"#,
        r#"{"name":"beta","environments":["staging"],"passPercentage":25.5,"conditions":["#,
        r#"{"type":"custom_field","field":"plan","operator":"any","targetValue":["pro","team"]},"#,
        r#"{"type":"country","operator":"any","targetValue":["DE","FR","PL"]}]}],"description":""#,
    );
    let tail = concat!(
        r#""},"_meta":{"progressToken":"5f0c","io.modelcontextprotocol/protocolVersion":"#,
        r#""2026-07-28"}}}"#,
    );
    let text =
        "Rolls the new checkout out to staff first, then to beta accounts. \\\"Go slow.\\\" ";
    let mut call = head.to_owned();
    call.extend(text.chars().cycle().take(1024 - head.len() - tail.len() - 1));
    call.push_str(if call.ends_with('\\') { "n" } else { "." });
    call.push_str(tail);
    assert_eq!(call.len(), 1024);
    Bytes::from(call)
}

/// Bytes to a frame: the budget is 3 µs.
fn read(criterion: &mut Criterion) {
    let call = call();
    let limits = FrameLimits::default();
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("read 1 KiB tools/call", |bencher| {
        bencher.iter(|| Frame::read(black_box(call.clone()), Sender::Client, &limits).unwrap());
    });
    group.bench_function("minify 1 KiB tools/call", |bencher| {
        bencher.iter_batched_ref(
            || Frame::read(call.clone(), Sender::Client, &limits).unwrap(),
            |frame| frame.document().minified(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

const NOW: Now = Now { uptime: Duration::from_secs(1), wall: SystemTime::UNIX_EPOCH };

/// Permits without looking.
#[derive(Debug)]
struct Always(PolicyRevision);

impl Pdp for Always {
    fn decide(&self, _: &AccessRequest<'_>) -> Decision {
        let reason =
            Reason { code: "b".into(), message: "b".into(), origin: Origin::Rule, tell: None };
        Decision {
            effect: Effect::Permit,
            reasons: vec![reason],
            obligations: Vec::new(),
            revision: Arc::clone(&self.0),
            engine: Engine::None,
        }
    }

    fn list(&self, _: &AccessRequest<'_>, _: &[ListEntry<'_>]) -> Listing {
        Listing::Hide { names: Vec::new(), revision: Arc::clone(&self.0) }
    }

    fn revision(&self) -> PolicyRevision {
        Arc::clone(&self.0)
    }
}

/// Keeps nothing, at once.
struct Nowhere;

impl AuditSink for Nowhere {
    fn keep(&self, record: &AuditRecord) -> Result<(), Unkept> {
        black_box(record);
        Ok(())
    }
}

/// The demo's flag server, pinned to staging.
fn server() -> Server {
    let pack = Pack::read(embedded::pack("flag-service").unwrap().as_bytes()).unwrap();
    Server {
        name: "flags".into(),
        environment: Some("staging".into()),
        pack: Some(Arc::new(pack)),
        ..Server::default()
    }
}

/// The baseline, and a rule that hides a tool.
fn policy() -> Policy {
    policy_with(0)
}

/// The same, with so many rules that each name a tool and read an argument.
fn policy_with(rules: usize) -> Policy {
    let mut modules = embedded::baseline();
    modules.extend(embedded::decision());
    let hide = r#"package mcp

hide contains "delete_flag" if input.server.environment == "staging"
"#;
    modules.push(bartizan_rego::Module { path: "hide.rego".to_owned(), text: hide.to_owned() });
    let rules: Vec<String> = (0..rules)
        .map(|at| {
            let head = format!(r#"deny contains {{"code": "r{at}", "message": "m"}} if {{"#);
            let tool = format!(r#"input.tool.name == "tool_{at}""#);
            format!("{head}\n\t{tool}\n\tinput.tool.arguments.environment == \"production\"\n}}\n")
        })
        .collect();
    let text = format!("package mcp\n\n{}", rules.join("\n"));
    modules.push(bartizan_rego::Module { path: "rules.rego".to_owned(), text });
    let sources = PolicySources { modules, data: None, revision: "bench".into() };
    Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap()
}

fn engines() -> [(&'static str, Arc<dyn Pdp>); 2] {
    let compiled = RegoPdp::compiled(policy(), 1, u32::MAX).unwrap();
    assert_eq!(compiled.engine(), Engine::Compiled);
    [("compiled", Arc::new(compiled)), ("strict", Arc::new(RegoPdp::strict(policy(), 1)))]
}

fn gate_over(pdp: Arc<dyn Pdp>) -> Gate {
    let config = GateConfig {
        mode: Mode::Enforce,
        frame: FrameLimits::default(),
        in_flight_max: 64,
        buckets_max: 64,
        boot: "01JD3R8W4V0Q2N6K7M9P5T1XYZ".into(),
        digest_key: [7; 32],
    };
    Gate::new(config, pdp)
}

/// A session of one exchange, as modern HTTP has it.
fn session(server: &Arc<Protected>, principal: &Arc<Principal>) -> Session {
    Session::new(Arc::clone(principal), Arc::clone(server), Transport::Http)
}

/// From bytes to the permitted message and its record, where policy costs nothing: the budget is
/// 3 µs. A third of it is the digest of the frame (HMAC-SHA-256) for the record.
fn classify(criterion: &mut Criterion) {
    let gate = gate_over(Arc::new(Always("bench".into())));
    let server = Arc::new(Protected::new(server(), RefusalForm::Error));
    let principal = Arc::new(Principal { id: "agent".into(), ..Principal::default() });
    let raw = call();
    let mut group = criterion.benchmark_group("session");
    group.bench_function("classify 1 KiB tools/call", |bencher| {
        bencher.iter(|| {
            let mut session = session(&server, &principal);
            let arrival = Arrival { raw: raw.clone(), ..Arrival::default() };
            let act = session.client_frame(&gate, &arrival, NOW).record(&Nowhere).unwrap();
            assert!(matches!(act, Act::Forward(_)));
            act
        });
    });
    group.finish();
}

/// A question about the call, as the gate asks it.
fn question<'a>(
    server: &'a Server,
    principal: &'a Principal,
    frame: &'a Frame,
) -> AccessRequest<'a> {
    let params = frame.params();
    let member = |name| params.and_then(|params| params.get(name));
    let name = member("name").and_then(Value::as_str).unwrap();
    let arguments = member("arguments");
    AccessRequest {
        principal,
        client: None,
        server,
        protocol: Protocol {
            revision: Some(Revision::V20260728),
            era: Era::Modern,
            transport: Transport::Http,
        },
        direction: Direction::ToServer,
        method: "tools/call",
        action: Action::CallTool,
        resource: Resource::Tool {
            name,
            arguments,
            definition: None,
            status: DefinitionStatus::default(),
        },
        params,
        operation: Operation::of_call(server.pack.as_deref(), name, arguments).into(),
        facts: [].into(),
        time: WallTime { unix_ms: 1_800_000_000_000 },
        approval: None,
        trace_id: None,
    }
}

/// The baseline's answer about a write inside the pin, and that of a policy that reads an argument,
/// too: the budgets are 4 µs compiled, 100 µs strict.
fn decide(criterion: &mut Criterion) {
    let server = server();
    let principal = Principal { id: "agent-1".into(), ..Principal::default() };
    let frame = Frame::read(call(), Sender::Client, &FrameLimits::default()).unwrap();
    let request = question(&server, &principal, &frame);
    let mut group = criterion.benchmark_group("decision");
    for (engine, pdp) in engines() {
        assert_eq!(pdp.decide(&request).effect, Effect::Permit);
        group.bench_function(engine, |bencher| bencher.iter(|| pdp.decide(black_box(&request))));
    }
    for rules in [0, 10, 100, 500] {
        let pdp = RegoPdp::compiled(policy_with(rules), 1, u32::MAX).unwrap();
        assert_eq!(pdp.decide(&request).engine, Engine::Compiled);
        group.bench_function(format!("compiled, {rules} rules on arguments"), |bencher| {
            bencher.iter(|| pdp.decide(black_box(&request)));
        });
    }
    group.finish();
}

/// A page of a hundred tools, each with a schema; one of them is to be hidden.
fn page() -> Bytes {
    let tool = |number: usize| {
        let name = if number == 50 { "delete_flag".to_owned() } else { format!("tool_{number}") };
        format!(
            concat!(
                r#"{{"name":"{}","description":"Reads one flag of one environment, with rules.","#,
                r#""inputSchema":{{"type":"object","properties":{{"key":{{"type":"string"}},"#,
                r#""environment":{{"type":"string","enum":["staging","production"]}}}},"#,
                r#""required":["key"]}}}}"#
            ),
            name
        )
    };
    let tools: Vec<String> = (0..100).map(tool).collect();
    let head = r#"{"jsonrpc":"2.0","id":42,"result":{"resultType":"complete","tools":["#;
    Bytes::from(format!("{head}{}]}}}}", tools.join(",")))
}

/// A list of a hundred tools on its way down: read, digested, judged, one entry taken out.
fn filter(criterion: &mut Criterion) {
    let server = Arc::new(Protected::new(server(), RefusalForm::Error));
    let principal = Arc::new(Principal { id: "agent".into(), ..Principal::default() });
    let ask = Bytes::from_static(br#"{"jsonrpc":"2.0","id":42,"method":"tools/list","params":{}}"#);
    let page = page();
    let mut group = criterion.benchmark_group("list");
    group.throughput(Throughput::Bytes(u64::try_from(page.len()).unwrap()));
    for (engine, pdp) in engines() {
        let gate = gate_over(pdp);
        let asks = Cell::new(0);
        let asked = || {
            let mut session = session(&server, &principal);
            let arrival = Arrival { raw: ask.clone(), ..Arrival::default() };
            // One a second, which the baseline's rate limits permit.
            asks.set(asks.get() + 1);
            let now = Now { uptime: Duration::from_secs(asks.get()), ..NOW };
            match session.client_frame(&gate, &arrival, now).record(&Nowhere).unwrap() {
                Act::Forward(permitted) => (session, Arc::clone(permitted.call())),
                act @ (Act::Deliver(_) | Act::Hold(_) | Act::Drop) => panic!("{act:?}"),
            }
        };
        group.bench_function(format!("100 tools, {engine}"), |bencher| {
            bencher.iter_batched(
                asked,
                |(mut session, call)| {
                    let step = session.server_answer(&gate, &call, &page, NOW);
                    match step.record(&Nowhere).unwrap() {
                        Act::Deliver(released) => assert!(released.body().len() < page.len()),
                        act @ (Act::Forward(_) | Act::Hold(_) | Act::Drop) => panic!("{act:?}"),
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(gate, read, classify, decide, filter);
criterion_main!(gate);
