//! What an operator decides about an entry: everything but its ID, revision and age.

use ironroot_attest::SelectorSet;

use super::{EntryError, bounds};
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub spiffe_id: SpiffeId,
    pub parent_id: SpiffeId,
    pub selectors: SelectorSet,
    pub x509_svid_ttl: u32,
    pub jwt_svid_ttl: u32,
    pub federates_with: Vec<TrustDomain>,
    pub admin: bool,
    pub downstream: bool,
    pub expires_at: i64,
    pub dns_names: Vec<String>,
    pub store_svid: bool,
    pub hint: String,
    pub additional_attributes: Option<types::entry::AdditionalAttributes>,
}

impl Terms {
    pub fn from_pb(entry: &types::Entry, trust_domain: &TrustDomain) -> Result<Self, EntryError> {
        let terms = Self {
            spiffe_id: bounds::spiffe_id(entry.spiffe_id.as_ref(), trust_domain)?,
            parent_id: bounds::parent_id(entry.parent_id.as_ref(), trust_domain)?,
            selectors: bounds::selectors(&entry.selectors)?,
            x509_svid_ttl: bounds::seconds(entry.x509_svid_ttl, "X.509-SVID TTL")?,
            jwt_svid_ttl: bounds::seconds(entry.jwt_svid_ttl, "JWT-SVID TTL")?,
            federates_with: bounds::federates_with(&entry.federates_with)?,
            admin: entry.admin,
            downstream: entry.downstream,
            expires_at: bounds::not_negative(entry.expires_at, "entry expiry")?,
            dns_names: bounds::dns_names(&entry.dns_names)?,
            store_svid: entry.store_svid,
            hint: bounds::hint(&entry.hint)?.to_owned(),
            additional_attributes: entry.additional_attributes,
        };
        if terms.store_svid {
            bounds::one_type(&terms.selectors)?;
        }
        Ok(terms)
    }

    /// The wire form; ID, revision number and creation time are left empty.
    pub fn to_pb(&self) -> types::Entry {
        types::Entry {
            id: String::new(),
            spiffe_id: Some(self.spiffe_id.to_pb()),
            parent_id: Some(self.parent_id.to_pb()),
            selectors: crate::facts::agent::selectors_to_pb(&self.selectors),
            x509_svid_ttl: as_i32(self.x509_svid_ttl),
            federates_with: self.federates_with.iter().map(|td| td.as_str().to_owned()).collect(),
            admin: self.admin,
            downstream: self.downstream,
            expires_at: self.expires_at,
            dns_names: self.dns_names.clone(),
            revision_number: 0,
            store_svid: self.store_svid,
            jwt_svid_ttl: as_i32(self.jwt_svid_ttl),
            hint: self.hint.clone(),
            created_at: 0,
            additional_attributes: self.additional_attributes,
        }
    }
}

/// What the wire cannot say is the most that it can.
fn as_i32(seconds: u32) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
