//! The demo's agent: a script of attempts, and how each is made.
//!
//! Most attempts go through rmcp's client, in the modern era (2026-07-28) and in the legacy one
//! (2025-11-25). What no MCP library would send is sent as raw HTTP. The agent only reports what it
//! saw; the crate's root compares that with what is expected.

use std::collections::BTreeMap;
use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation, ProtocolVersion,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, RunningService, ServiceError,
    serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ErrorData, RoleClient};
use serde_json::{Value, json};

use bartizan_gate::duty::decision::Origin;
use bartizan_peer::client::HttpClient;

/// Most calls of a flood. A firewall that lets all of them pass has no limit.
const FLOOD_CALLS_MAX: usize = 200;

/// How an attempt is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptKind {
    /// rmcp, 2026-07-28.
    Modern,
    /// rmcp, 2025-11-25.
    Legacy,
    /// Raw HTTP: bytes that no library sends.
    Raw,
}

impl AttemptKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
            Self::Raw => "raw",
        }
    }
}

/// A person's answer to a held call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Grant,
    Refuse,
}

impl Answer {
    /// As `bartizan approvals` calls it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Refuse => "refuse",
        }
    }
}

/// The expected result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// It passes and reaches the server.
    Passed,
    /// It is refused for one of these origins and does not reach the server.
    Refused(&'static [Origin]),
    /// It is held, a person answers so, and it passes only if the answer was a grant.
    Held(Answer),
    /// Some calls pass, then one is refused for this origin.
    Throttled(Origin),
}

impl Expected {
    /// The origins of the expected refusal; empty if none is expected.
    pub(super) fn grounds(&self) -> &[Origin] {
        match self {
            Self::Passed | Self::Held(_) => &[],
            Self::Refused(grounds) => grounds,
            Self::Throttled(ground) => std::slice::from_ref(ground),
        }
    }
}

/// Refused by policy: a rule denied, or no rule permitted.
const POLICY: &[Origin] = &[Origin::Rule, Origin::NotApplicable];

/// What the agent does.
#[derive(Debug, Clone)]
pub(super) enum AgentAction {
    /// Connect and list the tools.
    Connect,
    /// Call one tool.
    Call(&'static str, Value),
    /// Call one tool until it is refused.
    Flood(&'static str, Value),
    /// POST this body with these headers.
    Post(&'static [(&'static str, &'static str)], &'static str),
}

/// One line of the script.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) era: AttemptKind,
    pub(super) what: &'static str,
    pub(super) action: AgentAction,
    pub(super) expected: Expected,
}

impl Attempt {
    /// The method and the tool of its audit record; `None` for a frame that cannot be read.
    pub(super) fn target(&self) -> (Option<&'static str>, Option<&'static str>) {
        match self.action {
            AgentAction::Connect => (Some("tools/list"), None),
            AgentAction::Call(tool, _) | AgentAction::Flood(tool, _) => {
                (Some("tools/call"), Some(tool))
            }
            AgentAction::Post(_, _) => (None, None),
        }
    }
}

/// What the agent got back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// An answer of the server; the text summarizes it.
    Answer(String),
    /// A refusal with its decision id, after `passed` calls that passed.
    Refusal { passed: usize, decision: Option<String>, text: String },
    /// Neither: a transport or tool error.
    Failure(String),
}

impl Seen {
    fn refusal(error: &ErrorData) -> Self {
        let decision = error.data.as_ref().and_then(|data| data.get("decision_id"));
        Self::Refusal {
            passed: 0,
            decision: decision.and_then(Value::as_str).map(str::to_owned),
            text: format!("{} {}", error.code.0, error.message),
        }
    }
}

const MODERN: [(&str, &str); 3] = [
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "get_flag"),
];

/// A parser that keeps the first `name` reads `get_flag`; one that keeps the last reads
/// `delete_flag`.
const TWO_NAMES: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"smuggled-1","method":"tools/call","params":{"name":"get_flag","#,
    r#""name":"delete_flag","arguments":{"key":"checkout-redesign"},"#,
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{}}}}"#
);

