//! What the conformance tool expects of a server of 2026-07-28, the tasks extension included, on
//! rmcp: `conformance-server http` with `PORT` in the environment, or `conformance-server stdio`.
//!
//! Results are written as the JSON that goes over the wire and read into rmcp's types, so that
//! this file can be held against the specification.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a fixture: it ends with the test, its JSON is its own, and this is its log"
)]
#![expect(deprecated, reason = "the tool still asks for log messages")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ClientCapabilities,
    CompleteRequestParams, CompleteResult, CompletionInfo, CreateTaskResult,
    GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation,
    InputRequest, InputRequiredResult, InputResponses, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ServerCapabilities,
    ServerConfig, SubscriptionFilter, Tool, UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::task_manager::{TaskContext, TaskExit, TaskFuture, TaskManager, TaskOptions};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==";
const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==";
const STEP: Duration = Duration::from_millis(50);
const STATE_KEY: &[u8] = b"a key that lives as long as this fixture";

/// A list that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    Tools,
    Prompts,
}

#[derive(Clone)]
struct Fixture {
    tasks: TaskManager,
    changes: broadcast::Sender<Changed>,
}

/// `value` as one of rmcp's types. A misspelt fixture is an internal error.
fn wire<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// `value` as a result that says so.
fn complete<T: DeserializeOwned>(mut value: Value) -> Result<T, ErrorData> {
    value["resultType"] = json!("complete");
    wire(value)
}

fn text(text: impl Into<String>) -> Value {
    json!({"content": [{"type": "text", "text": text.into()}]})
}

fn done(result: Value) -> Result<CallToolResponse, ErrorData> {
    Ok(complete::<CallToolResult>(result)?.into())
}

fn required(requests: Value, state: Option<&str>) -> Result<InputRequiredResult, ErrorData> {
    let requests: BTreeMap<String, InputRequest> = wire(requests)?;
    Ok(InputRequiredResult::new(Some(requests), state.map(seal)))
}

fn form(message: &str, member: &str, kind: &str) -> Value {
    json!({"method": "elicitation/create", "params": {
        "mode": "form",
        "message": message,
        "requestedSchema": {
            "type": "object", "properties": {member: {"type": kind}}, "required": [member],
        },
    }})
}

fn sample(question: &str, max: u32) -> Value {
    json!({"method": "sampling/createMessage", "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": question}}],
        "maxTokens": max,
    }})
}

fn ask_name() -> Value {
    form("What is your name?", "name", "string")
}

/// `state` with a code that only this server can write.
fn seal(state: &str) -> String {
    format!("{state}.{}", code(state))
}

fn code(state: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(STATE_KEY) else { return String::new() };
    mac.update(state.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// What `seal` was given; an error for anything else.
fn unseal(sealed: Option<&str>) -> Result<Option<&str>, ErrorData> {
    let Some(sealed) = sealed else { return Ok(None) };
    match sealed.split_once('.') {
        Some((state, written)) if written == code(state) => Ok(Some(state)),
        Some(_) | None => Err(ErrorData::invalid_params("Invalid requestState", None)),
    }
}

/// A member of the accepted content under `key`.
fn accepted<'a>(responses: &'a InputResponses, key: &str, member: &str) -> Option<&'a Value> {
    let response = responses.get(key)?;
    let agreed = response.get("action")? == "accept";
    response.get("content")?.get(member).filter(|_| agreed)
}

const PLAIN: [&str; 25] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
    "test_tool_with_progress",
    "test_logging_tool",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_tampered_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_capabilities",
    "confirm_delete",
    "multi_input",
    "failing_job",
    "protocol_error_job",
    "test_tool_with_task",
];

fn tools() -> Vec<Tool> {
    let tool = |name: &'static str, schema: Value| {
        let schema = schema.as_object().cloned().unwrap_or_default();
        Tool::new(name, format!("Fixture: {name}"), schema)
    };
    let mut tools: Vec<Tool> =
        PLAIN.into_iter().map(|name| tool(name, json!({"type": "object"}))).collect();
    let string = json!({"type": "string"});
    tools.push(tool("greet", json!({"type": "object", "properties": {"name": string}})));
    tools.push(tool(
        "slow_compute",
        json!({"type": "object", "properties": {"seconds": {"type": "number"}, "label": string}}),
    ));
    tools.push(tool(
        "test_x_mcp_header",
        json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
        }}),
    ));
    tools.push(tool(
        "json_schema_2020_12_tool",
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {"address": {
                "$anchor": "addressDef", "type": "object",
                "properties": {"street": string, "city": string},
            }},
            "properties": {
                "name": string, "address": {"$ref": "#/$defs/address"},
                "contactMethod": {"type": "string", "enum": ["phone", "email"]},
                "phone": string, "email": string,
            },
            "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
            "if": {
                "properties": {"contactMethod": {"const": "phone"}},
                "required": ["contactMethod"],
            },
            "then": {"required": ["phone"]},
            "else": {"required": ["email"]},
            "additionalProperties": false,
        }),
    ));
    tools
}

