//! What a connection and a stream hold of their user's share; given back on drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use super::attention::{READ, REFUSAL};
use super::local_user::LocalUser;
use super::rounds::Rounds;
use super::{Admission, Occupancy};

/// Tells a connection's task that the connection must give way.
#[derive(Debug, Default)]
pub(in crate::endpoints) struct Eviction {
    asked: AtomicBool,
    waker: AtomicWaker,
}

impl Eviction {
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was asked for; if not yet, wakes `cx` when it is.
    pub fn poll_asked(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.asked.load(Ordering::Acquire)
    }
}

/// One connection of a user.
#[derive(Debug)]
pub(in crate::endpoints) struct ConnectionSlot {
    admission: Admission,
    uid: u32,
    user: LocalUser,
    number: u64,
    eviction: Arc<Eviction>,
    rounds: Rounds,
}

/// One stream of a user, on a connection.
#[derive(Debug)]
pub(in crate::endpoints) struct StreamSlot(Arc<ConnectionSlot>);

impl ConnectionSlot {
    pub(super) fn new(
        admission: Admission,
        uid: u32,
        user: LocalUser,
        number: u64,
        eviction: Arc<Eviction>,
        rounds: Rounds,
    ) -> Self {
        Self { admission, uid, user, number, eviction, rounds }
    }

    /// The effective uid of the process that connected, as the kernel says it.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// What all local users hold at this moment beside this connection.
    pub fn occupancy_of_others(&self) -> Occupancy {
        self.admission.books().occupancy_beside(self.user, self.number)
    }

    /// How the connection learns that it must give way.
    pub fn eviction(&self) -> &Eviction {
        &self.eviction
    }

    /// Since when it has no stream; `None` while it has one.
    pub fn idle_since(&self) -> Option<Instant> {
        self.admission.books().idle_since(self.user, self.number)
    }

    /// Its user's rounds.
    pub fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// Something of it was read.
    pub fn was_read(&self) {
        self.admission.books().owe(self.user, self.number, READ);
    }

    /// A request on it was turned away.
    pub fn turned_away(&self) {
        self.admission.books().owe(self.user, self.number, REFUSAL);
    }

    /// How long it takes until it has paid for that, and may be read again: see [`attention`](super::attention).
    pub fn pay(&self, now: Instant) -> Duration {
        self.admission.books().pay(self.user, self.number, now)
    }

    /// Room for one more stream on this connection, if its user has some.
    pub fn open_stream(self: &Arc<Self>, now: Instant) -> Option<StreamSlot> {
        let Admission(state) = &self.admission;
        let opened = self.admission.books().open_stream(self.user, self.number, &state.limits, now);
        opened.then(|| StreamSlot(self.clone()))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.admission.books().disconnect(self.user, self.number);
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.admission.books().close_stream(self.0.user, self.0.number, Instant::now());
    }
}
