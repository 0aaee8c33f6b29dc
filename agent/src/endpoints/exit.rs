//! The end of a process, waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ironroot_attest::workload::Peer;
use ironroot_shell::logging::in_moderation;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tonic::Status;
use tracing::error;

/// What the log says, in moderation.
const UNWATCHABLE: &str = "cannot watch for the exit of a workload";

/// Watches one process.
#[derive(Debug)]
pub(super) struct ExitWatch(Option<AsyncFd<Arc<OwnedFd>>>);

impl ExitWatch {
    /// Of `process`, which is whose workload, in a word, the log says.
    pub fn of(process: &Peer, whose: &'static str) -> Result<Self, Status> {
        let watch = |event| {
            #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps its descriptor open and the same")]
            AsyncFd::with_interest(event, Interest::READABLE)
        };
        process.exit_event().map(watch).transpose().map(Self).map_err(|failure: io::Error| {
            if let Some(pass) = in_moderation(UNWATCHABLE) {
                error!(
                    error = &failure as &dyn std::error::Error,
                    whose,
                    suppressed = pass.suppressed,
                    "{UNWATCHABLE}"
                );
            }
            Status::unavailable("cannot watch for the exit of the process")
        })
    }

    /// Done when it has ended; never where the kernel does not tell of that: there each look at it does.
    pub async fn ended(&self) {
        match &self.0 {
            Some(exit) => drop(exit.readable().await),
            None => std::future::pending().await,
        }
    }
}
