//! Evaluates a [`Program`].
//!
//! An evaluation ends with a value or in [`Doubt`]: an error, a conflict, a limit, or anything that
//! the interpreter might see otherwise. Doubt gives no answer; the strict engine then evaluates.

use std::collections::BTreeMap;

use regorus::Value;
use regorus::unstable::{ArithOp, BinOp, BoolOp};

use super::Doubt;
use super::index::INDEXED_BY_MAX;
use super::input::Source;
use super::ir::{Constant, Definition, Pattern, Program, Rule, Slot, Step, Term};
use super::native::Native;
use super::operand::{Names, Operand, Type};
use crate::EvalLimits;
use crate::builtins::{self, Builtin, Meter};

/// Bytes of the message that count as one step where they become a value.
const STEP_BYTES: usize = 16;

/// Variables for which there is room at once; more get it when they come.
const STACK_SLOTS: usize = 16;

/// What an evaluation finds once: nothing yet, or a value, which may be undefined.
type Cell<'r> = Option<Option<Operand<'r>>>;

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
    limits: &'r EvalLimits,
    meter: Meter,
    steps: usize,
    /// The values of rules, by their places.
    rules: Vec<Cell<'r>>,
    /// The parts of the input, by their places.
    inputs: Vec<Cell<'r>>,
    /// The variables of all rules that are being evaluated, the innermost last.
    stack: Vec<Option<Operand<'r>>>,
    base: usize,
}

impl<'r> Evaluation<'r> {
    /// An evaluation of `program` for the input in `source`.
    pub(super) fn new(program: &'r Program, source: Source<'r>, limits: &'r EvalLimits) -> Self {
        Self {
            program,
            source,
            limits,
            meter: Meter::default(),
            steps: 0,
            rules: vec![None; program.rules.len()],
            inputs: vec![None; program.inputs.len()],
            stack: Vec::with_capacity(STACK_SLOTS),
            base: 0,
        }
    }

