//! The agent: a script of attempts, and how each is made.
//!
//! Most attempts go through rmcp's client, in the modern era (2026-07-28) and in the legacy one
//! (2025-11-25). What no MCP library would send is sent as raw HTTP. The agent only tries and
//! tells what it saw; whether that was right is judged in `mod.rs`.

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

/// Calls of a flood; a firewall that lets all of them through has no limit.
const FLOOD_CALLS_MAX: usize = 200;

/// How an attempt travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// rmcp, 2026-07-28.
    Modern,
    /// rmcp, 2025-11-25.
    Legacy,
    /// Bytes that no library sends.
    Raw,
}

impl Era {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
            Self::Raw => "raw",
        }
    }
}

/// What ought to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// It passes, and reaches the server.
    Passed,
    /// It is refused on one of these grounds, and does not.
    Refused(&'static [Origin]),
    /// Some pass, then one is refused on this ground.
    Throttled(Origin),
}

impl Expected {
    /// The grounds of the refusal that ought to come; none where none ought to.
    pub(super) fn grounds(&self) -> &[Origin] {
        match self {
            Self::Passed => &[],
            Self::Refused(grounds) => grounds,
            Self::Throttled(ground) => std::slice::from_ref(ground),
        }
    }
}

/// On policy: a rule said no, or no rule said yes.
const POLICY: &[Origin] = &[Origin::Rule, Origin::NotApplicable];

/// What is done.
#[derive(Debug, Clone)]
pub(super) enum Act {
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
    pub(super) era: Era,
    pub(super) what: &'static str,
    pub(super) act: Act,
    pub(super) expected: Expected,
}

impl Attempt {
    /// The method and the tool that its audit record names; a frame that could not be read has
    /// neither.
    pub(super) fn target(&self) -> (Option<&'static str>, Option<&'static str>) {
        match self.act {
            Act::Connect => (Some("tools/list"), None),
            Act::Call(tool, _) | Act::Flood(tool, _) => (Some("tools/call"), Some(tool)),
            Act::Post(_, _) => (None, None),
        }
    }
}

/// What the agent saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// An answer of the server; the text says how many of what.
    Answer(String),
    /// A refusal, after so many calls that passed, and the decision that it names.
    Refusal { passed: usize, decision: Option<String>, text: String },
    /// Neither.
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

/// A parser that keeps the first `name` sees a read, one that keeps the last sees a deletion.
const TWO_NAMES: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"smuggled-1","method":"tools/call","params":{"name":"get_flag","#,
    r#""name":"delete_flag","arguments":{"key":"checkout-redesign"},"#,
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{}}}}"#
);

/// The headers promise a read, the body deletes.
const TWO_STORIES: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"smuggled-2","method":"tools/call","params":{"name":"delete_flag","#,
    r#""arguments":{"key":"checkout-redesign","environment":"staging"},"#,
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{}}}}"#
);

/// A harmless read, and a deletion behind it.
const BATCH: &str = concat!(
    r#"[{"jsonrpc":"2.0","id":"smuggled-3","method":"tools/call","params":{"name":"get_flag","#,
    r#""arguments":{"key":"checkout-redesign"}}},"#,
    r#"{"jsonrpc":"2.0","id":"smuggled-4","method":"tools/call","params":{"name":"delete_flag","#,
    r#""arguments":{"key":"checkout-redesign"}}}]"#
);

const FLAG: &str = "checkout-redesign";

/// The script, in order. The flood comes last: it spends the limit that all writes share.
pub(super) fn script() -> Vec<Attempt> {
    let flood =
        Act::Flood("update_flag", json!({"key": FLAG, "environment": "staging", "enabled": true}));
    let flood = Attempt {
        era: Era::Modern,
        what: "flood staging with writes",
        act: flood,
        expected: Expected::Throttled(Origin::Limited),
    };
    [modern(), legacy(), raw(), vec![flood]].concat()
}

fn connect(era: Era, what: &'static str) -> Attempt {
    Attempt { era, what, act: Act::Connect, expected: Expected::Passed }
}

/// Attempts of one era, in order.
pub(super) struct Attempts(Era, Vec<Attempt>);

/// Attempts of `era`, in order.
pub(super) fn attempts(era: Era) -> Attempts {
    Attempts(era, Vec::new())
}

