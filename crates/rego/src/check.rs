//! What is refused before a policy may answer anything: found on every branch, not only on those
//! that an example reaches.
//!
//! Calls of what is not in the table, recursion (which overflows the stack of either engine where
//! it goes through functions), data that would silently replace a rule, names that nothing
//! defines, and entrypoints that are not there. All problems are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, Module, Ref, Rule, RuleHead, Span};

use super::builtins;
use super::problem::PolicyProblem;
use super::walk::{Chain, Step, Visit, Walk, chain, rule_args, rule_ref};
use super::{Entrypoints, EvalLimits};

/// Most parameters of a function: the bytecode machine drops any further argument.
const PARAMETERS_MAX: usize = 8;

/// The path of a rule or document below `data`.
pub(super) type Path<'a> = Vec<&'a str>;

/// The package of each module.
pub(super) fn packages(modules: &[Ref<Module>]) -> impl Iterator<Item = Vec<String>> {
    let names = modules.iter().map(|module| names_of(&module.package.refr));
    names.map(|names| names.into_iter().map(str::to_owned).collect())
}

/// The rules of all modules by path, and what names mean in each module.
#[derive(Debug)]
pub(super) struct Index<'a> {
    /// Every definition of a rule, with the module that it is in.
    pub(super) rules: BTreeMap<Path<'a>, Vec<(usize, &'a Rule)>>,
    packages: Vec<Path<'a>>,
    imports: Vec<BTreeMap<&'a str, Path<'a>>>,
}

impl<'a> Index<'a> {
    /// Reads the heads of all rules.
    pub(super) fn of(modules: &'a [Ref<Module>]) -> Self {
        let mut index = Self { rules: BTreeMap::new(), packages: Vec::new(), imports: Vec::new() };
        for (at, module) in modules.iter().enumerate() {
            let package = names_of(&module.package.refr);
            let mut imports = BTreeMap::new();
            for import in &module.imports {
                let path = names_of(&import.refr);
                let alias = import.r#as.as_ref().map(Span::text).or(path.last().copied());
                if let Some(alias) = alias {
                    imports.insert(alias, path);
                }
            }
            for rule in &module.policy {
                let mut path = package.clone();
                path.extend(names_of(rule_ref(rule)));
                index.rules.entry(path).or_default().push((at, rule));
            }
            index.packages.push(package);
            index.imports.push(imports);
        }
        index
    }

    /// The package of a module.
    pub(super) fn package(&self, module: usize) -> &[&'a str] {
        self.packages.get(module).map_or(&[], Vec::as_slice)
    }

    /// The path below `data` that a reference of `module` means; nothing where it means a local
    /// variable, the input, or nothing at all.
    pub(super) fn resolve(&self, module: usize, chain: &Chain<'a>) -> Option<Path<'a>> {
        let root = chain.root.filter(|_| !chain.local)?;
        if root == "data" {
            return Some(chain.prefix());
        }
        if root == "input" {
            return None;
        }
        let mut own: Path<'a> = self.package(module).to_vec();
        own.push(root);
        let defined = self.at_or_below(&own).next().is_some();
        let mut path = if defined {
            own
        } else {
            match self.imports.get(module)?.get(root)?.as_slice() {
                ["data", path @ ..] => path.to_vec(),
                _ => return None,
            }
        };
        path.extend(chain.prefix());
        Some(path)
    }

    /// The function that a call of `module` means.
    pub(super) fn function(&self, module: usize, callee: &Chain<'a>) -> Option<Path<'a>> {
        let path = self.resolve(module, callee)?;
        let rules = self.rules.get(&path)?;
        rules.iter().any(|(_, rule)| is_function(rule)).then_some(path)
    }

    /// The path that an import gives to the root of a reference.
    pub(super) fn imported(&self, module: usize, chain: &Chain<'a>) -> Option<&Path<'a>> {
        let root = chain.root.filter(|root| !chain.local && !matches!(*root, "data" | "input"))?;
        let mut own: Path<'a> = self.package(module).to_vec();
        own.push(root);
        let defined = self.at_or_below(&own).next().is_some();
        self.imports.get(module)?.get(root).filter(|_| !defined)
    }

    /// Whether a path names a package or lies above one.
    pub(super) fn covers_package(&self, path: &[&str]) -> bool {
        self.packages.iter().any(|package| package.starts_with(path))
    }

    /// The rules that answering these entrypoints may need.
    pub(super) fn reachable<'s>(
        &'s self,
        entrypoints: impl IntoIterator<Item = &'s String>,
    ) -> BTreeSet<Path<'a>> {
        let needs = dependencies(self);
        let mut reached = BTreeSet::new();
        let mut todo: Vec<Path<'a>> = Vec::new();
        for entrypoint in entrypoints {
            let path: Vec<&str> = entrypoint.split('.').skip(1).collect();
            todo.extend(self.rules.keys().filter(|rule| **rule == path).cloned());
        }
        while let Some(path) = todo.pop() {
            if let Some(needed) = needs.get(&path).filter(|_| reached.insert(path.clone())) {
                todo.extend(needed.iter().cloned());
            }
        }
        reached
    }

    /// The rules that a reference may need: those that it names, lies in, or contains.
    pub(super) fn met<'s>(&'s self, path: &'s [&'a str]) -> impl Iterator<Item = &'s Path<'a>> {
        let above = (1..path.len())
            .filter_map(|end| self.rules.get_key_value(path.get(..end)?).map(|(rule, _)| rule));
        above.chain(self.at_or_below(path))
    }

    fn at_or_below<'s>(&'s self, path: &'s [&'a str]) -> impl Iterator<Item = &'s Path<'a>> {
        let from = (Bound::Included(path), Bound::Unbounded);
        let rules = self.rules.range::<[&'a str], _>(from).map(|(rule, _)| rule);
        rules.take_while(move |rule| rule.starts_with(path))
    }
}

