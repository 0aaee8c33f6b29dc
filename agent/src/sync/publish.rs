//! What leaves the loop: snapshots for the Workload API, and what outlives the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_shell::describe;
use tracing::{debug, error, info, warn};

use super::Synchronizer;
use super::memory::ToKeep;
use super::schedule::within_age;
use super::standing::Agent;
use crate::identities::Identities;
use crate::local_authority::LocalAuthority;
use crate::report::{Report, Stands};
use crate::sealed_cache::{Changes, IdentitiesToCache, WritePlan, encode_identities};
use crate::trusted_time::Moment;

/// Pause after a failed write: a full disk or a missing chip does not get better within seconds.
const FAILED_WRITE_PAUSE: Duration = Duration::from_secs(60);
/// What has not changed is written again after this time all the same: the lower bound on time moves on, and when the
/// server last confirmed everything.
const REFRESH_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// When something was kept, and when not to try again yet.
pub(super) struct Kept {
    /// By the agent's own clock, which goes on while the device sleeps; what is kept is judged by it after a restart.
    last: i64,
    /// When the server had confirmed everything that was kept, UNIX seconds.
    synced_unix: i64,
    not_before: Option<Instant>,
}

impl Kept {
    /// Now, what was confirmed at `synced_unix`.
    pub(super) fn now(synced_unix: i64, moment: &Moment) -> Self {
        Self { last: moment.own(), synced_unix, not_before: None }
    }

    #[cfg(test)]
    pub(super) fn confirmed_at(&self) -> i64 {
        self.synced_unix
    }
}

impl Synchronizer {
    /// Publishes what may be served. Nothing before the first whole answer of a server or the cache: a workload that asks
    /// earlier is told to wait and not that it has no identity.
    pub(super) fn publish(&mut self) {
        if self.is_serving() {
            self.publish_anyway();
        }
    }

    /// The same, from now on: there is something to say, be it that there are no identities.
    pub(super) fn publish_anyway(&mut self) {
        let moment = self.parts.time.moment();
        self.published = moment.version();
        let Some(bundle) = self.bundle.clone() else { return };
        let (identities, unsigned) = self.executable_only.leave_out(self.ledger.identities(), self.ledger.unsigned());
        let all = Identities::try_new(self.parts.trust_domain.clone(), identities, bundle);
        match all {
            Ok(all) => {
                let all = all.ending(|identity| moment.end(identity.svid().lifetime())).with_unsigned(unsigned);
                let all = all.with_federated(self.federated.clone()).of_cast_out(Some(self.standing.word()));
                self.parts.publisher.send_replace(Arc::new(all));
            }
            Err(error) => error!(error = %describe(&error), "identities cannot be published; the last ones stay"),
        }
    }

    /// Says what people may want to know of this loop.
    pub(super) fn report(&self) {
        let chain = self.standing.agent().map(|agent| agent.svid.chain.clone());
        let rest = self.next_contact().saturating_duration_since(Instant::now()).as_secs();
        let next_contact_unix = self.parts.time.now_unix().saturating_add_unsigned(rest);
        let name = self.parts.reporter.borrow().name.clone();
        self.parts.reporter.send_replace(Report {
            name,
            stands: self.standing.word(),
            chain,
            synced_unix: self.synced_unix,
            server: self.parts.server.address(),
            is_told_of_changes: self.pushes.is_listening(),
            failures: self.failures,
            last_failure: self.last_failure.clone().filter(|_| self.failures > 0),
            next_contact_unix,
            // Of an agent that is banned nothing is kept.
            is_cache_sealed: self.parts.memory.has_identities()
                && self.kept.not_before.is_none()
                && self.standing.word() != Stands::Banned,
            has_unopened_cache: false,
            issuance_log: self.parts.heads.to_string(),
            bundle: self.bundle.clone().or_else(|| self.configured.clone()),
            sought: self.distrust.sought(self.bundle.is_some()),
            local_authority: self.parts.local_authority.as_ref().map(LocalAuthority::in_words).unwrap_or_default(),
            clock: Some(self.parts.time.moment().clock()),
        });
    }

    /// When the server is asked next, unless it or a workload has a word before: by a poll, for SVIDs, or for the agent's certificate.
    pub(super) fn next_contact(&self) -> Instant {
        let certificate = self.standing.agent().filter(|_| self.failures == 0).map(Agent::due);
        let sooner = [certificate, self.next_due(), self.next_overdue()];
        sooner.into_iter().flatten().fold(self.next_poll, Instant::min)
    }

    /// Whether there was a whole answer, of a server or the cache.
    fn is_serving(&self) -> bool {
        self.parts.publisher.borrow().bundle().is_some()
    }

