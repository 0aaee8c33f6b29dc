//! What a list begins with: the digest of the registers that say what was booted.

use ironroot_text::hex::hex;

use super::BOOTED;
use crate::node::tpm2::PcrHash;

/// The registers that were quoted beside PCR 10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    bank: PcrHash,
    /// PCRs 0 to 9, in order.
    registers: Vec<Vec<u8>>,
}

impl Aggregate {
    /// Of the registers quoted from `bank`, index and value; none unless all of PCRs 0 to 9 are among them.
    pub fn of(bank: PcrHash, quoted: &[(u8, Vec<u8>)]) -> Option<Self> {
        let value = |pcr| quoted.iter().find(|(index, _)| *index == pcr).map(|(_, value)| value.clone());
        Some(Self { bank, registers: BOOTED.map(value).collect::<Option<_>>()? })
    }

    /// What an entry `boot_aggregate` has as its digest if the kernel took it of these registers: `sha256:0a…`.
    /// Of SHA-1 are PCRs 0 to 7, of any other hash 0 to 9 (`ima_calc_boot_aggregate_tfm`).
    pub fn digest(&self) -> String {
        let count = if self.bank == PcrHash::Sha1 { 8 } else { self.registers.len() };
        let parts: Vec<&[u8]> = self.registers.iter().take(count).map(Vec::as_slice).collect();
        format!("{}:{}", self.bank, hex(self.bank.digest(&parts).as_ref()))
    }
}
