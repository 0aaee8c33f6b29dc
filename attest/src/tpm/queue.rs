//! The bounded queue in front of the TPM's thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::chip::Chip;
use super::error::TpmError;

/// Jobs waiting at most, both lanes together. A slow chip does about five operations a second: whoever would be
/// 65th waits longer than any handshake or attestation lives, so it is told at once.
const BOUND: usize = 64;

/// What is sent to the thread. It answers its caller itself.
pub type Job = Box<dyn FnOnce(&mut Chip) + Send>;

/// Who goes first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Somebody's handshake waits.
    Urgent,
    /// Everything else, in order of arrival.
    Normal,
}

/// First in, first out within a lane; the urgent lane first.
///
/// The lock guards the two lists and is held for a push or a pop, never during a TPM command.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    arrival: Condvar,
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<(&'static str, Job)>,
    normal: VecDeque<(&'static str, Job)>,
    closed: bool,
}

impl Queue {
    /// Adds a job, or says at once that too many wait.
    pub fn push(&self, lane: Lane, what: &'static str, job: Job) -> Result<(), TpmError> {
        let mut waiting = self.lock();
        //= FLT-T10 chip faults: "what waits is bounded"
        if waiting.urgent.len() + waiting.normal.len() >= BOUND {
            return Err(TpmError::Overloaded { what, waiting: BOUND });
        }
        match lane {
            Lane::Urgent => waiting.urgent.push_back((what, job)),
            Lane::Normal => waiting.normal.push_back((what, job)),
        }
        drop(waiting);
        self.arrival.notify_one();
        Ok(())
    }

    /// The next job, waiting for one. None when the queue was closed and is empty.
    pub fn next(&self) -> Option<(&'static str, Job)> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.urgent.pop_front() {
                return Some(job);
            }
            if let Some(job) = waiting.normal.pop_front() {
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.arrival.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No more jobs will come. Those waiting are still done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_one();
    }

    /// The lists are never left half-changed, so a poisoned lock is as good as a clean one.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-T10
    #[test]
    fn a_handshake_goes_before_what_was_queued_earlier() {
        let queue = Queue::default();
        for (lane, what) in [(Lane::Normal, "quote"), (Lane::Normal, "seal"), (Lane::Urgent, "sign")] {
            queue.push(lane, what, Box::new(|_| ())).expect("room");
        }
        queue.close();
        let order: Vec<_> = std::iter::from_fn(|| queue.next().map(|(what, _)| what)).collect();
        assert_eq!(order, ["sign", "quote", "seal"]);
    }

    //= FLT-T10
    #[test]
    fn says_at_once_when_too_many_wait() {
        let queue = Queue::default();
        for _ in 0..BOUND {
            queue.push(Lane::Normal, "quote", Box::new(|_| ())).expect("room");
        }
        assert!(matches!(
            queue.push(Lane::Urgent, "sign", Box::new(|_| ())),
            Err(TpmError::Overloaded { what: "sign", waiting: BOUND })
        ));
    }
}
