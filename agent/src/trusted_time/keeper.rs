//! What this device can know of the time. Pure: readings in, decisions out; `docs/trusted_time.md` says why.

use super::clocks::{Reading, Restart};
use super::lifetime::{Left, Lifetime, Span};
use super::record::{BootMark, TimeRecord};

/// How far the kernel's clock and a server's may differ and still agree, seconds.
pub const AGREEMENT: i64 = 300;
/// How far the kernel's clock may move against elapsed time and still be the clock that agreed, seconds.
pub(super) const STEP: i64 = 60;
/// One part in this many: by how much elapsed time may be wrong, with all that slews it (500 ppm), rounded up.
pub(super) const SLEW: i64 = 1024;
/// One part in this many of a chain's life is its last: after the half at which schedules replace it, and their jitter.
const LAST_PART: i64 = 4;
/// How far ahead of a record the kernel's clock may be after a reboot and still be the clock that agreed before, seconds: five years.
/// Of a device that was off for longer the server has to say so; a clock that is further ahead has more likely lost its battery.
pub const LONGEST_ABSENCE: i64 = 5 * 31_557_600;
/// By how much servers date certificates back, seconds. Source: SPIRE, pkg/server/ca, backdate.
const BACKDATE: i64 = 10;

/// The state. It moves on with the readings that every question brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Keeper {
    /// The agent's own clock is this and the seconds since boot: near to UNIX time, never set, never back.
    origin: i64,
    /// Now is at least this. Raised by elapsed time; set, up or down, only by two witnesses of different kinds.
    confirmed: Mark,
    claim: Option<Claim>,
    kernel: Kernel,
    /// Since when [`Left::Kept`] runs, by the own clock, and what of it was over then.
    kept: (i64, i64),
    /// Grows whenever an event changed what may be served.
    version: u64,
}

/// A UNIX time at a moment of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mark {
    unix: i64,
    boot: i64,
}

/// A server's word, confirmed by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Claim {
    mark: Mark,
    /// A server said so in this run; otherwise the record did.
    heard: bool,
}

/// What the kernel's clock is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kernel {
    /// Nothing yet: 1970, the image's date, the last shutdown, or right.
    Unproven,
    /// It agreed with a server in an earlier boot and has gone on since, as a clock with a battery does.
    Recorded(Track),
    /// It agreed with the last word of a server.
    Agreed(Track),
    /// It did, but the server's last word contradicts it.
    Disputed(Track),
}

/// The kernel's clock against elapsed time, since it agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Track {
    offset: i64,
}

/// How the kernel's clock stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockStanding {
    /// No server has confirmed it yet.
    Unconfirmed,
    /// A server confirmed it.
    Confirmed,
    /// A server had confirmed it and now contradicts it.
    Contradicted,
}

impl ClockStanding {
    /// Each.
    pub const ALL: [Self; 3] = [Self::Unconfirmed, Self::Confirmed, Self::Contradicted];

    /// What metrics call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Confirmed => "confirmed",
            Self::Contradicted => "contradicted",
        }
    }
}

/// At which moment to verify a server's chain, and whether time speaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainTime {
    /// UNIX seconds, in the chain's span.
    pub at: i64,
    /// It ended before now, as far as this device knows: the server must first prove that its CA is alive.
    pub in_doubt: bool,
}

impl Keeper {
    /// Knows nothing but when it was built.
    pub fn new(build_unix: i64, reading: Reading) -> Self {
        let origin = reading.kernel.max(build_unix).saturating_sub(reading.boot);
        Self {
            origin,
            confirmed: Mark { unix: build_unix, boot: reading.boot },
            claim: None,
            kernel: Kernel::Unproven,
            kept: (origin + reading.boot, 0),
            version: 0,
        }
    }

