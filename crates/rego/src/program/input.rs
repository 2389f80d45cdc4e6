//! Parts of the input, read where they stand.
//!
//! A policy reads few parts of the input, and most are texts that the request holds. [`InputPath`]
//! names one part; [`Source`] finds its value in an access request without building the document
//! `input`. `crate::input` says what the document holds: where no direct way to a part is known
//! here, that part alone is built from there, and a test compares the two.

use bartizan_gate::duty::pdp::ListEntry;
use bartizan_gate::question::access::{AccessRequest, Action, Resource};
use bartizan_gate::wire::document::{self, Kind};
use bartizan_gate::wire::protocol::Revision;
use regorus::Value;

use super::Doubt;
use super::operand::Operand;
use super::part::Part;
use crate::input;
use crate::reads::ReadSet;

/// The place of a value in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Direction,
    Method,
    PrincipalId,
    PrincipalKind,
    Groups,
    ServerName,
    ServerEnvironment,
    ClientName,
    ClientVersion,
    ProtocolRevision,
    Era,
    Transport,
    OperationName,
    Effect,
    Environments,
    EnvironmentSource,
    Tags,
    Pack,
    /// The operation, or what is below it.
    Operation,
    Phase,
    Claims,
    Labels,
    Rates,
    Facts,
    Entries,
    Tools,
    ToolFlags,
    ToolName,
    ToolDigest,
    ToolDrift,
    /// The arguments of a tool, or what is below them.
    ToolArguments,
    PromptName,
    PromptArguments,
    Uri,
    /// `params`, or what is below it.
    Params,
}

/// The fields that are read directly, by their names. A name `*` stands for any further names.
const FIELDS: [(&[&str], Field); 35] = [
    (&["direction"], Field::Direction),
    (&["method"], Field::Method),
    (&["principal", "id"], Field::PrincipalId),
    (&["principal", "kind"], Field::PrincipalKind),
    (&["principal", "groups"], Field::Groups),
    (&["server", "name"], Field::ServerName),
    (&["server", "environment"], Field::ServerEnvironment),
    (&["client", "name"], Field::ClientName),
    (&["client", "version"], Field::ClientVersion),
    (&["protocol", "revision"], Field::ProtocolRevision),
    (&["protocol", "era"], Field::Era),
    (&["protocol", "transport"], Field::Transport),
    (&["operation", "name"], Field::OperationName),
    (&["operation", "effect"], Field::Effect),
    (&["operation", "environments"], Field::Environments),
    (&["operation", "environment_source"], Field::EnvironmentSource),
    (&["operation", "tags"], Field::Tags),
    (&["operation", "pack"], Field::Pack),
    (&["operation", "*"], Field::Operation),
    (&["phase"], Field::Phase),
    (&["principal", "claims", "*"], Field::Claims),
    (&["server", "labels", "*"], Field::Labels),
    (&["server", "rates", "*"], Field::Rates),
    (&["session", "facts", "*"], Field::Facts),
    (&["tools", "*"], Field::Tools),
    (&["entries", "*"], Field::Entries),
    (&["tool", "flags", "*"], Field::ToolFlags),
    (&["tool", "name"], Field::ToolName),
    (&["tool", "definition_digest"], Field::ToolDigest),
    (&["tool", "drift"], Field::ToolDrift),
    (&["tool", "arguments", "*"], Field::ToolArguments),
    (&["prompt", "name"], Field::PromptName),
    (&["prompt", "arguments", "*"], Field::PromptArguments),
    (&["resource", "uri"], Field::Uri),
    (&["params", "*"], Field::Params),
];

/// A part of the input: `input`, followed by names.
#[derive(Debug)]
pub(super) struct InputPath {
    names: Box<[Box<str>]>,
    /// The names as values, to look them up in a built input.
    keys: Box<[Value]>,
    /// The direct way to it, and how many names that covers.
    field: Option<(Field, usize)>,
    /// What must be built for it, where there is no direct way.
    reads: ReadSet,
}

