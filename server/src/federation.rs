//! Other trust domains: their bundles, and where those are fetched from.
//!
//! In memory as the registry is, and changed as it is: decided in a transaction, in force when it is on disk and followed. The bundle
//! of each trust domain is a value of its own; nothing here puts two together.
//!
//! ```text
//!  administrator ── set, delete ──┐
//!  bundle_client ── take_in ───────┼─► store ──► change log ──► table ──► bundle(trust domain), changes()
//!  entries ask for bundles ── a bundle that is asked for does not go without a word
//! ```

mod bundles;
mod fetched;
mod mirror;
mod relationships;
mod table;

use std::sync::{Arc, RwLock, RwLockReadGuard};

use ironroot_api::TrustDomain;
use ironroot_api::bundle::{Bundle, BundleError};
use thiserror::Error;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) use bundles::DISSOCIATED_AT_ONCE;
pub use bundles::DeleteMode;
pub use fetched::{FetchedBundle, TakenIn};
pub use relationships::Held;

use crate::facts::federation::{FederationRelationship, RelationshipError};
use crate::facts::page::{ListPage, Page, PageTokenError};
use crate::store::{Store, StoreError};
use table::Table;

/// Most other trust domains, with a bundle or a relationship. A bundle takes [`MAX_BUNDLE_BYTES`](ironroot_api::bundle::MAX_BUNDLE_BYTES)
/// at most, in memory too: 64 MiB if all are as large.
pub const MAX_TRUST_DOMAINS: i64 = 256;

/// Why something about another trust domain is refused. Where SPIRE has words for it, these are its words.
#[derive(Clone, Debug, Error)]
pub enum FederationError {
    /// A bundle that would be illegal with what is known already.
    #[error("failed to convert bundle")]
    Bundle(#[from] BundleError),
    /// There is no bundle of that trust domain.
    #[error("bundle not found")]
    BundleNotFound,
    /// There is one already.
    #[error("bundle already exists")]
    BundleExists,
    /// So many entries ask for it.
    #[error(
        "failed to delete federated bundle: datastore-sql: cannot delete bundle; federated with {0} registration entries"
    )]
    BundleInUse(usize),
    /// What was asked for is no relationship.
    #[error("failed to convert federation relationship")]
    Relationship(#[from] RelationshipError),
    /// A trust domain does not federate with itself.
    #[error("unable to create federation relationship for server trust domain")]
    OwnTrustDomain,
    /// There is a relationship with that trust domain already.
    #[error("failed to create federation relationship: there is one with trust domain {0:?}")]
    RelationshipExists(TrustDomain),
    /// There is none to change.
    #[error("failed to update federation relationship: unable to fetch federation relationship: record not found")]
    NoRelationshipToUpdate,
    /// There is none.
    #[error("federation relationship not found")]
    RelationshipNotFound,
    /// More other trust domains than a server takes.
    #[error("the server knows {MAX_TRUST_DOMAINS} other trust domains, the most that it takes: remove some")]
    TooMany,
    /// What was fetched is older than what is held, by its trust domain's own count.
    #[error(
        "its sequence number went back from {held} to {}; if its trust domain has begun to count anew, forget the bundle that \
         is held (bundle delete) or replace it (bundle set)",
        if *found == 0 { "none".to_owned() } else { found.to_string() }
    )]
    WentBack {
        /// Of the bundle that is held.
        held: u64,
        /// Of the one that was fetched.
        found: u64,
    },
    /// An administrator was faster than the endpoint.
    #[error("its relationship was deleted or changed while it was fetched: it is left aside")]
    NoLongerManaged,
    /// The page token was not made by this server.
    #[error(transparent)]
    PageToken(#[from] PageTokenError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is known of other trust domains: durable in the store, answered from memory.
#[derive(Debug)]
pub struct Federation {
    store: Store,
    memory: Arc<Memory>,
    /// Relationships of the configuration.
    configured: Vec<Arc<FederationRelationship>>,
}

/// A relationship of a list, and the bundle that is held.
pub type Listed = (Arc<FederationRelationship>, Option<Arc<Bundle>>);

/// What follows the store.
#[derive(Debug)]
struct Memory {
    table: RwLock<Table>,
    changes: watch::Sender<()>,
}

impl Federation {
    /// Reads what the store holds, and follows what becomes of it.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        Self::load_beside(store, Vec::new()).await
    }

    /// The same beside relationships of the configuration, which count instead of stored ones with the same trust domains.
    pub async fn load_beside(store: Store, configured: Vec<FederationRelationship>) -> Result<Self, StoreError> {
        let configured = configured.into_iter().map(Arc::new).collect();
        let memory = Arc::new(Memory { table: RwLock::default(), changes: watch::Sender::new(()) });
        store.follow(mirror::follower(&memory)).await?;
        Ok(Self { store, memory, configured })
    }

    /// Marked whenever a bundle or a relationship has become another.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.memory.changes.subscribe()
    }

    /// The bundle of that trust domain.
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<Bundle>> {
        self.read().bundles.get(trust_domain).cloned()
    }

    /// How many bundles there are.
    pub fn count_bundles(&self) -> usize {
        self.read().bundles.len()
    }

    /// The bundles of a page, in the order in which they came. `page_size` and `page_token` as on the wire.
    pub fn list_bundles(&self, page_size: i32, page_token: &str) -> Result<ListPage<Arc<Bundle>>, FederationError> {
        let page = Page::from_pb(page_size, page_token)?;
        Ok(page.cut(self.read().bundles.behind(page.after).map(|(seq, bundle)| (seq, bundle.clone()))))
    }

    /// The relationship with that trust domain.
    pub fn relationship(&self, trust_domain: &TrustDomain) -> Option<Arc<FederationRelationship>> {
        self.read().relationships.get(trust_domain).cloned()
    }

    /// Every relationship whose bundle is to be fetched: the configuration's, and those stored with other trust domains.
    pub fn managed(&self) -> Vec<Arc<FederationRelationship>> {
        let is_configured = |stored: &FederationRelationship| {
            self.configured.iter().any(|configured| configured.trust_domain == stored.trust_domain)
        };
        let table = self.read();
        let stored = table.relationships.behind(i64::MIN).map(|(_, stored)| stored.clone());
        self.configured.iter().cloned().chain(stored.filter(|stored| !is_configured(stored))).collect()
    }

    /// The relationships of a page, each with the bundle that is held, in the order in which they came.
    pub fn list_relationships(&self, page_size: i32, page_token: &str) -> Result<ListPage<Listed>, FederationError> {
        let page = Page::from_pb(page_size, page_token)?;
        let table = self.read();
        let with_bundle = |(seq, relationship): (i64, &Arc<FederationRelationship>)| {
            (seq, (relationship.clone(), table.bundles.get(&relationship.trust_domain).cloned()))
        };
        Ok(page.cut(table.relationships.behind(page.after).map(with_bundle)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.memory.table.read().expect("no code panics while it holds the table")
    }
}
