//! Parts of OCSF events: objects and attributes that several classes have.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Enum, FAILURE, OTHER, SUCCESS, UNKNOWN, VERSION, with};
use crate::calls::Call;
use crate::entry::JournalRecord;

/// Name and vendor of the product.
pub(super) const PRODUCT: &str = "Bartizan";

/// `metadata.log_name`.
const LOG_NAME: &str = "journal";

/// `metadata.profiles` of an event that names a trace.
pub(super) const PROFILES_TRACED: [&str; 2] = ["security_control", "trace"];

/// Methods of HTTP that OCSF knows.
const HTTP_METHODS: [&str; 9] =
    ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"];

/// Milliseconds since the epoch of a time as records have it; 0 for another text.
pub(super) fn millis(time: &str) -> i64 {
    let time = humantime::parse_rfc3339(time).ok();
    let since = time.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|it| i64::try_from(it.as_millis()).ok()).unwrap_or_default()
}

/// The id of an event of `record`: the same each time that the record is exported.
pub(super) fn uid(record: &JournalRecord, suffix: &str) -> String {
    format!("{}-{}{suffix}", record.boot, record.seq)
}

pub(super) fn product(version: Option<&str>) -> Value {
    let product = json!({"name": PRODUCT, "vendor_name": PRODUCT});
    with(product, json!({ "version": version }))
}

pub(super) fn metadata(record: &JournalRecord, suffix: &str) -> Value {
    let metadata = json!({
        "version": VERSION,
        "product": product(None),
        "profiles": ["security_control"],
        "uid": uid(record, suffix),
        "sequence": record.seq,
        "log_name": LOG_NAME,
        "log_version": record.schema.to_string(),
        "event_code": record.event,
        "original_time": record.time,
    });
    with(metadata, json!({"correlation_uid": record.call}))
}

/// By the strength of the finding: informational without one, or where it is evidence of a control;
/// low where it is related; medium where it is direct, and high if a threat is one across layers.
pub(super) fn severity(record: &JournalRecord) -> Enum {
    let across =
        |it: &crate::entry::MaestroRecord| it.threats.iter().any(|it| it.starts_with("X/"));
    match record.strength.as_deref() {
        Some("direct") if record.maestro.as_ref().is_some_and(across) => (4, "High"),
        Some("direct") => (3, "Medium"),
        Some("related") => (2, "Low"),
        Some(_) | None => (1, "Informational"),
    }
}

/// Whether the call succeeded, and how it ended or why it was refused.
pub(super) fn end(call: &Call) -> (Enum, Option<String>) {
    let code = |event: &str| call.with(event)?.reason().map(str::to_owned);
    if call.records.iter().any(|it| matches!(it.event.as_str(), "denial" | "drop" | "repeated")) {
        let reason = code("denial").or_else(|| code("drop")).or_else(|| code("repeated"));
        return (FAILURE, reason);
    }
    match call.with("outcome").and_then(|it| it.outcome.clone()) {
        Some(outcome) if matches!(&*outcome, "ok" | "accepted") => (SUCCESS, Some(outcome)),
        Some(outcome) if outcome == "unknown" => (UNKNOWN, Some(outcome)),
        Some(outcome) => (FAILURE, Some(outcome)),
        None if call.with("notice").is_some() => (SUCCESS, None),
        None => (UNKNOWN, None),
    }
}

/// What was decided, as the profile `security_control` says it.
pub(super) fn decision(call: &Call) -> Value {
    let decided = call.decided();
    let Some(decision) = decided.and_then(|it| it.decision.as_ref()) else {
        let dropped = call.with("drop").is_some();
        let refused = dropped || call.with("denial").is_some();
        let (action, disposition) = match (refused, dropped) {
            (_, true) => ((2, "Denied"), (6, "Dropped")),
            (true, _) => ((2, "Denied"), (2, "Blocked")),
            (false, false) => (UNKNOWN, UNKNOWN),
        };
        return acted(action, disposition);
    };
    let redacted = call.records.iter().any(|it| it.redacted.is_some());
    let mut approvals = call.records.iter().filter_map(|it| it.approval.as_ref());
    let spent = approvals.any(|it| it.answer == "spent");
    let waits = call.records.last().is_some_and(|it| it.event == "hold");
    let refusing =
        call.records.iter().find(|it| matches!(it.event.as_str(), "denial" | "repeated"));
    let (action, disposition): (Enum, Enum) = match decision.effect.as_str() {
        "deny" if !decision.enforced => ((3, "Observed"), (15, "Detected")),
        _ if call.with("drop").is_some() => ((2, "Denied"), (6, "Dropped")),
        "deny" => ((2, "Denied"), (2, "Blocked")),
        // It waited for an approval, and did not get it.
        _ if refusing.is_some() => ((2, "Denied"), (25, "Rejected")),
        _ if waits => ((OTHER, "Other"), (14, "Delayed")),
        _ if redacted => ((4, "Modified"), (1, "Allowed")),
        _ if spent => ((1, "Allowed"), (8, "Approved")),
        _ => ((1, "Allowed"), (1, "Allowed")),
    };
    let policy = json!({
        "uid": if decision.policy.is_empty() { "unknown" } else { &decision.policy },
        "name": "policy",
        "is_applied": decision.enforced,
    });
    let rule = decision
        .reasons
        .first()
        .map(|it| json!({"uid": it.code, "name": it.code, "desc": it.message, "type": it.origin}));
    with(
        acted(action, disposition),
        json!({
            "policy": policy,
            "authorizations": [{"decision": decision.effect, "policy": policy}],
            "firewall_rule": rule,
            "attacks": call.records.iter().rev().find_map(attacks),
        }),
    )
}

