//! The time between two turns: what happens in it, and what is served in it, held against the truth.

use ironroot_attest::SelectorSet;

use super::{BACKOFF_CAP, FIRST_PAUSE, Life, POLLS};
use crate::server_answers::EntryTerms;
use crate::sync::device_years::truth::{Knows, Stretch};
use crate::sync::device_years::world::Event;

impl Life {
    /// Until the loop wakes, or something happens.
    pub(super) fn rest(&mut self, end: i64) {
        let now = self.world.instant();
        let due = self.run.ledger.next_due().filter(|_| self.run.failures == 0);
        let wake = [Some(self.run.next_poll), due, self.run.unwritten].into_iter().flatten().min().unwrap_or(now);
        let pause = wake.saturating_duration_since(now).as_secs_f64().ceil().clamp(1.0, 1e9) as i64;
        let to = (self.world.now + pause).min(self.world.next_event()).min(end).max(self.world.now + 1);
        self.judge_until(to);
        self.world.pass_to(to);
        if to >= self.world.next_event() {
            self.happen();
        }
    }

    fn happen(&mut self) {
        match self.world.happen() {
            Event::Killed => {
                self.is_flash_fresh();
                self.restart();
            }
            Event::PowerLost(off) => self.boot(off),
            Event::PowerLostInWrite => self.cut_next_write = true,
            Event::Slept(seconds) => {
                self.judge_until(self.world.now + seconds);
                self.world.sleep(seconds);
                // Nobody counts against it what could not be done meanwhile.
                (self.run.right_since, self.run.unkept_since) = (None, None);
            }
            Event::Outage(_) => self.figures.outages += 1,
            Event::ServerJumps(..) => self.figures.server_jumps += 1,
            Event::ClockSet(error) => {
                self.figures.clock_sets += 1;
                self.run.knows.standing.set(self.run.knows.kernel_error, error);
                self.run.knows.kernel_error = error;
            }
            Event::EntryChanged => self.revision += 1,
        }
    }

    /// Holds what is served from now `to` then against the truth.
    fn judge_until(&mut self, to: i64) {
        let (from, own) = (self.world.now, self.moment().own());
        let selectors: SelectorSet = EntryTerms::example("e", "/e").selectors;
        let shown = self.run.published.for_selectors(&selectors, own).len();
        let (mut best, mut lasting) = (0, 0);
        for (identity, end) in self.run.published.ends() {
            let span = identity.svid().lifetime().span();
            let key = (span.not_before, span.not_after);
            lasting += usize::from(own < end);
            let is_misled = self.is_misled || self.run.knows.is_misled;
            let is_of_this_boot = self.of_this_boot.contains(&key);
            let knows = Knows { is_kept: !self.run.fresh.contains(&key), is_of_this_boot, is_misled, ..self.run.knows };
            let is_honest = !self.dishonest.contains(&key);
            let stretch =
                Stretch { from, to, served_until: from + (end - own), not_after: span.not_after, is_honest, knows };
            best = best.max(stretch.judge(&mut self.figures));
        }
        assert_eq!(shown, lasting, "what lasts is what is shown");
        self.figures.served += best;
        self.figures.nothing += to - from - best;
        self.judge_recovery(lasting > 0, to);
    }

    /// Once a right server has been there for long enough, something is served.
    fn judge_recovery(&mut self, is_served: bool, to: i64) {
        if self.world.server() != Some(0) || self.is_misled {
            self.run.right_since = None;
            return;
        }
        let since = *self.run.right_since.get_or_insert(self.world.now);
        let enough = self.ttl / POLLS * 11 / 10 + self.ttl / FIRST_PAUSE * i64::from(BACKOFF_CAP) + 2 * 30 + 10;
        if !is_served && to - since > enough {
            self.figures.late += to - self.world.now.max(since + enough);
        }
    }
}
