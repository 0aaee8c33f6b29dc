//! Whether the next authority can be made, told while the one that signs still lives.

use ironroot_api::utc;

use super::purpose::Purpose;
use super::rotation_failures::{Attempt, Failures};

/// Failures in a row after which the server is not ready: one may be a token that is just being restarted.
const FAILURES: u32 = 3;

/// Purposes of keys that sign tokens.
const TOKENS: [Purpose; 2] = [Purpose::Jwt, Purpose::Wit];

/// The missing key is told to health checks when the rotation is nearer than this, seconds.
const KEY_ALARM: i64 = 30 * 24 * 60 * 60;
/// An awaited root is told to health checks when the CA ends within this time, seconds.
const ROOT_ALARM: i64 = 30 * 24 * 60 * 60;
/// Either is told to the log again after this time, seconds.
const KEY_REMINDER: i64 = 24 * 60 * 60;

/// What has failed in each of the last rounds of the rotation, and whether the next step lacks a key.
#[derive(Debug, Default)]
pub(super) struct RotationHealth {
    failing: Vec<Failing>,
    /// Why, of the last round: for the keys of which tokens alone, or for the CA and its root.
    why: Vec<(Option<Purpose>, String)>,
    /// When a key is needed that nobody has made, UNIX seconds.
    key_needed_at: Option<i64>,
    /// When that was told last, UNIX seconds.
    key_told_at: Option<i64>,
    /// What a root is awaited for, and when the CA ends that signs meanwhile, UNIX seconds.
    root_awaited: Option<(String, i64)>,
    /// When that was told last, UNIX seconds.
    root_told_at: Option<i64>,
}

/// One thing that fails again and again: what begins to fail beside it is counted by itself.
#[derive(Debug)]
struct Failing {
    attempt: Attempt,
    times: u32,
    since_unix: i64,
}

impl RotationHealth {
    /// All that was due was done, or there was nothing to do.
    pub(super) fn worked(&mut self) {
        (self.failing, self.why) = Default::default();
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

    /// A root is awaited, for this, and the CA that signs meanwhile ends then, UNIX seconds; or none is. Returns what the log is to be told:
    /// at once, and each day again.
    pub(super) fn look_at_root(&mut self, awaited: Option<(String, i64)>, now_unix: i64) -> Option<RootWanted> {
        self.root_awaited = awaited;
        let Some((why, ends)) = &self.root_awaited else {
            self.root_told_at = None;
            return None;
        };
        let is_told = self.root_told_at.is_some_and(|told| (told..told + KEY_REMINDER).contains(&now_unix));
        if is_told {
            return None;
        }
        self.root_told_at = Some(now_unix);
        let is_urgent = now_unix >= ends - ROOT_ALARM;
        Some(RootWanted { words: root_alarm(why, *ends, now_unix), is_urgent })
    }

    /// A round ended with these failures at `now_unix`. Returns how loudly to say so.
    pub(super) fn failed(&mut self, failures: &Failures, now_unix: i64) -> Loudness {
        let before = std::mem::take(&mut self.failing);
        let again = |attempt| {
            let known = before.iter().find(|failing| failing.attempt == attempt);
            let (times, since_unix) = known.map_or((0, now_unix), |known| (known.times, known.since_unix));
            Failing { attempt, times: times.saturating_add(1), since_unix }
        };
        self.failing = failures.attempts().map(again).collect();
        let concerned = TOKENS.into_iter().map(Some).chain([None]);
        self.why = concerned.map(|tokens| (tokens, failures.reasons(tokens))).collect();
        self.failing.iter().map(Failing::loudness).max().unwrap_or(Loudness::Silent)
    }

    /// Why the CA that ends at `not_after_unix` may have no successor; none if nothing speaks against one.
    pub(super) fn trouble(&self, now_unix: i64, not_after_unix: i64) -> Option<String> {
        let shortage = self.key_needed_at.filter(|at| now_unix >= at - KEY_ALARM).map(key_alarm);
        let root = self.root_awaited.as_ref().filter(|(_, ends)| now_unix >= ends - ROOT_ALARM);
        let root = root.map(|(why, ends)| root_alarm(why, *ends, now_unix));
        let of_the_ca = self.lasting_failure(not_after_unix);
        let reasons: Vec<_> =
            of_the_ca.into_iter().chain(self.lasting_failures_of_tokens()).chain(shortage).chain(root).collect();
        if reasons.is_empty() { None } else { Some(reasons.join("; ")) }
    }

    fn lasting_failure(&self, not_after_unix: i64) -> Option<String> {
        let (longest, why) = self.longest(None)?;
        Some(format!(
            "the CA rotation has failed {} times since {} ({}); the CA that signs now ends at {}, and every identity with it \
             unless the next CA is there by then",
            longest.times,
            utc(longest.since_unix),
            why,
            utc(not_after_unix)
        ))
    }

    fn lasting_failures_of_tokens(&self) -> impl Iterator<Item = String> {
        TOKENS.into_iter().filter_map(move |tokens| {
            let (Failing { times, since_unix, .. }, why) = self.longest(Some(tokens))?;
            let (since, (tokens, leaves_out)) = (utc(*since_unix), in_words(tokens));
            Some(format!(
                "the rotation of the keys of {tokens}-SVIDs has failed {times} times since {since} ({why}); all other SVIDs go on, and \
                 `{leaves_out}` leaves these out"
            ))
        })
    }

    /// What has failed most often, if that is often enough to be told, and why.
    fn longest(&self, tokens: Option<Purpose>) -> Option<(&Failing, &str)> {
        let failing = self.failing.iter().filter(|failing| failing.attempt.tokens() == tokens);
        let longest = failing.max_by_key(|failing| failing.times).filter(|longest| longest.times >= FAILURES)?;
        let why = self.why.iter().find(|(concerned, _)| *concerned == tokens);
        Some((longest, why.map_or("", |(_, why)| why.as_str())))
    }
}

/// What the tokens are called whose keys have this purpose, and what of the configuration leaves them out.
fn in_words(tokens: Purpose) -> (&'static str, &'static str) {
    match tokens {
        Purpose::Wit => ("WIT", "enable_wit_svids = false"),
        Purpose::Jwt | Purpose::X509Ca | Purpose::Root => ("JWT", "disable_jwt_svids = true"),
    }
}

impl Failing {
    fn loudness(&self) -> Loudness {
        match self.times {
            1 => Loudness::Once,
            n if n >= FAILURES && n.is_multiple_of(FAILURES) && (n / FAILURES).is_power_of_two() => Loudness::Critical,
            _ => Loudness::Silent,
        }
    }
}

/// That a root is awaited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RootWanted {
    /// For the log.
    pub(super) words: String,
    /// Somebody must act soon.
    pub(super) is_urgent: bool,
}

