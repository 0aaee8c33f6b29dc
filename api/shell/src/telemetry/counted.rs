//! What rooms count with: atomics, from any thread, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

/// Codes that a gRPC call can end with, in the order of their numbers, and their names as Go writes them, which SPIRE shows.
/// Source: google.golang.org/grpc/codes.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

/// Upper bounds of the classes of a [`Histogram`], seconds: from a signature of a software token to a caller's patience.
const BOUNDS: [(f64, &str); 10] = [
    (0.001, "0.001"),
    (0.005, "0.005"),
    (0.01, "0.01"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.5, "0.5"),
    (1.0, "1"),
    (5.0, "5"),
    (10.0, "10"),
    (30.0, "30"),
];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one_more(&self) {
        self.add(1);
    }

    /// `number` more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something was done, and how long it took in all.
#[derive(Debug, Default)]
pub struct Elapsed {
    times: Counter,
    micros: Counter,
}

impl Elapsed {
    /// It was done once more, in that time.
    pub fn took(&self, time: Duration) {
        self.times.one_more();
        self.micros.add(time.as_micros().try_into().unwrap_or(u64::MAX));
    }

    /// How often.
    pub fn times(&self) -> u64 {
        self.times.count()
    }

    /// How long in all, milliseconds.
    pub fn milliseconds(&self) -> f64 {
        self.micros.count() as f64 / 1e3
    }
}

/// Calls of one method, by the code that they ended with: SPIRE's "call counter".
#[derive(Debug, Default)]
pub struct Calls([Elapsed; CODES.len()]);

impl Calls {
    /// A call ended with this code after that time.
    pub fn ended(&self, code: Code, time: Duration) {
        self.0[code as usize].took(time);
    }

    /// The same of what fails or does not, without more to say.
    pub fn done<T, E>(&self, result: &Result<T, E>, time: Duration) {
        self.ended(if result.is_ok() { Code::Ok } else { Code::Unknown }, time);
    }

    /// Those codes that calls ended with, by SPIRE's names.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, &Elapsed)> {
        CODES.iter().map(|(code, name)| (*name, &self.0[*code as usize])).filter(|(_, elapsed)| elapsed.times() > 0)
    }
}

/// How long something took, in classes.
#[derive(Debug, Default)]
pub struct Histogram {
    classes: [Counter; BOUNDS.len()],
    all: Elapsed,
}

impl Histogram {
    /// It was done once more, in that time.
    pub fn took(&self, time: Duration) {
        let class = BOUNDS.iter().position(|(bound, _)| time.as_secs_f64() <= *bound);
        if let Some(class) = class {
            self.classes[class].one_more();
        }
        self.all.took(time);
    }

    /// For each bound, as a label has it, how often it took no longer.
    pub(super) fn up_to(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut sum = 0;
        BOUNDS.iter().zip(&self.classes).map(move |((_, bound), class)| {
            sum += class.count();
            (*bound, sum)
        })
    }

    /// Of all of them.
    pub fn all(&self) -> &Elapsed {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_place_of_its_number() {
        for (number, (code, name)) in CODES.iter().enumerate() {
            assert_eq!(*code as usize, number, "{name}");
        }
    }

    #[test]
    fn classes_hold_what_took_no_longer() {
        let histogram = Histogram::default();
        for millis in [1, 1, 40, 60_000] {
            histogram.took(Duration::from_millis(millis));
        }
        let up_to: Vec<_> = histogram.up_to().collect();
        assert_eq!(up_to[..4], [("0.001", 2), ("0.005", 2), ("0.01", 2), ("0.05", 3)]);
        assert_eq!((up_to[BOUNDS.len() - 1], histogram.all().times()), (("30", 3), 4));
    }
}
