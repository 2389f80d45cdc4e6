//! What many slow or greedy clients can take from others: memory, connections, streams, turns
//! (threats K2 to K13). The tests count bytes, connections and answers.

#![expect(clippy::indexing_slicing, reason = "tests")]

mod http2;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use bartizan_edge::http::{HttpConfig, Route};
use bartizan_edge::processors;
use bartizan_edge::upstream::HttpUpstream;
use bartizan_gate::duty::decision::{Bound, Limit, Obligation, Rate};
use bartizan_gate::duty::limit::shared::{NotShared, SharedLimits, SharedTake};
use bartizan_gate::evidence::record::{Event, Outcome};
use bartizan_gate::question::access::{AccessRequest, Principal};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::rig::{
    Behind, CRAWLS, Client, DRAGS, HUNG, Play, Rig, SLOW, SLOW_TEST, call, chunk, json, post,
    result, shared_judged, soon, stream_head, upstream_config,
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

#[tokio::test]
async fn answers_that_nobody_reads_give_way() {
    let large = result(1).replace("[]", &format!("[\"{}\"]", "x".repeat(4_000_000)));
    let behind = Behind::start(move |_, _| json(&large)).await;
    let mut config = HttpConfig::default();
    config.limits.answer_budget_bytes = 9_000_000;
    let rig = Rig::with(behind.address, config, |_| {});
    let mut clients = Vec::new();
    for number in 1..=6 {
        let mut client = rig.client().await;
        client.send(&post("", &call(1, "get"))).await;
        assert_eq!(client.head().await.0, 200, "{number}");
        clients.push(client);
    }
    let mut whole = Vec::new();
    for client in &mut clients {
        whole.push(client.rest().await >= 4_000_000);
    }
    assert_eq!(whole, [false, false, false, false, true, true]);
}

#[tokio::test]
async fn answers_that_do_not_end_give_way() {
    let large = result(1).replace("[]", &format!("[\"{}\"]", "x".repeat(400_000)));
    let behind = Behind::start(move |number, _| {
        if number >= 4 {
            return json(&large);
        }
        let [Play::Send(bytes)] = &json(&large)[..] else { panic!("one piece") };
        let begun = bytes[..bytes.len() - 1].to_vec();
        vec![Play::Send(begun), Play::Wait(Arc::new(Notify::new()))]
    })
    .await;
    let rig = Rig::with(behind.address, HttpConfig::default(), |up| {
        up.limits.answer_bytes_max = 500_000;
        up.limits.arriving_bytes_max = 1_000_000;
    });
    let mut waiting = Vec::new();
    for number in 1..=4 {
        let mut client = rig.client().await;
        client.send(&post("", &call(1, "get"))).await;
        behind.nth(number).await;
        waiting.push(client);
    }
    for client in waiting.iter_mut().take(2) {
        assert!(client.reply().await.text().contains("-31006"), "the oldest failed");
    }
    for _ in 0..3 {
        assert_eq!(
            rig.ask(&post("", &call(1, "get"))).await.body.len(),
            400_000 + result(1).len() + 2
        );
    }
}

/// One thread serves. It judges a large message without end, and goes on serving: small ones, of
/// the same session, too, once that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn long_work_does_not_hold_up_other_agents() {
    let _alone = SLOW_TEST.acquire().await.unwrap();
    let behind = Behind::start(|number, request| {
        let id = if String::from_utf8_lossy(&request.body).contains("stalls") { 1 } else { 2 };
        if number == 0 { super::streams::begun() } else { json(&result(id)) }
    })
    .await;
    let rig = Rig::start(behind.address);
    let (_client, session) = super::streams::in_session(&rig).await;
    let body = call(1, "stalls");
    let padding = " ".repeat(16 << 10);
    let mut slow = rig.client().await;
    slow.send(&post(&session, &format!("{body}{padding}"))).await;
    tokio::task::spawn_blocking(|| SLOW.until_held()).await.unwrap();
    for _ in 0..10 {
        assert_eq!(rig.ask(&post("", &call(2, "get"))).await.text(), result(2));
    }
    // Of its own session: they wait, and hold up nobody.
    let _waiting = four_of(&rig, &session).await;
    for _ in 0..10 {
        assert_eq!(rig.ask(&post("", &call(2, "get"))).await.text(), result(2));
    }
    assert_eq!(behind.received().len(), 21);
    SLOW.open();
    assert_eq!(slow.reply().await.text(), result(1));
    behind.nth(26).await;
}

/// Clients that ask for 2 to 5 in `session`.
async fn four_of(rig: &Rig, session: &str) -> Vec<Client> {
    let mut waiting = Vec::new();
    for id in 2..6 {
        let mut client = rig.client().await;
        client.send(&post(session, &call(id, "get"))).await;
        waiting.push(client);
    }
    waiting
}

/// A store of limits that does not answer until the test lets it.
struct Hung;

impl SharedLimits for Hung {
    fn take(&self, _: &[SharedTake]) -> Result<(), NotShared> {
        bartizan_edge::wait(|| HUNG.wait());
        Ok(())
    }
}

/// A call of `counted` takes from a limit.
fn counts(name: &str, _: &AccessRequest<'_>) -> Option<Vec<Obligation>> {
    let bound = Bound::Fixed(Rate { count: 1, period: Duration::from_mins(1) });
    let limit = Limit { code: "calls".into(), key: "all".into(), bound, cost: 1 };
    match name {
        "denied" => None,
        "counted" => Some(vec![Obligation::Limit(limit)]),
        _ => Some(Vec::new()),
    }
}

