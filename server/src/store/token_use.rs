//! What came of it when a token of another issuer was to be used up.

/// A used token is remembered for so long after its end, seconds: a server whose clock is behind by less than that would take it still when
/// one whose clock is ahead forgets it.
pub const REMEMBERED_AFTER_END: i64 = 600;

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
