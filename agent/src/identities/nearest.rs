//! Why a workload has no identity: the entries that come nearest to it, and what it lacks of them.

use std::cmp::Reverse;

use ironroot_attest::{Selector, SelectorSet};

use super::Identities;
use crate::server_answers::EntryTerms;

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
        let mut all: Vec<_> =
            self.entries().map(|terms| ranked(terms)).filter(|(_, near)| !near.lacks.is_empty()).collect();
        all.sort_by_key(|(rank, _)| *rank);
        all.into_iter().take(most).map(|(_, near)| near).collect()
    }
}

impl<'a> Nearest<'a> {
    fn of(terms: &'a EntryTerms, selectors: &SelectorSet) -> Self {
        Self { terms, lacks: terms.selectors.iter().filter(|selector| !selectors.contains(selector)).collect() }
    }
}
