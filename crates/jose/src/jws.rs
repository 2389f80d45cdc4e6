//! A signed token: a JWS in compact serialization (RFC 7515 §3.1), read and verified.

use std::fmt;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::algorithm::Algorithm;
use crate::key::Key;

/// Largest header of a token, bytes, decoded.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// Limits on the JSON of a token's header.
const HEADER: DocumentLimits = DocumentLimits {
    bytes_max: HEADER_BYTES_MAX,
    depth_max: 16,
    number_chars_max: 64,
    values_max: 4096,
};

/// Why a text is not a token that could be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than the limit of the caller; that limit, bytes.
    TooLong(usize),
    /// Not three parts in base64url without padding (RFC 7515 §7.1).
    Parts,
    /// The header is not a strict JSON object of at most [`HEADER_BYTES_MAX`].
    Header,
    /// The header has `crit`: critical extensions, none of which is supported (RFC 7515 §4.1.11).
    Critical,
    /// The header has no string `alg`, which RFC 7515 §4.1.1 requires.
    Algorithm,
    /// The header's `kid` is not a string (RFC 7515 §4.1.4).
    KeyId,
}

/// What is wrong; the caller writes the token's name before it.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes_max) => write!(f, "is longer than {bytes_max} bytes"),
            Self::Parts => f.write_str("is no JWT: not three parts in base64url, divided by dots"),
            Self::Header => write!(
                f,
                "has a header of no known form: no strict JSON object of at most {HEADER_BYTES_MAX} bytes"
            ),
            Self::Critical => f.write_str("has critical extensions (`crit`)"),
            Self::Algorithm => f.write_str("has a header of no known form: `alg` is no text"),
            Self::KeyId => f.write_str("has a header of no known form: `kid` is no text"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Why the signature of a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotVerified {
    /// The token's algorithm is unknown, or the caller does not accept it.
    Algorithm,
    /// The key may not be used with the token's algorithm.
    Key,
    /// The signature is invalid: another key signed, or the content was changed.
    Signature,
}

/// What is wrong; the caller writes the token's name before it.
impl fmt::Display for NotVerified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Algorithm => "is made with an algorithm that is not accepted",
            Self::Key => "is made with an algorithm that its key is not for",
            Self::Signature => "is not genuine",
        })
    }
}

impl std::error::Error for NotVerified {}

/// A token that was read but not verified. Its content must not be trusted before [`Jws::verify`].
#[derive(Clone)]
pub struct Jws<'a> {
    /// The JWS Signing Input: header and payload as they came (RFC 7515 §5.2, step 8).
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Box<str>,
    key_id: Option<Box<str>>,
    media_type: Option<Box<str>>,
    payload: Bytes,
}

/// Shows nothing of the token, because whoever has it may use it.
impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws").field("signed_bytes", &self.signed.len()).finish_non_exhaustive()
    }
}

