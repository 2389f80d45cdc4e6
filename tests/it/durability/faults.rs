//! A disk that hangs or fails: what waits for it is refused, the rest goes on, and so does all once
//! it works again.

use std::task::{Context, Poll, Waker};

use bartizan_audit::durability::{Durabilities, Durability};
use bartizan_audit::segment;
use bartizan_audit::verify::{Extent, verify};
use bartizan_gate::evidence::record::Outcome;
use bartizan_gate::evidence::step::AuditSink as _;

use super::acts::{rig, two_listeners};
use super::disk::{Does, Kept, settled_once};
use crate::http_edge::rig::{Behind, json, modern_call, modern_call_after, result};
use crate::journal::{denial, intent, outcome};

async fn server() -> Behind {
    Behind::start(|_, _| json(&result(1))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_refuses_the_act_and_is_never_tried_again() {
    let kept = Kept::durable();
    let behind = server().await;
    let rig = rig(&kept, &behind);
    assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
    kept.disk.flush(Does::Fails(rustix::io::Errno::IO));
    let reply = rig.ask(&modern_call(1, "change")).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("-31003"), "{}", reply.text());
    assert_eq!(behind.received().len(), 1);
    // Until a flush of another file has succeeded, nothing that needs one is tried.
    assert_eq!(rig.ask(&modern_call(1, "change")).await.status, 503);
    assert!(kept.journal.mend(crate::journal::now(3)).is_err());

    kept.disk.flush(Does::Works);
    kept.mended().await;
    assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
    let records = kept.records();
    assert!(settled_once(&records));
    let rotations: Vec<_> = records.iter().filter(|it| it.event == "rotation").collect();
    assert!(!rotations.is_empty());
    for rotation in &rotations {
        let note = rotation.note.as_deref().unwrap();
        assert!(note.contains("could not be flushed to the disk"), "{note}");
    }
    assert_eq!(segment::list(&kept.path()).unwrap().len(), rotations.len() + 1);
    verify(&kept.path(), Extent::Whole).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_hangs_refuses_within_bounds_and_then_at_once() {
    let kept = Kept::durable();
    let behind = server().await;
    let rig = rig(&kept, &behind);
    let _released = kept.disk.released();
    kept.disk.flush(Does::Hangs);
    for _ in 0..3 {
        let reply = rig.ask(&modern_call(1, "change")).await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("-31003"), "{}", reply.text());
    }
    assert_eq!(behind.received().len(), 0);
    let why = kept.journal.mend(crate::journal::now(3)).unwrap_err().cause;
    assert!(why.contains("takes too long"), "{why}");
    kept.disk.flush(Does::Works);
    kept.mended().await;
    assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
    assert_eq!(behind.received().len(), 1);
    assert!(settled_once(&kept.records()));
    verify(&kept.path(), Extent::Whole).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_flush_has_taken_too_long_all_who_wait_are_refused_at_once() {
    let kept = Kept::durable();
    let position = |call: &str| kept.keep_before_act(&intent(call)).unwrap().unwrap();
    let _released = kept.disk.released();
    kept.disk.flush(Does::Hangs);
    let (early, ended) = (position("early"), position("ended"));
    let first = kept.durable(early);
    kept.disk.until_hanging();
    let ended = kept.keep_before_act(&outcome("ended")).unwrap().unwrap().max(ended);
    // Its time begins when it joins, and it joins a moment later.
    let second = kept.durable(position("late"));
    let why = first.await.unwrap_err().cause;
    assert!(why.contains("takes too long"), "{why}");
    assert!(at_once(second).unwrap().is_err(), "it waited for the flush after that one");
    assert!(at_once(kept.durable(ended)).unwrap().is_err(), "an answer, too");
}

/// What `future` gives when it is asked once.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_outcome_does_not_get_to_the_disk_is_not_released() {
    let kept = Kept::durable();
    let disk = std::sync::Arc::clone(&kept.disk);
    let behind = Behind::start(move |_, _| {
        disk.flush(Does::Fails(rustix::io::Errno::IO));
        json(r#"{"jsonrpc":"2.0","id":1,"result":{"secret":"of the server"}}"#)
    })
    .await;
    let rig = rig(&kept, &behind);
    let reply = rig.ask(&modern_call(1, "change")).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(!reply.text().contains("secret"), "{}", reply.text());
    assert_eq!(kept.seen.outcomes(), [Outcome::Ok], "what happened stays recorded as it was");
    assert!(settled_once(&kept.records()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_holds_up_its_own_call_alone() {
    only_its_own_call_waits_for_a_write_that_hangs(&modern_call(1, "change")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_of_a_large_message_that_hangs_does_not_hold_up_other_large_messages() {
    let call = modern_call_after(1 << 15, 1, "change");
    only_its_own_call_waits_for_a_write_that_hangs(&call).await;
}

async fn only_its_own_call_waits_for_a_write_that_hangs(call: &[u8]) {
    let kept = Kept::with(Durabilities::all(Durability::Written));
    let behind = server().await;
    let [first, second] = two_listeners(&kept, &behind);
    let (mut stuck, mut other) = (first.client().await, second.client().await);
    let _released = kept.disk.released();
    kept.disk.write(Does::Hangs);
    stuck.send(call).await;
    kept.disk.until_hanging();
    for _ in 0..3 {
        other.send(call).await;
        let reply = other.reply().await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("-31003"), "{}", reply.text());
    }
    let why = kept.journal.mend(crate::journal::now(3)).unwrap_err().cause;
    assert!(why.contains("takes too long to write"), "{why}");
    assert_eq!(behind.received().len(), 0);

    kept.disk.write(Does::Works);
    assert_eq!(stuck.reply().await.text(), result(1), "its record was written at last");
    kept.mended().await;
    other.send(call).await;
    assert_eq!(other.reply().await.text(), result(1));
    let records = kept.records();
    assert!(settled_once(&records));
    let gap = records.iter().find_map(|record| record.gap.as_ref()).unwrap();
    assert_eq!(gap.refused, 3);
    assert!(gap.cause.contains("takes too long to write"), "{}", gap.cause);
    verify(&kept.path(), Extent::Whole).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_a_hanging_write_keeps_back_is_recorded_late_as_it_was() {
    let kept = Kept::with(Durabilities::all(Durability::Written));
    kept.journal.keep(&intent("early")).unwrap();
    let _released = kept.disk.released();
    kept.disk.write(Does::Hangs);
    let journal = std::sync::Arc::clone(&kept.journal);
    let hanging = std::thread::spawn(move || journal.keep(&denial("hangs")));
    kept.disk.until_hanging();
    assert!(kept.journal.keep(&outcome("early")).is_err());
    kept.disk.write(Does::Works);
    hanging.join().unwrap().unwrap();
    kept.mended().await;
    let records = kept.records();
    let late = records.iter().find(|record| record.event == "outcome").unwrap();
    assert_eq!((late.call.as_deref(), late.outcome.as_deref()), (Some("early"), Some("ok")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_works_again_by_itself() {
    for error in [rustix::io::Errno::NOSPC, rustix::io::Errno::ROFS, rustix::io::Errno::IO] {
        let kept = Kept::durable();
        let behind = server().await;
        let rig = rig(&kept, &behind);
        kept.disk.write(Does::Fails(error));
        let reply = rig.ask(&modern_call(1, "change")).await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("-31003"), "{}", reply.text());
        assert_eq!(behind.received().len(), 0, "{error:?}");
        assert!(kept.journal.mend(crate::journal::now(3)).is_err());
        kept.disk.write(Does::Works);
        kept.mended().await;
        assert_eq!(rig.ask(&modern_call(1, "change")).await.text(), result(1));
        let records = kept.records();
        assert!(settled_once(&records) && records.iter().any(|record| record.gap.is_some()));
        verify(&kept.path(), Extent::Whole).unwrap();
    }
}
