//! The schemes and parameters of challenges that a client of MCP may act on. Anything else is left
//! out: it could carry an address that is not written as a URL, or a secret (threats G27, L6).

use bartizan_gate::duty::secrets::is_suspicious;

use super::{end_of_string, end_of_token, is_token};

/// The schemes that a client of MCP may act on, each with its parameters: RFC 6750 §3, RFC 9449
/// §7.1, RFC 7617 §2, RFC 9728 §5.1, RFC 9470 §3.
pub(super) const SCHEMES: &[(&str, &[&str])] = &[
    (
        "Bearer",
        &[
            "acr_values",
            "error",
            "error_description",
            "error_uri",
            "max_age",
            "realm",
            "resource_metadata",
            "scope",
        ],
    ),
    (
        "DPoP",
        &["algs", "error", "error_description", "error_uri", "realm", "resource_metadata", "scope"],
    ),
    ("Basic", &["charset", "realm"]),
];
/// Parameters that people read, and that no client resolves.
const PROSE: [&str; 2] = ["error_description", "realm"];

/// What of a header value is of a known form.
pub(super) enum Known {
    /// All of it.
    Whole,
    /// This, written anew.
    Part(String),
}

/// What of `value` is of a known form; `None` if nothing is, or if it cannot be read.
pub(super) fn known(value: &str) -> Option<Known> {
    let mut whole = true;
    let mut challenges: Vec<Challenge<'_>> = Vec::new();
    for item in items(value)? {
        let (name, rest) = after_token(item)?;
        if let Some(value) = rest.strip_prefix('=') {
            whole &= challenges.last_mut()?.add(name, value.trim_start());
            continue;
        }
        let mut challenge = Challenge::new(name);
        whole &= challenge.parameters.is_some();
        if !rest.is_empty() {
            let (name, rest) = after_token(rest)?;
            match rest.strip_prefix('=').map(str::trim_start) {
                Some(value) if !value.trim_start_matches('=').is_empty() => {
                    whole &= challenge.add(name, value);
                }
                // A token68 is opaque.
                Some(_) | None => {
                    whole = false;
                    challenge.parameters = None;
                }
            }
        }
        challenges.push(challenge);
    }
    if whole {
        return Some(Known::Whole);
    }
    let kept: Vec<String> = challenges.iter().filter_map(Challenge::text).collect();
    (!kept.is_empty()).then(|| Known::Part(kept.join(", ")))
}

/// The token at the start of `text`, and what follows it and white space.
fn after_token(text: &str) -> Option<(&str, &str)> {
    let (token, rest) = text.split_at_checked(end_of_token(text.as_bytes(), 0))?;
    Some((token, rest.trim_start()))
}

/// One challenge, with the parameters that are kept.
struct Challenge<'v> {
    scheme: &'v str,
    /// Names of the parameters that it may have; absent if it is dropped.
    parameters: Option<&'static [&'static str]>,
    /// Name, in lower case, and value as it was written.
    kept: Vec<(String, &'v str)>,
}

impl<'v> Challenge<'v> {
    fn new(scheme: &'v str) -> Self {
        let known = SCHEMES.iter().find(|(it, _)| it.eq_ignore_ascii_case(scheme));
        Self { scheme, parameters: known.map(|(_, names)| *names), kept: Vec::new() }
    }

    /// Adds a parameter if it is of a known form; returns whether it is.
    fn add(&mut self, name: &str, value: &'v str) -> bool {
        let name = name.to_ascii_lowercase();
        let Some(known) = self.parameters else { return false };
        if self.kept.iter().any(|(it, _)| *it == name) {
            // Readers differ in which of two they take.
            self.parameters = None;
            return false;
        }
        let good = known.contains(&&*name) && is_good(&name, value);
        if good {
            self.kept.push((name, value));
        }
        good
    }

    fn text(&self) -> Option<String> {
        self.parameters?;
        let kept: Vec<String> =
            self.kept.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Some(format!("{} {}", self.scheme, kept.join(", ")).trim_end().to_owned())
    }
}

