//! What may help after a token has failed.

use cryptoki::error::RvError;

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

impl From<RvError> for Remedy {
    fn from(code: RvError) -> Self {
        use RvError as R;
        match code {
            R::SessionHandleInvalid
            | R::SessionClosed
            | R::SessionCount
            | R::OperationActive
            | R::OperationNotInitialized
            // What only the maker knows: whatever helps, cheapest first.
            | R::VendorDefined(_)
            | R::UnknownErrorCode(_) => Self::NewSession,
            R::UserNotLoggedIn | R::KeyHandleInvalid | R::ObjectHandleInvalid => Self::NewLogin,
            R::GeneralError
            | R::DeviceError
            | R::DeviceRemoved
            | R::DeviceMemory
            | R::HostMemory
            | R::TokenNotPresent
            | R::TokenNotRecognized
            | R::SlotIdInvalid
            | R::CryptokiNotInitialized
            | R::FunctionFailed => Self::NewEpoch,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(Remedy::from(code), remedy, "{code:?}");
        }
        assert_eq!(Remedy::NewSession.stronger().stronger().stronger(), Remedy::None);
    }
}
