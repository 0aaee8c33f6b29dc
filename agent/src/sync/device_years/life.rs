//! A device's life: what the loop does in its order (`sync::turn`, `sync::restore`), each decision by the room that makes it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ironroot_api::TrustDomain;
use ironroot_attest::SelectorSet;

use super::truth::{Knows, Standing, Stretch};
use super::world::{Event, World};
use super::{Fault, Figures};
use crate::identities::Identities;
use crate::sealed_cache::{Changes, Debts, Seen, Step, WRITE_INTERVAL, WritePlan, is_current, plan};
use crate::server_answers::{EntryTerms, TrustBundle, WorkloadSvid};
use crate::sync::schedule::{backoff, before_the_end, poll_in};
use crate::sync::{EntriesChange, Ledger, REFUSED_PAUSE};
use crate::trusted_time::{BUILD_UNIX, Keeper, Lifetime, Moment, Span, TimeRecord};

/// The entries of the device.
const ENTRIES: [&str; 2] = ["/web", "/db"];
/// One part in this many of an SVID's life is the interval of polls, and of the back-off's first pause.
const POLLS: i64 = 6;
const FIRST_PAUSE: i64 = 200;
/// As the loop's: the longest pause is so many times the first.
const BACKOFF_CAP: u32 = 12;

fn td() -> TrustDomain {
    TrustDomain::new("td").expect("legal")
}

/// One authority for all lives: who signed is not what is looked at.
static BUNDLE: LazyLock<Arc<TrustBundle>> = LazyLock::new(|| {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&rcgen::KeyPair::generate().expect("key")).expect("root");
    Arc::new(TrustBundle::new(&td(), [(&root.der()[..], false)]).expect("bundle"))
});

/// A file of the sealed cache.
#[derive(Clone, Debug)]
struct File {
    generation: u64,
    time: TimeRecord,
    boot_id: String,
    /// With what is left of each SVID, by elapsed time, and whether it had come from a server in the run that wrote it.
    entries: Vec<(EntryTerms, Option<(Span, i64)>)>,
    is_misled: bool,
    /// By how much the kernel's clock was wrong.
    kernel_error: i64,
}

/// What survives a power cut.
#[derive(Debug, Default)]
struct Flash {
    disk: Option<File>,
    counter: u64,
}

/// A process.
#[derive(Debug)]
struct Run {
    keeper: Keeper,
    ledger: Ledger,
    debts: Debts,
    seen: Seen,
    changes: Changes,
    failures: u32,
    next_poll: Instant,
    unwritten: Option<Instant>,
    published: Identities,
    /// What the SVIDs that were there at the start have to go by.
    knows: Knows,
    /// Those of this run: not from the cache.
    fresh: BTreeSet<(i64, i64)>,
    /// When the newest SVID came that is not written yet, by the monotonic clock.
    unkept_since: Option<Instant>,
    /// What was known of the time at the start; for a fault.
    stale_moment: Moment,
    right_since: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Life {
    fault: Fault,
    world: World,
    flash: Flash,
    run: Run,
    ttl: i64,
    revision: i64,
    is_misled: bool,
    /// Spans of SVIDs whose issuer's clock was wrong.
    dishonest: BTreeSet<(i64, i64)>,
    /// Those of SVIDs that were received in this boot.
    of_this_boot: BTreeSet<(i64, i64)>,
    cut_next_write: bool,
    figures: Figures,
}

impl Life {
    pub fn new(seed: u64, fault: Fault) -> Self {
        let mut world = World::new(seed);
        let ttl = world.random.one_of(&[8 * 3600, 24 * 3600, 24 * 3600, 7 * 24 * 3600]);
        let flash = Flash { disk: None, counter: 1 };
        let run = Run::start(&mut world);
        let figures = Figures { boots: 1, ..Figures::default() };
        Self {
            fault,
            world,
            flash,
            run,
            ttl,
            revision: 0,
            is_misled: false,
            dishonest: BTreeSet::new(),
            of_this_boot: BTreeSet::new(),
            cut_next_write: false,
            figures,
        }
    }

    /// Lives for so many seconds, or until something is broken.
    pub fn live(mut self, seconds: i64) -> Figures {
        let (began, end) = (self.world.now, self.world.now + seconds);
        while self.world.now < end && self.figures.is_clean() {
            self.turn();
            self.rest(end);
        }
        self.figures.seconds = self.world.now - began;
        self.figures
    }

    fn moment(&self) -> Moment {
        Moment::new(self.run.keeper, self.world.reading())
    }

    /// As `Synchronizer::turn` after a wake by the clock.
    fn turn(&mut self) {
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

    fn publish(&mut self) {
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

    fn keep(&mut self) {
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
        File {
            generation: 0,
            time: self.run.keeper.record(restart, self.world.reading()),
            boot_id,
            entries: self.run.ledger.entries().map(entry).collect(),
            is_misled: self.is_misled,
            kernel_error: self.world.kernel_error,
        }
    }

    /// The machine goes off, and starts.
    fn boot(&mut self, off: i64) {
        self.is_flash_fresh();
        self.world.boot(off);
        self.figures.boots += 1;
        self.of_this_boot.clear();
        self.restart();
    }

    /// What came long enough ago is on the flash.
    fn is_flash_fresh(&mut self) {
        let limit = WRITE_INTERVAL * 2;
        let waited = self.run.unkept_since.map(|since| self.world.instant().saturating_duration_since(since));
        self.figures.stale += u64::from(waited.is_some_and(|waited| waited > limit));
    }

    /// As `Synchronizer::restore`.
    fn restart(&mut self) {
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
            server_was_ahead: false,
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

    /// Until the loop wakes, or something happens.
    fn rest(&mut self, end: i64) {
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

    fn unit(&mut self) -> f64 {
        self.world.random.below(1001) as f64 / 1000.0
    }
}

impl Run {
    /// A process that knows nothing yet, and asks its server at once.
    fn start(world: &mut World) -> Self {
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
