//! What a sliding window has taken, in little memory: each event by itself, or by parts of the
//! period.

/// Up to this count a sliding window remembers each event by itself, so it is exact.
pub(super) const EACH_MAX: u32 = 16;

/// Above [`EACH_MAX`], events are counted by one of so many parts of the period.
pub(super) const PARTS: u32 = 10;

/// Places for which room is made at once.
const MORE: usize = 4;

/// What a sliding window has taken, the oldest first. Of each part: until when it counts (uptime,
/// ns), and how much it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recent {
    /// Each event by itself: at most [`EACH_MAX`].
    Each(Vec<u64>),
    /// By parts of the period: at most [`PARTS`], and one at each end.
    Parts(Vec<Part>),
}

/// What came in one part of the period. In 12 bytes, because there are many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    ends: [u32; 2],
    taken: u32,
}

impl Part {
    fn new(ends: u64, taken: u32) -> Self {
        let half = |shift: u32| u32::try_from(ends >> shift & u64::from(u32::MAX));
        let ends = [half(32).unwrap_or(u32::MAX), half(0).unwrap_or(u32::MAX)];
        Self { ends, taken }
    }

    fn ends(self) -> u64 {
        let [high, low] = self.ends;
        u64::from(high) << 32 | u64::from(low)
    }
}

impl Recent {
    pub(super) fn new(count: u32) -> Self {
        if count <= EACH_MAX { Self::Each(Vec::new()) } else { Self::Parts(Vec::new()) }
    }

    /// Each part: until when it counts, and how much it is.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        let (each, parts) = match self {
            Self::Each(each) => (&each[..], &[][..]),
            Self::Parts(parts) => (&[][..], &parts[..]),
        };
        let each = each.iter().map(|ends| (*ends, 1));
        each.chain(parts.iter().map(|part| (part.ends(), part.taken)))
    }

    /// Forgets what counts no longer at `now`.
    pub(super) fn forget(&mut self, now: u64) {
        let over = self.iter().take_while(|(ends, _)| *ends <= now).count();
        match self {
            Self::Each(each) => drop(each.drain(..over)),
            Self::Parts(parts) => drop(parts.drain(..over)),
        }
    }

    /// Adds what counts until `ends`, which is not before anything else.
    pub(super) fn put(&mut self, ends: u64, cost: u32) {
        match self {
            Self::Each(each) => {
                for _ in 0..cost {
                    make_room(each);
                    each.push(ends);
                }
            }
            Self::Parts(parts) => {
                let last = parts.last_mut().filter(|part| part.ends() == ends);
                if let Some(part) = last {
                    part.taken = part.taken.saturating_add(cost);
                } else {
                    make_room(parts);
                    parts.push(Part::new(ends, cost));
                }
            }
        }
    }

    /// Takes back what was put last.
    pub(super) fn take_back(&mut self, cost: u32) {
        match self {
            Self::Each(each) => {
                let cost = usize::try_from(cost).unwrap_or(usize::MAX);
                each.truncate(each.len().saturating_sub(cost));
            }
            Self::Parts(parts) => {
                if let Some(part) = parts.last_mut() {
                    part.taken = part.taken.saturating_sub(cost);
                }
                parts.pop_if(|part| part.taken == 0);
            }
        }
    }

    /// When the last part counts no longer.
    pub(super) fn last(&self) -> u64 {
        match self {
            Self::Each(each) => each.last().copied().unwrap_or_default(),
            Self::Parts(parts) => parts.last().map_or(0, |part| part.ends()),
        }
    }
}

fn make_room<T>(all: &mut Vec<T>) {
    if all.len() == all.capacity() {
        all.reserve_exact(MORE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_kept_whole_in_twelve_bytes() {
        assert_eq!(size_of::<Part>(), 12);
        for ends in [0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX - 1, u64::MAX] {
            assert_eq!(Part::new(ends, 7).ends(), ends);
        }
    }
}
