//! TPML_PCR_SELECTION (Part 2 §10.9.7).

use super::wire::{Reader, StructureError};

/// HASH_COUNT: banks a TPM can have; Part 2 lets implementations choose, none has more.
const MAX_BANKS: usize = 16;
/// Most octets of a selection: PCRs 0 to 31. PC clients have 3.
const MAX_SELECT_BYTES: u8 = 4;

/// The selected PCRs of one bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrBank {
    /// TPM_ALG_ID of the bank; may be one that we do not accept, such as SHA-1.
    pub hash: u16,
    /// Bit n: PCR n.
    pub mask: u32,
}

/// The banks of a selection, in the order received.
pub(super) type PcrBanks = heapless::Vec<PcrBank, MAX_BANKS>;

/// Reads a TPML_PCR_SELECTION.
pub(super) fn read_pcr_banks(reader: &mut Reader<'_>) -> Result<PcrBanks, StructureError> {
    let count = reader.u32()?;
    let mut banks = PcrBanks::new();
    for _ in 0..count {
        banks.push(read_bank(reader)?).map_err(|_| StructureError::PcrSelection)?;
    }
    Ok(banks)
}

fn read_bank(reader: &mut Reader<'_>) -> Result<PcrBank, StructureError> {
    let hash = reader.u16()?;
    let octets = reader.u8()?;
    if octets > MAX_SELECT_BYTES {
        return Err(StructureError::PcrSelection);
    }
    let octets = reader.take(octets.into())?;
    let mask = octets.iter().rev().fold(0, |mask, octet| mask << 8 | u32::from(*octet));
    Ok(PcrBank { hash, mask })
}
