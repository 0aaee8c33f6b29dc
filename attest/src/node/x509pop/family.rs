//! The two kinds of keys that the protocol knows.

/// What kind of key a challenge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RSASSA-PSS.
    Rsa,
    /// ECDSA.
    Ecdsa,
}
