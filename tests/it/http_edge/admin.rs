//! Health on a socket and a thread of its own.

use std::io::{Read, Write};
use std::net::SocketAddr;

use bartizan_edge::admin::{AdminListener, CONNECTIONS_MAX, Component, Readiness};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rig::{Client, Reply, soon};

async fn get(address: SocketAddr, target: &str) -> Reply {
    let mut client = Client::connect(address).await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: any\r\n\r\n").as_bytes()).await;
    client.reply().await
}

fn listener(
    readiness: &Readiness,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) -> (SocketAddr, AdminListener) {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = AdminListener::new(tcp, readiness.clone(), tasks.clone(), closing.clone());
    (admin.local_addr().unwrap(), admin)
}

#[tokio::test]
async fn silent_connections_give_way_to_a_probe() {
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let (address, admin) = listener(&Readiness::new(), &tasks, &closing);
    let serving = TaskTracker::new().spawn(admin.start().unwrap());
    let mut silent = Vec::new();
    for round in 0..3 {
        for number in 0..CONNECTIONS_MAX {
            let mut client = Client::connect(address).await;
            if number % 2 == 0 {
                client.send(b"GET /livez HTTP/1.1\r\nHost: any\r\nX: ").await;
            }
            silent.push(client);
        }
        assert_eq!(get(address, "/livez").await.status, 200, "round {round}");
    }
    for client in silent.iter_mut().take(2 * CONNECTIONS_MAX) {
        assert!(client.is_closed().await, "the oldest gave way");
    }
    serving.abort();
}

#[tokio::test]
async fn a_connection_has_one_request() {
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let (address, admin) = listener(&Readiness::new(), &tasks, &closing);
    let serving = TaskTracker::new().spawn(admin.start().unwrap());
    let mut client = Client::connect(address).await;
    let probe = b"GET /livez HTTP/1.1\r\nHost: any\r\n\r\n";
    client.send(&probe.repeat(2)).await;
    assert_eq!(client.reply().await.status, 200);
    assert!(client.is_closed().await);
    serving.abort();
}

/// The runtime of this test has one thread. While that thread is busy, a probe is answered.
#[tokio::test]
async fn probes_are_answered_while_the_serving_threads_are_busy() {
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let (address, admin) = listener(&Readiness::new(), &tasks, &closing);
    let serving = TaskTracker::new().spawn(admin.start().unwrap());
    let mut probe = std::net::TcpStream::connect(address).unwrap();
    probe.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    probe.write_all(b"GET /livez HTTP/1.1\r\nHost: any\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serving.abort();
}

#[tokio::test]
async fn readiness_says_why_not() {
    let readiness = Readiness::new();
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let (address, admin) = listener(&readiness, &tasks, &closing);
    let serving = TaskTracker::new().spawn(admin.start().unwrap());

    assert_eq!(get(address, "/livez").await.status, 200);
    let reply = get(address, "/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.text(),
        r#"{"ready":false,"draining":false,"reasons":{"policy":"not started","journal":"not started","listener":"not started"}}"#
    );
    for component in [Component::Policy, Component::Journal, Component::Listener] {
        assert!(!readiness.is_ready());
        readiness.ready(component);
    }
    assert!(readiness.is_ready());
    assert_eq!(
        get(address, "/readyz").await.text(),
        r#"{"ready":true,"draining":false,"reasons":{}}"#
    );
    readiness.not_ready(Component::Journal, "the disk is full");
    let reply = get(address, "/readyz").await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains(r#""journal":"the disk is full""#));
    assert_eq!(get(address, "/flags").await.status, 404);
    readiness.ready(Component::Journal);

    // While draining it is live but not ready.
    let hold = CancellationToken::new();
    tasks.spawn(hold.clone().cancelled_owned());
    closing.cancel();
    assert_eq!(get(address, "/livez").await.status, 200);
    assert_eq!(get(address, "/readyz").await.status, 503);
    hold.cancel();
    tasks.close();
    soon("the end", serving).await.unwrap();
}
