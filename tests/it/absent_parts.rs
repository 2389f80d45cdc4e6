//! A restriction must not vanish because an argument is left out that it is not about: where a
//! condition makes one value of several paths, the policy does not load unless each of them is shown
//! to be there. What is about one path, or about how two relate, loads.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use bartizan_gate::duty::decision::Engine;
use bartizan_rego::code_of;
use serde_json::{Value, json};

use crate::absent_operands::{PLACES, found, load};

/// Rules that an argument undoes which they are not about: the rules, the line of the finding, and
/// what may be absent. `A` stands for the arguments.
const HOSTILE: &[(&str, u32, &str)] = &[
    // Members of objects and lists that the rule makes.
    ("DENY if ctx.env == \"prod\"\n\nctx := {\"env\": A.env, \"region\": A.region}", 2, "A.region"),
    (
        "DENY if {\n\tctx := {\"env\": A.env, \"region\": A.region}\n\tctx.env == \"prod\"\n}",
        4,
        "A.region",
    ),
    ("DENY if ctx.tool == \"t\"\n\nctx := {\"tool\": input.tool.name, \"env\": A.env}", 2, "A.env"),
    (
        "DENY if startswith(ctx.where.env, \"prod\")\n\nctx := {\"where\": {\"env\": A.env}, \"region\": A.region}",
        2,
        "A.region",
    ),
    (
        "DENY if ctx.env == \"prod\"\n\nctx := {\"env\": e, \"region\": r} if {\n\te := A.env\n\tr := A.region\n}",
        2,
        "A.region",
    ),
    ("DENY if {\"env\": A.env, \"region\": A.region}.env == \"prod\"", 2, "A.region"),
    ("DENY if [A.env, A.region][0] == \"prod\"", 2, "A.region"),
    ("DENY if [A.env, A.region][_] == \"prod\"", 2, "A.region"),
    ("DENY if [input.tool.name, A.region][0] == \"t\"", 2, "A.region"),
    ("DENY if object.union(A, {\"r\": A.region}).env == \"prod\"", 2, "A.region"),
    ("DENY if object.get({\"e\": A.env, \"r\": A.region}, \"e\", \"\") == \"prod\"", 2, "A.region"),
    // Patterns.
    ("DENY if {\n\t[e, r] := [A.env, A.region]\n\te == \"prod\"\n}", 3, "A.region"),
    (
        "DENY if {\n\t{\"e\": e, \"r\": _} := {\"e\": A.env, \"r\": A.region}\n\te == \"prod\"\n}",
        3,
        "A.region",
    ),
    ("DENY if {\n\tpair := [A.env, A.region]\n\t[e, _] := pair\n\te == \"prod\"\n}", 3, "A.region"),
    ("DENY if {\n\tsome [e, _] in [[A.env, A.region]]\n\te == \"prod\"\n}", 4, "A.region"),
    // Elements of lists and sets.
    ("DENY if {\n\tsome e in [A.env, A.target]\n\te == \"prod\"\n}", 4, "A.target"),
    ("DENY if {\n\tsome e in [input.server.name, A.env]\n\te == \"prod\"\n}", 4, "A.env"),
    ("DENY if {\n\tsome e in envs\n\te == \"prod\"\n}\n\nenvs := {A.env, A.target}", 3, "A.target"),
    ("DENY if {\n\tsome e in array.concat([A.env], A.envs)\n\te == \"prod\"\n}", 4, "A.envs"),
    (
        "DENY if {\n\tsome e in array.concat(A.envs, input.principal.groups)\n\te == \"prod\"\n}",
        3,
        "A.envs",
    ),
    ("DENY if \"prod\" in {\"e\": A.env, \"r\": A.region}", 2, "A.region"),
    ("DENY if \"prod\" in [A.env, A.target]", 2, "A.target"),
    ("DENY if \"prod\" in [input.server.name, A.env]", 2, "A.env"),
    ("DENY if \"prod\" in ({A.env} | {A.target})", 2, "A.target"),
    ("DENY if A.env in [A.target, \"prod\"]", 2, "A.target"),
    ("DENY if {A.env, A.target}[\"prod\"]", 2, "A.target"),
    ("DENY if count({A.env, A.target} & {\"prod\"}) > 0", 2, "A.target"),
    ("DENY if count([e | some e in [A.env, A.target]; e == \"prod\"]) > 0", 2, "A.target"),
    ("DENY if envs[\"prod\"]\n\nenvs contains e if some e in [A.env, A.target]", 4, "A.target"),
    ("DENY if strings.any_prefix_match([A.env, A.target], \"prod\")", 2, "A.target"),
    // Texts.
    ("DENY if startswith(concat(\"/\", [A.env, A.region]), \"prod/\")", 2, "A.region"),
    ("DENY if contains(sprintf(\"%s %s\", [A.cmd, A.note]), \"rm -rf\")", 2, "A.note"),
    ("DENY if contains(lower(concat(\" \", [A.cmd, A.note])), \"rm -rf\")", 2, "A.note"),
    ("DENY if {\n\tx := concat(\" \", [A.cmd, A.note])\n\tcontains(x, \"rm -rf\")\n}", 4, "A.note"),
    ("DENY if contains(line, \"rm -rf\")\n\nline := concat(\" \", [A.cmd, A.note])", 2, "A.note"),
    ("DENY if contains(json.marshal({\"c\": A.cmd, \"n\": A.note}), \"rm -rf\")", 2, "A.note"),
    ("DENY if regex.match(`rm -rf`, concat(A.separator, [A.cmd]))", 2, "A.separator"),
    ("DENY if replace(A.cmd, A.from, A.to) == \"rm -rf\"", 2, "A.from"),
    (
        "DENY if {\n\tsome i\n\tcontains(concat(\" \", [A.cmds[i], A.note]), \"rm -rf\")\n}",
        4,
        "A.note",
    ),
    (
        "DENY if {\n\tis_string(A.cmd)\n\tcontains(concat(\" \", [A.cmd, A.note]), \"rm -rf\")\n}",
        4,
        "A.note",
    ),
    // Numbers.
    ("DENY if max([A.amount, A.limit]) > 100", 2, "A.limit"),
    ("DENY if max([A.amount, input.time.hour]) > 100", 2, "A.amount"),
    ("DENY if A.amount + A.fee > 100", 2, "A.fee"),
    ("DENY if A.amount * A.price > 100", 2, "A.price"),
    ("DENY if A.end - A.start > 100", 2, "A.start"),
    ("DENY if sum([A.amount, A.fee]) > 100", 2, "A.fee"),
    ("DENY if A.amount > A.limit", 2, "A.limit"),
    ("DENY if A.amount > max([A.limit, 100])", 2, "A.limit"),
    ("DENY if A.amount > input.principal.claims.limit", 2, "input.principal.claims.limit"),
    // Functions.
    (
        "DENY if bad({\"env\": A.env, \"region\": A.region})\n\nbad(c) if c.env == \"prod\"",
        2,
        "A.region",
    ),
    (
        "DENY if bad({\"tool\": input.tool.name, \"env\": A.env})\n\nbad(c) if c.tool == \"t\"",
        2,
        "A.env",
    ),
    ("DENY if bad([A.env, A.region])\n\nbad([e, _]) if e == \"prod\"", 2, "A.region"),
    (
        "DENY if bad(A.env, A.region)\n\nbad(e, r) if startswith(concat(\"/\", [e, r]), \"prod\")",
        2,
        "A.region",
    ),
    ("DENY if bad(A.env, A.region)\n\nbad(e, r) if \"prod\" in [e, r]", 2, "A.region"),
    (
        "DENY if bad(concat(\" \", [A.cmd, A.note]))\n\nbad(x) if contains(x, \"rm -rf\")",
        2,
        "A.note",
    ),
    ("DENY if over(A.amount, A.fee)\n\nover(a, f) if a + f > 100", 2, "A.fee"),
    (
        "DENY if startswith(joined(A.env, A.region), \"prod\")\n\njoined(e, r) := concat(\"/\", [e, r])",
        2,
        "A.region",
    ),
    (
        "DENY if startswith(joined(A), \"prod\")\n\njoined(a) := concat(\"/\", [a.env, a.region])",
        2,
        "A.region",
    ),
    (
        "DENY if outer(A.env, A.region)\n\nouter(e, r) if startswith(joined(e, r), \"prod\")\n\njoined(e, r) := concat(\"/\", [e, r])",
        2,
        "A.region",
    ),
    (
        "DENY if bad(A.cmd)\n\nbad(c) if contains(concat(\" \", [c, A.note]), \"rm -rf\")",
        2,
        "A.note",
    ),
    ("DENY if bad({\"e\": A.env, \"r\": A.region}.e)\n\nbad(e) if e == \"prod\"", 2, "A.region"),
    // Computed keys, defaults.
    ("DENY if A.commands[A.at] == \"rm -rf\"", 2, "A.at"),
    ("DENY if data.risk[A.env][A.region] == \"high\"", 2, "A.region"),
    ("DENY if object.get(A, \"env\", A.fallback) == \"prod\"", 2, "A.fallback"),
    // What a `permit` rule negates.
    (
        "PERMIT if not ctx.env == \"prod\"\n\nctx := {\"env\": A.env, \"region\": A.region}",
        2,
        "A.region",
    ),
    (
        "PERMIT if not bad\n\nbad if contains(concat(\" \", [A.cmd, A.note]), \"rm -rf\")",
        4,
        "A.note",
    ),
    (
        "PERMIT if count(violations) == 0\n\nviolations contains \"v\" if \"prod\" in [A.env, A.target]",
        4,
        "A.target",
    ),
];

