//! Spans from the journal, as a collector receives them.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on should say where"
)]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan::config::{Config, CredentialsConfig};
use bartizan_audit::journal::Journal;
use bartizan_audit::otlp::{
    CollectorClient, CollectorTransport, Compression, OtlpConfig, Progress, Repeats, Signal, start,
};
use bartizan_gate::evidence::record::{
    ApprovalFacts, AuditRecord, ClientFacts, DecisionFacts, Event, Finding, LinkFacts, Outcome,
    ProtocolFacts, ReasonFacts, TAXONOMY, Target, UpstreamFacts,
};
use bartizan_gate::evidence::step::AuditSink as _;
use bartizan_outbound::address::Address;
use bartizan_outbound::grpc::GrpcService;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bundles::rig::Sidecar;
use crate::bundles::tls;
use crate::failures::Program;
use crate::firewall::{
    Client, Firewall, LEGACY, RecordingUpstream, Setup, answer as http_answer, call, journal, json,
    odd_answer, post, wait,
};
use crate::http_edge::rig::{self, Behind, Play, Rig};
use crate::http_edge::streams;
use crate::journal::{config, denial, intent, now, outcome};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// Another trace.
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What arrived in one request.
#[derive(Debug)]
struct Received {
    /// What it is answered with.
    status: u16,
    path: String,
    authorization: Option<String>,
    content_type: Option<String>,
    /// Whether it was compressed with gzip.
    is_gzip: bool,
    body: ExportTraceServiceRequest,
    /// What a request for log records holds.
    logs: ExportLogsServiceRequest,
}

impl Received {
    fn spans(&self) -> Vec<Span> {
        let scopes = self.body.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn logs(&self) -> Vec<LogRecord> {
        let scopes = self.logs.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    }
}

/// A collector on a loopback port that answers as scripted, and with success after that.
struct Receiver {
    endpoint: String,
    received: mpsc::Receiver<Received>,
    /// A status, and the call with which every request gets it.
    poison: Poison,
    tasks: TaskTracker,
}

type Poison = Arc<Mutex<Option<(u16, String)>>>;

impl Receiver {
    async fn start(answers: Vec<(u16, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (to, received) = mpsc::channel(100);
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let poison = Poison::default();
        let poisoned = Arc::clone(&poison);
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (to, answers) = (to.clone(), Arc::clone(&answers));
                let poison = Arc::clone(&poisoned);
                let service = service_fn(move |request| {
                    let scripted = answers.lock().unwrap().pop_front();
                    answer(request, to.clone(), scripted, Arc::clone(&poison))
                });
                // HTTP/1.1, or HTTP/2 for gRPC.
                connections.spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { endpoint, received, poison, tasks }
    }

    async fn next(&mut self) -> Received {
        let next = tokio::time::timeout(Duration::from_secs(20), self.received.recv());
        next.await.expect("the exporter sends").unwrap()
    }

    async fn spans(&mut self, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < count {
            spans.extend(self.next().await.spans());
        }
        assert_eq!(spans.len(), count);
        spans
    }
}

async fn answer(
    request: Request<Incoming>,
    to: mpsc::Sender<Received>,
    scripted: Option<(u16, Vec<u8>)>,
    poison: Poison,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let header = |name| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let (authorization, content_type) = (header("authorization"), header("content-type"));
    let path = request.uri().path().to_owned();
    let is_grpc = content_type.as_deref() == Some("application/grpc");
    let coding = header(if is_grpc { "grpc-encoding" } else { "content-encoding" });
    let is_gzip = coding.as_deref() == Some("gzip");
    assert!(is_gzip || coding.is_none(), "{coding:?}");
    let mut body = request.into_body().collect().await.unwrap().to_bytes();
    if is_grpc {
        // Whether it is compressed, and its length.
        let prefix = body.split_to(5);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        assert_eq!(prefix, [&[u8::from(is_gzip)], &length[..]].concat());
    }
    if is_gzip {
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        assert!(!plain.is_empty());
        body = plain.into();
    }
    let is_logs = path.ends_with("/v1/logs") || path.ends_with("logs.v1.LogsService/Export");
    let (body, logs) = if is_logs {
        (ExportTraceServiceRequest::default(), ExportLogsServiceRequest::decode(body).unwrap())
    } else {
        (ExportTraceServiceRequest::decode(body).unwrap(), ExportLogsServiceRequest::default())
    };
    let (mut status, bytes) = scripted.unwrap_or((200, Vec::new()));
    let mut received = Received { status, path, authorization, content_type, is_gzip, body, logs };
    if let Some((refused, call)) = &*poison.lock().unwrap() {
        let is_poisoned =
            |span: &Span| attribute(span, "bartizan.call").as_deref() == Some(call.as_str());
        if received.spans().iter().any(is_poisoned) {
            status = *refused;
        }
    }
    received.status = status;
    to.send(received).await.unwrap();
    if is_grpc {
        return Ok(grpc_answer(status, &bytes));
    }
    Ok(Response::builder().status(status).body(Full::new(bytes.into()).boxed()).unwrap())
}

/// An answer with a gRPC status, which stands for success if it is 200. `bytes` are the message of
/// a success, and the details of any other status.
fn grpc_answer(status: u16, bytes: &[u8]) -> Response<BoxBody<Bytes, Infallible>> {
    let (status, message) = if status == 200 { (0, bytes) } else { (status, &b""[..]) };
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.to_string().parse().unwrap());
    if status != 0 && !bytes.is_empty() {
        let details = BASE64_STANDARD_NO_PAD.encode(bytes).parse().unwrap();
        trailers.insert("grpc-status-details-bin", details);
    }
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0], &length[..], message].concat();
    let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

struct Fixture {
    directory: tempfile::TempDir,
    journal: Journal,
    receiver: Receiver,
    progress: Arc<Progress>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How a fixture sends.
#[derive(Clone, Copy, Default)]
struct Way {
    is_grpc: bool,
    repeats: Repeats,
    compression: Compression,
}

/// Repeats at once, and a doubtful request twice.
const AT_ONCE: Repeats = Repeats {
    pause_first: Duration::from_millis(1),
    pause_max: Duration::from_millis(1),
    doubtful_max: 2,
};

/// What sends spans to `endpoint`, with the cursor in `state`.
fn to(endpoint: &str, state: &Path) -> OtlpConfig {
    sending(Signal::Traces, endpoint, state)
}

fn sending(signal: Signal, endpoint: &str, state: &Path) -> OtlpConfig {
    let collector = CollectorTransport::Http(Service::new(service(endpoint)).unwrap());
    sending_to(signal, CollectorClient::new(collector, Compression::None), state)
}

fn service(endpoint: &str) -> ServiceConfig {
    ServiceConfig {
        address: Address::parse(endpoint).unwrap(),
        ca_pem: None,
        credentials: Credentials::None,
        timeout: Duration::from_secs(10),
    }
}

fn sending_to(signal: Signal, collector: CollectorClient, state: &Path) -> OtlpConfig {
    let mut config = OtlpConfig::new(signal, collector, state.to_owned());
    config.headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
    config.resource =
        vec![("service.name".into(), "sidecar".into()), ("k8s.pod.name".into(), "p-1".into())];
    config.linger = Duration::ZERO;
    config
}

async fn fixture(answers: Vec<(u16, Vec<u8>)>) -> Fixture {
    Fixture::run(tempfile::tempdir().unwrap(), "boot-1", answers).await
}

impl Fixture {
    /// A first run that sends as `way` says.
    async fn sending(way: Way, answers: Vec<(u16, Vec<u8>)>) -> Self {
        Self::run_as(way, tempfile::tempdir().unwrap(), "boot-1", answers).await
    }

    /// A run on the journal in `directory`.
    async fn run(directory: tempfile::TempDir, boot: &str, answers: Vec<(u16, Vec<u8>)>) -> Self {
        Self::run_as(Way::default(), directory, boot, answers).await
    }

    async fn run_as(
        way: Way,
        directory: tempfile::TempDir,
        boot: &str,
        answers: Vec<(u16, Vec<u8>)>,
    ) -> Self {
        let settings = config(&directory.path().join("journal"), 5000);
        let (journal, _) = Journal::open(&settings, boot, now(0)).unwrap();
        let receiver = Receiver::start(answers).await;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let collector = service(&receiver.endpoint);
        let collector = if way.is_grpc {
            CollectorTransport::Grpc(GrpcService::new(collector).unwrap())
        } else {
            CollectorTransport::Http(Service::new(collector).unwrap())
        };
        let collector = CollectorClient::new(collector, way.compression);
        let mut config = sending_to(Signal::Traces, collector, directory.path());
        config.repeats = way.repeats;
        let progress = start(config, &journal, &tasks, stop.clone());
        Self { directory, journal, receiver, progress, tasks, stop }
    }

