//! How to log in to a token as its user.

use crate::pin::Pin;

/// How to log in to a token as its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserLogin {
    /// C_Login with this PIN.
    Pin(Pin),
    /// At the token: it has a pad, a reader or another way of its own to ask for the PIN.
    Pinpad,
    /// Not at all: the token shows its keys to whoever may use the module.
    None,
}

impl UserLogin {
    /// The PIN to send, if one is sent.
    pub(crate) fn pin(&self) -> Option<&Pin> {
        match self {
            Self::Pin(pin) => Some(pin),
            Self::Pinpad | Self::None => None,
        }
    }

    /// As the configuration names it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Pin(_) => "pin",
            Self::Pinpad => "pinpad",
            Self::None => "none",
        }
    }
}
