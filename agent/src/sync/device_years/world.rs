//! What happens to a device: the true time, its clocks, its power, and its server's clock.

use std::time::{Duration, Instant};

use ironroot_fuzz::Dice;

use super::YEAR;
use crate::trusted_time::{BUILD_UNIX, Reading, Restart, TpmClock};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Most seconds between two events.
const LONGEST_QUIET: u64 = 20 * DAY as u64;

/// What the kernel's clock shows when the machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rtc {
    /// A clock with a battery: right, until it fails.
    Battery,
    /// None: 1970.
    None,
    /// What a file says of the last shutdown.
    Restored,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process is killed, or the machine loses power and is off for so many seconds.
    Killed,
    PowerLost(i64),
    /// The power goes in the next write of the cache.
    PowerLostInWrite,
    /// The device sleeps: its timers stand still.
    Slept(i64),
    /// The server is away for so many seconds.
    Outage(i64),
    /// The server's clock is wrong by so many seconds for so long.
    ServerJumps(i64, i64),
    /// The kernel's clock is set, so that it is wrong by so many seconds.
    ClockSet(i64),
    /// An operator changes an entry.
    EntryChanged,
}

/// See the module. Times are UNIX seconds.
#[derive(Debug)]
pub(super) struct World {
    pub random: Dice,
    /// The truth, which no clock need show.
    pub now: i64,
    booted: i64,
    /// Seconds of this boot during which timers stood still.
    slept: i64,
    boots: u64,
    /// Any moment: the monotonic clock's zero of this boot.
    base: Instant,
    /// By how much the kernel's clock is wrong, and was when the machine started.
    pub kernel_error: i64,
    pub error_at_boot: i64,
    rtc: Rtc,
    tpm: TpmClock,
    away_until: i64,
    /// By how much the server's clock is wrong, and until when.
    server_error: i64,
    wrong_until: i64,
    next_event: i64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Dice::new(seed);
        let now = BUILD_UNIX + 50_000_000;
        let rtc = random.one_of(&[Rtc::Battery, Rtc::Battery, Rtc::None, Rtc::Restored]);
        let mut world = Self {
            random,
            now,
            booted: now,
            slept: 0,
            boots: 0,
            base: Instant::now(),
            kernel_error: 0,
            error_at_boot: 0,
            rtc,
            tpm: TpmClock { clock_ms: 0, reset_count: 1 },
            away_until: now,
            server_error: 0,
            wrong_until: now,
            next_event: now,
        };
        world.boot(0);
        world.next_event = world.draw_next();
        world
    }

    pub fn reading(&self) -> Reading {
        Reading { boot: self.now - self.booted, kernel: (self.now + self.kernel_error).max(0) }
    }

    /// The monotonic clock.
    pub fn instant(&self) -> Instant {
        self.base + Duration::from_secs((self.now - self.booted - self.slept).unsigned_abs())
    }

    /// What is read when a record is taken up. The chip's clock may be read or not, and counts what its owner set it to.
    pub fn restart(&mut self) -> Restart {
        let tpm_clock = (self.random.below(3) > 0).then_some(self.tpm);
        Restart { tpm_clock, boot_id: self.boots.to_string() }
    }

    /// By how much the server's clock is wrong; none while it is away.
    pub fn server(&self) -> Option<i64> {
        let error = if self.now < self.wrong_until { self.server_error } else { 0 };
        (self.now >= self.away_until).then_some(error)
    }

    pub fn next_event(&self) -> i64 {
        // A server that comes back, and a clock of it that is set right, are no events of the device's.
        self.next_event
    }

    /// Until then nothing happens.
    pub fn pass_to(&mut self, at: i64) {
        let seconds = (at - self.now).max(0);
        self.now += seconds;
        let rate = self.random.one_of(&[700, 1_000, 1_000, 1_300]);
        self.tpm.clock_ms += (seconds * rate).unsigned_abs();
    }

    pub fn sleep(&mut self, seconds: i64) {
        self.slept += seconds;
        self.pass_to(self.now + seconds);
    }

    /// The machine is off for so many seconds, and starts.
    pub fn boot(&mut self, off: i64) {
        let shown = self.now + self.kernel_error;
        self.now += off;
        (self.booted, self.slept, self.boots) = (self.now, 0, self.boots + 1);
        self.tpm.reset_count += 1;
        if self.random.below(40) == 0 {
            // An unclean stop: the chip's clock goes back to what it had kept.
            self.tpm.clock_ms = self.tpm.clock_ms.saturating_sub(400_000);
        }
        self.kernel_error = match (self.rtc, self.random.below(20)) {
            (Rtc::Battery, 0 | 1) => 10 * YEAR,
            (Rtc::Battery, 2) | (Rtc::None, _) => -self.now,
            (Rtc::Battery, _) => {
                if self.kernel_error.abs() > DAY {
                    0
                } else {
                    self.kernel_error
                }
            }
            (Rtc::Restored, 0) => 10 * YEAR,
            (Rtc::Restored, _) => shown - self.now,
        };
        self.error_at_boot = self.kernel_error;
    }

    pub fn happen(&mut self) -> Event {
        self.next_event = self.draw_next();
        let event = self.draw();
        match event {
            Event::Outage(seconds) => self.away_until = self.now + seconds,
            Event::ServerJumps(error, seconds) => (self.server_error, self.wrong_until) = (error, self.now + seconds),
            Event::ClockSet(error) => self.kernel_error = error,
            _ => {}
        }
        event
    }

    fn draw_next(&mut self) -> i64 {
        self.now + 1 + self.random.below(LONGEST_QUIET).cast_signed()
    }

    fn draw(&mut self) -> Event {
        let random = &mut self.random;
        let mut wrong = || {
            let size = random.one_of(&[30, 280, 400, HOUR, 3 * HOUR, DAY, 2 * DAY, YEAR, 10 * YEAR]);
            if random.below(2) == 0 { size } else { -size }
        };
        let (first, error) = (wrong(), wrong());
        let off = random.one_of(&[1, 60, HOUR, 6 * HOUR, DAY, 10 * DAY, 100 * DAY]);
        match random.below(16) {
            0 => Event::Killed,
            1 | 2 => Event::PowerLost(off),
            3..=5 => Event::PowerLostInWrite,
            6 => Event::Slept(off.min(DAY)),
            7..=9 => Event::Outage(random.one_of(&[60, HOUR, 6 * HOUR, DAY, 3 * DAY, 10 * DAY, 40 * DAY])),
            10 | 11 => Event::ServerJumps(error, random.one_of(&[60, HOUR, DAY, 5 * DAY])),
            12 => Event::ClockSet(first),
            13 | 14 => Event::ClockSet(0),
            _ => Event::EntryChanged,
        }
    }
}
