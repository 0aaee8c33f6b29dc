//! One event: which register, which digests, and what the device says it was.

use super::bounds::{MAX_DIGESTS, MAX_EVENT_BYTES, PCRS};
use super::error::EventLogError;
use super::header::Header;
use super::kind;
use super::reader::Reader;
use crate::node::tpm2::PcrHash;

/// One event as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log; the header is 0.
    pub(super) place: usize,
    pub(super) pcr: u32,
    pub(super) kind: u32,
    /// TPM_ALG_ID and digest.
    digests: heapless::Vec<(u16, heapless::Vec<u8, 64>), MAX_DIGESTS>,
    pub(super) data: Vec<u8>,
}

impl Event {
    /// TCG_PCR_EVENT: the header of every log, and each event of an old one.
    pub(super) fn read_legacy(reader: &mut Reader<'_>) -> Result<Self, EventLogError> {
        let (place, pcr, kind) = (reader.event(), reader.u32()?, reader.u32()?);
        let sha1 = heapless::Vec::from_slice(reader.take(PcrHash::Sha1.bytes())?).expect("20 bytes of 64");
        let digests = [(PcrHash::Sha1.id(), sha1)].into_iter().collect();
        Self { place, pcr, kind, digests, data: read_data(reader)? }.with_a_pcr()
    }

    /// TCG_PCR_EVENT2.
    pub(super) fn read(reader: &mut Reader<'_>, header: &Header) -> Result<Self, EventLogError> {
        let (place, pcr, kind, count) = (reader.event(), reader.u32()?, reader.u32()?, reader.u32()?);
        if count == 0 || count as usize > header.algorithms() {
            return Err(EventLogError::DigestCount { event: place, count });
        }
        let mut digests: heapless::Vec<(u16, heapless::Vec<u8, 64>), MAX_DIGESTS> = heapless::Vec::new();
        for _ in 0..count {
            let algorithm = reader.u16()?;
            let unknown = EventLogError::UnknownAlgorithm { event: place, algorithm };
            let bytes = header.digest_bytes(algorithm).ok_or(unknown)?;
            if digests.iter().any(|(known, _)| *known == algorithm) {
                return Err(EventLogError::TwoDigests { event: place, algorithm });
            }
            let digest = heapless::Vec::from_slice(reader.take(bytes)?).expect("the header has no longer digests");
            digests.push((algorithm, digest)).map_err(|_| EventLogError::DigestCount { event: place, count })?;
        }
        Self { place, pcr, kind, digests, data: read_data(reader)? }.with_a_pcr()
    }

    /// Whether it is extended into its register; what is only told has no digest that counts.
    pub(super) fn is_measured(&self) -> bool {
        self.kind != kind::NO_ACTION
    }

    /// Its digest in that bank.
    pub(super) fn digest(&self, bank: PcrHash) -> Option<&[u8]> {
        self.digests.iter().find(|(algorithm, _)| *algorithm == bank.id()).map(|(_, digest)| &digest[..])
    }

    /// Whether the digest is that of the data, so that the data is what was measured.
    pub(super) fn has_its_digest(&self, bank: PcrHash) -> bool {
        self.digest(bank) == Some(bank.digest(&[&self.data]).as_ref())
    }

    fn with_a_pcr(self) -> Result<Self, EventLogError> {
        if self.is_measured() && self.pcr >= PCRS {
            return Err(EventLogError::PcrIndex { event: self.place, pcr: self.pcr });
        }
        Ok(self)
    }
}

fn read_data(reader: &mut Reader<'_>) -> Result<Vec<u8>, EventLogError> {
    let (event, bytes) = (reader.event(), reader.u32()? as usize);
    if bytes > MAX_EVENT_BYTES {
        return Err(EventLogError::EventTooLong { event, bytes });
    }
    Ok(reader.take(bytes)?.to_vec())
}
