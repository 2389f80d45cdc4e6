//! Health on a socket of its own.

use bartizan_edge::admin::{AdminListener, Component, Readiness};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rig::{Client, Reply, soon};

async fn get(address: std::net::SocketAddr, target: &str) -> Reply {
    let mut client = Client::connect(address).await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: any\r\n\r\n").as_bytes()).await;
    client.reply().await
}

#[tokio::test]
async fn readiness_says_why_not() {
    let readiness = Readiness::new();
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = AdminListener::new(tcp, readiness.clone(), tasks.clone(), closing.clone()).unwrap();
    let address = admin.local_addr().unwrap();
    let serving = TaskTracker::new().spawn(admin.serve());

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
