//! The one table of built-ins that both engines call.
//!
//! A built-in that is not in the table does not exist for a policy. The network, the wall clock,
//! randomness and the file system have no entry, so a decision is a function of policy, data and
//! input. Every call from either engine goes through [`call`], which bounds arguments and result,
//! catches panics, and returns an error where regorus would return undefined. The engines keep
//! the first error of an evaluation, and an evaluation with an error denies, whatever its value.
//!
//! regorus's function is used where it agrees with OPA; `glob.match`, `sprintf`, JSON and number
//! parsing are our own. Semantics: OPA docs, "Policy Reference", "Built-in Functions".

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use regorus::Value;

use super::EvalLimits;
use super::native::native_call;
use super::{functions, glob, number, patterns, sprintf};
use bartizan_gate::wire::document::{Document, DocumentLimits};

/// Longest text that `units.parse` and `to_number` accept, bytes.
const NUMBER_CHARS_MAX: usize = 64;

/// Most factors of `product`. Each may add 64 bits to the result.
const FACTORS_MAX: usize = 256;

/// Widest shift of `bits.lsh` and `bits.rsh`, bits.
const SHIFT_MAX: i64 = 64;

/// The implementation of a built-in.
#[derive(Debug, Clone, Copy)]
enum Run {
    /// regorus's function.
    Native,
    /// regorus's function, after a check that the arguments are within bounds.
    Checked(Check),
    /// A function of this crate.
    Custom(Function),
    /// The same, after such a check.
    CheckedCustom(Check, Function),
}

type Check = fn(&[Value], &EvalLimits) -> Result<(), String>;
type Function = fn(&[Value], &EvalLimits) -> Result<Value, String>;

/// One built-in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Builtin {
    /// The name that a policy calls, such as `glob.match`.
    pub(super) name: &'static str,
    /// The types of its arguments and of its result, `s,s>b`. `capabilities::letter` says which
    /// type each letter stands for.
    pub(super) types: &'static str,
    run: Run,
}

const fn native(name: &'static str, types: &'static str) -> Builtin {
    Builtin { name, types, run: Run::Native }
}

const fn checked(name: &'static str, types: &'static str, check: Check) -> Builtin {
    Builtin { name, types, run: Run::Checked(check) }
}

const fn custom(name: &'static str, types: &'static str, run: Function) -> Builtin {
    Builtin { name, types, run: Run::Custom(run) }
}

const fn checked_custom(
    name: &'static str,
    types: &'static str,
    check: Check,
    run: Function,
) -> Builtin {
    Builtin { name, types, run: Run::CheckedCustom(check, run) }
}

