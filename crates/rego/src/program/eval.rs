//! Evaluates a [`Program`].
//!
//! An evaluation ends with a value or in [`Doubt`]: an error, a conflict, a limit, or anything that
//! the interpreter might see otherwise. Doubt gives no answer; the strict engine then evaluates.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{ArithOp, BinOp, BoolOp};

use super::Doubt;
use super::input::Source;
use super::ir::{Constant, Definition, Pattern, Program, Rule, Slot, Step, Term};
use super::operand::Operand;
use crate::EvalLimits;
use crate::builtins::{self, Builtin, Meter};

/// Bytes of the message that count as one step where they become a value.
const STEP_BYTES: usize = 16;

/// What an evaluation has found, so that it is found once.
#[derive(Debug)]
pub(super) struct Found {
    rules: Box<[OnceCell<Option<Value>>]>,
    inputs: Box<[OnceCell<Option<Value>>]>,
}

impl Found {
    /// Nothing yet.
    pub(super) fn nothing(program: &Program) -> Self {
        Self {
            rules: program.rules.iter().map(|_| OnceCell::new()).collect(),
            inputs: program.inputs.iter().map(|_| OnceCell::new()).collect(),
        }
    }
}

/// Whether an iteration goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Stop,
}

type Maybe<'r> = Result<Option<Operand<'r>>, Doubt>;

/// One evaluation.
pub(super) struct Evaluation<'r> {
    program: &'r Program,
    source: Source<'r>,
    found: &'r Found,
    limits: &'r EvalLimits,
    meter: Meter,
    steps: usize,
    /// The variables of all rules that are being evaluated, the innermost last.
    stack: Vec<Option<Operand<'r>>>,
    base: usize,
}

impl<'r> Evaluation<'r> {
    /// An evaluation of `program` for the input in `source`.
    pub(super) fn new(
        program: &'r Program,
        source: Source<'r>,
        found: &'r Found,
        limits: &'r EvalLimits,
    ) -> Self {
        Self {
            program,
            source,
            found,
            limits,
            meter: Meter::default(),
            steps: 0,
            stack: Vec::new(),
            base: 0,
        }
    }

