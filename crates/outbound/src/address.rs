//! The address of a server or service, validated once, and the connector for it.

use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

use crate::SetUpError;
use crate::tls::Tls;

/// Idle time after which TCP sends keep-alive probes.
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

pub(crate) type Connector = HttpsConnector<HttpConnector>;

/// The URL of a server or service.
#[derive(Debug, Clone)]
pub struct Address {
    url: Uri,
    host: HeaderValue,
}

impl Address {
    /// Parses an absolute `http` or `https` URL without user and password.
    ///
    /// # Errors
    ///
    /// [`SetUpError::Url`] or [`SetUpError::UrlCredentials`].
    pub fn parse(url: &str) -> Result<Self, SetUpError> {
        let problem = |why: &str| SetUpError::Url(why.to_owned());
        let url: Uri = url.parse().map_err(|_| problem("it cannot be parsed"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(problem("the scheme is missing or is not `http` or `https`"));
        }
        let authority = url.authority().ok_or_else(|| problem("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(SetUpError::UrlCredentials);
        }
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| problem("the host is not ASCII"))?;
        Ok(Self { url, host })
    }

    /// The whole URL.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The value of the `Host` header for it (RFC 9110, section 7.2).
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// A connector that opens TCP or TLS connections to it.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub(crate) fn connector(&self, tls: Tls) -> Result<Connector, SetUpError> {
        let tls = tls.config(self.url.scheme() == Some(&Scheme::HTTPS))?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(connector.wrap_connector(tcp()))
    }

    /// A connector for HTTP/2 alone; over TLS it is negotiated.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub(crate) fn http2_connector(&self, tls: Tls) -> Result<Connector, SetUpError> {
        let mut tls = tls.config(self.url.scheme() == Some(&Scheme::HTTPS))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Connector::from((tcp(), tls)))
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp
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
