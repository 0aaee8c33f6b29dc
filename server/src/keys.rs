//! Where the CA's private keys are: in a PKCS#11 token, or, for moving over from SPIRE and for trials, in this process and a file.
//!
//! ```text
//!  KeyManager ── find, make, destroy ──► Key ── sign (JWS form) ──► bytes ── KeyKind::x509_signature ──► certificates
//!   │ Token: hsm, keys never leave                │ Token: on a session thread of the token
//!   └ Software: a map, and SPIRE's file of it      └ Software: in this process
//! ```
//! What it is not: it knows neither journals nor authorities; which key is whose, the CA says.

mod error;
mod file;
mod kept;
mod manager;
mod software;

pub use error::{KeyError, KeyFileError};
pub use file::{KeyFile, MAX_KEY_FILE_BYTES, MAX_KEYS};
pub use kept::SoftwareKeys;
pub use manager::{FormerManager, Key, KeyManager, KeyManagers};
pub use software::SoftwareKey;
