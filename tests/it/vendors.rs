//! The vendors that packs are bundled for, end to end: the real firewall with the baseline and a
//! pin in front of a server with the vendor's tools and a little state. Each case says which row
//! of `docs/threats.md` (section H, and G and E for tools that do many things) it is about, and
//! is judged by what the server received, by its production, and by the journal.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "tests"
)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use bartizan_demo::{FlagService, ReceivedRequest, Vendor, serve_vendor};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::firewall::{Firewall, Reply, Setup, post};

/// A vendor's server and a firewall in front of it, pinned to staging.
struct Stage {
    firewall: Firewall,
    server: FlagService,
    /// Serves the server.
    _runtime: Runtime,
}

fn policies(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(name)
}

/// The policies named, and `rules` besides; the built-in baseline where there are none.
fn stage(vendor: Vendor, paths: &[&str], rules: Option<&str>) -> Stage {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        serve_vendor(vendor, listener, CancellationToken::new()).unwrap()
    });
    let pairs = |pairs: &[(&str, &str)]| {
        let texts = pairs.iter().map(|(name, text)| (String::from(*name), json!(text)));
        Value::Object(texts.collect())
    };
    let settings = format!(
        "    pack: {}\n    environment: staging\n    environment_ids: {}\n    headers: {}\n",
        vendor.name(),
        pairs(vendor.environment_ids()),
        pairs(vendor.headers()),
    );
    let firewall = Firewall::with(Setup {
        policy: paths.iter().map(|name| policies(name)).collect(),
        rego: rules.map(str::to_owned),
        way: Some(format!("url: {}", server.url())),
        server: settings,
        ..Setup::default()
    });
    Stage { firewall, server, _runtime: runtime }
}

/// A call as clients of 2026-07-28 make it; `arguments` is JSON, spelt as it is to be sent.
fn modern(tool: &str, arguments: &str, headers: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    );
    let named = format!(
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n{headers}"
    );
    post(body, &named)
}

impl Stage {
    fn of(vendor: Vendor) -> Self {
        stage(vendor, &[], None)
    }

    /// A call that passes: its answer, and what the server received.
    fn passes(&self, tool: &str, arguments: &str) -> (Value, ReceivedRequest) {
        self.passes_with(tool, arguments, "")
    }

    fn passes_with(&self, tool: &str, arguments: &str, headers: &str) -> (Value, ReceivedRequest) {
        let production = self.server.snapshot("production");
        let before = self.server.received_count();
        let request = modern(tool, arguments, headers);
        let reply = self.firewall.send(&request);
        let reached = self.server.requests_since(before);
        let [one] = &*reached else { panic!("{tool} {arguments}: {reply:?} {reached:?}") };
        assert!(request.ends_with(&one.body), "byte for byte: {one:?}");
        let answer = answer(&reply);
        assert_ne!(answer["result"]["isError"], true, "{tool} {arguments}: {answer}");
        assert_eq!(self.server.snapshot("production"), production, "{tool} {arguments}");
        (answer["result"]["structuredContent"].clone(), one.clone())
    }

    /// A call that is refused in both eras, by a rule of this code or for this reason.
    fn refuses(&self, row: &str, tool: &str, arguments: &str, code: &str) {
        for era in ["modern", "legacy"] {
            let place = format!("{row}: {tool} {arguments} ({era})");
            let production = self.server.snapshot("production");
            let before = self.server.received_count();
            let denials = self.firewall.records("event", "denial").len();
            let reply = if era == "modern" {
                self.firewall.send(&modern(tool, arguments, ""))
            } else {
                self.firewall.ask(super::firewall::call(7, tool, arguments))
            };
            assert!(reply.code() < 0, "{place}: {reply:?}");
            assert_eq!(self.server.received_count(), before, "{place}: it reached the server");
            assert_eq!(self.server.snapshot("production"), production, "{place}");
            let denial = self.firewall.record("event", "denial", denials + 1);
            let reasons = denial["decision"]["reasons"].as_array().unwrap();
            let found = reasons.iter().any(|reason| reason["code"] == code);
            assert!(found, "{place}: {code} is not in {reasons:?}");
        }
    }
}

