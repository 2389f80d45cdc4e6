//! What an answer holds, before the client may have it: its type, the questions that travel in
//! it, the task that it begins, the list that it carries.

use std::time::Duration;

use bytes::Bytes;

use crate::catalog::lists::{Page, edited, private_scope, short_life};
use crate::duty::decision::Listing;
use crate::duty::pdp::ListEntry;
use crate::duty::redact::Redaction;
use crate::evidence::record::{AuditRecord, Event, Finding, Now, Target};
use crate::evidence::refusal::Refusal;
use crate::question::access::{AccessRequest, Resource, TaskOrigin};
use crate::question::operation::Operation;
use crate::question::pack;
use crate::question::standing::{Drift, Standing};
use crate::session::tasks::Maker;
use crate::wire::document::{Document, Kind, Value};
use crate::wire::frame::{Frame, is_look_alike};
use crate::wire::method::{List, Role, Subject};
use crate::wire::protocol::{Direction, Era};
use crate::wire::unseen;

use super::client::{Refused, passing, verdict_of};
use super::expected::Declared;
use super::question::{Question, wall_time};
use super::redaction::redacted;
use super::{Call, Gate, Session};

/// Records about the definitions of one page at most; the others come with a later page.
const DEFINITION_NOTICES_MAX: usize = 64;
/// Questions that one answer may carry.
const INPUT_REQUESTS_MAX: usize = 64;

/// Members of a modern result that decide what it is (2026-07-28 and the tasks extension).
const RESULT: &[&str] = &["resultType", "inputRequests", "requestState", "taskId", "result"];
/// Members of a question inside an answer.
const INPUT_REQUEST: &[&str] = &["method", "params"];

/// Something that carries questions: an answer, or news of a task.
#[derive(Clone, Copy)]
pub(super) struct Carrier<'a> {
    pub(super) gate: &'a Gate,
    pub(super) frame: &'a Frame,
    pub(super) call: &'a str,
    pub(super) declared: Declared,
    /// What is taken out of the whole.
    pub(super) redact: &'a [Redaction],
    pub(super) now: Now,
}

