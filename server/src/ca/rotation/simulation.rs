//! Many lives of a CA whose clock jumps by hours and years, whose server crashes, restarts and is off for days. Virtual time;
//! a seed names each life.

use std::collections::BTreeMap;

use super::rehearsal::{Journal, founding, paces, perform, plan, with_jwt};
use super::{Pace, Step};
use ironroot_fuzz::Dice;

use crate::ca::journal::{Authority, Place, Slot, SlotName};
use crate::ca::purpose::Purpose;
use crate::clock::{ClockWatch, Moment, Reading, STEADY, STEP};

const START: i64 = 1_800_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// The server looks this often, seconds. The real one does each ten seconds.
const TICK: i64 = 60;
/// The longest time without a signer once the clock is right again and the server runs, seconds.
const LONGEST_GAP: i64 = STEADY + 2 * TICK;
/// What is counted may be this much less exact than true time: slack for restarts, and steps that nobody notices.
const EXACT_TO: i64 = 60 + STEP;

struct Random(Dice);

impl Random {
    /// Seconds and ticks are signed here; `limit` is not.
    fn below(&mut self, limit: i64) -> i64 {
        self.0.below(limit.unsigned_abs()).cast_signed()
    }

    /// Once in so many ticks.
    fn once_in(&mut self, ticks: i64) -> bool {
        self.below(ticks) == 0
    }

    fn jump(&mut self) -> i64 {
        let size = match self.below(4) {
            0 => self.below(2 * STEP),
            1 => self.below(30 * HOUR),
            2 => self.below(10 * DAY),
            _ => self.below(20 * YEAR),
        };
        if self.below(3) == 0 { -size } else { size }
    }
}

struct World {
    random: Random,
    paces: Vec<Pace>,
    ttl: i64,
    /// A wrong clock is put right once in so many ticks.
    patience: i64,
    /// True time, seconds since the start.
    time: i64,
    /// The wall clock's error, seconds.
    error: i64,
    /// Since when the wall clock has been right and the server on.
    right_since: i64,
    boot: i64,
    boot_time: i64,
    watch: ClockWatch,
    /// In memory, and as the disk has it.
    journal: Journal,
    saved_at: i64,
    /// When each certificate really ended, if it was issued by a right clock.
    ends: BTreeMap<String, i64>,
    destroyed: u64,
}

impl World {
    fn new(seed: u64, ttl: i64) -> Self {
        let journal = founding();
        let watch = ClockWatch::start(None, "0", Reading { wall_unix: START, boot_seconds: 0 });
        let mut random = Random(Dice::new(seed));
        let patience = random.0.one_of(&[3, 30, 300, 6000]);
        let ends = BTreeMap::new();
        let zero = 0;
        Self {
            random,
            paces: with_jwt(paces(seed.is_multiple_of(2), ttl)),
            ttl,
            patience,
            time: zero,
            error: zero,
            right_since: zero,
            boot: zero,
            boot_time: zero,
            watch,
            journal,
            saved_at: zero,
            ends,
            destroyed: 0,
        }
    }

    fn reading(&self) -> Reading {
        Reading { wall_unix: START + self.time + self.error, boot_seconds: self.time - self.boot_time }
    }

    fn live(&mut self, days: i64) {
        while self.time < days * DAY {
            self.time += TICK;
            self.chance();
            let moment = self.watch.observe(self.reading());
            self.advance(moment);
            self.check();
        }
    }

    fn chance(&mut self) {
        if self.error != 0 && self.random.once_in(self.patience) {
            self.error = 0;
            self.right_since = self.time;
        } else if self.random.once_in(2000) {
            self.error = self.random.jump();
        }
        if self.random.once_in(1500) {
            self.restart();
        }
        if self.error.abs() > STEP {
            self.right_since = i64::MAX;
        } else {
            self.right_since = self.right_since.min(self.time);
        }
    }

    /// The process dies, perhaps with the machine; perhaps it stays off for long.
    fn restart(&mut self) {
        match self.random.below(4) {
            0 => {}
            1 => {
                self.time += self.random.below(HOUR);
                self.new_boot();
            }
            2 => {
                self.time += self.random.below(5 * self.ttl);
                self.new_boot();
            }
            _ => self.time += self.random.below(HOUR),
        }
        let boot = self.boot.to_string();
        self.watch = ClockWatch::start(self.journal.clock(), &boot, self.reading());
        self.right_since = if self.error == 0 { self.time } else { i64::MAX };
    }

    fn new_boot(&mut self) {
        self.boot += 1;
        self.boot_time = self.time;
        if self.random.below(5) == 0 {
            self.error = self.random.jump();
        }
    }

