//! The plan without a token: authorities whose certificate is a text, and what the performer would write.

use ironroot_api::TrustDomain;
use ironroot_hsm::KeyName;

use super::{Pace, Step, plan as plan_but_for};
use crate::ca::journal::{self, Authority, KeyRecord, Place, SlotName, Slots, Verdict};
use crate::ca::purpose::Purpose;
use crate::ca::server_name::ServerName;
use crate::clock::{Moment, Trust};

pub(super) const DAY: i64 = 24 * 60 * 60;
pub(super) const START: i64 = 1_800_000_000;

/// Authorities whose certificate is a text.
pub(super) type Journal = journal::Journal<String>;

pub(super) const A: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::A };
pub(super) const B: Place = Place { purpose: Purpose::X509Ca, slot: SlotName::B };
pub(super) const ROOT_A: Place = Place { purpose: Purpose::Root, slot: SlotName::A };

/// What to do when nothing has failed.
pub(super) fn plan(moment: Moment, journal: &Journal, paces: &[Pace]) -> Step {
    plan_but_for(moment, journal, paces, &[])
}

pub(super) fn founding() -> Journal {
    Journal::new(&TrustDomain::new("example.org").expect("a legal name"), &ServerName::default())
}

/// Each CA signs itself.
pub(super) const SELF_SIGNED: bool = false;
/// A root signs them.
pub(super) const ROOTED: bool = true;

pub(super) fn paces(is_rooted: bool, ttl: i64) -> Vec<Pace> {
    let root = is_rooted.then(|| Pace::of_the_root(ttl));
    root.into_iter().chain([Pace::of_signers(Purpose::X509Ca)]).collect()
}

/// The same where JWT-SVIDs are signed too.
pub(super) fn with_jwt(mut paces: Vec<Pace>) -> Vec<Pace> {
    paces.push(Pace::of_signers(Purpose::Jwt));
    paces
}

pub(super) fn cas(journal: &Journal) -> &Slots<String> {
    journal.slots(Purpose::X509Ca)
}

pub(super) fn key(place: Place) -> KeyRecord {
    KeyRecord::made(KeyName::labelled(&place.to_string()).expect("a place is called something"))
}

pub(super) fn intend(journal: Journal, place: Place) -> Journal {
    journal.intend(place, key(place))
}

/// A server that was on all the time, with a clock that is right.
pub(super) fn right(now_unix: i64) -> Moment {
    Moment { now_unix, counted: now_unix - START, trust: Trust::Agreed }
}

/// A root lives as long as so many CAs.
pub(super) const CAS_PER_ROOT: i64 = 40;

/// What the performer would write.
pub(super) fn perform(journal: Journal, step: Step, moment: Moment, ttl: i64) -> Journal {
    let Moment { now_unix, counted, .. } = moment;
    let root = journal.slots(Purpose::Root).signer(now_unix).map(|(_, root)| (root.key, root.not_after));
    let authority = |place: Place, key_number| {
        let (root, life) = match place.purpose {
            Purpose::Root => (None, CAS_PER_ROOT * ttl),
            Purpose::X509Ca => (root, ttl),
            Purpose::Jwt | Purpose::Wit => (None, ttl),
        };
        Authority {
            credential: format!("{place}, key {key_number}, at {now_unix}"),
            issued_at: now_unix,
            not_after: root.map_or(i64::MAX, |(_, end)| end).min(now_unix + life),
            issued_counted: counted,
            key: key_number,
            in_token: key(place),
            root: root.map(|(key, _)| key),
            upstream: None,
            verdict: Verdict::None,
        }
    };
    match step {
        Step::Wait { .. } => journal,
        Step::Intend(place) => intend(journal, place),
        Step::Prepare(place) => {
            let number = journal.next_key();
            journal.prepare(place, authority(place, number))
        }
        Step::Renew(place) => {
            let number = journal.slot(place).authority().expect("there is a key").key;
            journal.prepare(place, authority(place, number))
        }
        Step::Activate(place) => journal.activate(place),
        Step::Prune(purpose) => journal.prune(purpose, moment),
        Step::Destroy(place) => journal.destroyed(place),
    }
}

/// Performs until there is nothing to do; returns the steps and when to ask again.
pub(super) fn settle_at(journal: Journal, moment: Moment, ttl: i64) -> (Journal, Vec<Step>, i64) {
    settle_in(SELF_SIGNED, journal, moment, ttl)
}

pub(super) fn settle_in(is_rooted: bool, mut journal: Journal, moment: Moment, ttl: i64) -> (Journal, Vec<Step>, i64) {
    let mut steps = Vec::new();
    for _ in 0..10 {
        match plan(moment, &journal, &paces(is_rooted, ttl)) {
            Step::Wait { until_unix } => return (journal, steps, until_unix),
            step => {
                journal = perform(journal, step, moment, ttl);
                steps.push(step);
            }
        }
    }
    panic!("does not settle: {steps:?}");
}

pub(super) fn settle(journal: Journal, now: i64, ttl: i64) -> (Journal, Vec<Step>, i64) {
    settle_at(journal, right(now), ttl)
}
