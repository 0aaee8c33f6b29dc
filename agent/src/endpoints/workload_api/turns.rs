//! When a piece of an attestation may be done: it is its user's turn, and of updates only a few are made at once.

use std::time::{Duration, Instant};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tonic::Status;

use crate::endpoints::admission::Admission;

/// Callers that are looked at again at once when something was published: each look is a read of procfs on a thread of its own,
/// and hundreds of streams wake together.
const UPDATES_AT_ONCE: usize = 4;

/// See the module.
pub(super) struct Turns {
    admission: Admission,
    /// Bounds how many callers are looked at again at once.
    updates: Semaphore,
    /// How long anybody waits.
    patience: Duration,
}

/// One of its user's turns; given back on drop.
pub(super) type Turn = OwnedSemaphorePermit;

impl Turns {
    pub fn new(admission: Admission, patience: Duration) -> Self {
        Self { admission, updates: Semaphore::new(UPDATES_AT_ONCE), patience }
    }

    /// A turn of the user behind `uid`; `Unavailable` if that takes too long.
    pub async fn of_user(&self, uid: u32) -> Result<Turn, Status> {
        self.patiently(self.users(uid)).await
    }

    /// The same before an update, with one of the places that all users' updates share. The user's own turn comes first: whoever
    /// waits for a place holds none, so a user whose attestations take long keeps only its own updates waiting.
    pub async fn of_update(&self, uid: u32) -> Result<(Turn, SemaphorePermit<'_>), Status> {
        let both = async { Ok((self.users(uid).await?, self.updates.acquire().await?)) };
        self.patiently(both).await
    }

    async fn users(&self, uid: u32) -> Result<Turn, AcquireError> {
        self.admission.attestations(uid, Instant::now()).acquire_owned().await
    }

    async fn patiently<T>(&self, waiting: impl Future<Output = Result<T, AcquireError>>) -> Result<T, Status> {
        match tokio::time::timeout(self.patience, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Status::unavailable("too many attestations are in progress")),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tonic::Code;

    use super::*;
    use crate::endpoints::admission::{Limits, SubordinateUids};

    fn turns(patience: Duration) -> Turns {
        let limits = Limits { max_attestations_per_user: 2, ..Limits::default() };
        Turns::new(Admission::new(limits, SubordinateUids::default()), patience)
    }

    #[tokio::test]
    async fn a_user_whose_attestations_take_long_keeps_no_other_users_updates_waiting() {
        let turns = turns(Duration::from_secs(60));
        let _slow = join_all([turns.of_user(1), turns.of_user(1)]).await;
        let mut waiting = Box::pin(join_all((0..2 * UPDATES_AT_ONCE).map(|_| turns.of_update(1))));
        assert!((&mut waiting).now_or_never().is_none(), "it waits for its own");
        assert!(turns.of_update(2).now_or_never().is_some_and(|turn| turn.is_ok()), "who does not");
        assert!(turns.of_user(2).now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test]
    async fn few_updates_are_made_at_once_and_none_waits_for_ever() {
        let turns = turns(Duration::from_millis(10));
        let made = join_all((0..UPDATES_AT_ONCE as u32).map(|uid| turns.of_update(uid))).await;
        assert!(made.iter().all(Result::is_ok));
        let late = turns.of_update(99).await.map(drop).expect_err("no place");
        assert_eq!(late.code(), Code::Unavailable);
        assert!(turns.of_user(99).await.is_ok(), "a first attestation needs none, and the turn was given back");
        drop(made);
        assert!(turns.of_update(99).await.is_ok());
    }
}