/// Whether a definition is one of a function.
pub(super) fn is_function(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head, .. } => matches!(head, RuleHead::Func { .. }),
        Rule::Default { args, .. } => !args.is_empty(),
    }
}

/// The names of a static reference, its root first.
fn names_of(refr: &Expr) -> Vec<&str> {
    match chain(refr) {
        Some((chain, _)) => chain.root.into_iter().chain(chain.prefix()).collect(),
        None => Vec::new(),
    }
}

/// A path as a policy writes it.
pub(super) fn dotted(path: &[&str]) -> String {
    format!("data.{}", path.join("."))
}

/// The name of a called function as written, where it is static.
pub(super) fn called<'a>(callee: &Chain<'a>) -> Option<String> {
    let root = callee.root.filter(|_| callee.is_static())?;
    let names: Vec<&'a str> = std::iter::once(root).chain(callee.prefix()).collect();
    Some(names.join("."))
}

/// Everything wrong with the parsed modules.
pub(super) fn problems(
    modules: &[Ref<Module>],
    data: &Value,
    entrypoints: Option<&Entrypoints>,
    limits: &EvalLimits,
) -> Vec<PolicyProblem> {
    let index = Index::of(modules);
    let mut problems = Vec::new();
    for (at, module) in modules.iter().enumerate() {
        let checker = Checker { index: &index, module: at, text: module };
        checker.names(&mut problems);
        for rule in &module.policy {
            checker.rule(rule, &mut problems);
        }
    }
    recursion(&index, limits, &mut problems);
    shadowed(&index, modules, data, &mut problems);
    for entrypoint in entrypoints.iter().flat_map(|it| [&it.decision, &it.listing]) {
        let path: Vec<&str> = entrypoint.split('.').skip(1).collect();
        let found = index.rules.get(&path).is_some_and(|rules| {
            entrypoint.starts_with("data.") && rules.iter().all(|(_, rule)| !is_function(rule))
        });
        if !found {
            let problem = PolicyProblem::whole(format!("there is no rule `{entrypoint}`"));
            problems.push(problem.hint("add `mcp/decision.rego`, or name the rule that decides"));
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// A definition's place.
pub(super) fn place(span: &Span) -> (&str, u32) {
    (span.source.get_path(), span.line)
}

struct Checker<'a, 'i> {
    index: &'i Index<'a>,
    module: usize,
    text: &'a Module,
}

impl<'a> Checker<'a, '_> {
    /// Rules and aliases that would stand in the way of a built-in, on one engine or both.
    fn names(&self, problems: &mut Vec<PolicyProblem>) {
        let rules = self.text.policy.iter().map(|rule| rule_ref(rule));
        let rules = rules.filter_map(|refr| Some((*names_of(refr).first()?, refr.span())));
        let aliases = self.text.imports.iter().filter_map(|import| {
            let path = names_of(&import.refr);
            let alias = import.r#as.as_ref().map(Span::text).or(path.last().copied())?;
            let plain = matches!(path.first(), Some(&"rego" | &"future"));
            (!plain).then_some((alias, &import.span))
        });
        for (name, span) in rules.chain(aliases) {
            let (file, line) = place(span);
            let taken = builtins::TABLE.iter().any(|builtin| {
                builtin.name == name || builtin.name.split('.').next() == Some(name)
            });
            if taken {
                let message = format!("`{name}` is also the name of a built-in");
                problems.push(PolicyProblem::at(file, line, message).hint("choose another name"));
            } else if name.starts_with("__") {
                let message = format!("`{name}`: names that begin with `__` are reserved");
                problems.push(PolicyProblem::at(file, line, message).hint("choose another name"));
            }
        }
    }

    fn rule(&self, rule: &'a Rule, problems: &mut Vec<PolicyProblem>) {
        let (file, line) = place(rule.span());
        if rule_args(rule).len() > PARAMETERS_MAX {
            let message = format!("a function with more than {PARAMETERS_MAX} parameters");
            problems.push(PolicyProblem::at(file, line, message).hint("pass an object"));
        }
        let bound = implicit(rule);
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Call { callee, params } => self.call(&callee, params.len(), problems),
                Visit::Ref(chain) => self.reference(&chain, &bound, problems),
                Visit::Expr(_) | Visit::Statement(_) => {}
            }
        }
    }

    fn call(&self, callee: &Chain<'a>, params: usize, problems: &mut Vec<PolicyProblem>) {
        let (file, line) = place(callee.span);
        let mut problem = |message: String, hint: &str| {
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        };
        let Some(name) = called(callee) else {
            problem("what is called is not a name".to_owned(), "call a function by its name");
            return;
        };
        if let Some(path) = self.index.function(self.module, callee) {
            let definitions = self.index.rules.get(&path).map_or(&[][..], Vec::as_slice);
            if let Some(arity) = definitions.iter().map(|(_, rule)| rule_args(rule).len()).next()
                && arity != params
            {
                problem(format!("`{name}` takes {arity} arguments, not {params}"), "see its rule");
            }
        } else if let Some(builtin) = builtins::find(&name) {
            let arity = builtin.arity();
            if arity != params {
                let message = format!("`{name}` takes {arity} arguments, not {params}");
                problem(message, "a result is taken with `:=`, not with a further argument");
            }
        } else if let Some(reason) = builtins::forbidden(&name) {
            problem(
                format!("`{name}` is not available: {reason}"),
                "bring facts in as input or data",
            );
        } else if name != "print" {
            problem(
                format!("there is no function `{name}`"),
                "`bartizan policy capabilities` lists the built-ins",
            );
        }
    }

    /// A name that nothing defines makes every evaluation that meets it an error.
    fn reference(
        &self,
        chain: &Chain<'a>,
        bound: &BTreeSet<&str>,
        problems: &mut Vec<PolicyProblem>,
    ) {
        let Some(root) = chain.root.filter(|_| !chain.local) else { return };
        let imported = self.index.imports.get(self.module).is_some_and(|it| it.contains_key(root));
        let known = matches!(root, "input" | "data" | "_")
            || imported
            || bound.contains(root)
            || self.index.resolve(self.module, chain).is_some()
            || builtins::TABLE.iter().any(|builtin| builtin.name.split('.').next() == Some(root));
        if !known {
            let (file, line) = place(chain.span);
            let message = format!("`{root}` is not defined");
            let hint = "declare it with `:=` or `some`, or import it";
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        }
    }
}

