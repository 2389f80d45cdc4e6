//! Replaces imported names by their full paths, and refuses references to whole packages, and to
//! other objects that hold rules.
//!
//! This works around a bug of regorus 0.14. For a reference to a whole package (`data.org`, or
//! `org` after `import data.org`) it evaluates the package's first module only and marks the whole
//! package as evaluated. Rules of the other modules are then undefined, without an error, and a
//! `deny` among them would have no effect. A reference to a rule by its full path is evaluated
//! correctly. So `org.rule` is rewritten to `data.org.rule` before either engine gets the text, and
//! a reference that names a package but no rule is a problem. The rewriting keeps line numbers;
//! columns may change. [`Policy`](super::Policy) calls it.

use std::collections::BTreeMap;

use regorus::unstable::{Expr, Module as Ast, Ref};

use super::check::{Index, dotted, location};
use super::problem::PolicyProblem;
use super::walk::{Reference, Step, Visit, Walk};
use super::{Module, iteration::is_identifier};

/// A replacement: start and end in bytes, and the new text.
type Edit = (usize, usize, String);

/// The modules with imported names replaced by full paths.
///
/// # Errors
///
/// Every reference to a whole package or to another object that holds rules, and every use of an import that cannot be written without
/// quotes.
pub(super) fn with_full_paths(
    modules: &[Module],
    parsed: &[Ref<Ast>],
) -> Result<Vec<Module>, Vec<PolicyProblem>> {
    let index = Index::of(parsed);
    let mut edits: BTreeMap<usize, Vec<Edit>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (module, rule) in index.rules.values().flatten() {
        for visit in Walk::rule(rule) {
            let Visit::Ref(reference) = visit else { continue };
            match edit_of(&index, *module, &reference) {
                Ok(Some(edit)) => edits.entry(*module).or_default().push(edit),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
    }
    if !problems.is_empty() {
        problems.sort();
        problems.dedup();
        return Err(problems);
    }
    let written = modules.iter().enumerate().map(|(at, module)| Module {
        path: module.path.clone(),
        text: apply(&module.text, edits.remove(&at).unwrap_or_default()),
    });
    Ok(written.collect())
}

/// The edit that one reference needs; `None` where it needs none.
fn edit_of(
    index: &Index<'_>,
    module: usize,
    reference: &Reference<'_>,
) -> Result<Option<Edit>, PolicyProblem> {
    let problem = |message: &str, hint: &str| {
        let (file, line) = location(reference.span);
        PolicyProblem::at(file, line, message).hint(hint)
    };
    if index.resolve(module, reference).is_some_and(|path| index.covers_package(&path)) {
        let hint = "name the rule: `data.package.rule`";
        return Err(problem("a reference to a whole package, not to a rule of it", hint));
    }
    let computed = reference.steps.len().saturating_sub(reference.prefix().len());
    let may_be_empty =
        |path: Vec<&str>| index.may_be_empty(&path, path.len().saturating_add(computed));
    if index.resolve(module, reference).is_some_and(may_be_empty) {
        let hint = "name the rule itself, or give it a default";
        return Err(problem("a reference to an object above rules, not to a rule", hint));
    }
    if let Some(path) = index.resolve(module, reference)
        && let Some(set) = looked_up(&path, reference)
        && let Some(function) = index.yielded_function(set)
    {
        let message = format!(
            "a lookup in a set of the values of `{}`, which has `else` or a default",
            dotted(&function)
        );
        let hint = "write `x in s` for `s[x]`, or bind the value: `s contains v if v := f(x)`";
        return Err(problem(&message, hint));
    }
    let (Some(import), Some(root)) = (index.imported(module, reference), reference.root_span)
    else {
        return Ok(None);
    };
    if !import.iter().all(|name| is_identifier(name)) {
        let hint = "write the whole path where it is used";
        return Err(problem("a use of an import whose path needs quotes", hint));
    }
    let (Ok(start), Ok(end)) = (usize::try_from(root.start), usize::try_from(root.end)) else {
        return Ok(None);
    };
    Ok(Some((start, end, import.join("."))))
}

/// The path of the set in which a reference looks an element up, if it is one; `s[_]` is no lookup.
fn looked_up<'p, 'a>(path: &'p [&'a str], reference: &Reference<'_>) -> Option<&'p [&'a str]> {
    match reference.steps.get(reference.prefix().len()) {
        Some(Step::Index(Expr::Var { span, .. })) if span.text() == "_" => None,
        Some(_) => Some(path),
        None => path.split_last().map(|(_, set)| set),
    }
}

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort();
    edits.dedup();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end, replacement) in edits {
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(&replacement);
        at = end.max(at);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
