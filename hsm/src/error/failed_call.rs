//! A PKCS#11 call that failed: which function, which return value, and what to do about it.

use std::fmt;

use cryptoki::context::Function;
use cryptoki::error::{Error as CryptokiError, RvError};

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

impl From<CryptokiError> for FailedCall {
    fn from(error: CryptokiError) -> Self {
        match error {
            CryptokiError::Pkcs11(code, function) => {
                Self { function: function_name(function), code: Some(code), detail: String::new() }
            }
            other => Self { function: "PKCS#11 module".to_owned(), code: None, detail: other.to_string() },
        }
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

    fn call(code: RvError, function: Function) -> FailedCall {
        FailedCall::from(CryptokiError::Pkcs11(code, function))
    }

    #[test]
    fn names_the_function_the_return_value_and_what_to_do() {
        let error = call(RvError::DeviceRemoved, Function::Sign);
        assert_eq!(
            error.to_string(),
            "C_Sign returned CKR_DEVICE_REMOVED: re-insert or reconnect the token; work goes on by itself"
        );
        let failed = call(RvError::VendorDefined(0x8000_0001), Function::Login);
        assert_eq!(failed.function(), "C_Login");
        assert_eq!(failed.code_name().as_deref(), Some("CKR_VENDOR_DEFINED (0x80000001)"));
    }
}
