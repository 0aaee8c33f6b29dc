//! Everything that a server cannot lose but for its token, in one file: made while it runs, put back while it does not.
//!
//! ```text
//!  database (one moment of it) ─┐
//!  key file, if sealed          ├─► manifest, parts ─► sealed to the operator's key, if asked ─► FILE.part ─► FILE
//!  FILE ─► opened, bounded, every hash compared ─► drafts beside their places ─► what is newer here carried over ─► all of them put there
//! ```
//! What it is not: it holds no key of a token, no configuration, no PIN. Sealing is HPKE (RFC 9180) as rustls has it, over aws-lc.

mod carried;
mod container;
mod draft;
mod error;
mod making;
mod manifest;
mod operator_key;
mod origin;
mod report;
mod restoring;
mod sealing;

pub use carried::{Authorities, Carried};
pub use container::{FORMAT, MAX_MANIFEST_BYTES};
pub use error::BackupError;
pub use making::{Source, make};
pub use manifest::{Manifest, Part, PartName};
pub use operator_key::{OperatorKey, OperatorKeyError, OperatorPublicKey};
pub use origin::Origin;
pub use report::RestoreReport;
pub use restoring::{OpenBackup, Target};
pub use sealing::CHUNK_BYTES;
