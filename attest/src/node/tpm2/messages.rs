//! The three messages, as JSON with standard base64. Every size is capped before anything is decoded.

mod ima;
mod json;

pub use ima::ImaRequest;

use json::{CertifiedKeyJson, ChallengeJson, EvidenceJson, ResponseJson};
use json::{MAX_BOOT_ID_BYTES, MAX_CERTIFICATES, MAX_PCR_BANKS, MAX_PCR_VALUES, VERSION, check_count, check_version};

use super::{PcrHash, PcrSelection};
use crate::node::Refusal;
use crate::node::base64_bytes::{Base64, Base64Digest};
use crate::node::json::{decode, decode_within, encode};

/// Longest answer to a challenge accepted, bytes of JSON: a boot log of [`MAX_LOG_BYTES`](crate::event_log::MAX_LOG_BYTES) takes
/// 214 KiB of it as base64.
pub const MAX_RESPONSE_BYTES: usize = 240 * 1024;

/// The device's first message: which TPM it claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// DER certificates: the endorsement key's first, then intermediates in any order. Empty if the chip holds none.
    pub ek_certificates: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the endorsement key, as the TPM gave it.
    pub ek_public: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key, as the TPM gave it.
    pub ak_public: Vec<u8>,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`): ASCII letters, digits and dashes. Claimed, not proven.
    pub boot_id: String,
    /// The PCR banks that the chip has active. An agent that says nothing has SHA-256.
    pub pcr_banks: Vec<PcrHash>,
    /// Whether the device has a log of what was booted, and sends it when it is asked to.
    pub event_log: bool,
    /// Whether it has a list of the files that it measured (IMA), and shows it when it is asked to.
    pub ima_log: bool,
}

/// The server's answer: something only this TPM can open, and what to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// TPMS_ID_OBJECT (integrity HMAC and encrypted identity), without the outer size of TPM2B_ID_OBJECT.
    pub credential: Vec<u8>,
    /// Content of TPM2B_ENCRYPTED_SECRET, without its size.
    pub secret: Vec<u8>,
    /// The server's nonce; goes into [`binding`](super::binding).
    pub nonce: [u8; 32],
    /// The PCRs to quote, exactly these.
    pub pcrs: PcrSelection,
    /// The bank that they are quoted from.
    pub pcr_bank: PcrHash,
    /// Whether the log of what was booted is to be sent. Asked only of those who said that they have one.
    pub event_log: bool,
}

/// The device's second message: the proof.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// What TPM2_ActivateCredential gave.
    pub secret: Vec<u8>,
    /// TPMS_ATTEST of TPM2_Quote, byte for byte.
    pub quote: Vec<u8>,
    /// TPMT_SIGNATURE over it, by the attestation key.
    pub quote_signature: Vec<u8>,
    /// Index and value of every quoted PCR, ascending.
    pub pcr_values: Vec<(u8, Vec<u8>)>,
    /// The agent's TLS key, if it lives in this TPM.
    pub key: Option<CertifiedKey>,
    /// The log of what was booted, as the kernel gives it, if it was asked for.
    pub event_log: Option<Vec<u8>>,
}

/// A key and the attestation key's word that it is loaded in the same TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedKey {
    /// TPMT_PUBLIC of the certified key.
    pub public: Vec<u8>,
    /// TPMS_ATTEST of TPM2_Certify, byte for byte.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it, by the attestation key.
    pub signature: Vec<u8>,
}

impl Evidence {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&EvidenceJson {
            version: VERSION,
            ek_certificates: self.ek_certificates.iter().cloned().map(Base64).collect(),
            ek_public: Base64(self.ek_public.clone()),
            ak_public: Base64(self.ak_public.clone()),
            boot_id: self.boot_id.clone(),
            pcr_banks: Some(self.pcr_banks.clone()),
            event_log: self.event_log,
            ima_log: self.ima_log,
        })
    }

    /// Parses the message; refuses unknown fields and anything over its cap.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: EvidenceJson = decode(json)?;
        check_version(message.version)?;
        check_count("EK certificates", message.ek_certificates.len(), MAX_CERTIFICATES)?;
        let pcr_banks = message.pcr_banks.unwrap_or_else(|| vec![PcrHash::Sha256]);
        check_count("PCR banks", pcr_banks.len(), MAX_PCR_BANKS)?;
        let boot_id = message.boot_id;
        if boot_id.len() > MAX_BOOT_ID_BYTES || !boot_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Refusal::MessageFormat("boot_id is not a boot id".into()));
        }
        Ok(Self {
            ek_certificates: message.ek_certificates.into_iter().map(|certificate| certificate.0).collect(),
            ek_public: message.ek_public.0,
            ak_public: message.ak_public.0,
            boot_id,
            pcr_banks,
            event_log: message.event_log,
            ima_log: message.ima_log,
        })
    }
}

impl Challenge {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ChallengeJson {
            version: VERSION,
            credential: Base64(self.credential.clone()),
            secret: Base64(self.secret.clone()),
            nonce: Base64Digest(self.nonce),
            pcrs: self.pcrs,
            pcr_bank: self.pcr_bank,
            event_log: self.event_log,
        })
    }

    /// Parses the message; refuses unknown fields and anything over its cap.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: ChallengeJson = decode(json)?;
        check_version(message.version)?;
        Ok(Self {
            credential: message.credential.0,
            secret: message.secret.0,
            nonce: message.nonce.0,
            pcrs: message.pcrs,
            pcr_bank: message.pcr_bank,
            event_log: message.event_log,
        })
    }
}

impl Response {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ResponseJson {
            version: VERSION,
            secret: Base64(self.secret.clone()),
            quote: Base64(self.quote.clone()),
            quote_signature: Base64(self.quote_signature.clone()),
            pcr_values: self.pcr_values.iter().map(|(index, value)| (*index, Base64(value.clone()))).collect(),
            key: self.key.clone().map(CertifiedKeyJson::from),
            event_log: self.event_log.clone().map(Base64),
        })
    }

    /// Parses the message; refuses unknown fields and anything over its cap.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: ResponseJson = decode_within(json, MAX_RESPONSE_BYTES)?;
        check_version(message.version)?;
        check_count("PCR values", message.pcr_values.len(), MAX_PCR_VALUES)?;
        Ok(Self {
            secret: message.secret.0,
            quote: message.quote.0,
            quote_signature: message.quote_signature.0,
            pcr_values: message.pcr_values.into_iter().map(|(index, value)| (index, value.0)).collect(),
            key: message.key.map(CertifiedKey::from),
            event_log: message.event_log.map(|log| log.0),
        })
    }
}

impl From<CertifiedKey> for CertifiedKeyJson {
    fn from(key: CertifiedKey) -> Self {
        Self { public: Base64(key.public), attest: Base64(key.attest), signature: Base64(key.signature) }
    }
}

impl From<CertifiedKeyJson> for CertifiedKey {
    fn from(key: CertifiedKeyJson) -> Self {
        Self { public: key.public.0, attest: key.attest.0, signature: key.signature.0 }
    }
}

// The activation secret stays out of logs.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("pcr_values", &self.pcr_values).field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::json::{MAX_CERTIFICATE_BYTES, MAX_PUBLIC_BYTES};
    use super::*;
    use crate::event_log::MAX_LOG_BYTES;
    use crate::node::tpm2::MAX_MESSAGE_BYTES;

    fn evidence() -> Evidence {
        Evidence {
            ek_certificates: vec![vec![0x30, 0], vec![1, 2, 3]],
            ek_public: vec![1; 300],
            ak_public: vec![2; 90],
            boot_id: "0c3e2a6c-5d0e-4b0a-9a4c-3f1f0b8f9a10".into(),
            pcr_banks: vec![PcrHash::Sha384, PcrHash::Sha1],
            event_log: true,
            ima_log: true,
        }
    }

    fn response() -> Response {
        Response {
            secret: vec![3; 32],
            quote: vec![4; 150],
            quote_signature: vec![5; 72],
            pcr_values: vec![(0, vec![6; 32]), (7, vec![7; 32])],
            key: Some(CertifiedKey { public: vec![8; 90], attest: vec![9; 170], signature: vec![10; 72] }),
            event_log: Some(vec![11; 5_000]),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Evidence::from_json(&evidence().to_json()), Ok(evidence()));
        assert_eq!(Response::from_json(&response().to_json()), Ok(response()));
        let keyless = Response { key: None, ..response() };
        assert_eq!(Response::from_json(&keyless.to_json()), Ok(keyless));
        let pcrs = "0,7".parse().expect("legal");
        for pcr_bank in PcrHash::ALL {
            for event_log in [false, true] {
                let (credential, secret, nonce) = (vec![1; 70], vec![2; 256], [3; 32]);
                let challenge = Challenge { credential, secret, nonce, pcrs, pcr_bank, event_log };
                assert_eq!(Challenge::from_json(&challenge.to_json()), Ok(challenge));
            }
        }
    }

    #[test]
    fn a_peer_that_knows_no_banks_is_understood_and_understands() {
        let without = |json: Vec<u8>, field: &str| {
            let mut message: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            message.as_object_mut().expect("an object").remove(field);
            message.to_string().into_bytes()
        };
        let old = Evidence::from_json(&without(evidence().to_json(), "pcr_banks")).expect("an older agent's");
        assert_eq!(old.pcr_banks, [PcrHash::Sha256]);
        let pcrs = PcrSelection::NONE;
        let challenge = Challenge {
            credential: vec![1],
            secret: vec![2],
            nonce: [3; 32],
            pcrs,
            pcr_bank: PcrHash::Sha256,
            event_log: false,
        };
        assert!(!String::from_utf8(challenge.to_json()).expect("text").contains("pcr_bank"));
    }

    #[test]
    fn a_peer_that_knows_no_boot_logs_is_understood_and_understands() {
        let text = |json: Vec<u8>| String::from_utf8(json).expect("text");
        let silent = Evidence { event_log: false, ima_log: false, ..evidence() };
        assert!(!text(silent.to_json()).contains("_log"), "an older server reads it");
        assert_eq!(Evidence::from_json(&silent.to_json()), Ok(silent), "an older agent says the same");
        let old = Response { event_log: None, ..response() };
        assert!(!text(old.to_json()).contains("event_log"));
        assert_eq!(Response::from_json(&old.to_json()), Ok(old));
    }

    #[test]
    fn only_an_answer_may_be_as_long_as_a_log_makes_it_and_no_log_is_longer_than_its_cap() {
        let with = |bytes| Response { event_log: Some(vec![0xff; bytes]), ..response() };
        let longest = with(MAX_LOG_BYTES);
        assert!(longest.to_json().len() + 12 * 1024 < MAX_RESPONSE_BYTES, "room for everything else at its longest");
        assert_eq!(Response::from_json(&longest.to_json()), Ok(longest));
        assert!(matches!(Response::from_json(&with(MAX_LOG_BYTES + 1).to_json()), Err(Refusal::MessageFormat(_))));
        let long = vec![b' '; MAX_RESPONSE_BYTES + 1];
        let refusal = Refusal::MessageTooLong { bytes: long.len(), limit: MAX_RESPONSE_BYTES };
        assert_eq!(Response::from_json(&long), Err(refusal));
        assert!(matches!(Evidence::from_json(&long), Err(Refusal::MessageTooLong { limit: MAX_MESSAGE_BYTES, .. })));
    }

    //= TPM-38
    #[test]
    fn refuses_a_message_over_its_cap_before_parsing_it() {
        let longest = Evidence::from_json(&[b'['; MAX_MESSAGE_BYTES]);
        assert!(matches!(longest, Err(Refusal::MessageFormat(_))), "as long as it may be, it is parsed");
        let long = vec![b'['; MAX_MESSAGE_BYTES + 1];
        let refusal = Refusal::MessageTooLong { bytes: long.len(), limit: MAX_MESSAGE_BYTES };
        assert_eq!(Evidence::from_json(&long), Err(refusal));
    }

    #[test]
    fn refuses_fields_over_their_cap_or_unknown() {
        let format = |message: Vec<u8>| match Evidence::from_json(&message) {
            Err(Refusal::MessageFormat(detail)) => detail,
            other => panic!("{other:?}"),
        };
        let long_key = Evidence { ek_public: vec![0; MAX_PUBLIC_BYTES + 1], ..evidence() };
        assert!(format(long_key.to_json()).contains("1024"));
        let long_certificate = Evidence { ek_certificates: vec![vec![0; MAX_CERTIFICATE_BYTES + 1]], ..evidence() };
        assert!(format(long_certificate.to_json()).contains("16384"));
        let many = Evidence { ek_certificates: vec![vec![0]; MAX_CERTIFICATES + 1], ..evidence() };
        assert!(format(many.to_json()).contains("at most 8"));
        let named = |boot_id: String| Evidence { boot_id, ..evidence() };
        let longest = named("a".repeat(MAX_BOOT_ID_BYTES));
        assert_eq!(Evidence::from_json(&longest.to_json()), Ok(longest));
        for boot_id in ["a\nb".to_owned(), "a".repeat(MAX_BOOT_ID_BYTES + 1)] {
            assert!(format(named(boot_id).to_json()).contains("boot_id"));
        }
        let extra = String::from_utf8(evidence().to_json()).expect("utf-8").replacen('{', "{\"x\":1,", 1);
        assert!(format(extra.into_bytes()).contains("unknown field"));
        assert!(format(b"[1]".to_vec()).len() < 200);
        let bomb = [b"{\"boot_id\":".as_slice(), &[b'['; 5000]].concat();
        assert!(format(bomb).len() < 200);
    }

    #[test]
    fn refuses_another_version() {
        let text =
            String::from_utf8(evidence().to_json()).expect("utf-8").replacen("\"version\":1", "\"version\":2", 1);
        assert_eq!(Evidence::from_json(text.as_bytes()), Err(Refusal::MessageVersion(2)));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let printed = format!("{:?}", response());
        assert!(printed.contains("pcr_values") && !printed.contains("3, 3, 3"), "{printed}");
    }
}
