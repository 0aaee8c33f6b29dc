//! Commits whose answer was lost, until it is known what became of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::batch::Batch;
use super::job::Job;
use super::{Desk, MAX_TRIES};
use crate::store::StoreError;
use crate::store::engine::Engine;
use crate::store::error::Cause;

/// How long it is looked for what became of a commit: longer than it takes until a standby has the place of a database server that died.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(60);

/// A transaction that may be in the database, and whose callers wait for the answer.
pub(super) struct Doubt {
    batch: Batch,
    /// What names its rows in the change log.
    id: [u8; 16],
    why: Cause,
    until: Instant,
}

impl Doubt {
    /// Of a batch whose commit ended by `why`.
    pub fn new(batch: Batch, id: [u8; 16], why: Cause) -> Self {
        Self { batch, id, why, until: Instant::now() + PATIENCE }
    }
}

impl<E: Engine> Desk<E> {
    /// Within a transaction that has the lock of all that write: the one in doubt is over. What is not in the database is to be done again,
    /// before all others; how often that was tried in vain.
    pub(super) fn resolve_doubt(&mut self, jobs: &mut VecDeque<Box<dyn Job>>) -> Result<usize, StoreError> {
        let Some(Doubt { id, .. }) = self.doubt else { return Ok(0) };
        //= FLT-S27 server faults: "looked for until it is known"
        let is_there = self.engine.facts().has_commit(id)?;
        let Some(Doubt { batch, why, .. }) = self.doubt.take() else { return Ok(0) };
        if is_there {
            info!(changes = batch.jobs.len(), "a commit whose answer was lost is in the database");
            self.engine.rollback();
            self.finish(batch, Ok(()), true);
            // To follow it may have taken another connection, or have failed.
            return self.begin(jobs);
        }
        if batch.tries >= MAX_TRIES {
            batch.answer(&Err(StoreError::Unreachable(why)));
            return Ok(0);
        }
        Ok(batch.try_again(&*why, jobs))
    }

    /// Ends the wait for a commit's fate that lasts too long.
    pub(super) fn end_old_doubt(&mut self) {
        if self.doubt.as_ref().is_some_and(|doubt| Instant::now() >= doubt.until) {
            self.give_up_doubt();
        }
    }

    /// Says that it is not known.
    pub(super) fn give_up_doubt(&mut self) {
        let Some(Doubt { batch, why, .. }) = self.doubt.take() else { return };
        warn!(error = &*why as &dyn std::error::Error, "it is not known whether a commit is in the database");
        self.finish(batch, Err(StoreError::OutcomeUnknown(why)), false);
    }
}
