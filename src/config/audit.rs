//! `audit`: the journal, and where decisions are sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::context::Context;
use super::form::{
    Form, bytes, count, existing, flag, list, name, text, texts_by_name, time, time_or_off, url,
    word, word_or,
};
use super::problem::{Wrong, wrong};
use super::remote::{RemoteConfig, RemoteKeys};
use super::section::{Section, defaulted, section};
use super::table::show_bytes;
use bartizan_audit::durability::{Durabilities, Durability};
use bartizan_audit::note::{KEY_NAME_BYTES_MAX, PublicKey};
use bartizan_gate::duty::pdp::Inputs;

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Size at which a new file begins, bytes (`segment_bytes`).
    pub segment_bytes: u64,
    /// How long refusals of one kind are counted before their number is recorded
    /// (`repeat_interval`); absent if each is recorded (`each_refusal`).
    pub repeat_interval: Option<Duration>,
    /// Size of all files together at which calls are refused, bytes (`bytes`).
    pub bytes: u64,
    /// What records keep of the policy's input (`inputs`).
    pub inputs: Inputs,
    /// What acts wait for, by the effect of the operation (`durability`).
    pub durability: Durabilities,
    /// Time after which a file to which nothing is written any more is compressed (`compress_after`);
    /// absent if none is.
    pub compress_after: Option<Duration>,
    /// When old files are removed (`retention`).
    pub retention: RetentionConfig,
    /// How the journal is signed (`checkpoints`).
    pub checkpoints: CheckpointsConfig,
    /// Where decisions are sent, if anywhere (`decision_logs`).
    pub decision_logs: Option<DecisionLogsConfig>,
}

/// When old files of the journal are removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Size that all files together may have, bytes (`bytes`); absent: any.
    pub bytes: Option<u64>,
    /// Age of the newest record of a file from which on it is removed (`age`); absent: none.
    pub age: Option<Duration>,
    /// Whether records are removed, too, that an exporter has not sent (`unsent`).
    pub removes_unsent: bool,
}

/// How the journal is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointsConfig {
    /// The private key (`key`); absent: one in the state directory.
    pub key: Option<PathBuf>,
    /// The name of log and key (`name`); absent: one made of the public key.
    pub name: Option<Box<str>>,
    /// Number of records after which a checkpoint is made (`records`).
    pub records: u64,
    /// Time after which one is made if there are any new records (`interval`).
    pub interval: Duration,
    /// Public keys of earlier checkpoints (`former_keys`).
    pub former_keys: Vec<PublicKey>,
}

/// A service that takes OPA's decision logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogsConfig {
    /// The way to it; `/logs` is added to its address.
    pub remote: RemoteConfig,
    /// Labels of each event (`labels`), beside `id` and `version`.
    pub labels: BTreeMap<String, String>,
}

