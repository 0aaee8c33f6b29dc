//! One entry: the register, the digest, and the data that was measured.

use super::{ImaError, MAX_DATA_BYTES, MAX_TEMPLATE_NAME_BYTES};
use crate::node::tpm2::PcrHash;

/// What kernels before 3.13 had alone; its data has another form.
const OLD_TEMPLATE: &str = "ima";
/// Length of the digest in the list: SHA-1, whatever the banks of the chip are.
const LISTED_BYTES: usize = 20;

/// An entry as the list has it. Integers are little-endian, as they are on every machine that we know with a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the list, from 1.
    pub place: u64,
    /// The register that it was extended into.
    pub pcr: u32,
    digest: &'a [u8],
    /// The template's name, or its fields if they were given by name.
    pub template: &'a str,
    /// The template's fields, each behind its length.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The first entry of `bytes`, which is at `place` in the list, and what follows it. It is bounded, and has the digest of its data.
    pub fn read(bytes: &'a [u8], place: u64) -> Result<(Self, &'a [u8]), ImaError> {
        let cut = ImaError::Truncated { entry: place };
        let (pcr, rest) = u32_of(bytes).ok_or(cut.clone())?;
        let (digest, rest) = rest.split_at_checked(LISTED_BYTES).ok_or(cut.clone())?;
        let (name_bytes, rest) = length_of(rest).ok_or(cut.clone())?;
        let name_refused = ImaError::TemplateName { entry: place, bytes: name_bytes };
        if !(1..=MAX_TEMPLATE_NAME_BYTES).contains(&name_bytes) {
            return Err(name_refused);
        }
        let (name, rest) = rest.split_at_checked(name_bytes).ok_or(cut.clone())?;
        let name = std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|b| b.is_ascii_graphic()));
        let template = name.ok_or(name_refused)?;
        if template == OLD_TEMPLATE {
            return Err(ImaError::OldTemplate { entry: place });
        }
        let (bytes, rest) = length_of(rest).ok_or(cut.clone())?;
        if bytes > MAX_DATA_BYTES {
            return Err(ImaError::EntryTooLong { entry: place, bytes });
        }
        let (data, rest) = rest.split_at_checked(bytes).ok_or(cut)?;
        let entry = Self { place, pcr, digest, template, data };
        //= TPM-47 Linux, ima_template.c: "an entry's digest is that of its data"
        if !entry.is_violation() && entry.digest != PcrHash::Sha1.digest(&[data]).as_ref() {
            return Err(ImaError::OtherDigest { entry: place });
        }
        Ok((entry, rest))
    }

    /// Whether the kernel could not tell what was used: a file was open for writing while it was measured, or the other way round.
    /// What the data says then is measured by nobody.
    pub fn is_violation(&self) -> bool {
        self.digest.iter().all(|byte| *byte == 0)
    }

    /// What was extended into the register of that bank (`ima_pcr_extend`, since Linux 5.8).
    pub fn extended(&self, bank: PcrHash) -> Vec<u8> {
        if self.is_violation() { vec![0xff; bank.bytes()] } else { bank.digest(&[self.data]).as_ref().to_vec() }
    }
}

/// A little-endian integer and what follows it.
pub(super) fn u32_of(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk::<4>().map(|(number, rest)| (u32::from_le_bytes(*number), rest))
}

/// The same as a length.
pub(super) fn length_of(bytes: &[u8]) -> Option<(usize, &[u8])> {
    u32_of(bytes).map(|(length, rest)| (length as usize, rest))
}