    /// Waits until this place in the journal is saved.
    async fn saved(&self, place: &str) {
        self.saved_in("otlp.seq", place).await;
    }

    async fn saved_in(&self, cursor: &str, place: &str) {
        let file = self.directory.path().join(cursor);
        let saved = async {
            while fs::read_to_string(&file).unwrap().trim() != place {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), saved).await.expect(place);
    }

    /// Ends at once, like a killed program: nothing is sent or recorded any more. The next run of
    /// the journal in the directory sends on.
    async fn killed(self, boot: &str, answers: Vec<(u16, Vec<u8>)>) -> Self {
        let Self { directory, journal, tasks, .. } = self;
        drop(journal);
        tasks.close();
        tokio::time::timeout(Duration::from_secs(20), tasks.wait()).await.unwrap();
        Self::run(directory, boot, answers).await
    }

    /// Ends in order; everything that was kept was sent or counted.
    async fn end(self) -> Arc<Progress> {
        self.journal.close(now(99)).unwrap();
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(20), self.tasks.wait()).await.unwrap();
        self.receiver.tasks.close();
        self.progress
    }
}

fn decision(effect: &'static str) -> DecisionFacts {
    DecisionFacts {
        effect,
        enforced: true,
        reasons: vec![ReasonFacts {
            code: "wrong-environment".into(),
            message: "production is outside staging".into(),
            origin: "policy",
        }]
        .into(),
        obligations: vec!["limit:writes"].into(),
        policy: "r1".into(),
        engine: "strict",
        told: None,
    }
}

fn called(call: &str) -> AuditRecord {
    let mut record = intent(call);
    record.direction = Some("to_server");
    record.protocol =
        Some(ProtocolFacts { revision: Some("2025-11-25"), era: "legacy", transport: "http" });
    record.decision = Some(decision("permit"));
    record.id = Some("\"a-7\"".into());
    record.trace_id = Some(TRACE.into());
    record.parent_span_id = Some(PARENT.into());
    record
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found: Vec<_> = span.attributes.iter().filter(|attribute| attribute.key == key).collect();
    assert!(found.len() <= 1, "{key} is there twice");
    let value = found.first()?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        Value::ArrayValue(array) => {
            let texts = array.values.into_iter().map(|value| match value.value {
                Some(Value::StringValue(text)) => text,
                other => panic!("{key}: {other:?}"),
            });
            texts.collect::<Vec<_>>().join(",")
        }
        other => panic!("{key}: {other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn check(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(attribute(span, key).as_deref(), Some(*value), "{key}");
    }
}

#[tokio::test]
async fn a_call_is_a_server_span_and_what_was_forwarded_a_client_span() {
    let mut fixture = fixture(Vec::new()).await;
    let mut begun = called("c1");
    begun.time = now(1000).wall;
    begun.session = Some("conversation-1".into());
    begun.peer = Some("10.0.0.7".into());
    begun.client = Some(ClientFacts { name: "t".into(), version: "1".into() }.into());
    fixture.journal.keep(&begun).unwrap();
    let mut ended = outcome("c1");
    ended.time = now(5000).wall;
    ended.duration_us = Some(4000);
    fixture.journal.keep(&ended).unwrap();
    let received = fixture.receiver.next().await;
    assert_eq!(received.path, "/v1/traces");
    assert_eq!(received.authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(received.content_type.as_deref(), Some("application/x-protobuf"));
    let resource = received.body.resource_spans[0].resource.clone().unwrap();
    let text = |key: &str| -> Option<String> {
        let named: Vec<_> = resource.attributes.iter().filter(|it| it.key == key).collect();
        let [one] = named.as_slice() else { panic!("{key}: {resource:?}") };
        match one.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key}: {other:?}"),
        }
    };
    assert_eq!(text("service.name").as_deref(), Some("sidecar"));
    assert_eq!(text("k8s.pod.name").as_deref(), Some("p-1"));
    assert_eq!(text("service.instance.id").as_deref(), Some("boot-1"));

    let spans = received.spans();
    let [server, client] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(server.name, "tools/call update_gate");
    assert_eq!(server.kind, i32::from(SpanKind::Server));
    assert_eq!(
        (hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()),
        (TRACE, PARENT)
    );
    assert_eq!(server.end_time_unix_nano - server.start_time_unix_nano, 4_000_000);
    assert_eq!(server.status.clone().unwrap_or_default().code, i32::from(StatusCode::Unset));
    check(
        server,
        &[
            ("mcp.method.name", "tools/call"),
            ("gen_ai.tool.name", "update_gate"),
            ("gen_ai.operation.name", "execute_tool"),
            ("jsonrpc.request.id", "a-7"),
            ("mcp.protocol.version", "2025-11-25"),
            ("network.transport", "tcp"),
            ("bartizan.call", "c1"),
            ("bartizan.server", "flags"),
            ("bartizan.principal", "agent-1"),
            ("bartizan.decision.effect", "permit"),
            ("bartizan.decision.enforced", "true"),
            ("bartizan.decision.codes", "wrong-environment"),
            ("bartizan.policy.revision", "r1"),
            ("bartizan.outcome", "ok"),
            ("mcp.session.id", "conversation-1"),
            ("client.address", "10.0.0.7"),
            ("bartizan.client.name", "t"),
        ],
    );
    assert_eq!(attribute(server, "error.type"), None);
    let [decided] = &*server.events else { panic!("{:?}", server.events) };
    assert_eq!(decided.name, "bartizan.decision");
    assert!(decided.attributes.iter().any(|it| it.key == "bartizan.decision.codes"));

    assert_eq!(client.name, server.name);
    assert_eq!(client.kind, i32::from(SpanKind::Client));
    assert_eq!(client.trace_id, server.trace_id);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_ne!(client.span_id, server.span_id);
    check(client, &[("mcp.method.name", "tools/call"), ("gen_ai.tool.name", "update_gate")]);
    assert_eq!((attribute(client, "client.address"), client.events.len()), (None, 0));
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost()), (2, 0));
}

