//! The key exchange of a link, as the end that is ours has it in its log.

use crate::deployment::{DEADLINE, expect_within};

/// The hybrid of X25519 and ML-KEM-768, as logs have it.
const HYBRID: &str = "key_exchange=Some(X25519MLKEM768)";

/// Waits until a line of `log` says `what`; each that does has the hybrid.
pub fn expect_hybrid(what: &str, log: impl Fn() -> String) {
    expect_within(DEADLINE, what, &log, || log().lines().any(|line| line.contains(what)));
    let log = log();
    let other: Vec<_> = log.lines().filter(|line| line.contains(what) && !line.contains(HYBRID)).collect();
    assert!(other.is_empty(), "agreed on otherwise:\n{}", other.join("\n"));
}
