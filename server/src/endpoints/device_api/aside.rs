//! Questions that are held against the whole registry: they take a processor for seconds, and are not worked on where calls are
//! answered.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

use crate::registry::Registry;

/// Most questions that are worked on at once, of each way in; the others wait. Each takes a thread, and a list of the whole fleet.
const AT_ONCE: usize = 1;

/// A thread of its own for such a question; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    registry: Arc<Registry>,
    places: Arc<Semaphore>,
}

impl Aside {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What `work` finds. It goes on when its caller has gone, and keeps its place until it has ended.
    pub async fn find<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let place = self.places.clone().acquire_owned().await.expect("nobody closes it");
        let registry = self.registry.clone();
        let working = tokio::task::spawn_blocking(move || {
            let found = work(&registry);
            drop(place);
            found
        });
        working.await.map_err(|_| Status::internal("this call failed in the server; its log says more"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use ironroot_api::TrustDomain;

    use super::*;
    use crate::store::Store;

    /// Longest a test waits.
    const DEADLINE: Duration = Duration::from_secs(20);

    async fn aside() -> (tempfile::TempDir, Aside) {
        let (directory, td) = (tempfile::tempdir().expect("directory"), TrustDomain::new("td").expect("legal"));
        let store = Store::open(&directory.path().join("datastore.sqlite3"), &td).expect("opens");
        (directory, Aside::new(Arc::new(Registry::load(store).await.expect("loads"))))
    }

    /// There is one thread that answers calls.
    #[tokio::test]
    async fn other_calls_are_answered_while_a_question_is_worked_on() {
        let (_directory, aside) = aside().await;
        let (answered, wait) = mpsc::channel();
        let asking = tokio::spawn(async move { aside.find(move |_| wait.recv_timeout(DEADLINE)).await });
        // Another call: it is begun behind the question.
        tokio::spawn(async move { answered.send(()) });
        asking.await.expect("no panic").expect("found").expect("the other call was answered meanwhile");
    }

    #[tokio::test]
    async fn a_question_whose_caller_has_gone_keeps_its_place_until_it_has_ended_and_one_that_panics_leaves_it() {
        let (_directory, aside) = aside().await;
        let ((begun, has_begun), (go, may_go)) = (tokio::sync::oneshot::channel(), mpsc::channel::<()>());
        let gone = aside.clone();
        let caller = tokio::spawn(async move {
            let work = move |_: &Registry| begun.send(()).and_then(|()| may_go.recv_timeout(DEADLINE).map_err(drop));
            gone.find(work).await
        });
        has_begun.await.expect("it begins");
        caller.abort();
        assert!(caller.await.expect_err("hung up").is_cancelled());
        assert_eq!(aside.places.available_permits(), 0);
        go.send(()).expect("it is there");
        let failed = tokio::time::timeout(DEADLINE, aside.find(|_| -> () { panic!("as it is meant to") })).await;
        assert_eq!(failed.expect("there is a place").expect_err("it failed").code(), tonic::Code::Internal);
        aside.find(|_| ()).await.expect("there is a place again");
    }
}
