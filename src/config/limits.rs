//! `limits`: bounds on messages, requests and conversations. All are inclusive.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::form::{bytes, count, time, time_or_off};
use super::section::Section;
use super::table::show_bytes;
use bartizan_gate::wire::document::DocumentLimits;
use bartizan_gate::wire::frame::FrameLimits;

/// The range of times within which one step must be done.
pub(super) const STEP_TIMES: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_hours(1);
/// The range of times for which a conversation may be silent or an answer may take.
const WAITS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// The range of intervals between comments.
pub(super) const COMMENT_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(10);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Bounds. Each has the key of its name; its range and its default stand where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One message: `frame_bytes`, `json_depth`, `json_values`, `number_chars`, `id_bytes`.
    pub frame: FrameLimits,
    /// The head of one request, bytes.
    pub header_bytes: usize,
    /// Header lines of one request.
    pub header_count: usize,
    /// For a client to send its headers.
    pub header_time: Duration,
    /// For a client to send a body.
    pub body_time: Duration,
    /// Bodies of all requests at once, bytes; never less than `frame_bytes`.
    pub bodies_bytes: u64,
    /// What is kept for agents and servers between messages, bytes.
    pub kept_bytes: usize,
    /// Client connections at once.
    pub connections: usize,
    /// HTTP requests in progress at once, streams included.
    pub requests: usize,
    /// Refused requests of one caller each second.
    pub refusals: u32,
    /// Event streams without an end open at once.
    pub streams: usize,
    /// Legacy MCP sessions of one server at once.
    pub sessions: usize,
    /// Silence after which a session is forgotten.
    pub session_idle: Duration,
    /// Requests awaiting their answer in one session, each way.
    pub in_flight: usize,
    /// From a message sent to its whole answer, or to the head of a stream.
    pub answer_time: Duration,
    /// Silence on a stream that is to end with an answer.
    pub stream_idle: Duration,
    /// Silence after which an agent gets a comment; `None` for no comments.
    pub keep_alive: Option<Duration>,
    /// Children of one server at once.
    pub children: usize,
    /// Rate-limit buckets.
    pub buckets: usize,
    /// For calls in flight to end once the program was told to stop. The default fits into the
    /// 30 s that Kubernetes grants.
    pub drain: Duration,
}

impl Limits {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let (secs, mins) = (Duration::from_secs, Duration::from_mins);
        let frame = frame(s);
        let limits = Self {
            frame,
            header_bytes: s
                .key("header_bytes", bytes(8 * KIB..=MIB), "Size of the head of one request.")
                .or(64 * KIB),
            header_count: s
                .key("header_count", count(16..=1000), "Header lines of one request.")
                .or(100),
            header_time: s
                .key("header_time", time(STEP_TIMES), "Time for an agent to send its headers.")
                .or(secs(5)),
            body_time: s
                .key("body_time", time(STEP_TIMES), "Time for an agent to send a body.")
                .or(secs(15)),
            bodies_bytes: bodies(s, frame.document.bytes_max),
            kept_bytes: kept(s),
            connections: connections(s),
            requests: requests(s),
            refusals: refusals(s),
            streams: s
                .key(
                    "streams",
                    count(1..=100_000),
                    "Endless streams at once: legacy GET streams and `subscriptions/listen`.",
                )
                .or(2048),
            sessions: sessions(s),
            session_idle: s
                .key("session_idle", time(WAITS), "Silence after which a session is forgotten.")
                .or(mins(60)),
            in_flight: s
                .key("in_flight", count(1..=65_536), "Open requests of one session, each way.")
                .or(256),
            answer_time: s
                .key(
                    "answer_time",
                    time(WAITS),
                    "Time from a message sent to its whole answer, or to the head of a stream.",
                )
                .or(mins(5)),
            stream_idle: stream_idle(s),
            keep_alive: keep_alive(s),
            children: s
                .key("children", count(1..=10_000), "Child processes of one server at once.")
                .or(64),
            buckets: s
                .key(
                    "buckets",
                    count(16..=10_000_000),
                    "Rate-limit buckets. When all are taken, further keys share one for each rule.",
                )
                .or(65_536),
            drain: s
                .key(
                    "drain",
                    time(STEP_TIMES),
                    "Time for calls in flight to end at a stop. The journal then has 4 s more to be \
                     closed.",
                )
                .or(secs(25)),
        };
        compare(s, &limits);
        limits
    }
}

/// Tells of bounds that another one always comes before.
fn compare(s: &Section<'_>, limits: &Limits) {
    let FrameLimits { document, id_bytes_max } = limits.frame;
    let message = document.bytes_max;
    s.idle_above(&[
        ("json_values", document.values_max, "frame_bytes", message),
        ("number_chars", document.number_chars_max, "frame_bytes", message),
        ("id_bytes", id_bytes_max, "frame_bytes", message),
        ("streams", limits.streams, "requests", limits.requests),
    ]);
}

