//! A service that this program calls on its own behalf: where it is, and who we are to it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ::http::Uri;

use super::meaning::{Reader, or};
use super::problem::{Place, Spot};
use super::section::Section;
use super::{CredentialsConfig, RemoteConfig};

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

/// The keys of a service, in a section of their own or among others.
#[derive(Debug)]
pub(super) struct RemoteFile {
    pub(super) url: Option<Spot<String>>,
    ca_file: Option<Spot<String>>,
    timeout: Option<Spot<Duration>>,
    credentials: Option<CredentialsFile>,
}

/// `credentials`.
#[derive(Debug)]
struct CredentialsFile {
    place: Place,
    bearer: Option<Spot<String>>,
    bearer_file: Option<Spot<String>>,
    client_tls: Option<ClientTlsFile>,
}

/// `credentials.client_tls`.
#[derive(Debug)]
struct ClientTlsFile {
    place: Place,
    cert: Option<Spot<String>>,
    key: Option<Spot<String>>,
}

impl RemoteFile {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self::read_at("url", section)
    }

    /// The same, where the address has the key `address`.
    pub(super) fn read_at(address: &'static str, section: &mut Section<'_>) -> Self {
        Self {
            url: section.text(address),
            ca_file: section.text("ca_file"),
            timeout: section.time("timeout", TIMEOUT),
            credentials: section.section("credentials", CredentialsFile::read),
        }
    }

    /// Where the keys stand that mean something only with `url`.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        let ca_file = self.ca_file.as_ref().map(|spot| &spot.place);
        let timeout = self.timeout.as_ref().map(|spot| &spot.place);
        let credentials = self.credentials.as_ref().map(|file| &file.place);
        [ca_file, timeout, credentials].into_iter().flatten()
    }
}

impl CredentialsFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            bearer: section.secret("bearer"),
            bearer_file: section.text("bearer_file"),
            client_tls: section.section("client_tls", ClientTlsFile::read),
        }
    }
}

impl ClientTlsFile {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place().clone(),
            cert: section.text("cert"),
            key: section.text("key"),
        }
    }
}

impl Reader<'_> {
    /// What the keys of a service at `url` mean. `default` is the time for one call.
    pub(super) fn remote(
        &mut self,
        url: &Spot<String>,
        file: RemoteFile,
        default: Duration,
    ) -> Option<RemoteConfig> {
        let credentials = file.credentials.map(|credentials| {
            let place = credentials.place.clone();
            (place, self.credentials(credentials))
        });
        let ca_file = file.ca_file.map(|path| self.existing(path));
        let meant = self.url(url)?;
        if let Some((place, _)) = &credentials
            && !is_protected(&meant)
        {
            let what = "credentials would be sent unprotected";
            self.problems.push(place, what, "use https");
        }
        let credentials = match credentials {
            Some((_, credentials)) => Some(credentials?),
            None => None,
        };
        let timeout = or(file.timeout, default);
        Some(RemoteConfig { url: meant, ca_file, timeout, credentials })
    }

    fn credentials(&mut self, file: CredentialsFile) -> Option<CredentialsConfig> {
        match (file.bearer, file.bearer_file, file.client_tls) {
            (Some(token), None, None) => Some(CredentialsConfig::Bearer(self.secret(&token)?)),
            (None, Some(path), None) => Some(CredentialsConfig::BearerFile(self.existing(path))),
            (None, None, Some(tls)) => {
                let (Some(cert), Some(key)) = (tls.cert, tls.key) else {
                    let hint = "write both, each a PEM file";
                    self.problems.push(&tls.place, "`cert` or `key` is missing", hint);
                    return None;
                };
                let (cert, key) = (self.existing(cert), self.existing(key));
                Some(CredentialsConfig::ClientTls { cert, key })
            }
            _ => {
                let hint = "write one of `bearer`, `bearer_file` and `client_tls`";
                self.problems.push(&file.place, "it is not said which credential", hint);
                None
            }
        }
    }
}

/// Whether nobody on the way to `url` can read or change what is sent: TLS, or no way at all.
pub(super) fn is_protected(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let loopback = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    url.scheme_str() == Some("https") || loopback
}