/// The headers say `get_flag`, the body says `delete_flag`.
const TWO_STORIES: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"smuggled-2","method":"tools/call","params":{"name":"delete_flag","#,
    r#""arguments":{"key":"checkout-redesign","environment":"staging"},"#,
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{}}}}"#
);

/// A batch: a read, then a deletion.
const BATCH: &str = concat!(
    r#"[{"jsonrpc":"2.0","id":"smuggled-3","method":"tools/call","params":{"name":"get_flag","#,
    r#""arguments":{"key":"checkout-redesign"}}},"#,
    r#"{"jsonrpc":"2.0","id":"smuggled-4","method":"tools/call","params":{"name":"delete_flag","#,
    r#""arguments":{"key":"checkout-redesign"}}}]"#
);

const FLAG: &str = "checkout-redesign";

/// The script, in order. The flood is last, because it uses up the rate limit that all writes
/// share.
pub(super) fn script() -> Vec<Attempt> {
    let flood = AgentAction::Flood(
        "update_flag",
        json!({"key": FLAG, "environment": "staging", "enabled": true}),
    );
    let flood = Attempt {
        era: AttemptKind::Modern,
        what: "flood staging with writes",
        action: flood,
        expected: Expected::Throttled(Origin::Limited),
    };
    [modern(), legacy(), raw(), vec![flood]].concat()
}

fn connect(era: AttemptKind, what: &'static str) -> Attempt {
    Attempt { era, what, action: AgentAction::Connect, expected: Expected::Passed }
}

/// Attempts of one era, in order.
pub(super) struct Attempts(AttemptKind, Vec<Attempt>);

/// Attempts of `era`, in order.
pub(super) fn attempts(era: AttemptKind) -> Attempts {
    Attempts(era, Vec::new())
}

impl Attempts {
    /// Connects and lists the tools.
    pub(super) fn connect(mut self) -> Self {
        self.1.push(connect(self.0, "connect, then list the tools"));
        self
    }

    /// Adds a call that is expected to pass.
    pub(super) fn passes(self, what: &'static str, tool: &'static str, arguments: Value) -> Self {
        self.call(what, AgentAction::Call(tool, arguments), Expected::Passed)
    }

    /// Adds a call that policy is expected to refuse.
    pub(super) fn refused(self, what: &'static str, tool: &'static str, arguments: Value) -> Self {
        self.call(what, AgentAction::Call(tool, arguments), Expected::Refused(POLICY))
    }

    fn call(mut self, what: &'static str, action: AgentAction, expected: Expected) -> Self {
        self.1.push(Attempt { era: self.0, what, action, expected });
        self
    }

    /// The attempts.
    pub(super) fn done(self) -> Vec<Attempt> {
        self.1
    }
}

fn modern() -> Vec<Attempt> {
    let call = |what, tool, arguments, expected| {
        let action = AgentAction::Call(tool, arguments);
        Attempt { era: AttemptKind::Modern, what, action, expected }
    };
    let passed = |what, tool, arguments| call(what, tool, arguments, Expected::Passed);
    let refused = |what, tool, arguments| call(what, tool, arguments, Expected::Refused(POLICY));
    vec![
        connect(AttemptKind::Modern, "discover, then list the tools"),
        passed("read all flags", "list_flags", json!({})),
        passed(
            "switch a flag in staging",
            "update_flag",
            json!({"key": FLAG, "environment": "staging", "enabled": false}),
        ),
        refused(
            "switch a flag in production",
            "update_flag",
            json!({"key": FLAG, "environment": "production", "enabled": true}),
        ),
        refused(
            "switch a flag, naming no environment",
            "update_flag",
            json!({"key": FLAG, "enabled": true}),
        ),
        refused(
            "replace all rules, one for everywhere",
            "replace_flag",
            json!({"key": FLAG, "rules": [{"environments": ["staging"]}, {}]}),
        ),
        refused(
            "delete a flag in staging",
            "delete_flag",
            json!({"key": FLAG, "environment": "staging"}),
        ),
        refused("approve its own change", "approve_review", json!({"review_id": "r-17"})),
        refused(
            "run a script",
            "run_script",
            json!({"code": "flags.all().forEach(f => f.enable('production'))"}),
        ),
    ]
}

