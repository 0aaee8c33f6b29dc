//! Platform configuration registers.

use aws_lc_rs::digest::{Context, SHA256};
use tss_esapi::constants::CapabilityType;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{CapabilityData, PcrSelectionList, PcrSlot};

use super::chip::Chip;
use super::connection::{Connection, NO_SESSION};
use super::error::TpmError;
use crate::node::tpm2::{PcrHash, PcrSelection, list_banks};

/// PCR index and value, ascending. A value is as long as its bank's hash.
pub type PcrValues = Vec<(u8, Vec<u8>)>;

/// Rounds of TPM2_PCR_Read at most. A TPM gives up to eight values per round; one that gives none has not the bank.
const MAX_ROUNDS: usize = 16;

impl Chip {
    /// The values of `pcrs`, ascending by index.
    pub fn pcr_values(&mut self, bank: PcrHash, pcrs: PcrSelection) -> Result<PcrValues, TpmError> {
        self.task(|tpm| tpm.read_pcrs(bank, pcrs))
    }

    /// The banks in which PCRs 0 to 15 are active, in the order of [`PcrHash::ALL`]. A bank that we do not know is left out.
    pub fn active_banks(&mut self) -> Result<Vec<PcrHash>, TpmError> {
        self.task(Connection::active_banks)
    }
}

impl Connection {
    /// As [`Chip::active_banks`].
    pub fn active_banks(&mut self) -> Result<Vec<PcrHash>, TpmError> {
        let (data, _) = self
            .command("TPM2_GetCapability", NO_SESSION, |esys| esys.get_capability(CapabilityType::AssignedPcr, 0, 1))?;
        let CapabilityData::AssignedPcr(assigned) = data else {
            return Err(TpmError::Malformed { command: "TPM2_GetCapability", reason: "not a list of PCR banks" });
        };
        let is_active = |hash: &PcrHash| (0..=15).all(|index| selected(*hash, &assigned).contains(&index));
        Ok(PcrHash::ALL.into_iter().filter(is_active).collect())
    }

    /// The values of `pcrs`. Read in several commands: they may be of different moments.
    pub fn read_pcrs(&mut self, bank: PcrHash, pcrs: PcrSelection) -> Result<PcrValues, TpmError> {
        let mut values = PcrValues::with_capacity(pcrs.len());
        let mut missing = pcrs;
        for _ in 0..MAX_ROUNDS {
            if missing.is_empty() {
                values.sort_unstable_by_key(|(index, _)| *index);
                return Ok(values);
            }
            let wanted = selection_list(bank, missing)?;
            let (_, read, digests) = self.command("TPM2_PCR_Read", NO_SESSION, |esys| esys.pcr_read(wanted.clone()))?;
            let indices = selected(bank, &read);
            if indices.is_empty() || indices.len() != digests.len() || !indices.iter().all(|i| missing.contains(*i)) {
                break;
            }
            for (index, digest) in indices.iter().zip(digests.value()) {
                if digest.value().len() != bank.bytes() {
                    return Err(self.bank_missing(bank, pcrs));
                }
                values.push((*index, digest.value().to_vec()));
            }
            missing = without(missing, &indices);
        }
        Err(self.bank_missing(bank, pcrs))
    }

    /// The error that says which banks there are.
    pub fn bank_missing(&mut self, bank: PcrHash, pcrs: PcrSelection) -> TpmError {
        let active = self.active_banks().unwrap_or_default();
        TpmError::PcrBank { bank, wanted: pcrs.to_string(), active: list_banks(&active) }
    }
}

/// SHA-256 over the values in order: what a quote by our attestation key holds of them, whatever their bank (Part 1 §17.6).
pub fn digest(values: &[(u8, Vec<u8>)]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for (_, value) in values {
        hash.update(value);
    }
    hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// `pcrs` as the library takes it: this bank alone, three octets as the PC Client profile says.
pub fn selection_list(bank: PcrHash, pcrs: PcrSelection) -> Result<PcrSelectionList, TpmError> {
    let bad = |e| TpmError::of("TPML_PCR_SELECTION", e);
    let slots =
        pcrs.indices().map(|index| PcrSlot::try_from(1u32 << index).map_err(bad)).collect::<Result<Vec<_>, _>>()?;
    PcrSelectionList::builder().with_selection(algorithm(bank), &slots).build().map_err(bad)
}

/// The PCRs of `bank` that the TPM says it took, ascending.
pub fn selected(bank: PcrHash, list: &PcrSelectionList) -> Vec<u8> {
    let mut indices: Vec<u8> = list
        .get_selections()
        .iter()
        .filter(|selection| selection.hashing_algorithm() == algorithm(bank))
        .flat_map(|selection| selection.selected())
        .map(|slot| u32::from(slot).trailing_zeros() as u8)
        .collect();
    indices.sort_unstable();
    indices
}

fn algorithm(bank: PcrHash) -> HashingAlgorithm {
    match bank {
        PcrHash::Sha1 => HashingAlgorithm::Sha1,
        PcrHash::Sha256 => HashingAlgorithm::Sha256,
        PcrHash::Sha384 => HashingAlgorithm::Sha384,
        PcrHash::Sha512 => HashingAlgorithm::Sha512,
    }
}

fn without(pcrs: PcrSelection, read: &[u8]) -> PcrSelection {
    PcrSelection::from_indices(pcrs.indices().filter(|index| !read.contains(index)))
        .expect("a part of a legal selection is legal")
}
