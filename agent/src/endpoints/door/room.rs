//! The right to keep as many bytes as a long message has, once its turn has come.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tonic::Status;

use crate::endpoints::admission::{Admission, LongMessage, NoTurn, Turn};

/// Whose messages are read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub admission: Admission,
    pub uid: u32,
}

/// See the module.
pub(super) enum Room {
    Wanted(Pin<Box<dyn Future<Output = Result<Turn, NoTurn>> + Send>>),
    /// The turn, if the message needs one, for as long as it is held here.
    Given {
        _turn: Option<Turn>,
    },
}

impl Reader {
    /// Room for a long message of this kind.
    pub fn room_for(&self, kind: LongMessage) -> Room {
        Room::Wanted(Box::pin(self.admission.long_messages(self.uid, kind, Instant::now()).next()))
    }
}

impl Room {
    /// For what is no longer than a few lines.
    pub fn of_a_short_message() -> Self {
        Self::Given { _turn: None }
    }

    /// Waits until it is given; whether that was now.
    pub fn poll_given(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        let Self::Wanted(turn) = self else { return Poll::Ready(Ok(false)) };
        match ready!(turn.as_mut().poll(cx)) {
            Ok(turn) => *self = Self::Given { _turn: Some(turn) },
            Err(refusal) => return Poll::Ready(Err(Status::resource_exhausted(refusal.to_string()))),
        }
        Poll::Ready(Ok(true))
    }
}
