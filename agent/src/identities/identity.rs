//! One X509-SVID with the terms of its entry.

use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_attest::SelectorSet;
use prost::bytes::Bytes;

use super::IdentitiesError;
use crate::agent_key::WorkloadKey;
use crate::server_answers::{EntryTerms, WorkloadSvid};

/// An identity that can be served: its certificate is its entry's.
#[derive(Clone, Debug)]
pub struct Identity {
    terms: Arc<EntryTerms>,
    svid: Arc<WorkloadSvid>,
}

impl Identity {
    /// Checks that entry and SVID are for the same ID, and that the entry leaves its key to this agent. What else must be true of an SVID is so once there is one.
    pub fn try_new(terms: Arc<EntryTerms>, svid: Arc<WorkloadSvid>) -> Result<Self, IdentitiesError> {
        if *svid.spiffe_id() != terms.spiffe_id {
            let (entry_id, found) = (terms.id.clone(), svid.spiffe_id().to_string());
            return Err(IdentitiesError::OtherId { entry_id, found });
        }
        if terms.asks_for_hardware_key() {
            return Err(IdentitiesError::KeyInHardware(terms.id.clone()));
        }
        Ok(Self { terms, svid })
    }

    /// The chain and the private key; the selectors alone decide who gets them.
    pub fn svid(&self) -> &Arc<WorkloadSvid> {
        &self.svid
    }

    /// The entry that it comes from.
    pub fn terms(&self) -> &Arc<EntryTerms> {
        &self.terms
    }

    /// The server's ID of the entry that it comes from, which SVIDs are asked for by.
    pub fn entry_id(&self) -> &str {
        &self.terms.id
    }

    /// The SPIFFE ID, the same in entry and certificate.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.terms.spiffe_id
    }

    /// The selectors a workload must have.
    pub fn selectors(&self) -> &SelectorSet {
        &self.terms.selectors
    }

    /// The entry's hint, or empty.
    pub fn hint(&self) -> &str {
        &self.terms.hint
    }

    /// When the entry was created, UNIX seconds.
    pub fn created_at(&self) -> i64 {
        self.terms.created_at
    }

    /// The certificate chain, DER laid end to end, leaf first.
    pub fn chain_der(&self) -> &Bytes {
        self.svid.chain().concatenated()
    }

    /// The leaf's private key.
    pub fn key(&self) -> &WorkloadKey {
        self.svid.key()
    }

    /// Whether a workload that was sent the one sees nothing new in the other.
    pub fn looks_like(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.svid, &other.svid) && self.hint() == other.hint()
    }
}
