//! Built-ins of our own, because regorus's have other values than OPA's for some arguments.
//!
//! Each function says where they differ. What cannot be computed as in OPA is an error, which denies.
//! `tests/differential/calls.py` compares every built-in with OPA.

use regorus::Value;

use super::native::native_call;
use super::re2::is_assigned;
use super::{EvalLimits, number};

/// Most steps of a path of `json.filter` and `json.remove`. They are nested as deep.
const PATH_STEPS_MAX: usize = 64;

fn text(args: &[Value], at: usize) -> Result<&str, String> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text),
        _ => Err("expects strings".to_owned()),
    }
}

/// A character's other case by the simple mapping of Go's version of Unicode: one character for one.
fn simple(character: char, mut mapped: impl Iterator<Item = char>, several: char) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) if one == character => character,
        (Some(one), None) if is_assigned(one) && is_assigned(character) => one,
        (Some(_), Some(_)) => several,
        _ => character,
    }
}

/// `lower`. Rust writes `İ` as two characters and a final `Σ` as `ς`; Go maps each character alone.
pub(super) fn lower(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let one = |it: char| simple(it, it.to_lowercase(), if it == 'İ' { 'i' } else { it });
    Ok(Value::from(text(args, 0)?.chars().map(one).collect::<String>()))
}

/// `upper`. Rust writes `ß` as `SS`; in Go it stays, because it has no single capital.
pub(super) fn upper(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let one = |it: char| {
        // Greek letters with an iota below have a simple capital, which Rust does not know.
        let above = match it {
            '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => 8,
            '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => 9,
            _ => 0,
        };
        let several = char::from_u32(u32::from(it).saturating_add(above)).unwrap_or(it);
        simple(it, it.to_uppercase(), several)
    };
    Ok(Value::from(text(args, 0)?.chars().map(one).collect::<String>()))
}

/// `count`. regorus counts the 16-bit units of a text, OPA its characters.
pub(super) fn count(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    match args.first() {
        Some(Value::String(text)) => Ok(Value::from(text.chars().count())),
        _ => native_call("count", args),
    }
}

/// `indexof` and `indexof_n`. OPA refuses an empty text to find.
pub(super) fn something_to_find(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    if text(args, 1)?.is_empty() { Err("expects a text to find".to_owned()) } else { Ok(()) }
}

/// All numbers among the arguments must be integers.
pub(super) fn integers(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    let whole = |arg: &Value| !matches!(arg, Value::Number(_)) || arg.as_i64().is_ok();
    if args.iter().all(whole) { Ok(()) } else { Err("expects integers of 64 bits".to_owned()) }
}

/// `floor` and `ceil`. OPA 1.20 gives 0 and 1 for numbers between -1 and 0.
pub(super) fn not_just_below_zero(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    match args.first().map(Value::as_f64) {
        Some(Ok(number)) if number > -1.0 && number < 0.0 => {
            Err("expects no number between -1 and 0".to_owned())
        }
        _ => Ok(()),
    }
}

/// `format_int`. regorus writes -0.5 as `-0`.
pub(super) fn format_int(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    match native_call("format_int", args)? {
        Value::String(text) if text.as_ref() == "-0" => Ok(Value::from("0")),
        other => Ok(other),
    }
}

/// `product`. regorus and OPA round fractions differently, and OPA has integers of any size.
pub(super) fn product(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let factors: Vec<Value> = match args.first() {
        Some(Value::Array(items)) => items.iter().cloned().collect(),
        Some(Value::Set(items)) => items.iter().cloned().collect(),
        _ => Vec::new(),
    };
    integers(&factors, limits)?;
    let product = factors.iter().try_fold(1_i64, |product, factor| {
        factor.as_i64().ok().and_then(|factor| product.checked_mul(factor))
    });
    product.map(Value::from).ok_or_else(|| "the result is no integer of 64 bits".to_owned())
}

fn integer(value: Value) -> Result<Value, String> {
    if value.as_i64().is_ok() || value.as_u64().is_ok() {
        return Ok(value);
    }
    Err("the result is no integer of 64 bits".to_owned())
}

