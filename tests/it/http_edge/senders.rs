//! What records say of who sent a message: the conversation, the client, the address; of a request
//! that is refused at the door, where it was sent to.

use std::sync::atomic::{AtomicUsize, Ordering};

use bartizan_gate::evidence::record::{AuditRecord, Event, Outcome};

use super::rig::{Behind, Client, Rig, answer, call, json, modern_call, post, result};
use super::streams::{INITIALIZE, INITIALIZED};

/// A server with sessions.
async fn server() -> Behind {
    let sessions = AtomicUsize::new(0);
    Behind::start(move |_, request| {
        let body = std::str::from_utf8(&request.body).unwrap();
        if body.contains("initialize") {
            let number = sessions.fetch_add(1, Ordering::Relaxed);
            let head = format!("Content-Type: application/json\r\nMcp-Session-Id: s-{number}\r\n");
            return answer("200 OK", &head, INITIALIZED);
        }
        json(&result(if body.contains(r#""id":2"#) { 2 } else { 1 }))
    })
    .await
}

/// The session id that `client` gets.
async fn begin(client: &mut Client) -> String {
    client.send(&post("", INITIALIZE)).await;
    let reply = client.reply().await;
    let [id] = &*reply.header("mcp-session-id") else { panic!("{}", reply.head) };
    (*id).to_owned()
}

async fn sends(client: &mut Client, request: &[u8]) {
    client.send(request).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// The conversation that each record names, with the records.
fn conversations(records: &[AuditRecord]) -> Vec<&str> {
    records.iter().map(|record| record.session.as_deref().unwrap()).collect()
}

#[tokio::test]
async fn records_of_a_session_name_one_conversation_over_all_its_connections() {
    let behind = server().await;
    let rig = Rig::start(behind.address);
    let (mut one, mut two) = (rig.client().await, rig.client().await);
    let id = begin(&mut one).await;
    let header = format!("Mcp-Session-Id: {id}\r\n");
    sends(&mut one, &post(&header, &call(1, "get"))).await;
    sends(&mut two, &post(&header, &call(2, "get"))).await;
    let other = begin(&mut one).await;
    sends(&mut two, &post(&format!("Mcp-Session-Id: {other}\r\n"), &call(1, "get"))).await;

    let kept = rig.sink.kept();
    let named = conversations(&kept);
    assert_eq!(named.len(), 10, "{named:?}");
    assert!(named[..6].iter().all(|name| *name == named[0]), "{named:?}");
    assert!(named[6..].iter().all(|name| *name == named[6]), "{named:?}");
    assert_ne!(named[0], named[6]);
    for name in [named[0], named[6]] {
        assert!(name.len() == 32 && name.bytes().all(|digit| digit.is_ascii_hexdigit()), "{name}");
        assert!(!id.contains(name) && !other.contains(name), "not the id that the client has");
    }
}

#[tokio::test]
async fn records_of_a_modern_client_name_its_connection() {
    let behind = server().await;
    let rig = Rig::start(behind.address);
    let (mut one, mut two) = (rig.client().await, rig.client().await);
    sends(&mut one, &modern_call(1, "get")).await;
    sends(&mut one, &modern_call(2, "get")).await;
    sends(&mut two, &modern_call(1, "get")).await;
    let kept = rig.sink.kept();
    let named = conversations(&kept);
    assert!(named[..4].iter().all(|name| *name == named[0]), "{named:?}");
    assert_eq!(named[4], named[5]);
    assert_ne!(named[0], named[4]);
}

#[tokio::test]
async fn the_first_record_of_a_call_names_client_and_address() {
    let behind = server().await;
    let rig = Rig::start(behind.address);
    let mut client = rig.client().await;
    let id = begin(&mut client).await;
    sends(&mut client, &post(&format!("Mcp-Session-Id: {id}\r\n"), &call(1, "get"))).await;
    let kept = rig.sink.kept();
    let [_, _, intent, outcome] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((intent.event, intent.peer.as_deref()), (Event::Intent, Some("127.0.0.1")));
    let calls_itself = intent.client.as_deref().map(|client| (&*client.name, &*client.version));
    assert_eq!(calls_itself, Some(("t", "1")));
    assert_eq!((&outcome.outcome, &outcome.peer), (&Some(Outcome::Ok), &None));
    assert_eq!((&outcome.client, &outcome.session), (&None, &intent.session));
}

#[tokio::test]
async fn a_refusal_at_the_door_says_where_the_request_was_sent_to() {
    let behind = server().await;
    let rig = Rig::start(behind.address);
    let secret = concat!("ghp_", "16C7e42F292c6912E7710c838347Ae178B4a");
    let path = format!("/{secret}/{}?token=never", "x".repeat(400));
    for (from, to) in
        [("/flags", &*path), ("localhost", "evil.example"), ("Host", "Origin: null\r\nHost")]
    {
        let request = String::from_utf8(post("", &call(1, "get"))).unwrap().replacen(from, to, 1);
        assert_ne!(rig.ask(request.as_bytes()).await.status, 200, "{to}");
    }
    let kept = rig.sink.kept();
    let [path, host, origin] = &kept[..] else { panic!("{kept:?}") };
    let shown = path.http.as_deref().unwrap();
    assert_eq!((&*shown.method, shown.host.as_deref()), ("POST", Some("localhost")));
    assert!(shown.path.starts_with("/***/x") && shown.path.len() <= 256, "{}", &*shown.path);
    assert!(!shown.path.contains("never") && !shown.path.contains(secret));
    assert_eq!(host.http.as_deref().unwrap().host.as_deref(), Some("evil.example"));
    assert_eq!(host.server.as_deref(), Some("flags"));
    assert_eq!(origin.http.as_deref().unwrap().origin.as_deref(), Some("null"));
    assert!(kept.iter().all(|record| record.peer.as_deref() == Some("127.0.0.1")));
}

#[tokio::test]
async fn a_refusal_at_the_door_keeps_no_session_id_and_no_password() {
    let behind = server().await;
    let rig = Rig::start(behind.address);
    let id = "0123456789abcdef".repeat(2);
    let message = format!("/flags/sse/{id}");
    for (from, to) in [
        ("POST /flags", &*format!("POST {message}")),
        ("POST /flags", "POST /flags;jsessionid=s3cr3t"),
        ("Host: localhost", "Host: user:s3cr3t@localhost"),
    ] {
        let request = String::from_utf8(post("", &call(1, "get"))).unwrap().replacen(from, to, 1);
        assert_ne!(rig.ask(request.as_bytes()).await.status, 200, "{to}");
    }
    let kept = rig.sink.kept();
    let targets: Vec<_> = kept.iter().filter_map(|record| record.http.as_deref()).collect();
    let [session, parameter, host] = &targets[..] else { panic!("{kept:?}") };
    assert_eq!(&*session.path, "/flags/sse/***");
    assert_eq!(&*parameter.path, "/flags;***");
    assert_eq!(host.host.as_deref(), Some("***@localhost"));
}
