//! The order in which the interpreter evaluates the statements of a body.
//!
//! The order decides which of two statements is met first, one that is false or one that fails.
//! A program that met the false one first would give an answer where the interpreter has an error,
//! so it follows the interpreter's rule (regorus 0.14, `scheduler.rs`): statements that give no
//! variable a value run as soon as what they use has one, in the order of the text; the variables
//! then follow by name.

use std::collections::{BTreeMap, BTreeSet};

/// A variable to which a statement gives a value, and what it needs for that. The variable of a
/// statement that only holds or not is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition<'a> {
    /// The variable.
    pub(super) var: &'a str,
    /// The variables of the same body that it needs.
    pub(super) uses: Vec<&'a str>,
}

/// The order of statements, each given by its definitions. It is the order of the text where some
/// statement can never run.
pub(super) fn order(statements: &[Vec<Definition<'_>>]) -> Vec<usize> {
    let mut defining: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, definitions) in statements.iter().enumerate() {
        for definition in definitions {
            defining.entry(definition.var).or_default().push(at);
        }
    }
    let mut todo: Vec<&str> = defining.keys().copied().collect();
    let mut queue = Queue { statements, defined: BTreeSet::new(), order: Vec::new() };
    queue.run(defining.get(""));
    loop {
        let (mut again, mut advanced) = (Vec::new(), false);
        for var in todo {
            let (ran, waits) = queue.run(defining.get(var));
            if ran {
                advanced = true;
                queue.run(defining.get(""));
            }
            if waits {
                again.push(var);
            }
        }
        if !advanced {
            break;
        }
        todo = again;
    }
    if queue.order.len() == statements.len() {
        queue.order
    } else {
        (0..statements.len()).collect()
    }
}

struct Queue<'a, 's> {
    statements: &'s [Vec<Definition<'a>>],
    defined: BTreeSet<&'a str>,
    order: Vec<usize>,
}

impl Queue<'_, '_> {
    /// Runs those of `candidates` that can run: whether one did, and whether one must wait.
    fn run(&mut self, candidates: Option<&Vec<usize>>) -> (bool, bool) {
        let (mut ran, mut waits) = (false, false);
        for at in candidates.into_iter().flatten() {
            if self.order.contains(at) {
                continue;
            }
            let Some(definitions) = self.statements.get(*at) else { continue };
            if self.can_run(definitions) {
                self.order.push(*at);
                self.defined.extend(definitions.iter().map(|it| it.var));
                ran = true;
            } else {
                waits = true;
            }
        }
        (ran, waits)
    }

    /// Whether each definition has what it needs, from other statements or from this one.
    fn can_run(&self, definitions: &[Definition<'_>]) -> bool {
        let alone = definitions.len() == 1;
        let mut own: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&Definition<'_>> = definitions.iter().collect();
        loop {
            let before = open.len();
            open.retain(|definition| {
                let ready = definition
                    .uses
                    .iter()
                    .all(|it| self.defined.contains(it) || (!alone && own.contains(it)));
                if ready {
                    own.insert(definition.var);
                }
                !ready
            });
            if open.is_empty() || open.len() == before {
                return open.is_empty();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(text: &str) -> Vec<usize> {
        // One statement a word: `x<y` gives x a value and needs y; `<y` only needs y.
        let statements: Vec<Vec<Definition<'_>>> = text
            .split(' ')
            .map(|statement| {
                let definitions = statement.split('|').map(|definition| {
                    let (var, uses) = definition.split_once('<').unwrap_or((definition, ""));
                    Definition { var, uses: uses.split(',').filter(|it| !it.is_empty()).collect() }
                });
                definitions.collect()
            })
            .collect();
        order(&statements)
    }

    #[test]
    fn what_gives_no_value_runs_as_soon_as_it_can() {
        for (text, expected) in [
            ("< < <", vec![0, 1, 2]),
            ("x|<x <x <", vec![0, 1, 2]),
            ("<x x|<x <", vec![1, 2, 0]),
            ("x<y <z y|< z<", vec![2, 0, 3, 1]),
            ("x<y|y<x <", vec![0, 1]),
            ("x<w <", vec![0, 1]),
        ] {
            assert_eq!(order_of(text), expected, "{text}");
        }
    }
}
