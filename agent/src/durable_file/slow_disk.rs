//! A disk that takes as long as a test wants.

use std::sync::mpsc;

use futures_util::FutureExt;

/// Runs `test` while the only thread that may wait for a disk waits for one: see [`Disk`].
pub fn with_a_slow_disk<F: Future<Output = ()>>(test: impl FnOnce(Disk) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (go_on, waits) = mpsc::channel();
        let waiting = tokio::task::spawn_blocking(move || waits.recv());
        test(Disk(go_on)).await;
        waiting.await.expect("no panic").expect("it was waited for");
    });
}

/// What is waited for, until it is told to go on or dropped.
pub struct Disk(mpsc::Sender<()>);

impl Disk {
    /// Whether `writing` waits for the disk, which then goes on; what comes of it.
    pub async fn is_waited_for<T>(self, writing: impl Future<Output = T>) -> T {
        let mut writing = std::pin::pin!(writing);
        assert!((&mut writing).now_or_never().is_none(), "it writes on the runtime's thread");
        self.0.send(()).expect("it waits");
        writing.await
    }
}
