//! Signatures: what they cover, which keys may make them, and attempts to get a bad one accepted.

use bartizan::policy::bundle::signature::{Algorithm, Signing, SigningKey};
use ring::{hmac, signature};
use serde_json::{Value, json};

use super::make::{Signer, bundle, rules, sha256, signatures, signed_bundle, tarball};
use super::{prove_bytes, refused};

const RSA: &str = include_str!("keys/rsa.pem");
const P256: &str = include_str!("keys/p256.pem");
const P384: &str = include_str!("keys/p384.pem");
const ED25519: &str = include_str!("keys/ed25519.pem");

/// What makes a signature, the algorithm, and what verifies it.
fn algorithms() -> Vec<(Signer<'static>, Algorithm, &'static str)> {
    let secret = "a shared secret";
    vec![
        (Signer::Rsa(&signature::RSA_PKCS1_SHA256), Algorithm::RS256, RSA),
        (Signer::Rsa(&signature::RSA_PKCS1_SHA384), Algorithm::RS384, RSA),
        (Signer::Rsa(&signature::RSA_PKCS1_SHA512), Algorithm::RS512, RSA),
        (Signer::Rsa(&signature::RSA_PSS_SHA256), Algorithm::PS256, RSA),
        (Signer::Rsa(&signature::RSA_PSS_SHA384), Algorithm::PS384, RSA),
        (Signer::Rsa(&signature::RSA_PSS_SHA512), Algorithm::PS512, RSA),
        (Signer::P256, Algorithm::ES256, P256),
        (Signer::P384, Algorithm::ES384, P384),
        (Signer::Ed25519, Algorithm::EdDSA, ED25519),
        (Signer::Secret(hmac::HMAC_SHA256, secret), Algorithm::HS256, secret),
        (Signer::Secret(hmac::HMAC_SHA384, secret), Algorithm::HS384, secret),
        (Signer::Secret(hmac::HMAC_SHA512, secret), Algorithm::HS512, secret),
    ]
}

fn signing(algorithm: Algorithm, material: &str) -> Signing {
    let key = SigningKey::new(algorithm, material.as_bytes(), None).unwrap();
    Signing { keys: [("release".to_owned(), key)].into(), ..Signing::default() }
}

fn file(name: &str, bytes: &str) -> Value {
    json!({"name": name, "hash": sha256(bytes.as_bytes()), "algorithm": "SHA-256"})
}

/// A bundle of one file, with this header and these names in the signature.
fn one_file(signer: &Signer<'_>, header: &Value, payload: &Value) -> Vec<u8> {
    let token = signer.token(header, payload);
    tarball(&[
        ("mcp/rules.rego", rules("a").as_bytes()),
        (".signatures.json", signatures(&token).as_bytes()),
    ])
}

fn payload() -> Value {
    json!({"files": [file("mcp/rules.rego", &rules("a"))], "iat": 1_592_248_027, "iss": "ci"})
}

#[tokio::test]
async fn every_algorithm_is_verified_by_its_key_alone() {
    for (signer, algorithm, material) in algorithms() {
        let header = json!({"alg": algorithm.as_str(), "typ": "JWT", "kid": "release"});
        let packed = one_file(&signer, &header, &payload());
        let outcome = prove_bytes(&packed, Some(signing(algorithm, material))).await;
        assert!(outcome.is_ok(), "{algorithm:?}: {outcome:?}");
        for (_, other, material) in algorithms().into_iter().filter(|(_, it, _)| *it != algorithm) {
            // The header names the algorithm that was used, but the configured key is for another.
            let outcome = prove_bytes(&packed, Some(signing(other, material))).await;
            refused(outcome, &format!("the signature is not {}", other.as_str()));
            // The header says what the key says; the signature is another one.
            let header = json!({"alg": other.as_str(), "kid": "release"});
            let packed = one_file(&signer, &header, &payload());
            let outcome = prove_bytes(&packed, Some(signing(other, material))).await;
            refused(outcome, "not genuine");
        }
    }
}

/// A public key is public: taken as a secret it would sign for anybody.
#[tokio::test]
async fn a_public_key_cannot_be_used_as_a_shared_secret() {
    let header = json!({"alg": "HS256", "kid": "release"});
    let packed = one_file(&Signer::Secret(hmac::HMAC_SHA256, RSA), &header, &payload());
    refused(prove_bytes(&packed, Some(signing(Algorithm::RS256, RSA))).await, "is not RS256");
    for alg in ["none", "None", "", "rs256"] {
        let header = json!({"alg": alg, "kid": "release"});
        let packed = one_file(&Signer::Rsa(&signature::RSA_PKCS1_SHA256), &header, &payload());
        refused(prove_bytes(&packed, Some(signing(Algorithm::RS256, RSA))).await, "is not RS256");
    }
}

