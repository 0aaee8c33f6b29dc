//! What has been said in the log already, so that it is said once.

use std::collections::BTreeSet;

use ironroot_api::TrustDomain;
use tracing::{error, info};

use super::federation::Lacking;
use crate::server_answers::MAX_ENTRIES;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of how many entries it was said that they are too many.
    left_out: usize,
    /// Of which other trust domains it was said that their bundles are not there.
    lacking: Lacking,
}

impl Told {
    /// Once for each number.
    pub(super) fn left_out(&mut self, left_out: usize) {
        if std::mem::replace(&mut self.left_out, left_out) == left_out {
            return;
        }
        match left_out {
            0 => info!(limit = MAX_ENTRIES, "all entries fit again"),
            _ => error!(
                left_out,
                limit = MAX_ENTRIES,
                "this node has more entries than an agent serves; the newest are left out: delete some, or spread them over nodes"
            ),
        }
    }

    /// Once for each change of what is lacking.
    pub(super) fn lacking(&mut self, lacking: BTreeSet<TrustDomain>) {
        self.lacking.tell(lacking);
    }
}
