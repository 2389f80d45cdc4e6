//! What every part of a configuration is read with.

use std::cell::RefCell;
use std::path::Path;

use super::problem::{Location, Problems, Warning};
use super::surroundings::Surroundings;

/// One reading of a configuration: what it starts from, and the problems that it found so far.
pub(super) struct Context<'a> {
    /// The directory that relative paths count from.
    pub(super) base: &'a Path,
    pub(super) surroundings: &'a Surroundings<'a>,
    /// Whether nothing is read, and the keys are asked for to learn which there are.
    pub(super) describing: bool,
    problems: RefCell<Problems>,
    warnings: RefCell<Vec<Warning>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(base: &'a Path, surroundings: &'a Surroundings<'a>) -> Self {
        Self {
            base,
            surroundings,
            describing: false,
            problems: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Reports that `what` is wrong at `location`; `hint` says what to do.
    pub(super) fn problem(
        &self,
        location: &Location,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.borrow_mut().push(location, what, hint);
    }

    /// Tells of a setting at `location` that does nothing; `hint` says what to do.
    pub(super) fn warning(&self, location: &Location, what: &str, hint: &str) {
        let warning = Warning { at: location.to_string(), what: format!("{what}; {hint}") };
        self.warnings.borrow_mut().push(warning);
    }

    /// All problems, and all settings that do nothing.
    pub(super) fn into_findings(self) -> (Problems, Vec<Warning>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }
}

/// Calls `act` with a context that describes: nothing is read, and no problem is kept.
pub(super) fn describing<T>(act: impl FnOnce(&Context<'_>) -> T) -> T {
    let surroundings =
        Surroundings { env: &|_| None, read: &|_, _| Ok(Vec::new()), exists: &|_| true };
    act(&Context { describing: true, ..Context::new(Path::new(""), &surroundings) })
}
