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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(banks: u8, each: &[u8]) -> Result<Vec<u32>, StructureError> {
        let octets = u8::try_from(each.len()).expect("few");
        let bank = [&[0x00, 0x0b, octets], each].concat();
        let list = [vec![0, 0, 0, banks], bank.repeat(banks.into())].concat();
        Reader::whole(&list, read_pcr_banks).map(|banks| banks.iter().map(|bank| bank.mask).collect())
    }

    #[test]
    fn a_selection_names_at_most_32_pcrs_the_first_octet_the_lowest() {
        for (octets, mask) in [(&[][..], 0), (&[1], 1), (&[0, 0x80, 1], 0x01_8000), (&[1, 2, 3, 4], 0x0403_0201)] {
            assert_eq!(read(1, octets), Ok(vec![mask]));
        }
        assert_eq!(read(1, &[0; 5]), Err(StructureError::PcrSelection));
    }

    #[test]
    fn a_selection_is_of_no_more_banks_than_a_tpm_has() {
        assert_eq!(read(16, &[1, 0, 0]), Ok(vec![1; 16]));
        assert_eq!(read(17, &[1, 0, 0]), Err(StructureError::PcrSelection));
    }
}
