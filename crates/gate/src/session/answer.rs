//! Inspects an answer of the server before it is delivered: its result type, requests embedded in
//! it, the task that it creates, the list that it carries.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::flags;
use crate::catalog::lists::{ListPage, cap_ttl, make_cache_private, with_edits};
use crate::duty::decision::Listing;
use crate::duty::pdp::ListEntry;
use crate::duty::redact::Redaction;
use crate::evidence::record::{AuditRecord, Event, Finding, Now, Target};
use crate::evidence::refusal::Refusal;
use crate::evidence::text::{Text, UriText};
use crate::memory::ENTRY_BYTES;
use crate::question::access::{AccessRequest, Resource, TaskOrigin};
use crate::question::operation::Operation;
use crate::question::pack;
use crate::question::status::{DefinitionStatus, Drift};
use crate::question::task::PREFIX;
use crate::session::tasks::{Lifetime, TaskCreation};
use crate::wire::document::{Document, Kind, Value};
use crate::wire::frame::{Frame, is_look_alike, is_other_spelling, is_readable_request};
use crate::wire::method::{List, Method, Offer, Role, Subject};
use crate::wire::protocol::{Direction, Era};
use crate::wire::unseen;

use super::discharge::{ReasonedRefusal, denied_facts, enforce, finding_of, observed_record};
use super::expected::Declared;
use super::own_tasks::announced;
use super::question::{Question, wall_time};
use super::redaction::redacted;
use super::{Gate, InFlightCall, Session, sizes};

/// Notices about definitions recorded with one page at most; further ones follow with a later page.
const DEFINITION_NOTICES_MAX: usize = 64;
/// Requests that one answer may embed in one place.
const INPUT_REQUESTS_MAX: usize = 64;
/// The member that holds requests to the client.
const INPUT_REQUESTS: &str = "inputRequests";
/// The code of an error by which a server sends the user to URLs (MCP 2025-11-25).
const URL_ELICITATION_REQUIRED: i64 = -32042;
/// The member of that error's `data` with the URLs.
const ELICITATIONS: &str = "elicitations";

/// Members of a modern result that determine its type (MCP 2026-07-28 and the tasks extension).
const RESULT: &[&str] = &["resultType", "inputRequests", "requestState", "taskId", "result"];
/// Members of a message's part that may hold requests to the client as that part itself does.
const INSIDE: &[&str] = &["result", "task"];
/// Members of an embedded request.
const INPUT_REQUEST: &[&str] = &["method", "params"];
/// Members of an elicitation that decide where the user is sent.
const ELICITATION: &[&str] = &["mode", "url", "message", "elicitationId"];

/// A message of the server that may embed requests: an answer, or a notification about a task.
#[derive(Clone, Copy)]
pub(super) struct EmbeddingMessage<'a> {
    pub(super) gate: &'a Gate,
    pub(super) frame: &'a Frame,
    pub(super) call: &'a str,
    pub(super) declared: Declared,
    /// The era of the request that it belongs to.
    pub(super) era: Era,
    /// What is removed from the message as a whole.
    pub(super) redact: &'a [Redaction],
    pub(super) now: Now,
}

impl Session {
    /// Inspects an answer. Returns the bytes to deliver instead of the server's own, where list
    /// entries are hidden or something is redacted. `also` receives a record for each embedded
    /// request and each notice about a definition.
    ///
    /// # Errors
    ///
    /// The answer must be withheld; the refusal is for the client.
    pub(super) fn inspect(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        entry: &InFlightCall,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        let edited = self.inspect_result(gate, frame, entry, (record, also), now)?;
        match &edited {
            Some(body) if !entry.redact.is_empty() => {
                let document = Document::read(body.clone(), &gate.config.frame.document);
                let document = document.map_err(|_| Refusal::Withheld)?;
                Ok(redacted(gate, &document, &entry.redact, record)?.or(edited))
            }
            Some(_) => Ok(edited),
            None => redacted(gate, frame.document(), &entry.redact, record),
        }
    }