/// `bits.lsh`. OPA has integers of any size.
pub(super) fn shifted_left(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    integer(native_call("bits.lsh", args)?)
}

/// `round`: OPA rounds an integer beyond 2^53 to the next binary64.
pub(super) fn small(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match args.first().map(Value::as_f64) {
        Some(Ok(number)) if number.abs() <= EXACT => Ok(()),
        _ => Err("expects a number of at most 53 bits".to_owned()),
    }
}

/// `replace`. OPA 1.20 cuts characters of several bytes apart for an empty text to replace.
pub(super) fn something_to_replace(args: &[Value]) -> Result<(), String> {
    if text(args, 1)?.is_empty() && !text(args, 0)?.is_ascii() {
        return Err("expects a text to replace, or ASCII to replace in".to_owned());
    }
    Ok(())
}

/// `sum`. OPA adds decimals exactly: 0.1 and 0.2 are 0.3.
pub(super) fn sum(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let numbers: Vec<Value> = match args.first() {
        Some(Value::Array(items)) => items.iter().cloned().collect(),
        Some(Value::Set(items)) => items.iter().cloned().collect(),
        _ => Vec::new(),
    };
    number::exact_sum(&numbers).ok_or_else(|| "expects numbers with an exact sum".to_owned())
}

/// `strings.replace_n`: all replacements at once, as Go's `Replacer`. regorus replaces one after the
/// other, so that what one has written is replaced by the next.
pub(super) fn replace_n(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let Some(Value::Object(patterns)) = args.first() else {
        return Err("expects an object of strings".to_owned());
    };
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (old, new) in patterns.iter() {
        match (old, new) {
            (Value::String(old), Value::String(new)) if !old.is_empty() => pairs.push((old, new)),
            _ => return Err("expects strings, and none to replace that is empty".to_owned()),
        }
    }
    pairs.sort_unstable();
    let mut rest = text(args, 1)?;
    let mut out = String::new();
    while let Some(next) = rest.chars().next() {
        // The first in the order of the texts to replace, so `a` before `ab`.
        let found = pairs.iter().find_map(|(old, new)| Some((rest.strip_prefix(old)?, new)));
        if let Some((after, new)) = found {
            out.push_str(new);
            rest = after;
        } else {
            out.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
        if out.len() > limits.string_bytes_max {
            return Err(format!("the result is longer than {} bytes", limits.string_bytes_max));
        }
    }
    Ok(Value::from(out))
}

/// `glob.quote_meta`. regorus escapes `*` alone.
pub(super) fn quote_meta(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let mut out = String::new();
    for character in text(args, 0)?.chars() {
        if matches!(character, '*' | '?' | '\\' | '[' | ']' | '{' | '}') {
            out.push('\\');
        }
        out.push(character);
        if out.len() > limits.string_bytes_max {
            return Err(format!("the result is longer than {} bytes", limits.string_bytes_max));
        }
    }
    Ok(Value::from(out))
}

/// `semver.is_valid`. OPA also takes a `v` in front, leading zeros and empty parts after `-` and `+`:
/// what the specification refuses and OPA may take is an error.
pub(super) fn semver_is_valid(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let Ok(version) = text(args, 0) else { return Ok(Value::Bool(false)) };
    let strict = native_call("semver.is_valid", args)?;
    let core = version.strip_prefix('v').unwrap_or(version);
    let core = core.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = core.split('.').all(|part| part.parse::<i64>().is_ok());
    let is_like_one = core.split('.').count() == 3 && core.split('.').all(is_number);
    if is_like_one && (strict != Value::Bool(true) || !fits) {
        return Err("expects a version as semver.org defines it".to_owned());
    }
    Ok(strict)
}

/// The versions of `semver.compare` must be as semver.org defines them, with numbers of 63 bits.
pub(super) fn versions(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    for at in 0..args.len() {
        let core = text(args, at)?.split(['-', '+']).next().unwrap_or_default();
        if core.split('.').any(|part| part.parse::<i64>().is_err()) {
            return Err("expects a version as semver.org defines it".to_owned());
        }
    }
    Ok(())
}

/// `units.parse_bytes`. OPA cuts a fraction of a byte, regorus rounds it.
pub(super) fn parse_bytes(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let written = text(args, 0)?;
    let plain = written.trim_matches('"');
    let end = plain.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(plain.len());
    let (digits, unit) = plain.split_at_checked(end).ok_or("expects a number and a unit")?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.is_empty() && !digits.contains('.') {
        return native_call("units.parse_bytes", args);
    }
    let factor = native_call("units.parse_bytes", &[Value::from(format!("1{unit}"))])?;
    let bytes = factor.as_u64().ok().and_then(|factor| {
        let mut divisor = 1_u128;
        for _ in fraction.bytes() {
            divisor = divisor.checked_mul(10)?;
        }
        let product = format!("{whole}{fraction}").parse::<u128>().ok()?;
        let product = product.checked_mul(u128::from(factor))?;
        let is_whole = product.checked_rem(divisor)? == 0;
        is_whole
            .then(|| product.checked_div(divisor).and_then(|bytes| u64::try_from(bytes).ok()))?
    });
    bytes.map(Value::from).ok_or_else(|| "expects a whole number of bytes".to_owned())
}

/// What a text decodes to must be text: Go keeps other bytes as they are, regorus replaces them.
pub(super) fn decoded(name: &str, args: &[Value]) -> Result<Value, String> {
    match native_call(name, args)? {
        Value::String(text) if text.contains('\u{fffd}') => {
            Err("expects the code of a text in UTF-8".to_owned())
        }
        other => Ok(other),
    }
}

/// `base64.decode`
pub(super) fn base64_decode(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    decoded("base64.decode", args)
}

/// `base64url.decode`
pub(super) fn base64url_decode(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    decoded("base64url.decode", args)
}

/// `hex.decode`
pub(super) fn hex_decode(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    decoded("hex.decode", args)
}

/// `base64.is_valid`. Go passes over line ends and over bits after the last byte.
pub(super) fn base64_is_valid(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let code: Vec<u8> =
        text(args, 0)?.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let padding = code.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let body = code.get(..code.len().saturating_sub(padding)).unwrap_or_default();
    Ok(Value::Bool(code.len().is_multiple_of(4) && body.iter().all(is_digit)))
}

/// `object.subset`. OPA refuses operands of different types; regorus panics on an empty array.
pub(super) fn object_subset(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    match args {
        [Value::Array(_), Value::Array(sub)] if sub.is_empty() => Ok(Value::Bool(true)),
        // OPA finds the empty set in no array.
        [Value::Array(_), Value::Set(sub)] if sub.is_empty() => Err("the set is empty".to_owned()),
        // OPA counts an item as often as the array has it.
        [Value::Array(items), Value::Set(_)]
            if items.iter().collect::<std::collections::BTreeSet<_>>().len() < items.len() =>
        {
            Err("the array has an item twice".to_owned())
        }
        [Value::Object(_), Value::Object(_)]
        | [Value::Set(_), Value::Set(_)]
        | [Value::Array(_), Value::Array(_) | Value::Set(_)] => native_call("object.subset", args),
        _ => Err("expects two objects, sets or arrays, or an array and a set".to_owned()),
    }
}

/// `sort`, `max` and `min`: OPA's order puts objects before sets, regorus's sets before objects.
pub(super) fn one_order(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    let (mut objects, mut sets) = (false, false);
    let mut open: Vec<&Value> = match args.first() {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(Value::Set(items)) => items.iter().collect(),
        _ => Vec::new(),
    };
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items.iter()),
            Value::Set(items) => {
                sets = true;
                open.extend(items.iter());
            }
            Value::Object(members) => {
                objects = true;
                open.extend(members.iter().flat_map(|(key, value)| [key, value]));
            }
            _ => {}
        }
    }
    if objects && sets {
        return Err("expects no objects beside sets".to_owned());
    }
    Ok(())
}

