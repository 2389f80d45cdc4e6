//! The flag service over MCP: its tools, resources and a prompt.
//!
//! Only definitions and dispatch: `flags` holds the flags, `server` the sockets.

use std::fmt;
use std::sync::{Arc, Mutex};

use http::HeaderMap;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult,
    CompletionInfo, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Implementation,
    ListPromptsResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, Prompt, PromptArgument, PromptMessage, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, Role, ServerCapabilities,
    ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

use super::flags::{CallError, ENVIRONMENTS, Flags};
use bartizan_sync::lock;

const PROMPT: &str = "plan_rollout";
const SCHEME: &str = "flag://";

/// A service with tools and state.
pub(super) trait Service: fmt::Debug + Send {
    /// Its tools.
    fn tools(&self) -> Vec<Tool>;
    /// Executes one call; `headers` are those of its HTTP request.
    fn call(
        &mut self,
        tool: &str,
        arguments: &Value,
        headers: &HeaderMap,
    ) -> Result<Value, CallError>;
    /// The state of one environment and of what all environments share.
    fn snapshot(&self, environment: &str) -> Value;
}

/// rmcp's handler for one client.
#[derive(Debug, Clone)]
pub(super) struct FlagHandler {
    flags: Arc<Mutex<Flags>>,
}

impl FlagHandler {
    pub(super) fn new(flags: Arc<Mutex<Flags>>) -> Self {
        Self { flags }
    }

    fn call(&self, tool: &str, arguments: &Value) -> Result<Value, CallError> {
        lock(&self.flags).call(tool, arguments)
    }
}

impl Service for Flags {
    fn tools(&self) -> Vec<Tool> {
        tools()
    }

    fn call(&mut self, tool: &str, arguments: &Value, _: &HeaderMap) -> Result<Value, CallError> {
        Self::call(self, tool, arguments)
    }

    fn snapshot(&self, environment: &str) -> Value {
        Self::snapshot(self, environment)
    }
}

impl ServerHandler for FlagHandler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("flag-service", env!("CARGO_PKG_VERSION")))
            .with_instructions("Feature flags in two environments: staging and production.")
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
        // Two progress notifications before the answer, if the client asked for progress; the
        // answer is then a stream.
        if let Some(token) = context.meta.get_progress_token() {
            for (progress, message) in [(1.0, "reading the flag"), (2.0, "writing it")] {
                let notice = ProgressNotificationParam::new(token.clone(), progress)
                    .with_total(2.0)
                    .with_message(message);
                if let Err(error) = context.peer.notify_progress(notice).await {
                    tracing::debug!(%error, "demo flag service: progress not delivered");
                }
            }
        }
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        match self.call(&request.name, &arguments) {
            Ok(value) => Ok(CallToolResult::structured(value).into()),
            Err(CallError::Rejected(text)) => {
                Ok(CallToolResult::structured_error(json!({"error": text})).into())
            }
            Err(CallError::UnknownTool) => {
                Err(ErrorData::invalid_params(format!("Unknown tool: {}", request.name), None))
            }
        }
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let keys = lock(&self.flags).keys();
        let resource = |key: String| Resource::new(format!("{SCHEME}{key}"), key);
        Ok(ListResourcesResult::with_all_items(keys.into_iter().map(resource).collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let missing = || ErrorData::resource_not_found("no such flag", None);
        let key = request.uri.strip_prefix(SCHEME).ok_or_else(missing)?;
        let value = self.call("get_flag", &json!({"key": key})).map_err(|_| missing())?;
        let contents = ResourceContents::text(value.to_string(), request.uri.clone())
            .with_mime_type("application/json");
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let arguments = vec![
            PromptArgument::new("key").with_required(true),
            PromptArgument::new("environment").with_required(true),
        ];
        let prompt = Prompt::new(PROMPT, Some("Plan the rollout of one flag"), Some(arguments));
        Ok(ListPromptsResult::with_all_items(vec![prompt]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name != PROMPT {
            return Err(ErrorData::invalid_params("Unknown prompt", None));
        }
        let arguments = request.arguments.unwrap_or_default();
        let named = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or("?");
        let text = format!("Plan the rollout of {} in {}.", named("key"), named("environment"));
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let known = match request.argument.name.as_str() {
            "environment" => ENVIRONMENTS.map(str::to_owned).to_vec(),
            "key" => lock(&self.flags).keys(),
            _ => Vec::new(),
        };
        let begun = known.into_iter().filter(|name| name.starts_with(&request.argument.value));
        let info = CompletionInfo::new(begun.take(CompletionInfo::MAX_VALUES).collect())
            .map_err(|text| ErrorData::internal_error(text, None))?;
        Ok(CompleteResult::new(info))
    }
}

/// The tools and their arguments. Packs classify their effect; the annotations are hints only.
fn tools() -> Vec<Tool> {
    let key = json!({"type": "string", "description": "The flag's key"});
    let environment = json!({"type": "string", "enum": ENVIRONMENTS});
    let mut tools = reading(&key, &environment);
    tools.extend(writing(&key, &environment));
    tools
}

pub(super) fn tool(
    name: &'static str,
    text: &'static str,
    properties: &Value,
    required: &[&str],
) -> Tool {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    let schema = schema.as_object().cloned().unwrap_or_default();
    let verb = name.split('_').next().unwrap_or_default();
    let read_only = ["list", "get"].iter().any(|reads| verb.eq_ignore_ascii_case(reads));
    Tool::new(name, text, schema).annotate(ToolAnnotations::new().read_only(read_only))
}

fn reading(key: &Value, environment: &Value) -> Vec<Tool> {
    let one = json!({"key": key, "environment": environment});
    vec![
        tool("list_environments", "List the environments", &json!({}), &[]),
        tool("list_flags", "List all flags", &json!({"environment": environment}), &[]),
        tool("get_flag", "Show one flag", &one, &["key"]),
        tool("get_audit_log", "List all changes", &json!({}), &[]),
    ]
}

fn writing(key: &Value, environment: &Value) -> Vec<Tool> {
    let one = json!({"key": key, "environment": environment});
    let names = json!({"type": "array", "items": environment});
    let rules = json!({
        "type": "array",
        "items": {"type": "object", "properties": {"environments": names}},
    });
    vec![
        tool(
            "create_flag",
            "Create a flag, in all environments unless some are named",
            &json!({"key": key, "environments": names}),
            &["key"],
        ),
        tool(
            "update_flag",
            "Switch a flag, in production unless another environment is named",
            &json!({
                "key": key, "environment": environment,
                "enabled": {"type": "boolean"}, "value": {},
            }),
            &["key", "enabled"],
        ),
        tool(
            "set_rollout",
            "Serve a flag to a share of users",
            &json!({
                "key": key, "environment": environment,
                "percentage": {"type": "integer", "minimum": 0, "maximum": 100},
            }),
            &["key", "environment", "percentage"],
        ),
        tool(
            "replace_flag",
            "Replace all rules of a flag; a rule without environments serves all",
            &json!({"key": key, "rules": rules}),
            &["key", "rules"],
        ),
        tool("delete_flag", "Delete a flag, everywhere unless told where", &one, &["key"]),
        tool(
            "approve_review",
            "Approve a pending change",
            &json!({"review_id": {"type": "string"}}),
            &["review_id"],
        ),
        tool(
            "run_script",
            "Run code against the flags",
            &json!({"code": {"type": "string"}}),
            &["code"],
        ),
    ]
}
