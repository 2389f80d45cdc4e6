//! Answers of one body: bytes and headers both ways, and how a failing server shows.

use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_edge::upstream::HttpUpstream;
use bartizan_gate::evidence::record::{Event, Outcome};
use bartizan_outbound::SetUpError;
use tokio::sync::Notify;

use super::rig::{
    Behind, Play, Rig, answer, call, json, modern_call, post, result, upstream_config,
};

#[tokio::test]
async fn bytes_pass_unchanged_and_headers_by_list() {
    // Odd spacing, order, escapes, big numbers and unknown fields in both directions.
    const REQUEST: &str = "\t{ \"params\" :{\"name\":\"g\\u0065t\",\"arguments\":{\"n\":12345678901234567890123, \"x\":1.0e2}},\r\n\"method\":\"tools/call\",\"unknown\":[null],\"id\":7,\"jsonrpc\":\"2.0\"}\n";
    const ANSWER: &str =
        " {\"id\" : 7,\"result\":{\"content\":[], \"n\":1E400000000000000000001e0}}";
    let answer_body = ANSWER.replace("1E400000000000000000001e0", "0.10000000000000000000001");
    let expected = answer_body.replacen('{', "{\"jsonrpc\":\"2.0\",", 1);
    let sent = expected.clone();
    let behind = Behind::start(move |_, _| {
        answer(
            "200 OK",
            "Content-Type: application/json; charset=utf-8\r\nSet-Cookie: a=b\r\nServer: x\r\n\
             Location: http://elsewhere/\r\nMcp-Session-Id: unasked\r\nRetry-After: 3\r\n\
             MCP-Protocol-Version: 2025-06-18\r\n",
            &sent,
        )
    })
    .await;
    let rig = Rig::start(behind.address);
    let headers = "Cookie: a=b\r\nAuthorization: Bearer agent\r\nX-Upstream-Key: from-the-agent\r\n\
         X-Forwarded-For: 1.2.3.4\r\nMcp-Init-Host: x\r\nMcp-Param-Region: eu\r\nmcp-param-owned: x\r\n\
         MCP-Protocol-Version: 2025-06-18\r\nLast-Event-ID: 5\r\nUser-Agent: agent/1\r\n\
         Accept-Encoding: gzip\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let reply = rig.ask(&post(headers, REQUEST)).await;

    assert_eq!((reply.status, reply.text()), (200, &*expected));
    assert_eq!(reply.header("content-type"), ["application/json; charset=utf-8"]);
    assert_eq!(reply.header("content-length"), [expected.len().to_string()]);
    assert_eq!(reply.header("retry-after"), ["3"]);
    assert_eq!(reply.header("mcp-protocol-version"), ["2025-06-18"]);
    for name in ["set-cookie", "server", "location", "mcp-session-id"] {
        assert!(reply.header(name).is_empty(), "{name}");
    }
    let received = behind.nth(1).await;
    assert_eq!(received.body, REQUEST.as_bytes());
    assert_eq!(received.header("host"), [behind.address.to_string()]);
    assert_eq!(received.header("x-upstream-key"), ["from-the-sidecar"]);
    assert_eq!(received.header("mcp-protocol-version"), ["2025-06-18"]);
    assert_eq!(received.header("accept"), ["application/json, text/event-stream"]);
    assert_eq!(received.header("accept-encoding"), ["identity"]);
    assert_eq!(received.header("content-type"), ["application/json"]);
    assert_eq!(received.header("user-agent"), ["agent/1"]);
    assert_eq!(received.header("traceparent").len(), 1);
    for name in [
        "cookie",
        "authorization",
        "x-forwarded-for",
        "mcp-init-host",
        // The tool was never listed, so nobody knows what it mirrors.
        "mcp-param-region",
        "mcp-param-owned",
        "last-event-id",
        "mcp-session-id",
    ] {
        assert!(received.header(name).is_empty(), "{name}");
    }
    assert_eq!(rig.sink.events(), [Event::Intent, Event::Outcome]);
}

