//! Writes that follow each other.

use std::sync::Arc;

use tokio::sync::Mutex;

/// Writes that follow each other off the runtime's thread: an fsync may take a second on worn flash. In the order in which they are asked
/// for, also where nobody waits for one any more that is under way. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<Mutex<()>>);

impl Writes {
    /// Does `write` after those before it, and waits for its end.
    pub async fn run<T: Send + 'static>(&self, write: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = Arc::clone(&self.0).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let written = write();
            drop(turn);
            written
        });
        written.await.expect("writing and removing a file does not panic")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::slow_disk::with_a_slow_disk;
    use super::super::{read, replace};
    use super::*;

    #[test]
    fn a_write_that_nobody_waits_for_any_more_is_not_overtaken() {
        with_a_slow_disk(|disk| async {
            let (writes, directory) = (Writes::default(), tempfile::tempdir().expect("directory"));
            let path = directory.path().join("file");
            let write = |bytes: &'static [u8]| {
                let (path, writes) = (path.clone(), writes.clone());
                async move { writes.run(move || replace(&path, bytes)).await }
            };
            assert!(write(b"older").now_or_never().is_none(), "begun, and dropped");
            disk.is_waited_for(write(b"newer")).await.expect("written");
            assert_eq!(read(&path, 5).expect("readable").as_deref(), Some(&b"newer"[..]));
        });
    }
}