impl Session {
    /// What goes to the client instead of the server's own bytes, if anything does: those with
    /// entries hidden and what must be redacted taken out. `also` gets a record for each question
    /// that the answer carries.
    pub(super) fn inspected(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        entry: &Call,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        let edited = self.judged(gate, frame, entry, (record, also), now)?;
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

    fn judged(
        &mut self,
        gate: &Gate,
        frame: &Frame,
        entry: &Call,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        let Some(result) = frame.result() else { return Ok(None) };
        let carrier = Carrier {
            gate,
            frame,
            call: &entry.facts.call,
            declared: entry.expected.declared,
            redact: &entry.redact,
            now,
        };
        let found = irregular(entry, result)
            .or_else(|| self.carried(&carrier, entry.facts.protocol.era, result, also))
            .or_else(|| self.begun(entry, result, now));
        if let Some(why) = found {
            record.note = Some(why.into());
            if !gate.observes() {
                return Err(Refusal::Withheld);
            }
        }
        match entry.method.and_then(|method| method.list) {
            Some(list) => self.listed(gate, (frame, result, list), entry, (record, also), now),
            None => Ok(None),
        }
    }

    /// Judges the questions that `place` carries as requests of the server, each by itself
    /// (2026-07-28, basic/patterns/mrtr). All must be permitted; why not, if not.
    pub(super) fn carried(
        &self,
        carrier: &Carrier<'_>,
        era: Era,
        place: Value<'_>,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        let requests = place.get("inputRequests").filter(|_| era == Era::Modern)?;
        if requests.kind() != Kind::Object || requests.len() > INPUT_REQUESTS_MAX {
            return Some("`inputRequests` is no object, or too large".to_owned());
        }
        let mut refused = None;
        for (_, request) in requests.members() {
            let why = self.judge_input(carrier, request, also);
            refused = refused.or(why);
        }
        refused
    }

    fn judge_input(
        &self,
        carrier: &Carrier<'_>,
        request: Value<'_>,
        also: &mut Vec<AuditRecord>,
    ) -> Option<String> {
        let Carrier { gate, frame, now, .. } = *carrier;
        let params = request.get("params");
        let readable = !looks_alike(request, INPUT_REQUEST)
            && params.is_none_or(|params| params.kind() == Kind::Object);
        let method = request.get("method").and_then(Value::as_str).filter(|_| readable);
        let Some(method) = method else {
            return Some("a question in the answer cannot be read".to_owned());
        };
        let question = Question::embedded(self, frame, (method, params), self.protocol);
        let facts = question.facts(&gate.next_call());
        let mut record = self.record_of(Event::Notice, &facts, now);
        record.note = Some(format!("asked inside the answer to {}", carrier.call).into());
        if !carrier.declared.allows(question.method, params) {
            let place = "the client does not offer this on its request".to_owned();
            let mut verdict = gate.refused(&Refusal::Withheld, Some(place));
            verdict.enforced = !gate.observes();
            record.decision = Some(verdict);
            record.event = Event::Denial;
            also.push(record.with_finding(Finding::UnsolicitedAnswer));
            return Some(format!("asks for {method}, which the client does not offer"));
        }
        let decision = gate.policy().decide(&question.request(self, now));
        record.set_input(gate.recorded(|| question.request(self, now)));
        let passed =
            passing(gate, &question, &decision, None, now).and_then(|(edited, verdict)| {
                // What a rule would set has no place here; what it would redact must go anyway.
                let redacted = decision.redactions().all(|it| carrier.redact.contains(it));
                if edited.is_none() && redacted { Ok(verdict) } else { Err(Refused::unsettable()) }
            });
        match passed {
            Ok(verdict) => {
                record.decision = Some(verdict);
                also.push(record);
                None
            }
            Err(refused) => {
                record.decision = Some(verdict_of(&decision, &refused, true));
                record.event = Event::Denial;
                let finding = refused.refusal.finding().unwrap_or(Finding::ToolDenied);
                also.push(record.with_finding(finding));
                Some(format!("asks for {method}, which is refused"))
            }
        }
    }

    /// Remembers the task that an answer begins: whose it is and what made it. Why it may not
    /// pass, if it may not.
    fn begun(&mut self, entry: &Call, result: Value<'_>, now: Now) -> Option<String> {
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
        let owner = &self.principal.id;
        let origin = TaskOrigin {
            method: entry.facts.method.clone().unwrap_or_default(),
            tool: entry.facts.target.as_ref().and_then(|target| target.tool.clone()),
            operation: entry.operation.clone(),
        };
        let maker = Maker { origin, redact: entry.redact.clone() };
        if self.server.tasks().remember((id, owner), maker, (now.uptime, ttl(task))).is_err() {
            return Some("the id of the task is another principal's".to_owned());
        }
        if let (Era::Legacy, Some(token)) = (entry.facts.protocol.era, &entry.expected.token) {
            if self.task_tokens.len() >= super::TASK_TOKENS_MAX {
                self.task_tokens.pop_front();
            }
            self.task_tokens.push_back(token.clone());
        }
        None
    }

    /// The page without what the client must not see.
    fn listed(
        &self,
        gate: &Gate,
        (frame, result, list): (&Frame, Value<'_>, List),
        entry: &Call,
        (record, also): (&mut AuditRecord, &mut Vec<AuditRecord>),
        now: Now,
    ) -> Result<Option<Bytes>, Refusal> {
        let Ok(page) = Page::read(result, list) else {
            record.note = Some("the answer holds no list that could be filtered".into());
            return Err(Refusal::Withheld);
        };
        if matches!(list, List::Tools | List::Prompts) && has_twins(&page) {
            record.note = Some("two definitions have one name".into());
            if !gate.observes() {
                return Err(Refusal::Withheld);
            }
        }
        let flags = flags_of(&page, list);
        if list == List::Tools {
            also.extend(self.definition_notices(entry, &page, &flags, now));
            self.server.learn(&page, &flags);
        }
        let hidden = match list {
            List::Tasks => Ok(self.foreign_tasks(&page)),
            List::Tools | List::Prompts | List::Resources | List::ResourceTemplates => {
                self.hidden(gate, entry, list, (&page, &flags), now)
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
            record.hidden = hidden;
            if gate.observes() {
                record.note = Some("observe: nothing was hidden".into());
            } else {
                edits.extend(page.without(frame.document(), &record.hidden));
                edits.extend(short_life(result));
            }
        }
        if !gate.observes() {
            edits.extend(private_scope(result));
        }
        Ok((!edits.is_empty()).then(|| edited(frame.document(), edits)))
    }

    /// Records of what is wrong with definitions of a page, one for each definition ever.
    fn definition_notices(
        &self,
        entry: &Call,
        page: &Page<'_>,
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
            record.target = Some(Target {
                tool: Some(tool.name.into()),
                definition: Some(tool.digest.clone()),
                locked: self.server.lock.digest(tool.name).map(Into::into),
                ..Target::default()
            });
            if let Some(drift) = drift {
                let mut record = record.clone();
                record.note = Some(format!("stands to the lock as: {}", drift.as_str()).into());
                told.push(record.with_finding(Finding::ToolDefinitionDrift));
            }
            if !flags.is_empty() {
                record.note = Some(format!("its definition has: {}", flags.join(", ")).into());
                told.push(record.with_finding(Finding::HiddenUnicodeToolDescription));
            }
        }
        told
    }

    fn foreign_tasks(&self, page: &Page<'_>) -> Vec<Box<str>> {
        let tasks = self.server.tasks();
        let foreign = page.entries.iter().filter(|it| !tasks.is_of(it.name, &self.principal.id));
        foreign.map(|entry| entry.name.into()).collect()
    }

    /// One question for the whole page: which of its entries the client must not see.
    fn hidden(
        &self,
        gate: &Gate,
        entry: &Call,
        list: List,
        (page, flags): (&Page<'_>, &[Vec<&'static str>]),
        now: Now,
    ) -> Result<Vec<Box<str>>, String> {
        let pack = self.server.facts.pack.as_deref();
        let entries: Vec<_> = page
            .entries
            .iter()
            .zip(flags)
            .map(|(entry, flags)| ListEntry {
                name: entry.name,
                operation: (list == List::Tools).then(|| Operation::of_tool(pack, entry.name)),
                digest: &entry.digest,
                definition: Some(entry.value),
                standing: Standing {
                    drift: (list == List::Tools)
                        .then(|| self.server.lock.drift(entry.name, Some(&entry.digest)))
                        .flatten(),
                    flags,
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
            operation: Operation::of_method(pack::Effect::Read),
            facts: self.facts(now),
            time: wall_time(now),
            trace_id: entry.facts.trace_id.as_deref(),
        };
        match gate.policy().list(&request, &entries) {
            Listing::Hide { names, .. } => Ok(names
                .into_iter()
                .filter(|name| page.entries.iter().any(|entry| *entry.name == **name))
                .collect()),
            Listing::Withhold { reason, .. } => Err(format!("{}: {}", reason.code, reason.message)),
        }
    }
}

/// Why a result is not of a type that its request may be answered with (2026-07-28: `resultType`
/// is `complete` where absent, and an unknown one makes the answer invalid). Methods that MCP does
/// not define may have types of their own.
fn irregular(entry: &Call, result: Value<'_>) -> Option<String> {
    if entry.facts.protocol.era != Era::Modern {
        return None;
    }
    if looks_alike(result, RESULT) {
        return Some("a member of the result looks like another".to_owned());
    }
    let method = entry.method?;
    let tells = method.role == Role::TaskState;
    if let Some(why) = tells.then(|| irregular_task(result)).flatten() {
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

/// Why what a task says is not in order: its own result is the last word of the call that made it.
pub(super) fn irregular_task(task: Value<'_>) -> Option<String> {
    let ended = |inner| !looks_alike(inner, RESULT) && kind(inner) == "complete";
    let regular = !looks_alike(task, RESULT) && task.get("result").is_none_or(ended);
    (!regular).then(|| "the result of the task is not complete".to_owned())
}

/// What people cannot see in the definitions of a page.
fn flags_of(page: &Page<'_>, list: List) -> Vec<Vec<&'static str>> {
    let names: Vec<&str> = page.entries.iter().map(|entry| entry.name).collect();
    // A URI is no name that people would take for another.
    let twins = match list {
        List::Tools | List::Prompts => unseen::twins(&names),
        List::Resources | List::ResourceTemplates | List::Tasks => vec![false; names.len()],
    };
    let entries = page.entries.iter().zip(twins);
    entries.map(|(entry, is_twin)| unseen::of(entry.value, is_twin)).collect()
}

/// Two definitions under one name: which of them the client takes nobody can say.
fn has_twins(page: &Page<'_>) -> bool {
    let mut names: Vec<_> = page.entries.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair.first() == pair.last())
}

/// The `resultType`; a form that is none reads as the empty type.
pub(super) fn kind(result: Value<'_>) -> &str {
    result.get("resultType").map_or("complete", |kind| kind.as_str().unwrap_or_default())
}

fn looks_alike(object: Value<'_>, known: &[&str]) -> bool {
    object.members().any(|(name, _)| name.as_str().is_some_and(|name| is_look_alike(name, known)))
}

/// How long a task lives, as its server says: `ttlMs` in the extension, `ttl` in 2025-11-25.
fn ttl(task: Value<'_>) -> Option<Duration> {
    let millis = task.get("ttlMs").or_else(|| task.get("ttl"))?.as_i64()?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}
