//! Removes from a text what must not be kept in a record.
//!
//! A URI can carry credentials in its user information, in the values of its query, in its fragment
//! and in parameters of its path. None of them says which resource is meant, so they are masked,
//! whatever they hold. Secrets of known forms ([`crate::duty::secrets`]) are masked wherever they
//! stand. Called for the kinds of [`super::text`].

use std::borrow::Cow;

use crate::duty::secrets;

/// What replaces a masked part.
pub(crate) const MASK: &str = "***";

/// Longest text that is searched for secrets, bytes. More than any kind of text keeps; what follows
/// is replaced by the mask, so that no text is kept that was not searched.
const SEARCHED_BYTES_MAX: usize = 32 << 10;

/// Budget of one search, bytes: each rule whose keyword occurs reads the text once.
const SEARCH_BUDGET_BYTES: usize = SEARCHED_BYTES_MAX * 32;

/// Names of query parameters that are kept, bytes.
const PARAMETER_NAME_BYTES_MAX: usize = 64;

/// Returns `text` with each secret of a known form masked.
pub(crate) fn secrets(text: &str) -> Cow<'_, str> {
    let end = text.floor_char_boundary(SEARCHED_BYTES_MAX);
    let searched = text.get(..end).unwrap_or_default();
    let Ok(found) = secrets::find(searched, &mut SEARCH_BUDGET_BYTES.clone()) else {
        return Cow::Borrowed(MASK);
    };
    if found.is_empty() && end == text.len() {
        return Cow::Borrowed(text);
    }
    let mut masked = secrets::masked(searched, found, MASK);
    if end < text.len() {
        masked.push_str(MASK);
    }
    Cow::Owned(masked)
}

/// Returns the URI `text` without user information, values of the query, fragment, and parameters
/// of the path, and with each secret of a known form masked.
pub(crate) fn uri(text: &str) -> Cow<'_, str> {
    let (text, fragment) = split(text, '#');
    let (path, query) = split(text, '?');
    let mut masked = hierarchy(path);
    if let Some(query) = query {
        masked.push('?');
        for (index, parameter) in query.split(['&', ';']).enumerate() {
            if index > 0 {
                masked.push('&');
            }
            push_parameter(&mut masked, parameter);
        }
    }
    if fragment.is_some() {
        masked.push('#');
        masked.push_str(MASK);
    }
    Cow::Owned(secrets(&masked).into_owned())
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// `name=***` for `name=value`; the mask alone where there is no plain name.
fn push_parameter(masked: &mut String, parameter: &str) {
    let plain = |name: &&str| {
        name.len() <= PARAMETER_NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte))
    };
    if let Some(name) = parameter.split_once('=').map(|(name, _)| name).filter(plain) {
        masked.push_str(name);
        masked.push('=');
    }
    if !parameter.is_empty() {
        masked.push_str(MASK);
    }
}

/// Scheme, authority and path. What stands before an `@` is masked back to the last separator,
/// wherever it stands: readers disagree on where an authority ends.
fn hierarchy(text: &str) -> String {
    let data = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    if data {
        // The content itself.
        return format!("data:{MASK}");
    }
    let mut masked = String::with_capacity(text.len());
    for (index, segment) in text.split_inclusive(['/', '\\']).enumerate() {
        let (name, separator) = match segment.strip_suffix(['/', '\\']) {
            Some(name) => (name, segment.get(name.len()..).unwrap_or_default()),
            None => (segment, ""),
        };
        let (name, parameters) = split(name, ';');
        match name.rsplit_once('@') {
            Some((before, host)) if !before.is_empty() => {
                masked.push_str(MASK);
                masked.push('@');
                masked.push_str(host);
            }
            Some(_) | None => push_name(&mut masked, name, index),
        }
        if parameters.is_some() {
            masked.push(';');
            masked.push_str(MASK);
        }
        masked.push_str(separator);
    }
    masked
}

/// A segment without `@`. In the authority (the third segment of `scheme://host`), what follows a
/// colon and is no port is half of user information that a `/` cut off.
fn push_name(masked: &mut String, name: &str, index: usize) {
    let authority = index == 2 && masked.ends_with("//");
    match name.rsplit_once(':').filter(|_| authority && !name.ends_with(']')) {
        Some((host, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) => {
            masked.push_str(host);
            masked.push(':');
            masked.push_str(MASK);
        }
        Some(_) | None => masked.push_str(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_carry_credentials_is_masked() {
        for (given, kept) in [
            ("file:///etc/hosts", "file:///etc/hosts"),
            ("flag://checkout/on", "flag://checkout/on"),
            ("https://user:pw@host:8080/a/b", "https://***@host:8080/a/b"),
            ("https://token@host", "https://***@host"),
            ("https://u:p@evil@host/a", "https://***@host/a"),
            ("http:u:p@host/a", "***@host/a"),
            ("http:\\\\u:p@host\\a", "http:\\\\***@host\\a"),
            ("https://u:p/w@host/a", "https://u:***/***@host/a"),
            ("https://[::1]/a", "https://[::1]/a"),
            ("git@host:path", "***@host:path"),
            ("https://host/@scope/name", "https://host/@scope/name"),
            ("https://h/a?token=x&y", "https://h/a?token=***&***"),
            ("https://h/a?x=1;y=2", "https://h/a?x=***&y=***"),
            ("https://h/a?%74oken=x", "https://h/a?***"),
            ("https://h/a?", "https://h/a?"),
            ("https://h/a#access_token=x", "https://h/a#***"),
            ("https://h/a#x?y=z", "https://h/a#***"),
            ("https://h/a;jsessionid=x/b;v=1", "https://h/a;***/b;***"),
            ("data:text/plain,secret", "data:***"),
            ("DATA:;base64,c2VjcmV0", "data:***"),
            ("", ""),
            ("/relative/path", "/relative/path"),
        ] {
            assert_eq!(uri(given), kept);
            assert_eq!(uri(kept), kept, "what is masked stays as it is");
        }
    }

    #[test]
    fn secrets_of_known_forms_are_masked_wherever_they_stand() {
        let token = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
        assert_eq!(secrets(&format!("é {token} and {token}.")), "é *** and ***.");
        assert_eq!(uri(&format!("https://h/{token}/a")), "https://h/***/a");
        assert_eq!(secrets("\"7\""), "\"7\"");
        assert_eq!((&*secrets(&token), &*secrets("checkout")), (MASK, "checkout"));
        let long = format!("{} {token}", "a".repeat(SEARCHED_BYTES_MAX));
        assert!(!secrets(&long).contains(&token));
    }
}
