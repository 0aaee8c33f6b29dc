//! What is still to be flushed when an answer has been given, so that a process that ends leaves nothing in a chip without resource manager.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the end of the last handle waits for flushes: a slow chip takes 20 ms for each of three. One that hangs keeps what it has.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the thread has answered and not flushed yet.
#[derive(Default)]
pub struct Tidying {
    under_way: Mutex<bool>,
    over: Condvar,
}

impl Tidying {
    /// An answer is about to be given.
    pub fn begin(&self) {
        *self.lock() = true;
    }

    /// Nothing is loaded any more, or nothing can be flushed.
    pub fn end(&self) {
        *self.lock() = false;
        self.over.notify_all();
    }

    /// Waits for the end, where an answer was given; never for a job that is still being done.
    pub fn wait(&self) {
        let waited = self.over.wait_timeout_while(self.lock(), PATIENCE, |under_way| *under_way);
        drop(waited);
    }

    /// A flag: as good after a panic as before.
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
