//! `policy.bundle`: where a bundle is, and who must have signed it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::form::{Names, by_name, bytes, existing, secret, text, time, url, word};
use super::remote::{RemoteConfig, RemoteKeys, is_protected};
use super::secret::Secret;
use super::section::{Section, defaulted, section};
use super::surroundings::read_pem;
use super::table::Condition;
use crate::policy::bundle::signature::{Signing, SigningKey};
use bartizan_jose::Algorithm;

const DELAYS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
/// A year is longer than any bundle should live.
const AGES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 366);
const LONG_POLLS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

const KEYS_HINT: &str = "name at least one key, with its `algorithm` and `public_key`";

/// An OPA bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleConfig {
    /// Where it is.
    pub source: BundleSource,
    /// Who must have signed it (`signing`). Nothing: it must be unsigned.
    pub signing: Option<SigningConfig>,
}

/// Where a bundle is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A directory or a gzipped tarball (`path`).
    Path(PathBuf),
    /// With a service that speaks OPA's bundle protocol (`url`).
    Service(Box<BundleServiceConfig>),
}

/// A service that hands out a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleServiceConfig {
    /// The way to it.
    pub remote: RemoteConfig,
    /// Size of the bundle as it is sent, bytes (`bytes`).
    pub bytes: usize,
    /// How often it is asked (`polling`).
    pub polling: PollingConfig,
    /// Whether a bundle must not be older than the one before it (`revisions: rising`).
    pub rising: bool,
    /// How old a bundle may be when it is installed and while it decides (`max_age`). Default: any age.
    pub max_age: Option<Duration>,
}

/// How often a bundle service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollingConfig {
    /// Shortest pause between two questions (`min_delay`).
    pub min_delay: Duration,
    /// Longest pause, also after failures (`max_delay`); never less than `min_delay`.
    pub max_delay: Duration,
    /// How long the service may hold a question open (`long_polling_timeout`). Default: it is not
    /// asked to.
    pub long_polling_timeout: Option<Duration>,
}

/// Who must have signed a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningConfig {
    /// Keys by id (`keys`).
    pub keys: Vec<(String, KeyConfig)>,
    /// The key that must have been used (`keyid`). Default: the one that the signature names.
    pub key_id: Option<String>,
    /// What the signature must be for (`scope`). Default: the key's scope, else none.
    pub scope: Option<String>,
}

/// A key that bundles are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// The algorithm (`algorithm`); what a signature says of itself is no choice.
    pub algorithm: Algorithm,
    /// The key itself.
    pub material: KeyMaterial,
    /// What signatures of it must be for (`scope`), where `signing` says nothing.
    pub scope: Option<String>,
}

/// A key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A PEM file with a public key (`public_key`).
    File(PathBuf),
    /// What signer and verifier share (`secret`); for HS256 and its like.
    Secret(Secret),
}

impl BundleConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        s.exactly_one_of(&["path", "url"], "write `path` (a directory or a tarball) or `url`");
        let path = s
            .key(
                "path",
                existing(),
                "Where it is: a directory, or a gzipped tarball as `opa build` makes it. Changes \
                 are followed as with `policy.paths`. Required, unless there is \
                 `policy.bundle.url`.",
            )
            .optional("none");
        let url = s
            .key(
                "url",
                url(),
                "Where a service hands it out, by OPA's bundle protocol or as a plain file. \
                 Unsigned bundles need https, or a service on this machine.",
            )
            .optional("none");
        let service = service(s, url);
        let signing = s
            .key(
                "signing",
                section(SigningConfig::read),
                "Who must have signed the bundle. Without it the bundle must be unsigned.",
            )
            .optional("none");
        if let Some(service) = &service
            && !s.has("signing")
            && !is_protected(&service.remote.url)
        {
            let hint = "use https, or have bundles signed and name the key in `signing`";
            s.problem("url", "anybody on the way could change the policy", hint);
        }
        let source = match (path, service) {
            (Some(path), None) => BundleSource::Path(path),
            (None, Some(service)) => BundleSource::Service(Box::new(service)),
            _ => return None,
        };
        Some(Self { source, signing })
    }
}

