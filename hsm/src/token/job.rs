//! What waits in the queue, and where its result goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::HsmError;
use crate::key::Held;
use crate::kind::SigningInput;

/// How long a caller waits for the token before it is told that the token has stalled. A C call cannot be cancelled: the
/// thread stays with it. Generous, because slow tokens with a full queue are slow, not broken.
//= FLT-H3 token faults: "callers are told"
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Work of a thread whose state is `W`.
pub(super) enum Job<W> {
    /// A signature: nearly all jobs, so it is no boxed closure.
    Sign { key: Arc<Held>, input: SigningInput, reply: Reply },
    /// Anything else that wants the session: making, finding and destroying keys.
    Task(Box<dyn FnOnce(&mut W) + Send>),
}

/// Where a signature goes.
pub(super) struct Reply(pub(super) oneshot::Sender<Result<Vec<u8>, HsmError>>);

impl Reply {
    /// Whether nobody waits any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }

    /// A caller that has gone away needs no answer.
    pub(super) fn send(self, result: Result<Vec<u8>, HsmError>) {
        let _ = self.0.send(result);
    }
}

/// What the thread answers, or that it does not.
pub(super) async fn within_deadline<T>(receiver: oneshot::Receiver<Result<T, HsmError>>) -> Result<T, HsmError> {
    match tokio::time::timeout(DEADLINE, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(HsmError::Closed),
        Err(_) => Err(HsmError::Stalled(DEADLINE)),
    }
}
