//! Work that is done to its end, whoever hangs up: a change, and the audit line that tells of it, come together.
//!
//! A caller that goes away takes the future of its call with it. What that future has given to the store is done all the same, and
//! the line would be missing; so the call is a task of its own, and what goes away only waited for it.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

use super::roles::CALLS;

/// Most changes under way, of callers that went away too. A call keeps its role's place until its task ends, so that none waits
/// here for long: only attestations, which outlive theirs, come on top.
const AT_ONCE: u32 = CALLS as u32;

/// The changes under way; clones share them.
#[derive(Clone, Debug)]
pub struct Unbroken(Arc<Semaphore>);

impl Unbroken {
    /// None.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE as usize)))
    }

    /// What `work` gives. Once this has been polled and there was a place, `work` goes on even if this is dropped. Work inside of
    /// work would wait for a second place: there is none.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Status> {
        let place = self.0.clone().acquire_owned().await.expect("nobody closes it");
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
        task.await.map_err(|_| Status::internal("this call failed in the server; its log says more"))
    }

    /// Waits until all that have begun have ended.
    pub async fn ended(&self) {
        let _all = self.0.acquire_many(AT_ONCE).await.expect("nobody closes it");
    }
}

impl Default for Unbroken {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;

    /// Longest a test waits.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn work_goes_on_when_whoever_waited_for_it_is_gone_and_a_server_that_stops_waits_for_it() {
        let (unbroken, done) = (Unbroken::new(), Arc::new(AtomicBool::new(false)));
        let ((begun, has_begun), (go, may_go)) = (oneshot::channel(), oneshot::channel::<()>());
        let writes = done.clone();
        let work = async move {
            begun.send(()).expect("somebody listens");
            may_go.await.expect("somebody says so");
            writes.store(true, Ordering::SeqCst);
        };
        let (waiting, shared) = (unbroken.clone(), unbroken.clone());
        let caller = tokio::spawn(async move { waiting.run(work).await });
        has_begun.await.expect("it begins");
        caller.abort();
        assert!(caller.await.expect_err("hung up").is_cancelled());
        let stop = tokio::spawn(async move { shared.ended().await });
        assert!(!done.load(Ordering::SeqCst));
        go.send(()).expect("the work is there");
        tokio::time::timeout(DEADLINE, stop).await.expect("it ends").expect("no panic");
        assert!(done.load(Ordering::SeqCst), "the server stops after it");
    }

    #[tokio::test]
    async fn work_that_panics_is_told_to_its_caller_and_leaves_its_place() {
        let unbroken = Unbroken::new();
        let failed: Result<(), Status> = unbroken.run(async { panic!("as it is meant to") }).await;
        assert_eq!(failed.expect_err("it failed").code(), Code::Internal);
        tokio::time::timeout(DEADLINE, unbroken.ended()).await.expect("nothing is under way");
    }
}
