//! A lower bound on now, for devices without a clock.
//!
//! A device that boots with its clock in 1970 must not serve what expired last week. What it can know is that now is not
//! earlier than any time proven to it: the build, what it recorded before it was switched off (moved forward by the
//! TPM's own clock), and the notBefore of what the server signed since. The bound proves "certainly expired"; it never
//! proves "still valid".

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When this code was written or built, UNIX seconds: `SOURCE_DATE_EPOCH` of the build if later than 2026-01-01.
pub const BUILD_UNIX: i64 = build_unix();

/// The part of a TPM clock's progress that is believed, per 256. A TPM's owner may slow its clock down by up to
/// 32.5 %. Source: TPM 2.0 Library, Part 2, TPM_CLOCK_ADJUST; Part 3, TPM2_ClockRateAdjust.
const TPM_CLOCK_SHARE: u64 = 172;

/// How far a certificate's notBefore may lie ahead of a system clock that may be right, seconds.
const TOLERATED_SKEW: i64 = 300;
/// How far a clock may be set back, as time synchronisation does, without being taken for wrong, seconds.
const CLOCK_STEP: i64 = 60;

const fn build_unix() -> i64 {
    const FLOOR: i64 = 1_767_225_600;
    match option_env!("SOURCE_DATE_EPOCH") {
        Some(text) => match i64::from_str_radix(text, 10) {
            Ok(unix) if unix > FLOOR => unix,
            _ => FLOOR,
        },
        None => FLOOR,
    }
}

/// A reading of the TPM's clock, which counts while the chip has power and survives reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmClock {
    /// Milliseconds powered on since the chip was last cleared.
    pub clock_ms: u64,
    /// TPM resets since the chip was last cleared.
    pub reset_count: u32,
}

/// What is kept in the sealed cache: now was at least `unix` when the TPM's clock read `tpm_clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRecord {
    /// UNIX seconds.
    pub unix: i64,
    /// The TPM's clock at that moment, if it was read.
    pub tpm_clock: Option<TpmClock>,
}

impl TimeRecord {
    /// The bound that this record gives when the TPM's clock reads `reading`. A clock that went back, or a chip that was
    /// cleared (fewer resets), adds nothing.
    pub fn bound_at(&self, reading: Option<TpmClock>) -> i64 {
        let (Some(then), Some(now)) = (self.tpm_clock, reading) else { return self.unix };
        if now.reset_count < then.reset_count {
            return self.unix;
        }
        let ms = now.clock_ms.saturating_sub(then.clock_ms) / 256 * TPM_CLOCK_SHARE;
        self.unix.saturating_add(i64::try_from(ms / 1000).unwrap_or(i64::MAX))
    }
}

/// The lower bound, shared by everything that asks "has this expired?". It only ever rises.
#[derive(Clone, Debug)]
pub struct TrustedTime {
    bound: Arc<Mutex<Bound>>,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    unix: i64,
    raised_at: Instant,
}

impl TrustedTime {
    /// Starts from the build time.
    pub fn new() -> Self {
        Self { bound: Arc::new(Mutex::new(Bound { unix: BUILD_UNIX, raised_at: Instant::now() })) }
    }

    /// Takes up what an earlier run recorded on this device.
    pub fn restore(&self, record: TimeRecord, reading: Option<TpmClock>) {
        self.lock().raise(record.bound_at(reading), Instant::now());
    }

    /// Somebody whose signature the caller has verified says that now is at least `unix`. Where the system clock is not
    /// known to be behind it is believed first: a server whose clock ran ahead for an hour must not make everything
    /// look expired here, and for good.
    pub fn witness(&self, unix: i64) {
        let system = system_unix();
        let mut bound = self.lock();
        let credible = if bound.plausible(system, Instant::now()) { unix.min(system) } else { unix };
        bound.raise(credible, Instant::now());
    }

    /// The lower bound, UNIX seconds; it moves on with the monotonic clock.
    pub fn lower_bound(&self) -> i64 {
        self.lock().at(Instant::now())
    }

    /// The best lower estimate of now, UNIX seconds: the system clock unless it is proven to be behind.
    pub fn now_unix(&self) -> i64 {
        system_unix().max(self.lower_bound())
    }

    /// When to verify a certificate with this notBefore: now, or its notBefore if only our clock can be the reason that it
    /// lies ahead.
    pub fn verification_time(&self, not_before: i64) -> i64 {
        let (system, now) = (system_unix(), self.now_unix());
        let tolerated = if self.lock().plausible(system, Instant::now()) { TOLERATED_SKEW } else { i64::MAX };
        if not_before > now && not_before - now <= tolerated { not_before } else { now }
    }

