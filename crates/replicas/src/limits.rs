//! What limits have counted, in the shared store: one key for each bucket, with the time to live after
//! which nothing counts in it any more. One script takes from all limits of a call, or from none, by
//! the clock of the store.

use std::sync::Arc;

use bartizan_gate::duty::limit::Wait;
use bartizan_gate::duty::limit::shared::{
    NotShared, SharedForm, SharedLimits, SharedTake, micros, wait_micros,
};

use crate::link::{Link, LinkError, Script};

/// The counts of all firewalls that share a store.
pub struct SharedCounts {
    link: Arc<Link>,
    take: Script,
}

impl std::fmt::Debug for SharedCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedCounts").field("link", &self.link).finish_non_exhaustive()
    }
}

impl SharedCounts {
    /// The counts in the store at `link`.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, take: Script::new(include_str!("scripts/limits.lua")) }
    }

    /// The refusal of one of `takes`; `None` if everything was taken.
    fn taken(&self, takes: &[SharedTake]) -> Result<Option<(usize, Wait)>, LinkError> {
        let keys: Vec<String> =
            takes.iter().map(|take| self.link.key(&format!("limit/{}", take.name))).collect();
        let args: Vec<String> = takes.iter().flat_map(arguments).collect();
        let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
        let (number, wait): (usize, String) = self.link.run(&self.take, &keys, &args)?;
        let Some(number) = number.checked_sub(1) else { return Ok(None) };
        let wait = match &*wait {
            "never" => Wait::Forever,
            wait => wait_micros(wait.parse().map_err(|_| LinkError::odd())?),
        };
        Ok(Some((number, wait)))
    }
}

impl SharedLimits for SharedCounts {
    fn take(&self, takes: &[SharedTake]) -> Result<(), NotShared> {
        match self.taken(takes) {
            Ok(None) => Ok(()),
            Ok(Some((number, wait))) => Err(NotShared::Exceeded { number, wait }),
            // The link says so to the operator.
            Err(_) => Err(NotShared::Away),
        }
    }
}

/// The arguments of the script for one limit.
fn arguments(take: &SharedTake) -> [String; 5] {
    let (form, first, count, part) = match take.form {
        SharedForm::Bucket { interval, burst } => ("bucket", micros(interval), burst, 1),
        SharedForm::Fixed { period, count } => ("fixed", micros(period), count, 1),
        SharedForm::Sliding { period, count, part } => {
            ("sliding", micros(period), count, micros(part))
        }
    };
    let numbers = [first.to_string(), count.to_string(), part.to_string(), take.cost.to_string()];
    let [first, count, part, cost] = numbers;
    [form.to_owned(), first, count, part, cost]
}
