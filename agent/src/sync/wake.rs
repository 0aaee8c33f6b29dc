//! What wakes the loop. Another thing that may wake it (a push of the server's) is a variant here and a line in [`Wakes::next`].

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, watch};

use crate::requests::Request;

/// Why the loop goes on.
#[derive(Debug)]
pub enum Wake {
    /// The server is to be asked for changes: the interval or a back-off is over, or an operator wants it at once.
    Poll,
    /// Something is to be signed, or to be written, before the next poll.
    Due,
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
}

impl Wakes {
    /// `shutdown` becomes true, or nobody is left to say it; `ask_now` ends a pause because the operator wants the server asked.
    pub fn new(shutdown: watch::Receiver<bool>, ask_now: Arc<Notify>, requests: mpsc::Receiver<Request>) -> Self {
        Self { shutdown, ask_now, requests }
    }

    /// Becomes true when the process ends.
    pub(super) fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.clone()
    }

    /// Waits for the next wake.
    pub async fn next(&mut self, sleep: Sleep) -> Wake {
        let (at, wake) = match sleep.due {
            Some(due) if due < sleep.poll => (due, Wake::Due),
            _ => (sleep.poll, Wake::Poll),
        };
        tokio::select! {
            biased;
            _ = self.shutdown.wait_for(|stop| *stop) => Wake::Shutdown,
            () = self.ask_now.notified() => Wake::Poll,
            () = tokio::time::sleep_until(at.into()) => wake,
            Some(request) = self.requests.recv() => Wake::Request(request),
        }
    }

    /// A request that waits already, so that all of them cost one batch.
    pub fn waiting_request(&mut self) -> Option<Request> {
        self.requests.try_recv().ok()
    }
}
