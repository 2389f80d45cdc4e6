//! Parses rates and durations as policies and packs write them: `10/m`, `10/15m`, `15m`.

use std::time::Duration;

/// `count` events per `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Events in each period; 0 means none at all, never unlimited.
    pub count: u32,
    /// The period over which events are counted.
    pub period: Duration,
}

impl Rate {
    /// Parses `<count>/<period>`, such as `10/m` or `10/15m`; units are `s`, `m`, `h` and `d`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, period) = text.split_once('/')?;
        let count = u32::try_from(whole(count)?).ok()?;
        let period = match period {
            "s" | "m" | "h" | "d" => span(&format!("1{period}")),
            longer => span(longer),
        };
        Some(Self { count, period: period? })
    }
}

/// Parses a whole number of seconds, minutes, hours or days that is above 0, such as `15m`.
pub fn span(text: &str) -> Option<Duration> {
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let seconds = whole(number)?.checked_mul(seconds).filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}

/// Parses decimal digits without a sign or a space.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
