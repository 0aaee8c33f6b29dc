//! Who may ask for others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use ironroot_api::SpiffeId;
use tonic::Status;
use tracing::warn;

use crate::endpoints::admission::About;
use crate::endpoints::caller::Known;
use crate::endpoints::serving::{Attested, Serving};
use crate::identities::Identities;

/// The `authorized_delegates` of `agent.conf`: SPIFFE IDs whose workloads may. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delegates(Arc<BTreeSet<SpiffeId>>);

impl FromIterator<SpiffeId> for Delegates {
    fn from_iter<I: IntoIterator<Item = SpiffeId>>(ids: I) -> Self {
        Self(Arc::new(ids.into_iter().collect()))
    }
}

/// That a caller has an entry of a delegate, at one moment. Only [`Delegates::admit`] makes one.
pub(in crate::endpoints) struct Delegation(());

impl Delegates {
    /// Whether a caller may ask for others by what is published now. The texts are SPIRE's.
    pub(super) fn admit(
        &self,
        serving: &Serving,
        caller: &Known,
        attested: &Attested,
        all: &Identities,
        method: &'static str,
    ) -> Result<Delegation, Status> {
        let entries = all.all_entries_for(&attested.selectors);
        let Some(first) = entries.first() else {
            return Err(serving.no_identity(&caller.peer, attested, method, all));
        };
        if entries.iter().any(|terms| self.0.contains(&terms.spiffe_id)) {
            return Ok(Delegation(()));
        }
        let (uid, pid) = (caller.peer.uid(), caller.peer.pid());
        if let Some(pass) = serving.admission().should_log(uid, About::Delegate, Instant::now()) {
            let (default_id, suppressed) = (&first.spiffe_id, pass.suppressed);
            warn!(
                uid,
                pid,
                method,
                %default_id,
                num_registered_entries = entries.len(),
                suppressed,
                "Permission denied; caller not configured as an authorized delegate: authorized_delegates names none of its IDs"
            );
        }
        Err(Status::permission_denied("caller not configured as an authorized delegate"))
    }
}
