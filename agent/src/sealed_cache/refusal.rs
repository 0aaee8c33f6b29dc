//! Why a sealed cache is not believed.

use ironroot_api::TrustDomain;
use ironroot_attest::pcr_policy::SignedPolicyRefusal;
use ironroot_attest::tpm::TpmError;
use thiserror::Error;

/// Why a cache file, or one of its sections, is not used. None of these stops the agent: it goes on without.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum CacheRefusal {
    /// The disk does not give it.
    #[error("the file cannot be read")]
    Io(#[source] std::io::Error),
    /// Larger than this agent ever writes.
    #[error("the file is too large")]
    TooLarge,
    /// It ends before a length in it says: a copy that was cut.
    #[error("the file is truncated")]
    Truncated,
    /// Not a cache file, or one with something behind its end.
    #[error("the file is not a sealed cache")]
    Format,
    /// Written by another version of this program.
    #[error("the file has another format version")]
    Version,
    /// Its content was changed since it was written.
    #[error("the file was altered")]
    Altered,
    /// Written on another device, or this device's chip was cleared since.
    #[error("the file was sealed by another TPM, or this TPM was cleared since")]
    OtherTpm(#[source] TpmError),
    /// The device booted something else than when the file was written.
    #[error("the device did not boot as it did when the file was sealed")]
    ChangedPcrs(#[source] TpmError),
    /// The operator has signed for the state of now, and that does not count any more, or not yet.
    #[error(
        "the device did not boot as it did when the file was sealed, and the signed policy {file:?} does not open it"
    )]
    SignedPolicy {
        file: String,
        #[source]
        refusal: SignedPolicyRefusal,
    },
    /// The configuration now asks for other PCRs than those the file was sealed to.
    #[error("the file is sealed to other PCRs than configured")]
    OtherPcrs,
    /// The chip is away or refuses.
    #[error("the TPM could not unseal it")]
    Tpm(#[source] TpmError),
    /// An older file was put back.
    #[error("the file is of generation {file}, the TPM's counter says {counter}: an older file was put back")]
    RolledBack { file: u64, counter: u64 },
    /// The chip's counter is missing or behind: the chip was cleared, or the index deleted.
    #[error(
        "the file is of generation {file}, but {}: the chip was cleared or exchanged, or the directory is another one's or was moved",
        .counter.map_or_else(|| "no counter of this data_dir is in the TPM".to_owned(), |at| format!("the TPM's counter is at {at}"))
    )]
    CounterBehind {
        file: u64,
        /// The chip's counter, if there is one.
        counter: Option<u64>,
    },
    /// The counter that the file was written under is gone, and another one stands in this cache's name.
    #[error(
        "the file counts by the TPM's index {file:#010x}, and this cache's counter is at {found:#010x}: another one was put in its place"
    )]
    OtherCounter { file: u32, found: u32 },
    /// It was written where the configuration named another trust domain.
    #[error("it is of trust domain {found}, and this agent's configuration says trust_domain = \"{configured}\"")]
    OtherTrustDomain { found: TrustDomain, configured: TrustDomain },
    /// Decrypted, but not what this version writes.
    #[error("the content does not parse")]
    Content,
}

impl CacheRefusal {
    /// Whether the chip's registers are not as they were when the file was sealed.
    pub fn is_about_the_boot(&self) -> bool {
        matches!(self, Self::ChangedPcrs(_) | Self::SignedPolicy { .. })
    }

    /// What metrics call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Io(_) => "disk",
            Self::TooLarge | Self::Truncated | Self::Format | Self::Version | Self::Altered => "file",
            Self::OtherTrustDomain { .. } | Self::Content => "file",
            Self::OtherTpm(_) => "other_tpm",
            Self::ChangedPcrs(_) => "other_boot",
            Self::SignedPolicy { .. } => "signed_policy",
            Self::OtherPcrs => "other_pcrs",
            Self::Tpm(_) => "tpm",
            Self::RolledBack { .. } | Self::CounterBehind { .. } | Self::OtherCounter { .. } => "rolled_back",
        }
    }
}
