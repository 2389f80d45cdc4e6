//! Names, paths and URIs that are the same to somebody: the rows A4 to A6, A9, A16, A17, G9 and H7 of
//! `docs/threats.md`, through the listener. Each case says what the upstream received, what the
//! client got and, for a refusal, what the journal says.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use bartizan_rego::{Entrypoints, EvalLimits, Module, Policy};

use super::firewall::{Firewall, Received, Reply, Setup, events, json as answer, post};
use super::rego::sources;

const PERMIT: &str =
    "package mcp\n\npermit contains {\"code\": \"all\", \"message\": \"everything\"} if true\n";

/// What the upstream answers with: a `result`, or an event stream in which `ID` stands for the
/// request's id.
type Slot = Arc<Mutex<String>>;

fn setup(policy: Option<String>, server: &str) -> (Firewall, Slot) {
    let slot: Slot = Arc::new(Mutex::new(r#"{"content":[]}"#.to_owned()));
    let says = Arc::clone(&slot);
    let setup = Setup {
        rego: policy,
        server: server.to_owned(),
        answer: Box::new(move |received: &Received| {
            let says = says.lock().unwrap().clone();
            let body: Value = serde_json::from_reader(&*received.body).unwrap_or_default();
            let id = body["id"].to_string();
            if says.starts_with("data:") {
                return events(&says.replace("ID", &id));
            }
            answer(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{says}}}"#).as_bytes())
        }),
        ..Setup::default()
    };
    (Firewall::with(setup), slot)
}

/// A firewall with `rules` beside a permit for everything.
fn open(rules: &str) -> (Firewall, Slot) {
    setup(Some(format!("{PERMIT}\n{rules}")), "")
}

fn ask(firewall: &Firewall, method: &str, params: &Value) -> Reply {
    firewall.ask(json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string())
}

fn call(firewall: &Firewall, arguments: &Value) -> Reply {
    ask(firewall, "tools/call", &json!({"name": "get_flag", "arguments": arguments}))
}

fn deny(condition: &str) -> String {
    format!("deny contains {{\"code\": \"no\", \"message\": \"no\"}} if {{\n\t{condition}\n}}\n")
}

fn last_reason(firewall: &Firewall, denials: usize) -> String {
    let denial = firewall.record("event", "denial", denials);
    denial["decision"]["reasons"][0]["code"].as_str().unwrap().to_owned()
}

/// Names that some reader takes for `name`, an ASCII word with a `k` in it.
fn aliases(name: &str) -> Vec<String> {
    let wide: String =
        name.chars().map(|it| char::from_u32(u32::from(it) + 0xfee0).unwrap()).collect();
    vec![
        name.to_ascii_uppercase(),
        name[..1].to_ascii_uppercase() + &name[1..],
        name.replace('k', "\u{212a}"),
        wide,
        format!(" {name}"),
        format!("{name} "),
        format!("{name}\u{a0}"),
        format!("{name}\u{200b}"),
        format!("\u{feff}{name}"),
        format!("{name}\u{e0041}"),
        format!("{}\u{ad}{}", &name[..1], &name[1..]),
    ]
}

#[test]
fn an_argument_that_some_reader_takes_for_one_that_a_rule_reads_is_refused() {
    // A16. Each rule sees the value under its exact name alone. The last column is where the
    // name stands in the call: the alias stands in the same place.
    let rules: &[(&str, &str, &str)] = &[
        ("input.tool.arguments.key == \"secret\"", "/", "key"),
        ("input.tool.arguments[\"key\"] == \"secret\"", "/", "key"),
        ("input.tool.arguments.at.key == \"secret\"", "/at", "key"),
        ("input.tool.arguments.key.x == \"secret\"", "/", "key"),
        ("startswith(object.get(input.tool.arguments, \"key\", \"\"), \"secret\")", "/", "key"),
        (
            "some name in [\"key\", \"other\"]\n\tinput.tool.arguments[name] == \"secret\"",
            "/",
            "key",
        ),
        ("arguments := input.tool.arguments\n\targuments.key == \"secret\"", "/", "key"),
        ("\"key\" in object.keys(input.tool.arguments)", "/", "key"),
        ("some item in input.tool.arguments.at\n\titem.key == \"secret\"", "/at/0", "key"),
        ("f(input.tool)", "/", "key"),
    ];
    // Another rule may read all arguments, which hides that this one reads one of them.
    let others = [
        "count(input.tool.arguments) > 100",
        "some _, value in input.tool.arguments\n\tvalue == \"other\"",
        "object.get(input.tool.arguments, \"other\", \"\") == \"other\"",
    ];
    let first = &rules[0];
    let with_others = others.iter().map(|other| (first, *other));
    for ((condition, place, name), other) in rules.iter().map(|it| (it, "")).chain(with_others) {
        let mut rule = deny(condition) + "\nf(tool) if tool.arguments.key == \"secret\"\n";
        if !other.is_empty() {
            rule += &deny(other);
        }
        let (firewall, _slot) = open(&rule);
        let build = |name: &str| {
            let inner = json!({name: "secret", "plain": 1});
            match *place {
                "/at" => json!({"at": inner}),
                "/at/0" => json!({"at": [inner]}),
                _ => inner,
            }
        };
        for alias in aliases(name) {
            let reply = call(&firewall, &build(&alias));
            assert_eq!(reply.code(), -31001, "{condition}: {alias:?} {}", reply.text());
        }
        // Both at once: the server takes one of them, and nobody knows which.
        let reply =
            call(&firewall, &json!({"key": "x", "Key": "secret", "at": {"key": 1, "KEY": 2}}));
        assert_eq!(reply.code(), -31001, "{condition}");
        assert_eq!(firewall.received().len(), 0, "{condition}");
        assert_eq!(last_reason(&firewall, 1), "ambiguous_name", "{condition}");
        // What nobody takes for it passes.
        let harmless = json!({"keys": "secret", "k\u{435}y": "secret", "ke": {"Key2": 1}});
        assert_eq!(call(&firewall, &harmless).status, 200);
        assert_eq!(firewall.received().len(), 1, "{condition}");
    }
}

#[test]
fn names_that_rules_read_in_both_spellings_or_not_at_all_pass() {
    let rules = deny("input.tool.arguments.key == \"secret\"\n\tinput.tool.arguments.Key == \"x\"")
        + &deny("count(input.tool.name) > 100");
    let (firewall, _slot) = open(&rules);
    for arguments in [
        json!({"key": "a", "Key": "b"}),
        json!({"environment": "a", "Environment": "b", "nested": {"KEY": 1}}),
        json!({}),
    ] {
        assert_eq!(call(&firewall, &arguments).code(), 0, "{arguments}");
    }
    assert_eq!(call(&firewall, &json!({"KEY": "secret"})).code(), -31001);
    assert_eq!(firewall.received().len(), 3);
}

#[test]
fn params_of_any_message_have_no_alias_of_what_a_rule_reads() {
    // The baseline's rule on `params.mode` and `params.url`, from a server.
    let (firewall, slot) = setup(None, "    pack: flag-service\n");
    let question = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"Mode":"url","URL":"http://bad.example/","message":"m"}}"#;
    let end = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    *slot.lock().unwrap() = format!("data: {question}\n\ndata: {end}\n\n");
    let reply = call(&firewall, &json!({"key": "x"}));
    assert!(!reply.text().contains("bad.example"), "{}", reply.text());
    // A method that a rule permits by name.
    let rules = deny("input.method == \"vendor/run\"\n\tinput.params.command == \"drop\"");
    let (firewall, _slot) = open(&rules);
    for name in ["Command", "command\u{200b}", "\u{ff43}ommand"] {
        // The form of a refusal of a method that MCP does not define.
        assert_eq!(ask(&firewall, "vendor/run", &json!({name: "drop"})).code(), -32601, "{name:?}");
    }
    assert_eq!(firewall.received().len(), 0);
    let prompt = deny("input.prompt.arguments.key == \"secret\"");
    let (firewall, _slot) = open(&prompt);
    for alias in aliases("key") {
        let params = json!({"name": "p", "arguments": {&alias: "secret"}});
        assert_eq!(ask(&firewall, "prompts/get", &params).code(), -31001, "{alias:?}");
    }
    assert_eq!(firewall.received().len(), 0);
}

