//! The session threads of this process. Whoever ends it waits for them: PKCS#11 libraries take themselves down when a process ends,
//! and one that is taken down beneath a call crashes.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How many have not done their work.
static ALIVE: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
/// All of them, and those of before that nobody has joined yet.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// One that has not done its work, until it is dropped.
struct SessionThread(());

impl SessionThread {
    fn begin() -> Self {
        *alive() += 1;
        Self(())
    }
}

/// Starts one, which does `work`.
pub(super) fn start(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let alive = SessionThread::begin();
    let thread = Builder::new().name(name).spawn(move || {
        work();
        drop(alive);
    })?;
    let mut threads = threads();
    let (ended, rest) = threads.drain(..).partition(JoinHandle::is_finished);
    *threads = rest;
    threads.push(thread);
    drop(threads);
    join(ended);
    Ok(())
}

impl Drop for SessionThread {
    fn drop(&mut self) {
        *alive() -= 1;
        ENDED.notify_all();
    }
}

/// How long a process that ends waits for what a token is doing.
pub const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Waits until no session thread of this process is left, once each [`Token`](super::Token) and each key of it is dropped; false if that
/// takes longer than `patience`: a token may hang. Blocks.
pub fn session_threads_ended(patience: Duration) -> bool {
    let waited = ENDED.wait_timeout_while(alive(), patience, |alive| *alive > 0);
    let have_ended = *waited.unwrap_or_else(PoisonError::into_inner).0 == 0;
    if have_ended {
        // Their work is done, they are not gone: what libraries keep for each thread, OpenSSL's for one, is taken down as it goes.
        let ended = std::mem::take(&mut *threads());
        join(ended);
    }
    have_ended
}

fn join(ended: Vec<JoinHandle<()>>) {
    // One that panicked is gone, too.
    ended.into_iter().for_each(|thread| drop(thread.join()));
}

fn threads() -> MutexGuard<'static, Vec<JoinHandle<()>>> {
    // A list is whole whoever panics.
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn alive() -> MutexGuard<'static, usize> {
    // A number is whole whoever panics.
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc;

    use super::*;

    /// Says when it is taken down with its thread, which is after the thread's work.
    struct TakenDown(mpsc::Sender<()>);

    impl Drop for TakenDown {
        fn drop(&mut self) {
            std::thread::yield_now();
            let _ = self.0.send(());
        }
    }

    thread_local! {
        static KEPT: RefCell<Option<TakenDown>> = const { RefCell::new(None) };
    }

    #[test]
    fn a_process_waits_for_its_session_threads_until_they_are_gone_and_not_for_ever() {
        let (end, ending) = mpsc::channel::<()>();
        let (gone, is_gone) = mpsc::channel();
        let work = move || {
            KEPT.set(Some(TakenDown(gone)));
            let _ = ending.recv();
        };
        start("hsm-test".to_owned(), work).expect("a thread");
        assert!(!session_threads_ended(Duration::ZERO));
        drop(end);
        assert!(session_threads_ended(Duration::from_secs(60)));
        assert_eq!(is_gone.try_recv(), Ok(()));
    }
}