    /// The value of a rule; `None` where it is undefined.
    pub(super) fn rule(&mut self, at: usize) -> Result<Option<&'r Value>, Doubt> {
        let Some(rule) = self.program.rules.get(at) else { return Err(lost()) };
        if let Some(constant) = &rule.constant {
            return Ok(Some(&constant.value));
        }
        let cell = self.found.rules.get(at).ok_or_else(lost)?;
        if cell.get().is_none() {
            let value =
                if rule.is_set { Some(self.set_rule(rule)?) } else { self.complete_rule(rule)? };
            cell.set(value).map_err(|_| Doubt(format!("`{}` was evaluated twice", rule.path)))?;
        }
        Ok(cell.get().and_then(Option::as_ref))
    }

    fn set_rule(&mut self, rule: &'r Rule) -> Result<Value, Doubt> {
        let mut items = BTreeSet::new();
        for definition in self.candidates(rule)? {
            let (mut defined, mut undefined) = (false, false);
            self.enter(definition, |this| {
                for branch in &definition.branches {
                    this.body(&branch.body, &mut |this| {
                        match this.term(&branch.value)? {
                            Some(value) => {
                                items.insert(value.into_value()?);
                                defined = true;
                            }
                            None => undefined = true,
                        }
                        // The interpreter forgets the elements before an undefined one.
                        if defined && undefined {
                            return Err(Doubt(format!("`{}` has an undefined element", rule.path)));
                        }
                        Ok(Flow::Next)
                    })?;
                }
                Ok(())
            })?;
        }
        Ok(Value::from(items))
    }

    fn complete_rule(&mut self, rule: &'r Rule) -> Result<Option<Value>, Doubt> {
        let mut result = None;
        for definition in self.candidates(rule)? {
            let value = self.enter(definition, |this| this.branches(rule, definition))?;
            merge(&mut result, value, rule)?;
        }
        match (result, &rule.default) {
            (None, Some((default, slots))) => {
                let value = self.enter_slots(*slots, |this| this.term(default))?;
                value.map(Operand::into_value).transpose()
            }
            (result, _) => Ok(result),
        }
    }

    /// The definitions that can hold, in the order of the text.
    fn candidates(&mut self, rule: &'r Rule) -> Result<Candidates<'r>, Doubt> {
        let all = rule.definitions.as_slice();
        let Some(index) = &rule.index else {
            return Ok(Candidates { all, chosen: None, at: 0 });
        };
        let mut chosen = index.always.clone();
        for (input, by_text) in &index.by_text {
            let value = self.input(*input)?;
            let text = value.as_ref().and_then(Operand::as_text);
            chosen.extend(text.and_then(|text| by_text.get(text)).into_iter().flatten());
        }
        chosen.sort_unstable();
        Ok(Candidates { all, chosen: Some(chosen), at: 0 })
    }

    /// The value of the first branch that holds.
    fn branches(
        &mut self,
        rule: &'r Rule,
        definition: &'r Definition,
    ) -> Result<Option<Value>, Doubt> {
        for branch in &definition.branches {
            let mut result = None;
            self.body(&branch.body, &mut |this| {
                let value = match this.term(&branch.value)? {
                    Some(value) => Some(value.into_value()?),
                    // The interpreter forgets an earlier value here.
                    None if result.is_some() => {
                        return Err(Doubt(format!("`{}` has an undefined value", rule.path)));
                    }
                    None => None,
                };
                merge(&mut result, value, rule)?;
                Ok(Flow::Next)
            })?;
            if result.is_some() {
                return Ok(result);
            }
        }
        Ok(None)
    }

    /// Calls `evaluate` with variables for a definition.
    fn enter<T>(
        &mut self,
        definition: &'r Definition,
        evaluate: impl FnOnce(&mut Self) -> Result<T, Doubt>,
    ) -> Result<T, Doubt> {
        self.enter_slots(definition.slots, evaluate)
    }

    fn enter_slots<T>(
        &mut self,
        slots: usize,
        evaluate: impl FnOnce(&mut Self) -> Result<T, Doubt>,
    ) -> Result<T, Doubt> {
        self.step()?;
        let base = std::mem::replace(&mut self.base, self.stack.len());
        self.stack.resize_with(self.base.saturating_add(slots), || None);
        let result = evaluate(self);
        self.stack.truncate(self.base);
        self.base = base;
        result
    }

    fn step(&mut self) -> Result<(), Doubt> {
        self.work(1)
    }

    /// Counts `steps`. Their number bounds the time, too: a step is short.
    fn work(&mut self, steps: usize) -> Result<(), Doubt> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.instructions_max {
            return Err(Doubt("too many steps".to_owned()));
        }
        Ok(())
    }

    /// Counts what it takes to compare a value, or to make one of it.
    fn weigh(&mut self, value: &Operand<'r>) -> Result<(), Doubt> {
        let items = match value {
            Operand::Text(_) => 0,
            Operand::Texts(texts) => texts.len(),
            Operand::Json(json) => json.raw().len().checked_div(STEP_BYTES).unwrap_or_default(),
            Operand::Shared(_) | Operand::Owned(_) => match value.as_value() {
                Some(Value::Array(items)) => items.len(),
                Some(Value::Set(items)) => items.len(),
                Some(Value::Object(members)) => members.len(),
                _ => 0,
            },
        };
        self.work(items)
    }

    fn set(&mut self, slot: Slot, value: Operand<'r>) -> Result<(), Doubt> {
        *self.stack.get_mut(self.base.saturating_add(slot)).ok_or_else(lost)? = Some(value);
        Ok(())
    }

    /// Evaluates statements, and calls `then` for each way in which all hold.
    fn body(
        &mut self,
        steps: &'r [Step],
        then: &mut dyn FnMut(&mut Self) -> Result<Flow, Doubt>,
    ) -> Result<Flow, Doubt> {
        for (at, step) in steps.iter().enumerate() {
            self.step()?;
            let holds = match step {
                Step::Holds(term) => self.term(term)?.is_some_and(|value| value.holds()),
                Step::Fails(term) => !self.term(term)?.is_some_and(|value| value.holds()),
                Step::Match(pattern, term) => match self.term(term)? {
                    Some(value) => self.matches(pattern, value)?,
                    None => false,
                },
                Step::Every { over, key, value, body } => self.every(over, *key, *value, body)?,
                Step::Each { over, key, value, must_iterate } => {
                    let rest = steps.get(at.saturating_add(1)..).unwrap_or_default();
                    let Some(items) = self.term(over)? else { return Ok(Flow::Next) };
                    self.weigh(&items)?;
                    let wanted = !matches!(key, Pattern::Any);
                    return each(items, wanted, *must_iterate, &mut |index, item| {
                        self.step()?;
                        let fits = match index {
                            Some(index) => self.matches(key, index)?,
                            None => true,
                        };
                        if fits && self.matches(value, item)? {
                            self.body(rest, then)
                        } else {
                            Ok(Flow::Next)
                        }
                    });
                }
            };
            if !holds {
                return Ok(Flow::Next);
            }
        }
        then(self)
    }

    fn every(
        &mut self,
        over: &'r Term,
        key: Option<Slot>,
        value: Slot,
        body: &'r [Step],
    ) -> Result<bool, Doubt> {
        let Some(items) = self.term(over)? else { return Ok(false) };
        if matches!(items, Operand::Text(_)) {
            return Ok(false);
        }
        let items = items.materialized()?;
        if !matches!(items.as_value(), Some(Value::Array(_) | Value::Set(_) | Value::Object(_))) {
            return Ok(false);
        }
        let mut all = true;
        each(items, key.is_some(), false, &mut |index, item| {
            self.set(value, item)?;
            if let (Some(key), Some(index)) = (key, index) {
                self.set(key, index)?;
            }
            let mut holds = false;
            self.body(body, &mut |_| {
                holds = true;
                Ok(Flow::Stop)
            })?;
            all = holds;
            Ok(if holds { Flow::Next } else { Flow::Stop })
        })?;
        Ok(all)
    }

    fn matches(&mut self, pattern: &'r Pattern, value: Operand<'r>) -> Result<bool, Doubt> {
        match pattern {
            Pattern::Any => Ok(true),
            Pattern::Slot(slot) => {
                self.set(*slot, value)?;
                Ok(true)
            }
            Pattern::Equal(term) => match self.term(term)? {
                Some(expected) => value.equals(&expected),
                None => Ok(false),
            },
            Pattern::Array(patterns) => {
                let value = value.into_value()?;
                let Value::Array(items) = &value else { return Ok(false) };
                if items.len() != patterns.len() {
                    return Ok(false);
                }
                for (pattern, item) in patterns.iter().zip(items.iter()) {
                    if !self.matches(pattern, Operand::Owned(item.clone()))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Pattern::Object(members) => {
                let value = value.into_value()?;
                let Value::Object(object) = &value else { return Ok(false) };
                for (key, pattern) in members {
                    let Some(item) = object.get(key) else { return Ok(false) };
                    if !self.matches(pattern, Operand::Owned(item.clone()))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn input(&mut self, at: usize) -> Maybe<'r> {
        let path = self.program.inputs.get(at).ok_or_else(lost)?;
        if let Some(found) = self.source.direct(path)? {
            return Ok(found);
        }
        let cell = self.found.inputs.get(at).ok_or_else(lost)?;
        if cell.get().is_none() {
            let built = self.source.build(path)?;
            cell.set(built).map_err(|_| lost())?;
        }
        Ok(cell.get().and_then(Option::as_ref).map(Operand::Shared))
    }

    /// The constant behind a term, where there is one.
    fn constant(&self, term: &'r Term) -> Option<&'r Constant> {
        match term {
            Term::Constant(constant) => Some(constant),
            Term::Rule(at) => self.program.rules.get(*at)?.constant.as_ref(),
            _ => None,
        }
    }

    fn term(&mut self, term: &'r Term) -> Maybe<'r> {
        match term {
            Term::Constant(constant) => Ok(Some(Operand::Shared(&constant.value))),
            Term::Undefined => Ok(None),
            Term::Local(slot) => {
                Ok(self.stack.get(self.base.saturating_add(*slot)).cloned().flatten())
            }
            Term::Input(at) => self.input(*at),
            Term::Rule(at) => Ok(self.rule(*at)?.map(Operand::Shared)),
            Term::Get { of, index, of_data } => {
                let (of, index) = (self.term(of)?, self.term(index)?);
                let (Some(of), Some(index)) = (of, index) else { return Ok(None) };
                let found = of.get(&index)?;
                if found.is_none() && *of_data && matches!(index.as_value(), Some(Value::Number(_)))
                {
                    return Err(Doubt("data is indexed by a number".to_owned()));
                }
                Ok(found)
            }
            Term::Array(items) => {
                Ok(self.terms(items)?.map(|items| Operand::Owned(Value::from(items))))
            }
            Term::Set(items) => {
                let items = self.terms(items)?;
                let set =
                    |items: Vec<Value>| Value::from(items.into_iter().collect::<BTreeSet<_>>());
                Ok(items.map(|items| Operand::Owned(set(items))))
            }
            Term::Object(members) => self.object(members),
            Term::Compare(op, left, right) => self.compare(op, left, right),
            Term::Arithmetic(op, left, right) => self.arithmetic(op, left, right),
            Term::Sets(op, left, right) => self.sets(op, left, right),
            Term::Contains { value, collection, counted } => {
                self.contains(value, collection, *counted)
            }
            Term::Call(builtin, args) => self.call(builtin, args),
            Term::Function(at, args) => self.function(*at, args),
            Term::ArrayOf(value, body) => {
                let mut items = Vec::new();
                self.body(body, &mut |this| {
                    if let Some(value) = this.term(value)? {
                        items.push(value.into_value()?);
                    }
                    Ok(Flow::Next)
                })?;
                Ok(Some(Operand::Owned(Value::from(items))))
            }
            Term::SetOf(value, body) => {
                let mut items = BTreeSet::new();
                self.body(body, &mut |this| {
                    if let Some(value) = this.term(value)? {
                        items.insert(value.into_value()?);
                    }
                    Ok(Flow::Next)
                })?;
                Ok(Some(Operand::Owned(Value::from(items))))
            }
            Term::ObjectOf(member, body) => self.object_of(member, body),
        }
    }

    fn object(&mut self, members: &'r [(Term, Term)]) -> Maybe<'r> {
        let mut object = BTreeMap::new();
        for (key, value) in members {
            let Some(key) = self.term(key)? else { return Ok(None) };
            let Some(value) = self.term(value)? else { return Ok(None) };
            self.weigh(&value)?;
            object.insert(key.into_value()?, value.into_value()?);
        }
        Ok(Some(Operand::Owned(Value::from(object))))
    }

    fn object_of(&mut self, member: &'r (Term, Term), body: &'r [Step]) -> Maybe<'r> {
        let (key, value) = member;
        let mut object: BTreeMap<Value, Value> = BTreeMap::new();
        self.body(body, &mut |this| {
            let (key, value) = (this.term(key)?, this.term(value)?);
            let (Some(key), Some(value)) = (key, value) else { return Ok(Flow::Next) };
            this.weigh(&value)?;
            let (key, value) = (key.into_value()?, value.into_value()?);
            if object.get(&key).is_some_and(|known| *known != value) {
                return Err(Doubt("an object has two values for one name".to_owned()));
            }
            object.insert(key, value);
            Ok(Flow::Next)
        })?;
        Ok(Some(Operand::Owned(Value::from(object))))
    }

    fn compare(&mut self, op: &BoolOp, left: &'r Term, right: &'r Term) -> Maybe<'r> {
        let (left, right) = (self.term(left)?, self.term(right)?);
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        self.weigh(&left)?;
        self.weigh(&right)?;
        let truth = match op {
            BoolOp::Eq => left.equals(&right)?,
            BoolOp::Ne => !left.equals(&right)?,
            BoolOp::Lt => left.compare(&right)?.is_lt(),
            BoolOp::Le => left.compare(&right)?.is_le(),
            BoolOp::Ge => left.compare(&right)?.is_ge(),
            BoolOp::Gt => left.compare(&right)?.is_gt(),
        };
        Ok(Some(Operand::Owned(Value::Bool(truth))))
    }

    fn sets(&mut self, op: &BinOp, left: &'r Term, right: &'r Term) -> Maybe<'r> {
        let (left, right) = (self.term(left)?, self.term(right)?);
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        self.weigh(&left)?;
        self.weigh(&right)?;
        let (Value::Set(left), Value::Set(right)) = (left.into_value()?, right.into_value()?)
        else {
            return Err(Doubt("an operand is no set".to_owned()));
        };
        Ok(Some(Operand::Owned(match op {
            BinOp::Union => left.union(&right).into_value(),
            BinOp::Intersection => left.intersection(&right).into_value(),
        })))
    }

    fn terms(&mut self, terms: &'r [Term]) -> Result<Option<Vec<Value>>, Doubt> {
        let mut values = Vec::with_capacity(terms.len());
        for term in terms {
            let Some(value) = self.term(term)? else { return Ok(None) };
            self.weigh(&value)?;
            values.push(value.into_value()?);
        }
        Ok(Some(values))
    }

    fn arithmetic(&mut self, op: &ArithOp, left: &'r Term, right: &'r Term) -> Maybe<'r> {
        let (left, right) = (self.term(left)?, self.term(right)?);
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        match (left.into_value()?, right.into_value()?) {
            (Value::Set(left), Value::Set(right)) if *op == ArithOp::Sub => {
                Ok(Some(Operand::Owned(left.difference(&right).into_value())))
            }
            (Value::Number(left), Value::Number(right)) => {
                let zero = right.as_f64() == Some(0.0);
                let result = match op {
                    ArithOp::Add => left.add(&right),
                    ArithOp::Sub => left.sub(&right),
                    ArithOp::Mul => left.mul(&right),
                    ArithOp::Div | ArithOp::Mod if zero => {
                        return Err(Doubt("a division by zero".to_owned()));
                    }
                    ArithOp::Div => left.divide(&right),
                    ArithOp::Mod if !left.is_integer() || !right.is_integer() => {
                        return Err(Doubt("a remainder of no integer".to_owned()));
                    }
                    ArithOp::Mod => left.modulo(&right),
                };
                let number = result.map_err(|error| Doubt(error.to_string()))?;
                Ok(Some(Operand::Owned(Value::Number(number))))
            }
            _ => Err(Doubt("an operand is no number".to_owned())),
        }
    }

    fn contains(&mut self, value: &'r Term, collection: &'r Term, counted: bool) -> Maybe<'r> {
        let value = self.term(value)?;
        let truth = |truth| Ok(Some(Operand::Owned(Value::Bool(truth))));
        if let Some(texts) = self.constant(collection).and_then(|it| it.texts.as_ref()) {
            let Some(value) = value else { return Ok(None) };
            if counted {
                self.count(0)?;
            }
            let found = value
                .as_text()
                .is_some_and(|text| texts.binary_search_by(|known| (**known).cmp(text)).is_ok());
            return truth(found);
        }
        let collection = self.term(collection)?;
        let (Some(value), Some(collection)) = (value, collection) else { return Ok(None) };
        self.weigh(&collection)?;
        if counted {
            let compared = match &collection {
                Operand::Texts(texts) => texts.len(),
                Operand::Json(json) => json.len(),
                other => match other.as_value() {
                    Some(Value::Array(items)) => items.len(),
                    Some(Value::Object(members)) => members.len(),
                    _ => 0,
                },
            };
            self.count(compared)?;
        }
        truth(collection.contains(&value)?)
    }

    /// Counts the steps of `in`, as a call of the built-in would.
    fn count(&mut self, compared: usize) -> Result<(), Doubt> {
        let work = u64::try_from(compared).unwrap_or(u64::MAX).saturating_add(1);
        self.meter.count("__member", work, self.limits).map_err(Doubt)
    }

    fn call(&mut self, builtin: &'static Builtin, args: &'r [Term]) -> Maybe<'r> {
        let mut operands = Vec::with_capacity(args.len());
        for arg in args {
            operands.push(self.term(arg)?);
        }
        let Some(operands) = operands.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        if let Some(answer) = self.native(builtin, &operands)? {
            return Ok(Some(Operand::Owned(Value::Bool(answer))));
        }
        for operand in &operands {
            self.weigh(operand)?;
        }
        let values: Vec<Value> =
            operands.into_iter().map(Operand::into_value).collect::<Result<_, _>>()?;
        let value =
            builtins::call(builtin, &values, self.limits, &mut self.meter).map_err(Doubt)?;
        Ok((value != Value::Undefined).then_some(Operand::Owned(value)))
    }

    /// The answer of a built-in that compares texts, without values made for it. It counts the same
    /// steps.
    fn native(
        &mut self,
        builtin: &'static Builtin,
        args: &[Operand<'r>],
    ) -> Result<Option<bool>, Doubt> {
        let compare: fn(&str, &str) -> bool = match builtin.name {
            "startswith" => |text, part| text.starts_with(part),
            "endswith" => |text, part| text.ends_with(part),
            "contains" => |text, part| text.contains(part),
            _ => return Ok(None),
        };
        let [text, part] = args else { return Ok(None) };
        let (Some(text), Some(part)) = (text.as_text(), part.as_text()) else { return Ok(None) };
        let work = text.len().saturating_add(part.len()).saturating_add(1);
        let work = u64::try_from(work).unwrap_or(u64::MAX);
        self.meter.count(builtin.name, work, self.limits).map_err(Doubt)?;
        Ok(Some(compare(text, part)))
    }

    fn function(&mut self, at: usize, args: &'r [Term]) -> Maybe<'r> {
        let rule = self.program.rules.get(at).ok_or_else(lost)?;
        let mut operands = Vec::with_capacity(args.len());
        for arg in args {
            operands.push(self.term(arg)?);
        }
        let Some(operands) = operands.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let mut result = None;
        for definition in self.candidates(rule)? {
            let value = self.enter(definition, |this| {
                for (pattern, operand) in definition.parameters.iter().zip(&operands) {
                    if !this.matches(pattern, operand.clone())? {
                        return Ok(None);
                    }
                }
                this.branches(rule, definition)
            })?;
            merge(&mut result, value, rule)?;
        }
        Ok(result.map(Operand::Owned))
    }
}

/// Definitions of a rule: all, or those at some places.
struct Candidates<'r> {
    all: &'r [Definition],
    chosen: Option<Vec<usize>>,
    at: usize,
}

impl<'r> Iterator for Candidates<'r> {
    type Item = &'r Definition;

    fn next(&mut self) -> Option<&'r Definition> {
        let at = match &self.chosen {
            Some(chosen) => *chosen.get(self.at)?,
            None => self.at,
        };
        self.at = self.at.saturating_add(1);
        self.all.get(at)
    }
}

/// Calls `visit` with the key, where it is wanted, and the value of each item. The key of a set's
/// element is the element.
fn each<'r>(
    items: Operand<'r>,
    wanted: bool,
    must_iterate: bool,
    visit: &mut dyn FnMut(Option<Operand<'r>>, Operand<'r>) -> Result<Flow, Doubt>,
) -> Result<Flow, Doubt> {
    match items {
        Operand::Texts(texts) => {
            for (at, text) in texts.iter().enumerate() {
                let key = wanted.then(|| Operand::Owned(Value::from(at)));
                if visit(key, Operand::Text(text))? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
            Ok(Flow::Next)
        }
        Operand::Shared(value) => of_value(value, wanted, must_iterate, &Operand::Shared, visit),
        Operand::Text(_) if !must_iterate => Ok(Flow::Next),
        Operand::Text(_) | Operand::Json(_) | Operand::Owned(_) => {
            let value = items.into_value()?;
            let cloned = |value: &Value| Operand::Owned(value.clone());
            of_value(&value, wanted, must_iterate, &cloned, visit)
        }
    }
}

fn of_value<'v, 'r>(
    value: &'v Value,
    wanted: bool,
    must_iterate: bool,
    operand: &dyn Fn(&'v Value) -> Operand<'r>,
    visit: &mut dyn FnMut(Option<Operand<'r>>, Operand<'r>) -> Result<Flow, Doubt>,
) -> Result<Flow, Doubt> {
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let key = wanted.then(|| Operand::Owned(Value::from(at)));
                if visit(key, operand(item))? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        Value::Set(items) => {
            for item in items.iter() {
                if visit(wanted.then(|| operand(item)), operand(item))? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        Value::Object(members) => {
            for (key, item) in members.iter() {
                if visit(wanted.then(|| operand(key)), operand(item))? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Undefined => {
            if must_iterate {
                return Err(Doubt("`some … in` of what is no collection".to_owned()));
            }
        }
    }
    Ok(Flow::Next)
}

/// Adds one more value of a rule. Two different ones are an error.
fn merge(result: &mut Option<Value>, value: Option<Value>, rule: &Rule) -> Result<(), Doubt> {
    match (&*result, value) {
        (_, None) => Ok(()),
        (None, value) => {
            *result = value;
            Ok(())
        }
        (Some(known), Some(value)) if *known == value => Ok(()),
        (Some(_), Some(_)) => Err(Doubt(format!("`{}` has two values", rule.path))),
    }
}

/// A place that the compiler gave out does not exist.
fn lost() -> Doubt {
    Doubt("the program is not whole".to_owned())
}
