//! What a call comes to: the effect, the environments and the tags that its pack gives it.
//!
//! Resolution reads the arguments where the pack says, and nowhere else. What a pack does not
//! know is [`Effect::Unknown`], never harmless; what cannot be read
//! is every environment, never none.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization;

use super::document::{Kind, Value};
use super::pack::{Absent, Effect, Pack, Step, ToolEntry, steps};

/// Different environments that one call may name; a call with more reaches every one.
const ENVIRONMENTS_MAX: usize = 256;
/// The name that stands for every environment.
const EVERY: &str = "*";
/// The name that a vendor's production goes by where nothing is named.
const PRODUCTION: &str = "production";

/// Where [`Operation::environments`] came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvironmentSource {
    /// The operation has no place for an environment.
    None,
    /// The arguments named them, in every place.
    Arguments,
    /// The arguments could have named one and did not: the pack says what that means. Names from
    /// other places of the same call stand beside it.
    Absent,
    /// The arguments hold something else than a name where a name belongs.
    Unreadable,
}

impl EnvironmentSource {
    /// The name used in policy input and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
            Self::None => "none",
        }
    }
}

/// What one call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The worst that it does.
    pub effect: Effect,
    /// The environments that it touches: names, or `*` for every one. Sorted, each once.
    pub environments: Vec<Box<str>>,
    /// How those are known.
    pub environment_source: EnvironmentSource,
    /// The pack's tags.
    pub tags: Vec<Box<str>>,
    /// The pack that said so; absent where none knows the tool.
    pub pack: Option<Box<str>>,
}

impl Operation {
    /// What a method other than a tool call comes to: `effect` by the method table.
    pub fn of_method(effect: Effect) -> Self {
        Self {
            effect,
            environments: Vec::new(),
            environment_source: EnvironmentSource::None,
            tags: Vec::new(),
            pack: None,
        }
    }

    /// What calling `tool` with `arguments` comes to.
    pub fn of_call(pack: Option<&Pack>, tool: &str, arguments: Option<Value<'_>>) -> Self {
        let mut operation = Self::of_tool(pack, tool);
        if let Some(entry) = pack.and_then(|pack| pack.tools.get(tool)) {
            let (environments, source) = environments(entry, arguments);
            operation.environments = environments;
            operation.environment_source = source;
        }
        operation
    }

    /// What `tool` comes to before its arguments are known: effect and tags without environments.
    pub fn of_tool(pack: Option<&Pack>, tool: &str) -> Self {
        let Some((pack, entry)) = pack.and_then(|pack| Some((pack, pack.tools.get(tool)?))) else {
            return Self::of_method(Effect::Unknown);
        };
        Self {
            tags: entry.tags.clone(),
            pack: Some(pack.name.clone()),
            ..Self::of_method(entry.effect)
        }
    }
}

/// The environments that `arguments` reach, and how that is known.
fn environments(
    entry: &ToolEntry,
    arguments: Option<Value<'_>>,
) -> (Vec<Box<str>>, EnvironmentSource) {
    let mut found = Found { names: BTreeSet::new(), left_out: false };
    let readable = expected(entry, arguments)
        && entry.environments.iter().all(|pointer| found.walk(arguments, steps(pointer)));
    if !readable {
        return (vec![EVERY.into()], EnvironmentSource::Unreadable);
    }
    let left_out = found.left_out || entry.environments.is_empty();
    if left_out {
        match entry.absent {
            Absent::All => _ = found.names.insert(EVERY),
            Absent::Production => _ = found.names.insert(PRODUCTION),
            Absent::None => {}
        }
    }
    let source = if entry.environments.is_empty() {
        EnvironmentSource::None
    } else if found.left_out {
        EnvironmentSource::Absent
    } else {
        EnvironmentSource::Arguments
    };
    (found.names.into_iter().map(Into::into).collect(), source)
}

/// Whether `arguments` is an object, or nothing, and holds no argument that the pack does not
/// list, where it lists them.
fn expected(entry: &ToolEntry, arguments: Option<Value<'_>>) -> bool {
    let Some(arguments) = arguments.filter(|value| value.kind() != Kind::Null) else {
        return true;
    };
    let listed = |name: &str| match &entry.arguments {
        Some(listed) => listed.iter().any(|argument| **argument == *name),
        None => true,
    };
    arguments.kind() == Kind::Object
        && arguments.members().all(|(name, _)| name.as_str().is_some_and(listed))
}

/// What the walks over one call's arguments have found.
struct Found<'a> {
    /// Names, byte for byte.
    names: BTreeSet<&'a str>,
    /// Whether some place that could name an environment names none.
    left_out: bool,
}

impl<'a> Found<'a> {
    /// Follows one pointer; `false` where something else stands than what the pack expects.
    /// The recursion is as deep as the pointer has steps, which the pack's reader bounds.
    fn walk(
        &mut self,
        value: Option<Value<'a>>,
        mut steps: impl Iterator<Item = Step> + Clone,
    ) -> bool {
        let Some(value) = value.filter(|value| value.kind() != Kind::Null) else {
            self.left_out = true;
            return true;
        };
        let Some(step) = steps.next() else {
            return self.name(value);
        };
        match (step, value.kind()) {
            (Step::Member(name), Kind::Object) => {
                !has_alias(value, &name) && self.walk(value.get(&name), steps)
            }
            (Step::Each, Kind::Array | Kind::Object) if value.is_empty() => {
                self.left_out = true;
                true
            }
            (Step::Each, Kind::Array) => {
                value.elements().all(|element| self.walk(Some(element), steps.clone()))
            }
            (Step::Each, Kind::Object) => {
                value.members().all(|(_, member)| self.walk(Some(member), steps.clone()))
            }
            (Step::Member(_) | Step::Each, _) => false,
        }
    }

    /// Takes what stands at the end of a pointer: a name or an array of names.
    fn name(&mut self, value: Value<'a>) -> bool {
        match value.kind() {
            Kind::String => match value.as_str() {
                Some("") => self.left_out = true,
                Some(name) => _ = self.names.insert(name),
                None => return false,
            },
            Kind::Array if value.is_empty() => self.left_out = true,
            Kind::Array => {
                for element in value.elements() {
                    match element.as_str() {
                        Some("") | None => return false,
                        Some(name) => _ = self.names.insert(name),
                    }
                    if self.names.len() > ENVIRONMENTS_MAX {
                        return false;
                    }
                }
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::Object => return false,
        }
        self.names.len() <= ENVIRONMENTS_MAX
    }
}

/// Whether `object` has a member that a lenient reader takes for `name` though its bytes differ:
/// `Environment`, `environment\u0000`, ` environment` (threats A4 to A6, H4).
fn has_alias(object: Value<'_>, name: &str) -> bool {
    let folded = fold(name);
    object
        .members()
        .filter_map(|(member, _)| member.as_str())
        .any(|member| member != name && may_alias(member, name) && fold(member) == folded)
}

/// A cheap bound before the costly comparison: ASCII names of another length without white space
/// or NUL cannot fold to the same.
fn may_alias(member: &str, name: &str) -> bool {
    !member.is_ascii()
        || !name.is_ascii()
        || member.len() == name.len()
        || member.bytes().any(|byte| byte == 0 || byte.is_ascii_whitespace())
        || name.bytes().any(|byte| byte == 0 || byte.is_ascii_whitespace())
}

/// NFKC, lower case, without white space and NUL (P5). Upper case first: `ſ` and `K` (Kelvin)
/// have the same upper case as `s` and `k`.
fn fold(text: &str) -> String {
    text.nfkc()
        .filter(|c| *c != '\0' && !c.is_whitespace())
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}