#[test]
fn a_set_argument_has_no_alias_beside_it() {
    let rule = |pointer: &str| {
        format!(
            "set contains {{\"pointer\": \"{pointer}\", \"value\": \"staging\"}} if input.method == \"tools/call\"\n"
        )
    };
    let (firewall, _slot) = open(&rule("/kind"));
    for alias in aliases("kind") {
        for arguments in [json!({&alias: "production"}), json!({&alias: "production", "kind": "x"})]
        {
            let reply = call(&firewall, &arguments);
            assert_eq!(reply.code(), -31001, "{alias:?} {}", reply.text());
        }
    }
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(last_reason(&firewall, 1), "unsettable");
    assert_eq!(call(&firewall, &json!({"kinds": 1})).code(), 0);
    let sent: Value = serde_json::from_reader(&*firewall.received()[0].body).unwrap();
    assert_eq!(sent["params"]["arguments"], json!({"kind": "staging", "kinds": 1}));

    let (firewall, _slot) = open(&rule("/kit/kind"));
    for alias in aliases("kit") {
        let arguments = json!({&alias: {"kind": "production"}, "kit": {"kind": "x"}});
        assert_eq!(call(&firewall, &arguments).code(), -31001, "{alias:?}");
    }
    for alias in aliases("kind") {
        let arguments = json!({"kit": {&alias: "production"}});
        assert_eq!(call(&firewall, &arguments).code(), -31001, "{alias:?}");
    }
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(call(&firewall, &json!({"kit": {"Other": 1}, "Kind": 1})).code(), 0);
}

