//! Every order of writes, removals, wipes, power cuts and old files put back, in small: a chip, a disk, and somebody who keeps
//! a copy of every file that was ever on it.

use std::collections::BTreeSet;

use stateright::{Checker, Model, Property};

use super::super::write_plan::{Changes, History, WRITE_INTERVAL, WritePlan, plan};
use super::super::{COUNTER_BURST, COUNTER_INTERVAL};
use super::{Seen, Step, is_current};

/// How often somebody loses an identity. The second removal is what the first one's leftovers could undo.
const MAX_REMOVALS: u8 = 2;
/// Where exploring ends. Two removals, a wipe and the raise of a hidden file fit below.
const MAX_COUNTER: u64 = 5;

/// A file: what the envelope says, and how many removals its content knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct File {
    generation: u64,
    removals: u8,
}

/// The agent's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    seen: Seen,
    /// What it serves and writes.
    removals: u8,
    /// A removal was written under an old value of the counter, or not at all.
    owed: bool,
    work: Vec<Step>,
    /// What the steps in `work` are good for when they are done.
    goal: Goal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Goal {
    Nothing,
    /// Older files are worthless.
    Raised,
    /// All files are worthless.
    Wiped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    counter: u64,
    disk: Option<File>,
    /// The disk holds what this agent wrote last, and it is not being wiped.
    is_ours: bool,
    copies: BTreeSet<File>,
    /// What must count no more.
    dead: BTreeSet<File>,
    /// How many removals the server has made.
    removals: u8,
    run: Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// Somebody loses an identity, and the agent hears of it.
    Removal,
    /// A write, as the plan says while increments are, or are not, rationed.
    Store { rationed: bool },
    /// The server has banned the agent: every file must become worthless.
    Wipe,
    /// The next step of what is under way.
    Step,
    /// The power goes; the next run finds this on the disk. It hears from the server before it writes, or does not.
    PowerCut { found: Option<File>, hears: bool },
}

struct Cache;

impl Cache {
    fn increments(run: &Run, rationed: bool) -> bool {
        let changes = Changes { any: true, must_not_be_undone: run.owed, removal: run.owed, ..Changes::default() };
        let debt = if rationed { COUNTER_INTERVAL * COUNTER_BURST } else { Default::default() };
        let history = History { increment_debt: debt, write_debt: WRITE_INTERVAL, ..History::default() };
        plan(changes, history) == WritePlan::WriteAndIncrement
    }
}

impl World {
    fn step(&mut self) {
        match self.run.work.remove(0) {
            Step::Raise => {
                self.counter += 1;
                self.run.seen.raised();
            }
            Step::Write(generation) => {
                let file = File { generation, removals: self.run.removals };
                self.run.seen.file(generation);
                (self.disk, self.is_ours) = (Some(file), true);
                self.copies.insert(file);
            }
            Step::Remove => self.disk = None,
        }
        if self.run.work.is_empty() {
            self.done();
        }
    }

    fn done(&mut self) {
        let knows = self.run.removals;
        match std::mem::replace(&mut self.run.goal, Goal::Nothing) {
            Goal::Nothing => {}
            Goal::Raised => {
                self.dead.extend(self.copies.iter().filter(|file| file.removals < knows));
                self.run.owed = false;
            }
            Goal::Wiped => self.dead.extend(&self.copies),
        }
    }

    /// As `sync::restore` does it: what counts is read, and an interrupted write is finished.
    fn start(&mut self, found: Option<File>, hears: bool) {
        self.is_ours &= found == self.disk;
        self.disk = found;
        let mut run =
            Run { seen: Seen::default(), removals: self.removals, owed: false, work: vec![], goal: Goal::Nothing };
        if let Some(file) = found.filter(|file| is_current(file.generation, self.counter)) {
            run.seen.file(file.generation);
            run.removals = if hears { self.removals } else { file.removals };
            run.owed = run.removals > file.removals;
            if file.generation > self.counter {
                run.work = vec![Step::Raise];
            }
        }
        self.run = run;
    }
}

impl Model for Cache {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let run = Run { seen: Seen::default(), removals: 0, owed: false, work: vec![], goal: Goal::Nothing };
        let none = BTreeSet::new;
        vec![World { counter: 1, disk: None, is_ours: false, copies: none(), dead: none(), removals: 0, run }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let found: BTreeSet<_> = world.copies.iter().copied().map(Some).chain([world.disk, None]).collect();
        for found in found {
            actions.push(Action::PowerCut { found, hears: true });
            if found.is_some_and(|file| is_current(file.generation, world.counter)) {
                actions.push(Action::PowerCut { found, hears: false });
            }
        }
        if !world.run.work.is_empty() {
            actions.push(Action::Step);
            return;
        }
        actions.extend([Action::Store { rationed: true }, Action::Store { rationed: false }, Action::Wipe]);
        if world.removals < MAX_REMOVALS {
            actions.push(Action::Removal);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let counter = next.counter;
        match action {
            Action::Removal => {
                next.removals += 1;
                (next.run.removals, next.run.owed) = (next.removals, true);
            }
            Action::Store { rationed } => {
                let increment = Self::increments(&next.run, rationed);
                next.run.work = next.run.seen.store(counter, increment);
                next.run.goal = if next.run.work.contains(&Step::Raise) { Goal::Raised } else { Goal::Nothing };
            }
            Action::Wipe => {
                next.is_ours = false;
                (next.run.work, next.run.goal) = (next.run.seen.wipe(counter), Goal::Wiped);
            }
            Action::Step => next.step(),
            Action::PowerCut { found, hears } => next.start(found, hears),
        }
        Some(next)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.counter <= MAX_COUNTER
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was taken away or wiped counts no more", invariant_no_dead_file_counts),
            Property::always("a power cut costs no file", invariant_the_last_file_counts),
            Property::sometimes("a removal is made final", |_, world: &World| {
                world.removals == 2 && !world.dead.is_empty()
            }),
            Property::sometimes("a wipe is finished", |_, world: &World| {
                world.disk.is_none() && !world.dead.is_empty()
            }),
            Property::sometimes("an old file is put back and counts", |_, world: &World| {
                !world.is_ours && world.disk.is_some_and(|file| is_current(file.generation, world.counter))
            }),
        ]
    }
}

fn invariant_no_dead_file_counts(_: &Cache, world: &World) -> bool {
    world.dead.iter().all(|file| !is_current(file.generation, world.counter))
}

fn invariant_the_last_file_counts(_: &Cache, world: &World) -> bool {
    !world.is_ours || world.disk.is_some_and(|file| is_current(file.generation, world.counter))
}

//= FLT-A2
#[test]
fn no_order_of_writes_power_cuts_and_old_files_gives_back_what_was_taken_away_or_loses_what_was_written() {
    let checker = Cache.checker().spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}
