//! Damaged input for parsers: seeds that parse, mutated, and bytes out of nothing. For tests of the other crates only.
//!
//! ```text
//!  seeds (a corpus folder, and what a test makes) ─► Damage, several ─► the parser ─► no panic, no end without progress
//! ```
//! Properties of more than bytes are tried by [`mod@proptest`] with [`cases`], and of damaged bytes with [`damaged`].
//!
//! A panic is shrunk to the smallest damage that shows it and printed. An input that a parser does not finish with in
//! [`MAX_SECONDS_PER_INPUT`] is printed and ends the process: a loop without progress would otherwise never be told.

mod damage;
mod dice;
mod watchdog;

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

pub use dice::Dice;
pub use proptest;
pub use watchdog::MAX_SECONDS_PER_INPUT;

use damage::Damage;
use watchdog::Watchdog;

/// Sets how many seconds each target runs; [`DEFAULT_SECONDS`] without it.
pub const SECONDS_VARIABLE: &str = "IRONROOT_FUZZ_SECONDS";
/// Seconds each target runs in the gate.
pub const DEFAULT_SECONDS: u64 = 1;
/// Inputs between two looks at the clock.
const BATCH: u32 = 256;
/// Most changes made to one seed.
const MAX_DAMAGES: usize = 12;
/// Longest input made out of nothing, bytes.
const MAX_RANDOM_BYTES: usize = 512;

/// Multiplies how often each property is tried; 1 without it. `scripts/nightly` sets it.
pub const TIMES_VARIABLE: &str = "IRONROOT_PROPERTY_TIMES";

/// How often a property is tried: so many times in the gate, a multiple by night. What fails is shrunk, and its seed is kept in
/// `proptest-regressions/` beside the source, which belongs into the repository: it is tried first from then on.
///
/// A property may leave out inputs by `prop_assume`, but of a hundred one must do.
pub fn cases(in_the_gate: u32) -> Config {
    let cases = in_the_gate.saturating_mul(number(TIMES_VARIABLE).unwrap_or(1));
    Config { cases, max_global_rejects: cases.saturating_mul(100), ..Config::default() }
}

/// `honest` with one to four bytes replaced.
pub fn altered(honest: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..=4).prop_map(move |changes| {
        let mut bytes = honest.clone();
        changes.iter().for_each(|(at, byte)| bytes[at.index(honest.len())] = *byte);
        bytes
    })
}

/// Bytes that are one of `seeds` after a few changes, or made of nothing.
pub fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    inputs(seeds.len()).prop_map(move |input| input.bytes(&seeds))
}

/// One parser to be fed.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
}

impl Target {
    /// A target without seeds.
    pub fn new(name: &'static str) -> Self {
        Self { name, seeds: Vec::new() }
    }

    /// With one more input to start from.
    pub fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(bytes.into());
        self
    }

    /// With every file of a folder to start from: inputs that parse, and those that once did not end well.
    pub fn corpus(mut self, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        self.seeds.extend(paths.iter().map(|path| std::fs::read(path).expect("a file")));
        self
    }

    /// Feeds `parse` for as long as the environment says. Seeds come first, as they are.
    pub fn survives(self, parse: impl Fn(&[u8])) {
        let watchdog = Watchdog::start(self.name);
        let fed = |bytes: &[u8]| watchdog.watch(bytes, || parse(bytes));
        self.seeds.iter().for_each(|seed| fed(seed));
        let end = Instant::now() + Duration::from_secs(seconds());
        let config = Config { cases: BATCH, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
        let mut runner = TestRunner::new(config);
        while Instant::now() < end {
            let run = runner.run(&inputs(self.seeds.len()), |input| {
                fed(&input.bytes(&self.seeds));
                Ok(())
            });
            if let Err(proptest::test_runner::TestError::Fail(reason, input)) = run {
                let bytes = input.bytes(&self.seeds);
                panic!("{}: {reason}\ninput: b\"{}\"", self.name, bytes.escape_ascii());
            }
        }
    }
}

/// A seed and what is done to it, or bytes.
#[derive(Clone, Debug)]
enum Input {
    Damaged { seed: usize, other: usize, damages: Vec<Damage> },
    Random(Vec<u8>),
}

impl Input {
    fn bytes(&self, seeds: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Self::Damaged { seed, other, damages } => damage::damaged(&seeds[*seed], &seeds[*other], damages),
            Self::Random(bytes) => bytes.clone(),
        }
    }
}

fn inputs(seeds: usize) -> BoxedStrategy<Input> {
    let random = prop::collection::vec(any::<u8>(), 0..MAX_RANDOM_BYTES).prop_map(Input::Random);
    if seeds == 0 {
        return random.boxed();
    }
    let damages = prop::collection::vec(damage::any_damage(), 1..=MAX_DAMAGES);
    let damaged =
        (0..seeds, 0..seeds, damages).prop_map(|(seed, other, damages)| Input::Damaged { seed, other, damages });
    prop_oneof![7 => damaged, 1 => random].boxed()
}

fn seconds() -> u64 {
    number(SECONDS_VARIABLE).unwrap_or(DEFAULT_SECONDS)
}

fn number<N: std::str::FromStr>(variable: &str) -> Option<N> {
    std::env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_panic_is_found_and_its_input_is_told() {
        let target = Target::new("fragile").seed(*b"length:4,data");
        let found = catch_unwind(AssertUnwindSafe(|| {
            target.survives(|bytes| assert!(!bytes.contains(&b'\r'), "a parser that cannot stand CR"));
        }));
        let told = found.expect_err("it panics");
        let told = told.downcast_ref::<String>().expect("a message");
        assert!(told.starts_with("fragile: ") && told.contains("\\r"), "{told}");
    }

    #[test]
    fn a_parser_that_stands_everything_is_left_in_peace() {
        Target::new("sturdy").seed(*b"abc").survives(|bytes| drop(bytes.to_vec()));
    }
}
