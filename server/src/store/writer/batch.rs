//! One transaction, with a savepoint for each change in it.

use std::collections::VecDeque;

use tracing::info;

use super::Trouble;
use super::job::Job;
use crate::clock::Moment;
use crate::store::engine::Engine;
use crate::store::sql::change_log;
use crate::store::{Changed, StoreError};

/// One transaction: who is owed an answer, and what it changes.
pub(super) struct Batch {
    pub jobs: Vec<Box<dyn Job>>,
    /// When it began.
    moment: Moment,
    pub noted: Vec<Changed>,
    /// What names its rows in the change log; none if it has none there.
    pub id: Option<[u8; 16]>,
    /// How often it was tried, this time included.
    pub tries: usize,
}

impl Batch {
    /// One that begins then, and whose first change was tried so often in vain.
    pub fn new(moment: Moment, failed: usize) -> Self {
        Self { jobs: Vec::new(), moment, noted: Vec::new(), id: None, tries: failed + 1 }
    }

    /// Puts its changes before all others again; how often they were tried in vain.
    pub fn try_again(self, why: &(dyn std::error::Error + 'static), jobs: &mut VecDeque<Box<dyn Job>>) -> usize {
        info!(error = why, changes = self.jobs.len(), "changes are tried again");
        self.jobs.into_iter().rev().for_each(|job| jobs.push_front(job));
        self.tries
    }

    /// Tells everybody who waits.
    pub fn answer(self, fate: &Result<(), StoreError>) {
        self.jobs.into_iter().for_each(|job| job.answer(fate.clone()));
    }

    /// Does the jobs that wait, until all are done or the transaction does not stand any more, and commits.
    pub fn run_and_commit(
        &mut self,
        engine: &mut impl Engine,
        jobs: &mut VecDeque<Box<dyn Job>>,
        trouble: &Trouble,
    ) -> Result<(), StoreError> {
        let mut fate = Ok(());
        while fate.is_ok()
            && let Some(job) = jobs.pop_front()
        {
            fate = self.run_in_savepoint(engine, job, trouble);
        }
        let fate = fate.and_then(|()| self.log_and_commit(engine));
        if fate.is_err() {
            engine.rollback();
        }
        fate
    }

    /// An error if the transaction around the job does not stand any more.
    fn run_in_savepoint(
        &mut self,
        engine: &impl Engine,
        mut job: Box<dyn Job>,
        trouble: &Trouble,
    ) -> Result<(), StoreError> {
        if let Err(why) = engine.run("SAVEPOINT change") {
            self.jobs.push(job);
            return Err(why);
        }
        let transaction = engine.transaction(self.moment);
        let keep = job.run(&transaction);
        if !keep && let Some(why) = engine.given_up() {
            // The job's own error says why; the ones before it learn that they went with it. Whoever hears of it may ask at once.
            if engine.tries_again() {
                self.jobs.push(job);
            } else {
                trouble.note(&why, "database gave up a transaction", self.jobs.len());
                job.answer(Ok(()));
            }
            return Err(why);
        }
        self.jobs.push(job);
        if keep {
            self.noted.extend(transaction.into_noted());
            return engine.run("RELEASE SAVEPOINT change");
        }
        engine.run("ROLLBACK TO SAVEPOINT change").and_then(|()| engine.run("RELEASE SAVEPOINT change"))
    }

    fn log_and_commit(&mut self, engine: &mut impl Engine) -> Result<(), StoreError> {
        if !self.noted.is_empty() {
            self.id = Some(change_log::append(engine.session(), &self.noted)?);
        }
        engine.commit()
    }
}
