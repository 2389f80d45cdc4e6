//! Asks a server for its lists, for `bartizan assess`.
//!
//! Like `bartizan lock`, the client reaches the server through a firewall that observes, so what is
//! assessed is what the gate reads. The threat model itself is made by [`bartizan_assess`].

use std::collections::HashMap;
use std::time::Duration;

use http::Uri;
use serde_json::Value;

use crate::config::{Config, HttpUpstream, Upstream};
use crate::lock::ask::{AskError, survey};
use crate::lock::client::SurveyedList;
use crate::run::RunOptions;
use bartizan_assess::observed::{Item, Listed, Observed, Reach};

/// What stands in place of an argument that may be a credential.
const MASK: &str = "[credential]";
/// Parts of a flag's name that announce a credential.
const CREDENTIAL_FLAGS: [&str; 6] = ["auth", "credential", "key", "password", "secret", "token"];

/// Lists what the first server of `config` offers, within `time`. Nothing is called or read.
///
/// # Errors
///
/// The temporary firewall does not start, or no session with the server can be opened.
pub async fn observe(
    config: &Config,
    options: RunOptions,
    time: Duration,
) -> Result<Observed, AskError> {
    let (address, reach) = config.servers.first().map_or_else(
        || (String::new(), Reach::Program(Vec::new())),
        |server| reach(&server.upstream),
    );
    let survey = survey(config, options, time).await?;
    let surveyed = survey.surveyed;
    Ok(Observed {
        address,
        reach,
        identity: surveyed.identity,
        tools: tools(&surveyed.tools, survey.tools),
        resources: listed(surveyed.resources, "uri"),
        templates: listed(surveyed.templates, "uriTemplate"),
        prompts: listed(surveyed.prompts, "name"),
    })
}

/// The tools as the gate read them. What the client saw besides is a gap.
fn tools(seen: &SurveyedList, read: Vec<(String, String)>) -> Listed {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in seen.entries.iter().filter_map(|entry| entry.get("name")?.as_str()) {
        let count = counts.entry(name).or_default();
        *count = count.saturating_add(1);
    }
    let mut gap = seen.gap.clone();
    if counts.len() > read.len() {
        gap.get_or_insert_with(|| "the firewall did not keep all of its entries".to_owned());
    }
    let mut items = Vec::new();
    for (name, text) in read {
        match Item::read(&name, &text) {
            Ok(mut item) => {
                item.is_repeated = counts.get(name.as_str()).is_some_and(|count| *count > 1);
                items.push(item);
            }
            Err(what) => gap = Some(what),
        }
    }
    Listed::new(items, gap)
}

/// Another list, as the client read it; `key` is the member that names an entry.
fn listed(seen: SurveyedList, key: &str) -> Listed {
    if !seen.offered {
        return Listed::default();
    }
    let mut gap = seen.gap;
    let mut items = Vec::new();
    for entry in seen.entries {
        let name = entry.get(key).and_then(Value::as_str).unwrap_or_default();
        match Item::read(name, &entry.to_string()) {
            Ok(item) => items.push(item),
            Err(what) => gap = Some(what),
        }
    }
    Listed::new(items, gap)
}

/// Where the server is, for readers, and how it is reached.
fn reach(upstream: &Upstream) -> (String, Reach) {
    match upstream {
        Upstream::Http(HttpUpstream { url, headers, .. }) => {
            let encrypted = url.scheme_str() == Some("https");
            let scheme = url.scheme_str().unwrap_or_default();
            let authority = url.authority().map(ToString::to_string).unwrap_or_default();
            let address = format!("{scheme}://{authority}{}", url.path());
            let reach = Reach::Http {
                encrypted,
                loopback: is_loopback(url),
                with_headers: !headers.is_empty(),
            };
            (address, reach)
        }
        Upstream::Child(child) => {
            let words: Vec<String> =
                std::iter::once(&child.program).chain(&child.args).cloned().collect();
            (shown_words(&words).join(" "), Reach::Program(words))
        }
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// The words of a command without the values of flags that announce a credential.
pub(crate) fn shown_words(words: &[String]) -> Vec<String> {
    let announces = |flag: &str| {
        let flag = flag.to_ascii_lowercase();
        CREDENTIAL_FLAGS.iter().any(|part| flag.contains(part))
    };
    let mut shown = Vec::new();
    let mut is_secret = false;
    for word in words {
        let (flag, value) = word.split_once('=').unwrap_or((word, ""));
        shown.push(match (is_secret, word.starts_with('-') && announces(flag), value) {
            (true, ..) => MASK.to_owned(),
            (false, true, "") | (false, false, _) => word.clone(),
            (false, true, _) => format!("{flag}={MASK}"),
        });
        is_secret = !is_secret && word.starts_with('-') && value.is_empty() && announces(flag);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_without_credentials() {
        for (command, expected) in [
            ("npx -y server --root /data", "npx -y server --root /data"),
            ("server --api-key k1 --v", "server --api-key [credential] --v"),
            ("server --token=k1 x", "server --token=[credential] x"),
            ("server --token --token k", "server --token [credential] k"),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(shown_words(&words).join(" "), expected);
        }
    }

    #[test]
    fn loopback_is_this_machine() {
        for (url, expected) in [
            ("http://127.0.0.2:1/", true),
            ("http://[::1]:1/", true),
            ("http://localhost/", true),
            ("http://localhost.example/", false),
            ("http://192.0.2.1/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap_or_default()), expected, "{url}");
        }
    }
}
