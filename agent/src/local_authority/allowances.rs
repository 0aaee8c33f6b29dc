//! How often an entry's JWT-SVIDs are signed while the server is away: each takes the chip's time, and a write of the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ironroot_shell::token_bucket::{Rate, TokenBucket};

/// JWT-SVIDs of one entry: as many at once as a workload with many peers needs as it starts, then one a second.
pub const TOKENS_OF_AN_ENTRY: Rate = Rate { burst: 60, interval: Duration::from_secs(1) };
/// Entries that are remembered: those that rest are forgotten when there are more.
const MAX_REMEMBERED: usize = 4096;

/// By the entries' IDs.
#[derive(Debug, Default)]
pub(super) struct Allowances(Mutex<HashMap<String, TokenBucket>>);

impl Allowances {
    /// Whether one more may be signed for this entry now.
    pub fn take(&self, entry_id: &str, now: Instant) -> bool {
        // Single numbers: nothing is left half done.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_REMEMBERED && !all.contains_key(entry_id) {
            all.retain(|_, bucket| !bucket.is_full(now));
        }
        if all.len() >= MAX_REMEMBERED && !all.contains_key(entry_id) {
            return false;
        }
        let bucket = all.entry(entry_id.to_owned()).or_insert_with(|| TokenBucket::full(now));
        bucket.take_one(TOKENS_OF_AN_ENTRY, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_asks_without_end_gets_a_burst_and_one_a_second_and_takes_nothing_from_others() {
        let (all, now) = (Allowances::default(), Instant::now());
        let signed = |entry: &str, now| (0..1000).filter(|_| all.take(entry, now)).count();
        assert_eq!(signed("greedy", now), 60);
        assert_eq!(signed("greedy", now + Duration::from_secs(10)), 10);
        assert_eq!(signed("modest", now), 60);
        for other in 0..2 * MAX_REMEMBERED {
            all.take(&format!("e{other}"), now);
        }
        assert!(all.0.lock().expect("no panic").len() <= MAX_REMEMBERED);
        assert!(all.take("later", now + Duration::from_secs(3600)), "those that rest make room");
    }
}