/// The duration is measured by another clock than the times of the records.
#[tokio::test]
async fn what_was_forwarded_never_begins_before_its_call() {
    let mut fixture = fixture(Vec::new()).await;
    for (call, micros) in [("c1", 0), ("c2", 3999), ("c3", 4000), ("c4", 90_000)] {
        fixture.journal.keep(&called(call)).unwrap();
        let mut ended = outcome(call);
        ended.time = now(5000).wall;
        ended.duration_us = Some(micros);
        fixture.journal.keep(&ended).unwrap();
    }
    for pair in fixture.receiver.spans(8).await.chunks(2) {
        let [server, client] = pair else { panic!("{pair:?}") };
        assert_eq!(client.parent_span_id, server.span_id);
        assert!(server.start_time_unix_nano <= client.start_time_unix_nano, "{pair:?}");
        assert!(client.end_time_unix_nano <= server.end_time_unix_nano, "{pair:?}");
        assert!(server.start_time_unix_nano <= server.events[0].time_unix_nano, "{pair:?}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_refusal_is_a_server_span_alone_with_its_taxonomy() {
    let mut fixture = fixture(Vec::new()).await;
    let mut refused = called("c1").with_finding(Finding::EnvPinViolation);
    refused.event = Event::Denial;
    refused.decision = Some(decision("deny"));
    refused.error_type = Some("403".into());
    fixture.journal.keep(&refused).unwrap();
    let spans = fixture.receiver.spans(1).await;
    assert_eq!(spans[0].kind, i32::from(SpanKind::Server));
    let status = spans[0].status.clone().unwrap();
    assert_eq!(
        (status.code, status.message.as_str()),
        (i32::from(StatusCode::Error), "wrong-environment")
    );
    check(
        &spans[0],
        &[
            ("error.type", "403"),
            ("bartizan.decision.effect", "deny"),
            ("bartizan.finding", "env_pin_violation"),
            ("maestro.layer", "L7"),
            ("maestro.layer.name", "Agent Ecosystem"),
            ("maestro.threats", "L7/Agent Tool Misuse,L4/Lateral Movement,X/Privilege Escalation"),
            ("owasp.mcp", "MCP02:2025"),
            ("owasp.asi", "ASI02,ASI03"),
            ("mitre.atlas", "AML.T0053"),
            ("taxonomy.version", "maestro=2025-02;owasp_mcp=2025-beta;asi=2026;atlas=5.6.1"),
        ],
    );
    fixture.end().await;
}

#[tokio::test]
async fn each_end_has_its_error_type() {
    let cases = [
        (Outcome::Ok, None, None),
        (Outcome::Accepted, None, None),
        (Outcome::ToolError, None, Some("tool_error")),
        (Outcome::Error, Some("-32602"), Some("-32602")),
        (Outcome::Error, None, Some("_OTHER")),
        (Outcome::Cancelled, None, Some("cancelled")),
        (Outcome::UpstreamFailed, Some("503"), Some("503")),
        (Outcome::UpstreamFailed, None, Some("upstream_failed")),
        (Outcome::Withheld, None, Some("withheld")),
        (Outcome::Unknown, None, Some("unknown")),
    ];
    let mut fixture = fixture(Vec::new()).await;
    for (end, given, expected) in cases {
        fixture.journal.keep(&called("c1")).unwrap();
        let mut ended = outcome("c1");
        ended.outcome = Some(end.clone());
        ended.error_type = given.map(Into::into);
        fixture.journal.keep(&ended).unwrap();
        for span in fixture.receiver.spans(2).await {
            assert_eq!(attribute(&span, "error.type").as_deref(), expected, "{end:?}");
            let bad = span.status.unwrap_or_default().code == i32::from(StatusCode::Error);
            assert_eq!(bad, expected.is_some(), "{end:?}");
        }
    }
    fixture.end().await;
}

/// A span with the name `name`.
fn named<'a>(spans: &'a [Span], name: &str, kind: SpanKind) -> &'a Span {
    let kind = i32::from(kind);
    let found: Vec<_> = spans.iter().filter(|it| it.name == name && it.kind == kind).collect();
    let [one] = found.as_slice() else { panic!("{name}: {spans:?}") };
    one
}

#[tokio::test]
async fn a_client_span_is_the_time_of_the_server() {
    let mut fixture = fixture(Vec::new()).await;
    let mut begun = called("c1");
    begun.time = now(1000).wall;
    let mut ended = outcome("c1");
    ended.time = now(9000).wall;
    ended.duration_us = Some(8500);
    ended.upstream = Some(UpstreamFacts { start_us: 3000, duration_us: 6000, at: None }.into());
    fixture.journal.keep(&begun).unwrap();
    fixture.journal.keep(&ended).unwrap();
    let mut unsent = outcome("c2");
    unsent.outcome = Some(Outcome::NotSent);
    fixture.journal.keep(&called("c2")).unwrap();
    fixture.journal.keep(&unsent).unwrap();
    let spans = fixture.receiver.spans(3).await;
    let [server, client, other] = spans.as_slice() else { panic!("{spans:?}") };
    let nanos = |micros| {
        let since = now(micros).wall.duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    };
    assert_eq!((server.start_time_unix_nano, server.end_time_unix_nano), (nanos(500), nanos(9000)));
    assert_eq!(
        (client.start_time_unix_nano, client.end_time_unix_nano),
        (nanos(3000), nanos(9000))
    );
    assert_eq!(other.kind, i32::from(SpanKind::Server), "it was not sent");
    fixture.end().await;
}

#[tokio::test]
async fn a_hold_is_a_span_below_its_call() {
    let mut fixture = fixture(Vec::new()).await;
    let state = |hold: &str, answer: &'static str, at: u64| {
        let mut record = called("c1");
        record.event = Event::HoldState;
        record.time = now(at).wall;
        record.since = Some(now(1500).wall);
        record.decision = None;
        let by = (answer == "granted").then(|| "alice".into());
        let (hold, reason, scope) = (hold.into(), None, None);
        record.approval = Some(ApprovalFacts { hold, answer, by, reason, scope }.into());
        if answer == "granted" { record.with_finding(Finding::ApprovalGranted) } else { record }
    };
    let mut asked = called("c1");
    asked.event = Event::Hold;
    asked.time = now(1000).wall;
    fixture.journal.keep(&asked).unwrap();
    for (answer, at) in [("pending", 1600), ("granted", 4000), ("spent", 5000), ("expired", 6000)] {
        fixture.journal.keep(&state("h1", answer, at)).unwrap();
    }
    let mut resumed = called("c1");
    resumed.time = now(5000).wall;
    fixture.journal.keep(&resumed).unwrap();
    fixture.journal.keep(&outcome("c1")).unwrap();
    // One of an earlier run.
    let mut forgotten = state("h0", "expired", 7000);
    forgotten.call = Some("c0".into());
    fixture.journal.keep(&forgotten).unwrap();
    let spans = fixture.receiver.spans(4).await;
    let server = named(&spans, "tools/call update_gate", SpanKind::Server);
    let holds: Vec<_> =
        spans.iter().filter(|it| it.kind == i32::from(SpanKind::Internal)).collect();
    let [hold, other] = holds.as_slice() else { panic!("{spans:?}") };
    assert_eq!(hold.name, "hold tools/call update_gate");
    assert_eq!((&hold.trace_id, &hold.parent_span_id), (&server.trace_id, &server.span_id));
    assert_eq!(hold.end_time_unix_nano - hold.start_time_unix_nano, 2_500_000);
    check(
        hold,
        &[
            ("bartizan.hold.id", "h1"),
            ("bartizan.hold.state", "granted"),
            ("bartizan.hold.by", "alice"),
            ("bartizan.finding", "approval_granted"),
            ("bartizan.finding.strength", "control-evidence"),
            ("taxonomy.version", TAXONOMY),
            ("gen_ai.tool.name", "update_gate"),
        ],
    );
    check(other, &[("bartizan.hold.id", "h0"), ("bartizan.hold.state", "expired")]);
    assert!(other.parent_span_id.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn a_request_of_the_server_belongs_to_its_call() {
    let mut fixture = fixture(Vec::new()).await;
    fixture.journal.keep(&called("c1")).unwrap();
    for (call, within, trace) in [("s1", "c1", None), ("s2", "c1", Some(OTHER)), ("s3", "c9", None)]
    {
        let mut asked = intent(call);
        asked.direction = Some("to_client");
        asked.method = Some("sampling/createMessage".into());
        asked.target = Some(Target { task: Some(call.into()), ..Target::default() }.into());
        asked.within = Some(within.into());
        asked.trace_id = trace.map(Into::into);
        asked.parent_span_id = trace.map(|_| PARENT.into());
        fixture.journal.keep(&asked).unwrap();
        fixture.journal.keep(&outcome(call)).unwrap();
    }
    fixture.journal.keep(&outcome("c1")).unwrap();
    let spans = fixture.receiver.spans(8).await;
    let client = named(&spans, "tools/call update_gate", SpanKind::Client);
    let of = |call: &str| {
        let is = |span: &&Span| attribute(span, "bartizan.call").as_deref() == Some(call);
        spans.iter().find(is).unwrap()
    };
    for call in ["s1", "s2"] {
        let asked = of(call);
        assert_eq!(asked.name, "sampling/createMessage");
        assert_eq!((&asked.trace_id, &asked.parent_span_id), (&client.trace_id, &client.span_id));
    }
    // The server's own trace context does not take the place of the client's.
    assert!(of("s1").links.is_empty());
    assert_eq!(hex(&of("s2").links[0].trace_id), OTHER);
    assert!(of("s3").parent_span_id.is_empty(), "its call is not known");
    fixture.end().await;
}

/// The server asks in the answer stream of a call, and the client answers with a POST.
#[tokio::test]
async fn a_question_in_an_answer_stream_over_http_is_a_span_below_its_call() {
    let question = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"Sure?","requestedSchema":{"type":"object","properties":{}}}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":"q","result":{"action":"accept","content":{}}}"#;
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let behind = Behind::start(move |number, _| match number {
        0 => streams::begun(),
        1 => vec![
            rig::stream_head(""),
            rig::chunk(&format!("data: {question}\n\n")),
            Play::Wait(Arc::clone(&wait)),
            rig::chunk(&format!("data: {}\n\n", rig::result(1))),
            rig::stream_end(),
        ],
        _ => rig::answer("202 Accepted", "", ""),
    })
    .await;
    let rig = Rig::start(behind.address);
    let (mut client, session) = streams::in_session(&rig).await;
    client.send(&rig::post(&session, &rig::call(1, "get"))).await;
    client.head().await;
    assert_eq!(client.event().await, format!("data: {question}\n\n"));
    assert_eq!(rig.ask(&rig::post(&session, answer)).await.status, 202);
    assert_eq!(behind.nth(3).await.body, answer.as_bytes());
    go.notify_one();
    assert_eq!(client.event().await, format!("data: {}\n\n", rig::result(1)));

    let mut fixture = fixture(Vec::new()).await;
    for record in &*rig.sink.kept() {
        fixture.journal.keep(record).unwrap();
    }
    // Two spans each of `initialize`, the call and the question.
    let spans = fixture.receiver.spans(6).await;
    let call = named(&spans, "tools/call get", SpanKind::Client);
    let asked = named(&spans, "elicitation/create", SpanKind::Server);
    assert_eq!((&asked.trace_id, &asked.parent_span_id), (&call.trace_id, &call.span_id));
    let told = named(&spans, "elicitation/create", SpanKind::Client);
    assert_eq!(told.parent_span_id, asked.span_id);
    fixture.end().await;
}

