//! More entries than a server takes at once, as several requests whose answers are one.

use ironroot_shell::command_line::CommandError;
use tonic::Status;

use crate::cli::connection::PATIENCE_SECONDS;

/// Entries of a request. A server takes 10,000; a request of this many is answered within a second or two.
pub(super) const AT_ONCE: usize = 500;
/// Longest answer accepted, bytes: entries with thousands of selectors each.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Longest a file of entries may take, seconds: a hundred thousand take far less.
const OF_A_FILE_SECONDS: u64 = 900;

/// How long a command may take that was given a file, or one entry: a server that hangs is told of as soon as by every other command.
pub(super) fn patience(is_file: bool) -> u64 {
    if is_file { OF_A_FILE_SECONDS } else { PATIENCE_SECONDS }
}

/// Asks for `items` in batches, and puts the answers together in their order. What was done is done: if the server goes away after the
/// first answer, those that it was not asked for any more, or did not answer, are answered by `failed`.
pub(super) async fn in_batches<T: Clone, R>(
    items: &[T],
    mut ask: impl AsyncFnMut(Vec<T>) -> Result<Vec<R>, Status>,
    failed: impl Fn(&T, &Status) -> R,
) -> Result<Vec<R>, CommandError> {
    let (first, mut rest) = items.split_at(items.len().min(AT_ONCE));
    let mut results = ask(first.to_vec()).await?;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rest.len().min(AT_ONCE));
        match ask(batch.to_vec()).await {
            Ok(answers) => results.extend(answers),
            Err(status) => {
                results.extend(rest.iter().map(|item| failed(item, &status)));
                break;
            }
        }
        rest = later;
    }
    Ok(results)
}
