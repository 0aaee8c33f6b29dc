//! What administrators do with bundles of other trust domains, with SPIRE's semantics.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::bundle::batch_delete_federated_bundle_request::Mode;
use ironroot_api::pb::types;

use super::{Federation, FederationError, MAX_TRUST_DOMAINS};
use crate::rights::Administrator;
use crate::store::{StoreError, Transaction};

/// What becomes of the entries that ask for a bundle which goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMode {
    /// The bundle stays while there are any.
    Restrict,
    /// They go with it.
    Delete,
    /// They ask for it no more.
    Dissociate,
}

impl DeleteMode {
    /// From the wire; none for a number that means nothing.
    pub fn from_pb(mode: i32) -> Option<Self> {
        Some(match Mode::try_from(mode).ok()? {
            Mode::Restrict => Self::Restrict,
            Mode::Delete => Self::Delete,
            Mode::Dissociate => Self::Dissociate,
        })
    }
}

impl Federation {
    /// Adds the bundle of a trust domain that there is none of yet.
    pub async fn create_bundle(&self, _: &Administrator, bundle: Bundle) -> Result<Bundle, FederationError> {
        let create = move |tx: &Transaction<'_>| {
            if tx.federated_bundle(bundle.trust_domain())?.is_some() {
                return Err(FederationError::BundleExists);
            }
            put(tx, &bundle)?;
            Ok(bundle.clone())
        };
        self.store.change(create).await
    }

    /// Adds the bundle or replaces it.
    pub async fn set_bundle(&self, _: &Administrator, bundle: Bundle) -> Result<Bundle, FederationError> {
        let set = move |tx: &Transaction<'_>| {
            put(tx, &bundle)?;
            Ok(bundle.clone())
        };
        self.store.change(set).await
    }

    /// Takes the parts that `mask` names (no mask: all) from `bundle` into the one that is held.
    pub async fn update_bundle(
        &self,
        _: &Administrator,
        bundle: Bundle,
        mask: Option<&types::BundleMask>,
    ) -> Result<Bundle, FederationError> {
        let mask = mask.cloned();
        let update = move |tx: &Transaction<'_>| {
            let held = tx.federated_bundle(bundle.trust_domain())?.ok_or(FederationError::BundleNotFound)?.1;
            let updated = merged(&held, &bundle, mask.as_ref())?;
            tx.put_federated_bundle(&updated)?;
            Ok(updated)
        };
        self.store.change(update).await
    }

    /// Removes the bundle; `mode` says what becomes of the entries that ask for it. All of that happens, or nothing.
    pub async fn delete_bundle(
        &self,
        _: &Administrator,
        trust_domain: &TrustDomain,
        mode: DeleteMode,
    ) -> Result<(), FederationError> {
        let trust_domain = trust_domain.clone();
        let delete = move |tx: &Transaction<'_>| {
            if tx.federated_bundle(&trust_domain)?.is_none() {
                return Err(FederationError::BundleNotFound);
            }
            let entries = tx.entries_federated_with(&trust_domain)?;
            match mode {
                DeleteMode::Restrict if !entries.is_empty() => {
                    return Err(FederationError::BundleInUse(entries.len()));
                }
                DeleteMode::Restrict => {}
                DeleteMode::Delete => entries.iter().try_for_each(|id| tx.remove_entry(id).map(drop))?,
                DeleteMode::Dissociate => entries.iter().try_for_each(|id| dissociate(tx, id, &trust_domain))?,
            }
            tx.remove_federated_bundle(&trust_domain)?;
            Ok(())
        };
        self.store.change(delete).await
    }
}

/// Adds or replaces, where there is room for one more.
pub(super) fn put(tx: &Transaction<'_>, bundle: &Bundle) -> Result<(), FederationError> {
    let is_new = tx.federated_bundle(bundle.trust_domain())?.is_none();
    if is_new && tx.count_federated_bundles()? >= MAX_TRUST_DOMAINS {
        return Err(FederationError::TooMany);
    }
    Ok(tx.put_federated_bundle(bundle)?)
}

fn dissociate(tx: &Transaction<'_>, entry_id: &str, trust_domain: &TrustDomain) -> Result<(), StoreError> {
    let Some((_, entry)) = tx.entry(entry_id)? else { return Ok(()) };
    tx.replace_entry(&entry.dissociated_from(trust_domain))
}

fn merged(held: &Bundle, from: &Bundle, mask: Option<&types::BundleMask>) -> Result<Bundle, FederationError> {
    let Some(mask) = mask else { return Ok(from.clone()) };
    let (mut merged, from) = (held.to_pb().clone(), from.to_pb());
    macro_rules! take {
        ($($field:ident)*) => { $(if mask.$field { merged.$field.clone_from(&from.$field); })* };
    }
    take!(x509_authorities jwt_authorities refresh_hint sequence_number);
    Ok(Bundle::from_pb(&merged)?)
}