/// One thread serves. The store in which limits are counted hangs: other calls go on, also while
/// others of the same session wait, and large ones: who waits for the store keeps no turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_store_of_limits_that_hangs_does_not_hold_up_other_agents() {
    let opened = HUNG.for_this_test();
    let behind = Behind::start(|number, request| {
        let id = if String::from_utf8_lossy(&request.body).contains("counted") { 1 } else { 2 };
        if number == 0 { super::streams::begun() } else { json(&result(id)) }
    })
    .await;
    let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    let shared = shared_judged(counts, |gate| gate.sharing_limits(Arc::new(Hung)));
    let rig = Rig::sharing(shared, HttpConfig::default(), |_| upstream.into(), |route| vec![route]);
    let (_client, session) = super::streams::in_session(&rig).await;
    let padding = " ".repeat(16 << 10);
    let large = |id, tool| format!("{}{padding}", call(id, tool));
    let mut slow = rig.client().await;
    slow.send(&post(&session, &large(1, "counted"))).await;
    tokio::task::spawn_blocking(|| HUNG.until_held()).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 1..processors() {
        let mut client = rig.client().await;
        client.send(&post("", &large(1, "counted"))).await;
        crowd.push(client);
    }
    // Of its own session: they wait, and hold up nobody.
    let _waiting = four_of(&rig, &session).await;
    for body in [call(2, "get"), large(2, "get")] {
        for _ in 0..5 {
            assert_eq!(rig.ask(&post("", &body)).await.text(), result(2));
        }
    }
    assert_eq!(behind.received().len(), 11);
    drop(opened);
    assert_eq!(slow.reply().await.text(), result(1));
    behind.nth(15 + processors()).await;
}

/// Messages of others in [`asks_of_others`]: fewer slow ones than make all of a principal's slow.
const OTHERS: usize = 6;
const MOST_OTHERS: usize = 4;

/// A firewall before `behind` whose agents are `principal`, of whom no other test has said that its
/// messages are slow.
fn rig_of(principal: &str, behind: &Behind) -> Rig {
    let upstream = HttpUpstream::new(upstream_config(behind.address)).unwrap();
    let principal = Arc::new(Principal { id: principal.into(), ..Principal::default() });
    Rig::of(HttpConfig::default(), |_| upstream.into(), |route| vec![Route { principal, ..route }])
}

/// Messages that are not known to be slow, each under a name of its own. Most are answered at once: a
/// machine that does much else can make some of them slow, and some names share a place with one that
/// is known to be slow.
async fn asks_of_others(rig: &Rig) {
    let mut asked = JoinSet::new();
    for number in 0..OTHERS {
        let address = rig.address;
        asked.spawn(async move {
            let mut client = Client::connect(address).await;
            client.send(&post("", &call(2, &format!("get-{number}")))).await;
            assert_eq!(client.reply().await.text(), result(2));
        });
    }
    for _ in 0..MOST_OTHERS {
        soon("an answer", asked.join_next()).await.unwrap().unwrap();
    }
}

/// One thread serves. A small message for which the policy took long once is judged aside when it
/// comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slow_rule_over_small_messages_does_not_hold_up_other_agents() {
    let _alone = SLOW_TEST.acquire().await.unwrap();
    let _opened = DRAGS.for_this_test();
    let behind = Behind::start(|_, request| {
        let slow = String::from_utf8_lossy(&request.body).contains("drags");
        json(&result(if slow { 1 } else { 2 }))
    })
    .await;
    let rig = rig_of("drags", &behind);
    assert_eq!(rig.ask(&post("", &call(1, "drags"))).await.text(), result(1));
    let mut slow = rig.client().await;
    slow.send(&post("", &call(1, "drags"))).await;
    tokio::task::spawn_blocking(|| DRAGS.until_held()).await.unwrap();
    asks_of_others(&rig).await;
    assert!(behind.received().len() > MOST_OTHERS);
    DRAGS.open();
    assert_eq!(slow.reply().await.text(), result(1));
}

/// Messages that take long are judged by so many threads as leave one processor to all others,
/// however many of them come.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_crowd_of_slow_messages_leaves_a_processor_to_the_others() {
    let _alone = SLOW_TEST.acquire().await.unwrap();
    let _opened = CRAWLS.for_this_test();
    let behind = Behind::start(|_, request| {
        let slow = String::from_utf8_lossy(&request.body).contains("crawls");
        json(&result(if slow { 1 } else { 2 }))
    })
    .await;
    let rig = rig_of("crawls", &behind);
    assert_eq!(rig.ask(&post("", &call(1, "crawls"))).await.text(), result(1));
    let at_once = processors().saturating_sub(1).max(1);
    let mut crowd = Vec::new();
    for _ in 0..at_once + 8 {
        let mut client = rig.client().await;
        client.send(&post("", &call(1, "crawls"))).await;
        crowd.push(client);
    }
    tokio::task::spawn_blocking(|| CRAWLS.until_held()).await.unwrap();
    asks_of_others(&rig).await;
    let held = CRAWLS.held();
    let all = async {
        for client in &mut crowd {
            assert_eq!(client.reply().await.text(), result(1));
        }
    };
    let open = async {
        loop {
            CRAWLS.open();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = all => {}
        () = open => {}
    }
    // A message of another test may have a turn.
    assert!(held <= at_once, "{held} of {}", crowd.len());
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
