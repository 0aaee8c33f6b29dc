//! Which entries may be a workload's, without looking at all of them: each stands under the rarest of its selectors, which a
//! workload must have to have them all.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use ironroot_attest::{Selector, SelectorSet};

/// Places in a list of selector sets. Two selectors of one hash only cost a look more.
#[derive(Clone, Debug, Default)]
pub(super) struct SelectorIndex {
    hasher: RandomState,
    /// Hash of the rarest selector, place; sorted.
    places: Box<[(u64, u32)]>,
}

impl SelectorIndex {
    /// Of these sets, in their order. A set without selectors is nobody's.
    pub fn of<'a>(sets: impl Iterator<Item = &'a SelectorSet> + Clone) -> Self {
        let hasher = RandomState::new();
        let hash = |selector: &Selector| hasher.hash_one(selector);
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for selector in sets.clone().flat_map(SelectorSet::iter) {
            *counts.entry(hash(selector)).or_default() += 1;
        }
        let rarest = |set: &SelectorSet| set.iter().map(hash).min_by_key(|hash| counts.get(hash).copied());
        let mut places: Vec<_> = sets.zip(0..).filter_map(|(set, place)| Some((rarest(set)?, place))).collect();
        places.sort_unstable();
        Self { places: places.into(), hasher }
    }

    /// The places of the sets that may be below `selectors`, in order; of others only a few.
    pub fn candidates(&self, selectors: &SelectorSet) -> Vec<usize> {
        let mut found: Vec<usize> = selectors.iter().flat_map(|selector| self.under(selector)).collect();
        found.sort_unstable();
        found
    }

    fn under(&self, selector: &Selector) -> impl Iterator<Item = usize> {
        let hash = self.hasher.hash_one(selector);
        let first = self.places.partition_point(|(other, _)| *other < hash);
        self.places[first..].iter().take_while(move |(other, _)| *other == hash).map(|(_, place)| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[String]) -> SelectorSet {
        texts.iter().map(|text| text.parse().expect("legal")).collect()
    }

    #[test]
    fn a_workload_is_compared_with_few_of_many_entries_and_misses_none_of_its_own() {
        let shared = "unix:gid:1".to_owned();
        let sets: Vec<SelectorSet> =
            (0..1000).map(|n| set(&[shared.clone(), format!("unix:uid:{}", n % 500)])).collect();
        let index = SelectorIndex::of(sets.iter());
        let workload = set(&[shared, "unix:uid:7".to_owned(), "unix:user:x".to_owned()]);
        assert_eq!(index.candidates(&workload), [7, 507]);
        let alone = [set(&["unix:gid:1".to_owned()]), set(&["unix:uid:7".to_owned()]), SelectorSet::default()];
        assert_eq!(SelectorIndex::of(alone.iter()).candidates(&workload), [0, 1], "each once, in order");
        assert_eq!(SelectorIndex::default().candidates(&workload), [0; 0]);
    }
}
