//! How far the chip's thread is, so that whoever lets go of the chip has let go of it: without a resource manager what a process leaves
//! loaded stays, and the library opens devices so that programs which are started have them, too.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the end of the last handle waits for flushes: a slow chip takes 20 ms for each of three. One that hangs keeps what it has.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What the thread is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing: it waits for a job, or is told that there are no more.
    #[default]
    Idle,
    /// A job, which may take minutes.
    Working,
    /// The job's caller has its answer, or is about to; what the job loaded is flushed.
    Answered,
    /// Nothing any more: the connection is closed.
    Ended,
}

/// The stage of one thread.
#[derive(Default)]
pub struct Stages {
    now: Mutex<Stage>,
    changed: Condvar,
}

impl Stages {
    /// The thread has come to that.
    pub fn come_to(&self, stage: Stage) {
        *self.lock() = stage;
        self.changed.notify_all();
    }

    /// Waits for the end of a thread that has no more jobs, so long at most; never for one that is at work.
    pub fn wait_for_the_end(&self, patience: Duration) {
        let is_near = |stage: &mut Stage| matches!(stage, Stage::Idle | Stage::Answered);
        drop(self.changed.wait_timeout_while(self.lock(), patience, is_near));
    }

    /// One value: as good after a panic as before.
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Never reached.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    #[test]
    fn who_lets_go_waits_for_flushes_and_the_end_and_for_no_job() {
        let stages = Arc::new(Stages::default());
        for not_waited_for in [Stage::Working, Stage::Ended] {
            stages.come_to(not_waited_for);
            stages.wait_for_the_end(FOR_EVER);
        }
        stages.come_to(Stage::Answered);
        let waiting = Arc::clone(&stages);
        let waiting = thread::spawn(move || waiting.wait_for_the_end(FOR_EVER));
        let deadline = Instant::now() + Duration::from_millis(100);
        for stage in [Stage::Answered, Stage::Idle] {
            stages.come_to(stage);
            while !waiting.is_finished() && Instant::now() < deadline {
                thread::yield_now();
            }
            assert!(!waiting.is_finished(), "{stage:?}");
        }
        stages.come_to(Stage::Ended);
        waiting.join().expect("no panic");
    }

    #[test]
    fn a_chip_that_hangs_is_let_go_of_all_the_same() {
        let stages = Stages::default();
        stages.come_to(Stage::Answered);
        stages.wait_for_the_end(Duration::from_millis(1));
    }
}
