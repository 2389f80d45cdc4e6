//! Static checks of a whole policy. A policy with a problem never answers a question.
//!
//! They find calls of unknown or forbidden functions, recursion (recursion through functions
//! overflows the stack of both engines), data that would replace a rule without an error, names
//! that nothing defines, and missing entrypoints. They read the syntax tree, so they see branches
//! that no test reaches. All problems are reported at once. [`Policy`](super::Policy) calls them;
//! the index of rules also serves the other modules that read a policy's text.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, Module, Ref, Rule, RuleHead, Span};

use super::problem::PolicyProblem;
use super::walk::{
    Reference, Step, Visit, Walk, pattern_variables, reference, rule_args, rule_ref,
};
use super::{Entrypoints, EvalLimits, builtins, patterns};

/// Most parameters of a function.
const PARAMETERS_MAX: usize = 8;

/// The path of a rule or document below `data`: `data.a.b` is `["a", "b"]`.
pub(super) type Path<'a> = Vec<&'a str>;

/// The package of each module, in the modules' order: its names below `data`.
pub(super) fn packages(modules: &[Ref<Module>]) -> impl Iterator<Item = Vec<String>> {
    let names = modules.iter().map(|module| names_of(&module.package.refr));
    names.map(|names| names.into_iter().map(str::to_owned).collect())
}

/// The rules of all modules by path, and the imports of each module, to resolve names.
#[derive(Debug)]
pub(super) struct Index<'a> {
    /// The definitions of each rule, each with the index of its module. Rego allows several
    /// definitions with one name (OPA docs, "Policy Language", "Incremental Definitions").
    pub(super) rules: BTreeMap<Path<'a>, Vec<(usize, &'a Rule)>>,
    packages: Vec<Path<'a>>,
    imports: Vec<BTreeMap<&'a str, Path<'a>>>,
}

impl<'a> Index<'a> {
    /// Builds the index from parsed modules. It reads rule heads and imports, no bodies.
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

    /// The package of a module, by the module's index; empty for an unknown index.
    pub(super) fn package(&self, module: usize) -> &[&'a str] {
        self.packages.get(module).map_or(&[], Vec::as_slice)
    }