#[tokio::test]
async fn authorization_goes_on_only_where_configured() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let request = post("Authorization: Bearer agent\r\n", &call(1, "get"));
    let rig = Rig::with(behind.address, HttpConfig::default(), |upstream| {
        upstream.forward_authorization = true;
    });
    rig.ask(&request).await;
    assert_eq!(behind.nth(1).await.header("authorization"), ["Bearer agent"]);
    let rig = Rig::with(behind.address, HttpConfig::default(), |upstream| {
        upstream.forward_authorization = true;
        upstream.headers.insert("authorization", "Bearer sidecar".parse().unwrap());
    });
    rig.ask(&request).await;
    assert_eq!(behind.nth(2).await.header("authorization"), ["Bearer sidecar"]);
}

#[tokio::test]
async fn refusals_by_policy_are_answered_in_band() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let reply = rig.ask(&post("", &call(5, "denied_x"))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), ["application/json"]);
    assert!(reply.text().starts_with(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-31001"#));
    let reply = rig.ask(&post("Mcp-Method: tools/list\r\n", &call(5, "get"))).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("-32020"));
    let reply = rig.ask(&post("", "[]")).await;
    assert_eq!(reply.status, 400);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/denied"}"#;
    assert_eq!(rig.ask(&post("", told)).await.status, 403);
    assert!(behind.received().is_empty());
    assert_eq!(rig.sink.events(), [Event::Denial; 4]);
}

#[tokio::test]
async fn methods_that_the_modern_era_took_out_are_not_found() {
    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let ask = |method: &str, version: &str| {
        let headers = format!("Mcp-Method: {method}\r\n{version}");
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{META}}}}}"#);
        post(&headers, &body)
    };
    let version = "MCP-Protocol-Version: 2026-07-28\r\n";
    // What the modern era does not have is not found, even if the request lacks something else.
    let removed = ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
    for method in ["initialize"].into_iter().chain(removed) {
        let reply = rig.ask(&ask(method, version)).await;
        assert_eq!(reply.status, 404, "{method}");
        assert!(reply.text().contains("-32601"), "{}", reply.text());
    }
    for other in ["", "MCP-Protocol-Version: 2025-11-25\r\n"] {
        let reply = rig.ask(&ask("initialize", other)).await;
        assert_eq!(reply.status, 400, "{other}");
        assert!(reply.text().contains("-32020"), "{}", reply.text());
    }
    assert!(behind.received().is_empty());
}

#[tokio::test]
async fn notifications_are_accepted() {
    let behind = Behind::start(|_, _| {
        vec![Play::Send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec())]
    })
    .await;
    let rig = Rig::start(behind.address);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let reply = rig.ask(&post("", told)).await;
    assert_eq!((reply.status, reply.text()), (202, ""));
    assert_eq!(rig.sink.outcomes(), [Outcome::Accepted]);
    // A request that is only accepted will never be answered.
    let reply = rig.ask(&post("", &call(1, "get"))).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("-31005"), "{}", reply.text());
}

#[tokio::test]
async fn each_serving_thread_has_its_own_connections_to_the_server() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let config = HttpConfig { threads: 2, ..HttpConfig::default() };
    let rig = Rig::with(behind.address, config, |_| {});
    let mut clients = [rig.client().await, rig.client().await];
    for _ in 0..3 {
        for client in &mut clients {
            client.send(&post("", &call(1, "get"))).await;
            assert_eq!(client.reply().await.text(), result(1));
        }
    }
    let connections: Vec<_> = behind.received().iter().map(|one| one.connection).collect();
    assert_eq!(connections, [0, 1, 0, 1, 0, 1]);
}

