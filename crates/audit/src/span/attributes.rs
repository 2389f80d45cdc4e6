//! Attributes of spans and log records: bounded in number and size.

use std::borrow::Cow;

use opentelemetry::{Array, KeyValue, StringValue, Value};

use bartizan_gate::wire::method::{Action, Method};

use super::super::entry::{DecisionRecord, JournalRecord};
use super::error_type;

/// Longest attribute value, characters.
const VALUE_CHARS_MAX: usize = 1024;

/// Largest number of elements of a list attribute.
const LIST_MAX: usize = 32;

/// Attributes in order of importance: a limit on their number drops the last ones.
#[derive(Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    /// Adds the decision and its classification.
    pub(super) fn audit(&mut self, first: &JournalRecord, last: &JournalRecord) {
        self.text("bartizan.event", Some(&last.event));
        self.text("bartizan.call", first.call.as_deref());
        self.number("bartizan.repeated", last.repeated);
        self.text("bartizan.boot", Some(&first.boot));
        self.number("bartizan.seq", Some(last.seq));
        let decision = first.decision.as_ref().or(last.decision.as_ref());
        if let Some(decision) = decision {
            self.decision(decision);
        }
        self.text("bartizan.outcome", last.outcome.as_deref());
        // The finding of the last record takes precedence over that of the first.
        let tagged = if last.finding.is_some() { last } else { first };
        self.finding(tagged);
        if let Some(operation) = &first.operation {
            self.text("bartizan.operation.name", operation.name.as_deref());
            self.text("bartizan.operation.effect", Some(&operation.effect));
            self.list(
                "bartizan.operation.environments",
                operation.environments.iter().map(String::as_str),
            );
        }
        if !last.hidden.is_empty() {
            let listed = u64::try_from(last.hidden.len()).unwrap_or(u64::MAX);
            self.number("bartizan.hidden.count", Some(listed.saturating_add(last.hidden_more)));
        }
    }

    /// Adds the finding and its ids in the taxonomies.
    fn finding(&mut self, tagged: &JournalRecord) {
        self.text("bartizan.finding", tagged.finding.as_deref());
        if let Some(maestro) = &tagged.maestro {
            self.text("maestro.layer", Some(&maestro.layer));
            self.text("maestro.layer.name", Some(&maestro.layer_name));
            self.list("maestro.threats", maestro.threats.iter().map(String::as_str));
        }
        if let Some(owasp) = &tagged.owasp {
            self.list("owasp.mcp", owasp.mcp.iter().map(String::as_str));
            self.list("owasp.asi", owasp.asi.iter().map(String::as_str));
        }
        if let Some(mitre) = &tagged.mitre {
            self.list("mitre.atlas", mitre.atlas.iter().map(String::as_str));
        }
        self.text("bartizan.finding.strength", tagged.strength.as_deref());
        self.text("taxonomy.version", tagged.taxonomy.as_deref());
    }

    /// Adds what was decided and why.
    pub(super) fn decision(&mut self, decision: &DecisionRecord) {
        self.text("bartizan.decision.effect", Some(&decision.effect));
        self.0.push(KeyValue::new("bartizan.decision.enforced", decision.enforced));
        self.list("bartizan.decision.codes", decision.reasons.iter().map(|r| r.code.as_str()));
        self.list("bartizan.decision.reasons", decision.reasons.iter().map(|r| r.message.as_str()));
        self.list("bartizan.decision.obligations", decision.obligations.iter().map(String::as_str));
        self.text("bartizan.policy.revision", Some(&decision.policy));
        self.text("bartizan.policy.engine", Some(&decision.engine));
    }

    /// Adds who called, for a SERVER span.
    pub(super) fn sender(&mut self, first: &JournalRecord) {
        self.text("bartizan.principal", first.principal.as_deref());
        self.text("mcp.session.id", first.session.as_deref());
        self.text("client.address", first.peer.as_deref());
        if let Some(client) = &first.client {
            self.text("bartizan.client.name", Some(&client.name));
            self.text("bartizan.client.version", Some(&client.version));
        }
        if let Some(identity) = &first.identity {
            self.text("bartizan.identity.issuer", Some(&identity.issuer));
            self.text("bartizan.identity.subject", identity.subject.as_deref());
            self.text("bartizan.identity.client_id", identity.client_id.as_deref());
        }
    }

    /// Adds method, target and protocol.
    pub(super) fn call(&mut self, first: &JournalRecord, last: &JournalRecord) {
        self.text("mcp.method.name", first.method.as_deref());
        self.text("error.type", error_type(last));
        // A class of failure or an HTTP status is none: JSON-RPC codes of errors are negative.
        let code = last.error_type.as_deref().filter(|code| code.starts_with('-'));
        self.text("rpc.response.status_code", code);
        self.text("bartizan.server", first.server.as_deref());
        self.text("bartizan.direction", first.direction.as_deref());
        if let Some(target) = &first.target {
            self.text("gen_ai.tool.name", target.tool.as_deref());
            self.text("gen_ai.prompt.name", target.prompt.as_deref());
            self.text("mcp.resource.uri", target.uri.as_deref());
        }
        let method = first.method.as_deref().and_then(Method::named);
        if method.is_some_and(|method| method.action == Action::CallTool) {
            self.text("gen_ai.operation.name", Some("execute_tool"));
        }
        // The convention defines the id as text, not as JSON.
        let id = first
            .id
            .as_deref()
            .map(|id| serde_json::from_str::<String>(id).map_or(Cow::Borrowed(id), Cow::Owned));
        self.text("jsonrpc.request.id", id.as_deref());
        let revision = first.protocol.as_ref().and_then(|protocol| protocol.revision.as_deref());
        self.text("mcp.protocol.version", revision);
    }

    /// Adds a network transport, as the convention names it.
    pub(super) fn transport(&mut self, first: &JournalRecord) {
        let transport = first.protocol.as_ref().map(|protocol| protocol.transport.as_str());
        let transport = match transport {
            Some("http") => Some("tcp"),
            Some("stdio") => Some("pipe"),
            other => other,
        };
        self.text("network.transport", transport);
    }

    /// Adds what became of a hold.
    pub(super) fn hold(&mut self, state: &JournalRecord) {
        self.text("bartizan.call", state.call.as_deref());
        self.approval(state);
        self.text("bartizan.principal", state.principal.as_deref());
        self.finding(state);
    }

    /// Adds an approver's answer, or what became of a hold.
    pub(super) fn approval(&mut self, state: &JournalRecord) {
        if let Some(approval) = &state.approval {
            self.text("bartizan.hold.id", Some(&approval.hold));
            self.text("bartizan.hold.state", Some(&approval.answer));
            self.text("bartizan.hold.by", approval.by.as_deref());
            self.text("bartizan.hold.reason", approval.reason.as_deref());
            self.text("bartizan.hold.scope", approval.scope.as_deref());
        }
    }

    pub(super) fn text(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(key, cut(value, VALUE_CHARS_MAX)));
        }
    }

    pub(super) fn number(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
        }
    }

    pub(super) fn list<'a>(&mut self, key: &'static str, values: impl Iterator<Item = &'a str>) {
        let values: Vec<StringValue> =
            values.take(LIST_MAX).map(|value| cut(value, VALUE_CHARS_MAX).into()).collect();
        if !values.is_empty() {
            self.0.push(KeyValue::new(key, Value::Array(Array::String(values))));
        }
    }
}

/// The first `chars_max` characters.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}
