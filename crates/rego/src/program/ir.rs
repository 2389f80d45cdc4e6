//! The form in which a policy is evaluated: names are resolved to places, constants are built once.

use std::collections::HashMap;

use regorus::Value;
use regorus::unstable::{ArithOp, BinOp, BoolOp};

use super::input::InputPath;
use super::native::Native;
use super::operand::Names;
use crate::builtins::Builtin;

/// The place of a local variable, in the frame of its rule.
pub(super) type Slot = usize;

/// A value that no input changes.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    /// The value.
    pub(super) value: Value,
    /// For a set of texts: the texts, sorted, so that a text is found without a value of its own.
    pub(super) texts: Option<Box<[Box<str>]>>,
}

impl Constant {
    /// A constant, prepared for searches.
    pub(super) fn new(value: Value) -> Self {
        let texts = match &value {
            Value::Set(items) => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Some(Box::from(&**text)),
                    _ => None,
                })
                .collect::<Option<Vec<Box<str>>>>()
                .map(|mut texts| {
                    texts.sort_unstable();
                    texts.into_boxed_slice()
                }),
            _ => None,
        };
        Self { value, texts }
    }
}

/// An expression.
#[derive(Debug)]
pub(super) enum Term {
    /// A constant.
    Constant(Constant),
    /// What is never defined: a path of the data that does not exist.
    Undefined,
    /// A local variable.
    Local(Slot),
    /// A part of the input, by its place in [`Program::inputs`].
    Input(usize),
    /// The value of a rule, by its place in [`Program::rules`].
    Rule(usize),
    /// An item of a collection. `of_data` says whether the reference begins with `data`: there the
    /// interpreter also tries a number as a name.
    Get { of: Box<Self>, index: Box<Self>, of_data: bool },
    /// An array.
    Array(Vec<Self>),
    /// A set.
    Set(Vec<Self>),
    /// An object whose names are constant texts, each given once, and its values in the order of the
    /// text.
    Record(Names, Vec<Self>),
    /// Any other object.
    Object(Vec<(Self, Self)>),
    /// A comparison of any two values.
    Compare(BoolOp, Box<Self>, Box<Self>),
    /// Arithmetic, and the difference of sets.
    Arithmetic(ArithOp, Box<Self>, Box<Self>),
    /// The union or intersection of sets.
    Sets(BinOp, Box<Self>, Box<Self>),
    /// `value in collection`. `counted` says whether it counts as a call of a built-in.
    Contains { value: Box<Self>, collection: Box<Self>, counted: bool },
    /// A call of a built-in, and its form on operands, where it has one.
    Call(&'static Builtin, Option<Native>, Vec<Self>),
    /// A call of a rule that is a function.
    Function(usize, Vec<Self>),
    /// An array comprehension.
    ArrayOf(Box<Self>, Vec<Step>),
    /// A set comprehension.
    SetOf(Box<Self>, Vec<Step>),
    /// An object comprehension.
    ObjectOf(Box<(Self, Self)>, Vec<Step>),
}

/// What must hold of a value, and the variables that it gives values to.
#[derive(Debug)]
pub(super) enum Pattern {
    /// Any value.
    Any,
    /// Any value, which the variable gets.
    Slot(Slot),
    /// One value.
    Equal(Term),
    /// An array of so many items.
    Array(Vec<Self>),
    /// An object with at least these members.
    Object(Vec<(Value, Self)>),
}

/// A statement of a body.
#[derive(Debug)]
pub(super) enum Step {
    /// The term must be defined and not false.
    Holds(Term),
    /// The term must be undefined or false.
    Fails(Term),
    /// The value must match. Undefined does not.
    Match(Pattern, Term),
    /// The rest of the body for each item. `some … in` fails on what is no collection, and an index
    /// without a value does not hold there.
    Each { over: Term, key: Pattern, value: Pattern, must_iterate: bool },
    /// The body must hold for every item.
    Every { over: Term, key: Option<Slot>, value: Slot, body: Vec<Self> },
}

/// One body of a rule, with the value that it gives.
#[derive(Debug)]
pub(super) struct Branch {
    /// The statements.
    pub(super) body: Vec<Step>,
    /// The value, or the element of a set.
    pub(super) value: Term,
}

/// One definition of a rule: branches of which the first that holds counts (`else`).
#[derive(Debug)]
pub(super) struct Definition {
    /// The parameters of a function.
    pub(super) parameters: Vec<Pattern>,
    /// The branches.
    pub(super) branches: Vec<Branch>,
    /// How many variables it has.
    pub(super) slots: usize,
}

/// A rule: all definitions of one name.
#[derive(Debug)]
pub(super) struct Rule {
    /// Its path, for messages.
    pub(super) path: String,
    /// Whether it is a partial set.
    pub(super) is_set: bool,
    /// The definitions, in the order of the text.
    pub(super) definitions: Vec<Definition>,
    /// The value where no definition gives one, and how many variables it has.
    pub(super) default: Option<(Term, usize)>,
    /// The value, where no input changes it.
    pub(super) constant: Option<Constant>,
    /// Which definitions can hold for which text of the input.
    pub(super) index: Option<RuleIndex>,
}

/// Places of definitions, by text.
pub(super) type ByText = HashMap<Box<str>, Vec<usize>>;

/// Which definitions of a rule can hold. A definition that demands `input.… == "text"`, or
/// `input.… in {"text", …}`, before anything that can fail holds for these texts alone.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    /// Definitions that demand nothing of the kind.
    pub(super) always: Vec<usize>,
    /// By a part of the input: the definitions for each of its texts.
    pub(super) by_text: Vec<(usize, ByText)>,
}

/// A policy, compiled.
#[derive(Debug)]
pub(super) struct Program {
    /// The parts of the input that it reads.
    pub(super) inputs: Vec<InputPath>,
    /// The rules that its entrypoints reach.
    pub(super) rules: Vec<Rule>,
    /// A set without elements.
    pub(super) empty_set: Value,
    /// The rule for one message.
    pub(super) decision: Option<usize>,
    /// The rule for one page of a list.
    pub(super) listing: Option<usize>,
}

/// The value of a constant term.
pub(super) fn known(term: &Term) -> Option<&Value> {
    match term {
        Term::Constant(constant) => Some(&constant.value),
        _ => None,
    }
}
