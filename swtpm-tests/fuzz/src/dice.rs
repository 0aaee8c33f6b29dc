//! Random choices of a simulation, the same ones again for the same seed.

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// What a simulation draws from.
#[derive(Clone, Debug)]
pub struct Dice(TestRng);

impl Dice {
    /// For the life that `seed` names.
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::XorShift, &bytes))
    }

    /// One of `0..bound`, which must not be empty.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// One of `choices`, of which there must be one.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.random_range(0..choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again_and_another_something_else() {
        let drawn = |seed| {
            let mut dice = Dice::new(seed);
            std::array::from_fn::<u64, 32, _>(|_| dice.below(1_000))
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(drawn(3).iter().all(|number| *number < 1_000));
    }
}
