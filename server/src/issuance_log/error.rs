//! Why the log cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the log cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum LogError {
    #[error("cannot {doing} {path}")]
    Io {
        /// Which step, as a verb.
        doing: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// Somebody changed it, or a disk did.
    #[error("the issuance log is broken in {path} at line {line}: {why}")]
    Broken { path: PathBuf, line: usize, why: &'static str },
    /// A segment in the middle is not there.
    #[error("the issuance log is broken: {0} does not follow the segment before it")]
    Gap(PathBuf),
}
