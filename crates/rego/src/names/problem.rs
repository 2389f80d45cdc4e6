//! Which uses of a name are wrong: looked up, compared, described. The parent module asks it about
//! each expression.

use regorus::unstable::Expr;

use super::value::{Marks, SELECTING, Value};
use crate::negation::children;

const WHY: &str = "a look-alike (`Environment` for `environment`) beside it, or instead of it, is not \
                   found";

const HINT: &str = "write the names as constants (`some name in {\"environment\", \"env\"}; \
                    arguments[name]`), or compare `lower(name)` of all names in a rule that denies; \
                    `# bartizan:allow computed-name` accepts it";

const HINT_TEXT: &str = "compare `lower(name)` of all names in the text in a rule that denies, or deny \
                         calls with such a text; `# bartizan:allow computed-name` accepts it";

/// Built-ins that tell something about a part of a text.
const DESCRIBING: [&str; 8] = [
    "contains",
    "endswith",
    "indexof",
    "indexof_n",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "strings.count",
];

/// What is wrong with the use of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    PutTogether,
    Described,
    InText,
    /// Harmless where it restricts: a look-alike of the text is denied before.
    Folded,
}

impl Problem {
    pub(super) fn text(self) -> (String, &'static str) {
        match self {
            Self::PutTogether => (
                format!(
                    "the policy does not write this name of a member, but puts it together or takes it from the input: {WHY}"
                ),
                HINT,
            ),
            Self::Described => {
                (format!("this describes the name of a member instead of writing it: {WHY}"), HINT)
            }
            Self::InText => (
                format!("the name is one inside a text, where names are not compared: {WHY}"),
                HINT_TEXT,
            ),
            Self::Folded => (
                "this permits by the name of a member in any spelling, but a call with another \
                 spelling than the policy's is denied before (`ambiguous_name`)"
                    .to_owned(),
                HINT,
            ),
        }
    }
}

/// A member of `base` whose name is `name`, which is no literal.
pub(super) fn looked_up(base: Value, name: Value) -> Option<Problem> {
    let unwritten = Marks::SENT
        | Marks::INPUT
        | Marks::MADE
        | Marks::FOLDED
        | Marks::DERIVED
        | Marks::PARSED
        | Marks::PARSED_NAME;
    if base.names.any(Marks::NAME) {
        return name.own.any(unwritten).then_some(Problem::PutTogether);
    }
    if base.own.any(Marks::PARSED) {
        // An index that iterates has the names of this value.
        return (!name.own.any(Marks::PARSED_NAME))
            .then_some(Problem::InText)
            .filter(|_| name.own.any(unwritten));
    }
    compared(name.own, Marks::NONE)
}

/// Two values that are compared as a whole.
pub(super) fn compared(left: Marks, right: Marks) -> Option<Problem> {
    let names = Marks::NAME | Marks::PARSED_NAME;
    for (one, other) in [(left, right), (right, left)] {
        // `trim(name, " ") != name` says whether the name is written in a normal form.
        if one.any(Marks::DERIVED) && !other.any(names) {
            return Some(Problem::Described);
        }
        if one.any(names | Marks::FOLDED) && other.any(Marks::MADE | Marks::INPUT) {
            return Some(Problem::PutTogether);
        }
        if one.any(Marks::PARSED_NAME) && !other.any(names | Marks::FOLDED) {
            return Some(Problem::InText);
        }
        if one.any(Marks::FOLDED) && !other.any(names | Marks::FOLDED) {
            return Some(Problem::Folded);
        }
    }
    None
}

/// Two values that are compared with all that is in them.
pub(super) fn alike(left: Value, right: Value) -> Option<Problem> {
    let both = left.names != Marks::NONE && right.names != Marks::NONE;
    let names = || both.then(|| compared(left.names, right.names)).flatten();
    compared(left.own, right.own).or_else(names)
}

/// The call of a built-in.
pub(super) fn call<'a>(
    name: &str,
    params: &[&'a Expr],
    of: &dyn Fn(&'a Expr) -> Value,
) -> Option<Problem> {
    let by_pattern = name.starts_with("regex.") || name == "glob.match";
    if by_pattern || DESCRIBING.contains(&name) {
        let quotes = params.iter().any(|it| text_of(it).is_some_and(|text| text.contains('"')));
        let marks = if quotes { Marks::NAMES | Marks::SPELT } else { Marks::NAMES };
        return params.iter().any(|it| of(it).own.any(marks)).then_some(Problem::Described);
    }
    if name == "object.subset" {
        let [whole, part] = params else { return None };
        return alike(of(whole), of(part));
    }
    if name == "object.get" {
        let [object, path, _] = params else { return None };
        let steps = match path {
            Expr::Array { .. } => children(path),
            one => vec![*one],
        };
        let base = of(object);
        return steps.into_iter().find_map(|step| match step {
            step if is_text(step) => base.own.any(Marks::PARSED).then_some(Problem::InText),
            step => looked_up(base, of(step)),
        });
    }
    if SELECTING.contains(&name) {
        let [object, paths] = params else { return None };
        let (base, taken) = (of(object), of(paths));
        if base.own.any(Marks::PARSED) {
            return Some(Problem::InText);
        }
        let pointers = name.starts_with("json.") && children(paths).into_iter().any(is_pointer);
        let known = looked_up(base, Value::of(taken.own | taken.names));
        return known.or((pointers && base.names.any(Marks::NAME)).then_some(Problem::PutTogether));
    }
    None
}

/// Whether an expression is a text that joins several names: `"filter/environment"`.
fn is_pointer(expr: &Expr) -> bool {
    text_of(expr).is_some_and(|text| text.contains('/'))
}

pub(super) fn is_text(expr: &Expr) -> bool {
    text_of(expr).is_some()
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(AsRef::as_ref)
        }
        _ => None,
    }
}
