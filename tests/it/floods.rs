//! Floods of refusals, a journal at its limit, a log that cannot be written, heads that no request
//! comes of: what is recorded, and what is not lost.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use bartizan_audit::journal_directory;
use bartizan_audit::segment;
use bartizan_audit::verify::{Extent, verify};
use serde_json::{Value, json};

use super::failures::Program;
use super::firewall::{
    Client, Firewall, LEGACY, RecordingUpstream, Setup, call, journal, json as body, odd_answer,
    post, wait,
};

/// How many refusals the records stand for: each once, and those that are counted.
fn refusals(records: &[Value]) -> u64 {
    let times = |record: &Value| match record["event"].as_str() {
        Some("denial" | "drop") => 1,
        Some("repeated") => record["repeated"].as_u64().unwrap(),
        _ => 0,
    };
    records.iter().map(times).sum()
}

fn all_records(firewall: &mut Firewall) -> Vec<Value> {
    firewall.stop();
    let summary = verify(&journal_directory(&firewall.state()), Extent::Whole).unwrap();
    assert!(summary.open.is_empty());
    firewall.journal()
}

/// A firewall that counts refusals, as it does by default.
fn counting() -> Firewall {
    Firewall::with(Setup { top: "audit: {repeat_interval: 10s}\n".to_owned(), ..Setup::default() })
}

