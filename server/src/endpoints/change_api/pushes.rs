//! How many streams are held, how fast they are looked after, and what was told on them, all together.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_shell::token_bucket::{Rate, TokenBucket};

use super::kept::KeptViews;
use crate::endpoints::caller::Source;
use crate::endpoints::fair_share::{FairShare, Share};
use crate::registry::AuthorizedView;

/// Streams that are held, of all agents: half of the calls that agents may have under way, 10 kB each (measured, 300 of them). Agents that find no
/// place poll.
pub const MAX_HELD_STREAMS: usize = 8192;
/// Of one agent: the one of a connection that ends, and the one of its successor.
pub const MAX_HELD_STREAMS_PER_AGENT: usize = 2;
/// Looks after streams, and with them pushes: so many at once, so many a second in the long run. A change that concerns all agents
/// reaches them over some seconds, and what they ask for then comes spread over that time; one that concerns a few reaches them at once.
const LOOKS: (u32, u32) = (200, 2000);
/// Longest wait for a turn: that of the last of all streams.
const LONGEST_WAIT: Duration = Duration::from_secs(1 + MAX_HELD_STREAMS as u64 / LOOKS.1 as u64);

/// Agents a second that a server lets in again: half of what handshakes and first looks cost one core (a handshake 0.4 ms, a look 0.1 ms).
const RETURNS_PER_SECOND: u32 = 1000;
/// Even a few come back one after the other.
const SHORTEST_RETURN: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub struct Pushes {
    held: FairShare<Source>,
    looks: Mutex<TokenBucket>,
    kept: Mutex<KeptViews>,
}

impl Pushes {
    /// None held.
    pub fn new() -> Self {
        let held = FairShare::new(MAX_HELD_STREAMS, MAX_HELD_STREAMS_PER_AGENT, 1);
        Self { held, looks: Mutex::new(TokenBucket::full(Instant::now())), kept: Mutex::default() }
    }

    /// A place for one more stream of `agent`, if there is one.
    pub(super) fn place(&self, agent: Source) -> Option<Share<Source>> {
        self.held.take(agent, 1)
    }

    /// Over how long the agents of all held streams are to come back if this server dies.
    pub(super) fn come_back(&self) -> Duration {
        let held = u32::try_from(self.held.taken()).unwrap_or(u32::MAX);
        (Duration::from_secs(1) * held / RETURNS_PER_SECOND).max(SHORTEST_RETURN)
    }

    /// Waits for this stream's turn to be looked after.
    pub(super) async fn turn(&self) {
        tokio::time::sleep(self.wait(Instant::now())).await;
    }

    /// `view` is the last that `agent` was told.
    pub(super) fn keep(&self, agent: &SpiffeId, view: AuthorizedView) {
        self.kept_views().keep(agent, view, Instant::now());
    }

    /// That view, if it has this `name`.
    pub(super) fn kept(&self, agent: &SpiffeId, name: &[u8]) -> Option<AuthorizedView> {
        self.kept_views().find(agent, name, Instant::now())
    }

    fn kept_views(&self) -> MutexGuard<'_, KeptViews> {
        // What is found there is compared by its name.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, now: Instant) -> Duration {
        // One value, replaced as a whole.
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.take(Rate::per_second(LOOKS.0, LOOKS.1), 1, LONGEST_WAIT, now).unwrap_or(LONGEST_WAIT)
    }
}

impl Default for Pushes {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::TrustDomain;

    use super::super::super::roles::Role;
    use super::*;

    fn agent(number: usize) -> Source {
        let trust_domain = TrustDomain::new("td").expect("legal");
        Source::Id(trust_domain.id_with_path(&format!("/spire/agent/{number}")).expect("legal"))
    }

    #[test]
    fn streams_are_held_up_to_a_bound_and_two_of_one_agent() {
        let pushes = Pushes::new();
        let one: Vec<_> = std::iter::from_fn(|| pushes.place(agent(0))).collect();
        assert_eq!(one.len(), MAX_HELD_STREAMS_PER_AGENT);
        let mut others: Vec<_> = (1..).map_while(|number| pushes.place(agent(number))).collect();
        assert_eq!(one.len() + others.len(), MAX_HELD_STREAMS);
        others.pop();
        assert!(pushes.place(agent(0)).is_none() && pushes.place(agent(9999)).is_some(), "a place that is free again");
    }

    #[test]
    fn a_few_agents_come_back_at_once_and_as_many_as_there_are_places_for_over_some_seconds() {
        let pushes = Pushes::new();
        assert_eq!(pushes.come_back(), SHORTEST_RETURN);
        let mut all: Vec<_> = (1..).map_while(|number| pushes.place(agent(number))).collect();
        assert_eq!(pushes.come_back(), Duration::from_millis(MAX_HELD_STREAMS as u64));
        all.truncate(500);
        assert_eq!(pushes.come_back(), Duration::from_millis(500));
    }

    #[test]
    fn held_streams_leave_half_of_the_agents_calls_to_others() {
        assert!(2 * MAX_HELD_STREAMS <= Role::Agent.limits().calls);
        assert!(MAX_HELD_STREAMS_PER_AGENT < Role::Agent.limits().calls_per_source);
    }

    #[test]
    fn a_change_for_all_is_looked_after_over_seconds_and_one_for_a_few_at_once() {
        let (pushes, now) = (Pushes::new(), Instant::now());
        let waits: Vec<_> = (0..MAX_HELD_STREAMS).map(|_| pushes.wait(now)).collect();
        assert!(waits[..LOOKS.0 as usize].iter().all(Duration::is_zero));
        assert!(waits.is_sorted() && waits[MAX_HELD_STREAMS - 1] > Duration::from_secs(3), "{:?}", waits.last());
        assert!(waits[MAX_HELD_STREAMS - 1] <= LONGEST_WAIT);
    }
}
