//! The method table: one row for each method of the five published revisions of MCP.
//!
//! A row states everything that is special about a method: its action and subject, the directions
//! and revisions that define it, the form of its `params`, what its answer may be. The rest of the
//! program reads rows; [`Method::named`] is the only function that compares names. The gate refuses a
//! method of the table that the revision of the message does not define; a method that is not in the
//! table is decided as [`Action::Unknown`].

use super::protocol::{Direction, Era, Protocol, Revision};

/// The action of a method, as policies see it (`input.action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the MCP method of that name")]
pub enum Action {
    Initialize,
    Discover,
    Ping,
    ListTools,
    CallTool,
    ListResources,
    ListResourceTemplates,
    ReadResource,
    SubscribeResource,
    UnsubscribeResource,
    ListPrompts,
    GetPrompt,
    Complete,
    SetLevel,
    Listen,
    GetTask,
    CancelTask,
    TaskResult,
    ListTasks,
    UpdateTask,
    Sample,
    ListRoots,
    Elicit,
    Notify,
    /// Any method without a row in the table.
    Unknown,
}

/// The worst that an operation does to the system behind the server. Ordered: later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Adds or changes something.
    Write,
    /// Removes or fully replaces something, or changes at once what end users get.
    Destructive,
    /// Runs code, or anything else that the call's arguments do not limit.
    Exec,
    /// The pack does not know the operation. Compares as the worst.
    Unknown,
}

impl Effect {
    /// The name used in policy input, packs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Exec => "exec",
            Self::Unknown => "unknown",
        }
    }

    /// Parses the name of an effect in a pack. A pack cannot say `unknown`; it omits the tool.
    pub(crate) fn of_pack(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Destructive, Self::Exec]
            .into_iter()
            .find(|effect| effect.as_str() == text)
    }
}

/// Which member of `params` names the resource that a method acts on.
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

/// The part of a method in the protocol between client and server, where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No special part.
    Plain,
    /// Begins a legacy session: `params.protocolVersion` proposes a revision, and the answer names
    /// the one that applies.
    Handshake,
    /// Ends the handshake.
    Ready,
    /// Subscribes: its answer is a stream that stays open until one side closes it.
    Listen,
    /// Cancels its sender's request with the id `params.requestId`.
    Cancel,
    /// Reports progress of the request whose token is `params.progressToken`.
    Progress,
    /// Says that the server's tools have changed.
    ToolsChanged,
    /// Reports the state of a task: in its answer if it is a request, else in `params`.
    TaskState,
    /// Says that the elicitation `params.elicitationId` has ended, which the user was sent to a URL
    /// for.
    ElicitationEnd,
}

/// The capability that a client must declare before a server may send it a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// `sampling`.
    Sampling,
    /// `roots`.
    Roots,
    /// `elicitation`, with the mode of the request.
    Elicitation,
}

/// What a member of `params` must be (rule P10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamForm {
    /// A string that must be present.
    Text,
    /// A string. It may be absent from a request of MCP 2026-07-28, which removed the method: the
    /// answer is then 404 and -32601, not an error about `params`.
    LegacyText,
    /// An object, `null`, or absent.
    Arguments,
    /// The `ref` of a completion: an object that names a prompt or a resource, never both.
    Reference,
    /// The filter of a subscription: an object with lists of strings and flags, or absent.
    Filter,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent columns of a table")]
pub struct Method {
    /// The exact name.
    pub name: &'static str,
    /// Its action for the policy.
    pub action: Action,
    /// Which member of `params` names its resource.
    pub subject: Subject,
    /// Its effect; for a tool call the pack states it instead.
    pub effect: Effect,
    /// The members of `params` on which depends what it does, with their forms (P10); other members
    /// may have any form.
    pub params: &'static [(&'static str, ParamForm)],
    /// Whether `Mcp-Name` must mirror its subject (2026-07-28, Streamable HTTP "Standard
    /// Headers"; tasks extension for task ids).
    pub mirrored: bool,
    /// Its part in the protocol.
    pub role: Role,
    /// The list that its result carries, if it does.
    pub list: Option<List>,
    /// Whether its answer may embed requests to the client (MCP 2026-07-28, basic/patterns/mrtr:
    /// `resultType` is `input_required`).
    pub asks_back: bool,
    /// Whether its answer may be a task (tasks extension of 2026-07-28: `resultType` is `task`). In
    /// 2025-11-25 any request may be made a task.
    pub makes_task: bool,
    /// Whether a notification is sent only to a client that subscribed to it (MCP 2026-07-28,
    /// basic/patterns/subscriptions, and the tasks extension).
    pub subscribed: bool,
    /// The capability that the client must declare before a server may embed this request in an
    /// answer (MCP 2026-07-28).
    pub offer: Option<Offer>,
    /// Whether it may be part of a batch (2025-03-26, basic/lifecycle: `initialize` must not).
    pub batched: bool,
    to_server: Span,
    to_client: Span,
}