#[tokio::test]
async fn the_context_of_the_http_request_is_a_link() {
    let mut fixture = fixture(Vec::new()).await;
    let mut linked = called("c1");
    linked.event = Event::Denial;
    let link = LinkFacts { trace_id: OTHER.into(), span_id: PARENT.into() };
    linked.link = Some(link.into());
    fixture.journal.keep(&linked).unwrap();
    let spans = fixture.receiver.spans(1).await;
    assert_eq!(hex(&spans[0].trace_id), TRACE);
    let [link] = spans[0].links.as_slice() else { panic!("{:?}", spans[0].links) };
    assert_eq!((hex(&link.trace_id).as_str(), hex(&link.span_id).as_str()), (OTHER, PARENT));
    fixture.end().await;
}

#[tokio::test]
async fn each_record_is_a_log_record_that_names_the_span_of_its_call() {
    let mut fixture = fixture(Vec::new()).await;
    let config = sending(Signal::Logs, &fixture.receiver.endpoint, fixture.directory.path());
    let sent = start(config, &fixture.journal, &fixture.tasks, fixture.stop.clone());
    let mut ended = outcome("c1");
    ended.trace_id = Some(TRACE.into());
    ended.parent_span_id = Some(PARENT.into());
    ended.outcome = Some(Outcome::UpstreamFailed);
    for record in [called("c1"), ended, denial("c2")] {
        fixture.journal.keep(&record).unwrap();
    }
    let (mut spans, mut logs) = (Vec::new(), Vec::new());
    // The first record is `start`.
    while spans.len() < 3 || logs.len() < 4 {
        let received = fixture.receiver.next().await;
        if received.path == "/v1/logs" {
            assert_eq!(received.authorization.as_deref(), Some("Bearer secret"));
        }
        spans.extend(received.spans());
        logs.extend(received.logs());
    }
    let records = journal(fixture.directory.path());
    let server = named(&spans[..2], "tools/call update_gate", SpanKind::Server).clone();
    for (log, record) in logs.iter().zip(&records) {
        let Some(Value::StringValue(body)) = log.body.clone().and_then(|body| body.value) else {
            panic!("{log:?}")
        };
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), *record);
        assert_eq!(log.event_name, format!("bartizan.{}", record["event"].as_str().unwrap()));
        assert_eq!(log.time_unix_nano, log.observed_time_unix_nano);
    }
    let severities: Vec<i32> = logs.iter().map(|log| log.severity_number).collect();
    let (info, warn, error) = (SeverityNumber::Info, SeverityNumber::Warn, SeverityNumber::Error);
    assert_eq!(severities, [info, info, error, warn].map(i32::from));
    let of = |log: &LogRecord| (log.trace_id.clone(), log.span_id.clone());
    assert_eq!(of(&logs[0]), (Vec::new(), Vec::new()), "it is about no call");
    for log in &logs[1..3] {
        assert_eq!(of(log), (server.trace_id.clone(), server.span_id.clone()));
    }
    assert_eq!(of(&logs[3]), (spans[2].trace_id.clone(), spans[2].span_id.clone()));
    assert!(logs[3].attributes.iter().any(|it| it.key == "bartizan.finding.strength"));
    let last = fixture.journal.last_seq();
    for cursor in ["otlp.seq", "otlp-logs.seq"] {
        fixture.saved_in(cursor, &(last + 1).to_string()).await;
    }
    fixture.end().await;
    assert_eq!((sent.sent(), sent.lost()), (last + 1, 0), "`stop`, too");
}

#[tokio::test]
async fn strangers_cannot_choose_ids_or_sizes() {
    let mut fixture = fixture(Vec::new()).await;
    let zeros = "0".repeat(32);
    for (n, (trace, parent)) in [
        (TRACE, "0000000000000000"),
        (zeros.as_str(), PARENT),
        ("short", PARENT),
        (TRACE, "+7ad6b7169203331"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut refused = called(&format!("c{n}"));
        refused.event = Event::Denial;
        refused.trace_id = Some(trace.into());
        refused.parent_span_id = Some(parent.into());
        fixture.journal.keep(&refused).unwrap();
        let spans = fixture.receiver.spans(1).await;
        assert!(spans[0].parent_span_id.is_empty(), "{trace} {parent}");
        assert_ne!(hex(&spans[0].trace_id), TRACE);
        assert!(spans[0].trace_id.iter().any(|byte| *byte != 0));
    }
    let mut large = called("large");
    large.event = Event::Denial;
    large.method = Some("m".repeat(5000).into());
    large.target = Some(Target { tool: Some("t".repeat(5000).into()), ..Target::default() }.into());
    fixture.journal.keep(&large).unwrap();
    let spans = fixture.receiver.spans(1).await;
    assert_eq!(spans[0].name.len(), 128 + 1 + 128);
    assert!(attribute(&spans[0], "gen_ai.tool.name").unwrap().len() <= 512);
    fixture.end().await;
}

#[tokio::test]
async fn a_collector_that_was_away_gets_everything() {
    let mut fixture = fixture(vec![(503, Vec::new()), (429, Vec::new())]).await;
    for n in 0..700 {
        // Calls go on while nothing can be sent.
        fixture.journal.keep(&denial(&format!("c{n}"))).unwrap();
    }
    let first = fixture.receiver.next().await.spans();
    assert_eq!(fixture.receiver.next().await.spans(), first, "the same again");
    let spans = fixture.receiver.spans(700).await;
    let calls: Vec<String> =
        spans.iter().map(|span| attribute(span, "bartizan.call").unwrap()).collect();
    let expected: Vec<String> = (0..700).map(|n| format!("c{n}")).collect();
    assert_eq!(calls, expected);
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost()), (700, 0));
}

/// The dead letters in `state`, one value a line.
fn dead_letters(state: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(state.join("dead-letters.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn what_a_collector_refuses_is_counted_as_lost_and_kept_as_dead_letter() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "no".to_owned(),
        }),
    };
    let mut fixture = fixture(vec![(400, Vec::new()), (200, partial.encode_to_vec())]).await;
    for call in ["refused", "rejected", "taken"] {
        fixture.journal.keep(&denial(call)).unwrap();
        fixture.receiver.spans(1).await;
    }
    let state = fixture.directory.path().to_owned();
    fixture.saved(&(fixture.journal.last_seq() + 1).to_string()).await;
    let letters = dead_letters(&state);
    let lines = journal(&state);
    let said: Vec<_> = letters.iter().map(|it| it["cause"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        ["the collector answered with status 400", "rejected by the service: no"],
        "{letters:?}"
    );
    assert_eq!((&letters[1]["rejected"], &letters[1]["of"]), (&1.into(), &1.into()));
    for (letter, call) in letters.iter().zip(["refused", "rejected"]) {
        let record = lines.iter().find(|line| line["call"] == call).unwrap();
        assert_eq!((&letter["item"], &letter["exporter"]), (record, &"otlp".into()));
    }
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost(), progress.dead_letters()), (1, 2, 2));
}