/// The message in a body or in an event stream.
fn answer(reply: &Reply) -> Value {
    let text = reply.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    serde_json::from_str(data.unwrap_or(text)).unwrap_or_else(|_| panic!("{reply:?}"))
}

const ABSENT: &str = "absent-environment";
const WITHOUT: &str = "tool-without-environment";
const WRONG: &str = "wrong-environment";
const UNREADABLE: &str = "unreadable-environment";
const UNMAPPED: &str = "unmapped-environment";
const UNKNOWN: &str = "unknown-tool";

/// Spellings of something else than staging where a name, or a list of names, belongs.
const NAMES: &[(&str, &str, &str)] = &[
    ("H1 env-null", "null", ABSENT),
    ("H1 env-empty", r#""""#, ABSENT),
    ("H1 env-type", "0", UNREADABLE),
    ("H1 env-type", "true", UNREADABLE),
    ("H1 env-null", r#""null""#, WRONG),
    ("H2 env-array", "[]", ABSENT),
    ("H2 env-array", r#"[""]"#, UNREADABLE),
    ("H2 env-array", "[null]", UNREADABLE),
    ("H2 env-array", r#"[["staging"]]"#, UNREADABLE),
    ("H2 env-array", r#"["staging","production"]"#, WRONG),
    ("H2 env-object", r#"{"$ne":"staging"}"#, UNREADABLE),
    ("H2 env-object", r#"{"0":"staging"}"#, UNREADABLE),
    ("H3 env-json-in-string", r#""[\"production\"]""#, WRONG),
    ("H3 env-json-in-string", r#""[\"staging\"]""#, WRONG),
    ("H4 env-value", r#""production""#, WRONG),
    ("H4 env-value", r#"["PRODUCTION"]"#, WRONG),
    ("H4 env-value", r#""Staging""#, WRONG),
    ("H4 env-value", r#"" staging""#, WRONG),
    ("H4 env-value", r#""staging\n""#, WRONG),
    ("H4 env-homoglyph", r#""st\u0430ging""#, WRONG),
    ("H4 env-homoglyph", r#""ｓtaging""#, WRONG),
    ("H4 env-invisible", r#""staging\u200b""#, WRONG),
    ("H4 env-value", r#""*""#, WRONG),
    ("H4 env-value", r#""staging,production""#, WRONG),
];

/// Spellings of something else than staging (41, `ser.stg`) where an identifier belongs.
const IDS: &[(&str, &str, &str)] = &[
    ("H1 env-null", "null", ABSENT),
    ("H1 env-empty", r#""""#, ABSENT),
    ("H1 env-type", "true", UNREADABLE),
    ("H1 env-type", "41.0", UNREADABLE),
    ("H1 env-type", "4.2e1", UNREADABLE),
    ("H2 env-array", "[]", ABSENT),
    ("H2 env-array", "[41,42]", WRONG),
    ("H2 env-array", "[[42]]", UNREADABLE),
    ("H2 env-object", r#"{"id":41}"#, UNREADABLE),
    ("H3 env-json-in-string", r#""{\"id\":42}""#, UNMAPPED),
    ("H4 env-id", "42", WRONG),
    ("H4 env-id", r#""42""#, WRONG),
    ("H4 env-key", r#""ser.prd""#, WRONG),
    ("H4 env-key", r#""SER.PRD""#, UNMAPPED),
    ("H4 env-name", r#""staging""#, UNMAPPED),
    ("H4 env-name", r#""production""#, UNMAPPED),
    ("H4 env-id", r#""042""#, UNMAPPED),
    ("H4 env-id", r#"" 41""#, UNMAPPED),
    ("H4 env-id", "43", UNMAPPED),
    ("H4 env-id", "-42", UNMAPPED),
];

/// The body of a gate of one rule, in the place of `ENV`.
const GATE: &str =
    r#"{"application/json":{"name":"new","rules":[{"passPercentage":100,"environments":ENV}]}}"#;

fn gate(environments: &str) -> String {
    format!(r#"{{"params":{}}}"#, GATE.replace("ENV", environments))
}

/// Ways around the pin that both of Statsig's servers have, by the tool that creates a gate.
fn statsig_creates(stage: &Stage, create: &str) {
    let staging = GATE.replace("ENV", r#"["staging"]"#);
    let production = GATE.replace("ENV", r#"["production"]"#);
    let (_, reached) = stage.passes(create, &gate(r#"["staging"]"#));
    assert_eq!(reached.headers["statsig-api-key"], "console-demo");
    assert_eq!(reached.headers["x-respect-review-settings"], "true");
    stage.passes(create, &gate(r#""staging""#));
    for (row, value, code) in NAMES {
        stage.refuses(row, create, &gate(value), code);
    }
    let body = |body: &str| format!(r#"{{"params":{{"application/json":{body}}}}}"#);
    let quoted = |text: &str| json!(text).to_string();
    for (row, arguments, code) in [
        ("H1 env-missing", "{}".to_owned(), ABSENT),
        ("H1 env-missing", r#"{"params":null}"#.to_owned(), ABSENT),
        ("H1 env-missing", r#"{"params":{}}"#.to_owned(), ABSENT),
        ("H1 env-missing", body(r#"{"name":"new"}"#), ABSENT),
        ("H1 env-missing", body(r#"{"name":"new","rules":[{}]}"#), ABSENT),
        ("H1 env-null", body(r#"{"name":"new","rules":null}"#), ABSENT),
        ("H2 env-array", body(r#"{"name":"new","rules":[]}"#), ABSENT),
        ("H2 env-object", body(r#"{"rules":{"a":{"environments":["production"]}}}"#), WRONG),
        ("H3 env-json-in-string", format!(r#"{{"params":{}}}"#, quoted(&production)), UNREADABLE),
        ("H3 env-json-in-string", body(&quoted(r#"{"name":"new"}"#)), UNREADABLE),
        (
            "H3 env-json-in-string",
            body(r#"{"rules":"[{\"environments\":[\"production\"]}]"}"#),
            UNREADABLE,
        ),
        // Another member, at the top or beside, that some server takes for the environment.
        ("H3 env-alias", format!(r#"{{"params":{staging},"environment":"production"}}"#), UNREADABLE),
        ("H3 env-alias", format!(r#"{{"params":{staging},"__proto":{{}}}}"#), UNREADABLE),
        (
            "H3 env-alias",
            body(r#"{"rules":[{"environments":["staging"]}],"environmentOverrides":[{"environment":"production"}]}"#),
            WRONG,
        ),
        (
            "H3 env-alias",
            body(r#"{"rules":[{"environments":["staging"]}],"environmentOverrides":[{"passingIDs":["u"]}]}"#),
            ABSENT,
        ),
        // One rule of several.
        ("H2 env-bulk", body(r#"{"rules":[{"environments":["staging"]},{"environments":["production"]}]}"#), WRONG),
        ("H2 env-bulk", body(r#"{"rules":[{"environments":["staging"]},{"environments":null}]}"#), ABSENT),
        ("H2 env-bulk", body(r#"{"rules":[{"environments":["staging"]},"production"]}"#), UNREADABLE),
        // A member that looks like one that is read.
        ("H4 env-key", format!(r#"{{"params":{staging},"Params":{production}}}"#), UNREADABLE),
        ("H4 env-key", format!(r#"{{"Params":{production}}}"#), UNREADABLE),
        ("H4 env-key", body(r#"{"rules":[{"environments":["staging"],"Environments":["production"]}]}"#), UNREADABLE),
        ("H4 env-key", body(r#"{"rules":[{"environments":["staging"],"environments ":["production"]}]}"#), UNREADABLE),
        ("H4 env-key", body(r#"{"rules":[{"environments":["staging"]}],"RULES":[{}]}"#), UNREADABLE),
        (
            "H4 env-key",
            r#"{"params":{"application/json":{"rules":[{"environments":["staging"]}]},"Application/JSON":{"name":"new"}}}"#.to_owned(),
            UNREADABLE,
        ),
        ("A1 env-twice", body(r#"{"rules":[{"environments":["staging"],"environments":["production"]}]}"#), "duplicate-name"),
        // `reviewSettings` changes the vendor's own reviews, whatever its value is.
        ("approval-control", body(r#"{"rules":[{"environments":["staging"]}],"reviewSettings":{"requiredReview":false}}"#), "approval-control"),
        ("approval-control", body(r#"{"rules":[{"environments":["staging"]}],"reviewSettings":null}"#), "approval-control"),
        ("approval-control", body(r#"{"rules":[{"environments":["staging"]}],"ReviewSettings":{}}"#), "approval-control"),
    ] {
        stage.refuses(row, create, &arguments, code);
    }
}

#[test]
fn statsig_v1_holds_to_its_pin() {
    let stage = Stage::of(Vendor::StatsigV1);
    stage.passes("Get_List_of_Gates", r#"{"params":{}}"#);
    let (shown, _) =
        stage.passes("Get_Gate_Details_by_ID", r#"{"params":{"path_id":"checkout_redesign"}}"#);
    assert_eq!(shown["id"], "checkout_redesign");
    statsig_creates(&stage, "Create_Gate");
    let update = r#"{"params":{"path_id":"checkout_redesign","application/json":{"rules":[{"environments":["staging"]}]}}}"#;
    let review = r#"{"params":{"path_id":"checkout_redesign","path_reviewID":"r-17"}}"#;
    let segment = |environments: &str| {
        format!(
            r#"{{"params":{{"path_id":"beta-users","application/json":[{{"environments":{environments}}}]}}}}"#
        )
    };
    for (row, tool, arguments, code) in [
        // A full replacement removes what the call leaves out, in production too.
        ("H3 full-replace", "Update_Gate_Entirely", update.to_owned(), WITHOUT),
        ("H1 env-unaddressable", "Create_Experiment", gate(r#"["staging"]"#), WITHOUT),
        ("H1 env-missing", "Update_Segment", segment("null"), ABSENT),
        ("H4 env-value", "Update_Segment", segment(r#"["production"]"#), WRONG),
        ("approval-control", "Approve_Gate_Review", review.to_owned(), WITHOUT),
        ("approval-control", "Commit_Gate_Review", review.to_owned(), WITHOUT),
        // Names that no pack knows.
        ("E11 look-alike tool", "create_gate", gate(r#"["staging"]"#), UNKNOWN),
        ("E11 look-alike tool", "CreateGate", gate(r#"["staging"]"#), UNKNOWN),
        ("E11 look-alike tool", "Delete_Gate", "{}".to_owned(), UNKNOWN),
    ] {
        stage.refuses(row, tool, &arguments, code);
    }
    for tag in ["Approve_Gate_Review", "Commit_Gate_Review"] {
        let denials = stage.firewall.records("event", "denial");
        let one = denials.iter().find(|denial| denial["target"]["tool"] == tag).unwrap();
        assert!(one["operation"]["tags"].as_array().unwrap().contains(&json!("approval-control")));
    }
}

#[test]
fn statsig_v3_holds_to_its_pin() {
    // Without limits.rego: the series is longer than the burst of calls that it grants.
    let rules = ["baseline/protocol.rego", "baseline/tools.rego"];
    let stage = stage(Vendor::StatsigV3, &rules, None);
    stage.passes("gate_read", r#"{"action":"list"}"#);
    statsig_creates(&stage, "gate_create");
    let update = r#"{"arguments":{"params":{"path_id":"checkout_redesign","application/json":{"rules":[{"environments":["staging"]}]}}},"confirmation":{"acknowledged":true,"reason":"asked to"}}"#;
    stage.refuses("H3 full-replace, self-confirm", "gate_update", update, WITHOUT);
    // The operation cannot be told.
    for arguments in [r#"{"action":["list"]}"#, r#"{"action":"list","Action":"get"}"#] {
        stage.refuses("G1 meta", "gate_read", arguments, UNKNOWN);
    }
    // Handles: unseen, then handed out, then used for what they stand for alone.
    for tool in ["api_read", "api_write", "api_destructive"] {
        stage.refuses("G1 handle", tool, r#"{"operationHandle":"oph_0000000000000000"}"#, UNKNOWN);
        stage.refuses("G1 handle", tool, "{}", UNKNOWN);
    }
    let (found, _) = stage.passes("discover_tools", r#"{"action":"list"}"#);
    let handle = |operation: &str| {
        let all = found["operations"].as_array().unwrap();
        let one = all.iter().find(|it| it["operationId"] == operation).unwrap();
        one["operationHandle"].as_str().unwrap().to_owned()
    };
    let by = |operation: &str| {
        let handle = handle(operation);
        format!(
            r#"{{"operationHandle":"{handle}","arguments":{{"params":{{"path_id":"checkout_redesign","application/json":{{"rules":[{{"environments":["production"]}}]}}}}}},"confirmation":{{"acknowledged":true,"reason":"x"}}}}"#
        )
    };
    stage.passes("api_read", &by("gates.history"));
    for (row, tool, operation, code) in [
        // The server would carry out any operation under any of the three.
        ("G1 lane", "api_read", "segments.update", "no-environment"),
        ("G1 lane", "api_read", "gates.update", "destructive"),
        ("G1 lane", "api_read", "gate_reviews.commit", "destructive"),
        ("G1 lane", "api_write", "gate_reviews.commit", WITHOUT),
        ("H1 env-unaddressable", "api_write", "segments.update", WITHOUT),
        ("approval-control, self-confirm", "api_destructive", "gate_reviews.approve", WITHOUT),
        ("approval-control, self-confirm", "api_destructive", "gate_reviews.commit", WITHOUT),
        ("H4 env-value", "api_destructive", "gates.update", WITHOUT),
    ] {
        stage.refuses(row, tool, &by(operation), code);
    }
    let spelt = by("gates.history").replace("operationHandle", "OperationHandle");
    stage.refuses("H4 handle-key", "api_read", &spelt, UNKNOWN);
    let denial = stage.firewall.records("event", "denial");
    let commit =
        denial.iter().find(|it| it["operation"]["name"] == "api_destructive/gate_reviews.commit");
    assert!(commit.is_some(), "the journal names the operation behind the handle");
}

#[test]
fn flagsmith_holds_to_its_pin() {
    let stage = Stage::of(Vendor::Flagsmith);
    stage.passes("list_project_features", r#"{"project_pk":3}"#);
    let draft = "update_environment_feature_version_state";
    let version = "create_environment_feature_version";
    let change = |environment: &str| {
        format!(r#"{{"environment_pk":{environment},"feature_pk":7,"id__path":1,"enabled":true}}"#)
    };
    for staging in ["41", r#""41""#, r#""ser.stg""#, "[41]"] {
        let (written, reached) = stage.passes(draft, &change(staging));
        assert_eq!(written["written"], json!(["staging"]), "{staging}");
        assert_eq!(reached.headers["authorization"], "Api-Key demo");
    }
    for (row, value, code) in IDS {
        stage.refuses(row, draft, &change(value), code);
        let at_once =
            format!(r#"{{"environment_pk":{value},"feature_pk":7,"publish_immediately":true}}"#);
        stage.refuses(row, version, &at_once, code);
        let override_state =
            format!(r#"{{"environment_api_key":{value},"id__path":1,"feature":7,"enabled":true}}"#);
        stage.refuses(row, "update_environment_feature_state", &override_state, code);
    }
    for (row, tool, arguments, code) in [
        ("H1 env-missing", draft, r#"{"feature_pk":7,"enabled":true}"#, ABSENT),
        ("H1 env-missing", "update_feature_state", r#"{"id__path":201,"enabled":true}"#, ABSENT),
        ("H3 env-alias", draft, r#"{"environment_pk":41,"environment":42,"enabled":true}"#, WRONG),
        (
            "H3 env-alias",
            draft,
            r#"{"environment_pk":41,"environment_id":42,"enabled":true}"#,
            UNREADABLE,
        ),
        (
            "H3 env-alias",
            draft,
            r#"{"environment_pk":41,"environment_pk__path":42,"enabled":true}"#,
            UNREADABLE,
        ),
        (
            "H3 env-alias",
            draft,
            r#"{"environment_pk":41,"environment_api_key":"ser.prd"}"#,
            UNREADABLE,
        ),
        ("H4 env-key", draft, r#"{"environment_pk":41,"Environment_PK":42}"#, UNREADABLE),
        ("H4 env-key", draft, r#"{"environment_pk":41,"environment_pk\u200b":42}"#, UNREADABLE),
        ("A1 env-twice", draft, r#"{"environment_pk":41,"environment_pk":42}"#, "duplicate-name"),
        (
            "H4 env-id",
            "publish_environment_feature_version",
            r#"{"environment_pk":42,"feature_pk":7,"id":"v"}"#,
            WRONG,
        ),
        // In staging it goes live at once: for a rule to open.
        (
            "go-live",
            "publish_environment_feature_version",
            r#"{"environment_pk":41,"feature_pk":7,"id":"v"}"#,
            "destructive",
        ),
        ("H1 env-unaddressable", "create_feature", r#"{"project_pk":3,"name":"x"}"#, WITHOUT),
        (
            "H1 env-unaddressable",
            "update_project_segment",
            r#"{"id__path":1,"project_pk":3,"name":"x","rules":[]}"#,
            WITHOUT,
        ),
        (
            "approval-control",
            "update_project",
            r#"{"id__path":3,"name":"shop","minimum_change_request_approvals":0}"#,
            WITHOUT,
        ),
        (
            "privilege",
            "create_organization_invite",
            r#"{"organisation_pk":1,"email":"a@example.com"}"#,
            WITHOUT,
        ),
        ("credential-read", "list_project_environments", r#"{"id":3}"#, "credential-read"),
        (
            "E11 look-alike tool",
            "Update_Environment_Feature_Version_State",
            r#"{"environment_pk":41}"#,
            UNKNOWN,
        ),
    ] {
        stage.refuses(row, tool, arguments, code);
    }
}

/// Opens Stigg's `execute`, as a security team might that trusts the staging key's limits.
const OPEN_EXECUTE: &str = r#"package mcp

permit contains {"code": "execute", "message": "code runs with the key of staging"} if {
	input.tool.name == "execute"
}
"#;

/// Requires a person's approval of the code.
const HOLD_EXECUTE: &str = r#"package mcp

hold contains {"code": "look", "message": "somebody reads the code first"} if {
	input.tool.name == "execute"
}
"#;

#[test]
fn stigg_runs_no_code_unless_a_rule_says_so() {
    let stage = Stage::of(Vendor::Stigg);
    stage.passes("search_docs", r#"{"query":"coupons"}"#);
    for code in [
        r#"{"code":"return client.v1.coupons.list()"}"#,
        r#"{"code":"return client.v1.coupons.archiveCoupon('c')","intent":"list coupons"}"#,
        r#"{"code":"const {v1} = client; v1['cou' + 'pons'].create({})"}"#,
        r#"{"code":"client.post('/api/v1/coupons')"}"#,
        "{}",
    ] {
        stage.refuses("G1 code", "execute", code, "exec");
    }
    stage.refuses("E11 look-alike tool", "Execute", "{}", UNKNOWN);
    let held = stage_with(OPEN_EXECUTE, HOLD_EXECUTE);
    let code = r#"{"code":"client.v1.coupons.create({})"}"#;
    held.refuses("G1 code, held", "execute", code, "look");
}

fn stage_with(first: &str, second: &str) -> Stage {
    let rules = format!("{first}\n{}", second.replace("package mcp\n", ""));
    stage(Vendor::Stigg, &["baseline"], Some(&rules))
}

#[test]
fn the_environment_of_a_credential_is_the_sidecars_choice() {
    // H5 deployment test: the key is the environment, and the SDK's headers would choose another.
    // Without limits.rego: the vendor's own would end the series.
    let rules = ["baseline/protocol.rego", "baseline/tools.rego"];
    let stage = stage(Vendor::Stigg, &rules, Some(OPEN_EXECUTE));
    let code = r#"{"code":"client.v1.coupons.create({})"}"#;
    for header in [
        "",
        "X-API-KEY: server-production\r\n",
        "X-Stainless-API-Key: server-production\r\n",
        "x-stainless-mcp-client-envs: {\"STIGG_API_KEY\":\"server-production\",\"STIGG_BASE_URL\":\"http://evil.example\"}\r\n",
        "x-stainless-mcp-client-permissions: {\"allow_http_gets\":true,\"allowed_methods\":[\".*\"]}\r\n",
        "x-stainless-base-url: http://evil.example\r\n",
        "Authorization: Bearer server-production\r\n",
    ] {
        let (ran, reached) = stage.passes_with("execute", code, header);
        assert_eq!(ran["ran_in"], "staging", "{header}");
        let keys: Vec<_> = reached.headers.get_all("x-api-key").iter().collect();
        assert_eq!(keys, ["server-staging"], "{header}");
        let foreign = reached.headers.keys().find(|name| name.as_str().starts_with("x-stainless"));
        assert_eq!(foreign, None, "{header}");
        assert!(!reached.headers.contains_key("authorization"), "{header}");
    }
    assert_eq!(stage.server.snapshot("production"), Value::Null);
    assert_eq!(stage.server.snapshot("staging").as_array().unwrap().len(), 7);
}

/// Headers by which some vendor's server is told where to go, as whom, and with which tools.
const CONTROLS: [&str; 19] = [
    "statsig-api-key",
    "statsig-api-version",
    "x-respect-review-settings",
    "authorization",
    "mcp-flagsmith-token-auth",
    "x-environment-key",
    "x-api-key",
    "x-stainless-api-key",
    "x-stainless-base-url",
    "x-stainless-mcp-client-envs",
    "x-stainless-mcp-client-permissions",
    "x-mcp-toolsets",
    "x-mcp-tools",
    "x-mcp-readonly",
    "x-mcp-lockdown",
    "x-mcp-insiders",
    "x-posthog-mcp-mode",
    "x-harness-auto-approve-risk",
    "cookie",
];

#[test]
fn no_header_and_no_query_of_a_client_chooses_anything() {
    for (vendor, tool, arguments) in [
        (Vendor::StatsigV1, "Get_List_of_Gates", "{}"),
        (Vendor::StatsigV3, "gate_read", r#"{"action":"list"}"#),
        (Vendor::Flagsmith, "list_project_features", r#"{"project_pk":3}"#),
        (Vendor::Stigg, "search_docs", r#"{"query":"x"}"#),
    ] {
        let stage = Stage::of(vendor);
        let theirs: String = CONTROLS.map(|name| format!("{name}: theirs-production\r\n")).concat();
        let (_, reached) = stage.passes_with(tool, arguments, &theirs);
        for (name, value) in &reached.headers {
            assert!(!value.to_str().unwrap().contains("theirs"), "{vendor:?} {name}");
        }
        for (name, ours) in vendor.headers() {
            assert_eq!(reached.headers.get_all(*name).iter().collect::<Vec<_>>(), [ours]);
        }
        assert_eq!(reached.uri, "/mcp", "{vendor:?}");
        let before = stage.server.received_count();
        let request = String::from_utf8(modern(tool, arguments, "")).unwrap();
        let query = "POST /mcp?environment=production&mode=cli&features=all&tools=x HTTP/1.1";
        let reply = stage.firewall.send(request.replace("POST /mcp HTTP/1.1", query).as_bytes());
        assert_eq!((reply.status, stage.server.received_count()), (404, before), "{vendor:?}");
    }
}

#[test]
fn a_batch_carries_nothing_past_the_pin() {
    for (vendor, tool, arguments) in [
        (Vendor::StatsigV1, "Create_Gate", gate(r#"["production"]"#)),
        (Vendor::StatsigV3, "gate_create", gate(r#"["production"]"#)),
        (
            Vendor::Flagsmith,
            "update_feature_state",
            r#"{"environment":42,"enabled":true}"#.to_owned(),
        ),
        (Vendor::Stigg, "execute", r#"{"code":"x"}"#.to_owned()),
    ] {
        let stage = Stage::of(vendor);
        let production = stage.server.snapshot("production");
        let call = super::firewall::call(1, tool, &arguments);
        for body in
            [format!("[{call}]"), format!(r#"[{{"jsonrpc":"2.0","id":2,"method":"ping"}},{call}]"#)]
        {
            let reply = stage.firewall.ask(body);
            assert_eq!((reply.status, reply.code()), (400, -32600), "{vendor:?}");
        }
        assert_eq!(stage.server.received_count(), 0, "{vendor:?}");
        assert_eq!(stage.server.snapshot("production"), production, "{vendor:?}");
    }
}

#[test]
fn a_read_only_posture_lets_no_write_through() {
    for (vendor, reads) in [
        (Vendor::StatsigV1, &["Get_List_of_Gates"][..]),
        (Vendor::StatsigV3, &["get_context", "gate_read", "discover_tools"]),
        (Vendor::Flagsmith, &["list_project_features", "list_project_environments"]),
        (Vendor::Stigg, &["search_docs"]),
    ] {
        // Even where another rule opens everything.
        let open =
            "package mcp\n\npermit contains {\"code\": \"open\", \"message\": \"all\"} if true\n";
        let stage = stage(vendor, &["baseline", "examples/read-only"], Some(open));
        let staging = stage.server.snapshot("staging");
        for tool in reads {
            stage.passes(tool, r#"{"action":"list"}"#);
        }
        let staged = [
            gate(r#"["staging"]"#),
            r#"{"environment_pk":41,"enabled":true}"#.to_owned(),
            r#"{"code":"x"}"#.to_owned(),
        ];
        for tool in writes(vendor) {
            for arguments in &staged {
                stage.refuses("read-only", tool, arguments, "read-only");
            }
        }
        assert_eq!(stage.server.snapshot("staging"), staging, "{vendor:?}");
    }
}

/// The tools of a stand-in that do more than read.
fn writes(vendor: Vendor) -> &'static [&'static str] {
    match vendor {
        Vendor::StatsigV1 => &[
            "Create_Gate",
            "Update_Gate_Entirely",
            "Create_Experiment",
            "Update_Segment",
            "Approve_Gate_Review",
            "Commit_Gate_Review",
        ],
        Vendor::StatsigV3 => {
            &["gate_create", "gate_update", "api_write", "api_destructive", "api_read"]
        }
        Vendor::Flagsmith => &[
            "create_environment_feature_version",
            "update_environment_feature_version_state",
            "publish_environment_feature_version",
            "update_environment_feature_state",
            "update_feature_state",
            "create_feature",
            "update_project_segment",
            "update_project",
            "create_organization_invite",
        ],
        Vendor::Stigg | Vendor::FlagService => &["execute"],
    }
}

/// A firewall with a bundled pack, pinned, in front of a server that answers anything.
fn packed(pack: &str, rules: Option<&str>) -> Firewall {
    Firewall::with(Setup {
        policy: vec![policies("baseline")],
        rego: rules.map(str::to_owned),
        server: format!("    pack: {pack}\n    environment: staging\n"),
        ..Setup::default()
    })
}

#[test]
fn tools_that_move_later_calls_are_refused_under_a_pin() {
    let open =
        "package mcp\n\npermit contains {\"code\": \"open\", \"message\": \"all\"} if true\n";
    for (pack, tool, arguments) in [
        ("posthog", "switch-project", r#"{"projectId":7}"#),
        ("posthog", "switch-organization", r#"{"orgId":"o"}"#),
        ("posthog", "exec", r#"{"command":"call switch-project {\"projectId\":7}"}"#),
        ("devcycle", "select_project", r#"{"project_key":"p"}"#),
        ("growthbook", "clear_user_defaults", "{}"),
    ] {
        let firewall = packed(pack, Some(open));
        let reply = firewall.ask(super::firewall::call(1, tool, arguments));
        assert_eq!(reply.code(), -31001, "{pack} {tool}");
        assert_eq!(firewall.received().len(), 0);
        let denial = firewall.record("event", "denial", 1);
        let reasons = denial["decision"]["reasons"].to_string();
        assert!(reasons.contains("moves-later-calls"), "{pack} {tool}: {reasons}");
    }
}

#[test]
fn a_write_without_any_environment_is_held_under_a_pin() {
    for (pack, tool) in [
        ("statsig-docs", "send_docs_mcp_feedback"),
        ("stripe", "stripe_report"),
        ("stripe", "send_stripe_mcp_feedback"),
    ] {
        let firewall = packed(pack, None);
        let reply = firewall.ask(super::firewall::call(1, tool, "{}"));
        assert_eq!(reply.code(), -31004, "{pack} {tool}");
        assert_eq!(firewall.received().len(), 0);
        let denial = firewall.record("event", "denial", 1);
        assert_eq!(denial["decision"]["reasons"][0]["code"], "no-environment");
    }
}
