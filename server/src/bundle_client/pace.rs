//! When a bundle is fetched next. Pure: what is held, failures and chance in, a pause out.

use std::time::Duration;

use ironroot_api::bundle::Bundle;

/// Hints are followed within these. Source of the shortest: SPIRE.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Where the bundle says nothing. Source: SPIFFE Federation §4.1; SPIRE.
const UNSAID: Duration = Duration::from_secs(300);
/// A fetch that failed is tried again no sooner than this.
const SOONEST_RETRY: Duration = Duration::from_secs(15);
/// Failures in a row after which pauses no longer double.
const MAX_DOUBLINGS: u32 = 8;
/// What chance takes off a pause at the most: peers of one trust domain do not come together.
const JITTER: f64 = 0.1;

/// The pause until the next fetch: the bundle's own hint, or after `failures` in a row a quarter of it and then twice as long each time.
/// `unit` is chance, from 0 to 1.
//= FED-03 SPIFFE Federation 4.1: "Clients SHOULD poll at a frequency equal to the value of the bundle’s `spiffe_refresh_hint`, in seconds."
pub(super) fn pause(held: Option<&Bundle>, failures: u32, unit: f64) -> Duration {
    let interval = match held.map(Bundle::refresh_hint_seconds) {
        None => SHORTEST,
        Some(0) => UNSAID,
        Some(hint) => Duration::from_secs(hint).clamp(SHORTEST, LONGEST),
    };
    let pause = match failures {
        0 => interval,
        failures => {
            let first = (interval / 4).max(SOONEST_RETRY);
            first.saturating_mul(1 << (failures - 1).min(MAX_DOUBLINGS)).min(interval)
        }
    };
    pause.mul_f64(1.0 - JITTER * unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::types;

    use super::*;

    fn bundle(refresh_hint: i64) -> Bundle {
        let wire = types::Bundle { trust_domain: "other".into(), refresh_hint, ..Default::default() };
        Bundle::from_pb(&wire).expect("legal")
    }

    fn seconds(held: Option<&Bundle>, failures: u32, unit: f64) -> u64 {
        pause(held, failures, unit).as_secs()
    }

    //= FED-03
    #[test]
    fn a_bundle_is_fetched_as_often_as_it_says_within_bounds() {
        for (hint, pause) in [(0, 300), (1, 60), (60, 60), (600, 600), (i64::MAX, 24 * 3600)] {
            assert_eq!(seconds(Some(&bundle(hint)), 0, 0.0), pause, "hint {hint}");
        }
        assert_eq!(seconds(None, 0, 0.0), 60);
        assert_eq!(seconds(Some(&bundle(600)), 0, 1.0), 540, "chance takes a tenth off at the most");
    }

    #[test]
    fn after_failures_it_is_tried_sooner_and_then_no_more_often_than_before() {
        let held = bundle(600);
        let pauses: Vec<u64> = (1..6).map(|failures| seconds(Some(&held), failures, 0.0)).collect();
        assert_eq!(pauses, [150, 300, 600, 600, 600]);
        assert_eq!(seconds(None, 1, 0.0), 15);
        assert_eq!(seconds(Some(&held), u32::MAX, 0.0), 600);
    }
}
