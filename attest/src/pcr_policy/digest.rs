//! Policy digests, computed as a TPM does it. All are of SHA-256, whatever the bank of the registers.

use std::collections::BTreeMap;

use super::Epoch;
use crate::node::tpm2::{PcrHash, PcrSelection};
use crate::structures::{Hash, Name};

/// policyDigest of a session with SHA-256 (Part 1 §19.6).
pub type PolicyDigest = [u8; 32];

/// TPM_CC_PolicyAuthorize, Part 2 §6.5.2.
const POLICY_AUTHORIZE: [u8; 4] = 0x0000_016a_u32.to_be_bytes();
/// TPM_CC_PolicyOR.
const POLICY_OR: [u8; 4] = 0x0000_0171_u32.to_be_bytes();
/// TPM_CC_PolicyPCR.
const POLICY_PCR: [u8; 4] = 0x0000_017f_u32.to_be_bytes();
/// Where each policy begins.
const EMPTY: PolicyDigest = [0; 32];

/// "These registers of `bank` have these values": TPM2_PolicyPCR alone (Part 3 §23.7).
///
/// `values`: by index, 0 to 15, each as long as the bank's hash.
pub fn pcr_policy(bank: PcrHash, values: &BTreeMap<u8, Vec<u8>>) -> PolicyDigest {
    let all: Vec<&[u8]> = values.values().map(Vec::as_slice).collect();
    let mask = PcrSelection::from_indices(values.keys().copied()).unwrap_or_default().mask().to_le_bytes();
    // TPML_PCR_SELECTION: one, three octets as the PC Client profile says.
    let selection = [&1_u32.to_be_bytes()[..], &bank.id().to_be_bytes(), &[3], &mask[..3]].concat();
    sha256(&[&EMPTY, &POLICY_PCR, &selection, &sha256(&all)])
}

/// "Whoever has this key has approved, for `epoch`, what was asked so far": TPM2_PolicyAuthorize.
pub(super) fn authorized(key: &Name, epoch: Epoch) -> PolicyDigest {
    let by_key = sha256(&[&EMPTY, &POLICY_AUTHORIZE, key.as_bytes()]);
    sha256(&[&by_key, &epoch.policy_ref()])
}

/// "One of these": TPM2_PolicyOR.
pub(super) fn any_of(branches: &[PolicyDigest]) -> PolicyDigest {
    let parts: Vec<&[u8]> = [&EMPTY[..], &POLICY_OR].into_iter().chain(branches.iter().map(|b| b.as_slice())).collect();
    sha256(&parts)
}

/// SHA-256 of `parts`, one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Hash::Sha256.digest(parts).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}
