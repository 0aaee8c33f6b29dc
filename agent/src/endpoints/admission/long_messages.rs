//! Whose long messages are read: a few of each user's at the same time, and so many of all users'.
//!
//! What has begun and does not end is kept until its time is up, and a connection costs its user nothing. So a message of more
//! than a few lines is kept by a right of its own; the others wait in their senders.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// A kind of long message; each has turns of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::endpoints) enum LongMessage {
    /// An Envoy's: mostly what it says of itself.
    Discovery,
    /// Any other request: tokens, audiences, selectors.
    Request,
}

/// How many are read at the same time; more wait for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Of one user's.
    pub per_user: usize,
    /// Of all users' together; above it a user that reads none still gets one.
    pub in_all: usize,
}

/// Turns of one user, waited for first come, first served.
#[derive(Clone, Debug)]
pub(in crate::endpoints) struct Turns {
    pub(super) own: Arc<Semaphore>,
    pub(super) of_all: Arc<Semaphore>,
    pub(super) most: Most,
}

/// That a long message may be kept; given back on drop.
#[derive(Debug)]
pub(in crate::endpoints) struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// Why a long message is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::endpoints) enum NoTurn {
    #[error("too many long requests of all users arrive at the same time, and this user has one that does; try again")]
    Crowded,
}

impl Turns {
    /// Waits for one.
    pub async fn next(self) -> Result<Turn, NoTurn> {
        let Ok(own) = self.own.clone().acquire_owned().await else { return Err(NoTurn::Crowded) };
        match self.of_all.try_acquire_owned() {
            Ok(of_all) => Ok(Turn { _own: own, _of_all: Some(of_all) }),
            Err(TryAcquireError::NoPermits) if self.own.available_permits() + 1 == self.most.per_user => {
                Ok(Turn { _own: own, _of_all: None })
            }
            Err(_) => Err(NoTurn::Crowded),
        }
    }
}
