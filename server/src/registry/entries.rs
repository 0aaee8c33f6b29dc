//! What operators do with entries, with SPIRE's semantics.

use std::sync::Arc;

use crate::facts::agent::selectors_to_pb;
use crate::facts::entry::{NewEntry, RegistrationEntry};
use crate::facts::page::{ListPage, Page};
use crate::registry::EntryFilter;
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::Selector;
use uuid::Uuid;

use super::places::Place;
use super::{Registry, RegistryError, token_aliases};
use crate::rights::{Administrator, CaScope};
use crate::store::{Queued, SLICE, StoreError, Transaction};

/// What became of a new entry.
#[derive(Clone, Debug)]
pub enum Created {
    /// It is in the data store, with its new ID.
    New(Arc<RegistrationEntry>),
    /// This one gives the same identity to the same holder already; nothing was changed.
    Similar(Arc<RegistrationEntry>),
}

impl Registry {
    /// Queues that a new entry is stored, unless a similar one is there. Changes of entries are done in the order in which they
    /// are queued.
    pub async fn create_entry(
        &self,
        _: &Administrator,
        entry: &types::Entry,
        now_unix: i64,
    ) -> Queued<Created, RegistryError> {
        let new = match NewEntry::from_pb(entry, self.trust_domain()) {
            Ok(new) => new,
            Err(error) => return Queued::refused(error.into()),
        };
        let shared = self.shared.clone();
        let create = move |tx: &Transaction<'_>| match add_unless_similar(tx, &new, now_unix)? {
            created @ Created::New(_) => Ok((Some(Place::below(&shared, new.parent_id())?), created)),
            similar @ Created::Similar(_) => Ok((None, similar)),
        };
        self.store.queue(create).await
    }

    /// Queues that the fields that `mask` names (no mask: all) come from `entry` into the stored entry of its ID; the revision
    /// grows. What is wrong with a whole entry is told before whether there is one to change.
    pub async fn update_entry(
        &self,
        _: &Administrator,
        entry: &types::Entry,
        mask: Option<&types::EntryMask>,
    ) -> Queued<Arc<RegistrationEntry>, RegistryError> {
        let (entry, mask, shared) = (entry.clone(), mask.cloned(), self.shared.clone());
        let update = move |tx: &Transaction<'_>| {
            let Some((_, stored)) = tx.entry(&entry.id)? else {
                return Err(no_entry(&entry, mask.as_ref(), tx.trust_domain()));
            };
            let updated = stored.updated(&entry, mask.as_ref(), tx.trust_domain())?;
            if mask.as_ref().is_none_or(|mask| mask.federates_with) {
                refuse_unknown_bundles(tx, &updated)?;
            }
            let moved = Place::moved(&shared, stored.parent_id(), updated.parent_id())?;
            tx.replace_entry(&updated)?;
            Ok((moved, Arc::new(updated)))
        };
        self.store.queue(update).await
    }

    /// Queues that an entry is removed.
    pub async fn delete_entry(&self, _: &Administrator, id: &str) -> Queued<(), RegistryError> {
        let id = id.to_owned();
        let remove = move |tx: &Transaction<'_>| match tx.remove_entry(&id)? {
            true => Ok(((), ())),
            false => Err(RegistryError::EntryNotFound),
        };
        self.store.queue(remove).await
    }

    /// Removes the entries that have ended; returns how many. Agents do not see such entries even before.
    pub async fn prune_expired_entries(&self, now_unix: i64) -> Result<usize, StoreError> {
        self.store.change_in_slices(SLICE, move |tx| tx.remove_expired_entries(now_unix)).await
    }

    /// Stores a join token that is good until `expires_at`. With `agent_alias`, the agent that attests with it also
    /// serves what is registered below that ID; aliases of an earlier token of that value, which left no agent, end. Source:
    /// SPIRE's CreateJoinToken.
    pub async fn create_join_token(
        &self,
        _: &Administrator,
        token: &str,
        expires_at: i64,
        agent_alias: Option<&SpiffeId>,
        now_unix: i64,
    ) -> Result<(), RegistryError> {
        let path = format!("/spire/agent/join_token/{token}");
        let agent_id = self.trust_domain().id_with_path(&path).map_err(RegistryError::Token)?;
        // A slash would make it two segments, and another agent's ID.
        if token.contains('/') {
            return Err(RegistryError::Token(ironroot_api::SpiffeIdError::Path));
        }
        let alias = agent_alias.map(|alias| self.token_alias(&agent_id, alias)).transpose()?;
        let token = token.to_owned();
        let add = move |tx: &Transaction<'_>| {
            if !tx.add_join_token(&token, expires_at)? {
                return Err(RegistryError::TokenTaken);
            }
            token_aliases::remove_orphaned(tx, &agent_id)?;
            alias.iter().try_for_each(|alias| add_unless_similar(tx, alias, now_unix).map(drop))
        };
        self.store.change(add).await
    }

    /// The entry as the memory has it, decoded anew; `None` if there is none of that ID.
    pub fn entry(&self, id: &str) -> Option<Arc<RegistrationEntry>> {
        self.shared.read().entries.get(id).map(|stored| Arc::new(stored.entry()))
    }

    /// The matching entries of a page, in the order of their creation. `page_size` and `page_token` as on the wire.
    pub fn list_entries(
        &self,
        filter: &EntryFilter,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListPage<Arc<RegistrationEntry>>, RegistryError> {
        Ok(self.shared.read().entries.page(filter, Page::from_pb(page_size, page_token)?))
    }

    /// How many entries match.
    pub fn count_entries(&self, filter: &EntryFilter) -> usize {
        self.shared.read().entries.count(filter)
    }

    /// Whether an entry lets this ID administer the server.
    pub fn is_admin(&self, id: &SpiffeId, now_unix: i64) -> bool {
        self.shared.read().entries.with_spiffe_id(id).any(|entry| entry.admin && !entry.is_expired(now_unix))
    }

    /// What for an entry lets this ID have a CA of its own below this server's, if one does. Of several the widest counts.
    pub fn downstream(&self, id: &SpiffeId, now_unix: i64) -> Option<CaScope> {
        let table = self.shared.read();
        let entries = table.entries.with_spiffe_id(id).filter(|entry| entry.downstream && !entry.is_expired(now_unix));
        let mut scopes = entries.map(|entry| scope_of(&entry.entry()));
        let first = scopes.next()?;
        Some(if scopes.any(|scope| scope == CaScope::Server) { CaScope::Server } else { first })
    }

    fn token_alias(&self, agent_id: &SpiffeId, alias: &SpiffeId) -> Result<NewEntry, RegistryError> {
        let selector = Selector::new("spiffe_id", agent_id.as_str()).expect("a SPIFFE ID is a legal selector value");
        let entry = types::Entry {
            spiffe_id: Some(alias.to_pb()),
            parent_id: Some(agent_id.to_pb()),
            selectors: selectors_to_pb(&[selector].into_iter().collect()),
            ..types::Entry::default()
        };
        Ok(NewEntry::from_pb(&entry, self.trust_domain())?)
    }
}

