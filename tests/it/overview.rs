//! What approvers may look at beside held calls: the journal and the servers, through the operators'
//! listener of a whole firewall.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests"
)]

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bartizan::lock::LockedTool;
use serde_json::{Map, Value, json};

use super::firewall::{Client, Firewall, Reply, Setup, call, json, odd_answer};

const ALICE: &str = "alice-0123456789abcdefghijklmnopqr";

const TOP: &str =
    "approvals:\n  approvers:\n  - {id: alice, token: alice-0123456789abcdefghijklmnopqr}\n";

const REGO: &str = r#"package mcp

permit contains {"code": "reads", "message": "reads are open"} if input.operation.effect == "read"

permit contains {"code": "rest", "message": "the rest of what is known"} if input.operation.effect != "read"

deny contains {"code": "no-kill", "message": "not here"} if input.tool.name == "kill_flag"

redact contains {"code": "secrets", "what": "secrets"} if true
"#;

fn setup() -> Setup {
    Setup { rego: Some(REGO.to_owned()), top: TOP.to_owned(), ..Setup::default() }
}

fn get(firewall: &Firewall, path: &str) -> Reply {
    ask(firewall, "GET", path, &format!("Authorization: Bearer {ALICE}\r\n"))
}

fn ask(firewall: &Firewall, method: &str, path: &str, headers: &str) -> Reply {
    let mut client = Client::connect(firewall.admin());
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: desk:1\r\n{headers}\r\n").as_bytes());
    client.reply()
}

