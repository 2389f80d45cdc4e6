//! Secrets, and the references that name where one is kept.
//!
//! A value in the file may hold `${env:NAME}` and `${file:/path}`; `$${` stands for `${`. What a
//! reference leads to is a [`Secret`]: it can be used, and shows itself to nobody. This protects
//! against printing by mistake, not against somebody who can read the memory of the process.

use std::fmt;
use std::path::Path;

use super::problem::{Wrong, wrong};
use super::surroundings::Surroundings;

/// Size of a file that a reference names, bytes: more than any credential needs.
const FILE_BYTES_MAX: usize = 64 << 10;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that hands it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether `text` holds a reference, or what may have been meant as one.
pub(super) fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// `text` with its references replaced by what they lead to.
pub(super) fn resolve(text: &str, surroundings: &Surroundings<'_>) -> Result<Secret, Wrong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((reference, after)) = after.split_once('}') else {
            return wrong("a reference is not closed", "end it with `}`; write `$${` for `${`");
        };
        out.push_str(&follow(reference, surroundings)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(Secret::new(out))
}

fn follow(reference: &str, surroundings: &Surroundings<'_>) -> Result<String, Wrong> {
    match reference.split_once(':') {
        Some(("env", name)) if is_variable_name(name) => match (surroundings.env)(name) {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => wrong(
                format!("environment variable `{name}` is empty"),
                "give it a value before the start",
            ),
            None => wrong(
                format!("environment variable `{name}` is not set, or is not UTF-8"),
                "set it before the start, or correct its name",
            ),
        },
        Some(("file", path)) if path.starts_with('/') => read_file(Path::new(path), surroundings),
        _ => wrong(
            // The text may be a secret that was pasted into the braces.
            "a reference is of no known form",
            "write `${env:NAME}` or `${file:/absolute/path}`; `$${` stands for `${`",
        ),
    }
}

fn read_file(path: &Path, surroundings: &Surroundings<'_>) -> Result<String, Wrong> {
    let shown = path.display();
    let bytes = match (surroundings.read)(path, FILE_BYTES_MAX.saturating_add(1)) {
        Ok(bytes) => bytes,
        Err(error) => {
            return wrong(
                format!("file `{shown}` cannot be read: {error}"),
                "mount it, or let this user read it",
            );
        }
    };
    if bytes.len() > FILE_BYTES_MAX {
        return wrong(
            format!("file `{shown}` is larger than {FILE_BYTES_MAX} bytes"),
            "name the file that holds the credential alone",
        );
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return wrong(format!("file `{shown}` is not UTF-8"), "store the credential as text");
    };
    // Editors and `kubectl create secret --from-file` leave one line end.
    let text = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return wrong(format!("file `{shown}` is empty"), "write the credential into it");
    }
    Ok(text.to_owned())
}

/// Whether `name` can name an environment variable: letters, digits and `_`, no digit first.
pub(super) fn is_variable_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|rest| rest.is_ascii_alphanumeric() || rest == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn resolved(text: &str) -> Result<String, String> {
        let surroundings = Surroundings {
            env: &|name| match name {
                "TOKEN" => Some("t0ken".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            },
            read: &|path, _| match path.to_str() {
                Some("/key") => Ok(b"k3y\r\n".to_vec()),
                Some("/two") => Ok(b"a\n\n".to_vec()),
                Some("/none") => Ok(b"\n".to_vec()),
                Some("/big") => Ok(vec![b'a'; FILE_BYTES_MAX + 1]),
                Some("/bin") => Ok(vec![0xff]),
                _ => Err(io::Error::from(io::ErrorKind::NotFound)),
            },
            exists: &|_| true,
        };
        match resolve(text, &surroundings) {
            Ok(secret) => Ok(secret.expose().to_owned()),
            Err(problem) => Err(problem.what),
        }
    }

    #[test]
    fn references_are_followed() {
        for (text, expected) in [
            ("", ""),
            ("plain $ text }", "plain $ text }"),
            ("${env:TOKEN}", "t0ken"),
            ("Bearer ${env:TOKEN}.", "Bearer t0ken."),
            ("${env:TOKEN}${file:/key}", "t0kenk3y"),
            ("${file:/two}", "a\n"),
            ("$${env:TOKEN}", "${env:TOKEN}"),
            ("$$${env:TOKEN}", "$${env:TOKEN}"),
        ] {
            assert_eq!(resolved(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn references_that_lead_nowhere_say_so_without_their_text() {
        for (text, expected) in [
            ("${env:GONE}", "environment variable `GONE` is not set, or is not UTF-8"),
            ("${env:EMPTY}", "environment variable `EMPTY` is empty"),
            ("${env:TOKEN", "a reference is not closed"),
            ("${sk-live-123}", "a reference is of no known form"),
            ("${env:sk-live}", "a reference is of no known form"),
            ("${env:}", "a reference is of no known form"),
            ("${file:relative}", "a reference is of no known form"),
            ("${ENV:TOKEN}", "a reference is of no known form"),
            ("${file:/none}", "file `/none` is empty"),
            ("${file:/big}", "file `/big` is larger than 65536 bytes"),
            ("${file:/bin}", "file `/bin` is not UTF-8"),
            ("${file:/gone}", "file `/gone` cannot be read: entity not found"),
        ] {
            assert_eq!(resolved(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn secrets_show_nothing() {
        let secret = Secret::new("t0ken");
        assert!(!format!("{secret:?} {secret:#?}").contains("t0ken"));
    }
}