fn of_event<'a>(records: &'a [Value], event: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn refusals_that_repeat_are_recorded_once_and_counted() {
    let nowhere =
        b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".to_vec();
    let denied = |id: u32, key: &str| {
        let arguments = format!("{{\"key\":\"{key}\",\"environment\":\"production\"}}");
        post(call(id, "update_flag", &arguments), LEGACY)
    };
    let cases: [(&str, Vec<Vec<u8>>); 4] = [
        ("door", vec![nowhere; 150]),
        ("policy", (0..150).map(|n| denied(n, &format!("k{n}"))).collect()),
        ("malformed", vec![post("{", LEGACY); 150]),
        (
            "unsolicited",
            (0..150)
                .map(|n| {
                    post(format!("{{\"jsonrpc\":\"2.0\",\"id\":{n},\"result\":{{}}}}"), LEGACY)
                })
                .collect(),
        ),
    ];
    for (name, requests) in cases {
        let mut firewall = counting();
        let mut ids = BTreeSet::new();
        for request in &requests {
            let reply = firewall.send(request);
            ids.insert(reply.json()["error"]["data"]["decision_id"].as_str().unwrap().to_owned());
        }
        let records = all_records(&mut firewall);
        assert_eq!(refusals(&records), 150, "{name}: nothing is lost");
        let (full, counts) = (of_event(&records, "denial"), of_event(&records, "repeated"));
        assert!(full.len() <= 6 && counts.len() <= 6, "{name}: {} {}", full.len(), counts.len());
        let known: BTreeSet<_> =
            full.iter().map(|record| record["call"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, known, "{name}: each id that an agent was told finds its record");
        for count in counts {
            let first = full.iter().find(|record| record["call"] == count["call"]).unwrap();
            for member in [
                "principal",
                "peer",
                "method",
                "target",
                "operation",
                "decision",
                "finding",
                "maestro",
            ] {
                assert_eq!(count[member], first[member], "{name}: {member}");
            }
            assert!(
                count["since"].is_string() && count["id"].is_null() && count["digest"].is_null()
            );
        }
        assert_eq!(full[0]["peer"], "127.0.0.1", "{name}");
        assert_eq!(firewall.received().len(), 0);
    }
}

#[test]
fn what_differs_has_a_record_of_its_own() {
    let mut firewall = counting();
    for tool in ["delete_flag", "drop_everything"] {
        for environment in ["production", "canary"] {
            for _ in 0..3 {
                let arguments = format!("{{\"key\":\"x\",\"environment\":\"{environment}\"}}");
                assert!(firewall.ask(call(1, tool, &arguments)).json()["error"].is_object());
            }
        }
    }
    firewall.ask(call(1, "get_flag", "{\"key\":\"x\"}"));
    let records = all_records(&mut firewall);
    assert_eq!(refusals(&records), 12);
    assert!(
        of_event(&records, "denial").len() >= 3,
        "each tool, and each environment of a known one"
    );
    assert_eq!(of_event(&records, "intent").len(), of_event(&records, "outcome").len());
}

#[test]
fn nothing_is_lost_in_a_flood_of_kinds() {
    let mut firewall = counting();
    let mut ids = BTreeSet::new();
    for n in 0..300 {
        let reply = firewall.ask(call(n, &format!("tool_{n}"), "{}"));
        ids.insert(reply.json()["error"]["data"]["decision_id"].as_str().unwrap().to_owned());
    }
    let records = all_records(&mut firewall);
    assert_eq!(refusals(&records), 300);
    let full = of_event(&records, "denial");
    assert!(full.len() <= 140, "{}: a caller has 64 kinds at once", full.len());
    let known: BTreeSet<_> =
        full.iter().map(|record| record["call"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, known);
}

#[test]
fn each_refusal_is_recorded_if_the_operator_says_so() {
    let top = "audit: {each_refusal: true}\n".to_owned();
    let mut firewall = Firewall::with(Setup { top, ..Setup::default() });
    for _ in 0..20 {
        firewall.ask("{");
    }
    assert_eq!(of_event(&all_records(&mut firewall), "denial").len(), 20);
}

#[test]
fn counts_are_recorded_while_the_program_runs() {
    let top = "audit: {repeat_interval: 50ms}\n".to_owned();
    let firewall = Firewall::with(Setup { top, ..Setup::default() });
    wait("a count", || {
        firewall.ask("{");
        (!firewall.records("event", "repeated").is_empty()).then_some(())
    });
}

#[test]
fn a_caller_that_floods_is_slowed_down_and_others_are_not() {
    let top = "limits: {refusals: 5}\n".to_owned();
    let mut firewall = Firewall::with(Setup { top, ..Setup::default() });
    let mut client = firewall.client();
    let limited = (1..1000).find_map(|sent| {
        client.send(&post("{", LEGACY));
        let reply = client.reply();
        (reply.status == 429).then_some((sent, reply))
    });
    let (sent, reply) = limited.unwrap();
    assert!(sent > 5, "{sent}");
    assert_eq!(
        (reply.header("retry-after"), reply.header("connection")),
        (vec!["1"], vec!["close"])
    );
    let fine = firewall.ask(call(1, "get_flag", "{\"key\":\"x\"}"));
    assert_eq!(fine.json()["result"]["n"], 150.0, "what may pass is not limited");
    assert_eq!(refusals(&all_records(&mut firewall)), sent, "and none goes uncounted");
}

#[test]
fn each_kind_of_refusal_before_the_policy_is_slowed_down() {
    // No `limit` of a policy sees these.
    let fine = String::from_utf8(post(call(1, "get_flag", "{\"key\":\"x\"}"), LEGACY)).unwrap();
    let with = |headers: &str| {
        let call = call(1, "get_flag", "{\"key\":\"x\"}");
        post(call, &format!("{LEGACY}{headers}\r\n"))
    };
    for (kind, request) in [
        ("a frame that cannot be read", post("[{", LEGACY)),
        ("a frame that is too large", post(call(1, "x".repeat(70_000).as_str(), "{}"), LEGACY)),
        ("a method that does not exist", post(body_of("x/y", 1), LEGACY)),
        ("an unknown session", with("Mcp-Session-Id: s-9")),
        ("a foreign page", with("Origin: https://evil.example")),
        ("a header that is repeated", with("Mcp-Protocol-Version: 2025-06-18")),
        ("a foreign host", fine.replacen("Host: 127.0.0.1", "Host: evil.example", 1).into_bytes()),
        ("an unknown path", fine.replacen("POST /mcp", "POST /other", 1).into_bytes()),
    ] {
        let top = "limits: {refusals: 5, frame_bytes: 64KiB}\n".to_owned();
        let firewall = Firewall::with(Setup { top, ..Setup::default() });
        let first = firewall.send(&request);
        assert_ne!(first.status, 429, "{kind}");
        let limited = (1..1000).find(|_| firewall.send(&request).status == 429);
        assert!(limited.is_some_and(|sent| sent >= 4), "{kind}: {limited:?}");
        assert!(firewall.received().is_empty(), "{kind}");
    }
}

#[test]
fn requests_that_are_no_calls_have_a_limit_in_the_baseline() {
    let mut firewall = counting();
    let mut client = firewall.client();
    let ping = |id: u32| body_of("ping", id);
    let limited = (1..2000).find(|id| {
        client.send(&post(ping(*id), LEGACY));
        client.reply().code() == -31002
    });
    let limited = limited.unwrap();
    assert!(limited > 300, "{limited}");
    for id in 2000..2200 {
        client.send(&post(ping(id), LEGACY));
        client.reply();
    }
    let passed = firewall.received().len();
    let fine = firewall.ask(call(1, "get_flag", "{\"key\":\"x\"}"));
    assert_eq!(fine.json()["result"]["n"], 150.0, "calls have a limit of their own");
    let records = all_records(&mut firewall);
    let intents = of_event(&records, "intent").len();
    assert_eq!(intents, passed + 1);
    assert!(records.len() < 2 * intents + 20, "what is refused is counted");
}

fn body_of(method: &str, id: u32) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\"}}")
}

