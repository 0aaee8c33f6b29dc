//! What speaks against a chip.

use ironroot_attest::node::tpm2::ClockReading;

/// What a chip said that was proven, with a clock or counters older than those it had shown before; when and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// UNIX seconds.
    pub at_unix: i64,
    /// The address that it was proven at.
    pub address: String,
    /// The clock and the counters in that proof.
    pub clock: ClockReading,
}
