//! What the rotation has done since the start, for whoever counts.

use std::time::Duration;

use ironroot_shell::telemetry::{Calls, Counter};

use super::CaError;
use super::purpose::Purpose;
use super::rotation::Step;

/// Steps for authorities of one purpose.
#[derive(Debug, Default)]
pub struct StepsFor {
    /// Keys that were made, or taken, and certified.
    pub prepared: Calls,
    /// Authorities that sign from then on.
    pub activated: Counter,
    /// Steps of any kind that failed.
    pub failed: Counter,
}

/// Steps for authorities of each purpose.
#[derive(Debug, Default)]
pub struct StepsDone([StepsFor; Purpose::ALL.len()]);

impl StepsDone {
    /// Those for one purpose.
    pub fn of(&self, purpose: Purpose) -> &StepsFor {
        &self.0[purpose as usize]
    }

    pub(super) fn note(&self, step: Step, done: &Result<(), CaError>, time: Duration) {
        let Some(steps) = step.purpose().map(|purpose| self.of(purpose)) else { return };
        match step {
            Step::Prepare(_) | Step::Renew(_) => steps.prepared.done(done, time),
            Step::Activate(_) if done.is_ok() => steps.activated.one_more(),
            _ => {}
        }
        if done.is_err() {
            steps.failed.one_more();
        }
    }
}