/// A collector that refuses every request with this call in it, for good, gets all others.
#[tokio::test]
async fn one_record_that_a_collector_refuses_stops_no_other() {
    for status in [400, 413, 500] {
        let way = Way { repeats: AT_ONCE, ..Way::default() };
        let mut fixture = Fixture::sending(way, vec![(503, Vec::new())]).await;
        *fixture.receiver.poison.lock().unwrap() = Some((status, "c13".to_owned()));
        for n in 0..40 {
            fixture.journal.keep(&denial(&format!("c{n}"))).unwrap();
        }
        let mut taken = Vec::new();
        while taken.len() < 39 {
            let received = fixture.receiver.next().await;
            if received.status == 200 {
                let calls = received.spans().into_iter().map(|it| attribute(&it, "bartizan.call"));
                taken.extend(calls.map(Option::unwrap));
            }
        }
        let others: Vec<String> = (0..40).filter(|n| *n != 13).map(|n| format!("c{n}")).collect();
        assert_eq!(taken, others, "in the order of the journal, each once");
        let state = fixture.directory.path().to_owned();
        fixture.saved(&(fixture.journal.last_seq() + 1).to_string()).await;
        let letters = dead_letters(&state);
        assert_eq!((letters.len(), &letters[0]["item"]["call"]), (1, &"c13".into()));
        let progress = Arc::clone(&fixture.progress);
        assert_eq!((progress.sent(), progress.lost(), progress.dead_letters()), (39, 1, 1));
        // What was given up is not sent again by the next run.
        let mut next = fixture.killed("boot-2", Vec::new()).await;
        next.journal.keep(&denial("later")).unwrap();
        let spans = next.receiver.spans(1).await;
        assert_eq!(attribute(&spans[0], "bartizan.call").as_deref(), Some("later"));
        next.end().await;
    }
}

/// What is repeated after a 500, and what there is to see when the repeats have run out.
#[test]
fn what_a_collector_fails_on_is_given_up_after_its_repeats() {
    const POISON: &str = "no_such_tool";
    let collector = RecordingUpstream::start(Box::new(|received| {
        let has_it = received.body.windows(POISON.len()).any(|it| it == POISON.as_bytes());
        let status = if has_it { "500 Internal Server Error" } else { "200 OK" };
        http_answer(status, "", b"")
    }));
    let top = format!("otlp: {{endpoint: '{}'}}\n", collector.url());
    let firewall = Firewall::with(Setup { top, repeats: AT_ONCE, ..Setup::default() });
    firewall.ask(call(1, POISON, "{}"));
    let denial = firewall.record("event", "denial", 1);
    let state = firewall.state();
    wait("a dead letter", || state.join("dead-letters.ndjson").exists().then_some(()));
    firewall.ask(call(2, "get_flag", "{}"));
    let outcome = firewall.record("event", "outcome", 1);
    let is_behind = |seq: &serde_json::Value| {
        let cursor = fs::read_to_string(state.join("otlp.seq")).unwrap();
        let next: u64 = cursor.split_ascii_whitespace().next().unwrap().parse().unwrap();
        next > seq.as_u64().unwrap()
    };
    wait("the cursor after the next call", || is_behind(&outcome["seq"]).then_some(()));

    let sent = collector.received();
    let has_it = |body: &[u8]| body.windows(POISON.len()).any(|it| it == POISON.as_bytes());
    let tries: Vec<_> = sent.iter().filter(|it| has_it(&it.body)).collect();
    assert_eq!(tries.len(), 1 + 2, "the first one and its repeats");
    assert!(tries.windows(2).all(|two| two[0].body == two[1].body), "the same request");
    let letters = dead_letters(&state);
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter["item"], denial, "the record, which the journal keeps");
    assert_eq!(letter["cause"], "the collector answered with status 500");
    assert_eq!(letter["exporter"], "otlp");
    let mut admin = Client::connect(firewall.admin());
    admin.send(b"GET /metrics HTTP/1.1\r\nHost: desk:1\r\n\r\n");
    let page = admin.reply();
    for (metric, count) in [("lost", 1), ("dead_letters", 1), ("sent", 2), ("lag", 0)] {
        let total = if metric == "lag" { "" } else { "_total" };
        let line = format!("bartizan_exporter_{metric}{total}{{exporter=\"otlp\"}} {count}");
        assert!(page.text().lines().any(|it| it == line), "{line}: {}", page.text());
    }
}

/// UNAVAILABLE and a missing permission are repeated; what is invalid becomes a dead letter.
#[tokio::test]
async fn a_collector_that_speaks_grpc_gets_everything() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "no".to_owned(),
        }),
    };
    let answers =
        vec![(14, Vec::new()), (7, Vec::new()), (3, Vec::new()), (200, partial.encode_to_vec())];
    let way = Way { is_grpc: true, repeats: AT_ONCE, ..Way::default() };
    let mut fixture = Fixture::sending(way, answers).await;
    let state = fixture.directory.path().to_owned();
    fixture.journal.keep(&denial("refused")).unwrap();
    for _ in 0..3 {
        let got = fixture.receiver.next().await;
        assert_eq!(got.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        assert_eq!(got.authorization.as_deref(), Some("Bearer secret"));
        assert_eq!(got.spans().len(), 1);
    }
    for call in ["rejected", "taken"] {
        fixture.journal.keep(&denial(call)).unwrap();
        let spans = fixture.receiver.spans(1).await;
        assert_eq!(attribute(&spans[0], "bartizan.call").as_deref(), Some(call));
    }
    fixture.saved(&(fixture.journal.last_seq() + 1).to_string()).await;
    let causes: Vec<String> = dead_letters(&state)
        .iter()
        .map(|letter| letter["cause"].as_str().unwrap().to_owned())
        .collect();
    assert!(causes[0].contains("gRPC status 3"), "{causes:?}");
    assert!(causes[1].contains("rejected by the service: no"), "{causes:?}");
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost(), progress.dead_letters()), (1, 2, 2));
}

/// `RESOURCE_EXHAUSTED` is repeated where the collector says when, and then; without that it stands
/// for a request that is too large, which is divided at once.
#[tokio::test]
async fn a_collector_that_speaks_grpc_says_when_to_send_again() {
    // A `google.rpc.Status` with a `google.rpc.RetryInfo` of 10 ms.
    let asked = b"\x1a\x33\x0a\x28type.googleapis.com/google.rpc.RetryInfo\
                  \x12\x07\x0a\x05\x10\x80\xad\xe2\x04";
    // Pauses of our own, and repeats of what is doubtful, would take longer than this test waits.
    let hour = Duration::from_hours(1);
    let repeats = Repeats { pause_first: hour, pause_max: hour, doubtful_max: 8 };
    for status in [8, 14] {
        let way = Way { is_grpc: true, repeats, ..Way::default() };
        let mut fixture = Fixture::sending(way, vec![(status, asked.to_vec())]).await;
        fixture.journal.keep(&denial("c1")).unwrap();
        let first = fixture.receiver.spans(1).await;
        assert_eq!(fixture.receiver.spans(1).await, first, "the same again");
        let progress = fixture.end().await;
        assert_eq!((progress.sent(), progress.lost()), (1, 0), "{status}");
    }
    let way = Way { is_grpc: true, repeats, ..Way::default() };
    let mut fixture = Fixture::sending(way, Vec::new()).await;
    *fixture.receiver.poison.lock().unwrap() = Some((8, "large".to_owned()));
    for call in ["c1", "large", "c2"] {
        fixture.journal.keep(&denial(call)).unwrap();
    }
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let received = fixture.receiver.next().await;
        if received.status == 200 {
            let calls = received.spans().into_iter().map(|it| attribute(&it, "bartizan.call"));
            taken.extend(calls.map(Option::unwrap));
        }
    }
    assert_eq!(taken, ["c1", "c2"]);
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost(), progress.dead_letters()), (2, 1, 1));
}

#[tokio::test]
async fn requests_are_compressed_where_the_settings_say_so() {
    for is_grpc in [false, true] {
        for compression in [Compression::Gzip, Compression::None] {
            let way = Way { is_grpc, compression, ..Way::default() };
            let mut fixture = Fixture::sending(way, Vec::new()).await;
            for call in ["c1", "c2"] {
                fixture.journal.keep(&denial(call)).unwrap();
                let received = fixture.receiver.next().await;
                assert_eq!(received.is_gzip, compression == Compression::Gzip, "{is_grpc}");
                let spans = received.spans();
                assert_eq!(attribute(&spans[0], "bartizan.call").as_deref(), Some(call));
            }
            let progress = fixture.end().await;
            assert_eq!((progress.sent(), progress.lost()), (2, 0));
        }
    }
}

