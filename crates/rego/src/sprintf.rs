//! `sprintf` as in OPA: Go's `fmt.Sprintf` (<https://pkg.go.dev/fmt>) over numbers and strings.
//!
//! An argument that does not fit its verb is printed as Go prints it, `%!d(string=x)`, and is no
//! error, so a rule does not lose its message. The only error is a result above the limit. As in
//! OPA, a whole number is an `int` and another number a `float64`; a value that is neither number
//! nor string is its Rego text, as a string.

use regorus::Value;

use super::re2::is_shown;

/// An argument, by its Go type. `small` is absent for integers above 128 bits.
enum Arg {
    Int { negative: bool, digits: String, small: Option<i128> },
    Float(f64),
    Text(String),
}

/// The flags, width and precision between `%` and the verb.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of Go's format")]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats `args`.
///
/// # Errors
///
/// The result, a width or a precision is above `bytes_max` bytes.
pub(super) fn sprintf(format: &str, args: &[Value], bytes_max: usize) -> Result<String, String> {
    let args: Vec<Arg> = args.iter().map(Arg::of).collect();
    let mut state =
        Formatter { out: String::new(), args: &args, next: 0, reordered: false, bytes_max };
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        state.push(before)?;
        rest = state.directive(after)?;
    }
    state.push(rest)?;
    state.extra()?;
    Ok(state.out)
}

struct Formatter<'a> {
    out: String,
    args: &'a [Arg],
    next: usize,
    reordered: bool,
    bytes_max: usize,
}

impl<'a> Formatter<'a> {
    fn push(&mut self, text: &str) -> Result<(), String> {
        if self.out.len().saturating_add(text.len()) > self.bytes_max {
            return Err(format!("sprintf: the result is longer than {} bytes", self.bytes_max));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn take(&mut self) -> Option<&'a Arg> {
        let arg = self.args.get(self.next);
        self.next = self.next.saturating_add(1);
        arg
    }

    /// Formats one directive, whose text begins after its `%`. Returns the text after it.
    fn directive<'f>(&mut self, text: &'f str) -> Result<&'f str, String> {
        let mut spec = Spec::default();
        let mut rest = text;
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            rest = skip(rest, flag);
        }
        let mut index_ok = true;
        (rest, index_ok) = self.index(rest, index_ok);
        (rest, spec.width) = self.count(rest, "%!(BADWIDTH)", &mut spec.minus)?;
        if let Some(after) = rest.strip_prefix('.') {
            (rest, index_ok) = self.index(after, index_ok);
            let mut negative = false;
            let (after, precision) = self.count(rest, "%!(BADPREC)", &mut negative)?;
            rest = after;
            spec.precision = (!negative).then(|| precision.unwrap_or(0));
        }
        (rest, index_ok) = self.index(rest, index_ok);
        let Some(verb) = rest.chars().next() else {
            self.push("%!(NOVERB)")?;
            return Ok(rest);
        };
        if verb == '%' {
            self.push("%")?;
        } else if !index_ok {
            self.push(&format!("%!{verb}(BADINDEX)"))?;
        } else {
            match self.take() {
                Some(arg) => {
                    let text = arg.format(verb, &spec, self.bytes_max)?;
                    self.push(&text)?;
                }
                None => self.push(&format!("%!{verb}(MISSING)"))?,
            }
        }
        Ok(skip(rest, verb))
    }

    /// Reads an explicit argument index, `[n]`, counted from 1. An invalid one returns `false`.
    fn index<'f>(&mut self, text: &'f str, ok: bool) -> (&'f str, bool) {
        let Some((inside, after)) = text.strip_prefix('[').and_then(|it| it.split_once(']')) else {
            return (text, ok);
        };
        self.reordered = true;
        match inside.parse::<usize>().ok().and_then(|n| n.checked_sub(1)) {
            Some(index) if index < self.args.len() => {
                self.next = index;
                (after, ok)
            }
            _ => (after, false),
        }
    }

    /// Reads a width or precision: digits, or `*` for the next argument.
    fn count<'f>(
        &mut self,
        text: &'f str,
        bad: &str,
        negative: &mut bool,
    ) -> Result<(&'f str, Option<usize>), String> {
        if let Some(after) = text.strip_prefix('*') {
            let number = match self.take() {
                Some(Arg::Int { small: Some(number), .. }) => Some(*number),
                _ => None,
            };
            let Some(number) = number else {
                self.push(bad)?;
                return Ok((after, None));
            };
            *negative |= number < 0;
            let count = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
            return self.bounded(count).map(|count| (after, Some(count)));
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, after) = text.split_at_checked(end).unwrap_or((text, ""));
        if digits.is_empty() {
            return Ok((text, None));
        }
        let count = digits.parse::<usize>().unwrap_or(usize::MAX);
        self.bounded(count).map(|count| (after, Some(count)))
    }

    fn bounded(&self, count: usize) -> Result<usize, String> {
        if count > self.bytes_max {
            return Err(format!("sprintf: a width or precision above {}", self.bytes_max));
        }
        Ok(count)
    }

    /// Appends the arguments that no directive used, as Go does: `%!(EXTRA string=x)`.
    fn extra(&mut self) -> Result<(), String> {
        if self.reordered || self.next >= self.args.len() {
            return Ok(());
        }
        let rest = self.args.get(self.next..).unwrap_or_default();
        let shown: Vec<String> =
            rest.iter().map(|arg| format!("{}={}", arg.go_type(), arg.plain())).collect();
        self.push(&format!("%!(EXTRA {})", shown.join(", ")))
    }
}