/// Every built-in, sorted by name for the binary search in [`find`].
pub(super) static TABLE: &[Builtin] = &[
    native("abs", "n>n"),
    checked("array.concat", "A,A>A", items_within),
    native("array.reverse", "A>A"),
    checked("array.slice", "A,n,n>A", functions::integers),
    custom("base64.decode", "s>s", functions::base64_decode),
    checked("base64.encode", "s>s", text_within),
    custom("base64.is_valid", "s>b", functions::base64_is_valid),
    custom("base64url.decode", "s>s", functions::base64url_decode),
    checked("base64url.encode", "s>s", text_within),
    checked("base64url.encode_no_pad", "s>s", text_within),
    checked("bits.and", "n,n>n", functions::integers),
    checked_custom("bits.lsh", "n,n>n", shift_within, functions::shifted_left),
    checked("bits.negate", "n>n", functions::integers),
    checked("bits.or", "n,n>n", functions::integers),
    checked("bits.rsh", "n,n>n", shift_within),
    checked("bits.xor", "n,n>n", functions::integers),
    checked("ceil", "n>n", functions::not_just_below_zero),
    checked("concat", "s,C>s", concat_within),
    native("contains", "s,s>b"),
    custom("count", "K>n", functions::count),
    native("endswith", "s,s>b"),
    checked("floor", "n>n", functions::not_just_below_zero),
    custom("format_int", "n,n>s", functions::format_int),
    custom("glob.match", "s,D,s>b", glob_match),
    custom("glob.quote_meta", "s>s", functions::quote_meta),
    custom("hex.decode", "s>s", functions::hex_decode),
    checked("hex.encode", "s>s", text_within),
    checked("indexof", "s,s>n", functions::something_to_find),
    checked("indexof_n", "s,s>N", functions::something_to_find),
    native("intersection", "G>S"),
    native("is_array", "a>b"),
    native("is_boolean", "a>b"),
    native("is_null", "a>b"),
    native("is_number", "a>b"),
    native("is_object", "a>b"),
    native("is_set", "a>b"),
    native("is_string", "a>b"),
    custom("json.filter", "O,J>a", functions::json_filter),
    custom("json.is_valid", "s>b", json_is_valid),
    custom("json.marshal", "a>s", json_marshal),
    custom("json.remove", "O,J>a", functions::json_remove),
    custom("json.unmarshal", "s>a", json_unmarshal),
    custom("lower", "s>s", functions::lower),
    checked("max", "M>a", functions::one_order),
    checked("min", "M>a", functions::one_order),
    checked("numbers.range", "n,n>N", range_within),
    checked("numbers.range_step", "n,n,n>N", range_step_within),
    native("object.filter", "O,Q>a"),
    native("object.get", "O,a,a>a"),
    native("object.keys", "O>S"),
    native("object.remove", "O,Q>a"),
    custom("object.subset", "U,U>a", functions::object_subset),
    native("object.union", "O,O>a"),
    native("object.union_n", "Y>a"),
    checked_custom("product", "F>n", product_within, functions::product),
    checked_custom(
        "regex.find_all_string_submatch_n",
        "s,s,n>Z",
        regex_within,
        patterns::find_submatches,
    ),
    checked_custom("regex.find_n", "s,s,n>L", regex_within, patterns::find_n),
    checked_custom("regex.is_valid", "s>b", regex_within, patterns::is_valid),
    checked_custom("regex.match", "s,s>b", regex_within, patterns::matches),
    checked_custom("regex.replace", "s,s,s>s", regex_within, patterns::replace),
    checked_custom("regex.split", "s,s>L", regex_within, patterns::split),
    checked("replace", "s,s,s>s", replace_within),
    checked("round", "n>n", functions::small),
    checked("semver.compare", "s,s>n", functions::versions),
    custom("semver.is_valid", "a>b", functions::semver_is_valid),
    checked("sort", "M>A", functions::one_order),
    checked("split", "s,s>L", text_within),
    custom("sprintf", "s,A>s", sprintf_call),
    native("startswith", "s,s>b"),
    native("strings.any_prefix_match", "P,P>b"),
    native("strings.any_suffix_match", "P,P>b"),
    custom("strings.count", "s,s>n", strings_count),
    custom("strings.replace_n", "R,s>s", functions::replace_n),
    checked("strings.reverse", "s>s", text_within),
    checked("substring", "s,n,n>s", functions::integers),
    custom("sum", "F>n", functions::sum),
    custom("to_number", "T>n", to_number),
    native("trim", "s,s>s"),
    native("trim_left", "s,s>s"),
    native("trim_prefix", "s,s>s"),
    native("trim_right", "s,s>s"),
    native("trim_space", "s>s"),
    native("trim_suffix", "s,s>s"),
    native("type_name", "a>s"),
    native("union", "G>S"),
    checked("units.parse", "s>n", number_text_within),
    checked_custom("units.parse_bytes", "s>n", number_text_within, functions::parse_bytes),
    custom("upper", "s>s", functions::upper),
];

/// What `negation` writes in place of `in`, because a call with an undefined operand is undefined
/// where regorus's operator is false (or true: two undefined values are equal). OPA compiles `in`
/// to calls, too (`internal.member_2` and `internal.member_3`). No policy can call these: they are
/// not in [`TABLE`].
pub(super) static MEMBERSHIP: [Builtin; 2] =
    [custom("__member", "a,a>b", member), custom("__member_with_key", "a,a,a>b", member_with_key)];

/// Every function that the engines call: the table, and what is written in place of `in`.
pub(super) fn all() -> impl Iterator<Item = &'static Builtin> {
    TABLE.iter().chain(&MEMBERSHIP)
}

