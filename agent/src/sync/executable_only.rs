//! Entries that name a program and nobody who runs it: any local user could claim them, so they match nobody.
//!
//! Our server refuses them; SPIRE's, or one that was told to, does not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::identities::Identity;

/// What is done with such entries.
#[derive(Debug)]
pub(super) struct ExecutableOnly {
    allowed: bool,
    /// Entries that were warned of, among those there are: so never more than entries.
    said: Mutex<BTreeSet<String>>,
}

impl ExecutableOnly {
    /// `allowed`: they are like any other.
    pub fn new(allowed: bool) -> Self {
        Self { allowed, said: Mutex::default() }
    }

    /// Those that may match somebody. Warns once of each entry that may not.
    pub fn leave_out<'a>(&self, identities: impl Iterator<Item = &'a Arc<Identity>>) -> Vec<Arc<Identity>> {
        let nobodys = |identity: &&Arc<Identity>| !self.allowed && identity.selectors().names_an_executable_only();
        let (left_out, kept): (Vec<_>, Vec<_>) = identities.partition(nobodys);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<String> = left_out.iter().map(|identity| identity.entry_id().to_owned()).collect();
        for identity in left_out.iter().filter(|identity| !said.contains(identity.entry_id())) {
            warn!(
                entry_id = identity.entry_id(),
                spiffe_id = %identity.spiffe_id(),
                "entry matches nobody: it names a program and no user or unit, so any local user could claim it; add unix:uid or \
                 systemd:id to it, or set allow_executable_only = true in WorkloadAttestor \"unix\""
            );
        }
        *said = now;
        kept.into_iter().cloned().collect()
    }
}
