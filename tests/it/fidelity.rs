//! A permitted frame goes on byte for byte, and its answer comes back byte for byte: generated
//! bodies with odd spacing, order, numbers, escapes and unknown members, in both eras, through a
//! whole firewall. Of a streamed answer the events are compared, read by a reader of our own: the
//! firewall frames them anew, and seals their ids.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::firewall::{Client, Firewall, LEGACY, Setup, json, post};

/// White space between two tokens.
fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just(""),
        2 => Just(" "),
        1 => Just("\n"),
        1 => Just("\t"),
        1 => Just("\r\n"),
        1 => Just(" \n  "),
    ]
}

fn number() -> impl Strategy<Value = String> {
    const ODD: [&str; 12] = [
        "0",
        "-0",
        "-0.0",
        "1.0",
        "1.50e+3",
        "1E-9",
        "2e-0",
        "0.1000000000000000055511151231257827",
        "123456789012345678901234567890123456789012345678901234567890",
        "-9223372036854775809",
        "9007199254740993",
        "1e308",
    ];
    prop_oneof![select(&ODD[..]).prop_map(str::to_owned), any::<i64>().prop_map(|n| n.to_string())]
}

/// A JSON string as it is written, quotes included.
fn string() -> impl Strategy<Value = String> {
    const PIECES: [&str; 22] = [
        "a",
        "Zz",
        " ",
        "flag",
        "'",
        "/",
        "\\/",
        "\\\\",
        "\\\"",
        "\\n",
        "\\t",
        "\\u0041",
        "\\u00E9",
        "\\u00e9",
        "\\ud83d\\uDE00",
        "\\u0000",
        "é",
        "😀",
        "\u{2028}",
        "\u{7f}",
        "\u{202e}",
        "{}",
    ];
    vec(select(&PIECES[..]), 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// A JSON value with odd spacing inside, none around it.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number(),
        string(),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let item = (space(), inner.clone(), space());
        let items = vec(item.prop_map(|(a, item, b)| format!("{a}{item}{b}")), 0..5);
        prop_oneof![
            (items, space()).prop_map(|(items, empty)| {
                if items.is_empty() {
                    format!("[{empty}]")
                } else {
                    format!("[{}]", items.join(","))
                }
            }),
            vec((string(), inner), 0..5).prop_flat_map(object),
        ]
    })
}

/// Control characters of [`string`], as they are written: no name of a client may have one (P5).
const CONTROLS: [&str; 4] = ["\\n", "\\t", "\\u0000", "\u{7f}"];

/// An object with these members, whose names are told apart by their number and have no control
/// characters.
fn object(members: Vec<(String, String)>) -> impl Strategy<Value = String> {
    let named = members
        .into_iter()
        .enumerate()
        .map(|(number, (name, value))| (name.replacen('"', &format!("\"{number}_"), 1), value))
        .map(|(name, value)| (CONTROLS.iter().fold(name, |name, it| name.replace(it, "c")), value));
    spelled(named.collect())
}

