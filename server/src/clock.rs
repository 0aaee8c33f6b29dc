//! The server's clock: what the wall clock says, and how far it may be believed.
//!
//! Nothing is destroyed on the word of one clock that can be set. What the wall clock says is watched against
//! CLOCK_BOOTTIME, across restarts too; after a jump the CA's rotation, pruning and every sweep wait, and an alarm says so.

mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironroot_api::utc;
use ironroot_shell::clock;
use tracing::{error, info, warn};

pub use watch::{ClockRecord, ClockWatch, FAR, Incident, Moment, Reading, SETTLE, STEADY, STEP, Trust};

/// Where readings come from.
#[derive(Clone)]
pub struct ClockSource {
    boot_id: String,
    read: Arc<dyn Fn() -> Reading + Send + Sync>,
}

impl ClockSource {
    /// `read` reads both clocks of the boot that `boot_id` names.
    pub fn new(boot_id: impl Into<String>, read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self { boot_id: boot_id.into(), read: Arc::new(read) }
    }

    /// The kernel's clocks. Where the boot's name cannot be read each process is taken for a boot of its own.
    pub fn of_this_machine() -> Self {
        let boot_id = clock::boot_id().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Self::new(boot_id, read_clocks)
    }
}

impl fmt::Debug for ClockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClockSource({})", self.boot_id)
    }
}

fn read_clocks() -> Reading {
    Reading { wall_unix: clock::wall_unix(), boot_seconds: clock::boot_seconds() }
}

/// The clock that the CA and the sweeps of the server decide by.
#[derive(Debug)]
pub struct ServerClock {
    source: ClockSource,
    watch: Mutex<ClockWatch>,
}

impl ServerClock {
    /// Begins with what the last process kept.
    pub fn start(source: ClockSource, record: Option<&ClockRecord>) -> Self {
        let watch = ClockWatch::start(record, &source.boot_id, (source.read)());
        if let Some(incident) = watch.incident() {
            tell_jump(incident);
        }
        Self { source, watch: Mutex::new(watch) }
    }

    /// Reads the clocks. Whoever decides by the result reads in the same breath, so that no jump is missed.
    pub fn moment(&self) -> Moment {
        let reading = (self.source.read)();
        let mut watch = self.watch();
        let before = watch.incident();
        let moment = watch.observe(reading);
        let after = watch.incident();
        drop(watch);
        tell(before, after, moment);
        moment
    }

    /// What to keep for the next process.
    pub fn record(&self) -> ClockRecord {
        self.watch().record()
    }

    /// What is wrong with the clock, for health checks; none if nothing is.
    pub fn alarm(&self) -> Option<String> {
        self.moment();
        self.watch().incident().map(sentence)
    }

    fn watch(&self) -> MutexGuard<'_, ClockWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(before: Option<Incident>, after: Option<Incident>, moment: Moment) {
    match (before, after) {
        (None, Some(incident)) => tell_jump(incident),
        (Some(_), None) if moment.trust == Trust::Settling => warn!(
            now = %utc(moment.now_unix),
            "the clock has gone steadily since it jumped and is used again; nothing is destroyed or swept for a day"
        ),
        (Some(_), None) => info!(now = %utc(moment.now_unix), "the clock is right again"),
        _ => {}
    }
}

fn tell_jump(incident: Incident) {
    error!("{}", sentence(incident));
}

fn sentence(incident: Incident) -> String {
    let by = if incident.is_floor { "when the server last ran it was" } else { "by the seconds counted it is" };
    format!(
        "this server's clock says {}, {by} {}: CA rotation, pruning and sweeps wait until the clock is right or has gone \
         steadily for {} minutes; check the time service",
        utc(incident.found_unix),
        utc(incident.expected_unix),
        STEADY / 60
    )
}
