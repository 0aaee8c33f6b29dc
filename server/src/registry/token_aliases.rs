//! The entry that a join token leaves behind: it lives as long as the token's agent, or while the token waits for one.

use crate::facts::entry::RegistrationEntry;
use ironroot_api::SpiffeId;

use crate::store::{StoreError, Transaction};

/// The type of selectors that name an agent.
const SPIFFE_ID: &str = "spiffe_id";

/// Whether the entry has the shape that a join token with an alias gives it, and no other: below an agent, for exactly that
/// agent. Source: SPIRE's `deleteAttestedNodeAndSelectors`.
fn is_token_alias(entry: &RegistrationEntry) -> bool {
    let mut selectors = entry.selectors().iter();
    match (selectors.next(), selectors.next()) {
        (Some(only), None) => only.kind() == SPIFFE_ID && only.value() == entry.parent_id().as_str(),
        _ => false,
    }
}

/// Removes the aliases below an agent that would have joined by a token, or had, and is not there.
pub(super) fn remove_orphaned(tx: &Transaction<'_>, agent: &SpiffeId) -> Result<(), StoreError> {
    if !agent.path().starts_with("/spire/agent/join_token/") || tx.agent(agent)?.is_some() {
        return Ok(());
    }
    for entry in tx.entries_below(agent)?.iter().filter(|entry| is_token_alias(entry)) {
        tx.remove_entry(entry.id())?;
        tracing::info!(
            entry_id = entry.id(), spiffe_id = %entry.spiffe_id(), parent_id = %entry.parent_id(),
            "entry of a join token removed with its agent"
        );
    }
    Ok(())
}