    /// The value of a rule; `None` where it is undefined.
    pub(super) fn rule(&mut self, at: usize) -> Maybe<'r> {
        if let Some(Some(known)) = self.rules.get(at) {
            return Ok(known.clone());
        }
        let rule = self.program.rules.get(at).ok_or_else(lost)?;
        let value = if let Some(constant) = &rule.constant {
            Some(Operand::Shared(&constant.value))
        } else if rule.is_set {
            Some(self.set_rule(rule)?)
        } else {
            self.complete_rule(rule)?
        };
        *self.rules.get_mut(at).ok_or_else(lost)? = Some(value.clone());
        Ok(value)
    }

    fn set_rule(&mut self, rule: &'r Rule) -> Result<Operand<'r>, Doubt> {
        let mut items = Vec::new();
        for definition in self.candidates(rule)? {
            let (mut defined, mut undefined) = (false, false);
            self.enter(definition.slots, |this| {
                for branch in &definition.branches {
                    this.body(&branch.body, &mut |this| {
                        match this.term(&branch.value)? {
                            Some(value) => {
                                items.push(value.stored()?);
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
        Ok(self.set_of(items))
    }

    /// A set of stored values.
    fn set_of(&self, items: Vec<Operand<'r>>) -> Operand<'r> {
        if items.is_empty() {
            return Operand::Shared(&self.program.empty_set);
        }
        Operand::set_of(items)
    }

    fn complete_rule(&mut self, rule: &'r Rule) -> Maybe<'r> {
        let mut result = None;
        for definition in self.candidates(rule)? {
            let value = self.enter(definition.slots, |this| this.branches(rule, definition))?;
            merge(&mut result, value, rule)?;
        }
        match (result, &rule.default) {
            (None, Some((default, slots))) => {
                let value = self.enter(*slots, |this| this.term(default))?;
                value.map(Operand::stored).transpose()
            }
            (result, _) => Ok(result),
        }
    }

    /// The definitions that can hold, in the order of the text.
    fn candidates(&mut self, rule: &'r Rule) -> Result<Candidates<'r>, Doubt> {
        let all = rule.definitions.as_slice();
        let Some(index) = &rule.index else { return Ok(Candidates::All(all.iter())) };
        let mut chosen: [&'r [usize]; INDEXED_BY_MAX] = [&[]; INDEXED_BY_MAX];
        for ((input, by_text), place) in index.by_text.iter().zip(&mut chosen) {
            let value = self.input(*input)?;
            let text = value.as_ref().and_then(Operand::as_text);
            if let Some(definitions) = text.and_then(|text| by_text.get(text)) {
                *place = definitions;
            }
        }
        Ok(Candidates::Chosen { all, always: &index.always, chosen })
    }

    /// The value of the first branch that holds.
    fn branches(&mut self, rule: &'r Rule, definition: &'r Definition) -> Maybe<'r> {
        for branch in &definition.branches {
            let mut result = None;
            self.body(&branch.body, &mut |this| {
                let value = match this.term(&branch.value)? {
                    Some(value) => Some(value.stored()?),
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
        slots: usize,
        evaluate: impl FnOnce(&mut Self) -> Result<T, Doubt>,
    ) -> Result<T, Doubt> {
        self.step()?;
        if slots == 0 {
            // Nothing below reads or writes a variable of this frame.
            return evaluate(self);
        }
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
            Operand::Bool(_) | Operand::Text(_) => return Ok(()),
            Operand::Json(json) => json.raw().len().checked_div(STEP_BYTES).unwrap_or_default(),
            other => other.len().unwrap_or_default(),
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
                Step::Holds(term) => self.holds(term)?,
                Step::Fails(term) => !self.holds(term)?,
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
        if !items.kind().is_collection() {
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
                if value.kind() != Type::Array || value.len() != Some(patterns.len()) {
                    return Ok(false);
                }
                for (at, pattern) in patterns.iter().enumerate() {
                    let item = value.get(&Operand::Owned(Value::from(at)))?;
                    let Some(item) = item else { return Ok(false) };
                    if !self.matches(pattern, item)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Pattern::Object(members) => {
                if value.kind() != Type::Object {
                    return Ok(false);
                }
                for (key, pattern) in members {
                    let Some(item) = value.get(&Operand::Shared(key))? else { return Ok(false) };
                    if !self.matches(pattern, item)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn input(&mut self, at: usize) -> Maybe<'r> {
        if let Some(Some(known)) = self.inputs.get(at) {
            return Ok(known.clone());
        }
        let path = self.program.inputs.get(at).ok_or_else(lost)?;
        let value = match self.source.direct(path)? {
            Some(found) => found,
            None => self.source.build(path)?.map(Operand::Owned),
        };
        *self.inputs.get_mut(at).ok_or_else(lost)? = Some(value.clone());
        Ok(value)
    }

    /// Whether a term is defined and not false. Texts are compared where they stand.
    fn holds(&mut self, term: &'r Term) -> Result<bool, Doubt> {
        match term {
            Term::Compare(op @ (BoolOp::Eq | BoolOp::Ne), left, right) => {
                if let (Some(left), Some(right)) = (self.text(left)?, self.text(right)?) {
                    let same = left == right;
                    let defined = left.is_some() && right.is_some();
                    return Ok(defined && same == (*op == BoolOp::Eq));
                }
            }
            Term::Contains { value, collection, counted } => {
                if let Some(texts) = self.constant(collection).and_then(|it| it.texts.as_ref())
                    && let Some(value) = self.text(value)?
                {
                    let Some(value) = value else { return Ok(false) };
                    if *counted {
                        self.count(0)?;
                    }
                    return Ok(texts.binary_search_by(|known| (**known).cmp(value)).is_ok());
                }
            }
            Term::Rule(at) => {
                if let Some(Some(known)) = self.rules.get(*at) {
                    return Ok(known.as_ref().is_some_and(Operand::holds));
                }
            }
            _ => {}
        }
        Ok(self.term(term)?.is_some_and(|value| value.holds()))
    }

    /// The text of a term that is found without work, `None` in it where it is undefined; the outer
    /// `None` for any other term or value.
    #[expect(clippy::option_option, reason = "the inner one says that the value is undefined")]
    fn text(&mut self, term: &'r Term) -> Result<Option<Option<&'r str>>, Doubt> {
        let found = match term {
            Term::Constant(constant) => {
                return Ok(match &constant.value {
                    Value::String(text) => Some(Some(&**text)),
                    _ => None,
                });
            }
            Term::Input(at) => {
                if let Some(None) = self.inputs.get(*at) {
                    self.input(*at)?;
                }
                self.inputs.get(*at).and_then(Option::as_ref)
            }
            Term::Local(slot) => self.stack.get(self.base.saturating_add(*slot)),
            _ => None,
        };
        Ok(match found {
            Some(None) => Some(None),
            Some(Some(Operand::Text(text))) => Some(Some(text)),
            Some(Some(Operand::Shared(Value::String(text)))) => Some(Some(&**text)),
            _ => None,
        })
    }

    /// The constant behind a term, where there is one.
    fn constant(&self, term: &'r Term) -> Option<&'r Constant> {
        match term {
            Term::Constant(constant) => Some(constant),
            Term::Rule(at) => self.program.rules.get(*at)?.constant.as_ref(),
            _ => None,
        }
    }

    /// The value of a term; `None` where it is undefined. What is found rather than made is here.
    fn term(&mut self, term: &'r Term) -> Maybe<'r> {
        match term {
            Term::Constant(constant) => Ok(Some(Operand::Shared(&constant.value))),
            Term::Undefined => Ok(None),
            Term::Local(slot) => {
                Ok(self.stack.get(self.base.saturating_add(*slot)).cloned().flatten())
            }
            Term::Input(at) => self.input(*at),
            Term::Rule(at) => self.rule(*at),
            Term::Get { of, index, of_data } => self.get(of, index, *of_data),
            other => self.made(other),
        }
    }

    fn get(&mut self, of: &'r Term, index: &'r Term, of_data: bool) -> Maybe<'r> {
        // Most indexes are names.
        if let (Term::Local(slot), Term::Constant(name)) = (of, index) {
            let of = self.stack.get(self.base.saturating_add(*slot)).and_then(Option::as_ref);
            return of.map_or(Ok(None), |of| of.get(&Operand::Shared(&name.value)));
        }
        let (of, index) = (self.term(of)?, self.term(index)?);
        let (Some(of), Some(index)) = (of, index) else { return Ok(None) };
        let found = of.get(&index)?;
        if found.is_none() && of_data && matches!(index.as_value(), Some(Value::Number(_))) {
            return Err(Doubt("data is indexed by a number".to_owned()));
        }
        Ok(found)
    }

    /// The value of a term that makes one.
    fn made(&mut self, term: &'r Term) -> Maybe<'r> {
        match term {
            Term::Constant(_)
            | Term::Undefined
            | Term::Local(_)
            | Term::Input(_)
            | Term::Rule(_)
            | Term::Get { .. } => Err(lost()),
            Term::Array(items) => Ok(self.terms(items)?.map(|items| Operand::Array(items.into()))),
            Term::Set(items) => Ok(self.terms(items)?.map(|items| self.set_of(items))),
            Term::Record(names, items) => self.record(names, items),
            Term::Object(members) => self.object(members),
            Term::Compare(op, left, right) => self.compare(op, left, right),
            Term::Arithmetic(op, left, right) => self.arithmetic(op, left, right),
            Term::Sets(op, left, right) => self.sets(op, left, right),
            Term::Contains { value, collection, counted } => {
                self.contains(value, collection, *counted)
            }
            Term::Call(builtin, native, args) => self.call(builtin, native.as_ref(), args),
            Term::Function(at, args) => self.function(*at, args),
            Term::ArrayOf(value, body) => {
                let mut items = Vec::new();
                self.body(body, &mut |this| {
                    if let Some(value) = this.term(value)? {
                        items.push(value.stored()?);
                    }
                    Ok(Flow::Next)
                })?;
                Ok(Some(Operand::Array(items.into())))
            }
            Term::SetOf(value, body) => {
                let mut items = Vec::new();
                self.body(body, &mut |this| {
                    if let Some(value) = this.term(value)? {
                        items.push(value.stored()?);
                    }
                    Ok(Flow::Next)
                })?;
                Ok(Some(self.set_of(items)))
            }
            Term::ObjectOf(member, body) => self.object_of(member, body),
        }
    }

    fn record(&mut self, names: &'r Names, items: &'r [Term]) -> Maybe<'r> {
        let mut values = vec![Operand::Bool(false); items.len()];
        for (term, place) in items.iter().zip(&names.places) {
            let Some(value) = self.term(term)? else { return Ok(None) };
            self.weigh(&value)?;
            *values.get_mut(*place).ok_or_else(lost)? = value.stored()?;
        }
        Ok(Some(Operand::Record(names, values.into())))
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
        Ok(Some(Operand::Bool(truth)))
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

    fn terms(&mut self, terms: &'r [Term]) -> Result<Option<Vec<Operand<'r>>>, Doubt> {
        let mut values = Vec::with_capacity(terms.len());
        for term in terms {
            let Some(value) = self.term(term)? else { return Ok(None) };
            self.weigh(&value)?;
            values.push(value.stored()?);
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
        let truth = |truth| Ok(Some(Operand::Bool(truth)));
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
            let collection = match collection {
                Operand::Part(part) if !part.is_array() => collection.stored()?,
                other => other,
            };
            let compared = if collection.kind() == Type::Set { None } else { collection.len() };
            self.count(compared.unwrap_or_default())?;
            return truth(collection.contains(&value)?);
        }
        truth(collection.contains(&value)?)
    }

    /// Counts the steps of `in`, as a call of the built-in would.
    fn count(&mut self, compared: usize) -> Result<(), Doubt> {
        let work = u64::try_from(compared).unwrap_or(u64::MAX).saturating_add(1);
        self.meter.count("__member", work, self.limits).map_err(Doubt)
    }

    fn call(
        &mut self,
        builtin: &'static Builtin,
        native: Option<&'r Native>,
        args: &'r [Term],
    ) -> Maybe<'r> {
        match args {
            [a] => self.call_on([a], builtin, native),
            [a, b] => self.call_on([a, b], builtin, native),
            [a, b, c] => self.call_on([a, b, c], builtin, native),
            _ => {
                let Some(args) = self.arguments(args)? else { return Ok(None) };
                self.called(builtin, native, &args)
            }
        }
    }

    fn call_on<const N: usize>(
        &mut self,
        args: [&'r Term; N],
        builtin: &'static Builtin,
        native: Option<&'r Native>,
    ) -> Maybe<'r> {
        let mut operands = [const { Operand::Bool(false) }; N];
        let mut defined = true;
        for (arg, operand) in args.into_iter().zip(&mut operands) {
            match self.term(arg)? {
                Some(value) => *operand = value,
                None => defined = false,
            }
        }
        if defined { self.called(builtin, native, &operands) } else { Ok(None) }
    }

    fn called(
        &mut self,
        builtin: &'static Builtin,
        native: Option<&'r Native>,
        args: &[Operand<'r>],
    ) -> Maybe<'r> {
        for arg in args {
            self.weigh(arg)?;
        }
        if let Some(native) = native
            && let Some(value) = native.call(builtin.name, args, self.limits, &mut self.meter)?
        {
            return Ok(Some(value));
        }
        let values: Vec<Value> =
            args.iter().cloned().map(Operand::into_value).collect::<Result<_, _>>()?;
        let value =
            builtins::call(builtin, &values, self.limits, &mut self.meter).map_err(Doubt)?;
        Ok((value != Value::Undefined).then_some(Operand::Owned(value)))
    }

    /// The values of arguments; `None` where one is undefined.
    fn arguments(&mut self, args: &'r [Term]) -> Result<Option<Vec<Operand<'r>>>, Doubt> {
        let mut operands = Vec::with_capacity(args.len());
        let mut defined = true;
        for arg in args {
            match self.term(arg)? {
                Some(value) => operands.push(value),
                None => defined = false,
            }
        }
        Ok(defined.then_some(operands))
    }

    fn function(&mut self, at: usize, args: &'r [Term]) -> Maybe<'r> {
        let rule = self.program.rules.get(at).ok_or_else(lost)?;
        let Some(operands) = self.arguments(args)? else { return Ok(None) };
        let mut result = None;
        for definition in self.candidates(rule)? {
            let value = self.enter(definition.slots, |this| {
                for (pattern, operand) in definition.parameters.iter().zip(&operands) {
                    if !this.matches(pattern, operand.clone())? {
                        return Ok(None);
                    }
                }
                this.branches(rule, definition)
            })?;
            merge(&mut result, value, rule)?;
        }
        Ok(result)
    }
}

/// Definitions of a rule: all, or those at the places in sorted lists without a place in two.
enum Candidates<'r> {
    All(std::slice::Iter<'r, Definition>),
    Chosen { all: &'r [Definition], always: &'r [usize], chosen: [&'r [usize]; INDEXED_BY_MAX] },
}

impl<'r> Iterator for Candidates<'r> {
    type Item = &'r Definition;

    fn next(&mut self) -> Option<&'r Definition> {
        match self {
            Self::All(all) => all.next(),
            Self::Chosen { all, always, chosen } => {
                let mut first = always;
                for list in chosen {
                    if list.first().is_some_and(|at| first.first().is_none_or(|it| at < it)) {
                        first = list;
                    }
                }
                let (at, rest) = first.split_first()?;
                *first = rest;
                all.get(*at)
            }
        }
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
    let place = |at: usize| wanted.then(|| Operand::Owned(Value::from(at)));
    match items {
        Operand::Part(part) if part.is_array() => {
            let mut at = 0_usize;
            while let Some(item) = part.item(at) {
                if visit(place(at), item.into())? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
                at = at.saturating_add(1);
            }
            Ok(Flow::Next)
        }
        Operand::Json(json) if items.kind() == Type::Array => {
            for (at, item) in json.elements().enumerate() {
                if visit(place(at), Operand::of_json(item)?)? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
            Ok(Flow::Next)
        }
        Operand::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                if visit(place(at), item.clone())? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
            Ok(Flow::Next)
        }
        Operand::Set(items) => {
            for item in items.iter() {
                if visit(wanted.then(|| item.clone()), item.clone())? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
            Ok(Flow::Next)
        }
        Operand::Record(names, items) => {
            for (key, item) in names.sorted.iter().zip(items.iter()) {
                if visit(wanted.then_some(Operand::Shared(key)), item.clone())? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
            Ok(Flow::Next)
        }
        Operand::Shared(value) => of_value(value, wanted, must_iterate, &Operand::Shared, visit),
        Operand::Bool(_) | Operand::Text(_) if !must_iterate => Ok(Flow::Next),
        _ => {
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
fn merge<'r>(
    result: &mut Option<Operand<'r>>,
    value: Option<Operand<'r>>,
    rule: &Rule,
) -> Result<(), Doubt> {
    match (&*result, value) {
        (_, None) => Ok(()),
        (None, value) => {
            *result = value;
            Ok(())
        }
        (Some(known), Some(value)) if known.equals(&value)? => Ok(()),
        (Some(_), Some(_)) => Err(Doubt(format!("`{}` has two values", rule.path))),
    }
}

/// A place that the compiler gave out does not exist.
fn lost() -> Doubt {
    Doubt("the program is not whole".to_owned())
}
