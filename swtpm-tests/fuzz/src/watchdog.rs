//! Ends the process when a parser does not end.

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time a parser may take for one input, seconds. Ours take milliseconds, in debug builds on a busy machine too.
pub const MAX_SECONDS_PER_INPUT: u64 = 20;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What is being parsed, and since when.
type UnderWay = Mutex<Option<(Instant, Vec<u8>)>>;

pub(crate) struct Watchdog(Arc<UnderWay>);

impl Watchdog {
    pub fn start(name: &'static str) -> Self {
        let under_way = Arc::new(UnderWay::default());
        let watched = Arc::downgrade(&under_way);
        thread::spawn(move || {
            while look(name, &watched) {
                thread::sleep(LOOK)
            }
        });
        Self(under_way)
    }

    /// Runs `parse`, which is about to parse `bytes`.
    pub fn watch(&self, bytes: &[u8], parse: impl FnOnce()) {
        // A panic of an earlier input is not this one's.
        let set = |value| *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = value;
        set(Some((Instant::now(), bytes.to_vec())));
        parse();
        set(None);
    }
}

/// False when nobody is watched any more.
fn look(name: &str, watched: &Weak<UnderWay>) -> bool {
    let Some(under_way) = watched.upgrade() else { return false };
    let under_way = under_way.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((since, bytes)) = &*under_way
        && since.elapsed() > Duration::from_secs(MAX_SECONDS_PER_INPUT)
    {
        eprintln!("{name}: no end after {MAX_SECONDS_PER_INPUT} s with input b\"{}\"", bytes.escape_ascii());
        std::process::abort();
    }
    true
}
