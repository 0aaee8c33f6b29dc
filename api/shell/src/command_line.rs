//! What the command lines of server and agent share: flags in Go's style, answers in two forms, errors with exit codes.

mod asking;
mod chain;
mod daemon;
pub mod doctor;
mod empty_flags;
mod error;
mod examples;
mod go_flags;
mod go_json;
mod json;
mod logger;
mod program;
mod replace_file;
mod reply;
mod seconds;
mod socket;
mod text;

pub use crate::describe;
pub use crate::printable::{Shown, shown};
pub use asking::{block_on, within};
pub use chain::{ShownCertificate, chain_text, go_duration};
pub use daemon::{ConfigFile, ConfigFlags, Given, LogFlags, begin_log, ended, keep_files_private, switched_on};
pub use error::{CommandError, EXIT_NO_COMMAND, code_name};
pub use examples::with_whole_examples;
pub use go_flags::GoFlags;
pub use go_json::as_go_reads;
pub use json::{base64, int64, json_mistake};
pub use logger::logger_reply;
pub use program::Program;
pub use replace_file::replace_file;
pub use reply::{Output, Reply, UnknownOutput};
pub use seconds::{lifetime_seconds, positive_seconds};
pub use socket::{SocketChoice, SocketError};
pub use text::{counted, labelled, table};
