//! What is published, as one caller sees it at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_attest::SelectorSet;
use tonic::Status;
use tracing::warn;

use super::nobody::expect_whole;
use super::subscription::NEVER;
use super::{Attested, Serving, View};
use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::identities::{Identities, Identity};
use crate::server_answers::{EntryTerms, TrustBundle};

/// The answer to a workload whose SVID is made on demand, and could not be yet.
const NOT_SIGNED_YET: &str = "the SVID of this workload is made when it is asked for, and could not be signed yet";

/// See the module.
pub(in crate::endpoints) struct Seen<'a> {
    pub serving: &'a Serving,
    pub caller: &'a Known,
    /// What is known of the caller itself.
    pub attested: &'a Attested,
    /// Whose identities are asked for.
    pub about: &'a SelectorSet,
    pub all: &'a Identities,
    /// The trust domain's own bundle.
    pub own: &'a Arc<TrustBundle>,
    /// UNIX seconds; what has ended by then is not seen.
    pub now: i64,
    /// For the log.
    pub method: &'static str,
}

impl Seen<'_> {
    /// The identities that last, and the bundles.
    pub fn view(&self) -> View {
        //= WLA-02 SPIFFE Workload API 4.3: "MUST include the full set of information"
        View::of(self.all, self.own.clone(), self.identities(), self.all.federated_for(self.about))
    }

    /// The same whatever the hints: those tell identities apart for who reads the Workload API, and nobody else is shown them.
    pub fn whole_view(&self) -> View {
        let theirs = self.all.all_for_selectors(self.about, self.now).into_iter().cloned().collect();
        let federated = self.all.federated_of(&self.all.all_entries_for(self.about));
        View::of(self.all, self.own.clone(), theirs, federated)
    }

    /// The identities that have not ended, in the order of their entries' IDs.
    pub fn identities(&self) -> Vec<Arc<Identity>> {
        self.all.for_selectors(self.about, self.now).into_iter().cloned().collect()
    }

    /// The entries, whatever became of their X509-SVIDs.
    pub fn entries(&self) -> Vec<&Arc<EntryTerms>> {
        self.all.entries_for(self.about)
    }

    /// How long none of the X509-SVIDs ends; `Err` if there is none.
    pub fn svids_last(&self) -> Result<Duration, Status> {
        self.next_end().ok_or_else(|| match self.all.is_entitled(self.about) {
            true => self.all_expired(),
            false if !self.all.unsigned_for(self.about).is_empty() => Status::unavailable(NOT_SIGNED_YET),
            false => self.no_identity(),
        })
    }

    /// The same of an entry, which does not end by itself.
    pub fn entries_last(&self) -> Result<Duration, Status> {
        if self.entries().is_empty() { Err(self.no_identity()) } else { Ok(NEVER) }
    }

    /// Whether bundles are told whoever asks, as the operator may say: who only verifies others needs no identity. Who has no entry sees the
    /// own trust domain's alone; whether it has none must be known, so that nobody loses those of others for a moment. An agent that is cast
    /// out hears of no new authorities, and answers nobody.
    pub fn are_bundles_for_all(&self) -> Result<bool, Status> {
        let is_meant = self.serving.verifiers().without_identity && self.all.cast_out().is_none();
        if is_meant && self.entries().is_empty() {
            self.expect_known()?;
        }
        Ok(is_meant)
    }

    /// How long none of the X509-SVIDs ends, if there are some.
    pub fn next_end(&self) -> Option<Duration> {
        self.all.next_end(self.about, self.now).map(|end| self.until(end))
    }

    /// The same of all, whatever the hints.
    pub fn next_end_of_all(&self) -> Option<Duration> {
        self.all.next_end_of_all(self.about, self.now).map(|end| self.until(end))
    }

    /// Whether all is known that the caller may have: somebody may not have answered yet.
    pub fn expect_known(&self) -> Result<(), Status> {
        self.attested.expect_asked()?;
        expect_whole(self.all)
    }

    /// Says in the log that the caller has no identity.
    pub fn is_nobody(&self) {
        self.serving.is_nobody(&self.caller.peer, &self.attested.selectors, self.method, self.all);
    }

    /// The refusal of a caller without an identity, said in the log.
    pub fn no_identity(&self) -> Status {
        self.serving.no_identity(&self.caller.peer, self.attested, self.method, self.all)
    }

    /// The same of one that has identities, and asks for another one.
    pub fn not_this_identity(&self, named: &SpiffeId) -> Status {
        self.serving.not_this_identity(&self.caller.peer, self.attested, self.method, (named, self.all))
    }

    /// Says in the log that the caller asked for these names, which it has no entry for.
    pub fn not_theirs(&self, names: &BTreeSet<String>, listed: &str) {
        let held = self.all.entries().find(|terms| names.contains(terms.spiffe_id.as_str()));
        self.serving.not_theirs(&self.caller.peer, &self.attested.selectors, self.method, listed, held);
    }

    fn until(&self, end: i64) -> Duration {
        Duration::from_secs(u64::try_from(end.saturating_sub(self.now)).unwrap_or(0).max(1))
    }

    fn all_expired(&self) -> Status {
        let text = "every identity of this workload has expired and could not be renewed";
        let (uid, pid) = (self.caller.peer.uid(), self.caller.peer.pid());
        if let Some(pass) = self.serving.0.admission.should_log(uid, About::Expired, Instant::now()) {
            warn!(uid, pid, method = self.method, suppressed = pass.suppressed, "{text}");
        }
        Status::unavailable(text)
    }
}