/// Bounds on one message.
fn frame(s: &mut Section<'_>) -> FrameLimits {
    let default = FrameLimits::default();
    FrameLimits {
        document: DocumentLimits {
            bytes_max: s
                .key(
                    "frame_bytes",
                    bytes(KIB..=256 * MIB),
                    "Size of one message, and of one answer.",
                )
                .or(default.document.bytes_max),
            depth_max: s
                .key(
                    "json_depth",
                    count(4..=128),
                    "Levels of arrays and objects inside one another.",
                )
                .or(default.document.depth_max),
            values_max: s
                .key("json_values", count(16..=1 << 24), "Values in one message.")
                .or(default.document.values_max),
            number_chars_max: s
                .key("number_chars", count(16..=4096), "Characters of one number.")
                .or(default.document.number_chars_max),
        },
        id_bytes_max: s
            .key("id_bytes", bytes(16..=4 * KIB), "Size of a request id.")
            .or(default.id_bytes_max),
    }
}

/// Bodies of all requests at once, bytes. The default grows with `frame_bytes`.
fn bodies(s: &mut Section<'_>, frame_bytes: usize) -> u64 {
    let bodies = s
        .key(
            "bodies_bytes",
            bytes(1 << 20..=64 << 30),
            "Bodies of all requests at once; at least `frame_bytes`. Bytes count when they arrive. If \
             all are taken, the oldest body that is not complete gives way, with 429. Where access \
             tokens are checked, one principal has at most half. Half as much is for answers of \
             more than 4 KiB that agents have not read; if it is spent, the connection that has \
             one longest is closed. As much again is for whole answers that arrive from servers, \
             in equal parts for each server.",
        )
        .or(32 << 20);
    let least = u64::try_from(frame_bytes).unwrap_or(u64::MAX);
    if bodies < least && s.has("bodies_bytes") {
        let what = "less than `frame_bytes`: no message of that size would pass";
        s.problem("bodies_bytes", what, format!("at least {}", show_bytes(least)));
    }
    bodies.max(least)
}

fn kept(s: &mut Section<'_>) -> usize {
    s.key(
        "kept_bytes",
        bytes(8 * MIB..=64 << 30),
        "What is kept for agents and servers between messages: calls in flight, sessions, tasks, \
         handles, definitions, queued messages. One principal has at most as much as is left \
         free. Without room a request is refused as `memory-spent`, and what was learnt is \
         forgotten.",
    )
    .or(96 * MIB)
}

fn refusals(s: &mut Section<'_>) -> u32 {
    s.key(
        "refusals",
        count(1..=1_000_000),
        "Refusals of one caller (principal and network address) each second; further ones are \
         answered with 429, and close the connection.",
    )
    .or(1000)
}

fn connections(s: &mut Section<'_>) -> usize {
    s.key(
        "connections",
        count(1..=100_000),
        "Connections of agents at once. When all are taken, those without a request in progress \
         are closed, oldest first; if there are none, a new client gets 503. At most an eighth \
         speak HTTP/2. Lowered at start, with a warning, if the system allows fewer file \
         descriptors. One that is silent for a minute is \
         probed by TCP keep-alive, and closed after four probes without an answer, 15 s apart.",
    )
    .or(4096)
}

fn requests(s: &mut Section<'_>) -> usize {
    s.key(
        "requests",
        count(1..=100_000),
        "Requests at once, streams included. Where access tokens are checked, one \
             principal has at most half of these, of `streams` and of `children`.",
    )
    .or(4096)
}

fn sessions(s: &mut Section<'_>) -> usize {
    s.key(
        "sessions",
        count(1..=1_000_000),
        "Legacy sessions of one server at once. When the table is full, an unused one \
             gives way: of the principal that begins another, or of one that has more than \
             its part.",
    )
    .or(8192)
}

fn stream_idle(s: &mut Section<'_>) -> Duration {
    s.key(
        "stream_idle",
        time(WAITS),
        "Time between two messages on a stream that ends with an answer. Comments are no \
             messages.",
    )
    .or(Duration::from_mins(5))
}

fn keep_alive(s: &mut Section<'_>) -> Option<Duration> {
    s.key(
        "keep_alive",
        time_or_off(COMMENT_INTERVALS),
        "Silence after which an agent over HTTP gets a comment, so that no proxy closes the \
             connection; or `off`. An answer that takes longer becomes an event stream: see \
             [below](#answers-that-take-long).",
    )
    .or(Some(Duration::from_secs(15)))
}