#[test]
fn a_journal_at_its_limit_refuses_and_says_why() {
    let top = "audit: {bytes: 1MiB, segment_bytes: 64KiB, each_refusal: true}\nlimits: {refusals: 1000000}\n".to_owned();
    let firewall = Firewall::with(Setup { top, ..Setup::default() });
    let ready = || {
        let mut client = Client::connect(firewall.admin());
        client.send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        client.reply()
    };
    let mut client = firewall.client();
    let long = "t".repeat(500);
    let refused = (0..20_000).find_map(|id| {
        client.send(&post(call(id, &long, "{}"), LEGACY));
        let reply = client.reply();
        (reply.code() == -31003).then_some(reply)
    });
    assert_eq!(refused.unwrap().status, 503);
    let reply = firewall.ask(call(1, "get_flag", "{\"key\":\"x\"}"));
    assert_eq!((reply.status, reply.code()), (503, -31003));
    assert_eq!(firewall.received().len(), 0);
    let unready = ready();
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("audit.bytes"), "{}", unready.text());

    // The operator moves the oldest files elsewhere.
    let segments = segment::list(&journal_directory(&firewall.state())).unwrap();
    for old in &segments[..segments.len() - 2] {
        fs::remove_file(&old.path).unwrap();
    }
    wait("readiness", || (ready().status == 200).then_some(()));
    let reply = firewall.ask(call(1, "get_flag", "{\"key\":\"x\"}"));
    assert_eq!(reply.status, 200);
    let directory = journal_directory(&firewall.state());
    assert!(verify(&directory, Extent::Remainder).is_ok());
}

#[test]
fn heads_that_cannot_be_read_leave_a_record() {
    let long = format!("GET /mcp HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let lines = "X: y\r\n".repeat(500);
    for (name, head) in [
        ("no request line", "GARBAGE\r\n\r\n".to_owned()),
        ("a bad version", "GET /mcp HTTP/9.9\r\nHost: a\r\n\r\n".to_owned()),
        ("a bad method", "G(T /mcp HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a bad name", "GET /mcp HTTP/1.1\r\nHo st: a\r\n\r\n".to_owned()),
        ("a bad value", "GET /mcp HTTP/1.1\r\nHost: a\0b\r\n\r\n".to_owned()),
        ("too many lines", format!("GET /mcp HTTP/1.1\r\nHost: a\r\n{lines}\r\n")),
        ("too large", long),
        (
            "two lengths",
            "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
                .to_owned(),
        ),
        (
            "a length that is none",
            "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_owned(),
        ),
        ("a bare line feed", "GET /mcp HTTP/1.1\nHost: a\n\n".to_owned()),
        ("tls", "\u{16}\u{3}\u{1}\0\0\0".to_owned()),
    ] {
        let mut firewall = Firewall::start();
        let mut client = firewall.client();
        client.send(head.as_bytes());
        let record = firewall.record("event", "denial", 1);
        assert_eq!(record["peer"], "127.0.0.1", "{name}");
        assert_eq!(record["finding"], "malformed_frame", "{name}: {record}");
        drop(client);
        assert_eq!(refusals(&all_records(&mut firewall)), 1, "{name}: once");
        assert_eq!(firewall.received().len(), 0, "{name}");
    }
    // A head that does not end.
    let top = "limits: {header_time: 50ms}\n".to_owned();
    let firewall = Firewall::with(Setup { top, ..Setup::default() });
    let mut client = firewall.client();
    client.send(b"GET /mcp HTTP/1.1\r\nHos");
    let record = firewall.record("event", "denial", 1);
    assert_eq!(record["decision"]["reasons"][0]["code"], "slow", "{record}");
    // A connection that says nothing is no refusal.
    let top = "limits: {header_time: 50ms}\n".to_owned();
    let mut firewall = Firewall::with(Setup { top, ..Setup::default() });
    drop(firewall.client());
    assert_eq!(refusals(&all_records(&mut firewall)), 0);
}

#[test]
fn observe_mode_says_what_would_have_been_refused() {
    let top = "mode: observe\n".to_owned();
    let mut firewall = Firewall::with(Setup { top, ..Setup::default() });
    let reply =
        firewall.ask(call(1, "update_flag", "{\"key\":\"x\",\"environment\":\"production\"}"));
    assert!(reply.json()["result"].is_object(), "{reply:?}");
    firewall.ask(call(2, "get_flag", "{\"key\":\"x\"}"));
    let records = all_records(&mut firewall);
    let intents = of_event(&records, "intent");
    assert_eq!(intents[0]["decision"]["effect"], "deny");
    assert_eq!(intents[0]["decision"]["enforced"], json!(false));
    assert_eq!(intents[0]["finding"], "env_pin_violation");
    assert_eq!(intents[0]["maestro"]["layer"], "L7");
    assert_eq!((&intents[1]["finding"], &intents[1]["maestro"]), (&Value::Null, &Value::Null));
}

/// A port that was free a moment ago: the log, which would tell the port, goes nowhere.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_changes_no_decision() {
    use rustix::process::{Resource, Rlimit, prlimit};

    for standard_error in ["2>/dev/full", "2>&-"] {
        let upstream =
            RecordingUpstream::start(Box::new(|received| body(&odd_answer(&received.body))));
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (agents, operators) = (port(), port());
        let config = format!(
            "listen: 127.0.0.1:{agents}\nadmin: 127.0.0.1:{operators}\nstate: {}\nservers:\n  \
             flags: {{path: /mcp, url: '{}', pack: flag-service, environment: staging}}\n",
            state.display(),
            upstream.url(),
        );
        let before = format!("exec {standard_error}; trap '' XFSZ; ulimit -S -f 60;");
        let program = Program::run(folder.path(), &before, &config);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], agents));
        wait("serving", || std::net::TcpStream::connect(address).ok());
        let ask = |body: &str| {
            let mut client = Client::connect(address);
            client.send(&post(body, LEGACY));
            client.reply()
        };
        let allowed = call(1, "get_flag", "{\"key\":\"x\"}");
        // Until the journal cannot be written, which is logged.
        wait("a refusal", || (ask(&allowed).code() == -31003).then_some(()));
        assert_eq!(ask("{").code(), -31003);
        let free = Rlimit { current: None, maximum: None };
        prlimit(Some(program.pid()), Resource::Fsize, free).unwrap();
        // Without a restart.
        wait("a call that passes again", || (ask(&allowed).status == 200).then_some(()));
        assert_eq!(ask("{").code(), -32700);
        assert_eq!(program.stop(), Some(0));
        let records = journal(&state);
        assert!(records.iter().any(|record| record["event"] == "gap"), "{standard_error}");
        let summary = verify(&journal_directory(&state), Extent::Whole).unwrap();
        assert!(summary.stopped && summary.open.is_empty(), "{summary:?}");
    }
}