/// The reason why a built-in of OPA is left out on purpose; `None` for any other name.
pub(super) fn forbidden(name: &str) -> Option<&'static str> {
    const NETWORK: &str = "a decision may not reach the network";
    const CLOCK: &str = "a decision may not read a clock; use `input.time`";
    const RANDOM: &str = "a decision may not be random";
    const HOST: &str = "a decision may not read the state of the host";
    Some(match name {
        "http.send" | "net.lookup_ip_addr" | "providers.aws.sign_req" => NETWORK,
        "time.now_ns" => CLOCK,
        "rand.intn" | "uuid.rfc4122" => RANDOM,
        "opa.runtime" | "rego.metadata.chain" | "rego.metadata.rule" | "rego.parse_module" => HOST,
        _ => return None,
    })
}

impl Builtin {
    /// The number of its arguments.
    pub(super) fn arity(&self) -> usize {
        let arguments = self.types.split_once('>').map_or("", |(arguments, _)| arguments);
        arguments.split(',').filter(|argument| !argument.is_empty()).count()
    }
}

/// The built-in with this name.
pub(super) fn find(name: &str) -> Option<&'static Builtin> {
    let at = TABLE.binary_search_by(|builtin| builtin.name.cmp(name)).ok()?;
    TABLE.get(at)
}

/// The same, among [`all`].
pub(super) fn find_any(name: &str) -> Option<&'static Builtin> {
    find(name).or_else(|| MEMBERSHIP.iter().find(|builtin| builtin.name == name))
}

/// Calls a built-in, with the bounds of `limits`. The engines never pass an undefined argument.
///
/// # Errors
///
/// The number, type or size of the arguments is wrong, the function failed or panicked, or its
/// result is undefined or too large. The message begins with the built-in's name.
pub(super) fn call(
    builtin: &Builtin,
    args: &[Value],
    limits: &EvalLimits,
    meter: &mut Meter,
) -> Result<Value, String> {
    if args.len() != builtin.arity() {
        return Err(format!("{}: takes {} arguments", builtin.name, builtin.arity()));
    }
    meter.charge(builtin, args, limits)?;
    let run = || match builtin.run {
        Run::Native => native_call(builtin.name, args),
        Run::Checked(check) => {
            check(args, limits)?;
            native_call(builtin.name, args)
        }
        Run::Custom(run) => run(args, limits),
        Run::CheckedCustom(check, run) => {
            check(args, limits)?;
            run(args, limits)
        }
    };
    let result = catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err("panicked on these arguments".to_owned()));
    result.and_then(|value| bounded(builtin, value, limits)).map_err(|error| {
        if error.starts_with(builtin.name) { error } else { format!("{}: {error}", builtin.name) }
    })
}

/// The steps that the built-ins of one evaluation have taken. Both engines count with it, so that a
/// policy is stopped at the same place on both, however busy the machine is.
#[derive(Debug, Default)]
pub(super) struct Meter {
    steps: u64,
}

impl Meter {
    /// Counts a call before it runs: one step, one for each byte of a text and each item of a
    /// collection among the arguments, and for a pattern the product of its length and the text's,
    /// which bounds the work of a matcher. For `in` it counts the items that are compared.
    ///
    /// # Errors
    ///
    /// The evaluation has taken more steps than [`EvalLimits::builtin_steps_max`].
    fn charge(
        &mut self,
        builtin: &Builtin,
        args: &[Value],
        limits: &EvalLimits,
    ) -> Result<(), String> {
        let compared = match (builtin.name, args) {
            ("__member", [_, Value::Array(items)]) => Some(items.len()),
            ("__member", [_, Value::Object(members)]) => Some(members.len()),
            ("__member" | "__member_with_key", _) => Some(0),
            _ => None,
        };
        let sizes = args.iter().map(|arg| u64::try_from(size(arg)).unwrap_or(u64::MAX));
        let matches = matches!(builtin.name, "glob.match" | "strings.replace_n")
            || builtin.name.starts_with("regex.");
        let work = if let Some(compared) = compared {
            u64::try_from(compared).unwrap_or(u64::MAX).saturating_add(1)
        } else if matches {
            sizes.fold(1, |product: u64, size| product.saturating_mul(size.max(1)))
        } else {
            sizes.fold(1, u64::saturating_add)
        };
        self.count(builtin.name, work, limits)
    }

