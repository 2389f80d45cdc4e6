//! Signature algorithms (JSON Web Algorithms, RFC 7518 §3.1), one row each.

use ring::hmac::{self, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};

/// A signature algorithm. `none` is not among them, so no caller can accept it (RFC 8725 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in RFC 7518 §3.1 and RFC 8037 §3.1")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

/// The kind of key that an algorithm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// An RSA public key of 2048 to 8192 bits; `ring` refuses other sizes.
    Rsa,
    /// A point on the curve P-256.
    P256,
    /// A point on the curve P-384.
    P384,
    /// An Ed25519 public key.
    Ed25519,
    /// A shared secret.
    Secret,
}

/// How a signature is verified.
pub(crate) enum Check {
    /// A digital signature, verified with a public key.
    Signature(&'static dyn VerificationAlgorithm),
    /// An HMAC, verified with the shared secret.
    Mac(hmac::Algorithm),
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 12] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::HS256,
        Self::HS384,
        Self::HS512,
    ];

    /// Returns the algorithm with the exact name `alg`; names are case-sensitive (RFC 7515 §4.1.1).
    /// `Ed25519` is the newer name of `EdDSA` with this curve, the only one supported (RFC 9864
    /// §2.2).
    pub fn parse(alg: &str) -> Option<Self> {
        let alg = if alg == "Ed25519" { "EdDSA" } else { alg };
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == alg)
    }

    /// Its name in the header parameter `alg`.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Whether signer and verifier share one secret (RFC 7518 §3.2).
    pub fn is_symmetric(self) -> bool {
        self.key_kind() == KeyKind::Secret
    }

    pub(crate) fn key_kind(self) -> KeyKind {
        self.row().1
    }

    pub(crate) fn check(self) -> Check {
        self.row().2
    }

    /// The name, the kind of key and the verification of each algorithm.
    fn row(self) -> (&'static str, KeyKind, Check) {
        use Check::{Mac, Signature};
        use KeyKind::{Ed25519, P256, P384, Rsa, Secret};
        match self {
            Self::RS256 => ("RS256", Rsa, Signature(&RSA_PKCS1_2048_8192_SHA256)),
            Self::RS384 => ("RS384", Rsa, Signature(&RSA_PKCS1_2048_8192_SHA384)),
            Self::RS512 => ("RS512", Rsa, Signature(&RSA_PKCS1_2048_8192_SHA512)),
            Self::PS256 => ("PS256", Rsa, Signature(&RSA_PSS_2048_8192_SHA256)),
            Self::PS384 => ("PS384", Rsa, Signature(&RSA_PSS_2048_8192_SHA384)),
            Self::PS512 => ("PS512", Rsa, Signature(&RSA_PSS_2048_8192_SHA512)),
            Self::ES256 => ("ES256", P256, Signature(&ECDSA_P256_SHA256_FIXED)),
            Self::ES384 => ("ES384", P384, Signature(&ECDSA_P384_SHA384_FIXED)),
            Self::EdDSA => ("EdDSA", Ed25519, Signature(&ED25519)),
            Self::HS256 => ("HS256", Secret, Mac(HMAC_SHA256)),
            Self::HS384 => ("HS384", Secret, Mac(HMAC_SHA384)),
            Self::HS512 => ("HS512", Secret, Mac(HMAC_SHA512)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_none_is_no_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(Algorithm::parse("Ed25519"), Some(Algorithm::EdDSA));
        for other in
            ["none", "None", "nOnE", "NONE", "", "rs256", "RS256 ", "ES512", "ES256K", "ed25519"]
        {
            assert_eq!(Algorithm::parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_mac_algorithms_are_symmetric() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.is_symmetric(), algorithm.as_str().starts_with("HS"));
        }
    }
}
