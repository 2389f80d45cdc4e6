//! What rules tell the agent: in each form of a refusal, bounded, and nothing about hidden tools
//! unless a rule says so.

#![expect(clippy::indexing_slicing, reason = "tests")]

use serde_json::Value;

use super::firewall::{Firewall, Reply, Setup, call};

const TEXT: &str = "Use staging; production needs a change request.";

fn told(rules: &str, server: &str) -> Firewall {
    let permit = r#"permit contains {"code": "all", "message": "everything"} if true"#;
    Firewall::with(Setup {
        rego: Some(format!("package mcp\n\n{permit}\n\n{rules}\n")),
        server: format!("{}{server}", Setup::default().server),
        ..Setup::default()
    })
}

fn asked(firewall: &Firewall, id: u32) -> Reply {
    firewall.ask(call(id, "get_flag", r#"{"key":"x"}"#))
}

fn recorded(firewall: &Firewall) -> Value {
    firewall.record("event", "denial", 1)["decision"]["told"].clone()
}

#[test]
fn a_denial_tells_what_its_rules_say_and_the_record_has_it() {
    let rules = format!(
        r#"deny contains {{"code": "a-pin", "message": "of the record", "tell": "{TEXT}"}} if input.tool.name == "get_flag"
deny contains {{"code": "b-mute", "message": "of the record, too"}} if input.tool.name == "get_flag"
deny contains {{"code": "c-same", "message": "the same words", "tell": "{TEXT}"}} if input.tool.name == "get_flag"
deny contains {{"code": "d-more", "message": "more", "tell": sprintf("Ask for %v.", [object.get(input, ["params", "arguments", "key"], "it")])}} if {{
	input.tool.name == "get_flag"
}}"#
    );
    let firewall = told(&rules, "");
    let reply = asked(&firewall, 1);
    assert_eq!(reply.code(), -31001);
    let error = reply.json()["error"]["message"].clone();
    assert_eq!(error, format!("Refused by policy. {TEXT} Ask for x."));
    assert_eq!(recorded(&firewall), format!("{TEXT} Ask for x."));
    for private in ["a-pin", "b-mute", "of the record"] {
        assert!(!reply.text().contains(private), "{}", reply.text());
    }
    assert!(firewall.received().is_empty());
}

#[test]
fn a_tool_result_tells_it_where_the_model_reads() {
    let rules = format!(
        r#"deny contains {{"code": "pin", "message": "m", "tell": "{TEXT}"}} if input.tool.name == "get_flag""#
    );
    let firewall = told(&rules, "    refusal: tool_result\n");
    let result = asked(&firewall, 1).json()["result"].clone();
    assert_eq!(result["isError"], true);
    let text = result["content"][0]["text"].as_str().unwrap().to_owned();
    let begins = format!("Refused by policy. {TEXT} decision_id: ");
    assert!(text.starts_with(&begins), "{text}");
}

#[test]
fn the_reasons_of_a_default_denial_tell_too() {
    let firewall = Firewall::with(Setup {
        rego: Some(format!(
            "package mcp\n\nrefuse contains {{\"code\": \"why\", \"message\": \"m\", \"tell\": \"{TEXT}\"}} if true\n"
        )),
        ..Setup::default()
    });
    let message = asked(&firewall, 1).json()["error"]["message"].clone();
    assert_eq!(message, format!("Refused by policy. {TEXT}"));
}

#[test]
fn a_rule_that_holds_tells_what_the_agent_waits_for() {
    let rules = format!(
        r#"hold contains {{"code": "pair", "message": "m", "tell": "{TEXT}"}} if input.tool.name == "get_flag""#
    );
    let firewall = told(&rules, "");
    let reply = asked(&firewall, 1);
    assert_eq!(reply.code(), -31004);
    assert_eq!(reply.json()["error"]["message"], format!("Approval required. {TEXT}"));
    assert_eq!(recorded(&firewall), TEXT);
}

#[test]
fn an_agent_that_waits_for_a_person_is_told_as_well() {
    let top = "approvals:\n  wait: 1ms\n  approvers: [{id: ada, token: \"0a1b2c3d4e5f60718293a4b5c6d7e8f9\"}]\n";
    let rules = format!(
        r#"hold contains {{"code": "pair", "message": "m", "tell": "{TEXT}"}} if input.tool.name == "get_flag""#
    );
    let permit = r#"permit contains {"code": "all", "message": "everything"} if true"#;
    let firewall = Firewall::with(Setup {
        rego: Some(format!("package mcp\n\n{permit}\n\n{rules}\n")),
        top: top.to_owned(),
        ..Setup::default()
    });
    let text = asked(&firewall, 1).text().to_owned();
    assert!(text.contains("Approval pending"), "{text}");
    assert!(text.contains(&format!("with the same arguments. {TEXT}")), "{text}");
    assert_eq!(firewall.record("event", "hold", 1)["decision"]["told"], TEXT);
    assert_eq!(recorded(&firewall), TEXT);
}

#[test]
fn a_hidden_tool_stays_hidden_unless_the_rule_says_otherwise() {
    let hide = r#"hide contains "get_flag" if true"#;
    let deny = |more: &str| {
        format!(
            "{hide}\n\ndeny contains {{\"code\": \"pin\", \"message\": \"m\", \"tell\": \"{TEXT}\"{more}}} if input.tool.name == \"get_flag\"\n"
        )
    };
    let quiet = told(&deny(""), "");
    let reply = asked(&quiet, 1);
    assert_eq!(reply.json()["error"]["message"], "Unknown tool: get_flag");
    assert_eq!(recorded(&quiet), Value::Null);

    let open = told(&deny(r#", "tell_hidden": true"#), "");
    let reply = asked(&open, 1);
    assert_eq!(reply.json()["error"]["message"], format!("Refused by policy. {TEXT}"));
    assert_eq!(recorded(&open), TEXT);
}

/// An agent chooses the arguments that a rule may repeat.
#[test]
fn what_is_told_is_bounded_shown_as_one_line_and_holds_no_secret() {
    let rules = r#"deny contains {"code": code, "message": "m", "tell": sprintf("%v %v", [code, key])} if {
	key := object.get(input, ["params", "arguments", "key"], "")
	some code in ["a", "b", "c", "d"]
	input.tool.name == "get_flag"
}"#;
    let firewall = told(rules, "");
    let told = |key: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get_flag","arguments":{{"key":{key}}}}}}}"#
        );
        let reply = firewall.ask(body);
        assert_eq!(reply.code(), -31001, "{}", reply.text());
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        message.strip_prefix("Refused by policy. ").unwrap().to_owned()
    };
    let long = told(&format!("\"{}\"", "é".repeat(2000)));
    assert!(long.len() <= 512 && long.starts_with("a éé") && !long.contains("b éé"), "{long}");
    let long = told(&format!("\"{}\"", "é".repeat(200)));
    assert!(long.len() <= 1024 && long.starts_with("a éé") && long.contains("b éé"), "{long}");
    assert!(!long.contains("c éé"), "{long}");
    assert_eq!(told(r#""x\ny\u202ez""#), "a x yz b x yz c x yz d x yz");
    let (begin, end) = ("ghp_16C7e42F292c6912", "E7710c838347Ae178B4a");
    for key in [
        format!("{begin}{end}"),
        // What is left out does not hide it.
        format!("{begin}\u{200b}{end}"),
        // Where the text is cut.
        format!("{}{begin}{end}", "x ".repeat(237)),
    ] {
        let told = told(&format!("\"{key}\""));
        assert!(!told.contains("ghp_16") && told.contains("***"), "{told}");
    }
}

/// Else an agent would make a record of each by changing what a rule repeats.
#[test]
fn refusals_that_tell_different_things_are_counted_as_one_kind() {
    let permit = r#"permit contains {"code": "all", "message": "everything"} if true"#;
    let deny = r#"deny contains {"code": "pin", "message": "m", "tell": sprintf("Not %v.", [key])} if {
	key := object.get(input, ["params", "arguments", "key"], "")
	input.tool.name == "get_flag"
}"#;
    let firewall = Firewall::with(Setup {
        rego: Some(format!("package mcp\n\n{permit}\n\n{deny}\n")),
        top: "audit: {repeat_interval: 1m}\n".to_owned(),
        ..Setup::default()
    });
    for number in 1..=5 {
        let reply = firewall.ask(call(number, "get_flag", &format!(r#"{{"key":"x{number}"}}"#)));
        let message = reply.json()["error"]["message"].clone();
        assert_eq!(message, format!("Refused by policy. Not x{number}."));
    }
    assert_eq!(firewall.records("event", "denial").len(), 1);
}

#[test]
fn nothing_is_told_where_the_message_passes() {
    let permit = r#"permit contains {"code": "all", "message": "everything"} if true"#;
    let deny = format!(
        r#"deny contains {{"code": "pin", "message": "m", "tell": "{TEXT}"}} if input.tool.name == "get_flag""#
    );
    let firewall = Firewall::with(Setup {
        rego: Some(format!("package mcp\n\n{permit}\n\n{deny}\n")),
        top: "mode: observe\n".to_owned(),
        ..Setup::default()
    });
    assert_eq!(asked(&firewall, 1).code(), 0);
    assert_eq!(firewall.record("event", "intent", 1)["decision"]["told"], Value::Null);
}