/// The paths of `json.filter` and `json.remove` as one tree. Like OPA's `pathsToObject`.
#[derive(Default)]
struct Paths {
    /// A path ends here. What lies below does not matter.
    end: bool,
    below: std::collections::BTreeMap<Value, Self>,
}

impl Paths {
    fn read(args: &[Value]) -> Result<Self, String> {
        let paths: Vec<&Value> = match args.get(1) {
            Some(Value::Array(items)) => items.iter().collect(),
            Some(Value::Set(items)) => items.iter().collect(),
            _ => return Err("expects an array or a set of paths".to_owned()),
        };
        if !matches!(args.first(), Some(Value::Object(_))) {
            return Err("expects an object".to_owned());
        }
        let mut root = Self::default();
        for path in paths {
            let steps: Vec<Value> = match path {
                Value::String(path) if path.is_empty() => Vec::new(),
                Value::String(path) => path
                    .trim_start_matches('/')
                    .split('/')
                    .map(|step| Value::from(step.replace("~1", "/").replace("~0", "~")))
                    .collect(),
                Value::Array(steps) => steps.iter().cloned().collect(),
                _ => return Err("expects paths that are strings or arrays".to_owned()),
            };
            if steps.is_empty() {
                continue;
            }
            if steps.len() > PATH_STEPS_MAX {
                return Err(format!("expects paths of at most {PATH_STEPS_MAX} steps"));
            }
            let mut node = &mut root;
            for step in steps {
                if node.end {
                    break;
                }
                node = node.below.entry(step).or_default();
            }
            node.end = true;
        }
        Ok(root)
    }

