//! Entries that the Workload API does not show to their workload.

use std::time::Instant;

use ironroot_attest::SelectorSet;
use ironroot_attest::workload::Peer;
use ironroot_shell::logging::clipped;
use tracing::warn;

use super::Serving;
use crate::endpoints::admission::About;
use crate::identities::Identities;

impl Serving {
    /// Says in the log, once in a while, that entries of a caller's are not shown since older ones have the same hint: whoever wrote
    /// them waits for identities that do not come.
    pub fn hides(&self, peer: &Peer, selectors: &SelectorSet, method: &'static str, all: &Identities) {
        let hidden = all.hidden_for(selectors);
        let Some(first) = hidden.first() else { return };
        let (uid, pid) = (peer.uid(), peer.pid());
        let Some(pass) = self.0.admission.should_log(uid, About::Hidden, Instant::now()) else { return };
        let (hint, entry_id, hidden) = (clipped(&first.hint), &first.id, hidden.len());
        let (spiffe_id, suppressed) = (&first.spiffe_id, pass.suppressed);
        // Source of the words: SPIRE.
        warn!(uid, pid, method, %hint, entry_id, %spiffe_id, hidden, suppressed, "Ignoring entry with duplicate hint");
    }
}