    /// Takes up what an earlier run left. May be called again when the TPM's clock has been read.
    pub fn restore(&mut self, record: &TimeRecord, restart: &Restart, reading: Reading) {
        let gap = record.least_elapsed(restart, reading.boot);
        let mark = |unix: i64| Mark { unix: unix.saturating_add(gap), boot: reading.boot };
        let recorded = mark(record.confirmed);
        if recorded.unix > self.confirmed(reading) {
            self.confirmed = recorded;
        }
        if !self.claim.is_some_and(|claim| claim.heard) {
            self.claim = record.claim.map(|claim| Claim { mark: mark(claim), heard: false });
            self.kernel = restored_kernel(record, restart, reading, gap);
        }
        self.kept = (self.own(reading), gap);
        self.version += 1;
    }

    /// What to write down; `restart` names the boot and gives the TPM's clock.
    pub fn record(&self, restart: Restart, reading: Reading) -> TimeRecord {
        let boot = (!restart.boot_id.is_empty()).then_some(BootMark { id: restart.boot_id, seconds: reading.boot });
        TimeRecord {
            confirmed: self.confirmed(reading),
            tpm_clock: restart.tpm_clock,
            boot,
            claim: self.claimed(reading),
            kernel: matches!(self.kernel, Kernel::Agreed(_) | Kernel::Recorded(_)).then_some(reading.kernel),
        }
    }

    /// Every question begins here: a kernel clock that was set is no longer the one that agreed.
    pub fn observe(&mut self, reading: Reading) {
        let (Kernel::Recorded(track) | Kernel::Agreed(track) | Kernel::Disputed(track)) = self.kernel else { return };
        if !track.leads_to(reading) {
            self.kernel = Kernel::Unproven;
            self.version += 1;
        }
    }

    /// The agent's own clock: schedules and ends are on it.
    pub fn own(&self, reading: Reading) -> i64 {
        self.origin.saturating_add(reading.boot)
    }

    /// Now is at least this, UNIX seconds.
    pub fn confirmed(&self, reading: Reading) -> i64 {
        let elapsed = reading.boot.saturating_sub(self.confirmed.boot).max(0);
        self.confirmed.unix.saturating_add(elapsed - elapsed / SLEW - 1).max(self.confirmed.unix)
    }

    /// The best estimate of now, UNIX seconds.
    pub fn estimate(&self, reading: Reading) -> i64 {
        let heard = self.claim.filter(|claim| claim.heard).map(|claim| claim.mark.at(reading));
        match (self.kernel, heard) {
            (Kernel::Agreed(_), _) | (Kernel::Recorded(_), None) => reading.kernel,
            (_, Some(heard)) => heard,
            (_, None) => reading.kernel.max(self.confirmed(reading)).max(self.claimed(reading).unwrap_or(i64::MIN)),
        }
    }

    /// How the kernel's clock stands.
    pub fn standing(&self) -> ClockStanding {
        match self.kernel {
            Kernel::Unproven | Kernel::Recorded(_) => ClockStanding::Unconfirmed,
            Kernel::Agreed(_) => ClockStanding::Confirmed,
            Kernel::Disputed(_) => ClockStanding::Contradicted,
        }
    }

    /// Whether something speaks for the estimate: a server in this run, or a kernel's clock that has agreed with one.
    pub fn is_placed(&self) -> bool {
        !matches!(self.kernel, Kernel::Unproven) || self.claim.is_some_and(|claim| claim.heard)
    }

    /// Grows whenever an event changed what may be served.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes in a chain that was signed for a key made for this very request, by a CA under the anchors: its leaf's
    /// `issued` (notBefore) is what the server holds for now.
    pub fn receive(&mut self, issued: i64, span: Span, reading: Reading) -> Lifetime {
        self.hear(issued, reading);
        self.count(issued, span, reading)
    }