#[test]
fn a_limit_by_an_argument_counts_one_name() {
    let rule = "limit contains {\"code\": \"k\", \"key\": key, \"rate\": \"1/h\", \"burst\": 1} if {\n\tkey := object.get(input.tool.arguments, \"key\", \"none\")\n}\n";
    let (firewall, _slot) = open(rule);
    assert_eq!(call(&firewall, &json!({"key": "a"})).code(), 0);
    assert_eq!(call(&firewall, &json!({"key": "a"})).code(), -31002);
    for alias in aliases("key") {
        assert_eq!(call(&firewall, &json!({&alias: "a"})).code(), -31001, "{alias:?}");
    }
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn a_redaction_takes_the_aliases_too() {
    let rule = "redact contains {\"code\": \"r\", \"pointer\": \"/result/structuredContent/token\"} if input.method == \"tools/call\"\n";
    let (firewall, slot) = open(rule);
    for alias in aliases("token").into_iter().chain(["token".to_owned(), "token\0".to_owned()]) {
        let result =
            json!({"content": [], "structuredContent": {&alias: "hidden-value", "tokens": 1}});
        *slot.lock().unwrap() = result.to_string();
        let reply = call(&firewall, &json!({}));
        assert_eq!(reply.code(), 0);
        assert!(!reply.text().contains("hidden-value"), "{alias:?} {}", reply.text());
        assert!(reply.text().contains("tokens"), "{}", reply.text());
    }
}

#[test]
fn what_a_rule_says_or_reads_elsewhere_is_no_name_of_an_argument() {
    // The rule reads all values, and no name. The decision's own words are no names, either.
    let values = deny("some _, value in input.tool.arguments\n\tvalue == \"forbidden\"");
    let (firewall, _slot) = open(&values);
    for name in ["Message", "Code", "Limit", "Effect", "Reasons", "Hold", "Counts", "All"] {
        assert_eq!(call(&firewall, &json!({name: "a"})).code(), 0, "{name}");
        assert_eq!(call(&firewall, &json!({name: "forbidden"})).code(), -31001, "{name}");
    }
    // Strings that a body compares may still be names.
    assert_eq!(call(&firewall, &json!({"Forbidden": "a"})).code(), -31001);
    assert_eq!(last_reason(&firewall, 9), "ambiguous_name");

    for get in [
        "object.get(input.tool.arguments, \"key\", \"secret\") == \"secret\"",
        "object.get(input.tool.arguments, [\"key\"], \"secret\") == \"secret\"",
        "object.get(input.tool, [\"arguments\", \"key\"], \"secret\") == \"secret\"",
    ] {
        let (firewall, _slot) = open(&deny(get));
        assert_eq!(call(&firewall, &json!({"key": "a", "env": {"KEY": 1}})).code(), 0, "{get}");
        assert_eq!(firewall.received().len(), 1);
        for alias in aliases("key") {
            let arguments = json!({"key": "a", &alias: "secret"});
            assert_eq!(call(&firewall, &arguments).code(), -31001, "{get} {alias:?}");
        }
        // The default holds also where there are no arguments, and for a value of another type.
        for arguments in [json!({}), json!({"key": "secret"}), json!({"other": [1]})] {
            assert_eq!(call(&firewall, &arguments).code(), -31001, "{get} {arguments}");
        }
        assert_eq!(call(&firewall, &json!({"key": ["secret"]})).code(), 0, "{get}");
    }
}

#[test]
fn a_table_of_another_package_holds_names_whatever_it_is_called() {
    let rule = deny("some row in data.names.set\n\tinput.tool.arguments[row.name] == \"secret\"");
    let mut sources = sources(&format!("package mcp\n{rule}"), None);
    let names = "package names\n\nset contains {\"name\": \"key\"}\n";
    sources.modules.push(Module { path: "names.rego".to_owned(), text: names.to_owned() });
    let policy =
        Policy::compile(&sources, &Entrypoints::default(), &EvalLimits::default()).unwrap();
    let denied = |arguments: Value| {
        let input = json!({"tool": {"name": "get_flag", "arguments": arguments}}).to_string();
        policy.denial_of_name(&input).is_some()
    };
    assert!(!denied(json!({"key": "secret", "other": 1})));
    for alias in aliases("key") {
        assert!(denied(json!({&alias: "secret"})), "{alias:?}");
    }
}

#[test]
fn a_member_name_with_a_control_character_is_refused_wherever_it_stands() {
    // A6. The escapes are written by hand: a control character below U+0020 cannot stand raw.
    let (firewall, slot) = open("");
    for control in ["\\u0000", "\\u0001", "\\t", "\\n", "\\u001b", "\\u007f", "\\u0085", "\\u009b"]
    {
        for body in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"xNUL":1}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"x":[{"y":{"NUL":1}}]}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","_meta":{"aNULb":1}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"ping","xNUL":1}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"xNUL":1}}"#,
        ] {
            let reply = firewall.ask(body.replace("NUL", control));
            assert_eq!((reply.status, reply.code()), (400, -32600), "{body} {control}");
        }
    }
    let raw = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\",\"params\":{\"x\u{9f}\":1}}";
    assert_eq!(firewall.ask(raw).code(), -32600);
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(last_reason(&firewall, 1), "control-in-name");
    // Values may have them, and so may names that a server uses for data: a table of texts by text.
    assert_eq!(call(&firewall, &json!({"text": "a\nb\0"})).code(), 0);
    *slot.lock().unwrap() = json!({"content": [], "structuredContent": {"a\nb": 1}}).to_string();
    assert_eq!(call(&firewall, &json!({})).json()["result"]["structuredContent"]["a\nb"], 1);
}

