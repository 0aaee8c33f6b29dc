//! What the loop counts of itself, for whoever fetches metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ironroot_shell::telemetry::Calls;

/// How long a refusal is shown though the cache has been written anew since, which with a server at hand takes a second: alerts look
/// once in a while.
const REFUSAL_SHOWN_FOR: Duration = Duration::from_secs(10 * 60);

/// Since the start.
#[derive(Debug, Default)]
pub struct Counted {
    /// Attestations.
    pub attested: Calls,
    /// Renewals of the agent's certificate.
    pub renewed: Calls,
    /// Times that the server was asked for entries.
    pub entries: Calls,
    /// Times that it was asked to sign what was due.
    pub svids: Calls,
    /// Times that identities were to be kept on disk.
    pub kept: Calls,
    cache_refused: Mutex<Option<CacheRefused>>,
}

/// The sealed cache was not used at the start.
#[derive(Clone, Copy, Debug)]
struct CacheRefused {
    why: &'static str,
    at: Instant,
    is_written_anew: bool,
}

impl Counted {
    /// The sealed cache is not used, and why, in a word; of several times the first is told.
    pub fn note_cache_refused(&self, why: &'static str, at: Instant) {
        self.refusal(|refusal| _ = refusal.get_or_insert(CacheRefused { why, at, is_written_anew: false }));
    }

    /// It has been written anew: the next start will find it.
    pub fn note_cache_written(&self) {
        self.refusal(|refusal| refusal.iter_mut().for_each(|refused| refused.is_written_anew = true));
    }

    /// Why the sealed cache was not used at the start, until it has been written anew, and for a while after that; none if it was, or
    /// there was none.
    pub fn cache_refused(&self, now: Instant) -> Option<&'static str> {
        let is_shown = |refused: &CacheRefused| {
            !refused.is_written_anew || now.saturating_duration_since(refused.at) < REFUSAL_SHOWN_FOR
        };
        self.refusal(|refusal| refusal.filter(is_shown).map(|refused| refused.why))
    }

    fn refusal<T>(&self, look: impl FnOnce(&mut Option<CacheRefused>) -> T) -> T {
        look(&mut self.cache_refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_cache_is_told_until_it_is_written_anew_and_long_enough_for_an_alert() {
        let (counted, start) = (Counted::default(), Instant::now());
        counted.note_cache_written();
        assert_eq!(counted.cache_refused(start), None);
        counted.note_cache_refused("other_boot", start);
        counted.note_cache_refused("other_chip", start);
        let later = start + REFUSAL_SHOWN_FOR;
        assert_eq!(counted.cache_refused(later), Some("other_boot"), "it is still not there");
        counted.note_cache_written();
        assert_eq!(counted.cache_refused(later - Duration::from_secs(1)), Some("other_boot"));
        assert_eq!(counted.cache_refused(later), None);
    }
}
