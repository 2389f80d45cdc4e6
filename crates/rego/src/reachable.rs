//! Which parts of the input the entrypoints read, directly or through other rules.
//!
//! Rules that no entrypoint reaches do not count. [`Policy`](super::Policy) calls it.

use regorus::unstable::{Module, Ref};

use super::check::Index;
use super::reads::ReadSet;

/// The paths of the input that an evaluation of `entrypoints` may read. Tests set their own input
/// and are not reached.
pub(super) fn reads(modules: &[Ref<Module>], entrypoints: &[&String]) -> ReadSet {
    let index = Index::of(modules);
    let reached = index.reachable(entrypoints.iter().copied());
    let definitions = reached.iter().flat_map(|path| index.rules.get(path).into_iter().flatten());
    ReadSet::of(definitions.map(|(at, rule)| (modules.get(*at), &**rule)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(body: &str) -> String {
        let mut engine = regorus::Engine::new();
        let text = format!("package p\n{body}");
        engine.add_policy("p.rego".to_owned(), text).unwrap();
        reads(engine.get_modules(), &[&"data.p.x".to_owned()]).paths().join(" ")
    }

    #[test]
    fn reads_are_found_and_a_computed_path_counts_as_the_whole_value() {
        for (body, expected) in [
            ("x if input.tool.name == \"a\"", "input.tool.name"),
            ("x if input[\"tool\"].name", "input.tool.name"),
            ("x if input.tool[input.key]", "input.key input.tool"),
            (
                "x if {some e in input.operation.environments; e == 1}",
                "input.operation.environments",
            ),
            ("x if f(input.tool)\nf(t) := t.name", "input.tool"),
            ("x := input", "input"),
            ("x if walk(input, [p, v])", "input"),
            ("x if {r := input.a; r.b}", "input.a"),
            ("x if \"k\" in object.keys(input.tool.arguments)", "input.tool.arguments.*"),
            ("x if {a := input.tool.arguments; \"k\" in object.keys(a)}", "input.tool.arguments"),
            ("x if {\"k\" in object.keys(input.a); input.a.b == 1}", "input.a.* input.a.b"),
            ("x if \"k\" in object.keys(input)", "input"),
            ("test_x if x with input as {\"a\": input.b}\nx if input.c", "input.c"),
            (
                "x if y with input as {\"a\": input.b}\ny if input.c\nz if input.d",
                "input.b input.c",
            ),
            (
                "x contains input.a if input.b\nx contains y if {y := [z | z := input.c]}",
                "input.a input.b input.c",
            ),
            ("x[input.k] := input.v if true", "input.k input.v"),
            ("x := 1 if input.a else := input.b if input.c", "input.a input.b input.c"),
            (
                "x if {not input.a; y}\ny if every v in input.b { v == input.c }",
                "input.a input.b input.c",
            ),
            ("x if data[input.a]\ny if input.b", "input.a input.b"),
        ] {
            assert_eq!(paths(body), expected, "{body}");
        }
        assert_eq!(paths("import input.tool as t\nx if t.name"), "input.tool");
    }
}
