//! What a client is told of a task of the gate's own.

use std::time::{Duration, UNIX_EPOCH};

use super::record::rfc3339;
use super::refusal::{APPROVAL_REQUIRED, UPSTREAM_FAILED, WITHHELD};
use crate::question::hold::HoldEnd;
use crate::question::task::{OwnTask, OwnTaskState, PREFIX};
use crate::wire::document::write_string;

/// How often a client should ask while people have not answered, milliseconds.
const POLL_MS: u64 = 2000;
/// How often it should ask while its call is being made, milliseconds.
const POLL_RUNNING_MS: u64 = 500;

/// Writes the members of `task` that each answer has, after those before them.
fn write_members(body: &mut Vec<u8>, task: &OwnTask) {
    let status = status(&task.state);
    body.extend_from_slice(b"\"taskId\":");
    write_string(body, &format!("{PREFIX}{}", task.name));
    body.extend_from_slice(format!(",\"status\":\"{status}\",\"statusMessage\":").as_bytes());
    write_string(body, &message(task));
    let time = |unix_ms| rfc3339(UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)));
    let (created, changed) = (time(task.created_unix_ms), time(task.changed_unix_ms));
    let times = format!(",\"createdAt\":\"{created}\",\"lastUpdatedAt\":\"{changed}\"");
    body.extend_from_slice(times.as_bytes());
    let waits = matches!(task.state, OwnTaskState::Waiting);
    let poll = if waits { POLL_MS } else { POLL_RUNNING_MS };
    let ttl = task.ttl_ms;
    body.extend_from_slice(format!(",\"ttlMs\":{ttl},\"pollIntervalMs\":{poll}").as_bytes());
}

/// The result that tells a client that its call waits as `task` (the tasks extension, "Task
/// Creation").
pub(crate) fn created(task: &OwnTask) -> Vec<u8> {
    let mut body = b"{\"resultType\":\"task\",".to_vec();
    write_members(&mut body, task);
    body.push(b'}');
    body
}

/// The result that tells a client what has become of `task` (the tasks extension, "Task Polling").
pub(crate) fn polled(task: &OwnTask) -> Vec<u8> {
    let mut body = b"{\"resultType\":\"complete\",".to_vec();
    write_members(&mut body, task);
    match &task.state {
        OwnTaskState::Completed(result) => {
            body.extend_from_slice(b",\"result\":");
            body.extend_from_slice(result.as_bytes());
        }
        OwnTaskState::Failed(error) => {
            body.extend_from_slice(b",\"error\":");
            body.extend_from_slice(error.as_bytes());
        }
        OwnTaskState::Waiting
        | OwnTaskState::Ready(_)
        | OwnTaskState::Running
        | OwnTaskState::Refused
        | OwnTaskState::Expired
        | OwnTaskState::Cancelled
        | OwnTaskState::Unknown
        | OwnTaskState::Dropped => {}
    }
    if let Some(code) = code(&task.state) {
        body.extend_from_slice(format!(",\"error\":{{\"code\":{code},").as_bytes());
        body.extend_from_slice(b"\"message\":");
        write_string(&mut body, text(&task.state));
        body.extend_from_slice(b",\"data\":{\"approval_id\":");
        write_string(&mut body, &task.hold);
        body.extend_from_slice(b"}}");
    }
    body.push(b'}');
    body
}

fn status(state: &OwnTaskState) -> &'static str {
    match state {
        OwnTaskState::Waiting | OwnTaskState::Ready(_) | OwnTaskState::Running => "working",
        OwnTaskState::Completed(_) => "completed",
        OwnTaskState::Cancelled => "cancelled",
        OwnTaskState::Failed(_)
        | OwnTaskState::Refused
        | OwnTaskState::Expired
        | OwnTaskState::Unknown
        | OwnTaskState::Dropped => "failed",
    }
}

/// The code of the error where the gate itself ended the task.
fn code(state: &OwnTaskState) -> Option<i64> {
    match state {
        OwnTaskState::Refused | OwnTaskState::Expired => Some(APPROVAL_REQUIRED),
        OwnTaskState::Unknown => Some(UPSTREAM_FAILED),
        OwnTaskState::Dropped => Some(WITHHELD),
        OwnTaskState::Waiting
        | OwnTaskState::Ready(_)
        | OwnTaskState::Running
        | OwnTaskState::Completed(_)
        | OwnTaskState::Failed(_)
        | OwnTaskState::Cancelled => None,
    }
}

pub(crate) fn text(state: &OwnTaskState) -> &'static str {
    match state {
        OwnTaskState::Waiting => "Waiting for a person's approval",
        OwnTaskState::Ready(_) => "Approved; the call is to be made",
        OwnTaskState::Running => "Approved; the call is being made",
        OwnTaskState::Completed(_) => "Approved, and answered",
        OwnTaskState::Failed(_) => "Approved, and failed",
        OwnTaskState::Refused => HoldEnd::Refused.text(),
        OwnTaskState::Expired => HoldEnd::Expired.text(),
        OwnTaskState::Cancelled => HoldEnd::Cancelled.text(),
        OwnTaskState::Unknown => {
            "The call was approved, and it is not known whether the server got it"
        }
        OwnTaskState::Dropped => "The call was made, and its answer is no longer kept",
    }
}

/// The text for the client's user: which call it is, and where it is approved.
fn message(task: &OwnTask) -> String {
    let waits = matches!(task.state, OwnTaskState::Waiting);
    let page = task.page.as_ref().filter(|_| waits);
    let page = page.map(|page| format!(". Approvers answer at {page}")).unwrap_or_default();
    format!("{}: {}, {}{page}", text(&task.state), task.what, task.hold)
}
