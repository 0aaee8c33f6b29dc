//! What others can make us log: each value clipped, each source's lines limited, what was left out counted.
//!
//! ```text
//!  line about a source ─► LogLimit::admit(source) ─► Some(pass): log it, with pass.suppressed   │ None: counted, not logged
//!  value of a peer     ─► clipped(value)         ─► at most MAX_LOGGED_BYTES of it and its length
//! ```

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use crate::token_bucket::Rate as LineRate;
use crate::token_bucket::TokenBucket;

/// Most of a foreign value that is logged, bytes: the longest name that any of our rooms takes.
pub const MAX_LOGGED_BYTES: usize = 255;
/// Sources remembered by one [`LogLimit`]; those that come when it is full and nobody rests share one account.
pub const MAX_LOG_SOURCES: usize = 4096;

/// `value` as it may stand in a log: its first [`MAX_LOGGED_BYTES`] bytes, and how long it was if that is not all of it.
pub fn clipped(value: &str) -> Clipped<'_> {
    Clipped(value)
}

/// See [`clipped`].
#[derive(Clone, Copy, Debug)]
pub struct Clipped<'a>(&'a str);

impl fmt::Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= MAX_LOGGED_BYTES {
            return f.write_str(self.0);
        }
        let end = (0..=MAX_LOGGED_BYTES).rev().find(|at| self.0.is_char_boundary(*at)).unwrap_or(0);
        write!(f, "{}... ({} bytes)", &self.0[..end], self.0.len())
    }
}

/// Limits repeated lines: per source, and of all sources together.
///
/// A source is whoever can cause the line: an address block, a uid, a SPIFFE ID.
#[derive(Debug)]
pub struct LogLimit<K> {
    per_source: LineRate,
    in_all: LineRate,
    state: Mutex<State<K>>,
}

/// The permission to write one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    /// Lines left out since this source's last one; `None` if there were none, so that tracing leaves the field out.
    pub suppressed: Option<u64>,
}

#[derive(Debug)]
struct State<K> {
    all: TokenBucket,
    /// Those for whom there is no account of their own.
    others: Account,
    sources: HashMap<K, Account>,
    /// When sources that rest were last looked for: that walks over all of them.
    swept: Option<Instant>,
}

/// A source's lines, and how many it was refused.
#[derive(Clone, Copy, Debug)]
struct Account {
    lines: TokenBucket,
    suppressed: u64,
}

impl<K: Eq + Hash> LogLimit<K> {
    /// No line has been written yet.
    pub fn new(per_source: LineRate, in_all: LineRate) -> Self {
        let now = Instant::now();
        let state =
            State { all: TokenBucket::full(now), others: Account::full(now), sources: HashMap::new(), swept: None };
        Self { per_source, in_all, state: Mutex::new(state) }
    }

    /// Whether a line about `source` may be written now.
    pub fn admit(&self, source: K, now: Instant) -> Option<Pass> {
        let mut state = self.state();
        let State { all, others, sources, swept } = &mut *state;
        let is_swept = swept.is_some_and(|swept| now.saturating_duration_since(swept) < self.per_source.interval);
        if sources.len() >= MAX_LOG_SOURCES && !sources.contains_key(&source) && !is_swept {
            *swept = Some(now);
            // What rested sources were refused is not lost: it is told with the next line of the shared account.
            sources.retain(|_, account| {
                let rests = account.lines.is_full(now);
                others.suppressed += if rests { account.suppressed } else { 0 };
                !rests
            });
        }
        let account = match sources.len() < MAX_LOG_SOURCES || sources.contains_key(&source) {
            true => sources.entry(source).or_insert_with(|| Account::full(now)),
            false => others,
        };
        account.take(self.per_source, all, self.in_all, now)
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // Plain numbers, changed together under the lock: nothing panics between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn full(now: Instant) -> Self {
        Self { lines: TokenBucket::full(now), suppressed: 0 }
    }

    /// A line of this account, if both it and the account of all have one left.
    fn take(&mut self, rate: LineRate, all: &mut TokenBucket, in_all: LineRate, now: Instant) -> Option<Pass> {
        let (mut lines, mut lines_in_all) = (self.lines, *all);
        if !lines.take_one(rate, now) || !lines_in_all.take_one(in_all, now) {
            self.suppressed += 1;
            return None;
        }
        (self.lines, *all) = (lines, lines_in_all);
        let suppressed = std::mem::take(&mut self.suppressed);
        Some(Pass { suppressed: (suppressed > 0).then_some(suppressed) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: LineRate = LineRate { burst: 3, interval: Duration::from_secs(10) };
    const PLENTY: LineRate = LineRate { burst: 1_000_000, interval: Duration::from_millis(1) };

    #[test]
    fn a_foreign_value_is_logged_up_to_the_named_number_of_bytes() {
        assert_eq!(clipped("spiffe://td/short").to_string(), "spiffe://td/short");
        let longest = "x".repeat(MAX_LOGGED_BYTES);
        assert_eq!(clipped(&longest).to_string(), longest);
        let huge = "x".repeat(4 << 20);
        assert_eq!(clipped(&huge).to_string(), format!("{longest}... (4194304 bytes)"));
    }

    #[test]
    fn a_clipped_value_ends_between_characters() {
        let text = "€".repeat(100);
        assert_eq!(clipped(&text).to_string(), format!("{}... (300 bytes)", "€".repeat(85)));
    }

    #[test]
    fn a_sources_further_lines_are_left_out_and_counted_with_the_next_one() {
        let (limit, now) = (LogLimit::new(RATE, PLENTY), Instant::now());
        for _ in 0..3 {
            assert_eq!(limit.admit(1, now), Some(Pass { suppressed: None }));
        }
        for _ in 0..3000 {
            assert_eq!(limit.admit(1, now), None);
        }
        assert_eq!(limit.admit(2, now), Some(Pass { suppressed: None }), "another source is not limited by it");
        assert_eq!(limit.admit(1, now + RATE.interval), Some(Pass { suppressed: Some(3000) }));
        assert_eq!(limit.admit(1, now + RATE.interval), None);
    }

    #[test]
    fn all_sources_together_stay_below_their_rate() {
        let in_all = LineRate { burst: 20, interval: Duration::from_secs(1) };
        let (limit, now) = (LogLimit::new(RATE, in_all), Instant::now());
        assert_eq!((0..100_000).filter(|source| limit.admit(*source, now).is_some()).count(), 20);
    }

    #[test]
    fn the_memory_of_sources_is_bounded_and_what_they_were_refused_is_told() {
        let (limit, now) = (LogLimit::new(RATE, PLENTY), Instant::now());
        for source in 0..100_000_u32 {
            let _ = limit.admit(source, now);
        }
        assert_eq!(limit.state().sources.len(), MAX_LOG_SOURCES);
        let refused = limit.state().others.suppressed;
        assert_eq!(refused, 100_000 - MAX_LOG_SOURCES as u64 - 3);
        let rested = now + RATE.interval * 10;
        assert_eq!(limit.admit(200_000, rested), Some(Pass { suppressed: None }));
        assert_eq!(limit.state().sources.len(), 1, "sources that rest are forgotten when room is needed");
    }
}
