//! What the loop counts of itself, for whoever fetches metrics.

use std::sync::OnceLock;

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
    /// Why the sealed cache was not used at the start, in a word; none if it was, or there was none.
    pub cache_refused: OnceLock<&'static str>,
}
