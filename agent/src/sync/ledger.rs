//! What the agent holds for its workloads: entries, each with its SVID and when that is to be replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_api::tls::TrustAnchors;
use tracing::warn;
use webpki::KeyUsage;

use super::chain;
use super::schedule::{before_the_end, overdue_unix, renewal_in, unit};
use crate::identities::{Identity, IdentityParts, WorkloadKey};
use crate::server_answers::{EntryTerms, WorkloadSvid};

/// An entry and what is held for it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who gets which ID.
    pub terms: EntryTerms,
    /// The SVID, once there is one.
    pub svid: Option<WorkloadSvid>,
    /// Both together, as they are served.
    identity: Option<Arc<Identity>>,
    /// When to ask for the next, by the monotonic clock.
    due: Instant,
    /// The same by the wall clock, with a margin: the monotonic one stands still while a device sleeps.
    overdue_unix: i64,
}

/// Entries by ID.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<String, Held>,
}

/// An SVID to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The entry's ID.
    pub entry_id: String,
    /// The ID that the SVID must have.
    pub spiffe_id: SpiffeId,
}

impl Ledger {
    /// Takes up what was cached: each SVID is replaced when half of its own lifetime is over, which may be at once.
    pub fn restore(&mut self, entries: Vec<(EntryTerms, Option<WorkloadSvid>)>, now: Instant, now_unix: i64) {
        for (terms, svid) in entries {
            let mut held = Held::new(terms, svid, now);
            if let Some(svid) = &held.svid {
                let lifetime = svid.not_after_unix - svid.not_before_unix;
                held.due = now + renewal_in(svid.not_after_unix - now_unix, lifetime, unit());
                held.overdue_unix = overdue_unix(svid.not_after_unix, lifetime);
            }
            self.entries.insert(held.terms.id.clone(), held);
        }
    }

    /// Makes the entries exactly `current`; whether anything changed. An entry whose terms changed is asked for again: its
    /// lifetime or DNS names may be others. Its SVID goes on being served meanwhile, unless it is for another ID.
    pub fn replace_entries(&mut self, current: Vec<EntryTerms>, now: Instant) -> bool {
        let ids: BTreeSet<String> = current.iter().map(|terms| terms.id.clone()).collect();
        let before = self.entries.len();
        self.entries.retain(|id, _| ids.contains(id));
        let mut changed = self.entries.len() != before;
        for terms in current {
            changed |= self.put_terms(terms, now);
        }
        changed
    }

    fn put_terms(&mut self, terms: EntryTerms, now: Instant) -> bool {
        let Some(held) = self.entries.get_mut(&terms.id) else {
            self.entries.insert(terms.id.clone(), Held::new(terms, None, now));
            return true;
        };
        if held.terms == terms {
            return false;
        }
        if held.terms.spiffe_id != terms.spiffe_id {
            held.svid = None;
        }
        let svid = held.svid.take();
        *held = Held::new(terms, svid, now);
        true
    }

    /// The SVIDs that are missing or due, those that end first in front.
    pub fn wanted(&self, now: Instant, now_unix: i64) -> Vec<Wanted> {
        let is_due = |held: &&Held| held.due <= now || held.overdue_unix <= now_unix;
        let mut due: Vec<&Held> = self.entries.values().filter(is_due).collect();
        due.sort_by_key(|held| held.svid.as_ref().map_or(i64::MIN, |svid| svid.not_after_unix));
        let wanted = |held: &Held| Wanted { entry_id: held.terms.id.clone(), spiffe_id: held.terms.spiffe_id.clone() };
        due.into_iter().map(wanted).collect()
    }

    /// Keeps a verified SVID, to be replaced when half of what remains of its life is over. Counted from now and not from
    /// its notBefore, which servers date back. Nothing happens if the entry went or changed its ID meanwhile.
    pub fn put_svid(&mut self, entry_id: &str, svid: WorkloadSvid, now: Instant, now_unix: i64) {
        let Some(held) = self.entries.get_mut(entry_id) else { return };
        if held.terms.spiffe_id != svid.spiffe_id {
            return;
        }
        let remaining = svid.not_after_unix - now_unix;
        let due = now + renewal_in(remaining, remaining, unit());
        let overdue_unix = overdue_unix(svid.not_after_unix, remaining);
        *held = Held { overdue_unix, ..Held::new(held.terms.clone(), Some(svid), due) };
    }

