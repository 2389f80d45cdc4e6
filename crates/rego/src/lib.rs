//! Both policy engines, behind [`Pdp`](bartizan_gate::duty::pdp::Pdp).
//!
//! The *strict* engine is regorus's interpreter. Where the engines differ, its answer counts. The
//! *compiled* engine is our own ([`program`]) and many times faster. It runs a policy only under
//! three conditions: it has every construct of the policy, the policy's tests pass, and both
//! engines gave the same answers to generated inputs ([`prove()`]). Where the compiled engine is in
//! doubt, the strict engine answers instead. A configured share of its other
//! answers is checked against the strict engine (shadowing).
//!
//! The crate deliberately has no sockets, no clocks and no randomness (a policy reads the time
//! from `input.time`), no JSON reader of its own (the gate's is used), and no path from an error
//! to a permit. The program (`src/policy`, `src/run`) calls it; the gate knows only its `Pdp`
//! trait.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "values and syntax of regorus: a variant that is not named here is refused or ignored"
)]

mod problem;
mod walk;
mod number;
mod reads;
mod value;
mod alias;
mod glob;
mod re2;
mod sprintf;
mod patterns;
mod native;
mod functions;
mod builtins;
mod capabilities;
mod check;
mod order;
mod safety;
mod print;
mod reachable;
mod iteration;
mod negation;
mod imports;
mod source;
mod input;
mod schema;
mod recorded;
mod strict;
mod program;
mod result;
mod pool;
mod engines;
mod random;
mod generate;
mod prove;
mod replay;
mod query;
mod absent;
mod names;
mod keys;
mod elements;
mod lint;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regorus::Value;

use program::{Entrypoint, Program, Source};

use bartizan_gate::duty::decision::{Engine, PolicyRevision};
use bartizan_gate::question::access::AccessRequest;
use bartizan_gate::wire::document::{self, Document, DocumentLimits};
use bartizan_gate::wire::frame::KnownNames;

pub use absent::Lint;
pub use capabilities::capabilities;
pub use engines::{Demotion, RegoPdp};
pub use input::input_json;
pub use lint::{Objection, TRAPS, code_of, lint, unanswered_holds, ungrantable_holds, warnings};
pub use problem::{PolicyProblem, not_strict_json, unreadable_cause};
pub use prove::{FileCoverage, Proof, TestOutcome, TestRun, cover_tests, prove, run_tests};
pub use query::RuleQuery;
pub use random::Random;
pub use reads::ReadSet;
pub use replay::{ReplayEvaluator, UnknownInput};
pub use schema::input_schema;

/// One Rego source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The path that problems name. It is not opened.
    pub path: String,
    /// The Rego text.
    pub text: String,
}

/// The sources of one revision of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySources {
    /// The Rego modules, tests included.
    pub modules: Vec<Module>,
    /// The base document `data`, as JSON text; `None` is an empty object.
    pub data: Option<String>,
    /// The name of this revision in records and decisions.
    pub revision: PolicyRevision,
}