fn acted(action: Enum, disposition: Enum) -> Value {
    json!({
        "action_id": action.0,
        "action": action.1,
        "disposition_id": disposition.0,
        "disposition": disposition.1,
    })
}

/// MITRE ATLAS techniques; `None` if there are none.
pub(super) fn attacks(record: &JournalRecord) -> Option<Value> {
    let ids = &record.mitre.as_ref()?.atlas;
    let versions = record.taxonomy.as_deref().unwrap_or_default();
    let version = versions.split(';').find_map(|it| it.strip_prefix("atlas="));
    let attack = |id: &String| {
        // `AML.T0051.001` is a part of `AML.T0051`.
        let technique = match id.rsplit_once('.') {
            Some((technique, part)) if part.bytes().all(|c| c.is_ascii_digit()) => technique,
            _ => id,
        };
        let attack = json!({"technique": {"uid": technique}});
        let part = (technique != id).then(|| json!({ "uid": id }));
        with(attack, json!({"sub_technique": part, "version": version}))
    };
    (!ids.is_empty()).then(|| ids.iter().map(attack).collect())
}

/// The classification in taxonomies that OCSF has no attributes for, as tags.
pub(super) fn tags(record: &JournalRecord) -> Value {
    let mut tags = Vec::new();
    let mut one = |name: &str, value: &str| tags.push(json!({"name": name, "value": value}));
    if let Some(maestro) = &record.maestro {
        one("maestro.layer", &maestro.layer);
        one("maestro.layer.name", &maestro.layer_name);
    }
    if let Some(strength) = &record.strength {
        one("strength", strength);
    }
    if let Some(taxonomy) = &record.taxonomy {
        one("taxonomy", taxonomy);
    }
    let owasp = record.owasp.as_ref();
    for (name, values) in [
        ("maestro.threats", record.maestro.as_ref().map(|it| &it.threats)),
        ("owasp.mcp", owasp.map(|it| &it.mcp)),
        ("owasp.asi", owasp.map(|it| &it.asi)),
    ] {
        if let Some(values) = values.filter(|it| !it.is_empty()) {
            tags.push(json!({"name": name, "values": values}));
        }
    }
    tags.into()
}

/// Who sent the message and from where, and to whom. An agent speaks to a server, or a server to an
/// agent.
pub(super) fn sides(record: &JournalRecord) -> Value {
    let address = match record.peer.as_deref() {
        Some(peer) if peer.parse::<IpAddr>().is_ok() => json!({ "ip": peer }),
        Some(peer) => json!({ "name": peer }),
        None => json!({"name": transport(record)}),
    };
    let server = record.server.as_ref().map(|server| json!({ "svc_name": server }));
    if record.direction.as_deref() == Some("to_client") {
        let name = record.server.as_deref().unwrap_or("unknown");
        let from = server.unwrap_or_else(|| json!({ "name": name }));
        return json!({"actor": {"app_name": name}, "src_endpoint": from, "dst_endpoint": address});
    }
    let mut actor = json!({});
    if let Some(principal) = &record.principal {
        let user = json!({"user": {"uid": principal, "name": principal}});
        actor = with(actor, user);
    }
    if let Some(client) = &record.client {
        actor = with(actor, json!({"app_name": client.name}));
    }
    if let Some(session) = &record.session {
        actor = with(actor, json!({"session": {"uid": session}}));
    }
    if let Some(identity) = &record.identity {
        let idp = json!({"name": identity.issuer, "issuer": identity.issuer});
        actor = with(actor, json!({"idp": idp, "app_uid": identity.client_id}));
    }
    if actor.as_object().is_none_or(Map::is_empty) {
        actor = json!({"app_name": "unknown"});
    }
    let sides = json!({"actor": actor, "src_endpoint": address});
    with(sides, json!({ "dst_endpoint": server }))
}

