//! Common built-ins on [`Operand`]s, without regorus values made for them.
//!
//! A built-in runs here only where its arguments have the right types and sizes, so that it cannot
//! fail; in any other case [`crate::builtins`] runs it. It counts the same steps as there.

use regorus::Value;

use super::Doubt;
use super::operand::{Operand, Type};
use super::part::Part;
use crate::EvalLimits;
use crate::builtins::{self, Builtin, Meter, text_length};
use crate::patterns::{self, Automaton};

/// A built-in that can run here.
#[derive(Debug)]
pub(super) enum Native {
    /// `is_string` and its like.
    Is(Type),
    /// `count`
    Count,
    /// A question about two texts.
    Texts(fn(&str, &str) -> bool),
    /// `lower` and `upper`, on ASCII: whether a byte changes, and how a text is written.
    Case(fn(&u8) -> bool, fn(&str) -> String),
    /// `concat`
    Concat,
    /// `object.get`
    Get,
    /// `regex.match` with a constant pattern: its length in bytes, and its automaton.
    Match(usize, Automaton),
}

impl Native {
    /// The form of a built-in, where it has one. `first` is its first argument, if that is constant.
    pub(super) fn of(builtin: &Builtin, first: Option<&Value>) -> Option<Self> {
        Some(match builtin.name {
            "is_null" => Self::Is(Type::Null),
            "is_boolean" => Self::Is(Type::Bool),
            "is_number" => Self::Is(Type::Number),
            "is_string" => Self::Is(Type::Text),
            "is_array" => Self::Is(Type::Array),
            "is_set" => Self::Is(Type::Set),
            "is_object" => Self::Is(Type::Object),
            "count" => Self::Count,
            "startswith" => Self::Texts(|text, part| text.starts_with(part)),
            "endswith" => Self::Texts(|text, part| text.ends_with(part)),
            "contains" => Self::Texts(|text, part| text.contains(part)),
            "lower" => Self::Case(u8::is_ascii_uppercase, str::to_ascii_lowercase),
            "upper" => Self::Case(u8::is_ascii_lowercase, str::to_ascii_uppercase),
            "concat" => Self::Concat,
            "object.get" => Self::Get,
            "regex.match" => match first {
                Some(Value::String(pattern)) => {
                    Self::Match(pattern.len(), patterns::compiled(pattern).ok()?)
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The value; `None` where [`crate::builtins`] must run it.
    pub(super) fn call<'v>(
        &self,
        name: &str,
        args: &[Operand<'v>],
        limits: &EvalLimits,
        meter: &mut Meter,
    ) -> Result<Option<Operand<'v>>, Doubt> {
        let mut count = |work: usize| {
            let work = u64::try_from(work).unwrap_or(u64::MAX).saturating_add(1);
            meter.count(name, work, limits).map_err(Doubt)
        };
        match (self, args) {
            (Self::Is(wanted), [value]) => {
                let Some(size) = size(value) else { return Ok(None) };
                count(size)?;
                Ok(Some(Operand::Bool(value.kind() == *wanted)))
            }
            (Self::Count, [value]) => {
                let Some(size) = size(value) else { return Ok(None) };
                let items = value.as_text().map(|text| text.chars().count()).or(value.len());
                let Some(items) = items else { return Ok(None) };
                count(size)?;
                Ok(Some(Operand::Owned(Value::from(items))))
            }
            (Self::Texts(compare), [text, part]) => {
                let (Some(text), Some(part)) = (text.as_text(), part.as_text()) else {
                    return Ok(None);
                };
                count(text.len().saturating_add(part.len()))?;
                Ok(Some(Operand::Bool(compare(text, part))))
            }
            (Self::Case(changes, write), [value]) => {
                let text = value.as_text().filter(|text| text.is_ascii());
                let Some(text) = text.filter(|it| it.len() <= limits.string_bytes_max) else {
                    return Ok(None);
                };
                count(text.len())?;
                let other = text.as_bytes().iter().any(changes);
                let written = || Operand::Owned(Value::from(write(text)));
                Ok(Some(if other { written() } else { value.clone() }))
            }
            (Self::Concat, [between, parts]) => {
                let sizes = args.iter().map(size).sum::<Option<usize>>();
                let (Some(sizes), Some(text)) = (sizes, concat(between, parts, limits)) else {
                    return Ok(None);
                };
                count(sizes)?;
                Ok(Some(Operand::Owned(Value::from(text))))
            }
            (Self::Get, [object, path, default]) => {
                let sizes = args.iter().map(size).sum::<Option<usize>>();
                let (Some(sizes), Some(found)) = (sizes, get(object, path, default, limits)?)
                else {
                    return Ok(None);
                };
                count(sizes)?;
                Ok(Some(found))
            }
            (Self::Match(pattern, automaton), [_, text]) => {
                let most = limits.pattern_text_bytes_max;
                let text = text.as_text().filter(|text| text.len() <= most && *pattern <= most);
                let Some(text) = text else { return Ok(None) };
                // The caller adds one.
                let work = text.len().max(1).saturating_mul((*pattern).max(1));
                count(work.saturating_sub(1))?;
                Ok(Some(Operand::Bool(patterns::is_match(automaton, text))))
            }
            _ => Ok(None),
        }
    }
}

/// The bytes of a text, or the items of a collection and the bytes of its texts, as
/// [`crate::builtins`] counts them; `None` where a value must be built to know it.
fn size(value: &Operand<'_>) -> Option<usize> {
    let each = |length: Option<usize>| length.unwrap_or_default().saturating_add(1);
    let total = |sum: usize, more: usize| sum.saturating_add(more);
    Some(match value {
        Operand::Bool(_) => 0,
        Operand::Text(text) => text.len(),
        Operand::Part(Part::Texts(texts)) => {
            texts.iter().map(|it| each(Some(it.len()))).fold(0, total)
        }
        Operand::Part(Part::Flags(flags)) => {
            flags.iter().map(|it| each(Some(it.len()))).fold(0, total)
        }
        Operand::Part(_) => return None,
        Operand::Json(json) => {
            let items = json.elements().map(|it| each(it.as_str().map(str::len)));
            let names = json.members().map(|(name, _)| each(name.as_str().map(str::len)));
            items.chain(names).fold(0, total)
        }
        Operand::Array(items) | Operand::Set(items) => {
            items.iter().map(|it| each(it.as_text().map(str::len))).fold(0, total)
        }
        Operand::Record(names, _) => {
            names.sorted.iter().map(|it| each(Some(text_length(it)))).fold(0, total)
        }
        Operand::Shared(value) => builtins::size(value),
        Operand::Owned(value) => builtins::size(value),
    })
}

/// Texts, put together.
fn concat(between: &Operand<'_>, parts: &Operand<'_>, limits: &EvalLimits) -> Option<String> {
    let between = between.as_text()?;
    let mut texts: Vec<&str> = Vec::with_capacity(parts.len()?);
    match parts {
        Operand::Array(items) | Operand::Set(items) => {
            for item in items.iter() {
                texts.push(item.as_text()?);
            }
        }
        Operand::Part(Part::Texts(items)) => texts.extend(items.iter().map(|item| &**item)),
        Operand::Json(items) if parts.kind() == Type::Array => {
            for item in items.elements() {
                texts.push(item.as_str()?);
            }
        }
        _ => return None,
    }
    let own = between.len().saturating_mul(texts.len());
    let total = texts.iter().fold(own, |sum, text| sum.saturating_add(text.len()));
    (total <= limits.string_bytes_max).then(|| texts.join(between))
}

/// The member of an object by its name, or by an array of names and positions.
fn get<'v>(
    object: &Operand<'v>,
    path: &Operand<'v>,
    default: &Operand<'v>,
    limits: &EvalLimits,
) -> Result<Option<Operand<'v>>, Doubt> {
    if object.kind() != Type::Object {
        return Ok(None);
    }
    let found = match path {
        Operand::Shared(Value::Array(steps)) => {
            let mut at = Some(object.clone());
            for step in steps.iter() {
                let Some(here) = at else { break };
                at = here.get(&Operand::Shared(step))?;
            }
            at
        }
        _ if path.kind() == Type::Array => return Ok(None),
        _ => object.get(path)?,
    };
    let found = found.unwrap_or_else(|| default.clone());
    let text_fits = found.as_text().is_none_or(|text| text.len() <= limits.string_bytes_max);
    let items = if found.kind() == Type::Array { found.len() } else { None };
    let fits = text_fits && items.is_none_or(|items| items <= limits.items_max);
    Ok(fits.then_some(found))
}
