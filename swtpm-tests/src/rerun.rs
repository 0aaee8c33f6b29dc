//! Runs a test of this binary again, in a child process with another environment.
//!
//! PKCS#11 modules take their configuration from the environment, once per process; changing a running process's
//! environment is unsafe.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ironroot_hsm::session_threads_ended;

use crate::child;

/// Tells a child process which test it is the child of.
const CHILD_VARIABLE: &str = "IRONROOT_LAB_CHILD_OF";
/// A child that is not done by then hangs. Generous: the machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(180);
/// Longest wait for the session threads of tokens.
const SESSIONS_PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two looks at a running child.
const POLL: Duration = Duration::from_millis(20);

/// Whether this process is the child of `test`.
pub fn is_child_of(test: &str) -> bool {
    std::env::var(CHILD_VARIABLE).is_ok_and(|name| name == test)
}

/// What a child does last, so that its parent knows that it got there. What tokens are still doing for a dropped caller it waits for.
pub fn mark_end(directory: &Path) {
    // A test may have hung one for good.
    let _ = session_threads_ended(SESSIONS_PATIENCE);
    fs::write(directory.join("ended"), "").expect("a directory of our own");
}

/// Runs `test` in a child with `environment`; its output goes to `directory`. Panics, and with it the test fails, if the
/// child fails, hangs, or ends without [`mark_end`].
pub fn run(test: &str, mut environment: Vec<(&str, OsString)>, directory: &Path) {
    environment.push((CHILD_VARIABLE, test.into()));
    let mut child = start(test, environment, directory);
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("our own child");
            break None;
        }
        thread::sleep(POLL);
    };
    let text = output(directory);
    assert!(status.is_some_and(|s| s.success()), "the child of {test} failed ({status:?}):\n{text}");
    assert!(directory.join("ended").exists(), "no test is called {test:?}, or it ended early:\n{text}");
}

/// Starts a child of this test binary that runs only `test`. It dies with us.
pub fn start(test: &str, environment: Vec<(&str, OsString)>, directory: &Path) -> Child {
    let log = File::create(directory.join("child.log")).expect("a directory of our own");
    let this_binary = std::env::current_exe().expect("this test binary");
    let mut command = child::dies_with_us(this_binary.to_str().expect("a path that is text"));
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .envs(environment)
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("a file of our own"))
        .stdout(log);
    child::spawn(command).expect("this test binary runs again")
}

/// What the last child printed.
pub fn output(directory: &Path) -> String {
    fs::read_to_string(directory.join("child.log")).unwrap_or_default()
}