/// By the selector that only agents' own CAs have.
fn scope_of(entry: &RegistrationEntry) -> CaScope {
    match entry.selectors().is_of_local_authority() {
        true => CaScope::LocalAuthority,
        false => CaScope::Server,
    }
}

fn add_unless_similar(tx: &Transaction<'_>, new: &NewEntry, now_unix: i64) -> Result<Created, RegistryError> {
    if let Some((_, existing)) = tx.entry_similar_to(new)? {
        return Ok(Created::Similar(Arc::new(existing)));
    }
    if let Some(id) = new.requested_id()
        && tx.entry(id)?.is_some()
    {
        return Err(RegistryError::EntryIdTaken);
    }
    let entry = new.clone().register(Uuid::new_v4().to_string(), now_unix);
    refuse_unknown_bundles(tx, &entry)?;
    tx.add_entry(&entry)?;
    Ok(Created::New(Arc::new(entry)))
}

/// Why nothing is changed where there is no entry of that ID: what is wrong with a whole one is told before that, as at SPIRE.
fn no_entry(entry: &types::Entry, mask: Option<&types::EntryMask>, trust_domain: &TrustDomain) -> RegistryError {
    let anew = types::Entry { id: String::new(), ..entry.clone() };
    match mask.map_or_else(|| NewEntry::from_pb(&anew, trust_domain).map(drop), |_| Ok(())) {
        Err(error) => error.into(),
        Ok(()) => RegistryError::EntryNotFound,
    }
}

/// An agent cannot serve an entry that asks for a bundle which the server does not have.
fn refuse_unknown_bundles(tx: &Transaction<'_>, entry: &RegistrationEntry) -> Result<(), RegistryError> {
    for trust_domain in entry.federates_with().iter().filter(|td| *td != tx.trust_domain()) {
        if tx.federated_bundle(trust_domain)?.is_none() {
            return Err(RegistryError::UnknownBundle(trust_domain.clone()));
        }
    }
    Ok(())
}
