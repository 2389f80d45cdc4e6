//! A table of things that are waiting for a later record, with a largest size.

use std::collections::BTreeMap;

/// Values by name, in the order of the sequence numbers that they were added with.
#[derive(Debug)]
pub(super) struct Bounded<T> {
    values: BTreeMap<String, (u64, T)>,
    order: BTreeMap<u64, String>,
    max: usize,
}

impl<T> Bounded<T> {
    /// An empty table of at most `max` values.
    pub(super) fn new(max: usize) -> Self {
        Self { values: BTreeMap::new(), order: BTreeMap::new(), max }
    }

    /// Adds a value in place of one with the same name; returns whether the oldest one had to be
    /// discarded for it.
    pub(super) fn insert(&mut self, name: &str, seq: u64, value: T) -> bool {
        if let Some((before, _)) = self.values.insert(name.to_owned(), (seq, value)) {
            self.order.remove(&before);
        }
        self.order.insert(seq, name.to_owned());
        if self.values.len() <= self.max {
            return false;
        }
        let oldest = self.order.pop_first();
        oldest.is_some_and(|(_, name)| self.values.remove(&name).is_some())
    }

    /// The value named `name`.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.values.get(name).map(|(_, value)| value)
    }

    /// Takes the value named `name`.
    pub(super) fn remove(&mut self, name: &str) -> Option<T> {
        let (seq, value) = self.values.remove(name)?;
        self.order.remove(&seq);
        Some(value)
    }

    /// The sequence number of the oldest value.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.order.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_one_goes() {
        let mut table = Bounded::new(2);
        assert!(!table.insert("a", 1, 1) && !table.insert("b", 2, 2));
        assert!(!table.insert("a", 3, 3), "in place of the first");
        assert_eq!(table.oldest(), Some(2));
        assert!(table.insert("c", 4, 4));
        assert_eq!((table.get("a"), table.get("b"), table.get("c")), (Some(&3), None, Some(&4)));
        assert_eq!(
            (table.remove("a"), table.remove("a"), table.oldest()),
            (Some(3), None, Some(4))
        );
    }
}
