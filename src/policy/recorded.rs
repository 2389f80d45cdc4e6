//! Reads recorded requests: from the journal, from OPA decision logs, and from plain inputs.
//!
//! A journal record says who called what, on which server, and with which outcome. Where
//! `audit.inputs` was on, the record holds the policy's input too. Where it was off, the input is
//! rebuilt: facts about servers and the principal come from a configuration, and everything else is
//! listed as unknown. `replay` evaluates the requests, `learn` reads records by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use bartizan_audit::entry::{DecisionRecord, JournalRecord, OperationRecord};
use bartizan_gate::catalog::flags;
use bartizan_gate::duty::decision::{Decision, Effect, Obligation};
use bartizan_gate::question::access::{
    AccessRequest, Action, Principal, Resource, Server, WallTime,
};
use bartizan_gate::question::operation::{EnvironmentSource, Operation};
use bartizan_gate::question::pack;
use bartizan_gate::question::status::{DefinitionStatus, Drift};
use bartizan_gate::wire::document::{Document, DocumentLimits, Value};
use bartizan_gate::wire::method::Method;
use bartizan_gate::wire::protocol::{Direction, Era, Protocol, Revision, Transport};
use bartizan_rego::{ReplayEvaluator, UnknownInput, not_strict_json};

/// Facts from a configuration about the servers and principals that records name.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Servers by name.
    pub servers: BTreeMap<String, Server>,
    /// The configured principal, of the servers that are not in [`Self::by_token`].
    pub principal: Option<Principal>,
    /// Names of the servers whose principals come from access tokens.
    pub by_token: BTreeSet<String>,
}

/// What a policy decided, before the gate discharged its duties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Denied.
    Deny,
    /// Permitted, after a person agrees.
    Hold,
    /// Permitted.
    Permit,
}

impl Verdict {
    /// `deny`, `hold` or `permit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Hold => "hold",
            Self::Permit => "permit",
        }
    }
}

/// A verdict with the codes of the rules that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// The verdict.
    pub verdict: Verdict,
    /// The codes of its reasons and holds, sorted, without duplicates.
    pub codes: Vec<String>,
    /// The revision of the policy, where it is known.
    pub policy: Option<String>,
}

impl PolicyVerdict {
    fn new(
        verdict: Verdict,
        codes: impl IntoIterator<Item = String>,
        policy: Option<&str>,
    ) -> Self {
        let mut codes: Vec<String> = codes.into_iter().collect();
        codes.sort();
        codes.dedup();
        Self { verdict, codes, policy: policy.map(str::to_owned) }
    }

    /// The verdict of a decision.
    pub fn of(decision: &Decision) -> Self {
        let holds = decision.obligations.iter().filter_map(|duty| match duty {
            Obligation::Hold(rule) => Some(rule.code.to_string()),
            Obligation::Limit { .. } | Obligation::Set { .. } | Obligation::Redact { .. } => None,
        });
        let holds: Vec<String> = holds.collect();
        let verdict = match decision.effect {
            Effect::Deny => Verdict::Deny,
            Effect::Permit if holds.is_empty() => Verdict::Permit,
            Effect::Permit => Verdict::Hold,
        };
        let reasons = decision.reasons.iter().map(|reason| reason.code.to_string());
        Self::new(verdict, reasons.chain(holds), Some(&decision.revision))
    }

    /// The policy's verdict, from a journal record; `None` where the gate refused the message itself,
    /// because the record then does not show what the policy would have said.
    fn of_record(decision: &DecisionRecord) -> Option<Self> {
        let reasons = decision.reasons.iter();
        let reasons = reasons.map(|it| (it.code.as_str(), it.origin.as_str())).collect::<Vec<_>>();
        Self::of_outcome(&decision.effect, &reasons, Some(&decision.policy))
    }

    /// The policy's verdict, from a decision that the gate may have changed. Where a limit was
    /// exceeded or a duty could not be discharged, the gate's reason is first, before the policy's.
    fn of_outcome(effect: &str, reasons: &[(&str, &str)], policy: Option<&str>) -> Option<Self> {
        let (code, origin) = reasons.first().copied().unwrap_or_default();
        let verdict = match (effect, origin, code) {
            ("permit", _, _) | (_, "limited", _) | (_, "undischarged", "unsettable") => {
                Verdict::Permit
            }
            (_, "protocol", _) => return None,
            // The version that wrote the record did not know the duty.
            (_, "undischarged", "undischarged") => Verdict::Deny,
            (_, "undischarged", _) => Verdict::Hold,
            _ => Verdict::Deny,
        };
        let own = reasons.iter().filter(|(code, origin)| {
            !(*origin == "limited" || (*origin == "undischarged" && *code == "unsettable"))
        });
        Some(Self::new(verdict, own.map(|(code, _)| (*code).to_owned()), policy))
    }