    /// Resolves a reference in `module` to a path below `data`; `None` where it names a local
    /// variable, the input, or nothing.
    pub(super) fn resolve(&self, module: usize, reference: &Reference<'a>) -> Option<Path<'a>> {
        let root = reference.root.filter(|_| !reference.local)?;
        if root == "data" {
            return Some(reference.prefix());
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
        path.extend(reference.prefix());
        Some(path)
    }

    /// Whether `name` is a rule of the package of `module`, or the beginning of one's name.
    pub(super) fn defines(&self, module: usize, name: &str) -> bool {
        let mut path: Vec<&str> = self.package(module).to_vec();
        path.push(name);
        let from = (Bound::Included(path.as_slice()), Bound::Unbounded);
        let mut rules = self.rules.range::<[&str], _>(from);
        rules.next().is_some_and(|(rule, _)| rule.starts_with(&path))
    }

    /// Whether a module imports something by this name.
    pub(super) fn imports_name(&self, module: usize, name: &str) -> bool {
        self.imports.get(module).is_some_and(|imports| imports.contains_key(name))
    }

    /// The path of the function that a call in `module` names; `None` where no rule is one.
    pub(super) fn function(&self, module: usize, callee: &Reference<'a>) -> Option<Path<'a>> {
        let path = self.resolve(module, callee)?;
        let rules = self.rules.get(&path)?;
        rules.iter().any(|(_, rule)| is_function(rule)).then_some(path)
    }

    /// Whether a rule of the package of `module` has a value for every input: a set, or a rule with a
    /// default.
    pub(super) fn always_defined(&self, module: usize, name: &str) -> bool {
        let path: Vec<&str> = self.package(module).iter().copied().chain([name]).collect();
        self.rules.get::<[&str]>(&path).is_some_and(|rules| {
            rules.iter().any(|(_, rule)| match rule {
                Rule::Default { .. } => true,
                Rule::Spec { head, .. } => matches!(head, RuleHead::Set { .. }),
            })
        })
    }

    /// Whether a reference that is not local names a function.
    pub(super) fn names_function(&self, module: usize, callee: &Reference<'_>) -> bool {
        let Some(root) = callee.root else { return false };
        let mut path: Vec<&str> = match root {
            "data" => Vec::new(),
            _ => self.package(module).iter().copied().chain([root]).collect(),
        };
        path.extend(callee.prefix());
        let rules = self.rules.get::<[&str]>(&path);
        rules.is_some_and(|rules| rules.iter().any(|(_, rule)| is_function(rule)))
    }

    /// The path of the import that the root of a reference names; `None` where the root is local,
    /// defined in the package itself (which hides the import), or not imported.
    pub(super) fn imported(&self, module: usize, reference: &Reference<'a>) -> Option<&Path<'a>> {
        let root =
            reference.root.filter(|root| !reference.local && !matches!(*root, "data" | "input"))?;
        let mut own: Path<'a> = self.package(module).to_vec();
        own.push(root);
        let defined = self.at_or_below(&own).next().is_some();
        self.imports.get(module)?.get(root).filter(|_| !defined)
    }

    /// Whether a reference may name an object above rules none of which has a value: `a` for
    /// `a.b := input.c` or `a[k] contains v`. OPA has an empty object there, regorus nothing. `path`
    /// is what the reference resolves to, and `depth` its length with all steps.
    pub(super) fn may_be_empty(&self, path: &[&str], depth: usize) -> bool {
        self.at_or_below(path).any(|rule| {
            let definitions = self.rules.get(rule).map_or(&[][..], Vec::as_slice);
            let mut kinds = definitions.iter().map(|(_, rule)| (rule, computed(rule)));
            // These make the objects above them in regorus, too.
            let made = kinds.clone().any(|(rule, computed)| match rule {
                Rule::Default { args, .. } => args.is_empty(),
                Rule::Spec { head: RuleHead::Set { .. }, .. } => computed == 0,
                Rule::Spec { head: RuleHead::Compr { .. }, .. } => computed == 1,
                Rule::Spec { head: RuleHead::Func { .. }, .. } => false,
            });
            // The objects above a rule that OPA always has end at the first computed step.
            let ends = |computed: usize| rule.len().saturating_add(usize::from(computed > 0));
            !made && kinds.any(|(_, computed)| depth < ends(computed))
        })
    }

    /// The function whose values are the elements of the set at `path`, where it has `else` or a
    /// default: `s contains f(x)`. OPA 1.20.2 looks an element up by asking the function for it, and then
    /// takes the `else` of a call whose value is another one, so `s[y]` may have what `s` has not.
    pub(super) fn yielded_function(&self, path: &[&str]) -> Option<Path<'a>> {
        let yields = |(module, rule): &(usize, &'a Rule)| {
            let Rule::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } = rule else {
                return None;
            };
            let Expr::Call { fcn, .. } = key.as_ref() else { return None };
            let function = self.function(*module, &reference(fcn)?.0)?;
            let falls = self.rules.get(&function)?.iter().any(|(_, rule)| match rule {
                Rule::Default { .. } => true,
                Rule::Spec { bodies, .. } => bodies.iter().any(|body| body.is_else),
            });
            falls.then_some(function)
        };
        self.rules.get(path)?.iter().find_map(yields)
    }

    /// Whether a path names a package or an ancestor of one.
    pub(super) fn covers_package(&self, path: &[&str]) -> bool {
        self.packages.iter().any(|package| package.starts_with(path))
    }

    /// The rules that an evaluation of these entrypoints may reach (transitive closure).
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

    /// The rules whose path is `path`, a prefix of it, or an extension of it: a reference to
    /// `path` may evaluate each of them.
    pub(super) fn overlapping<'s>(
        &'s self,
        path: &'s [&'a str],
    ) -> impl Iterator<Item = &'s Path<'a>> {
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

/// Whether a definition defines a function.
pub(super) fn is_function(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head, .. } => matches!(head, RuleHead::Func { .. }),
        Rule::Default { args, .. } => !args.is_empty(),
    }
}

/// How many steps a rule's name has from its first computed one on: two for `a[k].b`.
fn computed(rule: &Rule) -> usize {
    reference(rule_ref(rule)).map_or(0, |(it, _)| it.steps.len().saturating_sub(it.prefix().len()))
}

/// The names of a reference up to its first computed index, the root first.
fn names_of(refr: &Expr) -> Vec<&str> {
    match reference(refr) {
        Some((reference, _)) => reference.root.into_iter().chain(reference.prefix()).collect(),
        None => Vec::new(),
    }
}

/// A path as a policy writes it, such as `data.mcp.permit`.
pub(super) fn dotted(path: &[&str]) -> String {
    format!("data.{}", path.join("."))
}

/// The name of a called function as written, such as `glob.match`; `None` where it is computed.
pub(super) fn called<'a>(callee: &Reference<'a>) -> Option<String> {
    let root = callee.root.filter(|_| callee.is_static())?;
    let names: Vec<&'a str> = std::iter::once(root).chain(callee.prefix()).collect();
    Some(names.join("."))
}

