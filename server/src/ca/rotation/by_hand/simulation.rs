//! Many lives in which operators order what comes to their minds, at any time, and the server dies between any two effects. Virtual
//! time, a right clock; a seed names each life.

use std::collections::{BTreeMap, BTreeSet};

use ironroot_fuzz::Dice;

use super::super::rehearsal::{DAY, Journal, START, founding, key, paces, perform, plan, right, with_jwt};
use super::super::{Pace, Step};
use super::{MayActivate, MayPrepare, MayRevoke, MayTaint};
use crate::ca::journal::{Authority, Place, Slot, SlotName};
use crate::ca::purpose::Purpose;

/// The server looks this often, seconds.
const TICK: i64 = DAY / 50;
const LIVES: u64 = 40;
const DAYS: i64 = 12;

struct World {
    dice: Dice,
    is_rooted: bool,
    paces: Vec<Pace>,
    now: i64,
    /// As the disk has it; in memory it is the same, or the server is dead.
    journal: Journal,
    /// The keys by their places' names.
    token: BTreeMap<String, u64>,
    /// Which keys of which purpose are revoked.
    revoked: BTreeSet<(Purpose, u64)>,
    obeyed: BTreeMap<&'static str, u32>,
    deaths: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let is_rooted = seed.is_multiple_of(2);
        Self {
            dice: Dice::new(seed),
            is_rooted,
            paces: with_jwt(paces(is_rooted, DAY)),
            now: START,
            journal: founding(),
            token: BTreeMap::new(),
            revoked: BTreeSet::new(),
            obeyed: BTreeMap::new(),
            deaths: 0,
        }
    }

    fn live(&mut self) {
        while self.now < START + DAYS * DAY {
            self.settle();
            self.check();
            if self.dice.below(3) == 0 {
                let before = self.journal.sequence_number();
                self.order();
                assert!(self.journal.sequence_number() >= before, "the bundle went back");
            } else {
                self.now += TICK;
            }
        }
    }

    /// The server dies before it does the next thing.
    fn dies(&mut self) -> bool {
        let dies = self.dice.below(8) == 0;
        self.deaths += u32::from(dies);
        dies
    }

    /// What is due is done, however often the server dies.
    fn settle(&mut self) {
        for _ in 0..200 {
            match plan(right(self.now), &self.journal, &self.paces) {
                Step::Wait { .. } => return,
                step => self.act(step),
            }
        }
        panic!("does not settle: {:?}", plan(right(self.now), &self.journal, &self.paces));
    }

    /// In the performer's order of effects.
    fn act(&mut self, step: Step) {
        match step {
            Step::Prepare(place) => drop(self.token.insert(place.to_string(), self.journal.next_key())),
            Step::Destroy(place) => drop(self.token.remove(&place.to_string())),
            Step::Prune(purpose) => {
                let pruned = self.journal.clone().prune(purpose, right(self.now));
                let emptied = SlotName::BOTH.map(|slot| Place { purpose, slot });
                for place in emptied.into_iter().filter(|place| *pruned.slot(*place) == Slot::Empty) {
                    self.token.remove(&place.to_string());
                }
            }
            // What was prepared early is old when the plan activates it: then the key before it may still live when the next is due.
            Step::Renew(place) => {
                let renewed = self.journal.slot(place).authority().expect("there is a key");
                assert!(
                    renewed.verdict.is_none(),
                    "what an operator had replaced is certified again: {:?}",
                    self.journal
                );
            }
            _ => {}
        }
        if !self.dies() {
            self.journal = perform(self.journal.clone(), step, right(self.now), DAY);
        }
    }

    fn order(&mut self) {
        let purposes: &[Purpose] = if self.is_rooted { &Purpose::ALL } else { &[Purpose::X509Ca, Purpose::Jwt] };
        let purpose = self.dice.one_of(purposes);
        match self.dice.below(4) {
            0 => self.prepare(purpose),
            1 => {
                let prepared = self.journal.slots(purpose).prepared().map(|(_, authority)| authority.key);
                let named = self.named(prepared);
                self.activate(purpose, named);
            }
            2 => {
                let named = self.named(self.some_key(purpose, |authority| !authority.is_tainted()));
                self.taint(purpose, named);
            }
            _ => {
                let named = self.named(self.some_key(purpose, Authority::is_tainted));
                self.revoke(purpose, named);
            }
        }
    }

    /// Mostly what an operator would name; now and then any key that there ever was, or will be.
    fn named(&mut self, sensible: Option<u64>) -> Option<u64> {
        let any = self.dice.below(self.journal.next_key() + 1);
        if self.dice.below(4) == 0 { Some(any) } else { sensible }
    }

    /// The oldest of such.
    fn some_key(&self, purpose: Purpose, is_meant: impl Fn(&Authority<String>) -> bool) -> Option<u64> {
        let authorities = self.journal.slots(purpose).authorities();
        authorities.into_iter().filter(|authority| is_meant(authority)).map(|authority| authority.key).min()
    }

    fn prepare(&mut self, purpose: Purpose) {
        let Ok(may) = MayPrepare::judge(&self.journal, purpose, right(self.now)) else { return };
        let place = may.place();
        if !matches!(self.journal.slot(place), Slot::Intended(_)) {
            self.journal = self.journal.clone().replace(place, key(place));
        }
        if !self.dies() {
            self.act(Step::Prepare(place));
        }
        *self.obeyed.entry("prepare").or_default() += 1;
    }

    fn activate(&mut self, purpose: Purpose, named: Option<u64>) {
        let Ok(may) = MayActivate::judge(&self.journal, purpose, named) else { return };
        self.journal = self.journal.clone().activate_by_hand(may.place());
        *self.obeyed.entry("activate").or_default() += 1;
    }

    fn taint(&mut self, purpose: Purpose, named: Option<u64>) {
        let judged = match purpose {
            Purpose::Root => MayTaint::judge_upstream(&self.journal, named, self.is_rooted),
            _ => MayTaint::judge(&self.journal, purpose, named, self.is_rooted),
        };
        let Ok(may) = judged else { return };
        let (purpose, key) = may.key();
        self.journal = self.journal.clone().taint(purpose, key);
        *self.obeyed.entry("taint").or_default() += 1;
    }

    fn revoke(&mut self, purpose: Purpose, named: Option<u64>) {
        let judged = match purpose {
            Purpose::Root => MayRevoke::judge_upstream(&self.journal, named, self.is_rooted),
            _ => MayRevoke::judge(&self.journal, purpose, named, self.is_rooted),
        };
        let Ok(may) = judged else { return };
        let (purpose, key) = may.key();
        self.revoked.insert((purpose, key));
        self.journal = self.journal.clone().revoke(purpose, key);
        *self.obeyed.entry("revoke").or_default() += 1;
    }

    fn check(&self) {
        for pace in &self.paces {
            self.invariant_an_untainted_authority_with_its_key_signs(pace.purpose);
            self.invariant_nothing_is_left_of_what_is_revoked(pace.purpose);
        }
        let anchors = self.journal.anchors();
        assert!(anchors.len() <= 3 * (2 + crate::ca::journal::MAX_RETIRED));
    }

    fn invariant_an_untainted_authority_with_its_key_signs(&self, purpose: Purpose) {
        let slots = self.journal.slots(purpose);
        let Some((slot, signer)) = slots.signer(self.now) else {
            panic!("nobody signs for {purpose}: {:?}", self.journal)
        };
        assert!(!signer.is_tainted());
        assert_eq!(self.token.get(&Place { purpose, slot }.to_string()), Some(&signer.key), "the signer has its key");
        let anchor = signer.root.unwrap_or(signer.key);
        let anchors = self.journal.anchors();
        let anchor = anchors.iter().find(|authority| authority.key == anchor);
        assert!(anchor.is_some_and(|anchor| !anchor.is_tainted()), "it is published, and sound: {:?}", self.journal);
    }

    fn invariant_nothing_is_left_of_what_is_revoked(&self, purpose: Purpose) {
        let is_revoked = |purpose, key| self.revoked.contains(&(purpose, key));
        for authority in self.journal.slots(purpose).authorities() {
            assert!(!is_revoked(purpose, authority.key), "{authority:?}");
            assert!(authority.root.is_none_or(|root| !is_revoked(Purpose::Root, root)), "{authority:?}");
        }
        for place in SlotName::BOTH.map(|slot| Place { purpose, slot }) {
            let held = self.journal.slot(place).authority().map(|authority| authority.key);
            assert_eq!(
                self.token.get(&place.to_string()),
                held.as_ref(),
                "the token has the keys of the slots, and no others"
            );
        }
    }
}

//= FLT-S1
#[test]
fn whatever_operators_order_and_whenever_the_server_dies_a_sound_authority_signs_and_what_is_revoked_is_gone() {
    let (mut obeyed, mut deaths) = (BTreeMap::<_, u32>::new(), 0);
    for seed in 1..=LIVES {
        let mut world = World::new(seed);
        world.live();
        world.obeyed.iter().for_each(|(order, times)| *obeyed.entry(*order).or_default() += times);
        deaths += world.deaths;
    }
    assert!(obeyed.len() == 4 && obeyed.values().all(|times| *times > 100) && deaths > 500, "{obeyed:?} {deaths}");
}