/// The keys that say how a service at `url` is asked.
fn service(s: &mut Section<'_>, url: Option<::http::Uri>) -> Option<BundleServiceConfig> {
    let only = Condition::written("url", s.has("url") || !s.has("path"));
    let keys = RemoteKeys {
        timeout_means: "Time for one answer to arrive, added to `long_polling_timeout`.",
        timeout: Duration::from_secs(30),
        only: Some(only),
    };
    let remote = RemoteConfig::read(s, url, &keys);
    let bytes = s
        .key("bytes", bytes(1 << 10..=256 << 20), "Size of the bundle as the service sends it.")
        .only(only)
        .or(16 << 20);
    let rising = s
        .key(
            "revisions",
            word([("any", false), ("rising", true)]),
            "`rising`: a bundle whose revision is older than that of the one before it is refused, \
             also after a restart. Revisions must then be numbers or RFC 3339 times, or begin so.",
        )
        .only(only)
        .or(false);
    let max_age = s
        .key(
            "max_age",
            time(AGES),
            "How old a bundle may be: when it is installed, also the stored one at a start, and while \
             it decides. Once it is older, everything is refused until a newer one comes. Its \
             revision must then be the RFC 3339 time at which it was made, or begin so.",
        )
        .only(only)
        .optional("none");
    let polling = s
        .key("polling", defaulted(PollingConfig::read), "How often the service is asked.")
        .only(only)
        .or_empty();
    Some(BundleServiceConfig { remote: remote?, bytes, polling: polling?, rising, max_age })
}

impl PollingConfig {
    fn read(s: &mut Section<'_>) -> Self {
        let min_delay = s
            .key("min_delay", time(DELAYS), "Shortest pause between two questions.")
            .or(Duration::from_mins(1));
        let max_delay = s
            .key(
                "max_delay",
                time(DELAYS),
                "Longest pause, also after failures. The pause is chosen at random between both.",
            )
            .or(Duration::from_mins(2));
        let long_polling_timeout = s
            .key(
                "long_polling_timeout",
                time(LONG_POLLS),
                "How long the service may hold a question open, so that a new bundle arrives at \
                 once.",
            )
            .optional("none");
        if s.has("max_delay") && max_delay < min_delay {
            s.problem("max_delay", "`max_delay` is shorter than `min_delay`", "exchange them");
        }
        Self { min_delay, max_delay: max_delay.max(min_delay), long_polling_timeout }
    }
}

impl SigningConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let ids = Names { placeholder: "<id>", pattern: None, read: |id| Ok(id.to_owned()) };
        let keys = s
            .key(
                "keys",
                by_name(&ids, section(|s| Some(KeyConfig::read(s)))).not_empty(KEYS_HINT),
                "Keys by id.",
            )
            .required(KEYS_HINT);
        let key_id = s
            .key("keyid", text(), "The key that must have signed it, of those below.")
            .optional("the signature's");
        let scope = s
            .key("scope", text(), "The `scope` that the signature must have.")
            .optional("the key's, else empty");
        let keys = keys?;
        if let Some(id) = &key_id
            && !keys.iter().any(|(key, _)| key == id)
        {
            s.problem("keyid", "no key of `keys` is called so", "correct the name");
        }
        let keys = keys.into_iter().map(|(id, key)| Some((id, key?))).collect::<Option<_>>()?;
        Some(Self { keys, key_id, scope })
    }

    /// Reads the keys. The error names the key and says what is wrong with it.
    pub fn read_keys(&self) -> Result<Signing, String> {
        let mut keys = BTreeMap::new();
        for (id, config) in &self.keys {
            let material = match &config.material {
                KeyMaterial::File(path) => read_pem(path)?,
                KeyMaterial::Secret(secret) => secret.expose().as_bytes().to_vec(),
            };
            let key = SigningKey::new(config.algorithm, &material, config.scope.clone())
                .map_err(|what| format!("key `{id}`: {what}"))?;
            keys.insert(id.clone(), key);
        }
        Ok(Signing { keys, key_id: self.key_id.clone(), scope: self.scope.clone() })
    }
}

impl KeyConfig {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let algorithms = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
        let algorithm = s
            .key(
                "algorithm",
                word(algorithms),
                "`RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`, \
                 `HS256`, `HS384` or `HS512`.",
            )
            .required("write the algorithm that the signer uses, such as `RS256` or `ES256`");
        let public_key = s
            .key(
                "public_key",
                existing(),
                "The key, a PEM file; required but for the `HS` algorithms.",
            )
            .optional("none");
        let secret = s
            .key("secret", secret(), "The secret, for the `HS` algorithms; may hold a reference.")
            .optional("none");
        let scope = s.key("scope", text(), "The `scope` of what this key signs.").optional("empty");
        let algorithm = algorithm?;
        let symmetric = algorithm.is_symmetric();
        if s.has("secret") != symmetric || s.has("public_key") == symmetric {
            let wanted = if symmetric { "`secret`" } else { "`public_key`, a PEM file" };
            let what = format!("{} takes {wanted}, and that alone", algorithm.as_str());
            s.problem_here(what, "give the key that fits the algorithm");
            return None;
        }
        let material =
            if symmetric { KeyMaterial::Secret(secret?) } else { KeyMaterial::File(public_key?) };
        Some(Self { algorithm, material, scope })
    }
}
