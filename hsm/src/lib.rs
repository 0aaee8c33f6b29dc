//! Ironroot: keys that never leave a PKCS#11 token.
//!
//! A [`Token`] owns the sessions that it is granted, on named OS threads: one that they share, and one for each as far as there
//! are. Work reaches them through one bounded queue, most urgent first; the C library is never called on an async worker thread.
//!
//! ```text
//!  TokenKey::sign_digest ──► queue (by Urgency) ──► session thread ──► C_SignInit, C_Sign
//!                                                       │ on failure: new session ─► new login ─► new epoch
//!                                                       └─ epoch = finalize, initialize, log in, find, compare public keys
//! ```
//!
//! What it is not: it knows no SPIFFE and no certificates, and of configuration files only how one names a token and its PIN
//! ([`settings`]), which both daemons read alike.
//!
//! Invariants:
//! - A key is used only while the token says it is, and always was, sensitive and never extractable, and only after it has
//!   proved by a signature that it belongs to its public key.
//! - A PIN that the token refused is never sent again by this process; a PIN is not sent at all while the token says that
//!   few tries are left, nor to a token that asks for none.
//! - A generation that fails leaves no key behind.
//! - "The key is missing" is said only by a session that is logged in.
//! - A key that was found once and is gone is an error, never a reason to make another one.

mod error;
mod key;
mod kind;
mod login;
mod module;
mod name;
mod pin;
mod probe;
pub mod settings;
mod signature;
mod token;
mod uri;

pub use error::{FailedCall, HsmError};
pub use kind::KeyKind;
pub use module::{is_in_use, pin_was_refused};
pub use name::{KeyId, KeyIdError, KeyName};
pub use pin::{Pin, PinError};
pub use probe::{
    KeyTrial, MechanismSurvey, ModuleSurvey, SlotSurvey, TRIAL_LABEL, TokenSurvey, UserPinState, try_keys,
};
pub use signature::P256Signature;
pub use token::{LAST_PATIENCE, Token, TokenConfig, TokenKey, Urgency, UserLogin, session_threads_ended};
pub use uri::{KeyUri, TokenUri, UriError};
