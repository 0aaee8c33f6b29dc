//! Who holds what, and who gives way. Pure but for the wake-up of a connection that must end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_shell::token_bucket::TokenBucket;
use tokio::sync::Semaphore;

use super::attention::{Account, Share};
use super::local_user::LocalUser;
use super::long_messages::{LongMessage, Most, Turns};
use super::rounds::Rounds;
use super::slot::Eviction;
use super::{Crowded, Limits, Occupancy};
use crate::server_number::{MAX_SERVERS, ServerNumber};

/// Connections that were told to end and have not ended yet. Their descriptors are kept free for them.
pub(super) const MAX_LEAVING: usize = 64;
/// Users remembered before those that left are forgotten.
const MAX_IDLE_USERS: usize = 1024;

#[derive(Debug)]
pub(super) struct Books {
    /// All connections but those that are leaving.
    connections: usize,
    leaving: usize,
    streams: usize,
    /// Connections are numbered in the order in which they came.
    next_number: u64,
    users: HashMap<LocalUser, User>,
    /// What all users' long messages take of.
    long_messages: LongMessages,
}

#[derive(Debug)]
struct User {
    connections: BTreeMap<u64, Booked>,
    streams: usize,
    attestations: Arc<Semaphore>,
    /// At each server.
    signatures: [Arc<Semaphore>; MAX_SERVERS],
    long_messages: LongMessages,
    requests: TokenBucket,
    share: Share,
    rounds: Rounds,
}

/// Turns, by kind.
#[derive(Debug)]
struct LongMessages {
    discoveries: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

#[derive(Debug)]
struct Booked {
    streams: usize,
    idle_since: Instant,
    eviction: Arc<Eviction>,
    account: Account,
}

impl Books {
    /// Nobody holds anything.
    pub fn new(limits: &Limits) -> Self {
        let long_messages = LongMessages::of(limits, |most| most.in_all);
        Self { connections: 0, leaving: 0, streams: 0, next_number: 0, users: HashMap::new(), long_messages }
    }

    /// Books a connection; its number, and how it learns that it must end.
    pub fn connect(&mut self, user: LocalUser, limits: &Limits, now: Instant) -> Result<(u64, Arc<Eviction>), Crowded> {
        let held = self.user(user, limits, now).connections.len();
        //= FLT-A6 agent faults: "it is held to its rate and its share"
        let all = limits.max_connections - if held == 0 { 0 } else { limits.kept_for_newcomers() };
        if held >= limits.max_connections_per_user {
            self.evict(user, true, Crowded::User)?;
        } else if self.connections >= all {
            let (largest, idle) = self.who_gives_way(held).ok_or(Crowded::All)?;
            self.evict(largest, idle, Crowded::All)?;
        }
        let (number, eviction) = (self.next_number, Arc::new(Eviction::default()));
        self.next_number += 1;
        self.connections += 1;
        let booked = Booked { streams: 0, idle_since: now, eviction: eviction.clone(), account: Account::new(now) };
        self.user(user, limits, now).connections.insert(number, booked);
        Ok((number, eviction))
    }

    /// Of those that hold more than a newcomer with `held` connections would, the one that holds most and has an idle
    /// one (`true`). For a newcomer without any, also one that uses all of them (`false`).
    fn who_gives_way(&self, held: usize) -> Option<(LocalUser, bool)> {
        let larger = || self.users.iter().filter(|(_, user)| user.connections.len() > held + 1);
        let most = |(name, user): &(&LocalUser, &User)| (user.connections.len(), **name);
        let idle = larger().filter(|(_, user)| user.connections.values().any(Booked::is_idle)).max_by_key(most);
        let busy = || larger().max_by_key(most).filter(|_| held == 0);
        idle.map(|(name, _)| (*name, true)).or_else(|| busy().map(|(name, _)| (*name, false)))
    }

