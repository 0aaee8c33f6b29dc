//! What was fetched from a bundle endpoint, and whether it takes the place of what is held.

use ironroot_api::bundle::{Bundle, DocumentError, ReadBundle};

use super::bundles::put;
use super::{Federation, FederationError};
use crate::facts::federation::FederationRelationship;
use crate::store::Transaction;

/// The bundle of a relationship's trust domain, from a document that its endpoint showed. Only [`FetchedBundle::read`] makes one.
#[derive(Clone, Debug)]
pub struct FetchedBundle {
    relationship: FederationRelationship,
    read: ReadBundle,
}

impl FetchedBundle {
    /// Reads the document: whatever it says, it is the bundle of the trust domain that the relationship is with, and no other's.
    //= FED-05 SPIFFE Federation 4.2: "it is very important to ensure that bundles received from foreign trust domains be kept distinct"
    pub fn read(relationship: &FederationRelationship, document: &[u8]) -> Result<Self, DocumentError> {
        let read = Bundle::from_document(relationship.trust_domain.clone(), document)?;
        Ok(Self { relationship: relationship.clone(), read })
    }
}

/// What a fetched bundle came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenIn {
    /// It is the one that is held.
    Same,
    /// It has taken that one's place.
    New {
        /// Keys of its document that nobody here knows the use of.
        passed_over: usize,
        /// Whether nobody is believed any more.
        is_empty: bool,
    },
}

impl Federation {
    /// Takes the bundle in, unless it is older than the one that is held by the count of its own trust domain, or its relationship is
    /// another one by now, or gone: a fetch may last, and what was deleted meanwhile stays deleted.
    pub async fn take_in(&self, fetched: FetchedBundle) -> Result<TakenIn, FederationError> {
        let FetchedBundle { relationship, read: ReadBundle { bundle, passed_over } } = fetched;
        let configured = self.configured.iter().find(|one| one.trust_domain == relationship.trust_domain).cloned();
        let take = move |tx: &Transaction<'_>| {
            require_managed(tx, &relationship, configured.as_deref())?;
            let held = tx.federated_bundle(bundle.trust_domain())?.map(|(_, held)| held);
            if held.as_ref() == Some(&bundle) {
                return Ok(TakenIn::Same);
            }
            refuse_older(held.as_ref(), &bundle)?;
            put(tx, &bundle)?;
            Ok(TakenIn::New { passed_over, is_empty: bundle.is_empty() })
        };
        self.store.change(take).await
    }
}

/// What the configuration says of a trust domain counts before what is stored.
fn require_managed(
    tx: &Transaction<'_>,
    relationship: &FederationRelationship,
    configured: Option<&FederationRelationship>,
) -> Result<(), FederationError> {
    let is_managed = match configured {
        Some(configured) => configured == relationship,
        None => tx.relationship(&relationship.trust_domain)?.is_some_and(|(_, stored)| stored == *relationship),
    };
    is_managed.then_some(()).ok_or(FederationError::NoLongerManaged)
}

/// A trust domain that does not count has no older and newer: of those that it shows the last one counts. One that has counted goes on:
/// whoever may answer in its name puts back what it has revoked otherwise, by leaving the number out.
//= FED-04 SPIFFE Federation 4.2: "SHOULD be used when comparing the freshness or ordering of two trust bundles"
fn refuse_older(held: Option<&Bundle>, found: &Bundle) -> Result<(), FederationError> {
    let (held, found) = (held.map_or(0, Bundle::sequence_number), found.sequence_number());
    if found < held { Err(FederationError::WentBack { held, found }) } else { Ok(()) }
}
