//! Converts JSON number literals to values without rounding.
//!
//! regorus stores integers of up to 64 bits exactly and other numbers as binary64 (IEEE 754). If a
//! literal were rounded to the nearest binary64, two different numbers would be equal in a rule.
//! Such a literal has no value here, and a decision that reads it denies
//! (`docs/threats.md`, A12; `docs/policy.md`, "`input`, version 1"). Arithmetic is done by the
//! engines.

use regorus::Value;

/// Longest literal that is converted, bytes: what the strict reader allows
/// (`docs/strict-profile.md`, P3).
const LITERAL_CHARS_MAX: usize = 256;

/// A decimal number: `digits` (no leading or trailing zero, empty for 0) times ten to the power
/// `exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

/// The value of a JSON number literal; `None` where it has no exact value, or is no number.
///
/// A literal is exact where it is an integer of at most 64 bits, or equals the shortest decimal
/// text of its binary64, in any notation (`1.50`, `15e-1`). So `0.1` is exact, and
/// `0.1000000000000000055`, which rounds to the same binary64, is not.
pub(super) fn exact(literal: &str) -> Option<Value> {
    if let Ok(small) = literal.parse::<i64>() {
        return Some(Value::from(small));
    }
    if literal.len() > LITERAL_CHARS_MAX {
        return None;
    }
    let decimal = Decimal::read(literal)?;
    if decimal.digits.is_empty() {
        return Some(Value::from(0_i64));
    }
    if let Some(integer) = decimal.integer() {
        return Some(integer);
    }
    if literal.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None; // an integer beyond 64 bits
    }
    let float = literal.parse::<f64>().ok().filter(|float| float.is_finite())?;
    (Decimal::read(&format!("{float:e}"))? == decimal).then(|| Value::from(float))
}

/// The sum of numbers, each taken for the shortest decimal text of its value; `None` where the sum
/// has no exact value, or one of the values is no number.
pub(super) fn exact_sum(numbers: &[Value]) -> Option<Value> {
    /// Most digits after the point. Finer fractions have no sum here.
    const FRACTION_DIGITS_MAX: i64 = 17;
    let mut sum = 0_i128;
    for number in numbers {
        let literal = match number {
            Value::Number(_) => match (number.as_i64(), number.as_u64()) {
                (Ok(integer), _) => integer.to_string(),
                (_, Ok(integer)) => integer.to_string(),
                _ => format!("{:e}", number.as_f64().ok()?),
            },
            _ => return None,
        };
        let decimal = Decimal::read(&literal)?;
        let zeros = usize::try_from(decimal.exponent.checked_add(FRACTION_DIGITS_MAX)?).ok()?;
        if zeros > 36 {
            return None;
        }
        let digits = if decimal.digits.is_empty() { "0" } else { decimal.digits.as_str() };
        let scaled = format!("{digits}{}", "0".repeat(zeros)).parse::<i128>().ok()?;
        let signed = if decimal.negative { scaled.checked_neg()? } else { scaled };
        sum = sum.checked_add(signed)?;
    }
    exact(&format!("{sum}e-{FRACTION_DIGITS_MAX}"))
}

impl Decimal {
    fn read(literal: &str) -> Option<Self> {
        let (negative, rest) = match literal.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, literal),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        let dropped = all.len().checked_sub(all.trim_end_matches('0').len())?;
        let exponent = exponent
            .checked_sub(i64::try_from(fraction.len()).ok()?)?
            .checked_add(i64::try_from(dropped).ok()?)?;
        let exponent = if digits.is_empty() { 0 } else { exponent };
        Some(Self { negative, digits: digits.to_owned(), exponent })
    }

    /// The value where it is an integer of at most 64 bits.
    fn integer(&self) -> Option<Value> {
        let zeros = usize::try_from(self.exponent).ok().filter(|zeros| *zeros <= 20)?;
        let sign = if self.negative { "-" } else { "" };
        let text = format!("{sign}{}{}", self.digits, "0".repeat(zeros));
        text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_has_a_value_only_where_the_value_is_exactly_it() {
        let exactly = |text: &str| exact(text).map(|value| value.to_string());
        for (literal, value) in [
            ("0", Some("0")),
            ("-0", Some("0")),
            ("-0.0e5", Some("0")),
            ("1.0", Some("1")),
            ("1e3", Some("1000")),
            ("-12.5", Some("-12.5")),
            ("0.1", Some("0.1")),
            ("1.50", Some("1.5")),
            ("9007199254740993", Some("9007199254740993")),
            ("9007199254740993.0", Some("9007199254740993")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("-9223372036854775808", Some("-9223372036854775808")),
            ("18446744073709551616", None),
            ("18446744073709551617", None),
            ("-9223372036854775809", None),
            ("0.1000000000000000055", None),
            ("9007199254740992.5", None),
            ("1e-400", None),
            ("1e400", None),
            ("1e100000000", None),
            ("1e99999999999999999999", None),
            ("", None),
            ("-", None),
            ("x", None),
        ] {
            assert_eq!(exactly(literal).as_deref(), value, "{literal}");
        }
    }
}
