//! Both policy engines, behind [`Pdp`](bartizan_gate::duty::pdp::Pdp).
//!
//! The *strict* engine is regorus's interpreter: the authority. The *compiled* engine is its
//! bytecode machine: several times faster, and alone not to be trusted, because it swallows
//! errors inside rule bodies. It runs only a policy whose every construct is known to mean the
//! same on both ([`eligible`]) and that a proof found no difference in ([`prove()`]); whatever it
//! cannot answer without doubt it hands to the strict engine, and a share of what it did answer
//! is asked there again.
//!
//! Absent by design: sockets, clocks and randomness (`input.time` is the clock); a second JSON
//! reader; any way from an error to a permit.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "values and syntax of regorus: what is not named here is refused or left out"
)]

mod problem;
mod walk;
mod number;
mod reads;
mod value;
mod glob;
mod sprintf;
mod builtins;
mod capabilities;
mod check;
mod reachable;
mod eligible;
mod imports;
mod source;
mod input;
mod schema;
mod recorded;
mod result;
mod strict;
mod compiled;
mod memo;
mod workers;
mod engines;
mod random;
mod generate;
mod prove;
mod judge;
mod asker;
mod lint;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regorus::Value;

use compiled::Entry;

use bartizan_gate::duty::decision::{Engine, PolicyRevision};
use bartizan_gate::wire::document::{Document, DocumentLimits};

pub use asker::Asker;
pub use capabilities::capabilities;
pub use engines::{Demotion, RegoPdp};
pub use input::input_json;
pub use judge::{Judge, Unknown};
pub use lint::{Lint, TRAPS, code_of, lint};
pub use problem::PolicyProblem;
pub use prove::{FileCoverage, Proof, TestOutcome, TestRun, cover_tests, prove, run_tests};
pub use random::Random;
pub use reads::ReadSet;
pub use schema::input_schema;

/// One Rego source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The path to show in problems.
    pub path: String,
    /// The text.
    pub text: String,
}

/// All that makes up one revision of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySources {
    /// The Rego sources, tests among them.
    pub modules: Vec<Module>,
    /// The document `data`, as JSON text.
    pub data: Option<String>,
    /// What to call this revision.
    pub revision: PolicyRevision,
}

/// The rules that are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoints {
    /// The rule that judges a frame.
    pub decision: String,
    /// The rule that judges a page of definitions.
    pub listing: String,
}

impl Default for Entrypoints {
    fn default() -> Self {
        Self { decision: "data.mcp.decision".to_owned(), listing: "data.mcp.listing".to_owned() }
    }
}

/// Bounds on a policy and on each evaluation. Every bound is inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalLimits {
    /// Modules of one policy.
    pub modules_max: usize,
    /// One Rego source, bytes.
    pub source_bytes_max: usize,
    /// Lines of one source.
    pub lines_max: usize,
    /// One line of a source, characters. regorus's own 1024 is too short for embedded keys.
    pub columns_max: usize,
    /// Array, object and set literals inside one another: parsing takes time exponential in it.
    pub nesting_max: usize,
    /// Calls and parentheses inside one another.
    pub call_nesting_max: usize,
    /// Operators, dots and indexes in one expression: analysis recurses along them.
    pub chain_max: usize,
    /// Rules that need one another, with the loops in them: each takes a part of the stack that
    /// the interpreter runs on.
    pub rule_depth_max: usize,
    /// The data, bytes.
    pub data_bytes_max: usize,
    /// Time for one evaluation. A thousand times what one takes, because it is wall time, and a
    /// busy machine must not turn into denials.
    pub time_max: Duration,
    /// Instructions of one evaluation on the compiled engine.
    pub instructions_max: usize,
    /// A string that a built-in makes, bytes.
    pub string_bytes_max: usize,
    /// Pattern and text of a regular expression or glob, bytes.
    pub pattern_text_bytes_max: usize,
    /// Items of an array that a built-in makes.
    pub items_max: usize,
    /// Inputs that a proof tries on both engines.
    pub proof_inputs: u64,
}

