//! Commands that ask a daemon over a socket.

use std::time::Duration;

use tokio::runtime;

use super::CommandError;

/// Runs `work` to its end on this thread.
pub fn block_on<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::run)?.block_on(work)
}

/// `work`, or [`CommandError::Timeout`] after so many seconds.
pub async fn within<T>(seconds: u64, work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let patience = Duration::from_secs(seconds);
    tokio::time::timeout(patience, work).await.unwrap_or(Err(CommandError::Timeout(patience)))
}
