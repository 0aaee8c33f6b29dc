//! Registration entries: bounds, masks, wire form, and the form in which they are stored.
//!
//! ```text
//!  wire entry ── NewEntry::from_pb ──► NewEntry ── register(id, now) ──► RegistrationEntry ── to_pb ──► agents
//!                (every bound, once)                    updated(wire, mask) ──► RegistrationEntry, revision + 1
//!                                                       to_row ──► database ──► from_row (its form, no bounds)
//! ```

mod bounds;
mod dns_name;
mod row;
mod terms;
#[cfg(test)]
mod tests;

use ironroot_attest::SelectorSet;

pub use bounds::{EntryError, MAX_DNS_NAMES, MAX_ENTRY_ID_BYTES, MAX_FEDERATES_WITH, MAX_HINT_BYTES, MAX_SELECTORS};
pub use dns_name::is_dns_name;
pub use row::{EntryRow, EntryRowError, federates_with_of_terms, terms_of_wire_form};

use crate::facts::mask::mask_entry;
use ironroot_api::pb::types;
use ironroot_api::{SpiffeId, TrustDomain};
use terms::Terms;

/// What the path of a parent of entries for tokens of other issuers begins with; the issuer's name follows.
pub const EXCHANGE_PARENTS: &str = "/spire/exchange/";

/// An entry as an operator asks for it: every bound is checked, nothing is stored yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    id: Option<String>,
    terms: Terms,
}

impl NewEntry {
    /// Checks every bound. The ID must belong to `trust_domain`, have a path and stay out of `/spire/`; the parent may be
    /// the server or an agent. Revision number and creation time of the message are not read.
    pub fn from_pb(entry: &types::Entry, trust_domain: &TrustDomain) -> Result<Self, EntryError> {
        let id = if entry.id.is_empty() { None } else { Some(bounds::entry_id(&entry.id)?.to_owned()) };
        Ok(Self { id, terms: Terms::from_pb(entry, trust_domain)? })
    }

    /// The entry ID asked for, if any.
    pub fn requested_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The ID that workloads get.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.terms.spiffe_id
    }

    /// Under whom it is served.
    pub fn parent_id(&self) -> &SpiffeId {
        &self.terms.parent_id
    }

    /// What a process (or a node, for an alias) must have.
    pub fn selectors(&self) -> &SelectorSet {
        &self.terms.selectors
    }

    /// The entry of another server, as old and as often changed as it is there; none if it names no ID.
    pub fn take_over(self, revision_number: i64, created_at: i64) -> Option<RegistrationEntry> {
        Some(RegistrationEntry { id: self.id?, terms: self.terms, revision_number, created_at })
    }

    /// The entry as it is first stored: revision 0. The requested ID wins over `generated_id`.
    pub fn register(self, generated_id: String, now_unix: i64) -> RegistrationEntry {
        let id = self.id.unwrap_or(generated_id);
        RegistrationEntry { id, terms: self.terms, revision_number: 0, created_at: now_unix }
    }
}

/// A registration entry: which SPIFFE ID whoever has these selectors, below this parent, is given, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationEntry {
    id: String,
    terms: Terms,
    revision_number: i64,
    created_at: i64,
}

impl RegistrationEntry {
    /// This entry with the fields that `mask` names taken from `entry` (no mask: all of them), at the next revision.
    /// The ID, the revision number and the creation time of `entry` are not read.
    pub fn updated(
        &self,
        entry: &types::Entry,
        mask: Option<&types::EntryMask>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, EntryError> {
        let merged = match mask {
            Some(mask) => crate::facts::mask::merge_entry(self.to_pb(), entry, mask),
            None => entry.clone(),
        };
        Ok(Self {
            id: self.id.clone(),
            terms: Terms::from_pb(&merged, trust_domain)?,
            revision_number: self.revision_number.saturating_add(1),
            created_at: self.created_at,
        })
    }

    /// This entry without that trust domain's bundle, at the next revision, so that agents take notice.
    pub fn dissociated_from(&self, trust_domain: &TrustDomain) -> Self {
        let mut entry = self.clone();
        entry.terms.federates_with.retain(|other| other != trust_domain);
        entry.revision_number = self.revision_number.saturating_add(1);
        entry
    }

    /// The wire form, all fields.
    pub fn to_pb(&self) -> types::Entry {
        let mut entry = self.terms.to_pb();
        entry.id = self.id.clone();
        entry.revision_number = self.revision_number;
        entry.created_at = self.created_at;
        entry
    }

    /// The wire form, only the fields that `mask` names (no mask: all). The ID is always there.
    pub fn to_pb_masked(&self, mask: Option<&types::EntryMask>) -> types::Entry {
        mask_entry(self.to_pb(), mask)
    }

    /// The entry's own ID, 1 to [`MAX_ENTRY_ID_BYTES`] characters of `a-zA-Z0-9._-`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The ID that workloads get.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.terms.spiffe_id
    }

    /// Under whom it is served: an agent, another entry's SPIFFE ID, or the server (then this is a node alias).
    pub fn parent_id(&self) -> &SpiffeId {
        &self.terms.parent_id
    }

    /// What a process (or a node, for an alias) must have. Never empty.
    pub fn selectors(&self) -> &SelectorSet {
        &self.terms.selectors
    }

    /// Life of an X.509-SVID, seconds; 0 means the server's default.
    pub fn x509_svid_ttl(&self) -> u32 {
        self.terms.x509_svid_ttl
    }

    /// Life of a JWT-SVID, seconds; 0 means the server's default.
    pub fn jwt_svid_ttl(&self) -> u32 {
        self.terms.jwt_svid_ttl
    }

    /// Whether each of its JWT-SVIDs has an ID of its own (`jti`).
    pub fn jwt_svid_include_jti(&self) -> bool {
        self.terms.additional_attributes.is_some_and(|attributes| attributes.jwt_svid_include_jti)
    }

    /// Trust domains whose bundles the workload is given besides its own.
    pub fn federates_with(&self) -> &[TrustDomain] {
        &self.terms.federates_with
    }

    /// Whether the identity may administer the server.
    pub fn admin(&self) -> bool {
        self.terms.admin
    }

    /// Whether the identity is a downstream server's.
    pub fn downstream(&self) -> bool {
        self.terms.downstream
    }

    /// When the entry ends, UNIX seconds; 0 means never.
    pub fn expires_at(&self) -> i64 {
        self.terms.expires_at
    }

    /// DNS names of the X.509-SVID; the first is also its common name.
    pub fn dns_names(&self) -> &[String] {
        &self.terms.dns_names
    }

    /// 0 when created, one more with each update.
    pub fn revision_number(&self) -> i64 {
        self.revision_number
    }

    /// How a workload with several SVIDs tells this one from the others.
    pub fn hint(&self) -> &str {
        &self.terms.hint
    }

    /// When the entry was created, UNIX seconds.
    pub fn created_at(&self) -> i64 {
        self.created_at
    }

    /// Whether `new` would give the same identity to the same holder: same SPIFFE ID, parent and selectors.
    pub fn is_similar_to(&self, new: &NewEntry) -> bool {
        self.terms.spiffe_id == new.terms.spiffe_id
            && self.terms.parent_id == new.terms.parent_id
            && self.terms.selectors == new.terms.selectors
    }
}
