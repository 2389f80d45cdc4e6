//! Derives from a frame what the policy is asked: protocol, method row, resource, operation and
//! trace context.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::evidence::record::{CallId, LinkFacts, Now, OperationFacts, Target};
use crate::evidence::text::Text;
use crate::question::access::{AccessRequest, Client, Resource, WallTime};
use crate::question::handles::{Facts, KnownHandles};
use crate::question::hold::Approval;
use crate::question::operation::Operation;
use crate::question::pack::Effect;
use crate::question::status::DefinitionStatus;
use crate::session::definitions::ToolDefinition;
use crate::session::tasks::TaskCreation;
use crate::wire::document::{Kind, Value};
use crate::wire::frame::{Frame, Message};
use crate::wire::headers::META_CLIENT_INFO;
use crate::wire::headers::RoutingHeaders;
use crate::wire::method::{Action, Method, Role, Subject};
use crate::wire::protocol::{ClaimedVersion, Direction, Era, Protocol, Revision};

use super::{CallFacts, Session};

/// A request or notification, resolved for the policy and for its records.
pub(super) struct Question<'a> {
    pub(super) frame: &'a Frame,
    pub(super) name: &'a str,
    pub(super) params: Option<Value<'a>>,
    /// The row of its method, in any revision and direction.
    pub(super) row: Option<&'static Method>,
    /// The same row, if the negotiated revision defines it in this direction.
    pub(super) method: Option<&'static Method>,
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    pub(super) resource: Resource<'a>,
    pub(super) operation: Arc<Operation>,
    pub(super) trace: Option<TraceContext<'a>>,
    /// The session facts by which it is judged. If absent, those of the time at which it is.
    pub(super) session_facts: Option<Facts>,
    /// The last approval that was granted for the message.
    pub(super) approval: Option<&'a Approval>,
}

/// What the session's tables hold about the tool, task or handle that a frame names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lookups<'a> {
    /// The called tool as last listed.
    pub(super) definition: Option<&'a ToolDefinition>,
    /// The request that created the named task.
    pub(super) task: Option<&'a TaskCreation>,
    /// The called tool's drift and flags.
    pub(super) status: DefinitionStatus<'a>,
    /// The handles that this session may use.
    pub(super) handles: Option<KnownHandles<'a>>,
}

/// A W3C trace context (`traceparent`, version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceContext<'a> {
    /// 32 lower-case hex digits.
    pub(super) trace_id: &'a str,
    /// 16 lower-case hex digits.
    pub(super) span_id: &'a str,
}

impl<'a> TraceContext<'a> {
    /// Parses a `traceparent` of version 00 (W3C Trace Context §3.2.2); `None` for any other text.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |part: &str, length: usize| {
            part.len() == length
                && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
        let valid = version == "00"
            && parts.next().is_none()
            && lower_hex(trace_id, 32)
            && lower_hex(span_id, 16)
            && lower_hex(flags, 2)
            && nonzero(trace_id)
            && nonzero(span_id);
        valid.then_some(Self { trace_id, span_id })
    }
}

/// Determines the protocol of a client's frame from its own `_meta`, else from `initialize`, else
/// from `MCP-Protocol-Version`, else from the conversation so far. `Mcp-Session-Id` and
/// `Mcp-Method` never choose the era.
pub(super) fn protocol_of(
    known: Protocol,
    frame: &Frame,
    headers: Option<&RoutingHeaders>,
) -> Protocol {
    if let Some(claimed) = frame.claimed_version() {
        return Protocol { revision: claimed.revision(), era: claimed.era(), ..known };
    }
    let row = frame.message().method().and_then(Method::named);
    if row.is_some_and(|row| row.role == Role::Handshake) {
        let asked = frame.params().and_then(|params| params.get("protocolVersion"));
        let revision = asked
            .and_then(Value::as_str)
            .and_then(Revision::parse)
            .filter(|revision| revision.era() == Era::Legacy);
        return Protocol { revision, era: Era::Legacy, ..known };
    }
    match headers.and_then(|headers| headers.protocol_version.as_deref()) {
        Some(version) => {
            // `routing::check` refuses a header that cannot be read.
            let claimed = ClaimedVersion::parse(version);
            let era = claimed.map_or(known.era, ClaimedVersion::era);
            Protocol { revision: claimed.and_then(ClaimedVersion::revision), era, ..known }
        }
        None => known,
    }
}

/// Reads the client's self-description, on `initialize` or on each modern request.
pub(super) fn client_of(frame: &Frame) -> Option<Client> {
    let params = frame.params()?;
    let info = params
        .get("clientInfo")
        .or_else(|| params.get("_meta").and_then(|meta| meta.get(META_CLIENT_INFO)))?;
    let text = |name| shortened(info.get(name).and_then(Value::as_str).unwrap_or_default());
    Some(Client { name: text("name"), version: text("version") })
}

