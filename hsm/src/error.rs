//! What can go wrong with a token: which function, which return value, and what to do about it.

mod failed_call;
mod remedy;

use std::path::PathBuf;
use std::time::Duration;

use cryptoki::error::Error as CryptokiError;
use thiserror::Error;

pub use failed_call::FailedCall;
pub(crate) use remedy::Remedy;

use crate::kind::KeyKind;
use crate::name::{KeyId, KeyName};

/// Why the token did not do what was asked.
#[derive(Clone, Debug, Error)]
pub enum HsmError {
    /// The shared library is missing or is no PKCS#11 module.
    #[error("cannot load PKCS#11 module {}: {reason}; check the module's path and that its package is installed", path.display())]
    Module {
        /// The library's path as configured.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// No slot holds the token that was asked for.
    #[error(
        "no token matches {wanted}; tokens present: {present}; insert or initialise the token, or correct its label or serial"
    )]
    TokenAbsent {
        /// The configured token, as it was named.
        wanted: String,
        /// Label and serial of each token that is there.
        present: String,
    },
    /// More than one token matches.
    #[error("{count} tokens match {wanted}: {which}; name the token by its serial number")]
    TokenAmbiguous {
        /// The configured token, as it was named.
        wanted: String,
        /// How many match.
        count: usize,
        /// Label and serial of each.
        which: String,
    },
    /// The token has no PINs and no label yet.
    #[error(
        "the token that matches {wanted} is blank (in slot {slot}): initialise it first, its user PIN too (softhsm2-util --init-token, or its maker's tool)"
    )]
    TokenBlank {
        /// The configured token, as it was named.
        wanted: String,
        /// Where it is.
        slot: u64,
    },
    /// The token cannot do what is needed.
    #[error("token {token} offers no {mechanism}; use a token with P-256 ECDSA")]
    MechanismMissing {
        /// The token's label.
        token: String,
        /// The mechanism's name.
        mechanism: &'static str,
    },
    /// The token makes no keys of the kind that is asked for.
    #[error(
        "token {token} makes no {kind} keys: {reason}; ask for another kind of key (ec-p256 is made by most), or use another token"
    )]
    KindUnsupported {
        /// The token as it was named.
        token: String,
        /// What was asked for.
        kind: KeyKind,
        /// What the token says of itself.
        reason: String,
    },
    /// The token refused the PIN. It will not be sent again by this process.
    #[error(
        "token {token} refused the PIN ({call}); it was tried once and will not be sent again: correct the PIN and restart"
    )]
    PinRefused {
        /// The token's label.
        token: String,
        /// What C_Login returned.
        call: FailedCall,
    },
    /// The token wants another way to log in than the one configured. Nothing was sent to it.
    #[error("token {token:?} {says}, so no PIN was sent to it; set login = \"{right}\"")]
    LoginMode {
        /// The token's label.
        token: String,
        /// What it says of itself.
        says: &'static str,
        /// The mode that fits.
        right: &'static str,
    },
    /// The PIN was not sent because the token says that wrong PINs were tried before.
    #[error("PIN not sent to token {token}: {state}; {helps}")]
    PinAtRisk {
        /// The token's label.
        token: String,
        /// Which flag the token raises.
        state: &'static str,
        /// What to do.
        helps: &'static str,
    },
    /// The session sees no private keys because nobody is logged in.
    #[error("the session is not logged in to the token")]
    NotLoggedIn,
    /// The session was closed by another thread that mends the token.
    #[error("the session has ended")]
    SessionEnded,
    /// More than one key carries the same name.
    #[error("{count} {class} keys on the token have {name}; delete all but one of them (pkcs11-tool --delete-object)")]
    DuplicateKey {
        /// The CKA_ID or label that they share.
        name: KeyName,
        /// `private` or `public`.
        class: &'static str,
        /// Two or more.
        count: usize,
    },
    /// There is a private key but not the public key beside it.
    #[error(
        "the token holds the private key with {0} but not its public key; import the public key with the same CKA_ID and CKA_LABEL"
    )]
    PublicKeyMissing(KeyName),
    /// A key that was found before is no longer there, though the session is logged in.
    #[error("the key with {0} is gone from the token; restore the token from its backup")]
    KeyLost(KeyName),
    /// Another key now has the CKA_ID of one that was found before.
    #[error("the key with {0} is not the one that was there before; restore the token from its backup")]
    KeyReplaced(KeyName),
    /// The token does not protect the key as required.
    #[error("the key with {name} is not protected: {attribute}; generate the key inside the token")]
    KeyUnprotected {
        /// By which CKA_ID or label it was found.
        name: KeyName,
        /// Which attribute has which value.
        attribute: String,
    },
    /// The key is of another kind than the one that is looked for.
    #[error("the key with {name} is unusable: {reason}")]
    KeyOfAnotherKind {
        /// By which CKA_ID or label it was found.
        name: KeyName,
        /// What it is not.
        reason: String,
    },
    /// A property is missing, or its two halves do not belong together.
    #[error("the key with {name} is unusable: {reason}")]
    KeyUnusable {
        /// By which CKA_ID or label it was found.
        name: KeyName,
        /// Which property is missing, or what the token answered when it was tried.
        reason: String,
    },
    /// A key is to be made where one exists.
    #[error("a key with CKA_ID {0} exists already; destroy it first or choose another identifier")]
    KeyExists(KeyId),
    /// A handle leads to another object than it should, so nothing may be done with it.
    #[error(
        "the token mixed up the handles of the key with {0} (one for both halves, or another object's); trying again \
         after a new start of the module"
    )]
    HandlesMixedUp(KeyName),
    /// The token named a new key as it liked, so that it could not be found again. It was destroyed.
    #[error(
        "the token gave the new key CKA_ID {given} instead of {id}, and another label than the one asked for: it could not be \
         found again; use a token that keeps CKA_ID or CKA_LABEL"
    )]
    NameIgnored {
        /// The CKA_ID that the template asked for.
        id: KeyId,
        /// What the token made of it.
        given: KeyId,
    },
    /// A PKCS#11 function failed.
    #[error("{0}")]
    Call(FailedCall),
    /// Too much work is waiting; try again later.
    #[error("the token's queue is full ({0} requests waiting)")]
    Busy(usize),
    /// The token has not answered in time. The call cannot be cancelled; the process should be restarted if it stays so.
    #[error("the token has not answered for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The session threads have ended.
    #[error("the token is closed")]
    Closed,
    /// What the token answered ended the work on it. The next request has a new session.
    #[error(
        "the token answered what the PKCS#11 library cannot take, and the request ended with that; the log says more"
    )]
    Interrupted,
    /// A session thread could not be started.
    #[error("cannot start a session thread: {0}")]
    Thread(String),
}

impl HsmError {
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Call(call) => call.code().map_or(Remedy::None, Remedy::from),
            Self::SessionEnded => Remedy::NewSession,
            Self::NotLoggedIn => Remedy::NewLogin,
            Self::KeyLost(_) | Self::HandlesMixedUp(_) | Self::TokenAbsent { .. } => Remedy::NewEpoch,
            _ => Remedy::None,
        }
    }
}

impl From<CryptokiError> for HsmError {
    fn from(error: CryptokiError) -> Self {
        Self::Call(error.into())
    }
}
