//! The trust bundle: what everyone must trust to verify what this CA has signed and will sign next.

use ironroot_api::TrustDomain;

use super::CaPolicy;
use super::journal::Journal;

/// Longest refresh hint, seconds. Source: SPIRE's default for bundle endpoints.
const MAX_REFRESH_HINT: i64 = 300;

/// Our trust domain's authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// X.509 authorities, DER, oldest first: roots, and CAs without one, the prepared one among them before it signs.
    pub authorities: Vec<Vec<u8>>,
    /// Grows with each change of the authorities, also across restarts.
    pub sequence_number: u64,
    /// How often to look for a new one, seconds.
    pub refresh_hint_seconds: i64,
}

impl TrustBundle {
    pub(super) fn of(journal: &Journal, policy: &CaPolicy) -> Self {
        Self {
            trust_domain: policy.trust_domain.clone(),
            authorities: journal.authorities().into_iter().map(|authority| authority.certificate.clone()).collect(),
            sequence_number: journal.sequence_number(),
            refresh_hint_seconds: (policy.ca_ttl_seconds / 10).clamp(1, MAX_REFRESH_HINT),
        }
    }
}