impl AuditConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let audit = Self::keys(s);
        audit.compare(s);
        audit
    }

    /// Compares keys with each other.
    fn compare(&self, s: &Section<'_>) {
        let retention = &self.retention;
        let at = |key| s.at("retention").absent_member(key);
        if let Some(bytes) = retention.bytes.filter(|bytes| *bytes >= self.bytes) {
            let what = format!(
                "{} is not below `audit.bytes`, {}: calls are refused before a file is removed",
                show_bytes(bytes),
                show_bytes(self.bytes)
            );
            s.problem_at(&at("bytes"), what, "lower it, or raise `audit.bytes`");
        }
        let two = self.segment_bytes.saturating_mul(2);
        if retention.bytes.is_some_and(|bytes| bytes < two) {
            let what = format!("is not kept: the two newest files stay, up to {}", show_bytes(two));
            s.idle_at(&at("bytes"), &what, "lower `audit.segment_bytes`, or raise it");
        }
        if s.has("retention") && retention.bytes.is_none() && retention.age.is_none() {
            let what = "removes nothing: neither `bytes` nor `age` is written";
            s.idle("retention", what, "write one of them, like `age: 90d`, or remove the key");
        }
        if s.has("segment_bytes") && self.segment_bytes >= self.bytes {
            let what = "is never reached: `audit.bytes` is not larger, so the first file fills it";
            s.idle("segment_bytes", what, "lower it, or raise `audit.bytes`");
        }
        if s.has("repeat_interval") && self.repeat_interval.is_none() {
            s.idle(
                "repeat_interval",
                "does nothing beside `each_refusal: true`",
                "keep one of them",
            );
        }
        if s.has("compress_after")
            && let (Some(after), Some(age)) = (self.compress_after, retention.age)
            && after >= age
        {
            let what = "does nothing: `retention.age` is not longer, so files are removed before";
            s.idle("compress_after", what, "shorten it, or write `off`");
        }
    }

    fn keys(s: &mut Section<'_>) -> Self {
        let inputs = [("none", Inputs::None), ("facts", Inputs::Facts), ("values", Inputs::Values)];
        Self {
            segment_bytes: s
                .key(
                    "segment_bytes",
                    bytes(64 << 10..=16 << 30),
                    "Size at which the journal begins a new file.",
                )
                .or(64 << 20),
            repeat_interval: repeats(s),
            bytes: s
                .key(
                    "bytes",
                    bytes(1 << 20..=1 << 50),
                    "Size of all files of the journal together. When it is reached, new calls are \
                     refused until files are moved elsewhere.",
                )
                .or(16 << 30),
            inputs: s
                .key(
                    "inputs",
                    word(inputs),
                    "What a record keeps of the policy's input, for `policy replay`: `none`; \
                     `facts`, what the firewall itself knows; `values`, arguments and parameters \
                     too, but those whose names are of secrets. See [audit.md](audit.md#inputs).",
                )
                .or(Inputs::None),
            durability: s
                .key(
                    "durability",
                    word_or(durability().map(Durabilities::all), defaulted(durabilities)),
                    "What a call waits for before it is passed on, and its answer before it is given \
                     back: `durable` or `written`, for every call or by the effect of the operation. \
                     See [audit.md](audit.md#durability).",
                )
                .optional("by effect")
                .unwrap_or(DURABILITY),
            compress_after: compress_after(s),
            retention: s
                .key(
                    "retention",
                    defaulted(RetentionConfig::read),
                    "When old files are removed. See [audit.md](audit.md#old-files).",
                )
                .or_empty()
                .unwrap_or_default(),
            checkpoints: s
                .key(
                    "checkpoints",
                    defaulted(CheckpointsConfig::read),
                    "How the journal is signed. See [audit.md](audit.md#checkpoints).",
                )
                .or_empty()
                .unwrap_or_default(),
            decision_logs: s
                .key(
                    "decision_logs",
                    section(DecisionLogsConfig::read),
                    "A service that takes OPA's decision logs.",
                )
                .optional("none"),
        }
    }
}

/// How long refusals are counted; absent if each is recorded.
fn repeats(s: &mut Section<'_>) -> Option<Duration> {
    let interval = s
        .key(
            "repeat_interval",
            time(Duration::from_millis(10)..=Duration::from_hours(1)),
            "Refusals of one kind by one caller are recorded once, then counted for this time. \
             See [audit.md](audit.md#refusals-that-repeat).",
        )
        .or(Duration::from_secs(10));
    let each =
        s.key("each_refusal", flag(), "Records each refusal, however many there are.").or(false);
    (!each).then_some(interval)
}

/// Reads change nothing, so nobody needs to know of one that a crash of the machine forgets.
const DURABILITY: Durabilities =
    Durabilities { read: Durability::Written, ..Durabilities::all(Durability::Durable) };

fn durability<'f>() -> Form<'f, Durability> {
    word([("durable", Durability::Durable), ("written", Durability::Written)])
}

fn durabilities(s: &mut Section<'_>) -> Durabilities {
    Durabilities {
        read: s
            .key("read", durability(), "The same for operations that change nothing.")
            .or(DURABILITY.read),
        write: s
            .key(
                "write",
                durability(),
                "The same for those that add or change something, and for those of which no pack \
                 says what they do.",
            )
            .or(DURABILITY.write),
        destructive: s
            .key(
                "destructive",
                durability(),
                "The same for those that remove something, or change at once what end users get.",
            )
            .or(DURABILITY.destructive),
        exec: s.key("exec", durability(), "The same for those that run code.").or(DURABILITY.exec),
    }
}

