//! The three messages, as JSON with the names and the base64 that Go gives SPIRE's structures. Every size is capped before
//! anything is decoded; fields that we do not know are passed over, as SPIRE does.

use serde::{Deserialize, Serialize};

use super::refusal::TpmDevIdRefusal;
use super::{MAX_CERTIFICATES, NONCE_BYTES};
use crate::node::Refusal;
use crate::node::base64_bytes::{Base64, Base64Digest};
use crate::node::json::{CredentialJson, decode, encode};

/// Longest certificate accepted, bytes of DER.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Longest TPM structure accepted, bytes: the public area of an RSA key of 4096 bits has 600.
const MAX_STRUCTURE_BYTES: usize = 1024;
/// Longest secret or signature accepted, bytes: a signature of RSA with 4096 bits has 512.
const MAX_ANSWER_BYTES: usize = 1024;

/// The device's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The DevID certificate, then intermediates in any order, DER.
    pub devid_certificates: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the DevID key.
    pub devid_public: Vec<u8>,
    /// The endorsement key's certificate, DER. SPIRE's server does without no device's.
    pub ek_certificate: Option<Vec<u8>>,
    /// TPMT_PUBLIC of the endorsement key.
    pub ek_public: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak_public: Vec<u8>,
    /// TPMS_ATTEST of TPM2_Certify over the DevID key.
    pub certify: Vec<u8>,
    /// TPMT_SIGNATURE of the attestation key over it.
    pub certify_signature: Vec<u8>,
}

/// The server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// For the DevID key to sign.
    pub nonce: [u8; NONCE_BYTES],
    /// TPMS_ID_OBJECT.
    pub credential: Vec<u8>,
    /// Content of TPM2B_ENCRYPTED_SECRET.
    pub secret: Vec<u8>,
}

/// The device's second message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Over the nonce, with SHA-256: PKCS #1 v1.5, or DER ECDSA-Sig-Value.
    pub signature: Vec<u8>,
    /// What the credential held.
    pub secret: Vec<u8>,
}

/// What Go leaves out is null.
type Maybe<const MAX: usize> = Option<Base64<MAX>>;

#[derive(Serialize, Deserialize)]
struct EvidenceJson {
    #[serde(rename = "DevIDCert")]
    devid_certificates: Option<Vec<Base64<MAX_CERTIFICATE_BYTES>>>,
    #[serde(rename = "DevIDPub")]
    devid_public: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "EKCert")]
    ek_certificate: Maybe<MAX_CERTIFICATE_BYTES>,
    #[serde(rename = "EKPub")]
    ek_public: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "AKPub")]
    ak_public: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "CertifiedDevID")]
    certify: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "CertificationSignature")]
    certify_signature: Maybe<MAX_STRUCTURE_BYTES>,
}

#[derive(Serialize, Deserialize)]
struct ChallengeJson {
    #[serde(rename = "DevID")]
    nonce: Base64Digest,
    #[serde(rename = "CredActivation")]
    credential: CredentialJson<MAX_STRUCTURE_BYTES>,
}

#[derive(Serialize, Deserialize)]
struct ResponseJson {
    #[serde(rename = "DevID")]
    signature: Maybe<MAX_ANSWER_BYTES>,
    #[serde(rename = "CredActivation")]
    secret: Maybe<MAX_ANSWER_BYTES>,
}

impl Evidence {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let some = |bytes: &Vec<u8>| Some(Base64(bytes.clone()));
        encode(&EvidenceJson {
            devid_certificates: Some(self.devid_certificates.iter().cloned().map(Base64).collect()),
            devid_public: some(&self.devid_public),
            ek_certificate: self.ek_certificate.clone().map(Base64),
            ek_public: some(&self.ek_public),
            ak_public: some(&self.ak_public),
            certify: some(&self.certify),
            certify_signature: some(&self.certify_signature),
        })
    }

    /// Parses the message; at least one certificate, and not more than are looked at.
    pub fn from_json(json: &[u8]) -> Result<Self, TpmDevIdRefusal> {
        let message: EvidenceJson = decode(json)?;
        let certificates = message.devid_certificates.unwrap_or_default();
        match certificates.len() {
            0 => return Err(TpmDevIdRefusal::NoCertificate),
            1..=MAX_CERTIFICATES => {}
            many => return Err(TpmDevIdRefusal::TooManyCertificates(many)),
        }
        Ok(Self {
            devid_certificates: certificates.into_iter().map(|certificate| certificate.0).collect(),
            devid_public: bytes(message.devid_public),
            ek_certificate: message.ek_certificate.map(|der| der.0).filter(|der| !der.is_empty()),
            ek_public: bytes(message.ek_public),
            ak_public: bytes(message.ak_public),
            certify: bytes(message.certify),
            certify_signature: bytes(message.certify_signature),
        })
    }
}

