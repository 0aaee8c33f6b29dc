//! What came of it when a token of another issuer was to be used up.

/// A token is used once, at whichever server of the data store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUse {
    /// This was it.
    First,
    /// It was used before.
    Again,
    /// As many are remembered as there is room for, and none of them has ended.
    NoRoom,
}
