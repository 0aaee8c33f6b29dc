//! The immutable snapshot of everything the agent may serve.
//!
//! One writer builds [`Identities`] and publishes it through a `watch` channel; readers ask it who may have what, now.
//! What is in here was checked when it was built: keys fit their certificates, IDs are of the trust domain.

mod identity;
mod index;
mod nearest;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::SelectorSet;
use ironroot_attest::workload::Demand;
use thiserror::Error;

pub use identity::Identity;
pub use nearest::Nearest;

use crate::federated_bundles::FederatedBundles;
use crate::report::Stands;
use crate::server_answers::{EntryTerms, ForeignBundle, ShownBundle, TrustBundle};
use index::SelectorIndex;

/// Why something cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum IdentitiesError {
    /// The certificate carries another SPIFFE ID than the entry.
    #[error("identity of entry {entry_id:?} has a certificate for {found}")]
    OtherId { entry_id: String, found: String },
    /// A key of this agent's making, where the entry wants one in hardware.
    #[error("entry {0:?} asks for a key in hardware (ironroot:hardware_key), and this one is the agent's")]
    KeyInHardware(String),
    /// An identity of another trust domain than the snapshot's.
    #[error("identity {0} is of another trust domain")]
    OtherTrustDomain(String),
    /// One entry twice.
    #[error("two identities of entry {0:?}")]
    DuplicateEntry(String),
}

/// An entry of a workload's, and when its X509-SVID ends, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// The entry.
    pub terms: &'a Arc<EntryTerms>,
    /// By the clock that [`Identities::for_selectors`] is asked with.
    pub end: Option<i64>,
    /// By its certificate, UNIX seconds.
    pub not_after: Option<i64>,
}

/// Everything that may be served, at one moment.
#[derive(Clone, Debug)]
pub struct Identities {
    trust_domain: TrustDomain,
    /// Sorted by entry ID as at SPIRE's agent, the same on every push and after every restart.
    identities: Vec<Arc<Identity>>,
    /// When each of them ends, in the same order, by the clock that [`Identities::for_selectors`] is asked with.
    ends: Vec<i64>,
    index: SelectorIndex,
    /// Entries without an X509-SVID: new ones, and those whose SVID is made when it is asked for.
    unsigned: Vec<Arc<EntryTerms>>,
    unsigned_index: SelectorIndex,
    /// `None`: still starting.
    bundle: Option<Arc<TrustBundle>>,
    federated: FederatedBundles,
    demand: Demand,
    /// Entries of other servers that say the same as one of those above: not served while it is.
    standbys: BTreeMap<SpiffeId, Vec<Arc<EntryTerms>>>,
    /// Whether a server that may have more to give has not been heard yet.
    is_partial: bool,
    /// Evicted or banned, if that is why nothing is served.
    cast_out: Option<Stands>,
}

