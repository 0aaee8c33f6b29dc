//! Other trust domains in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;

use crate::facts::federation::FederationRelationship;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub bundles: Rows<Bundle>,
    pub relationships: Rows<FederationRelationship>,
}

/// One value for each trust domain, with its place in lists.
#[derive(Debug)]
pub(super) struct Rows<T> {
    all: BTreeMap<i64, Arc<T>>,
    places: HashMap<TrustDomain, i64>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), places: HashMap::new() }
    }
}

impl<T> Rows<T> {
    /// Adds, replaces or, with `None`, removes what is known of that trust domain.
    pub fn put(&mut self, trust_domain: TrustDomain, row: Option<(i64, T)>) {
        if let Some(seq) = self.places.remove(&trust_domain) {
            self.all.remove(&seq);
        }
        if let Some((seq, value)) = row {
            self.places.insert(trust_domain, seq);
            self.all.insert(seq, Arc::new(value));
        }
    }

    /// What is known of that trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<T>> {
        self.places.get(trust_domain).and_then(|seq| self.all.get(seq))
    }

    /// Of how many trust domains something is known.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// What is behind that place, in order.
    pub fn behind(&self, place: i64) -> impl Iterator<Item = (i64, &Arc<T>)> {
        self.all.range((Bound::Excluded(place), Bound::Unbounded)).map(|(seq, value)| (*seq, value))
    }
}
