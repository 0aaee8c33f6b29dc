//! How often what a token has signed is verified before it leaves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of the SVIDs that may be sampled, one in this many has its signature verified, and each of as many at first.
///
/// Verifying costs as much CPU as SoftHSM needs to sign; on a server that only signs it would halve the rate. What it finds,
/// a token that signs wrongly, is found by sampling too; after the first such signature all are verified.
const SAMPLE: u64 = 16;

/// Whether the signature of an SVID is verified before it leaves. All else is always checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scrutiny {
    /// Always.
    Full,
    /// Sometimes, and always once the token has signed wrongly.
    Sampled,
}

/// What one key of the token has signed, and whether it is believed.
#[derive(Default)]
pub(super) struct Sampling {
    signed: AtomicU64,
    is_distrusted: AtomicBool,
}

impl Sampling {
    /// Whether the next signature is verified.
    pub(super) fn is_verified(&self, scrutiny: Scrutiny) -> bool {
        let number = self.signed.fetch_add(1, Ordering::Relaxed);
        scrutiny == Scrutiny::Full
            || number < SAMPLE
            || number.is_multiple_of(SAMPLE)
            || self.is_distrusted.load(Ordering::Relaxed)
    }

    /// The token has signed wrongly.
    pub(super) fn distrust(&self) {
        self.is_distrusted.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_verified_then_one_in_sixteen_and_all_once_the_token_has_signed_wrongly() {
        let sampling = Sampling::default();
        let verified = |count: usize| (0..count).filter(|_| sampling.is_verified(Scrutiny::Sampled)).count();
        assert_eq!((verified(16), verified(160)), (16, 10));
        sampling.distrust();
        assert_eq!(verified(40), 40);
        assert!(Sampling::default().is_verified(Scrutiny::Full));
    }
}