    /// Ends the connection of `user` that has been idle longest, or, unless it must be `idle`, that was idle last the
    /// longest ago. `none`: it has no such connection.
    fn evict(&mut self, user: LocalUser, idle: bool, none: Crowded) -> Result<(), Crowded> {
        if self.leaving >= MAX_LEAVING {
            return Err(Crowded::Leaving);
        }
        let user = self.users.get_mut(&user).ok_or(none)?;
        let candidates = user.connections.iter().filter(|(_, booked)| !idle || booked.is_idle());
        let number = *candidates.min_by_key(|(_, booked)| booked.idle_since).ok_or(none)?.0;
        user.connections.remove(&number).ok_or(none)?.eviction.ask();
        self.connections -= 1;
        self.leaving += 1;
        Ok(())
    }

    /// A connection has ended.
    pub fn disconnect(&mut self, user: LocalUser, number: u64) {
        match self.users.get_mut(&user).and_then(|user| user.connections.remove(&number)) {
            Some(_) => self.connections -= 1,
            None => self.leaving -= 1,
        }
    }

    /// Books a stream on a connection, if its user has room for one.
    pub fn open_stream(&mut self, user: LocalUser, number: u64, limits: &Limits, now: Instant) -> bool {
        let most = if self.streams < limits.max_streams { limits.max_streams_per_user } else { 1 };
        let user = self.user(user, limits, now);
        //= FLT-A7 agent faults: "at its user's share it is told ResourceExhausted"
        if user.streams >= most {
            return false;
        }
        user.streams += 1;
        if let Some(booked) = user.connections.get_mut(&number) {
            booked.streams += 1;
        }
        self.streams += 1;
        true
    }

    /// A stream has ended.
    pub fn close_stream(&mut self, user: LocalUser, number: u64, now: Instant) {
        let Some(user) = self.users.get_mut(&user) else { return };
        user.streams -= 1;
        self.streams -= 1;
        if let Some(booked) = user.connections.get_mut(&number) {
            booked.streams -= 1;
            booked.idle_since = now;
        }
    }

    /// Since when a connection has no stream; `None`: it has one, or has been told to end.
    pub fn idle_since(&self, user: LocalUser, number: u64) -> Option<Instant> {
        let booked = self.users.get(&user)?.connections.get(&number)?;
        booked.is_idle().then_some(booked.idle_since)
    }

    pub fn is_in_rate(&mut self, user: LocalUser, limits: &Limits, now: Instant) -> bool {
        self.user(user, limits, now).requests.take_one(limits.rate(), now)
    }

    /// A connection's user is to pay so much before it is read again.
    pub fn owe(&mut self, user: LocalUser, number: u64, cost: u32) {
        let booked = self.users.get_mut(&user).and_then(|user| user.connections.get_mut(&number));
        booked.into_iter().for_each(|booked| booked.account.owe(cost));
    }

    /// How long it takes until all that a connection owes is paid; one that was told to end owes nothing.
    pub fn pay(&mut self, user: LocalUser, number: u64, now: Instant) -> Duration {
        let Some(User { connections, share, .. }) = self.users.get_mut(&user) else { return Duration::ZERO };
        connections.get_mut(&number).map_or(Duration::ZERO, |booked| booked.account.pay(share, now))
    }

    pub fn rounds(&mut self, user: LocalUser, limits: &Limits, now: Instant) -> Rounds {
        self.user(user, limits, now).rounds.clone()
    }

    pub fn attestations(&mut self, user: LocalUser, limits: &Limits, now: Instant) -> Arc<Semaphore> {
        self.user(user, limits, now).attestations.clone()
    }

    pub fn signatures(
        &mut self,
        user: LocalUser,
        server: ServerNumber,
        limits: &Limits,
        now: Instant,
    ) -> Arc<Semaphore> {
        server.own(&self.user(user, limits, now).signatures).clone()
    }

    pub fn long_messages(&mut self, user: LocalUser, kind: LongMessage, limits: &Limits, now: Instant) -> Turns {
        let own = self.user(user, limits, now).long_messages.those(kind).clone();
        Turns { own, of_all: self.long_messages.those(kind).clone(), most: limits.long_messages(kind) }
    }

    /// What all hold but that connection of `user`.
    pub fn occupancy_beside(&self, user: LocalUser, number: u64) -> Occupancy {
        let asker = self.users.get(&user).and_then(|user| Some((user, user.connections.get(&number)?)));
        let (streams, is_all) = asker.map_or((0, false), |(user, it)| (it.streams, user.connections.len() == 1));
        let users = self.users.values().filter(|user| !user.connections.is_empty()).count();
        Occupancy {
            users: users - usize::from(is_all),
            connections: self.connections - usize::from(asker.is_some()),
            streams: self.streams - streams,
        }
    }

