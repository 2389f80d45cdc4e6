//! The texts that go between browser, issuer and us: queries, forms, cookies.

use ::http::header::COOKIE;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stands for itself in a query and in a form: the unreserved characters (RFC 3986 §2.3).
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` as a name or a value in a query or in a form.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED).to_string()
}

/// `fields` as `application/x-www-form-urlencoded`.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// The value of the field `name` in `query`; `None` if there is none. Fails if there are several, or it
/// is no UTF-8.
pub(super) fn field(query: &str, name: &str) -> Result<Option<String>, ()> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key)? == name && found.replace(decoded(value)?).is_some() {
            return Err(());
        }
    }
    Ok(found)
}

fn decoded(text: &str) -> Result<String, ()> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().map(Into::into).map_err(|_| ())
}

/// The value of the cookie `name` (RFC 6265 §4.2); `None` if there is none, or several: then one is
/// from elsewhere, and nobody knows which.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    values.next().filter(|_| values.next().is_none())
}

/// The value of the header `name`, if it is there once; fails if it is there several times.
pub(super) fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_query_is_encoded_and_comes_back() {
        let text = "a b&c=d+e%f#g/é\n~-._";
        let form = form(&[("x", text), ("y z", "")]);
        assert_eq!(form, "x=a%20b%26c%3Dd%2Be%25f%23g%2F%C3%A9%0A~-._&y%20z=");
        assert_eq!(field(&form, "x"), Ok(Some(text.to_owned())));
        assert_eq!(field(&form, "y z"), Ok(Some(String::new())));
        assert_eq!(field("y+z=1+2", "y z"), Ok(Some("1 2".to_owned())));
        assert_eq!(field("", "x"), Ok(None));
        assert_eq!(field("x", "x"), Ok(Some(String::new())));
        for two in ["x=1&x=1", "x=1&%78=2", "x&x"] {
            assert_eq!(field(two, "x"), Err(()), "{two}");
        }
        assert_eq!(field("x=%ff", "x"), Err(()));
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        let headers = |lines: &[&str]| {
            let lines = lines.iter().map(|line| (COOKIE, line.parse().unwrap()));
            lines.collect::<HeaderMap>()
        };
        assert_eq!(cookie(&headers(&["a=1; b=2"]), "b"), Some("2"));
        assert_eq!(cookie(&headers(&["a=1", "b=2=3"]), "b"), Some("2=3"));
        assert_eq!(cookie(&headers(&["ab=1; B=2"]), "b"), None);
        assert_eq!(cookie(&headers(&["b=1; b=2"]), "b"), None);
        assert_eq!(cookie(&headers(&["b=1", "b=1"]), "b"), None);
        assert_eq!(cookie(&headers(&[]), "b"), None);
    }
}
