//! The session threads of this process. Whoever ends it waits for them: PKCS#11 libraries take themselves down when a process ends,
//! and one that is taken down beneath a call crashes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many there are.
static ALIVE: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// One of them, until it is dropped.
pub(super) struct SessionThread(());

impl SessionThread {
    pub(super) fn begin() -> Self {
        *alive() += 1;
        Self(())
    }
}

impl Drop for SessionThread {
    fn drop(&mut self) {
        *alive() -= 1;
        ENDED.notify_all();
    }
}

/// Waits until no session thread of this process is left, once each [`Token`](super::Token) and each key of it is dropped; false if that
/// takes longer than `patience`: a token may hang. Blocks.
pub fn session_threads_ended(patience: Duration) -> bool {
    let waited = ENDED.wait_timeout_while(alive(), patience, |alive| *alive > 0);
    *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
}

fn alive() -> MutexGuard<'static, usize> {
    // A number is whole whoever panics.
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_waits_for_its_session_threads_and_not_for_ever() {
        let threads = [SessionThread::begin(), SessionThread::begin()];
        assert!(!session_threads_ended(Duration::ZERO));
        let ending = std::thread::spawn(move || drop(threads));
        assert!(session_threads_ended(Duration::from_secs(60)));
        ending.join().expect("it ends");
    }
}