/// The first and the last revision that define a method in one direction, or none.
type Span = Option<(Revision, Revision)>;

use Revision::{V20241105 as R1, V20250618 as R3, V20251125 as R4, V20260728 as R5};

const ALL: Span = Some((R1, R5));
const LEGACY: Span = Some((R1, R4));
const MODERN: Span = Some((R5, R5));
const TASKS: Span = Some((R4, R5));
/// Tasks as part of MCP 2025-11-25; the extension of 2026-07-28 has fewer methods for them.
const LEGACY_TASKS: Span = Some((R4, R4));
const NEVER: Span = None;

const NAMED: &[(&str, ParamForm)] =
    &[("name", ParamForm::Text), ("arguments", ParamForm::Arguments)];
const URI: &[(&str, ParamForm)] = &[("uri", ParamForm::Text)];
const LEGACY_URI: &[(&str, ParamForm)] = &[("uri", ParamForm::LegacyText)];
const TASK_ID: &[(&str, ParamForm)] = &[("taskId", ParamForm::Text)];

use Action as A;
use Effect::{Exec, Read, Write};

/// A row with the default in every special column.
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
        params: &[],
        mirrored: false,
        role: Role::Plain,
        list: None,
        asks_back: false,
        makes_task: false,
        subscribed: false,
        offer: None,
        batched: true,
        to_server,
        to_client,
    }
}

/// A row of a method whose result carries `list`.
const fn lists(
    name: &'static str,
    action: Action,
    list: List,
    to_server: Span,
    to_client: Span,
) -> Method {
    Method { list: Some(list), ..row(name, action, Read, to_server, to_client) }
}

/// A row of a notification to subscribers.
const fn news(name: &'static str, first_and_last: Span) -> Method {
    Method { subscribed: true, ..row(name, A::Notify, Read, NEVER, first_and_last) }
}

const LIST_TOOLS: Method = lists("tools/list", A::ListTools, List::Tools, ALL, NEVER);
const LIST_PROMPTS: Method = lists("prompts/list", A::ListPrompts, List::Prompts, ALL, NEVER);
const LIST_RESOURCES: Method =
    lists("resources/list", A::ListResources, List::Resources, ALL, NEVER);
const LIST_RESOURCE_TEMPLATES: Method = lists(
    "resources/templates/list",
    A::ListResourceTemplates,
    List::ResourceTemplates,
    ALL,
    NEVER,
);
const LIST_TASKS: Method =
    lists("tasks/list", A::ListTasks, List::Tasks, LEGACY_TASKS, LEGACY_TASKS);