    /// The policy's verdict, from the `result` of a decision log. In our logs each reason has an
    /// `origin`; in the logs of another program the result is the value of the rule.
    fn of_result(result: Value<'_>, policy: Option<&str>) -> Option<Self> {
        let each = |name| result.get(name).into_iter().flat_map(Value::elements);
        let text = |element: Value<'_>, name| Some(element.get(name)?.as_str()?.to_owned());
        let effect = result.get("effect")?.as_str()?;
        let reasons: Vec<(String, String)> = each("reasons")
            .map(|it| (text(it, "code"), text(it, "origin").unwrap_or_default()))
            .filter_map(|(code, origin)| Some((code?, origin)))
            .collect();
        let reasons: Vec<_> = reasons.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let mut said = Self::of_outcome(effect, &reasons, policy)?;
        let holds: Vec<String> = each("hold").filter_map(|it| text(it, "code")).collect();
        if said.verdict == Verdict::Permit && each("hold").next().is_some() {
            let codes = said.codes.into_iter().chain(holds);
            said = Self::new(Verdict::Hold, codes, policy);
        }
        Some(said)
    }
}

/// A summary of a recorded request, for lists of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "members of a journal record, with its names")]
pub struct QuestionSummary {
    pub call: Option<String>,
    pub time: Option<String>,
    pub principal: Option<String>,
    pub server: Option<String>,
    pub method: Option<String>,
    /// The tool, prompt, resource or task.
    pub target: Option<String>,
}

/// One line of a source.
#[derive(Debug)]
pub enum Recorded {
    /// A request that a policy can be evaluated for.
    Question(Box<Question>),
    /// Any other record, such as a start or an outcome.
    Other,
}

/// A recorded request.
#[derive(Debug)]
pub struct Question {
    /// Its summary.
    pub about: QuestionSummary,
    /// The recorded verdict, where there is one.
    pub before: Option<PolicyVerdict>,
    by_gate: bool,
    form: RecordedForm,
    unknown: Vec<String>,
}

#[derive(Debug)]
enum RecordedForm {
    /// A journal record without the input.
    Record(Box<JournalRecord>),
    /// A line that holds the input in `member`, or is the input itself.
    Line { document: Document, member: Option<&'static str> },
}

/// Why a recorded request was not evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotEvaluated {
    /// A rule reads a value that is not recorded.
    Unknown(UnknownInput),
    /// The gate refused the message itself, so there is no verdict to compare with.
    Gate,
    /// A subscription: the gate asks the policy about each resource in it, and the record holds one
    /// result.
    Subscription,
    /// The record has an unknown form, such as an effect that a newer version defined.
    Form,
}

impl std::fmt::Display for NotEvaluated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(UnknownInput { file, line, pointer }) => {
                write!(f, "{file}:{line} reads `{pointer}`, which is not recorded")
            }
            Self::Gate => f.write_str("refused whatever the policy said"),
            Self::Subscription => f.write_str("a subscription asks about each resource by itself"),
            Self::Form => f.write_str("recorded in a form that is not known here"),
        }
    }
}

