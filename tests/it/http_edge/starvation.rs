//! What many slow or greedy clients can take from others: memory, connections, streams (threats K2
//! to K9). The tests count bytes, connections and answers.

#![expect(clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::http::HttpConfig;
use bartizan_gate::evidence::record::{Event, Outcome};
use tokio::sync::Notify;

use super::rig::{
    Behind, Client, Play, Rig, SLOW, call, chunk, json, post, result, soon, stream_head,
};

/// A call with a body of `bytes` bytes.
fn sized(id: u32, bytes: usize) -> Vec<u8> {
    let body = call(id, "get");
    let padding = " ".repeat(bytes - body.len());
    post("", &format!("{body}{padding}"))
}

/// Sends the first `bytes` of `request`; waits until the listener has taken them.
async fn begin(rig: &Rig, request: &[u8], bytes: usize) -> Client {
    let mut client = rig.client().await;
    client.send(&request[..bytes]).await;
    client
}

#[tokio::test]
async fn an_announced_length_reserves_nothing() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.limits.body_bytes_max = 4000;
    config.limits.body_budget_bytes = 8000;
    let rig = Rig::with(behind.address, config, |_| {});
    let request = sized(1, 4000);
    let head = request.len() - 4000;
    let mut greedy = Vec::new();
    for _ in 0..64 {
        greedy.push(begin(&rig, &request, head).await);
    }
    for _ in 0..8 {
        assert_eq!(rig.ask(&sized(1, 4000)).await.status, 200);
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_gives_way() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.limits.body_bytes_max = 4000;
    config.limits.body_budget_bytes = 8000;
    let rig = Rig::with(behind.address, config, |_| {});
    let request = sized(1, 4000);
    let mut greedy = Vec::new();
    for _ in 0..64 {
        greedy.push(begin(&rig, &request, request.len() - 1).await);
    }
    for _ in 0..8 {
        assert_eq!(rig.ask(&sized(1, 4000)).await.status, 200);
    }
    // All but the last two gave way and were told so.
    for client in greedy.iter_mut().take(62) {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, vec!["1"]));
    }
    assert_eq!(behind.received().len(), 8);
}

#[tokio::test]
async fn incomplete_heads_share_a_budget_and_short_ones_need_none() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.limits.head_budget_bytes = 100_000;
    let rig = Rig::with(behind.address, config, |_| {});
    let head = format!("POST /flags HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(44_096));
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(begin(&rig, head.as_bytes(), head.len()).await);
    }
    let mut refused = 0;
    for client in &mut slow {
        if let Ok((status, head)) =
            tokio::time::timeout(Duration::from_millis(200), client.head()).await
        {
            assert!(status == 503 && head.contains("Retry-After: 1"), "{head}");
            refused += 1;
        }
    }
    assert_eq!(refused, 6, "two heads of 40 KB fit into 100 KB");
    assert_eq!(rig.ask(&post("", &call(1, "get"))).await.status, 200);
    drop(slow);
    // What they held is free again.
    let whole = post(&format!("X: {}\r\n", "a".repeat(44_096)), &call(1, "get"));
    let mut again = begin(&rig, &whole, 44_096).await;
    again.send(&whole[44_096..]).await;
    assert_eq!(again.reply().await.status, 200);
}

#[tokio::test]
async fn connections_without_a_request_give_way_to_new_ones() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.limits.connections_max = 32;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut kept = rig.client().await;
    kept.send(&post("", &call(1, "get"))).await;
    assert_eq!(kept.reply().await.status, 200);
    let request = sized(1, 4000);
    let mut silent = Vec::new();
    for number in 0..96 {
        // Nothing, a part of a head, a head without its body.
        silent.push(begin(&rig, &request, [0, 40, request.len() - 3999][number % 3]).await);
        assert_eq!(rig.ask(&post("", &call(1, "get"))).await.status, 200, "{number}");
    }
    // One that had a request gives way after those that never had one.
    kept.send(&post("", &call(1, "get"))).await;
    assert_eq!(kept.reply().await.status, 200);
    for client in silent.iter_mut().take(32) {
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn with_a_request_on_every_connection_a_new_client_is_told() {
    let behind = Behind::start(|_, _| vec![Play::Wait(Arc::new(Notify::new()))]).await;
    let mut config = HttpConfig::default();
    config.limits.connections_max = 2;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut waiting = Vec::new();
    for number in 1..=2 {
        let mut client = rig.client().await;
        client.send(&post("", &call(1, "get"))).await;
        behind.nth(number).await;
        waiting.push(client);
    }
    let (status, head) = rig.client().await.head().await;
    assert!(status == 503 && head.contains("Retry-After: 1"), "{head}");
}

#[tokio::test]
async fn only_requests_keep_a_connection() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.timeouts.idle_connection = Duration::from_millis(300);
    let rig = Rig::with(behind.address, config, |_| {});
    let mut client = rig.client().await;
    let closed = soon("closing", async {
        // Empty lines before a request are no request.
        while client.try_send(b"\r\n").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    closed.await;
    assert!(rig.sink.events().is_empty());
}

#[tokio::test]
async fn an_old_connection_takes_no_new_requests() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let mut config = HttpConfig::default();
    config.timeouts.connection_age = Duration::ZERO;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut client = rig.client().await;
    client.send(&post("", &call(1, "get"))).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, vec!["close"]));
    assert!(client.is_closed().await);
}