#[test]
fn what_says_the_era_and_the_request_has_no_look_alike() {
    // A4 to A6: `params._meta` is read by the gate, too.
    let (firewall, _slot) = open("");
    for name in [
        "IO.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/protocolversion",
        "io.modelcontextprotocol/protocolVersion\u{200b}",
        "io.modelcontextprotocol\u{ff0f}protocolVersion",
        "io.modelcontextprotocol/ClientCapabilities",
        "io.modelcontextprotocol/clientinfo",
        "ProgressToken",
        "progressTo\u{212a}en",
    ] {
        let params = json!({"name": "get_flag", "_meta": {name: "2026-07-28"}});
        let reply = ask(&firewall, "tools/call", &params);
        assert_eq!((reply.status, reply.code()), (400, -32600), "{name:?} {}", reply.text());
    }
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(last_reason(&firewall, 1), "look-alike-name");
    let params =
        json!({"name": "get_flag", "_meta": {"progressToken": 1, "Name": 1, "vendor/x": 2}});
    assert_eq!(ask(&firewall, "tools/call", &params).code(), 0);
}

#[test]
fn a_name_that_readers_read_differently_is_refused_before_the_policy() {
    // A9, A17 (P10): also where the policy permits everything.
    let (firewall, _slot) = open("");
    let long = "a".repeat(257);
    let mut bad: Vec<&str> = vec![
        "get_flag\u{200b}",
        "get_flag\0",
        "get\0delete",
        " get_flag",
        "get_flag ",
        "get\tflag",
        "get_flag\n",
        "get\u{a0}flag",
        "get\u{202e}flag",
        "get\u{2066}flag",
        "get\u{e0067}",
        "get\u{fe0f}",
        "ｇet_flag",
        "e\u{301}",
        "\u{1b}[8mget",
        "get\u{85}",
        "get\u{2028}flag",
        "\u{feff}get",
        "",
    ];
    bad.push(&long);
    let mut refused = 0;
    for name in bad {
        let mut messages = vec![
            ("tools/call", json!({"name": name})),
            ("prompts/get", json!({"name": name})),
            (
                "completion/complete",
                json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "a", "value": ""}}),
            ),
            (
                "completion/complete",
                json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": name, "value": ""}}),
            ),
            ("logging/setLevel", json!({"level": name})),
        ];
        if name.len() != 257 {
            messages.push(("tasks/get", json!({"taskId": name})));
        }
        for (method, params) in messages {
            let reply = ask(&firewall, method, &params);
            let told = (reply.status, reply.code(), reply.json()["id"].clone());
            assert_eq!(told, (400, -32602, json!(7)), "{method} {name:?} {}", reply.text());
            refused += 1;
        }
        if !name.is_empty() {
            let reply = ask(&firewall, &format!("vendor/{name}\u{200b}"), &json!({}));
            let told = (reply.status, reply.code(), reply.json()["id"].clone());
            assert_eq!(told, (400, -32600, json!(7)), "{name:?}");
            refused += 1;
        }
    }
    // A server that ignores case would take these for methods that rules and packs know.
    for method in
        ["Tools/Call", "TOOLS/CALL", "tools/\u{441}all", "resources/Read", "Notifications/x"]
    {
        let reply = ask(&firewall, method, &json!({"name": "delete_flag"}));
        let alike = method.is_ascii() && !method.starts_with('N');
        assert_eq!(reply.status, if alike { 400 } else { 200 }, "{method} {}", reply.text());
        refused += usize::from(alike);
    }
    assert_eq!(firewall.received().len(), 2, "what nobody takes for a method of MCP passes here");
    assert_eq!(last_reason(&firewall, refused), "bad-name");
    for name in ["get_flag", "Search docs", "日本語", "Код", &"a".repeat(256)] {
        assert_eq!(ask(&firewall, "tools/call", &json!({"name": name})).code(), 0, "{name}");
    }
}

