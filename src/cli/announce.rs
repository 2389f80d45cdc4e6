//! What `bartizan wrap` says at its start: what it guards and how, and where the journal is.
//!
//! The user of a desktop client never sees `bartizan check`, only this, in the client's log of the
//! server.

use std::path::Path;

use ::http::uri::Authority;

use super::check::sources;
use super::failure::plain;
use crate::config::{Config, HttpTransport, PackRef, Upstream};
use bartizan_gate::session::Mode;

/// What `config` guards, with which policy and pack, in which mode. Arguments of the program, and the
/// path and query of a URL, are left out, because people put credentials there.
pub(super) fn guarding(config: &Config) -> String {
    let server = config.servers.first();
    let name = server.map(|server| server.name.as_str()).unwrap_or_default();
    let reached = match server.map(|server| &server.upstream) {
        Some(Upstream::Child(child)) => format!("the program `{}`", child.program),
        Some(Upstream::Http(http)) => {
            let speaks = match http.transport {
                HttpTransport::StreamableHttp => "",
                HttpTransport::Sse => ", which speaks HTTP+SSE",
            };
            let authority = http.url.authority().map(Authority::as_str).unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{}://{host}{speaks}", http.url.scheme_str().unwrap_or_default())
        }
        None => String::new(),
    };
    let policy = match sources(&config.policy).join(", ") {
        none if none.is_empty() => "the built-in baseline".to_owned(),
        paths => paths,
    };
    let pack = match server.and_then(|server| server.pack.as_ref()) {
        Some(PackRef::Embedded(name)) => name.clone(),
        Some(PackRef::File(path)) => path.display().to_string(),
        None => "none".to_owned(),
    };
    let mode = match config.mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe (nothing is refused by policy)",
    };
    plain(&format!("guarding `{name}`, {reached}; mode: {mode}; policy: {policy}; pack: {pack}"))
}

/// Where the journal is: in `state`, which need not be the one that `config` asks for; and what to do where nothing says what the tools
/// of the server do.
pub(super) fn recording(config: &Config, state: &Path) -> Vec<String> {
    let shown = word(&state.display().to_string());
    let mut lines = Vec::new();
    if config.state != state {
        lines.push(format!(
            "another process writes the journal in {}, so this one has its own",
            word(&config.state.display().to_string())
        ));
    }
    lines.push(format!("the journal is in {shown}: bartizan audit tail --state {shown}"));
    let unknown = config.servers.iter().all(|server| server.pack.is_none());
    let baseline = config.policy.paths.is_empty() && config.policy.bundle.is_none();
    if unknown && baseline {
        let learn = format!("bartizan policy learn --state {shown} --out learned");
        match config.mode {
            Mode::Enforce => lines.extend([
                "no pack says what its tools do, and no policy of yours permits any: they are \
                 listed, and calls of them are refused"
                    .to_owned(),
                "for a first look, write `bartizan wrap --observe` instead of `bartizan wrap`: all \
                 is recorded, and nothing refused by policy"
                    .to_owned(),
                format!("then draft rules from what was recorded, for `--policy learned`: {learn}"),
            ]),
            Mode::Observe => lines.push(format!(
                "draft rules from what is recorded, for `--policy learned`: {learn}"
            )),
        }
    }
    lines.iter().map(|line| plain(line)).collect()
}

/// `text` as one word of a shell.
fn word(text: &str) -> String {
    let bare = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
