//! What the server says, verified before it replaces anything: a hostile or broken server must not be able to put a wrong
//! identity, a signing certificate or an empty bundle into this agent. Pure.

mod bundle;
mod der_list;
mod entry;
mod foreign_bundle;
mod intermediate;
mod shown_bundle;
mod svid;
mod wit;

use ironroot_api::SpiffeIdError;
use ironroot_api::bundle::BundleError;
use ironroot_api::certificate::CertificateError;
use ironroot_api::jwt::JwtRefusal;
use ironroot_api::tls::SvidRefusal;
use thiserror::Error;

pub use bundle::TrustBundle;
pub use der_list::DerList;
pub use entry::{CertificateTerms, EntryFields, EntryKey, EntryTerms, MAX_ENTRIES, MAX_SELECTORS};
pub use foreign_bundle::ForeignBundle;
pub use intermediate::{ClaimedIntermediate, Intermediate};
pub use shown_bundle::ShownBundle;
pub use svid::{
    AgentSvid, WorkloadSvid, agent_svid, chain_for_key, own_workload_svid, restored_agent_svid, restored_workload_svid,
    span, workload_svid,
};
pub use wit::{Wit, holder_algorithm};

use crate::trusted_time::{Span, utc};

/// Why an answer is not used. The last good state stays.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum AnswerRefusal {
    /// The answer lacks what it is about.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// More items than this agent takes.
    #[error("the answer has more than {limit} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        limit: usize,
    },
    /// A bundle without authorities would end all trust.
    #[error("the trust bundle has no authority")]
    EmptyBundle,
    /// A bundle for another trust domain.
    #[error("the trust bundle is of {0:?}")]
    OtherTrustDomain(String),
    /// A bundle of another trust domain that breaks the bounds of bundles.
    #[error("the bundle of another trust domain cannot be used")]
    ForeignBundle(#[source] BundleError),
    /// An authority that is not a signing certificate.
    #[error("an authority of the trust bundle cannot be used")]
    Authority(#[source] CertificateError),
    /// An authority without basicConstraints CA.
    #[error("an authority of the trust bundle is not a CA certificate")]
    NotAnAuthority,
    /// An ID that is not well-formed or not in the trust domain.
    #[error("the answer has an unusable SPIFFE ID")]
    SpiffeId(#[from] SpiffeIdError),
    /// The SVID does not verify against the trust bundle.
    #[error("the SVID does not verify")]
    Svid(#[from] SvidRefusal),
    /// The WIT-SVID does not verify.
    #[error("the WIT-SVID is refused")]
    Wit(#[from] JwtRefusal),
    /// A certificate that does not parse.
    #[error("the SVID cannot be read")]
    Certificate(#[from] CertificateError),
    /// A private key that is not PKCS#8 of a kind we know.
    #[error("the private key cannot be used")]
    Key,
    /// The SVID is for another key than the one asked for.
    #[error("the SVID is for another key")]
    OtherKey,
    /// A chain of which one certificate ends before another begins.
    #[error("the certificates of the SVID's chain are never valid at the same time")]
    NeverValid,
    /// The device's clock, which had agreed with the server, says that the SVID is not valid, and what is held still is.
    #[error(
        "the SVID is valid from {} to {}, but this device's clock says {clock}; what is held lasts longer",
        utc(span.not_before),
        utc(span.not_after)
    )]
    Disputed {
        span: Span,
        /// What the clock says, in words.
        clock: String,
    },
    /// An SVID that has ended before it came.
    #[error("the SVID ended at {}", utc(.0.not_after))]
    Ended(Span),
    /// The SVID has another ID than the entry.
    #[error("the SVID is for {found}, not {expected}")]
    OtherId {
        /// The ID in the certificate.
        found: String,
        expected: String,
    },
    /// What was asked for was a CA.
    #[error("the certificate is not that of a CA")]
    NotACa,
    /// The SVID for this agent is not an agent's.
    #[error("the SVID {0} is not an agent's")]
    NotAnAgent(String),
    /// An entry that breaks the bounds of its kind.
    #[error("an entry has an unusable {0}")]
    Entry(&'static str),
}

#[cfg(test)]
mod tests;
