//! In which order requests are answered (threat K13), and what waits for its turn (threat K12).

use super::super::streams::{begun, in_session};
use super::*;

/// A request that is refused at the door.
const NOWHERE: &[u8] = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How many refusals at the door were recorded before the first refused call.
fn recorded_before_the_call(rig: &Rig) -> usize {
    let kept = rig.sink.kept();
    kept.iter().position(|record| record.method.is_some()).expect("a refused call")
}

#[tokio::test]
async fn requests_in_a_row_let_those_of_others_pass() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let (mut flood, mut other) = (rig.client().await, rig.client().await);
    for client in [&mut flood, &mut other] {
        client.send(&post("", &call(1, "get"))).await;
        assert_eq!(client.reply().await.status, 200);
    }
    rig.sink.kept().clear();
    flood.send(&NOWHERE.repeat(50)).await;
    other.send(&post("", &call(2, "denied"))).await;
    assert_eq!(other.reply().await.status, 200);
    for _ in 0..50 {
        assert_eq!(flood.reply().await.status, 404);
    }
    let before = recorded_before_the_call(&rig);
    assert!(before <= 5, "{before} of 50 came first");
}

#[tokio::test]
async fn new_connections_let_the_requests_of_others_pass() {
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let mut other = rig.client().await;
    other.send(&post("", &call(1, "get"))).await;
    assert_eq!(other.reply().await.status, 200);
    rig.sink.kept().clear();
    // The system connects them; the listener has not run yet.
    let burst: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(rig.address).unwrap();
            std::io::Write::write_all(&mut stream, NOWHERE).unwrap();
            stream
        })
        .collect();
    while rig.sink.kept().is_empty() {
        tokio::task::yield_now().await;
    }
    let begun = rig.sink.kept().len();
    other.send(&post("", &call(2, "denied"))).await;
    assert_eq!(other.reply().await.status, 200);
    let before = recorded_before_the_call(&rig);
    assert!(before - begun <= 40, "{before} of 100 came first, {begun} before it was sent");
    drop(burst);
}

/// All of 127.0.0.0/8 is this host's on Linux.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_of_one_address_let_those_of_another_pass() {
    let processors = std::thread::available_parallelism().unwrap().get();
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let mut crowd = Vec::new();
    for _ in 0..(4 * processors + 100) {
        let mut client = Client::connect_from("127.0.0.66", rig.address).await;
        client.send(NOWHERE).await;
        assert_eq!(client.reply().await.status, 404);
        crowd.push(client);
    }
    let mut other = rig.client().await;
    other.send(&post("", &call(1, "get"))).await;
    assert_eq!(other.reply().await.status, 200);
    rig.sink.kept().clear();
    // All at once: the listener does not run in between.
    tokio::task::unconstrained(async {
        for client in &mut crowd {
            client.send(NOWHERE).await;
        }
        other.send(&post("", &call(2, "denied"))).await;
    })
    .await;
    assert_eq!(other.reply().await.status, 200);
    for client in &mut crowd {
        assert_eq!(client.reply().await.status, 404);
    }
    let before = recorded_before_the_call(&rig);
    assert!(before <= 2 * processors + 8, "{before} of {} came first", crowd.len());
}

/// A message of 16 KiB is judged on a thread of its own, which takes second place.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_are_judged_on_a_thread_of_their_own() {
    let _alone = SLOW_TEST.acquire().await.unwrap();
    let behind = Behind::start(|_, _| json(&result(1))).await;
    let rig = Rig::start(behind.address);
    let mut slow = rig.client().await;
    let padding = " ".repeat(16 << 10);
    slow.send(&post("", &format!("{}{padding}", call(1, "stalls")))).await;
    tokio::task::spawn_blocking(|| SLOW.until_held()).await.unwrap();
    let mut nice = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // Another thread may have ended meanwhile.
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        if let Some((_, fields)) = stat.split_once("(large) ") {
            nice.extend(fields.split(' ').nth(16).map(ToOwned::to_owned));
        }
    }
    SLOW.open();
    assert_eq!(slow.reply().await.text(), result(1));
    // Other tests may have such threads, too.
    assert!(!nice.is_empty() && nice.iter().all(|nice| nice == "5"), "{nice:?}");
}

/// A session whose answers wait for a step over a large message: they stay counted, so that a
/// further one finds no memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_wait_to_be_judged_are_counted() {
    const LARGE: usize = 400_000;
    let _alone = SLOW_TEST.acquire().await.unwrap();
    // One for each answer, because each keeps its permit until the answer waits for it.
    let go = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let [first, second] = go.clone();
    let behind = Behind::start(move |number, request| {
        let body = String::from_utf8_lossy(&request.body);
        let id = body.split("\"id\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        let large = result(id.unwrap().parse().unwrap())
            .replace("[]", &format!("[\"{}\"]", "x".repeat(LARGE)));
        match number {
            0 => begun(),
            1 => [vec![Play::Wait(Arc::clone(&first))], json(&large)].concat(),
            2 => [vec![Play::Wait(Arc::clone(&second))], json(&large)].concat(),
            _ if body.contains("stalls") => json(&result(9)),
            _ => json(&large),
        }
    })
    .await;
    let rig = Rig::with(behind.address, HttpConfig::default(), |up| {
        up.limits.answer_bytes_max = 500_000;
        up.limits.arriving_bytes_max = 1_000_000;
    });
    let (_client, session) = in_session(&rig).await;
    let mut waiting = Vec::new();
    for id in [2, 3] {
        let mut client = rig.client().await;
        client.send(&post(&session, &call(id, "get"))).await;
        behind.nth(waiting.len() + 2).await;
        waiting.push(client);
    }
    let mut slow = rig.client().await;
    let padding = " ".repeat(16 << 10);
    slow.send(&post(&session, &format!("{}{padding}", call(9, "stalls")))).await;
    tokio::task::spawn_blocking(|| SLOW.until_held()).await.unwrap();
    for each in &go {
        each.notify_one();
    }
    // One that comes before both are there has to wait as well, so it is given up.
    tokio::time::sleep(Duration::from_millis(300)).await;
    soon("no memory", async {
        let get = post("", &call(1, "get"));
        while !tokio::time::timeout(Duration::from_secs(1), rig.ask(&get))
            .await
            .is_ok_and(|reply| reply.text().contains("-31006"))
        {}
    })
    .await;
    SLOW.open();
    for client in &mut waiting {
        assert!(client.reply().await.body.len() > LARGE, "what waited was judged");
    }
    assert_eq!(slow.reply().await.text(), result(9));
    assert!(rig.ask(&post("", &call(1, "get"))).await.body.len() > LARGE, "free again");
}