impl InputPath {
    /// The part with these names below `input`.
    pub(super) fn new(names: &[&str]) -> Self {
        let field = FIELDS.iter().find_map(|(path, field)| {
            let fixed = path.strip_suffix(&["*"]);
            let covered = fixed.unwrap_or(path);
            let fits = if fixed.is_some() { names.starts_with(covered) } else { names == covered };
            fits.then_some((*field, covered.len()))
        });
        Self {
            names: names.iter().map(|name| Box::from(*name)).collect(),
            keys: names.iter().map(|name| Value::from(*name)).collect(),
            field,
            reads: ReadSet::of_path(names),
        }
    }

    /// Whether it is the part with these names.
    pub(super) fn is(&self, names: &[&str]) -> bool {
        self.names.iter().map(|name| &**name).eq(names.iter().copied())
    }
}

/// Where an evaluation finds its input.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'r> {
    /// A document that was built before.
    Built(&'r Value),
    /// One message.
    Request(&'r AccessRequest<'r>),
    /// One page of a list.
    Page(&'r AccessRequest<'r>, &'r [ListEntry<'r>], &'r ReadSet),
}

impl<'r> Source<'r> {
    /// The value of a part that needs nothing built; the outer `None` where something must be.
    #[expect(clippy::option_option, reason = "the inner one says that the part is undefined")]
    pub(super) fn direct(self, path: &'r InputPath) -> Result<Option<Option<Operand<'r>>>, Doubt> {
        let request = match self {
            Self::Built(value) => {
                let mut at = value;
                for key in &path.keys {
                    at = &at[key];
                }
                return Ok(Some((*at != Value::Undefined).then_some(Operand::Shared(at))));
            }
            Self::Request(request) | Self::Page(request, ..) => request,
        };
        let Some((field, covered)) = path.field else {
            // The document has no such part, or it must be built.
            return Ok(path.names.first().is_some_and(|name| self.lacks(name)).then_some(None));
        };
        let below = path.names.get(covered..).unwrap_or_default();
        let part = match field {
            Field::Phase => return Ok(Some(Some(Operand::Text(self.phase(request))))),
            Field::ToolArguments | Field::PromptArguments => {
                return Ok(Some(arguments(request, field, below)?));
            }
            Field::Params => {
                let found = request.params.map(|params| below_json(params, below)).transpose()?;
                return Ok(Some(found.flatten()));
            }
            Field::Tools | Field::Entries => self.entries(field),
            _ => match collection(request, field) {
                Some(part) => part,
                None => return Ok(Some(text(request, field).map(Operand::Text))),
            },
        };
        let mut at = part.map(Operand::Part);
        for name in below {
            let Some(here) = at else { break };
            at = here.get(&Operand::Text(name))?;
        }
        Ok(Some(at))
    }

    fn phase(self, request: &AccessRequest<'_>) -> &'static str {
        match self {
            Self::Page(..) => "list",
            _ if input::is_answer(request) => "answer",
            _ => "call",
        }
    }

    /// Whether messages of this kind have no member `name` in the document.
    fn lacks(self, name: &str) -> bool {
        let (Self::Request(request) | Self::Page(request, ..)) = self else { return false };
        match (name, request.resource) {
            ("tool", Resource::Tool { .. })
            | ("prompt", Resource::Prompt { .. })
            | ("resource", Resource::Uri(_))
            | ("task", Resource::Task { .. })
            | ("resources", Resource::Uris(_))
            | ("answer", Resource::Answer { .. }) => false,
            ("tool" | "prompt" | "resource" | "task" | "resources" | "answer", _) => true,
            ("elicitation", _) => request.action != Action::Elicit,
            _ => false,
        }
    }

    /// The entries of a page.
    fn entries(self, field: Field) -> Option<Part<'r>> {
        let Self::Page(request, entries, reads) = self else { return None };
        let of_tools = request.action == Action::ListTools;
        (of_tools == (field == Field::Tools))
            .then(|| Part::Entries(entries, reads.reads_listed_definitions()))
    }

    /// Builds a part.
    pub(super) fn build(self, path: &InputPath) -> Result<Option<Value>, Doubt> {
        let built = match self {
            Self::Built(value) => return Ok(Some(value.clone())),
            Self::Request(request) => input::of_request(request, &path.reads),
            Self::Page(request, entries, reads) => {
                let reads = path.reads.with_definitions_of(reads);
                input::of_listing(request, entries, &reads)
            }
        };
        if !built.inexact.is_empty() {
            return Err(Doubt("a number has no exact value".to_owned()));
        }
        let mut at = &built.value;
        for key in &path.keys {
            at = &at[key];
        }
        Ok((*at != Value::Undefined).then(|| at.clone()))
    }
}

/// A collection of the request that is not JSON: the outer `None` where `field` is none.
#[expect(clippy::option_option, reason = "the inner one says that the part is undefined")]
fn collection<'r>(request: &'r AccessRequest<'r>, field: Field) -> Option<Option<Part<'r>>> {
    Some(match field {
        Field::Groups => Some(Part::Texts(&request.principal.groups)),
        Field::Environments => Some(Part::Texts(&request.operation.environments)),
        Field::Tags => Some(Part::Texts(&request.operation.tags)),
        Field::Operation => Some(Part::Operation(&request.operation)),
        Field::Claims => Some(Part::Map(&request.principal.claims)),
        Field::Labels => Some(Part::Map(&request.server.labels)),
        Field::Rates => request.server.pack.as_deref().map(|pack| Part::Rates(&pack.rates)),
        Field::Facts => Some(Part::Map(&request.facts)),
        Field::ToolFlags => match request.resource {
            Resource::Tool { status, .. } if !status.flags.is_empty() => {
                Some(Part::Flags(status.flags))
            }
            _ => None,
        },
        _ => return None,
    })
}

/// A text of the request.
fn text<'r>(request: &'r AccessRequest<'r>, field: Field) -> Option<&'r str> {
    match field {
        Field::Direction => Some(request.direction.as_str()),
        Field::Method => Some(request.method),
        Field::PrincipalId => Some(&request.principal.id),
        Field::PrincipalKind => Some(&request.principal.kind),
        Field::ServerName => Some(&request.server.name),
        Field::ServerEnvironment => request.server.environment.as_deref(),
        Field::ClientName => request.client.map(|client| &*client.name),
        Field::ClientVersion => request.client.map(|client| &*client.version),
        Field::ProtocolRevision => request.protocol.revision.map(Revision::as_str),
        Field::Era => Some(request.protocol.era.as_str()),
        Field::Transport => Some(request.protocol.transport.as_str()),
        Field::OperationName => request.operation.name.as_deref(),
        Field::Effect => Some(request.operation.effect.as_str()),
        Field::EnvironmentSource => Some(request.operation.environment_source.as_str()),
        Field::Pack => request.operation.pack.as_deref(),
        Field::ToolName => match request.resource {
            Resource::Tool { name, .. } => Some(name),
            _ => None,
        },
        Field::ToolDigest => match request.resource {
            Resource::Tool { definition, .. } => definition,
            _ => None,
        },
        Field::ToolDrift => match request.resource {
            Resource::Tool { status, .. } => {
                status.drift.map(bartizan_gate::question::status::Drift::as_str)
            }
            _ => None,
        },
        Field::PromptName => match request.resource {
            Resource::Prompt { name, .. } => Some(name),
            _ => None,
        },
        Field::Uri => match request.resource {
            Resource::Uri(uri) => Some(uri),
            _ => None,
        },
        _ => None,
    }
}

/// The arguments, or what is below them. A call without arguments has an empty object.
fn arguments<'r>(
    request: &'r AccessRequest<'r>,
    field: Field,
    below: &[Box<str>],
) -> Result<Option<Operand<'r>>, Doubt> {
    let ((Resource::Tool { arguments, .. }, Field::ToolArguments)
    | (Resource::Prompt { arguments, .. }, Field::PromptArguments)) = (request.resource, field)
    else {
        return Ok(None);
    };
    match arguments.filter(|arguments| arguments.kind() != Kind::Null) {
        Some(arguments) => below_json(arguments, below),
        None => Ok(below.is_empty().then(|| Operand::Owned(Value::new_object()))),
    }
}

/// What stands below a value of the message.
fn below_json<'r>(
    json: document::Value<'r>,
    names: &[Box<str>],
) -> Result<Option<Operand<'r>>, Doubt> {
    let mut at = json;
    for name in names {
        match at.get(name) {
            Some(member) => at = member,
            None => return Ok(None),
        }
    }
    Operand::of_json(at).map(Some)
}
