//! `policy.bundle`: where a bundle is, and who must have signed it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use bartizan_jose::Algorithm;

use super::file::PolicyFile;
use super::meaning::{Reader, or};
use super::problem::{Place, Spot};
use super::remote::{RemoteFile, is_protected};
use super::section::Section;
use super::{
    BundleConfig, BundleServiceConfig, BundleSource, KeyConfig, KeyMaterial, PollingConfig,
    SigningConfig, read_file,
};
use crate::policy::bundle::signature::{Key, Signing};

/// Size of a file with a key or a certificate, bytes.
const PEM_BYTES_MAX: usize = 1 << 20;

const DELAY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
const LONG_POLL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

const KEYS_HINT: &str = "name at least one key, with its `algorithm` and `public_key`";

/// `policy.bundle`.
#[derive(Debug)]
pub(super) struct BundleFile {
    place: Place,
    path: Option<Spot<String>>,
    remote: RemoteFile,
    bytes: Option<Spot<u64>>,
    polling: Option<PollingFile>,
    signing: Option<SigningFile>,
}

/// `policy.bundle.polling`.
#[derive(Debug)]
struct PollingFile {
    place: Place,
    min_delay: Option<Spot<Duration>>,
    max_delay: Option<Spot<Duration>>,
    long_polling_timeout: Option<Spot<Duration>>,
}

/// `policy.bundle.signing`.
#[derive(Debug)]
struct SigningFile {
    keys: Vec<KeyFile>,
    keyid: Option<Spot<String>>,
    scope: Option<Spot<String>>,
}

/// One member of `policy.bundle.signing.keys`.
#[derive(Debug)]
struct KeyFile {
    id: String,
    place: Place,
    /// Whether `algorithm` was written, if only wrongly.
    has_algorithm: bool,
    algorithm: Option<Spot<Algorithm>>,
    public_key: Option<Spot<String>>,
    secret: Option<Spot<String>>,
    scope: Option<Spot<String>>,
}

impl BundleFile {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            path: section.text("path"),
            remote: RemoteFile::read(section),
            bytes: section.bytes("bytes", 1 << 10..=256 << 20),
            polling: section.section("polling", PollingFile::read),
            signing: section.section("signing", SigningFile::read),
        }
    }
}

impl PollingFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            min_delay: section.time("min_delay", DELAY),
            max_delay: section.time("max_delay", DELAY),
            long_polling_timeout: section.time("long_polling_timeout", LONG_POLL),
        }
    }
}

impl SigningFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            keys: section.sections("keys", KEYS_HINT, KeyFile::read),
            keyid: section.text("keyid"),
            scope: section.text("scope"),
        }
    }
}

impl KeyFile {
    fn read(section: &mut Section<'_>, id: String) -> Self {
        let algorithms = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
        Self {
            id,
            place: section.place().clone(),
            has_algorithm: section.has("algorithm"),
            algorithm: section.choice("algorithm", &algorithms),
            public_key: section.text("public_key"),
            secret: section.secret("secret"),
            scope: section.text("scope"),
        }
    }
}

