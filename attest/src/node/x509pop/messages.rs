//! The three messages, as JSON with standard base64 as Go writes it. Every size is capped before anything is decoded; fields that
//! we do not know are passed over, as SPIRE does.

use serde::{Deserialize, Serialize};

use super::family::Family;
use super::refusal::X509PopRefusal;
use super::{MAX_CERTIFICATES, NONCE_BYTES};
use crate::node::base64_bytes::{Base64, Base64Digest};
use crate::node::json::{decode, encode};
use crate::node::signed_sha256;

/// Longest certificate accepted, bytes of DER.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Longest RSA signature accepted, bytes: that of a key of 8192 bits.
const MAX_SIGNATURE_BYTES: usize = 1024;
/// Longest number of an ECDSA signature accepted, bytes: one of P-521.
const MAX_SCALAR_BYTES: usize = 66;

/// The device's first message: the certificate that it was given, then intermediates in any order, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub(super) certificates: Vec<Vec<u8>>,
}

/// The server's answer: a nonce for a key of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The kind of the certificate's key.
    pub family: Family,
    /// Fresh from the server.
    pub nonce: [u8; NONCE_BYTES],
}

/// The device's second message: its own nonce, and the signature over both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// RSASSA-PSS with SHA-256.
    Rsa {
        /// Fresh from the device.
        nonce: [u8; NONCE_BYTES],
        /// As long as the modulus.
        signature: Vec<u8>,
    },
    /// ECDSA with SHA-256, on whatever curve.
    Ecdsa {
        /// Fresh from the device.
        nonce: [u8; NONCE_BYTES],
        /// Big-endian.
        r: Vec<u8>,
        /// Big-endian.
        s: Vec<u8>,
    },
}

#[derive(Serialize, Deserialize)]
struct EvidenceJson {
    certificates: Vec<Base64<MAX_CERTIFICATE_BYTES>>,
}

/// One of the two is there, the other is null.
#[derive(Serialize, Deserialize)]
struct OneOf<R, E> {
    rsa_signature: Option<R>,
    ecdsa_signature: Option<E>,
}

#[derive(Serialize, Deserialize)]
struct NonceJson {
    nonce: Base64Digest,
}

#[derive(Serialize, Deserialize)]
struct RsaJson {
    nonce: Base64Digest,
    signature: Base64<MAX_SIGNATURE_BYTES>,
}

#[derive(Serialize, Deserialize)]
struct EcdsaJson {
    nonce: Base64Digest,
    r: Base64<MAX_SCALAR_BYTES>,
    s: Base64<MAX_SCALAR_BYTES>,
}

impl Evidence {
    /// As they were sent, DER: the device's first. Nothing of them is verified.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// The certificate that is shown, as [`AttestedCertificate`](super::AttestedCertificate) calls it; nothing is believed yet.
    pub fn certificate_sha256(&self) -> Option<[u8; 32]> {
        signed_sha256::of_certificate(self.certificates.first()?)
    }

    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&EvidenceJson { certificates: self.certificates.iter().cloned().map(Base64).collect() })
    }

    /// Parses the message; at least one certificate, and not more than any server looks at.
    pub fn from_json(json: &[u8]) -> Result<Self, X509PopRefusal> {
        let message: EvidenceJson = decode(json)?;
        match message.certificates.len() {
            0 => Err(X509PopRefusal::NoCertificate),
            1..=MAX_CERTIFICATES => {
                Ok(Self { certificates: message.certificates.into_iter().map(|certificate| certificate.0).collect() })
            }
            sent => Err(X509PopRefusal::TooManyCertificates { sent, most: MAX_CERTIFICATES }),
        }
    }
}

impl Challenge {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let nonce = |family| (self.family == family).then_some(NonceJson { nonce: Base64Digest(self.nonce) });
        encode(&OneOf { rsa_signature: nonce(Family::Rsa), ecdsa_signature: nonce(Family::Ecdsa) })
    }

    /// Parses the message, which must be for a key of the kind `family`.
    pub fn from_json(json: &[u8], family: Family) -> Result<Self, X509PopRefusal> {
        let message: OneOf<NonceJson, NonceJson> = decode(json)?;
        let asked = match family {
            Family::Rsa => message.rsa_signature,
            Family::Ecdsa => message.ecdsa_signature,
        };
        let nonce = asked.ok_or(X509PopRefusal::OtherChallenge)?.nonce.0;
        Ok(Self { family, nonce })
    }
}

