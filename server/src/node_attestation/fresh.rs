//! What is used once.

use aws_lc_rs::rand;

/// 32 bytes from the CSPRNG: a nonce or a secret, used once.
pub(super) fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the kernel's random source does not fail once it has been seeded");
    bytes
}