/// What a security team writes. It loads.
const ORDINARY: &[&str] = &[
    // Messages.
    "deny contains {\"code\": \"c\", \"message\": sprintf(\"no %s\", [A.env])} if A.env == \"prod\"",
    "deny contains {\"code\": \"c\", \"message\": sprintf(\"no %s in %s\", [A.env, A.region])} if {\n\tA.env == \"prod\"\n\tA.region == \"eu\"\n}",
    "deny contains {\"code\": \"c\", \"message\": sprintf(\"%s calls %s\", [input.principal.id, input.tool.name])} if A.env == \"prod\"",
    "deny contains {\"code\": \"c\", \"message\": sprintf(\"no %s in %s\", [A.env, object.get(A, \"region\", \"any region\")])} if A.env == \"prod\"",
    "limit contains {\"code\": \"c\", \"key\": concat(\"/\", [input.principal.id, input.tool.name]), \"rate\": \"10/m\"}",
    // Members that are always there.
    "DENY if not [input.server.name, input.tool.name] in allowed\n\nallowed := {[\"x\", \"t\"]}",
    "DENY if startswith(concat(\"/\", [input.server.name, input.tool.name]), \"billing/\")",
    "DENY if {\n\tctx := {\"server\": input.server.name, \"tool\": input.tool.name}\n\tctx.tool == \"t\"\n}",
    "DENY if {\n\tsome name in [input.server.name, input.tool.name]\n\tname == \"t\"\n}",
    "DENY if max([input.time.hour, 3]) > 20",
    // One path that may be absent.
    "DENY if startswith(concat(\"/\", [\"/srv\", A.path]), \"/srv/etc\")",
    "DENY if concat(\"/\", [input.server.name, A.env]) == \"billing/prod\"",
    "DENY if [input.tool.name, A.env] in {[\"t\", \"prod\"], [\"u\", \"prod\"]}",
    "DENY if sprintf(\"%s/%s\", [input.tool.name, A.env]) in data.blocked",
    "DENY if {\n\tctx := {\"env\": A.env, \"tool\": input.tool.name}\n\tctx.env == \"prod\"\n}",
    "DENY if ctx.env == \"prod\"\n\nctx := {\"env\": A.env, \"tool\": input.tool.name}",
    "DENY if \"prod\" in [A.env]",
    "DENY if {\n\tsome e in [lower(A.env)]\n\te == \"prod\"\n}",
    "DENY if count({A.env} & {\"prod\", \"production\"}) > 0",
    "DENY if max([A.amount, 10]) > 100",
    "DENY if A.amount * 100 > 5000",
    "DENY if A.until - input.time.unix_ms > 86400000",
    "DENY if A.amount > data.limits[input.tool.name]",
    "DENY if count(array.concat([\"x\"], A.ids)) > 100",
    "DENY if bad({\"env\": A.env, \"tool\": input.tool.name})\n\nbad(c) if c.env == \"prod\"",
    "DENY if joined(A.env, input.tool.name) == \"prod/t\"\n\njoined(e, t) := concat(\"/\", [e, t])",
    "DENY if within(A.amount, 100, 500)\n\nwithin(x, low, high) if {\n\tx >= low\n\tx <= high\n}",
    "DENY if matches(A.path, [\"/etc\", \"/root\"])\n\nmatches(path, prefixes) if {\n\tsome prefix in prefixes\n\tstartswith(path, prefix)\n}",
    "DENY if sprintf(\"%s://%s\", [input.resource.parsed.scheme, input.resource.parsed.host]) == \"http://intranet\"",
    // Each path has a default, a rule or a condition of its own.
    "DENY if contains(concat(\" \", [object.get(A, \"cmd\", \"\"), object.get(A, \"note\", \"\")]), \"rm -rf\")",
    "DENY if contains(sprintf(\"%s %s\", [A.cmd, object.get(A, \"note\", \"\")]), \"rm -rf\")",
    "DENY if A.amount + object.get(A, \"fee\", 0) > 100",
    "DENY if {\n\tctx := {\"env\": object.get(A, \"env\", \"\"), \"region\": object.get(A, \"region\", \"\")}\n\tctx.env == \"prod\"\n}",
    "DENY if contains(concat(\" \", [cmd, note]), \"rm -rf\")\n\ndefault cmd := \"\"\n\ncmd := A.cmd\n\ndefault note := \"\"\n\nnote := A.note",
    "DENY if A.env == \"prod\"\n\nDENY if A.target == \"prod\"",
    "DENY if \"prod\" in envs\n\nenvs contains A.env\n\nenvs contains A.target",
    "DENY if {\n\tsome name in [\"env\", \"target\"]\n\tA[name] == \"prod\"\n}",
    "DENY if {\n\tsome name in [\"cmd\", \"note\"]\n\tcontains(object.get(A, name, \"\"), \"rm -rf\")\n}",
    "DENY if {\n\tA.env == \"prod\"\n\tA.region == \"eu\"\n}",
    "DENY if {\n\tis_number(A.amount)\n\tis_number(A.fee)\n\tA.amount + A.fee > 100\n}",
    "DENY if {\n\t[e, r] := [A.env, A.region]\n\te == \"prod\"\n\tr == \"eu\"\n}",
    "DENY if {\n\tctx.env == \"prod\"\n\tctx.region == \"eu\"\n}\n\nctx := {\"env\": A.env, \"region\": A.region}",
    "DENY if bad({\"env\": A.env, \"region\": A.region})\n\nbad(c) if {\n\tc.env == \"prod\"\n\tc.region == \"eu\"\n}",
    "DENY if bad(A.env, A.region)\n\nbad(e, r) if {\n\te == \"prod\"\n\tr == \"eu\"\n}",
    // How two paths relate.
    "DENY if A.env == A.target",
    "DENY if lower(A.env) == lower(A.target)",
    "DENY if norm(A.env) == norm(A.target)\n\nnorm(x) := lower(trim_space(x))",
    "DENY if startswith(A.path, A.prefix)",
    "DENY if A.env in A.blocked",
    "DENY if same(A.from, A.to)\n\nsame(x, y) if x == y",
    "DENY if A.project == input.session.facts.locked",
    "# Both are required by the tool's own schema. bartizan:allow absent-operand\nDENY if contains(concat(\" \", [A.cmd, A.note]), \"rm -rf\")",
];

