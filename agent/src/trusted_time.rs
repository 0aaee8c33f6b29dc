//! What this device can know of the time, though its clock may be in 1970, at the last shutdown, or wrong.
//!
//! `docs/trusted_time.md` is the design: which witnesses there are, how far each may move what, and what is served
//! meanwhile. [`Keeper`] is that design as pure code; [`TrustedTime`] reads the clocks for it and is shared by everything
//! that asks "has this ended?".

mod clocks;
#[cfg(test)]
mod invariants;
mod jumps;
mod keeper;
mod lifetime;
#[cfg(test)]
mod model;
mod moment;
mod record;
#[cfg(test)]
mod simulation;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

pub use clocks::{Reading, Restart, boot_id, system_unix, utc};
pub use jumps::{Jumps, Listener};
pub use keeper::{AGREEMENT, ChainTime, ClockStanding, Keeper, LONGEST_ABSENCE};
pub use lifetime::{Lifetime, Span};
pub use moment::Moment;
pub use record::{BootMark, TimeRecord, TpmClock};

/// When this code was written or built, UNIX seconds: `SOURCE_DATE_EPOCH` of the build if later than 2026-01-01.
pub const BUILD_UNIX: i64 = build_unix();

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

/// The keeper, with the device's clocks. Clones share it.
#[derive(Clone, Debug)]
pub struct TrustedTime {
    keeper: Arc<Mutex<Keeper>>,
    boot_id: Arc<str>,
    /// By how much server and device differed when that was said last, seconds.
    told: Arc<AtomicI64>,
}

impl TrustedTime {
    /// Starts from the build time.
    pub fn new() -> Self {
        let keeper = Keeper::new(BUILD_UNIX, Reading::now());
        Self { keeper: Arc::new(Mutex::new(keeper)), boot_id: boot_id().into(), told: Arc::default() }
    }

    /// The same clock for another server, whose words count by themselves: what one server says of the time moves nothing that came
    /// from another. Ends of both are on one scale.
    pub fn fork(&self) -> Self {
        let keeper = *self.observe().0;
        Self { keeper: Arc::new(Mutex::new(keeper)), boot_id: self.boot_id.clone(), told: Arc::default() }
    }

    /// Takes up what an earlier run recorded on this device; again when the TPM's clock has been read.
    pub fn restore(&self, record: &TimeRecord, tpm_clock: Option<TpmClock>) {
        let (mut keeper, reading) = self.observe();
        keeper.restore(record, &self.restart(tpm_clock), reading);
    }

    /// What to write down, given the TPM's clock now.
    pub fn record(&self, tpm_clock: Option<TpmClock>) -> TimeRecord {
        let (keeper, reading) = self.observe();
        keeper.record(self.restart(tpm_clock), reading)
    }

    /// What is known now, as a value.
    pub fn moment(&self) -> Moment {
        let (keeper, reading) = self.observe();
        Moment::new(*keeper, reading)
    }

    /// The best estimate of now, UNIX seconds.
    pub fn now_unix(&self) -> i64 {
        self.moment().estimate()
    }

    /// Takes in a chain that was just signed for a key made for this request; see [`Keeper::receive`].
    pub fn receive(&self, issued: i64, span: Span) -> Lifetime {
        let (mut keeper, reading) = self.observe();
        let before = keeper.standing();
        let lifetime = keeper.receive(issued, span, reading);
        let after = keeper.standing();
        drop(keeper);
        self.report(before, after, issued, reading);
        lifetime
    }

    /// See [`Keeper::count`].
    pub fn count(&self, issued: i64, span: Span) -> Lifetime {
        let (keeper, reading) = self.observe();
        keeper.count(issued, span, reading)
    }

    /// See [`Keeper::lift`].
    pub fn lift(&self, not_before: i64) {
        let (mut keeper, reading) = self.observe();
        keeper.lift(not_before, reading);
    }

    fn restart(&self, tpm_clock: Option<TpmClock>) -> Restart {
        Restart { tpm_clock, boot_id: self.boot_id.to_string() }
    }

    /// Says when server and device begin to differ, and when they agree again; not for each of hundreds of certificates.
    fn report(&self, before: ClockStanding, after: ClockStanding, issued: i64, reading: Reading) {
        let difference = issued.saturating_sub(reading.kernel);
        let told = self.told.swap(difference, Ordering::Relaxed);
        if before == after && (after == ClockStanding::Confirmed || (difference - told).abs() <= AGREEMENT) {
            return;
        }
        let (server, device) = (utc(issued), utc(reading.kernel));
        match after {
            ClockStanding::Confirmed => info!(server, device, "the server confirms this device's clock"),
            ClockStanding::Unconfirmed => {
                warn!(server, device, "this device's clock is not the server's; going by the server's time");
            }
            ClockStanding::Contradicted => warn!(
                server,
                device,
                "the server's time and this device's clock differ, which agreed before; what is held is kept until it ends"
            ),
        }
    }

    fn observe(&self) -> (MutexGuard<'_, Keeper>, Reading) {
        let reading = Reading::now();
        // Every update leaves plain numbers that make sense: a panic elsewhere cannot leave it half done.
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.observe(reading);
        (keeper, reading)
    }
}

impl Default for TrustedTime {
    fn default() -> Self {
        Self::new()
    }
}
