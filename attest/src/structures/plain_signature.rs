//! Signatures in the form that certificates and TLS have them, by keys of the kinds that a TPM makes.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use super::public_key::{Kind, RSA_EXPONENT};
use super::{Curve, PublicKey};

impl PublicKey {
    /// Whether this key made `signature` over `message` with SHA-256: PKCS #1 v1.5, or ECDSA as DER (RFC 3279 §2.2.3).
    pub(crate) fn signed_with_sha256(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.kind() {
            Kind::Rsa { modulus } => {
                let exponent = RSA_EXPONENT.to_be_bytes();
                let key = RsaPublicKeyComponents { n: &modulus[..], e: &exponent[1..] };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Kind::Ecc { curve, point } => {
                let algorithm = match curve {
                    Curve::P256 => &ECDSA_P256_SHA256_ASN1,
                    Curve::P384 => &ECDSA_P384_SHA256_ASN1,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
        }
    }
}
