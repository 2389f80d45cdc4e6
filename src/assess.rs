//! Asks a server for its lists, for `bartizan assess`.
//!
//! Like `bartizan lock`, the client reaches the server through a firewall that observes, so what is
//! assessed is what the gate reads. The threat model itself is made by [`bartizan_assess`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::Value;

use crate::config::{Config, HttpUpstream, Upstream, is_loopback};
use crate::lock::ask::{AskError, survey};
use crate::lock::client::SurveyedList;
use crate::run::RunOptions;
use bartizan_assess::observed::{Item, Listed, MASK, Observed, Reach};
use bartizan_gate::duty::secrets;

/// Parts of a name that announce a credential.
const CREDENTIAL_NAMES: [&str; 9] =
    ["auth", "cookie", "credential", "key", "pass", "pwd", "secret", "session", "token"];
/// Flags whose value is a header.
const HEADER_FLAGS: [&str; 3] = ["-H", "--header", "--headers"];
/// Bytes of a word that are searched for secrets: each rule whose keyword occurs reads it once.
const SEARCH_BYTES_MAX: usize = 1 << 20;

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
    let mut names = HashSet::new();
    for entry in &seen.entries {
        let name = entry.get(key).and_then(Value::as_str).unwrap_or_default();
        match Item::read(name, &entry.to_string()) {
            Ok(mut item) => {
                item.is_repeated = !names.insert(name);
                items.push(item);
            }
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
            let address = shown_word(&format!("{scheme}://{authority}{}", url.path()));
            let reach = Reach::Http {
                encrypted,
                loopback: is_loopback(url.host().unwrap_or_default()),
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

/// The words of a command without credentials: values of flags, variables and headers whose name
/// announces one, the user information of URLs, and secrets of known forms.
pub(crate) fn shown_words(words: &[String]) -> Vec<String> {
    let mut shown = Vec::new();
    let mut is_secret = false;
    for word in words {
        shown.push(if is_secret { MASK.to_owned() } else { shown_word(word) });
        let is_flag = word.starts_with('-') && !word.contains('=');
        is_secret = !is_secret && is_flag && announces(word);
    }
    shown
}

/// Whether a value with this name may be a credential.
fn announces(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    HEADER_FLAGS.contains(&name)
        || CREDENTIAL_NAMES.iter().any(|part| lower.contains(part))
        || lower.split(['-', '_', '.']).any(|part| part == "pat")
}

/// A word of a command, or a URL, without credentials.
pub(crate) fn shown_word(word: &str) -> String {
    let joined = word.strip_prefix("-H").filter(|header| !header.is_empty());
    if joined.is_some() {
        return format!("-H{MASK}");
    }
    without_secrets(&without_named_values(&without_user_information(word)))
}

/// `word` up to the first value whose name announces a credential: `NAME=value`, `Name: value`.
fn without_named_values(word: &str) -> String {
    for (at, separator) in word.match_indices(['=', ':']) {
        let (before, after) = (word.get(..at), word.get(at.saturating_add(1)..));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        // `image:tag` and `host:port` have no name; `Name: value` and `"name":"value"` do.
        if after.is_empty() || (separator == ":" && !after.starts_with([' ', '"', '\''])) {
            continue;
        }
        let before = before.trim_end_matches(['"', '\'']);
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = before.rsplit(|c| !is_name(c)).next().unwrap_or_default();
        if announces(name) {
            return format!("{}{MASK}", word.get(..=at).unwrap_or_default());
        }
    }
    word.to_owned()
}

/// `word` with the user information of each URL in it masked.
fn without_user_information(word: &str) -> String {
    let mut parts = word.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("://");
        let authority = part.split(['/', '?', '#']).next().unwrap_or_default();
        // A password may hold a slash; what follows the colon is then no port.
        let is_port = |port: &str| port.bytes().all(|c| c.is_ascii_digit());
        let is_cut = authority.rsplit_once(':').is_some_and(|(_, port)| !is_port(port));
        let searched = if authority.contains('@') || !is_cut { authority } else { part };
        let host = searched.rfind('@').and_then(|at| part.get(at..));
        match host {
            Some(host) => {
                shown.push_str(MASK);
                shown.push_str(host);
            }
            None => shown.push_str(part),
        }
    }
    shown
}

/// `word` with each secret of a known form masked; the mask alone if it cannot be searched.
fn without_secrets(word: &str) -> String {
    secrets::find(word, &mut SEARCH_BYTES_MAX.clone())
        .map_or_else(|_| MASK.to_owned(), |found| secrets::masked(word, found, MASK))
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
            ("server --passwd k1 -H X:k1 x", "server --passwd [credential] -H [credential] x"),
            ("server --header=X-A:k1 -HX:k1", "server --header=[credential] -H[credential]"),
            ("env API_TOKEN=k1 GH_PAT=k1 x", "env API_TOKEN=[credential] GH_PAT=[credential] x"),
            ("docker -e ROOT=/d --env=A_KEY=k1", "docker -e ROOT=/d --env=A_KEY=[credential]"),
            ("docker run ghcr.io/x/auth:1.2", "docker run ghcr.io/x/auth:1.2"),
            ("x postgres://u:k1@h/db", "x postgres://[credential]@h/db"),
            ("x a://k1@h,b://u:k/1@h/db", "x a://[credential]@h,b://[credential]@h/db"),
            ("x https://h:80/@scope/x", "x https://h:80/@scope/x"),
            ("x https://h/p?api_key=k1&a=b", "x https://h/p?api_key=[credential]"),
            (r#"x {"token":"k1"}"#, r#"x {"token":[credential]"#),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(shown_words(&words).join(" "), expected);
        }
        let token = format!("ghp_{}", "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cD3fG6");
        for word in
            [token.clone(), format!("--x={token}"), format!("Authorization: Bearer {token}")]
        {
            assert!(!shown_word(&word).contains(&token), "{word}");
        }
    }
}