fn good(firewall: &Firewall, path: &str) -> Value {
    let reply = get(firewall, path);
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

fn error(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn records(found: &Value) -> &Vec<Value> {
    found["records"].as_array().unwrap()
}

#[test]
fn an_approver_reads_the_journal_and_nobody_else_does() {
    let firewall = Firewall::with(setup());
    assert_eq!(firewall.ask(call(1, "get_flag", r#"{"key":"a"}"#)).status, 200);
    let found = good(&firewall, "/audit");
    let mut written = firewall.journal();
    written.reverse();
    assert_eq!(records(&found), &written, "as it is in the files, newest first");
    assert_eq!(found["change"], written[0]["seq"]);
    assert_eq!((&found["older"], &found["unreadable"]), (&Value::Null, &json!(0)));

    for path in ["/audit", "/audit/changes", "/servers", "/audit?tool=get_flag"] {
        for headers in [
            "",
            "Authorization: Bearer wrong-0123456789abcdefghijklmnopqr\r\n",
            &format!("Authorization: Basic {ALICE}\r\n"),
            &format!("Authorization: Bearer {ALICE}\r\nAuthorization: Bearer {ALICE}\r\n"),
        ] {
            let reply = ask(&firewall, "GET", path, headers);
            assert_eq!(reply.status, 401, "{path} {headers}");
            assert!(!reply.text().contains("get_flag") && !reply.text().contains("seq"));
        }
        let other = format!("Authorization: Bearer {ALICE}\r\nOrigin: http://evil.example\r\n");
        assert_eq!(error(&ask(&firewall, "GET", path, &other)), (403, "other-site".to_owned()));
        let right = format!("Authorization: Bearer {ALICE}\r\n");
        for method in ["POST", "DELETE", "PUT"] {
            let reply = ask(&firewall, method, path, &right);
            assert_eq!(error(&reply), (405, "method".to_owned()), "{method} {path}");
        }
    }
    // Without approvers nobody can sign in, and nothing is there.
    let closed = Firewall::with(Setup { rego: Some(REGO.to_owned()), ..Setup::default() });
    for path in ["/audit", "/audit/changes", "/servers"] {
        assert_eq!(get(&closed, path).status, 404, "{path}");
    }
}

/// Whether a filter should admit a record.
type Admits<'a> = &'a dyn Fn(&Value) -> bool;

#[test]
fn filters_select_records_by_each_of_their_members() {
    let firewall = Firewall::with(setup());
    for (id, tool, arguments) in [
        (1, "get_flag", r#"{"key":"a"}"#),
        (2, "set_rollout", r#"{"key":"a","percentage":5,"environment":"staging"}"#),
        (3, "kill_flag", r#"{"key":"a","environment":"staging"}"#),
    ] {
        firewall.ask(call(id, tool, arguments));
    }
    let journal = firewall.journal();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let codes = |record: &Value| -> Vec<String> {
        let reasons = record["decision"]["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().map(|reason| text(&reason["code"])).collect()
    };
    let cases: [(&str, Admits<'_>); 10] = [
        ("tool=kill_flag", &|it| it["target"]["tool"] == "kill_flag"),
        ("tool=kill_flag&tool=get_flag", &|it| {
            it["target"]["tool"] == "kill_flag" || it["target"]["tool"] == "get_flag"
        }),
        ("effect=read", &|it| it["operation"]["effect"] == "read"),
        ("rule=no-kill", &|it| codes(it).contains(&"no-kill".to_owned())),
        ("rule=reads&tool=get_flag", &|it| {
            codes(it).contains(&"reads".to_owned()) && it["target"]["tool"] == "get_flag"
        }),
        ("server=flags", &|it| it["server"] == "flags"),
        ("principal=agent", &|it| it["principal"] == "agent"),
        ("event=denial", &|it| it["event"] == "denial"),
        ("decision=deny", &|it| it["decision"]["effect"] == "deny"),
        ("method=tools%2Fcall&event=intent", &|it| {
            it["method"] == "tools/call" && it["event"] == "intent"
        }),
    ];
    for (query, wanted) in cases {
        let found = good(&firewall, &format!("/audit?{query}"));
        let mut expected = journal.clone();
        expected.retain(|record| wanted(record));
        expected.reverse();
        assert!(!expected.is_empty(), "{query}: the test selects nothing");
        assert!(expected.len() < journal.len(), "{query}: the test selects all");
        assert_eq!(records(&found), &expected, "{query}");
    }
    for query in ["tool=KILL_FLAG", "tool=kill", "rule=no", "environment=stag", "server="] {
        assert_eq!(records(&good(&firewall, &format!("/audit?{query}"))).len(), 0, "{query}");
    }
    for query in ["tools=x", "tool", "after=x", "before=1", "tool=%ff", "since=1m", "effect=wri"] {
        let reply = get(&firewall, &format!("/audit?{query}"));
        assert_eq!(error(&reply), (400, "query".to_owned()), "{query}");
    }
    for path in ["/audit/", "/audit/1", "/audit/changes/x", "/servers/", "/servers/flags"] {
        assert_eq!(get(&firewall, path).status, 404, "{path}");
    }
    assert_eq!(error(&get(&firewall, "/servers?x=1")), (400, "query".to_owned()));
}

/// What must not be in the journal is not in this answer either, and what cannot be seen is an escape.
#[test]
fn the_journal_is_shown_as_redacted_as_it_is() {
    let secret = "ghp_Xq8Zk2Lw9Vb3Ny7Hc5Jd1Gs6Rf4Tm0Pw8Ae2";
    let answer = format!(r#"{{"content":[{{"type":"text","text":"{secret}"}}]}}"#);
    let firewall = Firewall::with(Setup {
        top: format!("{TOP}audit: {{each_refusal: true, inputs: values}}\n"),
        answer: Box::new(move |received| {
            let asked: Value = serde_json::from_slice(&received.body).unwrap();
            let id = &asked["id"];
            json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{answer}}}"#).as_bytes())
        }),
        ..setup()
    });
    let arguments = format!(r#"{{"key":"{secret}","note":"a\u202eb"}}"#);
    firewall.ask(call(1, "get_flag", &arguments));
    firewall.ask(call(2, r"get\u200b_flag", "{}"));
    let reply = get(&firewall, "/audit");
    assert!(records(&reply.json()).len() > 3);
    assert!(!reply.text().contains(secret) && !reply.text().contains(ALICE), "{}", reply.text());
    for unseen in ['\u{202e}', '\u{200b}'] {
        assert!(!reply.text().contains(unseen));
    }
    assert_eq!(reply.header("content-type"), ["application/json"]);
    assert_eq!(reply.header("cache-control"), ["no-store"]);
}

#[test]
fn pages_are_bounded_and_lead_through_the_whole_journal() {
    let firewall = Firewall::with(setup());
    for id in 0..150 {
        firewall.ask(call(id, "get_flag", r#"{"key":"a"}"#));
    }
    let mut expected = firewall.journal();
    expected.reverse();
    assert!(expected.len() > 300);
    let (mut found, mut path, mut pages) = (Vec::new(), "/audit".to_owned(), 0);
    loop {
        let page = good(&firewall, &path);
        assert!(records(&page).len() <= 200);
        found.extend_from_slice(records(&page));
        pages += 1;
        let Some(older) = page["older"].as_str() else { break };
        path = format!("/audit?before={older}");
    }
    assert!(pages >= 2);
    assert_eq!(found, expected);
    // A filter that admits little goes through all of it, too.
    assert_eq!(records(&good(&firewall, "/audit?event=start")).len(), 1);
    // Only what came since.
    let newest = expected[0]["seq"].as_u64().unwrap();
    firewall.ask(call(999, "get_flag", r#"{"key":"b"}"#));
    let since = good(&firewall, &format!("/audit?after={newest}"));
    assert!(records(&since).iter().all(|it| it["seq"].as_u64().unwrap() > newest));
    assert_eq!(records(&since).len(), firewall.journal().len() - expected.len());
    // Made-up places are places.
    for place in ["0-0", "1-3", "1-99999999999", "18446744073709551615-18446744073709551615"] {
        good(&firewall, &format!("/audit?before={place}"));
    }
}

/// A line in the journal that is none, put there by somebody else, breaks no answer.
#[test]
fn a_damaged_journal_is_shown_as_far_as_it_can_be_read() {
    let firewall = Firewall::with(setup());
    firewall.ask(call(1, "get_flag", r#"{"key":"a"}"#));
    let before = records(&good(&firewall, "/audit")).len();
    let folder = firewall.state().join("journal");
    let segment = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "ndjson"));
    append(&segment.max().unwrap(), "\"],\"evil\":[\"\n{}\n{\"seq\":1}\n");
    let found = good(&firewall, "/audit");
    assert_eq!((records(&found).len(), &found["unreadable"]), (before, &json!(3)));
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn whoever_waits_is_told_of_the_next_record() {
    let firewall = Firewall::with(setup());
    let change = good(&firewall, "/audit")["change"].as_u64().unwrap();
    let mut waiting = Client::connect(firewall.admin());
    waiting.send(
        format!(
            "GET /audit/changes?after={change} HTTP/1.1\r\nHost: desk:1\r\nAuthorization: Bearer {ALICE}\r\n\r\n"
        )
        .as_bytes(),
    );
    firewall.ask(call(1, "get_flag", r#"{"key":"a"}"#));
    let told = waiting.reply().json()["change"].as_u64().unwrap();
    assert!(told > change);
    assert!(!records(&good(&firewall, &format!("/audit?after={change}"))).is_empty());
    // What has happened already is told at once.
    assert!(good(&firewall, "/audit/changes?after=0")["change"].as_u64() >= Some(told));
}

/// Those who wait for records have slots of their own, and hold up neither probes nor answers.
#[test]
fn those_who_wait_for_records_hold_up_no_probe() {
    let firewall = Firewall::with(setup());
    let change = good(&firewall, "/audit")["change"].as_u64().unwrap();
    let line = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: desk:1\r\nAuthorization: Bearer {ALICE}\r\n\r\n")
    };
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(firewall.admin());
        client.send(line(&format!("/audit/changes?after={change}")).as_bytes());
        waiting.push(client);
        // One thread serves all in the order in which they came.
        assert_eq!(ask(&firewall, "GET", "/livez", "").status, 200);
    }
    for path in ["/audit", "/servers", "/approvals"] {
        assert_eq!(error(&get(&firewall, path)), (429, "busy".to_owned()), "{path}");
    }
    assert_eq!(ask(&firewall, "GET", "/livez", "").status, 200);
    firewall.ask(call(1, "get_flag", r#"{"key":"a"}"#));
    for client in &mut waiting {
        assert!(client.reply().json()["change"].as_u64().unwrap() > change);
    }
    assert_eq!(get(&firewall, "/audit").status, 200, "the slots came back");
}

#[test]
fn servers_are_shown_with_pack_policy_and_lock() {
    let firewall = Firewall::with(Setup {
        server: "    pack: flag-service\n    environment: staging\n    labels: {tier: gold}\n"
            .to_owned(),
        ..setup()
    });
    let found = good(&firewall, "/servers");
    assert_eq!(found["mode"], "enforce");
    let reply = firewall.ask(call(1, "get_flag", r#"{"key":"a"}"#));
    assert!(reply.json()["result"].is_object(), "{reply:?}");
    assert_eq!(found["policy"], firewall.record("event", "intent", 1)["decision"]["policy"]);
    let server = &found["servers"][0];
    assert_eq!((&server["name"], &server["path"]), (&json!("flags"), &json!("/mcp")));
    assert_eq!((&server["transport"], &server["environment"]), (&json!("http"), &json!("staging")));
    assert_eq!(server["labels"], json!([["tier", "gold"]]));
    assert_eq!(server["pack"]["name"], "flag-service");
    assert!(server["pack"]["tools"].as_u64() > Some(3));
    assert_eq!(server["lock"]["state"], "off");
    let shown = found.to_string();
    assert!(!shown.contains("127.0.0.1"), "the address of a server may hold a secret: {shown}");
}

/// A server with a lock that lists other tools than are in it.
#[test]
fn drift_from_the_lock_is_named_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("bartizan.lock");
    let tools: Map<String, Value> = (0..80)
        .map(|number| {
            let name = format!("gone_{number:02}");
            let definition = json!({"name": name, "inputSchema": {"type": "object"}});
            let locked = LockedTool::new(&definition.to_string(), "read", &[]).unwrap();
            let digest = locked.digest;
            (name, json!({"digest": digest, "effect": "read", "definition": definition}))
        })
        .collect();
    let text = json!({"version": 1, "servers": {"flags": {"tools": tools}}}).to_string();
    std::fs::write(&lock, text).unwrap();
    let firewall = Firewall::with(Setup {
        top: format!("{TOP}lock: {}\n", lock.display()),
        answer: Box::new(|received| {
            let asked: Value = serde_json::from_slice(&received.body).unwrap();
            if asked["method"] != "tools/list" {
                return json(&odd_answer(&received.body));
            }
            let tools = json!([{"name": "new<b>", "inputSchema": {"type": "object"}}]);
            json(
                json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": tools}})
                    .to_string()
                    .as_bytes(),
            )
        }),
        ..setup()
    });
    firewall.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let lock = &good(&firewall, "/servers")["servers"][0]["lock"];
    assert_eq!((&lock["state"], &lock["tools"]), (&json!("locked"), &json!(80)));
    assert_eq!((&lock["listed"], &lock["added"]), (&json!(1), &json!(["new<b>"])));
    assert_eq!(lock["missing"].as_array().unwrap().len(), 50);
    assert_eq!(lock["more"], json!(30));
}
