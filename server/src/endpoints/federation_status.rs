//! What is refused about other trust domains, as callers hear it.

use ironroot_shell::command_line::describe;
use tonic::Status;

use super::store_status;
use crate::federation::FederationError;

/// Whose fault decides the code; where SPIRE says Internal of the caller's mistake, so does this: scripts know it.
pub(super) fn federation_status(error: FederationError) -> Status {
    use FederationError::{
        Bundle, BundleExists, BundleInUse, BundleNotFound, NoLongerManaged, NoRelationshipToUpdate, OwnTrustDomain,
        PageToken, Relationship, RelationshipExists, RelationshipNotFound, Store, TooMany, WentBack,
    };
    let words = describe(&error);
    match error {
        BundleNotFound | RelationshipNotFound => Status::not_found(words),
        BundleExists => Status::already_exists(words),
        BundleInUse(_) | NoLongerManaged | WentBack { .. } => Status::failed_precondition(words),
        Bundle(_) | Relationship(_) | OwnTrustDomain | PageToken(_) => Status::invalid_argument(words),
        RelationshipExists(_) | NoRelationshipToUpdate => Status::internal(words),
        TooMany => Status::resource_exhausted(words),
        Store(cause) => store_status(cause),
    }
}
