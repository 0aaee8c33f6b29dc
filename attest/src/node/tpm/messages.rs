//! The three messages, as JSON with the names and the base64 that Go gives the plugin's structures. Every size is capped before
//! anything is decoded; fields that we do not know are passed over, as the plugin does.

use serde::{Deserialize, Serialize};

use crate::node::Refusal;
use crate::node::base64_bytes::Base64;
use crate::node::json::{CredentialJson, decode, encode};

/// Longest endorsement key accepted, bytes of PEM: a certificate and a key.
const MAX_PEM_BYTES: usize = 24 * 1024;
/// Longest TPM structure accepted, bytes: the public area of an RSA key of 4096 bits has 600.
const MAX_STRUCTURE_BYTES: usize = 1024;
/// Longest secret accepted, bytes.
const MAX_SECRET_BYTES: usize = 64;

/// The device's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// PEM: a PUBLIC KEY, and a CERTIFICATE if the chip holds one, in any order.
    pub ek_pem: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak_public: Vec<u8>,
    /// Whether the credential is to be made as for a TPM 1.2.
    pub as_tpm12: bool,
    /// TPMS_CREATION_DATA.
    pub creation_data: Vec<u8>,
    /// TPMS_ATTEST of TPM2_CertifyCreation, by the attestation key about itself.
    pub creation: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub creation_signature: Vec<u8>,
}

/// The server's answer, each part with its two bytes of size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// TPM2B_ID_OBJECT.
    pub credential: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET.
    pub secret: Vec<u8>,
}

/// The device's second message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What the credential held.
    pub secret: Vec<u8>,
}

/// What Go leaves out is null.
type Maybe<const MAX: usize> = Option<Base64<MAX>>;

#[derive(Serialize, Deserialize)]
struct EvidenceJson {
    #[serde(rename = "EK")]
    ek: Maybe<MAX_PEM_BYTES>,
    #[serde(rename = "AK")]
    ak: Option<AkJson>,
}

#[derive(Serialize, Deserialize)]
struct AkJson {
    #[serde(rename = "Public")]
    public: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "UseTCSDActivationFormat", default)]
    as_tpm12: bool,
    #[serde(rename = "CreateData")]
    creation_data: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "CreateAttestation")]
    creation: Maybe<MAX_STRUCTURE_BYTES>,
    #[serde(rename = "CreateSignature")]
    creation_signature: Maybe<MAX_STRUCTURE_BYTES>,
}

#[derive(Serialize, Deserialize)]
struct ChallengeJson {
    #[serde(rename = "EC")]
    credential: CredentialJson<MAX_STRUCTURE_BYTES>,
}

#[derive(Serialize, Deserialize)]
struct ResponseJson {
    #[serde(rename = "Secret")]
    secret: Maybe<MAX_SECRET_BYTES>,
}

impl Evidence {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let some = |bytes: &Vec<u8>| Some(Base64(bytes.clone()));
        let ak = AkJson {
            public: Some(Base64(self.ak_public.clone())),
            as_tpm12: self.as_tpm12,
            creation_data: Some(Base64(self.creation_data.clone())),
            creation: Some(Base64(self.creation.clone())),
            creation_signature: Some(Base64(self.creation_signature.clone())),
        };
        encode(&EvidenceJson { ek: some(&self.ek_pem), ak: Some(ak) })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: EvidenceJson = decode(json)?;
        let ak = message.ak.ok_or_else(|| Refusal::MessageFormat("there is no AK".to_owned()))?;
        Ok(Self {
            ek_pem: bytes(message.ek),
            ak_public: bytes(ak.public),
            as_tpm12: ak.as_tpm12,
            creation_data: bytes(ak.creation_data),
            creation: bytes(ak.creation),
            creation_signature: bytes(ak.creation_signature),
        })
    }
}

impl Challenge {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ChallengeJson { credential: CredentialJson::of(&self.credential, &self.secret) })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let ChallengeJson { credential } = decode(json)?;
        Ok(Self { credential: credential.credential.0, secret: credential.secret.0 })
    }
}

impl Response {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ResponseJson { secret: Some(Base64::<MAX_SECRET_BYTES>(self.secret.clone())) })
    }

    /// Parses the message.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: ResponseJson = decode(json)?;
        Ok(Self { secret: bytes(message.secret) })
    }
}

/// Of nothing nothing is left: what it should have been is refused where it is looked at.
fn bytes<const MAX: usize>(field: Maybe<MAX>) -> Vec<u8> {
    field.map(|bytes| bytes.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            ek_pem: vec![1, 2, 3],
            ak_public: vec![4],
            as_tpm12: false,
            creation_data: vec![5],
            creation: vec![6],
            creation_signature: vec![7],
        }
    }

    /// Written as Go's encoding/json writes the plugin's structures.
    #[test]
    fn the_messages_are_the_plugins_byte_for_byte() {
        let text = concat!(
            r#"{"EK":"AQID","AK":{"Public":"BA==","UseTCSDActivationFormat":false,"CreateData":"BQ==","#,
            r#""CreateAttestation":"Bg==","CreateSignature":"Bw=="}}"#
        );
        assert_eq!(evidence().to_json(), text.as_bytes());
        let challenge = Challenge { credential: vec![1], secret: vec![2] };
        assert_eq!(challenge.to_json(), br#"{"EC":{"Credential":"AQ==","Secret":"Ag=="}}"#);
        assert_eq!(Response { secret: vec![1] }.to_json(), br#"{"Secret":"AQ=="}"#);
    }

    #[test]
    fn reads_what_it_writes_and_refuses_what_is_over_a_cap() {
        assert_eq!(Evidence::from_json(&evidence().to_json()), Ok(evidence()));
        let challenge = Challenge { credential: vec![1], secret: vec![2] };
        assert_eq!(Challenge::from_json(&challenge.to_json()), Ok(challenge));
        assert_eq!(Response::from_json(br#"{"Secret":null,"later":1}"#), Ok(Response { secret: Vec::new() }));
        let long = Evidence { creation: vec![1; MAX_STRUCTURE_BYTES + 1], ..evidence() }.to_json();
        assert!(matches!(Evidence::from_json(&long), Err(Refusal::MessageFormat(_))));
        assert!(matches!(Evidence::from_json(br#"{"EK":"AQID","AK":null}"#), Err(Refusal::MessageFormat(_))));
    }
}