#[test]
fn trace_context_goes_on_only_where_it_is_allowed() {
    let headers = format!(
        "{LEGACY}Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         Tracestate: a=secret\r\nBaggage: b=secret\r\n"
    );
    let server = "    pack: flag-service\n    environment: staging\n";
    for (allowed, tracestate, baggage) in
        [("", 0, 0), ("[tracestate]", 1, 0), ("[baggage, tracestate]", 1, 1)]
    {
        let context = match allowed {
            "" => String::new(),
            names => format!("    forward_context: {names}\n"),
        };
        let setup = Setup { server: format!("{server}{context}"), ..Setup::default() };
        let firewall = Firewall::with(setup);
        firewall.send(&post(call(1, "get_flag", "{\"key\":\"x\"}"), &headers));
        let received = firewall.received();
        let count = |name: &str| received[0].header(name).len();
        assert_eq!(count("traceparent"), 1, "{allowed}");
        assert_eq!((count("tracestate"), count("baggage")), (tracestate, baggage), "{allowed}");
    }
}

#[test]
fn a_lost_digest_key_is_recorded() {
    let upstream = RecordingUpstream::start(Box::new(|received| body(&odd_answer(&received.body))));
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\nservers:\n  flags: {{path: /mcp, url: '{}'}}\n",
        state.display(),
        upstream.url(),
    );
    let notes = || {
        let records = journal(&state);
        let about = records.iter().filter_map(|record| record["note"].as_str());
        about.filter(|note| note.contains("digest.key")).count()
    };
    for (lost, expected) in [(false, 0), (false, 0), (true, 1), (false, 1)] {
        if lost {
            fs::remove_file(state.join("digest.key")).unwrap();
        }
        let program = Program::run(folder.path(), "", &config);
        program.addresses();
        assert_eq!(program.stop(), Some(0));
        assert_eq!(notes(), expected);
    }
    assert!(verify(&journal_directory(&state), Extent::Whole).is_ok());
}
