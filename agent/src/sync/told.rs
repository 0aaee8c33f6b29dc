//! What has been said in the log already, so that it is said once.

use std::collections::{BTreeMap, BTreeSet};

use ironroot_api::TrustDomain;
use tracing::{error, info, warn};

use super::federation::{Lacking, Unheard};
use crate::server_answers::MAX_ENTRIES;
use crate::trusted_time::utc;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of how many entries it was said that they are too many.
    left_out: usize,
    /// Of which other trust domains it was said that their bundles are not there.
    lacking: Lacking,
    /// Why others are not taken.
    unheard: Unheard,
    /// When the newest authority began of the placed bundle of which it was said that it is older than what was held.
    older: Option<i64>,
    /// Why there is no configured bundle while the server is not believed.
    no_other_bundle: Option<String>,
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

    /// Once for each placed bundle.
    pub(super) fn placed_is_older(&mut self, began: i64, newest: i64) {
        if self.older.replace(began) != Some(began) {
            warn!(
                began = utc(began),
                newest = utc(newest),
                "the server is not believed, and the configured bundle is not taken instead: its authorities began no later than one that this \
                 agent has held. If it is kept up to date, set rebootstrap_mode; if that one began under a wrong clock, stop the agent, \
                 remove data_dir, and start it"
            );
        }
    }

    /// Once for each reason.
    pub(super) fn no_other_bundle(&mut self, error: String) {
        if self.no_other_bundle.as_ref() != Some(&error) {
            warn!(
                error,
                "the server is not believed, and the configured trust bundle cannot be had: what is held goes on being served"
            );
        }
        self.no_other_bundle = Some(error);
    }

    /// What was told of it is over.
    pub(super) fn another_bundle_is_there(&mut self) {
        self.no_other_bundle = None;
    }

    /// Of each trust domain once for each reason.
    pub(super) fn unheard(&mut self, unheard: BTreeMap<TrustDomain, String>) {
        self.unheard.tell(unheard);
    }

    /// Once for each change of what is lacking.
    pub(super) fn lacking(&mut self, lacking: BTreeSet<TrustDomain>) {
        self.lacking.tell(lacking);
    }
}