fn skip(text: &str, first: char) -> &str {
    text.strip_prefix(first).unwrap_or(text)
}

impl Arg {
    fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.to_string()),
            Value::Number(number) if number.is_integer() => {
                let text = number.format_decimal();
                let digits = text.trim_start_matches('-').to_owned();
                Self::Int { negative: text.starts_with('-'), digits, small: number.as_i128() }
            }
            Value::Number(number) => Self::Float(number.as_f64().unwrap_or(0.0)),
            other => Self::Text(rego_text(other)),
        }
    }

    fn go_type(&self) -> &'static str {
        match self {
            Self::Int { small, .. } if small.is_some_and(|it| i64::try_from(it).is_ok()) => "int64",
            Self::Int { .. } => "*big.Int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
        }
    }

    /// The argument as `%v` prints it.
    fn plain(&self) -> String {
        match self {
            Self::Int { negative, digits, .. } => {
                format!("{}{digits}", if *negative { "-" } else { "" })
            }
            Self::Float(float) => go_float(*float, 'g', None),
            Self::Text(text) => text.clone(),
        }
    }

    fn format(&self, verb: char, spec: &Spec, bytes_max: usize) -> Result<String, String> {
        let done = match (self, verb) {
            (_, 'T') => Some(pad(self.go_type(), spec)),
            (Self::Text(text), 'v' | 's') => Some(pad(&truncated(text, spec), spec)),
            (Self::Text(text), 'q') => Some(pad(&quoted(&truncated(text, spec)), spec)),
            (Self::Text(text), 'x' | 'X') => Some(pad(&hex_text(text, verb, spec), spec)),
            (Self::Int { negative, digits, .. }, 'v' | 'd') => {
                Some(number(*negative, &precise(digits, spec), "", spec))
            }
            (Self::Int { negative, small: Some(small), .. }, 'x' | 'X' | 'o' | 'O' | 'b') => {
                let (digits, prefix) = radix(small.unsigned_abs(), verb, spec);
                Some(number(*negative, &precise(&digits, spec), prefix, spec))
            }
            (Self::Int { negative: true, .. }, 'U') => {
                return Err("sprintf: `%U` expects no negative number".to_owned());
            }
            (Self::Int { small: Some(small), .. }, 'c' | 'q' | 'U') => {
                Some(pad(&rune(*small, verb), spec))
            }
            (Self::Float(float), 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') => {
                let negative = float.is_sign_negative();
                Some(number(negative, &go_float(float.abs(), verb, spec.precision), "", spec))
            }
            _ => None,
        };
        if done.is_none() && (spec.width.is_some() || spec.precision.is_some()) {
            // Go applies them to the value inside `%!d(string=x)`, by the rules of `%v`.
            return Err(format!("sprintf: `%{verb}` with a width does not fit its argument"));
        }
        let text = done.unwrap_or_else(|| format!("%!{verb}({}={})", self.go_type(), self.plain()));
        if text.len() > bytes_max {
            return Err(format!("sprintf: the result is longer than {bytes_max} bytes"));
        }
        Ok(text)
    }
}