impl Response {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let (rsa_signature, ecdsa_signature) = match self.clone() {
            Self::Rsa { nonce, signature } => {
                (Some(RsaJson { nonce: Base64Digest(nonce), signature: Base64(signature) }), None)
            }
            Self::Ecdsa { nonce, r, s } => {
                (None, Some(EcdsaJson { nonce: Base64Digest(nonce), r: Base64(r), s: Base64(s) }))
            }
        };
        encode(&OneOf { rsa_signature, ecdsa_signature })
    }

    /// Parses the answer to a challenge for a key of the kind `family`.
    pub fn from_json(json: &[u8], family: Family) -> Result<Self, X509PopRefusal> {
        let message: OneOf<RsaJson, EcdsaJson> = decode(json)?;
        let answer = match family {
            Family::Rsa => {
                message.rsa_signature.map(|rsa| Self::Rsa { nonce: rsa.nonce.0, signature: rsa.signature.0 })
            }
            Family::Ecdsa => {
                message.ecdsa_signature.map(|ecdsa| Self::Ecdsa { nonce: ecdsa.nonce.0, r: ecdsa.r.0, s: ecdsa.s.0 })
            }
        };
        answer.ok_or(X509PopRefusal::OtherFamily)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Refusal;

    const NONCE: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

    /// Written as Go's encoding/json writes SPIRE's structures.
    #[test]
    fn the_messages_are_spires_byte_for_byte() {
        let evidence = Evidence { certificates: vec![vec![1, 2, 3], vec![4]] };
        assert_eq!(evidence.to_json(), br#"{"certificates":["AQID","BA=="]}"#);
        let challenge = Challenge { family: Family::Ecdsa, nonce: [3; 32] };
        let text = format!(r#"{{"rsa_signature":null,"ecdsa_signature":{{"nonce":"{NONCE}"}}}}"#);
        assert_eq!(challenge.to_json(), text.as_bytes());
        let response = Response::Rsa { nonce: [3; 32], signature: vec![1, 2, 3] };
        let text = format!(r#"{{"rsa_signature":{{"nonce":"{NONCE}","signature":"AQID"}},"ecdsa_signature":null}}"#);
        assert_eq!(response.to_json(), text.as_bytes());
        let response = Response::Ecdsa { nonce: [3; 32], r: vec![1], s: vec![2] };
        let text = format!(r#"{{"rsa_signature":null,"ecdsa_signature":{{"nonce":"{NONCE}","r":"AQ==","s":"Ag=="}}}}"#);
        assert_eq!(response.to_json(), text.as_bytes());
    }

    #[test]
    fn reads_what_it_writes_and_passes_over_what_it_does_not_know() {
        let evidence = Evidence { certificates: vec![vec![1; 900]; MAX_CERTIFICATES] };
        assert_eq!(Evidence::from_json(&evidence.to_json()), Ok(evidence));
        for family in [Family::Rsa, Family::Ecdsa] {
            let challenge = Challenge { family, nonce: [7; 32] };
            assert_eq!(Challenge::from_json(&challenge.to_json(), family), Ok(challenge));
        }
        for (family, response) in [
            (Family::Rsa, Response::Rsa { nonce: [7; 32], signature: vec![5; MAX_SIGNATURE_BYTES] }),
            (Family::Ecdsa, Response::Ecdsa { nonce: [7; 32], r: vec![5; MAX_SCALAR_BYTES], s: vec![6] }),
        ] {
            assert_eq!(Response::from_json(&response.to_json(), family), Ok(response));
        }
        assert!(Evidence::from_json(br#"{"certificates":["AQID"],"later":{}}"#).is_ok());
    }

    #[test]
    fn refuses_no_certificate_and_too_many() {
        let with = |count| Evidence { certificates: vec![vec![1]; count] }.to_json();
        assert_eq!(Evidence::from_json(&with(0)), Err(X509PopRefusal::NoCertificate));
        let (sent, most) = (MAX_CERTIFICATES + 1, MAX_CERTIFICATES);
        assert_eq!(Evidence::from_json(&with(sent)), Err(X509PopRefusal::TooManyCertificates { sent, most }));
        assert!(Evidence::from_json(&with(most)).is_ok());
    }

    #[test]
    fn refuses_what_is_of_the_other_kind_by_its_name_and_what_is_over_its_caps() {
        let ecdsa = Response::Ecdsa { nonce: [7; 32], r: vec![5], s: vec![6] }.to_json();
        assert_eq!(Response::from_json(&ecdsa, Family::Rsa), Err(X509PopRefusal::OtherFamily));
        let challenge = Challenge { family: Family::Rsa, nonce: [7; 32] }.to_json();
        assert_eq!(Challenge::from_json(&challenge, Family::Ecdsa), Err(X509PopRefusal::OtherChallenge));
        let long = Response::Ecdsa { nonce: [7; 32], r: vec![5; MAX_SCALAR_BYTES + 1], s: vec![6] }.to_json();
        let refused = Response::from_json(&long, Family::Ecdsa);
        assert!(matches!(refused, Err(X509PopRefusal::Message(Refusal::MessageFormat(_)))), "{refused:?}");
        let refused = Evidence::from_json(b"[1]");
        assert!(matches!(refused, Err(X509PopRefusal::Message(Refusal::MessageFormat(_)))), "{refused:?}");
    }
}