#[test]
fn a_listed_tool_whose_name_people_cannot_see_cannot_be_called() {
    let (firewall, slot) = open("");
    *slot.lock().unwrap() =
        json!({"tools": [{"name": "get\u{200b}", "inputSchema": {"type": "object"}}]}).to_string();
    // This policy hides nothing.
    let reply = ask(&firewall, "tools/list", &json!({}));
    assert_eq!(reply.json()["result"]["tools"][0]["name"], "get\u{200b}");
    assert_eq!(ask(&firewall, "tools/call", &json!({"name": "get\u{200b}"})).code(), -32602);
    assert_eq!(firewall.received().len(), 1);
}

#[test]
fn a_server_asks_nothing_by_such_a_name() {
    let (firewall, slot) = open("");
    let end = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    for bad in [
        r#"{"jsonrpc":"2.0","method":"notifications/message\u200b","params":{"level":"info","data":"spoofed"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/x\u0000","params":{"data":"spoofed"}}"#,
        r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage\u202e","params":{"messages":["spoofed"]}}"#,
    ] {
        *slot.lock().unwrap() = format!("data: {bad}\n\ndata: {end}\n\n");
        let reply = call(&firewall, &json!({}));
        assert!(!reply.text().contains("spoofed"), "{bad} {}", reply.text());
        assert!(reply.text().contains("content"), "{bad} {}", reply.text());
    }
}

/// Spellings of `file:///etc/passwd`, which a rule on its text does not see.
const ETC: &[&str] = &[
    "file:///%65tc/passwd",
    "file:////etc/passwd",
    "file://///etc/passwd",
    "FILE:///etc/passwd",
    "File:///etc/passwd",
    "file://localhost/etc/passwd",
    "file://LOCALHOST/etc/passwd",
    "file://localhost./etc/passwd",
    "file:/etc/passwd",
    "file:etc/passwd",
    " file:///etc/passwd",
    "\tfile:///etc/passwd",
    "\nfile:///etc/passwd\r\n",
    "file:///etc//passwd",
    "file:///./etc/passwd",
    "file:///docs/../etc/passwd",
    "file:///docs/%2e%2E/etc/passwd",
    "file:///etc/%2e/passwd",
    "file:///etc/passwd#a",
    "file:///etc/passwd?a",
    "file:///etc/passw%64",
];

