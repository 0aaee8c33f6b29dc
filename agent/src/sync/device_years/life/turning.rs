//! A turn of the loop: the server is asked, or what is due is signed; what came of it is published.

use std::time::Duration;

use super::{BACKOFF_CAP, BUNDLE, ENTRIES, FIRST_PAUSE, Life, POLLS, td};
use crate::identities::Identities;
use crate::server_answers::{EntryTerms, WorkloadSvid};
use crate::sync::device_years::Fault;
use crate::sync::schedule::{backoff, before_the_end, poll_in};
use crate::sync::{EntriesChange, REFUSED_PAUSE};
use crate::trusted_time::{Lifetime, Span};

impl Life {
    /// As `Synchronizer::turn` after a wake by the clock.
    pub(super) fn turn(&mut self) {
        self.figures.turns += 1;
        self.run.keeper.observe(self.world.reading());
        let now = self.world.instant();
        if self.run.next_poll <= now {
            self.poll();
        } else if self.run.failures == 0 && self.world.server().is_some() {
            self.sign_due(Duration::ZERO);
        }
        self.publish();
        self.keep();
    }

    fn poll(&mut self) {
        let Some(error) = self.world.server() else {
            self.run.failures += 1;
            let base = Duration::from_secs((self.ttl / FIRST_PAUSE).unsigned_abs());
            let pause = backoff(self.run.failures, base, base * BACKOFF_CAP, self.unit());
            let left = self.run.ledger.next_end_in(&self.moment()).and_then(|seconds| u64::try_from(seconds).ok());
            let pause = before_the_end(pause, left.map(Duration::from_secs)).max(Duration::from_secs(1));
            self.run.next_poll = self.world.instant() + pause;
            return;
        };
        self.meet(error);
        self.sync_entries();
        let interval = Duration::from_secs((self.ttl / POLLS).unsigned_abs());
        self.sign_due(interval);
        self.run.failures = 0;
        let pause = poll_in(interval, self.run.ledger.shortest_lifetime(), self.unit());
        self.run.next_poll = self.world.instant() + pause;
    }

    /// The handshake: a certificate of the server's, and a fresh signature if it is in doubt.
    fn meet(&mut self, error: i64) {
        let (server_now, reading) = (self.world.now + error, self.world.reading());
        let began = server_now - self.world.random.below(1_700).cast_signed();
        let span = Span { not_before: began, not_after: began + 3_600 };
        match self.run.keeper.judge(span, reading) {
            Some(judged) if judged.in_doubt => _ = self.receive(error),
            _ => {
                self.run.keeper.lift(span.not_before, reading);
                self.run.knows.standing.shown(began - self.world.now, self.world.kernel_error);
            }
        }
    }

    /// A fresh signature, as `sync::svids` takes it in.
    fn receive(&mut self, error: i64) -> Lifetime {
        let (server_now, reading) = (self.world.now + error, self.world.reading());
        let span = Span { not_before: server_now - 10, not_after: server_now + self.ttl };
        let lifetime = self.run.keeper.receive(span.not_before, span, reading);
        if (reading.kernel - span.not_before).abs() <= crate::trusted_time::AGREEMENT {
            self.is_misled = self.world.kernel_error > 0 && error - 10 > 0;
        }
        self.run.knows.server_was_ahead |= error > 0;
        self.run.knows.standing.heard(error, self.world.kernel_error);
        if error != 0 {
            self.dishonest.insert((span.not_before, span.not_after));
        }
        lifetime
    }

    fn sync_entries(&mut self) {
        let terms = |path: &&str| EntryTerms { revision_number: self.revision, ..EntryTerms::example(path, path) };
        let current = ENTRIES.iter().map(terms).collect();
        let change = self.run.ledger.replace_entries(current, self.world.instant());
        if change != EntriesChange::None {
            self.run.changes.any = true;
            self.run.changes.must_not_be_undone = true;
        }
    }

    fn sign_due(&mut self, next: Duration) {
        let Some(error) = self.world.server() else { return };
        let moment = if self.fault == Fault::NeverRenewed { self.run.stale_moment } else { self.moment() };
        for wanted in self.run.ledger.wanted(self.world.instant(), next, &moment) {
            let lifetime = self.receive(error);
            let lifetime = match self.fault {
                Fault::DisputedIsTaken => Lifetime::kept(lifetime.span(), None),
                _ => lifetime,
            };
            let (now, moment, unit) = (self.world.instant(), self.moment(), self.unit());
            let svid = WorkloadSvid::unchecked(wanted.spiffe_id.clone(), lifetime);
            if self.run.ledger.put_svid(&wanted.entry_id, svid, now, &moment, unit) {
                self.figures.rotations += 1;
                self.run.changes.any |= self.fault != Fault::NotWritten;
                let key = (lifetime.span().not_before, lifetime.span().not_after);
                self.run.fresh.insert(key);
                self.of_this_boot.insert(key);
                self.run.unkept_since.get_or_insert(now);
                self.run.stale_moment = moment;
            } else {
                self.run.ledger.postpone(&wanted.entry_id, REFUSED_PAUSE, now, &moment);
            }
        }
    }

    pub(super) fn publish(&mut self) {
        let (moment, fault, reading) = (self.moment(), self.fault, self.world.reading());
        let identities = self.run.ledger.identities().cloned().collect();
        let all = Identities::try_new(td(), identities, BUNDLE.clone()).expect("sound");
        self.run.published = all.ending(|identity| {
            let lifetime = identity.svid().lifetime();
            match fault {
                Fault::KernelDecides => moment.own() + lifetime.span().not_after - reading.kernel,
                _ => moment.end(lifetime),
            }
        });
    }
}