/// An object with exactly these members in any order and any spacing.
fn spelled(members: Vec<(String, String)>) -> impl Strategy<Value = String> {
    let count = members.len();
    (Just(members).prop_shuffle(), vec((space(), space(), space(), space()), count), space())
        .prop_map(|(members, spaces, empty)| {
            if members.is_empty() {
                return format!("{{{empty}}}");
            }
            let members = members
                .iter()
                .zip(spaces)
                .map(|((name, value), (a, b, c, d))| format!("{a}{name}{b}:{c}{value}{d}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        })
}

/// What is asked: the method as it is spelled, the method, the member of `params` that it names
/// something by, and that name.
type Asked = (&'static str, &'static str, Option<(&'static str, &'static str, &'static str)>);

const KNOWN: [Asked; 5] = [
    ("\"tools/call\"", "tools/call", Some(("\"name\"", "\"get_flag\"", "get_flag"))),
    ("\"tools\\/call\"", "tools/call", Some(("\"na\\u006de\"", "\"get\\u005fflag\"", "get_flag"))),
    ("\"resources/read\"", "resources/read", Some(("\"uri\"", "\"file:\\/\\/\\/a\"", "file:///a"))),
    ("\"prompts/get\"", "prompts/get", Some(("\"name\"", "\"hello\"", "hello"))),
    ("\"tool\\u0073/call\"", "tools/call", Some(("\"name\"", "\"list_flags\"", "list_flags"))),
];

/// No policy but the open one lets this pass.
const VENDOR: Asked = ("\"vendor/do-it\"", "vendor/do-it", None);

const META: &str = r#"{"io.modelcontextprotocol/protocolVersion" :"2026-07-28", "io.modelcontextprotocol/clientCapabilities":{ },"x":[1e2]}"#;

#[derive(Debug, Clone)]
struct Case {
    /// The header lines of the request.
    headers: String,
    request: String,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    Whole(String),
    /// The events, framed; and how many bytes each chunk has.
    Stream(String, usize),
}

fn ids() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0".to_owned()),
        Just("-9007199254740991".to_owned()),
        any::<u32>().prop_map(|id| id.to_string()),
        string(),
    ]
}

fn request(asked: &[Asked]) -> impl Strategy<Value = (String, String, String)> {
    let asked = asked.to_vec();
    (select(asked), ids(), any::<bool>(), value(), value(), value()).prop_flat_map(
        |((spelling, method, named), id, modern, inner, unknown, outer)| {
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut params = vec![pair("\"x-unknown\"", &unknown)];
            if let Some((member, name, _)) = named {
                params.push(pair(member, name));
            }
            if method == "tools/call" {
                params.push(pair("\"arguments\"", &format!("{{\"a\\u0062\" :{inner}}}")));
            }
            if modern {
                params.push(pair("\"_meta\"", META));
            }
            let mut headers = if modern {
                format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n")
            } else {
                LEGACY.to_owned()
            };
            if let (true, Some((_, _, name))) = (modern, named) {
                headers += &["Mcp-Name: ", name, "\r\n"].concat();
            }
            let kept = id.clone();
            (spelled(params), space(), space())
                .prop_flat_map(move |(params, before, after)| {
                    let members = vec![
                        pair("\"json\\u0072pc\"", "\"2.0\""),
                        pair("\"id\"", &id),
                        pair("\"method\"", spelling),
                        pair("\"params\"", &params),
                        pair("\"x-unknown\"", &outer),
                    ];
                    spelled(members).prop_map(move |body| format!("{before}{body}{after}"))
                })
                .prop_map(move |body| (headers.clone(), body, kept.clone()))
        },
    )
}

fn result(id: &str) -> impl Strategy<Value = String> + use<> {
    let id = id.to_owned();
    (value(), value(), any::<bool>()).prop_flat_map(move |(inner, outer, error)| {
        let outcome = if error {
            (
                "\"error\"".to_owned(),
                format!("{{\"data\":{inner},\"code\" :-32000 ,\"message\":\"n\\u006f\"}}"),
            )
        } else {
            ("\"result\"".to_owned(), format!("{{ \"content\":[ ],\"x\":{inner}}}"))
        };
        spelled(vec![
            ("\"jsonrpc\"".to_owned(), "\"2\\u002e0\"".to_owned()),
            ("\"id\"".to_owned(), id.clone()),
            outcome,
            ("\"x-unknown\"".to_owned(), outer),
        ])
    })
}

/// Fields of an event before its data; a comment is a field without a name.
fn fields() -> impl Strategy<Value = Vec<&'static str>> {
    const FIELDS: [&str; 9] = [
        "id: 17",
        "id:a b/é",
        "retry: 3000",
        "retry:60000",
        "event: message",
        "event:message",
        ": keep-alive",
        ":",
        ":two: parts",
    ];
    vec(select(&FIELDS[..]), 0..4)
}

fn notification() -> impl Strategy<Value = String> {
    value().prop_flat_map(|inner| {
        spelled(vec![
            ("\"jsonrpc\"".to_owned(), "\"2.0\"".to_owned()),
            ("\"method\"".to_owned(), "\"notifications\\/message\"".to_owned()),
            ("\"params\"".to_owned(), format!("{{\"level\":\"info\", \"data\":{inner} }}")),
        ])
    })
}

/// An event stream in the bytes of a server: any line ends, any of the optional spaces.
fn stream(answer: String) -> impl Strategy<Value = String> {
    let event = prop_oneof![
        2 => (fields(), notification()).prop_map(|(fields, data)| (fields, Some(data))),
        1 => fields().prop_map(|fields| (fields, None)),
        1 => fields().prop_map(|fields| ([vec!["id: 9"], fields].concat(), Some(String::new()))),
    ];
    let end = select(&["\n", "\r\n", "\r"][..]);
    let colon = select(&["data:", "data: "][..]);
    (vec(event, 0..4), fields(), end, colon).prop_map(move |(mut events, fields, end, colon)| {
        events.push((fields, Some(answer.clone())));
        let mut text = String::new();
        for (fields, data) in events {
            for field in fields {
                text += &[field, end].concat();
            }
            let data = data.map(|data| data.replace("\r\n", "\n"));
            for line in data.iter().flat_map(|data| data.split('\n')) {
                text += &[colon, line, end].concat();
            }
            text.push_str(end);
        }
        text
    })
}

fn case(asked: &[Asked]) -> impl Strategy<Value = Case> {
    request(asked).prop_flat_map(|(headers, request, id)| {
        (result(&id), any::<bool>(), 1_usize..200).prop_flat_map(move |(answer, streamed, size)| {
            let (headers, request) = (headers.clone(), request.clone());
            stream(answer.clone()).prop_map(move |events| Case {
                headers: headers.clone(),
                request: request.clone(),
                answer: if streamed {
                    Answer::Stream(events, size)
                } else {
                    Answer::Whole(answer.clone())
                },
            })
        })
    })
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for piece in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// What a reader of event streams makes of one event (WHATWG HTML §9.2.6), and its comments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    kind: String,
    retry: Option<String>,
    data: String,
    comments: Vec<String>,
}

fn read_events(text: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(text).unwrap().replace("\r\n", "\n").replace('\r', "\n");
    let mut found = Vec::new();
    for block in text.split("\n\n") {
        let mut event = Event::default();
        let mut data: Vec<&str> = Vec::new();
        for line in block.split('\n').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => event.comments.push(value.to_owned()),
                "id" => event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut event.kind),
                "retry" => event.retry = Some(value.to_owned()),
                "data" => data.push(value),
                other => panic!("unknown field {other:?} in {text:?}"),
            }
        }
        event.data = data.join("\n");
        if event.kind == "message" {
            event.kind.clear();
        }
        if event != Event::default() {
            found.push(event);
        }
    }
    found
}

