//! Platform configuration registers, SHA-256 bank.

use aws_lc_rs::digest::{Context, SHA256};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{PcrSelectionList, PcrSlot};

use super::TpmError;
use super::connection::{Chip, Connection, NO_SESSION};
use crate::node::tpm2::PcrSelection;

/// PCR index and value, ascending.
pub type PcrValues = Vec<(u8, [u8; 32])>;

/// Rounds of TPM2_PCR_Read at most. A TPM gives up to eight values per round; one that gives none has not the bank.
const MAX_ROUNDS: usize = 16;

impl Chip {
    /// The values of `pcrs`, ascending by index.
    pub fn pcr_values(&mut self, pcrs: PcrSelection) -> Result<PcrValues, TpmError> {
        self.task(|tpm| tpm.read_pcrs(pcrs))
    }
}

impl Connection {
    /// The values of `pcrs`. Read in several commands: they may be of different moments.
    pub fn read_pcrs(&mut self, pcrs: PcrSelection) -> Result<PcrValues, TpmError> {
        let mut values = PcrValues::with_capacity(pcrs.len());
        let mut missing = pcrs;
        for _ in 0..MAX_ROUNDS {
            if missing.is_empty() {
                values.sort_unstable_by_key(|(index, _)| *index);
                return Ok(values);
            }
            let wanted = selection_list(missing)?;
            let (_, read, digests) = self.command("TPM2_PCR_Read", NO_SESSION, |esys| esys.pcr_read(wanted.clone()))?;
            let indices = selected(&read);
            if indices.is_empty() || indices.len() != digests.len() || !indices.iter().all(|i| missing.contains(*i)) {
                break;
            }
            for (index, digest) in indices.iter().zip(digests.value()) {
                let value = digest.value().try_into();
                values.push((*index, value.map_err(|_| bank_missing(pcrs))?));
            }
            missing = without(missing, &indices);
        }
        Err(bank_missing(pcrs))
    }
}

/// SHA-256 over the values in order: what a quote holds of them (Part 1 §17.6, PCR digest).
pub fn digest(values: &[(u8, [u8; 32])]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for (_, value) in values {
        hash.update(value);
    }
    hash.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// `pcrs` as the library takes it: the SHA-256 bank alone, three octets as the PC Client profile says.
pub fn selection_list(pcrs: PcrSelection) -> Result<PcrSelectionList, TpmError> {
    let bad = |e| TpmError::of("TPML_PCR_SELECTION", e);
    let slots =
        pcrs.indices().map(|index| PcrSlot::try_from(1u32 << index).map_err(bad)).collect::<Result<Vec<_>, _>>()?;
    PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, &slots).build().map_err(bad)
}

/// The SHA-256 PCRs that the TPM says it took, ascending.
pub fn selected(list: &PcrSelectionList) -> Vec<u8> {
    let mut indices: Vec<u8> = list
        .get_selections()
        .iter()
        .filter(|selection| selection.hashing_algorithm() == HashingAlgorithm::Sha256)
        .flat_map(|selection| selection.selected())
        .map(|slot| u32::from(slot).trailing_zeros() as u8)
        .collect();
    indices.sort_unstable();
    indices
}

pub fn bank_missing(pcrs: PcrSelection) -> TpmError {
    TpmError::PcrBank { wanted: pcrs.to_string() }
}

fn without(pcrs: PcrSelection, read: &[u8]) -> PcrSelection {
    PcrSelection::from_indices(pcrs.indices().filter(|index| !read.contains(index)))
        .expect("a part of a legal selection is legal")
}
