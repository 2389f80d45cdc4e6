//! Outbound connections that this program makes on its own behalf.

pub mod tls;
pub mod service;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Whether `headers` name a content coding other than `identity`.
pub fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}
