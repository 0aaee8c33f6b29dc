//! Whose hash is made now: one at a time for each user, and in the long run no more than a share of a core.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::workload::withheld::Withheld;

/// Seconds of hashing that one user may cause at once: a device's whole software at its start.
const BURST: f64 = 10.0;
/// Seconds of hashing earned in a second: in the long run a user costs a tenth of a core.
const SHARE: f64 = 0.1;
/// Users remembered before those that have earned their burst again are forgotten.
const MAX_RESTED_USERS: usize = 256;

/// What each user has had hashed lately, and who waits for a turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    users: Mutex<HashMap<u32, User>>,
    ended: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct User {
    hashing: bool,
    /// Seconds. Below zero: the last hash took more than there was.
    credit: f64,
    counted: Instant,
}

/// The right of a user to have one file hashed; what it took is booked on drop.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    uid: u32,
    began: Instant,
}

impl Turns {
    /// Waits until no other hash is made for `uid`, at most until `deadline`.
    pub fn take(&self, uid: u32, deadline: Instant) -> Result<Turn<'_>, Withheld> {
        let mut users = self.users();
        loop {
            let now = Instant::now();
            let user = users.entry(uid).or_insert_with(|| User::rested(now));
            user.refill(now);
            if !user.hashing {
                return self.begin(&mut users, uid, now);
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(Withheld::TooSlow);
            }
            users = self.ended.wait_timeout(users, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn begin(&self, users: &mut HashMap<u32, User>, uid: u32, now: Instant) -> Result<Turn<'_>, Withheld> {
        if users.len() > MAX_RESTED_USERS {
            users.retain(|other, user| *other == uid || user.hashing || !user.is_rested(now));
        }
        let user = users.entry(uid).or_insert_with(|| User::rested(now));
        if user.credit <= 0.0 {
            return Err(Withheld::OverBudget);
        }
        user.hashing = true;
        Ok(Turn { turns: self, uid, began: now })
    }

    fn users(&self) -> MutexGuard<'_, HashMap<u32, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl User {
    fn rested(now: Instant) -> Self {
        Self { hashing: false, credit: BURST, counted: now }
    }

    fn refill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * SHARE;
        self.credit = (self.credit + earned).min(BURST);
        self.counted = now.max(self.counted);
    }

    fn is_rested(mut self, now: Instant) -> bool {
        self.refill(now);
        self.credit >= BURST
    }

    fn end(&mut self, took: Duration) {
        self.hashing = false;
        self.credit -= took.as_secs_f64();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(user) = self.turns.users().get_mut(&self.uid) {
            user.end(self.began.elapsed());
        }
        self.turns.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-A16
    #[test]
    fn one_hash_at_a_time_for_a_user_and_others_do_not_wait() {
        let turns = Turns::default();
        let now = Instant::now();
        let first = turns.take(1, now).expect("its turn");
        assert!(matches!(turns.take(1, now + Duration::from_millis(20)), Err(Withheld::TooSlow)));
        turns.take(2, now).expect("another user's turn");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.take(1, now + Duration::from_secs(60)).is_ok());
            drop(first);
            assert!(waiting.join().expect("ends"));
        });
    }

    #[test]
    fn a_user_that_has_used_its_burst_earns_a_tenth_of_the_time() {
        let now = Instant::now();
        let mut user = User::rested(now);
        user.end(Duration::from_secs(14));
        user.refill(now + Duration::from_secs(30));
        assert!(user.credit < 0.0, "what the last one took too much is paid back first: {}", user.credit);
        user.refill(now + Duration::from_secs(50));
        assert!((0.9..1.1).contains(&user.credit), "{}", user.credit);
        assert!(!user.is_rested(now + Duration::from_secs(130)) && user.is_rested(now + Duration::from_secs(150)));
        user.refill(now + Duration::from_secs(1_000_000));
        assert_eq!(user.credit, BURST);
    }

    #[test]
    fn a_user_over_its_budget_has_nothing_hashed() {
        let turns = Turns::default();
        drop(turns.take(1, Instant::now()).expect("its turn"));
        turns.users().get_mut(&1).expect("known").credit = -1.0;
        assert!(matches!(turns.take(1, Instant::now()), Err(Withheld::OverBudget)));
    }

    #[test]
    fn users_that_have_rested_are_forgotten() {
        let turns = Turns::default();
        for uid in 0..5_000 {
            drop(turns.take(uid, Instant::now()).expect("its turn"));
            turns.users().get_mut(&uid).expect("known").credit = BURST;
        }
        assert!(turns.users().len() <= MAX_RESTED_USERS + 1);
    }
}