/// All problems of the parsed modules, sorted and without duplicates. With `None`, no entrypoint
/// needs to exist.
pub(super) fn problems(
    modules: &[Ref<Module>],
    data: &Value,
    entrypoints: Option<&Entrypoints>,
    limits: &EvalLimits,
) -> Vec<PolicyProblem> {
    let index = Index::of(modules);
    let mut problems = Vec::new();
    for (at, module) in modules.iter().enumerate() {
        let checker = Checker { index: &index, module: at, ast: module };
        checker.reserved_names(&mut problems);
        for rule in &module.policy {
            checker.rule(rule, &mut problems);
        }
    }
    problems.extend(modules.iter().filter_map(|module| tainted(module)));
    recursion(&index, limits, &mut problems);
    data_conflicts(&index, modules, data, &mut problems);
    for entrypoint in entrypoints.iter().flat_map(|it| [&it.decision, &it.listing]) {
        let path: Vec<&str> = entrypoint.split('.').skip(1).collect();
        let found = index.rules.get(&path).is_some_and(|rules| {
            entrypoint.starts_with("data.") && rules.iter().all(|(_, rule)| !is_function(rule))
        });
        if !found {
            let problem = PolicyProblem::unlocated(format!("there is no rule `{entrypoint}`"));
            problems.push(problem.hint("add `mcp/decision.rego`, or name the rule that decides"));
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// The use of `input.session.tainted`, which earlier versions documented and never set: a rule on it
/// would never match, and nobody would notice. Where a module takes the whole session, any other use
/// of the name in it counts.
fn tainted(module: &Module) -> Option<PolicyProblem> {
    const NAME: &str = "tainted";
    let mut whole = false;
    let mut named = None;
    for visit in module.policy.iter().flat_map(|rule| Walk::rule(rule)) {
        let span = match visit {
            Visit::Ref(reference) => {
                let steps = reference.prefix();
                let input = reference.root == Some("input") && !reference.local;
                if input && matches!(steps[..], ["session", NAME, ..]) {
                    whole = true;
                } else if input && steps == ["session"] {
                    whole = true;
                    continue;
                } else if !steps.contains(&NAME) {
                    continue;
                }
                reference.span
            }
            Visit::Expr(Expr::String { value, span, .. } | Expr::RawString { value, span, .. }) => {
                if !value.as_string().is_ok_and(|text| **text == *NAME) {
                    continue;
                }
                span
            }
            Visit::Expr(_) | Visit::Call { .. } | Visit::Statement(_) => continue,
        };
        named.get_or_insert(span);
    }
    let (file, line) = location(named.filter(|_| whole)?);
    let message = "no input has `input.session.tainted`".to_owned();
    let hint = "remove the rule: nothing marks a session, so it could never match";
    Some(PolicyProblem::at(file, line, message).hint(hint))
}

/// The file and line of a span.
pub(super) fn location(span: &Span) -> (&str, u32) {
    (span.source.get_path(), span.line)
}

struct Checker<'a, 'i> {
    index: &'i Index<'a>,
    module: usize,
    ast: &'a Module,
}

impl<'a> Checker<'a, '_> {
    /// Refuses rules and import aliases that hide a built-in on one engine or both, and names that
    /// are reserved for guards.
    fn reserved_names(&self, problems: &mut Vec<PolicyProblem>) {
        let rules = self.ast.policy.iter().map(|rule| rule_ref(rule));
        let rules = rules.filter_map(|refr| Some((*names_of(refr).first()?, refr.span())));
        let aliases = self.ast.imports.iter().filter_map(|import| {
            let path = names_of(&import.refr);
            let alias = import.r#as.as_ref().map(Span::text).or(path.last().copied())?;
            let plain = matches!(path.first(), Some(&"rego" | &"future"));
            (!plain).then_some((alias, &import.span))
        });
        for (name, span) in rules.chain(aliases) {
            let (file, line) = location(span);
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
        let (file, line) = location(rule.span());
        if rule_args(rule).len() > PARAMETERS_MAX {
            let message = format!("a function with more than {PARAMETERS_MAX} parameters");
            problems.push(PolicyProblem::at(file, line, message).hint("pass an object"));
        }
        if let Rule::Spec { bodies, .. } = rule
            && let Some(second) = bodies.iter().skip(1).find(|body| !body.is_else)
        {
            // regorus stops at the first body that succeeds, so it misses a conflict of their values.
            let (file, line) = location(&second.span);
            let message = "a second body after one head".to_owned();
            let hint = "repeat the head: `x if { … }` and `x if { … }`";
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        }
        let bound = implicitly_bound(rule);
        // The calls of `print` that are whole statements.
        let mut printing: BTreeSet<*const Span> = BTreeSet::new();
        for visit in Walk::rule(rule) {
            match visit {
                Visit::Call { callee, params } => {
                    let is_statement = printing.contains(&std::ptr::from_ref(callee.span));
                    if !is_statement && called(&callee).as_deref() == Some("print") {
                        let (file, line) = location(callee.span);
                        let message = "`print` is used as a value".to_owned();
                        let hint = "make it a statement of its own, without `not`";
                        problems.push(PolicyProblem::at(file, line, message).hint(hint));
                    }
                    self.call(&callee, params.len(), problems);
                    self.constant_pattern(&callee, &params, problems);
                }
                Visit::Statement(statement) => {
                    if let Literal::Expr { expr, .. } = &statement.literal
                        && let Expr::Call { fcn, .. } = expr.as_ref()
                    {
                        printing.insert(std::ptr::from_ref(fcn.span()));
                    }
                }
                Visit::Ref(reference) => self.reference(&reference, &bound, problems),
                Visit::Expr(_) => {}
            }
        }
    }

    fn call(&self, callee: &Reference<'a>, params: usize, problems: &mut Vec<PolicyProblem>) {
        let (file, line) = location(callee.span);
        let mut problem = |message: String, hint: &str| {
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        };
        let Some(name) = called(callee) else {
            problem("the called function is not a name".to_owned(), "call a function by its name");
            return;
        };
        if let Some(path) = self.index.function(self.module, callee) {
            let definitions = self.index.rules.get(&path).map_or(&[][..], Vec::as_slice);
            if let Some(arity) = definitions.iter().map(|(_, rule)| rule_args(rule).len()).next()
                && arity != params
            {
                problem(
                    format!("`{name}` takes {arity} arguments, not {params}"),
                    "compare the call with the head of the function",
                );
            }
        } else if let Some(builtin) = builtins::find(&name) {
            let arity = builtin.arity();
            if arity != params {
                let message = format!("`{name}` takes {arity} arguments, not {params}");
                problem(
                    message,
                    "assign the result with `:=`: Rego's output argument is not supported",
                );
            }
        } else if let Some(reason) = builtins::forbidden(&name) {
            problem(
                format!("`{name}` is not available: {reason}"),
                "pass the facts in as input or data",
            );
        } else if name != "print" {
            problem(
                format!("there is no function `{name}`"),
                "`bartizan policy capabilities` lists the built-ins",
            );
        }
    }

    /// Refuses a pattern that is written in the call and that each call would fail with.
    fn constant_pattern(
        &self,
        callee: &Reference<'a>,
        params: &[&'a Expr],
        problems: &mut Vec<PolicyProblem>,
    ) {
        let Some(name) = called(callee) else { return };
        let at = match name.as_str() {
            "regex.replace" => 1,
            "regex.find_all_string_submatch_n" | "regex.find_n" | "regex.match" | "regex.split" => {
                0
            }
            _ => return,
        };
        if self.index.function(self.module, callee).is_none()
            && let Some(Expr::String { value, .. } | Expr::RawString { value, .. }) = params.get(at)
            && let Ok(pattern) = value.as_string()
            && let Err(fault) = patterns::compiled(pattern)
        {
            let (file, line) = location(callee.span);
            let message = format!("`{name}`: {fault}");
            let hint = "patterns have the syntax of RE2: https://github.com/google/re2/wiki/Syntax";
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        }
    }

    /// Refuses a name that nothing defines. regorus would report it only during an evaluation that
    /// reaches it.
    fn reference(
        &self,
        reference: &Reference<'a>,
        bound: &BTreeSet<&str>,
        problems: &mut Vec<PolicyProblem>,
    ) {
        let Some(root) = reference.root.filter(|_| !reference.local) else { return };
        let imported = self.index.imports.get(self.module).is_some_and(|it| it.contains_key(root));
        let known = matches!(root, "input" | "data" | "_")
            || imported
            || bound.contains(root)
            || self.index.resolve(self.module, reference).is_some()
            || builtins::TABLE.iter().any(|builtin| builtin.name.split('.').next() == Some(root));
        if !known {
            let (file, line) = location(reference.span);
            let message = format!("`{root}` is not defined");
            let hint = "declare it with `:=` or `some`, or import it";
            problems.push(PolicyProblem::at(file, line, message).hint(hint));
        }
    }
}

/// Variables that a rule binds without declaring them: as an index (`x[i]`), or by unification
/// (`[a, b] = x`).
fn implicitly_bound(rule: &Rule) -> BTreeSet<&str> {
    let mut bound = BTreeSet::new();
    for visit in Walk::rule(rule) {
        match visit {
            Visit::Ref(reference) => {
                for step in &reference.steps {
                    if let Step::Index(Expr::Var { span, .. }) = step {
                        bound.insert(span.text());
                    }
                }
            }
            Visit::Expr(Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. }) => {
                bound.extend([lhs, rhs].into_iter().flat_map(|side| pattern_variables(side)));
            }
            Visit::Call { .. } | Visit::Expr(_) | Visit::Statement(_) => {}
        }
    }
    bound
}

/// The direct dependencies of each rule.
fn dependencies<'a>(index: &Index<'a>) -> BTreeMap<Path<'a>, BTreeSet<Path<'a>>> {
    let mut needs: BTreeMap<Path<'a>, BTreeSet<Path<'a>>> = BTreeMap::new();
    for (path, rules) in &index.rules {
        let needed = needs.entry(path.clone()).or_default();
        for (module, rule) in rules {
            for visit in Walk::rule(rule) {
                let reference = match &visit {
                    Visit::Ref(reference) => reference,
                    Visit::Call { callee, .. } => callee,
                    Visit::Expr(_) | Visit::Statement(_) => continue,
                };
                if let Some(target) = index.resolve(*module, reference) {
                    needed.extend(index.overlapping(&target).cloned());
                }
            }
        }
    }
    needs
}

/// Upper bound of the recursion depth that one definition adds to the interpreter's stack, in
/// units of [`EvalLimits::rule_depth_max`]: one for the rule and one for each loop or comprehension.
fn stack_cost(rule: &Rule) -> usize {
    let loops = Walk::rule(rule).filter(|visit| match visit {
        Visit::Statement(statement) => {
            matches!(statement.literal, Literal::SomeIn { .. } | Literal::Every { .. })
        }
        Visit::Expr(expr) => matches!(
            expr,
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. }
        ),
        Visit::Ref(reference) => reference.steps.iter().any(|step| matches!(step, Step::Index(_))),
        Visit::Call { .. } => false,
    });
    loops.count().saturating_add(1)
}

/// Finds recursive rules, and chains of dependencies that would overflow a worker's stack: the
/// interpreter evaluates a rule's dependencies inside the evaluation of that rule. Rego does not
/// allow recursion (OPA docs, "Policy Language").
fn recursion(index: &Index<'_>, limits: &EvalLimits, problems: &mut Vec<PolicyProblem>) {
    let mut needs = dependencies(index);
    let mut depths: BTreeMap<Path<'_>, usize> = BTreeMap::new();
    // Kahn's algorithm: a rule that remains is on a cycle, or depends on one. A rule that is done in
    // round n has at least the depth n, so more rounds than the limit only find what is too deep.
    for _ in 0..=limits.rule_depth_max {
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
            let own = rules.iter().map(|(_, rule)| stack_cost(rule)).max().unwrap_or(0);
            depths.insert(path, own.saturating_add(below.unwrap_or(0)));
        }
    }
    let mut problem = |path: &Path<'_>, message: String, hint: &str| {
        let rules = index.rules.get(path).map_or(&[][..], Vec::as_slice);
        if let Some((_, rule)) = rules.first() {
            let (file, line) = location(rule.span());
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
        return;
    }
    let Some(start) = needs.keys().next().cloned() else { return };
    // Each remaining rule depends on another remaining rule, so following dependencies must reach
    // some rule a second time. The part between both visits is a cycle.
    let mut cycle: Vec<Path<'_>> = vec![start];
    while let Some(next) = cycle
        .last()
        .and_then(|at| needs.get(at))
        .and_then(|on| on.iter().find(|path| needs.contains_key(*path)))
    {
        if let Some(first) = cycle.iter().position(|path| path == next) {
            cycle.drain(..first);
            cycle.push(next.clone());
            break;
        }
        cycle.push(next.clone());
    }
    let names: Vec<String> = cycle.iter().map(|path| dotted(path)).collect();
    if let Some(path) = cycle.first() {
        let message = format!("recursion: {}", names.join(" -> "));
        problem(path, message, "break the cycle: a rule may not depend on itself");
    }
}

/// Refuses data at a rule's path, or a scalar above it: the engines would return the data instead
/// of the rule's value, without an error.
fn data_conflicts(
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
            let (file, line) = location(span);
            let message = format!("the data has a value where `{}` is defined", dotted(&path));
            problems.push(PolicyProblem::at(file, line, message).hint("keep data and rules apart"));
        }
    }
}