/// Longest name and version of a client that is kept, bytes. They are kept as long as the session,
/// and a client may state megabytes.
const CLIENT_BYTES_MAX: usize = 256;

/// At most [`CLIENT_BYTES_MAX`] bytes of `text`; what is left out is marked, so that no longer text
/// equals a shorter one.
fn shortened(text: &str) -> Box<str> {
    if text.len() <= CLIENT_BYTES_MAX {
        return text.into();
    }
    let kept = text.floor_char_boundary(CLIENT_BYTES_MAX.saturating_sub(3));
    format!("{}\u{2026}", text.get(..kept).unwrap_or_default()).into()
}

impl<'a> Question<'a> {
    /// Resolves a request or notification `frame` with the method `name`.
    pub(super) fn of(
        session: &Session,
        frame: &'a Frame,
        name: &'a str,
        direction: Direction,
        protocol: Protocol,
        known: Lookups<'a>,
    ) -> Self {
        let method = Method::defined(name, direction, protocol);
        let asked = (name, frame.params());
        Self::about(session, frame, asked, (method, direction, protocol), known)
    }

    /// Whether it is a request of its own, which is in flight until its answer; not an answer, and
    /// nothing that another message carries.
    pub(super) fn is_request(&self) -> bool {
        matches!(self.frame.message(), Message::Request { .. })
            && !matches!(self.resource, Resource::Answer { .. })
    }

    /// Resolves a request of the server that is embedded in its answer `frame` (MCP 2026-07-28,
    /// basic/patterns/mrtr); earlier revisions sent it as a separate request.
    pub(super) fn embedded(
        session: &Session,
        frame: &'a Frame,
        asked: (&'a str, Option<Value<'a>>),
        protocol: Protocol,
    ) -> Self {
        let method = Method::find(asked.0, Direction::ToClient, None);
        let way = (method, Direction::ToClient, protocol);
        Self::about(session, frame, asked, way, Lookups::default())
    }

    /// Resolves the client's answer to a request of the server with the method `name`.
    pub(super) fn answering(
        frame: &'a Frame,
        name: &'a str,
        answer: Resource<'a>,
        protocol: Protocol,
    ) -> Self {
        let row = Method::named(name);
        let effect = row.map_or(Effect::Unknown, |row| row.effect);
        Self {
            frame,
            name,
            params: None,
            row,
            method: row,
            direction: Direction::ToServer,
            protocol,
            resource: answer,
            operation: Arc::new(Operation::of_method(effect)),
            trace: None,
            session_facts: None,
            approval: None,
        }
    }

