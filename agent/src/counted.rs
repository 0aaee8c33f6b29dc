//! What the loop counts of itself, for whoever fetches metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ironroot_shell::telemetry::Calls;

/// Since the start.
#[derive(Debug, Default)]
pub struct Counted {
    /// Attestations.
    pub attested: Calls,
    /// Renewals of the agent's certificate.
    pub renewed: Calls,
    /// Times that the server was asked for entries.
    pub entries: Calls,
    /// Times that it was asked to sign what was due.
    pub svids: Calls,
    /// Times that identities were to be kept on disk.
    pub kept: Calls,
    /// Why the sealed cache was not used at the start, in a word; none if it was, there was none, or it has been written anew.
    cache_refused: Mutex<Option<&'static str>>,
}

impl Counted {
    /// The word about the sealed cache.
    pub fn cache_refused(&self) -> MutexGuard<'_, Option<&'static str>> {
        self.cache_refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
