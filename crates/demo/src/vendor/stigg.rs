//! A stand-in for Stigg: two tools, one of which runs code, in the environment of the credential.
//!
//! Headers of Stigg's SDK can choose another credential, as on the vendor's server.

use std::collections::BTreeMap;

use http::HeaderMap;
use rmcp::model::Tool;
use serde_json::{Value, json};

use super::{Service, member, name_of, tool};
use crate::agent::{Attempt, AttemptKind, attempts};
use crate::flags::CallError;

/// The credential of staging.
pub(super) const STAGING_KEY: &str = "server-staging";
/// The credential of production.
pub(super) const PRODUCTION_KEY: &str = "server-production";

/// Most runs that are kept in each environment.
const RUNS_MAX: usize = 1_000;

/// The code that was run in each environment.
#[derive(Debug, Default)]
pub(super) struct Stigg {
    runs: BTreeMap<&'static str, Vec<String>>,
}

impl Service for Stigg {
    fn tools(&self) -> Vec<Tool> {
        vec![
            tool("execute", "Run code against the SDK", &["code", "intent"], &["code"]),
            tool("search_docs", "Search the documentation", &["query", "language"], &["query"]),
        ]
    }

    fn call(
        &mut self,
        tool: &str,
        arguments: &Value,
        headers: &HeaderMap,
    ) -> Result<Value, CallError> {
        match tool {
            "search_docs" => Ok(json!({"pages": ["Coupons"]})),
            "execute" => {
                let code = member(arguments, "code").unwrap_or_default();
                let environment = environment(headers)?;
                let runs = self.runs.entry(environment).or_default();
                if runs.len() >= RUNS_MAX {
                    return Err(CallError::rejected("it ran too much already"));
                }
                runs.push(code.as_str().map_or_else(|| name_of(&code), str::to_owned));
                Ok(json!({"ran_in": environment}))
            }
            _ => Err(CallError::UnknownTool),
        }
    }

    fn snapshot(&self, environment: &str) -> Value {
        json!(self.runs.get(environment))
    }
}

/// The environment of the credential; the SDK's headers take precedence over `x-api-key`.
fn environment(headers: &HeaderMap) -> Result<&'static str, CallError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let envs = text("x-stainless-mcp-client-envs").map(|envs| Value::String(envs.to_owned()));
    let chosen = envs.and_then(|envs| member(&envs, "STIGG_API_KEY"));
    let chosen = chosen.as_ref().and_then(Value::as_str);
    match chosen.or_else(|| text("x-stainless-api-key")).or_else(|| text("x-api-key")) {
        Some(STAGING_KEY) => Ok("staging"),
        Some(PRODUCTION_KEY) => Ok("production"),
        _ => Err(CallError::rejected("no such key")),
    }
}

pub(super) fn script() -> Vec<Attempt> {
    let run = |code: &str| json!({"code": code, "intent": "look at the coupons"});
    let modern = attempts(AttemptKind::Modern)
        .connect()
        .passes("search the documentation", "search_docs", json!({"query": "coupons"}))
        .refused("run a read", "execute", run("client.v1.coupons.list()"))
        .refused("run a change", "execute", run("client.v1.coupons.archiveCoupon('c-1')"))
        .refused(
            "run one that names none",
            "execute",
            run("client['po' + 'st']('/api/v1/coupons')"),
        );
    [modern.done(), attempts(AttemptKind::Legacy).connect().done()].concat()
}
