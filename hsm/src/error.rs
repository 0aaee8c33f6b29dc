//! What can go wrong with a token: which function, which return value, and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cryptoki::context::Function;
use cryptoki::error::{Error as CryptokiError, RvError};
use thiserror::Error;

use crate::name::{KeyId, KeyName};

/// A PKCS#11 call that failed, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCall {
    function: String,
    code: Option<RvError>,
    detail: String,
}

impl FailedCall {
    /// The C function, such as `C_Sign`.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// The return value's name, such as `CKR_DEVICE_REMOVED`, if the function returned one.
    pub fn code_name(&self) -> Option<String> {
        self.code.map(rv_name)
    }

    pub(crate) fn code(&self) -> Option<RvError> {
        self.code
    }
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} returned {}: {}", self.function, rv_name(code), advice(code)),
            None => write!(f, "{}: {}", self.function, self.detail),
        }
    }
}

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
    #[error("{count} tokens match {wanted}; name the token by its serial number")]
    TokenAmbiguous {
        /// The configured token, as it was named.
        wanted: String,
        /// How many match.
        count: usize,
    },
    /// The token cannot do what is needed.
    #[error("token {token} offers no {mechanism}; use a token with P-256 ECDSA")]
    MechanismMissing {
        /// The token's label.
        token: String,
        /// The mechanism's name.
        mechanism: &'static str,
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
    #[error(
        "PIN not sent to token {token}: {state}; log in once by hand with the right PIN (pkcs11-tool --login --list-objects), or have the security officer reset it"
    )]
    PinAtRisk {
        /// The token's label.
        token: String,
        /// Which flag the token raises.
        state: &'static str,
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
    /// The key is of another kind, or its two halves do not belong together.
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
    /// A session thread could not be started.
    #[error("cannot start a session thread: {0}")]
    Thread(String),
}

/// What may help after a failure, cheapest first. Source of the classes: OASIS PKCS #11 §5.1, and what modules really do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Remedy {
    NewSession,
    NewLogin,
    NewEpoch,
    /// Nothing that this process can do.
    None,
}

impl Remedy {
    /// The next stronger one.
    pub(crate) fn stronger(self) -> Self {
        match self {
            Self::NewSession => Self::NewLogin,
            Self::NewLogin => Self::NewEpoch,
            Self::NewEpoch | Self::None => Self::None,
        }
    }
}

impl HsmError {
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Call(call) => call.code.map_or(Remedy::None, remedy_for),
            Self::SessionEnded => Remedy::NewSession,
            Self::NotLoggedIn => Remedy::NewLogin,
            Self::KeyLost(_) | Self::HandlesMixedUp(_) | Self::TokenAbsent { .. } => Remedy::NewEpoch,
            _ => Remedy::None,
        }
    }
}

impl From<CryptokiError> for HsmError {
    fn from(error: CryptokiError) -> Self {
        Self::Call(match error {
            CryptokiError::Pkcs11(code, function) => {
                FailedCall { function: function_name(function), code: Some(code), detail: String::new() }
            }
            other => FailedCall { function: "PKCS#11 module".to_owned(), code: None, detail: other.to_string() },
        })
    }
}

fn remedy_for(code: RvError) -> Remedy {
    use RvError as R;
    match code {
        R::SessionHandleInvalid
        | R::SessionClosed
        | R::SessionCount
        | R::OperationActive
        | R::OperationNotInitialized
        // What only the maker knows: whatever helps, cheapest first.
        | R::VendorDefined(_)
        | R::UnknownErrorCode(_) => Remedy::NewSession,
        R::UserNotLoggedIn | R::KeyHandleInvalid | R::ObjectHandleInvalid => Remedy::NewLogin,
        R::GeneralError
        | R::DeviceError
        | R::DeviceRemoved
        | R::DeviceMemory
        | R::HostMemory
        | R::TokenNotPresent
        | R::TokenNotRecognized
        | R::SlotIdInvalid
        | R::CryptokiNotInitialized
        | R::FunctionFailed => Remedy::NewEpoch,
        _ => Remedy::None,
    }
}

