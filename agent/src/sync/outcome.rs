//! What a turn of the loop came to: what it changes in the agent's standing, what is said, and how long the loop rests.

use std::time::{Duration, Instant};

use ironroot_shell::describe;
use tracing::{error, info, warn};

use super::push::polled_every;
use super::schedule::{backoff, before_the_end, poll_in, unit};
use super::standing::Standing;
use super::{Denial, SyncError, Synchronizer};
use crate::local_authority::LocalAuthority;
use crate::sealed_cache::Changes;

/// First pause after a failure; doubles up to [`BACKOFF_CAP_FACTOR`] times this, and every pause is drawn from 0 upwards.
pub(super) const BACKOFF_BASE: Duration = Duration::from_secs(5);
/// With the default base, a fleet comes back over a minute.
const BACKOFF_CAP_FACTOR: u32 = 12;
/// A banned or evicted agent asks this many times more rarely.
const BANNED_FACTOR: u32 = 6;
/// No server makes an agent ask more often than this by its bundle's refresh hint.
const SHORTEST_HINT: Duration = Duration::from_secs(5);
/// Even a lucky draw of the back-off leaves this pause.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

impl Synchronizer {
    /// Takes in how a turn went; when the server is to be asked next.
    pub(super) async fn judge(&mut self, outcome: Result<(), SyncError>) -> Instant {
        let pause = match outcome {
            Ok(()) => self.rest().await,
            Err(error) => self.fail(error).await,
        };
        Instant::now() + pause
    }

    async fn fail(&mut self, error: SyncError) -> Duration {
        // A new dial also asks the name service again.
        self.hang_up();
        self.failures = self.failures.saturating_add(1);
        match error.denial() {
            Some(Denial::Banned) => self.obey_ban().await,
            Some(Denial::Reattest) => self.standing.refuse(Instant::now()),
            None if error.is_certificate_refused() && self.standing.is_reattestable() => {
                self.standing.refuse(Instant::now());
            }
            Some(Denial::NotAttested) | None => {}
        }
        self.wipe_if_owed().await;
        self.withdraw_if_too_old();
        self.is_server_away = error.is_server_away();
        self.mint_while_away().await;
        self.offer_tokens();
        let pause = self.pause_after(&error);
        self.last_failure = Some(describe(&error));
        self.tell(&error, pause);
        pause
    }

    /// Gives up the connection, and what was heard over it.
    pub(super) fn hang_up(&mut self) {
        self.parts.link.send_replace(None);
        self.pushes.hang_up();
    }

    /// One line for each failure.
    fn tell(&self, error: &SyncError, pause: Duration) {
        let (failures, next_ms) = (self.failures, pause.as_millis() as u64);
        let (text, server) = (describe(error), self.parts.server.address());
        let error = match error.is_certificate_refused() {
            true => format!("the server does not take this agent's certificate, by its clock or its bundle: {text}"),
            false => text,
        };
        match self.standing {
            Standing::Banned { .. } => warn!(error, server, next_ms, "banned: nothing is served"),
            Standing::Evicted(_) => warn!(
                error,
                server,
                next_ms,
                "evicted: the server does not know this agent any more and it cannot attest again; nothing is served"
            ),
            _ if self.ledger.identities().next().is_some() => {
                let says = match self.ledger.next_end_in(&self.parts.time.moment()) {
                    Some(1..) => "sync failed; what is held goes on being served",
                    _ => "sync failed; all that is held has ended, nothing is served",
                };
                warn!(error, server, failures, next_ms, "{says}");
            }
            _ => warn!(error, server, failures, next_ms, "sync failed; there is nothing to serve yet"),
        }
    }

    async fn rest(&mut self) -> Duration {
        if self.failures > 0 {
            info!(failures = self.failures, "in sync with the server again");
        }
        (self.failures, self.is_server_away) = (0, false);
        self.offer_tokens();
        self.standing.confirm();
        self.parts.bans.say(self.parts.number, false).await;
        self.poll_pause(unit()).max(SHORTEST_PAUSE)
    }

    /// The pause between two syncs; `unit` is its jitter, from 0 to 1.
    pub(super) fn poll_pause(&self, unit: f64) -> Duration {
        let configured = self.as_often_as_hinted(self.parts.sync_interval);
        if self.knows_what_changes() {
            return poll_in(polled_every(configured, true, self.parts.max_age), None, unit);
        }
        let interval =
            if self.pushes.is_listening() { polled_every(configured, false, self.parts.max_age) } else { configured };
        poll_in(interval, self.ledger.shortest_lifetime(), unit)
    }

