//! What a change may do to the tables.

use ironroot_api::TrustDomain;
use rusqlite::Connection;

/// An open transaction. The tables' own files give it its verbs.
pub struct Transaction<'c> {
    pub(super) connection: &'c Connection,
    pub(super) trust_domain: &'c TrustDomain,
}

impl<'c> Transaction<'c> {
    pub(super) fn new(connection: &'c Connection, trust_domain: &'c TrustDomain) -> Self {
        Self { connection, trust_domain }
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction({})", self.trust_domain)
    }
}