/// One thread serves. It judges a large message without end, and goes on serving: small ones, of
/// the same session, too, once that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn long_work_does_not_hold_up_other_agents() {
    let behind = Behind::start(|number, request| {
        let id = if String::from_utf8_lossy(&request.body).contains("slow") { 1 } else { 2 };
        if number == 0 { super::streams::begun() } else { json(&result(id)) }
    })
    .await;
    let rig = Rig::start(behind.address);
    let (_client, session) = super::streams::in_session(&rig).await;
    let body = call(1, "slow");
    let padding = " ".repeat(16 << 10);
    let mut slow = rig.client().await;
    slow.send(&post(&session, &format!("{body}{padding}"))).await;
    tokio::task::spawn_blocking(|| SLOW.until_held()).await.unwrap();
    for _ in 0..10 {
        assert_eq!(rig.ask(&post("", &call(2, "get"))).await.text(), result(2));
    }
    // Of its own session: they wait, and hold up nobody.
    let mut waiting = Vec::new();
    for id in 2..6 {
        let mut client = rig.client().await;
        client.send(&post(&session, &call(id, "get"))).await;
        waiting.push(client);
    }
    for _ in 0..10 {
        assert_eq!(rig.ask(&post("", &call(2, "get"))).await.text(), result(2));
    }
    assert_eq!(behind.received().len(), 21);
    SLOW.open();
    assert_eq!(slow.reply().await.text(), result(1));
    behind.nth(26).await;
}

#[tokio::test]
async fn comments_are_no_progress() {
    let behind = Behind::start(|_, _| {
        let mut plays = vec![stream_head("")];
        for _ in 0..500 {
            plays.extend([Play::Sleep(Duration::from_millis(20)), chunk(": alive\n\n")]);
            plays.push(chunk("id: 1\ndata:\n\n"));
        }
        plays
    })
    .await;
    let mut config = HttpConfig::default();
    config.timeouts.idle_stream = Duration::from_millis(200);
    let rig = Rig::with(behind.address, config, |_| {});
    let reply = rig.ask(&post("", &call(1, "get"))).await;
    assert!(reply.text().contains("in time"), "{}", reply.text());
    assert_eq!(rig.sink.events(), [Event::Intent, Event::Outcome]);
    assert_eq!(rig.sink.outcomes(), [Outcome::UpstreamFailed]);
}

mod http2 {
    //! Frame by frame, because a library would open windows by itself.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const WINDOW_UPDATE: u8 = 8;

    struct Raw {
        stream: TcpStream,
        /// Pings of the listener that were answered.
        pings: usize,
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// A header field that no table is needed for (RFC 7541 §6.2.2).
    fn field(name: &str, value: &str) -> Vec<u8> {
        let mut field = vec![0];
        for text in [name, value] {
            field.push(u8::try_from(text.len()).unwrap());
            field.extend(text.as_bytes());
        }
        field
    }

    impl Raw {
        /// A connection whose streams begin with a window of `window` bytes.
        async fn connect(rig: &Rig, window: u32) -> Self {
            let mut stream = TcpStream::connect(rig.address).await.unwrap();
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            let mut setting = vec![0, 4];
            setting.extend(window.to_be_bytes());
            stream.write_all(&frame(SETTINGS, 0, 0, &setting)).await.unwrap();
            Self { stream, pings: 0 }
        }

        async fn call(&mut self, stream: u32) {
            let body = call(stream, "get");
            let fields = [
                field(":method", "POST"),
                field(":scheme", "http"),
                field(":path", "/flags"),
                field(":authority", "localhost"),
                field("content-type", "application/json"),
            ]
            .concat();
            self.stream.write_all(&frame(HEADERS, 4, stream, &fields)).await.unwrap();
            self.stream.write_all(&frame(DATA, 1, stream, body.as_bytes())).await.unwrap();
        }

        async fn open_window(&mut self, stream: u32, bytes: u32) {
            let update = frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
            self.stream.write_all(&update).await.unwrap();
        }

