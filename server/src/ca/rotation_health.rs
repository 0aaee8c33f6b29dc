//! Whether the next authority can be made, told while the one that signs still lives.

use ironroot_api::utc;

/// Failures in a row after which the server is not ready: one may be a token that is just being restarted.
const FAILURES: u32 = 3;

/// The missing key is told to health checks when the rotation is nearer than this, seconds.
const KEY_ALARM: i64 = 30 * 24 * 60 * 60;
/// It is told to the log again after this time, seconds.
const KEY_REMINDER: i64 = 24 * 60 * 60;

/// Steps of the rotation that failed in a row, and whether the next one lacks a key.
#[derive(Debug, Default)]
pub(super) struct RotationHealth {
    failures: u32,
    since_unix: i64,
    why: String,
    /// When a key is needed that nobody has made, UNIX seconds.
    key_needed_at: Option<i64>,
    /// When that was told last, UNIX seconds.
    key_told_at: Option<i64>,
}

impl RotationHealth {
    /// A step was done, or there was none to do.
    pub(super) fn worked(&mut self) {
        let Self { key_needed_at, key_told_at, .. } = *self;
        *self = Self { key_needed_at, key_told_at, ..Self::default() };
    }

    /// An administrator's key is needed at `needed_at`, UNIX seconds, and none is free; or that is not so. Returns what the log is to be
    /// told: at once, and each day again.
    pub(super) fn look_at_keys(&mut self, needed_at: Option<i64>, now_unix: i64) -> Option<String> {
        self.key_needed_at = needed_at;
        let Some(needed_at) = needed_at else {
            self.key_told_at = None;
            return None;
        };
        let is_told = self.key_told_at.is_some_and(|told| (told..told + KEY_REMINDER).contains(&now_unix));
        if is_told {
            return None;
        }
        self.key_told_at = Some(now_unix);
        Some(key_alarm(needed_at))
    }

    /// A step failed at `now_unix`. Returns how loudly to say so.
    pub(super) fn failed(&mut self, why: String, now_unix: i64) -> Loudness {
        if self.failures == 0 {
            self.since_unix = now_unix;
        }
        self.failures = self.failures.saturating_add(1);
        self.why = why;
        match self.failures {
            1 => Loudness::Once,
            n if n >= FAILURES && n.is_multiple_of(FAILURES) && (n / FAILURES).is_power_of_two() => Loudness::Critical,
            _ => Loudness::Silent,
        }
    }

    /// Why the CA that ends at `not_after_unix` may have no successor; none if nothing speaks against one.
    pub(super) fn trouble(&self, now_unix: i64, not_after_unix: i64) -> Option<String> {
        if self.failures < FAILURES {
            return self.key_needed_at.filter(|at| now_unix >= at - KEY_ALARM).map(key_alarm);
        }
        Some(format!(
            "the CA rotation has failed {} times since {} ({}); the CA that signs now ends at {}, and every identity with it \
             unless the next CA is there by then",
            self.failures,
            utc(self.since_unix),
            self.why,
            utc(not_after_unix)
        ))
    }
}

fn key_alarm(needed_at: i64) -> String {
    format!(
        "no key is free for the next authority, which is due at {}: have the HSM's administrator make P-256 keys that are sensitive, not \
         extractable and may sign, name them in key_labels or key_ids of KeyManager \"pkcs11\", and restart the server",
        utc(needed_at)
    )
}

/// How loudly a failure is told. The same failure comes every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// It is in the log already.
    Silent,
    /// It is new: one line at WARN.
    Once,
    /// Somebody must act: after 3 failures, 6, 12 and so on.
    Critical,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_keeps_failing_is_told_before_the_ca_ends_and_ever_less_often() {
        let mut health = RotationHealth::default();
        let told: Vec<Loudness> = (0..13).map(|n| health.failed("why".to_owned(), 1_800_000_000 + 2 * n)).collect();
        let critical: Vec<usize> = (1..=13).filter(|n| told[n - 1] == Loudness::Critical).collect();
        assert_eq!((told[0], critical), (Loudness::Once, vec![3, 6, 12]));
        let expected = "the CA rotation has failed 13 times since 2027-01-15T08:00:00Z (why); the CA that signs now \
                        ends at 2027-01-15T09:00:00Z, and every identity with it unless the next CA is there by then";
        assert_eq!(health.trouble(0, 1_800_003_600).as_deref(), Some(expected));
        health.worked();
        assert_eq!(health.trouble(0, 1_800_003_600), None);
        for _ in 0..FAILURES - 1 {
            health.failed("why".to_owned(), 0);
        }
        assert_eq!(health.trouble(0, 0), None, "one or two may be a token that is being restarted");
    }

    #[test]
    fn a_missing_key_is_told_at_once_daily_and_to_health_checks_when_it_is_needed_soon() {
        let (mut health, day) = (RotationHealth::default(), 24 * 60 * 60);
        let needed = Some(100 * day);
        let told = |health: &mut RotationHealth, now| health.look_at_keys(needed, now).is_some();
        let days: Vec<i64> = (0..48).filter(|hour| told(&mut health, hour * 3600)).collect();
        assert_eq!(days, [0, 24]);
        assert_eq!(health.trouble(70 * day - 1, 200 * day), None, "there is time");
        health.worked();
        let alarm = health.trouble(70 * day, 200 * day).unwrap();
        assert!(alarm.contains("due at 1970-04-11T00:00:00Z") && alarm.contains("key_labels"), "{alarm}");
        assert_eq!(health.look_at_keys(None, 71 * day), None);
        assert_eq!(health.trouble(71 * day, 200 * day), None);
        assert!(told(&mut health, 72 * day), "the next shortage is another one");
    }
}
