//! Rates and times as policies and packs write them: `10/m`, `10/15m`, `15m`.

use std::time::Duration;

/// `count` events per `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Events; 0 means none at all, never unlimited.
    pub count: u32,
    /// The period that they are counted over.
    pub period: Duration,
}

impl Rate {
    /// Reads `10/m` or `10/15m`.
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

/// Reads a whole number of seconds, minutes, hours or days, above 0: `15m`.
pub fn span(text: &str) -> Option<Duration> {
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let seconds = whole(number)?.checked_mul(seconds).filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}

/// Digits only: no sign, no space.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