/// Variables that a rule binds without declaring them: as an index, or by unification.
fn implicit(rule: &Rule) -> BTreeSet<&str> {
    let mut bound = BTreeSet::new();
    for visit in Walk::rule(rule) {
        match visit {
            Visit::Ref(chain) => {
                for step in &chain.steps {
                    if let Step::Index(Expr::Var { span, .. }) = step {
                        bound.insert(span.text());
                    }
                }
            }
            Visit::Expr(Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. }) => {
                let mut todo: Vec<&Expr> = vec![lhs, rhs];
                while let Some(expr) = todo.pop() {
                    match expr {
                        Expr::Var { span, .. } => {
                            bound.insert(span.text());
                        }
                        Expr::Array { items, .. } | Expr::Set { items, .. } => {
                            todo.extend(items.iter().map(AsRef::as_ref));
                        }
                        Expr::Object { fields, .. } => {
                            todo.extend(fields.iter().map(|(_, _, value)| value.as_ref()));
                        }
                        _ => {}
                    }
                }
            }
            Visit::Call { .. } | Visit::Expr(_) | Visit::Statement(_) => {}
        }
    }
    bound
}

/// Which rules each rule may need.
fn dependencies<'a>(index: &Index<'a>) -> BTreeMap<Path<'a>, BTreeSet<Path<'a>>> {
    let mut needs: BTreeMap<Path<'a>, BTreeSet<Path<'a>>> = BTreeMap::new();
    for (path, rules) in &index.rules {
        let needed = needs.entry(path.clone()).or_default();
        for (module, rule) in rules {
            for visit in Walk::rule(rule) {
                let chain = match &visit {
                    Visit::Ref(chain) => chain,
                    Visit::Call { callee, .. } => callee,
                    Visit::Expr(_) | Visit::Statement(_) => continue,
                };
                if let Some(target) = index.resolve(*module, chain) {
                    needed.extend(index.met(&target).cloned());
                }
            }
        }
    }
    needs
}

