//! Why a log is not taken.

use thiserror::Error;

use super::{MAX_EVENT_BYTES, MAX_EVENTS, MAX_LOG_BYTES};
use crate::node::tpm2::PcrHash;

/// What is wrong with a log. Events are named by their place in it; the header is event 0.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum EventLogError {
    /// Over the cap; nothing was parsed.
    #[error("it is {bytes} bytes long, at most {MAX_LOG_BYTES} are accepted")]
    TooLong { bytes: usize },
    /// More events than any firmware measures.
    #[error("it has more than {MAX_EVENTS} events")]
    TooManyEvents,
    /// A field reaches past the end.
    #[error("it is truncated in event {event}")]
    Truncated { event: usize },
    /// One event alone is longer than any real one.
    #[error("event {event} has {bytes} bytes of data, at most {MAX_EVENT_BYTES} are accepted")]
    EventTooLong { event: usize, bytes: usize },
    /// The header does not say how the events are to be read.
    #[error("its header is malformed: {0}")]
    Header(&'static str),
    /// The header gives a hash another length than it has.
    #[error("its header says that digests of algorithm {algorithm:#06x} have {bytes} bytes")]
    AlgorithmLength { algorithm: u16, bytes: u16 },
    /// There is no such register.
    #[error("event {event} names PCR {pcr}")]
    PcrIndex { event: usize, pcr: u32 },
    /// No digest at all, or more than the header announces.
    #[error("event {event} has {count} digests")]
    DigestCount { event: usize, count: u32 },
    /// The header does not announce that hash.
    #[error("event {event} has a digest of algorithm {algorithm:#06x}, which the header does not name")]
    UnknownAlgorithm { event: usize, algorithm: u16 },
    /// Which of the two was extended nobody can say.
    #[error("event {event} has two digests of algorithm {algorithm:#06x}")]
    TwoDigests { event: usize, algorithm: u16 },
    /// The startup locality is told twice, too late, or is none that starts a TPM.
    #[error("event {event} tells a startup locality that cannot be")]
    StartupLocality { event: usize },
    /// The log is silent about the bank that was quoted, as logs of old firmware with SHA-1 alone are.
    #[error("it has no digests of the {bank} bank, which was quoted")]
    OtherBank { bank: PcrHash },
    /// An event leaves the quoted bank out.
    #[error("event {event} has no {bank} digest")]
    NoDigest { event: usize, bank: PcrHash },
    /// The log is not the one that made the quoted registers.
    #[error("extended again it gives another PCR {pcr} than the chip quotes")]
    Differs { pcr: u8 },
}