        /// The next frame that is neither a ping, which is answered, nor about settings: its kind,
        /// its stream and its payload; nothing at the end of the connection.
        async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
            soon("a frame", async {
                loop {
                    let mut head = [0; 9];
                    self.stream.read_exact(&mut head).await.ok()?;
                    let [a, b, c, kind, flags, rest @ ..] = head;
                    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
                    self.stream.read_exact(&mut payload).await.ok()?;
                    match kind {
                        PING if flags == 0 => {
                            self.pings += 1;
                            let pong = frame(PING, 1, 0, &payload);
                            self.stream.write_all(&pong).await.ok()?;
                        }
                        SETTINGS | WINDOW_UPDATE => {}
                        _ => return Some((kind, u32::from_be_bytes(rest), payload)),
                    }
                }
            })
            .await
        }
    }

    fn config() -> HttpConfig {
        let mut config = HttpConfig::default();
        config.timeouts.write = Duration::from_millis(300);
        config.timeouts.h2_ping = Duration::from_millis(50);
        config
    }

    #[tokio::test]
    async fn a_stream_whose_client_takes_nothing_is_reset_and_no_other() {
        let large = result(1).replace("[]", &format!("[\"{}\"]", "x".repeat(100_000)));
        let behind = Behind::start(move |number, _| json(if number == 0 { &large } else { "{}" }));
        let behind = behind.await;
        let rig = Rig::with(behind.address, config(), |_| {});
        let mut client = Raw::connect(&rig, 0).await;
        client.call(1).await;
        assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 1)));
        let reset = client.next().await.map(|(kind, stream, _)| (kind, stream));
        assert_eq!(reset, Some((RST_STREAM, 1)));
        assert!(client.pings > 0, "the client was there all the time");
        // The connection serves on.
        client.call(3).await;
        client.open_window(3, 1000).await;
        assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 3)));
        assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((DATA, 3)));
    }

    #[tokio::test]
    async fn an_event_stream_whose_client_takes_nothing_is_reset() {
        let closed = Arc::new(Notify::new());
        let told = Arc::clone(&closed);
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
        let behind = Behind::start(move |_, _| {
            let event = chunk(&format!("data: {notice}\n\n"));
            vec![stream_head(""), event.clone(), event, Play::UntilClosed(Arc::clone(&told))]
        })
        .await;
        let mut config = config();
        config.timeouts.drain = Duration::from_millis(50);
        let rig = Rig::with(behind.address, config, |_| {});
        let mut client = Raw::connect(&rig, 0).await;
        client.call(1).await;
        assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 1)));
        let reset = client.next().await.map(|(kind, stream, _)| (kind, stream));
        assert_eq!(reset, Some((RST_STREAM, 1)));
        soon("letting the server go", closed.notified()).await;
        assert_eq!(rig.sink.outcomes(), [Outcome::Cancelled]);
    }

    #[tokio::test]
    async fn a_stream_that_waits_for_its_server_is_not_reset() {
        let behind = Behind::start(|_, _| {
            let answer = format!("data: {}\n\n", result(1));
            vec![stream_head(""), Play::Sleep(Duration::from_millis(900)), chunk(&answer)]
        })
        .await;
        let rig = Rig::with(behind.address, config(), |_| {});
        let mut client = Raw::connect(&rig, 1000).await;
        client.call(1).await;
        assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 1)));
        assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((DATA, 1)));
    }

    #[tokio::test]
    async fn answering_pings_does_not_keep_a_connection() {
        let behind = Behind::start(|_, _| json(&result(1))).await;
        let mut config = config();
        config.timeouts.idle_connection = Duration::from_millis(300);
        let rig = Rig::with(behind.address, config, |_| {});
        let mut client = Raw::connect(&rig, 1000).await;
        client.call(1).await;
        while client.next().await.is_some_and(|(kind, ..)| kind != GOAWAY) {}
        assert!(client.pings > 1, "{}", client.pings);
    }

    #[tokio::test]
    async fn an_old_connection_is_told_to_go_away() {
        let behind = Behind::start(|_, _| json(&result(1))).await;
        let mut config = config();
        config.timeouts.connection_age = Duration::ZERO;
        let rig = Rig::with(behind.address, config, |_| {});
        let mut client = Raw::connect(&rig, 1000).await;
        client.call(1).await;
        let mut kinds = Vec::new();
        while let Some((kind, ..)) = client.next().await {
            kinds.push(kind);
        }
        assert!(kinds.contains(&GOAWAY) && kinds.contains(&DATA), "{kinds:?}");
    }

    #[tokio::test]
    async fn connections_are_bounded_in_number() {
        let behind = Behind::start(|_, _| json(&result(1))).await;
        let mut config = config();
        config.limits.h2_connections_max = 1;
        let rig = Rig::with(behind.address, config, |_| {});
        let mut first = Raw::connect(&rig, 1000).await;
        first.call(1).await;
        assert_eq!(first.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 1)));
        let mut second = Raw::connect(&rig, 1000).await;
        while second.next().await.is_some_and(|(kind, ..)| kind == GOAWAY) {}
        assert_eq!(rig.ask(&post("", &call(1, "get"))).await.status, 200);
    }
}
