//! An issuer's public keys: where they come from, and how long they are cached.
//!
//! Keys are fetched when a token needs them: none are cached, the cached ones are older than
//! [`FRESH`], or the token names a key that is not among them. For each issuer one task fetches at
//! a time, and at most once in [`PAUSE`], however many tokens arrive. The address comes from the
//! configuration; redirects are not followed.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::header::ACCEPT;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bartizan_jose::{KEY_SET_BYTES_MAX, KeySet};
use bartizan_outbound::service::{Service, ServiceCall};
use bartizan_sync::lock;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::token::ALGORITHMS;

/// How long cached keys are used without fetching them again.
pub const FRESH: Duration = Duration::from_mins(5);
/// How long cached keys are used while fetching fails; after that no token is accepted.
pub const STALE_MAX: Duration = Duration::from_hours(1);
/// Shortest time between two fetches, whatever tokens arrive.
pub const PAUSE: Duration = Duration::from_secs(5);
/// Timeout of one fetch.
pub const PATIENCE: Duration = Duration::from_secs(5);

const MEDIA: HeaderValue = HeaderValue::from_static("application/jwk-set+json, application/json");

/// What the operator can do about a key file that cannot be used.
pub const HINT: &str = "write the issuer's public keys there, as a JWK Set (RFC 7517)";

/// Where an issuer's keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// A file. It is read again when an address would be fetched again, so it may be replaced.
    File(PathBuf),
    /// An address, fetched with a timeout of [`PATIENCE`].
    Address(Box<Service>),
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct Keys {
    /// The issuer's name, for the log.
    issuer: Box<str>,
    source: KeySource,
    cached: Mutex<CachedKeys>,
    /// One permit, held by the task that fetches.
    fetching: Semaphore,
}

#[derive(Debug, Default)]
struct CachedKeys {
    keys: Option<Arc<KeySet>>,
    /// When they were fetched, as uptime.
    since: Duration,
    /// When the last fetch began, as uptime.
    attempted: Option<Duration>,
}

/// Cached keys that are not too old, with their age.
#[derive(Debug)]
struct UsableKeys {
    keys: Arc<KeySet>,
    age: Duration,
}

impl Keys {
    /// The keys of `issuer`. A file is read now; an address is fetched when a token needs it. Fails
    /// with a text for the operator if the file cannot be used. `now` is uptime, here and below.
    pub fn new(issuer: &str, source: KeySource, now: Duration) -> Result<Self, String> {
        let mut cached = CachedKeys::default();
        if let KeySource::File(path) = &source {
            cached.keys = Some(Arc::new(read_file(path)?));
            cached.since = now;
        }
        let (issuer, cached) = (issuer.into(), Mutex::new(cached));
        Ok(Self { issuer, source, cached, fetching: Semaphore::new(1) })
    }

    async fn renew(&self, now: Duration) -> Result<(), String> {
        self.cached().attempted = Some(now);
        let keys = match &self.source {
            KeySource::File(path) => read_file(path)?,
            KeySource::Address(issuer) => key_set(fetch(issuer).await?)?,
        };
        let mut cached = self.cached();
        cached.keys = Some(Arc::new(keys));
        cached.since = now;
        Ok(())
    }

    /// The keys, fetched again if they are not fresh or `wanted` is false for them. The result may
    /// still not satisfy `wanted`. `None` if no usable keys can be had.
    pub async fn with(
        &self,
        wanted: impl Fn(&KeySet) -> bool,
        now: Duration,
    ) -> Option<Arc<KeySet>> {
        let found = self.found(now).filter(|found| wanted(&found.keys));
        let permit = match found {
            Some(found) if found.age < FRESH => return Some(found.keys),
            // Another task is refreshing; use the cached keys.
            Some(found) => match self.fetching.try_acquire() {
                Ok(permit) => permit,
                Err(_) => return Some(found.keys),
            },
            None => self.fetching.acquire().await.ok()?,
        };
        let attempted = self.cached().attempted;
        if attempted.is_none_or(|attempted| now.saturating_sub(attempted) >= PAUSE)
            && let Err(why) = self.renew(now).await
        {
            tracing::warn!(issuer = %self.issuer, %why, "fetching an issuer's keys failed");
        }
        drop(permit);
        self.found(now).map(|found| found.keys)
    }

