//! Commits that are done and that memory does not have yet: the connection broke between the commit and the reading of it.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::Desk;
use super::batch::Batch;
use super::doubt::PATIENCE;
use crate::store::StoreError;
use crate::store::engine::Engine;

/// A transaction that is in the database, and whose callers wait until it is in force.
pub(super) struct Unfollowed {
    batch: Batch,
    until: Instant,
}

impl Unfollowed {
    /// Of a batch that was committed just now.
    pub fn new(batch: Batch) -> Self {
        Self { batch, until: Instant::now() + PATIENCE }
    }
}

impl<E: Engine> Desk<E> {
    /// Answers whoever waits for it, once it was followed, or cannot be in the time that a failover takes.
    pub(super) fn settle(&mut self, caught_up: &Result<(), StoreError>) {
        let Some(Unfollowed { until, .. }) = &self.unfollowed else { return };
        let fate = match caught_up {
            Ok(()) => {
                self.trouble.set(None);
                Ok(())
            }
            Err(why @ (StoreError::OtherHistory { .. } | StoreError::Corrupt(_))) => Err(why.clone()),
            Err(why) if Instant::now() < *until && self.is_worth_another_try(why) => return,
            //= FLT-S27 server faults: "what is done is never said not to be"
            Err(why) => Err(StoreError::OutcomeUnknown(Arc::new(why.clone()))),
        };
        let Some(Unfollowed { batch, .. }) = self.unfollowed.take() else { return };
        batch.answer(&fate);
        self.engine.tell_others();
    }

    /// Says that it is not known whether it is in force.
    pub(super) fn give_up_unfollowed(&mut self) {
        let Some(Unfollowed { batch, .. }) = self.unfollowed.take() else { return };
        warn!(changes = batch.jobs.len(), "a commit is in the database, and was not taken into memory");
        batch.answer(&Err(StoreError::OutcomeUnknown(Arc::new(StoreError::Closed))));
    }
}
