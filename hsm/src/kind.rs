//! Kinds of keys that a token may hold for us, and what differs between them when something is signed.

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use ironroot_api::MlDsa;

use crate::signature::ecdsa_to_der;

/// A kind of key pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on NIST P-256, with SHA-256.
    #[default]
    EcP256,
    /// ECDSA on NIST P-384, with SHA-384.
    EcP384,
    /// RSA of 2048 bits: PKCS #1 v1.5 with SHA-256.
    Rsa2048,
    /// RSA of 4096 bits, likewise.
    Rsa4096,
    /// ML-DSA, over the message itself.
    MlDsa(MlDsa),
}

/// DigestInfo of SHA-256 up to the digest. Source: RFC 8017 §9.2, note 1.
const SHA256_DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// What C_Sign is given.
pub(crate) enum SigningInput {
    /// A digest, or what PKCS #1 pads.
    Digest(Digest),
    /// The message itself.
    Message(Box<[u8]>),
}

/// A digest, perhaps with what says which one it is.
pub(crate) struct Digest {
    bytes: [u8; 64],
    length: usize,
    /// Whether an RSA key pads it by PSS.
    is_for_pss: bool,
}

impl SigningInput {
    /// Of a message that a key of this kind signs.
    pub(crate) fn of(kind: KeyKind, message: &[u8]) -> Self {
        match kind {
            KeyKind::EcP256 => Self::from_parts(&[], digest(&SHA256, message).as_ref()),
            KeyKind::EcP384 => Self::from_parts(&[], digest(&SHA384, message).as_ref()),
            KeyKind::Rsa2048 | KeyKind::Rsa4096 => {
                Self::from_parts(&SHA256_DIGEST_INFO, digest(&SHA256, message).as_ref())
            }
            KeyKind::MlDsa(_) => Self::Message(message.into()),
        }
    }

    /// A SHA-256 digest for a key on P-256.
    pub(crate) fn of_digest(digest: &[u8; 32]) -> Self {
        Self::from_parts(&[], digest)
    }

    /// A SHA-256 digest for a key that signs digests: ECDSA takes it on every curve, RSA by PSS.
    pub(crate) fn of_sha256(digest: &[u8; 32]) -> Self {
        Self::Digest(Digest { is_for_pss: true, ..Digest::from_parts(&[], digest) })
    }

    /// Whether an RSA key pads it by PSS, otherwise by PKCS #1 v1.5.
    pub(crate) fn is_for_pss(&self) -> bool {
        matches!(self, Self::Digest(Digest { is_for_pss: true, .. }))
    }

    fn from_parts(prefix: &[u8], digest: &[u8]) -> Self {
        Self::Digest(Digest::from_parts(prefix, digest))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Digest(digest) => &digest.bytes[..digest.length],
            Self::Message(message) => message,
        }
    }
}

impl Digest {
    /// Both together have at most 51 bytes.
    fn from_parts(prefix: &[u8], digest: &[u8]) -> Self {
        let (mut bytes, length) = ([0; 64], prefix.len() + digest.len());
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[prefix.len()..length].copy_from_slice(digest);
        Self { bytes, length, is_for_pss: false }
    }
}

impl KeyKind {
    /// Length of a signature as the token returns it, bytes.
    pub(crate) fn signature_bytes(self) -> usize {
        match self {
            Self::EcP256 => 64,
            Self::EcP384 => 96,
            Self::Rsa2048 => 256,
            Self::Rsa4096 => 512,
            Self::MlDsa(set) => set.signature_bytes(),
        }
    }

    /// Length of an RSA modulus, bits; none of what is no RSA key.
    pub(crate) fn modulus_bits(self) -> Option<usize> {
        match self {
            Self::EcP256 | Self::EcP384 | Self::MlDsa(_) => None,
            Self::Rsa2048 => Some(2048),
            Self::Rsa4096 => Some(4096),
        }
    }

    /// A signature in the form of X.509 and TLS, from that of JWS, which [`TokenKey::sign_message`](crate::TokenKey::sign_message) makes:
    /// DER `ECDSA-Sig-Value`, or RSA's and ML-DSA's as they are. Source: RFC 3279 §2.2.3, RFC 4055 §5, RFC 9881 §3.
    pub fn x509_signature(self, signature: Vec<u8>) -> Vec<u8> {
        match self {
            Self::EcP256 | Self::EcP384 => ecdsa_to_der(&signature),
            Self::Rsa2048 | Self::Rsa4096 | Self::MlDsa(_) => signature,
        }
    }
}

/// As errors call it.
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcP256 => "P-256",
            Self::EcP384 => "P-384",
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa4096 => "RSA-4096",
            Self::MlDsa(set) => set.name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_the_digest_that_goes_with_the_key() {
        let lengths = [KeyKind::EcP256, KeyKind::EcP384, KeyKind::Rsa2048, KeyKind::Rsa4096]
            .map(|kind| (SigningInput::of(kind, b"abc").as_bytes().len(), kind.signature_bytes()));
        assert_eq!(lengths, [(32, 64), (48, 96), (51, 256), (51, 512)]);
        for set in MlDsa::ALL {
            assert_eq!(SigningInput::of(KeyKind::MlDsa(set), b"abc").as_bytes(), b"abc", "the message itself");
        }
        let info = SigningInput::of(KeyKind::Rsa2048, b"abc");
        assert_eq!(&info.as_bytes()[19..], SigningInput::of(KeyKind::EcP256, b"abc").as_bytes());
        let hash: [u8; 32] = digest(&SHA256, b"abc").as_ref().try_into().unwrap();
        assert_eq!(SigningInput::of_digest(&hash).as_bytes(), hash);
    }

    #[test]
    fn certificates_have_ecdsa_signatures_as_two_integers_and_others_as_they_are() {
        let der = KeyKind::EcP384.x509_signature([[0; 47].as_slice(), &[1], &[0; 47], &[0x80]].concat());
        assert_eq!(der, [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        for kind in [KeyKind::Rsa4096, KeyKind::MlDsa(MlDsa::MlDsa44)] {
            assert_eq!(kind.x509_signature(vec![7; 512]), [7; 512]);
        }
    }
}
