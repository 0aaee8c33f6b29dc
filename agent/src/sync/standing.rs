//! What the server says of this agent, and the certificate it has for it. Pure.
//!
//! ```text
//!  New ──attested──► Attested ──the server takes it no more──► Refused ──attested, or the server takes it again──► Attested
//!  Attested, Refused ──unknown to the server, and cannot attest──► Evicted ──known again──► Attested
//!  any ──banned──► Banned { wipe_owed } ──attested──► Attested
//! ```

use std::time::{Duration, Instant};

use super::schedule::{out_of_time_in, overdue, overdue_in, renewal_in, unit};
use crate::report::Stands;
use crate::server_answers::AgentSvid;
use crate::trusted_time::Moment;

/// An evicted agent does not try to renew by schedule: each contact tells whether the server knows it again.
const EVICTED_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// So many certificates in a row that are in their last part as they come are replaced at once: a server that told a wrong time, or whose
/// authority just ended, tells better then. After them the schedule alone says when.
const REPLACED_AT_ONCE: u32 = 3;

/// Where the agent stands with its server.
#[derive(Debug)]
pub(super) enum Standing {
    /// It has no certificate yet.
    New,
    /// The server takes its certificate, as far as anybody has said.
    Attested(Agent),
    /// The server said that the certificate is worth nothing any more. It is kept all the same: an agent that cannot attest
    /// again has no other, and what a server forgot it may remember, such as after a restored database.
    Refused(Agent),
    /// The server does not know it any more, and lets it not attest again: nothing is served. The certificate is kept, for the
    /// same reason.
    Evicted(Option<Agent>),
    /// It is banned: nothing is served or kept.
    Banned {
        /// What is kept must go, but could not be wiped yet.
        wipe_owed: bool,
    },
}

/// The agent's own certificate.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) svid: AgentSvid,
    pub(super) reattestable: bool,
    due: Instant,
    /// As `due`, by the agent's own clock: the monotonic one stands still while a device sleeps.
    overdue: i64,
    /// When it was last tried in vain to replace it.
    asked: Option<Instant>,
    /// How many in a row, this one included, were in their last part as they came.
    late: u32,
}

impl Standing {
    /// The same in a word.
    pub(super) fn word(&self) -> Stands {
        match self {
            Self::New => Stands::New,
            Self::Attested(_) => Stands::Attested,
            Self::Refused(_) => Stands::Refused,
            Self::Evicted(_) => Stands::Evicted,
            Self::Banned { .. } => Stands::Banned,
        }
    }

    /// The certificate to show; an evicted agent has its last one, a banned agent none.
    pub(super) fn agent(&self) -> Option<&Agent> {
        match self {
            Self::Attested(agent) | Self::Refused(agent) | Self::Evicted(Some(agent)) => Some(agent),
            Self::New | Self::Evicted(None) | Self::Banned { .. } => None,
        }
    }

    /// The same, to be postponed or hastened.
    pub(super) fn agent_mut(&mut self) -> Option<&mut Agent> {
        match self {
            Self::Attested(agent) | Self::Refused(agent) | Self::Evicted(Some(agent)) => Some(agent),
            Self::New | Self::Evicted(None) | Self::Banned { .. } => None,
        }
    }

    /// Whether the agent may attest whenever it likes.
    pub(super) fn is_reattestable(&self) -> bool {
        self.agent().is_some_and(|agent| agent.reattestable)
    }

