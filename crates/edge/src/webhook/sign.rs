//! Signs a request as Standard Webhooks 1.0.0 says, so that receivers can use its libraries:
//! `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,…`, which is the base64 of
//! HMAC-SHA-256 over `id.timestamp.body`.

use std::fmt;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What the text of a secret begins with.
const PREFIX: &str = "whsec_";
/// Least and largest size of a key, bytes (Standard Webhooks, "Signature scheme").
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The key that a webhook's requests are signed with. It shows itself to nobody.
#[derive(Clone)]
pub struct SigningSecret(Hmac<Sha256>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl SigningSecret {
    /// Reads `whsec_` and base64 of 24 to 64 bytes; `None` if `text` is something else.
    pub fn read(text: &str) -> Option<Self> {
        let key = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        if !KEY_BYTES.contains(&key.len()) {
            return None;
        }
        Hmac::<Sha256>::new_from_slice(&key).ok().map(Self)
    }

    /// The signature of `body`, which is sent as `id` at `unix_s`.
    fn sign(&self, id: &str, unix_s: u64, body: &[u8]) -> String {
        let mac = self.0.clone().chain_update(format!("{id}.{unix_s}.")).chain_update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The headers for `body`, which is sent as `id` at `unix_s`, seconds since 1970; signed, if there is
/// a secret.
pub fn headers(secret: Option<&SigningSecret>, id: &str, unix_s: u64, body: &[u8]) -> HeaderMap {
    let signature = secret.map(|secret| secret.sign(id, unix_s, body));
    let texts = [
        ("webhook-id", Some(id.to_owned())),
        ("webhook-timestamp", Some(unix_s.to_string())),
        ("webhook-signature", signature),
    ];
    let headers = texts.into_iter().filter_map(|(name, text)| {
        Some((HeaderName::from_static(name), HeaderValue::from_str(&text?).ok()?))
    });
    headers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries (`test_signature`).
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let secret = SigningSecret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let headers = headers(
            Some(&secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(headers["webhook-signature"], expected);
    }

    #[test]
    fn a_secret_is_long_and_shows_nothing() {
        let text = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for (text, is_one) in [
            (text(23), false),
            (text(24), true),
            (text(64), true),
            (text(65), false),
            (text(24).replace("whsec_", ""), false),
            ("whsec_not base64 not base64 not base64".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(SigningSecret::read(&text).is_some(), is_one, "{text}");
        }
        let shown = format!("{:?}", SigningSecret::read(&text(24)).unwrap());
        assert_eq!(shown, "SigningSecret(…)");
    }
}