impl Identities {
    /// "Not yet": before the first good answer of a server or cache. Serves nothing, and says that it is early.
    pub fn starting(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            identities: Vec::new(),
            ends: Vec::new(),
            index: SelectorIndex::default(),
            unsigned: Vec::new(),
            unsigned_index: SelectorIndex::default(),
            bundle: None,
            federated: FederatedBundles::default(),
            demand: Demand::default(),
            standbys: BTreeMap::new(),
            is_partial: false,
            cast_out: None,
        }
    }

    /// Everything that may be served: identities of `trust_domain`, and its bundle.
    pub fn try_new(
        trust_domain: TrustDomain,
        mut identities: Vec<Arc<Identity>>,
        bundle: Arc<TrustBundle>,
    ) -> Result<Self, IdentitiesError> {
        //= WLA-13 SPIFFE Workload API 8: "its place is the same on every push and after every restart"
        identities.sort_by(|a, b| a.entry_id().cmp(b.entry_id()));
        Self::in_order(trust_domain, identities, bundle)
    }

    /// The same in the order in which they come, which must be the same on every push and after every restart.
    pub fn in_order(
        trust_domain: TrustDomain,
        identities: Vec<Arc<Identity>>,
        bundle: Arc<TrustBundle>,
    ) -> Result<Self, IdentitiesError> {
        let mut entries = HashSet::new();
        for identity in &identities {
            if !identity.spiffe_id().is_member_of(&trust_domain) {
                return Err(IdentitiesError::OtherTrustDomain(identity.spiffe_id().to_string()));
            }
            if !entries.insert((identity.terms().server, identity.entry_id())) {
                return Err(IdentitiesError::DuplicateEntry(identity.entry_id().to_owned()));
            }
        }
        let ends = identities.iter().map(|identity| identity.svid().lifetime().span().not_after).collect();
        let index = SelectorIndex::of(identities.iter().map(|identity| identity.selectors()));
        let mut all = Self { identities, ends, index, bundle: Some(bundle), ..Self::starting(trust_domain) };
        all.demand = all.asked_for();
        Ok(all)
    }

    /// The same, but each identity ends when `end` says and not at its certificate's notAfter: by the agent's own clock,
    /// for which nobody's clock need be right.
    pub fn ending(mut self, end: impl Fn(&Identity) -> i64) -> Self {
        self.ends = self.identities.iter().map(|identity| end(identity)).collect();
        self
    }

    /// The same with entries besides that have no X509-SVID yet.
    pub fn with_unsigned(mut self, unsigned: Vec<Arc<EntryTerms>>) -> Self {
        self.unsigned_index = SelectorIndex::of(unsigned.iter().map(|terms| &terms.selectors));
        self.unsigned = unsigned;
        self.demand = self.asked_for();
        self
    }

    /// The same with bundles of other trust domains besides.
    pub fn with_federated(self, federated: FederatedBundles) -> Self {
        Self { federated, ..self }
    }

    /// The same with entries that stand by for others: see [`Identities::standbys_of`].
    pub fn with_standbys(mut self, standbys: impl IntoIterator<Item = Arc<EntryTerms>>) -> Self {
        for terms in standbys {
            self.standbys.entry(terms.spiffe_id.clone()).or_default().push(terms);
        }
        self
    }

    /// The same, where a server that may have more to give has not been heard yet.
    pub fn partial(self, is_partial: bool) -> Self {
        Self { is_partial, ..self }
    }

    /// The same, of an agent that is banned or evicted, if it is.
    pub fn of_cast_out(self, stands: Option<Stands>) -> Self {
        Self { cast_out: stands.filter(|stands| stands.why_nothing_is_served().is_some()), ..self }
    }

    /// Whether nothing is served since the agent is banned or evicted, and which of them.
    pub fn cast_out(&self) -> Option<Stands> {
        self.cast_out
    }

    /// Whether a server that may have more to give has not been heard yet: that a workload has no identity is not known then.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Entries of other servers for the same ID, the same selectors and the same hint: what one server does not sign, another may.
    pub fn standbys_of<'a>(&'a self, terms: &'a EntryTerms) -> impl Iterator<Item = &'a Arc<EntryTerms>> {
        let of_this_id = self.standbys.get(&terms.spiffe_id).into_iter().flatten();
        of_this_id.filter(move |other| other.selectors == terms.selectors && other.hint == terms.hint)
    }

    /// The bundles of other trust domains that a workload with these selectors gets: those that its entries ask for, as far as they
    /// are held; in the order of their names.
    pub fn federated_for(&self, selectors: &SelectorSet) -> Vec<Arc<ForeignBundle>> {
        if self.federated.is_empty() {
            return Vec::new();
        }
        self.federated_of(&self.entries_for(selectors))
    }

    /// The bundles of other trust domains that these entries ask for, likewise.
    pub fn federated_of(&self, entries: &[&Arc<EntryTerms>]) -> Vec<Arc<ForeignBundle>> {
        let wanted: BTreeSet<&TrustDomain> =
            entries.iter().flat_map(|terms| terms.federates_with.iter().flatten()).collect();
        wanted.into_iter().filter_map(|trust_domain| self.federated.get(trust_domain).cloned()).collect()
    }

    /// The trust domain that every identity here belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The trust domain's own bundle; `None` while starting.
    pub fn bundle(&self) -> Option<&Arc<TrustBundle>> {
        self.bundle.as_ref()
    }

    /// Every bundle there is, by its trust domain.
    pub fn bundles(&self) -> impl Iterator<Item = (&TrustDomain, ShownBundle)> {
        let own = self.bundle.iter().map(|bundle| (&self.trust_domain, ShownBundle::Own(bundle.clone())));
        own.chain(self.federated.iter().map(|bundle| (bundle.trust_domain(), ShownBundle::Foreign(bundle.clone()))))
    }

    /// All identities, in order, expired ones too.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Identity>> {
        self.identities.iter()
    }

    /// All identities with when each ends, by the clock that [`Identities::for_selectors`] is asked with.
    pub fn ends(&self) -> impl Iterator<Item = (&Arc<Identity>, i64)> {
        self.identities.iter().zip(self.ends.iter().copied())
    }

    /// All entries without an X509-SVID.
    pub fn unsigned(&self) -> impl Iterator<Item = &Arc<EntryTerms>> {
        self.unsigned.iter()
    }

    /// The bundles of other trust domains.
    pub fn federated(&self) -> &FederatedBundles {
        &self.federated
    }

    /// Whose executables and units must be looked at to tell what they may have.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// What a workload with these selectors may have now, in the order of entry IDs. Never anything ended.
    ///
    /// An identity is the workload's if the workload has every selector of its entry. Of identities with the same hint
    /// only the oldest counts. Source: SPIFFE_Workload_API.md §5.2, "hint"; SPIRE breaks ties by age and entry ID, and sorts by the
    /// latter alone.
    pub fn for_selectors(&self, selectors: &SelectorSet, now: i64) -> Vec<&Arc<Identity>> {
        self.lasting(selectors, now).map(|(identity, _)| identity).collect()
    }

    /// The same whatever the hints: for who hands identities on, and knows which of them it wants.
    pub fn all_for_selectors(&self, selectors: &SelectorSet, now: i64) -> Vec<&Arc<Identity>> {
        self.matching(selectors).filter(|(_, end)| now < *end).map(|(identity, _)| identity).collect()
    }

    /// When the first of these identities ends; `None` if there is none.
    pub fn next_end(&self, selectors: &SelectorSet, now: i64) -> Option<i64> {
        self.lasting(selectors, now).map(|(_, end)| end).min()
    }

    /// The same of all, whatever the hints.
    pub fn next_end_of_all(&self, selectors: &SelectorSet, now: i64) -> Option<i64> {
        self.matching(selectors).map(|(_, end)| end).filter(|end| now < *end).min()
    }

    /// Whether a workload with these selectors has an identity at all, were it only not ended.
    pub fn is_entitled(&self, selectors: &SelectorSet) -> bool {
        self.entitled(selectors).next().is_some()
    }

    /// The entries of a workload with these selectors whose SVIDs it must ask for to have them made.
    pub fn unsigned_for(&self, selectors: &SelectorSet) -> Vec<&Arc<EntryTerms>> {
        self.unsigned_below(selectors).filter(|terms| terms.on_demand && !terms.asks_for_hardware_key()).collect()
    }

    /// The entries of a workload with these selectors that ask for a key in hardware, in the order of their IDs: certificates for keys
    /// of the workload's can be had for them, and nothing else. Of entries with the same hint only the oldest counts. One that names
    /// nobody is nobody's.
    pub fn hardware_entries_for(&self, selectors: &SelectorSet) -> Vec<&Arc<EntryTerms>> {
        let with_hardware = selectors.with_hardware_key();
        let of_the_process = |terms: &&Arc<EntryTerms>| terms.asks_for_hardware_key() && terms.selectors.len() > 1;
        let mut theirs: Vec<_> = self.unsigned_below(&with_hardware).filter(of_the_process).collect();
        theirs.sort_by_key(|terms| self.place(terms));
        self.only_oldest_of_hint(theirs, |terms| terms)
    }

    fn unsigned_below(&self, selectors: &SelectorSet) -> impl Iterator<Item = &Arc<EntryTerms>> {
        let candidates = self.unsigned_index.candidates(selectors).into_iter().map(|place| &self.unsigned[place]);
        candidates.filter(move |terms| terms.selectors.is_subset_of(selectors))
    }

    /// The entries of a workload with these selectors, in the order of their IDs, whatever became of their X509-SVIDs: a JWT-SVID can
    /// be had for each. Of entries with the same hint only the oldest counts.
    pub fn entries_for(&self, selectors: &SelectorSet) -> Vec<&Arc<EntryTerms>> {
        self.only_oldest_of_hint(self.all_entries_for(selectors), |terms| terms)
    }

    /// The same whatever the hints.
    pub fn all_entries_for(&self, selectors: &SelectorSet) -> Vec<&Arc<EntryTerms>> {
        self.held_for(selectors).into_iter().map(|held| held.terms).collect()
    }

    /// Those of them that [`Identities::entries_for`] leaves out, since an older one has the same hint.
    pub fn hidden_for(&self, selectors: &SelectorSet) -> Vec<&Arc<EntryTerms>> {
        let all = self.all_entries_for(selectors);
        if all.iter().filter(|terms| !terms.hint.is_empty()).nth(1).is_none() {
            return Vec::new();
        }
        let shown: HashSet<*const EntryTerms> =
            self.only_oldest_of_hint(all.clone(), |terms| terms).into_iter().map(Arc::as_ptr).collect();
        all.into_iter().filter(|terms| !shown.contains(&Arc::as_ptr(terms))).collect()
    }

    /// All of them with what became of their X509-SVIDs.
    pub fn held_for(&self, selectors: &SelectorSet) -> Vec<Held<'_>> {
        let signed = self.index.candidates(selectors).into_iter().map(|place| Held {
            terms: self.identities[place].terms(),
            end: Some(self.ends[place]),
            not_after: Some(self.identities[place].svid().lifetime().span().not_after),
        });
        let unsigned = self.unsigned_below(selectors).map(|terms| Held { terms, end: None, not_after: None });
        // Whatever selectors a delegate names: of an entry whose key is in hardware nothing is handed on.
        let is_theirs = |terms: &EntryTerms| !terms.asks_for_hardware_key() && terms.selectors.is_subset_of(selectors);
        let theirs = signed.chain(unsigned).filter(|held| is_theirs(held.terms));
        let mut theirs: Vec<_> = theirs.collect();
        theirs.sort_by_key(|held| self.place(held.terms));
        theirs
    }

    /// Whether there is this entry, for the same ID.
    pub fn holds(&self, terms: &EntryTerms) -> bool {
        let is_it = |held: &&Arc<EntryTerms>| {
            held.server == terms.server && held.id == terms.id && held.spiffe_id == terms.spiffe_id
        };
        self.known_entries().any(|held| is_it(&held))
    }

    /// All entries, whatever became of their X509-SVIDs.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<EntryTerms>> {
        self.identities.iter().map(|identity| identity.terms()).chain(&self.unsigned)
    }

    /// The same, and those that stand by.
    pub fn known_entries(&self) -> impl Iterator<Item = &Arc<EntryTerms>> {
        self.entries().chain(self.standbys.values().flatten())
    }

    fn lasting(&self, selectors: &SelectorSet, now: i64) -> impl Iterator<Item = (&Arc<Identity>, i64)> {
        self.entitled(selectors).filter(move |(_, end)| now < *end)
    }

    fn entitled(&self, selectors: &SelectorSet) -> impl Iterator<Item = (&Arc<Identity>, i64)> {
        self.only_oldest_of_hint(self.matching(selectors).collect(), |(identity, _)| identity.terms()).into_iter()
    }

    /// Of entries with the same hint the oldest, and every entry without one; in the order in which they come.
    fn only_oldest_of_hint<'a, T>(&'a self, mut entries: Vec<T>, terms: impl Fn(&T) -> &'a EntryTerms) -> Vec<T> {
        let mut oldest: HashMap<&str, (i64, &str)> = HashMap::new();
        for (hint, age) in entries.iter().map(|entry| (terms(entry).hint.as_str(), self.age(terms(entry)))) {
            oldest.entry(hint).and_modify(|least| *least = age.min(*least)).or_insert(age);
        }
        //= WLA-07 SPIFFE Workload API 5.2.1: "its value is unique amongst the set of returned SVIDs"
        entries.retain(|entry| {
            let terms = terms(entry);
            terms.hint.is_empty() || oldest.get(terms.hint.as_str()) == Some(&self.age(terms))
        });
        entries
    }

    /// Where an entry stands among others, whichever server's is served.
    fn place<'a>(&'a self, terms: &'a EntryTerms) -> &'a str {
        self.standbys_of(terms).map(|other| other.id.as_str()).fold(&terms.id, |least, id| id.min(least))
    }

    /// What decides between entries with the same hint, likewise.
    fn age<'a>(&'a self, terms: &'a EntryTerms) -> (i64, &'a str) {
        let age = |terms: &'a EntryTerms| (terms.created_at, terms.id.as_str());
        self.standbys_of(terms).map(|other| age(other)).fold(age(terms), |least, other| other.min(least))
    }

    fn matching(&self, selectors: &SelectorSet) -> impl Iterator<Item = (&Arc<Identity>, i64)> {
        let candidates = self.index.candidates(selectors).into_iter();
        let candidates = candidates.map(|place| (&self.identities[place], self.ends[place]));
        candidates.filter(move |(identity, _)| identity.selectors().is_subset_of(selectors))
    }

    fn asked_for(&self) -> Demand {
        let unsigned = self.unsigned.iter().map(|terms| &terms.selectors);
        Demand::of(self.identities.iter().map(|identity| identity.selectors()).chain(unsigned))
    }
}

#[cfg(test)]
mod tests;