    /// Whether the server has neither banned nor evicted it.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::New | Self::Attested(_) | Self::Refused(_))
    }

    /// The server takes the certificate no more: another is due at once. An evicted agent stays one: nothing is served or
    /// kept on such a word, and a second eviction is no news.
    pub(super) fn refuse(&mut self, now: Instant) {
        self.agent_mut().into_iter().for_each(|agent| agent.replace_now(now));
        if self.is_good() {
            *self = self.take().map_or(Self::New, Self::Refused);
        }
    }

    /// The server does not know the agent, and it cannot attest. Whether that is news.
    pub(super) fn evict(&mut self, now: Instant) -> bool {
        if !self.is_good() {
            return false;
        }
        let mut agent = self.take();
        agent.iter_mut().for_each(|agent| agent.postpone(EVICTED_PAUSE, now));
        *self = Self::Evicted(agent);
        true
    }

    /// The server bans the agent: its certificate goes. Whether that is news.
    pub(super) fn ban(&mut self) -> bool {
        let is_news = !matches!(self, Self::Banned { .. });
        if is_news {
            //= FLT-A22 agent faults: "banned, it wipes its cache too"
            *self = Self::Banned { wipe_owed: true };
        }
        is_news
    }

    /// Whether what was kept must still go.
    pub(super) fn owes_a_wipe(&self) -> bool {
        matches!(self, Self::Banned { wipe_owed: true })
    }

    /// What was kept has been wiped.
    pub(super) fn wiped(&mut self) {
        if let Self::Banned { wipe_owed } = self {
            *wipe_owed = false;
        }
    }

    /// A whole turn succeeded over the channel that the certificate opens: the server takes it, whatever it said before. So it
    /// is renewed again: one that cannot attest would be lost with the end of its certificate.
    pub(super) fn confirm(&mut self) {
        if let Some(agent) = self.take() {
            *self = Self::Attested(agent);
        }
    }

    fn take(&mut self) -> Option<Agent> {
        match std::mem::replace(self, Self::New) {
            Self::Attested(agent) | Self::Refused(agent) => Some(agent),
            Self::Evicted(agent) => agent,
            Self::New => None,
            banned @ Self::Banned { .. } => {
                *self = banned;
                None
            }
        }
    }
}

impl Agent {
    /// With a certificate of which `remaining` seconds count for the schedule.
    pub(super) fn new(svid: AgentSvid, reattestable: bool, remaining: i64, now: Instant, moment: &Moment) -> Self {
        let due = now + renewal_in(moment.remaining(&svid.lifetime), remaining, unit());
        let overdue = overdue(moment.end(&svid.lifetime), remaining);
        Self { svid, reattestable, due, overdue, asked: None, late: 0 }
    }

    /// The same, signed just now and in the place of `old`. Of a server that signs nothing better (its authority ends within seconds) another
    /// would be asked for as soon as one has come, and again.
    pub(super) fn in_place_of(self, old: Option<&Self>, now: Instant, moment: &Moment) -> Self {
        if !self.overdue_in(now, moment).is_zero() {
            return self;
        }
        let late = old.map_or(0, |old| old.late).saturating_add(1);
        Self { late, asked: (late > REPLACED_AT_ONCE).then_some(now), ..self }
    }

    /// When it is to be replaced by the schedule.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether it is to be replaced: by the schedule, or because now lies outside of its validity, as far as this device
    /// knows, and that was not tried a moment ago.
    pub(super) fn is_due(&self, now: Instant, moment: &Moment) -> bool {
        self.due <= now || self.overdue_in(now, moment).is_zero()
    }

    /// How long until that is so by the agent's own clock, or by the estimate of now.
    pub(super) fn overdue_in(&self, now: Instant, moment: &Moment) -> Duration {
        let out_of_time = out_of_time_in(self.svid.lifetime.span(), self.asked, now, moment);
        overdue_in(self.overdue, moment).map_or(out_of_time, |overdue| overdue.min(out_of_time))
    }

    /// It was tried in vain.
    pub(super) fn postpone(&mut self, pause: Duration, now: Instant) {
        (self.due, self.overdue, self.asked) = (now + pause, i64::MAX, Some(now));
    }