impl<'a> Jws<'a> {
    /// Reads `token`, of at most `bytes_max` bytes. Decodes the payload but does not interpret it.
    ///
    /// # Errors
    ///
    /// [`Malformed`]; its text contains nothing of the token.
    pub fn read(token: &'a str, bytes_max: usize) -> Result<Self, Malformed> {
        if token.len() > bytes_max {
            return Err(Malformed::TooLong(bytes_max));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Malformed::Parts)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed::Parts)?;
        // A third dot fails here, because a dot is not in the base64url alphabet.
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed::Parts);
        let (header, payload) = (decoded(header)?, decoded(payload)?);
        let signature = decoded(signature)?;
        let header = Document::read(header.into(), &HEADER).map_err(|_| Malformed::Header)?;
        let header = header.root();
        if header.kind() != Kind::Object {
            return Err(Malformed::Header);
        }
        // "If any of the listed extension Header Parameters are not understood and supported by the
        // recipient, then the JWS is invalid"; an empty list is invalid too (RFC 7515 §4.1.11). No
        // extension is supported here, so there is no `crit` that could be valid.
        if header.get("crit").is_some() {
            return Err(Malformed::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Malformed::Algorithm)?;
        let key_id = match header.get("kid") {
            Some(id) => Some(id.as_str().ok_or(Malformed::KeyId)?.into()),
            None => None,
        };
        let media_type = header.get("typ").map(|typ| typ.as_str().unwrap_or_default().into());
        let (algorithm, payload) = (algorithm.into(), payload.into());
        Ok(Self { signed, signature, algorithm, key_id, media_type, payload })
    }

    /// The header's `alg` as written. It only restricts: [`Jws::verify`] compares it with the
    /// accepted algorithms.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The header's `kid` (RFC 7515 §4.1.4), by which the caller selects the key.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The header's `typ` (RFC 7515 §4.1.9): the media type that the token claims. Empty, which is
    /// no media type, where it is not a string.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    /// The payload, which must not be trusted before [`Jws::verify`]. A caller may need it to find
    /// the key, such as the issuer.
    pub fn unverified_payload(&self) -> &Bytes {
        &self.payload
    }

    /// Verifies that header and payload were signed with `key` and one of the `accepted` algorithms
    /// (RFC 7515 §5.2, RFC 8725 §3.1).
    ///
    /// # Errors
    ///
    /// [`NotVerified`]: the token must not be trusted.
    pub fn verify(&self, key: &Key, accepted: &[Algorithm]) -> Result<(), NotVerified> {
        let algorithm = Algorithm::parse(&self.algorithm).ok_or(NotVerified::Algorithm)?;
        if !accepted.contains(&algorithm) {
            return Err(NotVerified::Algorithm);
        }
        if !key.fits(algorithm) {
            return Err(NotVerified::Key);
        }
        let genuine = key.verifies(algorithm, self.signed.as_bytes(), &self.signature);
        if genuine { Ok(()) } else { Err(NotVerified::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwk::KeySet;
    use crate::made::{self, encoded};

    const MAX: usize = 16 << 10;

    /// The payload of the examples in RFC 7515, Appendix A.
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    fn verified(token: &str, key: &Key, accepted: &[Algorithm]) -> Result<(), NotVerified> {
        Jws::read(token, MAX).unwrap().verify(key, accepted)
    }

    #[test]
    fn the_examples_of_the_standards_verify() {
        // RFC 7515 §A.1, with a shared secret.
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let secret = URL_SAFE_NO_PAD.decode(secret).unwrap();
        let key = Key::from_secret(Algorithm::HS256, &secret).unwrap();
        let token = format!(
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
        assert_eq!(verified(&token, &key, &[Algorithm::HS256]), Ok(()));
        let jws = Jws::read(&token, MAX).unwrap();
        assert_eq!((jws.algorithm(), jws.key_id(), jws.media_type()), ("HS256", None, Some("JWT")));
        assert!(jws.unverified_payload().starts_with(b"{\"iss\":\"joe\",\r\n"));
        for (algorithm, jwk, token) in [
            // RFC 7515 §A.2.
            (
                Algorithm::RS256,
                r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
                format!(
                    "eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
                ),
            ),
            // RFC 7515 §A.3.
            (
                Algorithm::ES256,
                r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
                format!(
                    "eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
                ),
            ),
            // RFC 8037 §A.4, whose payload is plain text.
            (
                Algorithm::EdDSA,
                r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
            ),
        ] {
            let set = KeySet::read(format!("{{\"keys\":[{jwk}]}}").into(), &[algorithm]).unwrap();
            let key = set.find(None, algorithm).unwrap();
            assert_eq!(verified(&token, key, &[algorithm]), Ok(()), "{algorithm:?}");
            let others: Vec<_> = Algorithm::ALL.into_iter().filter(|it| *it != algorithm).collect();
            assert_eq!(verified(&token, key, &others), Err(NotVerified::Algorithm));
            assert_eq!(verified(&token, key, &[]), Err(NotVerified::Algorithm));
        }
    }

    /// What a header may say, against what a key is for and a caller accepts: RFC 8725 §2.1, §3.1.
    #[test]
    fn algorithm_key_and_caller_must_agree() {
        for signer in Algorithm::ALL {
            let key = made::key(signer);
            for alg in Algorithm::ALL {
                let header = format!("{{\"alg\":\"{}\"}}", alg.as_str());
                let token = made::token(signer, &header, b"{}");
                let expected = if alg == signer { Ok(()) } else { Err(NotVerified::Key) };
                assert_eq!(verified(&token, &key, &Algorithm::ALL), expected, "{signer:?} {alg:?}");
                let accepted: &[_] = &[signer];
                let expected = if alg == signer { Ok(()) } else { Err(NotVerified::Algorithm) };
                assert_eq!(verified(&token, &key, accepted), expected, "{signer:?} {alg:?}");
                // The header, the key and the caller agree; somebody else signed.
                if alg != signer {
                    let outcome = verified(&token, &made::key(alg), &[alg]);
                    assert_eq!(outcome, Err(NotVerified::Signature), "{signer:?} {alg:?}");
                }
            }
            for alg in ["none", "None", "", "RSA", "ES512"] {
                let header = format!("{{\"alg\":\"{alg}\"}}");
                let token = made::token(signer, &header, b"{}");
                let outcome = verified(&token, &key, &Algorithm::ALL);
                assert_eq!(outcome, Err(NotVerified::Algorithm), "{alg}");
            }
        }
        let unsecured = format!("eyJhbGciOiJub25lIn0.{CLAIMS}.");
        let outcome = verified(&unsecured, &made::key(Algorithm::HS256), &Algorithm::ALL);
        assert_eq!(outcome, Err(NotVerified::Algorithm), "RFC 7515 §A.5");
    }

    /// `Ed25519` says what `EdDSA` says (RFC 9864 §2.2).
    #[test]
    fn the_newer_name_of_an_algorithm_is_known() {
        let token = made::token(Algorithm::EdDSA, r#"{"alg":"Ed25519"}"#, b"{}");
        let key = made::key(Algorithm::EdDSA);
        assert_eq!(verified(&token, &key, &[Algorithm::EdDSA]), Ok(()));
        assert_eq!(Jws::read(&token, MAX).unwrap().algorithm(), "Ed25519");
    }

    #[test]
    fn what_is_no_token_is_named() {
        let deep = format!(r#"{{"alg":"ES256","x":{}1{}}}"#, "[".repeat(17), "]".repeat(17));
        let large = format!(r#"{{"alg":"ES256","x":"{}"}}"#, "x".repeat(HEADER_BYTES_MAX));
        for (header, why) in [
            ("", Malformed::Header),
            ("[]", Malformed::Header),
            ("7", Malformed::Header),
            (r#"{"alg":"ES256"}x"#, Malformed::Header),
            (r#"{"alg":"ES256","alg":"none"}"#, Malformed::Header),
            (r#"{"alg":"ES256","\u0061lg":"none"}"#, Malformed::Header),
            (r#"{"alg":"ES256","x":{"a":1,"a":2}}"#, Malformed::Header),
            (&deep, Malformed::Header),
            (&large, Malformed::Header),
            ("{}", Malformed::Algorithm),
            (r#"{"alg":["ES256"]}"#, Malformed::Algorithm),
            (r#"{"alg":null}"#, Malformed::Algorithm),
            (r#"{"alg":"ES256","kid":1}"#, Malformed::KeyId),
            (r#"{"alg":"ES256","kid":null}"#, Malformed::KeyId),
            (r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, Malformed::Critical),
            (r#"{"alg":"ES256","crit":["exp"],"exp":1}"#, Malformed::Critical),
            (r#"{"alg":"ES256","crit":[]}"#, Malformed::Critical),
            (r#"{"alg":"ES256","crit":null}"#, Malformed::Critical),
            (r#"{"alg":"ES256","\u0063rit":["x"]}"#, Malformed::Critical),
        ] {
            let token = format!("{}.e30.AAAA", encoded(header));
            let read = Jws::read(&token, usize::MAX).unwrap_err();
            assert_eq!(read, why, "{header}");
            let text = read.to_string();
            assert!(!text.contains("ES256") && !text.contains("b64\""), "{text}");
        }
        let header = encoded(r#"{"alg":"ES256"}"#);
        for token in [
            String::new(),
            "opaque".to_owned(),
            header.clone(),
            format!("{header}.e30"),
            format!("{header}.e30.AAAA.AAAA"),
            format!("{header}.e30.AAAA="),
            format!("{header}.e30.AAA+"),
            format!("{header}.e30.AAB"),
            format!("{header}.e30.A"),
            format!("{header}.!.AAAA"),
            format!(" {header}.e30.AAAA"),
            format!("{header}.e30.AAAA\n"),
        ] {
            assert_eq!(Jws::read(&token, MAX).unwrap_err(), Malformed::Parts, "{token}");
        }
        let token = format!("{header}.e30.AAAA");
        assert!(Jws::read(&token, token.len()).is_ok());
        let read = Jws::read(&token, token.len() - 1);
        assert_eq!(read.unwrap_err(), Malformed::TooLong(token.len() - 1));
    }

    #[test]
    fn a_media_type_that_is_no_text_is_none_that_anybody_knows() {
        for (typ, found) in
            [("", None), (r#","typ":"at+jwt""#, Some("at+jwt")), (r#","typ":7"#, Some(""))]
        {
            let token = format!("{}.e30.AAAA", encoded(format!(r#"{{"alg":"ES256"{typ}}}"#)));
            assert_eq!(Jws::read(&token, MAX).unwrap().media_type(), found);
        }
    }

    /// Keys and addresses in the header are not read, and nothing in it is repeated.
    #[test]
    fn a_token_brings_no_key_and_is_not_shown() {
        let header = r#"{"alg":"HS256","kid":"a","jwk":{"kty":"oct","k":"eA"},"jku":"http://x/"}"#;
        let own = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"x");
        let signed = format!("{}.e30", encoded(header));
        let token = format!("{signed}.{}", encoded(ring::hmac::sign(&own, signed.as_bytes())));
        let outcome = verified(&token, &made::key(Algorithm::HS256), &[Algorithm::HS256]);
        assert_eq!(outcome, Err(NotVerified::Signature));
        let jws = Jws::read(&token, MAX).unwrap();
        assert_eq!(jws.key_id(), Some("a"));
        assert_eq!(format!("{jws:?}"), format!("Jws {{ signed_bytes: {}, .. }}", signed.len()));
    }

    #[test]
    #[expect(clippy::string_slice, reason = "a token is ASCII")]
    fn no_byte_of_a_token_can_be_changed() {
        let (algorithm, key) = (Algorithm::EdDSA, made::key(Algorithm::EdDSA));
        let token = made::token(algorithm, r#"{"alg":"EdDSA","kid":"k"}"#, br#"{"a":[1,2]}"#);
        let good = |token: &str| {
            Jws::read(token, MAX).is_ok_and(|jws| jws.verify(&key, &[algorithm]).is_ok())
        };
        assert!(good(&token));
        for at in 0..token.len() {
            for other in ["A", "B", "_", "=", ".", "~"] {
                let changed = [&token[..at], other, &token[at + 1..]].concat();
                assert!(changed == token || !good(&changed), "{other} at {at}: {changed}");
                assert!(
                    !good(&[&token[..at], other, &token[at..]].concat()),
                    "{other} before {at}"
                );
            }
            assert!(!good(&[&token[..at], &token[at + 1..]].concat()), "without {at}");
        }
    }
}
