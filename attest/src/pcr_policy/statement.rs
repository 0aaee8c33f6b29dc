//! What an operator signs.

use std::collections::BTreeMap;

use thiserror::Error;

use super::digest::pcr_policy;
use super::form::{MAX_NAME_BYTES, is_name};
use super::{Epoch, PolicyDigest};
use crate::node::tpm2::{PcrHash, PcrSelection};

/// Why values of registers make no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RegisterError {
    #[error("no PCR is named: such a policy would be met by everything")]
    None,
    #[error("{0} is not a PCR index from 0 to 15")]
    Index(u8),
    #[error("PCR {pcr} must be {bytes} bytes")]
    Length { pcr: u8, bytes: usize },
    /// A device whose firmware measures nothing would meet it.
    #[error("all PCRs are zero: nothing was measured into them, so they prove nothing")]
    NothingMeasured,
    #[error("the name must be 1 to {MAX_NAME_BYTES} printable characters")]
    Name,
}

/// "This state may have booted, from this epoch on."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub(super) name: String,
    pub(super) epoch: Epoch,
    pub(super) bank: PcrHash,
    pub(super) pcrs: PcrSelection,
    pub(super) policy: PolicyDigest,
}

impl Statement {
    /// About registers of `bank` with these values, by index. `name` is for people: it is not signed.
    pub fn new(name: &str, epoch: Epoch, bank: PcrHash, values: &BTreeMap<u8, Vec<u8>>) -> Result<Self, RegisterError> {
        if !is_name(name) {
            return Err(RegisterError::Name);
        }
        if values.is_empty() {
            return Err(RegisterError::None);
        }
        for (pcr, value) in values {
            PcrSelection::from_indices([*pcr]).map_err(|_| RegisterError::Index(*pcr))?;
            if value.len() != bank.bytes() {
                return Err(RegisterError::Length { pcr: *pcr, bytes: bank.bytes() });
            }
        }
        if values.values().flatten().all(|byte| *byte == 0) {
            return Err(RegisterError::NothingMeasured);
        }
        let pcrs = PcrSelection::from_indices(values.keys().copied()).map_err(|_| RegisterError::None)?;
        Ok(Self { name: name.to_owned(), epoch, bank, pcrs, policy: pcr_policy(bank, values) })
    }

    /// What is to be signed, with SHA-256: the policy's digest and the epoch, 50 bytes. A TPM hashes the same (Part 3 §23.16:
    /// aHash ≔ H(approvedPolicy || policyRef)).
    pub fn to_be_signed(&self) -> Vec<u8> {
        [&self.policy[..], &self.epoch.policy_ref()].concat()
    }

    /// The policy's digest.
    pub fn policy(&self) -> PolicyDigest {
        self.policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(values: &[(u8, Vec<u8>)]) -> Result<Statement, RegisterError> {
        Statement::new("1.2", Epoch::FIRST, PcrHash::Sha256, &values.iter().cloned().collect())
    }

    #[test]
    fn values_that_are_no_state_are_refused_by_name() {
        assert!(statement(&[(7, vec![1; 32])]).is_ok());
        for (values, refusal) in [
            (vec![], RegisterError::None),
            (vec![(16, vec![1; 32])], RegisterError::Index(16)),
            (vec![(7, vec![1; 20])], RegisterError::Length { pcr: 7, bytes: 32 }),
            (vec![(0, vec![0; 32]), (7, vec![0; 32])], RegisterError::NothingMeasured),
        ] {
            assert_eq!(statement(&values), Err(refusal));
        }
        for name in ["", "a\nb", &"n".repeat(MAX_NAME_BYTES + 1)] {
            let values = [(7, vec![1; 32])].into();
            assert_eq!(Statement::new(name, Epoch::FIRST, PcrHash::Sha256, &values), Err(RegisterError::Name));
        }
    }
}
