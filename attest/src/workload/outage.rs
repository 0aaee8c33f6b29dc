//! Whoever is asked about processes and cannot be: said once when it begins, and once when it is over.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::kept::LONGEST_KEPT;

/// Of outages that come one after the other, one is said in this time.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// One for each of root's daemons. What users run themselves, they would fill the log with.
#[derive(Debug)]
pub(super) struct Outages {
    pub docker: Outage,
    pub podman: Outage,
    pub kubelet: Outage,
    pub systemd: Outage,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outage {
    whom: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the outage that goes on.
    since: Option<Instant>,
    /// Whether that one was said.
    is_said: bool,
    said_at: Option<Instant>,
}

impl Default for Outages {
    fn default() -> Self {
        let of = |whom| Outage { whom, state: Mutex::default() };
        Self { docker: of("docker"), podman: of("podman"), kubelet: of("k8s"), systemd: of("systemd") }
    }
}

impl Outage {
    /// The question could not be put, or was not answered.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).begins(Instant::now()) {
            let (attestor, longest_s) = (self.whom, LONGEST_KEPT.as_secs());
            warn!(
                attestor,
                error,
                longest_s,
                "workloads' attestor cannot be asked: what it has said of a process on an open connection counts on for a while, others \
                 are told to try again"
            );
        }
    }

    /// There was an answer, whatever it was.
    pub fn answered(&self) {
        if let Some(seconds) = self.state.lock().unwrap_or_else(PoisonError::into_inner).ends(Instant::now()) {
            warn!(attestor = self.whom, seconds, "workloads' attestor answers again");
        }
    }
}

impl State {
    /// Whether it is to be said.
    fn begins(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let lately = self.said_at.is_some_and(|at| now.saturating_duration_since(at) < SAID_AGAIN_AFTER);
        if self.is_said || lately {
            return false;
        }
        (self.is_said, self.said_at) = (true, Some(now));
        true
    }

    /// How many seconds it took, if it is to be said.
    fn ends(&mut self, now: Instant) -> Option<u64> {
        let since = self.since.take()?;
        let seconds = now.saturating_duration_since(since).as_secs();
        std::mem::take(&mut self.is_said).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_and_its_end_once_and_many_short_ones_no_more_often_than_that() {
        let (mut state, start) = (State::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(state.ends(start), None);
        assert!(state.begins(start) && !state.begins(after(1)) && !state.begins(after(1000)));
        assert_eq!((state.ends(after(1000)), state.ends(after(1001))), (Some(1000), None));
        assert!(state.begins(after(2000)));
        assert_eq!(state.ends(after(2001)), Some(1));
        assert!(!state.begins(after(2002)), "just now");
        assert_eq!(state.ends(after(2003)), None, "whose beginning was not said");
        assert!(!state.begins(after(2004)) && state.begins(after(2060)), "it lasts");
        assert_eq!(state.ends(after(2061)), Some(57));
    }
}
