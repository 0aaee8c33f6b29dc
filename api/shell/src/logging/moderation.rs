//! Lines about a fault of ours that every caller meets while it lasts: said some times, then once in a while.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{LineRate, LogLimit, Pass};

/// Lines that say one thing.
const LINES_OF_ONE: LineRate = LineRate { burst: 20, interval: Duration::from_secs(10) };
/// All such lines of the process.
const LINES_IN_ALL: LineRate = LineRate { burst: 200, interval: Duration::from_millis(500) };

/// Of the process, as its log is.
static LINES: LazyLock<LogLimit<&'static str>> = LazyLock::new(|| LogLimit::new(LINES_OF_ONE, LINES_IN_ALL));

/// Whether a line that says `what` may be logged now: whoever asks again and again while something of ours fails does not fill the log.
/// `what` is the line's text.
pub fn in_moderation(what: &'static str) -> Option<Pass> {
    LINES.admit(what, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_every_caller_meets_is_said_some_times_and_others_beside_it() {
        let said = (0..10_000).filter(|_| in_moderation("this one").is_some()).count();
        assert_eq!(said, LINES_OF_ONE.burst as usize);
        assert_eq!(in_moderation("another one"), Some(Pass { suppressed: None }));
    }
}