    /// Counts `work` steps of the built-in `name`.
    ///
    /// # Errors
    ///
    /// As for a call.
    pub(super) fn count(
        &mut self,
        name: &str,
        work: u64,
        limits: &EvalLimits,
    ) -> Result<(), String> {
        self.steps = self.steps.saturating_add(work);
        if self.steps > limits.builtin_steps_max {
            let most = limits.builtin_steps_max;
            return Err(format!("{name}: the rules took more than {most} steps"));
        }
        Ok(())
    }
}

/// The bytes of a text, or the items of a collection; of its texts the bytes, too.
pub(crate) fn size(value: &Value) -> usize {
    let texts = |items: &mut dyn Iterator<Item = &Value>| {
        items.fold(0_usize, |sum, item| sum.saturating_add(1).saturating_add(text_length(item)))
    };
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => texts(&mut items.iter()),
        Value::Set(items) => texts(&mut items.iter()),
        Value::Object(members) => members
            .iter()
            .fold(0_usize, |sum, (key, _)| sum.saturating_add(1).saturating_add(text_length(key))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Undefined => 0,
    }
}

/// Checks the bounds of a result. regorus returns undefined for many errors, so undefined is an
/// error here, except for `max` and `min`, which have no result for an empty collection in OPA too.
fn bounded(builtin: &Builtin, value: Value, limits: &EvalLimits) -> Result<Value, String> {
    match &value {
        Value::Undefined if !matches!(builtin.name, "max" | "min") => {
            Err("has no result for these arguments".to_owned())
        }
        Value::String(text) if text.len() > limits.string_bytes_max => {
            Err(format!("the result is longer than {} bytes", limits.string_bytes_max))
        }
        Value::Array(items) if items.len() > limits.items_max => {
            Err(format!("the result has more than {} items", limits.items_max))
        }
        _ => Ok(value),
    }
}

/// `value in collection`. What is no collection has no members.
fn member(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let [value, collection] = args else { return Err("takes 2 arguments".to_owned()) };
    Ok(Value::Bool(match collection {
        Value::Array(items) => items.contains(value),
        Value::Set(items) => items.contains(value),
        Value::Object(members) => members.values().any(|it| it == value),
        _ => false,
    }))
}

/// `key, value in collection`. The key of a set's element is the element.
fn member_with_key(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let [key, value, collection] = args else { return Err("takes 3 arguments".to_owned()) };
    Ok(Value::Bool(match collection {
        Value::Array(_) | Value::Object(_) => match &collection[key] {
            Value::Undefined => false,
            found => found == value,
        },
        Value::Set(items) => key == value && items.contains(value),
        _ => false,
    }))
}

fn text(args: &[Value], at: usize) -> Result<&str, String> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("expects a string, not {}", kind(other))),
        None => Err("an argument is missing".to_owned()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

/// The length of an argument in bytes; 0 where it is no string, which the function itself reports.
fn length(args: &[Value], at: usize) -> usize {
    match args.get(at) {
        Some(Value::String(text)) => text.len(),
        _ => 0,
    }
}

fn at_most(what: &str, size: usize, max: usize) -> Result<(), String> {
    if size > max { Err(format!("{what} of {size} is above {max}")) } else { Ok(()) }
}

fn text_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    at_most("a length", length(args, 0), limits.string_bytes_max)
}

fn items_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    let items = args.iter().map(|arg| match arg {
        Value::Array(items) => items.len(),
        _ => 0,
    });
    at_most("a count", items.sum(), limits.items_max)
}

fn shift_within(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    match args.get(1).map(Value::as_i64) {
        Some(Ok(shift)) if (0..=SHIFT_MAX).contains(&shift) => Ok(()),
        _ => Err(format!("expects a shift between 0 and {SHIFT_MAX}")),
    }
}

fn concat_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    let parts: Vec<usize> = match args.get(1) {
        Some(Value::Array(items)) => items.iter().map(text_length).collect(),
        Some(Value::Set(items)) => items.iter().map(text_length).collect(),
        _ => Vec::new(),
    };
    let between = length(args, 0).saturating_mul(parts.len());
    let total = parts.into_iter().fold(between, usize::saturating_add);
    at_most("a length", total, limits.string_bytes_max)
}

