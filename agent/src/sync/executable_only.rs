//! Entries that name a program and nobody who runs it: any local user could claim them, so they match nobody.
//!
//! Our server refuses them; SPIRE's, or one that was told to, does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use ironroot_api::SpiffeId;
use tracing::warn;

use crate::identities::Identity;
use crate::server_answers::EntryTerms;

/// What is done with such entries.
#[derive(Debug)]
pub(super) struct ExecutableOnly {
    allowed: bool,
    /// Entries that were warned of, among those there are: so never more than entries.
    said: BTreeSet<String>,
}

impl ExecutableOnly {
    /// `allowed`: they are like any other.
    pub fn new(allowed: bool) -> Self {
        Self { allowed, said: BTreeSet::new() }
    }

    /// Those that may match somebody, of identities and of entries that nobody has asked for yet. Warns once of each entry that
    /// may not.
    pub fn leave_out<'a>(
        &mut self,
        identities: impl Iterator<Item = &'a Arc<Identity>>,
        unsigned: impl Iterator<Item = &'a Arc<EntryTerms>>,
    ) -> (Vec<Arc<Identity>>, Vec<Arc<EntryTerms>>) {
        let allowed = self.allowed;
        let (nobodys, identities): (Vec<_>, Vec<_>) =
            identities.partition(|identity| !allowed && identity.selectors().names_an_executable_only());
        let (nobodys_too, unsigned): (Vec<_>, Vec<_>) =
            unsigned.partition(|terms| !allowed && terms.selectors.names_an_executable_only());
        let left_out = nobodys.iter().map(|identity| (identity.entry_id(), identity.spiffe_id()));
        self.warn_of(left_out.chain(nobodys_too.iter().map(|terms| (terms.id.as_str(), &terms.spiffe_id))).collect());
        (identities.into_iter().cloned().collect(), unsigned.into_iter().cloned().collect())
    }

    fn warn_of(&mut self, left_out: Vec<(&str, &SpiffeId)>) {
        for (entry_id, spiffe_id) in left_out.iter().filter(|(entry_id, _)| !self.said.contains(*entry_id)) {
            warn!(
                entry_id,
                %spiffe_id,
                "entry matches nobody: it names a program and no user or unit, so any local user could claim it; add unix:uid or \
                 systemd:id to it, or set allow_executable_only = true in WorkloadAttestor \"unix\""
            );
        }
        self.said = left_out.into_iter().map(|(entry_id, _)| entry_id.to_owned()).collect();
    }
}