/// The rules that are queried. Each must be a complete rule, named by its full path below `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoints {
    /// The rule whose value is the decision on one message (`result` says what it must hold).
    pub decision: String,
    /// The rule whose value says which definitions of one page of a list are hidden.
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
    /// Most modules in one policy.
    pub modules_max: usize,
    /// Largest Rego source, bytes.
    pub source_bytes_max: usize,
    /// Most lines in one source.
    pub lines_max: usize,
    /// Longest line of a source, characters. regorus's default of 1024 is too short for a
    /// public key in one line.
    pub columns_max: usize,
    /// Deepest nesting of array, object and set literals. The parser's time is exponential in it.
    pub nesting_max: usize,
    /// Deepest nesting of calls and parentheses.
    pub call_nesting_max: usize,
    /// Most operators, dots and indexes in one expression. regorus's analysis recurses along them.
    pub chain_max: usize,
    /// Longest chain of rules that depend on each other, counting the loops in them. The
    /// interpreter recurses along it, so it bounds the use of the thread's stack.
    pub rule_depth_max: usize,
    /// Largest `data` document, bytes.
    pub data_bytes_max: usize,
    /// Longest evaluation, wall time. It is about a thousand times what an evaluation needs, so
    /// that a busy machine does not cause denials.
    pub time_max: Duration,
    /// Most instructions in one evaluation on the compiled engine.
    pub instructions_max: usize,
    /// Longest string that a built-in returns, bytes.
    pub string_bytes_max: usize,
    /// Longest pattern, and longest text, of a regular expression or glob, bytes each.
    pub pattern_text_bytes_max: usize,
    /// Most items in an array that a built-in returns.
    pub items_max: usize,
    /// Most steps of the built-ins in one evaluation: bytes and items of their arguments, and for a
    /// pattern the product of its length and the text's.
    pub builtin_steps_max: u64,
    /// How many generated inputs [`prove()`] evaluates on both engines.
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
            builtin_steps_max: 16 << 20,
            proof_inputs: 2_000,
        }
    }
}

/// The package of each source, in the order of `sources`: the source's path, and the package's
/// names below `data` (`package a.b` gives `["a", "b"]`).
///
/// Parsing a hostile source can end the process (stack overflow), so this is called in a child
/// process, like [`prove()`].
///
/// # Errors
///
/// Every source that cannot be parsed, with its place.
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

/// Parses `module` into `engine` and returns its problems; none means that it was added.
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
                problems.push(PolicyProblem::from_regorus(&error.to_string(), &module.path));
            }
            Err(_) => problems.push(PolicyProblem::at(&module.path, 1, "the parser panicked")),
        }
    }
    problems
}

/// A policy that was parsed and checked. A clone shares its parts (`Arc`).
#[derive(Debug, Clone)]
pub struct Policy(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// As the author wrote them, with imported names replaced by full paths.
    authored: Vec<Module>,
    /// As the engines get them: `not` and `in` have OPA's meaning (see `negation`).
    modules: Vec<Module>,
    data: Option<Document>,
    revision: PolicyRevision,
    entrypoints: Entrypoints,
    limits: EvalLimits,
    reads: ReadSet,
    texts: KnownNames,
}

impl Policy {
    /// Parses and checks `sources`.
    ///
    /// # Errors
    ///
    /// All problems of the first stage that finds any: parsing, checks of the whole policy (see
    /// `check`), and the interpreter's own preparation for the decision.
    pub fn compile(
        sources: &PolicySources,
        entrypoints: &Entrypoints,
        limits: &EvalLimits,
    ) -> Result<Self, Vec<PolicyProblem>> {
        let policy = Self::parse(sources, Some(entrypoints), limits)?;
        let mut engine =
            strict::parsed(policy.authored(), limits).map_err(|problem| vec![problem])?;
        let index = check::Index::of(engine.get_modules());
        let vanishing = lint::absent_operands(&index, &sources.modules);
        if !vanishing.is_empty() {
            return Err(vanishing);
        }
        // regorus reports some errors only when it prepares an evaluation.
        let mut interpreter = strict::Interpreter::new(&policy).map_err(|problem| vec![problem])?;
        interpreter.prepare(&entrypoints.decision).map_err(|problem| vec![problem])?;
        Ok(policy)
    }