/// The setting reaches all signals of the program: spans, log records and metrics.
#[test]
fn the_program_compresses_all_signals() {
    let collector = RecordingUpstream::start(Box::new(|_| http_answer("200 OK", "", b"")));
    let top = format!(
        "otlp: {{endpoint: '{}', compression: gzip, signals: [traces, logs, metrics]}}\n",
        collector.url()
    );
    let mut firewall = Firewall::with(Setup { top, ..Setup::default() });
    firewall.ask(call(1, "no_such_tool", "{}"));
    firewall.stop();
    let received = collector.received();
    for signal in ["traces", "logs", "metrics"] {
        let path = format!("post /mcp/v1/{signal} ");
        let of: Vec<_> = received.iter().filter(|it| it.head.starts_with(&path)).collect();
        assert!(!of.is_empty(), "{signal}");
        for request in of {
            assert_eq!(request.header("content-encoding"), ["gzip"], "{signal}");
            let mut plain = Vec::new();
            GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
            let resources = match signal {
                "traces" => {
                    ExportTraceServiceRequest::decode(&plain[..]).unwrap().resource_spans.len()
                }
                "logs" => ExportLogsServiceRequest::decode(&plain[..]).unwrap().resource_logs.len(),
                _ => {
                    ExportMetricsServiceRequest::decode(&plain[..]).unwrap().resource_metrics.len()
                }
            };
            assert_eq!(resources, 1, "{signal}");
        }
    }
}

/// It is not the record's fault, and it would be the same with each: nothing is given up.
#[tokio::test]
async fn a_collector_that_does_not_let_us_in_gets_everything_later() {
    let refusals = [401, 403, 404, 415].map(|status| (status, Vec::new()));
    let way = Way { repeats: AT_ONCE, ..Way::default() };
    let mut fixture = Fixture::sending(way, refusals.to_vec()).await;
    fixture.journal.keep(&denial("c1")).unwrap();
    let first = fixture.receiver.next().await.spans();
    for _ in 0..4 {
        assert_eq!(fixture.receiver.next().await.spans(), first);
    }
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost()), (1, 0));
}

#[tokio::test]
async fn the_end_sends_what_is_left() {
    let mut fixture = fixture(Vec::new()).await;
    for n in 0..100 {
        fixture.journal.keep(&denial(&format!("c{n}"))).unwrap();
    }
    let mut received = std::mem::replace(&mut fixture.receiver.received, mpsc::channel(1).1);
    let progress = fixture.end().await;
    assert_eq!((progress.sent(), progress.lost()), (100, 0));
    let mut spans = 0;
    while let Ok(one) = received.try_recv() {
        spans += one.spans().len();
    }
    assert_eq!(spans, 100);
}

#[tokio::test]
async fn https_speaks_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&config(directory.path(), 5000), "boot-1", now(0)).unwrap();
    journal.keep(&denial("c1")).unwrap();
    let config = to(&format!("https://{}", listener.local_addr().unwrap()), directory.path());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    start(config, &journal, &tasks, stop);
    let (mut stream, _) = listener.accept().await.unwrap();
    // RFC 8446, section 5.1: a handshake record.
    assert_eq!(stream.read_u8().await.unwrap(), 22);
}

/// What a program reads of `yaml` below `otlp`, or its problems.
fn read(yaml: &str) -> Result<Config, String> {
    let text = format!("servers: {{s: {{url: 'http://127.0.0.1:1/'}}}}\notlp: {{{yaml}}}\n");
    Config::parse(&text, Path::new("/"), &|_| None).map_err(|problems| problems.to_string())
}

#[test]
fn bad_configuration_is_refused() {
    for endpoint in ["", "collector", "ftp://host", "http://", "/v1/traces", "http://a:b@host"] {
        let problems = read(&format!("endpoint: '{endpoint}'")).unwrap_err();
        assert!(problems.contains("otlp.endpoint (line 2)"), "{endpoint}: {problems}");
    }
    let header = r#"endpoint: 'http://127.0.0.1:4318', headers: {x: "secret\n"}"#;
    let problems = read(header).unwrap_err();
    assert!(problems.contains("otlp.headers.x"), "{problems}");
    assert!(!problems.contains("secret"), "secrets are not shown");
    let both = "endpoint: 'http://127.0.0.1:4318/v1/traces', signals: [traces, logs]";
    assert!(read(both).unwrap_err().contains("takes traces alone"));
    let otlp = read(&both.replace("/v1/traces", "")).unwrap().otlp.unwrap();
    assert_eq!(otlp.signals, Signal::ALL);
    // Like every other service that gets a credential.
    for credential in ["bearer: secret", "bearer_file: /dev/null"] {
        let open = format!("endpoint: 'http://example.com', credentials: {{{credential}}}");
        let problems = read(&open).unwrap_err();
        assert!(problems.contains("unprotected"), "{problems}");
        read(&open.replace("http:", "https:")).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let config = to("http://127.0.0.1:4318", directory.path());
    assert!(!format!("{config:?}").contains("secret"), "secrets are not shown");
    let logs = read("endpoint: 'http://127.0.0.1:4318/v1/logs'").unwrap_err();
    assert!(logs.contains("takes logs alone"), "{logs}");
}

/// The file wins over the variables of OpenTelemetry, and those over Kubernetes.
#[test]
fn the_environment_fills_in_what_the_file_leaves_out() {
    let variables = BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k%20y,host=no,x=theirs,bad name=v,b=%0a"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/etc/client.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/client.key"),
        ("OTEL_SERVICE_NAME", "from-variable"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=listed,a=1,k8s.pod.name=listed"),
        ("POD_NAME", "pod"),
        ("POD_NAMESPACE", "space"),
        ("NODE_NAME", "node"),
    ]);
    let read = |keys: &str, set: bool| {
        let text = format!("servers: {{s: {{url: 'http://127.0.0.1:1/'}}}}\notlp: {{{keys}}}\n");
        let env = |name: &str| variables.get(name).filter(|_| set).map(|it| (*it).to_owned());
        Config::parse(&text, Path::new("/"), &env).map(|config| config.otlp.unwrap())
    };
    let otlp = read("", true).unwrap();
    assert_eq!(otlp.remote.url, "https://collector:4318");
    assert_eq!(otlp.remote.timeout, Duration::from_millis(2500));
    assert_eq!(otlp.compression, Compression::Gzip);
    assert_eq!(otlp.remote.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert!(matches!(otlp.remote.credentials, Some(CredentialsConfig::ClientTls { .. })));
    let headers: Vec<_> =
        otlp.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("api-key", "k y"), ("x", "theirs")]);
    let resource: Vec<_> = otlp.resource.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let expected = [
        ("a", "1"),
        ("k8s.namespace.name", "space"),
        ("k8s.node.name", "node"),
        ("k8s.pod.name", "listed"),
        ("service.name", "from-variable"),
    ];
    assert_eq!(resource, expected);

    let keys = "endpoint: 'http://127.0.0.1:1', timeout: 1s, compression: none, headers: {x: ours}, \
                resource: {service.name: written, a: b}, credentials: {bearer: t}";
    let otlp = read(keys, true).unwrap();
    assert_eq!(
        (otlp.remote.url, otlp.remote.timeout),
        ("http://127.0.0.1:1".parse().unwrap(), Duration::from_secs(1))
    );
    assert!(matches!(otlp.remote.credentials, Some(CredentialsConfig::Bearer(_))));
    assert_eq!(otlp.compression, Compression::None);
    assert_eq!((&*otlp.resource["service.name"], &*otlp.resource["a"]), ("written", "b"));
    assert!(otlp.headers.iter().any(|(name, value)| name == "x" && value.expose() == "ours"));
    assert_eq!(otlp.headers.len(), 2);
    assert!(read("", false).unwrap_err().to_string().contains("`endpoint` is missing"));
}

