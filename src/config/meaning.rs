//! What a configuration file means: defaults, addresses, paths, and how keys bear on each other.
//!
//! Goes through everything even after the first problem. A part that cannot be made out is left
//! out of the result, which is thrown away then: where there is a problem there is no [`Config`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::Uri;
use tracing_subscriber::EnvFilter;

use super::file::{
    ConfigFile, DecisionLogsFile, LimitsFile, LogFile, OtlpFile, PolicyFile, PrincipalFile,
};
use super::problem::{Place, Problems, Spot};
use super::secret::is_variable_name;
use super::{
    AuditConfig, Config, DecisionLogsConfig, Front, Limits, LogConfig, LogFormat, OtlpConfig,
    PolicyConfig, Surroundings, server,
};
use bartizan_gate::duty::pdp::Inputs;
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::Mode;
use bartizan_gate::wire::document::DocumentLimits;
use bartizan_gate::wire::frame::FrameLimits;

/// Length of a principal's id, bytes: it is in every record and names buckets.
const PRINCIPAL_BYTES_MAX: usize = 256;

/// What every part of the meaning needs.
pub(super) struct Reader<'a> {
    pub(super) base: &'a Path,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) problems: &'a mut Problems,
}

/// What `file` means. Absent where a needed part could not be made out.
pub(super) fn config(
    file: ConfigFile,
    base: &Path,
    surroundings: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Config> {
    let mut reader = Reader { base, surroundings, problems };
    let front = reader.front(&file);
    let state = file
        .state
        .map_or_else(|| PathBuf::from("/var/lib/bartizan"), |state| base.join(state.value));
    let servers = server::servers(file.servers, front, &mut reader);
    let policy = reader.policy(file.policy);
    let principal = reader.principal(file.principal);
    let otlp = file.otlp.and_then(|otlp| reader.otlp(otlp));
    let log = reader.log(file.log);
    let decision_logs = file.audit.decision_logs.and_then(|logs| reader.decision_logs(logs));
    Some(Config {
        front: front?,
        state,
        lock: file.lock.map(|lock| base.join(lock.value)),
        mode: or(file.mode, Mode::Enforce),
        policy,
        servers,
        principal,
        limits: limits(file.limits, problems),
        audit: AuditConfig {
            segment_bytes: or(file.audit.segment_bytes, 64 << 20),
            inputs: or(file.audit.inputs, Inputs::None),
            decision_logs,
        },
        otlp,
        log,
    })
}

/// The value of `spot`, or `default`.
pub(super) fn or<T>(spot: Option<Spot<T>>, default: T) -> T {
    spot.map_or(default, |spot| spot.value)
}

fn count(spot: Option<Spot<u64>>, default: usize) -> usize {
    // Every range ends far below what the smallest supported `usize` holds.
    spot.map_or(default, |spot| usize::try_from(spot.value).unwrap_or(usize::MAX))
}

impl Reader<'_> {
    fn front(&mut self, file: &ConfigFile) -> Option<Front> {
        let anywhere = |spot: &Option<Spot<bool>>| spot.as_ref().is_some_and(|spot| spot.value);
        let listen = self.address(
            file.listen.as_ref(),
            7070,
            ("listen_anywhere", anywhere(&file.listen_anywhere)),
        );
        let admin = self.address(
            file.admin.as_ref(),
            7071,
            ("admin_anywhere", anywhere(&file.admin_anywhere)),
        );
        let (listen, admin) = (listen?, admin?);
        let same_ip = listen.ip() == admin.ip()
            || listen.ip().is_unspecified()
            || admin.ip().is_unspecified();
        if listen.port() == admin.port() && listen.port() != 0 && same_ip {
            let place = [&file.admin, &file.listen].into_iter().flatten().next();
            let place = place.map_or_else(|| Place::named("admin"), |spot| spot.place.clone());
            let what = format!("`admin` and `listen` are both {admin}");
            self.problems.push(&place, what, "agents must not reach it: give it another port");
        }
        Some(Front::Http { listen, admin })
    }

    fn address(
        &mut self,
        written: Option<&Spot<String>>,
        default_port: u16,
        (opener, anywhere): (&str, bool),
    ) -> Option<SocketAddr> {
        let Some(written) = written else {
            return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port));
        };
        let Ok(address) = written.value.parse::<SocketAddr>() else {
            let what = format!("is no IP address with a port: `{}`", written.value.escape_debug());
            let hint =
                format!("write it like `127.0.0.1:{default_port}` or `[::1]:{default_port}`");
            self.problems.push(&written.place, what, hint);
            return None;
        };
        if !address.ip().to_canonical().is_loopback() && !anywhere {
            let what = format!("{address} can be reached from other machines");
            let hint = format!("use 127.0.0.1, or add `{opener}: true`");
            self.problems.push(&written.place, what, hint);
        }
        Some(address)
    }

    fn policy(&mut self, mut file: PolicyFile) -> PolicyConfig {
        let bundle = self.bundle(&mut file);
        let paths = file.paths.into_iter().map(|path| self.existing(path)).collect();
        let default = PolicyConfig::default();
        let shadow = or(file.shadow_one_in, default.shadow_one_in.into());
        PolicyConfig {
            paths,
            bundle,
            entrypoint: self.entrypoint(file.entrypoint, default.entrypoint),
            listing_entrypoint: self
                .entrypoint(file.listing_entrypoint, default.listing_entrypoint),
            shadow_one_in: u32::try_from(shadow).unwrap_or(u32::MAX),
        }
    }

    fn entrypoint(&mut self, written: Option<Spot<String>>, default: String) -> String {
        let Some(written) = written else { return default };
        let mut names = written.value.split('.');
        let starts = names.next() == Some("data");
        let names: Vec<&str> = names.collect();
        if !starts || names.len() < 2 || !names.iter().all(|name| is_variable_name(name)) {
            let what = format!("is no rule: `{}`", written.value.escape_debug());
            let hint = format!("write `data.`, the package and the rule, like `{default}`");
            self.problems.push(&written.place, what, hint);
        }
        written.value
    }

    fn principal(&mut self, file: PrincipalFile) -> Principal {
        for spot in file.id.iter().chain(&file.kind).chain(&file.groups) {
            if spot.value.len() > PRINCIPAL_BYTES_MAX || spot.value.contains(char::is_control) {
                let what = format!("longer than {PRINCIPAL_BYTES_MAX} bytes, or not printable");
                self.problems.push(&spot.place, what, "use a short name");
            }
        }
        let name = |spot: Option<Spot<String>>| or(spot, "agent".to_owned()).into();
        Principal {
            id: name(file.id),
            kind: name(file.kind),
            groups: file.groups.into_iter().map(|group| group.value.into()).collect(),
            claims: texts(file.claims),
        }
    }

    fn otlp(&mut self, file: OtlpFile) -> Option<OtlpConfig> {
        let headers = self.headers(file.headers);
        let Some(endpoint) = file.remote.url.clone() else {
            let hint = "write where spans go, like `http://127.0.0.1:4318`";
            self.problems.push(&file.place, "`endpoint` is missing", hint);
            return None;
        };
        let remote = self.remote(&endpoint, file.remote, Duration::from_secs(10))?;
        Some(OtlpConfig { remote, headers })
    }

    fn decision_logs(&mut self, file: DecisionLogsFile) -> Option<DecisionLogsConfig> {
        let Some(url) = file.remote.url.clone() else {
            let hint = "write where decisions go, like `https://control.example.com`";
            self.problems.push(&file.place, "`url` is missing", hint);
            return None;
        };
        let remote = self.remote(&url, file.remote, Duration::from_secs(10))?;
        let labels = file.labels.into_iter().map(|(name, text)| (name, text.value)).collect();
        Some(DecisionLogsConfig { remote, labels })
    }

    fn log(&mut self, file: LogFile) -> LogConfig {
        if let Some(filter) = &file.filter
            && let Err(error) = EnvFilter::try_new(&filter.value)
        {
            let hint = "write a level, or targets with levels, like `info,bartizan::edge=debug`";
            self.problems.push(&filter.place, format!("is no filter: {error}"), hint);
        }
        LogConfig {
            format: or(file.format, LogFormat::Text),
            filter: or(file.filter, "info".to_owned()),
        }
    }

    /// A path, relative to the file's directory, of something that must be there.
    pub(super) fn existing(&mut self, path: Spot<String>) -> PathBuf {
        let full = self.base.join(path.value);
        if !(self.surroundings.exists)(&full) {
            let what = format!("`{}` does not exist, or may not be seen", full.display());
            let hint = "correct the path; it counts from the directory of this file";
            self.problems.push(&path.place, what, hint);
        }
        full
    }

    /// An http or https address without anything that would be lost or shown.
    pub(super) fn url(&mut self, written: &Spot<String>) -> Option<Uri> {
        let url = written.value.parse::<Uri>().ok();
        let what = match url.as_ref().map(|url| (url.scheme_str(), url.authority())) {
            None => Some("is no URL"),
            Some((Some("http" | "https"), Some(authority))) => {
                if authority.as_str().contains('@') {
                    Some("holds a user or a password")
                } else if authority.host().is_empty() {
                    Some("names no host")
                } else if written.value.contains('#') {
                    Some("holds a fragment (`#…`)")
                } else {
                    None
                }
            }
            Some(_) => Some("is no http or https URL"),
        };
        if let Some(what) = what {
            let hint = "write it like `https://host/mcp`; credentials belong into `headers`";
            self.problems.push(&written.place, what, hint);
            return None;
        }
        url
    }
}

