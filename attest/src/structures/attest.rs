//! TPMS_ATTEST (Part 2 §10.12.12): what a TPM says of itself when it quotes or certifies.

use super::pcr::{PcrBank, PcrBanks, read_pcr_banks};
use super::wire::{Reader, StructureError};
use super::{Hash, Name};

/// TPM_GENERATED: begins whatever the TPM itself made, and nothing that a restricted key signs otherwise.
const TPM_GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_CERTIFY: u16 = 0x8017;
const ST_ATTEST_QUOTE: u16 = 0x8018;
const ST_ATTEST_CREATION: u16 = 0x801a;
/// Longest TPM2B_DATA, bytes: TPMT_HA of SHA-512.
const MAX_DATA_BYTES: usize = 2 + Hash::MAX_BYTES;

/// An attestation structure. It says nothing until its signature is verified over the bytes received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    qualified_signer: Name,
    extra_data: heapless::Vec<u8, MAX_DATA_BYTES>,
    clock: ClockInfo,
    firmware_version: u64,
    attested: Attested,
}

/// The part of a TPMS_ATTEST that differs by its kind. Source: TPM 2.0 Part 2, TPMU_ATTEST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attested {
    /// TPMS_CERTIFY_INFO: an object with this name is loaded.
    Certify {
        /// Name of the object.
        name: Name,
    },
    /// TPMS_QUOTE_INFO: PCR contents.
    Quote(Quote),
    /// TPMS_CREATION_INFO: the TPM made an object with this name.
    Creation {
        /// Name of the object.
        name: Name,
        /// Digest of its TPMS_CREATION_DATA, with the object's nameAlg.
        hash: heapless::Vec<u8, { Hash::MAX_BYTES }>,
    },
}

/// Selected PCRs and the digest over their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    banks: PcrBanks,
    digest: heapless::Vec<u8, { Hash::MAX_BYTES }>,
}

/// TPMS_CLOCK_INFO (Part 2 §10.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds powered.
    pub clock: u64,
    /// TPM resets since the last clear.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether no greater clock may have been reported before.
    pub safe: bool,
}

impl Attest {
    /// Parses one whole TPMS_ATTEST of TPM2_Quote, TPM2_Certify or TPM2_CertifyCreation.
    pub fn parse(bytes: &[u8]) -> Result<Self, StructureError> {
        Reader::whole(bytes, |reader| {
            let magic = reader.u32()?;
            //= TPM-41 TPM 2.0 Part 2, TPMS_ATTEST: "structure was created by a TPM (always TPM_GENERATED_VALUE)"
            if magic != TPM_GENERATED {
                return Err(StructureError::Magic(magic));
            }
            let kind = Attested::known_kind(reader.u16()?)?;
            Ok(Self {
                qualified_signer: Name::read(reader)?,
                extra_data: reader.bounded()?,
                clock: ClockInfo::read(reader)?,
                firmware_version: reader.u64()?,
                attested: Attested::read(kind, reader)?,
            })
        })
    }

    /// Qualified name of the signing key.
    pub fn qualified_signer(&self) -> &Name {
        &self.qualified_signer
    }

    /// qualifyingData of the caller.
    pub fn extra_data(&self) -> &[u8] {
        &self.extra_data
    }

    /// Clock and counters; plain only when the signer is in the endorsement (or platform) hierarchy.
    pub fn clock(&self) -> ClockInfo {
        self.clock
    }

    /// Vendor's firmware version; plain under the same condition.
    pub fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// What the TPM says of an object or of PCRs.
    pub fn attested(&self) -> &Attested {
        &self.attested
    }
}

impl Attested {
    /// Before anything else of a structure of another kind is read.
    fn known_kind(kind: u16) -> Result<u16, StructureError> {
        match kind {
            ST_ATTEST_CERTIFY | ST_ATTEST_QUOTE | ST_ATTEST_CREATION => Ok(kind),
            other => Err(StructureError::AttestationType(other)),
        }
    }

    fn read(kind: u16, reader: &mut Reader<'_>) -> Result<Self, StructureError> {
        match kind {
            ST_ATTEST_QUOTE => Ok(Self::Quote(Quote::read(reader)?)),
            ST_ATTEST_CREATION => Ok(Self::Creation { name: Name::read(reader)?, hash: reader.bounded()? }),
            _ => read_certify(reader),
        }
    }
}

impl Quote {
    /// Which PCRs of which banks, as the TPM took them.
    pub fn banks(&self) -> &[PcrBank] {
        &self.banks
    }

    /// Digest over the selected PCRs' values, with the hash of the signing scheme.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StructureError> {
        Ok(Self { banks: read_pcr_banks(reader)?, digest: reader.bounded()? })
    }
}

impl ClockInfo {
    fn read(reader: &mut Reader<'_>) -> Result<Self, StructureError> {
        let (clock, reset_count, restart_count) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let safe = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(StructureError::YesNo(other)),
        };
        Ok(Self { clock, reset_count, restart_count, safe })
    }
}

fn read_certify(reader: &mut Reader<'_>) -> Result<Attested, StructureError> {
    let name = Name::read(reader)?;
    let _qualified_name = Name::read(reader)?;
    Ok(Attested::Certify { name })
}
