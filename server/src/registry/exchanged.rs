//! Which entry a token of another issuer is exchanged for.

use std::collections::BTreeSet;
use std::sync::Arc;

use ironroot_api::SpiffeId;

use super::stored_entry::StoredEntry;
use super::{AuthorizedEntry, Registry};
use crate::token_exchange::{ProvenToken, TokenRefusal};

impl Registry {
    /// The entry of the identity that the token may have, of several the `wanted` one. Of entries that give the same identity the oldest
    /// counts. Identities with rights at this server are nobody's, and stand in no other's way: also one that has its rights by another
    /// entry, or by the configuration, which is for `has_rights` to say.
    pub fn exchange(
        &self,
        token: &ProvenToken,
        wanted: Option<&SpiffeId>,
        has_rights: impl Fn(&SpiffeId) -> bool,
        now_unix: i64,
    ) -> Result<AuthorizedEntry, TokenRefusal> {
        let matching = self.for_token(token, now_unix);
        let named = |entry: &&Arc<StoredEntry>| wanted.is_none_or(|wanted| entry.spiffe_id() == *wanted);
        let choice: Vec<&Arc<StoredEntry>> = matching.iter().filter(named).collect();
        let ids: BTreeSet<SpiffeId> = choice.iter().map(|entry| entry.spiffe_id()).collect();
        let with_rights: BTreeSet<SpiffeId> = ids.into_iter().filter(has_rights).collect();
        let plain = choice.into_iter().filter(|entry| !with_rights.contains(&entry.spiffe_id()));
        let plain: Vec<&Arc<StoredEntry>> = plain.collect();
        let ids: BTreeSet<SpiffeId> = plain.iter().map(|entry| entry.spiffe_id()).collect();
        if ids.len() > 1 {
            return Err(TokenRefusal::Ambiguous(ids.into_iter().collect()));
        }
        match plain.into_iter().min_by_key(|entry| (entry.created_at, entry.id())) {
            Some(oldest) => Ok(AuthorizedEntry::of(oldest.clone())),
            None => Err(with_rights
                .into_iter()
                .next()
                .map_or_else(|| none(token, wanted.filter(|_| !matching.is_empty())), TokenRefusal::Privileged)),
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