fn legacy() -> Vec<Attempt> {
    let call = |what, tool, arguments, expected| {
        let action = AgentAction::Call(tool, arguments);
        Attempt { era: AttemptKind::Legacy, what, action, expected }
    };
    let rollout = |environment, percentage: u32| json!({"key": FLAG, "environment": environment, "percentage": percentage});
    let refused = Expected::Refused(POLICY);
    vec![
        connect(AttemptKind::Legacy, "initialize, then list the tools"),
        call("read one flag", "get_flag", json!({"key": FLAG}), Expected::Passed),
        call(
            "serve it to a quarter of staging",
            "set_rollout",
            rollout("staging", 25),
            Expected::Passed,
        ),
        call("serve it to all of production", "set_rollout", rollout("production", 100), refused),
        call(
            "serve it to 90 % of staging",
            "set_rollout",
            rollout("staging", 90),
            Expected::Held(Answer::Grant),
        ),
        call(
            "the same with one byte changed: 91 %",
            "set_rollout",
            rollout("staging", 91),
            Expected::Held(Answer::Refuse),
        ),
    ]
}

/// What the agent does while the demo stays: one call that is held.
pub(super) fn left_held() -> [Attempt; 2] {
    let arguments = json!({"key": FLAG, "environment": "staging", "percentage": 100});
    let call = Attempt {
        era: AttemptKind::Legacy,
        what: "serve it to all of staging",
        action: AgentAction::Call("set_rollout", arguments),
        expected: Expected::Held(Answer::Grant),
    };
    [connect(AttemptKind::Legacy, "initialize, then list the tools"), call]
}

fn raw() -> Vec<Attempt> {
    let smuggled = |what, headers, body, grounds| Attempt {
        era: AttemptKind::Raw,
        what,
        action: AgentAction::Post(headers, body),
        expected: Expected::Refused(grounds),
    };
    vec![
        smuggled("smuggle a second `name` into a read", &MODERN, TWO_NAMES, &[Origin::Malformed]),
        smuggled(
            "say read in the headers, delete in the body",
            &MODERN,
            TWO_STORIES,
            &[Origin::HeaderMismatch],
        ),
        smuggled("hide a delete behind a read in a batch", &[], BATCH, &[Origin::Malformed]),
    ]
}

type McpClient = RunningService<RoleClient, ClientConfig>;

/// The agent and its connections.
pub(super) struct Agent {
    url: Arc<str>,
    http: HttpClient,
    modern: Option<McpClient>,
    legacy: Option<McpClient>,
    /// Handles that answers gave out, by operation id.
    handles: BTreeMap<String, String>,
}

/// An argument with this prefix is replaced by the handle of the operation that it names.
const HANDLE_OF: &str = "handle of ";

impl Agent {
    pub(super) fn new(url: &str, http: HttpClient) -> Self {
        Self { url: url.into(), http, modern: None, legacy: None, handles: BTreeMap::new() }
    }

    /// Makes one attempt.
    pub(super) async fn attempt(&mut self, attempt: &Attempt) -> Seen {
        match &attempt.action {
            AgentAction::Connect => match self.connect(attempt.era).await {
                Ok(seen) => seen,
                Err(error) => Seen::Failure(error.to_string()),
            },
            AgentAction::Call(tool, arguments) => self.call(attempt.era, tool, arguments).await,
            AgentAction::Flood(tool, arguments) => self.flood(attempt.era, tool, arguments).await,
            AgentAction::Post(headers, body) => self.post(headers, body).await,
        }
    }

    /// Closes both connections.
    pub(super) async fn close(self) {
        for peer in [self.modern, self.legacy].into_iter().flatten() {
            if let Err(error) = peer.cancel().await {
                tracing::debug!(%error, "demo agent: connection ended badly");
            }
        }
    }