/// Spans by call and kind, with how often each came. A client span names its call by its parent.
fn counted(spans: &[Span]) -> BTreeMap<(String, i32), usize> {
    let call = |span: &Span| attribute(span, "bartizan.call");
    let mut counted: BTreeMap<_, usize> = BTreeMap::new();
    for span in spans {
        let server = || spans.iter().find(|server| server.span_id == span.parent_span_id);
        let key = (call(span).or_else(|| call(server()?)).unwrap(), span.kind);
        let count = counted.entry(key).or_default();
        *count = count.saturating_add(1);
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_open_at_a_restart_comes_whole() {
    let mut first = fixture(Vec::new()).await;
    first.journal.keep(&called("open")).unwrap();
    for n in 0..3 {
        first.journal.keep(&called(&format!("c{n}"))).unwrap();
        first.journal.keep(&outcome(&format!("c{n}"))).unwrap();
    }
    let spans = first.receiver.spans(6).await;
    assert_eq!(counted(&spans).len(), 6);
    // The first record is `start`, the second the intent that is still open.
    first.saved("9 2").await;

    // The next start records the outcome of the open call, and no span is sent twice.
    let mut second = first.killed("boot-2", Vec::new()).await;
    let spans = second.receiver.spans(2).await;
    let [server, client] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(
        (server.kind, client.kind),
        (i32::from(SpanKind::Server), i32::from(SpanKind::Client))
    );
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        check(span, &[("gen_ai.tool.name", "update_gate"), ("error.type", "unknown")]);
    }
    check(server, &[("bartizan.call", "open"), ("bartizan.boot", "boot-1")]);
    second.journal.keep(&denial("last")).unwrap();
    assert_eq!(counted(&second.receiver.spans(1).await).len(), 1);
    let progress = second.end().await;
    assert_eq!((progress.sent(), progress.lost()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_from_the_journal_is_counted_once() {
    let first = fixture(Vec::new()).await;
    first.journal.keep(&called("open")).unwrap();
    // Enough for several segments.
    for n in 0..40 {
        first.journal.keep(&denial(&format!("c{n}"))).unwrap();
    }
    first.saved(&format!("{} 2", first.journal.last_seq() + 1)).await;
    let directory = first.directory.path().join("journal");
    let mut segments: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "ndjson"));
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    // Its records were sent, but for the intent, whose end is told without it.
    fs::remove_file(&segments[0]).unwrap();
    let mut second = first.killed("boot-2", Vec::new()).await;
    let mut spans = Vec::new();
    while !counted(&spans).contains_key(&("open".to_owned(), i32::from(SpanKind::Server))) {
        spans.extend(second.receiver.next().await.spans());
    }
    let progress = second.end().await;
    assert_eq!(progress.lost(), 0);
}

const POLICY: &str = r#"package mcp

permit contains {"code": "all", "message": "everything passes"} if input.tool.name != "drop_flag"
"#;

/// The head of a configuration whose state is `folder/state` and whose policy is [`POLICY`].
fn head(folder: &Path) -> (PathBuf, String) {
    let (state, policies) = (folder.join("state"), folder.join("policies"));
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("rules.rego"), POLICY).unwrap();
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\npolicy: {{paths: [{}]}}\n",
        state.display(),
        policies.display()
    );
    (state, text)
}

/// What a collector received as metrics: the totals of each request, and whose they are.
#[test]
fn metrics_go_to_the_collector_as_often_as_is_said_and_at_the_stop() {
    let collector = RecordingUpstream::start(Box::new(|_| http_answer("200 OK", "", b"")));
    let top = format!(
        "otlp: {{endpoint: '{}', signals: [metrics], metrics_interval: 1s, resource: {{team: a}}}}\n",
        collector.url()
    );
    let mut firewall = Firewall::with(Setup { top, ..Setup::default() });
    let denials = || {
        let received = collector.received();
        let totals = received.iter().map(|received| {
            assert!(received.head.starts_with("post /mcp/v1/metrics "), "{}", received.head);
            let request = ExportMetricsServiceRequest::decode(&received.body[..]).unwrap();
            let [metrics] = &request.resource_metrics[..] else { panic!("one resource") };
            let about = &metrics.resource.as_ref().unwrap().attributes;
            assert!(about.iter().any(|it| it.key == "team"), "{about:?}");
            let metrics = metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            let decisions = metrics.filter(|it| it.name == "bartizan.decisions");
            decisions.map(points).sum::<f64>()
        });
        totals.collect::<Vec<_>>()
    };
    wait("the first metrics", || (!denials().is_empty()).then_some(()));
    firewall.ask(call(1, "no_such_tool", "{}"));
    firewall.stop();
    let totals = denials();
    assert!(totals.is_sorted() && totals.last() >= Some(&1.0), "{totals:?}");
}

/// The sum of the points of a counter.
fn points(metric: &Metric) -> f64 {
    let Some(metric::Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
    let values = sum.data_points.iter().map(|point| match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        Some(number_data_point::Value::AsInt(value)) => f64::from(u32::try_from(value).unwrap()),
        None => 0.0,
    });
    values.sum()
}

/// The program is killed with calls in flight and while the collector is away: every span is sent
/// later, and spans that the collector has accepted are not sent again.
#[test]
fn a_killed_program_goes_on_where_the_collector_is() {
    let away = Arc::new(AtomicBool::new(true));
    let gone = Arc::clone(&away);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&taken);
    let collector = RecordingUpstream::start(Box::new(move |received| {
        if gone.load(Ordering::Relaxed) {
            return Vec::new();
        }
        log.lock().unwrap().push(received.clone());
        http_answer("200 OK", "", b"")
    }));
    let hold = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&hold);
    let server = RecordingUpstream::start(Box::new(move |received| {
        while slow.load(Ordering::Relaxed) && received.body.windows(4).any(|four| four == b"slow") {
            std::thread::sleep(Duration::from_millis(10));
        }
        json(&odd_answer(&received.body))
    }));
    let folder = tempfile::tempdir().unwrap();
    let (state, head) = head(folder.path());
    let text = format!(
        "{head}otlp: {{endpoint: '{}'}}\nservers: {{flags: {{path: /mcp, url: '{}'}}}}",
        collector.url(),
        server.url()
    );
    let spans = || -> Vec<Span> {
        let taken = taken.lock().unwrap();
        let bodies = taken.iter().map(|received| {
            assert!(received.head.starts_with("post /mcp/v1/traces "), "{}", received.head);
            ExportTraceServiceRequest::decode(received.body.as_slice()).unwrap()
        });
        let resources = bodies.flat_map(|body| body.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    };
    let records = |event: &str| -> Vec<serde_json::Value> {
        let mut records = journal(&state);
        records.retain(|record| record["event"] == event);
        records
    };
    let cursor = || -> (u64, u64) {
        let text = fs::read_to_string(state.join("otlp.seq")).unwrap();
        let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().unwrap());
        let next = numbers.next().unwrap();
        (next, numbers.next().unwrap_or(next))
    };
    // One call stays open until the program is killed, the others end.
    let calls = |program: &Program, quick: usize| {
        let address = program.addresses().0;
        let before = records("intent").len();
        let mut open = Client::connect(address);
        open.send(&post(call(1000, "slow", "{}"), LEGACY));
        wait("the open call", || (records("intent").len() > before).then_some(()));
        let mut client = Client::connect(address);
        for id in 0..quick {
            client.send(&post(call(id, "update_flag", "{}"), LEGACY));
            client.reply();
        }
        open
    };

    let first = Program::run(folder.path(), "", &text);
    let open = calls(&first, 10);
    wait("a try", || (!collector.received().is_empty()).then_some(()));
    drop(first);
    drop(open);
    away.store(false, Ordering::Relaxed);
    let second = Program::run(folder.path(), "", &text);
    let open = calls(&second, 5);
    wait("everything but the open call", || (spans().len() >= 2 * 16).then_some(()));
    let last = records("outcome").last().unwrap()["seq"].as_u64().unwrap();
    let slow = records("intent")[11]["seq"].as_u64().unwrap();
    wait("the cursor", || (cursor() == (last + 1, slow)).then_some(()));
    drop(second);
    drop(open);

    let third = Program::run(folder.path(), "", &text);
    let expected: BTreeMap<(String, i32), usize> = records("intent")
        .iter()
        .flat_map(|record| {
            [SpanKind::Server, SpanKind::Client]
                .map(|kind| ((record["call"].as_str().unwrap().to_owned(), i32::from(kind)), 1))
        })
        .collect();
    assert_eq!(expected.len(), 2 * 17);
    wait("everything", || (spans().len() >= expected.len()).then_some(()));
    third.stop();
    assert_eq!(counted(&spans()), expected, "each once");
    hold.store(false, Ordering::Relaxed);
}

