//! The entry that a join token leaves behind: it ends with the token's agent.

use crate::facts::entry::RegistrationEntry;
use ironroot_api::SpiffeId;

use super::Tables;
use super::entry_table::EntryTable;
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

/// The IDs of the aliases below that agent, which joined by a token.
pub(super) fn of_agent(entries: &EntryTable, agent: &SpiffeId) -> Vec<String> {
    let is_joined = agent.path().starts_with("/spire/agent/join_token/");
    let aliases = entries.children_of(agent).filter(|entry| is_joined && is_token_alias(entry));
    aliases.map(|entry| entry.id().to_owned()).collect()
}

/// Removes those of the entries that still are such aliases; returns their IDs.
pub(super) fn remove(tx: &Transaction<'_>, ids: Vec<String>) -> Result<Vec<String>, StoreError> {
    let mut removed = Vec::new();
    for id in ids {
        if let Some((_, entry)) = tx.entry(&id)?
            && is_token_alias(&entry)
            && tx.remove_entry(&id)?
        {
            tracing::info!(
                entry_id = id, spiffe_id = %entry.spiffe_id(), parent_id = %entry.parent_id(),
                "entry of a join token removed with its agent"
            );
            removed.push(id);
        }
    }
    Ok(removed)
}

/// Takes them out of memory.
pub(super) fn forget(tables: &mut Tables, ids: &[String]) {
    ids.iter().for_each(|id| tables.entries.remove(id));
}
