//! Fetches the bundles of other trust domains from where they are shown.
//!
//! ```text
//!  relationships (configuration, administrators) ─► Poller: one fetch at a time for each, when it is due or asked for
//!     ─► fetch: connect, prove the endpoint, GET, within bounds ─► FetchedBundle ─► Federation::take_in (never back) ─► store
//! ```
//! A peer that is hostile costs a bounded fetch now and then, and a line in the log: its own trust domain's bundle stays as it is.
//! Source: SPIFFE Federation §5; pace and words are SPIRE's where nothing else is said.

mod fetched;
mod pace;
mod poller;

use ironroot_api::TrustDomain;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use crate::web_fetch as fetch;
pub use fetch::FetchError;
pub use fetched::Fetched;
pub use poller::Poller;

use crate::federation::FederationError;

/// Wishes for a fetch that may wait: administrators make them.
const MAX_WISHES: usize = 64;

/// Why a bundle was not fetched, or not taken.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// It could not be had.
    #[error("failed to fetch federated bundle from endpoint")]
    Fetch(#[from] FetchError),
    /// It was not taken.
    #[error("failed to store fetched federated bundle")]
    Store(#[from] FederationError),
    /// The fetch was broken off, as when the server stops.
    #[error("the fetch was broken off")]
    BrokenOff,
}

/// Why a bundle that an administrator wants refreshed is not.
#[derive(Debug, Error)]
pub enum RefreshError {
    /// Nobody said where that trust domain shows its bundle. Source of the words: SPIRE.
    #[error("no relationship with trust domain {:?}", .0.as_str())]
    NoRelationship(TrustDomain),
    /// It was tried.
    #[error("failed to refresh bundle")]
    Failed(#[from] UpdateError),
}

/// Asks the [`Poller`] for a fetch at once. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Refresher(mpsc::Sender<Wish>);

/// An administrator waits for the outcome.
#[derive(Debug)]
struct Wish {
    trust_domain: TrustDomain,
    outcome: oneshot::Sender<Result<(), RefreshError>>,
}

impl Refresher {
    /// Fetches the bundle of that trust domain now; done when it is stored, or known to be the same.
    pub async fn refresh(&self, trust_domain: TrustDomain) -> Result<(), RefreshError> {
        let (outcome, told) = oneshot::channel();
        let broken_off = || RefreshError::Failed(UpdateError::BrokenOff);
        self.0.send(Wish { trust_domain, outcome }).await.map_err(|_| broken_off())?;
        told.await.map_err(|_| broken_off())?
    }
}
