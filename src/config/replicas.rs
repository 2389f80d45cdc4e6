//! `replicas`: what several instances of this firewall share, in a Redis or Valkey.

use std::path::PathBuf;
use std::time::Duration;

use ::http::Uri;
use sha2::{Digest as _, Sha256};

use super::form::{Form, one_or_more, random_secret, secret, text, time};
use super::problem::{Wrong, wrong};
use super::remote::{ca_file, is_loopback};
use super::secret::Secret;
use super::section::{Section, section};

/// What every address of a store matches.
const URL_PATTERN: &str = "^(redis|valkey)s?://[^/@?#]+(/[0-9]*)?$";
const HINT_URL: &str = "write it like `rediss://host:6379/0`; the user and the password have keys of \
                        their own";
/// The port where none is written.
const PORT: u16 = 6379;
/// Highest number of a database.
const DATABASE_MAX: u32 = 1_000_000;
/// Length of `prefix`, bytes.
const PREFIX_BYTES_MAX: usize = 64;
/// Length of a key, bytes.
const KEY_BYTES_MIN: usize = 32;
const KEY_BYTES_MAX: usize = 512;
/// Keys at once.
const KEYS_MAX: usize = 8;
const HINT_KEYS: &str = "make one with `openssl rand -hex 32`, give it to each instance, and refer to \
                         it: `keys: ${file:/run/secrets/replicas}`";

/// What several instances of this firewall share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicasConfig {
    /// Where the store is (`url`).
    pub store: StoreAddress,
    /// Who we are to it (`user`). Default: its default user.
    pub user: Option<Box<str>>,
    /// The password (`password`). Default: none is sent.
    pub password: Option<Secret>,
    /// Certificates to trust instead of the system's, PEM (`ca_file`).
    pub ca_file: Option<PathBuf>,
    /// How the names of all keys in it begin (`prefix`).
    pub prefix: Box<str>,
    /// For a connection and for one answer (`timeout`).
    pub timeout: Duration,
    /// What seals what one instance writes and another one reads (`keys`), the one in use first.
    pub keys: Vec<SharedKey>,
}

/// Where a Redis or Valkey is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAddress {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// The number of the database.
    pub database: u32,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
}

impl StoreAddress {
    /// Whether nobody on the way to it can read or change what is sent: TLS, or this machine.
    pub(super) fn is_protected(&self) -> bool {
        self.tls || is_loopback(&self.host)
    }
}

/// A key that each instance has. What is used are keys that are derived from it.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey([u8; 32]);

impl SharedKey {
    /// The key for one use: SHA-256 over its name and the key, of fixed lengths.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.0);
        digest.update(purpose.as_bytes());
        digest.finalize().into()
    }
}

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedKey(…)")
    }
}

/// Reads `replicas`.
pub(super) fn read(s: &mut Section<'_>) -> Option<ReplicasConfig> {
    s.key(
        "replicas",
        section(ReplicasConfig::read),
        "What several instances share, in a Redis or Valkey: held calls, and what limits have \
         counted.",
    )
    .optional("none")
}

impl ReplicasConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let url = text().checked(URL_PATTERN, |text| address(&text));
        let store = s
            .key(
                "url",
                url,
                "Where the Redis (6 or later) or Valkey is: `rediss://` with TLS, or `redis://`, \
                 with host, port and number of the database.",
            )
            .required(HINT_URL);
        let user = s
            .key(
                "user",
                text().map(String::into_boxed_str),
                "The user there; without it, the default one.",
            )
            .optional("none");
        let password = s
            .key("password", secret(), "The password there; may hold a reference.")
            .optional("none");
        let ca_file = ca_file(s, None);
        if let (Some(store), Some(_)) = (&store, &ca_file)
            && !store.tls
        {
            s.problem("ca_file", "`url` is without TLS", "use `rediss://`");
        }
        let prefix = s
            .key(
                "prefix",
                prefix(),
                "How the names of all keys there begin. The same for instances that belong \
                 together, and others for others.",
            )
            .or("bartizan".into());
        let timeout = s
            .key(
                "timeout",
                time(Duration::from_millis(10)..=Duration::from_secs(10)),
                "For a connection, and for one answer. After it the store counts as away.",
            )
            .or(Duration::from_millis(500));
        let keys = s
            .key(
                "keys",
                one_or_more(key()),
                "Text or texts of 32 to 512 characters, made at random, at most 8; may hold \
                 references. Each instance has the same. The first one seals what the instances \
                 write for one another; all of them open it, so a new key is put last everywhere, \
                 then first.",
            )
            .required(HINT_KEYS);
        if keys.as_ref().is_some_and(|keys| keys.len() > KEYS_MAX) {
            s.problem("keys", format!("more than {KEYS_MAX} keys"), "remove the oldest ones");
        }
        Some(Self { store: store?, user, password, ca_file, prefix, timeout, keys: keys? })
    }
}