    fn inspect_result(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        entry: &InFlightCall,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        let result = frame.result();
        let carrier = EmbeddingMessage {
            gate,
            frame,
            call: &entry.facts.call,
            declared: entry.expected.declared,
            era: entry.facts.protocol.era,
            redact: &entry.redact,
            now,
        };
        let found = result
            .and_then(|result| result_problem(entry, result))
            .or_else(|| self.refused_question(&carrier, also))
            .or_else(|| result.and_then(|result| self.remember_task(gate, entry, result, now)));
        if let Some(why) = found {
            record.note = Some(why.into());
            if !gate.observes() {
                return Err(Refusal::Withheld);
            }
        }
        let Some(result) = result else { return Ok(None) };
        match entry.method.and_then(|method| method.list) {
            Some(list) => self.filter_list(gate, (frame, result, list), entry, (record, also), now),
            None => Ok(announced(gate, frame, entry.method)),
        }
    }

    /// Asks the policy about everything by which a message of the server asks the client for
    /// something, as about a request of the server. Returns the reason if one of it is refused.
    ///
    /// The era does not matter: a client acts on what it reads, not on what its revision defines.
    /// A legacy client declares no support on its requests, so `inputRequests` in a legacy message
    /// are always refused.
    pub(super) fn refused_question(
        &self,
        carrier: &EmbeddingMessage<'_>,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        let mut refused = None;
        for place in asking_places(carrier.frame) {
            if is_spelt_otherwise(place, INPUT_REQUESTS) {
                return Some(format!("a member of the message looks like `{INPUT_REQUESTS}`"));
            }
            let why = place
                .get(INPUT_REQUESTS)
                .and_then(|requests| self.refused_input_requests(carrier, requests, also));
            refused = refused.or(why);
        }
        let error = carrier.frame.document().root().get("error");
        refused.or_else(|| self.refused_elicitations(carrier, error?, also))
    }

