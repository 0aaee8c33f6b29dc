//! Which entries, in which states, the server has named to this agent: by that both know that they mean the same.

use std::collections::BTreeMap;
use std::time::Instant;

use ironroot_api::pb::types::Entry;
use ironroot_api::view::ViewName;

use super::{EntriesChange, Held, Ledger};
use crate::server_answers::{EntryTerms, MAX_ENTRIES};

/// The state of an entry: its revision number, and the UNIX second in which it was created.
pub type State = (i64, i64);

impl Ledger {
    /// The server has also named these entries, which are not for the Workload API, or break the rules: no others beside those held.
    pub fn pass_over(&mut self, others: BTreeMap<String, State>) {
        self.passed_over = others;
    }

    /// What names all entries that the server has named.
    pub fn view_name(&self) -> ViewName {
        named(&self.states())
    }

    /// What would name them without `removed`, and with `entries` in place of those of the same IDs. None if they are more than an
    /// agent has.
    pub fn view_after(&self, entries: &[Entry], removed: &[String]) -> Option<ViewName> {
        let mut states = self.states();
        for id in removed {
            states.remove(id.as_str());
        }
        states.extend(entries.iter().map(|entry| (entry.id.as_str(), (entry.revision_number, entry.created_at))));
        (states.len() <= MAX_ENTRIES).then(|| named(&states))
    }

    /// Takes out `removed`, and then in these entries in place of those of the same IDs; of those in `passed_over` nothing is served.
    pub fn apply(
        &mut self,
        removed: &[String],
        current: Vec<EntryTerms>,
        passed_over: BTreeMap<String, State>,
        now: Instant,
    ) -> EntriesChange {
        let mut change = EntriesChange::None;
        for id in removed.iter().chain(passed_over.keys()) {
            self.passed_over.remove(id);
            if self.entries.remove(id).is_some() {
                change = EntriesChange::Removed;
            }
        }
        for terms in current {
            self.passed_over.remove(&terms.id);
            change = change.max(self.put_terms(terms, now));
        }
        self.passed_over.extend(passed_over);
        change
    }

    fn states(&self) -> BTreeMap<&str, State> {
        let state = |held: &Held| (held.terms().revision_number, held.terms().created_at);
        let held = self.entries.iter().map(|(id, held)| (id.as_str(), state(held)));
        held.chain(self.passed_over.iter().map(|(id, state)| (id.as_str(), *state))).collect()
    }
}

fn named(states: &BTreeMap<&str, State>) -> ViewName {
    ViewName::of(states.iter().map(|(id, (revision_number, created_at))| (*id, *revision_number, *created_at)))
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;
    use ironroot_api::pb::types::{Selector, Spiffeid};
    use ironroot_fuzz::proptest::prelude::*;

    use super::*;
    use crate::server_answers::EntryFields;

    /// Of an ID below 3 one that is not for the Workload API.
    fn entry(id: u8, revision_number: i64) -> Entry {
        Entry {
            id: id.to_string(),
            spiffe_id: Some(Spiffeid { trust_domain: "td".into(), path: format!("/w/{}", revision_number % 2) }),
            selectors: vec![Selector { r#type: "unix".into(), value: "uid:1".into() }],
            revision_number,
            store_svid: id < 3,
            ..Entry::default()
        }
    }

    /// As a sync answers them.
    fn sorted(entries: &[Entry]) -> (Vec<EntryTerms>, BTreeMap<String, State>) {
        let td = TrustDomain::new("td").expect("legal");
        let terms = |entry: &Entry| EntryTerms::from_answer(entry, &td, EntryFields::Served).expect("legal");
        let others = entries.iter().filter(|entry| entry.store_svid);
        let others = others.map(|entry| (entry.id.clone(), (entry.revision_number, entry.created_at)));
        (entries.iter().filter_map(terms).collect(), others.collect())
    }

    fn synced(entries: &BTreeMap<u8, i64>) -> Ledger {
        let entries: Vec<Entry> = entries.iter().map(|(id, revision)| entry(*id, *revision)).collect();
        let (terms, others) = sorted(&entries);
        let mut ledger = Ledger::default();
        ledger.replace_entries(terms, Instant::now());
        ledger.pass_over(others);
        ledger
    }

    fn served(ledger: &Ledger) -> Vec<EntryTerms> {
        ledger.entries().map(|held| held.terms().clone()).collect()
    }

    #[test]
    fn what_is_applied_says_whether_it_takes_something_away() {
        let mut ledger = synced(&[(1, 0), (5, 0)].into());
        let now = Instant::now();
        let mut apply = |removed: &[u8], entries: &[Entry]| {
            let removed: Vec<String> = removed.iter().map(u8::to_string).collect();
            let (terms, others) = sorted(entries);
            ledger.apply(&removed, terms, others, now)
        };
        assert_eq!(apply(&[], &[]), EntriesChange::None);
        assert_eq!(apply(&[], &[entry(5, 0)]), EntriesChange::None);
        assert_eq!(apply(&[], &[entry(6, 0), entry(5, 2)]), EntriesChange::Changed);
        assert_eq!(apply(&[], &[entry(5, 3)]), EntriesChange::Removed, "for another ID");
        assert_eq!(apply(&[1, 9], &[]), EntriesChange::None, "nobody had it");
        assert_eq!(apply(&[6], &[]), EntriesChange::Removed);
        let hidden = Entry { store_svid: true, ..entry(5, 4) };
        assert_eq!(apply(&[], &[hidden]), EntriesChange::Removed, "no longer for the Workload API");
        assert_eq!(served(&ledger), []);
    }

    #[test]
    fn no_more_entries_are_taken_than_an_agent_has() {
        let ledger = synced(&[(1, 0)].into());
        let many: Vec<Entry> = (0..MAX_ENTRIES).map(|id| Entry { id: format!("m{id}"), ..entry(5, 0) }).collect();
        assert!(ledger.view_after(&many, &[]).is_none());
        assert!(ledger.view_after(&many, &["1".into()]).is_some());
    }

    proptest! {
        #![proptest_config(ironroot_fuzz::cases(200))]
        #[test]
        fn changes_that_are_applied_are_the_whole_view(
            start in prop::collection::btree_map(0..10u8, 0..5i64, 0..8),
            steps in prop::collection::vec(prop::collection::btree_map(0..10u8, prop::option::of(0..5i64), 0..6), 1..40),
        ) {
            let (mut whole, mut ledger) = (start.clone(), synced(&start));
            for step in steps {
                let removed: Vec<String> =
                    step.iter().filter(|(_, state)| state.is_none()).map(|(id, _)| id.to_string()).collect();
                let entries: Vec<Entry> =
                    step.iter().filter_map(|(id, state)| Some(entry(*id, (*state)?))).collect();
                for (id, state) in step {
                    match state {
                        Some(state) => whole.insert(id, state),
                        None => whole.remove(&id),
                    };
                }
                let expected = synced(&whole);
                prop_assert_eq!(ledger.view_after(&entries, &removed), Some(expected.view_name()));
                let (terms, others) = sorted(&entries);
                ledger.apply(&removed, terms, others, Instant::now());
                prop_assert_eq!(ledger.view_name(), expected.view_name());
                prop_assert_eq!(served(&ledger), served(&expected));
            }
        }
    }
}
