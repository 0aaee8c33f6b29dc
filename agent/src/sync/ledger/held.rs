//! One entry, what is held for it, and when that is to be replaced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::schedule::{brought_forward, out_of_time_in, overdue, overdue_in, renewal_in};
use crate::identities::Identity;
use crate::server_answers::{EntryTerms, WorkloadSvid};
use crate::trusted_time::Moment;

/// One part in this many of an SVID's life is its last: the server had a while since its half.
const LAST_PART: i64 = 3;
/// Nothing is signed while a server is tried that drops what it is sent: two dials, or a call. What ends sooner is replaced before.
const LONGEST_TURN_SECONDS: i64 = 45;

/// An entry and what is held for it.
#[derive(Clone, Debug)]
pub struct Held {
    terms: Arc<EntryTerms>,
    /// The terms and the SVID, as they are served, once there is one.
    identity: Option<Arc<Identity>>,
    due: Due,
    /// When it was last asked for in this run.
    asked: Option<Instant>,
}

/// When to ask for the next SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// When a workload asks for it.
    WhenAsked,
    /// By the monotonic clock, and `overdue` by the agent's own clock, with a margin: the monotonic one stands still while a
    /// device sleeps. Sooner, if others are signed anyway.
    Scheduled { at: Instant, overdue: i64 },
    /// There was none, or none that is taken: not before this.
    Postponed { until: Instant },
}

impl Held {
    /// An entry that came just now: its SVID is due at once, or when a workload asks for it.
    pub(super) fn new(terms: EntryTerms, now: Instant) -> Self {
        let due = if terms.on_demand || terms.asks_for_hardware_key() { Due::WhenAsked } else { Due::at_once(now) };
        Self { terms: Arc::new(terms), identity: None, due, asked: None }
    }

    /// From the cache: the SVID is replaced when half of its own lifetime is over, which may be at once. `unit`: the jitter, 0 to 1.
    pub(super) fn restored(
        terms: EntryTerms,
        svid: Option<WorkloadSvid>,
        now: Instant,
        moment: &Moment,
        unit: f64,
    ) -> Self {
        let mut held = Self::new(terms, now);
        if let Some(svid) = svid {
            let length = svid.shortest(moment).span().length();
            held.take(Arc::new(svid), length, now, moment, unit);
        }
        held
    }

    /// Who gets which ID.
    pub fn terms(&self) -> &EntryTerms {
        &self.terms
    }

    /// The SVID, once there is one.
    pub fn svid(&self) -> Option<&WorkloadSvid> {
        self.identity.as_ref().map(|identity| &**identity.svid())
    }

    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Its terms, if there is no SVID yet.
    pub(super) fn unsigned(&self) -> Option<&Arc<EntryTerms>> {
        self.identity.is_none().then_some(&self.terms)
    }

    /// The same version of the entry, of which more is known now: its SVID stays what it is.
    pub(super) fn complete(&mut self, terms: EntryTerms) {
        self.terms = Arc::new(terms);
        let svid = self.identity.take().map(|identity| identity.svid().clone());
        self.identity = svid.and_then(|svid| Identity::try_new(self.terms.clone(), svid).ok()).map(Arc::new);
    }

    /// Other terms of the same entry: its SVID is asked for again, since its lifetime or DNS names may be others. The old one
    /// goes on being served meanwhile, unless it is for another ID.
    pub(super) fn change(&mut self, terms: EntryTerms, now: Instant) {
        let was_asked_for = self.due != Due::WhenAsked;
        let svid = self.identity.take().map(|identity| identity.svid().clone());
        let (asked, is_ours) = (self.asked, !terms.asks_for_hardware_key());
        *self = Self { asked, ..Self::new(terms, now) };
        self.identity = svid.and_then(|svid| Identity::try_new(self.terms.clone(), svid).ok()).map(Arc::new);
        if was_asked_for && is_ours {
            self.due = Due::at_once(now);
        }
    }