/// The items between the commas of `value`; `None` if one of them is empty or begins with no token.
fn items(value: &str) -> Option<Vec<&str>> {
    let bytes = value.as_bytes();
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => end_of_string(bytes, at),
            b',' => {
                items.push(value.get(start..at)?.trim());
                start = at.saturating_add(1);
                start
            }
            _ => at.saturating_add(1),
        };
    }
    items.push(value.get(start..)?.trim());
    items.iter().all(|item| item.bytes().next().is_some_and(is_token)).then_some(items)
}

/// Whether the parameter `name` may have `value`: one quoted or bare text without a secret, and in
/// prose without anything that could be an address.
fn is_good(name: &str, value: &str) -> bool {
    let quoted = value.starts_with('"');
    let whole = if quoted {
        end_of_string(value.as_bytes(), 0) == value.len()
    } else {
        !value.contains([' ', '"'])
    };
    let text = value.trim_matches('"');
    let address = |word: &str| {
        let inner = word.trim_end_matches(['.', ':', ',', ';', '!', '?', ')']);
        inner.contains(['.', ':', '/', '@', '%', '\\'])
    };
    let prose = PROSE.contains(&name);
    whole && !(prose && text.split(' ').any(address)) && !is_suspicious(&format!("{name}={value}"))
}

#[cfg(test)]
mod tests {
    use ::http::header::WWW_AUTHENTICATE;
    use ::http::{HeaderMap, HeaderValue, Uri};

    use super::super::{Metadata, hold};

    #[test]
    fn of_a_challenge_only_what_is_known_passes() {
        let own: Uri = "https://up.example/mcp".parse().unwrap();
        // In parts, so that no scanner takes this file for a leak.
        let key = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
        for (value, expected) in [
            ("Bearer", "Bearer"),
            (r#"bearer Realm = "x y",error=e"#, r#"bearer Realm = "x y",error=e"#),
            ("Negotiate", ""),
            ("Negotiate YII=", ""),
            ("Negotiate YII", ""),
            ("NTLM TlRMTVNTUAAB==", ""),
            ("Bearer YII=", ""),
            (r#"Digest realm="x", nonce="n", Bearer error="e""#, r#"Bearer error="e""#),
            (r#"Negotiate YII=, Bearer scope="a b""#, r#"Bearer scope="a b""#),
            (r#"Bearer as_uri="169.254.1.1:80/x", error="e""#, r#"Bearer error="e""#),
            (r#"Bearer resource="169.254.1.1""#, "Bearer"),
            (r#"Bearer error_description="see evil.example/x", error="e""#, r#"Bearer error="e""#),
            (r#"Bearer error_description="see [fe80::1]""#, "Bearer"),
            (r#"Bearer realm="169.254.1.1", scope="a""#, r#"Bearer scope="a""#),
            (r#"Bearer realm="a@b", scope="a""#, r#"Bearer scope="a""#),
            (
                r#"Bearer error="invalid_token", error_description="The access token expired.""#,
                r#"Bearer error="invalid_token", error_description="The access token expired.""#,
            ),
            (r#"Bearer error="a", error="b", Basic realm=x"#, "Basic realm=x"),
            (r#"Bearer error="e" x, scope="a""#, r#"Bearer scope="a""#),
            (r#"error="e", Bearer"#, ""),
            (r#"Bearer ,, error="e""#, ""),
            (&format!("Bearer realm=\"{key}\", scope=\"{key}\", error=e"), "Bearer error=e"),
            (&format!("Bearer error={key}"), "Bearer"),
            (&format!("Bearer resource_metadata=\"https://up.example/{key}\""), "Bearer"),
            (&format!("{key} error=e"), ""),
        ] {
            let value = HeaderValue::from_str(value).unwrap();
            let mut headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.clone())]);
            let changed = hold(&mut headers, &own, Metadata::Kept);
            let told = headers.get(WWW_AUTHENTICATE).map(|it| it.to_str().unwrap());
            assert_eq!(told.unwrap_or_default(), expected, "{value:?}");
            assert_eq!(changed, value != expected, "{value:?}");
        }
    }
}