/// From the `schema.ts` unions of each revision, and the tasks extension of 2026-07-28.
const TABLE: &[Method] = &[
    Method {
        role: Role::Handshake,
        batched: false,
        ..row("initialize", A::Initialize, Read, LEGACY, NEVER)
    },
    row("server/discover", A::Discover, Read, MODERN, NEVER),
    row("ping", A::Ping, Read, LEGACY, LEGACY),
    LIST_TOOLS,
    Method {
        subject: Subject::Tool,
        params: NAMED,
        mirrored: true,
        asks_back: true,
        makes_task: true,
        ..row("tools/call", A::CallTool, Effect::Unknown, ALL, NEVER)
    },
    LIST_RESOURCES,
    LIST_RESOURCE_TEMPLATES,
    Method {
        subject: Subject::Uri,
        params: URI,
        mirrored: true,
        asks_back: true,
        ..row("resources/read", A::ReadResource, Read, ALL, NEVER)
    },
    Method {
        subject: Subject::Uri,
        params: LEGACY_URI,
        ..row("resources/subscribe", A::SubscribeResource, Read, LEGACY, NEVER)
    },
    Method {
        subject: Subject::Uri,
        params: LEGACY_URI,
        ..row("resources/unsubscribe", A::UnsubscribeResource, Read, LEGACY, NEVER)
    },
    LIST_PROMPTS,
    Method {
        subject: Subject::Prompt,
        params: NAMED,
        mirrored: true,
        asks_back: true,
        ..row("prompts/get", A::GetPrompt, Read, ALL, NEVER)
    },
    Method {
        subject: Subject::Reference,
        params: &[("ref", ParamForm::Reference)],
        ..row("completion/complete", A::Complete, Read, ALL, NEVER)
    },
    row("logging/setLevel", A::SetLevel, Read, LEGACY, NEVER),
    Method {
        subject: Subject::Subscriptions,
        params: &[("notifications", ParamForm::Filter)],
        role: Role::Listen,
        ..row("subscriptions/listen", A::Listen, Read, MODERN, NEVER)
    },
    Method {
        subject: Subject::Task,
        params: TASK_ID,
        mirrored: true,
        role: Role::TaskState,
        ..row("tasks/get", A::GetTask, Read, TASKS, LEGACY_TASKS)
    },
    Method {
        subject: Subject::Task,
        params: TASK_ID,
        mirrored: true,
        ..row("tasks/cancel", A::CancelTask, Write, TASKS, LEGACY_TASKS)
    },
    Method {
        subject: Subject::Task,
        params: &[("taskId", ParamForm::LegacyText)],
        ..row("tasks/result", A::TaskResult, Read, LEGACY_TASKS, LEGACY_TASKS)
    },
    LIST_TASKS,
    Method {
        subject: Subject::Task,
        params: TASK_ID,
        mirrored: true,
        ..row("tasks/update", A::UpdateTask, Write, MODERN, NEVER)
    },
    Method {
        offer: Some(Offer::Sampling),
        ..row("sampling/createMessage", A::Sample, Exec, NEVER, LEGACY)
    },
    Method { offer: Some(Offer::Roots), ..row("roots/list", A::ListRoots, Read, NEVER, LEGACY) },
    Method {
        offer: Some(Offer::Elicitation),
        ..row("elicitation/create", A::Elicit, Write, NEVER, Some((R3, R4)))
    },
    Method {
        role: Role::Ready,
        ..row("notifications/initialized", A::Notify, Read, LEGACY, NEVER)
    },
    Method { role: Role::Cancel, ..row("notifications/cancelled", A::Notify, Read, ALL, ALL) },
    Method { role: Role::Progress, ..row("notifications/progress", A::Notify, Read, LEGACY, ALL) },
    row("notifications/message", A::Notify, Read, NEVER, ALL),
    Method { role: Role::ToolsChanged, ..news("notifications/tools/list_changed", ALL) },
    news("notifications/prompts/list_changed", ALL),
    news("notifications/resources/list_changed", ALL),
    Method { subject: Subject::Uri, ..news("notifications/resources/updated", ALL) },
    row("notifications/roots/list_changed", A::Notify, Read, LEGACY, NEVER),
    Method {
        role: Role::ElicitationEnd,
        ..row("notifications/elicitation/complete", A::Notify, Read, NEVER, Some((R4, R4)))
    },
    Method {
        subject: Subject::Task,
        ..row("notifications/tasks/status", A::Notify, Read, LEGACY_TASKS, LEGACY_TASKS)
    },
    Method { subject: Subject::Task, role: Role::TaskState, ..news("notifications/tasks", MODERN) },
    news("notifications/subscriptions/acknowledged", MODERN),
];

