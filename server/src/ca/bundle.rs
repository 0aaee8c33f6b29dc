//! The trust bundle: what everyone must trust to verify what this CA has signed and will sign next.

use std::collections::BTreeSet;

use ironroot_api::TrustDomain;

use super::CaPolicy;
use super::journal::Journal;
use super::purpose::Purpose;
use crate::facts::tier::{TierAuthorities, TierCredential};

/// Longest refresh hint, seconds. Source: SPIRE's default for bundle endpoints.
const MAX_REFRESH_HINT: i64 = 300;

/// Our trust domain's authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// The trust domain whose SVIDs these authorities prove.
    pub trust_domain: TrustDomain,
    /// X.509 authorities, DER, oldest first: roots, and CAs without one, the prepared one among them before it signs.
    pub authorities: Vec<Vec<u8>>,
    /// Those of them that are tainted, DER: what leads to them is to be replaced, and is good until then.
    pub tainted_authorities: BTreeSet<Vec<u8>>,
    /// Keys that verify JWT-SVIDs: this server's and those of the servers beside it, oldest first, the prepared one among them before it
    /// signs; then those of other tiers.
    pub jwt_authorities: Vec<TokenKey>,
    /// The same, of WIT-SVIDs.
    pub wit_authorities: Vec<TokenKey>,
    /// Grows with each change of the authorities, also across restarts.
    pub sequence_number: u64,
    /// How often to look for a new one, seconds.
    pub refresh_hint_seconds: i64,
}

/// A key that verifies JWT-SVIDs, or WIT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The `kid` of tokens.
    pub key_id: String,
    /// The public half, DER SubjectPublicKeyInfo.
    pub spki_der: Vec<u8>,
    /// When it signs no more, UNIX seconds.
    pub not_after_unix: i64,
    /// Whether nobody should go on with what it has signed.
    pub tainted: bool,
}

impl TrustBundle {
    /// X.509 authorities that vouch for what is new, DER.
    pub fn untainted_authorities(&self) -> Vec<Vec<u8>> {
        self.authorities.iter().filter(|der| !self.tainted_authorities.contains(*der)).cloned().collect()
    }

    /// What this server's journal has, those of `others` that share its data store, and servers of other `tiers`.
    pub(super) fn of(journal: &Journal, others: &[Journal], tiers: &TierAuthorities, policy: &CaPolicy) -> Self {
        let journals = || std::iter::once(journal).chain(others);
        let sequence_numbers = journals().map(Journal::sequence_number).chain([tiers.revision]);
        Self {
            trust_domain: policy.trust_domain.clone(),
            authorities: x509_authorities(journals(), tiers),
            tainted_authorities: tainted_authorities(journals(), tiers),
            jwt_authorities: token_keys(Purpose::Jwt, journals(), told_keys(tiers, Purpose::Jwt)),
            wit_authorities: token_keys(Purpose::Wit, journals(), told_keys(tiers, Purpose::Wit)),
            // Each of them grows, and nobody's is ever left out.
            sequence_number: sequence_numbers.sum(),
            refresh_hint_seconds: (policy.ca_ttl_seconds / 10).clamp(1, MAX_REFRESH_HINT),
        }
    }
}

fn x509_authorities<'a>(journals: impl Iterator<Item = &'a Journal>, tiers: &TierAuthorities) -> Vec<Vec<u8>> {
    let anchors = journals.flat_map(Journal::anchors).filter_map(|authority| {
        let der = authority.credential.certificate()?.der().to_vec();
        Some((authority.issued_at, authority.not_after, der))
    });
    // Each server sorts alike, also what was issued in one second.
    let mut anchors: Vec<_> = anchors.collect();
    anchors.sort();
    let own = anchors.into_iter().map(|(_, _, der)| der);
    let others = tiers.authorities.iter().filter_map(|authority| match &authority.credential {
        TierCredential::Certificate(der) => Some(der.clone()),
        TierCredential::JwtKey { .. } | TierCredential::WitKey { .. } => None,
    });
    once_each(own.chain(others), |a, b| a == b)
}

/// Whoever says of one that it is tainted is believed.
fn tainted_authorities<'a>(journals: impl Iterator<Item = &'a Journal>, tiers: &TierAuthorities) -> BTreeSet<Vec<u8>> {
    let own = journals.flat_map(Journal::anchors).filter(|authority| authority.is_tainted());
    let own = own.filter_map(|authority| Some(authority.credential.certificate()?.der().to_vec()));
    let others = tiers.authorities.iter().filter(|authority| authority.tainted);
    let others = others.filter_map(|authority| match &authority.credential {
        TierCredential::Certificate(der) => Some(der.clone()),
        TierCredential::JwtKey { .. } | TierCredential::WitKey { .. } => None,
    });
    own.chain(others).collect()
}

/// Keys of tokens: those of `purpose`, and what other tiers have of the kind that `told` picks.
fn token_keys<'a>(
    purpose: Purpose,
    journals: impl Iterator<Item = &'a Journal>,
    told: impl Iterator<Item = TokenKey>,
) -> Vec<TokenKey> {
    let keys = journals.flat_map(|journal| journal.slots(purpose).anchors()).filter_map(|authority| {
        let key = authority.credential.token_key()?;
        let (key_id, spki_der) = (key.key_id().as_str().to_owned(), key.spki().as_der().to_vec());
        let (not_after_unix, tainted) = (authority.not_after, authority.is_tainted());
        Some((authority.issued_at, TokenKey { key_id, spki_der, not_after_unix, tainted }))
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by(|(a, key_a), (b, key_b)| (a, &key_a.key_id).cmp(&(b, &key_b.key_id)));
    // The authority above has ours, too, and those of servers below.
    once_each(keys.into_iter().map(|(_, key)| key).chain(told), |a, b| a.key_id == b.key_id)
}

/// Those of other tiers that verify JWT-SVIDs, or WIT-SVIDs.
fn told_keys(tiers: &TierAuthorities, of: Purpose) -> impl Iterator<Item = TokenKey> {
    let shown = tiers.authorities.iter().filter(|authority| authority.is_shown());
    shown.filter_map(move |authority| match (&authority.credential, of) {
        (TierCredential::JwtKey { key_id, spki }, Purpose::Jwt)
        | (TierCredential::WitKey { key_id, spki }, Purpose::Wit) => Some(TokenKey {
            key_id: key_id.clone(),
            spki_der: spki.clone(),
            not_after_unix: authority.expires_at,
            tainted: authority.tainted,
        }),
        _ => None,
    })
}

/// The first of those that are the same.
fn once_each<T>(items: impl Iterator<Item = T>, are_same: impl Fn(&T, &T) -> bool) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for item in items {
        if !kept.iter().any(|other| are_same(other, &item)) {
            kept.push(item);
        }
    }
    kept
}
