//! The trust bundle: what everyone must trust to verify what this CA has signed and will sign next.

use ironroot_api::TrustDomain;

use super::CaPolicy;
use super::journal::{Journal, JwtKey};

/// Longest refresh hint, seconds. Source: SPIRE's default for bundle endpoints.
const MAX_REFRESH_HINT: i64 = 300;

/// Our trust domain's authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// The trust domain whose SVIDs these authorities prove.
    pub trust_domain: TrustDomain,
    /// X.509 authorities, DER, oldest first: roots, and CAs without one, the prepared one among them before it signs.
    pub authorities: Vec<Vec<u8>>,
    /// Keys that verify JWT-SVIDs, oldest first, the prepared one among them before it signs.
    pub jwt_authorities: Vec<JwtAuthority>,
    /// Grows with each change of the authorities, also across restarts.
    pub sequence_number: u64,
    /// How often to look for a new one, seconds.
    pub refresh_hint_seconds: i64,
}

/// A key that verifies JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthority {
    /// The public half and its ID.
    pub key: JwtKey,
    /// When it signs no more, UNIX seconds.
    pub not_after_unix: i64,
}

impl TrustBundle {
    /// What this server's journal has, and those of `others` that share its data store.
    pub(super) fn of(journal: &Journal, others: &[Journal], policy: &CaPolicy) -> Self {
        let journals = || std::iter::once(journal).chain(others);
        let anchors = journals().flat_map(Journal::anchors).filter_map(|authority| {
            let der = authority.credential.certificate()?.der().to_vec();
            Some((authority.issued_at, authority.not_after, der))
        });
        // Each server sorts alike, also what was issued in one second.
        let mut anchors: Vec<_> = anchors.collect();
        anchors.sort();
        let keys = journals().flat_map(Journal::anchors).filter_map(|authority| {
            let key = authority.credential.jwt_key()?.clone();
            Some((authority.issued_at, JwtAuthority { key, not_after_unix: authority.not_after }))
        });
        let mut keys: Vec<_> = keys.collect();
        keys.sort_by(|(a, key_a), (b, key_b)| (a, key_a.key.key_id().as_str()).cmp(&(b, key_b.key.key_id().as_str())));
        Self {
            trust_domain: policy.trust_domain.clone(),
            authorities: anchors.into_iter().map(|(_, _, der)| der).collect(),
            jwt_authorities: keys.into_iter().map(|(_, key)| key).collect(),
            // Each of them grows, and nobody's is ever left out.
            sequence_number: journals().map(Journal::sequence_number).sum(),
            refresh_hint_seconds: (policy.ca_ttl_seconds / 10).clamp(1, MAX_REFRESH_HINT),
        }
    }
}