/// How much an evaluation of one definition adds to the engine's own stack: itself, and each loop
/// and comprehension in it.
fn weight(rule: &Rule) -> usize {
    let loops = Walk::rule(rule).filter(|visit| match visit {
        Visit::Statement(statement) => {
            matches!(statement.literal, Literal::SomeIn { .. } | Literal::Every { .. })
        }
        Visit::Expr(expr) => matches!(
            expr,
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. }
        ),
        Visit::Ref(chain) => chain.steps.iter().any(|step| matches!(step, Step::Index(_))),
        Visit::Call { .. } => false,
    });
    loops.count().saturating_add(1)
}

/// Finds rules that need themselves, and chains of rules that would overflow a worker's stack:
/// the interpreter evaluates what a rule needs inside the evaluation of that rule.
fn recursion(index: &Index<'_>, limits: &EvalLimits, problems: &mut Vec<PolicyProblem>) {
    let mut needs = dependencies(index);
    let mut depths: BTreeMap<Path<'_>, usize> = BTreeMap::new();
    // Take away what needs nothing that is left; what cannot be taken away is in or above a cycle.
    loop {
        let done: Vec<Path<'_>> = needs
            .iter()
            .filter(|(_, on)| on.iter().all(|path| depths.contains_key(path)))
            .map(|(path, _)| path.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        for path in done {
            let below = needs.remove(&path).unwrap_or_default();
            let below = below.iter().filter_map(|path| depths.get(path)).max().copied();
            let rules = index.rules.get(&path).map_or(&[][..], Vec::as_slice);
            let own = rules.iter().map(|(_, rule)| weight(rule)).max().unwrap_or(0);
            depths.insert(path, own.saturating_add(below.unwrap_or(0)));
        }
    }
    let mut problem = |path: &Path<'_>, message: String, hint: &str| {
        let rules = index.rules.get(path).map_or(&[][..], Vec::as_slice);
        if let Some((_, rule)) = rules.first() {
            let (file, line) = place(rule.span());
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        }
    };
    if let Some((path, _)) = depths.iter().find(|(_, depth)| **depth > limits.rule_depth_max) {
        let message = format!(
            "`{}` needs rules and loops nested deeper than {}",
            dotted(path),
            limits.rule_depth_max
        );
        problem(path, message, "shorten the chain of rules");
    }
    let Some(start) = needs.keys().next().cloned() else { return };
    // Following any need that is left from any rule that is left must meet a rule twice.
    let mut way: Vec<Path<'_>> = vec![start];
    while let Some(next) = way
        .last()
        .and_then(|at| needs.get(at))
        .and_then(|on| on.iter().find(|path| needs.contains_key(*path)))
    {
        if let Some(first) = way.iter().position(|path| path == next) {
            way.drain(..first);
            way.push(next.clone());
            break;
        }
        way.push(next.clone());
    }
    let names: Vec<String> = way.iter().map(|path| dotted(path)).collect();
    if let Some(path) = way.first() {
        let message = format!("recursion: {}", names.join(" -> "));
        problem(path, message, "rules may not need themselves");
    }
}

/// Data at or above a rule's path would take the rule's place.
fn shadowed(
    index: &Index<'_>,
    modules: &[Ref<Module>],
    data: &Value,
    problems: &mut Vec<PolicyProblem>,
) {
    let packages =
        modules.iter().map(|module| (names_of(&module.package.refr), &module.package.span));
    let rules = index
        .rules
        .iter()
        .filter_map(|(path, rules)| rules.first().map(|(_, rule)| (path.clone(), rule.span())));
    for (is_rule, (path, span)) in packages.map(|it| (false, it)).chain(rules.map(|it| (true, it)))
    {
        let mut at = data;
        let mut taken = false;
        for name in &path {
            at = match at {
                Value::Object(members) => {
                    members.get(&Value::from(*name)).unwrap_or(&Value::Undefined)
                }
                Value::Undefined => at,
                _ => {
                    taken = true;
                    &Value::Undefined
                }
            };
        }
        let here = if is_rule {
            *at != Value::Undefined
        } else {
            !matches!(at, Value::Object(_) | Value::Undefined)
        };
        if taken || here {
            let (file, line) = place(span);
            let message = format!("the data has a value where `{}` is defined", dotted(&path));
            problems.push(PolicyProblem::at(file, line, message).hint("keep data and rules apart"));
        }
    }
}
