//! The method table: every method of the five published revisions, one row each.
//!
//! A row says what the method does, on what, in which direction and since when. Nothing else in
//! the gate knows a method by name. A method that the spoken revision does not define has no row
//! there and is asked about as unknown.

use super::access::Action;
use super::pack::Effect;
use crate::wire::protocol::{Direction, Revision};

/// Which member of `params` names the thing acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The peer as a whole.
    Whole,
    /// `params.name`, a tool; `params.arguments`.
    Tool,
    /// `params.name`, a prompt; `params.arguments`.
    Prompt,
    /// `params.uri`.
    Uri,
    /// `params.ref.name` or `params.ref.uri`.
    Reference,
    /// `params.notifications.resourceSubscriptions`.
    Subscriptions,
    /// `params.taskId`.
    Task,
}

/// Which list of definitions a result carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `result.tools`, by `name`.
    Tools,
    /// `result.prompts`, by `name`.
    Prompts,
    /// `result.resources`, by `uri`.
    Resources,
    /// `result.resourceTemplates`, by `uriTemplate`.
    ResourceTemplates,
    /// `result.tasks`, by `taskId`.
    Tasks,
}

/// One method in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Its exact name.
    pub name: &'static str,
    /// What it does.
    pub action: Action,
    /// What it acts on.
    pub subject: Subject,
    /// What it comes to; a tool call's is its pack's to say.
    pub effect: Effect,
    /// Whether `Mcp-Name` must mirror its subject (2026-07-28, Streamable HTTP "Standard
    /// Headers"; tasks extension for task ids).
    pub mirrored: bool,
    /// The list that its result carries.
    pub list: Option<List>,
    to_server: Span,
    to_client: Span,
}

/// The revisions that define a method in one direction: first and last, or none.
type Span = Option<(Revision, Revision)>;

use Revision::{V20241105 as R1, V20250618 as R3, V20251125 as R4, V20260728 as R5};

const ALL: Span = Some((R1, R5));
const LEGACY: Span = Some((R1, R4));
const NEVER: Span = None;

const fn row(
    name: &'static str,
    action: Action,
    effect: Effect,
    to_server: Span,
    to_client: Span,
) -> Method {
    Method {
        name,
        action,
        subject: Subject::Whole,
        effect,
        mirrored: false,
        list: None,
        to_server,
        to_client,
    }
}

const fn on(method: Method, subject: Subject, mirrored: bool) -> Method {
    Method { subject, mirrored, ..method }
}

const fn lists(method: Method, list: List) -> Method {
    Method { list: Some(list), ..method }
}

use Action as A;
use Effect::{Exec, Read, Write};

/// `mcp.md` §2, from the `schema.ts` unions of each revision.
const TABLE: &[Method] = &[
    row("initialize", A::Initialize, Read, LEGACY, NEVER),
    row("server/discover", A::Discover, Read, Some((R5, R5)), NEVER),
    row("ping", A::Ping, Read, LEGACY, LEGACY),
    lists(row("tools/list", A::ListTools, Read, ALL, NEVER), List::Tools),
    on(row("tools/call", A::CallTool, Effect::Unknown, ALL, NEVER), Subject::Tool, true),
    lists(row("resources/list", A::ListResources, Read, ALL, NEVER), List::Resources),
    lists(
        row("resources/templates/list", A::ListResourceTemplates, Read, ALL, NEVER),
        List::ResourceTemplates,
    ),
    on(row("resources/read", A::ReadResource, Read, ALL, NEVER), Subject::Uri, true),
    on(row("resources/subscribe", A::SubscribeResource, Read, LEGACY, NEVER), Subject::Uri, false),
    on(
        row("resources/unsubscribe", A::UnsubscribeResource, Read, LEGACY, NEVER),
        Subject::Uri,
        false,
    ),
    lists(row("prompts/list", A::ListPrompts, Read, ALL, NEVER), List::Prompts),
    on(row("prompts/get", A::GetPrompt, Read, ALL, NEVER), Subject::Prompt, true),
    on(row("completion/complete", A::Complete, Read, ALL, NEVER), Subject::Reference, false),
    row("logging/setLevel", A::SetLevel, Read, LEGACY, NEVER),
    on(
        row("subscriptions/listen", A::Listen, Read, Some((R5, R5)), NEVER),
        Subject::Subscriptions,
        false,
    ),
    on(row("tasks/get", A::GetTask, Read, Some((R4, R5)), Some((R4, R4))), Subject::Task, true),
    on(
        row("tasks/cancel", A::CancelTask, Write, Some((R4, R5)), Some((R4, R4))),
        Subject::Task,
        true,
    ),
    on(
        row("tasks/result", A::TaskResult, Read, Some((R4, R4)), Some((R4, R4))),
        Subject::Task,
        false,
    ),
    lists(row("tasks/list", A::ListTasks, Read, Some((R4, R4)), Some((R4, R4))), List::Tasks),
    on(row("tasks/update", A::UpdateTask, Write, Some((R5, R5)), NEVER), Subject::Task, true),
    row("sampling/createMessage", A::Sample, Exec, NEVER, LEGACY),
    row("roots/list", A::ListRoots, Read, NEVER, LEGACY),
    row("elicitation/create", A::Elicit, Write, NEVER, Some((R3, R4))),
    row("notifications/initialized", A::Notify, Read, LEGACY, NEVER),
    row("notifications/cancelled", A::Notify, Read, ALL, ALL),
    row("notifications/progress", A::Notify, Read, LEGACY, ALL),
    row("notifications/message", A::Notify, Read, NEVER, ALL),
    row("notifications/tools/list_changed", A::Notify, Read, NEVER, ALL),
    row("notifications/prompts/list_changed", A::Notify, Read, NEVER, ALL),
    row("notifications/resources/list_changed", A::Notify, Read, NEVER, ALL),
    on(row("notifications/resources/updated", A::Notify, Read, NEVER, ALL), Subject::Uri, false),
    row("notifications/roots/list_changed", A::Notify, Read, LEGACY, NEVER),
    row("notifications/elicitation/complete", A::Notify, Read, NEVER, Some((R4, R4))),
    on(
        row("notifications/tasks/status", A::Notify, Read, Some((R4, R4)), Some((R4, R4))),
        Subject::Task,
        false,
    ),
    on(row("notifications/tasks", A::Notify, Read, NEVER, Some((R5, R5))), Subject::Task, false),
    row("notifications/subscriptions/acknowledged", A::Notify, Read, NEVER, Some((R5, R5))),
];

impl Method {
    /// The row of `name` in `direction`, where `revision` defines it; with no revision known yet,
    /// where any does.
    pub fn find(
        name: &str,
        direction: Direction,
        revision: Option<Revision>,
    ) -> Option<&'static Self> {
        let method = TABLE.iter().find(|method| method.name == name)?;
        let span = match direction {
            Direction::ToServer => method.to_server,
            Direction::ToClient => method.to_client,
        };
        let (first, last) = span?;
        match revision {
            Some(revision) => (first..=last).contains(&revision).then_some(method),
            None => Some(method),
        }
    }

    /// Every row, for tests and documents.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        TABLE.iter()
    }

    /// Whether `revision` defines it in `direction`.
    pub fn defined(&self, direction: Direction, revision: Revision) -> bool {
        Self::find(self.name, direction, Some(revision)).is_some()
    }
}