/// The rules, with what `A` as a word of its own stands for.
fn written(rules: &str) -> String {
    let in_word = |it: char| it.is_alphanumeric() || it == '_';
    let mut text = String::new();
    for part in rules.split_inclusive(|it| !in_word(it)) {
        let word = part.trim_end_matches(|it| !in_word(it));
        text.push_str(if word == "A" { "input.tool.arguments" } else { word });
        text.push_str(part.strip_prefix(word).unwrap_or_default());
    }
    text
}

#[test]
fn a_restriction_that_another_argument_undoes_does_not_load() {
    let mut wrong = Vec::new();
    for (rules, line, path) in HOSTILE {
        let (rules, path) = (written(rules), written(path));
        let Err(problems) = load(&rules) else {
            wrong.push(format!("loads:\n{rules}"));
            continue;
        };
        let named = problems.iter().any(|it| {
            it.line == Some(*line)
                && it.file == "policy.rego"
                && it.message.contains(&format!("`{path}`"))
                && it.hint.as_ref().is_some_and(|hint| hint.contains("bartizan:allow"))
                && code_of(it) == "absent-operand"
        });
        let told: Vec<&str> = problems.iter().map(|it| it.message.as_str()).collect();
        let linted = found(&rules);
        if !named || linted.iter().map(|it| it.message.as_str()).ne(told) {
            wrong.push(format!("line {line}, `{path}`:\n{rules}\n{problems:#?}\n{linted:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), HOSTILE.len(), wrong.join("\n\n"));
}

#[test]
fn values_of_parts_that_are_there_load() {
    let mut wrong = Vec::new();
    for rules in ORDINARY {
        let rules = written(rules);
        if let Err(problems) = load(&rules) {
            wrong.push(format!("{rules}\n{problems:#?}"));
        }
        let found = found(&rules);
        if !found.is_empty() {
            wrong.push(format!("{rules}\n{found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), ORDINARY.len(), wrong.join("\n\n"));
}

/// How a rule gets two arguments: statements before, rules beside, and the two expressions.
const PAIRS: &[(&str, &str, &str, &str)] = &[
    ("", "", "A.a", "A.b"),
    ("", "", "A.b", "A.a"),
    ("", "", "lower(A.a)", "A.b"),
    ("", "", "A[\"a\"]", "input.tool[\"arguments\"].b"),
    ("v := A.a\n\tw := A.b", "", "v", "w"),
    ("[v, w] := [A.a, A.b]", "", "v", "w"),
    ("[v, w] := [A.a, A.b]", "", "v", "\"x\""),
    ("{\"v\": v, \"w\": w} := {\"v\": A.a, \"w\": A.b}", "", "v", "w"),
    ("{\"a\": v, \"b\": w} := A", "", "v", "w"),
    ("", "v := A.a\n\nw := A.b", "v", "w"),
    ("", "v := lower(A.a)\n\nw := A.b if input.tool.name == \"t\"", "v", "w"),
    ("", "of(x, n) := x[n]", "of(A, \"a\")", "of(A, \"b\")"),
    ("", "both := {\"v\": A.a, \"w\": A.b}", "both.v", "both.w"),
    ("both := [A.a, A.b]", "", "both[0]", "both[1]"),
    ("some v in [A.a]\n\tsome w in [A.b]", "", "v", "w"),
    ("", "", "A.a", "input.server.name"),
    ("", "", "input.tool.name", "A.b"),
    ("", "", "object.get(A, \"a\", \"\")", "A.b"),
    ("", "", "object.get(A, \"a\", \"\")", "object.get(A, \"b\", \"\")"),
    ("", "default v := \"\"\n\nv := A.a", "v", "A.b"),
    ("", "", "A.deep.a", "A.deep.b"),
    ("args := A", "", "args.a", "args.b"),
    ("", "v := x.a if x := A", "v", "A.b"),
];

/// Conditions about one or both values, `V` and `W`: the condition, and rules beside. The first value
/// is "prod" and in the other place "t" or "q7".
const CONDITIONS: &[(&str, &str)] = &[
    ("c := {\"v\": V, \"w\": W}\n\tc.v == P", ""),
    ("c := {\"v\": V, \"w\": W}\n\tstartswith(c.v, P)", ""),
    ("c := {\"i\": {\"v\": V}, \"w\": W}\n\tc.i.v == P", ""),
    ("{\"v\": V, \"w\": W}.v == P", ""),
    ("{\"v\": V, \"w\": W}[k] == P", ""),
    ("[V, W][0] == P", ""),
    ("[V, W][_] == P", ""),
    ("some i\n\t[V, W][i] == P", ""),
    ("[x, _] := [V, W]\n\tx == P", ""),
    ("[x, y] = [V, W]\n\tx == P", ""),
    ("l := [V, W]\n\t[x, _] := l\n\tx == P", ""),
    ("{\"v\": x, \"w\": _} := {\"v\": V, \"w\": W}\n\tx == P", ""),
    ("some x in [V, W]\n\tx == P", ""),
    ("some x in {V, W}\n\tx == P", ""),
    ("some x in {\"v\": V, \"w\": W}\n\tx == P", ""),
    ("some x in array.concat([V], [W])\n\tx == P", ""),
    ("some [x, _] in [[V, W]]\n\tx == P", ""),
    ("l := [V, W]\n\tsome x in l\n\tx == P", ""),
    ("P in [V, W]", ""),
    ("P in {V, W}", ""),
    ("P in {\"v\": V, \"w\": W}", ""),
    ("P in {V} | {W}", ""),
    ("P in array.concat([V], [W])", ""),
    ("V in [W, P]", ""),
    ("{V, W}[P]", ""),
    ("count({V, W} & {P}) > 0", ""),
    ("{V, W} & {P} != set()", ""),
    ("count([x | some x in [V, W]; x == P]) > 0", ""),
    ("not {V, W} & {P} == set()", ""),
    ("max([V, W]) == \"t\"", ""),
    ("max([V, W]) == \"zz\"", ""),
    ("sort([V, W])[1] == \"t\"", ""),
    ("union({{V}, {W}})[P]", ""),
    ("object.union({\"v\": V}, {\"w\": W}).v == P", ""),
    ("object.get({\"v\": V, \"w\": W}, \"v\", \"\") == P", ""),
    ("object.keys({V: 1, W: 2})[P]", ""),
    ("bad(V, W)", "bad(v, w) if v == P"),
    ("bad(V, W)", "bad(v, _) if v == P"),
    ("bad(V, W)", "bad(v, w) if P in [v, w]"),
    ("bad(V, W)", "bad(v, w) if {v, w}[P]"),
    ("bad({\"v\": V, \"w\": W})", "bad(c) if c.v == P"),
    ("bad({\"v\": V, \"w\": W})", "bad({\"v\": v, \"w\": _}) if v == P"),
    ("bad([V, W])", "bad([v, _]) if v == P"),
    ("bad([V, W])", "bad(l) if l[0] == P"),
    ("bad([V, W])", "bad(l) if P in l"),
    ("bad([V, W])", "bad(l) if {\n\tsome x in l\n\tx == P\n}"),
    ("join(V, W).v == P", "join(v, w) := {\"v\": v, \"w\": w}"),
    ("P in join(V, W)", "join(v, w) := [v, w]"),
    ("c := join(V, W)\n\tc.v == P", "join(v, w) := c if c := {\"v\": v, \"w\": w}"),
    ("c := [V, W]\n\td := c\n\td[0] == P", ""),
    ("c := [[V], [W]]\n\tP in c[0]", ""),
    ("P == V\n\tunused := W", ""),
];

/// The same, where what is always there is not looked for.
const TEXTS: &[(&str, &str)] = &[
    ("bad(V, W)", "bad(v, w) if contains(concat(\" \", [v, w]), P)"),
    ("bad(concat(\" \", [V, W, \"\"]))", "bad(x) if x != \"\""),
    (
        "startswith(outer(V, W), P)",
        "outer(v, w) := join(v, w)\n\njoin(v, w) := concat(\"/\", [v, w])",
    ),
    ("contains(concat(\" \", [V, W]), P)", ""),
    ("contains(sprintf(\"%s %s\", [V, W]), P)", ""),
    ("contains(lower(concat(\" \", [V, W])), P)", ""),
    ("startswith(concat(\"/\", [V, W]), P)", ""),
    ("endswith(concat(\"/\", [W, V]), P)", ""),
    ("regex.match(P, concat(\"/\", [V, W]))", ""),
    ("indexof(concat(\"/\", [V, W]), P) >= 0", ""),
    ("split(concat(\"/\", [V, W]), \"/\")[0] == P", ""),
    ("contains(json.marshal({\"v\": V, \"w\": W}), P)", ""),
    ("contains(json.marshal([V, W]), P)", ""),
    ("x := concat(\" \", [V, W])\n\tcontains(x, P)", ""),
    ("x := [V, W]\n\tcontains(concat(\" \", x), P)", ""),
    ("contains(concat(\" \", [V, W]), P) == true", ""),
    ("bad(concat(\" \", [V, W]))", "bad(x) if contains(x, P)"),
    ("contains(joined(V, W), P)", "joined(v, w) := concat(\" \", [v, w])"),
    ("count(V) + count(W) > 4", ""),
    ("count(concat(\"\", [V, W])) > 4", ""),
    ("max([count(V), count(W)]) > 3", ""),
    ("count(V) > count(W) - 3", ""),
];

/// One of so many conditions is tried with each pair but the first.
const STRIDE: usize = 3;

/// Whether the policy, with every finding accepted, refuses a call with these arguments. `None` where
/// it cannot be decided.
fn refuses(policy: &bartizan_rego::Policy, arguments: &Value) -> Option<bool> {
    let input = json!({
        "phase": "call",
        "method": "tools/call",
        "server": {"name": "s"},
        "tool": {"name": "t", "arguments": arguments}
    });
    let decision = policy.evaluate("data.mcp.decision", &input.to_string(), Engine::Strict).ok()?;
    let decision: Value = serde_json::from_str(&decision).unwrap();
    Some(decision.get("effect")?.as_str()? == "deny")
}

/// Whatever way a rule refuses a call although the value of one argument does not matter: it refuses
/// the call without that argument, or does not load.
#[test]
fn an_argument_that_does_not_matter_may_be_left_out_or_the_policy_does_not_load() {
    let mut missed = Vec::new();
    let (mut vanish, mut sound) = (0, 0);
    let mut try_one = |place: &str, pair: &(&str, &str, &str, &str), condition: (&str, &str)| {
        let (before, rules, v, w) = pair;
        let filled = |text: &str| {
            let text = text.replace("[k]", "[\"v\"]");
            let text = text.replace('V', "\u{1}").replace('W', "\u{2}");
            text.replace('\u{1}', v).replace('\u{2}', w)
        };
        let condition = (filled(condition.0), condition.1.to_owned());
        for looked_for in ["prod", "t", "q7"] {
            let looked_for = format!("\"{looked_for}\"");
            let statements = condition.0.replace('P', &looked_for);
            let beside = condition.1.replace('P', &looked_for);
            let body = format!("{before}\n\t{statements}");
            let open = if place.starts_with("DENY") { "PERMIT" } else { "" };
            let place = place.replace("BODY", &body);
            let policy = written(&format!("{place}\n\n{rules}\n\n{beside}\n\n{open}"));
            let allow = " # bartizan:allow absent-operand undefined-comparison\n";
            let Ok(allowed) = load(&format!("{policy}\n").replace('\n', allow)) else { continue };
            let full = json!({"a": "prod", "b": "q7", "deep": {"a": "prod", "b": "q7"}});
            if refuses(&allowed, &full) != Some(true) {
                continue;
            }
            for pointer in ["/a", "/b", "/deep/a", "/deep/b"] {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                let mut without = full.clone();
                without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
                let matters = ["zzz9", "", "aa"].iter().any(|other| {
                    let mut changed = full.clone();
                    *changed.pointer_mut(pointer).unwrap() = (*other).into();
                    refuses(&allowed, &changed) != Some(true)
                });
                if matters {
                    continue;
                }
                if refuses(&allowed, &without) == Some(true) {
                    sound += 1;
                    continue;
                }
                vanish += 1;
                if load(&policy).is_ok() {
                    missed.push(format!("without {pointer}:\n{policy}"));
                }
            }
        }
    };
    for (at, pair) in PAIRS.iter().enumerate() {
        // What is always there, or has a default, does not make a text vanish where it is absent.
        let defaults = !pair.2.contains(".a") && pair.2.contains("input.tool.name")
            || pair.3 == "input.server.name"
            || pair.2.contains("object.get")
            || pair.1.contains("default");
        let texts = if defaults { &[][..] } else { TEXTS };
        let all: Vec<(&str, &str)> = CONDITIONS.iter().chain(texts).copied().collect();
        let step = if at == 0 { 1 } else { STRIDE };
        for condition in all.iter().skip(at % step).step_by(step) {
            try_one(PLACES[0], pair, *condition);
        }
        for (of, place) in PLACES.iter().enumerate().skip(at % 4).step_by(4) {
            for condition in all.iter().skip((at + of) % 32).step_by(32) {
                try_one(place, pair, *condition);
            }
        }
    }
    assert!(vanish >= 500, "{vanish}");
    assert!(sound >= 100, "{sound}");
    assert!(missed.is_empty(), "{} of {vanish}\n{}", missed.len(), missed.join("\n---\n"));
}
