//! The public URL of a route, and the URL of its OAuth metadata.

use ::http::Uri;

use super::RESOURCE_METADATA;

/// The URL that clients connect to: the canonical resource identifier (RFC 8707 §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: Box<str>,
    origin_len: usize,
}

impl PublicUrl {
    /// Parses an absolute http or https URL without user, query and fragment; `None` for anything
    /// else.
    pub fn parse(text: &str) -> Option<Self> {
        let url: Uri = text.parse().ok()?;
        let scheme = url.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let authority = url.authority()?.as_str();
        if text.contains(['#', '?', '@']) || authority.is_empty() {
            return None;
        }
        let origin_len = scheme.len().checked_add("://".len())?.checked_add(authority.len())?;
        text.is_char_boundary(origin_len).then(|| Self { text: text.into(), origin_len })
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its scheme, host and port, as they were written.
    pub fn origin(&self) -> &str {
        self.text.get(..self.origin_len).unwrap_or_default()
    }

    /// Its path without a trailing `/`; empty for the root.
    pub fn path(&self) -> &str {
        self.text.get(self.origin_len..).unwrap_or_default().trim_end_matches('/')
    }

    /// The path of its metadata (RFC 9728 §3.1).
    pub fn metadata_path(&self) -> String {
        format!("{RESOURCE_METADATA}{}", self.path())
    }

    /// The URL of its metadata (RFC 9728 §3.1).
    pub fn metadata_url(&self) -> String {
        format!("{}{}", self.origin(), self.metadata_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stands_between_origin_and_path() {
        for (text, path, url) in [
            (
                "https://a.example/flags",
                "/flags",
                "https://a.example/.well-known/oauth-protected-resource/flags",
            ),
            ("https://a.example", "", "https://a.example/.well-known/oauth-protected-resource"),
            ("https://a.example/", "", "https://a.example/.well-known/oauth-protected-resource"),
            (
                "http://[::1]:70/x/y/",
                "/x/y",
                "http://[::1]:70/.well-known/oauth-protected-resource/x/y",
            ),
        ] {
            let public = PublicUrl::parse(text).unwrap();
            assert_eq!((public.as_str(), public.path()), (text, path));
            assert_eq!(public.metadata_url(), url);
        }
        for text in [
            "",
            "/flags",
            "a.example",
            "ftp://a.example",
            "https://a.example/?x",
            "https://u@a.example",
            "https://a.example/#x",
        ] {
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
    }
}