/// The bytes of a text; 0 for any other value.
pub(crate) fn text_length(value: &Value) -> usize {
    length(std::slice::from_ref(value), 0)
}

/// Upper bound, bytes: an empty pattern matches before and after each character, and each match is
/// replaced.
fn replaced(text: usize, with: usize) -> usize {
    text.saturating_add(1).saturating_mul(with).saturating_add(text)
}

fn replace_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    functions::something_to_replace(args)?;
    // A pattern of n bytes matches at most length / n times.
    let (whole, old) = (length(args, 0), length(args, 1));
    let slots = whole.checked_div(old).unwrap_or(whole);
    let grown = replaced(slots, length(args, 2)).saturating_add(whole);
    at_most("a length", grown, limits.string_bytes_max)
}

fn regex_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    for at in 0..args.len() {
        at_most("a length", length(args, at), limits.pattern_text_bytes_max)?;
    }
    Ok(())
}

fn product_within(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    let factors = match args.first() {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Set(items)) => items.len(),
        _ => 0,
    };
    at_most("a count", factors, FACTORS_MAX)
}

fn integers(args: &[Value]) -> Result<Vec<i64>, String> {
    args.iter().map(|arg| arg.as_i64().map_err(|_| "expects integers".to_owned())).collect()
}

fn range_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    match integers(args)?.as_slice() {
        [from, to, ..] => {
            let items = usize::try_from(from.abs_diff(*to)).unwrap_or(usize::MAX);
            at_most("a count", items.saturating_add(1), limits.items_max)
        }
        _ => Err("expects integers".to_owned()),
    }
}

fn range_step_within(args: &[Value], limits: &EvalLimits) -> Result<(), String> {
    range_within(args, limits)?;
    match integers(args)?.as_slice() {
        [_, _, step] if *step > 0 => Ok(()),
        _ => Err("expects a step above 0".to_owned()),
    }
}

/// regorus's number parser runs for minutes on a long exponent, so the exponent is limited to two
/// digits.
fn number_text_within(args: &[Value], _: &EvalLimits) -> Result<(), String> {
    let text = text(args, 0)?;
    at_most("a length", text.len(), NUMBER_CHARS_MAX)?;
    if text.contains('_') {
        return Err("expects a number without `_`".to_owned());
    }
    let mut digits: Option<usize> = None;
    for byte in text.bytes() {
        digits = match byte {
            b'e' | b'E' => Some(0),
            b'+' | b'-' => digits,
            b'0'..=b'9' => digits.map(|digits| digits.saturating_add(1)),
            _ => None,
        };
        if digits.is_some_and(|digits| digits > 2) {
            return Err("expects an exponent of at most two digits".to_owned());
        }
    }
    Ok(())
}

fn glob_match(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let (pattern, matched) = (text(args, 0)?, text(args, 2)?);
    regex_within(args, limits)?;
    let mut delimiters = Vec::new();
    match args.get(1) {
        Some(Value::Null) => {}
        Some(Value::Array(items)) if items.is_empty() => delimiters.push('.'),
        Some(Value::Array(items)) => {
            for item in items.iter() {
                let mut characters = text(std::slice::from_ref(item), 0)?.chars();
                match (characters.next(), characters.next()) {
                    (Some(delimiter), None) => delimiters.push(delimiter),
                    _ => return Err("expects delimiters of one character".to_owned()),
                }
            }
        }
        _ => return Err("expects null or an array of delimiters".to_owned()),
    }
    glob::matches(pattern, &delimiters, matched).map(Value::from)
}

fn sprintf_call(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    let format = text(args, 0)?;
    match args.get(1) {
        Some(Value::Array(items)) => {
            sprintf::sprintf(format, items.as_slice(), limits.string_bytes_max).map(Value::from)
        }
        _ => Err("expects an array of arguments".to_owned()),
    }
}

fn strings_count(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let (whole, part) = (text(args, 0)?, text(args, 1)?);
    // Go's `strings.Count` gives the number of characters plus one for an empty substring.
    let count = if part.is_empty() {
        whole.chars().count().saturating_add(1)
    } else {
        whole.matches(part).count()
    };
    Ok(Value::from(count))
}