fn truncated(text: &str, spec: &Spec) -> String {
    match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    }
}

/// Pads to the width with spaces, or with zeros on the left where `0` asks for them.
fn pad(text: &str, spec: &Spec) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if spec.minus {
        format!("{text}{}", " ".repeat(missing))
    } else {
        format!("{}{text}", if spec.zero { "0" } else { " " }.repeat(missing))
    }
}

/// Adds leading zeros up to the precision.
fn precise(digits: &str, spec: &Spec) -> String {
    let missing = spec.precision.unwrap_or(0).saturating_sub(digits.len());
    format!("{}{digits}", "0".repeat(missing))
}

fn number(negative: bool, digits: &str, prefix: &str, spec: &Spec) -> String {
    let sign = match (negative, spec.plus, spec.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    };
    let head = format!("{sign}{prefix}");
    if spec.zero && !spec.minus {
        let used = head.len().saturating_add(digits.len());
        let zeros = spec.width.unwrap_or(0).saturating_sub(used);
        return format!("{head}{}{digits}", "0".repeat(zeros));
    }
    pad(
        &format!("{head}{digits}"),
        &Spec { zero: false, ..Spec { width: spec.width, minus: spec.minus, ..Spec::default() } },
    )
}

fn radix(number: u128, verb: char, spec: &Spec) -> (String, &'static str) {
    match verb {
        'x' => (format!("{number:x}"), if spec.sharp { "0x" } else { "" }),
        'X' => (format!("{number:X}"), if spec.sharp { "0X" } else { "" }),
        'o' => (format!("{number:o}"), if spec.sharp { "0" } else { "" }),
        'O' => (format!("{number:o}"), "0o"),
        _ => (format!("{number:b}"), if spec.sharp { "0b" } else { "" }),
    }
}

fn rune(number: i128, verb: char) -> String {
    let code = u32::try_from(number).ok();
    let character = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    match verb {
        'U' => format!("U+{number:04X}"),
        'q' => format!("'{character}'"),
        _ => character.to_string(),
    }
}

fn hex_text(text: &str, verb: char, spec: &Spec) -> String {
    let hex: String = text
        .bytes()
        .take(spec.precision.unwrap_or(usize::MAX))
        .map(|byte| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") })
        .collect();
    if spec.sharp && !hex.is_empty() { format!("0{verb}{hex}") } else { hex }
}

/// Like Go's `strconv.Quote`, except that printable characters outside ASCII are not classified
/// by Unicode tables: only control characters are escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            shown if is_shown(shown) => out.push(shown),
            other => {
                let code = u32::from(other);
                let escape = match code {
                    0..0x80 => format!("\\x{code:02x}"),
                    0x80..0x1_0000 => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                };
                out.push_str(&escape);
            }
        }
    }
    out.push('"');
    out
}

/// Like Go's `strconv.FormatFloat`, for a float of either sign.
fn go_float(float: f64, verb: char, precision: Option<usize>) -> String {
    let upper = verb.is_ascii_uppercase();
    let text = match verb.to_ascii_lowercase() {
        'e' => exponent(&format!("{float:.*e}", precision.unwrap_or(6))),
        'f' => format!("{float:.*}", precision.unwrap_or(6)),
        _ => general(float, precision),
    };
    if upper { text.to_uppercase() } else { text }
}

