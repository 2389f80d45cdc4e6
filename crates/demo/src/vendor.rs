//! Stand-ins for vendors' servers: their tool names and argument shapes, a little state, and none
//! of their code.
//!
//! Each is lenient where a vendor may be: it accepts names in any case, JSON inside a string, and
//! `null` for an absent value. So the demo also shows that what the firewall reads strictly and
//! permits is not read differently by a lenient server. They check no permission besides the
//! credential.

mod flagsmith;
mod statsig;
mod stigg;

use std::sync::{Arc, Mutex};

use http::HeaderMap;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

use super::agent::{self, Attempt};
use super::flags::CallError;
use super::service::{self, Service};
use bartizan_sync::lock;

/// The vendor whose server the demo protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vendor {
    /// The demo's own flag service.
    #[default]
    FlagService,
    /// Statsig's MCP server, version 1: one tool for each operation.
    StatsigV1,
    /// Statsig's MCP server, version 3: grouped tools, and operations by handle.
    StatsigV3,
    /// Flagsmith's MCP server: environments by key and by number.
    Flagsmith,
    /// Stigg's MCP server: runs code in the environment of the credential.
    Stigg,
}

impl Vendor {
    /// All vendors.
    pub const ALL: [Self; 5] =
        [Self::FlagService, Self::StatsigV1, Self::StatsigV3, Self::Flagsmith, Self::Stigg];

    /// The name of its pack, and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlagService => "flag-service",
            Self::StatsigV1 => "statsig-v1",
            Self::StatsigV3 => "statsig-v3",
            Self::Flagsmith => "flagsmith",
            Self::Stigg => "stigg",
        }
    }

    /// The vendor with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vendor| vendor.name() == name)
    }

    /// The headers with invented credentials that a firewall must send for the staging environment.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::FlagService => &[],
            Self::StatsigV1 | Self::StatsigV3 => &[("statsig-api-key", statsig::KEY)],
            Self::Flagsmith => &[("authorization", flagsmith::KEY)],
            Self::Stigg => &[("x-api-key", stigg::STAGING_KEY)],
        }
    }

    /// Its environments, by the identifiers that arguments use.
    pub fn environment_ids(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Flagsmith => &flagsmith::ENVIRONMENT_IDS,
            Self::FlagService | Self::StatsigV1 | Self::StatsigV3 | Self::Stigg => &[],
        }
    }

    /// Its name in the demo's output.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::FlagService => "A flag service",
            Self::StatsigV1 => "A stand-in for Statsig's MCP server, v1,",
            Self::StatsigV3 => "A stand-in for Statsig's MCP server, v3,",
            Self::Flagsmith => "A stand-in for Flagsmith's MCP server",
            Self::Stigg => "A stand-in for Stigg's MCP server",
        }
    }

    /// The agent's script for it.
    pub(super) fn script(self) -> Vec<Attempt> {
        match self {
            Self::FlagService => agent::script(),
            Self::StatsigV1 => statsig::script_v1(),
            Self::StatsigV3 => statsig::script_v3(),
            Self::Flagsmith => flagsmith::script(),
            Self::Stigg => stigg::script(),
        }
    }

    /// A new instance and its credential; `None` for the demo's own flag service.
    pub(super) fn service(self) -> Option<(Arc<Mutex<dyn Service>>, Credential)> {
        Some(match self {
            Self::FlagService => return None,
            Self::StatsigV1 | Self::StatsigV3 => {
                let service = statsig::Statsig::seeded(self == Self::StatsigV3);
                (Arc::new(Mutex::new(service)), Credential("statsig-api-key", &[statsig::KEY]))
            }
            Self::Flagsmith => {
                let service = flagsmith::Flagsmith::seeded();
                (Arc::new(Mutex::new(service)), Credential("authorization", &[flagsmith::KEY]))
            }
            Self::Stigg => {
                let keys = &[stigg::STAGING_KEY, stigg::PRODUCTION_KEY];
                (Arc::new(Mutex::new(stigg::Stigg::default())), Credential("x-api-key", keys))
            }
        })
    }
}

/// A vendor's credential: a header name and the accepted values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credential(&'static str, &'static [&'static str]);

impl Credential {
    pub(super) fn accepts(self, headers: &HeaderMap) -> bool {
        let mut said = headers.get_all(self.0).iter();
        said.next().is_some_and(|said| self.1.iter().any(|good| said == good))
            && said.next().is_none()
    }
}

/// rmcp's handler for one client.
#[derive(Debug, Clone)]
pub(super) struct VendorHandler {
    vendor: Vendor,
    service: Arc<Mutex<dyn Service>>,
}

impl VendorHandler {
    pub(super) fn new(vendor: Vendor, service: Arc<Mutex<dyn Service>>) -> Self {
        Self { vendor, service }
    }
}

impl ServerHandler for VendorHandler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(self.vendor.name(), env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(lock(&self.service).tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let parts = context.extensions.get::<http::request::Parts>();
        let headers = parts.map(|parts| parts.headers.clone()).unwrap_or_default();
        match lock(&self.service).call(&request.name, &arguments, &headers) {
            Ok(value) => Ok(CallToolResult::structured(value).into()),
            Err(CallError::Rejected(text)) => {
                Ok(CallToolResult::structured_error(json!({"error": text})).into())
            }
            Err(CallError::UnknownTool) => {
                Err(ErrorData::invalid_params(format!("Unknown tool: {}", request.name), None))
            }
        }
    }
}

/// A tool whose schema lists the argument names without types, as some vendors do.
fn tool(name: &'static str, text: &'static str, arguments: &[&str], required: &[&str]) -> Tool {
    let properties = arguments.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    service::tool(name, text, &Value::Object(properties), required)
}

/// The member `name` of an object as a lenient reader finds it: in any case, and inside a JSON
/// string; `None` if it is absent or `null`.
fn member(value: &Value, name: &str) -> Option<Value> {
    let parsed;
    let object = match value {
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text).ok()?;
            parsed.as_object()?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.as_object()?
        }
    };
    let found = object.iter().rev().find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_null())
}

/// The value at `path`, found as [`member`] does.
fn at(value: &Value, path: &[&str]) -> Option<Value> {
    path.iter().try_fold(value.clone(), |value, name| member(&value, name))
}

/// The elements of an array, or of one inside a JSON string; any other value is the only element.
fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Array(elements)) => elements,
            _ => vec![Value::String(text)],
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value],
    }
}

/// A string or number, as a lenient reader turns it into a name.
fn name_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_lowercase(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}
