//! Device-years in virtual time, over what the rooms decide themselves: the time ([`Keeper`]), the entries and their SVIDs ([`Ledger`]),
//! what is served ([`Identities`]), when it is written ([`plan`], [`Debts`]) and under which generation ([`Seen`]). What is simulated is
//! the world (`world`: clocks, outages, power) and the loop's order of steps (`life`); what must hold is judged by the truth (`truth`),
//! which no room knows. Each life is its seed's alone: a failure names it.
//!
//! | planted fault | what it breaks | found as |
//! |---|---|---|
//! | `KernelDecides` | ends are judged by the kernel's clock | a valid SVID refused (RTC in +10 years), an ended one served (1970) |
//! | `AnyClockIsRecorded` | a kernel's clock is believed after a reboot without having agreed before | a valid one refused |
//! | `LeftIsForgotten` | a chain from the cache is taken for a whole life | an ended one served |
//! | `GapIsForgotten` | what passed since the record was made counts for nothing | an ended one served |
//! | `DisputedIsTaken` | what an agreed clock disputes replaces what lasts | a valid one refused |
//! | `RaisedFirst` | the counter is raised before the file is written | a file lost to a power cut |
//! | `ExactGeneration` | a file one ahead of the counter is refused | a file lost to a power cut |
//! | `NeverRenewed` | schedules stand still after a sleep of the device | nothing served though a right server is there |
//! | `NotWritten` | a new SVID waits for the next change of entries to be written | what was sealed is older than the plan allows |
//!
//! [`Keeper`]: crate::trusted_time::Keeper
//! [`Ledger`]: super::Ledger
//! [`Identities`]: crate::identities::Identities
//! [`plan`]: crate::sealed_cache::plan
//! [`Debts`]: crate::sealed_cache::Debts
//! [`Seen`]: crate::sealed_cache::Seen

mod life;
mod truth;
mod world;

use std::fmt;

use life::Life;

/// Seconds of a year.
const YEAR: i64 = 31_557_600;
/// How long one life lasts, years. A device is replaced then.
const LIFE_YEARS: i64 = 10;
/// Device-years in the gate.
const GATE_YEARS: u64 = 20;
/// The same by night, for each time that properties are tried there: 10,000 where it is a hundred.
const NIGHT_YEARS: u64 = 100;
/// Lives after which a planted fault must have been found.
const FAULT_LIVES: u64 = 60;

/// A rule that is broken on purpose: see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    KernelDecides,
    AnyClockIsRecorded,
    LeftIsForgotten,
    GapIsForgotten,
    DisputedIsTaken,
    RaisedFirst,
    ExactGeneration,
    NeverRenewed,
    NotWritten,
}

/// Each with the life that finds it soon; the next ones are tried if that does not.
const FAULTS: [(Fault, u64); 9] = [
    (Fault::KernelDecides, 1),
    (Fault::AnyClockIsRecorded, 5),
    (Fault::LeftIsForgotten, 3),
    (Fault::GapIsForgotten, 1),
    (Fault::DisputedIsTaken, 1),
    (Fault::RaisedFirst, 4),
    (Fault::ExactGeneration, 4),
    (Fault::NeverRenewed, 3),
    (Fault::NotWritten, 1),
];

/// What lives amount to. Seconds are of one SVID.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    seconds: i64,
    turns: u64,
    rotations: u64,
    boots: u64,
    outages: u64,
    server_jumps: u64,
    clock_sets: u64,
    writes: u64,
    /// Power cuts in a write: before its first step, after the first, and so on.
    cuts: [u64; 5],
    served: i64,
    /// Served though it had ended, where nothing could have told the device.
    unknowable: i64,
    /// Nothing valid was there to be served.
    nothing: i64,
    /// Must be 0: served though the device could know that it had ended.
    expired: i64,
    /// Must be 0: valid, held, and not served.
    refused: i64,
    /// Must be 0: files that counted before a power cut and not after it.
    lost: u64,
    /// Must be 0: a right server had been there for longer than it takes, and nothing was served.
    late: i64,
    /// Must be 0: what was sealed was older than the plan of writing allows.
    stale: u64,
}

