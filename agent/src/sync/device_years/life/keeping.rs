//! What is written to the sealed cache, and a power cut between any two steps of it.

use super::{File, Life};
use crate::sealed_cache::{Changes, Step, WritePlan, plan};
use crate::sync::device_years::Fault;

impl Life {
    pub(super) fn keep(&mut self) {
        let now = self.world.instant();
        self.run.unwritten = None;
        let planned = plan(self.run.changes, self.run.debts.history(now));
        let increment = match planned {
            WritePlan::Idle => return,
            WritePlan::Wait(pause) => return self.run.unwritten = Some(now + pause),
            WritePlan::Write => false,
            WritePlan::WriteAndIncrement => true,
        };
        let mut steps = self.run.seen.store(self.flash.counter, increment);
        if self.fault == Fault::RaisedFirst {
            steps.sort_by_key(|step| !matches!(step, Step::Raise));
        }
        let cut_before = self.cut_next_write.then(|| self.world.random.below(1 + steps.len() as u64) as usize);
        let restart = self.world.restart();
        let file = self.file(restart);
        for (number, step) in steps.iter().enumerate() {
            if cut_before == Some(number) {
                return self.cut(number);
            }
            match step {
                Step::Raise => {
                    self.flash.counter += 1;
                    self.run.seen.raised();
                }
                Step::Write(generation) => {
                    self.flash.disk = Some(File { generation: *generation, ..file.clone() });
                    self.run.seen.file(*generation);
                }
                Step::Remove => self.flash.disk = None,
            }
        }
        self.figures.writes += 1;
        self.run.debts.kept(increment, self.run.changes, now);
        self.run.changes = Changes::default();
        self.run.unkept_since = None;
        if cut_before.is_some() {
            self.cut(steps.len());
        }
    }

    fn cut(&mut self, step: usize) {
        self.cut_next_write = false;
        self.figures.cuts[step.min(4)] += 1;
        let off = self.world.random.one_of(&[1, 60, 3_600, 86_400]);
        self.boot(off);
    }

    fn file(&self, restart: crate::trusted_time::Restart) -> File {
        let (moment, boot_id) = (self.moment(), restart.boot_id.clone());
        let entry = |held: &crate::sync::Held| {
            let svid = held.svid().map(|svid| (svid.lifetime().span(), moment.left(svid.lifetime())));
            (held.terms().clone(), svid)
        };
        let time = self.run.keeper.record(restart, self.world.reading());
        File {
            generation: 0,
            server_was_ahead: time.claim.is_some_and(|claim| claim > self.world.now),
            time,
            boot_id,
            entries: self.run.ledger.entries().map(entry).collect(),
            is_misled: self.is_misled,
            kernel_error: self.world.kernel_error,
        }
    }
}