/// `%g`: scientific notation where the exponent is below -4, or at least the precision (6 where
/// none is given).
fn general(float: f64, precision: Option<usize>) -> String {
    let scientific = match precision {
        None => format!("{float:e}"),
        Some(precision) => format!("{float:.*e}", precision.max(1).saturating_sub(1)),
    };
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power_of_ten = power.parse::<i32>().unwrap_or(0);
    let digits = i32::try_from(precision.map_or(6, |precision| precision.max(1)));
    let digits = digits.unwrap_or(i32::MAX);
    let trim = |text: &str| {
        if precision.is_some() && text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if power_of_ten < -4 || power_of_ten >= digits {
        return exponent(&format!("{}e{power}", trim(mantissa)));
    }
    if precision.is_none() {
        return format!("{float}");
    }
    let decimals = digits.saturating_sub(1).saturating_sub(power_of_ten);
    let decimals = usize::try_from(decimals).unwrap_or(0);
    trim(&format!("{float:.decimals$}"))
}

/// Rewrites Rust's `1.5e3` to Go's `1.5e+03`.
fn exponent(text: &str) -> String {
    let Some((mantissa, power)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A value as Rego text, as OPA prints it: `{1, 2}` for a set, `set()` for an empty one.
pub(super) fn rego_text(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", joined(items.iter())),
        Value::Set(items) if items.is_empty() => "set()".to_owned(),
        Value::Set(items) => format!("{{{}}}", joined(items.iter())),
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter_sorted()
                .map(|(name, member)| format!("{}: {}", rego_text(name), rego_text(member)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::String(text) => quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => super::value::json(value),
        Value::Undefined => "undefined".to_owned(),
    }
}

fn joined<'a>(items: impl Iterator<Item = &'a Value>) -> String {
    items.map(rego_text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_print_as_in_go() {
        for (format, args, expected) in [
            ("plain", "[]", "plain"),
            ("%s is outside %s", r#"["a","b"]"#, "a is outside b"),
            ("%v %v %v", r#"[1, 1.5, "x"]"#, "1 1.5 x"),
            ("%d%%", "[5]", "5%"),
            ("%5d|%-5d|%05d|%+d", "[42,42,42,42]", "   42|42   |00042|+42"),
            ("%05d", "[-42]", "-0042"),
            ("%6.2f|%.0f", "[3.14159,2.5]", "  3.14|2"),
            ("%f", "[1.5]", "1.500000"),
            ("%e", "[1234.5]", "1.234500e+03"),
            ("%g %g", "[0.00001, 123456789.5]", "1e-05 1.234567895e+08"),
            ("%5s|%-5s|%.2s", r#"["ab","ab","abcd"]"#, "   ab|ab   |ab"),
            ("%q", r#"["a\"b"]"#, r#""a\"b""#),
            ("%x %X %o %b %c %U", "[255,255,8,5,65,65]", "ff FF 10 101 A U+0041"),
            ("%x", r#"["hi"]"#, "6869"),
            ("%d", r#"["x"]"#, "%!d(string=x)"),
            ("%s", "[5]", "%!s(int64=5)"),
            ("%f", "[5]", "%!f(int64=5)"),
            ("%t", "[true]", "%!t(string=true)"),
            ("%s %s", r#"["a"]"#, "a %!s(MISSING)"),
            ("%s", r#"["a","b",1]"#, "a%!(EXTRA string=b, int64=1)"),
            ("%", "[]", "%!(NOVERB)"),
            ("%v %v %v", r#"[[1,"a"],{"k":null},true]"#, r#"[1, "a"] {"k": null} true"#),
            ("%[2]s %[1]s", r#"["a","b"]"#, "b a"),
            ("%[3]s", r#"["a"]"#, "%!s(BADINDEX)"),
            ("%*d", "[5,42]", "   42"),
            ("%T %T %T", r#"[1,1.5,"a"]"#, "int64 float64 string"),
            ("%d", "[9223372036854775807]", "9223372036854775807"),
        ] {
            let args = Value::from_json_str(args).unwrap();
            let args: Vec<Value> = args.as_array().unwrap().iter().cloned().collect();
            assert_eq!(sprintf(format, &args, 4096).as_deref(), Ok(expected), "{format}");
        }
    }

    #[test]
    fn a_result_above_the_limit_is_an_error() {
        for format in ["%1000000000d", "%.1000000000f", "%99999999999999999999d"] {
            assert!(sprintf(format, &[Value::from(1.5)], 4096).is_err(), "{format}");
        }
        let long = Value::from("x".repeat(4000));
        assert!(sprintf("%s%s", &[long.clone(), long], 4096).is_err());
    }
}
