//! Everything that was issued and changed, in one chain: each record holds the hash of the one before, so that nothing can be taken out,
//! put in or told otherwise without another head; and heads are known to many.
//!
//! ```text
//!  Audit::done, the CA's journal ──► queue ──► log's thread: sequence, hash, write ──► fsync, once a second ──► durable head
//!                                                  └ segments: issuance/00000000000000000001.log, the oldest go
//! ```
//! Nobody who is answered waits for the disk here: a process that is killed loses what is in the queue (milliseconds), a machine that loses
//! its power at most a second; the audit line in the log of the process is there before the answer. A head is shown when its records are on
//! the disk, so that no head that was shown goes back by a crash.
//!
//! How many records there are, is for those to say who are issued something; what operators did outlives the segments (`kept`).
//!
//! What it is not: it proves no more than that the chain which a reader has is the one of the head which he has.

mod chain;
mod error;
mod identity;
mod kept;
mod left_out;
mod reading;
mod segment;
mod writer;

pub use chain::{Body, Head, MAX_OBJECT_BYTES, Record};
pub use error::LogError;
pub use identity::{FILE_NAME as ID_FILE_NAME, log_id};
pub use kept::{MAX_KEPT_FILES, read_kept};
pub use reading::{Newest, Reading, read, read_last, read_last_kept, read_newest};
pub use segment::{DIRECTORY, MAX_LINE_BYTES, MAX_SEGMENT_BYTES, MAX_SEGMENTS};
pub use writer::{Event, IssuanceLog, MAX_OPERATORS_WAITING, MAX_WAITING, RECENT};
