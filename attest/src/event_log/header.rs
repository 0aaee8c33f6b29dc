//! The log's first event: which digests each event has (TCG_EfiSpecIDEvent, PC Client Platform Firmware Profile §10.4.5.1).

use super::EventLogError;
use super::bounds::MAX_DIGESTS;
use super::kind;
use super::reader::Reader;
use crate::node::tpm2::PcrHash;

/// What the first event of a crypto-agile log begins with.
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
/// The same of logs that have SHA-1 alone: BIOS, and EFI before TPM 2.0.
const OLDER_SIGNATURES: [&[u8; 16]; 2] = [b"Spec ID Event00\0", b"Spec ID Event02\0"];
/// Longest digest of any hash, bytes.
const MAX_DIGEST_BYTES: u16 = 64;

/// How the events are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// TPM_ALG_ID and bytes of a digest; none in a log with SHA-1 alone, whose events have another form.
    algorithms: heapless::Vec<(u16, u16), MAX_DIGESTS>,
    legacy: bool,
}

impl Header {
    /// What the first event says, by its type and data; a log that begins with anything else is an old one.
    pub fn of(kind: u32, data: &[u8]) -> Result<Self, EventLogError> {
        let told = kind == kind::NO_ACTION && data.starts_with(SIGNATURE);
        if !told {
            let is_old = kind != kind::NO_ACTION || OLDER_SIGNATURES.iter().any(|old| data.starts_with(*old));
            let legacy = Self { algorithms: heapless::Vec::new(), legacy: true };
            return if is_old { Ok(legacy) } else { Err(EventLogError::Header("it names no specification")) };
        }
        let malformed = |_| EventLogError::Header("it is truncated");
        let mut reader = Reader::new(&data[SIGNATURE.len()..]);
        // platformClass, specVersion and errata, uintnSize.
        reader.take(8).map_err(malformed)?;
        let count = reader.u32().map_err(malformed)?;
        if count == 0 || count as usize > MAX_DIGESTS {
            return Err(EventLogError::Header("it names no hash, or too many"));
        }
        let mut algorithms = heapless::Vec::new();
        for _ in 0..count {
            let (algorithm, bytes) = (reader.u16().map_err(malformed)?, reader.u16().map_err(malformed)?);
            check_length(algorithm, bytes)?;
            if algorithms.iter().any(|(known, _)| *known == algorithm) {
                return Err(EventLogError::Header("it names a hash twice"));
            }
            algorithms.push((algorithm, bytes)).map_err(|_| EventLogError::Header("it names too many hashes"))?;
        }
        let vendor_bytes = reader.u8().map_err(malformed)?;
        reader.take(vendor_bytes.into()).map_err(malformed)?;
        if reader.is_at_end() {
            Ok(Self { algorithms, legacy: false })
        } else {
            Err(EventLogError::Header("bytes follow its end"))
        }
    }

    /// Whether the events have SHA-1 alone, in the older form.
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// How many digests an event has at most.
    pub fn algorithms(&self) -> usize {
        self.algorithms.len()
    }

    /// The length of that hash's digests, if the log has them.
    pub fn digest_bytes(&self, algorithm: u16) -> Option<usize> {
        self.algorithms.iter().find(|(known, _)| *known == algorithm).map(|(_, bytes)| (*bytes).into())
    }

    /// Whether the log has digests of that bank.
    pub fn has(&self, bank: PcrHash) -> bool {
        if self.legacy { bank == PcrHash::Sha1 } else { self.digest_bytes(bank.id()).is_some() }
    }
}

/// A hash that we know has the length we know; of others any length will do, since only its bytes are passed over.
fn check_length(algorithm: u16, bytes: u16) -> Result<(), EventLogError> {
    let known = PcrHash::ALL.into_iter().find(|hash| hash.id() == algorithm);
    let is_right = match known {
        Some(hash) => hash.bytes() == usize::from(bytes),
        None => (1..=MAX_DIGEST_BYTES).contains(&bytes),
    };
    if is_right { Ok(()) } else { Err(EventLogError::AlgorithmLength { algorithm, bytes }) }
}
