//! One call to the server for each wish, however many wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironroot_api::jwt::Audiences;
use tokio::sync::watch;

use super::{FetchError, Token, Wish};
use crate::server_answers::EntryKey;

type Outcome = Result<Arc<Token>, FetchError>;
type Key = (EntryKey, Audiences);

/// The calls that are under way. Never more than those who begin one hold places for.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Key, Flight>>>);

/// A call that is under way, or has just ended.
#[derive(Clone)]
pub(super) struct Flight(watch::Receiver<Option<Outcome>>);

impl Flights {
    /// The call for this wish, if one is under way.
    pub fn join(&self, wish: &Wish) -> Option<Flight> {
        self.flights().get(&key(wish)).cloned()
    }

    /// Begins a call, or joins the one that somebody else has begun. It goes on when nobody waits for it any more.
    pub fn begin<F>(&self, wish: &Wish, call: impl FnOnce(Wish) -> F) -> Flight
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key(wish)) {
            return flight.clone();
        }
        let (landing, flight) = watch::channel(None);
        let flight = Flight(flight);
        flights.insert(key(wish), flight.clone());
        drop(flights);
        let (call, ended) = (call(wish.clone()), Ended { flights: self.clone(), key: key(wish) });
        tokio::spawn(async move {
            let outcome = call.await;
            // First out of the list, so that who comes after begins anew; also if the call panics.
            drop(ended);
            landing.send_replace(Some(outcome));
        });
        flight
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// What came of it.
    pub async fn landed(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(FetchError::GivenUp)),
            Err(_) => Err(FetchError::GivenUp),
        }
    }
}

/// Takes a call out of the list when it ends.
struct Ended {
    flights: Flights,
    key: Key,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.flights.flights().remove(&self.key);
    }
}

fn key(wish: &Wish) -> Key {
    (wish.terms.key(), wish.audiences.clone())
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::server_answers::EntryTerms;

    fn wish() -> Wish {
        let audiences = Audiences::try_new(vec!["a".to_owned()]).expect("legal");
        Wish { terms: Arc::new(EntryTerms::example("e", "/w")), audiences }
    }

    #[tokio::test]
    async fn whoever_wants_the_same_waits_for_one_call_which_goes_on_without_them() {
        let (flights, (land, landing)) = (Flights::default(), oneshot::channel::<()>());
        let first = flights.begin(&wish(), |_| async move {
            let _ = landing.await;
            Err(FetchError::Busy)
        });
        let second = flights.begin(&wish(), |_| async { unreachable!("one is under way") });
        let third = flights.join(&wish()).expect("under way");
        drop(first);
        land.send(()).expect("it waits");
        assert_eq!(second.landed().await.map(drop), Err(FetchError::Busy));
        assert_eq!(third.landed().await.map(drop), Err(FetchError::Busy));
        assert!(flights.join(&wish()).is_none(), "and the next call is another one");
    }

    #[tokio::test]
    async fn a_call_that_panics_is_given_up_and_leaves_nothing_behind() {
        let flights = Flights::default();
        let flight = flights.begin(&wish(), |_| async { panic!("as asked") });
        assert_eq!(flight.landed().await.map(drop), Err(FetchError::GivenUp));
        assert!(flights.join(&wish()).is_none());
    }
}
