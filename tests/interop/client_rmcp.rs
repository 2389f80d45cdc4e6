//! The official Rust client, rmcp, playing the tool calls of a scenario; prints what it saw as JSON
//! lines. `interop-client SCENARIO http URL`, or `interop-client SCENARIO stdio COMMAND...`.
//!
//! With `ERA=legacy` it speaks the legacy era; else it probes for the modern one and falls back.
//! A step may have `timeout`, milliseconds, and `reset`, which lets each progress begin it anew.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a fixture: its JSON is its own"
)]

use std::env::{args, var};
use std::error::Error;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bartizan_peer::client::HttpClient;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, Implementation,
    ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, NotificationContext, PeerRequestOptions, RequestContext, RunningService,
    ServiceError, serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde_json::{Value, json};
use tokio::process::Command;

/// What the server told and asked during one step.
#[derive(Debug, Default)]
struct Seen {
    progress: Vec<Value>,
    asked: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Player {
    config: ClientConfig,
    seen: Arc<Mutex<Seen>>,
}

impl Player {
    fn see(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ClientHandler for Player {
    fn get_info(&self) -> ClientConfig {
        self.config.clone()
    }

    async fn on_progress(
        &self,
        told: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.see(|seen| {
            seen.progress.push(json!({"progress": told.progress, "message": told.message}));
        });
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.see(|seen| {
            seen.asked.push(json!({"method": "elicitation/create", "params": request}));
        });
        Ok(ElicitResult::new(ElicitationAction::Accept))
    }
}

type Client = RunningService<RoleClient, Player>;

async fn connect(player: Player, kind: &str, rest: &[String]) -> Result<Client, Box<dyn Error>> {
    let lifecycle = if var("ERA").is_ok_and(|era| era == "legacy") {
        ClientLifecycleMode::Initialize
    } else {
        ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        }
    };
    let first = rest.first().ok_or("no server")?;
    if kind == "http" {
        let config = StreamableHttpClientTransportConfig::with_uri(first.as_str());
        let transport = StreamableHttpClientTransport::with_client(HttpClient::new(), config);
        return Ok(serve_client_with_lifecycle(player, transport, lifecycle).await?);
    }
    let mut child = Command::new(first)
        .args(rest.iter().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let pipes = (child.stdout.take().ok_or("no output")?, child.stdin.take().ok_or("no input")?);
    let client = serve_client_with_lifecycle(player, pipes, lifecycle).await?;
    // It ends when its input is closed.
    tokio::spawn(async move { child.wait().await });
    Ok(client)
}

/// Calls the tool of one step: by rmcp's own driver of further rounds, or, with a time-out, once.
async fn call(client: &Client, step: &Value) -> Result<Value, ServiceError> {
    let params = &step["params"];
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    let arguments = params["arguments"].as_object().cloned().unwrap_or_default();
    let params = CallToolRequestParams::new(name).with_arguments(arguments);
    let Some(timeout) = step["timeout"].as_u64() else {
        return Ok(json!(client.call_tool(params).await?));
    };
    let mut options = PeerRequestOptions::with_timeout(Duration::from_millis(timeout));
    if step["reset"] == true {
        options = options.reset_timeout_on_progress();
    }
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    let sent = client.peer().send_request_with_option(request, options).await?;
    Ok(json!(sent.await_response().await?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [file, kind, rest @ ..] = &*arguments else { return Err("SCENARIO KIND SERVER".into()) };
    let scenario: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let capabilities = if scenario["opens"] == true {
        serde_json::from_value(json!({"elicitation": {"url": {}}}))?
    } else {
        ClientCapabilities::default()
    };
    let config = ClientConfig::new(capabilities, Implementation::new("interop-rmcp", "1"))
        .with_protocol_version(ProtocolVersion::V_2025_11_25);
    let player = Player { config, seen: Arc::default() };
    let client = connect(player.clone(), kind, rest).await?;
    for step in scenario["steps"].as_array().into_iter().flatten() {
        let done = call(&client, step).await;
        let mut line = match done {
            Ok(result) => json!({"step": step["name"], "result": result}),
            Err(error) => json!({"step": step["name"], "error": {"message": error.to_string()}}),
        };
        player.see(|seen| {
            let Seen { progress, asked } = std::mem::take(seen);
            line["progress"] = json!(progress);
            line["asked"] = json!(asked);
        });
        println!("{line}");
    }
    client.cancel().await?;
    Ok(())
}