    /// The account of `user`.
    fn user(&mut self, user: LocalUser, limits: &Limits, now: Instant) -> &mut User {
        if self.users.len() >= MAX_IDLE_USERS && !self.users.contains_key(&user) {
            self.users.retain(|_, user| !user.is_idle(limits) || !user.is_fresh(now));
        }
        self.users.entry(user).or_insert_with(|| User::new(limits, now))
    }
}

impl User {
    fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            connections: BTreeMap::new(),
            streams: 0,
            attestations: Arc::new(Semaphore::new(limits.max_attestations_per_user)),
            signatures: std::array::from_fn(|_| Arc::new(Semaphore::new(limits.max_signatures_per_user))),
            long_messages: LongMessages::of(limits, |most| most.per_user),
            requests: TokenBucket::full(now),
            share: Share::new(now),
            rounds: Rounds::default(),
        }
    }

    /// Whether nothing is known of what it did that a newcomer would not have.
    fn is_fresh(&self, now: Instant) -> bool {
        self.requests.is_full(now) && self.share.is_full(now)
    }

    fn is_idle(&self, limits: &Limits) -> bool {
        let attesting = self.attestations.available_permits() < limits.max_attestations_per_user;
        let signing = self.signatures.iter().any(|calls| calls.available_permits() < limits.max_signatures_per_user);
        let reading = [LongMessage::Discovery, LongMessage::Request]
            .into_iter()
            .any(|kind| self.long_messages.those(kind).available_permits() < limits.long_messages(kind).per_user);
        self.connections.is_empty() && self.streams == 0 && !attesting && !signing && !reading
    }
}

impl LongMessages {
    fn of(limits: &Limits, most: impl Fn(Most) -> usize) -> Self {
        let turns = |kind| Arc::new(Semaphore::new(most(limits.long_messages(kind))));
        Self { discoveries: turns(LongMessage::Discovery), requests: turns(LongMessage::Request) }
    }

    fn those(&self, kind: LongMessage) -> &Arc<Semaphore> {
        match kind {
            LongMessage::Discovery => &self.discoveries,
            LongMessage::Request => &self.requests,
        }
    }
}

impl Booked {
    fn is_idle(&self) -> bool {
        self.streams == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::SubordinateUids;
    use super::*;

    #[test]
    fn who_asks_what_is_held_is_not_counted_and_its_other_connections_are() {
        let (mut books, limits, now) = (Books::new(&Limits::default()), Limits::default(), Instant::now());
        let user = |uid| SubordinateUids::default().user_of(uid);
        let mut connect = |uid| books.connect(user(uid), &limits, now).expect("has room").0;
        let (asker, other, further) = (connect(7), connect(7), connect(8));
        for (uid, number) in [(7, asker), (8, further)] {
            assert!(books.open_stream(user(uid), number, &limits, now));
        }
        let told = |books: &Books| {
            let Occupancy { users, connections, streams } = books.occupancy_beside(user(7), asker);
            (users, connections, streams)
        };
        assert_eq!(told(&books), (2, 2, 1));
        books.disconnect(user(7), other);
        assert_eq!(told(&books), (1, 1, 1));
        books.disconnect(user(8), further);
        books.close_stream(user(8), further, now);
        assert_eq!(told(&books), (0, 0, 0));
    }

    #[test]
    fn users_that_left_are_forgotten_and_one_that_is_connected_is_not() {
        let (mut books, limits, now) = (Books::new(&Limits::default()), Limits::default(), Instant::now());
        let user = |uid| SubordinateUids::default().user_of(uid);
        let (number, _) = books.connect(user(7), &limits, now).expect("has room");
        for uid in 100..20_000 {
            books.is_in_rate(user(uid), &limits, now + Duration::from_secs(u64::from(uid)));
        }
        assert!(books.users.len() <= MAX_IDLE_USERS);
        assert!(books.idle_since(user(7), number).is_some());
    }
}