impl Challenge {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let credential = CredentialJson::of(&self.credential, &self.secret);
        encode(&ChallengeJson { nonce: Base64Digest(self.nonce), credential })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: ChallengeJson = decode(json)?;
        let CredentialJson { credential, secret } = message.credential;
        Ok(Self { nonce: message.nonce.0, credential: credential.0, secret: secret.0 })
    }
}

impl Response {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let some = |bytes: &Vec<u8>| Some(Base64(bytes.clone()));
        encode(&ResponseJson { signature: some(&self.signature), secret: some(&self.secret) })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: ResponseJson = decode(json)?;
        Ok(Self { signature: bytes(message.signature), secret: bytes(message.secret) })
    }
}

/// Of nothing nothing is left: what it should have been is refused where it is looked at.
fn bytes<const MAX: usize>(field: Maybe<MAX>) -> Vec<u8> {
    field.map(|bytes| bytes.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

    fn evidence() -> Evidence {
        Evidence {
            devid_certificates: vec![vec![1, 2, 3], vec![4]],
            devid_public: vec![5],
            ek_certificate: Some(vec![6]),
            ek_public: vec![7],
            ak_public: vec![8],
            certify: vec![9],
            certify_signature: vec![10],
        }
    }

    /// Written as Go's encoding/json writes SPIRE's structures.
    #[test]
    fn the_messages_are_spires_byte_for_byte() {
        let text = concat!(
            r#"{"DevIDCert":["AQID","BA=="],"DevIDPub":"BQ==","EKCert":"Bg==","EKPub":"Bw==","AKPub":"CA==","#,
            r#""CertifiedDevID":"CQ==","CertificationSignature":"Cg=="}"#
        );
        assert_eq!(evidence().to_json(), text.as_bytes());
        let challenge = Challenge { nonce: [3; 32], credential: vec![1], secret: vec![2] };
        let text = format!(r#"{{"DevID":"{NONCE}","CredActivation":{{"Credential":"AQ==","Secret":"Ag=="}}}}"#);
        assert_eq!(challenge.to_json(), text.as_bytes());
        let response = Response { signature: vec![1], secret: vec![2] };
        assert_eq!(response.to_json(), br#"{"DevID":"AQ==","CredActivation":"Ag=="}"#);
    }

    #[test]
    fn reads_what_it_writes_and_takes_null_for_nothing() {
        assert_eq!(Evidence::from_json(&evidence().to_json()), Ok(evidence()));
        let bare = Evidence::from_json(br#"{"DevIDCert":["AQID"],"EKCert":null,"later":1}"#).expect("parses");
        assert_eq!((bare.ek_certificate, bare.ak_public), (None, Vec::new()));
        let challenge = Challenge { nonce: [3; 32], credential: vec![1], secret: vec![2] };
        assert_eq!(Challenge::from_json(&challenge.to_json()), Ok(challenge));
        let response = Response { signature: vec![5; MAX_ANSWER_BYTES], secret: Vec::new() };
        assert_eq!(Response::from_json(&response.to_json()), Ok(response));
    }

    #[test]
    fn refuses_no_certificate_too_many_and_what_is_over_a_cap() {
        let with = |certificates| Evidence { devid_certificates: certificates, ..evidence() }.to_json();
        assert_eq!(Evidence::from_json(&with(vec![])), Err(TpmDevIdRefusal::NoCertificate));
        assert_eq!(Evidence::from_json(br#"{"DevIDCert":null}"#), Err(TpmDevIdRefusal::NoCertificate));
        assert_eq!(Evidence::from_json(&with(vec![vec![1]; 6])), Err(TpmDevIdRefusal::TooManyCertificates(6)));
        let long = Evidence { certify: vec![1; MAX_STRUCTURE_BYTES + 1], ..evidence() }.to_json();
        let refused = Evidence::from_json(&long);
        assert!(matches!(refused, Err(TpmDevIdRefusal::Tpm(Refusal::MessageFormat(_)))), "{refused:?}");
    }
}
