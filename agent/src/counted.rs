//! What the loop counts of itself, for whoever fetches metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ironroot_shell::telemetry::Calls;

use crate::server_number::{MAX_SERVERS, ServerNumber};

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
    /// Of each server's cache.
    cache_refused: [Mutex<Option<CacheRefused>>; MAX_SERVERS],
}

/// The sealed cache was not used at the start.
#[derive(Clone, Copy, Debug)]
struct CacheRefused {
    why: &'static str,
    at: Instant,
    is_written_anew: bool,
}

impl Counted {
    /// The sealed cache of `server`'s identities is not used, and why, in a word; of several times the first is told.
    pub fn note_cache_refused(&self, server: ServerNumber, why: &'static str, at: Instant) {
        self.refusal(server, |refusal| _ = refusal.get_or_insert(CacheRefused { why, at, is_written_anew: false }));
    }

    /// It has been written anew: the next start will find it.
    pub fn note_cache_written(&self, server: ServerNumber) {
        self.refusal(server, |refusal| refusal.iter_mut().for_each(|refused| refused.is_written_anew = true));
    }

    /// Why the sealed cache was not used at the start, until it has been written anew, and for a while after that; none if it was, or
    /// there was none.
    pub fn cache_refused(&self, server: ServerNumber, now: Instant) -> Option<&'static str> {
        let is_shown = |refused: &CacheRefused| {
            !refused.is_written_anew || now.saturating_duration_since(refused.at) < REFUSAL_SHOWN_FOR
        };
        self.refusal(server, |refusal| refusal.filter(is_shown).map(|refused| refused.why))
    }

    fn refusal<T>(&self, server: ServerNumber, look: impl FnOnce(&mut Option<CacheRefused>) -> T) -> T {
        look(&mut server.own(&self.cache_refused).lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_cache_is_told_until_it_is_written_anew_and_long_enough_for_an_alert() {
        let (counted, start, first) = (Counted::default(), Instant::now(), ServerNumber::FIRST);
        counted.note_cache_written(first);
        assert_eq!(counted.cache_refused(first, start), None);
        counted.note_cache_refused(first, "other_boot", start);
        counted.note_cache_refused(first, "other_chip", start);
        let later = start + REFUSAL_SHOWN_FOR;
        assert_eq!(counted.cache_refused(first, later), Some("other_boot"), "it is still not there");
        counted.note_cache_written(first);
        assert_eq!(counted.cache_refused(first, later - Duration::from_secs(1)), Some("other_boot"));
        assert_eq!(counted.cache_refused(first, later), None);
    }

    #[test]
    fn what_becomes_of_one_servers_cache_is_nothing_of_anothers() {
        let (counted, now) = (Counted::default(), Instant::now());
        let servers: Vec<_> = ServerNumber::up_to(MAX_SERVERS).collect();
        counted.note_cache_refused(servers[1], "other_boot", now);
        counted.note_cache_refused(servers[3], "rolled_back", now);
        counted.note_cache_written(servers[3]);
        let later = now + REFUSAL_SHOWN_FOR;
        let told = servers.iter().map(|server| counted.cache_refused(*server, later)).collect::<Vec<_>>();
        assert_eq!(told, [None, Some("other_boot"), None, None]);
    }
}
