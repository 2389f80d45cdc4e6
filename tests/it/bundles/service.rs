//! A policy from a bundle service: at the start, when it changes, and while the service fails.

use std::fs;
use std::time::{Duration, Instant};

use super::make::{bundle, rules, sha256, signed_bundle, tarball};
use super::rig::{Service, Sidecar};
use crate::firewall::{LEGACY, post, wait};

/// Asks often.
const OFTEN: &str = "polling: {min_delay: 100ms, max_delay: 150ms}";

/// Signed by the key that [`signed_bundle`] uses.
fn signing() -> String {
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/bundles/keys/rsa.pem");
    format!("signing: {{keys: {{release: {{algorithm: RS256, public_key: {key}}}}}}}")
}

#[test]
fn nothing_passes_before_the_first_good_policy() {
    let service = Service::start();
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(state.path(), &format!("url: {}, {OFTEN}", service.url()));
    service.asked(3);
    let (status, said) = sidecar.ready();
    assert_eq!(status, 503);
    assert!(
        said.contains(r#""policy":"the bundle service has not delivered a valid policy yet"#),
        "{said}"
    );
    assert_eq!(sidecar.ping().code(), -31001);
    assert_eq!(sidecar.decision(), ("none".to_owned(), "no_policy".to_owned()));

    // What is refused is no policy either.
    service.publish(b"nonsense", None);
    sidecar.record("finding", "policy_reload_rejected", 1);
    assert_eq!(sidecar.ready().0, 503);

    service.publish(&bundle("v1"), Some("\"one\""));
    sidecar.wait_ready();
    let (revision, code) = sidecar.decision();
    assert!(revision.starts_with("v1@sha256:"), "{revision}");
    assert_eq!(code, "v1");
    let loaded = sidecar.record("finding", "policy_reload", 1);
    assert_eq!(loaded["decision"]["policy"], revision.as_str());
    assert!(loaded["note"].as_str().unwrap().starts_with("loaded from the bundle service;"));
}

#[test]
fn a_new_bundle_is_taken_and_an_old_one_is_not_sent_again() {
    let service = Service::start();
    service.publish(&bundle("v1"), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(state.path(), &format!("url: {}, {OFTEN}", service.url()));
    sidecar.wait_ready();
    service.asked(3);
    let received = service.received();
    assert_eq!(received[0].header("prefer"), ["modes=snapshot"]);
    assert!(received[0].header("if-none-match").is_empty());
    let last = received.last().unwrap();
    assert_eq!(last.header("if-none-match"), ["\"one\""]);
    assert!(last.head.starts_with("get /mcp http/1.1\r\n"), "{}", last.head);
    assert!(last.header("authorization").is_empty());

    service.publish(&bundle("v2"), Some("\"two\""));
    sidecar.wait_revision("v2");
    service.asked(3);
    assert_eq!(sidecar.records("finding", "policy_reload").len(), 2);

    // A service without tags sends the same again and again; it is proven once.
    service.publish(&bundle("v3"), None);
    sidecar.wait_revision("v3");
    service.asked(4);
    assert_eq!(sidecar.records("finding", "policy_reload").len(), 3);

    // Told to read again, it does.
    sidecar.reload();
    sidecar.record("finding", "policy_reload", 4);
    assert!(sidecar.records("finding", "policy_reload_rejected").is_empty());
}

#[test]
fn the_last_good_bundle_answers_while_the_service_is_away() {
    let service = Service::start();
    service.publish(&signed_bundle("v1"), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let config = format!("url: {}, {OFTEN}, {}", service.url(), signing());
    let sidecar = Sidecar::start(state.path(), &config);
    sidecar.wait_ready();
    service.publish(&signed_bundle("v2"), Some("\"two\""));
    sidecar.wait_revision("v2");
    // What is refused is not kept.
    service.publish(&bundle("unsigned"), None);
    sidecar.record("finding", "policy_reload_rejected", 1);
    sidecar.stop();

    service.go_away();
    let again = Sidecar::start(state.path(), &config);
    assert_eq!(again.ready().0, 200, "ready from the start");
    assert!(again.decision().0.starts_with("v2@"));
    let notes = again.records("finding", "policy_reload");
    let note = notes.last().unwrap()["note"].as_str().unwrap();
    assert!(note.starts_with("loaded from the last good bundle on disk;"), "{note}");
    service.publish(&signed_bundle("v3"), Some("\"three\""));
    again.wait_revision("v3");
    again.stop();

    // Another service's bundle says nothing about this one.
    service.go_away();
    let other = config.replace("/mcp", "/other");
    assert_eq!(Sidecar::start(state.path(), &other).ready().0, 503);

    // It is verified like a new one.
    let kept: Vec<_> = fs::read_dir(state.path().join("bundle")).unwrap().flatten().collect();
    let [kept] = &*kept else { panic!("{kept:?}") };
    fs::write(kept.path(), bundle("forged")).unwrap();
    let forged = Sidecar::start(state.path(), &config);
    assert_eq!(forged.ready().0, 503);
    let records = forged.records("finding", "policy_reload_rejected");
    let note = records.last().unwrap()["note"].as_str().unwrap();
    assert!(
        note.starts_with("refused from the last good bundle on disk (`forged`, sha256:"),
        "{note}"
    );
    assert!(note.contains("the bundle is not signed"), "{note}");
    forged.stop();
    fs::write(kept.path(), b"").unwrap();
    let empty = Sidecar::start(state.path(), &config);
    assert_eq!(empty.ready().0, 503);
    service.publish(&signed_bundle("v4"), None);
    empty.wait_ready();
}

/// Each bad bundle is named in the journal and changes nothing, and calls go on meanwhile.
#[test]
fn a_bad_bundle_leaves_the_running_policy_in_place() {
    let service = Service::start();
    service.publish(&signed_bundle("v1"), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let config = format!("url: {}, {OFTEN}, {}", service.url(), signing());
    let sidecar = Sidecar::start(state.path(), &config);
    sidecar.wait_ready();
    let mut signed = signed_bundle("cut");
    signed.truncate(signed.len() / 2);
    let unsigned = bundle("unsigned");
    let empty = tarball(&[]);
    let cases: [(&str, &[u8], &str); 5] = [
        ("unsigned", &unsigned, "the bundle is not signed"),
        ("cut off", &signed, "the gzip stream is incomplete or invalid"),
        ("nothing", b"", "the archive is empty"),
        ("no file", &empty, "the bundle is not signed"),
        ("another thing", b"<html>", "the gzip stream is incomplete or invalid"),
    ];
    for (count, (what, bytes, expected)) in cases.iter().enumerate() {
        service.publish(bytes, Some("\"bad\""));
        let record = sidecar.record("finding", "policy_reload_rejected", count + 1);
        let note = record["note"].as_str().unwrap();
        assert!(note.contains(expected), "{what}: {note}");
        assert!(note.contains("sha256:"), "{what}: {note}");
        assert_eq!(record["event"], "policy");
        assert!(sidecar.decision().0.starts_with("v1@"), "{what}");
    }
    // The same again is told once.
    service.asked(4);
    assert_eq!(sidecar.records("finding", "policy_reload_rejected").len(), cases.len());
    assert_eq!(sidecar.ready().0, 200);
    service.publish(&signed_bundle("v2"), None);
    sidecar.wait_revision("v2");
}

/// What a proof alone can find: policies that loop, recurse, grow, or lie outside their roots.
#[test]
fn a_policy_that_would_do_harm_costs_running_traffic_nothing() {
    let loops = "package mcp\n\ntest_it if {\n\tall := numbers.range(1, 2000)\n\t\
        count([1 | some a in all; some b in all; some c in all; a * b * c == 0]) == 0\n}\n";
    let recurses = "package mcp\n\nf(x) := f(x + 1)\n\npermit contains {\"message\": f(1)}\n";
    let grows = "package mcp\n\na := concat(\"\", [\"x\" | some n in numbers.range(1, 500)])\n\n\
        b := concat(\"\", [a | some n in numbers.range(1, 500)])\n\n\
        test_it if count([s | some m in numbers.range(1, 10000); s := upper(b)]) > 0\n";
    let outside = "package elsewhere\n\nx := 1\n";
    let manifest: &[u8] = br#"{"revision":"harmful","roots":["mcp"]}"#;
    let service = Service::start();
    service.publish(&bundle("v1"), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let polling = "polling: {min_delay: 400ms, max_delay: 500ms}";
    let sidecar = Sidecar::start(state.path(), &format!("url: {}, {polling}", service.url()));
    sidecar.wait_ready();
    let quiet = median_ping(&sidecar, || false);
    for (what, rego, expected) in [
        ("loops", loops, "exceeded time limit"),
        ("recurses", recurses, "recursion"),
        // Which limit is reached first depends on the machine.
        ("grows", grows, ""),
        ("outside its roots", outside, "outside the roots"),
    ] {
        let more = rules("more");
        let packed = tarball(&[
            ("mcp/rules.rego", more.as_bytes()),
            ("harm.rego", rego.as_bytes()),
            (".manifest", manifest),
        ]);
        service.publish(&packed, None);
        let digest = sha256(&packed);
        let busy = median_ping(&sidecar, || sidecar.mentions(&digest) > 0);
        let record = wait(what, || {
            let mut records = sidecar.records("finding", "policy_reload_rejected").into_iter();
            records.find(|record| record["note"].to_string().contains(&digest))
        });
        let note = record["note"].as_str().unwrap();
        assert!(note.starts_with("refused from the bundle service (`harmful`, sha256:"), "{note}");
        assert!(note.contains(expected), "{what}: {note}");
        assert!(sidecar.decision().0.starts_with("v1@"), "{what}");
        println!("{what}: {busy:?} a call while it was tried, {quiet:?} before; {note}");
    }
}

/// The median time of calls, at most a hundred a second, of 100 at least and until `done`.
fn median_ping(sidecar: &Sidecar, done: impl Fn() -> bool) -> Duration {
    let mut client = sidecar.client();
    let mut times = Vec::new();
    while times.len() < 100 || (!times.len().is_multiple_of(50) || !done()) && times.len() < 6000 {
        let start = Instant::now();
        client.send(&post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, LEGACY));
        assert_eq!(client.reply().code(), 0);
        times.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort();
    times[times.len() / 2]
}

#[test]
fn long_polling_brings_a_bundle_at_once() {
    let service = Service::start();
    service.publish_long(&bundle("v1"), "\"one\"");
    let state = tempfile::tempdir().unwrap();
    let config = "polling: {min_delay: 1h, max_delay: 2h, long_polling_timeout: 2s}";
    let sidecar = Sidecar::start(state.path(), &format!("url: {}, {config}", service.url()));
    sidecar.wait_ready();
    // Held open twice, and answered that nothing is new.
    service.asked(3);
    let received = service.received();
    for received in &received {
        assert_eq!(received.header("prefer"), ["modes=snapshot;wait=2"]);
    }
    assert!(received.len() < 10, "{}", received.len());
    service.publish_long(&bundle("v2"), "\"two\"");
    sidecar.wait_revision("v2");
    // One that cannot hold a question open is asked at leisure.
    service.publish(&bundle("v3"), Some("\"three\""));
    sidecar.wait_revision("v3");
    let before = service.received().len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(service.received().len(), before);
}

#[test]
fn answers_that_are_no_bundle_change_nothing() {
    let service = Service::start();
    service.publish(&bundle("v1"), Some("\"one\""));
    let elsewhere = Service::start();
    elsewhere.publish(&bundle("elsewhere"), None);
    let state = tempfile::tempdir().unwrap();
    let config = format!("url: {}, {OFTEN}, timeout: 300ms, bytes: 4KiB", service.url());
    let sidecar = Sidecar::start(state.path(), &config);
    sidecar.wait_ready();
    let redirect = format!("Location: {}\r\n", elsewhere.url());
    let other = bundle("v2");
    let noise: String = (0..256_u32).map(|n| sha256(&n.to_be_bytes())).collect();
    let large =
        tarball(&[("mcp/rules.rego", rules("large").as_bytes()), ("noise", noise.as_bytes())]);
    assert!(large.len() > 4096);
    for turn in 0..7 {
        match turn {
            0 => service.fail("302 Found", &redirect, b""),
            1 => service.fail("307 Temporary Redirect", &redirect, &other),
            2 => service.fail("500 Internal Server Error", "", &other),
            3 => service.fail("200 OK", "Content-Encoding: gzip\r\n", &other),
            4 => service.publish(&large, None),
            5 => service.delay(&other, Duration::from_secs(2)),
            _ => service.go_away(),
        }
        service.asked(2);
        assert!(sidecar.decision().0.starts_with("v1@"), "{turn}");
    }
    assert!(elsewhere.received().is_empty(), "a redirect was followed");
    assert!(sidecar.records("finding", "policy_reload_rejected").is_empty());
    assert_eq!(sidecar.ready().0, 200);
    service.publish(&other, None);
    sidecar.wait_revision("v2");
}

#[test]
fn a_bearer_token_is_shown_and_its_file_is_read_anew() {
    let service = Service::start();
    service.publish(&bundle("v1"), None);
    let state = tempfile::tempdir().unwrap();
    let token = state.path().join("token");
    fs::write(&token, "first\n").unwrap();
    let url = service.url();
    let file = format!("url: {url}, {OFTEN}, credentials: {{bearer_file: {}}}", token.display());
    let sidecar = Sidecar::start(&state.path().join("a"), &file);
    sidecar.wait_ready();
    fs::write(&token, "second").unwrap();
    let shown = |token: &str| {
        service
            .received()
            .iter()
            .any(|it| it.header("authorization") == [format!("bearer {token}")])
    };
    wait("the first token", || shown("first").then_some(()));
    wait("the second token", || shown("second").then_some(()));
    sidecar.stop();
    let text = format!("url: {url}, {OFTEN}, credentials: {{bearer: fixed}}");
    let sidecar = Sidecar::start(&state.path().join("b"), &text);
    sidecar.wait_ready();
    assert!(shown("fixed"));
}

#[test]
fn an_older_bundle_does_not_follow_a_newer_one() {
    let service = Service::start();
    service.publish(&signed_bundle("7"), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let config = format!("url: {}, revisions: rising, {OFTEN}, {}", service.url(), signing());
    let sidecar = Sidecar::start(state.path(), &config);
    sidecar.wait_ready();
    service.publish(&signed_bundle("10"), Some("\"two\""));
    sidecar.wait_revision("10");
    for (count, old) in ["7", "9", "2026-11-29T21:00:00Z", "v11"].iter().enumerate() {
        service.publish(&signed_bundle(old), Some(&format!("\"{old}\"")));
        let refused = sidecar.record("finding", "policy_reload_rejected", count + 1);
        assert!(refused["note"].as_str().unwrap().contains("its revision"), "{refused}");
        assert!(sidecar.decision().0.starts_with("10@"), "{old}");
    }
    sidecar.stop();

    // A restart does not forget what was accepted.
    let again = Sidecar::start(state.path(), &config);
    assert!(again.decision().0.starts_with("10@"));
    service.publish(&signed_bundle("8"), Some("\"again\""));
    again.record("finding", "policy_reload_rejected", 5);
    service.publish(&signed_bundle("11"), Some("\"new\""));
    again.wait_revision("11");
}

#[test]
fn a_bundle_that_is_too_old_is_not_installed_and_not_taken_up_again() {
    let service = Service::start();
    let at = |ago: u64| {
        let made = std::time::SystemTime::now() - Duration::from_secs(ago);
        humantime::format_rfc3339_seconds(made).to_string()
    };
    let (young, old) = (at(60), at(7200));
    service.publish(&signed_bundle(&young), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let config =
        |age: &str| format!("url: {}, max_age: {age}, {OFTEN}, {}", service.url(), signing());
    let sidecar = Sidecar::start(state.path(), &config("1h"));
    sidecar.wait_ready();
    sidecar.wait_revision(&young);
    for (count, refused) in [&*old, "17"].iter().enumerate() {
        service.publish(&signed_bundle(refused), Some(&format!("\"{refused}\"")));
        let refused = sidecar.record("finding", "policy_reload_rejected", count + 1);
        assert!(refused["note"].as_str().unwrap().contains("its revision"), "{refused}");
        assert!(sidecar.decision().0.starts_with(&*young));
    }
    sidecar.stop();
    // Meanwhile the stored one has become too old, too: nothing is permitted before a new one comes.
    let again = Sidecar::start(state.path(), &config("1m"));
    again.record("finding", "policy_reload_rejected", 3);
    let new = at(0);
    service.publish(&signed_bundle(&new), Some("\"new\""));
    again.wait_revision(&new);
}

#[test]
fn a_bundle_that_becomes_too_old_decides_no_longer() {
    // M19: whoever keeps the service away must not keep an old policy in force.
    let service = Service::start();
    let at = |ago: u64| {
        let made = std::time::SystemTime::now() - Duration::from_secs(ago);
        humantime::format_rfc3339_seconds(made).to_string()
    };
    let old = at(40);
    service.publish(&signed_bundle(&old), Some("\"one\""));
    let state = tempfile::tempdir().unwrap();
    let config = format!("url: {}, max_age: 1m, {OFTEN}, {}", service.url(), signing());
    let sidecar = Sidecar::start(state.path(), &config);
    sidecar.wait_ready();
    sidecar.wait_revision(&old);
    service.fail("503 Service Unavailable", "", b"");
    let refused = sidecar.record("finding", "policy_reload_rejected", 1);
    assert!(refused["note"].as_str().unwrap().starts_with("expired: its revision"), "{refused}");
    wait("refusals", || (sidecar.decision().1 == "policy_expired").then_some(()));
    assert!(sidecar.decision().0.starts_with(&*old), "the record names what is too old");
    let (status, text) = sidecar.ready();
    assert_eq!(status, 503);
    assert!(text.contains("max_age"), "{text}");
    // It happens once, and a newer one decides at once.
    assert_eq!(sidecar.records("finding", "policy_reload_rejected").len(), 1);
    let new = at(0);
    service.publish(&signed_bundle(&new), Some("\"new\""));
    sidecar.wait_revision(&new);
    sidecar.wait_ready();
}