/// Texts that no two readers read alike.
const UNREADABLE: &[&str] = &[
    "file:///etc%2fpasswd",
    "file:///docs/..%2F..%2Fetc/passwd",
    "file:///docs%5c..%5Cetc/passwd",
    "file:\\\\\\etc\\passwd",
    "file:///docs/%252e%252e/etc/passwd",
    "file:///etc/passwd%00.txt",
    "file:///e\ttc/passwd",
    "fi\nle:///etc/passwd",
    "file:///\u{ff45}tc/passwd",
    "file:///etc\u{2215}passwd",
    "file:///etc%E2%88%95passwd",
    "file:///etc/passwd\u{200b}",
    "file:///%c0%ae%c0%ae/etc/passwd",
    "/etc/passwd",
    "//localhost/etc/passwd",
    "file:///etc/passwd%3F",
    "https:/h.example/private",
    "https:h.example/private",
    "https://h\u{ff0e}example/private",
    "https://%68.example/private",
    "http://0x7f000001/private",
    "http://2130706433/private",
];

/// Spellings of `https://h.example/private`.
const HTTPS: &[&str] = &[
    "HTTPS://h.example/private",
    "https://H.Example/private",
    "https://h.example:443/private",
    "https://h.example:/private",
    "https://h.example:0443/private",
    "https://h.example./private",
    "https://u@h.example/private",
    "https://u:p@h.example/private",
    "https://h.example//private",
    "https://h.example/a/../private",
    "https://h.example/priv%61te",
    "https://h.example/private?",
    "https://h.example/private#x",
    " https://h.example/private",
];

