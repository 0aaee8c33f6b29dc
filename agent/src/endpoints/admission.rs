//! How much of the agent one local user may occupy.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tracing::warn;

/// Descriptors the agent keeps for itself: files, server channel, TPM.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Descriptors of one connection: the socket, its peer's pidfd, its peer's executable.
const DESCRIPTORS_PER_CONNECTION: u64 = 3;
/// One user's refusals are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Users remembered before those that left are forgotten.
const MAX_IDLE_USERS: usize = 1024;

/// Bounds per user, and in all. A user over one of them is told `Unavailable` or `ResourceExhausted`; others notice nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all; less where the process's descriptor limit is lower.
    pub max_connections: usize,
    /// Connections of one user; at most a quarter of all.
    pub max_connections_per_user: usize,
    /// Open streams of one user.
    pub max_streams_per_user: usize,
    /// Attestations of one user at the same time; more wait for their turn.
    pub max_attestations_per_user: usize,
    /// Connections and requests of one user that go through at once.
    pub burst_per_user: u32,
    /// Connections and requests of one user per second in the long run.
    pub rate_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_per_user: 512,
            max_streams_per_user: 512,
            max_attestations_per_user: 8,
            burst_per_user: 4096,
            rate_per_user: 500,
        }
    }
}

/// What a user occupies one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Stream,
}

/// The books: who occupies what.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<Books>);

#[derive(Debug)]
struct Books {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    users: HashMap<u32, User>,
}

#[derive(Debug)]
struct User {
    held: [usize; 2],
    attestations: Arc<Semaphore>,
    tokens: f64,
    counted: Instant,
    logged: Option<Instant>,
}

/// One connection or stream of a user; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Admission,
    uid: u32,
    kind: Kind,
}

/// Lets this process open what `limits` allows, as far as its hard limit goes.
pub(super) fn raise_descriptor_limit(limits: &Limits) {
    let wanted = RESERVED_DESCRIPTORS + DESCRIPTORS_PER_CONNECTION * limits.max_connections as u64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted.min(hard)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)
    {
        warn!(
            error = &error as &dyn Error,
            soft, "cannot raise the limit of open files; fewer connections are possible"
        );
    }
}

impl Admission {
    pub fn new(mut limits: Limits) -> Self {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let room = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_PER_CONNECTION;
        limits.max_connections = limits.max_connections.min(room.try_into().unwrap_or(usize::MAX)).max(4);
        limits.max_connections_per_user = limits.max_connections_per_user.min(limits.max_connections / 4);
        Self(Arc::new(Books { limits, state: Mutex::default() }))
    }

    /// Books one more `kind` for `uid`, if its bounds allow.
    pub fn occupy(&self, uid: u32, kind: Kind, now: Instant) -> Option<Slot> {
        let limits = &self.0.limits;
        let mut state = self.state();
        let full = kind == Kind::Connection && state.connections >= limits.max_connections;
        let user = state.user(uid, limits, now);
        if full || user.held[kind as usize] >= limits.most(kind) {
            return None;
        }
        user.held[kind as usize] += 1;
        state.connections += usize::from(kind == Kind::Connection);
        Some(Slot { admission: self.clone(), uid, kind })
    }

    /// Whether `uid` may connect or ask once more now. Source: token bucket.
    pub fn is_in_rate(&self, uid: u32, now: Instant) -> bool {
        let limits = &self.0.limits;
        let mut state = self.state();
        let user = state.user(uid, limits, now);
        let allowed = user.tokens >= 1.0;
        user.tokens -= if allowed { 1.0 } else { 0.0 };
        allowed
    }

    /// A permit of these is an attestation of `uid`. Waited for, first come first served: when an identity is renewed, all
    /// streams of its user are attested again at once.
    pub fn attestations(&self, uid: u32, now: Instant) -> Arc<Semaphore> {
        self.state().user(uid, &self.0.limits, now).attestations.clone()
    }

    /// Whether a refusal of `uid` should be logged now: once in a while is enough.
    pub fn should_log(&self, uid: u32, now: Instant) -> bool {
        let mut state = self.state();
        let user = state.user(uid, &self.0.limits, now);
        let due = user.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL);
        if due {
            user.logged = Some(now);
        }
        due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    fn most(&self, kind: Kind) -> usize {
        match kind {
            Kind::Connection => self.max_connections_per_user,
            Kind::Stream => self.max_streams_per_user,
        }
    }
}