impl Attempts {
    /// Connects, and lists the tools.
    pub(super) fn connect(mut self) -> Self {
        self.1.push(connect(self.0, "connect, then list the tools"));
        self
    }

    /// A call that ought to pass.
    pub(super) fn passes(self, what: &'static str, tool: &'static str, arguments: Value) -> Self {
        self.call(what, Act::Call(tool, arguments), Expected::Passed)
    }

    /// A call that policy ought to refuse.
    pub(super) fn refused(self, what: &'static str, tool: &'static str, arguments: Value) -> Self {
        self.call(what, Act::Call(tool, arguments), Expected::Refused(POLICY))
    }

    fn call(mut self, what: &'static str, act: Act, expected: Expected) -> Self {
        self.1.push(Attempt { era: self.0, what, act, expected });
        self
    }

    /// All of them.
    pub(super) fn done(self) -> Vec<Attempt> {
        self.1
    }
}

fn modern() -> Vec<Attempt> {
    let call = |what, tool, arguments, expected| {
        let act = Act::Call(tool, arguments);
        Attempt { era: Era::Modern, what, act, expected }
    };
    let passed = |what, tool, arguments| call(what, tool, arguments, Expected::Passed);
    let refused = |what, tool, arguments| call(what, tool, arguments, Expected::Refused(POLICY));
    vec![
        connect(Era::Modern, "discover, then list the tools"),
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
        let act = Act::Call(tool, arguments);
        Attempt { era: Era::Legacy, what, act, expected }
    };
    let rollout = |environment, percentage: u32| json!({"key": FLAG, "environment": environment, "percentage": percentage});
    let refused = Expected::Refused(POLICY);
    vec![
        connect(Era::Legacy, "initialize, then list the tools"),
        call("read one flag", "get_flag", json!({"key": FLAG}), Expected::Passed),
        call(
            "serve it to a quarter of staging",
            "set_rollout",
            rollout("staging", 25),
            Expected::Passed,
        ),
        call("serve it to all of production", "set_rollout", rollout("production", 100), refused),
    ]
}

fn raw() -> Vec<Attempt> {
    let smuggled = |what, headers, body, grounds| Attempt {
        era: Era::Raw,
        what,
        act: Act::Post(headers, body),
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

type Peer = RunningService<RoleClient, ClientConfig>;

/// The agent and its connections.
pub(super) struct Agent {
    url: Arc<str>,
    http: HttpClient,
    modern: Option<Peer>,
    legacy: Option<Peer>,
    /// Handles that answers gave out, by their operations.
    handles: BTreeMap<String, String>,
}

/// An argument that begins so stands for the handle of the operation that it names.
const HANDLE_OF: &str = "handle of ";

impl Agent {
    pub(super) fn new(url: &str, http: HttpClient) -> Self {
        Self { url: url.into(), http, modern: None, legacy: None, handles: BTreeMap::new() }
    }

    /// Makes one attempt.
    pub(super) async fn attempt(&mut self, attempt: &Attempt) -> Seen {
        match &attempt.act {
            Act::Connect => match self.connect(attempt.era).await {
                Ok(seen) => seen,
                Err(error) => Seen::Failure(error.to_string()),
            },
            Act::Call(tool, arguments) => self.call(attempt.era, tool, arguments).await,
            Act::Flood(tool, arguments) => self.flood(attempt.era, tool, arguments).await,
            Act::Post(headers, body) => self.post(headers, body).await,
        }
    }

    /// Ends both connections in order.
    pub(super) async fn close(self) {
        for peer in [self.modern, self.legacy].into_iter().flatten() {
            if let Err(error) = peer.cancel().await {
                tracing::debug!(%error, "demo agent: connection ended badly");
            }
        }
    }

    async fn connect(&mut self, era: Era) -> Result<Seen, ClientInitializeError> {
        let lifecycle = match era {
            Era::Modern => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
            Era::Legacy | Era::Raw => ClientLifecycleMode::Initialize,
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
            Era::Modern => self.modern = Some(peer),
            Era::Legacy | Era::Raw => self.legacy = Some(peer),
        }
        Ok(seen)
    }

    async fn call(&mut self, era: Era, tool: &'static str, arguments: &Value) -> Seen {
        let peer = match era {
            Era::Modern => &self.modern,
            Era::Legacy | Era::Raw => &self.legacy,
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

    async fn flood(&mut self, era: Era, tool: &'static str, arguments: &Value) -> Seen {
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