#[test]
fn no_spelling_of_a_uri_passes_a_rule_on_its_text() {
    // G9: the baseline, and beside it a rule that compares text.
    let (firewall, _slot) = setup(None, "    pack: flag-service\n");
    let all = [ETC, UNREADABLE, HTTPS].concat();
    let others = ["https://h.example/private;x", "http://[::ffff:127.0.0.1]/", "https://h.example"];
    for uri in all.iter().copied().chain(others) {
        for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
            let reply = ask(&firewall, method, &json!({"uri": uri}));
            assert_eq!(reply.code(), -31001, "{method} {uri:?} {}", reply.text());
        }
        let complete = json!({"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "a", "value": ""}});
        assert_eq!(ask(&firewall, "completion/complete", &complete).code(), -31001, "{uri:?}");
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let params =
            json!({"notifications": {"resourceSubscriptions": ["note:a", uri]}, "_meta": meta});
        let listen =
            json!({"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params});
        let headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: subscriptions/listen\r\n";
        let reply = firewall.send(&post(listen.to_string(), headers));
        assert_eq!(reply.code(), -31001, "{uri:?} {}", reply.text());
    }
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(last_reason(&firewall, 1), "ambiguous-uri");
    let plain = [
        "file:///etc/passwd.d/",
        "file:///docs/caf%C3%A9%20menu",
        "https://h.example/a?to=%2Fb&x=%25",
        "https://h.example:8443/users/a%40b",
        "note:a",
        "project://12345/flags/x",
        "ui://widget/view.html",
    ];
    for uri in plain {
        assert_eq!(ask(&firewall, "resources/read", &json!({"uri": uri})).code(), 0, "{uri}");
    }
    // A template in a completion is no spelling of another one.
    let template = json!({"ref": {"type": "ref/resource", "uri": "repo://o/{path}{?q}"}, "argument": {"name": "path", "value": ""}});
    assert_eq!(ask(&firewall, "completion/complete", &template).code(), 0);
    assert_eq!(firewall.received().len(), plain.len() + 1);
}

#[test]
fn a_rule_on_the_parts_of_a_uri_sees_through_its_spelling() {
    // No baseline here: the rule judges `parsed` alone.
    let rules = deny(
        "input.resource.parsed.scheme == \"file\"\n\tinput.resource.parsed.segments[0] == \"etc\"",
    ) + &deny(
        "input.resource.parsed.host == \"h.example\"\n\tinput.resource.parsed.port == 443\n\tstartswith(input.resource.parsed.path, \"/private\")",
    ) + &deny("input.method == \"resources/read\"\n\tnot input.resource.parsed");
    let (firewall, slot) = open(&rules);
    *slot.lock().unwrap() = r#"{"contents":[]}"#.to_owned();
    let plain = ["file:///etc/passwd", "https://h.example/private", "file:///etc/", "file:///etc"];
    for uri in [ETC, UNREADABLE, HTTPS, &plain].concat() {
        let reply = ask(&firewall, "resources/read", &json!({"uri": uri}));
        assert_eq!(reply.code(), -31001, "{uri:?}");
    }
    assert_eq!(firewall.received().len(), 0);
    for uri in ["file:///etcetera", "https://h.example:8443/private", "https://h.example/public"] {
        assert_eq!(ask(&firewall, "resources/read", &json!({"uri": uri})).code(), 0, "{uri}");
    }
}

/// A pack with paths in arguments, as a file.
fn pack() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let tool = |place: Value| json!({"effect": "write", "absent": "all", "environments": [place]});
    let pack = json!({"version": 1, "name": "files", "tools": {
        "write": tool(json!({"at": "/path", "form": "segment", "after": "files"})),
        "deep": tool(json!({"at": "/path", "form": "segment", "after": "srv/files"})),
        "patch": tool(json!({"at": "/patch", "form": "patch", "after": "environments"})),
    }});
    std::fs::write(file.path(), pack.to_string()).unwrap();
    file
}

#[test]
fn a_path_names_an_environment_only_where_every_reader_resolves_it_alike() {
    // H7: the baseline, pinned to staging.
    let file = pack();
    let server = format!("    pack: {}\n    environment: staging\n", file.path().display());
    let (firewall, _slot) = setup(None, &server);
    let write = |tool: &str, path: &str| {
        ask(&firewall, "tools/call", &json!({"name": tool, "arguments": {"path": path}})).code()
    };
    for path in [
        "files/staging/../production/x",
        "files/staging/..",
        "files/./staging/x",
        "files/staging/./x",
        "files//staging/x",
        "//files/staging/x",
        "files/staging//x",
        "files/staging/",
        "files/staging/%2e%2e/production/x",
        "files/staging/%2E%2E/production/x",
        "files/staging/..%2Fproduction/x",
        "files/staging%2F..%2Fproduction/x",
        "files/staging/%252e%252e/production/x",
        "files/staging\\..\\production\\x",
        "files/staging/..\\production",
        "files\\staging\\x",
        "files/staging/x\0/../../production",
        "files/staging\0",
        "files/staging/\u{2215}..\u{2215}production",
        "files/staging\u{ff0f}..\u{ff0f}production",
        "files/staging/\u{ff0e}\u{ff0e}/production/x",
        "files/staging/\u{2025}/production/x",
        "files/staging/\u{2024}\u{2024}/production/x",
        "files/staging/..;/production/x",
        "files/staging/x?/../../production",
        "files/staging/x#/../../production",
        "files/staging /x",
        "files/staging./x",
        "files/staging/.../production",
        "files/staging/x\u{200b}",
        "production/files/staging/x",
        "../files/staging/x",
        "x/../files/staging/x",
        "/srv/files/staging/x",
        "files/Staging/x",
        "Files/staging/x",
        "files",
        "staging",
        "",
    ] {
        assert_eq!(write("write", path), -31001, "{path:?}");
    }
    for path in ["files/staging/x", "srv/x/staging", "srv/files/production", "x/srv/files/staging"]
    {
        assert_eq!(write("deep", path), -31001, "{path:?}");
    }
    assert_eq!(firewall.received().len(), 0);
    for (tool, path) in [
        ("write", "files/staging/x"),
        ("write", "/files/staging/a b/日本.txt"),
        ("write", "files/staging"),
        ("deep", "/srv/files/staging/x"),
    ] {
        assert_eq!(write(tool, path), 0, "{path:?}");
    }
    assert_eq!(firewall.received().len(), 4);
}

/// Patches that touch another environment than staging, or that cannot be read.
fn patches() -> Vec<Value> {
    let inside = "/environments/staging/on";
    let outside = "/environments/production/on";
    vec![
        json!([{"op": "move", "from": outside, "path": inside}]),
        json!([{"op": "copy", "from": outside, "path": inside}]),
        json!([{"op": "copy", "from": inside, "path": outside}]),
        json!([{"op": "test", "path": outside, "value": true}, {"op": "replace", "path": inside, "value": true}]),
        json!([{"op": "replace", "path": inside, "value": 1}, {"op": "remove", "path": outside}]),
        json!([{"op": "replace", "path": "", "value": {}}]),
        json!([{"op": "replace", "path": "/environments", "value": {}}]),
        json!([{"op": "replace", "path": "/name", "value": "x"}]),
        json!([{"op": "move", "from": "/environments", "path": inside}]),
        json!([{"op": "move", "from": "", "path": inside}]),
        json!([{"op": "move", "path": inside}]),
        json!([{"op": "replace", "path": inside, "from": outside, "value": 1}]),
        json!([{"op": "replace", "path": inside, "From": outside, "value": 1}]),
        json!([{"op": "move", "path": inside, "from": inside, "FROM": outside}]),
        json!([{"op": "replace", "path": inside, "Path": outside, "value": 1}]),
        json!([{"op": "replace", "Op": "move", "path": inside, "value": 1}]),
        json!([{"op": "merge", "path": inside, "value": 1}]),
        json!([{"path": inside, "value": 1}]),
        json!([{"op": "replace", "path": "environments/staging/on", "value": 1}]),
        json!([{"op": "replace", "path": "/environments/staging/../production/on", "value": 1}]),
        json!([{"op": "replace", "path": "/x/environments/staging/on", "value": 1}]),
        json!([{"op": "replace", "path": "/environments//staging", "value": 1}]),
        json!([{"op": "replace", "path": "/environments/staging/", "value": 1}]),
        json!([{"op": "replace", "path": [inside, outside], "value": 1}]),
        json!({"op": "replace", "path": inside, "value": 1}),
        json!(format!("[{{\"op\":\"replace\",\"path\":\"{inside}\"}}]")),
        json!([[{"op": "replace", "path": inside, "value": 1}]]),
        json!([]),
        json!(null),
    ]
}

#[test]
fn every_pointer_of_a_json_patch_names_an_environment() {
    // H7: in a pack of one's own under the baseline, and in that of LaunchDarkly.
    let file = pack();
    let server = format!("    pack: {}\n    environment: staging\n", file.path().display());
    let (firewall, _slot) = setup(None, &server);
    let outside = deny("input.operation.environments != [\"staging\"]");
    let (vendor, _slot) = setup(Some(format!("{PERMIT}\n{outside}")), "    pack: launchdarkly\n");
    let patch = |patch: &Value| {
        ask(&firewall, "tools/call", &json!({"name": "patch", "arguments": {"patch": patch}}))
            .code()
    };
    let update = |request: &Value| {
        let arguments = json!({"request": {"PatchWithComment": request}});
        let params = json!({"name": "update-feature-flag", "arguments": arguments});
        ask(&vendor, "tools/call", &params).code()
    };
    for bad in patches() {
        assert_eq!(patch(&bad), -31001, "{bad}");
        assert_eq!(update(&json!({"patch": bad})), -31001, "{bad}");
    }
    let good = json!([
        {"op": "replace", "path": "/environments/staging/on", "value": true},
        {"op": "move", "from": "/environments/staging/rules/0", "path": "/environments/staging/rules/1"},
        {"op": "test", "path": "/environments/staging/a~1b", "value": 1},
    ]);
    for semantic in [
        json!({"patch": good, "environmentKey": "production"}),
        json!({"patch": good, "instructions": [{"kind": "turnFlagOn"}]}),
        json!({"instructions": [{"kind": "turnFlagOn"}], "environmentKey": "staging"}),
        json!({"patch": good, "EnvironmentKey": "staging"}),
    ] {
        assert_eq!(update(&semantic), -31001, "{semantic}");
    }
    assert_eq!((firewall.received().len(), vendor.received().len()), (0, 0));
    assert_eq!(patch(&good), 0);
    assert_eq!(update(&json!({"patch": good, "comment": "why"})), 0);
    assert_eq!((firewall.received().len(), vendor.received().len()), (1, 1));
}

#[test]
fn a_list_in_which_some_reader_finds_another_list_is_withheld() {
    let (firewall, slot) = setup(None, "    pack: flag-service\n");
    let listed = |result: &str| {
        *slot.lock().unwrap() =
            format!("data: {{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{result}}}\n\n");
        ask(&firewall, "tools/list", &json!({}))
    };
    let good = r#"{"name":"get_flag","inputSchema":{"type":"object"}}"#;
    assert!(listed(&format!(r#"{{"tools":[{good}],"more":1}}"#)).text().contains("get_flag"));
    let other = r#"[{"name":"delete_flag","description":"EVIL","inputSchema":{"type":"object"}}]"#;
    for name in
        ["Tools", "TOOLS", "tools ", "tool\u{17f}", "tools\\u0000", "\u{ff54}ools", "tools\u{200b}"]
    {
        let reply = listed(&format!(r#"{{"tools":[{good}],"{name}":{other}}}"#));
        assert!(!reply.text().contains("EVIL"), "{name}: {}", reply.text());
    }
    let entry = r#"{"name":"get_flag","Name":"EVIL","inputSchema":{"type":"object"}}"#;
    let reply = listed(&format!(r#"{{"tools":[{entry}]}}"#));
    assert!(!reply.text().contains("EVIL"), "{}", reply.text());
}
