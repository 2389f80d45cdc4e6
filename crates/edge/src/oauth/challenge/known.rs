//! The schemes and parameters of challenges that a client of MCP may act on. Anything else is left
//! out: it could carry an address that is not written as a URL, or a secret (threats G27, L6).

use std::net::IpAddr;

use bartizan_gate::duty::secrets::is_suspicious;

use ::http::Uri;

use super::{end_of_string, end_of_token, is_own, is_token};

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

/// Network schemes that need no `//` before a host. Clients of other programs than browsers follow
/// them.
const NETWORK_SCHEMES: &[&str] = &[
    "coap", "dict", "dns", "finger", "ftp", "ftps", "gemini", "git", "gopher", "http", "https",
    "imap", "imaps", "irc", "ircs", "jar", "ldap", "ldaps", "mailto", "mms", "mqtt", "mqtts",
    "news", "nfs", "nntp", "pop", "rsync", "rtmp", "rtsp", "scp", "sftp", "sip", "sips", "sms",
    "smb", "smtp", "ssh", "stun", "svn", "tel", "telnet", "tftp", "turn", "vnc", "wais", "webcal",
    "ws", "wss", "xmpp",
];

/// What of a header value is of a known form.
pub(super) struct Known<'v> {
    /// Whether that is all of it.
    whole: bool,
    challenges: Vec<Challenge<'v>>,
}

impl<'v> Known<'v> {
    /// Whether the value may pass as it was written.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The values of the parameters that are kept, without quotes.
    pub(super) fn values(&self) -> impl Iterator<Item = &'v str> {
        let kept = self.challenges.iter().filter(|it| it.parameters.is_some());
        kept.flat_map(|challenge| challenge.kept.iter().map(|(_, value)| value.trim_matches('"')))
    }

    /// Keeps the schemes alone.
    pub(super) fn drop_parameters(&mut self) {
        for challenge in &mut self.challenges {
            self.whole &= challenge.kept.is_empty();
            challenge.kept.clear();
        }
    }

    /// What is kept, written anew; `None` if nothing is.
    pub(super) fn text(&self) -> Option<String> {
        let kept: Vec<String> = self.challenges.iter().filter_map(Challenge::text).collect();
        (!kept.is_empty()).then(|| kept.join(", "))
    }
}