impl Method {
    /// Returns the row of the exact `name`, in any direction and revision.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|method| method.name == name)
    }

    /// Returns the row of `name` if `revision` defines it in `direction`; without a known revision,
    /// if any revision does.
    pub fn find(
        name: &str,
        direction: Direction,
        revision: Option<Revision>,
    ) -> Option<&'static Self> {
        let method = Self::named(name)?;
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

    /// Returns the row of `name` if a message of `protocol` may have it in `direction`. A modern
    /// revision that is not known counts as the newest known one; a legacy one as any legacy one.
    pub fn defined(name: &str, direction: Direction, protocol: Protocol) -> Option<&'static Self> {
        let legacy = [R1, Revision::V20250326, R3, R4].as_slice();
        let revisions = match (&protocol.revision, protocol.era) {
            (Some(revision), _) => std::slice::from_ref(revision),
            (None, Era::Modern) => &[R5],
            (None, Era::Legacy) => legacy,
        };
        revisions.iter().find_map(|revision| Self::find(name, direction, Some(*revision)))
    }

    /// The row of the request of a server that needs the capability `offer`.
    pub fn offered(offer: Offer) -> Option<&'static Self> {
        TABLE.iter().find(|method| method.offer == Some(offer))
    }

    /// Whether `name`, known or not, is the name of a notification: it begins with
    /// `notifications/`.
    pub fn is_notification(name: &str) -> bool {
        name.starts_with("notifications/")
    }

    /// Returns every row, for tests and for the tables of the documentation.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        TABLE.iter()
    }
}

impl List {
    /// The row of the method whose result carries this list.
    pub fn method(self) -> &'static Method {
        match self {
            Self::Tools => &LIST_TOOLS,
            Self::Prompts => &LIST_PROMPTS,
            Self::Resources => &LIST_RESOURCES,
            Self::ResourceTemplates => &LIST_RESOURCE_TEMPLATES,
            Self::Tasks => &LIST_TASKS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_row() {
        for method in Method::all() {
            assert_eq!(Method::named(method.name), Some(method), "a second row");
            let notifies = Method::is_notification(method.name);
            assert_eq!(notifies, method.action == Action::Notify, "{}", method.name);
        }
        assert_eq!(Method::named("tools/Call"), None);
    }

    #[test]
    fn a_row_counts_in_the_revisions_and_directions_that_define_it() {
        use Direction::{ToClient, ToServer};
        for (name, direction, revision, found) in [
            ("initialize", ToServer, None, true),
            ("initialize", ToServer, Some(R4), true),
            ("initialize", ToServer, Some(R5), false),
            ("initialize", ToClient, None, false),
            ("tasks/get", ToClient, Some(R4), true),
            ("tasks/get", ToClient, Some(R5), false),
            ("x/y", ToServer, None, false),
        ] {
            let row = Method::find(name, direction, revision);
            assert_eq!(row.is_some(), found, "{name} {direction:?} {revision:?}");
        }
    }

    #[test]
    fn what_is_special_is_said_of_the_methods_that_it_is_true_of() {
        let names = |special: fn(&Method) -> bool| -> Vec<&str> {
            Method::all().filter(|method| special(method)).map(|method| method.name).collect()
        };
        assert_eq!(names(|row| !row.batched), ["initialize"]);
        assert_eq!(names(|row| row.makes_task), ["tools/call"]);
        assert_eq!(names(|row| row.asks_back), ["tools/call", "resources/read", "prompts/get"]);
        assert_eq!(
            names(|row| row.offer.is_some()),
            ["sampling/createMessage", "roots/list", "elicitation/create"]
        );
        assert_eq!(
            names(|row| row.subscribed),
            [
                "notifications/tools/list_changed",
                "notifications/prompts/list_changed",
                "notifications/resources/list_changed",
                "notifications/resources/updated",
                "notifications/tasks",
                "notifications/subscriptions/acknowledged",
            ]
        );
        for (role, expected) in [
            (Role::Handshake, &["initialize"][..]),
            (Role::Ready, &["notifications/initialized"]),
            (Role::Listen, &["subscriptions/listen"]),
            (Role::Cancel, &["notifications/cancelled"]),
            (Role::Progress, &["notifications/progress"]),
            (Role::ToolsChanged, &["notifications/tools/list_changed"]),
            (Role::TaskState, &["tasks/get", "notifications/tasks"]),
            (Role::ElicitationEnd, &["notifications/elicitation/complete"]),
        ] {
            let of_role = Method::all().filter(|method| method.role == role);
            assert_eq!(of_role.map(|method| method.name).collect::<Vec<_>>(), expected, "{role:?}");
        }
        for method in Method::all().filter(|method| method.list.is_some()) {
            assert_eq!(method.list.map(List::method), Some(method));
        }
    }
}