fn advice(code: RvError) -> &'static str {
    use RvError as R;
    match code {
        R::PinIncorrect | R::PinInvalid | R::PinLenRange => "correct the PIN",
        R::PinLocked => "the security officer must unlock the PIN",
        R::PinExpired => "change the PIN with the token's own tool",
        R::UserPinNotInitialized => "initialise the user PIN with the token's own tool",
        R::UserNotLoggedIn => {
            "nobody is logged in, or not as the user who may do this (some HSMs let only their administrator make keys)"
        }
        R::UserAnotherAlreadyLoggedIn => {
            "another user, such as the security officer, is logged in to the token in this process; end what logged in"
        }
        R::TokenNotPresent | R::DeviceRemoved => "re-insert or reconnect the token; work goes on by itself",
        R::TokenWriteProtected | R::SessionReadOnly => "the token is write-protected; keys cannot be made on it",
        R::SessionCount => "the token has no free session; end other programs that use it, or raise its own limit",
        R::AttributeReadOnly => "the token sets one of the key's attributes itself; see which in its manual",
        R::ArgumentsBad => {
            "the module wants arguments that a plain PKCS#11 module does not (NSS softokn is not supported), or the token \
             takes no PIN this way"
        }
        R::MechanismInvalid | R::CurveNotSupported | R::DomainParamsInvalid => "the token cannot do P-256 ECDSA",
        R::KeyFunctionNotPermitted => "the key may not sign; it needs CKA_SIGN",
        R::AttributeTypeInvalid | R::AttributeValueInvalid | R::TemplateInconsistent | R::TemplateIncomplete => {
            "the token does not accept the key template"
        }
        R::DeviceMemory => "the token is full; delete keys that are no longer used",
        R::GeneralError | R::DeviceError | R::FunctionFailed => {
            "the token failed; it is tried again, and the module's own log says more"
        }
        R::CantLock => "the module is not thread-safe and cannot be used",
        _ => "see the module's own log",
    }
}

fn function_name(function: Function) -> String {
    format!("C_{function:?}")
}

/// `PinIncorrect` becomes `CKR_PIN_INCORRECT`.
fn rv_name(code: RvError) -> String {
    if let RvError::VendorDefined(value) = code {
        return format!("CKR_VENDOR_DEFINED ({value:#x})");
    }
    let mut name = String::from("CKR");
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: RvError, function: Function) -> HsmError {
        HsmError::from(CryptokiError::Pkcs11(code, function))
    }

    #[test]
    fn names_the_function_the_return_value_and_what_to_do() {
        let error = call(RvError::DeviceRemoved, Function::Sign);
        assert_eq!(
            error.to_string(),
            "C_Sign returned CKR_DEVICE_REMOVED: re-insert or reconnect the token; work goes on by itself"
        );
        let HsmError::Call(failed) = call(RvError::VendorDefined(0x8000_0001), Function::Login) else {
            panic!("a call error");
        };
        assert_eq!(failed.function(), "C_Login");
        assert_eq!(failed.code_name().as_deref(), Some("CKR_VENDOR_DEFINED (0x80000001)"));
    }

    #[test]
    fn every_class_of_failure_has_its_remedy() {
        for (code, remedy) in [
            (RvError::SessionHandleInvalid, Remedy::NewSession),
            (RvError::OperationActive, Remedy::NewSession),
            (RvError::UserNotLoggedIn, Remedy::NewLogin),
            (RvError::ObjectHandleInvalid, Remedy::NewLogin),
            (RvError::GeneralError, Remedy::NewEpoch),
            (RvError::TokenNotPresent, Remedy::NewEpoch),
            (RvError::CryptokiNotInitialized, Remedy::NewEpoch),
            (RvError::PinIncorrect, Remedy::None),
            (RvError::MechanismInvalid, Remedy::None),
            (RvError::KeyFunctionNotPermitted, Remedy::None),
        ] {
            assert_eq!(call(code, Function::Sign).remedy(), remedy, "{code:?}");
        }
        assert_eq!(Remedy::NewSession.stronger().stronger().stronger(), Remedy::None);
    }
}