/// What of `value` is of a known form; `None` if it cannot be read. `own` is the server's address.
pub(super) fn known<'v>(value: &'v str, own: &Uri) -> Option<Known<'v>> {
    let mut whole = true;
    let mut challenges: Vec<Challenge<'_>> = Vec::new();
    for item in items(value)? {
        let (name, rest) = after_token(item)?;
        if let Some(value) = rest.strip_prefix('=') {
            whole &= challenges.last_mut()?.add(name, value.trim_start(), own);
            continue;
        }
        let mut challenge = Challenge::new(name);
        whole &= challenge.parameters.is_some();
        if !rest.is_empty() {
            let (name, rest) = after_token(rest)?;
            match rest.strip_prefix('=').map(str::trim_start) {
                Some(value) if !value.trim_start_matches('=').is_empty() => {
                    whole &= challenge.add(name, value, own);
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
    Some(Known { whole, challenges })
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
    fn add(&mut self, name: &str, value: &'v str, own: &Uri) -> bool {
        let name = name.to_ascii_lowercase();
        let Some(known) = self.parameters else { return false };
        if self.kept.iter().any(|(it, _)| *it == name) {
            // Readers differ in which of two they take.
            self.parameters = None;
            return false;
        }
        let good = known.contains(&&*name) && is_good(&name, value, own);
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

/// Whether the parameter `name` may have `value`: one quoted or bare text without a secret, in the
/// grammar of the parameter.
fn is_good(name: &str, value: &str, own: &Uri) -> bool {
    let quoted = value.starts_with('"');
    let whole = if quoted {
        end_of_string(value.as_bytes(), 0) == value.len()
    } else {
        !value.contains([' ', '"'])
    };
    let text = value.trim_matches('"');
    whole && is_in_grammar(name, text, own) && !is_suspicious(&format!("{name}={value}"))
}

/// Whether `text` is a value of the parameter `name`. No grammar but those of URLs lets an address
/// pass, with or without a scheme.
fn is_in_grammar(name: &str, text: &str, own: &Uri) -> bool {
    let of = |text: &str, good: fn(u8) -> bool| !text.is_empty() && text.bytes().all(good);
    let words = |good: fn(u8) -> bool| text.split(' ').all(|word| of(word, good));
    match name {
        // RFC 6750 §3.1, RFC 9470 §3, RFC 9449 §7.1: all registered codes have this form.
        "error" => of(text, |byte| byte.is_ascii_lowercase() || byte == b'_'),
        "error_description" | "realm" => !text.split(' ').any(is_address),
        "error_uri" => is_own(text, own),
        // Held by its caller, or replaced.
        "resource_metadata" => true,
        "scope" => text.split(' ').all(is_scope),
        "max_age" => of(text, |byte| byte.is_ascii_digit()),
        "acr_values" => words(|byte| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte)),
        "algs" => words(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
        "charset" => text.eq_ignore_ascii_case("UTF-8"),
        _ => false,
    }
}

/// Whether a reader of prose could take `word` for an address.
fn is_address(word: &str) -> bool {
    let inner = word.trim_end_matches(['.', ':', ',', ';', '!', '?', ')']);
    inner.contains(['.', ':', '/', '@', '%', '\\']) || inner.contains("&#")
}

/// Whether `token` is the name of a scope. RFC 6749 §3.3 lets a scope be almost any text; this lets
/// pass the forms in use, none of which is an address that a reader would add a scheme to: names
/// with dots (`User.Read`), with colons (`chat:write.public`), with slashes but no dots before them
/// (`patient/Observation.read`), names of resources (`urn:`, `api://`), and `https` URLs without
/// port, query and fragment. Such a URL is a name that clients send to the authorization server and
/// do not fetch, and the scopes of large vendors have that form
/// (`https://www.googleapis.com/auth/drive`).
///
/// A word before a colon that is no network scheme cannot be told from a resource by its form:
/// `users:read.email` is a scope of Slack's, so `x:evil.example` passes, too.
fn is_scope(token: &str) -> bool {
    let plain = |text: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:*/".contains(&byte);
        !text.is_empty() && text.bytes().all(good)
    };
    let begins_with_letter =
        |text: &str| text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if let Some(rest) = token.strip_prefix("https://") {
        let host = rest.split('/').next().unwrap_or_default();
        let top = host.rsplit('.').next().unwrap_or_default();
        return plain(rest) && !host.contains(':') && begins_with_letter(top);
    }
    if let Some(rest) = token.strip_prefix("api://") {
        return plain(rest) && !rest.contains([':', '*']);
    }
    let dotted = token.contains('.');
    if token.starts_with("urn:") && !dotted && !token.contains("//") {
        return plain(token);
    }
    // What has numbers between its dots or behind a colon could be an address or a port.
    let of_numbers = token.contains(['.', ':']) && token.split(['.', ':', '/']).any(is_number);
    let is_ip = token.parse::<IpAddr>().is_ok();
    let scheme = token.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
    let network = dotted && NETWORK_SCHEMES.iter().any(|it| it.eq_ignore_ascii_case(scheme));
    let host = token.split('/').next().unwrap_or_default();
    let path_of_host =
        dotted && token.contains('/') && (host.is_empty() || host.contains(['.', ':']));
    plain(token) && !token.contains("//") && !of_numbers && !is_ip && !network && !path_of_host
}

/// Whether `part` of a host is read as a number (WHATWG URL, "ends in a number").
fn is_number(part: &str) -> bool {
    let hex = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
    hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use ::http::header::WWW_AUTHENTICATE;
    use ::http::{HeaderMap, HeaderValue, Uri};

    use super::super::{Metadata, hold};

    #[test]
    fn the_scopes_of_real_vendors_pass() {
        let own: Uri = "https://up.example/mcp".parse().unwrap();
        for scope in [
            "https://www.googleapis.com/auth/drive.readonly https://mail.google.com/ openid email",
            "https://graph.microsoft.com/.default User.Read offline_access",
            "api://0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9/access_as_user api://contoso.example/app/.default",
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default vso.code",
            "repo read:org admin:gpg_key repo:status",
            "mcp:tools mcp:tools/list",
            "users:read.email chat:write.public identity.basic",
            "read:jira-work read:board-scope:jira-software write:sprint:jira-software",
            "crm.objects.contacts.read okta.users.read files.metadata.read",
            "advertising::campaign_management sellingpartnerapi::notifications",
            "urn:zitadel:iam:org:project:id:69234237810729019:aud urn:opc:idm:__myscopes__",
            "patient/Observation.read user/*.cruds launch/patient",
            "data:read data:write file:read",
            "session:role:ANALYST org:read project:write all-apis read_products ssh:read",
            "meeting:read:list_meetings:admin tweet.read ai.write",
        ] {
            let value = HeaderValue::from_str(&format!("Bearer scope=\"{scope}\"")).unwrap();
            let mut headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.clone())]);
            assert!(!hold(&mut headers, &own, Metadata::Kept), "{scope}: {headers:?}");
            assert_eq!(headers.get(WWW_AUTHENTICATE), Some(&value));
        }
    }

    #[test]
    fn no_secret_passes_in_pieces() {
        let own: Uri = "https://up.example/mcp".parse().unwrap();
        let key = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"].concat();
        let (left, right) = key.split_at(20);
        let (head, rest) = key.split_at(8);
        let (middle, tail) = rest.split_at(16);
        for values in [
            vec![format!("Bearer realm=\"{left}\", scope=\"{right}\"")],
            vec![format!("Bearer scope=\"{right}\", realm=\"{left}\"")],
            vec![format!("Bearer realm=\"{left}\", error=\"invalid_token\", scope=\"{right}\"")],
            vec![format!("Bearer scope=\"{right} x\", error=e, realm=\"x {left}\"")],
            vec![format!("Bearer scope=\"{left} {right}\"")],
            vec![format!("Bearer scope=\"{right} {left}\"")],
            vec![format!("Bearer scope=\"a {left}\", acr_values=\"{right} b\"")],
            vec![format!("Bearer realm={head}, error_description={middle}, scope={tail}")],
            vec![format!("Bearer realm={tail}, error_description={middle}, scope={head}")],
            vec![format!("Basic realm=\"{left}\", Bearer scope=\"{right}\"")],
            vec![format!("Bearer realm=\"{left}\", error=e, Bearer error=e, realm=\"{right}\"")],
            vec![format!("Bearer realm=\"{right}\""), format!("DPoP error=e, algs=\"{left}\"")],
            vec![
                format!("Bearer error=\"e\", resource_metadata=\"https://up.example/{left}\""),
                format!("Bearer scope=\"{right}\""),
            ],
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
            }
            assert!(hold(&mut headers, &own, Metadata::Kept), "{values:?}");
            for value in headers.get_all(WWW_AUTHENTICATE) {
                assert!(!value.to_str().unwrap().contains('='), "{value:?}");
            }
        }
    }

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
            (r#"Bearer error_uri="169.254.169.254/latest""#, "Bearer"),
            (r#"Bearer error_uri="evil.example/x", error=e"#, "Bearer error=e"),
            (r#"Bearer error_uri="gopher:evil.example""#, "Bearer"),
            (r#"Bearer error_uri="mailto:x@evil.example""#, "Bearer"),
            (r#"Bearer error_uri="/relative""#, "Bearer"),
            (r"Bearer error_uri=evil.example/x", "Bearer"),
            (
                r#"Bearer error_uri="https://up.example/why""#,
                r#"Bearer error_uri="https://up.example/why""#,
            ),
            (r#"Bearer error="evil.example/x""#, "Bearer"),
            (r#"Bearer error="169.254.1.1""#, "Bearer"),
            (r"Bearer max_age=10.0.0.1, error=e", "Bearer error=e"),
            (r"Bearer max_age=600", "Bearer max_age=600"),
            (r#"Bearer acr_values="10.0.0.1""#, "Bearer"),
            (r#"Bearer acr_values="evil.example/x""#, "Bearer"),
            (
                r#"Bearer acr_values="urn:mace:silver 2""#,
                r#"Bearer acr_values="urn:mace:silver 2""#,
            ),
            (r#"Bearer scope="evil.example/x 169.254.169.254""#, "Bearer"),
            (r#"Bearer scope="a 169.254.169.254""#, "Bearer"),
            (r#"Bearer scope="evil.example:80""#, "Bearer"),
            (r#"Bearer scope="x@evil.example""#, "Bearer"),
            (r#"Bearer scope="https://evil.example/?leak""#, "Bearer"),
            (r#"Bearer scope="https://evil.example:8443/x""#, "Bearer"),
            (r#"Bearer scope="https://169.254.169.254/x""#, "Bearer"),
            (
                r#"Bearer scope="https://www.googleapis.com/auth/drive User.Read chat:write.public a/b""#,
                r#"Bearer scope="https://www.googleapis.com/auth/drive User.Read chat:write.public a/b""#,
            ),
            (r#"Bearer scope="gopher:evil.example""#, "Bearer"),
            (r#"Bearer scope="Gopher:/evil.example""#, "Bearer"),
            (r#"Bearer scope="mailto:evil.example ldap:evil.example""#, "Bearer"),
            (r#"Bearer scope="x:evil.example/y""#, "Bearer"),
            (r#"Bearer scope="x:evil.example:80""#, "Bearer"),
            (r#"Bearer scope="fe80::a""#, "Bearer"),
            (r#"Bearer scope="0x7f.0x1""#, "Bearer"),
            (r#"Bearer scope="/evil.example""#, "Bearer"),
            (r#"Bearer scope="urn:x://evil""#, ""),
            (r#"Bearer scope="api://evil.example:80/x""#, "Bearer"),
            (r#"Bearer scope="api:////evil.example""#, ""),
            (r#"Bearer scope="data://evil.example""#, ""),
            (r#"Bearer scope="file:/etc""#, ""),
            (r#"Bearer realm="http&#58;&#47;&#47;evil""#, "Bearer"),
            (r#"Basic charset="evil.example""#, "Basic"),
            (r#"Basic realm=x, charset="utf-8""#, r#"Basic realm=x, charset="utf-8""#),
            (r#"DPoP algs="evil.example""#, "DPoP"),
            (r#"DPoP algs="ES256 ML-DSA-44""#, r#"DPoP algs="ES256 ML-DSA-44""#),
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