impl Recorded {
    /// Reads one line, without its line feed.
    ///
    /// # Errors
    ///
    /// What is wrong with the line: it is no strict JSON, or neither a record nor an input.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        if line.starts_with(b"{\"seq\":") {
            return Self::of_journal(line);
        }
        let document = document(line)?;
        let root = document.root();
        let text = |value: Option<Value<'_>>| Some(value?.as_str()?.to_owned());
        if root.get("decision_id").is_some() && root.get("input").is_none() {
            return Ok(Self::Other);
        }
        let member = root.get("input").map(|_| "input");
        let Some(input) = root.get("input").or(Some(root)).filter(|it| it.get("method").is_some())
        else {
            return Err("neither a record, nor a decision log event, nor an input".to_owned());
        };
        let mut about = QuestionSummary::of_input(input);
        let mut before = None;
        let mut unknown = Vec::new();
        if root.pointer("/custom/bartizan/engine").and_then(Value::as_str) == Some("none") {
            return Ok(Self::Other);
        }
        if member.is_some() {
            about.call = text(root.get("decision_id"));
            about.time = text(root.get("timestamp"));
            let policy = root.get("bundles").and_then(|it| it.members().next());
            let policy = policy.and_then(|(_, bundle)| bundle.get("revision")?.as_str());
            before = root.get("result").and_then(|result| PolicyVerdict::of_result(result, policy));
            let hidden = ["erased", "masked"].into_iter().filter_map(|name| root.get(name));
            let hidden = hidden.flat_map(Value::elements).filter_map(Value::as_str);
            unknown.extend(hidden.filter_map(|it| it.strip_prefix("/input")).map(str::to_owned));
        }
        let by_gate = root.get("result").is_some() && before.is_none();
        let form = RecordedForm::Line { document, member };
        Ok(Self::Question(Box::new(Question { about, before, by_gate, form, unknown })))
    }

    fn of_journal(line: &[u8]) -> Result<Self, String> {
        let entry = JournalRecord::read(line)?;
        let (Some(decision), Some(_)) = (&entry.decision, &entry.method) else {
            return Ok(Self::Other);
        };
        let is_request = matches!(entry.event.as_str(), "intent" | "denial" | "notice");
        if decision.engine == "none" || !is_request {
            return Ok(Self::Other);
        }
        let before = PolicyVerdict::of_record(decision);
        let about = QuestionSummary {
            call: entry.call.clone(),
            time: Some(entry.time.clone()),
            principal: entry.principal.clone(),
            server: entry.server.clone(),
            method: entry.method.clone(),
            target: entry.target_name().map(str::to_owned),
        };
        let (form, unknown) = if entry.input.is_some() {
            let form = RecordedForm::Line { document: document(line)?, member: Some("input") };
            (form, entry.input_left_out)
        } else {
            (RecordedForm::Record(Box::new(entry)), Vec::new())
        };
        let by_gate = before.is_none();
        Ok(Self::Question(Box::new(Question { about, before, by_gate, form, unknown })))
    }
}

fn document(line: &[u8]) -> Result<Document, String> {
    Document::read(Bytes::copy_from_slice(line), &DocumentLimits::default())
        .map_err(|unreadable| not_strict_json(&unreadable))
}

impl QuestionSummary {
    fn of_input(input: Value<'_>) -> Self {
        let text = |pointer: &str| Some(input.pointer(pointer)?.as_str()?.to_owned());
        let target = ["/tool/name", "/prompt/name", "/resource/uri", "/task/id"];
        Self {
            call: None,
            time: text("/time/rfc3339"),
            principal: text("/principal/id"),
            server: text("/server/name"),
            method: text("/method"),
            target: target.into_iter().find_map(text),
        }
    }
}

impl Question {
    /// Whether the gate refused the message itself, so that the record holds no verdict of the policy.
    pub fn by_gate(&self) -> bool {
        self.by_gate
    }

    /// Evaluates the request with the policy of `evaluator`.
    ///
    /// # Errors
    ///
    /// The record does not hold enough for a decision.
    pub fn evaluate(
        &self,
        evaluator: &mut ReplayEvaluator,
        known: &Known,
    ) -> Result<PolicyVerdict, NotEvaluated> {
        if self.about.method.as_deref() == Some("subscriptions/listen") {
            return Err(NotEvaluated::Subscription);
        }
        let decision = match &self.form {
            RecordedForm::Line { document, member } => {
                let root = document.root();
                let input = member.map_or(Some(root), |member| root.get(member));
                evaluator.decide_input(input.ok_or(NotEvaluated::Form)?, &self.unknown)
            }
            RecordedForm::Record(entry) => {
                let rebuilt = Rebuilt::of(entry, known).ok_or(NotEvaluated::Form)?;
                evaluator
                    .decide_request(&rebuilt.request().ok_or(NotEvaluated::Form)?, &rebuilt.unknown)
            }
        };
        decision.map(|decision| PolicyVerdict::of(&decision)).map_err(NotEvaluated::Unknown)
    }
}

/// The facts for a request, rebuilt from a record without its input.
struct Rebuilt<'a> {
    entry: &'a JournalRecord,
    principal: Principal,
    server: Server,
    operation: Operation,
    drift: Option<Drift>,
    flags: Vec<&'static str>,
    unknown: Vec<String>,
}

