//! The queue in front of the session threads: bounded, most urgent first, first come first served among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::HsmError;

/// Requests that may wait. More would wait longer than their callers do, whatever the token's speed.
pub(crate) const CAPACITY: usize = 4096;

/// How soon a request must be served: what runs out first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency(i64);

impl Urgency {
    /// Before everything else: someone is waiting inside a handshake, or an authority is being made.
    pub const FIRST: Self = Self(i64::MIN);

    /// What the result replaces runs out at this time, UNIX seconds.
    pub fn by(unix: i64) -> Self {
        Self(unix)
    }
}

/// Any number of senders and receivers; receivers are threads.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    waiting: BinaryHeap<Reverse<Entry<T>>>,
    next_number: u64,
    idle: usize,
    closed: bool,
}

struct Entry<T> {
    urgency: Urgency,
    number: u64,
    job: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State { waiting: BinaryHeap::new(), next_number: 0, idle: 0, closed: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    pub(crate) fn push(&self, urgency: Urgency, job: T) -> Result<(), HsmError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HsmError::Closed);
        }
        if state.waiting.len() >= CAPACITY {
            return Err(HsmError::Busy(CAPACITY));
        }
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push(Reverse(Entry { urgency, number, job }));
        // Waking costs a system call; a busy thread looks here by itself.
        if state.idle > 0 {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The most urgent job, waiting for one if there is none; `None` once the queue is closed and empty.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(Reverse(entry)) = state.waiting.pop() {
                return Some(entry.job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Accepts no more; what is waiting is still served.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.urgency, self.number) == (other.urgency, other.number)
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.urgency, self.number).cmp(&(other.urgency, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_what_runs_out_first_and_equals_in_order() {
        let queue = Queue::new();
        for (urgency, job) in [
            (Urgency::by(i64::MAX), 'z'),
            (Urgency::by(200), 'd'),
            (Urgency::by(100), 'b'),
            (Urgency::by(100), 'c'),
            (Urgency::FIRST, 'a'),
        ] {
            queue.push(urgency, job).unwrap();
        }
        queue.close();
        let served: String = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(served, "abcdz");
    }

    #[test]
    fn refuses_more_than_its_capacity_and_anything_after_closing() {
        let queue = Queue::new();
        for _ in 0..CAPACITY {
            queue.push(Urgency::by(i64::MAX), ()).unwrap();
        }
        assert!(matches!(queue.push(Urgency::FIRST, ()), Err(HsmError::Busy(CAPACITY))));
        queue.close();
        assert!(matches!(queue.push(Urgency::FIRST, ()), Err(HsmError::Closed)));
    }
}
