//! A restriction must not vanish because something is absent from the input: for each form in which
//! it does, the policy does not load, and the finding names file, line, path and the next step. What
//! a security team writes every day loads.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use bartizan_gate::duty::decision::Engine;
use bartizan_rego::{
    Entrypoints, EvalLimits, Lint, Module, Policy, PolicyProblem, PolicySources, code_of, lint,
};

pub(crate) const DENY: &str = r#"deny contains {"code": "c", "message": "m"}"#;
pub(crate) const PERMIT: &str = r#"permit contains {"code": "c", "message": "m"}"#;

/// Rules that restrict nothing where something is absent: the rules, the line of the finding, and
/// what may be absent. `DENY` and `PERMIT` stand for the head of such a rule; line 1 names the package.
const HOSTILE: &[(&str, u32, &str)] = &[
    // Members of what a call gives.
    (
        "DENY if {\n\tis_string(input.tool.arguments.body)\n\tnot json.unmarshal(input.tool.arguments.body).env in {\"dev\"}\n}",
        4,
        "json.unmarshal(input.tool.arguments.body).env",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.body)\n\tjson.unmarshal(input.tool.arguments.body).env != \"dev\"\n}",
        4,
        "json.unmarshal(input.tool.arguments.body).env",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.path)\n\tnot split(input.tool.arguments.path, \"/\")[1] in {\"dev\"}\n}",
        4,
        "split(input.tool.arguments.path",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.path)\n\tsplit(input.tool.arguments.path, \"/\")[1] != \"dev\"\n}",
        4,
        "split(input.tool.arguments.path",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.url)\n\tregex.find_n(`^https://[a-z.]+`, input.tool.arguments.url, 1)[0] != \"https://a.example\"\n}",
        4,
        "regex.find_n(",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.url)\n\tregex.find_all_string_submatch_n(`^https://([a-z.]+)`, input.tool.arguments.url, 1)[0][1] != \"a.example\"\n}",
        4,
        "regex.find_all_string_submatch_n(",
    ),
    (
        "DENY if not object.filter(input.tool.arguments, [\"env\"]).env in {\"dev\"}",
        2,
        "object.filter(input.tool.arguments",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.body)\n\tnot parsed(input.tool.arguments.body).env in {\"dev\"}\n}\n\nparsed(body) := json.unmarshal(body)",
        4,
        "parsed(input.tool.arguments.body).env",
    ),
    (
        "DENY if {\n\tis_string(input.tool.arguments.body)\n\tnot parsed.env in {\"dev\"}\n}\n\nparsed := json.unmarshal(input.tool.arguments.body)",
        4,
        "parsed.env",
    ),
    // Heads.
    (
        r#"deny contains {"code": "c", "message": sprintf("%s", [input.tool.arguments.region])} if input.tool.name == "x""#,
        2,
        "input.tool.arguments.region",
    ),
    (
        r#"hold contains {"code": "c", "message": input.tool.arguments.reason} if input.operation.effect == "write""#,
        2,
        "input.tool.arguments.reason",
    ),
    (
        r#"limit contains {"code": "c", "key": input.tool.arguments.project, "rate": "1/m"} if input.method == "tools/call""#,
        2,
        "input.tool.arguments.project",
    ),
    (
        r#"limit contains {"code": "c", "key": input.principal.claims.tenant, "rate": "1/m"}"#,
        2,
        "input.principal.claims.tenant",
    ),
    (
        r#"limit contains {"code": "c", "key": input.client.name, "rate": "1/m"} if input.method == "tools/call""#,
        2,
        "input.client.name",
    ),
    (
        r#"set contains {"pointer": "/environment", "value": lower(input.tool.arguments.environment)} if input.tool.name == "x""#,
        2,
        "input.tool.arguments.environment",
    ),
    (
        "set contains {\"pointer\": \"/a\", \"value\": value} if {\n\tvalue := input.session.facts.project\n\tinput.tool.name == \"x\"\n}",
        3,
        "input.session.facts.project",
    ),
    (
        "redact contains {\"code\": \"c\", \"pointer\": concat(\"/\", [\"\", where])} if input.method == \"tools/call\"\n\nwhere := input.tool.arguments.field",
        2,
        "input.tool.arguments.field",
    ),
    (
        r#"hold contains {"code": "c", "message": "m", "ttl": ttl(input.tool.arguments)} if input.operation.effect == "write"

ttl(arguments) := arguments.ttl"#,
        2,
        "input.tool.arguments.ttl",
    ),
    (
        "deny contains {\"code\": \"c\", \"message\": text} if {\n\tinput.tool.name == \"x\"\n\ttext := concat(\" \", [\"no\", input.tool.arguments.region])\n}",
        4,
        "input.tool.arguments.region",
    ),
    (
        "hide contains input.tools[i].operation.name if input.tools[i].name == \"x\"",
        2,
        "input.tools.operation.name",
    ),
    (
        "deny contains reason if input.tool.name == \"x\"\n\nreason := {\"code\": \"c\", \"message\": input.tool.arguments.why}",
        2,
        "input.tool.arguments.why",
    ),
    (
        "deny contains {\"code\": \"c\", \"message\": m} if some m in reasons\n\nreasons contains sprintf(\"%s\", [input.tool.arguments.why]) if input.tool.name == \"x\"",
        4,
        "input.tool.arguments.why",
    ),
    (
        "deny contains {\"code\": \"c\", \"message\": owners[input.tool.name]} if input.operation.effect == \"write\"\n\nowners := {\"x\": \"me\"}",
        2,
        "owners[input.tool.name]",
    ),
    // Values through locals and rules.
    (
        "DENY if {\n\tenv := input.tool.arguments.env\n\tnot env in {\"dev\"}\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if not env in {\"dev\"}\n\nenv := input.tool.arguments.env",
        2,
        "input.tool.arguments.env",
    ),
    ("DENY if env != \"dev\"\n\nenv := input.tool.arguments.env", 2, "input.tool.arguments.env"),
    (
        "DENY if env != \"dev\"\n\nenv := lower(input.tool.arguments.env)",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if env != \"dev\"\n\nenv := input.tool.arguments.env if input.method == \"tools/call\"",
        2,
        "input.tool.arguments.env",
    ),
    ("DENY if args.env != \"dev\"\n\nargs := input.tool.arguments", 2, "input.tool.arguments.env"),
    (
        "DENY if {\n\targs := input.tool.arguments\n\targs.env != \"dev\"\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\t{\"env\": env} := input.tool.arguments\n\tenv != \"dev\"\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tenv = input.tool.arguments.env\n\tenv != \"dev\"\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tok := startswith(input.tool.arguments.env, \"dev\")\n\tnot ok\n}",
        3,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tok := startswith(input.tool.arguments.env, \"dev\")\n\tok == false\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tbad := input.tool.arguments.env != \"dev\"\n\tbad\n}",
        4,
        "input.tool.arguments.env",
    ),
    ("DENY if bad\n\nbad := input.tool.arguments.env != \"dev\"", 2, "input.tool.arguments.env"),
    (
        "DENY if bad\n\ndefault bad := false\n\nbad := input.tool.arguments.env != \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if ok == false\n\nok := startswith(input.tool.arguments.env, \"dev\")",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if level != 1\n\nlevel := 1 if input.tool.arguments.env == \"dev\"\n\nlevel := 2 if input.tool.arguments.env == \"prod\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tunused := input.tool.arguments.env\n\tinput.tool.name == \"x\"\n}",
        3,
        "input.tool.arguments.env",
    ),
    (
        "DENY if startswith(input.tool.arguments.env, \"dev\") == false",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if [startswith(input.tool.arguments.env, \"dev\")] == [false]",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {true: \"ok\", false: \"bad\"}[startswith(input.tool.arguments.env, \"dev\")] == \"bad\"",
        2,
        "input.tool.arguments.env",
    ),
    // Functions.
    (
        "DENY if f(input.tool.arguments.env) == false\n\nf(env) := env == \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if not allowed(input.tool.arguments.env)\n\nallowed(env) if env == \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if outside(input.tool.arguments)\n\noutside(arguments) if not startswith(arguments.env, \"dev\")",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if outside(input.tool.arguments)\n\noutside(arguments) if other(arguments.env)\n\nother(env) if env != \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if outside(input.tool)\n\noutside({\"arguments\": {\"env\": env}}) if env != \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if level(input.tool.arguments.env) > 2\n\nlevel(env) := 1 if env == \"dev\"\n\nelse := 3",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if bad(input.tool.arguments.env)\n\ndefault bad(_) := true\n\nbad(env) := false if env == \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if blocked(input.tool.arguments.env, input.tool.name)\n\nblocked(_, name) if name == \"x\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if env_of(input.tool.arguments) != \"dev\"\n\nenv_of(arguments) := arguments.env",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tinput.tool.name == \"x\"\n\tnot env_of(input.tool) in {\"dev\"}\n}\n\nenv_of(tool) := tool.arguments.env",
        4,
        "input.tool.arguments.env",
    ),
    // Iteration.
    (
        "DENY if {\n\tsome e in [input.tool.arguments.env]\n\te != \"dev\"\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tsome e in [input.tool.arguments.env]\n\tinput.tool.name == \"x\"\n}",
        3,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tlist := {input.tool.arguments.env}\n\tsome e in list\n\tnot e in {\"dev\"}\n}",
        5,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tsome \"env\", e in input.tool.arguments\n\te != \"dev\"\n}",
        4,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tsome \"env\", e in input.tool.arguments\n\tnot e == \"dev\"\n}",
        3,
        "input.tool.arguments.env",
    ),
    (
        "DENY if every e in [input.tool.arguments.env] { e != \"dev\" }",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if every e in input.tool.arguments.list { e != \"dev\" }",
        2,
        "input.tool.arguments.list",
    ),
    (
        "DENY if every k in [\"env\", \"region\"] { input.tool.arguments[k] != \"dev\" }",
        2,
        "input.tool.arguments[k]",
    ),
    (
        "DENY if every k in [\"env\"] { not input.tool.arguments[k] in {\"dev\"} }",
        2,
        "input.tool.arguments[k]",
    ),
    (
        "DENY if {\n\tsome k in [\"env\", \"region\"]\n\tinput.tool.arguments[k] != \"dev\"\n}",
        4,
        "input.tool.arguments[k]",
    ),
    (
        "DENY if {\n\tsome item in input.tool.arguments.items\n\titem.env != \"dev\"\n}",
        4,
        "item.env",
    ),
    ("DENY if input.operation.environments[0] != \"dev\"", 2, "input.operation.environments[0]"),
    // Sets and counts.
    ("DENY if count({input.tool.arguments.env} & {\"dev\"}) == 0", 2, "input.tool.arguments.env"),
    (
        "DENY if {\n\tenv := input.tool.arguments.env\n\tcount({env} & {\"dev\"}) == 0\n}",
        4,
        "input.tool.arguments.env",
    ),
    ("DENY if set() == {input.tool.arguments.env} & {\"dev\"}", 2, "input.tool.arguments.env"),
    ("DENY if count({input.tool.arguments.env} - {\"dev\"}) > 0", 2, "input.tool.arguments.env"),
    (
        "DENY if {\n\trest := {input.tool.arguments.env} - allowed\n\tcount(rest) > 0\n}\n\nallowed := {\"dev\"}",
        4,
        "input.tool.arguments.env",
    ),
    ("DENY if count(input.tool.arguments.reviewers) == 0", 2, "input.tool.arguments.reviewers"),
    ("DENY if count(input.tool.arguments.reviewers) < 2", 2, "input.tool.arguments.reviewers"),
    (
        "DENY if {\n\tn := count(input.tool.arguments.reviewers)\n\tn <= 1\n}",
        4,
        "input.tool.arguments.reviewers",
    ),
    ("DENY if indexof(input.tool.arguments.env, \"dev\") == -1", 2, "input.tool.arguments.env"),
    (
        "DENY if trim_prefix(input.tool.arguments.env, \"dev-\") == input.tool.arguments.env",
        2,
        "input.tool.arguments.env",
    ),
    ("DENY if input.tool.arguments.confirm == false", 2, "input.tool.arguments.confirm"),
    ("DENY if input.tool.arguments.reason == \"\"", 2, "input.tool.arguments.reason"),
    (
        "DENY if count([x | x := input.tool.arguments.env; x != \"dev\"]) > 0",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if count([1 | not startswith(input.tool.arguments.env, \"dev\")]) > 0",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if {\n\tsome e in {e | e := input.tool.arguments.env}\n\te != \"dev\"\n}",
        3,
        "input.tool.arguments.env",
    ),
    // `with`, `else`, defaults, other rules.
    (
        "DENY if not startswith(input.tool.arguments.env, \"dev\") with data.x as 1",
        2,
        "input.tool.arguments.env",
    ),
    (
        "DENY if input.tool.name == \"x\" with input.tool.name as input.tool.arguments.name",
        2,
        "input.tool.arguments.name",
    ),
    (
        "DENY if outside\n\noutside := false if input.tool.name == \"x\"\n\nelse := true if not startswith(input.tool.arguments.env, \"dev\")",
        6,
        "input.tool.arguments.env",
    ),
    (
        "DENY if not ok\n\ndefault ok := true\n\nok := false if not startswith(input.tool.arguments.env, \"dev\")",
        6,
        "input.tool.arguments.env",
    ),
    (
        "DENY if not startswith(object.get(input.tool.arguments.labels, \"env\", \"\"), \"dev\")",
        2,
        "input.tool.arguments.labels",
    ),
    (
        "DENY if object.get(input.tool.arguments, \"env\", input.tool.arguments.fallback) != \"dev\"",
        2,
        "input.tool.arguments.fallback",
    ),
    (
        "DENY if count(violations) > 0\n\nviolations contains \"env\" if input.tool.arguments.env != \"dev\"",
        4,
        "input.tool.arguments.env",
    ),
    (
        "PERMIT if count(violations) == 0\n\nviolations contains \"env\" if not startswith(input.tool.arguments.env, \"dev\")",
        4,
        "input.tool.arguments.env",
    ),
    (
        "PERMIT if violations == set()\n\nviolations contains \"env\" if input.tool.arguments.env != \"dev\"",
        4,
        "input.tool.arguments.env",
    ),
    (
        "PERMIT if not outside\n\noutside := input.tool.arguments.env != \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "PERMIT if not outside(input.tool.arguments)\n\noutside(arguments) if arguments.env != \"dev\"",
        2,
        "input.tool.arguments.env",
    ),
    (
        "PERMIT if count([1 | input.tool.arguments.env != \"dev\"]) == 0",
        2,
        "input.tool.arguments.env",
    ),
    (
        "PERMIT if verdict == \"ok\"\n\ndefault verdict := \"ok\"\n\nverdict := \"bad\" if not startswith(input.tool.arguments.env, \"dev\")",
        6,
        "input.tool.arguments.env",
    ),
    // A sibling covers an absence only if it restricts as much.
    (
        "DENY if {\n\tinput.tool.name == \"x\"\n\tnot input.tool.arguments.env\n}\n\nDENY if input.tool.arguments.env != \"dev\"",
        7,
        "input.tool.arguments.env",
    ),
    (
        "DENY if not input.tool.arguments.region\n\nDENY if input.tool.arguments.env != \"dev\"",
        4,
        "input.tool.arguments.env",
    ),
    // Everything that the schema calls optional.
    ("DENY if input.resource.parsed.host != \"a\"", 2, "input.resource.parsed.host"),
    ("DENY if input.resource.parsed.port != 443", 2, "input.resource.parsed.port"),
    ("DENY if input.resource.parsed.segments[0] != \"docs\"", 2, "input.resource.parsed.segments"),
    ("DENY if input.principal.claims.team != \"flags\"", 2, "input.principal.claims.team"),
    ("DENY if input.session.facts.project != \"7\"", 2, "input.session.facts.project"),
    ("DENY if input.client.name != \"known\"", 2, "input.client.name"),
    ("DENY if not startswith(input.client.version, \"2.\")", 2, "input.client.version"),
    ("DENY if input.server.environment != \"staging\"", 2, "input.server.environment"),
    ("DENY if input.server.labels.tier != \"low\"", 2, "input.server.labels.tier"),
    ("DENY if input.operation.name != \"flag.update\"", 2, "input.operation.name"),
    (
        "DENY if input.tool.definition.annotations.readOnlyHint == false",
        2,
        "input.tool.definition.annotations.readOnlyHint",
    ),
    ("DENY if input.task.tool != \"x\"", 2, "input.task.tool"),
    ("DENY if input.elicitation.parsed.scheme != \"https\"", 2, "input.elicitation.parsed.scheme"),
    ("DENY if input.params.task.ttl != 1", 2, "input.params.task.ttl"),
    ("DENY if input.prompt.arguments.topic != \"a\"", 2, "input.prompt.arguments.topic"),
    ("DENY if input.answer.content.name != \"a\"", 2, "input.answer.content.name"),
    ("DENY if input.protocol.revision != \"2025-11-25\"", 2, "input.protocol.revision"),
    (
        "hide contains tool.name if {\n\tsome tool in input.tools\n\ttool.operation.effect != \"read\"\n}",
        4,
        "input.tools.operation.effect",
    ),
    (
        "DENY if data.owners[input.tool.name] != input.principal.id",
        2,
        "data.owners[input.tool.name]",
    ),
];

/// What a security team writes. It loads.
const ORDINARY: &[&str] = &[
    // What a call gives, where the rule is about it, or where it is always there.
    "DENY if {\n\tis_string(input.tool.arguments.path)\n\tsplit(input.tool.arguments.path, \"/\")[0] != \"dev\"\n}",
    "DENY if split(input.tool.arguments.path, \"/\")[1] == \"etc\"",
    "DENY if json.unmarshal(input.tool.arguments.body).env == \"prod\"",
    "DENY if parsed.env == \"prod\"\n\nparsed := json.unmarshal(input.tool.arguments.body)",
    "DENY if input.tool.arguments.env == \"production\"",
    "DENY if input.tool.arguments.env in {\"production\", \"prod\"}",
    "DENY if startswith(input.tool.arguments.key, \"prod-\")",
    "DENY if {\n\tenv := lower(input.tool.arguments.env)\n\tenv == \"production\"\n}",
    "deny contains {\"code\": \"c\", \"message\": sprintf(\"no %s\", [env])} if {\n\tenv := input.tool.arguments.env\n\tenv in {\"production\"}\n}",
    "DENY if input.tool.arguments.value.rollout - object.get(input.session.facts, \"rollout\", 0) > 50",
    "DENY if input.tool.arguments.percent > 50",
    "DENY if input.tool.arguments.days < 30",
    "DENY if to_number(input.tool.arguments.ttl) > 60",
    "DENY if not input.tool.arguments.env == \"dev\"",
    "DENY if not input.tool.arguments.confirm",
    "DENY if not input.tool.arguments.confirm == true",
    "DENY if not allowed_env\n\nallowed_env if input.tool.arguments.env in {\"dev\", \"staging\"}",
    "DENY if not startswith(object.get(input.tool.arguments, \"env\", \"\"), \"dev\")",
    "DENY if object.get(input.tool.arguments, \"env\", \"production\") != \"dev\"",
    "DENY if {\n\tis_string(input.tool.arguments.env)\n\tinput.tool.arguments.env != \"dev\"\n}",
    "DENY if {\n\tinput.tool.arguments.webhook != \"\"\n\tnot startswith(input.tool.arguments.webhook, \"https://\")\n}",
    "DENY if {\n\t\"env\" in object.keys(input.tool.arguments)\n\tnot input.tool.arguments.env in {\"dev\"}\n}",
    // A sibling covers the absence.
    "DENY if not input.tool.arguments.env\n\nDENY if not input.tool.arguments.env in {\"dev\"}",
    "DENY if {\n\tinput.tool.name == \"x\"\n\tnot input.tool.arguments.env\n}\n\nDENY if {\n\tinput.tool.name == \"x\"\n\tinput.tool.arguments.env != \"dev\"\n}",
    "DENY if outside\n\noutside if not \"env\" in object.keys(input.tool.arguments)\n\noutside if input.tool.arguments.env != \"dev\"",
    "DENY if object.get(input.tool.arguments, \"env\", null) == null\n\nhold contains {\"code\": \"c\", \"message\": \"m\"} if input.tool.arguments.env != \"dev\"",
    "DENY if env != \"dev\"\n\ndefault env := \"production\"\n\nenv := input.tool.arguments.env",
    "DENY if env != \"dev\"\n\nenv := input.tool.arguments.env\n\nenv := \"production\" if not input.tool.arguments.env",
    "DENY if env != \"dev\"\n\nenv := input.tool.arguments.env if input.tool.arguments.env\n\nelse := \"production\"",
    "DENY if not ok\n\ndefault ok := false\n\nok if startswith(input.tool.arguments.env, \"dev\")",
    "DENY if ok == false\n\ndefault ok := false\n\nok if startswith(input.tool.arguments.env, \"dev\")",
    // Functions that are about their argument.
    "DENY if is_prod(input.tool.arguments.env)\n\nis_prod(env) if env in {\"prod\", \"production\"}",
    "DENY if is_prod(input.tool.arguments.env)\n\ndefault is_prod(_) := false\n\nis_prod(env) if startswith(env, \"prod\")",
    "DENY if is_prod(input.tool.arguments.env)\n\nis_prod(env) := true if env == \"prod\"\n\nelse := false",
    "DENY if severity(input.tool.arguments.env) == \"high\"\n\nseverity(env) := \"high\" if env == \"prod\"\n\nelse := \"low\"",
    "DENY if norm(input.tool.arguments.env) == \"prod\"\n\nnorm(env) := lower(trim_space(env))",
    "DENY if outside(object.get(input.tool.arguments, \"env\", \"\"))\n\noutside(env) if not env in {\"dev\"}",
    "DENY if {\n\tsome environment in input.operation.environments\n\tnot allowed(environment)\n}\n\nallowed(environment) if environment == input.server.environment",
    "DENY if {\n\tsome env in input.tool.arguments.environments\n\tnot env in {\"dev\"}\n}",
    "DENY if {\n\tsome i\n\tinput.tool.arguments.environments[i] != \"dev\"\n}",
    "DENY if {\n\tsome key, value in input.tool.arguments\n\tis_string(value)\n\tnot regex.match(`^[a-z]+$`, value)\n}",
    "DENY if {\n\tparts := split(input.tool.arguments.path, \"/\")\n\tparts[0] == \"etc\"\n}",
    "DENY if {\n\tsome part in split(input.tool.arguments.path, \"/\")\n\tpart == \"..\"\n}",
    "DENY if count(input.tool.arguments.ids) > 100",
    "DENY if count({\"prod\", \"production\"} & {env | some env in input.operation.environments}) > 0",
    "DENY if count({env | some env in input.operation.environments} - {\"dev\"}) > 0",
    "DENY if count(input.principal.groups) == 0",
    "DENY if not \"oncall\" in input.principal.groups",
    "DENY if not \"reviewed\" in {tag | some tag in input.tool.arguments.tags}",
    "DENY if input.operation.effect != \"read\"",
    "DENY if input.tool.name != \"get_flag\"",
    "DENY if {\n\tinput.method == \"tools/call\"\n\tnot startswith(input.tool.name, \"get_\") # bartizan:allow substring-match\n}",
    "DENY if {\n\tinput.resource.parsed.scheme == \"file\"\n\tinput.resource.parsed.host != \"\"\n}",
    "DENY if {\n\tinput.resource.parsed.scheme == \"file\"\n\tnot startswith(input.resource.parsed.path, \"/docs/\")\n}",
    "DENY if not input.resource.parsed.scheme == \"https\"",
    "DENY if not input.principal.claims.team == \"flags\"",
    "DENY if not input.session.facts.project == \"7\"",
    "DENY if {\n\tpinned\n\tinput.server.environment != \"staging\"\n}\n\npinned if is_string(input.server.environment)",
    "DENY if input.time.hour < 6",
    "DENY if input.tool.drift in {\"changed\", \"added\"}",
    "DENY if input.tool.drift != \"none\"",
    "DENY if count(input.tool.flags) > 0",
    "DENY if not data.owners[input.tool.name] == input.principal.id",
    "DENY if input.principal.id in data.blocked[input.tool.name]",
    "PERMIT if not changed\n\nchanged if input.tool.drift != \"none\"",
    "PERMIT if count(violations) == 0\n\nviolations contains \"effect\" if input.operation.effect != \"read\"\n\nviolations contains \"env\" if not allowed_env\n\nallowed_env if input.tool.arguments.env == \"dev\"",
    "PERMIT if input.tool.arguments.env != \"production\"",
    "limit contains {\"code\": \"c\", \"key\": input.principal.id, \"rate\": \"10/m\"} if input.operation.effect != \"read\"",
    "limit contains {\"code\": \"c\", \"key\": object.get(input.principal.claims, \"tenant\", input.principal.id), \"rate\": \"10/m\"}",
    "limit contains {\"code\": \"c\", \"key\": input.tool.name, \"rate\": rate} if input.method == \"tools/call\"\n\ndefault rate := \"10/m\"\n\nrate := \"30/m\" if \"oncall\" in input.principal.groups",
    "set contains {\"pointer\": \"/limit\", \"value\": 50} if input.tool.arguments.limit > 50",
    "set contains {\"pointer\": \"/limit\", \"value\": min([50, input.tool.arguments.limit])} if input.tool.arguments.limit > 0",
    "redact contains {\"code\": \"c\", \"what\": \"secrets\"} if \"credential-read\" in input.operation.tags",
    "hide contains tool.name if {\n\tsome tool in input.tools\n\ttool.operation.effect == \"exec\"\n}",
    "hide contains tool.name if {\n\tsome tool in input.tools\n\tnot tool.operation.effect == \"read\"\n}",
    "DENY if input.client.name == \"old\"",
    "# Only calls with a region are about one. bartizan:allow absent-operand\ndeny contains {\"code\": \"c\", \"message\": input.tool.arguments.region} if input.tool.name == \"x\"",
    "# bartizan:allow undefined-comparison\nDENY if input.tool.arguments.env != \"dev\"",
];

fn sources(rules: &str) -> PolicySources {
    let rules = rules.replace("DENY", DENY).replace("PERMIT", PERMIT);
    let text = format!("package mcp\n{rules}\n");
    PolicySources {
        modules: vec![
            Module { path: "policy.rego".to_owned(), text },
            Module {
                path: "mcp/decision.rego".to_owned(),
                text: include_str!("../../policies/mcp/decision.rego").to_owned(),
            },
        ],
        data: None,
        revision: "r1".into(),
    }
}

pub(crate) fn load(rules: &str) -> Result<Policy, Vec<PolicyProblem>> {
    Policy::compile(&sources(rules), &Entrypoints::default(), &EvalLimits::default())
}

pub(crate) fn found(rules: &str) -> Vec<Lint> {
    let found =
        lint(&sources(rules), &EvalLimits::default(), &|path| path == "policy.rego").unwrap();
    let codes = ["absent-operand", "undefined-comparison", "unused-allow"];
    found.into_iter().filter(|it| codes.contains(&it.code)).collect()
}

#[test]
fn a_restriction_that_vanishes_where_something_is_absent_does_not_load() {
    let mut wrong = Vec::new();
    for (rules, line, path) in HOSTILE {
        let Err(problems) = load(rules) else {
            wrong.push(format!("loads:\n{rules}"));
            continue;
        };
        let named = problems.iter().any(|it| {
            it.line == Some(*line)
                && it.file == "policy.rego"
                && it.message.contains(&format!("`{path}"))
                && it.hint.as_ref().is_some_and(|hint| hint.contains("bartizan:allow"))
                && ["absent-operand", "undefined-comparison"].contains(&code_of(it))
        });
        if !named || problems.len() != 1 {
            wrong.push(format!("line {line}, `{path}`:\n{rules}\n{problems:#?}"));
            continue;
        }
        let found = found(rules);
        if found
            .iter()
            .map(|it| it.message.as_str())
            .ne(problems.iter().map(|it| it.message.as_str()))
        {
            wrong.push(format!("`check` and loading differ:\n{rules}\n{found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), HOSTILE.len(), wrong.join("\n\n"));
}

#[test]
fn what_a_security_team_writes_loads() {
    let mut wrong = Vec::new();
    for rules in ORDINARY {
        if let Err(problems) = load(rules) {
            wrong.push(format!("{rules}\n{problems:#?}"));
        }
        let found = found(rules);
        if !found.is_empty() {
            wrong.push(format!("{rules}\n{found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), ORDINARY.len(), wrong.join("\n\n"));
}

/// How a rule gets the argument: statements before, rules beside, and the expression.
const VALUES: &[(&str, &str, &str)] = &[
    ("", "", "input.tool.arguments.env"),
    ("v := input.tool.arguments.env", "", "v"),
    ("v = input.tool.arguments.env", "", "v"),
    ("", "env := input.tool.arguments.env", "env"),
    ("", "env := input.tool.arguments.env if input.tool.name == \"t\"", "env"),
    ("", "env_of(x) := x.env", "env_of(input.tool.arguments)"),
    ("", "env_of(x) := y if y := x.arguments.env", "env_of(input.tool)"),
    ("some v in [input.tool.arguments.env]", "", "v"),
    ("l := [input.tool.arguments.env]\n\tsome v in l", "", "v"),
    ("some v in {x | x := input.tool.arguments.env}", "", "v"),
    ("", "", "lower(input.tool.arguments.env)"),
    ("args := input.tool.arguments", "", "args.env"),
    ("", "args := input.tool.arguments", "args.env"),
    ("{\"env\": v} := input.tool.arguments", "", "v"),
    ("[v] := [input.tool.arguments.env]", "", "v"),
    ("some k in [\"env\"]", "", "input.tool.arguments[k]"),
    ("k := \"env\"", "", "input.tool.arguments[k]"),
    ("o := {\"e\": input.tool.arguments.env}", "", "o.e"),
    ("v := [input.tool.arguments.env][0]", "", "v"),
    ("v := concat(\"\", [input.tool.arguments.env])", "", "v"),
    ("args := object.union(input.tool.arguments, {})", "", "args.env"),
    ("some \"env\", v in input.tool.arguments", "", "v"),
    ("", "", "input.tool[\"arguments\"][\"env\"]"),
];

/// Conditions that an unknown value meets; `V` is the value. The second text is rules beside.
const CONDITIONS: &[(&str, &str)] = &[
    ("V != \"dev\"", ""),
    ("not V == \"dev\"", ""),
    ("not V in {\"dev\"}", ""),
    ("not startswith(V, \"dev\")", ""),
    ("startswith(V, \"dev\") == false", ""),
    ("startswith(V, \"dev\") != true", ""),
    ("false == startswith(V, \"dev\")", ""),
    ("(V in {\"dev\"}) == false", ""),
    ("not dev(V)", "dev(x) if x == \"dev\""),
    ("dev(V) == false", "dev(x) := x == \"dev\""),
    ("dev(V) != true", "dev(x) := x == \"dev\""),
    ("other(V)", "other(x) if x != \"dev\""),
    ("other(V)", "other(x) if not x == \"dev\""),
    ("other(V)", "other(x) if not x in {\"dev\"}"),
    ("other(V)", "other(x) := x != \"dev\""),
    ("other(V)", "other(x) := false if x == \"dev\"\n\nelse := true"),
    ("level(V) == \"no\"", "level(x) := \"ok\" if x == \"dev\"\n\nelse := \"no\""),
    ("level(V) > 1", "level(x) := 1 if x == \"dev\"\n\nelse := 2"),
    ("level(V) == 2", "default level(_) := 2\n\nlevel(x) := 1 if x == \"dev\""),
    ("count({V} & {\"dev\"}) == 0", ""),
    ("count({V} & {\"dev\"}) < 1", ""),
    ("{V} & {\"dev\"} == set()", ""),
    ("count({V} - {\"dev\"}) > 0", ""),
    ("count({V} - allowed) > 0", "allowed := {\"dev\"}"),
    ("count({V} - allowed) == 1", "allowed contains \"dev\""),
    ("{V} - {\"dev\"} != set()", ""),
    ("{V} != {\"dev\"}", ""),
    ("[V] != [\"dev\"]", ""),
    ("{V} | {\"dev\"} != {\"dev\"}", ""),
    ("not {V} == {\"dev\"}", ""),
    ("not {\"dev\": 1}[V]", ""),
    ("not allowed[V]", "allowed contains \"dev\""),
    ("object.get({\"dev\": \"ok\"}, V, \"no\") == \"no\"", ""),
    ("object.get({\"dev\": false}, V, true)", ""),
    ("{true: \"ok\", false: \"no\"}[V == \"dev\"] == \"no\"", ""),
    ("{true: \"ok\", false: \"no\"}[startswith(V, \"dev\")] == \"no\"", ""),
    ("every x in [V] { x != \"dev\" }", ""),
    ("every x in {\"dev\", \"test\"} { x != V }", ""),
    ("every x in {\"dev\"} { not V == x }", ""),
    ("count([1 | V == \"dev\"]) == 0", ""),
    ("count([1 | V != \"dev\"]) > 0", ""),
    ("count([1 | V != \"dev\"]) == 1", ""),
    ("count([x | x := V; x != \"dev\"]) > 0", ""),
    ("[1 | not V in {\"dev\"}] != []", ""),
    ("1 in {1 | V != \"dev\"}", ""),
    ("regex.match(`^dev`, V) == false", ""),
    ("indexof(V, \"dev\") == -1", ""),
    ("indexof(V, \"dev\") < 0", ""),
    ("indexof(V, \"dev\") != 0", ""),
    ("replace(V, \"dev\", \"\") == V", ""),
    ("trim_prefix(V, \"dev\") == V", ""),
    ("sprintf(\"%s\", [V]) != \"dev\"", ""),
    ("ok := V == \"dev\"\n\tnot ok", ""),
    ("ok := V == \"dev\"\n\tok == false", ""),
    ("ok := V in {\"dev\"}\n\tnot ok", ""),
    ("bad := V != \"dev\"\n\tbad", ""),
    ("bad := V != \"dev\"\n\tbad == true", ""),
    ("bad := V != \"dev\"\n\t[bad] == [true]", ""),
    ("[ok] := [V == \"dev\"]\n\tnot ok", ""),
    ("ok := [V == \"dev\"]\n\tok == [false]", ""),
    ("ok := [V == \"dev\"]\n\tok != [true]", ""),
    ("ok := {\"a\": V == \"dev\"}\n\tnot ok.a", ""),
    ("ok := {\"a\": V == \"dev\"}\n\tok.a == false", ""),
    ("strings.any_prefix_match(V, [\"dev\"]) == false", ""),
    ("object.subset({\"dev\"}, {V}) == false", ""),
    ("intersection({{V}, {\"dev\"}}) == set()", ""),
    ("n := count({V} & {\"dev\"})\n\tn == 0", ""),
    ("left := {V} - {\"dev\"}\n\tsome x in left", ""),
    ("some x in {V} - {\"dev\"}", ""),
    ("count(({V} | {\"a\"}) - {\"dev\", \"a\"}) > 0", ""),
    ("false in {V == \"dev\"}", ""),
    ("false in [V == \"dev\"]", ""),
    ("some x in [V == \"dev\"]\n\tx == false", ""),
    ("some x in [V]\n\tnot x in {\"dev\"}", ""),
    ("{x | x := V} - {\"dev\"} != set()", ""),
    ("array.concat([V], []) != [\"dev\"]", ""),
    ("not array.concat([V], []) == [\"dev\"]", ""),
    ("x := V\n\ty := x\n\ty != \"dev\"", ""),
    ("V != \"dev\"\n\tV != \"test\"", ""),
    ("json.marshal(V) != \"\\\"dev\\\"\"", ""),
    ("strings.count(V, \"dev\") == 0", ""),
    ("count(regex.find_n(`dev`, V, 1)) == 0", ""),
    ("regex.find_n(`dev`, V, 1) == []", ""),
    ("count(split(V, \"dev\")) == 1", ""),
    ("min([1, indexof(V, \"dev\")]) == -1", ""),
    ("V == \"dev\" == false", ""),
];

/// Where the condition stands: `BODY` is its statements.
pub(crate) const PLACES: &[&str] = &[
    "DENY if {\n\tBODY\n}",
    "DENY if bad\n\nbad if {\n\tBODY\n}",
    "DENY if bad\n\ndefault bad := false\n\nbad if {\n\tBODY\n}",
    "DENY if bad == true\n\nbad := true if {\n\tBODY\n}",
    "DENY if verdict == \"bad\"\n\ndefault verdict := \"ok\"\n\nverdict := \"bad\" if {\n\tBODY\n}",
    "DENY if not ok\n\ndefault ok := true\n\nok := false if {\n\tBODY\n}",
    "DENY if ok == false\n\nok := false if {\n\tBODY\n}",
    "DENY if count(violations) > 0\n\nviolations contains \"v\" if {\n\tBODY\n}",
    "DENY if some _ in violations\n\nviolations contains \"v\" if {\n\tBODY\n}",
    "DENY if violations != set()\n\nviolations contains \"v\" if {\n\tBODY\n}",
    "DENY if violations.v\n\nviolations[name] := true if {\n\tname := \"v\"\n\tBODY\n}",
    "DENY if bad(1)\n\nbad(_) if {\n\tBODY\n}",
    "DENY if bad\n\nbad := false if input.tool.name == \"none\"\n\nelse := true if {\n\tBODY\n}",
    "DENY if count([1 |\n\tBODY\n]) > 0",
    "DENY if every _ in [1] {\n\tBODY\n}",
    "DENY if {\n\tfound := [1 |\n\tBODY\n]\n\tcount(found) > 0\n}",
    "PERMIT if not bad\n\nbad if {\n\tBODY\n}",
    "PERMIT if not bad == true\n\nbad := true if {\n\tBODY\n}",
    "PERMIT if ok\n\ndefault ok := true\n\nok := false if {\n\tBODY\n}",
    "PERMIT if count(violations) == 0\n\nviolations contains \"v\" if {\n\tBODY\n}",
    "PERMIT if not \"v\" in violations\n\nviolations contains \"v\" if {\n\tBODY\n}",
    "PERMIT if not bad(1)\n\nbad(_) if {\n\tBODY\n}",
    "PERMIT if count([1 |\n\tBODY\n]) == 0",
    "PERMIT if verdict == \"ok\"\n\ndefault verdict := \"ok\"\n\nverdict := \"bad\" if {\n\tBODY\n}",
];

/// One of so many combinations is tried.
const STRIDE: usize = 8;

/// The effect of a policy, with every finding accepted, on a call with these arguments; `None` where
/// it cannot be decided, or the rules are not Rego.
fn effect(rules: &str, arguments: &str) -> Option<String> {
    let allow = " # bartizan:allow absent-operand undefined-comparison\n";
    let policy = load(&format!("{rules}\n").replace('\n', allow)).ok()?;
    let input = format!(
        r#"{{"phase": "call", "method": "tools/call", "tool": {{"name": "t", "arguments": {arguments}}}}}"#
    );
    let decision = policy.evaluate("data.mcp.decision", &input, Engine::Strict).ok()?;
    let decision: serde_json::Value = serde_json::from_str(&decision).unwrap();
    Some(decision.get("effect")?.as_str()?.to_owned())
}

/// Whatever way a rule is written that refuses a value that it does not know: it refuses a call
/// without one, or does not load.
#[test]
fn what_refuses_an_unknown_value_refuses_an_absent_one_or_does_not_load() {
    let mut missed = Vec::new();
    let (mut vanish, mut sound) = (0, 0);
    let mut try_one = |place: &str, value: &(&str, &str, &str), condition: &(&str, &str)| {
        let (before, rules, expression) = value;
        let (statements, beside) = condition;
        let statements = statements.replace('V', expression);
        let body = if before.is_empty() { statements } else { format!("{before}\n\t{statements}") };
        let open = if place.starts_with("DENY") { "PERMIT" } else { "" };
        let policy = format!("{}\n\n{rules}\n\n{beside}\n\n{open}", place.replace("BODY", &body));
        let unknown = effect(&policy, r#"{"env": "q7"}"#);
        if unknown.as_deref() != Some("deny") {
            return;
        }
        if effect(&policy, "{}").as_deref() != Some("permit") {
            sound += 1;
            return;
        }
        vanish += 1;
        if load(&policy).is_ok() {
            missed.push(policy);
        }
    };
    for condition in CONDITIONS {
        try_one(PLACES[0], &VALUES[0], condition);
    }
    for (at, value) in VALUES.iter().enumerate() {
        for condition in CONDITIONS.iter().skip(at % STRIDE).step_by(STRIDE) {
            try_one(PLACES[0], value, condition);
        }
    }
    for (at, place) in PLACES.iter().enumerate() {
        for condition in CONDITIONS.iter().skip(at % STRIDE).step_by(STRIDE) {
            try_one(place, &VALUES[0], condition);
        }
        for value in VALUES.iter().skip(at % STRIDE).step_by(STRIDE) {
            try_one(place, value, &CONDITIONS[0]);
        }
    }
    assert!(vanish >= 200, "{vanish}");
    assert!(sound >= 5, "{sound}");
    assert!(missed.is_empty(), "{} of {vanish}\n{}", missed.len(), missed.join("\n---\n"));
}
