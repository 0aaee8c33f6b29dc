//! Of whom an executable is looked at, or hashed, at all: it is work, and waiting, that an entry must ask for.

use std::sync::Arc;

use crate::{Selector, SelectorSet};

/// Which entries want to know about executables: of each such entry, the other selectors that a workload must have.
/// Cloning shares.
///
/// The default wants nothing of anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutableDemand {
    /// Of entries with `unix:path` or `unix:sha256`: what else they have.
    looked_at: Arc<[SelectorSet]>,
    /// Of entries with `unix:sha256`: what else they have, a path included.
    hashed: Arc<[SelectorSet]>,
}

impl ExecutableDemand {
    /// Of entries with these selectors.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a SelectorSet> + Clone) -> Self {
        Self { looked_at: others(entries.clone(), Selector::is_of_executable), hashed: others(entries, is_hash) }
    }

    /// Whether the executable could decide about a process with these other selectors.
    pub fn concerns(&self, user: &SelectorSet) -> bool {
        self.looked_at.iter().any(|others| others.is_subset_of(user))
    }

    /// Whether the hash could decide about a process of which `found` is known so far.
    pub fn concerns_hash(&self, found: &SelectorSet) -> bool {
        self.hashed.iter().any(|others| others.is_subset_of(found))
    }
}

/// Of the entries that have a selector of this kind: the rest.
fn others<'a>(
    entries: impl IntoIterator<Item = &'a SelectorSet>,
    is_of_kind: impl Fn(&Selector) -> bool,
) -> Arc<[SelectorSet]> {
    let asking = entries.into_iter().filter(|selectors| selectors.iter().any(&is_of_kind));
    asking.map(|selectors| selectors.iter().filter(|s| !is_of_kind(s)).cloned().collect()).collect()
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
        let demand = ExecutableDemand::of(&entries);
        assert!(demand.concerns_hash(&set(&["unix:uid:1", "unix:gid:9"])));
        assert!(!demand.concerns_hash(&set(&["unix:uid:2"])) && !demand.concerns_hash(&set(&[])));
        assert!(!ExecutableDemand::default().concerns_hash(&set(&["unix:uid:1"])));
        assert!(ExecutableDemand::of(&[set(&["unix:sha256:00"])]).concerns_hash(&set(&[])), "asks for the hash alone");
    }

    #[test]
    fn an_executable_is_looked_at_only_for_users_of_entries_with_a_path_or_a_hash() {
        let entries = [set(&["unix:uid:1", "unix:sha256:00", "unix:path:/a"]), set(&["unix:uid:2", "unix:path:/b"])];
        let demand = ExecutableDemand::of(entries.iter().chain(&[set(&["unix:uid:3"])]));
        for (uid, concerned) in [(1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(demand.concerns(&set(&[&format!("unix:uid:{uid}")])), concerned, "{uid}");
        }
        assert!(!demand.concerns_hash(&set(&["unix:uid:1"])), "another path: the hash would not help");
        assert!(demand.concerns_hash(&set(&["unix:uid:1", "unix:path:/a"])));
    }
}