fn transport(record: &JournalRecord) -> &str {
    record.protocol.as_ref().map_or("unknown", |protocol| protocol.transport.as_str())
}

/// The method, or of an HTTP request that was refused before its message was read, that of HTTP.
pub(super) fn api(record: &JournalRecord) -> Value {
    let http = record.http.as_ref().map(|http| http.method.as_str());
    let operation = record.method.as_deref().or(http).unwrap_or("unknown");
    let api = json!({ "operation": operation });
    let revision = record.protocol.as_ref().and_then(|it| it.revision.as_deref());
    with(
        api,
        json!({
            "service": record.server.as_ref().map(|server| json!({ "name": server })),
            "request": record.call.as_ref().map(|call| json!({ "uid": call })),
            "version": revision,
        }),
    )
}

/// What the message is about, with the environments as labels; `None` if it is about nothing.
pub(super) fn resources(record: &JournalRecord) -> Option<Value> {
    let target = record.target.as_ref()?;
    let (kind, name) = [
        ("tool", &target.tool),
        ("prompt", &target.prompt),
        ("resource", &target.uri),
        ("task", &target.task),
    ]
    .into_iter()
    .find_map(|(kind, name)| Some((kind, name.as_ref()?)))?;
    let resource = json!({"name": name, "type": kind, "role_id": 1, "role": "Target"});
    let environments = record.operation.as_ref().map(|it| &it.environments);
    let labels = environments.filter(|it| !it.is_empty()).map(|environments| {
        environments.iter().map(|it| format!("environment:{it}")).collect::<Vec<_>>()
    });
    let version = target.definition.as_ref();
    Some(json!([with(resource, json!({"labels": labels, "version": version}))]))
}

/// An HTTP request that was refused before its message was read.
pub(super) fn http_request(record: &JournalRecord) -> Option<Value> {
    let http = record.http.as_ref()?;
    let method = HTTP_METHODS.contains(&&*http.method).then_some(&http.method);
    let url = with(json!({"path": http.path}), json!({"hostname": http.host}));
    Some(with(json!({ "url": url }), json!({ "http_method": method })))
}

/// What OCSF has no attribute for, named as in `record`.
pub(super) fn unmapped(record: &JournalRecord) -> Value {
    let facts = json!({
        "seq": record.seq,
        "boot": record.boot,
        "event": record.event,
        "id": record.id,
        "direction": record.direction,
        "outcome": record.outcome,
        "bytes": record.bytes,
        "digest": record.digest,
        "duration_us": record.duration_us,
        "repeated": record.repeated,
        "since": record.since,
        "note": record.note,
        "finding": record.finding,
        "strength": record.strength,
        "taxonomy": record.taxonomy,
        "parent_span_id": record.parent_span_id,
    });
    let more = json!({
        "protocol": record.protocol.as_ref().map(|it| json!({
            "revision": it.revision, "era": it.era, "transport": it.transport,
        })),
        "client": record.client.as_ref().map(|it| json!({"name": it.name, "version": it.version})),
        "operation": record.operation.as_ref().map(|it| json!({
            "name": it.name,
            "effect": it.effect,
            "environments": it.environments,
            "environment_source": it.environment_source,
            "tags": it.tags,
            "pack": it.pack,
        })),
        "decision": record.decision.as_ref().map(|it| json!({
            "effect": it.effect,
            "enforced": it.enforced,
            "codes": it.reasons.iter().map(|it| &it.code).collect::<Vec<_>>(),
            "obligations": it.obligations,
            "engine": it.engine,
        })),
        "approval": record.approval.as_ref().map(|it| json!({
            "hold": it.hold, "answer": it.answer, "by": it.by, "scope": it.scope,
        })),
        "maestro": record.maestro.as_ref().map(|it| json!({
            "layer": it.layer, "layer.name": it.layer_name, "threats": it.threats,
        })),
        "owasp": record.owasp.as_ref().map(|it| json!({"mcp": it.mcp, "asi": it.asi})),
        "hidden": (!record.hidden.is_empty()).then_some(&record.hidden),
        "redacted": record.redacted.as_ref().map(|it| it.count),
        "gap": record.gap.as_ref().map(|it| json!({"refused": it.refused, "since": it.since})),
        "program": record.program.as_ref().map(|it| json!({
            "version": it.version,
            "host": it.host,
            "mode": it.mode,
            "configuration": it.configuration,
        })),
    });
    with(with(json!({}), facts), more)
}

/// The same of a call: of each member what its last record with that member has.
pub(super) fn unmapped_of(call: &Call) -> Value {
    call.records.iter().fold(json!({}), |all, record| with(all, unmapped(record)))
}