    /// There is no new SVID for this entry: it is asked for again after `pause`, or sooner if the one it has ends.
    pub fn postpone(&mut self, entry_id: &str, pause: Duration, now: Instant, now_unix: i64) {
        let Some(held) = self.entries.get_mut(entry_id) else { return };
        let remaining = held.svid.as_ref().map(|svid| seconds(svid.not_after_unix - now_unix));
        held.due = now + before_the_end(pause, remaining);
        held.overdue_unix = i64::MAX;
    }

    /// SVIDs that do not chain to `anchors` are due at once: their authority is tainted or gone.
    pub fn mark_untrusted(&mut self, anchors: &TrustAnchors, now: Instant, now_unix: i64) -> usize {
        let mut marked = 0;
        for held in self.entries.values_mut() {
            let Some(svid) = &held.svid else { continue };
            let usage = KeyUsage::client_auth();
            if anchors.verify(&svid.chain[0], &svid.chain[1..], usage, now_unix).is_err() {
                held.due = now;
                marked += 1;
            }
        }
        marked
    }

    /// When the next SVID is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().map(|held| held.due).min()
    }

    /// When the first SVID ends that has not ended yet, UNIX seconds.
    pub fn next_end_unix(&self, now_unix: i64) -> Option<i64> {
        self.svids().map(|svid| svid.not_after_unix).filter(|end| *end > now_unix).min()
    }

    /// The shortest whole lifetime among the SVIDs.
    pub fn shortest_lifetime(&self) -> Option<Duration> {
        self.svids().map(|svid| seconds(svid.not_after_unix - svid.not_before_unix)).min()
    }

    /// What may be served.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.entries.values().filter_map(|held| held.identity.as_ref())
    }

    /// The entries, by ID.
    pub fn entries(&self) -> impl Iterator<Item = &Held> {
        self.entries.values()
    }

    /// The terms of an entry.
    pub fn terms(&self, entry_id: &str) -> Option<&EntryTerms> {
        self.entries.get(entry_id).map(|held| &held.terms)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn svids(&self) -> impl Iterator<Item = &WorkloadSvid> {
        self.entries.values().filter_map(|held| held.svid.as_ref())
    }
}

impl Held {
    fn new(terms: EntryTerms, svid: Option<WorkloadSvid>, due: Instant) -> Self {
        let identity = svid.as_ref().and_then(|svid| identity(&terms, svid));
        Self { terms, svid, identity, due, overdue_unix: i64::MAX }
    }
}

