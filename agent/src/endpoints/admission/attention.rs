//! How much of the agent's one thread a user takes: what its connections send is paid for, and who cannot pay is read later.
//!
//! ```text
//!  a read, a request turned away ─► owed by the connection ─► paid before its next read:
//!      of the connection's OWN ─► or else of its user's SHARE ─► or else when it is there again, after LONGEST_TURN at the latest
//! ```
//! A client that is not read waits in the kernel's buffers and HTTP/2's windows, and takes nobody else's time. What it has open goes on:
//! messages are written, only what it says is heard later. A connection that says little is read at once, whatever its user's others do.

use std::time::{Duration, Instant};

use ironroot_shell::token_bucket::{Rate, TokenBucket};

/// A read of at most 1 KiB, whatever is in it.
pub(super) const READ: u32 = 1;
/// A request that is turned away: a stream that is opened, answered and closed. There are up to 85 of them in one read.
pub(super) const REFUSAL: u32 = 40;
/// Of all connections of a user: 16 MiB or 400 refusals at once, then 4 MiB or 100 refusals a second.
const SHARE: Rate = Rate { burst: 16 * 1024, interval: Duration::from_nanos(1_000_000_000 / 4096) };
/// Of each connection: its beginning and six refusals, then a refusal in 4 s, as often as clients come back that find no room.
const OWN: Rate = Rate { burst: 256, interval: Duration::from_millis(100) };
/// No connection waits longer for its turn: its client would take it for dead after some 20 s.
const LONGEST_TURN: Duration = Duration::from_secs(5);

/// A user's share.
#[derive(Debug)]
pub(super) struct Share(TokenBucket);

/// A connection's own, and what it owes.
#[derive(Debug)]
pub(super) struct Account {
    own: TokenBucket,
    owed: u32,
}

impl Share {
    pub fn new(now: Instant) -> Self {
        Self(TokenBucket::full(now))
    }

    /// Whether nothing is known that a newcomer would not have.
    pub fn is_full(&self, now: Instant) -> bool {
        self.0.is_full(now)
    }
}

impl Account {
    pub fn new(now: Instant) -> Self {
        Self { own: TokenBucket::full(now), owed: 0 }
    }

    pub fn owe(&mut self, cost: u32) {
        self.owed = self.owed.saturating_add(cost).min(SHARE.burst);
    }

    /// Pays what is owed: how long to wait until that is done, and the connection may be read.
    pub fn pay(&mut self, share: &mut Share, now: Instant) -> Duration {
        let owed = std::mem::take(&mut self.owed);
        if self.own.take(OWN, owed, Duration::ZERO, now).is_some() {
            return Duration::ZERO;
        }
        share.0.take(SHARE, owed, LONGEST_TURN, now).unwrap_or(LONGEST_TURN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an account owes of one read full of requests that are all turned away.
    const VOLLEY: u32 = READ + 25 * REFUSAL;

    fn pay(account: &mut Account, share: &mut Share, cost: u32, now: Instant) -> Duration {
        account.owe(cost);
        account.pay(share, now)
    }

    /// A share that is used up by `connections` of its user, each of which waits for its turn.
    fn exhausted(connections: u32, now: Instant) -> Share {
        let mut share = Share::new(now);
        for _ in 0..connections {
            let _turn = pay(&mut Account::new(now), &mut share, VOLLEY, now);
        }
        share
    }

    #[test]
    fn who_sends_within_its_share_never_waits() {
        let begin = Instant::now();
        let (mut account, mut share) = (Account::new(begin), Share::new(begin));
        for millis in 0..20_000 {
            let now = begin + Duration::from_millis(millis);
            assert_eq!(pay(&mut account, &mut share, 4 * READ, now), Duration::ZERO, "4 MiB a second");
        }
    }

    #[test]
    fn what_one_connection_may_cost_beyond_its_users_share_is_bounded() {
        let now = Instant::now();
        let mut share = exhausted(100, now);
        let mut account = Account::new(now);
        assert!((0..OWN.burst).all(|_| pay(&mut account, &mut share, READ, now).is_zero()), "its own");
        assert!(!pay(&mut account, &mut share, READ, now).is_zero(), "and nothing more");
        let later = now + OWN.interval;
        assert!(pay(&mut account, &mut share, READ, later).is_zero());
        assert!(!pay(&mut account, &mut share, READ, later).is_zero());
    }

    #[test]
    fn connections_whose_requests_are_all_turned_away_are_read_in_turns_and_at_the_latest_after_the_longest() {
        let now = Instant::now();
        let mut share = Share::new(now);
        let mut accounts: Vec<Account> = (0..512).map(|_| Account::new(now)).collect();
        let turns: Vec<_> = accounts.iter_mut().map(|it| pay(it, &mut share, VOLLEY, now)).collect();
        assert_eq!(turns.iter().filter(|turn| turn.is_zero()).count() as u32, SHARE.burst / VOLLEY);
        assert!(turns.is_sorted(), "each waits for those before it");
        assert_eq!(turns.last(), Some(&LONGEST_TURN), "none is given up");
        assert!(!share.is_full(now) && share.is_full(now + Duration::from_secs(10)));
    }

    #[test]
    fn a_connection_that_says_little_is_read_at_once_whatever_its_users_others_do() {
        let begin = Instant::now();
        let (mut share, mut account) = (exhausted(100, begin), Account::new(begin));
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            for _ in 0..10 {
                let _turn = pay(&mut Account::new(now), &mut share, VOLLEY, now);
            }
            assert_eq!(pay(&mut account, &mut share, 5 * READ, now), Duration::ZERO);
            let mut newcomer = Account::new(now);
            assert_eq!(pay(&mut newcomer, &mut share, 8 * READ + 6 * REFUSAL, now), Duration::ZERO, "with refusals");
        }
    }

    #[test]
    fn a_debt_without_end_is_one_of_the_whole_share() {
        let now = Instant::now();
        let (mut share, mut account) = (Share::new(now), Account::new(now));
        (0..1_000_000).for_each(|_| account.owe(REFUSAL));
        assert_eq!(account.pay(&mut share, now), Duration::ZERO);
        assert!(!pay(&mut Account::new(now), &mut share, OWN.burst + 1, now).is_zero());
    }
}
