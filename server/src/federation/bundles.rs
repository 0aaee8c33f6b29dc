//! What administrators do with bundles of other trust domains, with SPIRE's semantics.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::bundle::batch_delete_federated_bundle_request::Mode;
use ironroot_api::pb::types;

use super::{Federation, FederationError, MAX_TRUST_DOMAINS};
use crate::rights::Administrator;
use crate::store::{SLICE, Transaction};

/// Entries that one transaction has ask for a bundle no more, at most: an answer of the database each, so that others wait for half a second of
/// their three where that is 10 ms away.
pub(crate) const DISSOCIATED_AT_ONCE: i64 = 50;

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

    /// Removes the bundle; `mode` says what becomes of the entries that ask for it. Many go slice by slice, and the bundle with the last of
    /// them: each slice whole or not at all, and what is broken off in between goes on when it is asked for again.
    pub async fn delete_bundle(
        &self,
        _: &Administrator,
        trust_domain: &TrustDomain,
        mode: DeleteMode,
    ) -> Result<(), FederationError> {
        let trust_domain = trust_domain.clone();
        let slice = if mode == DeleteMode::Dissociate { DISSOCIATED_AT_ONCE } else { SLICE };
        let delete = move |tx: &Transaction<'_>| {
            if tx.federated_bundle(&trust_domain)?.is_none() {
                return Err(FederationError::BundleNotFound);
            }
            let cleared = match mode {
                DeleteMode::Restrict => refuse_in_use(tx, &trust_domain)?,
                DeleteMode::Delete => tx.remove_entries_federated_with(&trust_domain)?,
                DeleteMode::Dissociate => tx.dissociate_entries(&trust_domain, slice)?,
            };
            if cleared < slice as usize {
                tx.remove_federated_bundle(&trust_domain)?;
            }
            Ok(cleared)
        };
        self.store.change_in_slices(slice, delete).await.map(drop)
    }
}

/// No entries, or the refusal.
fn refuse_in_use(tx: &Transaction<'_>, trust_domain: &TrustDomain) -> Result<usize, FederationError> {
    match tx.count_entries_federated_with(trust_domain)? {
        0 => Ok(0),
        many => Err(FederationError::BundleInUse(many)),
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

fn merged(held: &Bundle, from: &Bundle, mask: Option<&types::BundleMask>) -> Result<Bundle, FederationError> {
    let Some(mask) = mask else { return Ok(from.clone()) };
    let (mut merged, from) = (held.to_pb().clone(), from.to_pb());
    macro_rules! take {
        ($($field:ident)*) => { $(if mask.$field { merged.$field.clone_from(&from.$field); })* };
    }
    take!(x509_authorities jwt_authorities refresh_hint sequence_number);
    Ok(Bundle::from_pb(&merged)?)
}
