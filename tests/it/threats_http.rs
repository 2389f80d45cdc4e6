//! Rows of `docs/threats.md` that one raw request cannot show: several requests at once,
//! sessions, streams, slow and chunked bodies, HTTP/2 frame by frame; and what policy can ask for
//! (hide, set, limit, hold, observe) as an agent meets it. Each says what the upstream received.

#![expect(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::firewall::{
    Answer, Client, Firewall, LEGACY, PATIENCE, Received, RecordingUpstream, Reply, Setup, answer,
    call, events, journal_text, json, odd_answer, post, wait,
};

const PERMIT: &str =
    "package mcp\n\npermit contains {\"code\": \"all\", \"message\": \"everything\"} if true\n";

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn ruled(rules: &str) -> Setup {
    Setup { rego: Some(format!("{PERMIT}\n{rules}")), ..Setup::default() }
}

fn get_flag(id: u32) -> String {
    call(id, "get_flag", r#"{"key":"x"}"#)
}

fn member(body: &[u8], pointer: &str) -> Value {
    let body: Value = serde_json::from_reader(body).unwrap_or_default();
    body.pointer(pointer).cloned().unwrap_or_default()
}

/// An answer to `received` whose result is `result`, JSON.
fn result_for(received: &Received, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, member(&received.body, "/id"))
}

/// A modern request; `params` is the inside of an object, `headers` come besides the three.
fn modern(id: u32, method: &str, name: &str, params: &str, headers: &str) -> Vec<u8> {
    let comma = if params.is_empty() { "" } else { "," };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{comma}{META}}}}}"#
    );
    let name = if name.is_empty() { String::new() } else { format!("Mcp-Name: {name}\r\n") };
    post(
        body,
        &format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}{headers}"),
    )
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"sampling":{}},"clientInfo":{"name":"c","version":"1"}}}"#;
const INITIALIZED: &str =
    r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#;

/// A legacy server that mints sessions `s-1`, `s-2`…; all else is answered by `otherwise`.
fn with_sessions(otherwise: Box<Answer>) -> Box<Answer> {
    let count = AtomicUsize::new(0);
    Box::new(move |received| {
        if member(&received.body, "/method") != "initialize" {
            return otherwise(received);
        }
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let headers = format!("Content-Type: application/json\r\nMcp-Session-Id: s-{number}\r\n");
        answer("200 OK", &headers, result_for(received, INITIALIZED).as_bytes())
    })
}

/// Opens a session: its header line.
fn session(firewall: &Firewall) -> String {
    let reply = firewall.ask(INITIALIZE);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let [id] = &*reply.header("mcp-session-id") else { panic!("{reply:?}") };
    format!("{LEGACY}Mcp-Session-Id: {id}\r\n")
}