impl<'a> Rebuilt<'a> {
    fn of(entry: &'a JournalRecord, known: &Known) -> Option<Self> {
        let mut unknown: Vec<String> = ["/client", "/session", "/params"].map(str::to_owned).into();
        let mut lacks = |pointers: &[&str]| {
            unknown.extend(pointers.iter().map(|pointer| (*pointer).to_owned()));
        };
        let row = entry.method.as_deref().and_then(Method::named);
        if row.is_some_and(|row| row.action == Action::Elicit) {
            lacks(&["/elicitation"]);
        }
        let id = entry.principal.as_deref().unwrap_or_default();
        let name = entry.server.as_deref().unwrap_or_default();
        let configured = known.principal.clone().filter(|it| *it.id == *id);
        let configured = configured.filter(|_| !known.by_token.contains(name));
        let principal = configured.unwrap_or_else(|| {
            lacks(&["/principal/kind", "/principal/groups", "/principal/claims"]);
            Principal { id: id.into(), ..Principal::default() }
        });
        let server = known.servers.get(name).cloned().unwrap_or_else(|| {
            lacks(&["/server/environment", "/server/labels", "/server/rates"]);
            Server { name: name.into(), ..Server::default() }
        });
        let target = entry.target.as_ref();
        let has = |of: fn(&bartizan_audit::entry::TargetRecord) -> bool| target.is_some_and(of);
        if has(|target| target.tool.is_some()) {
            lacks(&["/tool/arguments", "/tool/definition"]);
        } else if has(|target| target.prompt.is_some()) {
            lacks(&["/prompt/arguments"]);
        } else if has(|target| target.task.is_some()) {
            lacks(&["/task/method", "/task/tool", "/task/operation"]);
        } else if !has(|target| target.uri.is_some()) {
            lacks(&["/resources"]);
        }
        let operation = operation(entry.operation.as_ref()?)?;
        let drift = target.and_then(|target| target.drift.as_deref());
        let drift = drift.map(|name| Drift::named(name).ok_or(())).transpose().ok()?;
        let named = target.into_iter().flat_map(|target| &target.flags);
        let flags = named.map(|name| flags::named(name)).collect::<Option<_>>()?;
        Some(Self { entry, principal, server, operation, drift, flags, unknown })
    }

    fn request(&self) -> Option<AccessRequest<'_>> {
        let entry = self.entry;
        let protocol = entry.protocol.as_ref()?;
        let target = entry.target.as_ref();
        let resource = target.and_then(|target| {
            let tool = target.tool.as_deref().map(|name| Resource::Tool {
                name,
                arguments: None,
                definition: target.definition.as_deref(),
                status: DefinitionStatus { drift: self.drift, flags: &self.flags, text: None },
            });
            let prompt = target.prompt.as_deref();
            tool.or(prompt.map(|name| Resource::Prompt { name, arguments: None }))
                .or(target.uri.as_deref().map(Resource::Uri))
                .or(target.task.as_deref().map(|id| Resource::Task { id, origin: None }))
        });
        let time = humantime::parse_rfc3339(&entry.time).ok()?;
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        Some(AccessRequest {
            principal: &self.principal,
            client: None,
            server: &self.server,
            protocol: Protocol {
                revision: protocol.revision.as_deref().and_then(Revision::parse),
                era: if protocol.era == "modern" { Era::Modern } else { Era::Legacy },
                transport: match protocol.transport.as_str() {
                    "http" => Transport::Http,
                    "stdio" => Transport::Stdio,
                    _ => return None,
                },
            },
            direction: match entry.direction.as_deref()? {
                "to_server" => Direction::ToServer,
                "to_client" => Direction::ToClient,
                _ => return None,
            },
            method: entry.method.as_deref()?,
            // Only the input of a listing depends on the action, and records hold no listings.
            action: Action::Unknown,
            resource: resource.unwrap_or(Resource::Whole),
            params: None,
            operation: self.operation.clone().into(),
            // Unknown, like everything of the session.
            facts: BTreeMap::new(),
            approval: None,
            time: WallTime { unix_ms: u64::try_from(since.as_millis()).ok()? },
            trace_id: entry.trace_id.as_deref(),
        })
    }
}

fn operation(entry: &OperationRecord) -> Option<Operation> {
    use EnvironmentSource as S;
    let effect = [
        pack::Effect::Read,
        pack::Effect::Write,
        pack::Effect::Destructive,
        pack::Effect::Exec,
        pack::Effect::Unknown,
    ];
    let source = [S::Arguments, S::Absent, S::Unmapped, S::Unreadable, S::None];
    let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    Some(Operation {
        name: entry.name.as_deref().map(Into::into),
        effect: effect.into_iter().find(|it| it.as_str() == entry.effect)?,
        environments: texts(&entry.environments),
        environment_source: source
            .into_iter()
            .find(|it| it.as_str() == entry.environment_source)?,
        tags: texts(&entry.tags),
        pack: entry.pack.as_deref().map(Into::into),
    })
}