    /// Whether the server tells what changes, and nothing else has it asked: an agent with a CA of its own reports, and has another in
    /// time, with its polls; a bundle that could not be had is asked for again.
    fn knows_what_changes(&self) -> bool {
        self.pushes.are_deltas() && self.parts.local_authority.is_none() && !self.followed.owes_bundles()
    }

    /// `interval`, or less if the server wants to be asked more often for news of the bundle. Not of an agent that is to be
    /// silent in between: what its operator wants goes before what a server wants.
    fn as_often_as_hinted(&self, interval: Duration) -> Duration {
        let hint = self.bundle.as_ref().and_then(|bundle| bundle.refresh_hint());
        let hint = hint.filter(|_| self.pushes.are_wanted()).map(|hint| hint.max(SHORTEST_HINT));
        hint.map_or(interval, |hint| interval.min(hint))
    }

    /// When something is due before the next poll. Nothing is while the server is away: the back-off decides when it is asked.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = self.ledger.next_due().filter(|_| self.failures == 0)?;
        Some(due.max(Instant::now() + SHORTEST_PAUSE))
    }

    /// When something is due that its schedule has later: that stood still while the device slept, or knew less of the time. Nothing is
    /// while the server is away.
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        let (now, moment) = (Instant::now(), self.parts.time.moment());
        let certificate = self.standing.agent().map(|agent| agent.overdue_in(now, &moment));
        let overdue = self.ledger.overdue_in(now, &moment).into_iter().chain(certificate).min();
        now.checked_add(overdue.filter(|_| self.failures == 0)?.max(SHORTEST_PAUSE))
    }

    /// After an answer that is not taken at least twice the base: the same would come again, and each costs memory.
    pub(super) fn pause_after(&self, error: &SyncError) -> Duration {
        let shortest =
            if error.is_refused_answer() { BACKOFF_BASE.min(self.parts.sync_interval) * 2 } else { Duration::ZERO };
        self.pause_after_failure().max(shortest)
    }

    fn pause_after_failure(&self) -> Duration {
        let base = BACKOFF_BASE.min(self.parts.sync_interval);
        let (base, failures) = match self.standing.is_good() {
            true => (base, self.failures),
            false => (base * BANNED_FACTOR, u32::MAX),
        };
        let pause = backoff(failures, base, base * BACKOFF_CAP_FACTOR, unit());
        let remaining =
            self.ledger.next_end_in(&self.parts.time.moment()).and_then(|seconds| u64::try_from(seconds).ok());
        before_the_end(pause, remaining.map(Duration::from_secs)).max(SHORTEST_PAUSE)
    }

    /// An explicit ban: nothing is served or kept any more. The process stays, and asks now and then whether the ban was
    /// lifted.
    async fn obey_ban(&mut self) {
        if self.standing.ban() {
            error!(
                server = self.parts.server.address(),
                "this agent is banned: its identities are withdrawn and its cache is wiped"
            );
            self.parts.shown.hide();
            self.parts.local_authority.iter_mut().for_each(LocalAuthority::forget);
            self.ledger.clear();
            self.changes = Changes::default();
            self.publish_anyway();
        }
        self.parts.bans.say(self.parts.number, true).await;
    }

    /// The server does not know this agent, and it cannot attest again: nothing is served any more, and what is kept goes.
    pub(super) fn evicted_if_final(&mut self, error: SyncError) -> SyncError {
        // A device that nobody has enrolled yet has nothing to lose.
        let is_new = matches!(self.standing, Standing::New) && self.ledger.is_empty();
        if is_new || !error.cannot_attest() || !self.standing.evict(Instant::now()) {
            return error;
        }
        self.parts.local_authority.iter_mut().for_each(LocalAuthority::forget);
        self.ledger.clear();
        self.changes = Changes { any: true, must_not_be_undone: true, removal: true, ..self.changes };
        self.publish_anyway();
        error
    }

    /// Entries that no server has confirmed for too long.
    pub(super) fn withdraw_if_too_old(&mut self) {
        let Some(max_age) = self.parts.max_age else { return };
        let age = self.parts.time.now_unix().saturating_sub(self.synced_unix);
        if !self.ledger.is_empty() && age > i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX) {
            warn!(age_seconds = age, "no server has confirmed the identities for too long; they are withdrawn");
            self.ledger.clear();
            self.publish();
        }
    }
}
