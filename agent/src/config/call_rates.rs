//! How often workloads may call: SPIRE's `experimental { ratelimit { } }`.

use ironroot_shell::settings::Section;

use super::{BoundedCall, CallRates};

/// Highest rate accepted, calls a second: beyond it there is no bound.
const MAX_RATE: i64 = 1_000_000;

/// Reads the block; `experimental` is the block around it. Without a key, or with 0, that call has no bound.
pub(super) fn read(experimental: &Section<'_>) -> CallRates {
    let block = experimental.block("ratelimit");
    let rate = |call: BoundedCall| block.integer(call.key(), 0..=MAX_RATE).and_then(|rate| u32::try_from(rate).ok());
    let rates = CallRates(BoundedCall::ALL.map(|call| rate(call).unwrap_or(0)));
    block.finish();
    rates
}
