//! Looks at what other servers of the data store have written, for callers of whom memory would say for certain what may be otherwise by now.

use std::time::Duration;

use ironroot_shell::command_line::describe;
use ironroot_shell::logging::in_moderation;
use tokio::time::timeout;
use tonic::Status;
use tracing::warn;

use super::caller::Source;
use super::fair_share::FairShare;
use crate::store::{Store, StoreError};

/// Callers that may wait for a look at once: as many as one look of the store's thread answers, a quarter of those who may wait for it.
const LOOKS_AT_ONCE: usize = 256;
/// Of the places that are free, one source may have one in this many. Whoever is refused often asks often.
const PORTION: usize = 8;
/// How long a caller waits until the data store has been asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a caller waits until what was taken in counts: longer than the rotation rests after a step that failed.
const LONGEST_SHOWING: Duration = Duration::from_secs(3);
/// What a caller is told, and the log in moderation.
const NOT_LOOKED_UP: &str = "whether this agent is known cannot be looked up";
/// What a caller is told of the reason.
const SILENT: &str = "the data store does not answer";
/// The same, of a server that is busy with its own CA.
const NOT_SHOWN: &str = "what the data store has of CAs is not taken in yet";

/// The looks that are waited for at this moment.
#[derive(Debug)]
pub struct Looks {
    waiting: FairShare<Source>,
}

impl Looks {
    /// None.
    pub fn new() -> Self {
        Self { waiting: FairShare::new(LOOKS_AT_ONCE, LOOKS_AT_ONCE, PORTION) }
    }

    /// Has memory take in all that is in `store` now, if others write there too. An agent takes a refusal as that the server is away, and
    /// comes again.
    pub async fn at(&self, store: &Store, source: Source) -> Result<(), Status> {
        self.then(store, std::future::ready(Ok(())), source).await
    }

    /// The same, and waits for `shown`, which is asked when memory has taken all in: what others make of it then.
    pub async fn until(&self, store: &Store, shown: impl Future<Output = ()>, source: Source) -> Result<(), Status> {
        self.then(store, in_time(shown, LONGEST_SHOWING), source).await
    }

    async fn then(
        &self,
        store: &Store,
        shown: impl Future<Output = Result<(), Status>>,
        source: Source,
    ) -> Result<(), Status> {
        match store.is_shared() {
            true => self.wait_for(store.catch_up(), shown, source).await,
            false => Ok(()),
        }
    }

    async fn wait_for(
        &self,
        caught_up: impl Future<Output = Result<(), StoreError>>,
        shown: impl Future<Output = Result<(), Status>>,
        source: Source,
    ) -> Result<(), Status> {
        let Some(_place) = self.waiting.take(source, 1) else {
            return Err(not_looked_up("too many wait for it", "too many wait for it"));
        };
        //= FLT-S29 server faults: "it asks the database before it tells an agent for certain that it does not know it"
        match timeout(PATIENCE, caught_up).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(not_looked_up(&describe(&why), SILENT)),
            Err(_) => return Err(not_looked_up(&format!("no answer within {} s", PATIENCE.as_secs()), SILENT)),
        }
        shown.await
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self::new()
    }
}

async fn in_time(shown: impl Future<Output = ()>, patience: Duration) -> Result<(), Status> {
    timeout(patience, shown).await.map_err(|_| not_looked_up(NOT_SHOWN, NOT_SHOWN))
}

/// `why` is for the log, `told` for the caller.
fn not_looked_up(why: &str, told: &str) -> Status {
    if let Some(pass) = in_moderation(NOT_LOOKED_UP) {
        warn!(reason = why, suppressed = pass.suppressed, "{NOT_LOOKED_UP}");
    }
    Status::unavailable(format!("{NOT_LOOKED_UP}: {told}"))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;
    use tonic::Code;

    use super::*;

    //= FLT-S29
    #[tokio::test]
    async fn whoever_comes_when_too_many_wait_is_refused_at_once_and_none_of_them_has_all_places() {
        let looks = Looks::new();
        let wait = |uid| Box::pin(looks.wait_for(pending(), ready(Ok(())), Source::Uid(uid)));
        let waits = |uid| {
            let mut look = wait(uid);
            (&mut look).now_or_never().is_none().then_some(look)
        };
        let greedy: Vec<_> = std::iter::from_fn(|| waits(0)).collect();
        assert_eq!(greedy.len(), LOOKS_AT_ONCE / (PORTION + 1));
        let refused = looks.wait_for(ready(Ok(())), ready(Ok(())), Source::Uid(0)).await.expect_err("it has its share");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let one_each: Vec<_> = (1..).map_while(waits).collect();
        assert_eq!(greedy.len() + one_each.len(), LOOKS_AT_ONCE - PORTION + 1);
        let newcomer = looks.wait_for(ready(Ok(())), ready(Ok(())), Source::Uid(u32::MAX)).now_or_never();
        assert!(newcomer.is_some_and(|refused| refused.is_err_and(|refused| refused.code() == Code::Unavailable)));
        drop(greedy);
        looks.wait_for(ready(Ok(())), ready(Ok(())), Source::Uid(0)).await.expect("there is room again");
    }
    //= FLT-S29
    #[tokio::test]
    async fn a_ca_that_is_in_the_data_store_and_does_not_count_yet_is_waited_for_and_then_the_server_is_away() {
        let looks = Looks::new();
        let wait = |shown| looks.wait_for(ready(Ok(())), shown, Source::Uid(0));
        let (counts, counted) = tokio::sync::oneshot::channel();
        let mut waits = Box::pin(wait(in_time(counted.map(drop).boxed(), LONGEST_SHOWING).boxed()));
        assert!((&mut waits).now_or_never().is_none(), "it does not count yet");
        counts.send(()).expect("waited for");
        waits.await.expect("it counts in time");
        let refused = wait(in_time(pending(), Duration::ZERO).boxed()).await.expect_err("nobody can tell");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains(NOT_SHOWN), "{refused}");
    }
}