fn fixed(name: &str) -> Option<Value> {
    let image = json!({"type": "image", "data": PNG, "mimeType": "image/png"});
    let resource = |uri: &str, kind: &str, text: &str| json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}});
    Some(match name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => json!({"content": [image]}),
        "test_audio_content" => {
            json!({"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]})
        }
        "test_embedded_resource" => json!({"content": [resource(
            "test://embedded-resource", "text/plain", "This is an embedded resource content.",
        )]}),
        "test_multiple_content_types" => json!({"content": [
            {"type": "text", "text": "Multiple content types test:"},
            image,
            resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ]}),
        "test_error_handling" => json!({
            "content": [{
                "type": "text",
                "text": "This tool intentionally returns an error for testing",
            }],
            "isError": true,
        }),
        _ => return None,
    })
}

impl Fixture {
    /// The rounds of a tool that asks for input first.
    fn input_tool(
        name: &str,
        responses: &InputResponses,
        state: Option<&str>,
        can: &ClientCapabilities,
    ) -> Result<CallToolResponse, ErrorData> {
        let confirmed = accepted(responses, "confirm", "ok").is_some();
        let confirm = || json!({"confirm": form("Please confirm", "ok", "boolean")});
        let asked = match name {
            "test_input_required_result_elicitation" | "test_streaming_elicitation" => {
                match accepted(responses, "user_name", "name").and_then(Value::as_str) {
                    Some(name) => return done(text(format!("Hello, {name}!"))),
                    None => required(json!({"user_name": ask_name()}), None)?,
                }
            }
            "test_input_required_result_sampling" => match responses.get("capital_question") {
                Some(answer) => return done(text(format!("The answer was: {answer}"))),
                None => required(
                    json!({"capital_question": sample("What is the capital of France?", 100)}),
                    None,
                )?,
            },
            "test_input_required_result_list_roots" => match responses.get("client_roots") {
                Some(roots) => return done(text(format!("Roots: {roots}"))),
                None => {
                    required(json!({"client_roots": {"method": "roots/list", "params": {}}}), None)?
                }
            },
            "test_input_required_result_request_state"
            | "test_input_required_result_tampered_state" => {
                if confirmed && state == Some("confirm") {
                    return done(text("state-ok"));
                }
                required(confirm(), Some("confirm"))?
            }
            "test_input_required_result_multiple_inputs" => {
                let all = ["user_name", "greeting", "client_roots"];
                if all.iter().all(|key| responses.contains_key(*key)) {
                    return done(text("All three were answered."));
                }
                let requests = json!({
                    "user_name": ask_name(),
                    "greeting": sample("Generate a greeting", 50),
                    "client_roots": {"method": "roots/list", "params": {}},
                });
                required(requests, Some("three"))?
            }
            "test_input_required_result_multi_round" => match state {
                Some("2") if responses.contains_key("step2") => {
                    return done(text("Both rounds are done."));
                }
                Some("1") if responses.contains_key("step1") => {
                    let step = form("Step 2: What is your favorite color?", "color", "string");
                    required(json!({"step2": step}), Some("2"))?
                }
                Some(_) | None => {
                    let step = form("Step 1: What is your name?", "name", "string");
                    required(json!({"step1": step}), Some("1"))?
                }
            },
            "test_input_required_result_capabilities" => {
                let mut requests = json!({});
                if can.elicitation.is_some() {
                    requests["user_name"] = ask_name();
                }
                if can.sampling.is_some() {
                    requests["greeting"] = sample("Generate a greeting", 50);
                }
                required(requests, None)?
            }
            _ => return Err(ErrorData::invalid_params(format!("Unknown tool: {name}"), None)),
        };
        Ok(asked.into())
    }

    /// A tool that runs as a task where the client can follow one, else at once where it can.
    async fn task_tool(
        &self,
        request: &CallToolRequestParams,
        can: &ClientCapabilities,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.clone();
        let seconds = request.arguments.as_ref().and_then(|given| given.get("seconds")?.as_f64());
        let pause = Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default();
        if !can.supports_tasks() {
            if name == "slow_compute" {
                tokio::time::sleep(pause).await;
                return done(text("computed"));
            }
            let needed = ClientCapabilities::builder().enable_tasks().build();
            return Err(ErrorData::missing_required_client_capability(needed));
        }
        let empty = InputResponses::new();
        let responses = request.input_responses.as_ref().unwrap_or(&empty);
        let user = accepted(responses, "user_name", "name").cloned();
        if name == "test_tool_with_task" && user.is_none() {
            return Ok(required(json!({"user_name": ask_name()}), Some("task"))?.into());
        }
        let options = TaskOptions::new().with_poll_interval_ms(100);
        let task = self.tasks.spawn(options, |context| -> TaskFuture {
            Box::pin(async move { work(&name, pause, user, context).await })
        });
        Ok(CreateTaskResult::new(task).into())
    }
}

