//! When a piece of an attestation may be done: when it is its user's turn.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::endpoints::admission::Admission;

/// See the module.
pub(super) struct Turns {
    admission: Admission,
    /// How long anybody waits.
    patience: Duration,
}

/// One of its user's turns; given back on drop.
pub(in crate::endpoints) type Turn = OwnedSemaphorePermit;

impl Turns {
    pub fn new(admission: Admission, patience: Duration) -> Self {
        Self { admission, patience }
    }

    /// A turn of the user behind `uid`; `Unavailable` if that takes too long.
    pub async fn of_user(&self, uid: u32) -> Result<Turn, Status> {
        let turn = self.admission.attestations(uid, Instant::now()).acquire_owned();
        match tokio::time::timeout(self.patience, turn).await {
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
    async fn a_user_whose_attestations_take_long_keeps_no_other_users_waiting() {
        let turns = turns(Duration::from_secs(60));
        let _slow = join_all([turns.of_user(1), turns.of_user(1)]).await;
        assert!(turns.of_user(1).now_or_never().is_none(), "it waits for its own");
        assert!(turns.of_user(2).now_or_never().is_some_and(|turn| turn.is_ok()), "who does not");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_and_a_turn_that_is_given_back_is_the_next_ones() {
        let turns = turns(Duration::from_millis(10));
        let taken = join_all([turns.of_user(1), turns.of_user(1)]).await;
        assert!(taken.iter().all(Result::is_ok));
        let late = turns.of_user(1).await.map(drop).expect_err("no turn");
        assert_eq!(late.code(), Code::Unavailable);
        drop(taken);
        assert!(turns.of_user(1).await.is_ok());
    }
}
