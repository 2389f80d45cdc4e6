//! Where connections go: one address, checked once, and how a connection to it is opened.

use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

use crate::SetUpError;
use crate::tls::Tls;

/// Silence after which TCP asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

pub(crate) type Connector = HttpsConnector<HttpConnector>;

/// The address of a server or service.
#[derive(Debug, Clone)]
pub struct Address {
    url: Uri,
    host: HeaderValue,
}

impl Address {
    /// Reads an absolute `http` or `https` URL without credentials.
    pub fn parse(url: &str) -> Result<Self, SetUpError> {
        let problem = |why: &str| SetUpError::Url(why.to_owned());
        let url: Uri = url.parse().map_err(|_| problem("it cannot be parsed"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(problem("the scheme is missing or another"));
        }
        let authority = url.authority().ok_or_else(|| problem("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(SetUpError::UrlCredentials);
        }
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| problem("the host is not ASCII"))?;
        Ok(Self { url, host })
    }

    /// The whole of it.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The value of `Host` for it (RFC 9110, section 7.2).
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// What opens connections to it.
    pub(crate) fn connector(&self, tls: Tls) -> Result<Connector, SetUpError> {
        let tls = tls.config(self.url.scheme() == Some(&Scheme::HTTPS))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(connector.wrap_connector(tcp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_without_credentials() {
        for url in ["", "host", "/path", "ftp://host/", "http://", "http://ho st/"] {
            assert!(matches!(Address::parse(url), Err(SetUpError::Url(_))), "{url}");
        }
        for url in ["http://a:b@host/", "https://a@host/"] {
            assert_eq!(Address::parse(url).err(), Some(SetUpError::UrlCredentials), "{url}");
        }
        let address = Address::parse("https://host:8443/a?b").unwrap();
        assert_eq!(address.host(), "host:8443");
    }
}
