//! What the agent holds for its workloads: entries, each with its SVID and when that is to be replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_api::tls::TrustAnchors;
use ironroot_shell::describe;
use tracing::warn;
use webpki::KeyUsage;

use super::REFUSED_PAUSE;
use super::schedule::{before_the_end, overdue, renewal_in, unit};
use crate::identities::{Identity, IdentityParts, WorkloadKey};
use crate::server_answers::{EntryTerms, WorkloadSvid};
use crate::trusted_time::Moment;

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
    /// The same by the agent's own clock, with a margin: the monotonic one stands still while a device sleeps.
    overdue: i64,
    /// When it was last asked for in this run.
    asked: Option<Instant>,
}

/// Entries by ID.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<String, Held>,
}

/// What a sync did to the entries; the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntriesChange {
    /// Nothing.
    None,
    /// There are new ones, or some of them differ in a way that takes nothing from anybody.
    Changed,
    /// Somebody may no longer have what an older state would give: an entry went, or is for another ID or other selectors.
    Removed,
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
    pub fn restore(&mut self, entries: Vec<(EntryTerms, Option<WorkloadSvid>)>, now: Instant, moment: &Moment) {
        for (terms, svid) in entries {
            let mut held = Held::new(terms, svid, now);
            if let Some(svid) = &held.svid {
                let lifetime = svid.lifetime.span().length();
                held.due = now + renewal_in(moment.remaining(&svid.lifetime), lifetime, unit());
                held.overdue = overdue(moment.end(&svid.lifetime), lifetime);
            }
            self.entries.insert(held.terms.id.clone(), held);
        }
    }

    /// Makes the entries exactly `current`. An entry whose terms changed is asked for again: its lifetime or DNS names may be
    /// others. Its SVID goes on being served meanwhile, unless it is for another ID.
    pub fn replace_entries(&mut self, current: Vec<EntryTerms>, now: Instant) -> EntriesChange {
        let ids: BTreeSet<String> = current.iter().map(|terms| terms.id.clone()).collect();
        let before = self.entries.len();
        self.entries.retain(|id, _| ids.contains(id));
        let removed = self.entries.len() != before;
        let puts = current.into_iter().map(|terms| self.put_terms(terms, now));
        puts.fold(if removed { EntriesChange::Removed } else { EntriesChange::None }, EntriesChange::max)
    }

    fn put_terms(&mut self, terms: EntryTerms, now: Instant) -> EntriesChange {
        let Some(held) = self.entries.get_mut(&terms.id) else {
            self.entries.insert(terms.id.clone(), Held::new(terms, None, now));
            return EntriesChange::Changed;
        };
        if held.terms == terms {
            return EntriesChange::None;
        }
        let takes_away = held.terms.spiffe_id != terms.spiffe_id || held.terms.selectors != terms.selectors;
        if held.terms.spiffe_id != terms.spiffe_id {
            held.svid = None;
        }
        let svid = held.svid.take();
        *held = Held::new(terms, svid, now);
        if takes_away { EntriesChange::Removed } else { EntriesChange::Changed }
    }

    /// The SVIDs that are missing, due, or not valid now as far as this device knows; those that end first in front.
    pub fn wanted(&self, now: Instant, moment: &Moment) -> Vec<Wanted> {
        let is_due = |held: &&Held| held.due <= now || held.overdue <= moment.own() || held.is_out_of_time(now, moment);
        let mut due: Vec<&Held> = self.entries.values().filter(is_due).collect();
        due.sort_by_key(|held| held.svid.as_ref().map_or(i64::MIN, |svid| moment.end(&svid.lifetime)));
        let wanted = |held: &Held| Wanted { entry_id: held.terms.id.clone(), spiffe_id: held.terms.spiffe_id.clone() };
        due.into_iter().map(wanted).collect()
    }

    /// Keeps a verified SVID, to be replaced when half of what remains of its life is over. Counted from now and not from
    /// its notBefore, which servers date back. Nothing happens if the entry went or changed its ID meanwhile. Whether it is
    /// kept: not if our clock disputes it, and what is held lasts longer.
    pub fn put_svid(&mut self, entry_id: &str, svid: WorkloadSvid, now: Instant, moment: &Moment) -> bool {
        let Some(held) = self.entries.get_mut(entry_id) else { return true };
        if held.terms.spiffe_id != svid.spiffe_id {
            return true;
        }
        if !moment.prefers(&svid.lifetime, held.svid.as_ref().map(|svid| &svid.lifetime)) {
            return false;
        }
        let remaining = moment.remaining(&svid.lifetime);
        let due = now + renewal_in(remaining, remaining, unit());
        let overdue = overdue(moment.end(&svid.lifetime), remaining);
        *held = Held { overdue, asked: Some(now), ..Held::new(held.terms.clone(), Some(svid), due) };
        true
    }

    /// There is no new SVID for this entry: it is asked for again after `pause`, or sooner if the one it has ends.
    pub fn postpone(&mut self, entry_id: &str, pause: Duration, now: Instant, moment: &Moment) {
        let Some(held) = self.entries.get_mut(entry_id) else { return };
        let remaining = held.svid.as_ref().map(|svid| seconds(moment.remaining(&svid.lifetime)));
        held.due = now + before_the_end(pause, remaining);
        held.overdue = i64::MAX;
        held.asked = Some(now);
    }

    /// SVIDs that do not chain to `anchors` are due at once: their authority is tainted or gone.
    pub fn mark_untrusted(&mut self, anchors: &TrustAnchors, now: Instant, moment: &Moment) -> usize {
        let mut marked = 0;
        for held in self.entries.values_mut() {
            let Some(svid) = &held.svid else { continue };
            let usage = KeyUsage::client_auth();
            // Its time is judged elsewhere; here only who signed it counts.
            let at = svid.lifetime.span().nearest(moment.estimate());
            if at.is_none_or(|at| anchors.verify(&svid.chain[0], &svid.chain[1..], usage, at).is_err()) {
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

    /// Seconds until the first SVID ends that has not ended yet.
    pub fn next_end_in(&self, moment: &Moment) -> Option<i64> {
        self.svids().map(|svid| moment.remaining(&svid.lifetime)).filter(|remaining| *remaining > 0).min()
    }

    /// When each identity ends, by entry ID and the agent's own clock.
    pub fn ends(&self, moment: &Moment) -> BTreeMap<&str, i64> {
        let end = |held: &Held| held.svid.as_ref().map(|svid| moment.end(&svid.lifetime));
        self.entries.iter().filter_map(|(id, held)| Some((id.as_str(), end(held)?))).collect()
    }

    /// The shortest whole lifetime among the SVIDs.
    pub fn shortest_lifetime(&self) -> Option<Duration> {
        self.svids().map(|svid| seconds(svid.lifetime.span().length())).min()
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
        Self { terms, svid, identity, due, overdue: i64::MAX, asked: None }
    }

    /// Now lies outside of its SVID's validity, as far as this device knows, and that was not asked for a moment ago.
    fn is_out_of_time(&self, now: Instant, moment: &Moment) -> bool {
        let asked_lately = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < REFUSED_PAUSE);
        !asked_lately && self.svid.as_ref().is_some_and(|svid| moment.is_out_of_time(svid.lifetime.span()))
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
            warn!(entry_id = terms.id, error = %describe(&error), "an SVID cannot be served");
            None
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests;
