//! How often workloads that are told apart by nothing may call: SPIRE's `experimental { ratelimit { } }`.
//!
//! Beside what one user may do ([`Limits`](super::Limits)), which is always counted: the operator sets these where workloads of one user, or
//! of many containers, are to leave room to each other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ironroot_attest::SelectorSet;
use ironroot_shell::token_bucket::{Rate, TokenBucket};

/// Sets of selectors that are remembered for one call: twice as many are held at the most, those that were used last.
const MAX_CALLERS: usize = 2048;

/// A call whose rate can be bounded. Of a stream its beginning counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundedCall {
    /// `FetchX509SVID`.
    FetchX509Svid,
    /// `FetchJWTSVID`.
    FetchJwtSvid,
    /// `FetchX509Bundles`.
    FetchX509Bundles,
    /// `FetchJWTBundles`.
    FetchJwtBundles,
    /// Envoy's `StreamSecrets`.
    StreamSecrets,
    /// Envoy's `FetchSecrets`.
    FetchSecrets,
}

impl BoundedCall {
    /// Each.
    pub const ALL: [Self; 6] = [
        Self::FetchX509Svid,
        Self::FetchJwtSvid,
        Self::FetchX509Bundles,
        Self::FetchJwtBundles,
        Self::StreamSecrets,
        Self::FetchSecrets,
    ];

    /// The key of its rate in the file.
    pub fn key(self) -> &'static str {
        match self {
            Self::FetchX509Svid => "fetch_x509_svid",
            Self::FetchJwtSvid => "fetch_jwt_svid",
            Self::FetchX509Bundles => "fetch_x509_bundles",
            Self::FetchJwtBundles => "fetch_jwt_bundles",
            Self::StreamSecrets => "stream_secrets",
            Self::FetchSecrets => "fetch_secrets",
        }
    }

    /// The method's path.
    pub fn path(self) -> &'static str {
        match self {
            Self::FetchX509Svid => "/SpiffeWorkloadAPI/FetchX509SVID",
            Self::FetchJwtSvid => "/SpiffeWorkloadAPI/FetchJWTSVID",
            Self::FetchX509Bundles => "/SpiffeWorkloadAPI/FetchX509Bundles",
            Self::FetchJwtBundles => "/SpiffeWorkloadAPI/FetchJWTBundles",
            Self::StreamSecrets => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            Self::FetchSecrets => "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
        }
    }
}

/// Calls a second of one set of selectors, in the order of [`BoundedCall::ALL`]; as many at once. 0: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallRates(pub [u32; BoundedCall::ALL.len()]);

impl CallRates {
    /// Those that are bounded, with their rates.
    pub fn bounded(self) -> impl Iterator<Item = (BoundedCall, u32)> {
        BoundedCall::ALL.into_iter().zip(self.0).filter(|(_, rate)| *rate > 0)
    }
}

/// Who has called how often.
#[derive(Debug)]
pub(super) struct CallBounds {
    rates: CallRates,
    /// Sets are told apart by a hash that nobody outside can foretell.
    hasher: RandomState,
    callers: Mutex<[Callers; BoundedCall::ALL.len()]>,
}

/// Who was forgotten begins with a full bucket: what one user may do in all is bounded elsewhere.
#[derive(Debug, Default)]
struct Callers {
    current: HashMap<u64, TokenBucket>,
    previous: HashMap<u64, TokenBucket>,
}

impl CallBounds {
    pub fn new(rates: CallRates) -> Self {
        Self { rates, hasher: RandomState::new(), callers: Mutex::default() }
    }

    /// Whether whoever has these selectors may call once more now.
    pub fn admit(&self, call: BoundedCall, selectors: &SelectorSet, now: Instant) -> bool {
        let rate = self.rates.0[call as usize];
        if rate == 0 {
            return true;
        }
        let caller = self.hasher.hash_one(selectors);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers[call as usize].bucket(caller, now).take_one(Rate::per_second(rate, rate), now)
    }
}

impl Callers {
    fn bucket(&mut self, caller: u64, now: Instant) -> &mut TokenBucket {
        if !self.current.contains_key(&caller) && self.current.len() >= MAX_CALLERS {
            self.previous = mem::take(&mut self.current);
        }
        let Self { current, previous } = self;
        current.entry(caller).or_insert_with(|| previous.remove(&caller).unwrap_or_else(|| TokenBucket::full(now)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn selectors(texts: &[&str]) -> SelectorSet {
        texts.iter().map(|text| text.parse().expect("legal")).collect()
    }

    fn admitted(bounds: &CallBounds, call: BoundedCall, who: &SelectorSet, now: Instant) -> usize {
        (0..10).filter(|_| bounds.admit(call, who, now)).count()
    }

    #[test]
    fn each_set_of_selectors_has_a_rate_of_its_own_for_each_call() {
        let bounds = CallBounds::new(CallRates([3, 0, 1, 0, 0, 0]));
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let (one, same) = (selectors(&["unix:uid:1", "unix:gid:1"]), selectors(&["unix:gid:1", "unix:uid:1"]));
        let (other, nobody) = (selectors(&["unix:uid:1"]), selectors(&[]));
        assert_eq!(admitted(&bounds, BoundedCall::FetchX509Svid, &one, now), 3);
        assert_eq!(admitted(&bounds, BoundedCall::FetchX509Svid, &same, now), 0);
        assert_eq!(admitted(&bounds, BoundedCall::FetchX509Svid, &other, now), 3);
        assert_eq!(admitted(&bounds, BoundedCall::FetchX509Svid, &nobody, now), 3);
        assert_eq!(admitted(&bounds, BoundedCall::FetchX509Bundles, &one, now), 1);
        assert_eq!(admitted(&bounds, BoundedCall::FetchJwtSvid, &one, now), 10, "no bound");
        assert_eq!(admitted(&bounds, BoundedCall::FetchX509Svid, &one, now + second), 3);
    }

    #[test]
    fn however_many_callers_there_are_those_that_call_are_remembered_and_the_others_take_no_room() {
        let bounds = CallBounds::new(CallRates([1, 0, 0, 0, 0, 0]));
        let (now, constant) = (Instant::now(), selectors(&["unix:uid:0"]));
        assert!(bounds.admit(BoundedCall::FetchX509Svid, &constant, now));
        for n in 1..=4 * MAX_CALLERS {
            assert!(bounds.admit(BoundedCall::FetchX509Svid, &selectors(&[&format!("unix:uid:{n}")]), now));
            assert!(!bounds.admit(BoundedCall::FetchX509Svid, &constant, now), "after {n}");
        }
        let callers = bounds.callers.lock().expect("unpoisoned");
        assert!(callers[0].current.len() <= MAX_CALLERS && callers[0].previous.len() <= MAX_CALLERS);
    }
}
