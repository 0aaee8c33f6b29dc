//! Who may ask for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ironroot_api::SpiffeId;

/// The `brokers` of `agent.conf`: SPIFFE IDs, of whichever trust domain, and by what each may name workloads. Whoever is not here is no
/// broker. Clones share them.
//= BRK-02 SPIFFE Broker API 4.1: "MUST maintain a strict allow-only policy"
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brokers(Arc<BTreeMap<SpiffeId, ReferenceTypes>>);

/// Types of references, by the URLs of their messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceTypes {
    /// Whatever this agent understands.
    Any,
    /// These alone.
    Only(BTreeSet<String>),
}

impl FromIterator<(SpiffeId, ReferenceTypes)> for Brokers {
    fn from_iter<I: IntoIterator<Item = (SpiffeId, ReferenceTypes)>>(brokers: I) -> Self {
        Self(Arc::new(brokers.into_iter().collect()))
    }
}

impl Brokers {
    /// What the broker of this ID may use; `None` if there is none.
    pub(super) fn types_of(&self, spiffe_id: &SpiffeId) -> Option<&ReferenceTypes> {
        self.0.get(spiffe_id)
    }
}

impl ReferenceTypes {
    /// Whether the type with this URL, letter by letter, is one of them.
    pub(super) fn contains(&self, type_url: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(types) => types.contains(type_url),
        }
    }
}