fn address(text: &str) -> Result<StoreAddress, Wrong> {
    let Ok(url) = text.parse::<Uri>() else { return wrong("is no URL", HINT_URL) };
    let tls = match url.scheme_str() {
        Some("rediss" | "valkeys") => true,
        Some("redis" | "valkey") => false,
        _ => return wrong("is no address of a Redis or Valkey", HINT_URL),
    };
    let Some(authority) = url.authority() else { return wrong("names no host", HINT_URL) };
    if authority.as_str().contains('@') {
        return wrong("holds a user or a password", HINT_URL);
    }
    if url.query().is_some() || text.contains('#') {
        return wrong("holds a query (`?…`) or a fragment (`#…`)", HINT_URL);
    }
    let host = authority.host().trim_matches(['[', ']']);
    if host.is_empty() {
        return wrong("names no host", HINT_URL);
    }
    let after = authority.as_str().rsplit_once(':').map(|(_, port)| port);
    if authority.port_u16().is_none() && after.is_some_and(|port| !port.ends_with(']')) {
        return wrong("has a port that is none", HINT_URL);
    }
    let database = match url.path().trim_start_matches('/') {
        "" => Some(0),
        number => number.parse().ok().filter(|number| *number <= DATABASE_MAX),
    };
    let Some(database) = database else {
        return wrong("has a database that is no number", HINT_URL);
    };
    let port = authority.port_u16().unwrap_or(PORT);
    Ok(StoreAddress { host: host.into(), port, database, tls })
}

/// A text for names of keys, without what would end the part that names the slot of a cluster.
fn prefix<'f>() -> Form<'f, Box<str>> {
    text()
        .try_map(|text, _| {
            let fits = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
            if text.is_empty() || text.len() > PREFIX_BYTES_MAX || !text.chars().all(fits) {
                let what = format!(
                    "must be 1 to {PREFIX_BYTES_MAX} visible characters of ASCII, without braces"
                );
                return wrong(what, "write a short name, such as `bartizan`");
            }
            Ok(text.into_boxed_str())
        })
        .shown(Box::<str>::to_string)
}

fn key<'f>() -> Form<'f, SharedKey> {
    let key = random_secret(KEY_BYTES_MIN..=KEY_BYTES_MAX, HINT_KEYS);
    key.try_map(|key, _| Ok(SharedKey(Sha256::digest(key.expose()).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let read = |text: &str| address(text).map_err(|wrong| wrong.what);
        let at = |host: &str, port, database, tls| {
            Ok(StoreAddress { host: host.into(), port, database, tls })
        };
        assert_eq!(read("redis://h"), at("h", 6379, 0, false));
        assert_eq!(read("rediss://h:1/"), at("h", 1, 0, true));
        assert_eq!(read("valkeys://[::1]:7/3"), at("::1", 7, 3, true));
        assert_eq!(read("valkey://[::1]/3"), at("::1", 6379, 3, false));
        assert_eq!(read("redis://h/1000000"), at("h", 6379, DATABASE_MAX, false));
        for (text, what) in [
            ("http://h", "is no address of a Redis or Valkey"),
            ("redis://u:s3cret@h", "holds a user or a password"),
            ("redis://s3cret@h", "holds a user or a password"),
            ("redis://h/x", "has a database that is no number"),
            ("redis://h/1/2", "has a database that is no number"),
            ("redis://h/1000001", "has a database that is no number"),
            ("redis://h/99999999999", "has a database that is no number"),
            ("redis://h/?password=s3cret", "holds a query (`?…`) or a fragment (`#…`)"),
            ("redis:", "is no address of a Redis or Valkey"),
            ("redis://a b", "is no URL"),
        ] {
            assert_eq!(read(text), Err(what.to_owned()), "{text}");
        }
        assert!(read("redis://h:99999").is_err());
    }

    #[test]
    fn a_key_is_another_one_for_each_use() {
        let key = SharedKey([7; 32]);
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), SharedKey([8; 32]).derive("a"));
        assert_eq!(format!("{key:?}"), "SharedKey(…)");
    }
}
