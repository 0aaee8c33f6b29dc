//! Every short life of a device, one by one: clocks set and restored, servers that are right or hours off, restarts and power
//! cuts. What the simulation draws at random from long lives is here tried in every order.

use stateright::{Checker, Model, Property};

use super::invariants::Observed;
use super::*;

/// How many things happen in a life, the first contact included.
const DEPTH: usize = 7;
/// What passes at once, seconds: half of an SVID's life.
const TICK: i64 = 1_800;
/// How long SVIDs last, seconds.
const TTL: i64 = 3_600;
/// How wrong a wrong clock is, seconds.
const ERROR: i64 = 10_800;
const BEGINNING: i64 = BUILD_UNIX + 50_000_000;

/// A chain, and whether its issuer's clock was right.
type Chain = (Lifetime, bool);

/// What a power cut leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flash {
    time: TimeRecord,
    held: Option<(Chain, i64)>,
    misled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Life {
    /// The real time, which no clock of the model need show.
    now: i64,
    booted: i64,
    boots: u8,
    /// The kernel's clock is this much wrong.
    kernel_error: i64,
    keeper: Keeper,
    held: Option<Chain>,
    flash: Option<Flash>,
    misled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    /// Half an SVID's life passes.
    Pass,
    /// Somebody sets the clock, so that it is this much wrong.
    SetClock(i64),
    /// A server whose clock is this much wrong signs.
    Server(i64),
    /// The cache is written.
    Write,
    /// The process begins anew, in the same boot.
    Restart,
    /// The device is off for so long; its clock is then this much wrong, or in 1970.
    Reboot { off: i64, clock: Option<i64> },
}

const EVENTS: [Event; 12] = [
    Event::Pass,
    Event::SetClock(0),
    Event::SetClock(ERROR),
    Event::SetClock(-ERROR),
    Event::Server(0),
    Event::Server(ERROR),
    Event::Server(-ERROR),
    Event::Write,
    Event::Restart,
    Event::Reboot { off: 60, clock: Some(0) },
    Event::Reboot { off: 7_200, clock: Some(-7_200) },
    Event::Reboot { off: 7_200, clock: None },
];

impl Life {
    fn new() -> Self {
        let keeper = Keeper::new(BUILD_UNIX, Reading { boot: 0, kernel: BEGINNING });
        let (now, booted) = (BEGINNING, BEGINNING);
        Self { now, booted, boots: 0, kernel_error: 0, keeper, held: None, flash: None, misled: false }
    }

    fn reading(&self) -> Reading {
        Reading { boot: self.now - self.booted, kernel: (self.now + self.kernel_error).max(0) }
    }

    fn restart(&self) -> Restart {
        Restart { tpm_clock: None, boot_id: self.boots.to_string() }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass => self.now += TICK,
            Event::SetClock(error) => self.kernel_error = error,
            Event::Server(error) => self.meet(error),
            Event::Write => self.write(),
            Event::Restart => self.start(),
            Event::Reboot { off, clock } => {
                self.now += off;
                (self.booted, self.boots) = (self.now, self.boots + 1);
                self.kernel_error = clock.unwrap_or(-self.now);
                self.start();
            }
        }
        self.keeper.observe(self.reading());
    }

    fn meet(&mut self, error: i64) {
        let reading = self.reading();
        let issued = self.now + error - 10;
        let span = Span { not_before: issued, not_after: self.now + error + TTL };
        let fresh = self.keeper.receive(issued, span, reading);
        if (reading.kernel - issued).abs() <= AGREEMENT {
            self.misled = reading.kernel > self.now && issued > self.now;
        }
        if self.keeper.prefers(&fresh, self.held.as_ref().map(|(held, _)| held), reading) {
            self.held = Some((fresh, error == 0));
        }
    }

    fn write(&mut self) {
        let reading = self.reading();
        let held = self.held.map(|chain| (chain, self.keeper.left(&chain.0, reading)));
        self.flash = Some(Flash { time: self.keeper.record(self.restart(), reading), held, misled: self.misled });
    }

    fn start(&mut self) {
        self.keeper = Keeper::new(BUILD_UNIX, self.reading());
        (self.held, self.misled) = (None, false);
        let Some(flash) = self.flash.clone() else { return };
        self.misled = flash.misled;
        self.keeper.restore(&flash.time, &self.restart(), self.reading());
        self.held = flash.held.map(|((chain, honest), left)| (Lifetime::kept(chain.span(), Some(left)), honest));
    }

    fn observed(&self) -> Observed<'_> {
        let held = self.held.as_ref().map(|(chain, honest)| (chain, *honest));
        Observed { keeper: &self.keeper, reading: self.reading(), now: self.now, held, misled: self.misled }
    }
}

struct Lives;

impl Model for Lives {
    type State = Life;
    type Action = Event;

    fn init_states(&self) -> Vec<Life> {
        vec![Life::new()]
    }

    fn actions(&self, _: &Life, events: &mut Vec<Event>) {
        events.extend(EVENTS);
    }

    fn next_state(&self, life: &Life, event: Event) -> Option<Life> {
        let mut next = life.clone();
        next.happen(event);
        (next != *life).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the invariants of time hold", |_, life: &Life| life.observed().broken().is_none()),
            Property::sometimes("a clock is contradicted", |_, life: &Life| {
                life.keeper.standing() == ClockStanding::Contradicted
            }),
            Property::sometimes("a device is misled", |_, life: &Life| life.misled),
            Property::sometimes("an SVID comes back after a power cut", |_, life: &Life| {
                life.held.is_some_and(|(chain, _)| super::invariants::is_kept(&chain))
            }),
        ]
    }
}

#[test]
fn no_order_of_a_few_clock_errors_liars_and_power_cuts_breaks_the_invariants() {
    let checker = Lives.checker().target_max_depth(DEPTH).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}