fn to_number(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    match args.first() {
        Some(Value::Null) => Ok(Value::from(0_u64)),
        Some(Value::Bool(value)) => Ok(Value::from(u64::from(*value))),
        Some(number @ Value::Number(_)) => Ok(number.clone()),
        Some(Value::String(text)) => {
            at_most("a length", text.len(), NUMBER_CHARS_MAX)?;
            // OPA takes `+1`, `010` and `5.`, and fails when it writes or compares such a number.
            if serde_json::from_str::<serde_json::Number>(text).is_err() || text.trim() != &**text {
                return Err("expects a number as JSON writes it".to_owned());
            }
            number::exact(text).ok_or_else(|| "expects a number with an exact value".to_owned())
        }
        _ => Err("expects null, a boolean, a number or a string".to_owned()),
    }
}

fn read_json(args: &[Value], limits: &EvalLimits) -> Result<Result<Value, String>, String> {
    let text = text(args, 0)?;
    at_most("a length", text.len(), limits.string_bytes_max)?;
    let bounds = DocumentLimits { bytes_max: limits.string_bytes_max, ..DocumentLimits::default() };
    let document = match Document::read(Bytes::copy_from_slice(text.as_bytes()), &bounds) {
        Ok(document) => document,
        Err(unreadable) => return Ok(Err(super::problem::not_strict_json(&unreadable))),
    };
    let input = super::value::of_document(document.root());
    Ok(match input.inexact.first() {
        Some(pointer) => Err(format!("the number at `{pointer}` has no exact value")),
        None => Ok(input.value),
    })
}

