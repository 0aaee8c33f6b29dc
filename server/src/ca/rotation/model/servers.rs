//! Two servers, their token and their rows, and what each of them may do next.

use std::collections::{BTreeMap, BTreeSet};

use ironroot_api::TrustDomain;
use ironroot_hsm::KeyName;

use super::super::rehearsal::{paces, with_jwt};
use super::super::{Pace, Step, plan};
use crate::ca::journal::{self, Authority, KeyMark, KeyRecord, Origin, Place, Slot, SlotName, Verdict};
use crate::ca::purpose::Purpose;
use crate::ca::server_name::ServerName;
use crate::clock::{Moment, Trust};

const START: i64 = 1_800_000_000;
/// Life of a CA: prepared after 6, activated after 10, published for 1 before it signs.
const TTL: i64 = 12;
/// So long is looked: two lives and what follows, so that keys are destroyed, their places used again, and authorities pruned.
const HORIZON: i64 = 26;
/// The longest absence of a server: its next CA is late then, and there is just time to publish it. After a longer one the plan does
/// not wait for that, since the CA that signs has no time left.
const LONGEST_ABSENCE: i64 = 4;

type Journal = journal::Journal<Serial>;

/// The number of a key of the token, counted as they are made; authorities are verified with it.
pub(super) type Serial = u8;

/// The two servers of a world, and what may happen to them.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) names: [ServerName; 2],
    pub(super) is_rooted: bool,
    /// Whether it is keys of JWT-SVIDs that they rotate, and not CAs.
    pub(super) is_jwt: bool,
    /// How many of the two may die. With both it is a million worlds and some minutes; the gate explores one, which is enough to meet
    /// every order of effects.
    pub(super) mortals: usize,
    /// Labels of keys that an administrator has made; none: servers make them.
    pub(super) given: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    time: i64,
    pub(super) servers: [Server; 2],
    /// Name of each key: who made it (nobody of these, if it was given), and which it is.
    pub(super) token: BTreeMap<String, (Option<usize>, Serial)>,
    pub(super) made: Serial,
    /// Somebody destroyed a key that was not its own.
    pub(super) has_trespassed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// As it is on disk; in memory it is the same, or the server is dead.
    pub(super) journal: Journal,
    midway: Midway,
    /// The bundle that its agents have: what it found in all rows when it looked last.
    pub(super) bundle: BTreeSet<Serial>,
    pub(super) is_done: bool,
    pub(super) absent_since: Option<i64>,
    pub(super) has_died: bool,
}

/// An effect on the token that is not in the journal yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Midway {
    Nowhere,
    HasKey(Place, Serial),
    HasDestroyed(Purpose),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Tick,
    Act(usize),
    Die(usize),
    Return(usize),
}

impl World {
    fn moment(&self) -> Moment {
        Moment { now_unix: START + self.time, counted: self.time, trust: Trust::Agreed }
    }

    /// What all rows publish.
    fn published(&self) -> BTreeSet<Serial> {
        self.servers.iter().flat_map(|server| server.journal.anchors()).map(|authority| authority.credential).collect()
    }

    /// Who signs now, of a server that runs.
    pub(super) fn signer(&self, of: usize) -> Option<&Authority<Serial>> {
        let server = self.servers.get(of).filter(|server| server.absent_since.is_none())?;
        let signer = |purpose| server.journal.slots(purpose).signer(START + self.time);
        signer(Purpose::X509Ca).or_else(|| signer(Purpose::Jwt)).map(|(_, authority)| authority)
    }

    pub(super) fn serial_of(&self, key: &KeyRecord) -> Option<Serial> {
        self.token.get(&key.name.to_string()).map(|(_, serial)| *serial)
    }

    fn has_taken(&self, server: usize, serial: Serial) -> bool {
        self.servers[server].journal.has_used(&mark(serial))
    }

    fn destroy(&mut self, server: usize, key: &KeyRecord) {
        if key.origin == Origin::Made
            && let Some((maker, _)) = self.token.remove(&key.name.to_string())
        {
            self.has_trespassed |= maker != Some(server);
        }
    }
}

fn mark(serial: Serial) -> KeyMark {
    KeyMark::of(&[serial])
}

impl Servers {
    pub(super) fn named(names: [&str; 2]) -> Self {
        let names = names.map(|name| name.parse().unwrap_or_default());
        Self { names, is_rooted: false, is_jwt: false, mortals: 1, given: Vec::new() }
    }

    fn paces(&self) -> Vec<Pace> {
        if self.is_jwt { with_jwt(Vec::new()) } else { paces(self.is_rooted, TTL) }
    }

    fn act(&self, world: &mut World, of: usize) {
        let journal = world.servers[of].journal.clone();
        match world.servers[of].midway.clone() {
            Midway::Nowhere => self.begin(world, of, plan(world.moment(), &journal, &self.paces(), &[])),
            Midway::HasKey(place, serial) => {
                let authority = certified(world, &journal, place, serial);
                persist(world, of, journal.prepare(place, authority));
            }
            Midway::HasDestroyed(purpose) => persist(world, of, journal.prune(purpose, world.moment())),
        }
    }