#[tokio::test]
async fn what_was_changed_added_or_taken_away_is_refused() {
    let release = || Some(signing(Algorithm::RS256, RSA));
    let signer = Signer::Rsa(&signature::RSA_PKCS1_SHA256);
    let header = json!({"alg": "RS256", "kid": "release"});
    let token = signer.token(&header, &payload());
    let signatures = signatures(&token);
    let good = rules("a");
    let with = |rego: &str, more: &[(&str, &[u8])]| {
        let mut files = vec![("mcp/rules.rego", rego.as_bytes())];
        files.push((".signatures.json", signatures.as_bytes()));
        files.extend_from_slice(more);
        tarball(&files)
    };
    prove_bytes(&with(&good, &[]), release()).await.unwrap();
    refused(prove_bytes(&with(&rules("b"), &[]), release()).await, "differs from the signed file");
    for name in ["mcp/more.rego", "data.json", "README", ".manifest", "patch.jsonx"] {
        let packed = with(&good, &[(name, b"{}")]);
        refused(prove_bytes(&packed, release()).await, &format!("`{name}` is not signed"));
    }
    let files = json!([file("mcp/rules.rego", &good), file("data.json", "{}")]);
    let packed = one_file(&signer, &header, &json!({ "files": files }));
    refused(prove_bytes(&packed, release()).await, "`data.json` is signed, but missing");
    let files = json!([file("mcp/rules.rego", &good), file("/mcp/rules.rego", &good)]);
    let packed = one_file(&signer, &header, &json!({ "files": files }));
    refused(prove_bytes(&packed, release()).await, "signed twice");
    for algorithm in ["MD5", "SHA-1", "sha-256", ""] {
        let files = json!([{"name": "mcp/rules.rego", "hash": sha256(good.as_bytes()), "algorithm": algorithm}]);
        let packed = one_file(&signer, &header, &json!({ "files": files }));
        refused(prove_bytes(&packed, release()).await, "is hashed with");
    }
}

