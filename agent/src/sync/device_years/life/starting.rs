//! A start: of the machine, or of the agent alone; and what it takes up from the sealed cache.

use std::collections::BTreeSet;

use super::{File, Life, Run, td};
use crate::identities::Identities;
use crate::sealed_cache::{Changes, Debts, Seen, WRITE_INTERVAL, is_current};
use crate::server_answers::{EntryTerms, WorkloadSvid};
use crate::sync::Ledger;
use crate::sync::device_years::Fault;
use crate::sync::device_years::truth::{Knows, Standing};
use crate::sync::device_years::world::World;
use crate::trusted_time::{BUILD_UNIX, Keeper, Lifetime, Moment, Span};

impl Life {
    /// The machine goes off, and starts.
    pub(super) fn boot(&mut self, off: i64) {
        self.is_flash_fresh();
        self.world.boot(off);
        self.figures.boots += 1;
        self.of_this_boot.clear();
        self.restart();
    }

    /// What came long enough ago is on the flash.
    pub(super) fn is_flash_fresh(&mut self) {
        let limit = WRITE_INTERVAL * 2;
        let waited = self.run.unkept_since.map(|since| self.world.instant().saturating_duration_since(since));
        self.figures.stale += u64::from(waited.is_some_and(|waited| waited > limit));
    }

    /// As `Synchronizer::restore`.
    pub(super) fn restart(&mut self) {
        let was_there = self.flash.disk.is_some();
        self.run = Run::start(&mut self.world);
        self.is_misled = false;
        let Some(file) = self.flash.disk.clone() else { return };
        let current = match self.fault {
            Fault::ExactGeneration => file.generation == self.flash.counter,
            _ => is_current(file.generation, self.flash.counter),
        };
        if !current {
            self.figures.lost += u64::from(was_there);
            return;
        }
        self.run.seen.file(file.generation);
        if file.generation > self.flash.counter {
            self.flash.counter += 1;
            self.run.seen.raised();
        }
        self.take_up(file);
        self.publish();
    }

    fn take_up(&mut self, file: File) {
        let (mut restart, reading) = (self.world.restart(), self.world.reading());
        let mut time = file.time.clone();
        self.is_misled = file.is_misled;
        let then = time.kernel.map(|_| file.kernel_error);
        self.run.knows = Knows {
            is_kept: true,
            is_of_this_boot: false,
            clock_was_recorded: time.kernel.is_some(),
            standing: Standing::taken_up(then, self.world.kernel_error, file.boot_id == restart.boot_id),
            error_at_boot: self.world.error_at_boot,
            kernel_error: self.world.kernel_error,
            server_was_ahead: file.server_was_ahead,
            is_misled: file.is_misled,
        };
        match self.fault {
            Fault::AnyClockIsRecorded => time.kernel = Some(time.confirmed),
            Fault::GapIsForgotten => {
                restart.tpm_clock = None;
                time.boot = Some(crate::trusted_time::BootMark { id: restart.boot_id.clone(), seconds: i64::MAX });
            }
            _ => {}
        }
        self.run.keeper.restore(&time, &restart, reading);
        let is_forgotten = self.fault == Fault::LeftIsForgotten;
        let entry = |(terms, svid): (EntryTerms, Option<(Span, i64)>)| {
            let kept = |(span, left)| Lifetime::kept(span, (!is_forgotten).then_some(left));
            let svid = svid.map(|svid| WorkloadSvid::unchecked(terms.spiffe_id.clone(), kept(svid)));
            (terms, svid)
        };
        let entries = file.entries.into_iter().map(entry).collect();
        let moment = self.moment();
        self.run.stale_moment = moment;
        let random = &mut self.world.random;
        let now = self.run.next_poll;
        self.run.ledger.restore(entries, now, &moment, || random.below(1001) as f64 / 1000.0);
    }
}

impl Run {
    /// A process that knows nothing yet, and asks its server at once.
    pub(super) fn start(world: &mut World) -> Self {
        let reading = world.reading();
        let keeper = Keeper::new(BUILD_UNIX, reading);
        let knows = Knows {
            is_kept: true,
            is_of_this_boot: false,
            clock_was_recorded: false,
            standing: Standing::default(),
            error_at_boot: world.error_at_boot,
            kernel_error: world.kernel_error,
            server_was_ahead: false,
            is_misled: false,
        };
        Self {
            keeper,
            ledger: Ledger::default(),
            debts: Debts::default(),
            seen: Seen::default(),
            changes: Changes::default(),
            failures: 0,
            next_poll: world.instant(),
            unwritten: None,
            published: Identities::starting(td()),
            knows,
            fresh: BTreeSet::new(),
            unkept_since: None,
            stale_moment: Moment::new(keeper, reading),
            right_since: None,
        }
    }
}