/// The firewall's own time and the server's can be told apart; both contexts of a request are there.
#[test]
fn records_say_when_a_call_was_forwarded_and_under_which_contexts() {
    const SLOW: Duration = Duration::from_millis(300);
    let server = RecordingUpstream::start(Box::new(|received| {
        std::thread::sleep(SLOW);
        json(&odd_answer(&received.body))
    }));
    let folder = tempfile::tempdir().unwrap();
    let (state, head) = head(folder.path());
    let text = format!("{head}servers: {{flags: {{path: /mcp, url: '{}'}}}}", server.url());
    let program = Program::run(folder.path(), "", &text);
    let mut client = Client::connect(program.addresses().0);
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get_flag","_meta":{{"traceparent":"00-{TRACE}-{PARENT}-00"}}}}}}"#
    );
    let headers = format!("{LEGACY}traceparent: 00-{OTHER}-{PARENT}-01\r\n");
    client.send(&post(body, &headers));
    client.reply();
    client.send(&post(call(2, "drop_flag", "{}"), LEGACY));
    client.reply();
    program.stop();
    let records = journal(&state);
    let of = |event: &str| records.iter().find(|record| record["event"] == event).unwrap();
    let (intent, outcome) = (of("intent"), of("outcome"));
    for record in [intent, outcome] {
        assert_eq!(
            (&record["trace_id"], &record["link"]["trace_id"]),
            (&TRACE.into(), &OTHER.into())
        );
        assert_eq!(record["link"]["span_id"], PARENT);
    }
    let micros = |value: &serde_json::Value| value.as_u64().unwrap();
    let (start, took) =
        (micros(&outcome["upstream"]["start_us"]), micros(&outcome["upstream"]["duration_us"]));
    assert!(start >= micros(&intent["uptime_us"]));
    // Each is rounded.
    assert!((start + took).abs_diff(micros(&outcome["uptime_us"])) <= 1);
    assert!(Duration::from_micros(took) >= SLOW && took <= micros(&outcome["duration_us"]));
    assert!(of("denial")["upstream"].is_null(), "it was not forwarded");
}

/// One server is told our span as the parent of its own, and the other gets the agent's bytes.
#[test]
fn a_server_is_told_our_span_where_its_configuration_says_so() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&received);
    let collector = RecordingUpstream::start(Box::new(move |received| {
        log.lock().unwrap().push(received.body.clone());
        http_answer("200 OK", "", b"")
    }));
    let server = || RecordingUpstream::start(Box::new(|it| json(&odd_answer(&it.body))));
    let (told, plain) = (server(), server());
    let folder = tempfile::tempdir().unwrap();
    let (_, head) = head(folder.path());
    let text = format!(
        "{head}otlp: {{endpoint: '{}'}}\nservers:\n  told: {{path: /mcp, propagate: true, url: '{}'}}\n  \
         plain: {{path: /plain, url: '{}'}}\n",
        collector.url(),
        told.url(),
        plain.url()
    );
    let program = Program::run(folder.path(), "", &text);
    let mut client = Client::connect(program.addresses().0);
    let of = |id: u32, params: &str| {
        format!(r#"{{ "method":"tools/call", "id":{id},"params":{{{params}}} ,"jsonrpc":"2.0"}}"#)
    };
    let theirs = format!("00-{TRACE}-{PARENT}-00");
    let meta = format!(r#""_meta":{{"x": 1.0e2, "traceparent":"{theirs}"}}, "name":"get""#);
    let bare = r#""name":"get", "_meta" : {}"#;
    let headers = format!("{LEGACY}traceparent: {theirs}\r\n");
    for body in [of(1, &meta), of(2, bare), of(3, r#""name":"get""#)] {
        client.send(&post(body, &headers));
        assert_eq!(client.reply().status, 200);
    }
    let whole = of(4, &meta);
    let elsewhere = String::from_utf8(post(&whole, &headers)).unwrap();
    client.send(elsewhere.replacen("/mcp", "/plain", 1).as_bytes());
    assert_eq!(client.reply().status, 200);
    program.stop();

    assert_eq!(plain.received()[0].body, whole.as_bytes());
    assert_eq!(plain.received()[0].header("traceparent"), [theirs.as_str()]);
    let bodies = received.lock().unwrap();
    let spans: Vec<Span> = bodies
        .iter()
        .flat_map(|body| ExportTraceServiceRequest::decode(body.as_slice()).unwrap().resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect();
    let clients: Vec<&Span> =
        spans.iter().filter(|span| span.kind == i32::from(SpanKind::Client)).collect();
    // Where the server is, as its URL says.
    for (client, url) in clients.iter().zip([told.url(), told.url(), told.url(), plain.url()]) {
        let port = url.parse::<Uri>().unwrap().port_u16().unwrap().to_string();
        check(client, &[("server.address", "127.0.0.1"), ("server.port", &port)]);
    }
    let server = spans.iter().find(|span| span.kind == i32::from(SpanKind::Server)).unwrap();
    assert_eq!(attribute(server, "server.address"), None, "a SERVER span has that of its client");
    let told = told.received();
    assert_eq!((told.len(), clients.len()), (3, 4));
    for (got, client) in told.iter().zip(&clients) {
        let context = format!("00-{TRACE}-{}-01", hex(&client.span_id));
        assert_eq!(hex(&client.trace_id), TRACE);
        assert_eq!(got.header("traceparent"), [context.as_str()]);
        let body = String::from_utf8(got.body.clone()).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["params"]["_meta"]["traceparent"], context);
    }
    let context = format!("00-{TRACE}-{}-01", hex(&clients[0].span_id));
    let expected = of(1, &meta.replace(&theirs, &context));
    assert_eq!(String::from_utf8(told[0].body.clone()).unwrap(), expected, "no other byte");
}

/// The host and port of a server's URL, and nothing else of it.
#[test]
fn the_address_of_a_server_is_the_host_and_port_of_its_url() {
    let ways = [
        ("url: 'http://mcp.example:8080/a/mcp?key=s3cret'", Some(("mcp.example", 8080))),
        ("url: 'http://mcp.example/mcp'", Some(("mcp.example", 80))),
        ("url: 'https://mcp.example/mcp'", Some(("mcp.example", 443))),
        ("url: 'https://[2001:db8::7]:8443/mcp'", Some(("2001:db8::7", 8443))),
        ("command: [server, '--url=http://mcp.example/mcp']", None),
    ];
    for (way, expected) in ways {
        let text = format!("state: /s\nlisten: 127.0.0.1:0\nservers:\n  it: {{{way}}}\n");
        let config = Config::parse(&text, Path::new("/"), &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let address = config.servers[0].address();
        let found = address.as_ref().map(|at| (at.address.as_ref(), at.port));
        assert_eq!(found, expected, "{way}");
    }
}

/// As for bundles and decision logs: roots of our own, and a certificate that says who we are.
#[test]
fn a_client_certificate_opens_the_collector() {
    let refused = Arc::new(Mutex::new(0));
    let address = tls::start(&refused, http_answer("200 OK", "", b""));
    let folder = tempfile::tempdir().unwrap();
    let way = format!("endpoint: 'https://{address}', ca_file: {}/ca.pem", tls::THEIRS);
    let begin = |name: &str, way: &str| {
        let state = folder.path().join(name);
        (Sidecar::with(&state, &format!("otlp: {{{way}}}\n")), state.join("otlp.seq"))
    };
    // The last record of a call, and whether the collector has it.
    let ping = |sidecar: &Sidecar| -> u64 {
        sidecar.ping();
        sidecar.records("method", "ping").last().unwrap()["seq"].as_u64().unwrap()
    };
    let has = |cursor: &Path, seq: u64| {
        let text = fs::read_to_string(cursor).unwrap();
        text.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() > seq
    };
    let (stranger, cursor) = begin("a", &way);
    let seq = ping(&stranger);
    wait("a refusal", || (*refused.lock().unwrap() > 0).then_some(()));
    assert!(!has(&cursor, seq));
    stranger.stop();

    let ours = format!("{{cert: {0}/client.pem, key: {0}/client.key}}", tls::OURS);
    let (known, cursor) = begin("b", &format!("{way}, credentials: {{client_tls: {ours}}}"));
    let seq = ping(&known);
    wait("spans", || has(&cursor, seq).then_some(()));
}
