//! Join tokens, as those who show them are told of them.

/// What a join token that somebody shows is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownToken {
    /// It lets one agent attest.
    Good,
    /// It is past its time.
    Expired,
    /// It was used already, or never made.
    Unknown,
}
