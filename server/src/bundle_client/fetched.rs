//! What came of fetches, for whoever counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ironroot_shell::telemetry::{Calls, Counter};

use super::UpdateError;
use crate::federation::TakenIn;

/// Of all trust domains together.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Fetches, and how long they took.
    pub fetches: Calls,
    /// Bundles that were other than before.
    pub updates: Counter,
    /// Trust domains whose last fetch failed.
    pub(super) failing: AtomicUsize,
}

impl Fetched {
    /// Trust domains whose last fetch failed.
    pub fn failing(&self) -> usize {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, outcome: &Result<TakenIn, UpdateError>, time: Duration) {
        self.fetches.done(outcome, time);
        if let Ok(TakenIn::New { .. }) = outcome {
            self.updates.one_more();
        }
    }
}
