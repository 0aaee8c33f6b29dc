//! Why a workload has no identity: the entries that come nearest to it, and what it lacks of them.

use std::cmp::Reverse;
use std::sync::Arc;

use ironroot_attest::{Selector, SelectorSet};

use super::Identities;
use crate::server_answers::EntryTerms;

/// The kind of selectors that nodes' aliases have (`spiffe_id:spiffe://td/spire/agent/...`): no process has one. Source: SPIRE.
const OF_NODES: &str = "spiffe_id";

/// An entry that is not a workload's.
#[derive(Clone, Debug)]
pub struct Nearest<'a> {
    /// What the workload would be if it had the selectors that it lacks.
    pub terms: &'a EntryTerms,
    /// The selectors of the entry that the workload lacks; at least one.
    pub lacks: Vec<&'a Selector>,
}

impl Identities {
    /// The first of [`nearest_few`](Self::nearest_few).
    pub fn nearest(&self, selectors: &SelectorSet) -> Option<Nearest<'_>> {
        self.nearest_few(selectors, 1).pop()
    }

    /// At most `most` of the entries that a workload with `selectors` lacks something of: those that share a selector with it
    /// before those that share none, then those of which fewest are lacking, then those that share most, then the oldest.
    pub fn nearest_few(&self, selectors: &SelectorSet, most: usize) -> Vec<Nearest<'_>> {
        let ranked = |terms| {
            let near = Nearest::of(terms, selectors);
            let shared = near.terms.selectors.len() - near.lacks.len();
            ((shared == 0, near.lacks.len(), Reverse(shared), near.terms.created_at), near)
        };
        let can_be_a_process =
            |terms: &&Arc<EntryTerms>| !terms.selectors.iter().any(|selector| selector.kind() == OF_NODES);
        let candidates = self.entries().filter(can_be_a_process).map(|terms| ranked(terms));
        let mut all: Vec<_> = candidates.filter(|(_, near)| !near.lacks.is_empty()).collect();
        all.sort_by_key(|(rank, _)| *rank);
        all.into_iter().take(most).map(|(_, near)| near).collect()
    }
}

impl<'a> Nearest<'a> {
    fn of(terms: &'a EntryTerms, selectors: &SelectorSet) -> Self {
        Self { terms, lacks: terms.selectors.iter().filter(|selector| !selectors.contains(selector)).collect() }
    }
}
