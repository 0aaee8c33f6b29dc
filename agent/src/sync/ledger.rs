//! What the agent holds for its workloads: entries, each with its SVID and when that is to be replaced.

mod held;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::jwt::JwtAuthorities;
use ironroot_api::tls::TrustAnchors;
use ironroot_api::{SpiffeId, TrustDomain};

pub use held::Held;
pub use view::State;

use super::schedule::before_the_end;
use crate::identities::Identity;
use crate::server_answers::{EntryTerms, WorkloadSvid};
use crate::server_number::ServerNumber;
use crate::trusted_time::Moment;

/// Entries by ID.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Whose entries they are.
    server: ServerNumber,
    entries: BTreeMap<String, Held>,
    /// Those that the server has named besides, by ID, and that are not served.
    passed_over: BTreeMap<String, State>,
}

/// What a sync did to the entries; the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntriesChange {
    /// The same entries with the same terms.
    None,
    /// There are new ones, or some of them differ in a way that takes nothing from anybody.
    Changed,
    /// Somebody may no longer have what an older state would give: an entry went, or is for another ID or other selectors.
    Removed,
}

/// An SVID to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The server's ID of the entry that it is signed for.
    pub entry_id: String,
    /// The ID that the SVID must have.
    pub spiffe_id: SpiffeId,
}

impl Ledger {
    /// With no entry yet of this server's.
    pub fn of(server: ServerNumber) -> Self {
        Self { server, ..Self::default() }
    }

    /// Takes up what was cached: each SVID is replaced when half of its own lifetime is over, which may be at once. `unit`: a number
    /// from 0 to 1 for each, by which schedules differ.
    pub fn restore(
        &mut self,
        entries: Vec<(EntryTerms, Option<WorkloadSvid>)>,
        now: Instant,
        moment: &Moment,
        mut unit: impl FnMut() -> f64,
    ) {
        for (terms, svid) in entries {
            let terms = EntryTerms { server: self.server, ..terms };
            self.entries.insert(terms.id.clone(), Held::restored(terms, svid, now, moment, unit()));
        }
    }

    /// Makes the entries exactly `current`.
    pub fn replace_entries(&mut self, current: Vec<EntryTerms>, now: Instant) -> EntriesChange {
        let ids: BTreeSet<&str> = current.iter().map(|terms| terms.id.as_str()).collect();
        let before = self.entries.len();
        self.entries.retain(|id, _| ids.contains(id.as_str()));
        let removed = self.entries.len() != before;
        let puts = current.into_iter().map(|terms| self.put_terms(terms, now));
        puts.fold(if removed { EntriesChange::Removed } else { EntriesChange::None }, EntriesChange::max)
    }

    /// The trust domains whose bundles entries ask for.
    pub fn federates_with(&self) -> BTreeSet<TrustDomain> {
        self.entries.values().flat_map(|held| held.terms().federates_with.iter().flatten().cloned()).collect()
    }

    fn put_terms(&mut self, terms: EntryTerms, now: Instant) -> EntriesChange {
        let terms = EntryTerms { server: self.server, ..terms };
        let Some(held) = self.entries.get_mut(&terms.id) else {
            self.entries.insert(terms.id.clone(), Held::new(terms, now));
            return EntriesChange::Changed;
        };
        if *held.terms() == terms {
            return EntriesChange::None;
        }
        if held.terms().is_completed_by(&terms) {
            held.complete(terms);
            return EntriesChange::Changed;
        }
        let before = held.terms();
        let takes_away = before.spiffe_id != terms.spiffe_id || before.selectors != terms.selectors;
        held.change(terms, now);
        if takes_away { EntriesChange::Removed } else { EntriesChange::Changed }
    }

    /// The SVIDs to ask for now: those that are missing, due before the `next` time that something is signed, or not valid now
    /// as far as this device knows. Those that end first in front.
    pub fn wanted(&self, now: Instant, next: Duration, moment: &Moment) -> Vec<Wanted> {
        let mut due: Vec<&Held> = self.entries.values().filter(|held| held.is_due(now, next, moment)).collect();
        due.sort_by_key(|held| held.svid().map_or(i64::MIN, |svid| moment.end(svid.lifetime())));
        let wanted =
            |held: &Held| Wanted { entry_id: held.terms().id.clone(), spiffe_id: held.terms().spiffe_id.clone() };
        due.into_iter().map(wanted).collect()
    }

    /// The entries that the agent's own CA is to sign for now that the server is away: their SVIDs are missing, or in the last part of their
    /// lives. Those that end first in front.
    pub fn to_mint(&self, now: Instant, moment: &Moment) -> Vec<&Held> {
        let mut due: Vec<&Held> = self.entries.values().filter(|held| held.is_to_mint(now, moment)).collect();
        due.sort_by_key(|held| held.svid().map_or(i64::MIN, |svid| moment.end(svid.lifetime())));
        due
    }

    /// The entry that the agent has a CA of its own by; of several the oldest.
    pub fn of_local_authority(&self) -> Option<Wanted> {
        let theirs = self.entries.values().map(Held::terms).filter(|terms| terms.is_of_local_authority());
        let oldest = theirs.min_by_key(|terms| (terms.created_at, &terms.id))?;
        Some(Wanted { entry_id: oldest.id.clone(), spiffe_id: oldest.spiffe_id.clone() })
    }

    /// A workload asks for SVIDs that are made when they are asked for. Entries that went meanwhile are passed over.
    pub fn ask(&mut self, entry_ids: &[String], now: Instant) {
        for id in entry_ids {
            if let Some(held) = self.entries.get_mut(id) {
                held.ask(now);
            }
        }
    }