fn identity(terms: &EntryTerms, svid: &WorkloadSvid) -> Option<Arc<Identity>> {
    let identity = Identity::try_new(IdentityParts {
        entry_id: terms.id.clone(),
        spiffe_id: terms.spiffe_id.clone(),
        selectors: terms.selectors.clone(),
        hint: terms.hint.clone(),
        created_at: terms.created_at,
        federates_with: Vec::new(),
        chain: &svid.chain,
        key: WorkloadKey::new(svid.key.clone()),
    });
    match identity {
        Ok(identity) => Some(Arc::new(identity)),
        Err(error) => {
            warn!(entry_id = terms.id, error = %chain(&error), "an SVID cannot be served");
            None
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn terms(id: &str, path: &str, revision_number: i64) -> EntryTerms {
        EntryTerms {
            id: id.to_owned(),
            spiffe_id: SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"),
            selectors: std::iter::once("unix:uid:1".parse().expect("legal")).collect(),
            hint: String::new(),
            created_at: 1,
            revision_number,
        }
    }

    fn svid(path: &str, not_before_unix: i64, not_after_unix: i64) -> WorkloadSvid {
        WorkloadSvid {
            spiffe_id: SpiffeId::parse(&format!("spiffe://td{path}")).expect("legal"),
            chain: Vec::new(),
            key: Zeroizing::new(vec![1]),
            not_before_unix,
            not_after_unix,
        }
    }

    fn wanted(ledger: &Ledger, now: Instant) -> Vec<String> {
        ledger.wanted(now, i64::MIN).into_iter().map(|w| w.entry_id).collect()
    }

    #[test]
    fn a_new_entry_is_wanted_at_once_and_a_removed_one_is_gone() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        assert!(ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now));
        assert_eq!(wanted(&ledger, now), ["a", "b"]);
        ledger.put_svid("a", svid("/a", 990, 1010), now, 1000);
        assert_eq!(wanted(&ledger, now), ["b"]);
        assert!(!ledger.replace_entries(vec![terms("a", "/a", 0), terms("b", "/b", 0)], now));
        assert!(ledger.replace_entries(vec![terms("b", "/b", 0)], now));
        assert_eq!(ledger.entries().count(), 1);
        ledger.put_svid("a", svid("/a", 990, 1010), now, 1000);
        assert_eq!(ledger.entries().count(), 1, "an SVID for a removed entry is dropped");
    }

    #[test]
    fn a_changed_entry_keeps_its_svid_until_the_next_comes_unless_the_id_changed() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.replace_entries(vec![terms("a", "/a", 0)], now);
        ledger.put_svid("a", svid("/a", 0, 3600), now, 0);
        assert!(ledger.replace_entries(vec![terms("a", "/a", 1)], now));
        assert_eq!(wanted(&ledger, now), ["a"]);
        assert!(ledger.entries().all(|held| held.svid.is_some()));
        assert!(ledger.replace_entries(vec![terms("a", "/other", 2)], now));
        assert!(ledger.entries().all(|held| held.svid.is_none()));
        ledger.put_svid("a", svid("/a", 0, 3600), now, 0);
        assert!(ledger.entries().all(|held| held.svid.is_none()), "the answer came too late");
    }

    #[test]
    fn what_ends_first_is_asked_for_first() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let all = ["a", "b", "c"].map(|id| terms(id, &format!("/{id}"), 0));
        ledger.replace_entries(all.to_vec(), now);
        ledger.put_svid("a", svid("/a", 0, 3000), now, 0);
        ledger.put_svid("b", svid("/b", 0, 2000), now, 0);
        assert_eq!(wanted(&ledger, now + Duration::from_secs(1700)), ["c", "b", "a"]);
    }

    #[test]
    fn a_ten_second_svid_dated_back_by_ten_is_not_due_at_once() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.replace_entries(vec![terms("a", "/a", 0)], now);
        ledger.put_svid("a", svid("/a", 990, 1010), now, 1000);
        assert!(wanted(&ledger, now + Duration::from_secs(4)).is_empty());
        assert_eq!(wanted(&ledger, now + Duration::from_secs(6)), ["a"]);
        assert_eq!(ledger.next_end_unix(1000), Some(1010));
        assert_eq!(ledger.next_end_unix(1010), None);
    }

    #[test]
    fn what_a_sleeping_device_missed_is_due_when_it_wakes() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.replace_entries(vec![terms("a", "/a", 0)], now);
        ledger.put_svid("a", svid("/a", 0, 3600), now, 0);
        assert!(ledger.wanted(now, 1900).is_empty());
        assert_eq!(ledger.wanted(now, 2160).len(), 1, "the monotonic clock has not moved");
        ledger.postpone("a", Duration::from_secs(30), now, 2160);
        assert!(ledger.wanted(now, 2161).is_empty(), "a refusal is not asked again at once");
    }

    #[test]
    fn a_restored_svid_past_half_its_life_is_due_at_once() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let fresh = (terms("a", "/a", 0), Some(svid("/a", 0, 3600)));
        let old = (terms("b", "/b", 0), Some(svid("/b", -3000, 600)));
        ledger.restore(vec![fresh, old, (terms("c", "/c", 0), None)], now, 0);
        assert_eq!(wanted(&ledger, now + Duration::from_secs(1)), ["c", "b"]);
        assert_eq!(ledger.shortest_lifetime(), Some(Duration::from_secs(3600)));
    }
}