fn root_alarm(why: &str, ends: i64, now_unix: i64) -> String {
    const DAY: i64 = 24 * 60 * 60;
    let days = ends.saturating_sub(now_unix).max(0) / DAY;
    format!("within {days} days, until {}, the root is needed: {why}", utc(ends))
}

fn key_alarm(needed_at: i64) -> String {
    format!(
        "no key is free for the next authority, which is due at {}: have the HSM's administrator make P-256 keys that are sensitive, not \
         extractable and may sign, name them in key_labels or key_ids of KeyManager \"pkcs11\", and restart the server",
        utc(needed_at)
    )
}

/// How loudly failures are told, from the least to the most. The same ones come every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loudness {
    /// It is in the log already.
    Silent,
    /// One of them is new: one line at WARN, since the CA that is there goes on.
    Once,
    /// Somebody must act, at ERROR: after 3 failures, 6, 12 and so on.
    Critical,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::CaError;
    use crate::ca::rotation::Step;

    const CA: Attempt = Attempt::Do(Step::Prune(Purpose::X509Ca));
    const ROOT: Attempt = Attempt::Do(Step::Prune(Purpose::Root));

    fn of_the_ca() -> Failures {
        Failures::of(CA, CaError::NothingSigns)
    }

    fn of_the_root() -> Failures {
        Failures::of(ROOT, CaError::Interrupted)
    }

    #[test]
    fn a_rotation_that_keeps_failing_is_told_before_the_ca_ends_and_ever_less_often() {
        let mut health = RotationHealth::default();
        let told: Vec<Loudness> = (0..13).map(|n| health.failed(&of_the_ca(), 1_800_000_000 + 2 * n)).collect();
        let critical: Vec<usize> = (1..=13).filter(|n| told[n - 1] == Loudness::Critical).collect();
        assert_eq!((told[0], critical), (Loudness::Once, vec![3, 6, 12]));
        let expected = "the CA rotation has failed 13 times since 2027-01-15T08:00:00Z (no CA key is at hand; see the errors before \
                        this one); the CA that signs now ends at 2027-01-15T09:00:00Z, and every identity with it unless the next CA \
                        is there by then";
        assert_eq!(health.trouble(0, 1_800_003_600).as_deref(), Some(expected));
        health.worked();
        assert_eq!(health.trouble(0, 1_800_003_600), None);
        for _ in 0..FAILURES - 1 {
            health.failed(&of_the_ca(), 0);
        }
        assert_eq!(health.trouble(0, 0), None, "one or two may be a token that is being restarted");
    }

    #[test]
    fn what_begins_to_fail_beside_what_failed_before_is_told_at_once_and_neither_hides_the_other() {
        let mut health = RotationHealth::default();
        let told: Vec<Loudness> = (0..4).map(|now| health.failed(&of_the_root(), now)).collect();
        assert_eq!(told[2..], [Loudness::Critical, Loudness::Silent]);
        let both = || {
            let mut both = of_the_root();
            both.note(CA, Err::<(), _>(CaError::NothingSigns));
            both
        };
        assert_eq!(health.failed(&both(), 4), Loudness::Once, "it is new");
        let trouble = health.trouble(4, 100).expect("the root fails for long");
        for words in ["failed 5 times since 1970-01-01T00:00:00Z", "task ended early; no CA key is at hand"] {
            assert!(trouble.contains(words), "{words:?} is not in: {trouble}");
        }
        assert_eq!([5, 6].map(|now| health.failed(&both(), now)), [Loudness::Critical, Loudness::Critical]);
        // The root is there again: what is left is counted from its own beginning.
        health.failed(&of_the_ca(), 7);
        let trouble = health.trouble(7, 100).expect("the CA fails for long");
        assert!(trouble.contains("failed 4 times since 1970-01-01T00:00:04Z (no CA key"), "{trouble}");
    }

    #[test]
    fn what_keeps_only_jwt_svids_from_their_next_key_is_told_as_that_and_beside_what_the_ca_lacks() {
        const JWT: Attempt = Attempt::LookForTokenKey(Purpose::Jwt);
        let mut health = RotationHealth::default();
        for now in 0..3 {
            health.failed(&Failures::of(JWT, CaError::Interrupted), now);
        }
        let alone = health.trouble(3, 100).expect("for long");
        assert!(alone.starts_with("the rotation of the keys of JWT-SVIDs has failed 3 times since 1970"), "{alone}");
        assert!(alone.contains("all other SVIDs go on") && alone.contains("`disable_jwt_svids = true`"), "{alone}");
        assert!(!alone.contains("the CA that signs now ends"), "{alone}");
        for now in 3..6 {
            let mut both = of_the_ca();
            both.note(JWT, Err::<(), _>(CaError::Interrupted));
            health.failed(&both, now);
        }
        let both = health.trouble(6, 100).expect("for long");
        assert!(both.contains("the CA rotation has failed 3 times since 1970-01-01T00:00:03Z (no CA key"), "{both}");
        assert!(
            both.contains("of JWT-SVIDs has failed 6 times since 1970-01-01T00:00:00Z (a signing task ended early)"),
            "{both}"
        );
    }

    #[test]
    fn keys_of_wit_svids_are_told_as_theirs_alone_and_beside_those_of_jwt_svids() {
        const JWT: Attempt = Attempt::LookForTokenKey(Purpose::Jwt);
        const WIT: Attempt = Attempt::LookForTokenKey(Purpose::Wit);
        let mut health = RotationHealth::default();
        for now in 0..3 {
            health.failed(&Failures::of(WIT, CaError::Interrupted), now);
        }
        let alone = health.trouble(3, 100).expect("for long");
        assert!(alone.starts_with("the rotation of the keys of WIT-SVIDs has failed 3 times since 1970"), "{alone}");
        assert!(alone.contains("`enable_wit_svids = false`") && !alone.contains("JWT"), "{alone}");
        for now in 3..6 {
            let mut both = Failures::of(WIT, CaError::Interrupted);
            both.note(JWT, Err::<(), _>(CaError::NothingSigns));
            health.failed(&both, now);
        }
        let both = health.trouble(6, 100).expect("for long");
        assert!(both.contains("of WIT-SVIDs has failed 6 times since 1970-01-01T00:00:00Z (a signing task"), "{both}");
        assert!(both.contains("of JWT-SVIDs has failed 3 times since 1970-01-01T00:00:03Z (no CA key"), "{both}");
    }

    #[test]
    fn a_missing_key_is_told_beside_what_fails() {
        let mut health = RotationHealth::default();
        health.look_at_keys(Some(100), 0);
        for now in 0..3 {
            health.failed(&of_the_root(), now);
        }
        let trouble = health.trouble(3, 100).expect("both");
        assert!(trouble.contains("a signing task ended early") && trouble.contains("no key is free"), "{trouble}");
    }

    #[test]
    fn an_awaited_root_is_told_in_days_at_once_daily_and_to_health_checks_in_the_last_month() {
        let (mut health, day) = (RotationHealth::default(), 24 * 60 * 60);
        let awaited = || Some(("the request is here".to_owned(), 100 * day));
        let told: Vec<_> = (0..48)
            .filter_map(|hour| health.look_at_root(awaited(), hour * 3600).map(|wanted| (hour, wanted)))
            .collect();
        assert_eq!(
            told.iter().map(|(hour, wanted)| (*hour, wanted.is_urgent)).collect::<Vec<_>>(),
            [(0, false), (24, false)]
        );
        assert!(
            told[0].1.words.starts_with("within 100 days, until 1970-04-11T00:00:00Z, the root is needed: the request")
        );
        assert!(told[1].1.words.starts_with("within 99 days"), "{:?}", told[1]);
        assert_eq!(health.trouble(69 * day, 100 * day), None, "there is time");
        let alarm = health.trouble(71 * day, 100 * day).unwrap();
        assert!(alarm.contains("within 29 days") && alarm.contains("the request is here"), "{alarm}");
        assert!(health.look_at_root(awaited(), 71 * day).unwrap().is_urgent);
        assert_eq!(health.look_at_root(None, 72 * day), None);
        assert_eq!(health.trouble(72 * day, 100 * day), None);
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