    /// A workload asks for it.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.due == Due::WhenAsked && !self.terms.asks_for_hardware_key() {
            self.due = Due::at_once(now);
        }
    }

    /// Keeps an SVID for the entry's ID; `seconds` of its life count for the schedule, `unit` is its jitter, 0 to 1.
    pub(super) fn take(&mut self, svid: Arc<WorkloadSvid>, seconds: i64, now: Instant, moment: &Moment, unit: f64) {
        let shortest = svid.shortest(moment);
        let at = now + renewal_in(moment.remaining(shortest), seconds, unit);
        let overdue = overdue(moment.end(shortest), seconds);
        let Ok(identity) = Identity::try_new(self.terms.clone(), svid) else { return };
        (self.identity, self.due) = (Some(Arc::new(identity)), Due::Scheduled { at, overdue });
    }

    pub(super) fn asked_for(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    pub(super) fn postpone(&mut self, until: Instant) {
        self.due = Due::Postponed { until };
    }

    /// It is to be replaced now: its authority is tainted or gone.
    pub(super) fn replace_now(&mut self, now: Instant) {
        self.due = Due::at_once(now);
    }

    /// What is held is worth nothing any more: its authority was revoked.
    pub(super) fn withdraw(&mut self, now: Instant) {
        self.identity = None;
        self.replace_now(now);
    }

    /// When it is due by the monotonic clock, if it ever is.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.due {
            Due::WhenAsked => None,
            Due::Scheduled { at, .. } | Due::Postponed { until: at } => Some(at),
        }
    }

    /// How long until it is due by the agent's own clock, or by the estimate of now.
    pub(super) fn overdue_in(&self, now: Instant, moment: &Moment) -> Option<Duration> {
        let by_own_clock = match self.due {
            Due::Scheduled { overdue, .. } => overdue_in(overdue, moment),
            Due::WhenAsked | Due::Postponed { .. } => None,
        };
        let out_of_time = self.svid().map(|svid| out_of_time_in(svid.lifetime().span(), self.asked, now, moment));
        by_own_clock.into_iter().chain(out_of_time).min()
    }

    /// Whether it is to be asked for now that something is signed: it is missing, due before `next`, or not valid now as far as
    /// this device knows.
    pub(super) fn is_due(&self, now: Instant, next: Duration, moment: &Moment) -> bool {
        let by_schedule = match self.due {
            Due::WhenAsked => false,
            Due::Scheduled { at, overdue } => at <= now + self.haste(next) || overdue <= moment.own(),
            Due::Postponed { until } => until <= now,
        };
        by_schedule || self.is_out_of_time(now, moment)
    }

    /// Whether the agent's own CA is to sign for it while the server is away: it is no privileged entry, what goes into its certificates is
    /// known, and its SVID is missing or in the last part of its life. An outage that is shorter than that part goes by without.
    pub(super) fn is_to_mint(&self, now: Instant, moment: &Moment) -> bool {
        let terms = &self.terms;
        let is_signable =
            !terms.asks_for_hardware_key() && terms.is_privileged == Some(false) && terms.certificate.is_some();
        is_signable && !terms.is_of_local_authority() && self.is_running_out(now, moment)
    }

    fn is_running_out(&self, now: Instant, moment: &Moment) -> bool {
        let Some(svid) = self.svid() else { return self.is_due(now, Duration::ZERO, moment) };
        let lifetime = svid.lifetime();
        let left = moment.remaining(lifetime);
        left <= LONGEST_TURN_SECONDS || left.saturating_mul(LAST_PART) <= lifetime.span().length()
    }

    fn haste(&self, next: Duration) -> Duration {
        self.svid().map_or(Duration::ZERO, |svid| brought_forward(svid.lifetime().span().length(), next))
    }

    /// Now lies outside of its SVID's validity, as far as this device knows, and that was not asked for a moment ago.
    fn is_out_of_time(&self, now: Instant, moment: &Moment) -> bool {
        let in_time = |svid: &WorkloadSvid| out_of_time_in(svid.lifetime().span(), self.asked, now, moment);
        self.svid().is_some_and(|svid| in_time(svid).is_zero())
    }
}

impl Due {
    fn at_once(now: Instant) -> Self {
        Self::Scheduled { at: now, overdue: i64::MAX }
    }
}