/// After what time a file is compressed, if it is.
fn compress_after(s: &mut Section<'_>) -> Option<Duration> {
    s.key(
        "compress_after",
        time_or_off(Duration::from_secs(1)..=Duration::from_hours(24 * 365)),
        "Time after which a file to which nothing is written any more is compressed with gzip \
         (`.ndjson.gz`); `off`: never.",
    )
    .or(Some(Duration::from_hours(1)))
}

impl RetentionConfig {
    fn read(s: &mut Section<'_>) -> Self {
        Self {
            bytes: s
                .key(
                    "bytes",
                    bytes(128 << 10..=1 << 50),
                    "Size of all files together beyond which the oldest are removed; the two newest \
                     stay. Must be smaller than `audit.bytes`.",
                )
                .optional("none"),
            age: s
                .key(
                    "age",
                    time(Duration::from_mins(1)..=Duration::from_hours(24 * 3650)),
                    "Age from which on a file is removed, by its newest record, like `90d`.",
                )
                .optional("none"),
            removes_unsent: s
                .key(
                    "unsent",
                    word([("keep", false), ("remove", true)]),
                    "Whether a file whose records `otlp` or `decision_logs` has not sent yet stays: \
                     `keep`, until `audit.bytes` is reached and calls are refused; or `remove`.",
                )
                .or(false),
        }
    }
}

const RECORDS: u64 = 1000;
const INTERVAL: Duration = Duration::from_secs(10);

impl Default for CheckpointsConfig {
    fn default() -> Self {
        let (records, interval) = (RECORDS, INTERVAL);
        Self { key: None, name: None, records, interval, former_keys: Vec::new() }
    }
}

impl CheckpointsConfig {
    fn read(s: &mut Section<'_>) -> Self {
        Self {
            key: s
                .key(
                    "key",
                    existing(),
                    "PEM file of the private key of Ed25519 (PKCS #8) that signs. Without it one is \
                     made in the state directory.",
                )
                .optional("none"),
            name: s
                .key(
                    "name",
                    name(KEY_NAME_BYTES_MAX).try_map(key_name),
                    "Name of the log and of its key in checkpoints, like `flags.example.com/audit`; no \
                     two journals should have one name. Without it, `bartizan/` and the first digits \
                     of the public key's SHA-256.",
                )
                .optional("none"),
            records: s
                .key(
                    "records",
                    count(1..=1_000_000),
                    "Number of new records after which a checkpoint is made.",
                )
                .or(RECORDS),
            interval: s
                .key(
                    "interval",
                    time(Duration::from_millis(100)..=Duration::from_hours(1)),
                    "Time after which one is made if there are any new records.",
                )
                .or(INTERVAL),
            former_keys: s
                .key(
                    "former_keys",
                    list(text().try_map(|text, _| {
                        text.parse().or_else(|_| wrong("is not a public key", FORMER_KEY_HINT))
                    })),
                    "Public keys, as `audit key` prints them, that have signed checkpoints before \
                     the present key.",
                )
                .optional("none")
                .unwrap_or_default(),
        }
    }
}

const FORMER_KEY_HINT: &str = "write what `bartizan audit key` printed, `<name>+<id>+<base64>`";

/// A name that a key of a signed note can have.
fn key_name(name: Box<str>, _: &Context<'_>) -> Result<Box<str>, Wrong> {
    if name.contains(|c: char| c.is_whitespace() || c == '+') {
        return wrong("has a space or `+` in it", "write a name like `flags.example.com/audit`");
    }
    Ok(name)
}

impl DecisionLogsConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let url = s
            .key(
                "url",
                url(),
                "Where decisions go: a service that takes OPA's decision logs; `/logs` is added. \
                 See [audit.md](audit.md#decision-logs). Without `decision_logs` none are sent.",
            )
            .required("write where decisions go, like `https://control.example.com`");
        let labels = s
            .key("labels", texts_by_name(), "Names and texts for `labels` of each event.")
            .optional("none")
            .unwrap_or_default();
        let keys = RemoteKeys {
            timeout_means: "Time for one upload.",
            timeout: Duration::from_secs(10),
            only: None,
        };
        let remote = RemoteConfig::read(s, url, &keys)?;
        let labels = labels.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
        Some(Self { remote, labels })
    }
}
