//! What administrators do with federation relationships, with SPIRE's semantics.

use ironroot_api::TrustDomain;
use ironroot_api::bundle::Bundle;
use ironroot_api::pb::types;

use super::bundles::put;
use super::{Federation, FederationError, MAX_TRUST_DOMAINS};
use crate::facts::federation::{AskedRelationship, FederationRelationship};
use crate::rights::Administrator;
use crate::store::Transaction;

/// A relationship as it is stored now, and the bundle that is held.
pub type Held = (FederationRelationship, Option<Bundle>);

impl Federation {
    /// Adds a relationship with a trust domain that there is none with yet. A bundle that comes along replaces the one that is held.
    pub async fn create_relationship(
        &self,
        _: &Administrator,
        asked: &types::FederationRelationship,
    ) -> Result<Held, FederationError> {
        let AskedRelationship { relationship, bundle } = AskedRelationship::from_pb(asked)?;
        if relationship.trust_domain == *self.store.trust_domain() {
            return Err(FederationError::OwnTrustDomain);
        }
        let create = move |tx: &Transaction<'_>| {
            if tx.relationship(&relationship.trust_domain)?.is_some() {
                return Err(FederationError::RelationshipExists(relationship.trust_domain.clone()));
            }
            if tx.count_relationships()? >= MAX_TRUST_DOMAINS {
                return Err(FederationError::TooMany);
            }
            store(tx, relationship.clone(), bundle.as_ref())
        };
        self.store.change(create).await
    }

    /// Takes the parts that `mask` names (no mask: all) from `asked` into the relationship that is there.
    pub async fn update_relationship(
        &self,
        _: &Administrator,
        asked: &types::FederationRelationship,
        mask: Option<&types::FederationRelationshipMask>,
    ) -> Result<Held, FederationError> {
        let AskedRelationship { relationship, bundle } = AskedRelationship::from_pb(asked)?;
        let bundle = bundle.filter(|_| mask.is_none_or(|mask| mask.trust_domain_bundle));
        let mask = mask.cloned();
        let update = move |tx: &Transaction<'_>| {
            let held = tx.relationship(&relationship.trust_domain)?;
            let (_, held) = held.ok_or(FederationError::NoRelationshipToUpdate)?;
            store(tx, held.updated(relationship.clone(), mask.as_ref()), bundle.as_ref())
        };
        self.store.change(update).await
    }

    /// Removes the relationship. The bundle of the trust domain stays, and becomes old.
    pub async fn delete_relationship(
        &self,
        _: &Administrator,
        trust_domain: &TrustDomain,
    ) -> Result<(), FederationError> {
        let trust_domain = trust_domain.clone();
        let delete = move |tx: &Transaction<'_>| match tx.remove_relationship(&trust_domain)? {
            true => Ok(()),
            false => Err(FederationError::RelationshipNotFound),
        };
        self.store.change(delete).await
    }
}

fn store(
    tx: &Transaction<'_>,
    relationship: FederationRelationship,
    bundle: Option<&Bundle>,
) -> Result<Held, FederationError> {
    if let Some(bundle) = bundle {
        put(tx, bundle)?;
    }
    tx.put_relationship(&relationship)?;
    let bundle = tx.federated_bundle(&relationship.trust_domain)?.map(|(_, bundle)| bundle);
    Ok((relationship, bundle))
}
