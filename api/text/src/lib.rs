//! Files that people write or save, read through one door: configuration, manifests, entry files, bundles, tokens, PINs.
//!
//! ```text
//!  path or "-" ─► at most so many bytes ─► decode (mark, encoding, line ends) ─► &str ─► parser of that file
//!                                                                             └─► pem::certificates
//! ```
//! Editors and spreadsheets put a mark in front (BOM), save UTF-16, end lines with CR or CRLF; `cat` of two such files puts
//! a mark in the middle. Files with a secret have a door of their own, `secret_file`. No parser behind this door sees any of it, and each error names the file.
//!
//! Not here: files that the daemons write for themselves, which are bytes, and what comes over the network.

mod decode;
mod file;
pub mod hex;
pub mod pem;
pub mod secret_file;

pub use decode::{TextError, decode};
pub use file::{FileError, FileProblem, HumanFile};