    /// Its authority is tainted or gone, or the server takes it no more.
    pub(super) fn replace_now(&mut self, now: Instant) {
        self.due = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trusted_time::{Keeper, Lifetime, Reading, Span};

    fn moment() -> Moment {
        let reading = Reading { boot: 0, kernel: 0 };
        Moment::new(Keeper::new(0, reading), reading)
    }

    fn agent(now: Instant) -> Agent {
        let svid = AgentSvid::unchecked(Lifetime::kept(Span { not_before: 0, not_after: 3600 }, Some(3600)));
        Agent::new(svid, false, 3600, now, &moment())
    }

    fn all(now: Instant) -> [Standing; 6] {
        [
            Standing::New,
            Standing::Attested(agent(now)),
            Standing::Refused(agent(now)),
            Standing::Evicted(Some(agent(now))),
            Standing::Evicted(None),
            Standing::Banned { wipe_owed: true },
        ]
    }

    /// The name of a state, and whether it holds a certificate that is due.
    fn seen(standing: &Standing, now: Instant) -> (&'static str, Option<bool>) {
        let name = match standing {
            Standing::New => "new",
            Standing::Attested(_) => "attested",
            Standing::Refused(_) => "refused",
            Standing::Evicted(_) => "evicted",
            Standing::Banned { wipe_owed: true } => "banned, wipe owed",
            Standing::Banned { wipe_owed: false } => "banned",
        };
        (name, standing.agent().map(|agent| agent.is_due(now, &moment())))
    }

    fn after(change: impl Fn(&mut Standing)) -> Vec<(&'static str, Option<bool>)> {
        let now = Instant::now();
        let changed = |mut standing: Standing| {
            change(&mut standing);
            seen(&standing, now)
        };
        all(now).map(changed).into()
    }

    #[test]
    fn certificates_that_are_in_their_last_part_as_they_come_are_replaced_at_once_three_times_and_by_the_schedule_then()
    {
        let (now, moment) = (Instant::now(), moment());
        // Of a server whose authority ends in two seconds; and of one that has another.
        let late = || AgentSvid::unchecked(Lifetime::kept(Span { not_before: -10, not_after: 2 }, Some(2)));
        let mut last: Option<Agent> = None;
        let mut comes = |svid| {
            let agent = Agent::new(svid, false, 2, now, &moment).in_place_of(last.as_ref(), now, &moment);
            last.insert(agent).is_due(now, &moment)
        };
        assert_eq!([(); 5].map(|()| comes(late())), [true, true, true, false, false]);
        assert!(!comes(AgentSvid::unchecked(Lifetime::kept(Span { not_before: -10, not_after: 3600 }, Some(3600)))));
        assert_eq!([(); 4].map(|()| comes(late())), [true, true, true, false], "counted anew");
        assert!(last.is_some_and(|agent| agent.due() <= now + Duration::from_secs(2)), "asked again before it ends");
    }

    //= FLT-A22
    #[test]
    fn each_word_of_the_server_leads_from_each_state_to_one_state() {
        let now = Instant::now();
        let banned = ("banned, wipe owed", None);
        assert_eq!(
            after(|s| s.refuse(now)),
            [
                ("new", None),
                ("refused", Some(true)),
                ("refused", Some(true)),
                ("evicted", Some(true)),
                ("evicted", None),
                banned
            ],
            "an eviction is not softened"
        );
        let evicted = ("evicted", Some(false));
        assert_eq!(
            after(|s| assert!(s.is_good() == s.evict(now), "told once")),
            [("evicted", None), evicted, evicted, evicted, ("evicted", None), banned],
            "a ban is not softened, and the certificate stays but is not renewed"
        );
        assert_eq!(after(|s| _ = s.ban()), [banned; 6]);
        assert_eq!(
            after(Standing::confirm),
            [
                ("new", None),
                ("attested", Some(false)),
                ("attested", Some(false)),
                ("attested", Some(false)),
                ("new", None),
                banned
            ]
        );
    }

    #[test]
    fn a_certificate_that_the_server_takes_again_is_still_due() {
        let now = Instant::now();
        let mut standing = Standing::Attested(agent(now));
        standing.refuse(now);
        standing.confirm();
        assert_eq!(seen(&standing, now), ("attested", Some(true)));
    }

    #[test]
    fn a_wipe_is_owed_once_for_each_ban_until_it_is_done() {
        let mut standing = Standing::New;
        assert!(standing.ban() && !standing.ban());
        standing.wiped();
        assert!(!standing.ban(), "no news");
        assert_eq!(seen(&standing, Instant::now()).0, "banned", "and no second wipe");
        assert!(!standing.is_good() && standing.agent().is_none());
    }
}
