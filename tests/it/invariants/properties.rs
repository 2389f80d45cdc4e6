//! Properties of the way up: from spellings, headers and policies to what is forwarded.

use std::sync::Arc;

use bartizan_gate::duty::pdp::Pdp;
use bartizan_gate::evidence::step::Act;
use bartizan_gate::question::access::{Principal, Server};
use bartizan_gate::question::uri::{self, UriReading};
use bartizan_gate::session::{Arrival, Gate, Protected, RefusalForm, Session};
use bartizan_gate::wire::protocol::Transport;
use bartizan_rego::RegoPdp;
use bartizan_testing::Sink;
use bytes::Bytes;
use proptest::prelude::*;

use super::stubs::{gate_config, now};
use super::{headers, session, sse, stdio};
use crate::frames::properties::{Tree, choices, has_control_in_name, object, spell, text, tree};
use crate::rego::compile;

/// Permits by tool and by argument, so that a misread member would show.
const BY_ARGUMENT: &str = r#"package mcp
permit contains {"code": "staging", "message": "staging is open"} if {
    input.tool.name == "get_flag"
    input.tool.arguments.environment == "staging"
}
"#;

/// Permits all but one value of an argument, which a server that folds names finds under others too.
const EXCEPT_ARGUMENT: &str = r#"package mcp
permit contains {"code": "all", "message": "everything"} if true
deny contains {"code": "production", "message": "not there"} if {
    input.tool.arguments.environment == "production"
}
"#;

fn policy(rego: &str) -> Arc<dyn Pdp> {
    Arc::new(RegoPdp::strict(compile(rego, None).unwrap(), 1))
}

/// What goes on of `raw`, sent by a legacy client over HTTP, and how many records were kept.
fn forwarded(policy: &Arc<dyn Pdp>, raw: &str) -> (Option<Bytes>, usize) {
    let gate = Gate::new(gate_config(), Arc::clone(policy));
    let server = Arc::new(Protected::new(Server::default(), RefusalForm::Error));
    let mut session = Session::new(Arc::<Principal>::default(), server, Transport::Http);
    let arrival = Arrival { raw: raw.to_owned().into(), ..Arrival::default() };
    let sink = Sink::default();
    let act = session.client_frame(&gate, &arrival, now(0)).record(&sink).unwrap();
    let kept = sink.kept().len();
    match act {
        Act::Forward(permitted) => (Some(permitted.body().clone()), kept),
        Act::Deliver(_) | Act::Hold(_) | Act::Drop => (None, kept),
    }
}

fn member(name: &str, tree: Tree) -> (String, Tree) {
    (name.to_owned(), tree)
}

