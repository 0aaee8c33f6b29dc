//! Which entry a token of another issuer is exchanged for.

use std::sync::Arc;

use ironroot_api::SpiffeId;

use super::stored_entry::StoredEntry;
use super::{AuthorizedEntry, Registry};
use crate::token_exchange::{ProvenToken, TokenRefusal};

impl Registry {
    /// The entry of the identity that the token may have, of several the `wanted` one. Of entries that give the same identity the oldest
    /// counts. Those with rights at this server are nobody's.
    pub fn exchange(
        &self,
        token: &ProvenToken,
        wanted: Option<&SpiffeId>,
        now_unix: i64,
    ) -> Result<AuthorizedEntry, TokenRefusal> {
        let matching = self.for_token(token, now_unix);
        let named = |wanted: &SpiffeId| matching.iter().filter(|entry| entry.spiffe_id() == *wanted).collect();
        let choice: Vec<&Arc<StoredEntry>> = wanted.map_or_else(|| matching.iter().collect(), named);
        let Some(oldest) = choice.iter().min_by_key(|entry| (entry.created_at, entry.id())) else {
            return Err(none(token, wanted.filter(|_| !matching.is_empty())));
        };
        let mut ids: Vec<SpiffeId> = choice.iter().map(|entry| entry.spiffe_id()).collect();
        ids.sort();
        ids.dedup();
        if ids.len() > 1 {
            return Err(TokenRefusal::Ambiguous(ids));
        }
        match choice.iter().any(|entry| entry.admin || entry.downstream) {
            true => Err(TokenRefusal::Privileged(oldest.spiffe_id())),
            false => Ok(AuthorizedEntry::of((*oldest).clone())),
        }
    }

    fn for_token(&self, token: &ProvenToken, now_unix: i64) -> Vec<Arc<StoredEntry>> {
        let tables = self.shared.read();
        let matching = tables.entries.for_token(token.parent(), token.selectors());
        matching.filter(|entry| !entry.is_expired(now_unix)).cloned().collect()
    }
}

fn none(token: &ProvenToken, wanted: Option<&SpiffeId>) -> TokenRefusal {
    let parent = token.parent().clone();
    match wanted {
        Some(wanted) => TokenRefusal::NotThisOne { parent, wanted: wanted.to_string() },
        None => TokenRefusal::NoEntry { parent, said: token.subject().to_owned() },
    }
}