fn json_is_valid(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    if read_json(args, limits)?.is_ok() {
        return Ok(Value::Bool(true));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(text(args, 0)?) {
        Ok(_) => Err("expects JSON that has one meaning".to_owned()),
        Err(_) => Ok(Value::Bool(false)),
    }
}

fn json_unmarshal(args: &[Value], limits: &EvalLimits) -> Result<Value, String> {
    read_json(args, limits)?
}

/// Escapes the characters that Go's `encoding/json` escapes, so that the text equals OPA's.
fn json_marshal(args: &[Value], _: &EvalLimits) -> Result<Value, String> {
    let value = args.first().ok_or("an argument is missing")?;
    let mut text = String::new();
    for character in super::value::json(value).chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let escape = format!("\\u{:04x}", u32::from(character));
                text.push_str(&escape);
            }
            other => text.push(other),
        }
    }
    Ok(Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, args: &str) -> Result<String, String> {
        let args = Value::from_json_str(args).unwrap();
        let args: Vec<Value> = args.as_array().unwrap().iter().cloned().collect();
        call(find(name).unwrap(), &args, &EvalLimits::default(), &mut Meter::default())
            .map(|value| value.to_string())
    }

    #[test]
    fn the_table_is_sorted_and_each_entry_can_run() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
        for builtin in TABLE {
            let carried_out = matches!(builtin.run, Run::Custom(_) | Run::CheckedCustom(..));
            let native = regorus::unstable::BUILTINS.get(builtin.name);
            assert!(carried_out || native.is_some(), "{}", builtin.name);
            if let Some((_, arity)) = native {
                assert_eq!(builtin.arity(), usize::from(*arity), "{}", builtin.name);
            }
            assert!(forbidden(builtin.name).is_none(), "{}", builtin.name);
        }
    }

    #[test]
    fn no_arguments_panic_or_hang_a_builtin() {
        let values = [
            "null",
            "true",
            "-1",
            "0",
            "5",
            "1.5",
            "9223372036854775807",
            "18446744073709551615",
            "1e300",
            "\"\"",
            "\"a\"",
            "\"日本\"",
            "\"1e99\"",
            "\"%d\"",
            "\"[\"",
            "[]",
            "[\"a\", 1]",
            "[[1]]",
            "{}",
            "{\"a\": 1}",
            "{\"a\": {\"b\": \"c\"}}",
        ];
        for builtin in TABLE {
            for first in values {
                for second in values {
                    let args = [first, second, "5"][..builtin.arity()].join(",");
                    let result = run(builtin.name, &format!("[{args}]"));
                    let panicked = result.as_ref().is_err_and(|error| error.contains("panicked"));
                    assert!(!panicked, "{}({args}): {result:?}", builtin.name);
                }
            }
        }
    }

    #[test]
    fn what_hangs_or_grows_elsewhere_fails_here() {
        let long = "x".repeat(5_000);
        for (name, args) in [
            ("units.parse", "[\"1e400000000\"]".to_owned()),
            ("units.parse", "[\"1e400000000Ki\"]".to_owned()),
            ("units.parse_bytes", "[\"1E+400000000\"]".to_owned()),
            ("units.parse", "[\"5 Ki\"]".to_owned()),
            ("units.parse", "[\"5x\"]".to_owned()),
            ("to_number", "[\"1e100000000\"]".to_owned()),
            ("to_number", "[\"18446744073709551617\"]".to_owned()),
            ("numbers.range", "[1, 50000000]".to_owned()),
            ("numbers.range_step", "[5, 9, -1]".to_owned()),
            ("numbers.range_step", "[5, 9, 0]".to_owned()),
            ("bits.lsh", "[1, 1000000000]".to_owned()),
            ("bits.lsh", "[1, -1]".to_owned()),
            ("sprintf", "[\"%1000000000d\", [1]]".to_owned()),
            ("replace", format!("[\"{long}\", \"\", \"{long}\"]")),
            ("startswith", "[[\"a\"], \"a\"]".to_owned()),
            ("count", "[5]".to_owned()),
            ("glob.match", "[\"[\", [], \"a\"]".to_owned()),
            ("glob.match", "[\"a\", [\"ab\"], \"a\"]".to_owned()),
            ("regex.match", "[\"(\", \"a\"]".to_owned()),
            ("json.unmarshal", "[\"{\\\"a\\\": 1, \\\"a\\\": 2}\"]".to_owned()),
        ] {
            assert!(run(name, &args).is_err(), "{name}({args})");
        }
    }

    #[test]
    fn steps_are_counted_before_the_work_and_over_a_whole_evaluation() {
        let limits = EvalLimits::default();
        let long = Value::from("a*".repeat(8 << 10));
        let text = Value::from("a".repeat(16 << 10));
        let glob = find("glob.match").unwrap();
        let args = [long, Value::Null, text.clone()];
        let refused = call(glob, &args, &limits, &mut Meter::default()).unwrap_err();
        assert!(refused.contains("steps"), "{refused}");

        let mut meter = Meter::default();
        let args = [Value::from("a"), text];
        let calls = (0..10_000)
            .take_while(|_| call(find("startswith").unwrap(), &args, &limits, &mut meter).is_ok());
        let calls = u64::try_from(calls.count()).unwrap();
        assert_eq!(calls, limits.builtin_steps_max / (1 + 1 + (16 << 10)));
    }

    #[test]
    fn results_are_those_of_opa() {
        for (name, args, expected) in [
            ("strings.count", "[\"ab\", \"\"]", "3"),
            ("strings.count", "[\"abab\", \"ab\"]", "2"),
            ("units.parse", "[\"10Ki\"]", "10240"),
            ("units.parse", "[\"1.5K\"]", "1500"),
            ("to_number", "[\"1.50\"]", "1.5"),
            ("to_number", "[true]", "1"),
            ("numbers.range", "[3, 1]", "[3,2,1]"),
            ("glob.match", "[\"a.*\", [], \"a.b\"]", "true"),
            ("glob.match", "[\"a.*\", [], \"a.b.c\"]", "false"),
            ("glob.match", "[\"a*\", null, \"a.b.c\"]", "true"),
            ("sprintf", "[\"%v\", [[\"a\"]]]", "\"[\\\"a\\\"]\""),
            (
                "json.marshal",
                "[{\"b\": \"<\", \"a\": 1}]",
                "\"{\\\"a\\\":1,\\\"b\\\":\\\"\\\\u003c\\\"}\"",
            ),
            ("object.get", "[{\"a\": {\"b\": 1}}, [\"a\", \"b\"], 0]", "1"),
            ("substring", "[\"abc\", 1, -1]", "\"bc\""),
            ("trim_space", "[\" a \"]", "\"a\""),
        ] {
            assert_eq!(run(name, args).as_deref(), Ok(expected), "{name}({args})");
        }
    }
}