impl Figures {
    fn add(&mut self, other: Self) {
        let Self { cuts, .. } = other;
        self.seconds += other.seconds;
        self.turns += other.turns;
        self.rotations += other.rotations;
        self.boots += other.boots;
        self.outages += other.outages;
        self.server_jumps += other.server_jumps;
        self.clock_sets += other.clock_sets;
        self.writes += other.writes;
        self.cuts.iter_mut().zip(cuts).for_each(|(sum, more)| *sum += more);
        self.served += other.served;
        self.unknowable += other.unknowable;
        self.nothing += other.nothing;
        self.expired += other.expired;
        self.refused += other.refused;
        self.lost += other.lost;
        self.late += other.late;
        self.stale += other.stale;
    }

    fn is_clean(&self) -> bool {
        self.expired == 0 && self.refused == 0 && self.lost == 0 && self.late == 0 && self.stale == 0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |seconds: i64| seconds as f64 / self.seconds.max(1) as f64 * 100.0;
        writeln!(f, "device-years                      {}", self.seconds / YEAR)?;
        writeln!(f, "turns of the loop                 {}", self.turns)?;
        writeln!(f, "SVIDs rotated                     {}", self.rotations)?;
        writeln!(f, "boots                             {}", self.boots)?;
        writeln!(f, "outages, jumps of server's clock  {}, {}", self.outages, self.server_jumps)?;
        writeln!(f, "kernel's clock set                {}", self.clock_sets)?;
        writeln!(f, "writes, power cuts by step        {}, {:?}", self.writes, self.cuts)?;
        writeln!(f, "of the time a valid SVID served   {:.4} %", share(self.served))?;
        writeln!(f, "  nothing valid was there         {:.4} %", share(self.nothing))?;
        writeln!(f, "  ended, and nobody could tell    {:.4} %", share(self.unknowable))?;
        writeln!(f, "  (the rest: off, or signed by a server whose clock was wrong)")?;
        writeln!(f, "served expired                    {} s", self.expired)?;
        writeln!(f, "refused valid                     {} s", self.refused)?;
        writeln!(f, "files lost, files too old         {}, {}", self.lost, self.stale)?;
        write!(f, "late under a right server         {} s", self.late)
    }
}

/// Lives until so many years have been lived, or something is broken.
fn lives(first_seed: u64, years: u64, fault: Fault) -> (Figures, Option<u64>) {
    let mut all = Figures::default();
    let mut seed = first_seed;
    while all.seconds / YEAR < i64::try_from(years).unwrap_or(i64::MAX) {
        let lived = Life::new(seed, fault).live(LIFE_YEARS * YEAR);
        all.add(lived);
        if !lived.is_clean() {
            return (all, Some(seed));
        }
        seed += 1;
    }
    (all, None)
}

//= FLT-S11
#[test]
fn in_device_years_of_outages_wrong_clocks_and_power_cuts_nothing_ended_is_served_and_nothing_valid_refused() {
    let alone = std::env::var("IRONROOT_SEED").ok().and_then(|seed| seed.parse().ok());
    let times = std::env::var(ironroot_fuzz::TIMES_VARIABLE).ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let years = if times == 1 { GATE_YEARS } else { NIGHT_YEARS * times };
    // A seed and times: so many years from that life on.
    let (seed, years): (u64, u64) = match alone {
        Some(seed) if times == 1 => (seed, 1),
        first => (first.unwrap_or(1), years),
    };
    let (figures, broken) = lives(seed, years, Fault::None);
    println!("{figures}");
    assert_eq!(broken, None, "the seed of the life in which it broke; alone with IRONROOT_SEED:\n{figures}");
}

#[test]
fn every_planted_fault_is_found() {
    for (fault, first_seed) in FAULTS {
        let years = FAULT_LIVES * u64::try_from(LIFE_YEARS).expect("a few");
        let (figures, found) = lives(first_seed, years, fault);
        let seed = found.unwrap_or_else(|| panic!("{fault:?} is not found:\n{figures}"));
        let Figures { expired, refused, lost, late, stale, .. } = figures;
        println!(
            "{fault:?}: in life {seed}: expired {expired} s, refused {refused} s, lost {lost}, late {late} s, stale {stale}"
        );
    }
}
