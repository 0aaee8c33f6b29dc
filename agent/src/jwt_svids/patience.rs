//! How long callers wait for a new JWT-SVID while something else can be served.

use std::time::Duration;

use thiserror::Error;

/// Shortest that the operator may ask for, and the end of what is too long. Source: SPIRE.
const LEAST: Duration = Duration::from_secs(5);
const TOO_LONG: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalPatience(Duration);

/// Not a patience that SPIRE's agent would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be at least 5s and below 30s")]
pub struct OutOfBounds;

impl Default for RenewalPatience {
    /// Two seconds: workloads wait for this call. Source: SPIRE 1.14.3, where a server that hung kept cached tokens from workloads.
    fn default() -> Self {
        Self(Duration::from_secs(2))
    }
}

impl RenewalPatience {
    /// What the operator asks for.
    pub fn try_new(patience: Duration) -> Result<Self, OutOfBounds> {
        if (LEAST..TOO_LONG).contains(&patience) { Ok(Self(patience)) } else { Err(OutOfBounds) }
    }

    /// How long somebody for whom a valid token is held waits for a newer one.
    pub fn of_held(self) -> Duration {
        self.0
    }

    /// How long a server may take while another has the same entry: longer, so that what is held of the first is served.
    pub fn of_standbys(self) -> Duration {
        self.0 + Duration::from_secs(1)
    }

    /// How long a token may take where other servers have some for the same workload: longer than a server takes that another stands in for.
    pub fn of_one_token(self) -> Duration {
        self.0 + Duration::from_secs(4)
    }

    /// How long a request waits, all in all, for tokens of servers that are known to be away.
    pub fn of_those_away(self) -> Duration {
        self.0 + Duration::from_secs(6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_longer_than_what_it_waits_for() {
        let asked = |seconds| RenewalPatience::try_new(Duration::from_secs(seconds));
        let bounds: Vec<bool> = [0, 4, 5, 29, 30].map(|seconds| asked(seconds).is_ok()).to_vec();
        assert_eq!(bounds, [false, false, true, true, false]);
        for patience in [RenewalPatience::default(), asked(29).expect("in bounds")] {
            let waits = [patience.of_held(), patience.of_standbys(), patience.of_one_token(), patience.of_those_away()];
            assert!(waits.is_sorted_by(|one, next| one < next), "{waits:?}");
        }
    }
}
