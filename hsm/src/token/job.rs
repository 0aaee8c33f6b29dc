//! What waits in the queue, and where its result goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::places::Place;
use crate::error::HsmError;
use crate::key::Held;
use crate::kind::SigningInput;

/// How long a caller waits for the token before it is told that the token has stalled. A C call cannot be cancelled: the
/// thread stays with it. Generous, because slow tokens with a full queue are slow, not broken.
//= FLT-H3 token faults: "callers are told"
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// The same where a key is made: RSA keys of 4096 bits take some tokens minutes.
pub(super) const GENERATION_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Work of a thread whose state is `W`.
pub(super) enum Job<W> {
    /// A signature: nearly all jobs, so it is no boxed closure.
    Sign { key: Arc<Held>, input: SigningInput, reply: Reply },
    /// Anything else that wants the session: making, finding and destroying keys.
    Task(Box<dyn FnOnce(&mut W) + Send>),
}

/// Where a signature goes, and the place in the queue that it gives back then.
pub(super) struct Reply {
    sender: oneshot::Sender<Result<Vec<u8>, HsmError>>,
    _place: Place,
}

impl Reply {
    pub(super) fn new(sender: oneshot::Sender<Result<Vec<u8>, HsmError>>, place: Place) -> Self {
        Self { sender, _place: place }
    }

    /// Whether nobody waits any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// A caller that has gone away needs no answer.
    pub(super) fn send(self, result: Result<Vec<u8>, HsmError>) {
        let _ = self.sender.send(result);
    }
}

/// What the thread answers within this time, or that it does not.
pub(super) async fn within<T>(
    patience: Duration,
    receiver: oneshot::Receiver<Result<T, HsmError>>,
) -> Result<T, HsmError> {
    answer_by(Instant::now() + patience, patience, receiver).await
}

/// The same by that time, which was so far away when the caller began to wait.
pub(super) async fn answer_by<T>(
    deadline: Instant,
    patience: Duration,
    receiver: oneshot::Receiver<Result<T, HsmError>>,
) -> Result<T, HsmError> {
    match timeout_at(deadline, receiver).await {
        Ok(Ok(result)) => result,
        // The queue serves what waits before it is closed, so whoever had the reply has dropped it half-way.
        Ok(Err(_)) => Err(HsmError::Interrupted),
        Err(_) => Err(HsmError::Stalled(patience)),
    }
}
