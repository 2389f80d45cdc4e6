//! Collects the files of a policy and computes its revision.
//!
//! It reads no files: `load` and `bundle` add their texts.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::bundle::manifest::Root;
use super::data::Data;
use super::embedded;
use super::find::{FileContent, Fingerprint};
use bartizan_rego::{Entrypoints, Module, PolicyProblem, PolicySources};

/// A policy that was read, but not proven yet.
#[derive(Debug)]
pub struct Loaded {
    /// The sources that will be evaluated, without tests.
    pub serving: PolicySources,
    /// The same sources with their tests, for the proof.
    pub proving: PolicySources,
    /// The seed for the proof's generated inputs: the first 8 bytes of the digest.
    pub seed: u64,
    /// The state of the files when they were read, to notice a change.
    pub fingerprint: Fingerprint,
    /// The roots of a bundle, which contain its packages and data; `None` where it owns everything.
    pub roots: Option<Vec<Root>>,
}

/// The number of the line, from 1, that contains the byte after `bytes`.
pub(super) fn line_after<'a>(bytes: impl Iterator<Item = &'a u8>) -> Option<u32> {
    let newlines = bytes.filter(|byte| **byte == b'\n').count();
    u32::try_from(newlines.saturating_add(1)).ok()
}

/// The files of a policy that were added so far.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) rules: Vec<(String, Module)>,
    tests: Vec<Module>,
    pub(super) data: Data,
    has_decision: bool,
}

impl Sources {
    /// Adds the text of one file. `name` is part of the revision's digest; `shown` is its path in
    /// problems.
    ///
    /// # Errors
    ///
    /// A data file is no strict JSON object, or has a value at a path that another file has too.
    pub(super) fn take(
        &mut self,
        content: &FileContent,
        name: String,
        shown: String,
        text: String,
    ) -> Result<(), PolicyProblem> {
        match content {
            FileContent::Rules => {
                self.has_decision |= Path::new(&shown).ends_with("mcp/decision.rego");
                self.rules.push((name, Module { path: shown, text }));
            }
            FileContent::Tests => self.tests.push(Module { path: shown, text }),
            FileContent::Data(names) => {
                self.data.add(&text, names).map_err(|(at, message)| PolicyProblem {
                    file: shown,
                    line: at.and_then(|at| line_after(text.as_bytes().iter().take(at))),
                    message,
                    hint: Some("write one JSON object, and each value once".to_owned()),
                })?;
            }
            // Files of a bundle are read together, by `bundle`.
            FileContent::Member => {}
        }
        Ok(())
    }

    /// Adds `mcp/decision.rego`, which combines the rules, unless the policy has a copy of its own or
    /// evaluates other entrypoints.
    pub(super) fn combine(&mut self, entrypoints: &Entrypoints) {
        let default = Entrypoints::default();
        let combined =
            entrypoints.decision == default.decision || entrypoints.listing == default.listing;
        if combined && !self.has_decision {
            self.embed(embedded::decision(), embedded::decision_tests());
        }
    }

    /// Adds embedded modules.
    pub(super) fn embed(&mut self, rules: Vec<Module>, tests: Vec<Module>) {
        self.rules.extend(rules.into_iter().map(|module| (module.path.clone(), module)));
        self.tests.extend(tests);
    }

    /// The whole policy. Its revision is a SHA-256 digest, shortened to 64 bits, of all rules and data
    /// (tests are not part of it), after the bundle's own revision `called`, if there is one.
    pub(super) fn finish(self, called: Option<&str>) -> Loaded {
        let data = self.data.text();
        let mut hash = Sha256::new();
        let files = self.rules.iter().map(|(name, module)| (&**name, &*module.text));
        for (name, text) in files.chain(data.iter().map(|text| ("data", &**text))) {
            for part in [name, text] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        let digest = hash.finalize();
        let seed = digest.iter().take(8).fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
        let prefix = called.map(|called| format!("{called}@")).unwrap_or_default();
        let revision: std::sync::Arc<str> = format!("{prefix}sha256:{seed:016x}").into();
        let serving: Vec<Module> = self.rules.into_iter().map(|(_, module)| module).collect();
        let proving = serving
            .iter()
            .chain(&self.tests)
            .map(|module| Module { path: module.path.clone(), text: module.text.clone() })
            .collect();
        Loaded {
            serving: PolicySources {
                modules: serving,
                data: data.clone(),
                revision: revision.clone(),
            },
            proving: PolicySources { modules: proving, data, revision },
            seed,
            fingerprint: Fingerprint::default(),
            roots: None,
        }
    }
}
