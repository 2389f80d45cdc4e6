//! Which acts wait for the disk.

use bartizan_gate::evidence::record::AuditRecord;

/// What an act waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `write(2)` of its records: they survive a crash of the program, not one of the machine.
    Written,
    /// `fdatasync(2)` of its records: they survive a crash of the machine, too.
    Durable,
}

/// What an act waits for, by the effect of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durabilities {
    /// Operations that change nothing.
    pub read: Durability,
    /// Those that add or change something, those of which nobody knows what they do, and messages
    /// that are no operation.
    pub write: Durability,
    /// Those that remove something, or change at once what end users get.
    pub destructive: Durability,
    /// Those that run code.
    pub exec: Durability,
}

impl Durabilities {
    /// The same for each effect.
    pub const fn all(durability: Durability) -> Self {
        Self { read: durability, write: durability, destructive: durability, exec: durability }
    }

    /// What the act waits for that `record`, an intent, precedes.
    pub(super) fn of(self, record: &AuditRecord) -> Durability {
        match record.operation.as_ref().map(|operation| operation.effect) {
            Some("read") => self.read,
            Some("destructive") => self.destructive,
            Some("exec") => self.exec,
            Some(_) | None => self.write,
        }
    }

    /// Whether any act waits for the disk.
    pub(super) fn any(self) -> bool {
        self != Self::all(Durability::Written)
    }
}