    fn found(&self, now: Duration) -> Option<UsableKeys> {
        let cached = self.cached();
        let age = now.saturating_sub(cached.since);
        let keys = cached.keys.clone().filter(|_| age < STALE_MAX)?;
        Some(UsableKeys { keys, age })
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, CachedKeys> {
        // No panic can leave this half-updated, so a poisoned lock is safe.
        lock(&self.cached)
    }
}

fn key_set(raw: Bytes) -> Result<KeySet, String> {
    KeySet::read(raw, &ALGORITHMS).map_err(|problem| problem.to_string())
}

/// Reads the keys in the file at `path`. It blocks, but the file is local and small. The error is a
/// text for the operator.
pub fn read_file(path: &Path) -> Result<KeySet, String> {
    key_set(read(path).map_err(|error| format!("cannot be read: {error}"))?)
}

fn read(path: &Path) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a longer file is detected.
    let max = u64::try_from(KEY_SET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

async fn fetch(issuer: &Service) -> Result<Bytes, String> {
    let call = ServiceCall {
        method: Method::GET,
        target: issuer.target(),
        headers: HeaderMap::from_iter([(ACCEPT, MEDIA)]),
        body: Bytes::new(),
        wait: Duration::ZERO,
        bytes_max: KEY_SET_BYTES_MAX,
    };
    let answer = issuer.call(call).await.map_err(|failure| failure.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("status {}", answer.status.as_u16()));
    }
    Ok(answer.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_jose::Algorithm;

    fn set(kid: &str) -> String {
        let point = "A".repeat(43);
        format!(
            "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{kid}\",\"x\":\"{point}\"}}]}}"
        )
    }

    /// Whether the key `kid` is there at `now`; nothing where there are no keys.
    async fn has(keys: &Keys, kid: &str, now: Duration) -> Option<bool> {
        let wanted = |set: &KeySet| set.find(Some(kid), Algorithm::EdDSA).is_some();
        keys.with(wanted, now).await.map(|set| wanted(&set))
    }

    #[tokio::test]
    async fn keys_are_fresh_then_stale_then_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, set("a")).unwrap();
        let at = Duration::from_secs;
        let keys = Keys::new("i", KeySource::File(file.clone()), at(100)).unwrap();
        std::fs::write(&file, set("b")).unwrap();
        let just = (at(100) + FRESH).saturating_sub(at(1));
        assert_eq!(has(&keys, "a", just).await, Some(true), "fresh: not read again");
        assert_eq!(has(&keys, "b", just).await, Some(true), "unknown: read at once");
        assert_eq!(has(&keys, "a", just).await, Some(false));
        std::fs::write(&file, set("c")).unwrap();
        assert_eq!(
            has(&keys, "c", (just + PAUSE).saturating_sub(at(1))).await,
            Some(false),
            "not so soon"
        );
        assert_eq!(has(&keys, "c", just + PAUSE).await, Some(true));
        let since = just + PAUSE;
        std::fs::write(&file, set("d")).unwrap();
        assert_eq!(has(&keys, "c", since + FRESH).await, Some(false), "withdrawn");
        let since = since + FRESH;
        std::fs::write(&file, "half a").unwrap();
        assert_eq!(has(&keys, "d", since + FRESH).await, Some(true), "stale, and still good");
        assert_eq!(has(&keys, "d", (since + STALE_MAX).saturating_sub(at(1))).await, Some(true));
        assert_eq!(has(&keys, "d", since + STALE_MAX).await, None);
        std::fs::write(&file, set("d")).unwrap();
        assert_eq!(has(&keys, "d", since + STALE_MAX + PAUSE).await, Some(true), "back");
    }

    #[test]
    fn a_file_without_keys_is_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        let problem = || Keys::new("i", KeySource::File(file.clone()), Duration::ZERO).unwrap_err();
        assert!(problem().starts_with("cannot be read: "), "{}", problem());
        std::fs::write(&file, set("a").replace("\"x\"", "\"d\":\"s3cret\",\"x\"")).unwrap();
        assert_eq!(problem(), "holds a private or a shared key");
        std::fs::write(&file, " ".repeat(KEY_SET_BYTES_MAX) + &set("a")).unwrap();
        assert_eq!(problem(), "is not one strict JSON document: TooLarge");
    }
}