/// Names and texts as the gate holds them.
pub(super) fn texts(written: Vec<(String, Spot<String>)>) -> BTreeMap<Box<str>, Box<str>> {
    written.into_iter().map(|(name, text)| (name.into(), text.value.into())).collect()
}

fn limits(file: LimitsFile, problems: &mut Problems) -> Limits {
    let frame = FrameLimits {
        document: DocumentLimits {
            bytes_max: count(file.frame_bytes, 4 << 20),
            depth_max: count(file.json_depth, 64),
            number_chars_max: count(file.number_chars, 256),
            values_max: count(file.json_values, 1 << 20),
        },
        id_bytes_max: count(file.id_bytes, 256),
    };
    let frame_bytes = u64::try_from(frame.document.bytes_max).unwrap_or(u64::MAX);
    let bodies = file.bodies_bytes.as_ref();
    if let Some(bodies) = bodies.filter(|bodies| bodies.value < frame_bytes) {
        let what = "less than `frame_bytes`: no message of that size would pass";
        problems.push(&bodies.place, what, format!("at least {frame_bytes}"));
    }
    let bodies_bytes = bodies.map_or(frame_bytes.max(256 << 20), |bodies| bodies.value);
    let seconds = Duration::from_secs;
    Limits {
        frame,
        header_bytes: count(file.header_bytes, 64 << 10),
        header_count: count(file.header_count, 100),
        header_time: or(file.header_time, seconds(5)),
        body_time: or(file.body_time, seconds(15)),
        bodies_bytes,
        connections: count(file.connections, 16_384),
        requests: count(file.requests, 16_384),
        streams: count(file.streams, 12_288),
        sessions: count(file.sessions, 8192),
        session_idle: or(file.session_idle, Duration::from_hours(1)),
        in_flight: count(file.in_flight, 256),
        answer_time: or(file.answer_time, Duration::from_mins(5)),
        stream_idle: or(file.stream_idle, Duration::from_mins(5)),
        children: count(file.children, 64),
        buckets: count(file.buckets, 65_536),
        drain: or(file.drain, seconds(25)),
    }
}