impl State {
    /// The account of `uid`, its tokens counted up to `now`.
    fn user(&mut self, uid: u32, limits: &Limits, now: Instant) -> &mut User {
        if self.users.len() >= MAX_IDLE_USERS && !self.users.contains_key(&uid) {
            let rested = |user: &User| user.refilled(limits, now) >= f64::from(limits.burst_per_user);
            let idle = |user: &User| {
                user.held == [0; 2] && user.attestations.available_permits() >= limits.max_attestations_per_user
            };
            self.users.retain(|_, user| !idle(user) || !rested(user));
        }
        let user = self.users.entry(uid).or_insert_with(|| User::new(limits, now));
        user.tokens = user.refilled(limits, now);
        user.counted = now.max(user.counted);
        user
    }
}

impl User {
    fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            held: [0; 2],
            attestations: Arc::new(Semaphore::new(limits.max_attestations_per_user)),
            tokens: limits.burst_per_user.into(),
            counted: now,
            logged: None,
        }
    }

    fn refilled(&self, limits: &Limits, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        (self.tokens + passed * f64::from(limits.rate_per_user)).min(limits.burst_per_user.into())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.connections -= usize::from(self.kind == Kind::Connection);
        if let Some(user) = state.users.get_mut(&self.uid) {
            user.held[self.kind as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> (Admission, Instant) {
        let limits = Limits {
            max_connections: 8,
            max_connections_per_user: 2,
            max_streams_per_user: 3,
            max_attestations_per_user: 1,
            burst_per_user: 5,
            rate_per_user: 10,
        };
        (Admission::new(limits), Instant::now())
    }

    #[test]
    fn a_user_at_its_bound_is_refused_and_others_are_not() {
        let (admission, now) = admission();
        for (kind, most) in [(Kind::Connection, 2), (Kind::Stream, 3)] {
            let mut held: Vec<Slot> = (0..most).map(|_| admission.occupy(1, kind, now).expect("in bounds")).collect();
            assert!(admission.occupy(1, kind, now).is_none());
            assert!(admission.occupy(2, kind, now).is_some());
            held.pop();
            assert!(admission.occupy(1, kind, now).is_some(), "what is given back can be had again");
        }
    }

    #[test]
    fn attestations_take_turns_within_a_user_only() {
        let (admission, now) = admission();
        let first = admission.attestations(1, now).try_acquire_owned().expect("its turn");
        assert!(admission.attestations(1, now).try_acquire_owned().is_err());
        assert!(admission.attestations(2, now).try_acquire_owned().is_ok());
        drop(first);
        assert!(admission.attestations(1, now).try_acquire_owned().is_ok());
    }

    #[test]
    fn all_users_together_stay_below_the_total() {
        let (admission, now) = admission();
        let held: Vec<Slot> = (0..20).filter_map(|uid| admission.occupy(uid, Kind::Connection, now)).collect();
        assert_eq!(held.len(), 8);
    }

    #[test]
    fn one_user_never_gets_more_than_a_quarter_of_the_connections() {
        let admission = Admission::new(Limits { max_connections: 8, ..Limits::default() });
        let held: Vec<Slot> = (0..8).filter_map(|_| admission.occupy(1, Kind::Connection, Instant::now())).collect();
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn the_bucket_empties_and_refills_per_user() {
        let (admission, now) = admission();
        let in_rate = |uid, at| (0..100).filter(|_| admission.is_in_rate(uid, at)).count();
        assert_eq!(in_rate(1, now), 5);
        assert_eq!(in_rate(2, now), 5);
        assert_eq!(in_rate(1, now + Duration::from_millis(250)), 2);
        assert_eq!(in_rate(1, now + Duration::from_secs(3600)), 5);
    }

    #[test]
    fn refusals_are_logged_once_in_a_while() {
        let (admission, now) = admission();
        assert!(admission.should_log(1, now) && !admission.should_log(1, now) && admission.should_log(2, now));
        assert!(admission.should_log(1, now + LOG_INTERVAL));
    }

    #[test]
    fn users_that_left_are_forgotten() {
        let (admission, now) = admission();
        let slot = admission.occupy(7, Kind::Stream, now).expect("in bounds");
        for uid in 100..100_000 {
            admission.is_in_rate(uid, now + Duration::from_secs(u64::from(uid)));
        }
        let state = admission.state();
        assert!(state.users.len() <= MAX_IDLE_USERS && state.users.contains_key(&7));
        drop(state);
        drop(slot);
    }
}
