//! Where an issuer's keys come from, and how long they are kept.
//!
//! They are asked for when a token needs them: none are kept yet, those that are are no longer
//! fresh, or the token names a key that is not among them. However many tokens come, an issuer is
//! asked by one at a time, and not again within [`PAUSE`]. The address is the configuration's;
//! redirects are not followed.

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

/// How long keys are used without asking whether they still hold.
pub const FRESH: Duration = Duration::from_mins(5);
/// How long they are used while asking fails; from then on no token is taken.
pub const STALE_MAX: Duration = Duration::from_hours(1);
/// From one question to the next, whatever tokens come meanwhile.
pub const PAUSE: Duration = Duration::from_secs(5);
/// For the issuer to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

const MEDIA: HeaderValue = HeaderValue::from_static("application/jwk-set+json, application/json");

/// What to do about a file that holds none.
pub const HINT: &str = "write the issuer's public keys there, as a JWK Set (RFC 7517)";

/// Where keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// A file; read again like an address is asked again, so it may be replaced.
    File(PathBuf),
    /// An address, with at most [`PATIENCE`] for a call.
    Address(Box<Service>),
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct Keys {
    /// Whose they are, for the log.
    issuer: Box<str>,
    source: KeySource,
    kept: Mutex<Kept>,
    /// One permit, held by whoever asks.
    asking: Semaphore,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Option<Arc<KeySet>>,
    /// When they came, by uptime.
    since: Duration,
    /// When they were asked for last.
    asked: Option<Duration>,
}

/// Keys to look into.
#[derive(Debug)]
struct Found {
    keys: Arc<KeySet>,
    age: Duration,
}

impl Keys {
    /// Those of `issuer`. A file is read now, an address is asked once a token needs them. An
    /// error says why the file holds none, in words for the operator. `now` is uptime, here and
    /// below.
    pub fn new(issuer: &str, source: KeySource, now: Duration) -> Result<Self, String> {
        let mut kept = Kept::default();
        if let KeySource::File(path) = &source {
            kept.keys = Some(Arc::new(read_file(path)?));
            kept.since = now;
        }
        let (issuer, kept) = (issuer.into(), Mutex::new(kept));
        Ok(Self { issuer, source, kept, asking: Semaphore::new(1) })
    }

    async fn renew(&self, now: Duration) -> Result<(), String> {
        self.kept().asked = Some(now);
        let keys = match &self.source {
            KeySource::File(path) => read_file(path)?,
            KeySource::Address(issuer) => key_set(asked(issuer).await?)?,
        };
        let mut kept = self.kept();
        kept.keys = Some(Arc::new(keys));
        kept.since = now;
        Ok(())
    }

    /// Keys among which `wanted` holds, asked for anew if need be; or those that there are, if it
    /// holds for none. Nothing where no keys can be had that may still be used.
    pub async fn with(
        &self,
        wanted: impl Fn(&KeySet) -> bool,
        now: Duration,
    ) -> Option<Arc<KeySet>> {
        let found = self.found(now).filter(|found| wanted(&found.keys));
        let turn = match found {
            Some(found) if found.age < FRESH => return Some(found.keys),
            // Another task is asking; use the keys that are there.
            Some(found) => match self.asking.try_acquire() {
                Ok(turn) => turn,
                Err(_) => return Some(found.keys),
            },
            None => self.asking.acquire().await.ok()?,
        };
        let asked = self.kept().asked;
        if asked.is_none_or(|asked| now.saturating_sub(asked) >= PAUSE)
            && let Err(why) = self.renew(now).await
        {
            tracing::warn!(issuer = %self.issuer, %why, "an issuer's keys were not had");
        }
        drop(turn);
        self.found(now).map(|found| found.keys)
    }

    fn found(&self, now: Duration) -> Option<Found> {
        let kept = self.kept();
        let age = now.saturating_sub(kept.since);
        let keys = kept.keys.clone().filter(|_| age < STALE_MAX)?;
        Some(Found { keys, age })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // No panic can leave this half-updated, so a poisoned lock is safe.
        lock(&self.kept)
    }
}

fn key_set(raw: Bytes) -> Result<KeySet, String> {
    KeySet::read(raw, &ALGORITHMS).map_err(|problem| problem.to_string())
}

/// The keys in the file at `path`: a small local one, no wait worth a thread. An error says why
/// there are none, in words for the operator.
pub fn read_file(path: &Path) -> Result<KeySet, String> {
    key_set(read(path).map_err(|error| format!("cannot be read: {error}"))?)
}

fn read(path: &Path) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    // One more than is read, so that a longer file is found too large.
    let max = u64::try_from(KEY_SET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

async fn asked(issuer: &Service) -> Result<Bytes, String> {
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
