//! What may be read of the tables, and what a change may do to them.

use std::cell::RefCell;
use std::ops::Deref;

use ironroot_api::TrustDomain;

use super::Session;
use crate::clock::Moment;
use crate::store::{Changed, StoreError};

/// Tables that are empty in a database that was just made, and what their rows are.
const CONTENT: [(&str, &str); 8] = [
    ("entries", "entries"),
    ("agents", "agents"),
    ("join_tokens", "join tokens"),
    ("devices", "devices"),
    ("tier_authorities", "authorities of other servers"),
    ("federated_bundles", "bundles of other trust domains"),
    ("federation_relationships", "federation relationships"),
    ("ca_journals", "a CA"),
];

/// What the database says now. The tables' own files give it its verbs.
pub struct Facts<'c> {
    pub(super) sql: Session<'c>,
    pub(super) trust_domain: &'c TrustDomain,
}

/// An open transaction: facts, and verbs that change them. Each verb notes for the change log what it changed.
pub struct Transaction<'c> {
    facts: Facts<'c>,
    pub(super) moment: Moment,
    noted: RefCell<Vec<Changed>>,
}

impl<'c> Facts<'c> {
    pub(in crate::store) fn new(sql: Session<'c>, trust_domain: &'c TrustDomain) -> Self {
        Self { sql, trust_domain }
    }

    /// What it holds that a server or an operator has put there; none if it was just made.
    pub fn content(&self) -> Result<Option<&'static str>, StoreError> {
        for (table, noun) in CONTENT {
            let any = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            if self.sql.one(&any, &[], |row| row.get(0))? {
                return Ok(Some(noun));
            }
        }
        Ok(None)
    }

    /// The trust domain that this database belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.trust_domain
    }
}

impl<'c> Transaction<'c> {
    pub(in crate::store) fn new(sql: Session<'c>, trust_domain: &'c TrustDomain, moment: Moment) -> Self {
        Self { facts: Facts::new(sql, trust_domain), moment, noted: RefCell::default() }
    }

    /// Writes something that is gone again when the transaction ends well.
    pub(in crate::store) fn leave_no_trace(&self) -> Result<(), StoreError> {
        // No trust domain has such a name.
        self.sql.execute("INSERT INTO about (trust_domain) VALUES ('(probe)')", &[])?;
        self.sql.execute("DELETE FROM about WHERE trust_domain = '(probe)'", &[])?;
        Ok(())
    }

    /// Remembers that this fact is not as it was.
    pub(super) fn note(&self, changed: Changed) {
        self.noted.borrow_mut().push(changed);
    }

    /// The same, unless the verb just before has changed that fact too.
    pub(super) fn note_once(&self, changed: Changed) {
        let is_noted = self.noted.borrow().last() == Some(&changed);
        if !is_noted {
            self.note(changed);
        }
    }

    /// Everything that [`note`](Self::note) was told, for the log of changes, in order.
    pub(in crate::store) fn into_noted(self) -> Vec<Changed> {
        self.noted.into_inner()
    }
}

impl<'c> Deref for Transaction<'c> {
    type Target = Facts<'c>;

    fn deref(&self) -> &Facts<'c> {
        &self.facts
    }
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Facts({})", self.trust_domain)
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction({})", self.trust_domain)
    }
}
