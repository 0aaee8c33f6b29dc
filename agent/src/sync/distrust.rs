//! For how long the server was not believed, and whether the bundle that is held is therefore given up for the configured one. Pure.
//!
//! ```text
//!  believed ──not believed──► Since ──delay over, and the agent may attest again──► the configured bundle is tried, whatever its age
//!     ▲                         │
//!     └── a server is believed ─┘
//! ```
//! Whoever stands between device and server can bring that about, and gains nothing by it: what is tried is the operator's, and what is
//! held serves until a server that it proves has let the agent in.

use std::time::Duration;

use tracing::{info, warn};

use crate::config::{Rebootstrap, RebootstrapMode};
use crate::report::Sought;
use crate::trusted_time::utc;

/// See the module.
#[derive(Debug)]
pub(super) struct Distrust {
    rebootstrap: Rebootstrap,
    /// When the server was first not believed, UNIX seconds.
    since: Option<i64>,
    /// When a bundle was first sought since a server was believed, UNIX seconds, and how often.
    sought: Option<(i64, u32)>,
    /// Whether it was said that the agent may not attest again.
    is_told: bool,
}

impl Distrust {
    pub(super) fn new(rebootstrap: Rebootstrap) -> Self {
        Self { rebootstrap, since: None, sought: None, is_told: false }
    }

    /// Takes up what an earlier run has written down, at `now`.
    pub(super) fn restore(&mut self, since: Option<i64>, now: i64) {
        // A clock that was set back since has made it no longer.
        self.since = since.map(|since| since.min(now)).filter(|_| self.is_kept());
    }

    /// What is written down: only what counts after a restart too.
    pub(super) fn to_keep(&self) -> Option<i64> {
        self.since.filter(|_| self.is_kept())
    }

    fn is_kept(&self) -> bool {
        self.rebootstrap.mode != RebootstrapMode::Never
    }

    /// Whether the server is not believed.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// The server was not believed at `now`. Whether that is to be written down.
    pub(super) fn begin(&mut self, now: i64) -> bool {
        // A clock that was set back since has made it no longer.
        let since = self.since.map_or(now, |since| since.min(now));
        self.since.replace(since) != Some(since) && self.is_kept()
    }

    /// A server is believed. Whether that is to be written down.
    pub(super) fn end(&mut self) -> bool {
        self.sought = None;
        self.since.take().is_some() && self.is_kept()
    }

    /// A bundle is sought at `now`: since when, and how often with this time.
    pub(super) fn seek(&mut self, now: i64) -> (i64, u32) {
        let (began, attempts) = self.sought.unwrap_or((self.since.unwrap_or(now), 0));
        *self.sought.insert((began, attempts.saturating_add(1)))
    }

    /// Since when the server has not been believed or, at a new device, a bundle has been sought, and how often one was.
    pub(super) fn sought(&self, is_again: bool) -> Option<Sought> {
        let since = if is_again { Some(self.since?) } else { None };
        let (began, attempts) = self.sought.or(since.map(|since| (since, 0)))?;
        Some(Sought { is_again, since_unix: since.unwrap_or(began), attempts })
    }

    /// Whether the configured bundle is tried although one that is no older was held.
    pub(super) fn is_over(&self, may_attest_again: bool, now: i64) -> bool {
        self.will_be_over(may_attest_again) && self.left(now) == Some(Duration::ZERO)
    }

    /// Whether it only has to be waited for.
    pub(super) fn will_be_over(&self, may_attest_again: bool) -> bool {
        self.is_kept() && may_attest_again
    }

    /// How long until then.
    fn left(&self, now: i64) -> Option<Duration> {
        let passed = u64::try_from(now.saturating_sub(self.since?)).unwrap_or(0);
        Some(self.rebootstrap.delay.saturating_sub(Duration::from_secs(passed)))
    }

    /// Says what comes of it, in SPIRE's words.
    pub(super) fn tell(&self, knows_a_bundle: bool, may_attest_again: bool, now: i64) {
        let Some(since) = self.since.map(utc) else { return };
        if !knows_a_bundle {
            info!(since, "Trust Bundle and Server don't agree, bootstrapping again");
        } else if self.will_be_over(may_attest_again) && !self.is_over(may_attest_again, now) {
            let time_left_s = self.left(now).unwrap_or_default().as_secs();
            info!(since, time_left_s, "Trust Bundle and Server don't agree, ignoring for now");
        }
    }

