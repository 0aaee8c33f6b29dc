//! Whose a backup is, as far as a file can tell: the roots that it would have everybody believe, and who would be an administrator by it.
//!
//! Roots are known to all the world: that they are the same proves nothing about who made the file; that none is, says that it is of another
//! server.

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use ironroot_api::TrustDomain;
use ironroot_text::hex::hex;
use serde::Serialize;

use super::error::BackupError;
use super::restoring::sweep_beside;
use crate::ca::{Journal, ServerName};
use crate::facts::tier::{TierCredential, TierOrigin};
use crate::store::{Facts, Location, Store, StoreError};

/// What a database would have believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// SHA-256 of the roots' certificates, hexadecimal: those of every CA's journal, and of the authority above.
    roots: BTreeSet<String>,
    /// SPIFFE IDs of entries that are `admin`.
    administrators: BTreeSet<String>,
}

/// A backup beside what is in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// SHA-256 of the certificates of the backup's roots, hexadecimal.
    pub roots: BTreeSet<String>,
    /// Of those in the data store's place.
    pub roots_here: BTreeSet<String>,
    /// SPIFFE IDs that would be administrators' by an entry of the backup, and are not here.
    pub new_administrators: BTreeSet<String>,
}

impl Standing {
    /// Of what is read.
    fn of(facts: &Facts<'_>, trust_domain: &TrustDomain) -> Result<Self, StoreError> {
        let mut standing = Self::default();
        for (server, journal) in facts.ca_journals()? {
            // The server without a name has an empty one.
            let server = server.parse::<ServerName>().unwrap_or_default();
            let journal = Journal::from_bytes(&journal, trust_domain, &server).ok();
            let anchors = journal.iter().flat_map(Journal::anchors);
            let certificates = anchors.filter_map(|authority| authority.credential.certificate());
            standing.roots.extend(certificates.map(|root| fingerprint(root.der())));
        }
        for told in facts.tier_authorities()?.authorities {
            if let (TierOrigin::Above, TierCredential::Certificate(der)) = (&told.origin, &told.credential) {
                standing.roots.insert(fingerprint(der));
            }
        }
        facts.each_entry(&mut |_, entry| {
            if entry.admin() {
                standing.administrators.insert(entry.spiffe_id().to_string());
            }
        })?;
        Ok(standing)
    }

    /// Of the database in its place, a server's that may be running; nothing if there is none that can be read.
    pub(super) fn here(data_store: &Location, trust_domain: &TrustDomain) -> Self {
        let Location::Sqlite(path) = data_store else { return Self::default() };
        Store::read_file(path, trust_domain, |facts| Self::of(facts, trust_domain)).unwrap_or_default()
    }

    /// Of a backup's database, which is nobody's yet: its tables become today's.
    pub(super) async fn of_draft(path: &Path, trust_domain: &TrustDomain) -> Result<Self, BackupError> {
        let store = Store::open(path, trust_domain).map_err(BackupError::Place)?;
        let domain = trust_domain.clone();
        let standing = store.change::<_, StoreError>(move |tx| Self::of(tx, &domain)).await;
        store.close().await;
        sweep_beside(path);
        standing.map_err(BackupError::Place)
    }

    /// Beside what is here.
    pub(super) fn beside(self, here: Self) -> Origin {
        let new_administrators = self.administrators.difference(&here.administrators).cloned().collect();
        Origin { roots: self.roots, roots_here: here.roots, new_administrators }
    }
}

impl Origin {
    /// Whether it is another server's: there are roots here, and the backup has none of them.
    pub fn is_anothers(&self) -> bool {
        !self.roots_here.is_empty() && self.roots.is_disjoint(&self.roots_here)
    }
}

fn fingerprint(der: &[u8]) -> String {
    hex(digest(&SHA256, der).as_ref())
}