    /// Parses and checks. With `None`, the default entrypoints need not exist: tests and lints run
    /// on fragments of a policy.
    fn parse(
        sources: &PolicySources,
        entrypoints: Option<&Entrypoints>,
        limits: &EvalLimits,
    ) -> Result<Self, Vec<PolicyProblem>> {
        let mut problems = Vec::new();
        if sources.modules.len() > limits.modules_max {
            let message = format!("more than {} Rego sources", limits.modules_max);
            return Err(vec![PolicyProblem::unlocated(message)]);
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
        let mut problems = check::problems(engine.get_modules(), &document, entrypoints, limits);
        if problems.is_empty() {
            problems = safety::problems(engine.get_modules());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let authored = imports::with_full_paths(&sources.modules, engine.get_modules())?;
        let asked = entrypoints.cloned().unwrap_or_default();
        let reads = reachable::reads(engine.get_modules(), &[&asked.decision, &asked.listing]);
        let mut written = strict::parsed(&authored, limits).map_err(|problem| vec![problem])?;
        let modules = negation::lifted(&authored, written.get_modules());
        let texts = alias::texts(engine.get_modules(), &document);
        Ok(Self(Arc::new(Parts {
            authored,
            modules,
            data,
            revision: Arc::clone(&sources.revision),
            entrypoints: asked,
            limits: *limits,
            reads,
            texts,
        })))
    }

    /// The name of this revision, as its sources gave it.
    pub fn revision(&self) -> PolicyRevision {
        Arc::clone(&self.0.revision)
    }

    /// Whether `text` stands between quotes in the Rego sources, so that it is a name that the author
    /// wrote and not one that a rule computed of the input.
    pub fn names(&self, text: &str) -> bool {
        let quoted = format!("\"{text}\"");
        self.authored().iter().any(|module| module.text.contains(&quoted))
    }

    /// The parts of the input that the entrypoints read.
    pub fn reads(&self) -> &ReadSet {
        &self.0.reads
    }

    /// The denial of a message in which some reader takes a name for another one that the policy
    /// reads; `None` if there is no such name.
    fn ambiguous_name(&self, request: &AccessRequest<'_>) -> Option<result::Indeterminate> {
        let found = alias::in_request(request, &self.0.reads, &self.0.texts)?;
        Some(result::Indeterminate::ambiguous_name(&found))
    }

    /// [`Policy::ambiguous_name`] for an input that was recorded.
    fn ambiguous_name_recorded(&self, input: document::Value<'_>) -> Option<result::Indeterminate> {
        let found = alias::in_recorded(input, &self.0.reads, &self.0.texts)?;
        Some(result::Indeterminate::ambiguous_name(&found))
    }

    /// Evaluates the rule at `path` (such as `data.mcp.decision`) for one input and returns its
    /// value as JSON text, sets as arrays; `undefined` where it has none. `bartizan policy eval`
    /// calls it.
    ///
    /// # Errors
    ///
    /// The input is not strict JSON, or holds a number without an exact value; the evaluation
    /// failed; or the compiled engine was asked for a rule that is no entrypoint, or for a policy
    /// that it may not run.
    pub fn evaluate(
        &self,
        path: &str,
        input_json: &str,
        engine: Engine,
    ) -> Result<String, PolicyProblem> {
        let unlocated = PolicyProblem::unlocated;
        let raw = Bytes::copy_from_slice(input_json.as_bytes());
        let document = Document::read(raw, &DocumentLimits::default()).map_err(|unreadable| {
            unlocated(format!("the input is {}", not_strict_json(&unreadable)))
        })?;
        let input = value::of_document(document.root());
        if let Some(pointer) = input.inexact.first() {
            return Err(unlocated(format!("number cannot be represented exactly: `{pointer}`")));
        }
        let value = match engine {
            Engine::Strict | Engine::None => strict::Interpreter::new(self)?
                .evaluate(path, input.value)
                .map_err(|error| unlocated(error.to_string()))?,
            Engine::Compiled => self.evaluate_compiled(path, &input.value)?,
        };
        Ok(match value {
            Value::Undefined => "undefined".to_owned(),
            value => value::json(&value),
        })
    }

    /// The denial, as JSON text, with which the gate answers a message with this input before it
    /// evaluates a decision: some reader takes a name in it for another one that the policy reads.
    /// `None` if there is no such name, or if the input is not strict JSON.
    pub fn denial_of_name(&self, input_json: &str) -> Option<String> {
        let raw = Bytes::copy_from_slice(input_json.as_bytes());
        let document = Document::read(raw, &DocumentLimits::default()).ok()?;
        let fault = self.ambiguous_name_recorded(document.root())?;
        let denial = fault.deny(self.revision(), Engine::None);
        let reasons: Vec<_> = denial
            .reasons
            .iter()
            .map(|reason| serde_json::json!({"code": reason.code, "message": reason.message}))
            .collect();
        Some(serde_json::json!({"effect": "deny", "reasons": reasons}).to_string())
    }

    /// Evaluates an entrypoint on the compiled engine: a program has no other rules to call.
    fn evaluate_compiled(&self, path: &str, input: &Value) -> Result<Value, PolicyProblem> {
        let entry = if path == self.0.entrypoints.decision {
            Entrypoint::Decision
        } else if path == self.0.entrypoints.listing {
            Entrypoint::Listing
        } else {
            let message = format!("the compiled engine does not answer `{path}`");
            return Err(PolicyProblem::unlocated(message).hint("name an entrypoint"));
        };
        let program = Program::compile(self)
            .map_err(|reasons| PolicyProblem::unlocated(reasons.join("; ")))?;
        program
            .evaluate(entry, Source::Built(input), |value| {
                value.map_or(Ok(Value::Undefined), program::Operand::into_value)
            })
            .map_err(|doubt| PolicyProblem::unlocated(doubt.0))
    }

    /// Why the compiled engine may not run this policy, one line for each construct; empty where it
    /// may, before its tests and generated inputs are tried (see [`prove()`]).
    pub fn obstacles(&self) -> Vec<String> {
        Program::compile(self).err().unwrap_or_default()
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

    fn authored(&self) -> &[Module] {
        &self.0.authored
    }

    /// The parsed modules, as the engines get them, in an engine without data and built-ins.
    fn parsed(&self) -> Result<regorus::Engine, PolicyProblem> {
        strict::parsed(self.modules(), self.limits())
    }

    /// A new copy of the data. Workers must not share one, or they contend for its reference counts.
    fn data(&self) -> Value {
        self.0.data.as_ref().map_or(Value::new_object(), data_value)
    }
}

/// The limits for modules that were rewritten: rewriting makes lines longer, and the limits on the
/// policy's own text do not apply to it.
fn wider(modules: &[Module], limits: &EvalLimits) -> EvalLimits {
    let longest = modules.iter().map(|module| module.text.len()).max().unwrap_or_default();
    EvalLimits {
        source_bytes_max: longest.max(limits.source_bytes_max),
        columns_max: longest.max(limits.columns_max),
        ..*limits
    }
}

fn data_value(data: &Document) -> Value {
    value::of_document(data.root()).value
}

/// Reads `data` with the strict reader, so that it has no duplicate names and no inexact numbers.
fn read_data(
    sources: &PolicySources,
    limits: &EvalLimits,
) -> Result<Option<Document>, PolicyProblem> {
    let in_data = |message: String| PolicyProblem {
        file: "data".to_owned(),
        ..PolicyProblem::unlocated(message)
    };
    let Some(text) = &sources.data else { return Ok(None) };
    let bounds = DocumentLimits {
        bytes_max: limits.data_bytes_max,
        values_max: limits.data_bytes_max,
        ..DocumentLimits::default()
    };
    let document = Document::read(Bytes::copy_from_slice(text.as_bytes()), &bounds)
        .map_err(|unreadable| in_data(not_strict_json(&unreadable)))?;
    let value = value::of_document(document.root());
    if let Some(pointer) = value.inexact.first() {
        return Err(in_data(format!("the number at `{pointer}` has no exact value"))
            .hint("integers have at most 64 bits, other numbers at most 17 digits"));
    }
    match value.value {
        Value::Object(_) => Ok(Some(document)),
        _ => Err(in_data("the data is not an object".to_owned())),
    }
}