    /// Judges `inputRequests` (MCP 2026-07-28, basic/patterns/mrtr).
    fn refused_input_requests(
        &self,
        carrier: &EmbeddingMessage<'_>,
        requests: Value<'_>,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        if requests.kind() != Kind::Object || requests.len() > INPUT_REQUESTS_MAX {
            return Some(format!("`{INPUT_REQUESTS}` is no object, or too large"));
        }
        let mut refused = None;
        for (_, request) in requests.members() {
            let params = request.get("params");
            let readable = !looks_alike(request, INPUT_REQUEST)
                && params.is_none_or(|params| params.kind() == Kind::Object);
            let method = request.get("method").and_then(Value::as_str);
            let method = method.filter(|name| readable && is_readable_request(name, params));
            let why = match method {
                Some(method) => {
                    let row = Method::find(method, Direction::ToClient, None);
                    let offered = carrier.declared.allows(row, params);
                    self.decide_input_request(carrier, (method, params), offered, also)
                }
                None => Some("a question in the answer cannot be read".to_owned()),
            };
            refused = refused.or(why);
        }
        refused
    }

    /// Judges the elicitations of an error by which a server sends the user to URLs (MCP
    /// 2025-11-25, client/elicitation, "URL Elicitation Required Error"). Revision 2026-07-28 does
    /// not have this error; what such an answer asks must be declared.
    fn refused_elicitations(
        &self,
        carrier: &EmbeddingMessage<'_>,
        error: Value<'_>,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        let data = error.get("data");
        if data.is_some_and(|data| looks_alike(data, &[ELICITATIONS])) {
            return Some(format!("a member of the error looks like `{ELICITATIONS}`"));
        }
        let required = error.get("code").and_then(Value::as_i64) == Some(URL_ELICITATION_REQUIRED);
        let unreadable = || Some("the elicitations of the error cannot be read".to_owned());
        let Some(elicitations) = data.and_then(|data| data.get(ELICITATIONS)) else {
            return if required { unreadable() } else { None };
        };
        if elicitations.kind() != Kind::Array || elicitations.len() > INPUT_REQUESTS_MAX {
            return unreadable();
        }
        let row = Method::offered(Offer::Elicitation);
        let mut refused = None;
        for params in elicitations.elements() {
            let url = params.get("mode").and_then(Value::as_str) == Some("url");
            let why = if url && !looks_alike(params, ELICITATION) {
                let offered =
                    carrier.era == Era::Legacy || carrier.declared.allows(row, Some(params));
                let method = row.map_or("", |row| row.name);
                self.decide_input_request(carrier, (method, Some(params)), offered, also)
            } else {
                unreadable()
            };
            refused = refused.or(why);
        }
        refused
    }

    /// Decides one request in a message of the server; `offered` says whether the client declared
    /// that it takes such requests.
    fn decide_input_request(
        &self,
        carrier: &EmbeddingMessage<'_>,
        (method, params): (&str, Option<Value<'_>>),
        offered: bool,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        let EmbeddingMessage { gate, frame, now, .. } = *carrier;
        let question = Question::embedded(self, frame, (method, params), self.protocol);
        let facts = question.facts(&gate.next_call());
        let mut record = self.record_of(Event::Notice, &facts, now);
        record.note = Some(format!("asked inside the answer to {}", carrier.call).into());
        if !offered {
            let place = "the client does not offer this on its request";
            let mut verdict = gate.refused(&Refusal::Withheld, Some(place));
            verdict.enforced = !gate.observes();
            record.decision = Some(verdict);
            record.event = Event::Denial;
            also.push(record.with_finding(Finding::UnsolicitedAnswer));
            return Some(format!("asks for {method}, which the client does not offer"));
        }
        let decision = gate.policy().decide(&question.request(self, now));
        record.set_input(gate.recorded(|| question.request(self, now)));
        let passed = enforce(gate, &question, &decision, None, None, now).and_then(
            |(edited, verdict, observed, _)| {
                // An embedded request has no arguments to set, and a redaction holds only if the
                // whole message is redacted so.
                let redacted = decision.redactions().all(|it| carrier.redact.contains(it));
                if edited.is_none() && redacted {
                    Ok((verdict, observed))
                } else {
                    Err(ReasonedRefusal::unsettable())
                }
            },
        );
        match passed {
            Ok((verdict, observed)) => {
                also.push(observed_record(record, verdict, observed.as_ref()));
                None
            }
            Err(refused) => {
                record.decision = Some(denied_facts(&decision, &refused, true));
                record.event = Event::Denial;
                also.push(record.with_finding(finding_of(&refused.refusal)));
                Some(format!("asks for {method}, which is refused"))
            }
        }
    }

    /// Remembers the owner and the origin of the task that an answer creates. Returns the reason
    /// if the answer must be withheld.
    fn remember_task(
        &mut self,
        gate: &Gate,
        entry: &InFlightCall,
        result: Value<'_>,
        now: Now,
    ) -> Option<String> {
        let task = match entry.facts.protocol.era {
            Era::Modern => {
                (result.get("resultType").and_then(Value::as_str) == Some("task")).then_some(result)
            }
            Era::Legacy => {
                let follows = entry.method.is_some_and(|method| method.subject == Subject::Task);
                result.get("task").filter(|_| !follows)
            }
        }?;
        let Some(id) = task.get("taskId").and_then(Value::as_str) else {
            let modern = entry.facts.protocol.era == Era::Modern;
            return modern.then(|| "a task without an id".to_owned());
        };
        if id.starts_with(PREFIX) {
            return Some("the id of the task is one of the gate's own".to_owned());
        }
        let owner = &self.principal.id;
        let origin = TaskOrigin {
            method: entry.facts.method.as_deref().unwrap_or_default().into(),
            tool: entry.facts.target.as_ref().and_then(|it| it.tool.as_deref()).map(Into::into),
            operation: Operation::clone(&entry.operation),
        };
        let creation = TaskCreation { origin, redact: entry.redact.clone() };
        let lives = Lifetime { now: now.uptime, ttl: ttl(task) };
        if self.server.tasks().remember(id, owner, creation, lives, gate.memory()).is_err() {
            return Some("the id of the task is another principal's".to_owned());
        }
        if let (Era::Legacy, Some(token)) = (entry.facts.protocol.era, &entry.expected.token) {
            if self.task_tokens.len() >= super::TASK_TOKENS_MAX {
                self.task_tokens.pop_front();
            }
            // Without room, progress of the task is withheld.
            let bytes = sizes::id(token).saturating_add(ENTRY_BYTES);
            if let Ok(charge) = gate.memory().charge(owner, bytes) {
                self.task_tokens.push_back((token.clone(), charge));
            }
        }
        None
    }

    /// Returns the page without the entries that the client must not see; `None` if it is
    /// unchanged.
    fn filter_list(
        &self,
        gate: &Gate,
        (frame, result, list): (&Frame, Value<'_>, List),
        entry: &InFlightCall,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        let Ok(page) = ListPage::read(result, list) else {
            record.note = Some("the answer holds no list that could be filtered".into());
            return Err(Refusal::Withheld);
        };
        if matches!(list, List::Tools | List::Prompts) && has_duplicate_names(&page) {
            record.note = Some("two definitions have one name".into());
            if !gate.observes() {
                return Err(Refusal::Withheld);
            }
        }
        let flags = flags_of(&page, list);
        if list == List::Tools {
            also.extend(self.definition_notices(entry, &page, &flags, now));
            let shown = (&page, &*flags);
            let read = gate.policy().reads_definitions();
            self.server.remember_page(&self.principal.id, shown, read, gate.memory(), now);
        }
        let hidden = match list {
            List::Tasks => Ok(self.foreign_tasks(&page)),
            List::Tools | List::Prompts | List::Resources | List::ResourceTemplates => {
                self.hidden_names(gate, entry, list, (&page, &flags), now)
            }
        };
        let hidden = match hidden {
            Ok(hidden) => hidden,
            Err(reason) => {
                record.note = Some(reason.into());
                return if gate.observes() { Ok(None) } else { Err(Refusal::Withheld) };
            }
        };
        let mut edits = Vec::new();
        if !hidden.is_empty() {
            *record = record.clone().with_finding(Finding::ToolsHidden);
            record.hidden = match list {
                List::Resources | List::ResourceTemplates => {
                    hidden.iter().map(|uri| Text::<UriText>::new(uri).to_string()).collect()
                }
                List::Tools | List::Prompts | List::Tasks => hidden.iter().collect(),
            };
            if gate.observes() {
                record.note = Some("observe: nothing was hidden".into());
            } else {
                edits.extend(page.without(frame.document(), &hidden));
                edits.extend(cap_ttl(result));
            }
        }
        if !gate.observes() {
            edits.extend(make_cache_private(result));
        }
        Ok((!edits.is_empty()).then(|| with_edits(frame.document(), edits)))
    }

    /// Creates the notices about drift and flags of a page's definitions, one for each definition.
    fn definition_notices(
        &self,
        entry: &InFlightCall,
        page: &ListPage<'_>,
        flags: &[Vec<&'static str>],
        now: Now,
    ) -> Vec<AuditRecord> {
        let mut told = Vec::new();
        for (tool, flags) in page.entries.iter().zip(flags) {
            let drift = self.server.lock.drift(tool.name, Some(&tool.digest));
            let drift = drift.filter(|it| matches!(it, Drift::Changed | Drift::Added));
            let wrong = drift.is_some() || !flags.is_empty();
            let room = told.len() < DEFINITION_NOTICES_MAX;
            if !room || !wrong || !self.server.first_notice(&tool.digest) {
                continue;
            }
            let mut record = self.record_of(Event::Notice, &entry.facts, now);
            record.target = Some(Arc::new(Target {
                tool: Some(tool.name.into()),
                definition: Some(tool.digest.as_ref().into()),
                locked: self.server.lock.digest(tool.name).map(Into::into),
                ..Target::default()
            }));
            if let Some(drift) = drift {
                let mut record = record.clone();
                record.note = Some(format!("stands to the lock as: {}", drift.as_str()).into());
                told.push(record.with_finding(Finding::ToolDefinitionDrift));
            }
            let (schemas, hidden): (Vec<&str>, Vec<&str>) =
                flags.iter().partition(|flag| flags::is_of_schema(flag));
            for (flags, finding) in [
                (hidden, Finding::HiddenUnicodeToolDescription),
                (schemas, Finding::UnsafeToolSchema),
            ] {
                if !flags.is_empty() {
                    let mut record = record.clone();
                    record.note = Some(format!("its definition has: {}", flags.join(", ")).into());
                    told.push(record.with_finding(finding));
                }
            }
        }
        told
    }

    fn foreign_tasks(&self, page: &ListPage<'_>) -> Vec<Box<str>> {
        let tasks = self.server.tasks();
        let foreign = page.entries.iter().filter(|it| !tasks.is_of(it.name, &self.principal.id));
        foreign.map(|entry| entry.name.into()).collect()
    }

    /// Asks the policy, once for the whole page, which entries the client must not see.
    fn hidden_names(
        &self,
        gate: &Gate,
        entry: &InFlightCall,
        list: List,
        (page, flags): (&ListPage<'_>, &[Vec<&'static str>]),
        now: Now,
    ) -> Result<Vec<Box<str>>, String> {
        let pack = self.server.facts.pack.as_deref();
        let tools = list == List::Tools;
        let flags: Vec<Vec<&'static str>> = page
            .entries
            .iter()
            .zip(flags)
            .map(|(entry, flags)| {
                // Also what others were shown under this name.
                let mut all = if tools { self.server.flags(entry.name) } else { Vec::new() };
                all.extend(flags);
                all.sort_unstable();
                all.dedup();
                all
            })
            .collect();
        let entries: Vec<_> = page
            .entries
            .iter()
            .zip(&flags)
            .map(|(entry, flags)| ListEntry {
                name: entry.name,
                operation: (list == List::Tools).then(|| Operation::of_tool(pack, entry.name)),
                digest: &entry.digest,
                definition: Some(entry.value),
                status: DefinitionStatus {
                    drift: (list == List::Tools)
                        .then(|| self.server.drift(entry.name, &entry.digest))
                        .flatten(),
                    flags,
                    text: None,
                },
            })
            .collect();
        let request = AccessRequest {
            principal: &self.principal,
            client: self.client.as_ref(),
            server: &self.server.facts,
            protocol: entry.facts.protocol,
            direction: Direction::ToServer,
            method: entry.facts.method.as_deref().unwrap_or_default(),
            action: list.method().action,
            resource: Resource::Whole,
            params: None,
            operation: Arc::new(Operation::of_method(pack::Effect::Read)),
            facts: self.facts(now),
            approval: None,
            time: wall_time(now),
            trace_id: entry.facts.trace_id.as_deref(),
        };
        match gate.policy().list(&request, &entries) {
            Listing::Hide { names, .. } => Ok(page.listed(names)),
            Listing::Withhold { reason, .. } => Err(format!("{}: {}", reason.code, reason.message)),
        }
    }
}

/// The objects of a message in which a client may look for requests to it: the message, its result,
/// `params` or error's data themselves, and the task or the task's result inside.
fn asking_places(frame: &Frame) -> impl Iterator<Item = Value<'_>> {
    let root = frame.document().root();
    let error = root.get("error").and_then(|error| error.get("data"));
    let outer = [frame.result(), frame.params(), error].into_iter().flatten();
    std::iter::once(root).chain(outer.flat_map(|place| {
        let inside = place.members().filter(|(name, _)| name.as_str().is_some_and(holds_questions));
        std::iter::once(place).chain(inside.map(|(_, value)| value))
    }))
}