    fn about(
        session: &Session,
        frame: &'a Frame,
        (name, params): (&'a str, Option<Value<'a>>),
        (method, direction, protocol): (Option<&'static Method>, Direction, Protocol),
        known: Lookups<'a>,
    ) -> Self {
        let row = Method::named(name);
        // What a message acts on does not depend on the revision that its sender claims.
        let resource = resource_of(row, params, known);
        let operation = match (method, resource) {
            (Some(_), Resource::Tool { name, arguments, .. }) => Operation::of_call(
                session.resolution_context(known.handles.as_ref()),
                name,
                arguments,
            ),
            (Some(method), _) => Operation::of_method(method.effect),
            (None, _) => Operation::of_method(Effect::Unknown),
        };
        let trace = params
            .and_then(|params| params.get("_meta"))
            .and_then(|meta| meta.get("traceparent"))
            .and_then(Value::as_str)
            .and_then(TraceContext::parse);
        Self {
            frame,
            name,
            params,
            row,
            method,
            direction,
            protocol,
            resource,
            operation: Arc::new(operation),
            trace,
            session_facts: None,
            approval: None,
        }
    }

    /// Whether MCP has the method, but not in this revision and direction. Such a message is refused
    /// without asking the policy: what a server does with it is not known.
    pub(super) fn is_misplaced(&self) -> bool {
        self.row.is_some() && self.method.is_none()
    }

    pub(super) fn action(&self) -> Action {
        self.method.map_or(Action::Unknown, |method| method.action)
    }

    /// The request for the policy decision point.
    pub(super) fn request(&self, session: &'a Session, now: Now) -> AccessRequest<'a> {
        AccessRequest {
            principal: &session.principal,
            client: session.client.as_ref(),
            server: &session.server.facts,
            protocol: self.protocol,
            direction: self.direction,
            method: self.name,
            action: self.action(),
            resource: self.resource,
            params: self.params,
            operation: Arc::clone(&self.operation),
            facts: self.session_facts.clone().unwrap_or_else(|| session.facts(now)),
            approval: self.approval,
            time: wall_time(now),
            trace_id: self.trace.map(|trace| trace.trace_id),
        }
    }

    /// What its records have in common.
    pub(super) fn facts(&self, call: &CallId) -> CallFacts {
        let mut facts = CallFacts::bare(call, self.direction, self.protocol);
        facts.method = Some(match self.row {
            Some(row) => Text::constant(row.name),
            None => self.name.into(),
        });
        facts.target = target_of(self.resource).map(Arc::new);
        facts.operation = Some(Arc::new(OperationFacts {
            name: self.operation.name.as_ref().map(Into::into),
            effect: self.operation.effect.as_str(),
            environments: self.operation.environments.iter().collect(),
            environment_source: self.operation.environment_source.as_str(),
            tags: self.operation.tags.iter().collect(),
            pack: self.operation.pack.as_ref().map(Text::shared),
        }));
        facts.trace_id = self.trace.map(|trace| trace.trace_id.into());
        facts.parent_span_id = self.trace.map(|trace| trace.span_id.into());
        facts
    }
}

impl CallFacts {
    /// The facts of a message without a method.
    pub(super) fn bare(call: &CallId, direction: Direction, protocol: Protocol) -> Self {
        Self {
            call: Arc::clone(call),
            direction,
            protocol,
            method: None,
            target: None,
            operation: None,
            trace_id: None,
            parent_span_id: None,
            link: None,
            within: None,
            approval: None,
        }
    }

    /// Adds the trace context of the HTTP request: the parent where `_meta` has none, else a link.
    pub(super) fn sent_under(&mut self, trace: Option<TraceContext<'_>>) {
        let Some(TraceContext { trace_id, span_id }) = trace else { return };
        if self.trace_id.is_none() {
            self.trace_id = Some(trace_id.into());
            self.parent_span_id = Some(span_id.into());
        } else if (self.trace_id.as_deref(), self.parent_span_id.as_deref())
            != (Some(trace_id), Some(span_id))
        {
            let link = LinkFacts { trace_id: trace_id.into(), span_id: span_id.into() };
            self.link = Some(Arc::new(link));
        }
    }
}

pub(super) fn wall_time(now: Now) -> WallTime {
    let since = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime { unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

fn resource_of<'a>(
    method: Option<&Method>,
    params: Option<Value<'a>>,
    known: Lookups<'a>,
) -> Resource<'a> {
    let (Some(method), Some(params)) = (method, params) else { return Resource::Whole };
    let text = |name| params.get(name).and_then(Value::as_str);
    let arguments = params.get("arguments").filter(|value| value.kind() == Kind::Object);
    let named = match method.subject {
        Subject::Whole => None,
        Subject::Tool => text("name").map(|name| Resource::Tool {
            name,
            arguments,
            definition: known.definition.map(|definition| &*definition.digest),
            status: known.status,
        }),
        Subject::Prompt => text("name").map(|name| Resource::Prompt { name, arguments }),
        Subject::Uri => text("uri").map(Resource::Uri),
        Subject::Reference => params.get("ref").and_then(|reference| {
            let member = |name| reference.get(name).and_then(Value::as_str);
            member("uri")
                .map(Resource::Uri)
                .or_else(|| member("name").map(|name| Resource::Prompt { name, arguments: None }))
        }),
        Subject::Subscriptions => params
            .get("notifications")
            .and_then(|filter| filter.get("resourceSubscriptions"))
            .map(Resource::Uris),
        Subject::Task => text("taskId").map(|id| {
            let origin = known.task.map(|creation| &creation.origin);
            Resource::Task { id, origin }
        }),
    };
    named.unwrap_or(Resource::Whole)
}

fn target_of(resource: Resource<'_>) -> Option<Target> {
    let mut target = Target::default();
    match resource {
        Resource::Tool { name, definition, status, .. } => {
            target.tool = Some(name.into());
            target.definition = definition.map(Into::into);
            target.drift = status.drift.map(|drift| Text::constant(drift.as_str()));
            target.flags = status.flags.iter().map(|flag| Text::constant(flag)).collect();
        }
        Resource::Prompt { name, .. } => target.prompt = Some(name.into()),
        Resource::Uri(uri) => target.uri = Some(uri.into()),
        Resource::Task { id, .. } => target.task = Some(id.into()),
        Resource::Uris(_) | Resource::Answer { .. } | Resource::Whole => return None,
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_itself_is_shortened() {
        assert_eq!(&*shortened("claude"), "claude");
        let exact = "x".repeat(CLIENT_BYTES_MAX);
        assert_eq!(*shortened(&exact), *exact);
        for long in [exact.clone() + "x", "\u{fdfa}".repeat(1 << 20)] {
            let kept = shortened(&long);
            assert!(kept.len() <= CLIENT_BYTES_MAX && kept.ends_with('\u{2026}'), "{kept}");
        }
    }

    #[test]
    fn only_a_whole_traceparent_is_a_context() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let trace = TraceContext::parse(good).unwrap();
        assert_eq!(trace.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.span_id, "b7ad6b7169203331");
        for bad in [
            "",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
