//! Why a workload has no identity: the entry that comes nearest to it, and what it lacks.

use std::cmp::Reverse;

use ironroot_attest::{Selector, SelectorSet};

use super::{Identities, Identity};

/// An identity that a workload does not have.
#[derive(Clone, Debug)]
pub struct Nearest<'a> {
    /// What the workload would get if it had the selectors that it lacks.
    pub identity: &'a Identity,
    /// The selectors of its entry that the workload lacks.
    pub lacks: Vec<&'a Selector>,
}

impl Identities {
    /// The identity nearest to a workload with `selectors` that has none: one that shares a selector with it rather than one
    /// that shares none, then the one of which fewest are lacking, then the one that shares most, then the oldest.
    pub fn nearest(&self, selectors: &SelectorSet) -> Option<Nearest<'_>> {
        let lacking = |identity: &Identity| identity.selectors().iter().filter(|s| !selectors.contains(s)).count();
        let rank = |identity: &&Identity| {
            let lacking = lacking(identity);
            let shared = identity.selectors().len() - lacking;
            (shared == 0, lacking, Reverse(shared))
        };
        let identity = self.iter().map(AsRef::as_ref).min_by_key(rank)?;
        Some(Nearest { identity, lacks: identity.selectors().iter().filter(|s| !selectors.contains(s)).collect() })
    }
}