impl Default for EvalLimits {
    fn default() -> Self {
        Self {
            modules_max: 256,
            source_bytes_max: 1 << 20,
            lines_max: 20_000,
            columns_max: 16_384,
            nesting_max: 12,
            call_nesting_max: 24,
            chain_max: 256,
            rule_depth_max: 64,
            data_bytes_max: 32 << 20,
            time_max: Duration::from_millis(200),
            instructions_max: 1_000_000,
            string_bytes_max: 256 << 10,
            pattern_text_bytes_max: 16 << 10,
            items_max: 10_000,
            proof_inputs: 2_000,
        }
    }
}

/// The package of each source, by the source's path: the names below `data`. To be asked where a
/// source may end the process, as [`prove()`] is.
pub fn packages(
    sources: &PolicySources,
    limits: &EvalLimits,
) -> Result<Vec<(String, Vec<String>)>, Vec<PolicyProblem>> {
    let mut engine = strict::empty_engine(limits);
    let mut problems = Vec::new();
    for module in &sources.modules {
        problems.extend(parse_into(&mut engine, module, limits));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let paths = sources.modules.iter().map(|module| module.path.clone());
    Ok(paths.zip(check::packages(engine.get_modules())).collect())
}

/// Parses `module` into `engine`; gives what is wrong with it.
fn parse_into(
    engine: &mut regorus::Engine,
    module: &Module,
    limits: &EvalLimits,
) -> Vec<PolicyProblem> {
    let mut problems = source::problems(module, limits);
    if problems.is_empty() {
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            engine.add_policy(module.path.clone(), module.text.clone())
        }));
        match parsed {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                problems.push(PolicyProblem::of_regorus(&error.to_string(), &module.path));
            }
            Err(_) => problems.push(PolicyProblem::at(&module.path, 1, "the parser panicked")),
        }
    }
    problems
}

/// A policy that was parsed and checked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    modules: Vec<Module>,
    data: Option<Document>,
    revision: PolicyRevision,
    entrypoints: Entrypoints,
    limits: EvalLimits,
    reads: ReadSet,
}

impl Policy {
    /// Parses and checks `sources`. Every problem is reported at once, as far as the sources can
    /// be parsed.
    pub fn compile(
        sources: &PolicySources,
        entrypoints: &Entrypoints,
        limits: &EvalLimits,
    ) -> Result<Self, Vec<PolicyProblem>> {
        let policy = Self::parse(sources, Some(entrypoints), limits)?;
        // What only the engine itself finds when it prepares an evaluation.
        let mut interpreter = strict::Interpreter::new(&policy).map_err(|problem| vec![problem])?;
        interpreter.prepare(&entrypoints.decision).map_err(|problem| vec![problem])?;
        Ok(policy)
    }

