//! Watches over commands to a software TPM: the TSS library waits for an answer without end.
//!
//! A kernel device needs no watch: its driver gives up by itself. When an answer over TCP does not come, or is cut short,
//! the library's thread would hang for ever. The watch then shuts the connection down *under* the library, whose read
//! ends with an error; so no thread is ever abandoned, and the next task connects again.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, SockaddrStorage, getpeername, shutdown};
use tracing::warn;

/// The command that is under way, as its thread tells.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<WatchedCommand>,
}

struct WatchedCommand {
    state: Mutex<State>,
    changed: Condvar,
    deadline: Duration,
}

#[derive(Default)]
struct State {
    running: Option<(&'static str, Instant)>,
    /// The command that runs was given up.
    cut: bool,
    ended: bool,
}

impl Watch {
    /// Starts the watch over the TPM at `peer` and the control port beside it.
    pub fn start(peer: SocketAddr, deadline: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(WatchedCommand { state: Mutex::default(), changed: Condvar::new(), deadline });
        let watched = Arc::clone(&shared);
        thread::Builder::new().name("tpm-watch".into()).spawn(move || watched.run(peer))?;
        Ok(Self { shared })
    }

    /// Runs `command` under watch. Second: whether it was cut because the deadline had passed.
    pub fn over<T>(&self, name: &'static str, command: impl FnOnce() -> T) -> (T, bool) {
        self.shared.set(|state| *state = State { running: Some((name, Instant::now())), ..State::default() });
        let result = command();
        let mut cut = false;
        self.shared.set(|state| {
            cut = state.cut;
            *state = State::default();
        });
        (result, cut)
    }

    /// How long a command may take.
    pub fn deadline(&self) -> Duration {
        self.shared.deadline
    }

    /// Nothing more will run.
    pub fn end(&self) {
        self.shared.set(|state| state.ended = true);
    }
}

impl WatchedCommand {
    fn run(&self, peer: SocketAddr) {
        let mut state = self.lock();
        loop {
            if state.ended {
                return;
            }
            let waiting = state.running.map(|(_, since)| self.deadline.saturating_sub(since.elapsed()));
            match waiting {
                Some(Duration::ZERO) => {
                    if !state.cut {
                        let command = state.running.map_or("", |(name, _)| name);
                        let seconds = self.deadline.as_secs();
                        warn!(command, seconds, %peer, "the TPM does not answer; its connection is closed");
                        state.cut = true;
                    }
                    // Again and again until the command ends: the library may be connecting anew.
                    shut_down(peer);
                    state = self.wait(state, AGAIN);
                }
                Some(left) => state = self.wait(state, left),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    /// Two flags and a time: as good after a panic as before.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pause between two looks at a command that was cut and still runs.
const AGAIN: Duration = Duration::from_millis(100);

/// Shuts this process's TCP connections to `peer` and its control port down. They stay open as descriptors: closing them is
/// the library's.
fn shut_down(peer: SocketAddr) {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = descriptors.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for descriptor in numbers {
        if getpeername::<SockaddrStorage>(descriptor).is_ok_and(|address| is_of(&address, peer)) {
            // Closed by the library in this moment: then it is not hanging any more.
            let _ = shutdown(descriptor, Shutdown::Both);
        }
    }
}

fn is_of(address: &SockaddrStorage, peer: SocketAddr) -> bool {
    let (ip, port) = if let Some(v4) = address.as_sockaddr_in() {
        (IpAddr::from(v4.ip()), v4.port())
    } else if let Some(v6) = address.as_sockaddr_in6() {
        (IpAddr::from(v6.ip()), v6.port())
    } else {
        return false;
    };
    ip == peer.ip() && (port == peer.port() || Some(port) == peer.port().checked_add(1))
}