    /// Keeps a verified SVID, to be replaced when half of what remains of its life is over. Counted from now and not from
    /// its notBefore, which servers date back. Nothing happens if the entry went, changed its ID or wants its key in hardware meanwhile. Whether it is
    /// kept: not if our clock disputes it, and what is held lasts longer. `unit`: as in [`restore`](Self::restore).
    pub fn put_svid(&mut self, entry_id: &str, svid: WorkloadSvid, now: Instant, moment: &Moment, unit: f64) -> bool {
        let Some(held) = self.entries.get_mut(entry_id) else { return true };
        if held.terms().spiffe_id != *svid.spiffe_id() || held.terms().asks_for_hardware_key() {
            return true;
        }
        if !moment.prefers(svid.lifetime(), held.svid().map(WorkloadSvid::lifetime)) {
            return false;
        }
        let remaining = moment.remaining(svid.shortest(moment));
        held.take(Arc::new(svid), remaining, now, moment, unit);
        held.asked_for(now);
        true
    }

    /// There is no new SVID for this entry: it is asked for again after `pause`, or sooner if the one it has ends.
    pub fn postpone(&mut self, entry_id: &str, pause: Duration, now: Instant, moment: &Moment) {
        let Some(held) = self.entries.get_mut(entry_id) else { return };
        let remaining = held.svid().map(|svid| seconds(moment.remaining(svid.lifetime())));
        held.postpone(now + before_the_end(pause, remaining));
        held.asked_for(now);
    }

    /// SVIDs that do not chain to `anchors` are due at once: their authority is tainted or gone.
    pub fn mark_untrusted(&mut self, anchors: &TrustAnchors, now: Instant, moment: &Moment) -> usize {
        let is_untrusted = |held: &&mut Held| held.svid().is_some_and(|svid| !svid.is_signed_by(anchors, moment));
        let untrusted = self.entries.values_mut().filter(is_untrusted);
        untrusted.map(|held| held.replace_now(now)).count()
    }

    /// Whether an entry has an X509-SVID, and no WIT-SVID beside it.
    pub fn lacks_wit(&self, entry_id: &str) -> bool {
        self.entries.get(entry_id).and_then(Held::svid).is_some_and(|svid| svid.wit().is_none())
    }

    /// SVIDs whose WIT-SVID is of a key that is tainted or gone are due at once. `wants_wits`: so are those without one. How many.
    pub fn mark_wits(&mut self, keys: &JwtAuthorities, wants_wits: bool, now: Instant) -> usize {
        let is_to_replace = |svid: &WorkloadSvid| match svid.wit() {
            Some(wit) => !wit.is_trusted(keys),
            None => wants_wits,
        };
        let marked = self.entries.values_mut().filter(|held| held.svid().is_some_and(is_to_replace));
        marked.map(|held| held.replace_now(now)).count()
    }

    /// SVIDs that do not chain to `anchors`, all authorities that there are, are held no longer: nobody believes them. How many. New
    /// ones are due at once.
    pub fn withdraw_unbelieved(&mut self, anchors: &TrustAnchors, now: Instant, moment: &Moment) -> usize {
        let is_unbelieved = |held: &&mut Held| held.svid().is_some_and(|svid| !svid.is_signed_by(anchors, moment));
        let unbelieved = self.entries.values_mut().filter(is_unbelieved);
        unbelieved.map(|held| held.withdraw(now)).count()
    }

    /// An SVID that came just now and does not chain to `anchors` is replaced after `pause`: the server signs with what it says is
    /// tainted.
    pub fn replace_if_untrusted(
        &mut self,
        entry_id: &str,
        anchors: &TrustAnchors,
        pause: Duration,
        now: Instant,
        moment: &Moment,
    ) {
        let untrusted = |held: &&mut Held| held.svid().is_some_and(|svid| !svid.is_signed_by(anchors, moment));
        let held = self.entries.get_mut(entry_id).filter(untrusted);
        held.into_iter().for_each(|held| held.postpone(now + pause));
    }

    /// When the next SVID is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.entries.values().filter_map(Held::due).min()
    }

    /// How long until one is due by the agent's own clock, or by the estimate of now, which schedules are not on: they have it sooner,
    /// unless the device sleeps or a clock was wrong.
    pub fn overdue_in(&self, now: Instant, moment: &Moment) -> Option<Duration> {
        self.entries.values().filter_map(|held| held.overdue_in(now, moment)).min()
    }

    /// Seconds until the first SVID ends that has not ended yet.
    pub fn next_end_in(&self, moment: &Moment) -> Option<i64> {
        self.svids().map(|svid| moment.remaining(svid.lifetime())).filter(|remaining| *remaining > 0).min()
    }

    /// The shortest whole lifetime among the SVIDs.
    pub fn shortest_lifetime(&self) -> Option<Duration> {
        self.svids().map(|svid| seconds(svid.lifetime().span().length())).min()
    }

    /// Every identity with an SVID, in the order of the entries' IDs.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.entries.values().filter_map(Held::identity)
    }

    /// The entries without an SVID: they are new, or nobody has asked for it yet.
    pub fn unsigned(&self) -> impl Iterator<Item = &Arc<EntryTerms>> {
        self.entries.values().filter_map(Held::unsigned)
    }

    /// The entries, by ID.
    pub fn entries(&self) -> impl Iterator<Item = &Held> {
        self.entries.values()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is served for that entry and to whom; `None` if the server did not name it last time.
    pub fn terms(&self, entry_id: &str) -> Option<&EntryTerms> {
        self.entries.get(entry_id).map(Held::terms)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.passed_over.clear();
    }

    fn svids(&self) -> impl Iterator<Item = &WorkloadSvid> {
        self.entries.values().filter_map(Held::svid)
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests;