/// Whether some reader looks for requests to the client in a member of this name, in any era.
fn holds_questions(name: &str) -> bool {
    INSIDE.contains(&name) || is_look_alike(name, INSIDE)
}

/// Returns the reason if the type of a result is not one that its request allows (MCP 2026-07-28:
/// an absent `resultType` means `complete`, an unknown one makes the answer invalid). Methods that
/// MCP does not define may have types of their own.
fn result_problem(entry: &InFlightCall, result: Value<'_>) -> Option<String> {
    if entry.facts.protocol.era != Era::Modern {
        return None;
    }
    if looks_alike(result, RESULT) {
        return Some("a member of the result looks like another".to_owned());
    }
    let method = entry.method?;
    let tells = method.role == Role::TaskState;
    if let Some(why) = tells.then(|| task_problem(result)).flatten() {
        return Some(why);
    }
    let fits = match kind(result) {
        "complete" => true,
        "input_required" => method.asks_back,
        "task" => method.makes_task && entry.expected.declared.tasks,
        _ => false,
    };
    (!fits).then(|| "its `resultType` is none that this request may be answered with".to_owned())
}

/// Returns the reason if a task's state is not valid: its `result` is the final result of the call
/// that created it, so its type must be `complete`.
pub(super) fn task_problem(task: Value<'_>) -> Option<String> {
    let ended = |inner| !looks_alike(inner, RESULT) && kind(inner) == "complete";
    let regular = !looks_alike(task, RESULT) && task.get("result").is_none_or(ended);
    (!regular).then(|| "the result of the task is not complete".to_owned())
}

