//! Who may put a signature into the queue: a burst comes in as the token works it off, first come first served, and is not refused.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::queue::{CAPACITY, Urgency};
use crate::error::HsmError;

/// Of the queue's places those for what is [`Urgency::FIRST`] alone: no burst keeps a handshake out, or the making of an authority.
const RESERVED: usize = 512;

/// The places of one queue.
pub(super) struct Places(Arc<Semaphore>);

/// A place; free again when dropped. None for what is [`Urgency::FIRST`], which asks for none.
pub(super) type Place = Option<OwnedSemaphorePermit>;

impl Places {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CAPACITY - RESERVED)))
    }

    /// A place, waited for until `deadline`. Among those who wait it is who came first: what runs out first overtakes in the queue only.
    /// How many wait is bounded by those who ask: the server's calls, and the bytes of their bodies.
    pub(super) async fn take(&self, urgency: Urgency, deadline: Instant) -> Result<Place, HsmError> {
        if urgency == Urgency::FIRST {
            return Ok(None);
        }
        match timeout_at(deadline, Arc::clone(&self.0).acquire_owned()).await {
            Ok(place) => place.map(Some).map_err(|_| HsmError::Closed),
            Err(_) => Err(HsmError::Busy(CAPACITY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_waits_for_places_until_its_deadline_and_what_is_first_for_none() {
        let (places, later) = (Places::new(), Instant::now() + super::super::job::DEADLINE);
        let mut taken = Vec::new();
        for _ in 0..CAPACITY - RESERVED {
            taken.push(places.take(Urgency::by(1), later).await.expect("free"));
        }
        assert!(matches!(places.take(Urgency::FIRST, later).await, Ok(None)));
        assert!(matches!(places.take(Urgency::by(0), Instant::now()).await, Err(HsmError::Busy(CAPACITY))));
        let all = Places(Arc::clone(&places.0));
        let next = tokio::spawn(async move { all.take(Urgency::by(1), later).await });
        tokio::task::yield_now().await;
        assert!(!next.is_finished(), "there was a place");
        taken.pop();
        assert!(matches!(next.await.expect("no panic"), Ok(Some(_))));
    }
}