#[tokio::test]
async fn an_unsigned_bundle_is_refused_where_keys_are_configured() {
    let release = || Some(signing(Algorithm::RS256, RSA));
    refused(prove_bytes(&bundle("v1"), release()).await, "the bundle is not signed");
    prove_bytes(&signed_bundle("v1"), release()).await.unwrap();
    refused(prove_bytes(&signed_bundle("v1"), None).await, "no key is configured");
    let rego = rules("a");
    for (signatures, expected) in [
        (r#"{"signatures":[]}"#, "0 signatures, but exactly one"),
        (r#"{"signatures":["a","b"]}"#, "2 signatures, but exactly one"),
        (r#"{"signatures":["a.b"]}"#, "no JWT"),
        (r#"{"signatures":["!.b.c"]}"#, "no JWT"),
        (r#"{"signatures":["e30.e30.e30"]}"#, "of no known form"),
        (r#"{"signatures":["e30.e30.e30"],"plugin":"mine"}"#, "uses a plugin"),
        ("", "not in the expected format"),
    ] {
        let packed =
            tarball(&[("r.rego", rego.as_bytes()), (".signatures.json", signatures.as_bytes())]);
        refused(prove_bytes(&packed, release()).await, expected);
    }
    let signer = Signer::Rsa(&signature::RSA_PKCS1_SHA256);
    let critical = json!({"alg": "RS256", "kid": "release", "crit": ["b64"], "b64": false});
    let packed = one_file(&signer, &critical, &payload());
    refused(prove_bytes(&packed, release()).await, "critical extensions");
}

/// Which key: the configured one, else the header's, else the payload's (OPA's order).
#[tokio::test]
async fn keys_and_scopes_are_chosen_as_opa_chooses() {
    let signer = Signer::Rsa(&signature::RSA_PKCS1_SHA256);
    let keys = || {
        let key = |scope: Option<&str>| {
            SigningKey::new(Algorithm::RS256, RSA.as_bytes(), scope.map(str::to_owned)).unwrap()
        };
        let keys = [("release".to_owned(), key(None)), ("scoped".to_owned(), key(Some("read")))];
        Signing { keys: keys.into(), ..Signing::default() }
    };
    let bundle = |kid: Option<&str>, keyid: Option<&str>, scope: Option<&str>| {
        let mut header = json!({"alg": "RS256"});
        let mut payload = payload();
        for (object, name, value) in [(&mut header, "kid", kid), (&mut payload, "keyid", keyid)] {
            if let Some(value) = value {
                object[name] = value.into();
            }
        }
        if let Some(scope) = scope {
            payload["scope"] = scope.into();
        }
        one_file(&signer, &header, &payload)
    };
    let chosen = |id: &str| Signing { key_id: Some(id.to_owned()), ..keys() };
    let scoped = |scope: &str| Signing { scope: Some(scope.to_owned()), ..keys() };
    for (packed, signing) in [
        (bundle(None, Some("release"), None), keys()),
        (bundle(Some("release"), Some("gone"), None), keys()),
        (bundle(Some("gone"), None, None), chosen("release")),
        // As the commands of OPA write them.
        (bundle(None, None, None), chosen("release")),
        (bundle(None, Some("default"), None), chosen("release")),
        (bundle(Some("scoped"), None, Some("read")), keys()),
        (bundle(Some("scoped"), None, Some("write")), scoped("write")),
    ] {
        prove_bytes(&packed, Some(signing)).await.unwrap();
    }
    for (packed, signing, expected) in [
        (bundle(None, None, None), keys(), "does not name a key"),
        (bundle(Some("gone"), Some("release"), None), keys(), "no key with the id `gone`"),
        (bundle(Some("release"), None, Some("write")), keys(), "another scope"),
        (bundle(Some("scoped"), None, None), keys(), "another scope"),
        (bundle(Some("scoped"), None, Some("read")), scoped("write"), "another scope"),
    ] {
        refused(prove_bytes(&packed, Some(signing)).await, expected);
    }
    // Signing anew would not help, so the hint names the configuration.
    for packed in [bundle(None, None, None), bundle(None, Some("default"), None)] {
        let problems = prove_bytes(&packed, Some(keys())).await.map(|_| ()).unwrap_err();
        let hint = problems[0].hint.as_deref().unwrap();
        assert!(hint.starts_with("set `policy.bundle.signing.keyid`"), "{hint}");
    }
}

/// Data is signed for what it says, not for how it is laid out.
#[tokio::test]
async fn reformatted_data_keeps_its_signature() {
    let signer = Signer::Ed25519;
    let ed25519 = || Some(signing(Algorithm::EdDSA, ED25519));
    let header = json!({"alg": "EdDSA", "kid": "release"});
    let canonical = r#"{"a":[1.50,"\u2028<"],"b":{}}"#;
    let files = json!([
        file("mcp/rules.rego", &rules("a")),
        file("data.json", canonical),
        file("lib/data.yaml", r#"{"list":[1,"x"]}"#),
        file(".manifest", r#"{"revision":"r1"}"#),
    ]);
    let token = signer.token(&header, &json!({ "files": files }));
    let signatures = signatures(&token);
    let with = |data: &str| {
        tarball(&[
            ("mcp/rules.rego", rules("a").as_bytes()),
            ("data.json", data.as_bytes()),
            ("lib/data.yaml", b"list:\n  - 1\n  - x\n"),
            (".manifest", b"{ \"revision\": \"r1\" }\n"),
            (".signatures.json", signatures.as_bytes()),
        ])
    };
    let laid_out = "{\n  \"b\": {},\n  \"a\": [1.50, \"\u{2028}\\u003c\"]\n}\n";
    prove_bytes(&with(laid_out), ed25519()).await.unwrap();
    let other_number = laid_out.replace("1.50", "1.5");
    refused(prove_bytes(&with(&other_number), ed25519()).await, "`data.json` differs");
}

#[test]
fn keys_of_the_wrong_kind_are_refused() {
    for (algorithm, pem, expected) in [
        (Algorithm::RS256, P256, "another kind"),
        (Algorithm::ES256, P384, "another kind"),
        (Algorithm::ES384, P256, "another kind"),
        (Algorithm::EdDSA, RSA, "another kind"),
        (Algorithm::RS256, include_str!("keys/rsa.key"), "a private key"),
        (Algorithm::RS256, include_str!("../http_edge/tls/server.pem"), "no public key"),
        (Algorithm::RS256, "", "no PEM"),
        (
            Algorithm::RS256,
            "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n",
            "no known kind",
        ),
        (Algorithm::HS256, "", "empty"),
    ] {
        let problem = SigningKey::new(algorithm, pem.as_bytes(), None).unwrap_err();
        assert!(problem.contains(expected), "{algorithm:?}: {problem}");
    }
}