/// The flags of each definition of a page.
fn flags_of(page: &ListPage<'_>, list: List) -> Vec<Vec<&'static str>> {
    let names: Vec<&str> = page.entries.iter().map(|entry| entry.name).collect();
    // People do not confuse URIs as they confuse names.
    let twins = match list {
        List::Tools | List::Prompts => unseen::twins(&names),
        List::Resources | List::ResourceTemplates | List::Tasks => vec![false; names.len()],
    };
    let entries = page.entries.iter().zip(twins);
    entries.map(|(entry, is_twin)| flags::of(entry.value, is_twin)).collect()
}

/// Whether two definitions have the same name, so that it is unknown which one the client uses.
fn has_duplicate_names(page: &ListPage<'_>) -> bool {
    let mut names: Vec<_> = page.entries.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair.first() == pair.last())
}

/// The `resultType`: `complete` where absent, empty where it is not a string.
pub(super) fn kind(result: Value<'_>) -> &str {
    result.get("resultType").map_or("complete", |kind| kind.as_str().unwrap_or_default())
}

/// Whether some reader finds the member `known` in one of another name.
fn is_spelt_otherwise(object: Value<'_>, known: &str) -> bool {
    let spelt = |name: &str| is_other_spelling(name, &[known]);
    object.members().any(|(name, _)| name.as_str().is_some_and(spelt))
}

fn looks_alike(object: Value<'_>, known: &[&str]) -> bool {
    object.members().any(|(name, _)| name.as_str().is_some_and(|name| is_look_alike(name, known)))
}

/// The lifetime of a task as its server states it: `ttlMs` in the extension, `ttl` in 2025-11-25.
fn ttl(task: Value<'_>) -> Option<Duration> {
    let millis = task.get("ttlMs").or_else(|| task.get("ttl"))?.as_i64()?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}
