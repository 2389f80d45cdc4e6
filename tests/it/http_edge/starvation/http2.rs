//! HTTP/2 frame by frame, because a library would open windows by itself.

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
const CONTINUATION: u8 = 9;

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
            field("accept", "application/json, text/event-stream"),
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
                let mut payload =
                    vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
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
async fn an_answer_that_begins_with_comments_is_reset_if_its_client_takes_nothing() {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let behind = Behind::start(move |_, _| vec![Play::UntilClosed(Arc::clone(&told))]).await;
    let mut config = config();
    config.timeouts.drain = Duration::from_millis(50);
    config.timeouts.keep_alive = Some(Duration::from_millis(20));
    let rig = Rig::with(behind.address, config, |_| {});
    let mut client = Raw::connect(&rig, 20).await;
    client.call(1).await;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&RST_STREAM) {
        kinds.push(client.next().await.unwrap().0);
    }
    // One comment, and the part of another for which there is room.
    assert_eq!(kinds, [HEADERS, DATA, DATA, RST_STREAM]);
    soon("letting the server go", closed.notified()).await;
    assert_eq!(rig.sink.outcomes(), [Outcome::Cancelled]);
}

#[tokio::test]
async fn an_answer_that_begins_with_comments_may_take_longer_than_a_client() {
    let go = Arc::new(Notify::new());
    let wait = Play::Wait(Arc::clone(&go));
    let behind = Behind::start(move |_, _| [vec![wait.clone()], json(&result(1))].concat()).await;
    let mut config = config();
    config.timeouts.keep_alive = Some(config.timeouts.write / 10);
    let rig = Rig::with(behind.address, config, |_| {});
    let mut client = Raw::connect(&rig, 10_000).await;
    client.call(1).await;
    assert_eq!(client.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 1)));
    for _ in 0..25 {
        let (kind, _, text) = client.next().await.unwrap();
        assert_eq!((kind, &*text), (DATA, &b": keep-alive\n\n"[..]));
    }
    go.notify_one();
    let mut heard = Vec::new();
    while !heard.ends_with(format!("data: {}\n\n", result(1)).as_bytes()) {
        let (kind, _, text) = client.next().await.unwrap();
        assert_eq!(kind, DATA);
        heard.extend(text);
    }
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

/// The reason of the only record, once there is one.
async fn only_reason(rig: &Rig) -> (Event, String, String) {
    soon("a record", async {
        while rig.sink.kept().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let kept = rig.sink.kept();
    let [record] = &**kept else { panic!("{kept:?}") };
    let reasons = &record.decision.as_ref().unwrap().reasons;
    let code = reasons.first().unwrap().code.to_string();
    (record.event, code, record.note.as_deref().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn frames_that_break_the_protocol_leave_a_record() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    for (name, bytes) in [
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 1, b"x")),
        ("settings of an odd length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a head that cannot be decoded", frame(HEADERS, 5, 1, &[0xff; 16])),
    ] {
        let rig = Rig::start(behind.address);
        let mut raw = Raw::connect(&rig, 65_535).await;
        raw.stream.write_all(&bytes).await.unwrap();
        let (event, code, note) = only_reason(&rig).await;
        assert_eq!((event, &*code), (Event::Denial, "framing"), "{name}");
        assert!(note.contains("HTTP/2 frames that break the protocol"), "{name}: {note}");
    }
    assert!(behind.received().is_empty());
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_with_a_record() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let mut raw = Raw::connect(&rig, 65_535).await;
    let mut fields = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/flags"),
        field(":authority", "localhost"),
        field("content-type", "application/json"),
    ]
    .concat();
    for _ in 0..600 {
        fields.extend(field("x", &"a".repeat(100)));
    }
    let pieces: Vec<&[u8]> = fields.chunks(16_000).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        // The last one ends the head.
        let flags = if number + 1 == pieces.len() { 4 } else { 0 };
        raw.stream.write_all(&frame(kind, flags, 1, piece)).await.unwrap();
    }
    let (event, code, _) = only_reason(&rig).await;
    assert_eq!((event, &*code), (Event::Denial, "head-too-large"));
    assert_eq!(raw.next().await.map(|(kind, stream, _)| (kind, stream)), Some((HEADERS, 1)));
    assert!(behind.received().is_empty());
}