#[tokio::test]
async fn connections_to_the_server_are_kept() {
    let behind = Behind::start(|number, _| {
        let mut plays = json(&result(1));
        if number == 2 {
            plays.push(Play::Close);
        }
        plays
    })
    .await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    let mut connections = Vec::new();
    for number in 0..5 {
        client.send(&post("", &call(1, "get"))).await;
        assert_eq!(client.reply().await.status, 200, "{number}");
        connections.push(behind.nth(number + 1).await.connection);
        if number == 2 {
            // Lets the close arrive.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(connections, [0, 0, 0, 1, 1]);
}

/// How a server fails, and what the client and the records then say.
#[tokio::test]
async fn failing_servers() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let big = format!("{head}Content-Length: 9999999\r\n\r\n");
    let short = format!("{head}Content-Length: 100\r\n\r\n{{");
    let endless = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
    let gzip = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let cases: Vec<(&str, Vec<Play>, &str, Outcome)> = vec![
        ("closes", vec![Play::Close], "-31005", Outcome::UpstreamFailed),
        (
            "no HTTP",
            vec![Play::Send(b"what?\r\n\r\n".to_vec()), Play::Close],
            "-31005",
            Outcome::UpstreamFailed,
        ),
        (
            "breaks off",
            vec![Play::Send(short.into_bytes()), Play::Close],
            "-31006",
            Outcome::UpstreamFailed,
        ),
        (
            "bad chunks",
            vec![Play::Send(endless.into_bytes()), Play::Close],
            "-31006",
            Outcome::UpstreamFailed,
        ),
        ("too large", vec![Play::Send(big.into_bytes())], "-31006", Outcome::UpstreamFailed),
        ("coded", answer("200 OK", gzip, "xx"), "-31006", Outcome::UpstreamFailed),
        (
            "text",
            answer("200 OK", "Content-Type: text/html\r\n", "<p>"),
            "-31006",
            Outcome::UpstreamFailed,
        ),
        ("no type", answer("200 OK", "", &result(1)), "-31006", Outcome::UpstreamFailed),
        (
            "utf-16",
            answer("200 OK", "Content-Type: application/json; charset=utf-16\r\n", &result(1)),
            "-31006",
            Outcome::UpstreamFailed,
        ),
        ("no frame", json("{}"), "-31006", Outcome::Withheld),
        ("another id", json(&result(2)), "-31005", Outcome::UpstreamFailed),
        (
            "id as text",
            json(&result(1).replace(":1,", ":\"1\",")),
            "-31005",
            Outcome::UpstreamFailed,
        ),
        (
            "a redirect",
            answer("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", ""),
            "-31005",
            Outcome::UpstreamFailed,
        ),
        (
            "another protocol",
            answer("101 Switching Protocols", "Connection: upgrade\r\nUpgrade: x\r\n", ""),
            "-31005",
            Outcome::UpstreamFailed,
        ),
    ];
    for (name, plays, code, outcome) in cases {
        let behind = Behind::start(move |_, _| plays.clone()).await;
        let rig = Rig::start(behind.address);
        let reply = rig.ask(&post("", &call(1, "get"))).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert!(reply.text().starts_with(r#"{"jsonrpc":"2.0","id":1,"error""#), "{name}");
        assert!(reply.text().contains(code), "{name}: {}", reply.text());
        assert!(reply.header("location").is_empty(), "{name}");
        assert_eq!(rig.sink.outcomes(), [outcome], "{name}");
        assert_eq!(behind.received().len(), 1, "{name}: sent once");
    }
}

#[tokio::test]
async fn an_unreachable_server() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let rig = Rig::start(gone);
    let reply = rig.ask(&post("", &call(1, "get"))).await;
    assert!(reply.text().contains("-31005"));
    assert!(!reply.text().contains("127.0.0.1"), "no internal address");
    assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed]);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(rig.ask(&post("", told)).await.status, 502);
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let behind = Behind::start(move |_, _| vec![Play::UntilClosed(Arc::clone(&told))]).await;
    let mut config = HttpConfig::default();
    config.timeouts.answer = Duration::from_millis(50);
    let rig = Rig::with(behind.address, config, |_| {});
    let reply = rig.ask(&post("", &call(1, "get"))).await;
    assert!(reply.text().contains("in time"), "{}", reply.text());
    super::rig::soon("letting go", closed.notified()).await;
    assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed]);
}

