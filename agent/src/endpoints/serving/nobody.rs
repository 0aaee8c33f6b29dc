//! A caller without an identity: what it is told, and what the log says.

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::SpiffeId;
use ironroot_attest::workload::Peer;
use ironroot_attest::{Selector, SelectorSet};
use ironroot_shell::logging::clipped;
use tonic::Status;
use tracing::warn;

use super::{Attested, Serving};
use crate::endpoints::admission::About;
use crate::endpoints::shown::shown;
use crate::identities::Identities;
use crate::server_answers::EntryTerms;

/// Selectors written into one line of the log; a process may have a thousand.
const MAX_LOGGED_SELECTORS: usize = 24;

/// What a caller lacks whose entry's SVID is there.
const NOT_THAT_WAY: &str = "nothing: its SVID is signed, and not handed out by this method";
/// What a caller lacks whose entry asks for a key in hardware.
const KEY_IN_HARDWARE: &str =
    "a key in hardware: no API hands one out; ironroot-agent deliver has one certified (-pkcs11, -tpm)";

impl Serving {
    /// The client waits and tries again, mostly without a word; so the reason stands here. SPIRE's words come first, so
    /// that who searches logs for them finds it.
    pub fn no_identity(&self, peer: &Peer, caller: &Attested, method: &'static str, all: &Identities) -> Status {
        if let Err(unasked) = caller.expect_asked() {
            return unasked;
        }
        self.nothing_for(peer, &caller.selectors, method, all)
    }

    /// The same of selectors that nothing is missing of.
    pub fn nothing_for(&self, peer: &Peer, selectors: &SelectorSet, method: &'static str, all: &Identities) -> Status {
        if let Err(early) = expect_whole(all) {
            return early;
        }
        self.is_nobody(peer, selectors, method, all);
        //= WLA-14 SPIFFE Workload API 5.2.1: "the server SHOULD respond with the "PermissionDenied" gRPC status code"
        Status::permission_denied("no identity issued")
    }

    /// Says in the log that a caller has no identity.
    pub fn is_nobody(&self, peer: &Peer, selectors: &SelectorSet, method: &'static str, all: &Identities) {
        let (uid, pid) = (peer.uid(), peer.pid());
        if let Some(pass) = self.0.admission.should_log(uid, About::NoIdentity, Instant::now()) {
            let (nearest, lacks) = self.nearest(all, selectors);
            let selectors = self.listed(selectors);
            let suppressed = pass.suppressed;
            warn!(uid, pid, method, registered = false, %selectors, %nearest, %lacks, suppressed, "No identity issued");
        }
    }

    /// The refusal of a caller that has identities, and asks for another one.
    pub fn not_this_identity(
        &self,
        peer: &Peer,
        caller: &Attested,
        method: &'static str,
        (named, all): (&SpiffeId, &Identities),
    ) -> Status {
        if let Err(unasked) = caller.expect_asked() {
            return unasked;
        }
        let held = all.entries().find(|terms| terms.spiffe_id == *named);
        self.not_theirs(peer, &caller.selectors, method, &clipped(named.as_str()).to_string(), held);
        Status::permission_denied("no identity issued")
    }

    /// Says that a caller asked for `names`, which are not its own; one of them is of the entry `held`, whose selectors it has not all.
    pub fn not_theirs(
        &self,
        peer: &Peer,
        selectors: &SelectorSet,
        method: &'static str,
        names: &str,
        held: Option<&Arc<EntryTerms>>,
    ) {
        let (uid, pid) = (peer.uid(), peer.pid());
        let Some(pass) = self.0.admission.should_log(uid, About::Secrets, Instant::now()) else { return };
        let (nearest, lacks) =
            held.map_or(("none: this agent holds no entry of these names", String::new()), |terms| {
                let lacking: Vec<_> = terms.selectors.iter().filter(|selector| !selectors.contains(selector)).collect();
                (terms.spiffe_id.as_str(), self.listed(lacking))
            });
        let (selectors, suppressed) = (self.listed(selectors), pass.suppressed);
        warn!(uid, pid, method, %names, %selectors, %nearest, %lacks, suppressed, "asked for what is not its own");
    }

    /// The entry that comes nearest to being the caller's, and what is lacking.
    fn nearest<'a>(&self, all: &'a Identities, selectors: &SelectorSet) -> (&'a str, String) {
        let held = all.held_for(selectors);
        if let Some(first) = held.iter().find(|held| held.end.is_none()).or(held.first()) {
            let is_signed = first.end.is_some();
            let lacks = if is_signed { NOT_THAT_WAY } else { "nothing: its SVID is not signed yet" };
            return (first.terms.spiffe_id.as_str(), lacks.to_owned());
        }
        if let Some(terms) = all.hardware_entries_for(selectors).first() {
            return (terms.spiffe_id.as_str(), KEY_IN_HARDWARE.to_owned());
        }
        let Some(nearest) = all.nearest(selectors) else { return ("none: this agent holds no entry", String::new()) };
        (nearest.terms.spiffe_id.as_str(), self.listed(nearest.lacks))
    }

    /// Selectors for a line of the log; of those that `log_selectors` leaves out, how many they are.
    fn listed<'a>(&self, selectors: impl IntoIterator<Item = &'a Selector>) -> String {
        let logged = &self.0.logged_selectors;
        let (logged, left_out): (Vec<_>, Vec<_>) = selectors.into_iter().partition(|one| logged.has(one));
        let more = logged.len().saturating_sub(MAX_LOGGED_SELECTORS);
        let mut parts: Vec<String> = logged.into_iter().take(MAX_LOGGED_SELECTORS).map(shown).collect();
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        if !left_out.is_empty() {
            parts.push(format!("({} left out by log_selectors)", left_out.len()));
        }
        parts.join(" ")
    }
}

/// Refuses to say that somebody has nothing while a server that may have something has not been heard.
pub(super) fn expect_whole(all: &Identities) -> Result<(), Status> {
    match all.is_partial() {
        true => Err(Status::unavailable(
            "one of this agent's servers has not answered yet: it may have an identity for this workload",
        )),
        false => Ok(()),
    }
}
