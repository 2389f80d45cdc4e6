//! Which era of MCP a stdio server speaks, found out by a probe. [`bridge`](super::bridge) asks.
//!
//! On stdio a process speaks one era (revision 2026-07-28, basic/versioning). A legacy server may
//! carry out a request that comes before `initialize`, or exit because of it. So a request of the
//! modern era is forwarded only after a child without a session has answered `server/discover`.
//! This module is pure: it does no I/O.

use std::time::Duration;

use bytes::Bytes;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value};
use bartizan_gate::wire::protocol::Era;

/// The probe: `server/discover` as a client of the newest revision sends it.
pub(super) const PROBE: &[u8] = concat!(
    r#"{"jsonrpc":"2.0","method":"server/discover","params":{"_meta":{"#,
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"bartizan","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""},"io.modelcontextprotocol/clientCapabilities":{}}},"id":"bartizan-era"}"#,
)
.as_bytes();

/// The answer of a legacy HTTP server, with status 400, to a request before `initialize`. Clients
/// of both eras fall back to `initialize` when they get it.
pub(super) const NOT_INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#;

/// The outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    /// The child answered as a server of this era does.
    Speaks(Era),
    /// The child ended, did not answer in time, or the session for the probe was closed.
    Silent,
    /// The policy denies the probe.
    Forbidden,
}

/// The era of a server's children, cached until a time.
#[derive(Debug, Default)]
pub(super) struct KnownEra {
    learnt: Option<(Era, Duration)>,
}

impl KnownEra {
    /// The era, if it is known and the cache entry has not expired at `uptime`.
    pub(super) fn at(&self, uptime: Duration) -> Option<Era> {
        self.learnt.filter(|(_, until)| uptime < *until).map(|(era, _)| era)
    }

    /// Caches `era` until `until`, an uptime.
    pub(super) fn learn(&mut self, era: Era, until: Duration) {
        self.learnt = Some((era, until));
    }
}

/// The era of a server that gave this answer to `server/discover`, read within `limits`. Errors
/// -32022 to -32020 exist in the modern era only; any other error means a legacy server
/// (basic/versioning, "Compatibility Matrix").
pub(super) fn of_answer(body: &Bytes, limits: &DocumentLimits) -> Era {
    let Ok(document) = Document::read(body.clone(), limits) else { return Era::Legacy };
    let root = document.root();
    let versions = root.pointer("/result/supportedVersions");
    let code = root.pointer("/error/code").and_then(Value::as_i64);
    let modern = versions.is_some_and(|versions| versions.kind() == Kind::Array)
        || code.is_some_and(|code| (-32022..=-32020).contains(&code));
    if modern { Era::Modern } else { Era::Legacy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eras_are_told_by_what_only_one_of_them_says() {
        let cases = [
            (r#"{"result":{"supportedVersions":["2026-07-28"]}}"#, Era::Modern),
            (r#"{"result":{"supportedVersions":[]}}"#, Era::Modern),
            (r#"{"error":{"code":-32022,"message":""}}"#, Era::Modern),
            (r#"{"error":{"code":-32601,"message":""}}"#, Era::Legacy),
            (r#"{"error":{"code":-32000,"message":""}}"#, Era::Legacy),
            (r#"{"result":{}}"#, Era::Legacy),
            (r#"{"result":{"supportedVersions":"2026-07-28"}}"#, Era::Legacy),
        ];
        for (answer, expected) in cases {
            let body = Bytes::from_static(answer.as_bytes());
            assert_eq!(of_answer(&body, &DocumentLimits::default()), expected, "{answer}");
        }
        for line in [PROBE, NOT_INITIALIZED] {
            Document::read(Bytes::from_static(line), &DocumentLimits::default()).unwrap();
        }
    }

    #[test]
    fn what_was_learnt_holds_for_a_while() {
        let mut known = KnownEra::default();
        assert_eq!(known.at(Duration::ZERO), None);
        known.learn(Era::Legacy, Duration::from_secs(5));
        assert_eq!(known.at(Duration::from_secs(4)), Some(Era::Legacy));
        assert_eq!(known.at(Duration::from_secs(5)), None);
    }
}
