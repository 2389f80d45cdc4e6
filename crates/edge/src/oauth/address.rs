//! The URL that clients dial, and the one where they find out how to get a token for it.

use ::http::Uri;

use super::RESOURCE_METADATA;

/// The URL that clients dial: the canonical resource (RFC 8707 §2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    text: Box<str>,
    origin_len: usize,
}

impl PublicUrl {
    /// `text`, if it is an absolute http or https URL with nothing behind its path.
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

    /// Its path, without a last `/`; empty for the root.
    pub fn path(&self) -> &str {
        self.text.get(self.origin_len..).unwrap_or_default().trim_end_matches('/')
    }

    /// Where its metadata is, as a path (RFC 9728 §3.1).
    pub fn metadata_path(&self) -> String {
        format!("{RESOURCE_METADATA}{}", self.path())
    }

    /// Where its metadata is.
    pub fn metadata_url(&self) -> String {
        let origin = self.text.get(..self.origin_len).unwrap_or_default();
        format!("{origin}{}", self.metadata_path())
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
