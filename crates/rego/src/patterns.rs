//! The built-ins `regex.*`, as Go's `regexp` carries them out for OPA.
//!
//! [`super::re2`] reads a pattern, and the automata of the `regex` crate find matches in time linear
//! in the text. How matches follow each other, what a template means and where a text is split is
//! written here as in Go's `regexp` (`allMatches`, `ReplaceAllString`, `Expand`, `Split`), because
//! the crate does it otherwise for empty matches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use bartizan_sync::lock;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use regex_automata::{Input, Span};
use regorus::Value;

use super::EvalLimits;
use super::re2::{self, Fault};

/// Largest automaton of a pattern, bytes. It bounds the time to build it.
const AUTOMATON_BYTES_MAX: usize = 100 * 1024;

/// Largest cache of the states that a search visits, bytes, for each automaton and thread.
const STATES_BYTES_MAX: usize = 256 * 1024;

/// Most automata that are kept.
const KEPT_MAX: usize = 256;

/// The automaton of a pattern.
pub(super) type Automaton = Arc<Regex>;

type Compiled = Result<Automaton, Fault>;

/// The automaton of a pattern, from the kept ones where it was used before.
pub(super) fn compiled(pattern: &str) -> Compiled {
    static KEPT: OnceLock<Mutex<HashMap<String, Compiled>>> = OnceLock::new();
    let kept = KEPT.get_or_init(Mutex::default);
    if let Some(found) = lock(kept).get(pattern) {
        return found.clone();
    }
    let made = build(pattern);
    let mut kept = lock(kept);
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), made.clone());
    made
}

/// Whether a text matches.
pub(super) fn is_match(automaton: &Automaton, text: &str) -> bool {
    automaton.is_match(text)
}

fn build(pattern: &str) -> Compiled {
    let tree = re2::read(pattern)?;
    let config = Regex::config()
        .nfa_size_limit(Some(AUTOMATON_BYTES_MAX))
        .hybrid_cache_capacity(STATES_BYTES_MAX);
    let built = Regex::builder().configure(config).build_from_hir(&tree);
    let too_large = format!("its automaton is larger than {AUTOMATON_BYTES_MAX} bytes");
    built.map(Arc::new).map_err(|_| Fault::Unsupported(too_large))
}

fn text(args: &[Value], at: usize) -> Result<&str, String> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text),
        _ => Err("expects strings".to_owned()),
    }
}

fn pattern(args: &[Value], at: usize) -> Result<Arc<Regex>, String> {
    compiled(text(args, at)?).map_err(|fault| fault.to_string())
}