    async fn connect(&mut self, era: AttemptKind) -> Result<Seen, ClientInitializeError> {
        let lifecycle = match era {
            AttemptKind::Modern => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
            AttemptKind::Legacy | AttemptKind::Raw => ClientLifecycleMode::Initialize,
        };
        let agent = Implementation::new("demo-agent", env!("CARGO_PKG_VERSION"));
        let config = ClientConfig::new(ClientCapabilities::default(), agent)
            .with_protocol_version(ProtocolVersion::V_2025_11_25);
        let transport = StreamableHttpClientTransport::with_client(
            self.http.clone(),
            StreamableHttpClientTransportConfig::with_uri(Arc::clone(&self.url)),
        );
        let peer = serve_client_with_lifecycle(config, transport, lifecycle).await?;
        let seen = match peer.list_tools(None).await {
            Ok(page) => Seen::Answer(format!("{} tools", page.tools.len())),
            Err(error) => seen(&error),
        };
        match era {
            AttemptKind::Modern => self.modern = Some(peer),
            AttemptKind::Legacy | AttemptKind::Raw => self.legacy = Some(peer),
        }
        Ok(seen)
    }

    async fn call(&mut self, era: AttemptKind, tool: &'static str, arguments: &Value) -> Seen {
        let peer = match era {
            AttemptKind::Modern => &self.modern,
            AttemptKind::Legacy | AttemptKind::Raw => &self.legacy,
        };
        let Some(peer) = peer else {
            return Seen::Failure("not connected".to_owned());
        };
        let mut arguments = arguments.as_object().cloned().unwrap_or_default();
        for value in arguments.values_mut() {
            let named = value.as_str().and_then(|text| text.strip_prefix(HANDLE_OF));
            if let Some(handle) = named.and_then(|operation| self.handles.get(operation)) {
                *value = handle.as_str().into();
            }
        }
        match peer.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await {
            Ok(result) if result.is_error == Some(true) => {
                Seen::Failure(format!("the tool failed: {}", json!(result.content)))
            }
            Ok(result) => {
                self.keep_handles(&result.structured_content.unwrap_or_default());
                Seen::Answer("a result".to_owned())
            }
            Err(error) => seen(&error),
        }
    }

    fn keep_handles(&mut self, answer: &Value) {
        let operations = answer.get("operations").and_then(Value::as_array);
        for operation in operations.into_iter().flatten() {
            let text = |name| operation.get(name).and_then(Value::as_str).map(str::to_owned);
            if let (Some(id), Some(handle)) = (text("operationId"), text("operationHandle")) {
                self.handles.insert(id, handle);
            }
        }
    }

    async fn flood(&mut self, era: AttemptKind, tool: &'static str, arguments: &Value) -> Seen {
        for sent in 0..FLOOD_CALLS_MAX {
            match self.call(era, tool, arguments).await {
                Seen::Answer(_) => {}
                Seen::Refusal { decision, text, .. } => {
                    return Seen::Refusal { passed: sent, decision, text };
                }
                Seen::Failure(text) => return Seen::Failure(text),
            }
        }
        Seen::Answer(format!("{FLOOD_CALLS_MAX} results"))
    }

    async fn post(&self, headers: &[(&'static str, &str)], body: &'static str) -> Seen {
        let (status, body) = match self.http.post(&self.url, headers, body).await {
            Ok(answer) => answer,
            Err(error) => return Seen::Failure(error.to_string()),
        };
        let text = String::from_utf8_lossy(&body);
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let error = answer.get("error");
        if error.is_none() && status.is_success() {
            return Seen::Answer("a result".to_owned());
        }
        let word = |name| error.and_then(|error| error.get(name));
        let decision = word("data").and_then(|data| data.get("decision_id"));
        Seen::Refusal {
            passed: 0,
            decision: decision.and_then(Value::as_str).map(str::to_owned),
            text: word("message").and_then(Value::as_str).unwrap_or(status.as_str()).to_owned(),
        }
    }
}

fn seen(error: &ServiceError) -> Seen {
    if let ServiceError::McpError(error) = error {
        return Seen::refusal(error);
    }
    Seen::Failure(error.to_string())
}
