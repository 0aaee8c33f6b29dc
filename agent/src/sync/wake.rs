//! What wakes the loop. Another thing that may wake it is a variant here and a line in [`Wakes::next`].

use std::sync::Arc;
use std::time::Instant;

use ironroot_api::pb::change::Delta;
use tokio::sync::{Notify, mpsc, watch};

use super::push::{Heard, Pushes};
use crate::requests::{MAX_WAITING, Request};
use crate::trusted_time::Jumps;

/// Why the loop goes on.
#[derive(Debug)]
pub enum Wake {
    /// The server is to be asked for changes: the interval or a back-off is over, or an operator wants it at once.
    Poll,
    /// The server says that something has changed, by this revision of its change log.
    Push(i64),
    /// The server says what has changed.
    Deltas(Vec<Delta>),
    /// The server says no more when something changes.
    PushesEnded,
    /// Something is to be signed, or to be written, before the next poll.
    Due,
    /// The device's clock was set, or the device has slept: schedules know nothing of it.
    Jump,
    /// A workload asks for something that is made only when it is asked for.
    Request(Request),
    /// The process ends.
    Shutdown,
}

/// Until when the loop sleeps if nobody wakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// When the server is asked for changes.
    pub poll: Instant,
    /// When something else is due.
    pub due: Option<Instant>,
}

/// Where wakes come from.
#[derive(Debug)]
pub struct Wakes {
    shutdown: watch::Receiver<bool>,
    ask_now: Arc<Notify>,
    requests: mpsc::Receiver<Request>,
    jumps: Jumps,
}

impl Wakes {
    /// `shutdown` becomes true, or nobody is left to say it; `ask_now` ends a pause because the operator wants the server asked.
    pub fn new(
        shutdown: watch::Receiver<bool>,
        ask_now: Arc<Notify>,
        requests: mpsc::Receiver<Request>,
        jumps: Jumps,
    ) -> Self {
        Self { shutdown, ask_now, requests, jumps }
    }

    /// Becomes true when the process ends.
    pub(super) fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.clone()
    }

    /// Waits for the next wake. What is due goes before requests: workloads ask as often as they like.
    pub(super) async fn next(&mut self, sleep: Sleep, pushes: &mut Pushes) -> Wake {
        let (at, wake) = match sleep.due {
            Some(due) if due < sleep.poll => (due, Wake::Due),
            _ => (sleep.poll, Wake::Poll),
        };
        tokio::select! {
            biased;
            _ = self.shutdown.wait_for(|stop| *stop) => Wake::Shutdown,
            () = self.ask_now.notified() => Wake::Poll,
            // Not left to the timer, which learns the time only when the runtime has nothing else to do.
            () = std::future::ready(()), if at <= Instant::now() => wake,
            () = tokio::time::sleep_until(at.into()) => wake,
            () = self.jumps.next() => Wake::Jump,
            heard = pushes.next() => match heard {
                Heard::Revision(revision) => Wake::Push(revision),
                Heard::Deltas(deltas) => Wake::Deltas(deltas),
                Heard::Denial => Wake::Poll,
                Heard::End => Wake::PushesEnded,
            },
            Some(request) = self.requests.recv() => Wake::Request(request),
        }
    }

    /// The requests that wait already, so that all of them cost one batch; no more than can wait, though others come meanwhile.
    pub fn waiting_requests(&mut self) -> impl Iterator<Item = Request> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).take(MAX_WAITING)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::requests::Requests;
    use crate::server_answers::EntryTerms;

    fn wakes() -> (Wakes, Requests, watch::Sender<()>, watch::Sender<bool>) {
        let (stop, stopping) = watch::channel(false);
        let (requests, waiting) = Requests::channel();
        let (jumping, jumps) = Jumps::channel();
        (Wakes::new(stopping, Arc::default(), waiting, jumps), requests, jumping, stop)
    }

    #[tokio::test]
    async fn what_is_due_goes_before_requests_that_wait() {
        let (mut wakes, requests, jumping, _stop) = wakes();
        requests.mention(vec![EntryTerms::example("e", "/w").key()]);
        // Passed since the runtime last looked at the clock.
        let passed = Instant::now() + Duration::from_millis(5);
        while Instant::now() < passed {
            std::hint::spin_loop();
        }
        let later = passed + Duration::from_secs(60);
        let mut pushes = Pushes::new(Duration::from_secs(5));
        assert!(matches!(wakes.next(Sleep { poll: passed, due: Some(later) }, &mut pushes).await, Wake::Poll));
        assert!(matches!(wakes.next(Sleep { poll: later, due: Some(passed) }, &mut pushes).await, Wake::Due));
        jumping.send_replace(());
        let asleep = Sleep { poll: later, due: None };
        assert!(matches!(wakes.next(asleep, &mut pushes).await, Wake::Jump));
        assert!(matches!(wakes.next(asleep, &mut pushes).await, Wake::Request(_)));
    }

    #[test]
    fn a_batch_ends_though_requests_come_while_it_is_gathered() {
        let (mut wakes, requests, _jumping, _stop) = wakes();
        requests.mention(vec![EntryTerms::example("e", "/w").key()]);
        let batch = wakes.waiting_requests().inspect(|_| requests.mention(vec![EntryTerms::example("e", "/w").key()]));
        assert_eq!(batch.take(2 * MAX_WAITING).count(), MAX_WAITING);
    }
}