    /// What belongs to an item of an array: the steps are texts, as `"0"`.
    fn item(&self, at: usize) -> Option<&Self> {
        self.below.get(&Value::from(at.to_string()))
    }

    fn filtered(&self, value: &Value) -> Value {
        if self.end {
            return value.clone();
        }
        match value {
            Value::Array(items) => {
                let kept = items.iter().enumerate();
                let kept = kept.filter_map(|(at, item)| Some(self.item(at)?.filtered(item)));
                Value::from(kept.collect::<Vec<Value>>())
            }
            Value::Set(items) => {
                let kept = items.iter();
                let kept = kept.filter_map(|item| Some(self.below.get(item)?.filtered(item)));
                Value::from(kept.collect::<std::collections::BTreeSet<Value>>())
            }
            Value::Object(members) => {
                let kept = members.iter().filter_map(|(key, value)| {
                    Some((key.clone(), self.below.get(key)?.filtered(value)))
                });
                Value::from(kept.collect::<std::collections::BTreeMap<Value, Value>>())
            }
            other => other.clone(),
        }
    }

    fn removed(&self, value: &Value) -> Option<Value> {
        if self.end {
            return None;
        }
        let rest = |below: Option<&Self>, value: &Value| match below {
            Some(below) => below.removed(value),
            None => Some(value.clone()),
        };
        Some(match value {
            Value::Array(items) => {
                let kept = items.iter().enumerate();
                let kept = kept.filter_map(|(at, item)| rest(self.item(at), item));
                Value::from(kept.collect::<Vec<Value>>())
            }
            Value::Set(items) => {
                let kept = items.iter().filter_map(|item| rest(self.below.get(item), item));
                Value::from(kept.collect::<std::collections::BTreeSet<Value>>())
            }
            Value::Object(members) => {
                let kept = members.iter().filter_map(|(key, value)| {
                    Some((key.clone(), rest(self.below.get(key), value)?))
                });
                Value::from(kept.collect::<std::collections::BTreeMap<Value, Value>>())
            }
            other => other.clone(),
        })
    }
}

/// `json.filter`. regorus keeps no scalar above the end of a path and orders items by text.
pub(super) fn json_filter(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let value = args.first().ok_or("an argument is missing")?;
    Ok(Paths::read(args)?.filtered(value))
}

/// `json.remove`. regorus knows neither the `/` in front of a path nor `~0` and `~1`.
pub(super) fn json_remove(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let value = args.first().ok_or("an argument is missing")?;
    Paths::read(args)?.removed(value).ok_or_else(|| "removes everything".to_owned())
}