    /// How long something lasts that was signed just now and says nothing of the time that is believed: a token, which is not
    /// for a key that the agent has made for it.
    pub fn count(&self, issued: i64, span: Span, reading: Reading) -> Lifetime {
        let issuer_now = match self.kernel {
            Kernel::Agreed(_) => reading.kernel.clamp(issued, issued.saturating_add(BACKDATE)),
            Kernel::Unproven | Kernel::Recorded(_) | Kernel::Disputed(_) => issued,
        };
        let disputed = matches!(self.kernel, Kernel::Disputed(_));
        // A chain shorter than the back-dating is worth a moment all the same: its issuer meant something by it.
        let seconds = span.not_after.saturating_sub(issuer_now).clamp(1, span.length().max(1));
        Lifetime::fresh(span, self.own(reading), seconds, disputed)
    }

    /// A server says that now is `unix`.
    fn hear(&mut self, unix: i64, reading: Reading) {
        self.observe(reading);
        self.claim = Some(Claim { mark: Mark { unix, boot: reading.boot }, heard: true });
        let before = self.kernel;
        if reading.kernel.saturating_sub(unix).saturating_abs() <= AGREEMENT {
            // Two witnesses of different kinds: the one way for the bound to jump, and the one way down.
            self.confirmed = Mark { unix: unix.min(reading.kernel), boot: reading.boot };
            self.kernel = Kernel::Agreed(Track::of(reading));
        } else {
            self.kernel = before.contradicted();
        }
        if std::mem::discriminant(&before) != std::mem::discriminant(&self.kernel) {
            self.version += 1;
        }
    }

    /// At which moment to verify a server's chain, and whether time speaks against it. A certificate that is not valid yet
    /// proves our own clock behind: nobody can have stolen it. `None` for a chain that is never valid.
    pub fn judge(&self, span: Span, reading: Reading) -> Option<ChainTime> {
        let now = self.estimate(reading);
        let at = span.nearest(now)?;
        Some(ChainTime { at, in_doubt: span.not_after.saturating_add(AGREEMENT) < now })
    }

    /// A server whose chain was verified, and is not in doubt, shows a certificate that began after what we hold for now:
    /// our estimate is disproved, and it is at least that. Too weak a word to confirm a clock by.
    pub fn lift(&mut self, not_before: i64, reading: Reading) {
        if not_before <= self.estimate(reading).saturating_add(AGREEMENT) {
            return;
        }
        self.claim = Some(Claim { mark: Mark { unix: not_before, boot: reading.boot }, heard: true });
        self.kernel = self.kernel.contradicted();
        self.version += 1;
    }

    /// Whether now, as far as this device knows, lies outside of a chain's span or in its last quarter: then it is to be replaced
    /// soon, whatever the schedule says. Of a chain from an earlier run the schedule may hold too much for left: how long that
    /// run is ago is not known before a server's word.
    pub fn is_out_of_time(&self, span: Span, reading: Reading) -> bool {
        self.out_of_time_in(span, reading) <= 0
    }

    /// In how many seconds that will be so, if no clock jumps meanwhile: the estimate goes on as elapsed time does. It is so now if that is
    /// none, or fewer.
    pub fn out_of_time_in(&self, span: Span, reading: Reading) -> i64 {
        let now = self.estimate(reading);
        let last_quarter = span.not_after.saturating_sub(span.length() / LAST_PART);
        let is_ahead = span.not_before > now.saturating_add(AGREEMENT);
        if is_ahead { 0 } else { last_quarter.saturating_sub(now) }
    }

    /// Whether a fresh chain is to take the place of what is held. Not if our clock, which had agreed with the server,
    /// disputes it while what is held still lasts.
    pub fn prefers(&self, fresh: &Lifetime, held: Option<&Lifetime>, reading: Reading) -> bool {
        !fresh.is_disputed() || held.is_none_or(|held| self.end(held, reading) <= self.own(reading))
    }

    /// Seconds that are left by elapsed time alone; what goes into the record beside the chain.
    pub fn left(&self, lifetime: &Lifetime, reading: Reading) -> i64 {
        self.elapsed_end(lifetime).saturating_sub(self.own(reading))
    }

