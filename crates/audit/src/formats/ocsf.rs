//! Calls and findings as events of the Open Cybersecurity Schema Framework, version [`VERSION`].
//!
//! | Record | Class |
//! |---|---|
//! | a call, with all its records; an approver's answer; what became of a hold | API Activity (6003) |
//! | a finding, unless one of the classes below is about it or it is evidence of a control | Detection Finding (2004) |
//! | a request without a right token | Authentication (3002) |
//! | `policy` | Entity Management (3004) |
//! | `start`, `stop`, `recovery`, `retention` | Application Lifecycle (6002) |
//! | `gap`, `store`, `webhook`; a server or a sink that failed | Application Error (6008) |
//!
//! `rotation` and `checkpoint` are about the journal's files and are no events. OCSF has no class for
//! the authorisation of one request, so what was decided is in the profile `security_control`. What
//! OCSF has no attribute for is in `unmapped.bartizan`, named as in the record. `docs/audit.md` has
//! the mapping for users, and `tests/interop/ocsf.sh` validates it against the published schema.

mod parts;

use serde_json::{Value, json};

use super::{Convert, push_json};
use crate::calls::Call;
use crate::entry::JournalRecord;

/// The version of OCSF whose classes these are.
pub const VERSION: &str = "1.8.0";

/// The converter.
pub(super) struct Events;

impl Convert for Events {
    fn call(&mut self, call: Call, out: &mut Vec<u8>) {
        for event in events(&call) {
            push_json(&event, out);
        }
    }
}

