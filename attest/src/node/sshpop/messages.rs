//! The three messages, as JSON with standard base64 as Go writes it. Every size is capped before anything is decoded; fields that we do
//! not know are passed over, as SPIRE does.

use serde::{Deserialize, Serialize};

use super::refusal::SshPopRefusal;
use super::signature::{self, SshSignature};
use super::{MAX_CERTIFICATE_BYTES, NONCE_BYTES};
use crate::node::base64_bytes::{Base64, Base64Digest};
use crate::node::json::{decode, encode};

/// The device's first message: its certificate, as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The certificate.
    pub certificate: Vec<u8>,
}

/// The server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Fresh from the server.
    pub nonce: [u8; NONCE_BYTES],
}

/// The device's second message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Fresh from the device.
    pub nonce: [u8; NONCE_BYTES],
    /// Over [`challenged_bytes`](super::challenged_bytes).
    pub signature: SshSignature,
}

#[derive(Serialize, Deserialize)]
struct EvidenceJson {
    #[serde(rename = "Certificate")]
    certificate: Base64<MAX_CERTIFICATE_BYTES>,
}

#[derive(Serialize, Deserialize)]
struct ChallengeJson {
    #[serde(rename = "Nonce")]
    nonce: Base64Digest,
}

#[derive(Serialize, Deserialize)]
struct ResponseJson {
    #[serde(rename = "Nonce")]
    nonce: Base64Digest,
    #[serde(rename = "Signature")]
    signature: SignatureJson,
}

/// Go's `ssh.Signature`.
#[derive(Serialize, Deserialize)]
struct SignatureJson {
    #[serde(rename = "Format")]
    format: String,
    #[serde(rename = "Blob")]
    blob: Base64<{ signature::MAX_BYTES }>,
    /// Of security keys alone, which are not taken.
    #[serde(rename = "Rest", default, skip_deserializing)]
    rest: Option<()>,
}

impl Evidence {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&EvidenceJson { certificate: Base64(self.certificate.clone()) })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, SshPopRefusal> {
        let message: EvidenceJson = decode(json)?;
        Ok(Self { certificate: message.certificate.0 })
    }
}

impl Challenge {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ChallengeJson { nonce: Base64Digest(self.nonce) })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, SshPopRefusal> {
        let message: ChallengeJson = decode(json)?;
        Ok(Self { nonce: message.nonce.0 })
    }
}

impl Response {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let SshSignature { format, blob } = self.signature.clone();
        let signature = SignatureJson { format, blob: Base64(blob), rest: None };
        encode(&ResponseJson { nonce: Base64Digest(self.nonce), signature })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, SshPopRefusal> {
        let message: ResponseJson = decode(json)?;
        let SignatureJson { format, blob, .. } = message.signature;
        Ok(Self { nonce: message.nonce.0, signature: SshSignature { format, blob: blob.0 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

    /// Written as Go's encoding/json writes SPIRE's structures.
    #[test]
    fn the_messages_are_spires_byte_for_byte() {
        let evidence = Evidence { certificate: vec![1, 2, 3] };
        assert_eq!(evidence.to_json(), br#"{"Certificate":"AQID"}"#);
        assert_eq!(Evidence::from_json(&evidence.to_json()), Ok(evidence));
        let challenge = Challenge { nonce: [3; 32] };
        assert_eq!(challenge.to_json(), format!(r#"{{"Nonce":"{NONCE}"}}"#).as_bytes());
        assert_eq!(Challenge::from_json(&challenge.to_json()), Ok(challenge));
        let signature = SshSignature { format: "ssh-ed25519".to_owned(), blob: vec![1, 2, 3] };
        let response = Response { nonce: [3; 32], signature };
        let text = format!(r#"{{"Nonce":"{NONCE}","Signature":{{"Format":"ssh-ed25519","Blob":"AQID","Rest":null}}}}"#);
        assert_eq!(response.to_json(), text.as_bytes());
        assert_eq!(Response::from_json(text.as_bytes()), Ok(response.clone()));
        assert_eq!(Response::from_json(text.replace(",\"Rest\":null", "").as_bytes()), Ok(response));
    }

    #[test]
    fn what_is_over_a_cap_is_refused_before_it_is_decoded() {
        let long = Evidence { certificate: vec![1; MAX_CERTIFICATE_BYTES + 1] }.to_json();
        assert!(matches!(Evidence::from_json(&long), Err(SshPopRefusal::Message(_))));
        let signature = SshSignature { format: "rsa-sha2-256".to_owned(), blob: vec![1; signature::MAX_BYTES + 1] };
        let long = Response { nonce: [1; 32], signature }.to_json();
        assert!(matches!(Response::from_json(&long), Err(SshPopRefusal::Message(_))));
    }
}