    /// Says that the configured bundle is tried instead.
    pub(super) fn tell_that_it_is_over(&self) {
        let since = self.since.map(utc);
        warn!(since, "Trust Bundle and Server don't agree, rebootstrapping");
    }

    /// Says once that this agent may not attest again, which it would have to.
    pub(super) fn tell_if_in_vain(&mut self, may_attest_again: bool) {
        if may_attest_again || !self.is_kept() || std::mem::replace(&mut self.is_told, true) {
            return;
        }
        warn!(
            "you have requested rebootstrap support but the NodeAttestor plugin or the spire server configuration is not allowing it: \
             an agent that is not reattestable goes on by the bundle that it holds alone"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distrust(mode: RebootstrapMode) -> Distrust {
        Distrust::new(Rebootstrap { mode, delay: Duration::from_secs(600) })
    }

    #[test]
    fn what_is_held_is_given_up_after_the_delay_where_the_agent_may_attest_again() {
        for mode in [RebootstrapMode::Auto, RebootstrapMode::Always] {
            let mut distrust = distrust(mode);
            assert!(!distrust.is_over(true, i64::MAX), "nobody was not believed");
            assert!(distrust.begin(1000) && !distrust.begin(1500), "written down once");
            assert_eq!([1000, 1599, 1600].map(|now| distrust.is_over(true, now)), [false, false, true]);
            assert!(!distrust.is_over(false, i64::MAX), "it would have no other identity");
            assert!(!distrust.is_over(true, i64::MIN), "a clock in the past");
            assert!(distrust.end() && !distrust.end());
            assert!(!distrust.is_over(true, i64::MAX), "a server was believed");
        }
    }

    #[test]
    fn who_never_rebootstraps_writes_nothing_down() {
        let mut distrust = distrust(RebootstrapMode::Never);
        assert!(!distrust.begin(0) && distrust.is_on());
        assert!(!distrust.is_over(true, i64::MAX));
        assert_eq!(distrust.to_keep(), None);
        distrust.restore(Some(0), 0);
        assert!(!distrust.is_on() && !distrust.end());
    }

    #[test]
    fn the_delay_goes_on_after_a_restart_and_a_clock_that_was_set_back_does_not_lengthen_it() {
        let mut before = distrust(RebootstrapMode::Auto);
        before.begin(1000);
        let mut after = distrust(RebootstrapMode::Auto);
        after.restore(before.to_keep(), 1599);
        assert!(!after.is_over(true, 1599) && after.is_over(true, 1600));
        after.restore(Some(9_000_000), 2000);
        assert!(!after.is_over(true, 2599) && after.is_over(true, 2600));
        let mut running = distrust(RebootstrapMode::Auto);
        assert!(running.begin(9_000_000) && running.begin(2000) && !running.begin(2100), "written down anew");
        assert!(!running.is_over(true, 2599) && running.is_over(true, 2600));
    }

    #[test]
    fn attempts_are_counted_from_when_the_server_was_not_believed_until_one_is() {
        let mut distrust = distrust(RebootstrapMode::Auto);
        assert_eq!([distrust.seek(7), distrust.seek(9)], [(7, 1), (7, 2)], "a new device");
        let told = |since_unix, attempts, is_again| Some(Sought { is_again, since_unix, attempts });
        assert_eq!(distrust.sought(false), told(7, 2, false));
        assert_eq!(distrust.sought(true), None, "a file was looked at while a server that is believed is away");
        distrust.end();
        assert_eq!((distrust.sought(false), distrust.sought(true)), (None, None));
        distrust.begin(100);
        assert_eq!(distrust.sought(true), told(100, 0, true));
        assert_eq!([distrust.seek(700), distrust.seek(760)], [(100, 1), (100, 2)]);
        assert_eq!(distrust.sought(true), told(100, 2, true));
    }
}