    /// What to write down, given the TPM's clock now.
    pub fn record(&self, tpm_clock: Option<TpmClock>) -> TimeRecord {
        TimeRecord { unix: self.lower_bound(), tpm_clock }
    }

    fn lock(&self) -> MutexGuard<'_, Bound> {
        // Every update leaves plain numbers that make sense: a panic elsewhere cannot leave it half done.
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for TrustedTime {
    fn default() -> Self {
        Self::new()
    }
}

impl Bound {
    fn at(&self, instant: Instant) -> i64 {
        let elapsed = instant.saturating_duration_since(self.raised_at);
        // Less 1/1024: the monotonic clock may run fast by up to 500 ppm while it is being slewed.
        let elapsed = elapsed.saturating_sub(elapsed / 1024).as_secs();
        self.unix.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    fn raise(&mut self, unix: i64, instant: Instant) {
        if unix > self.at(instant) {
            *self = Self { unix, raised_at: instant };
        }
    }

    /// Whether a system clock that shows `system` may be right.
    fn plausible(&self, system: i64, instant: Instant) -> bool {
        system >= self.at(instant) - CLOCK_STEP
    }
}

/// The system clock, UNIX seconds.
pub fn system_unix() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(clock_ms: u64, reset_count: u32) -> Option<TpmClock> {
        Some(TpmClock { clock_ms, reset_count })
    }

    #[test]
    fn record_moves_on_with_the_tpm_clock_and_never_back() {
        let record = TimeRecord { unix: 1_000_000, tpm_clock: clock(5_000, 7) };
        assert_eq!(record.bound_at(None), 1_000_000);
        assert_eq!(record.bound_at(clock(5_000, 7)), 1_000_000);
        assert_eq!(record.bound_at(clock(5_000 + 256_000, 9)), 1_000_172);
        assert_eq!(record.bound_at(clock(4_000, 7)), 1_000_000, "the clock of an unclean stop may go back");
        assert_eq!(record.bound_at(clock(256_000_000, 6)), 1_000_000, "a cleared chip tells nothing");
        assert_eq!(TimeRecord { unix: 5, tpm_clock: None }.bound_at(clock(9_999_999, 0)), 5);
        assert!(record.bound_at(clock(u64::MAX, 7)) > 1_000_000, "no overflow");
    }

    fn bound(unix: i64) -> TrustedTime {
        TrustedTime { bound: Arc::new(Mutex::new(Bound { unix, raised_at: Instant::now() })) }
    }

    #[test]
    fn bound_moves_on_with_the_monotonic_clock() {
        let bound = Bound { unix: 100, raised_at: Instant::now() };
        assert_eq!(bound.at(bound.raised_at + Duration::from_secs(2048)), 100 + 2046);
        let mut raised = bound;
        raised.raise(99, bound.raised_at);
        assert_eq!(raised.unix, 100, "never back");
    }

    #[test]
    fn system_clock_ahead_of_the_bound_is_now() {
        assert!((TrustedTime::new().now_unix() - system_unix().max(BUILD_UNIX)).abs() <= 1);
    }

    #[test]
    fn a_clock_in_1970_gives_way_to_what_the_server_signed() {
        // The bound is far ahead of this machine's clock, as it is on a device that booted without one.
        let time = bound(system_unix() + 1_000_000);
        let signed = system_unix() + 2_000_000;
        assert_eq!(time.verification_time(signed), signed);
        time.witness(signed);
        assert!(time.now_unix() >= signed && time.lower_bound() >= signed);
        time.witness(5);
        assert!(time.lower_bound() >= signed, "never back");
    }

    #[test]
    fn a_server_with_its_clock_ahead_does_not_make_everything_look_expired() {
        let time = bound(system_unix() - 1_000);
        let ahead = system_unix() + 1_000_000;
        assert!(time.verification_time(ahead) < ahead, "refused as not valid yet");
        time.witness(ahead);
        assert!(time.now_unix() <= system_unix() + 1);
        let skewed = system_unix() + 60;
        assert_eq!(time.verification_time(skewed), skewed, "a minute is ordinary skew");
    }

    #[test]
    fn recorded_bound_is_restored() {
        let record = TimeRecord { unix: system_unix() + 500, tpm_clock: None };
        let time = TrustedTime::new();
        time.restore(record, None);
        assert!(time.record(None).unix >= record.unix);
    }
}