/// The most matches that are asked for: the third argument, where a negative number means all.
fn wanted(args: &[Value]) -> Result<usize, String> {
    let number = args.get(2).and_then(|number| number.as_i64().ok());
    let number = number.ok_or("expects an integer")?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

/// Where the character at `at` ends.
fn after_character(text: &str, at: usize) -> Option<usize> {
    let width = text.get(at..)?.chars().next().map_or(1, char::len_utf8);
    at.checked_add(width)
}

/// Calls `found` with each match and its groups: Go's `allMatches`.
fn each_match(
    regex: &Regex,
    text: &str,
    most: usize,
    mut found: impl FnMut(&Captures) -> Result<(), String>,
) -> Result<(), String> {
    let mut captures = regex.create_captures();
    let (mut position, mut count) = (0, 0_usize);
    let mut before_ended = None;
    while count < most && position <= text.len() {
        regex.search_captures(&Input::new(text).range(position..), &mut captures);
        let Some(Span { start, end }) = captures.get_match().map(|it| it.span()) else { break };
        let mut accepted = true;
        if end == position {
            // An empty match. Right after another match it does not count.
            accepted = Some(start) != before_ended;
            position = after_character(text, position).ok_or("no next character")?;
        } else {
            position = end;
        }
        before_ended = Some(end);
        if accepted {
            found(&captures)?;
            count = count.saturating_add(1);
        }
    }
    Ok(())
}

fn cut(text: &str, span: Option<Span>) -> &str {
    span.and_then(|span| text.get(span.start..span.end)).unwrap_or_default()
}

fn at_most(items: usize, limits: &EvalLimits) -> Result<(), String> {
    if items >= limits.items_max {
        return Err(format!("the result has more than {} items", limits.items_max));
    }
    Ok(())
}

/// `regex.is_valid`. A pattern that is valid and cannot be run here is an error.
pub(super) fn is_valid(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    match compiled(text(args, 0)?) {
        Ok(_) => Ok(Value::Bool(true)),
        Err(Fault::Invalid(_)) => Ok(Value::Bool(false)),
        Err(fault @ Fault::Unsupported(_)) => Err(fault.to_string()),
    }
}

/// `regex.match`
pub(super) fn matches(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    Ok(Value::Bool(pattern(args, 0)?.is_match(text(args, 1)?)))
}

/// `regex.find_n`
pub(super) fn find_n(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let (regex, text) = (pattern(args, 0)?, text(args, 1)?);
    let mut all: Vec<Value> = Vec::new();
    each_match(&regex, text, wanted(args)?, |captures| {
        at_most(all.len(), limits)?;
        all.push(Value::from(cut(text, captures.get_group(0))));
        Ok(())
    })?;
    Ok(Value::from(all))
}

/// `regex.find_all_string_submatch_n`
pub(super) fn find_submatches(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let (regex, text) = (pattern(args, 0)?, text(args, 1)?);
    let mut all: Vec<Value> = Vec::new();
    let mut items = 0_usize;
    each_match(&regex, text, wanted(args)?, |captures| {
        items = items.saturating_add(captures.group_len());
        at_most(items, limits)?;
        let groups: Vec<Value> =
            captures.iter().map(|group| Value::from(cut(text, group))).collect();
        all.push(Value::from(groups));
        Ok(())
    })?;
    Ok(Value::from(all))
}

/// `regex.split`: Go's `Split` without a bound.
pub(super) fn split(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let (regex, text) = (pattern(args, 0)?, text(args, 1)?);
    let whole_pattern = self::text(args, 0)?;
    let mut parts: Vec<Value> = Vec::new();
    if !whole_pattern.is_empty() && text.is_empty() {
        return Ok(Value::from(vec![Value::from("")]));
    }
    let (mut begin, mut end) = (0, 0);
    each_match(&regex, text, usize::MAX, |captures| {
        let Some(found) = captures.get_group(0) else { return Ok(()) };
        end = found.start;
        if found.end != 0 {
            at_most(parts.len(), limits)?;
            parts.push(Value::from(text.get(begin..end).unwrap_or_default()));
        }
        begin = found.end;
        Ok(())
    })?;
    if end != text.len() {
        parts.push(Value::from(text.get(begin..).unwrap_or_default()));
    }
    Ok(Value::from(parts))
}

/// `regex.replace`: Go's `ReplaceAllString`.
pub(super) fn replace(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let (text, regex, template) = (text(args, 0)?, pattern(args, 1)?, text(args, 2)?);
    let mut captures = regex.create_captures();
    let mut out = String::new();
    let (mut position, mut copied) = (0, 0);
    while position <= text.len() {
        regex.search_captures(&Input::new(text).range(position..), &mut captures);
        let Some(Span { start, end }) = captures.get_match().map(|it| it.span()) else { break };
        out.push_str(text.get(copied..start).unwrap_or_default());
        // Not for an empty match right after another match.
        if end > copied || start == 0 {
            expand(template, text, &captures, &mut out)?;
        }
        if out.len() > limits.string_bytes_max {
            return Err(format!("the result is longer than {} bytes", limits.string_bytes_max));
        }
        copied = end;
        let next = after_character(text, position).ok_or("no next character")?;
        position = end.max(next);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Ok(Value::from(out))
}

/// Reads what follows a `$`: the name of a group, and the rest. `None` where no name follows, and the
/// `$` is itself.
fn group_name(after: &str) -> Option<(&str, &str)> {
    let inner = after.strip_prefix('{').unwrap_or(after);
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let end = inner.find(|character| !is_part(character)).unwrap_or(inner.len());
    let (name, rest) = inner.split_at_checked(end)?;
    let rest = if after.starts_with('{') { rest.strip_prefix('}')? } else { rest };
    (!name.is_empty()).then_some((name, rest))
}

/// Appends the template with the groups of a match: Go's `Expand`.
fn expand(template: &str, text: &str, captures: &Captures, out: &mut String) -> Result<(), String> {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = group_name(after) else {
            out.push('$');
            rest = after;
            continue;
        };
        if !name.is_ascii() {
            // Which characters belong to the name depends on the tables of Unicode.
            return Err("the template names a group with letters beyond ASCII".to_owned());
        }
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        let group = if !is_number {
            captures.get_group_by_name(name)
        } else if name.len() > 1 && name.starts_with('0') {
            None
        } else {
            name.parse().ok().and_then(|group: usize| captures.get_group(group))
        };
        out.push_str(cut(text, group));
        rest = after;
    }
    out.push_str(rest);
    Ok(())
}