    /// Parses and checks; without entrypoints none is asked for.
    fn parse(
        sources: &PolicySources,
        entrypoints: Option<&Entrypoints>,
        limits: &EvalLimits,
    ) -> Result<Self, Vec<PolicyProblem>> {
        let mut problems = Vec::new();
        if sources.modules.len() > limits.modules_max {
            let message = format!("more than {} Rego sources", limits.modules_max);
            return Err(vec![PolicyProblem::whole(message)]);
        }
        let mut engine = strict::empty_engine(limits);
        for module in &sources.modules {
            problems.extend(parse_into(&mut engine, module, limits));
        }
        let data = match read_data(sources, limits) {
            Ok(data) => data,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let document = data.as_ref().map_or(Value::new_object(), data_value);
        let problems = check::problems(engine.get_modules(), &document, entrypoints, limits);
        if !problems.is_empty() {
            return Err(problems);
        }
        let modules = imports::written_out(&sources.modules, engine.get_modules())?;
        let asked = entrypoints.cloned().unwrap_or_default();
        let reads = reachable::reads(engine.get_modules(), &[&asked.decision, &asked.listing]);
        Ok(Self(Arc::new(Parts {
            modules,
            data,
            revision: Arc::clone(&sources.revision),
            entrypoints: asked,
            limits: *limits,
            reads,
        })))
    }

    /// What this policy is called.
    pub fn revision(&self) -> PolicyRevision {
        Arc::clone(&self.0.revision)
    }

    /// The part of the input that the policy reads.
    pub fn reads(&self) -> &ReadSet {
        &self.0.reads
    }

    /// The value of any rule, as JSON, for any input: for `policy eval`. `undefined` where the
    /// rule has no value.
    pub fn evaluate(
        &self,
        path: &str,
        input_json: &str,
        engine: Engine,
    ) -> Result<String, PolicyProblem> {
        let whole = PolicyProblem::whole;
        let raw = Bytes::copy_from_slice(input_json.as_bytes());
        let document = Document::read(raw, &DocumentLimits::default())
            .map_err(|unreadable| whole(format!("the input is not strict JSON: {unreadable:?}")))?;
        let input = value::of_document(document.root());
        if let Some(pointer) = input.lossy.first() {
            return Err(whole(format!("number cannot be represented exactly: `{pointer}`")));
        }
        let value = match engine {
            Engine::Strict | Engine::None => strict::Interpreter::new(self)?
                .evaluate(path, input.value)
                .map_err(|trouble| whole(trouble.to_string()))?,
            Engine::Compiled => self.evaluate_compiled(path, input.value)?,
        };
        Ok(match value {
            Value::Undefined => "undefined".to_owned(),
            value => value::json(&value),
        })
    }

    /// The compiled engine has entrypoints, not paths.
    fn evaluate_compiled(&self, path: &str, input: Value) -> Result<Value, PolicyProblem> {
        let entry = if path == self.0.entrypoints.decision {
            Entry::Decision
        } else if path == self.0.entrypoints.listing {
            Entry::Listing
        } else {
            let message = format!("the compiled engine does not answer `{path}`");
            return Err(PolicyProblem::whole(message).hint("name an entrypoint"));
        };
        let modules = compiled::rewritten(self)
            .map_err(|reasons| PolicyProblem::whole(reasons.join("; ")))?;
        let mut machine = compiled::Machine::new(self, &modules)?;
        machine.evaluate(entry, input).map_err(|doubt| PolicyProblem::whole(doubt.0))
    }

    fn entrypoints(&self) -> &Entrypoints {
        &self.0.entrypoints
    }

    fn limits(&self) -> &EvalLimits {
        &self.0.limits
    }

    fn modules(&self) -> &[Module] {
        &self.0.modules
    }

    /// A copy of the data that shares nothing with any other.
    fn data(&self) -> Value {
        self.0.data.as_ref().map_or(Value::new_object(), data_value)
    }
}

fn data_value(data: &Document) -> Value {
    value::of_document(data.root()).value
}

/// Reads the data strictly.
fn read_data(
    sources: &PolicySources,
    limits: &EvalLimits,
) -> Result<Option<Document>, PolicyProblem> {
    let in_data = |message: String| PolicyProblem {
        file: "data".to_owned(),
        ..PolicyProblem::whole(message)
    };
    let Some(text) = &sources.data else { return Ok(None) };
    let bounds = DocumentLimits {
        bytes_max: limits.data_bytes_max,
        values_max: limits.data_bytes_max,
        ..DocumentLimits::default()
    };
    let document = Document::read(Bytes::copy_from_slice(text.as_bytes()), &bounds)
        .map_err(|unreadable| in_data(format!("not strict JSON: {unreadable:?}")))?;
    let value = value::of_document(document.root());
    if let Some(pointer) = value.lossy.first() {
        return Err(in_data(format!("the number at `{pointer}` has no exact value"))
            .hint("integers have at most 64 bits, other numbers at most 17 digits"));
    }
    match value.value {
        Value::Object(_) => Ok(Some(document)),
        _ => Err(in_data("the data is not an object".to_owned())),
    }
}
