//! What stands in for vendors' servers: their tool names and argument shapes, a little state, and
//! none of their code.
//!
//! Each is lenient where a vendor may be: it takes names in any case, JSON inside a string, and
//! `null` for nothing said. So what a firewall reads strictly and passes must be meant as it reads.
//! Like the demo's flags they know no rule about who may do what, beyond the credential.

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
use super::flags::Fault;
use super::service::{self, Service};
use bartizan_sync::lock;

/// Whose server the demo shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vendor {
    /// The demo's own.
    #[default]
    FlagService,
    /// Statsig's first MCP server: a tool for each operation.
    StatsigV1,
    /// Statsig's third: grouped tools, and operations by handle.
    StatsigV3,
    /// Flagsmith's: environments by key and number.
    Flagsmith,
    /// Stigg's: code, in the environment of the credential.
    Stigg,
}

impl Vendor {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::FlagService, Self::StatsigV1, Self::StatsigV3, Self::Flagsmith, Self::Stigg];

    /// The name of its pack, which is its own.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlagService => "flag-service",
            Self::StatsigV1 => "statsig-v1",
            Self::StatsigV3 => "statsig-v3",
            Self::Flagsmith => "flagsmith",
            Self::Stigg => "stigg",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vendor| vendor.name() == name)
    }

    /// The headers with which a firewall opens it for the staging environment: made-up
    /// credentials.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::FlagService => &[],
            Self::StatsigV1 | Self::StatsigV3 => &[("statsig-api-key", statsig::KEY)],
            Self::Flagsmith => &[("authorization", flagsmith::KEY)],
            Self::Stigg => &[("x-api-key", stigg::STAGING_KEY)],
        }
    }

    /// Its environments by the identifiers that stand in arguments.
    pub fn environment_ids(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Flagsmith => &flagsmith::ENVIRONMENT_IDS,
            Self::FlagService | Self::StatsigV1 | Self::StatsigV3 | Self::Stigg => &[],
        }
    }

    /// What the demo calls it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::FlagService => "A flag service",
            Self::StatsigV1 => "A stand-in for Statsig's MCP server, v1,",
            Self::StatsigV3 => "A stand-in for Statsig's MCP server, v3,",
            Self::Flagsmith => "A stand-in for Flagsmith's MCP server",
            Self::Stigg => "A stand-in for Stigg's MCP server",
        }
    }

    /// What the demo's agent tries.
    pub(super) fn script(self) -> Vec<Attempt> {
        match self {
            Self::FlagService => agent::script(),
            Self::StatsigV1 => statsig::script_v1(),
            Self::StatsigV3 => statsig::script_v3(),
            Self::Flagsmith => flagsmith::script(),
            Self::Stigg => stigg::script(),
        }
    }

    /// A fresh one and what opens it; the demo's own is no vendor's.
    pub(super) fn service(self) -> Option<(Arc<Mutex<dyn Service>>, Key)> {
        Some(match self {
            Self::FlagService => return None,
            Self::StatsigV1 | Self::StatsigV3 => {
                let service = statsig::Statsig::seeded(self == Self::StatsigV3);
                (Arc::new(Mutex::new(service)), Key("statsig-api-key", &[statsig::KEY]))
            }
            Self::Flagsmith => {
                let service = flagsmith::Flagsmith::seeded();
                (Arc::new(Mutex::new(service)), Key("authorization", &[flagsmith::KEY]))
            }
            Self::Stigg => {
                let keys = &[stigg::STAGING_KEY, stigg::PRODUCTION_KEY];
                (Arc::new(Mutex::new(stigg::Stigg::default())), Key("x-api-key", keys))
            }
        })
    }
}

/// The credential that a vendor asks for: a header and what it may say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(&'static str, &'static [&'static str]);

impl Key {
    pub(super) fn opens(self, headers: &HeaderMap) -> bool {
        let mut said = headers.get_all(self.0).iter();
        said.next().is_some_and(|said| self.1.iter().any(|good| said == good))
            && said.next().is_none()
    }
}

/// One peer's view of a vendor.
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
            Err(Fault::Rejected(text)) => {
                Ok(CallToolResult::structured_error(json!({"error": text})).into())
            }
            Err(Fault::UnknownTool) => {
                Err(ErrorData::invalid_params(format!("Unknown tool: {}", request.name), None))
            }
        }
    }
}

/// A tool whose schema says only which arguments it takes: what they mean is for the vendor.
fn tool(name: &'static str, text: &'static str, arguments: &[&str], required: &[&str]) -> Tool {
    let properties = arguments.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    service::tool(name, text, &Value::Object(properties), required)
}

/// The member `name` of an object as a lenient reader finds it: in any case, and inside a string
/// of JSON; nothing where it is left out or `null`.
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

/// What stands at the end of `path`, as [`member`] finds it.
fn at(value: &Value, path: &[&str]) -> Option<Value> {
    path.iter().try_fold(value.clone(), |value, name| member(&value, name))
}

/// The elements of an array, or of one inside a string of JSON, or the value itself as the only
/// one.
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

/// A text or number as a lenient reader takes it for a name.
fn name_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_lowercase(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}