/// An answer that holds back calls of the tool `wait_here` until the sender says so, and names
/// the session that it answers in.
fn holding() -> (Box<Answer>, Sender<()>) {
    let (go, held): (_, Receiver<()>) = channel();
    let held = Mutex::new(held);
    let answer = Box::new(move |received: &Received| {
        if member(&received.body, "/params/name") == "wait_here" {
            held.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        let session = received.header("mcp-session-id").concat();
        json(result_for(received, &format!(r#"{{"session":"{session}"}}"#)).as_bytes())
    });
    (answer, go)
}

#[test]
fn an_id_in_flight_cannot_be_used_again() {
    // D5.
    let (answer, go) = holding();
    let firewall = Firewall::with(Setup { answer: with_sessions(answer), ..ruled("") });
    let (one, two) = (session(&firewall), session(&firewall));
    let mut first = firewall.client();
    first.send(&post(call(7, "wait_here", "{}"), &one));
    wait("the first call", || (firewall.received().len() == 3).then_some(()));
    for body in [call(7, "get_flag", "{}"), call("7", "wait_here", "{}")] {
        let reply = firewall.send(&post(body, &one));
        assert_eq!((reply.status, reply.code()), (400, -32600), "{}", reply.text());
    }
    assert_eq!(firewall.received().len(), 3, "the second use reached the server");
    assert_eq!(firewall.records("event", "denial").len(), 2);
    // One that reads alike is no other id; in another session it is.
    let text = firewall.send(&post(call("\"7\"", "get_flag", "{}"), &one));
    assert_eq!((text.status, text.code()), (400, -32600), "{}", text.text());
    let other = firewall.send(&post(call(7, "get_flag", "{}"), &two));
    assert_eq!(other.json()["result"]["session"], "s-2");
    go.send(()).unwrap();
    assert_eq!(first.reply().json()["result"]["session"], "s-1");
    let again = firewall.send(&post(call(7, "get_flag", "{}"), &one));
    assert_eq!((again.status, again.code()), (400, -32600), "answered: {}", again.text());
}

#[test]
fn answers_of_a_shared_child_go_to_whoever_asked() {
    // D5: two clients with one id, answered by one child in the other order.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server.sh");
    let reversed = r#"
read -r discover
printf '{"jsonrpc":"2.0","result":{"supportedVersions":["2026-07-28"]},"id":%s\n' "${discover##*'"id":'}"
read -r one
read -r two
for line in "$two" "$one"; do
    id=${line##*'"id":'}; key=${line##*'"key":"'}
    printf '{"jsonrpc":"2.0","result":{"key":"%s"},"id":%s\n' "${key%%'"'*}" "$id"
done
cat > /dev/null
"#;
    std::fs::write(&script, reversed).unwrap();
    let way = Some(format!("command: [sh, '{}']", script.display()));
    let firewall = Firewall::with(Setup { way, ..ruled("") });
    let ask = |key: &str| {
        // The script finds an id that comes last.
        let body = format!(
            r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"get_flag","arguments":{{"key":"{key}"}},{META}}},"id":5}}"#
        );
        let mut client = firewall.client();
        client.send(&post(
            body,
            "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: get_flag\r\n",
        ));
        client
    };
    let (mut a, mut b) = (ask("of-a"), ask("of-b"));
    for (client, key) in [(&mut a, "of-a"), (&mut b, "of-b")] {
        let reply = client.reply().json();
        assert_eq!((&reply["id"], &reply["result"]["key"]), (&5.into(), &key.into()), "{reply}");
    }
}

#[test]
fn trailers_reach_nobody() {
    // E9, both ways.
    let trailed = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: Mcp-Session-Id\r\nTransfer-Encoding: chunked\r\n\r\n";
    let firewall = Firewall::with(Setup {
        answer: Box::new(|received| {
            let body = odd_answer(&received.body);
            let size = format!("{:x}\r\n", body.len());
            let end = b"\r\n0\r\nMcp-Session-Id: evil\r\nX-Evil: 1\r\n\r\n";
            [trailed.as_bytes(), size.as_bytes(), &body, end].concat()
        }),
        ..Setup::default()
    });
    let body = get_flag(1);
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTrailer: Mcp-Name\r\nTransfer-Encoding: chunked\r\n";
    let request = format!(
        "{head}{LEGACY}\r\n{:x}\r\n{body}\r\n0\r\nMcp-Name: delete_flag\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        body.len()
    );
    let mut client = firewall.client();
    client.send(request.as_bytes());
    let reply = client.reply();
    assert_eq!((reply.status, &reply.body), (200, &odd_answer(body.as_bytes())));
    assert!(!reply.head.to_ascii_lowercase().contains("evil"), "{}", reply.head);
    let received = &firewall.received()[0];
    assert_eq!(received.body, body.as_bytes());
    assert_eq!(received.header("content-length"), [body.len().to_string()]);
    for name in ["transfer-encoding", "trailer", "mcp-name", "x-forwarded-for", "te"] {
        assert!(received.header(name).is_empty(), "{name}: {}", received.head);
    }
    client.send(&post(get_flag(2), LEGACY));
    assert_eq!(client.reply().status, 200, "the connection is whole");
}

#[test]
fn headers_that_others_trust_go_no_further() {
    // E10, E16, L1, L5.
    let firewall = Firewall::start();
    let spoofed = [
        "Accept-Encoding: gzip, br",
        "Authorization: Bearer of-the-client",
        "Cookie: session=1",
        "Forwarded: for=1.2.3.4",
        "Last-Event-ID: 99",
        "Mcp-Init-Host: evil.example",
        "Proxy-Authorization: Basic eDp5",
        "Router-Key: secret-api-key",
        "X-Flag-Service-Environment: production",
        "X-Flag-Service-Key: of-the-client",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-User: root",
        "X-HTTP-Method-Override: DELETE",
        "X-Method-Override: DELETE",
        "X-Original-URL: /admin",
        "X-Real-IP: 1.2.3.4",
        "X-Rewrite-URL: /admin",
    ];
    let kept = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\nMcp-Param-Key: x\r\nUser-Agent: agent/1\r\n";
    let reply =
        firewall.send(&post(get_flag(1), &format!("{LEGACY}{kept}{}\r\n", spoofed.join("\r\n"))));
    assert_eq!(reply.body, odd_answer(get_flag(1).as_bytes()));
    let received = &firewall.received()[0];
    assert!(received.head.starts_with("post /mcp http/1.1\r\n"), "{}", received.head);
    for header in spoofed {
        let (name, value) = header.split_once(": ").unwrap();
        let found = received.header(&name.to_ascii_lowercase());
        let allowed: &[&str] = if name == "Accept-Encoding" { &["identity"] } else { &[] };
        assert_eq!(found, allowed, "{name}");
        assert!(
            !received.head.contains(&value.to_ascii_lowercase()) || value.len() < 3,
            "{header}"
        );
    }
    assert!(received.header("mcp-param-key").is_empty(), "{}", received.head);
    assert_eq!(received.header("user-agent"), ["agent/1"]);
    let intent = firewall.record("event", "intent", 1);
    assert_eq!(intent["principal"], "agent");
    assert_eq!(intent["trace_id"], "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn a_challenge_of_the_server_sends_nobody_elsewhere() {
    // L6: without `oauth`, the client would fetch what the challenge names by itself.
    let head = Arc::new(Mutex::new(String::new()));
    let says = Arc::clone(&head);
    let firewall = Firewall::with(Setup {
        answer: Box::new(move |received| {
            let port = received.header("host")[0].rsplit(':').next().unwrap().to_owned();
            let head = says.lock().unwrap().replace("PORT", &port);
            let (status, fields) = head.split_once('\n').unwrap();
            answer(status, &format!("Content-Type: application/json\r\n{fields}\r\n"), b"{}")
        }),
        ..Setup::default()
    });
    let cloud = "Bearer resource_metadata=\"http://169.254.169.254/latest/meta-data\"";
    for (status, field, passes) in [
        ("401 Unauthorized", cloud, false),
        ("403 Forbidden", cloud, false),
        ("400 Bad Request", cloud, false),
        ("401 Unauthorized", "DPoP resource_metadata=\"https://evil.example/\"", false),
        (
            "401 Unauthorized",
            "Basic realm=\"x\", Bearer resource_metadata=http://evil.example/",
            false,
        ),
        ("401 Unauthorized", "Bearer authorization_uri=\"https://evil.example/\"", false),
        ("401 Unauthorized", "Bearer realm=\"http://169.254.169.254/\"", false),
        ("401 Unauthorized", "Bearer scope=\"http://169.254.169.254/\"", false),
        ("401 Unauthorized", "Bearer realm=\"open", false),
        ("401 Unauthorized", "Bearer realm=\"x\", scope=\"read:flags\"", true),
        (
            "401 Unauthorized",
            "Bearer resource_metadata=\"http://127.0.0.1:PORT/.well-known/oauth-protected-resource/mcp\"",
            true,
        ),
    ] {
        *head.lock().unwrap() = format!("{status}\nWWW-Authenticate: {field}");
        let before = firewall.records("event", "outcome").len();
        let reply = firewall.ask(get_flag(1));
        assert!(status.starts_with(&reply.status.to_string()), "{field}");
        let told = reply.header("www-authenticate");
        assert_eq!(told.len(), usize::from(passes), "{field}: {told:?}");
        let outcome = firewall.record("event", "outcome", before + 1);
        let noted = outcome["note"].as_str().is_some_and(|note| note.contains("WWW-Authenticate"));
        assert_eq!(noted, !passes, "{field}: {outcome}");
    }
    // Of several, the others pass.
    *head.lock().unwrap() = format!(
        "401 Unauthorized\nWWW-Authenticate: {cloud}\r\nWWW-Authenticate: Bearer error=\"e\""
    );
    assert_eq!(firewall.ask(get_flag(1)).header("www-authenticate"), ["Bearer error=\"e\""]);
    // Each parameter has a grammar in which no address of another site fits.
    for parameter in [
        "error_uri=\"169.254.169.254/latest\"",
        "error_uri=\"evil.example/x\"",
        "error_uri=\"gopher:evil.example\"",
        "error_uri=\"mailto:x@evil.example\"",
        "error_uri=\"/relative\"",
        "error_uri=evil.example/x",
        "error_uri=\"tel:1\"",
        "scope=\"evil.example/x 169.254.169.254\"",
        "scope=\"https://evil.example/?leak\"",
        "scope=\"gopher:evil.example\"",
        "scope=\"x:evil.example:70\"",
        "max_age=10.0.0.1",
        "acr_values=\"10.0.0.1\"",
        "acr_values=\"evil.example/x\"",
        "realm=\"http&#58;&#47;&#47;evil\"",
    ] {
        *head.lock().unwrap() =
            format!("401 Unauthorized\nWWW-Authenticate: Bearer {parameter}, error=\"e\"");
        let told = firewall.ask(get_flag(1));
        assert_eq!(told.header("www-authenticate"), ["Bearer error=\"e\""], "{parameter}");
    }
    for error in ["evil.example/x", "169.254.169.254"] {
        *head.lock().unwrap() =
            format!("401 Unauthorized\nWWW-Authenticate: Bearer error=\"{error}\"");
        assert_eq!(firewall.ask(get_flag(1)).header("www-authenticate"), ["Bearer"]);
    }
    // G27: neither does a secret, in pieces that a reader puts together.
    let key = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
    let (left, right) = key.split_at(20);
    for (fields, expected) in [
        (format!("Bearer realm=\"{left}\", error=\"e\", scope=\"{right}\""), vec!["Bearer"]),
        (format!("Bearer scope=\"{right}\", realm=\"{left}\""), vec!["Bearer"]),
        (
            format!("Basic realm=\"{left}\"\r\nWWW-Authenticate: Bearer scope=\"{right}\""),
            vec!["Basic", "Bearer"],
        ),
    ] {
        *head.lock().unwrap() = format!("401 Unauthorized\nWWW-Authenticate: {fields}");
        let before = firewall.records("event", "outcome").len();
        assert_eq!(firewall.ask(get_flag(1)).header("www-authenticate"), expected, "{fields}");
        let outcome = firewall.record("event", "outcome", before + 1);
        assert!(outcome["note"].as_str().unwrap().contains("WWW-Authenticate"), "{outcome}");
    }
    // Nothing else steers the client.
    let steering = "401 Unauthorized\nLocation: http://evil.example/\r\nRefresh: 0; url=http://evil.example/\r\n\
         Link: <http://evil.example/>; rel=preload\r\nSet-Cookie: a=b\r\nContent-Location: /x\r\n\
         Clear-Site-Data: \"*\"\r\nAlt-Svc: h2=\"evil.example:443\"\r\nMcp-Session-Id: theirs\r\n\
         Proxy-Authenticate: Basic\r\nAuthentication-Info: x\r\nWWW-Authenticate: Bearer";
    *head.lock().unwrap() = steering.to_owned();
    let reply = firewall.ask(get_flag(1));
    for name in [
        "location",
        "refresh",
        "link",
        "set-cookie",
        "content-location",
        "clear-site-data",
        "alt-svc",
        "mcp-session-id",
        "proxy-authenticate",
        "authentication-info",
    ] {
        assert!(reply.header(name).is_empty(), "{name}");
    }
    // A success has no challenge.
    *head.lock().unwrap() = "202 Accepted\nWWW-Authenticate: Bearer".to_owned();
    let reply = firewall.ask(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!((reply.status, reply.header("www-authenticate").len()), (202, 0));
}

#[test]
fn nothing_goes_on_before_the_whole_body_is_judged() {
    // E18: the first part is a whole permitted call.
    let firewall = Firewall::start();
    let permitted = get_flag(1);
    for (rest, status, reaches) in [("   \n", 200, 1), (r#"{"a":1}"#, 400, 0)] {
        let before = firewall.received().len();
        let whole = format!("{permitted}{rest}");
        let request = post(&whole, LEGACY);
        let (begin, end) = request.split_at(request.len() - rest.len());
        let mut slow = firewall.client();
        slow.send(begin);
        // By the time that a whole other call is answered, the beginning was long read.
        assert_eq!(firewall.ask(get_flag(2)).status, 200);
        assert_eq!(firewall.received().len(), before + 1, "only the other call");
        slow.send(end);
        assert_eq!(slow.reply().status, status);
        assert_eq!(firewall.received().len(), before + 1 + reaches);
    }
    // One that never ends its body is not answered by the upstream either.
    let before = firewall.received().len();
    let request = post(&permitted, LEGACY);
    let mut cut = firewall.client();
    cut.send(&request[..request.len() - 1]);
    drop(cut);
    assert_eq!(firewall.ask(get_flag(2)).status, 200);
    assert_eq!(firewall.received().len(), before + 1);
}

#[test]
fn sessions_are_only_those_that_were_begun_here() {
    // F7, F8. The second server would take any session id.
    let other = RecordingUpstream::start(Box::new(|received| json(&odd_answer(&received.body))));
    let server = format!("  other:\n    path: /other\n    url: {}\n", other.url());
    let fixing = with_sessions(Box::new(|received| {
        let headers = "Content-Type: application/json\r\nMcp-Session-Id: chosen\r\n";
        answer("200 OK", headers, &odd_answer(&received.body))
    }));
    let firewall = Firewall::with(Setup { server, answer: fixing, ..ruled("") });
    let own = session(&firewall);
    let reached = firewall.received().len();
    let unknown = |headers: &str, path: &str| {
        let request = String::from_utf8(post(get_flag(1), headers)).unwrap();
        let reply = firewall.send(request.replacen("/mcp", path, 1).as_bytes());
        assert_eq!((reply.status, reply.code()), (404, -32600), "{headers}: {}", reply.text());
    };
    for id in ["s-2", "chosen", "S-1", "s-1x", "s"] {
        unknown(&format!("{LEGACY}Mcp-Session-Id: {id}\r\n"), "/mcp");
    }
    unknown(&own, "/other");
    for (method, body) in [("GET", ""), ("DELETE", "")] {
        let reply = firewall.send(
            format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMcp-Session-Id: s-2\r\n\r\n{body}").as_bytes(),
        );
        assert_eq!(reply.status, 404, "{method}");
    }
    assert_eq!(firewall.received().len(), reached);
    assert_eq!(other.received().len(), 0);
    // An answer cannot move the client into another session.
    let reply = firewall.send(&post(get_flag(1), &own));
    assert_eq!(reply.status, 200);
    assert_eq!(firewall.received().last().unwrap().header("mcp-session-id"), ["s-1"]);
    assert!(!reply.head.contains("chosen"), "{}", reply.head);
    unknown(&format!("{LEGACY}Mcp-Session-Id: chosen\r\n"), "/mcp");
    // A session that was ended stays unknown.
    let ended =
        firewall.send(format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{own}\r\n").as_bytes());
    assert_eq!(ended.status, 200);
    unknown(&own, "/mcp");
    // Modern requests have no session; an id that comes along means nothing and goes no further.
    let reply = firewall.send(&modern(
        1,
        "tools/call",
        "get_flag",
        r#""name":"get_flag""#,
        "Mcp-Session-Id: s-1\r\n",
    ));
    assert_eq!(reply.status, 200);
    assert!(firewall.received().last().unwrap().header("mcp-session-id").is_empty());
}

/// What an event stream of the server may bring the client: `(row, stream, what the client gets)`.
const STREAMS: [(&str, &str, &[&str]); 6] = [
    ("F1 sse-cr-comment", ": hi\rdata: SAMPLING\r\rdata: ANSWER\r\r", &["ANSWER"]),
    ("F1 sse-cr-id", "id: 1\rdata: SAMPLING\r\n\r\ndata: ANSWER\n\n", &["", "ANSWER"]),
    ("F2 sse-two-values", "data: ANSWER\ndata: ANSWER\n\n", &["WITHHELD"]),
    ("F2 sse-two-values-one-line", "data: NOTICE ANSWER\n\n", &["WITHHELD"]),
    ("F4 sse-progress", "data: NOTICE\n\ndata: ANSWER\n\n", &["NOTICE", "ANSWER"]),
    ("sse-server-request", "event: message\ndata: SAMPLING\n\ndata: ANSWER\n\n", &["ANSWER"]),
];

#[test]
fn what_a_stream_brings_is_judged() {
    let sampling = r#"{"jsonrpc":"2.0","id":99,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":9}}"#;
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
    let spelled = |text: &str, id: u32| {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#);
        text.replace("SAMPLING", sampling).replace("NOTICE", notice).replace("ANSWER", &answer)
    };
    let slot = Arc::new(Mutex::new(String::new()));
    let streams = Arc::clone(&slot);
    let answering = with_sessions(Box::new(move |received| {
        if member(&received.body, "/method").is_null() {
            return answer("202 Accepted", "", b"");
        }
        events(&streams.lock().unwrap())
    }));
    let rules = "deny contains {\"code\": \"no-sampling\", \"message\": \"no\"} if input.method == \"sampling/createMessage\"\n";
    let firewall = Firewall::with(Setup { answer: answering, ..ruled(rules) });
    let headers = session(&firewall);
    for (id, (row, stream, expected)) in (1..).zip(STREAMS) {
        *slot.lock().unwrap() = spelled(stream, id);
        let before = firewall.received().len();
        let reply = firewall.send(&post(get_flag(id), &headers));
        let got: Vec<_> = reply
            .text()
            .split_terminator("\n\n")
            .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
            .collect();
        let expected: Vec<_> = expected.iter().map(|text| spelled(text, id)).collect();
        assert_eq!(got.len(), expected.len(), "{row}: {}", reply.text());
        for (got, expected) in got.iter().zip(&expected) {
            let withheld = expected == "WITHHELD" && got.contains("-31006");
            assert!(withheld || got == expected, "{row}: {}", reply.text());
        }
        let asked = u32::from(stream.contains("SAMPLING"));
        let answered = &firewall.received()[before + 1..];
        assert_eq!(answered.len(), usize::try_from(asked).unwrap(), "{row}: {answered:?}");
        for refusal in answered {
            assert_eq!(member(&refusal.body, "/id"), 99, "{row}");
            assert_eq!(member(&refusal.body, "/error/code"), -31001, "{row}");
        }
    }
}

#[test]
fn a_hidden_tool_is_an_unknown_tool() {
    let rules = "hide contains \"delete_flag\"\n\ndeny contains {\"code\": \"secret-code\", \"message\": \"secret words\"} if input.tool.name in {\"delete_flag\", \"update_flag\"}\n";
    let firewall = Firewall::with(ruled(rules));
    let hidden = firewall.ask(call(1, "delete_flag", "{}"));
    assert_eq!((hidden.status, hidden.code()), (200, -32602));
    assert_eq!(hidden.json()["error"]["message"], "Unknown tool: delete_flag");
    let shown = firewall.ask(call(1, "update_flag", "{}"));
    assert_eq!((shown.status, shown.code()), (200, -31001));
    assert_eq!(firewall.received().len(), 0);
    let denials = firewall.records("event", "denial");
    for (reply, denial) in [hidden, shown].iter().zip(&denials) {
        assert_eq!(reply.json()["error"]["data"]["decision_id"], denial["call"]);
        assert_eq!(denial["decision"]["reasons"][0]["code"], "secret-code");
        // M12: a refusal names no rule, no principal, no server.
        for secret in ["secret", "agent", "flags", "staging", "127.0.0.1"] {
            assert!(!reply.text().contains(secret), "{}", reply.text());
        }
    }
}

/// A page of tools with odd spacing, whose third is to be hidden.
const TOOLS: [&str; 4] = [
    "{ \"name\":\"get_flag\", \"inputSchema\":{\"type\":\"object\",\"n\":1.50e+2} ,\"x\":\"\\u00e9\"}",
    "{\"inputSchema\":{},\"name\":\"list\\u005fflags\"}",
    "{\"name\":\"delete_flag\",\"inputSchema\":{ }}",
    "{\"name\" : \"update_flag\",\"inputSchema\":{},\"_meta\":{\"a/b\":[1 ,2]}}",
];

#[test]
fn a_filtered_list_keeps_every_other_byte() {
    let page = |id: u32, tools: &[&str], scope: &str| {
        format!(
            "{{ \"result\" : {{\"nextCursor\":\"\\u0041b\" ,\"ttlMs\":5e0,\"cacheScope\":\"{scope}\",\"tools\":[\n  {} ],\"x\":[ ]}},\"id\":{id} , \"jsonrpc\":\"2.0\"}}",
            tools.join(" ,\r\n ")
        )
    };
    let listing = page(1, &TOOLS, "public");
    let rules = "hide contains tool.name if {\n\tsome tool in input.tools\n\ttool.operation.effect == \"destructive\"\n}\n";
    let slot = listing.clone();
    let firewall =
        Firewall::with(Setup { answer: Box::new(move |_| json(slot.as_bytes())), ..ruled(rules) });
    let reply = firewall.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(reply.status, 200);
    let kept: Vec<&str> = TOOLS.into_iter().filter(|tool| !tool.contains("delete")).collect();
    let mut rest = reply.text();
    let (before, list) = rest.split_once("\"tools\":[").unwrap();
    let expected = page(1, &TOOLS, "private");
    assert_eq!(before, expected.split_once("\"tools\":[").unwrap().0);
    for tool in &kept {
        let (gap, after) = list_after(&mut rest, tool);
        assert!(gap.ends_with(['[', ' ', '\n', ',']) && !gap.contains("delete"), "{gap:?}");
        rest = after;
    }
    assert!(rest.ends_with("],\"x\":[ ]},\"id\":1 , \"jsonrpc\":\"2.0\"}"), "{rest:?}");
    assert!(!list.contains("delete_flag"), "{list}");
    let names: Vec<_> = reply.json()["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].clone())
        .collect();
    assert_eq!(names, ["get_flag", "list_flags", "update_flag"]);
    let outcome = firewall.record("event", "outcome", 1);
    assert_eq!(outcome["hidden"], serde_json::json!(["delete_flag"]));
    assert_eq!(outcome["finding"], "tools_hidden");
    // The same over the modern way, and with nothing to hide only the scope changes.
    let reply = firewall.send(&modern(1, "tools/list", "", "", ""));
    assert_eq!(reply.json()["result"]["cacheScope"], "private");
    assert_eq!(reply.json()["result"]["tools"].as_array().unwrap().len(), 3);
    let all =
        Firewall::with(Setup { answer: Box::new(move |_| json(listing.as_bytes())), ..ruled("") });
    let reply = all.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(reply.text(), expected);
}

/// What comes before `tool`, and what after it.
fn list_after<'a>(rest: &mut &'a str, tool: &str) -> (&'a str, &'a str) {
    rest.split_once(tool).unwrap_or_else(|| panic!("{tool} is not in {rest}"))
}

#[test]
fn a_list_that_cannot_be_filtered_does_not_pass() {
    for result in
        [r#"{"tools":{}}"#, r#"{"tools":[{"title":"no name"}]}"#, r#"{"tools":[1]}"#, "{}"]
    {
        let result = result.to_owned();
        let firewall = Firewall::with(Setup {
            answer: Box::new(move |received| json(result_for(received, &result).as_bytes())),
            ..ruled("hide contains \"x\"\n")
        });
        let reply = firewall.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        assert_eq!((reply.status, reply.code()), (200, -31006), "{}", reply.text());
        assert_eq!(firewall.record("event", "outcome", 1)["outcome"], "withheld");
    }
}

const SET: &str = "set contains {\"pointer\": \"/environment\", \"value\": input.server.environment} if {\n\tinput.method == \"tools/call\"\n\tinput.tool.arguments.environment != input.server.environment # bartizan:allow undefined-comparison\n}\n\n# bartizan:allow absent-operand\nset contains {\"pointer\": \"/environment\", \"value\": input.server.environment} if {\n\tinput.method == \"tools/call\"\n\tnot \"environment\" in object.keys(input.tool.arguments)\n}\n";

#[test]
fn a_forced_argument_changes_there_and_nowhere_else() {
    let firewall = Firewall::with(ruled(SET));
    let body = |arguments: &str| {
        format!(
            "\n{{\"id\" : 1e0,\"method\":\"tools\\/call\", \"params\":{{ \"name\":\"update_flag\",\"arguments\":{arguments},\"x\":[ 1.50e+2 ]}},\"jsonrpc\":\"2.0\"}} "
        )
        .replace("1e0", "1")
    };
    for (sent, received) in [
        (
            "{ \"key\":\"\\u0041\" ,\"environment\" :\"production\" , \"n\":12345678901234567890 }",
            "{ \"key\":\"\\u0041\" ,\"environment\" :\"staging\" , \"n\":12345678901234567890 }",
        ),
        ("{\"environment\": null}", "{\"environment\": \"staging\"}"),
        ("{\"environment\":[\"production\" , 1]}", "{\"environment\":\"staging\"}"),
        ("{\"envi\\u0072onment\":\"production\"}", "{\"envi\\u0072onment\":\"staging\"}"),
        ("{ \"key\" :1}", "{\"environment\":\"staging\", \"key\" :1}"),
        ("{ }", "{\"environment\":\"staging\" }"),
        ("{\"environment\": \"staging\"}", "{\"environment\": \"staging\"}"),
    ] {
        let reply = firewall.ask(body(sent));
        assert_eq!(reply.status, 200, "{sent}: {}", reply.text());
        let last = firewall.received().pop().unwrap();
        assert_eq!(String::from_utf8_lossy(&last.body), body(received));
        assert_eq!(last.header("content-length"), [body(received).len().to_string()]);
    }
    let obligations = firewall.record("event", "intent", 1)["decision"]["obligations"].clone();
    assert_eq!(obligations, serde_json::json!(["set:/environment"]));
}

#[test]
fn a_forced_argument_changes_its_header_too() {
    let definition = r#"{"resultType":"complete","tools":[{"name":"update_flag","inputSchema":{"type":"object","properties":{"environment":{"type":"string","x-mcp-header":"Environment"},"key":{"type":"string","x-mcp-header":"Key"}}}}]}"#;
    let firewall = Firewall::with(Setup {
        answer: Box::new(move |received| json(result_for(received, definition).as_bytes())),
        ..ruled(SET)
    });
    assert_eq!(firewall.send(&modern(1, "tools/list", "", "", "")).status, 200);
    let update = |environment: &str, headers: &str| {
        let params = format!(r#""name":"update_flag","arguments":{{"key":"x",{environment}}}"#);
        firewall.send(&modern(2, "tools/call", "update_flag", &params.replace(",}", "}"), headers))
    };
    let production = r#""environment":"production""#;
    for (argument, headers) in [
        (production, "Mcp-Param-Environment: production\r\nMcp-Param-Key: x\r\n"),
        (production, "mcp-param-environment: =?base64?cHJvZHVjdGlvbg==?=\r\nMcp-Param-Key: x\r\n"),
        ("", "Mcp-Param-Key: x\r\n"),
    ] {
        let reply = update(argument, headers);
        assert_eq!(reply.code(), 0, "{argument} {headers}: {}", reply.text());
        let last = firewall.received().pop().unwrap();
        assert_eq!(member(&last.body, "/params/arguments/environment"), "staging");
        assert_eq!(last.header("mcp-param-environment"), ["staging"], "{}", last.head);
        assert_eq!(last.header("mcp-param-key"), ["x"]);
    }
    // What the client sends must agree, and be whole, before anything is set.
    let before = firewall.received().len();
    for headers in [
        "Mcp-Param-Environment: staging\r\nMcp-Param-Key: x\r\n",
        "Mcp-Param-Environment: production\r\nMcp-Param-Key: y\r\n",
        "Mcp-Param-Environment: production\r\n",
        "Mcp-Param-Key: x\r\n",
        "",
    ] {
        let reply = update(production, headers);
        assert_eq!((reply.status, reply.code()), (400, -32020), "{headers}: {}", reply.text());
    }
    assert_eq!(firewall.received().len(), before);
}

#[test]
fn a_parameter_header_reaches_the_server_only_as_the_copy_of_its_argument() {
    // E1: whoever routes by such a header must not see another value than the policy did.
    let definition = r#"{"resultType":"complete","tools":[{"name":"update_flag","inputSchema":{"type":"object","properties":{"key":{"type":"string","x-mcp-header":"Key"},"limit":{"type":"integer","x-mcp-header":"Limit"}}}}]}"#;
    let rules = "set contains {\"pointer\": \"/key\", \"value\": null} if input.tool.arguments.key == \"gone\"\n";
    let firewall = Firewall::with(Setup {
        answer: Box::new(move |received| json(result_for(received, definition).as_bytes())),
        ..ruled(rules)
    });
    let sent = |received: &Received| {
        let lines = received.head.lines().filter(|line| line.starts_with("mcp-param-"));
        let mut lines: Vec<_> = lines.map(ToOwned::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    let call = |tool: &str, arguments: &str, headers: &str| {
        let params = format!(r#""name":"{tool}","arguments":{{{arguments}}}"#);
        let before = firewall.received().len();
        let reply = firewall.send(&modern(2, "tools/call", tool, &params, headers));
        let received = firewall.received();
        (reply.code(), received.get(before).map(sent))
    };
    let dropped = (0, Some(String::new()));
    let key = r#""key":"x""#;
    // Never listed: nobody knows which argument it mirrors, whatever it says.
    for headers in ["Mcp-Param-Key: x\r\n", "Mcp-Param-Key: production\r\n", "Mcp-Param-Odd: y\r\n"]
    {
        assert_eq!(call("update_flag", key, headers), dropped, "{headers}");
    }
    assert_eq!(call("update_flag", r#""key":"gone""#, "Mcp-Param-Key: gone\r\n"), dropped);
    let legacy = post(get_flag(1), &format!("{LEGACY}Mcp-Param-Key: x\r\n"));
    assert_eq!(firewall.send(&legacy).code(), 0);
    assert_eq!(firewall.received().last().map(sent), Some(String::new()));
    // Listed: what is annotated passes as it was sent, and must be a copy.
    assert_eq!(firewall.send(&modern(1, "tools/list", "", "", "Mcp-Param-Key: x\r\n")).status, 200);
    assert_eq!(firewall.received().last().map(sent), Some(String::new()));
    let both = "Mcp-Param-Key: =?base64?eA==?=\r\nMcp-Param-Limit: 5\r\nMcp-Param-Odd: z\r\n";
    assert_eq!(
        call("update_flag", r#""key":"x","limit":5"#, both),
        (0, Some("mcp-param-key: =?base64?ea==?= mcp-param-limit: 5".to_owned()))
    );
    for headers in ["", "Mcp-Param-Key: y\r\n", "Mcp-Param-Key: x\r\nMcp-Param-Limit: 5\r\n"] {
        assert_eq!(call("update_flag", key, headers), (-32020, None), "{headers}");
    }
    // An argument that is set to nothing has no copy.
    assert_eq!(call("update_flag", r#""key":"gone""#, "Mcp-Param-Key: gone\r\n"), dropped);
    assert_eq!(
        member(&firewall.received().last().unwrap().body, "/params/arguments/key"),
        Value::Null
    );
    // Another tool's annotations do not count.
    assert_eq!(call("other", key, "Mcp-Param-Key: x\r\n"), dropped);
}

#[test]
fn what_is_forced_on_a_message_of_the_server_is_done_or_it_does_not_pass() {
    let notice = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info"{arguments}}}}}"#
        )
    };
    let rules = "set contains {\"pointer\": \"/note\", \"value\": \"judged\"} if input.direction == \"to_client\"\n";
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let stream = |sent: &str| events(&format!("data: {sent}\n\ndata: {answer}\n\n"));
    for (sent, got) in [
        (
            notice(r#", "arguments":{"note":"raw" }"#),
            Some(notice(r#", "arguments":{"note":"judged" }"#)),
        ),
        (notice(r#", "arguments":[]"#), None),
    ] {
        let bytes = stream(&sent);
        let firewall =
            Firewall::with(Setup { answer: Box::new(move |_| bytes.clone()), ..ruled(rules) });
        let reply = firewall.ask(get_flag(1));
        let notice = got.map(|got| format!("data: {got}\n\n")).unwrap_or_default();
        assert_eq!(reply.text(), format!("{notice}data: {answer}\n\n"));
    }
}

/// Threat K8: an agent that tries one refused call after the other is held off; the limit counts
/// both kinds of calls, and the server got only what was permitted.
#[test]
fn a_limit_can_count_refused_calls() {
    let firewall = Firewall::with(ruled(
        r#"limit contains {"code": "tries", "key": input.principal.id, "rate": "1/h", "burst": 3, "counts": "all"} if {
	input.method == "tools/call"
}

deny contains {"code": "no", "message": "not this"} if input.tool.name == "refused"
"#,
    ));
    let refused = |id| firewall.ask(call(id, "refused", "{}"));
    assert_eq!(refused(1).code(), -31001);
    assert_eq!(firewall.ask(get_flag(2)).status, 200);
    assert_eq!(refused(3).code(), -31001);
    for id in 4..7 {
        let reply = refused(id);
        assert_eq!(reply.code(), -31002, "{}", reply.text());
        assert!(reply.text().contains("retry"), "{}", reply.text());
    }
    assert_eq!(firewall.ask(get_flag(7)).code(), -31002, "permitted calls wait, too");
    assert_eq!(firewall.received().len(), 1);
    let limited = firewall.record("finding", "rate_limited", 4);
    assert_eq!(limited["decision"]["reasons"][0]["code"], "tries");
}

#[test]
fn a_spent_limit_says_when_to_come_again() {
    let rules = "limit contains {\"code\": \"few\", \"key\": input.principal.id, \"rate\": \"2/h\", \"burst\": 2} if input.tool.name == \"get_flag\"\n";
    let firewall = Firewall::with(ruled(rules));
    for id in 1..3 {
        assert_eq!(firewall.ask(get_flag(id)).status, 200);
    }
    // J1: another connection, client name or session gives no new rate limit.
    for body in [
        get_flag(3),
        r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"get_flag","_meta":{"progressToken":1}}}"#.to_owned(),
    ] {
        let reply = firewall.send(&post(
            body,
            &format!("{LEGACY}X-Forwarded-For: 9.9.9.9\r\nUser-Agent: other\r\n"),
        ));
        assert_eq!((reply.status, reply.code()), (200, -31002), "{}", reply.text());
        let after = reply.json()["error"]["data"]["retry_after_ms"].as_u64().unwrap();
        assert!((1..=1_800_000).contains(&after), "{after}");
    }
    assert_eq!(firewall.received().len(), 2);
    let denial = firewall.record("event", "denial", 2);
    assert_eq!(denial["finding"], "rate_limited");
    assert_eq!(denial["decision"]["reasons"][0]["code"], "few");
    assert_eq!(firewall.ask(call(5, "list_flags", "{}")).status, 200);
}

#[test]
fn a_held_call_names_the_record_to_approve() {
    let rules = "hold contains {\"code\": \"publish\", \"message\": \"needs a second pair of eyes\", \"approvers\": [\"release\"], \"ttl\": \"15m\"} if \"go-live\" in input.operation.tags\n";
    let firewall = Firewall::with(ruled(rules));
    let reply =
        firewall.ask(call(1, "set_rollout", r#"{"key":"x","environment":"staging","percent":5}"#));
    assert_eq!((reply.status, reply.code()), (200, -31004), "{}", reply.text());
    assert!(!reply.text().contains("eyes") && !reply.text().contains("release"));
    assert_eq!(firewall.received().len(), 0);
    let denial = firewall.record("event", "denial", 1);
    assert_eq!(reply.json()["error"]["data"]["decision_id"], denial["call"]);
    assert_eq!(denial["finding"], "approval_requested");
    assert_eq!(denial["decision"]["reasons"][0]["code"], "publish");
}

#[test]
fn observing_decides_and_records_and_enforces_nothing() {
    let listing = r#"{"tools":[{"name":"get_flag"},{"name":"delete_flag"}],"cacheScope":"public"}"#;
    let rules = format!(
        "{SET}\nhide contains \"delete_flag\"\n\ndeny contains {{\"code\": \"no\", \"message\": \"no\"}} if input.tool.name == \"delete_flag\"\n\nhold contains {{\"code\": \"wait\", \"message\": \"wait\"}} if input.tool.name == \"run_script\"\n\nlimit contains {{\"code\": \"none\", \"key\": \"all\", \"rate\": \"0/m\"}} if input.tool.name == \"get_flag\"\n"
    );
    let firewall = Firewall::with(Setup {
        top: "mode: observe\n".to_owned(),
        answer: Box::new(move |received| {
            if member(&received.body, "/method") == "tools/list" {
                json(result_for(received, listing).as_bytes())
            } else {
                json(&odd_answer(&received.body))
            }
        }),
        ..ruled(&rules)
    });
    for tool in ["delete_flag", "run_script", "get_flag"] {
        let body = call(1, tool, r#"{"key":"x","environment":"production"}"#);
        let reply = firewall.ask(&body);
        assert_eq!(reply.body, odd_answer(body.as_bytes()), "{tool}: {}", reply.text());
        assert_eq!(firewall.received().pop().unwrap().body, body.as_bytes(), "{tool}");
    }
    let intents = firewall.records("event", "intent");
    assert_eq!(intents.len(), 3);
    for intent in &intents {
        assert_eq!(intent["decision"]["effect"], "deny", "{intent}");
        assert_eq!(intent["decision"]["enforced"], false, "{intent}");
    }
    let listed = firewall.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert!(listed.text().ends_with(&format!("{listing}}}")), "{}", listed.text());
    assert_eq!(firewall.records("finding", "tools_hidden").len(), 1);
    // A permit that would set an argument sets none either.
    let body = call(2, "update_flag", r#"{"key":"x","environment":"production"}"#);
    firewall.ask(&body);
    assert_eq!(firewall.received().pop().unwrap().body, body.as_bytes());
    let permit = firewall.records("event", "intent").pop().unwrap()["decision"].clone();
    assert_eq!((&permit["effect"], &permit["enforced"]), (&"permit".into(), &false.into()));
    assert_eq!(permit["obligations"], serde_json::json!([]));
    // Observe mode does not turn off the strict profile.
    let before = firewall.received().len();
    assert_eq!(firewall.ask(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#).status, 400);
    assert_eq!(firewall.received().len(), before);
}

#[test]
fn a_refusal_may_take_the_form_of_a_tool_result() {
    let setup = Setup {
        server: "    pack: flag-service\n    environment: staging\n    refusal: tool_result\n"
            .to_owned(),
        ..Setup::default()
    };
    let firewall = Firewall::with(setup);
    let denied = |reply: &Reply, kind: Value| {
        let reply = reply.json();
        assert_eq!(reply["result"]["isError"], true, "{reply}");
        assert_eq!(reply["result"]["resultType"], kind, "{reply}");
        let text = reply["result"]["content"][0]["text"].as_str().unwrap();
        let id = firewall.records("event", "denial").last().unwrap()["call"].clone();
        assert!(
            text.starts_with("Refused by policy") && text.contains(id.as_str().unwrap()),
            "{text}"
        );
    };
    denied(&firewall.ask(call(1, "delete_flag", "{}")), Value::Null);
    let modern = modern(1, "tools/call", "delete_flag", r#""name":"delete_flag""#, "");
    denied(&firewall.send(&modern), "complete".into());
    let other = firewall.ask(r#"{"jsonrpc":"2.0","id":1,"method":"vendor/x"}"#);
    assert_eq!(other.code(), -32601, "{}", other.text());
    assert_eq!(firewall.received().len(), 0);
}

#[test]
fn agents_and_operators_are_served_apart() {
    // M10, M11.
    let firewall = Firewall::start();
    let mut client = Client::connect(firewall.admin());
    client.send(&post(get_flag(1), LEGACY));
    assert_eq!(client.reply().status, 404);
    let path = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes();
    let mut client = Client::connect(firewall.admin());
    client.send(&path("/mcp"));
    assert_eq!(client.reply().status, 404);
    for admin in ["/livez", "/readyz", "/metrics", "/console"] {
        assert_eq!(firewall.send(&path(admin)).status, 404, "{admin}");
    }
    assert_eq!(firewall.received().len(), 0);
}

#[test]
fn hostile_names_stay_inside_their_record() {
    // M5.
    let firewall = Firewall::start();
    let name = r#"x\u001b[2J\n{\"seq\":1}\r\u2028\u202e\u0000"#;
    for body in [
        call(1, name, "{}"),
        format!(r#"{{"jsonrpc":"2.0","id":"{name}","method":"{name}"}}"#),
        format!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{{"uri":"{name}"}}}}"#
        ),
    ] {
        firewall.ask(body);
    }
    let text = journal_text(&firewall.state());
    assert!(text.matches("[2J").count() >= 3, "{text}");
    let steers = |c: char| c != '\n' && c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
    assert!(!text.contains(steers), "{text}");
    // One object a line, each numbered by the journal alone.
    for (number, record) in (1..).zip(firewall.journal()) {
        assert_eq!(record["seq"], number);
    }
}

/// A client that writes HTTP/2 frames.
struct Http2 {
    stream: TcpStream,
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Http2 {
    fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        Self { stream }
    }

    /// Whether the frame could still be written.
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[head.as_slice(), payload].concat()).is_ok()
    }

    /// Everything that comes until stream 1 ends or the connection does: its DATA, and whether
    /// the server said anything at all about it.
    fn outcome(mut self) -> (Vec<u8>, bool) {
        let (mut data, mut told) = (Vec::new(), false);
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).is_err() {
                return (data, told);
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if self.stream.read_exact(&mut payload).is_err() {
                return (data, told);
            }
            let (kind, flags, stream) = (head[3], head[4], head[8]);
            match (kind, stream) {
                (0, 1) => data.extend_from_slice(&payload),
                (HEADERS | RST_STREAM, 1) => told = true,
                (GOAWAY, _) => return (data, true),
                _ => {}
            }
            let ends = matches!(kind, 0 | HEADERS) && flags & END_STREAM != 0;
            if stream == 1 && (ends || kind == RST_STREAM) {
                return (data, told);
            }
        }
    }
}

/// Fields as literals that no table keeps (RFC 7541 §6.2.2).
fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |text: &str, out: &mut Vec<u8>| {
        let mut left = text.len();
        if left < 127 {
            out.push(u8::try_from(left).unwrap());
        } else {
            out.push(127);
            left -= 127;
            while left >= 128 {
                out.push(u8::try_from(left % 128).unwrap() | 128);
                left /= 128;
            }
            out.push(u8::try_from(left).unwrap());
        }
        out.extend_from_slice(text.as_bytes());
    };
    for (name, value) in fields {
        out.push(0);
        text(name, &mut out);
        text(value, &mut out);
    }
    out
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/mcp")];
const PLAIN: [(&str, &str); 2] =
    [("content-type", "application/json"), ("mcp-protocol-version", "2025-11-25")];

/// Sends one request over HTTP/2 and gives the bytes of its answer.
fn over_http2(firewall: &Firewall, fields: &[(&str, &str)], body: &[u8]) -> (Vec<u8>, bool) {
    let mut client = Http2::connect(firewall.address());
    let block = hpack(fields);
    let mut pieces = block.chunks(16_384);
    let last =
        |pieces: &std::slice::Chunks<'_, u8>| if pieces.len() == 0 { END_HEADERS } else { 0 };
    let first = pieces.next().unwrap_or_default();
    let mut open = client.frame(HEADERS, last(&pieces), 1, first);
    while let (true, Some(piece)) = (open, pieces.next()) {
        open = client.frame(CONTINUATION, last(&pieces), 1, piece);
    }
    if open {
        client.frame(0, END_STREAM, 1, body);
    }
    client.outcome()
}

#[test]
fn http2_is_held_to_the_same_profile() {
    // E12, E14, E15.
    let firewall = Firewall::start();
    let body = get_flag(1);
    let with = |pseudo: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]| {
        [pseudo, &PLAIN, more].concat()
    };
    let but = |name: &str, value: &'static str| {
        PSEUDO.map(|(found, old)| (found, if found == name { value } else { old }))
    };
    let good: [(&str, Vec<_>); 5] = [
        ("ok", with(&PSEUDO, &[])),
        ("ok-host", with(&PSEUDO, &[("host", "localhost")])),
        ("ok-te-trailers", with(&PSEUDO, &[("te", "trailers")])),
        ("ok-length", with(&PSEUDO, &[("content-length", "99")])),
        ("ok-spoofed", with(&PSEUDO, &[("x-forwarded-for", "1.2.3.4")])),
    ];
    for (name, fields) in good {
        let before = firewall.received().len();
        let (data, _) = over_http2(&firewall, &fields, body.as_bytes());
        let said = String::from_utf8_lossy(&data);
        assert_eq!(data, odd_answer(body.as_bytes()), "{name} ({} bytes): {said}", body.len());
        let received = firewall.received().split_off(before);
        assert_eq!(received[0].body, body.as_bytes(), "{name}");
        for header in ["te", "x-forwarded-for", "connection"] {
            assert!(received[0].header(header).is_empty(), "{name}: {}", received[0].head);
        }
    }
    let long = "x".repeat(70_000).leak();
    let many: Vec<_> = (0..200).map(|_| ("x-a", "y")).collect();
    let bomb: Vec<_> = (0..60_000).map(|_| ("x-a", "y")).collect();
    let connect = [
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/mcp"),
        (":protocol", "websocket"),
    ];
    let bad = [
        ("h2-authority-host-differ", with(&PSEUDO, &[("host", "127.0.0.1")])),
        ("h2-two-hosts", with(&PSEUDO, &[("host", "localhost"), ("host", "localhost")])),
        ("h2-authority-foreign", with(&but(":authority", "evil.example"), &[])),
        ("h2-authority-user", with(&but(":authority", "me@localhost"), &[])),
        ("h2-no-authority", with(&[PSEUDO[0], PSEUDO[1], PSEUDO[3]], &[])),
        ("h2-no-path", with(&PSEUDO[..3], &[])),
        ("h2-empty-path", with(&but(":path", ""), &[])),
        ("h2-path-absolute", with(&but(":path", "http://localhost/mcp"), &[])),
        ("h2-path-query", with(&but(":path", "/mcp?a"), &[])),
        ("h2-path-dots", with(&but(":path", "/x/../mcp"), &[])),
        ("h2-two-paths", with(&[PSEUDO.as_slice(), &[(":path", "/other")]].concat(), &[])),
        ("h2-two-methods", with(&[PSEUDO.as_slice(), &[(":method", "GET")]].concat(), &[])),
        ("h2-unknown-pseudo", with(&[PSEUDO.as_slice(), &[(":x", "y")]].concat(), &[])),
        ("h2-pseudo-after-field", with(&PSEUDO[..3], &[(":path", "/mcp")])),
        ("h2-status-in-request", with(&[PSEUDO.as_slice(), &[(":status", "200")]].concat(), &[])),
        ("h2-connect-protocol", with(&connect, &[])),
        ("h2-connect", with(&[(":method", "CONNECT"), (":authority", "localhost")], &[])),
        ("h2-method-put", with(&but(":method", "PUT"), &[])),
        (
            "h2-method-override",
            with(&but(":method", "TRACE"), &[("x-http-method-override", "POST")]),
        ),
        ("h2-te-gzip", with(&PSEUDO, &[("te", "gzip")])),
        ("h2-transfer-encoding", with(&PSEUDO, &[("transfer-encoding", "chunked")])),
        ("h2-connection", with(&PSEUDO, &[("connection", "mcp-protocol-version")])),
        ("h2-upgrade", with(&PSEUDO, &[("upgrade", "websocket")])),
        ("h2-keep-alive", with(&PSEUDO, &[("keep-alive", "timeout=5")])),
        ("h2-length-short", with(&PSEUDO, &[("content-length", "10")])),
        ("h2-length-long", with(&PSEUDO, &[("content-length", "1000")])),
        ("h2-length-twice", with(&PSEUDO, &[("content-length", "99"), ("content-length", "98")])),
        ("h2-upper-case-name", with(&PSEUDO, &[("Mcp-Name", "get_flag")])),
        ("h2-lf-in-value", with(&PSEUDO, &[("mcp-name", "get_flag\nx: y")])),
        ("h2-cr-in-value", with(&PSEUDO, &[("mcp-name", "get_flag\r")])),
        ("h2-nul-in-value", with(&PSEUDO, &[("mcp-name", "get_flag\0")])),
        ("h2-space-in-name", with(&PSEUDO, &[("mcp name", "get_flag")])),
        ("h2-colon-in-name", with(&PSEUDO, &[("mcp-name:", "get_flag")])),
        ("h2-empty-name", with(&PSEUDO, &[("", "get_flag")])),
        ("h2-two-types", with(&PSEUDO, &[("content-type", "application/json")])),
        ("h2-coded", with(&PSEUDO, &[("content-encoding", "gzip")])),
        ("h2-origin", with(&PSEUDO, &[("origin", "http://evil.example")])),
        ("h2-header-mismatch", with(&PSEUDO, &[("mcp-name", "delete_flag")])),
        ("h2-long-header", with(&PSEUDO, &[("x-a", long)])),
        ("h2-many-headers", with(&PSEUDO, &many)),
        ("h2-header-bomb", with(&PSEUDO, &bomb)),
    ];
    let before = firewall.received().len();
    for (name, fields) in &bad {
        let (data, told) = over_http2(&firewall, fields, body.as_bytes());
        let said = String::from_utf8_lossy(&data);
        assert_eq!(firewall.received().len(), before, "{name} reached the upstream: {said}");
        assert!(!said.contains("\"result\""), "{name}: {said}");
        assert!(told || data.is_empty(), "{name}: {said}");
    }
    assert_eq!(firewall.ask(get_flag(2)).status, 200);
}

#[test]
fn http2_floods_end_their_connection_and_nothing_else() {
    // E15: rapid reset, CONTINUATION without end, empty DATA without end.
    let firewall = Firewall::start();
    let block = hpack(&[PSEUDO.as_slice(), &PLAIN].concat());
    let resets = |client: &mut Http2, stream: u32| {
        client.frame(HEADERS, END_HEADERS, stream, &block)
            && client.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
    };
    let mut flood = Http2::connect(firewall.address());
    let mut sent = 0;
    while sent < 100_000 && resets(&mut flood, sent * 2 + 1) {
        sent += 1;
    }
    let mut endless = Http2::connect(firewall.address());
    assert!(endless.frame(HEADERS, 0, 1, &block));
    let more = hpack(&vec![("x-a", "y"); 1000]);
    let mut continued = 0;
    while continued < 100_000 && endless.frame(CONTINUATION, 0, 1, &more) {
        continued += 1;
    }
    let mut empty = Http2::connect(firewall.address());
    assert!(empty.frame(HEADERS, END_HEADERS, 1, &block));
    let mut count = 0;
    while count < 2_000_000 && empty.frame(0, 0, 1, b"") {
        count += 1;
    }
    assert!(
        sent < 100_000 && continued < 100_000 && count < 2_000_000,
        "{sent} {continued} {count}"
    );
    assert_eq!(firewall.received().len(), 0);
    assert_eq!(firewall.ask(get_flag(1)).status, 200);
}

#[test]
fn http2_trailers_reach_nobody() {
    // E9.
    let firewall = Firewall::start();
    let body = get_flag(1);
    let mut client = Http2::connect(firewall.address());
    client.frame(HEADERS, END_HEADERS, 1, &hpack(&[PSEUDO.as_slice(), &PLAIN].concat()));
    client.frame(0, 0, 1, body.as_bytes());
    let trailers = hpack(&[("mcp-name", "delete_flag"), ("x-evil", "1")]);
    client.frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers);
    assert_eq!(client.outcome().0, odd_answer(body.as_bytes()));
    let received = &firewall.received()[0];
    assert_eq!(received.body, body.as_bytes());
    assert!(!received.head.contains("delete_flag") && !received.head.contains("evil"));
}