    fn begin(&self, world: &mut World, of: usize, step: Step) {
        let journal = world.servers[of].journal.clone();
        match step {
            Step::Wait { .. } => world.servers[of].is_done = true,
            Step::Intend(place) => self.intend(world, of, place),
            Step::Prepare(place) => self.obtain(world, of, place),
            Step::Renew(place) => {
                let key = journal.slot(place).key().and_then(|key| world.serial_of(key));
                world.servers[of].midway = Midway::HasKey(place, key.expect("its key is there"));
            }
            Step::Activate(place) => persist(world, of, journal.activate(place)),
            Step::Prune(purpose) => {
                let pruned = journal.clone().prune(purpose, world.moment());
                for place in SlotName::BOTH.map(|slot| Place { purpose, slot }) {
                    if let (Slot::Empty, Some(key)) = (pruned.slot(place), journal.slot(place).key()) {
                        world.destroy(of, key);
                    }
                }
                world.servers[of].midway = Midway::HasDestroyed(purpose);
            }
            Step::Destroy(place) => persist(world, of, journal.destroyed(place)),
        }
    }

    fn intend(&self, world: &mut World, of: usize, place: Place) {
        let journal = world.servers[of].journal.clone();
        if self.given.is_empty() {
            let name = place.key_name(&trust_domain(), &self.names[of]);
            return persist(world, of, journal.intend(place, KeyRecord::made(name)));
        }
        let names = self.given.iter().map(|label| KeyName::labelled(label).expect("a label"));
        let mut free = names.filter_map(|name| {
            let (_, serial) = world.token.get(&name.to_string())?;
            Some((*serial, KeyRecord::given(name, mark(*serial))))
        });
        let free = free.find(|(serial, _)| !(0..2).any(|server| world.has_taken(server, *serial)));
        let (serial, key) = free.expect("there are keys enough");
        persist(world, of, journal.with_used(mark(serial)).intend(place, key));
    }

    fn obtain(&self, world: &mut World, of: usize, place: Place) {
        let journal = world.servers[of].journal.clone();
        let Slot::Intended(key) = journal.slot(place).clone() else { return };
        if key.origin == Origin::Made {
            world.destroy(of, &key);
            world.made += 1;
            world.token.insert(key.name.to_string(), (Some(of), world.made));
        }
        let serial = world.serial_of(&key).expect("made just now, or given");
        if key.origin == Origin::Given && world.has_taken(1 - of, serial) {
            return persist(world, of, journal.forsake(place));
        }
        world.servers[of].midway = Midway::HasKey(place, serial);
    }
}

fn persist(world: &mut World, of: usize, journal: Journal) {
    let server = &mut world.servers[of];
    server.journal = journal;
    server.midway = Midway::Nowhere;
}

fn certified(world: &World, journal: &Journal, place: Place, serial: Serial) -> Authority<Serial> {
    let Moment { now_unix, counted, .. } = world.moment();
    let root = journal.slots(Purpose::Root).signer(now_unix).map(|(_, root)| root.key);
    let is_root = place.purpose == Purpose::Root;
    let number = journal.slot(place).authority().map_or(journal.next_key(), |authority| authority.key);
    Authority {
        credential: serial,
        issued_at: now_unix,
        not_after: now_unix + if is_root { 40 * TTL } else { TTL },
        issued_counted: counted,
        key: number,
        in_token: journal.slot(place).key().expect("it is intended").clone(),
        root: root.filter(|_| !is_root),
        upstream: None,
        verdict: Verdict::None,
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").expect("legal")
}

impl Servers {
    pub(super) fn beginning(&self) -> World {
        let server = |name| Server {
            journal: Journal::new(&trust_domain(), name),
            midway: Midway::Nowhere,
            bundle: BTreeSet::new(),
            is_done: false,
            absent_since: None,
            has_died: false,
        };
        let given = (100..)
            .zip(&self.given)
            .map(|(serial, label)| (KeyName::labelled(label).expect("a label").to_string(), (None, serial)));
        let servers = self.names.each_ref().map(server);
        World { time: 0, servers, token: given.collect(), made: 0, has_trespassed: false }
    }

    pub(super) fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        let has_settled = |server: &Server| match server.absent_since {
            Some(since) => world.time - since < LONGEST_ABSENCE,
            None => server.is_done,
        };
        if world.time < HORIZON && world.servers.iter().all(has_settled) {
            actions.push(Action::Tick);
        }
        for (number, server) in world.servers.iter().enumerate() {
            match server.absent_since {
                Some(_) => actions.push(Action::Return(number)),
                None => {
                    actions.extend((!server.is_done).then_some(Action::Act(number)));
                    let is_mortal = number < self.mortals && !server.has_died;
                    actions.extend(is_mortal.then_some(Action::Die(number)));
                }
            }
        }
        actions
    }

    pub(super) fn after(&self, before: &World, action: Action) -> World {
        let mut world = before.clone();
        match action {
            Action::Tick => {
                world.time += 1;
                let published = world.published();
                for server in world.servers.iter_mut().filter(|server| server.absent_since.is_none()) {
                    server.is_done = false;
                    server.bundle.clone_from(&published);
                }
            }
            Action::Act(of) => self.act(&mut world, of),
            Action::Die(of) => {
                let server = &mut world.servers[of];
                (server.midway, server.is_done) = (Midway::Nowhere, false);
                (server.absent_since, server.has_died) = (Some(before.time), true);
            }
            Action::Return(of) => {
                world.servers[of].absent_since = None;
                world.servers[of].bundle = before.published();
            }
        }
        world
    }
}
