//! Entries that are found by what somebody has, each under the one of its selectors that the fewest others were under when it came: node
//! aliases, and entries for tokens of other issuers. There are few, and they are asked often.

use std::collections::HashMap;
use std::sync::Arc;

use ironroot_attest::{Selector, SelectorSet};

use super::stored_entry::StoredEntry;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BySelectors(HashMap<Selector, Vec<Indexed>>);

#[derive(Debug)]
struct Indexed {
    entry: Arc<StoredEntry>,
    selectors: SelectorSet,
}

impl BySelectors {
    /// Adds an entry with these selectors.
    pub fn put(&mut self, entry: Arc<StoredEntry>, selectors: &SelectorSet) {
        let rarest = selectors.iter().min_by_key(|selector| self.0.get(selector).map_or(0, Vec::len));
        if let Some(rarest) = rarest.cloned() {
            self.0.entry(rarest).or_default().push(Indexed { entry, selectors: selectors.clone() });
        }
    }

    /// Takes an entry out that has these selectors.
    pub fn remove(&mut self, entry: &StoredEntry, selectors: &SelectorSet) {
        for selector in selectors.iter() {
            if let Some(group) = self.0.get_mut(selector) {
                group.retain(|indexed| indexed.entry.seq != entry.seq);
                if group.is_empty() {
                    self.0.remove(selector);
                }
            }
        }
    }

    /// The entries whose selectors are all in `had`.
    pub fn of(&self, had: &SelectorSet) -> impl Iterator<Item = &Arc<StoredEntry>> {
        let candidates = had.iter().filter_map(|selector| self.0.get(selector)).flatten();
        candidates.filter(|indexed| indexed.selectors.is_subset_of(had)).map(|indexed| &indexed.entry)
    }
}