    /// What was learned about the time changes what may be served, though nothing else has changed.
    pub(super) fn publish_if_time_changed(&mut self) {
        if self.parts.time.moment().version() != self.published {
            self.publish();
        }
    }

    /// Whoever asks whether the agent is ready is told at once that it is cast out, or let in again, though no identity comes or goes.
    pub(super) fn publish_if_cast_out_or_let_in(&mut self) {
        let is_cast_out = self.standing.word().why_nothing_is_served().is_some();
        let is_told = self.parts.publisher.borrow().cast_out().is_some();
        if is_cast_out != is_told {
            self.publish();
        }
    }

    /// After a whole answer.
    pub(super) fn publish_first(&mut self) {
        if !self.is_serving() {
            self.publish_anyway();
        }
    }

    /// Writes what must be written; how long the rest may wait. An agent that knows neither itself nor an identity writes
    /// nothing: what is on the disk, though it was refused at the start, may be good again after the next one. Unless that is what was
    /// taken away.
    pub(super) async fn keep(&mut self, flush: bool) -> Option<Duration> {
        self.parts.heads.write(flush).await;
        if self.standing.agent().is_none() && self.ledger.is_empty() && !self.changes.removal {
            return None;
        }
        let refresh = within_age(REFRESH_INTERVAL, self.lasts_unconfirmed());
        let passed = self.parts.time.moment().own().saturating_sub(self.kept.last);
        let is_over = passed >= i64::try_from(refresh.as_secs()).unwrap_or(i64::MAX);
        let is_due = is_over || (flush && self.is_confirmed_since());
        self.changes.any |= self.is_serving() && self.standing.is_good() && is_due;
        let plan = self.parts.memory.plan(self.changes, flush);
        match plan {
            WritePlan::Idle => return None,
            WritePlan::Wait(pause) => return Some(pause),
            WritePlan::Write | WritePlan::WriteAndIncrement => {}
        }
        let pause = self.kept.not_before.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(pause) = pause.filter(|pause| !pause.is_zero() && !flush) {
            return Some(pause);
        }
        let state = self.state_to_keep().await?;
        let began = Instant::now();
        let kept = self.parts.memory.keep(plan, self.changes, state).await;
        self.parts.counted.kept.done(&kept, began.elapsed());
        let failed_before = self.kept.not_before.is_some();
        match kept {
            Ok(()) => self.note_kept(),
            Err(error) => {
                self.kept.not_before = Some(Instant::now() + FAILED_WRITE_PAUSE);
                let says = "identities are not kept; a restart would lose what is new";
                // Tried again each minute, and told once until it succeeds.
                match failed_before {
                    true => debug!(error = %describe(&error), "{says}"),
                    false => warn!(error = %describe(&error), "{says}"),
                }
                self.report();
                return Some(FAILED_WRITE_PAUSE);
            }
        }
        None
    }

    fn note_kept(&mut self) {
        self.changes = Changes::default();
        self.kept = Kept::now(self.synced_unix, &self.parts.time.moment());
        self.parts.local_authority.iter_mut().for_each(LocalAuthority::note_kept);
        let is_reported = self.parts.reporter.borrow().is_cache_sealed;
        if is_reported != self.parts.memory.has_identities() {
            self.report();
        }
        if self.parts.memory.is_sealed() {
            self.parts.counted.note_cache_written(self.parts.number);
            let server = self.parts.server.address();
            info!(identities = self.ledger.identities().count(), server, "identities sealed");
        }
    }

    /// How long what is kept is good for without the server, if that is bounded.
    fn lasts_unconfirmed(&self) -> Option<Duration> {
        let offline = self.parts.local_authority.as_ref().map(LocalAuthority::max_offline);
        [self.parts.max_age, offline].into_iter().flatten().min()
    }

    /// Whether the server has confirmed since what is kept, so that the next start had less time than it could have.
    fn is_confirmed_since(&self) -> bool {
        self.lasts_unconfirmed().is_some() && self.synced_unix > self.kept.synced_unix
    }

    async fn state_to_keep(&mut self) -> Option<ToKeep> {
        let time = self.parts.time.record(self.parts.keys.tpm_clock().await);
        let (bundle, moment) = (self.bundle.clone()?, self.parts.time.moment());
        let issuance_heads = self.parts.heads.encoded();
        let state = IdentitiesToCache {
            bundle: &bundle,
            federated: &self.federated,
            synced_unix: self.synced_unix,
            time: &time,
            moment: &moment,
            issuance_heads: &issuance_heads,
        };
        let entries = self.ledger.entries().map(|held| (held.terms(), held.svid()));
        let identities = encode_identities(state, entries);
        Some(ToKeep { record: self.record(bundle.clone(), time, &moment), identities })
    }
}