/// A class, and what events of it have in common.
#[derive(Debug, Clone, Copy)]
struct Class {
    uid: u32,
    name: &'static str,
    category: (u32, &'static str),
}

const API_ACTIVITY: Class =
    Class { uid: 6003, name: "API Activity", category: (6, "Application Activity") };
const DETECTION: Class = Class { uid: 2004, name: "Detection Finding", category: (2, "Findings") };
const AUTHENTICATION: Class =
    Class { uid: 3002, name: "Authentication", category: (3, "Identity & Access Management") };
const ENTITY: Class =
    Class { uid: 3004, name: "Entity Management", category: (3, "Identity & Access Management") };
const LIFECYCLE: Class =
    Class { uid: 6002, name: "Application Lifecycle", category: (6, "Application Activity") };
const ERROR: Class =
    Class { uid: 6008, name: "Application Error", category: (6, "Application Activity") };

/// Number and name of an activity, a status, an action or a disposition.
type Enum = (u32, &'static str);

const OTHER: u32 = 99;
const SUCCESS: Enum = (1, "Success");
const FAILURE: Enum = (2, "Failure");
const UNKNOWN: Enum = (0, "Unknown");

/// All events of `call`.
fn events(call: &Call) -> Vec<Value> {
    let mut events = Vec::new();
    let alone = call.records.len() == 1;
    let own = call.records.first().filter(|_| alone).and_then(of_program);
    let refused_caller =
        call.records.iter().any(|it| class_of_finding(it) == Some(AUTHENTICATION.uid));
    if let Some(event) = own {
        events.push(event);
    } else if !refused_caller && call.records.iter().any(is_of_call) {
        events.push(api_activity(call));
    }
    for record in &call.records {
        if record.approval.is_some() && matches!(record.event.as_str(), "approval" | "hold_state") {
            events.push(answer(record));
        }
        events.extend(finding(record));
    }
    events
}

/// Whether `record` says what became of a message.
fn is_of_call(record: &JournalRecord) -> bool {
    matches!(
        record.event.as_str(),
        "intent" | "hold" | "denial" | "outcome" | "notice" | "drop" | "repeated"
    )
}

/// The members that all events have, of `record`, which names the event with `suffix`.
fn event(class: Class, activity: Enum, record: &JournalRecord, suffix: &str) -> Value {
    let Class { uid, name, category } = class;
    let type_uid = uid.saturating_mul(100).saturating_add(activity.0);
    let severity = parts::severity(record);
    json!({
        "class_uid": uid,
        "class_name": name,
        "category_uid": category.0,
        "category_name": category.1,
        "activity_id": activity.0,
        "activity_name": activity.1,
        "type_uid": type_uid,
        "type_name": format!("{name}: {}", activity.1),
        "severity_id": severity.0,
        "severity": severity.1,
        "time": parts::millis(&record.time),
        "metadata": parts::metadata(record, suffix),
        "unmapped": {"bartizan": parts::unmapped(record)},
    })
}

/// Adds the members of `more` that are not null to `event`.
fn with(mut event: Value, more: Value) -> Value {
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    event
}

fn status(status: Enum, detail: Option<&str>, code: Option<&str>) -> Value {
    json!({
        "status_id": status.0, "status": status.1, "status_detail": detail, "status_code": code,
    })
}

/// The call with all its records as one event.
fn api_activity(call: &Call) -> Value {
    let (Some(first), Some(last)) = (call.records.first(), call.records.last()) else {
        return Value::Null;
    };
    let decided = call.decided().unwrap_or(first);
    let activity = match call.operation().map(|it| it.effect.as_str()) {
        Some("read") => (2, "Read"),
        Some("write") => (3, "Update"),
        Some("destructive") => (4, "Delete"),
        Some("exec") => (OTHER, "Execute"),
        Some(_) | None => UNKNOWN,
    };
    let (done, detail) = parts::end(call);
    let mut api = parts::api(decided);
    if let Some(error) = &last.error_type {
        let code = error.parse::<i32>().ok();
        api = with(api, json!({"response": with(json!({"error": error}), json!({"code": code}))}));
    }
    let end = parts::millis(&last.time);
    let began = match (last.duration_us, &last.since) {
        (Some(micros), _) => end.saturating_sub(i64::try_from(micros / 1000).unwrap_or(i64::MAX)),
        (None, Some(since)) => parts::millis(since),
        (None, None) => parts::millis(&first.time),
    };
    let mut base = event(API_ACTIVITY, activity, last, "");
    if first.trace_id.is_some()
        && let Some(profiles) = base.pointer_mut("/metadata/profiles")
    {
        *profiles = json!(parts::PROFILES_TRACED);
    }
    base = with(base, json!({"unmapped": {"bartizan": parts::unmapped_of(call)}}));
    base = with(base, status(done, detail.as_deref(), last.error_type.as_deref()));
    base = with(base, parts::decision(call));
    base = with(base, parts::sides(first));
    let span = last.duration_us.map(|micros| micros / 1000);
    with(
        base,
        json!({
            "api": api,
            "resources": parts::resources(decided),
            "http_request": parts::http_request(first),
            "trace": first.trace_id.as_ref().map(|id| json!({ "uid": id })),
            "start_time": began,
            "end_time": end,
            "duration": span,
            "count": last.repeated,
        }),
    )
}

/// An approver's answer, or what became of a hold.
fn answer(record: &JournalRecord) -> Value {
    let Some(approval) = &record.approval else { return Value::Null };
    let (action, disposition): (Enum, Enum) = match approval.answer.as_str() {
        "grant" | "granted" => ((1, "Allowed"), (8, "Approved")),
        "refuse" | "refused" => ((2, "Denied"), (25, "Rejected")),
        "expired" | "cancelled" => ((2, "Denied"), (2, "Blocked")),
        _ => ((OTHER, "Other"), (OTHER, "Other")),
    };
    let actor = match &approval.by {
        Some(by) => json!({"user": {"uid": by, "name": by}}),
        None => json!({"app_name": parts::PRODUCT}),
    };
    let done = if record.error_type.is_some() { FAILURE } else { SUCCESS };
    let base = event(API_ACTIVITY, (3, "Update"), record, "-approval");
    let base = with(base, status(done, approval.reason.as_deref(), record.error_type.as_deref()));
    with(
        base,
        json!({
            "action_id": action.0,
            "action": action.1,
            "disposition_id": disposition.0,
            "disposition": disposition.1,
            "actor": actor,
            "src_endpoint": {"name": parts::PRODUCT},
            "api": {
                "operation": format!("approval.{}", approval.answer),
                "service": {"name": parts::PRODUCT},
                "request": {"uid": record.call.as_ref().unwrap_or(&approval.hold)},
            },
            "resources": [{"uid": approval.hold, "type": "hold"}],
        }),
    )
}

/// The event of a record of the program itself.
fn of_program(record: &JournalRecord) -> Option<Value> {
    let note = record.note.as_deref();
    let lifecycle = |activity, done| {
        let base = event(LIFECYCLE, activity, record, "");
        let base = with(base, status(done, note, None));
        let version = record.program.as_ref().map(|program| program.version.as_str());
        with(base, json!({"app": parts::product(version), "message": note}))
    };
    Some(match record.event.as_str() {
        "start" => lifecycle((3, "Start"), SUCCESS),
        "stop" => lifecycle((4, "Stop"), SUCCESS),
        "recovery" => lifecycle((OTHER, "Recovery"), SUCCESS),
        "retention" => lifecycle((OTHER, "Retention"), SUCCESS),
        "policy" => {
            let rejected = record.finding.as_deref() == Some("policy_reload_rejected");
            let revision = record.decision.as_ref().map(|it| it.policy.as_str());
            let revision = revision.filter(|it| !it.is_empty()).unwrap_or("unknown");
            let base = event(ENTITY, (3, "Update"), record, "");
            let done = if rejected { FAILURE } else { SUCCESS };
            let base = with(base, status(done, note, None));
            let policy = json!({"uid": revision, "name": "policy", "is_applied": !rejected});
            with(
                base,
                json!({
                    "entity": {"type_id": 5, "type": "Policy", "uid": revision, "policy": policy},
                    "actor": {"app_name": parts::PRODUCT},
                    "message": note,
                }),
            )
        }
        "gap" | "store" | "webhook" => {
            let cause = record.gap.as_ref().map(|gap| gap.cause.as_str());
            error(record, cause.or(note), if cause.is_some() { FAILURE } else { UNKNOWN }, "")
        }
        _ => return None,
    })
}

fn error(record: &JournalRecord, message: Option<&str>, done: Enum, suffix: &str) -> Value {
    let base = event(ERROR, (1, "General Error"), record, suffix);
    let base = with(base, status(done, None, record.error_type.as_deref()));
    let count = record.gap.as_ref().map(|gap| gap.refused);
    with(base, json!({"message": message, "count": count}))
}

/// The class that the event of the finding of `record` has; `None` if it has none of its own.
fn class_of_finding(record: &JournalRecord) -> Option<u32> {
    let finding = record.finding.as_deref()?;
    match (finding, record.strength.as_deref()) {
        ("unauthenticated_caller", _) => Some(AUTHENTICATION.uid),
        ("upstream_failure", _) => Some(ERROR.uid),
        // The records of these are events of the right class themselves.
        ("audit_sink_failure" | "policy_reload" | "policy_reload_rejected", _)
        | (_, Some("control-evidence")) => None,
        _ => Some(DETECTION.uid),
    }
}

/// The event of the finding of `record`, if it has one of its own.
fn finding(record: &JournalRecord) -> Option<Value> {
    let class = class_of_finding(record)?;
    let finding = record.finding.as_deref()?;
    if class == AUTHENTICATION.uid {
        let base = event(AUTHENTICATION, (1, "Logon"), record, "-finding");
        let reason = record.reason().or(record.error_type.as_deref());
        let base = with(base, status(FAILURE, reason, record.error_type.as_deref()));
        let service = record.server.as_deref().unwrap_or(parts::PRODUCT);
        let user = record.principal.as_deref().unwrap_or("unknown");
        let sides = parts::sides(record);
        return Some(with(
            base,
            json!({
                "user": {"uid": user, "name": user},
                "service": {"name": service},
                "is_remote": true,
                "src_endpoint": sides.get("src_endpoint"),
                "http_request": parts::http_request(record),
                "count": record.repeated,
            }),
        ));
    }
    if class == ERROR.uid {
        let message = record.note.as_deref().or(record.outcome.as_deref());
        return Some(error(record, message, FAILURE, "-finding"));
    }
    let base = event(DETECTION, (1, "Create"), record, "-finding");
    let attacks = parts::attacks(record);
    let title = finding.replace('_', " ");
    let uid = parts::uid(record, "-finding");
    let info = json!({
        "uid": uid,
        "title": title,
        "types": [finding],
        "created_time": parts::millis(&record.time),
        "analytic": {"type_id": 1, "type": "Rule", "name": finding, "uid": finding},
        "tags": parts::tags(record),
    });
    let call = Call { records: vec![record.clone()] };
    let alert = record.strength.as_deref() == Some("direct");
    let base = with(base, parts::decision(&call));
    Some(with(
        base,
        json!({
            "finding_info": with(info, json!({ "attacks": attacks })),
            "status_id": 1,
            "status": "New",
            "is_alert": alert,
            "message": record.decision.as_ref().and_then(|it| Some(&it.reasons.first()?.message)),
            "evidences": [with(json!({"api": parts::api(record)}), parts::sides(record))],
            "resources": parts::resources(record),
            "count": record.repeated,
        }),
    ))
}