impl Reader<'_> {
    /// What `policy.bundle` means.
    pub(super) fn bundle(&mut self, policy: &mut PolicyFile) -> Option<BundleConfig> {
        let file = policy.bundle.take()?;
        if let Some(path) = policy.paths.first() {
            let what = "`policy.bundle` is the whole policy";
            self.problems.push(&path.place, what, "keep one of them");
        }
        let signing = file.signing.map(|signing| self.signing(signing));
        let source = match (file.path, file.remote.url.clone()) {
            (Some(path), None) => {
                let polling = file.polling.as_ref().map(|polling| &polling.place);
                let bytes = file.bytes.as_ref().map(|bytes| &bytes.place);
                for place in file.remote.places().chain(polling).chain(bytes) {
                    self.problems.push(place, "has a meaning only with `url`", "remove it");
                }
                BundleSource::Path(self.existing(path))
            }
            (None, Some(url)) => {
                let remote = self.remote(&url, file.remote, Duration::from_secs(30));
                let polling = self.polling(file.polling);
                let remote = remote?;
                if signing.is_none() && !is_protected(&remote.url) {
                    let what = "anybody on the way could change the policy";
                    let hint = "use https, or have bundles signed and name the key in `signing`";
                    self.problems.push(&url.place, what, hint);
                }
                let bytes = usize::try_from(or(file.bytes, 16 << 20)).unwrap_or(usize::MAX);
                BundleSource::Service(Box::new(BundleServiceConfig { remote, bytes, polling }))
            }
            (_, url) => {
                let hint = "write `path` (a directory or a tarball) or `url`, and not both";
                let place = url.as_ref().map_or(&file.place, |url| &url.place);
                self.problems.push(place, "it is not said where it is", hint);
                return None;
            }
        };
        Some(BundleConfig { source, signing })
    }

    fn polling(&mut self, file: Option<PollingFile>) -> PollingConfig {
        let (minute, two) = (Duration::from_mins(1), Duration::from_mins(2));
        let Some(file) = file else {
            return PollingConfig { min_delay: minute, max_delay: two, long_polling_timeout: None };
        };
        let min_delay = or(file.min_delay.clone(), minute);
        let polling = PollingConfig {
            min_delay,
            max_delay: or(file.max_delay.clone(), two.max(min_delay)),
            long_polling_timeout: file.long_polling_timeout.map(|spot| spot.value),
        };
        if polling.max_delay < polling.min_delay {
            let place = file.max_delay.map_or(file.place, |spot| spot.place);
            let what = "`max_delay` is shorter than `min_delay`";
            self.problems.push(&place, what, "exchange them");
        }
        polling
    }

    fn signing(&mut self, file: SigningFile) -> SigningConfig {
        if let Some(id) = &file.keyid
            && !file.keys.iter().any(|key| key.id == id.value)
        {
            self.problems.push(&id.place, "no key of `keys` is called so", "correct the name");
        }
        let keys = file.keys.into_iter().filter_map(|key| self.key(key)).collect();
        SigningConfig {
            keys,
            key_id: file.keyid.map(|spot| spot.value),
            scope: file.scope.map(|spot| spot.value),
        }
    }

    fn key(&mut self, file: KeyFile) -> Option<(String, KeyConfig)> {
        if !file.has_algorithm {
            let hint = "write the algorithm that the signer uses, such as `RS256` or `ES256`";
            self.problems.push(&file.place, "`algorithm` is missing", hint);
        }
        let algorithm = file.algorithm?.value;
        let material = match (file.public_key, file.secret, algorithm.is_symmetric()) {
            (Some(path), None, false) => KeyMaterial::File(self.existing(path)),
            (None, Some(secret), true) => KeyMaterial::Secret(self.secret(&secret)?),
            (_, _, symmetric) => {
                let wanted = if symmetric { "`secret`" } else { "`public_key`, a PEM file" };
                let what = format!("{} takes {wanted}, and that alone", algorithm.as_str());
                self.problems.push(&file.place, what, "give the key that fits the algorithm");
                return None;
            }
        };
        let scope = file.scope.map(|spot| spot.value);
        Some((file.id, KeyConfig { algorithm, material, scope }))
    }
}

impl SigningConfig {
    /// Reads the keys. The error names the key and says what is wrong with it.
    pub fn read(&self) -> Result<Signing, String> {
        let mut keys = BTreeMap::new();
        for (id, config) in &self.keys {
            let material = match &config.material {
                KeyMaterial::File(path) => pem(path)?,
                KeyMaterial::Secret(secret) => secret.expose().as_bytes().to_vec(),
            };
            let key = Key::new(config.algorithm, &material, config.scope.clone())
                .map_err(|what| format!("key `{id}`: {what}"))?;
            keys.insert(id.clone(), key);
        }
        Ok(Signing { keys, key_id: self.key_id.clone(), scope: self.scope.clone() })
    }
}

/// The bytes of a file with keys or certificates.
pub(crate) fn pem(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read_file(path, PEM_BYTES_MAX.saturating_add(1))
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    if bytes.len() > PEM_BYTES_MAX {
        return Err(format!("`{}` is larger than {PEM_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}
