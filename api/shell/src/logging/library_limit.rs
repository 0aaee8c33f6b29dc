//! Lines of libraries: what is not ours speaks of bytes that others send, so strangers can have it speak as often as they like.
//!
//! ```text
//!  event ─► levels (a library's: errors alone, unless DEBUG is asked for) ─► LibraryLimit ─► a line, with what was left out before it
//!                                                                                │ too many of this library lately: counted
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use super::{LineRate, LogLimit};

/// Where our own lines come from: our crates, and the audit trail.
pub(super) const OURS: [&str; 2] = ["ironroot", "audit"];

/// Lines of one library: some to see what it is about, then one a minute.
pub(super) const LINES_PER_LIBRARY: LineRate = LineRate { burst: 20, interval: Duration::from_secs(60) };
/// Lines of all libraries together.
const LINES_IN_ALL: LineRate = LineRate { burst: 60, interval: Duration::from_secs(20) };

/// Lets a library's events pass a few at a time, at every level. Clones share what passed.
#[derive(Clone)]
pub(super) struct LibraryLimit(Arc<State>);

struct State {
    lines: LogLimit<&'static str>,
    /// What was left out of a library, and is told by its line that is being written.
    untold: Mutex<HashMap<&'static str, u64>>,
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
}

impl LibraryLimit {
    pub(super) fn new() -> Self {
        Self::by(Instant::now)
    }

    /// The same, by another clock.
    pub(super) fn by(clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let lines = LogLimit::new(LINES_PER_LIBRARY, LINES_IN_ALL);
        Self(Arc::new(State { lines, untold: Mutex::default(), clock: Box::new(clock) }))
    }

    /// How many lines of the library that this one is of were left out before it, if any; told once.
    pub(super) fn suppressed(&self, metadata: &Metadata<'static>) -> Option<u64> {
        self.untold().remove(library(metadata)?)
    }

    fn admits(&self, metadata: &Metadata<'static>, now: Instant) -> bool {
        let Some(library) = library(metadata) else { return true };
        let Some(pass) = self.0.lines.admit(library, now) else { return false };
        if let Some(suppressed) = pass.suppressed {
            *self.untold().entry(library).or_default() += suppressed;
        }
        true
    }

    fn untold(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, u64>> {
        // A panic leaves the map whole: its values are plain.
        self.0.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for LibraryLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admits(event.metadata(), (self.0.clock)())
    }
}

/// The crate that an event is of; none of ours. A target is a path of modules, unless somebody chose another name.
fn library(metadata: &Metadata<'static>) -> Option<&'static str> {
    let target = metadata.target();
    let is_ours = OURS.iter().any(|ours| target.starts_with(ours));
    (!is_ours).then(|| target.split("::").next().unwrap_or(target))
}