/// What a task does.
async fn work(
    name: &str,
    pause: Duration,
    user: Option<Value>,
    context: TaskContext,
) -> Result<CallToolResult, TaskExit> {
    let result = match name {
        "slow_compute" => {
            tokio::select! {
                () = tokio::time::sleep(pause) => text("computed"),
                () = context.cancelled() => return Err(TaskExit::Cancelled),
            }
        }
        "confirm_delete" => {
            let ask = wire(form("Delete it?", "confirm", "boolean"))?;
            context.request_input("confirm", ask).await?;
            text("deleted")
        }
        "multi_input" => {
            let (one, two) = (wire(ask_name())?, wire(form("Sure?", "confirm", "boolean"))?);
            let both =
                tokio::join!(context.request_input("one", one), context.request_input("two", two));
            both.0?;
            both.1?;
            text("both were answered")
        }
        "failing_job" => json!({"content": [{"type": "text", "text": "failed"}], "isError": true}),
        "test_tool_with_task" => text(format!("Hello, {}!", user.unwrap_or_default())),
        _ => return Err(ErrorData::internal_error("it broke", None).into()),
    };
    Ok(complete(result)?)
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_logging()
            .enable_completions()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("conformance-fixture", "1.0.0"))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools().into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let can = context.client_capabilities().unwrap_or_default();
        let given = |name: &str| {
            let argument = request.arguments.as_ref().and_then(|given| given.get(name));
            argument.and_then(Value::as_str).unwrap_or_default()
        };
        match &*request.name {
            "test_tool_with_progress" => {
                if let Some(token) = context.meta.get_progress_token() {
                    for progress in [0.0, 50.0, 100.0] {
                        let notice = ProgressNotificationParam::new(token.clone(), progress);
                        tell(context.peer.notify_progress(notice.with_total(100.0)).await);
                        tokio::time::sleep(STEP).await;
                    }
                }
                done(text("Progress was reported."))
            }
            "test_logging_tool" => {
                if let Some(level) = context.meta.log_level() {
                    let line = LoggingMessageNotificationParam::new(level, json!("as asked"));
                    tell(context.peer.notify_logging_message(line).await);
                }
                done(text("Logged, if a level was asked for."))
            }
            "test_missing_capability" if can.sampling.is_none() => {
                let mut needed = ClientCapabilities::default();
                needed.sampling = Some(wire(json!({}))?);
                Err(ErrorData::missing_required_client_capability(needed))
            }
            "test_missing_capability" => done(text("The client can sample.")),
            "test_trigger_tool_change" | "test_trigger_prompt_change" => {
                // The client is told that it listens before rmcp lets `listen` begin.
                tokio::time::sleep(STEP).await;
                let tools = request.name == "test_trigger_tool_change";
                tell(self.changes.send(if tools { Changed::Tools } else { Changed::Prompts }));
                done(text("Told."))
            }
            "greet" => done(text(format!("Hello, {}!", given("name")))),
            "test_x_mcp_header" => done(text(format!("region: {}", given("region")))),
            "json_schema_2020_12_tool" => done(text("ok")),
            "slow_compute"
            | "confirm_delete"
            | "multi_input"
            | "failing_job"
            | "protocol_error_job"
            | "test_tool_with_task" => self.task_tool(&request, &can).await,
            name => {
                if let Some(result) = fixed(name) {
                    return done(result);
                }
                let state = unseal(request.request_state.as_deref())?;
                let responses = request.input_responses.clone().unwrap_or_default();
                Self::input_tool(name, &responses, state, &can)
            }
        }
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        complete(json!({"resources": [
            {"uri": "test://static-text", "name": "static-text", "description": "Text", "mimeType": "text/plain"},
            {"uri": "test://static-binary", "name": "static-binary", "description": "An image", "mimeType": "image/png"},
        ]}))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        complete(json!({"resourceTemplates": [{
            "uriTemplate": "test://template/{id}/data", "name": "template",
            "description": "Says its id", "mimeType": "application/json",
        }]}))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = &*request.uri;
        let contents = match uri {
            "test://static-text" => {
                let text = "This is the content of the static text resource.";
                json!({"uri": uri, "mimeType": "text/plain", "text": text})
            }
            "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
            _ => {
                let id =
                    uri.strip_prefix("test://template/").and_then(|id| id.strip_suffix("/data"));
                let Some(id) = id else {
                    let data = Some(json!({"uri": uri}));
                    return Err(ErrorData::resource_not_found("Resource not found", data));
                };
                let data = format!("Data for ID: {id}");
                let body = json!({"id": id, "templateTest": true, "data": data});
                json!({"uri": uri, "mimeType": "application/json", "text": body.to_string()})
            }
        };
        Ok(complete::<ReadResourceResult>(json!({"contents": [contents]}))?.into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let argument = |name: &str| json!({"name": name, "description": name, "required": true});
        complete(json!({"prompts": [
            {"name": "test_simple_prompt", "description": "One message"},
            {
                "name": "test_prompt_with_arguments", "description": "Two arguments",
                "arguments": [argument("arg1"), argument("arg2")],
            },
            {
                "name": "test_prompt_with_embedded_resource", "description": "A resource in it",
                "arguments": [argument("resourceUri")],
            },
            {"name": "test_prompt_with_image", "description": "An image in it"},
            {"name": "test_input_required_result_prompt", "description": "Needs an answer first"},
        ]}))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let given = |name: &str| {
            let argument = request.arguments.as_ref().and_then(|given| given.get(name));
            argument.and_then(Value::as_str).unwrap_or_default()
        };
        let user = |content: Value| json!({"role": "user", "content": content});
        let say = |text: String| user(json!({"type": "text", "text": text}));
        let messages = match &*request.name {
            "test_simple_prompt" => json!([say("This is a simple prompt for testing.".into())]),
            "test_prompt_with_arguments" => {
                let (one, two) = (given("arg1"), given("arg2"));
                json!([say(format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))])
            }
            "test_prompt_with_embedded_resource" => json!([
                user(json!({"type": "resource", "resource": {
                    "uri": given("resourceUri"), "mimeType": "text/plain",
                    "text": "Embedded resource content for testing.",
                }})),
                say("Please process the embedded resource above.".into()),
            ]),
            "test_prompt_with_image" => json!([
                user(json!({"type": "image", "data": PNG, "mimeType": "image/png"})),
                say("Please analyze the image above.".into()),
            ]),
            "test_input_required_result_prompt" => {
                let responses = request.input_responses.clone().unwrap_or_default();
                let Some(context) = accepted(&responses, "user_context", "context") else {
                    let ask = form("What context should the prompt use?", "context", "string");
                    let asked = required(json!({"user_context": ask}), None)?;
                    return Ok(GetPromptResponse::InputRequired(asked));
                };
                json!([say(format!("Context: {context}"))])
            }
            _ => return Err(ErrorData::invalid_params("Unknown prompt", None)),
        };
        Ok(GetPromptResponse::Complete(complete(json!({"messages": messages}))?))
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let known = ["paris", "park", "party"].into_iter().map(str::to_owned);
        let begun = known.filter(|word| word.starts_with(&request.argument.value)).collect();
        let info = CompletionInfo::new(begun);
        Ok(CompleteResult::new(info.map_err(|text| ErrorData::internal_error(text, None))?))
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut news = self.changes.subscribe();
        loop {
            let list = tokio::select! {
                () = context.cancelled() => return Ok(()),
                list = news.recv() => list,
            };
            // Each refuses what was not asked for.
            match list {
                Ok(Changed::Tools) => drop(context.sink().notify_tool_list_changed().await),
                Ok(Changed::Prompts) => drop(context.sink().notify_prompt_list_changed().await),
                Err(_) => return Ok(()),
            }
        }
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }
}

/// A notification that nobody takes is no error of the call.
fn tell<T, E: std::fmt::Display>(told: Result<T, E>) {
    if let Err(error) = told {
        eprintln!("not delivered: {error}");
    }
}

async fn serve_http(fixture: Fixture, port: u16) -> Result<(), Box<dyn Error>> {
    let config =
        StreamableHttpServerConfig::default().with_allowed_hosts(["127.0.0.1", "localhost", "::1"]);
    let service = StreamableHttpService::new(
        move || Ok(fixture.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(service.handle(request).await) }
            });
            let connection = auto::Builder::new(TokioExecutor::new());
            tell(connection.serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let fixture = Fixture { tasks: TaskManager::new(), changes: broadcast::channel(16).0 };
    if std::env::args().nth(1).as_deref() == Some("stdio") {
        let running = fixture.serve((tokio::io::stdin(), tokio::io::stdout())).await?;
        running.waiting().await?;
        return Ok(());
    }
    serve_http(fixture, std::env::var("PORT")?.parse()?).await
}
