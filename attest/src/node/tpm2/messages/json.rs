//! The messages as serde sees them, and the caps of their fields.

use serde::{Deserialize, Serialize};

use crate::event_log::MAX_LOG_BYTES;
use crate::node::Refusal;
use crate::node::base64_bytes::{Base64, Base64Digest};
use crate::node::tpm2::{PcrHash, PcrSelection};

/// Version of this message format.
pub(super) const VERSION: u32 = 1;
/// Most certificates accepted, the endorsement key's own included.
pub(super) const MAX_CERTIFICATES: usize = 8;
/// Longest certificate accepted, bytes of DER.
pub(super) const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Longest TPMT_PUBLIC accepted, bytes. RSA-4096 with a SHA-512 policy takes 602.
pub(super) const MAX_PUBLIC_BYTES: usize = 1024;
/// Longest TPMS_ATTEST accepted, bytes. Two SHA-512 Names and a 66-byte nonce take under 400.
pub(super) const MAX_ATTEST_BYTES: usize = 1024;
/// Longest TPMT_SIGNATURE accepted, bytes. RSA-4096 takes 518.
pub(super) const MAX_SIGNATURE_BYTES: usize = 1024;
/// Longest TPMS_ID_OBJECT or encrypted secret accepted, bytes. An RSA-4096 seed takes 512.
pub(super) const MAX_CREDENTIAL_BYTES: usize = 1024;
/// Longest activation secret accepted, bytes: one digest.
pub(super) const MAX_SECRET_BYTES: usize = 64;
/// Longest boot id accepted, bytes. The kernel's is a UUID of 36.
pub(super) const MAX_BOOT_ID_BYTES: usize = 64;
/// PCRs in one bank.
pub(super) const MAX_PCR_VALUES: usize = 24;

/// Longest PCR value accepted, bytes: SHA-512's.
pub(super) const MAX_PCR_BYTES: usize = 64;
/// Most PCR banks in an offer: those that there are.
pub(super) const MAX_PCR_BANKS: usize = PcrHash::ALL.len();

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvidenceJson {
    pub version: u32,
    pub ek_certificates: Vec<Base64<MAX_CERTIFICATE_BYTES>>,
    pub ek_public: Base64<MAX_PUBLIC_BYTES>,
    pub ak_public: Base64<MAX_PUBLIC_BYTES>,
    pub boot_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr_banks: Option<Vec<PcrHash>>,
    #[serde(default, skip_serializing_if = "is_not")]
    pub event_log: bool,
    #[serde(default, skip_serializing_if = "is_not")]
    pub ima_log: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChallengeJson {
    pub version: u32,
    pub credential: Base64<MAX_CREDENTIAL_BYTES>,
    pub secret: Base64<MAX_CREDENTIAL_BYTES>,
    pub nonce: Base64Digest,
    pub pcrs: PcrSelection,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pcr_bank: PcrHash,
    #[serde(default, skip_serializing_if = "is_not")]
    pub event_log: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseJson {
    pub version: u32,
    pub secret: Base64<MAX_SECRET_BYTES>,
    pub quote: Base64<MAX_ATTEST_BYTES>,
    pub quote_signature: Base64<MAX_SIGNATURE_BYTES>,
    pub pcr_values: Vec<(u8, Base64<MAX_PCR_BYTES>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CertifiedKeyJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_log: Option<Base64<MAX_LOG_BYTES>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertifiedKeyJson {
    pub public: Base64<MAX_PUBLIC_BYTES>,
    pub attest: Base64<MAX_ATTEST_BYTES>,
    pub signature: Base64<MAX_SIGNATURE_BYTES>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImaRequestJson {
    pub version: u32,
    pub ima_from: u64,
}

/// What an older peer does not know is not sent to it.
fn is_default(bank: &PcrHash) -> bool {
    *bank == PcrHash::default()
}

/// The same of what is not so.
fn is_not(flag: &bool) -> bool {
    !flag
}

pub(super) fn check_version(version: u32) -> Result<(), Refusal> {
    if version == VERSION { Ok(()) } else { Err(Refusal::MessageVersion(version)) }
}

pub(super) fn check_count(what: &str, count: usize, limit: usize) -> Result<(), Refusal> {
    if count <= limit {
        Ok(())
    } else {
        Err(Refusal::MessageFormat(format!("{count} {what}, at most {limit} are accepted")))
    }
}
