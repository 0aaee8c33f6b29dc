//! For whom an executable is hashed at all: reading hundreds of megabytes is work that an entry must ask for.

use std::sync::Arc;

use crate::{Selector, SelectorSet};

/// Which entries want `unix:sha256`: of each such entry, the other selectors that a workload must have. Cloning shares.
///
/// The default wants no hash of anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashDemand(Arc<[SelectorSet]>);

impl HashDemand {
    /// Of entries with these selectors.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a SelectorSet>) -> Self {
        let asking = entries.into_iter().filter(|selectors| selectors.iter().any(is_hash));
        Self(asking.map(|selectors| selectors.iter().filter(|s| !is_hash(s)).cloned().collect()).collect())
    }

    /// Whether the hash could decide about a process of which `found` is known so far.
    pub fn concerns(&self, found: &SelectorSet) -> bool {
        self.0.iter().any(|others| others.is_subset_of(found))
    }
}

fn is_hash(selector: &Selector) -> bool {
    selector.kind() == "unix" && selector.value().starts_with("sha256:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> SelectorSet {
        texts.iter().map(|text| text.parse().expect("legal")).collect()
    }

    #[test]
    fn a_hash_is_wanted_only_of_processes_that_have_the_rest_of_an_entry_that_asks_for_it() {
        let entries = [set(&["unix:uid:1", "unix:sha256:00"]), set(&["unix:uid:2"]), set(&["other:sha256:00"])];
        let demand = HashDemand::of(&entries);
        assert!(demand.concerns(&set(&["unix:uid:1", "unix:gid:9"])));
        assert!(!demand.concerns(&set(&["unix:uid:2"])) && !demand.concerns(&set(&[])));
        assert!(!HashDemand::default().concerns(&set(&["unix:uid:1"])));
        assert!(HashDemand::of(&[set(&["unix:sha256:00"])]).concerns(&set(&[])), "asks for the hash alone");
    }
}
