//! What has been said in the log already, so that it is said once.

use std::collections::BTreeMap;

use tracing::{error, info, warn};

use super::Ledger;
use super::entries::Undelivered;
use crate::server_answers::MAX_ENTRIES;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of how many entries it was said that they are too many.
    left_out: usize,
    /// Revision of each entry of which it was said what it does not get. Never more than entries.
    undelivered: BTreeMap<String, i64>,
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

    /// Once for each revision of an entry that `ledger` holds.
    pub(super) fn undelivered(&mut self, undelivered: Vec<Undelivered>, ledger: &Ledger) {
        self.undelivered.retain(|entry_id, _| ledger.terms(entry_id).is_some());
        for Undelivered { entry_id, revision_number, what } in undelivered {
            if self.undelivered.get(&entry_id) != Some(&revision_number) {
                warn!(entry_id, what, "this agent does not deliver everything that an entry asks for");
            }
            self.undelivered.insert(entry_id, revision_number);
        }
    }
}
