//! Which definitions of a rule can hold for which texts of the input, and which rules can fail.

use std::collections::HashMap;

use regorus::Value;
use regorus::unstable::BoolOp;

use super::ir::{Branch, Definition, Rule, RuleIndex, Step, Term, known};

/// From so many definitions on, a rule gets an index.
const INDEXED_MIN: usize = 4;

/// Most parts of the input by which one rule is indexed.
pub(super) const INDEXED_BY_MAX: usize = 7;

/// Gives a constant to each rule whose value no input changes.
pub(super) fn fold(rules: &mut [Rule]) {
    for rule in rules {
        if let ([Definition { parameters, branches, .. }], None, false) =
            (rule.definitions.as_slice(), &rule.default, rule.is_set)
            && let ([], [Branch { body, value: Term::Constant(constant) }]) =
                (parameters.as_slice(), branches.as_slice())
            && body.is_empty()
        {
            rule.constant = Some(constant.clone());
        }
    }
}

/// For each rule, whether its evaluation can fail with an error.
pub(super) fn failing(rules: &[Rule]) -> Vec<bool> {
    let mut fails = vec![false; rules.len()];
    // A rule that needs a failing one fails, too. Rules do not recur, so this ends.
    loop {
        let next: Vec<bool> = rules.iter().map(|rule| rule_fails(rule, &fails)).collect();
        if next == fails {
            return fails;
        }
        fails = next;
    }
}

fn rule_fails(rule: &Rule, fails: &[bool]) -> bool {
    let branches = || rule.definitions.iter().flat_map(|definition| &definition.branches);
    // Two different values are an error.
    let first = branches().next().and_then(|branch| known(&branch.value));
    let one = first.is_some() && branches().all(|branch| known(&branch.value) == first);
    let single = branches().count() <= 1 && branches().all(|branch| !iterates(&branch.body));
    (!rule.is_set && !one && !single)
        || rule.default.iter().any(|(term, _)| term_fails(term, fails))
        || branches().any(|branch| {
            term_fails(&branch.value, fails) || branch.body.iter().any(|it| step_fails(it, fails))
        })
}

fn iterates(body: &[Step]) -> bool {
    body.iter().any(|step| matches!(step, Step::Each { .. }))
}

fn step_fails(step: &Step, fails: &[bool]) -> bool {
    match step {
        Step::Holds(term) | Step::Fails(term) | Step::Match(_, term) => term_fails(term, fails),
        Step::Each { over, must_iterate, .. } => {
            let collection = matches!(
                over,
                Term::Array(_)
                    | Term::Set(_)
                    | Term::Object(_)
                    | Term::ArrayOf(..)
                    | Term::SetOf(..)
            ) || known(over).is_some_and(|value| {
                matches!(value, Value::Array(_) | Value::Set(_) | Value::Object(_))
            });
            (*must_iterate && !collection) || term_fails(over, fails)
        }
        Step::Every { over, body, .. } => {
            term_fails(over, fails) || body.iter().any(|step| step_fails(step, fails))
        }
    }
}

fn term_fails(term: &Term, fails: &[bool]) -> bool {
    let any = |terms: &[&Term]| terms.iter().any(|term| term_fails(term, fails));
    match term {
        Term::Constant(_) | Term::Undefined | Term::Local(_) | Term::Input(_) => false,
        Term::Rule(at) => fails.get(*at).copied().unwrap_or(true),
        Term::Get { of, index, .. } => any(&[of, index]),
        Term::Array(items) | Term::Set(items) => items.iter().any(|it| term_fails(it, fails)),
        Term::Record(_, items) => items.iter().any(|it| term_fails(it, fails)),
        Term::Object(members) => members.iter().any(|(key, value)| any(&[key, value])),
        Term::Compare(_, left, right) => any(&[left, right]),
        Term::Contains { value, collection, counted } => *counted || any(&[value, collection]),
        Term::Arithmetic(..)
        | Term::Sets(..)
        | Term::Call(..)
        | Term::Function(..)
        | Term::ObjectOf(..) => true,
        Term::ArrayOf(value, body) | Term::SetOf(value, body) => {
            term_fails(value, fails) || body.iter().any(|step| step_fails(step, fails))
        }
    }
}

/// The index of a rule; `None` where it would not help.
pub(super) fn index_of(rule: &Rule, rules: &[Rule], fails: &[bool]) -> Option<RuleIndex> {
    if rule.definitions.len() < INDEXED_MIN {
        return None;
    }
    let mut index = RuleIndex::default();
    for (at, definition) in rule.definitions.iter().enumerate() {
        let [branch] = definition.branches.as_slice() else {
            index.always.push(at);
            continue;
        };
        let Some((input, texts)) = demanded(&branch.body, rules, fails) else {
            index.always.push(at);
            continue;
        };
        let place = index.by_text.iter().position(|(known, _)| *known == input);
        if place.is_none() && index.by_text.len() >= INDEXED_BY_MAX {
            index.always.push(at);
            continue;
        }
        let place = place.unwrap_or_else(|| {
            index.by_text.push((input, HashMap::new()));
            index.by_text.len().saturating_sub(1)
        });
        let Some((_, by_text)) = index.by_text.get_mut(place) else { continue };
        for text in texts {
            by_text.entry(text).or_default().push(at);
        }
    }
    (!index.by_text.is_empty()).then_some(index)
}

/// The first demand of a body that a part of the input is one of some texts, with nothing before it
/// that can fail: an error before it must be met although the demand does not hold.
fn demanded(body: &[Step], rules: &[Rule], fails: &[bool]) -> Option<(usize, Vec<Box<str>>)> {
    for step in body {
        if let Step::Holds(term) = step {
            match term {
                Term::Compare(BoolOp::Eq, left, right) => {
                    let text = |term: &Term| match known(term) {
                        Some(Value::String(text)) => Some(Box::from(&**text)),
                        _ => None,
                    };
                    match (&**left, &**right) {
                        (Term::Input(input), other) | (other, Term::Input(input)) => {
                            if let Some(text) = text(other) {
                                return Some((*input, vec![text]));
                            }
                        }
                        _ => {}
                    }
                }
                Term::Contains { value, collection, .. } => {
                    let constant = match &**collection {
                        Term::Constant(constant) => Some(constant),
                        Term::Rule(at) => rules.get(*at).and_then(|rule| rule.constant.as_ref()),
                        _ => None,
                    };
                    if let (Term::Input(input), Some(texts)) =
                        (&**value, constant.and_then(|constant| constant.texts.as_ref()))
                    {
                        return Some((*input, texts.to_vec()));
                    }
                }
                _ => {}
            }
        }
        if step_fails(step, fails) || iterates(std::slice::from_ref(step)) {
            return None;
        }
    }
    None
}