    fn advance(&mut self, moment: Moment) {
        for _ in 0..16 {
            let step = plan(moment, &self.journal, &self.paces);
            if matches!(step, Step::Wait { .. }) {
                return self.save();
            }
            let before = self.journal.clone();
            self.journal = perform(before.clone(), step, moment, self.ttl).with_clock(self.watch.record());
            self.saved_at = self.time;
            self.note_ends();
            self.invariant_no_key_of_a_live_authority_is_destroyed(&before, step);
            assert!(self.journal.sequence_number() >= before.sequence_number());
            // Of two purposes that rotate: one crash in ten steps is one in five of either's.
            if self.random.once_in(10) {
                return self.restart();
            }
        }
        panic!("does not settle at {}: {:?}", self.time, plan(moment, &self.journal, &self.paces));
    }

    /// As the performer does each minute.
    fn save(&mut self) {
        if self.time - self.saved_at >= 60 {
            self.journal = self.journal.clone().with_clock(self.watch.record());
            self.saved_at = self.time;
        }
    }

    fn note_ends(&mut self) {
        let (time, right) = (self.time, self.error.abs() <= STEP);
        for authority in self.journal.authorities() {
            let end = if right { time + authority.lifetime() } else { 0 };
            self.ends.entry(authority.credential.clone()).or_insert(end);
        }
    }

    fn invariant_no_key_of_a_live_authority_is_destroyed(&mut self, before: &Journal, step: Step) {
        for place in Place::all() {
            let gone = match step {
                Step::Intend(intended) => intended == place && *before.slot(place) != Slot::Empty,
                Step::Prune(_) => *before.slot(place) != *self.journal.slot(place),
                _ => false,
            };
            let Some(key) = before.slot(place).authority().map(|a| a.key).filter(|_| gone) else { continue };
            self.destroyed += 1;
            for authority in before.authorities().iter().filter(|authority| authority.key == key) {
                let end = self.ends[&authority.credential];
                assert!(
                    self.time >= end - EXACT_TO,
                    "{step:?} at {} destroys a key that lives until {end}: {before:?}",
                    self.time
                );
            }
        }
    }

    fn check(&self) {
        for purpose in [Purpose::X509Ca, Purpose::Jwt] {
            self.check_purpose(purpose);
        }
    }

    fn check_purpose(&self, purpose: Purpose) {
        let now = START + self.time + self.error;
        let cas = self.journal.slots(purpose);
        if let Some((_, signer)) = cas.signer(now) {
            let anchor = signer.root.unwrap_or(signer.key);
            let known = |authority: &&Authority<String>| authority.key == anchor;
            assert!(self.journal.anchors().iter().any(known), "the signer is not in the bundle");
        }
        let prepared = |slot: &SlotName| matches!(cas.slot(*slot), Slot::Prepared(_) | Slot::Intended(_));
        assert!(
            SlotName::BOTH.iter().filter(|slot| prepared(slot)).count() <= 1,
            "two are prepared: {:?}",
            self.journal
        );
        let may_sign = |authority: &&Authority<String>| {
            let key = |slot| cas.slot(slot).authority().map(|a| a.key);
            let is_prepared = cas.prepared().is_some_and(|(_, prepared)| prepared == *authority);
            let has_key = SlotName::BOTH.into_iter().any(|slot| key(slot) == Some(authority.key));
            has_key && !is_prepared && authority.is_valid(now)
        };
        if cas.authorities().iter().any(may_sign) {
            assert!(cas.signer(now).is_some(), "one is valid at {now}, and nobody signs: {:?}", self.journal);
        }
        let right_for = self.time.saturating_sub(self.right_since);
        if right_for > LONGEST_GAP {
            assert!(
                cas.signer(now).is_some(),
                "right for {right_for} s, and nobody signs at {}: {:?}",
                self.time,
                self.journal
            );
        }
    }
}

//= FLT-S11
#[test]
fn no_clock_destroys_a_live_key_or_leaves_a_gap_that_is_longer_than_stated() {
    let mut destroyed = 0;
    for (seeds, ttl, days) in [(24, DAY, 40), (8, 6 * HOUR, 20), (12, 30 * DAY, 120)] {
        for seed in 1..=seeds {
            let mut world = World::new(seed, ttl);
            world.live(days);
            destroyed += world.destroyed;
        }
    }
    assert!(destroyed > 200, "rotation destroys keys whose time is over: {destroyed}");
}

#[test]
fn without_jumps_every_key_is_destroyed_after_its_life() {
    let mut world = World::new(1, DAY);
    for _ in 0..40 * DAY / TICK {
        world.time += TICK;
        let moment = world.watch.observe(world.reading());
        world.advance_plainly(moment);
        world.check();
    }
    let destroyed = world.destroyed;
    assert!((150..=160).contains(&destroyed), "{destroyed} keys in 40 days, one of each purpose each half day");
}

impl World {
    fn advance_plainly(&mut self, moment: Moment) {
        loop {
            let step = plan(moment, &self.journal, &self.paces);
            if matches!(step, Step::Wait { .. }) {
                return;
            }
            let before = self.journal.clone();
            self.journal = perform(before.clone(), step, moment, self.ttl);
            self.note_ends();
            self.invariant_no_key_of_a_live_authority_is_destroyed(&before, step);
        }
    }
}