/// The events as a client gets them: a comment says nothing of the server's.
fn told(mut events: Vec<Event>) -> Vec<Event> {
    for comments in events.iter_mut().map(|event| &mut event.comments) {
        if !comments.is_empty() {
            *comments = vec!["keep-alive".to_owned()];
        }
    }
    events
}

/// The events with the server's ids in the place of the sealed ones.
fn opened(mut events: Vec<Event>) -> Vec<Event> {
    for id in events.iter_mut().filter_map(|event| event.id.as_mut()) {
        let sealed = URL_SAFE_NO_PAD.decode(&*id).unwrap();
        *id = String::from_utf8(sealed[16..].to_vec()).unwrap();
    }
    events
}

/// A firewall whose upstream answers with what was put into the slot.
fn rig(policy: Vec<PathBuf>) -> (Firewall, Arc<Mutex<Vec<u8>>>) {
    let slot = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::clone(&slot);
    let answer = Box::new(move |_: &_| answers.lock().unwrap().clone());
    (Firewall::with(Setup { policy, answer, ..Setup::default() }), slot)
}

fn check(
    firewall: &Firewall,
    client: &mut Client,
    slot: &Mutex<Vec<u8>>,
    case: &Case,
) -> Result<(), TestCaseError> {
    *slot.lock().unwrap() = match &case.answer {
        Answer::Whole(body) => json(body.as_bytes()),
        Answer::Stream(text, size) => chunked(text.as_bytes(), *size),
    };
    let before = firewall.received().len();
    client.send(&post(&case.request, &case.headers));
    let reply = client.reply();
    prop_assert_eq!(reply.status, 200, "{}", reply.text());
    let received = firewall.received().split_off(before);
    prop_assert_eq!(received.len(), 1, "{}", reply.text());
    let body = received.first().map(|received| String::from_utf8_lossy(&received.body));
    prop_assert_eq!(body.as_deref(), Some(&*case.request));
    prop_assert!(reply.whole);
    match &case.answer {
        Answer::Whole(body) => {
            prop_assert_eq!(reply.header("content-type"), ["application/json"]);
            prop_assert_eq!(reply.text(), body);
        }
        Answer::Stream(text, _) => {
            prop_assert_eq!(reply.header("content-type"), ["text/event-stream"]);
            prop_assert_eq!(opened(read_events(&reply.body)), told(read_events(text.as_bytes())));
        }
    }
    Ok(())
}

fn run(policy: Vec<PathBuf>, asked: &[Asked], cases: u32) {
    let (firewall, slot) = rig(policy);
    let client = Mutex::new(firewall.client());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config)
        .run(&case(asked), |case| check(&firewall, &mut client.lock().unwrap(), &slot, &case));
    tried.unwrap_or_else(|error| panic!("{error}"));
    let records = firewall.journal();
    let count = |event: &str| records.iter().filter(|record| record["event"] == event).count();
    let cases = usize::try_from(cases).unwrap();
    assert_eq!(count("intent"), cases);
    assert_eq!(count("outcome"), cases);
    assert_eq!((count("denial"), count("drop")), (0, 0));
}

#[test]
fn what_the_open_policy_permits_passes_byte_for_byte() {
    let open = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/examples/open"));
    let mut asked = KNOWN.to_vec();
    asked.push(VENDOR);
    run(vec![open], &asked, 150);
}

#[test]
fn what_the_baseline_permits_passes_byte_for_byte() {
    // Below its burst of calls.
    run(Vec::new(), &KNOWN, 80);
}

#[test]
fn large_bodies_pass_byte_for_byte() {
    let (firewall, slot) = rig(Vec::new());
    let long = "é\\u00e9 \\ud83d\\ude00,".repeat(80_000);
    let request = format!(
        "\r\n{{ \"id\":1,\"params\":{{\"arguments\":{{\"key\":\"{long}\"}},\"name\":\"get_flag\"}},\"method\":\"tools/call\",\"jsonrpc\":\"2.0\"}}\n"
    );
    for streamed in [false, true] {
        let answer = format!("{{\"result\":{{\"x\":\"{long}\" }},\"id\":1 ,\"jsonrpc\":\"2.0\"}}");
        let answer = if streamed {
            Answer::Stream(format!("data: {answer}\n\n"), 5000)
        } else {
            Answer::Whole(answer)
        };
        let case = Case { headers: LEGACY.to_owned(), request: request.clone(), answer };
        check(&firewall, &mut firewall.client(), &slot, &case).unwrap();
    }
}