/// Statuses and bodies of errors are normative for clients of both eras.
#[tokio::test]
async fn error_answers_of_json_rpc_pass_as_they_are() {
    let json_type = "Content-Type: application/json\r\n";
    let frame = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#;
    let null = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request"},"id":null}"#;
    for (status, headers, body, outcome) in [
        ("404 Not Found", json_type, frame, Outcome::Error),
        ("400 Bad Request", json_type, null, Outcome::Error),
        ("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"x\"\r\n", "", Outcome::Error),
        ("503 Service Unavailable", "Retry-After: 1\r\n", "", Outcome::Error),
    ] {
        let text = answer(status, headers, body);
        let behind = Behind::start(move |_, _| text.clone()).await;
        let rig = Rig::start(behind.address);
        let reply = rig.ask(&post("", &call(1, "get"))).await;
        let code: u16 = status.split(' ').next().unwrap().parse().unwrap();
        assert_eq!((reply.status, reply.text()), (code, body), "{status}");
        let (name, value) = headers.trim_end().split_once(": ").unwrap();
        assert_eq!(reply.header(name), [value], "{status}");
        assert_eq!(rig.sink.outcomes(), [outcome], "{status}");
    }
}

#[tokio::test]
async fn an_error_answer_that_is_anothers_is_withheld() {
    let text = answer("400 Bad Request", "Content-Type: application/json\r\n", &result(9));
    let behind = Behind::start(move |_, _| text.clone()).await;
    let rig = Rig::start(behind.address);
    let reply = rig.ask(&post("", &call(1, "get"))).await;
    assert!(reply.text().contains("-31005"), "{}", reply.text());
}

#[tokio::test]
async fn a_modern_disconnect_lets_go_of_the_server() {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let behind = Behind::start(move |_, _| vec![Play::UntilClosed(Arc::clone(&told))]).await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    client.send(&modern_call(1, "get")).await;
    behind.nth(1).await;
    drop(client);
    super::rig::soon("letting go", closed.notified()).await;
    rig.sink.outcome(Outcome::Cancelled).await;
}

#[tokio::test]
async fn a_legacy_disconnect_is_no_cancellation() {
    // On serving threads, which must not end before such a call does, and without.
    for (threads, drains_before) in [(0, false), (2, false), (2, true)] {
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let behind = Behind::start(move |_, _| {
            let mut plays = vec![Play::Wait(Arc::clone(&wait))];
            plays.extend(json(&result(1)));
            plays
        })
        .await;
        let config = HttpConfig { threads, ..HttpConfig::default() };
        let rig = Rig::with(behind.address, config, |_| {});
        let mut client = rig.client().await;
        client.send(&post("", &call(1, "get"))).await;
        behind.nth(1).await;
        drop(client);
        if drains_before {
            rig.closing.cancel();
            rig.tasks.close();
        }
        // The disconnect is known before the answer comes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        go.notify_one();
        rig.sink.outcome(Outcome::Ok).await;
        rig.drained().await;
    }
}

#[tokio::test]
async fn server_addresses_that_cannot_work_are_refused() {
    let address = "127.0.0.1:1".parse().unwrap();
    let problem = |url: &str, pem: Option<&str>| {
        let mut config = upstream_config(address);
        config.url = url.to_owned();
        config.ca_pem = pem.map(|pem| pem.as_bytes().to_vec());
        HttpUpstream::new(config).err()
    };
    assert!(matches!(problem("/relative", None), Some(SetUpError::Url(_))));
    assert!(matches!(problem("ftp://x/", None), Some(SetUpError::Url(_))));
    assert!(matches!(problem("http://", None), Some(SetUpError::Url(_))));
    assert_eq!(problem("http://a:b@x/", None), Some(SetUpError::UrlCredentials));
    assert!(matches!(problem("https://x/", Some("")), Some(SetUpError::Roots(_))));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(problem("https://x/", Some(broken)), Some(SetUpError::Roots(_))));
    assert_eq!(problem("http://x", None), None);
    let shown = format!("{:?}", upstream_config(address));
    assert!(!shown.contains("from-the-sidecar"), "{shown}");
}