    /// When a chain ends, by the agent's own clock; it stays true until [`version`](Self::version) grows.
    ///
    /// Elapsed time decides. What may cut it short: two witnesses of different kinds that agree now; and for a chain of an
    /// earlier run, of which some time may have passed uncounted, also the confirmed bound, a kernel clock that goes on as
    /// it was when it agreed, or two that differ but both say so.
    ///
    /// Here the bound goes on by the whole of elapsed time, as every chain does: less what may be slewed, a chain that was taken
    /// up would last a 1/1024 longer than one received at the same agreement, once a server contradicts the clock.
    pub fn end(&self, lifetime: &Lifetime, reading: Reading) -> i64 {
        let not_after = lifetime.span().not_after;
        let own = self.own(reading);
        let by = |clock: i64| own.saturating_add(not_after.saturating_sub(clock));
        let elapsed = self.elapsed_end(lifetime);
        match (lifetime.left(), self.kernel) {
            (Left::Fresh { .. }, Kernel::Agreed(track)) => elapsed.min(by(track.clock(reading) - AGREEMENT)),
            (Left::Fresh { .. }, _) => elapsed,
            (Left::Kept { .. }, kernel) => {
                let sure = elapsed.min(by(self.confirmed.at(reading)));
                match (kernel, self.claimed(reading)) {
                    (Kernel::Agreed(_) | Kernel::Recorded(_), _) => sure.min(by(reading.kernel)),
                    (_, Some(claimed)) => sure.min(by(reading.kernel).max(by(claimed))),
                    (_, None) => sure,
                }
            }
        }
    }

    fn elapsed_end(&self, lifetime: &Lifetime) -> i64 {
        match lifetime.left() {
            Left::Fresh { at, seconds } => at.saturating_add(seconds),
            Left::Kept { seconds } => self.kept.0.saturating_add(seconds).saturating_sub(self.kept.1),
        }
    }

    /// What the last word of a server amounts to now.
    fn claimed(&self, reading: Reading) -> Option<i64> {
        self.claim.map(|claim| claim.mark.at(reading))
    }
}

impl Kernel {
    /// What a server that says otherwise makes of it.
    fn contradicted(self) -> Self {
        match self {
            Self::Agreed(track) | Self::Disputed(track) => Self::Disputed(track),
            Self::Unproven | Self::Recorded(_) => Self::Unproven,
        }
    }
}

impl Mark {
    fn at(&self, reading: Reading) -> i64 {
        self.unix.saturating_add(reading.boot.saturating_sub(self.boot).max(0))
    }
}

impl Track {
    fn of(reading: Reading) -> Self {
        Self { offset: reading.kernel.saturating_sub(reading.boot) }
    }

    /// The clock as it was when it agreed, gone on by elapsed time: a small step since is not the server's word.
    fn clock(&self, reading: Reading) -> i64 {
        self.offset.saturating_add(reading.boot)
    }

    /// What slews the kernel's clock slews the seconds since boot alike: they move apart when it is set, and only then. Source: Linux,
    /// kernel/time/timekeeping.c: `wall_to_monotonic` changes with a step alone.
    fn leads_to(&self, reading: Reading) -> bool {
        self.clock(reading).saturating_sub(reading.kernel).saturating_abs() <= STEP
    }
}

/// A clock that agreed goes on agreeing within its boot. After another boot it is believed, for what it says of chains kept
/// from before, if it has neither gone back nor further ahead than devices are off.
fn restored_kernel(record: &TimeRecord, restart: &Restart, reading: Reading, gap: i64) -> Kernel {
    let Some(expected) = record.kernel.map(|then| then.saturating_add(gap)) else { return Kernel::Unproven };
    let ahead = reading.kernel.saturating_sub(expected);
    if record.is_of_this_boot(restart) {
        return if ahead.saturating_abs() <= STEP { Kernel::Agreed(Track::of(reading)) } else { Kernel::Unproven };
    }
    if (-STEP..=LONGEST_ABSENCE).contains(&ahead) { Kernel::Recorded(Track::of(reading)) } else { Kernel::Unproven }
}

#[cfg(test)]
mod tests;
