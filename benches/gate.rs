//! What the gate costs, step by step. One group a step; figures are for one core.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a wrong bench may end in a panic"
)]

use bartizan::gate::frame::{Frame, FrameLimits, Sender};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

/// A `tools/call` of exactly 1 KiB, as an agent writes it: the call that all groups use.
fn call() -> Bytes {
    let head = concat!(
        r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"Update_Gate_Entirely","#,
        r#""arguments":{"id":"checkout_redesign","environment":"staging","isEnabled":true,"#,
        r#""tags":["checkout","experiment","web"],"passPercentage":25.5,"holdoutIDs":[],"rules":["#,
        r#"{"name":"staff","environments":["staging"],"passPercentage":100,"conditions":["#,
        r#"{"type":"email","operator":"str_ends_with_any","targetValue":["@example.com"]}]},"#,
        r#"{"name":"beta","environments":["staging"],"passPercentage":25.5,"conditions":["#,
        r#"{"type":"custom_field","field":"plan","operator":"any","targetValue":["pro","team"]},"#,
        r#"{"type":"country","operator":"any","targetValue":["DE","FR","PL"]}]}],"description":""#,
    );
    let tail = concat!(
        r#""},"_meta":{"progressToken":"5f0c","io.modelcontextprotocol/protocolVersion":"#,
        r#""2026-07-28"}}}"#,
    );
    let text =
        "Rolls the new checkout out to staff first, then to beta accounts. \\\"Go slow.\\\" ";
    let mut call = head.to_owned();
    call.extend(text.chars().cycle().take(1024 - head.len() - tail.len() - 1));
    call.push_str(if call.ends_with('\\') { "n" } else { "." });
    call.push_str(tail);
    assert_eq!(call.len(), 1024);
    Bytes::from(call)
}

/// Bytes to a frame: the budget is 3 µs.
fn read(criterion: &mut Criterion) {
    let call = call();
    let limits = FrameLimits::default();
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("read 1 KiB tools/call", |bencher| {
        bencher.iter(|| Frame::read(black_box(call.clone()), Sender::Client, &limits).unwrap());
    });
    group.bench_function("minify 1 KiB tools/call", |bencher| {
        bencher.iter_batched_ref(
            || Frame::read(call.clone(), Sender::Client, &limits).unwrap(),
            |frame| frame.document().minified(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(gate, read);
criterion_main!(gate);
