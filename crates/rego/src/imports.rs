//! Imports written out, and references to whole packages refused.
//!
//! regorus 0.14 evaluates a reference to a whole package (`data.org`, or `org` after
//! `import data.org`) module by module and calls the package done after the first: rules of its
//! later modules are then undefined, without an error. A `deny` behind such a reference would
//! vanish. A reference to a rule by its full path has no such fault, so `org.rule` becomes
//! `data.org.rule` before either engine sees it, and what names a package and no rule is a
//! problem. Lines stay where they are; columns may move.

use std::collections::BTreeMap;

use regorus::unstable::{Module as Ast, Ref};

use super::check::{Index, place};
use super::problem::PolicyProblem;
use super::walk::{Chain, Visit, Walk};
use super::{Module, eligible::is_identifier};

/// A text to put in the place of a span: start, end, text; offsets in bytes.
type Edit = (usize, usize, String);

/// The modules with their imports written out, or every reference that cannot be.
pub(super) fn written_out(
    modules: &[Module],
    parsed: &[Ref<Ast>],
) -> Result<Vec<Module>, Vec<PolicyProblem>> {
    let index = Index::of(parsed);
    let mut edits: BTreeMap<usize, Vec<Edit>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (module, rule) in index.rules.values().flatten() {
        for visit in Walk::rule(rule) {
            let Visit::Ref(chain) = visit else { continue };
            match look(&index, *module, &chain) {
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

/// What is to be done about one reference.
fn look(
    index: &Index<'_>,
    module: usize,
    chain: &Chain<'_>,
) -> Result<Option<Edit>, PolicyProblem> {
    let problem = |message: &str, hint: &str| {
        let (file, line) = place(chain.span);
        PolicyProblem::at(file, line, message).hint(hint)
    };
    if index.resolve(module, chain).is_some_and(|path| index.covers_package(&path)) {
        let hint = "name the rule: `data.package.rule`";
        return Err(problem("a reference to a whole package, not to a rule of it", hint));
    }
    let (Some(import), Some(root)) = (index.imported(module, chain), chain.root_span) else {
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