fn word(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

fn call(name: &str, arguments: Vec<(String, Tree)>) -> Tree {
    Tree::Object(vec![
        member("jsonrpc", word("2.0")),
        member("id", Tree::Number("7".to_owned())),
        member("method", word("tools/call")),
        member(
            "params",
            Tree::Object(vec![
                member("name", word(name)),
                member("arguments", Tree::Object(arguments)),
            ]),
        ),
    ])
}

/// A name that some reader takes for `name` and that is another.
fn disguised(name: &'static str) -> impl Strategy<Value = String> {
    let stripped =
        prop::sample::select(vec!['\0', ' ', '\t', '\u{a0}', '\u{200b}', '\u{feff}', '\u{ad}']);
    let first = name[..1].to_uppercase();
    prop_oneof![
        Just(name.to_uppercase()).prop_filter("is another", move |other| other != name),
        Just(format!("{first}{}", &name[1..]))
            .prop_filter("is another", move |other| other != name),
        Just(name.replace('s', "\u{17f}").replace('k', "\u{212a}"))
            .prop_map(move |folded| if folded == name { folded.to_uppercase() } else { folded })
            .prop_filter("is another", move |other| other != name),
        (stripped, 0..=name.len())
            .prop_map(move |(char, at)| { format!("{}{char}{}", &name[..at], &name[at..]) }),
        (0..name.len()).prop_map(move |at| {
            let wide = |char: char| char::from_u32(u32::from(char) + 0xfee0).unwrap();
            name.chars()
                .enumerate()
                .map(|(n, char)| if n == at { wide(char) } else { char })
                .collect()
        }),
    ]
}

/// What may pass for a member of a client's answer, and whether it stands in a root.
fn answer_member() -> impl Strategy<Value = (bool, String)> {
    let members = ["action", "content", "roots", "role", "model"];
    let members = prop::sample::select(members.to_vec()).prop_flat_map(disguised);
    prop_oneof![
        members.prop_map(|name| (false, name)),
        disguised("uri").prop_map(|name| (true, name))
    ]
}

/// A member that decides, where it stands, and what may pass for it.
fn look_alike() -> impl Strategy<Value = (bool, String)> {
    let envelope = ["jsonrpc", "id", "method", "params", "result", "error"];
    let params = ["name", "arguments", "uri", "cursor", "level", "ref", "task", "requestId"];
    let known =
        envelope.map(|name| (true, name)).into_iter().chain(params.map(|name| (false, name)));
    prop::sample::select(known.collect::<Vec<_>>())
        .prop_flat_map(|(outer, name)| (Just(outer), disguised(name)))
}

/// A few header lines and a body, each part right or wrong.
fn request() -> impl Strategy<Value = String> {
    let version = prop::sample::select(vec!["2026-07-28", "2025-11-25", "2099-01-01", ""]);
    let method =
        prop::sample::select(vec!["tools/call", "Tools/Call", "resources/read", "ping", ""]);
    let name = prop::sample::select(vec!["t", "T", "=?base64?dA==?=", "=?base64?dA?=", "u", ""]);
    let value = prop::sample::select(vec!["eu", "=?base64?ZXU=?=", "us", "7", "07", "true"]);
    let parameter =
        prop::option::of((prop::sample::select(vec!["Region", "Count", "Flag"]), value));
    (version.clone(), version, method.clone(), method, name.clone(), name, parameter).prop_map(
        |(version, meta, method, called, name, tool, parameter)| {
            let mut text = String::new();
            for (header, value) in
                [("MCP-Protocol-Version", version), ("Mcp-Method", method), ("Mcp-Name", name)]
            {
                if !value.is_empty() {
                    text.push_str(&format!("{header}: {value}\n"));
                }
            }
            if let Some((suffix, value)) = parameter {
                text.push_str(&format!("Mcp-Param-{suffix}: {value}\n"));
            }
            let meta = match meta {
                "" => String::new(),
                meta => format!(r#","_meta":{{"io.modelcontextprotocol/protocolVersion":"{meta}"}}"#),
            };
            text.push_str(&format!(
                r#"{}{{"jsonrpc":"2.0","id":1,"method":"{called}","params":{{"name":"{tool}","uri":"u","arguments":{{"region":"eu","count":7,"deep":{{"flag":true}}}}{meta}}}}}"#,
                '\n'
            ));
            text
        },
    )
}

/// Events of a session, a line each.
fn events() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop::sample::select(b"abcde".to_vec());
    let short = (prop::sample::select(b"CCCRRRSAarrgftxeod!".to_vec()), letter.clone(), letter)
        .prop_map(|(kind, one, other)| vec![kind, one, other]);
    let whole = prop::sample::select(vec![
        r#"c{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        r#"c{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#,
        r#"s{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#,
        r#"s{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"delete"},{"name":"get"}]}}"#,
        r#"s{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#,
        r#"aa{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#,
        r#"ab{"jsonrpc":"2.0","id":1,"result":{}}"#,
        "c{",
        "s{",
    ]);
    let event = prop_oneof![4 => short, 1 => whole.prop_map(|text| text.as_bytes().to_vec())];
    (0_u8..4, prop::collection::vec(event, 0..40)).prop_map(|(choice, events)| {
        let mut bytes = vec![choice];
        bytes.extend(events.join(&b'\n'));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_spelling_gets_the_same_decision_and_goes_on_as_it_came(
        name in prop::sample::select(vec!["get_flag", "Get_flag", "delete_flag"]),
        environment in prop::sample::select(vec![Some("staging"), Some("Staging"), Some("prod"), None]),
        more in tree(),
        (one, other) in (choices(), choices()),
    ) {
        let mut arguments = vec![member("more", more)];
        arguments.extend(environment.map(|text| member("environment", word(text))));
        let call = call(name, arguments);
        let policy = policy(BY_ARGUMENT);
        let plain = !has_control_in_name(&call);
        let wanted = plain && name == "get_flag" && environment == Some("staging");
        for choices in [one, other] {
            let raw = spell(&call, &choices);
            let (body, kept) = forwarded(&policy, &raw);
            prop_assert_eq!(body, wanted.then(|| Bytes::from(raw)));
            prop_assert_eq!(kept, 1);
        }
    }

    #[test]
    fn a_variant_of_a_member_that_decides_is_refused(
        (outer, name) in look_alike(),
        value in text(),
        at in any::<usize>(),
        choices in choices(),
    ) {
        let added = (name, Tree::Text(value));
        let arguments = vec![member("environment", word("staging"))];
        // Below the arguments a name is the tool's own business, if it has no control characters.
        let mut inside = arguments.clone();
        inside.push(added.clone());
        let raw = spell(&call("get_flag", inside), &choices);
        let policy = policy(BY_ARGUMENT);
        let plain = !added.0.contains(char::is_control);
        prop_assert_eq!(forwarded(&policy, &raw).0, plain.then(|| Bytes::from(raw)));

        let mut faulty = call("get_flag", arguments);
        let Tree::Object(members) = &mut faulty else { panic!("not an object") };
        let members = match members.last_mut() {
            Some((_, Tree::Object(params))) if !outer => params,
            _ => members,
        };
        members.insert(at % (members.len() + 1), added);
        let raw = spell(&faulty, &choices);
        let (body, kept) = forwarded(&policy, &raw);
        prop_assert_eq!(body, None, "{}", raw);
        prop_assert_eq!(kept, 1);
    }

    #[test]
    fn a_variant_of_a_member_of_an_answer_is_refused(
        (in_root, name) in answer_member(),
        value in text(),
        choices in choices(),
    ) {
        let with = |name: &str| {
            let added = member(name, Tree::Text(value.clone()));
            let plain = member("uri", word("file:///a"));
            let (root, answer) = if in_root { (vec![plain, added], vec![]) } else { (vec![plain], vec![added]) };
            let roots = Tree::Array(vec![Tree::Object(root)]);
            let answer = answer.into_iter().chain([member("roots", roots)]).collect();
            let responses = Tree::Object(vec![member("q", Tree::Object(answer))]);
            let mut call = call("get_flag", vec![member("environment", word("staging"))]);
            let Tree::Object(members) = &mut call else { panic!("not an object") };
            let Some((_, Tree::Object(params))) = members.last_mut() else { panic!("no params") };
            params.push(member("inputResponses", responses));
            spell(&call, &choices)
        };
        let policy = policy(BY_ARGUMENT);
        let harmless = with("other");
        prop_assert_eq!(forwarded(&policy, &harmless).0, Some(Bytes::from(harmless)));
        let raw = with(&name);
        prop_assert_eq!(forwarded(&policy, &raw).0, None, "{}", raw);
    }

    #[test]
    fn a_variant_of_an_argument_that_a_rule_reads_is_refused(
        name in disguised("environment"),
        value in text(),
        alone in any::<bool>(),
        choices in choices(),
    ) {
        let mut arguments = vec![(name, Tree::Text(value))];
        if !alone {
            arguments.push(member("environment", word("staging")));
        }
        let raw = spell(&call("get_flag", arguments), &choices);
        let (body, kept) = forwarded(&policy(EXCEPT_ARGUMENT), &raw);
        prop_assert_eq!(body, None, "{}", raw);
        prop_assert_eq!(kept, 1);
    }

    #[test]
    fn a_uri_that_is_not_ambiguous_is_its_own_normal_form(
        text in "(file|FILE|note|https?|x-1):(//)?(localhost|h\\.example|H|1\\.2\\.3\\.4|u@h|\\[::1\\])?(:|:80|:443|:9)?(/|a|b|\\.|%2e|%61|%20|%C3%A9|%2f|~|\\\\|;| |:|@){0,9}(\\?[a=%2F/]{0,4})?(#a)?",
    ) {
        let UriReading { ambiguous, parts } = uri::read(&text, false);
        prop_assert!(ambiguous || parts.is_some(), "{}", text);
        if let Some(parts) = parts {
            let port = parts.port.map_or(String::new(), |port| format!(":{port}"));
            let query = parts.query.map_or(String::new(), |query| format!("?{query}"));
            let rooted = text.contains("://");
            let normal = [port.as_str(), ""].map(|port| {
                let path = &parts.path;
                if rooted {
                    format!("{}://{}{port}{path}{query}", parts.scheme, parts.host)
                } else {
                    format!("{}:{path}{query}", parts.scheme)
                }
            });
            prop_assert!(ambiguous || normal.contains(&text), "{} {:?}", text, normal);
        }
    }

    #[test]
    fn what_a_policy_does_not_plainly_permit_is_not_forwarded(
        broken in prop::sample::select(BROKEN.to_vec()),
        arguments in object(),
        choices in choices(),
    ) {
        let Tree::Object(arguments) = arguments else { panic!("not an object") };
        let raw = spell(&call("get_flag", arguments), &choices);
        let (body, kept) = forwarded(&policy(&format!("package mcp\n{broken}")), &raw);
        prop_assert_eq!(body, None, "{}", broken);
        prop_assert_eq!(kept, 1);
    }

    #[test]
    fn headers_and_body_that_disagree_never_go_on(request in request()) {
        headers::headers(request.as_bytes());
    }

    #[test]
    fn a_session_keeps_its_books(events in events()) {
        session::session(&events);
    }

    #[test]
    fn lines_are_the_same_in_any_pieces(
        (bound, cut) in any::<(u8, u8)>(),
        text in "([ -~]{0,40}|\\PC{0,9}|\r|\n|\r\n|\\{\"a\":\t\"\u{2028}\",\r\"b\":1\\}){0,9}",
    ) {
        stdio::stdio(&[&[bound, cut], text.as_bytes()].concat());
    }

    #[test]
    fn events_are_the_same_in_any_pieces(
        (bound, cut) in any::<(u8, u8)>(),
        text in "((data|event|id|retry|x)?:? ?[a-z0-9\0\u{feff}]{0,9}(\r|\n|\r\n|\n\n)){0,12}",
    ) {
        sse::sse(&[&[bound, cut], text.as_bytes()].concat());
    }
}

/// Policies that fail in one way or another, or say nothing.
const BROKEN: [&str; 8] = [
    "",
    r#"permit contains {"code": "a", "message": "b"} if input.nothing.here"#,
    r#"permit contains {"code": "a", "message": "b"} if 1 / count([]) == 1"#,
    r#"permit contains {"code": "a", "message": "b"} if to_number(input.method) == 1"#,
    r#"permit contains {"code": "a", "message": "b"}
deny contains {"code": "a", "message": "b"} if to_number(input.method) == 1"#,
    "permit contains true",
    r#"permit contains {"code": 1, "message": "b"}"#,
    r#"permit contains {"code": "a", "message": "b"}
limit contains {"code": "a", "key": "k", "rate": "often"}"#,
];
