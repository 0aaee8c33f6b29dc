//! The one loop that keeps identities current.
//!
//! ```text
//!  wakes: tick (poll interval, or back-off) · due (something must rotate) · shutdown
//!  a turn: certificate (attest, renew) ─► bundle ─► entries ─► SVIDs ─► publish ─► keep
//! ```
//! A server that is away, wrong or hostile changes nothing but the log: what is held goes on being served until it
//! expires. Only an explicit ban, or an eviction after which the agent cannot attest again, empties it. Schedules run on the monotonic clock, validity on [`TrustedTime`].

mod bootstrap;
mod certificate;
mod entries;
mod error;
mod executable_only;
mod ledger;
mod memory;
mod publish;
mod restore;
mod schedule;
mod svids;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::TrustDomain;
use ironroot_api::pb::agent::PostStatusRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::tls::TrustAnchors;
use ironroot_shell::describe;
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

pub use bootstrap::{BootstrapError, read_bundle};
pub use error::{Denial, SyncError};
pub use ledger::{EntriesChange, Held, Ledger};
pub use memory::{Memory, MemoryError};

use crate::agent_key::KeyStore;
use crate::config::Bootstrap;
use crate::identities::Identities;
use crate::node_attestation::Attestor;
use crate::sealed_cache::Changes;
use crate::server_answers::{AgentSvid, AnswerRefusal, MAX_ENTRIES, TrustBundle, WorkloadSvid};
use crate::server_channel::{Channel, RPC_DEADLINE, Server, within};
use crate::trusted_time::{Moment, TrustedTime};
use entries::Undelivered;
use executable_only::ExecutableOnly;
use ledger::Wanted;
use publish::Kept;
use schedule::{backoff, before_the_end, poll_in, unit};
use svids::SigningRefusal;

/// First pause after a failure; doubles up to [`BACKOFF_CAP_FACTOR`] times this, and every pause is drawn from 0 upwards.
const BACKOFF_BASE: Duration = Duration::from_secs(5);
/// With the default base, a fleet comes back over a minute.
const BACKOFF_CAP_FACTOR: u32 = 12;
/// A banned or evicted agent asks this many times more rarely.
const BANNED_FACTOR: u32 = 6;
/// An evicted agent does not try to renew by schedule: each contact tells whether the server knows it again.
const EVICTED_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Pause before an entry is asked for again that the server would not sign for.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Even a lucky draw of the back-off leaves this pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What a [`Synchronizer`] is made of.
pub struct Parts {
    /// The agent's trust domain.
    pub trust_domain: TrustDomain,
    /// Where the server is.
    pub server: Server,
    /// How the server is known before there is a bundle.
    pub bootstrap: Bootstrap,
    /// How the device proves who it is.
    pub attestor: Attestor,
    /// The agent's own keys.
    pub keys: KeyStore,
    /// What outlives the process.
    pub memory: Memory,
    /// What is known of the time.
    pub time: TrustedTime,
    /// How often the server is asked for changes.
    pub sync_interval: Duration,
    /// Identities that no server has confirmed for this long are no longer served.
    pub max_age: Option<Duration>,
    /// Whether entries that name a program and nobody who runs it match anybody.
    pub allow_executable_only: bool,
    /// Where identities are published.
    pub publisher: watch::Sender<Arc<Identities>>,
    /// Ends a pause: the operator wants the server asked at once.
    pub ask_now: Arc<Notify>,
}

/// The only writer of identities.
pub struct Synchronizer {
    parts: Parts,
    executable_only: ExecutableOnly,
    /// The last good bundle, and the anchors that open channels judge by.
    bundle: Option<TrustBundle>,
    anchors: Arc<TrustAnchors>,
    agent: Option<Agent>,
    ledger: Ledger,
    channel: Option<Channel>,
    changes: Changes,
    synced_unix: i64,
    failures: u32,
    /// There was a whole answer, of a server or the cache.
    ready: bool,
    standing: Standing,
    /// Of how many entries it was said that they are too many.
    said_left_out: usize,
    /// Revision of each entry of which it was said what it does not get.
    said_undelivered: BTreeMap<String, i64>,
    /// What is kept must go, but could not be wiped yet.
    wipe_owed: bool,
    kept: Kept,
    status_posted: bool,
    /// What was known of the time when identities were last published, by its version.
    published: u64,
}

/// What the server says of this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing bad.
    Good,
    /// It does not know it any more, and lets it not attest again.
    Evicted,
    /// It is banned.
    Banned,
}

/// The agent's own certificate.
struct Agent {
    svid: AgentSvid,
    reattestable: bool,
    due: Instant,
    /// As `due`, by the agent's own clock: the monotonic one stands still while a device sleeps.
    overdue: i64,
    /// When it was last tried in vain to replace it.
    asked: Option<Instant>,
    /// The server said that it is worth nothing any more.
    refused: bool,
}

impl Synchronizer {
    /// Knows nothing yet.
    pub fn new(parts: Parts) -> Self {
        let anchors = TrustAnchors::new(parts.trust_domain.clone(), &[]).expect("no certificate, none malformed");
        Self {
            executable_only: ExecutableOnly::new(parts.allow_executable_only),
            parts,
            bundle: None,
            anchors,
            agent: None,
            ledger: Ledger::default(),
            channel: None,
            changes: Changes::default(),
            synced_unix: 0,
            failures: 0,
            ready: false,
            standing: Standing::Good,
            said_left_out: 0,
            said_undelivered: BTreeMap::new(),
            wipe_owed: false,
            kept: Kept::starting(),
            status_posted: false,
            published: 0,
        }
    }

    /// Runs until `shutdown` says so.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let turn = async {
                let outcome = self.turn().await;
                let pause = self.judge(outcome).await;
                self.publish_if_time_changed();
                pause.min(self.keep(false).await.unwrap_or(pause))
            };
            // A turn that is cut short leaves nothing half done: what it learned is in `self`, and kept below.
            let pause = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                pause = turn => pause,
            };
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(pause) => {}
                () = self.parts.ask_now.notified() => {}
            }
        }
        self.keep(true).await;
    }

    async fn turn(&mut self) -> Result<(), SyncError> {
        match self.sync().await {
            Err(error) if error.denial() == Some(Denial::NotAttested) => match self.attest().await {
                Ok(()) => self.sync().await,
                Err(error) => Err(self.evicted_if_final(error)),
            },
            outcome => outcome,
        }
    }

    async fn sync(&mut self) -> Result<(), SyncError> {
        self.ensure_certificate().await?;
        let channel = self.trusted_channel().await?;
        self.adopt_bundle(self.fetch_bundle(channel.clone()).await?)?;
        self.sync_entries(channel.clone()).await?;
        self.synced_unix = self.parts.time.now_unix();
        self.sign_due(channel.clone()).await?;
        self.publish_first();
        // What a workload may have got by now must survive a power cut as soon as possible.
        self.keep(false).await;
        self.post_status_once(channel).await;
        Ok(())
    }

    /// Takes in how a turn went; how long to wait for the next.
    async fn judge(&mut self, outcome: Result<(), SyncError>) -> Duration {
        let error = match outcome {
            Ok(()) => return self.rest(),
            Err(error) => error,
        };
        // A new dial also asks the name service again.
        self.channel = None;
        self.failures = self.failures.saturating_add(1);
        match error.denial() {
            Some(Denial::Banned) => self.obey_ban(),
            Some(Denial::Reattest) => self.certificate_refused(),
            None if error.is_certificate_refused() && self.is_reattestable() => self.certificate_refused(),
            Some(Denial::NotAttested) | None => {}
        }
        self.wipe_if_owed().await;
        self.withdraw_if_too_old();
        let pause = self.pause_after(&error);
        self.tell(&error, pause);
        pause
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
            Standing::Banned => warn!(error, server, next_ms, "banned: nothing is served"),
            Standing::Evicted => warn!(
                error,
                server,
                next_ms,
                "evicted: the server does not know this agent any more and it cannot attest again; nothing is served"
            ),
            Standing::Good if self.ledger.identities().next().is_some() => {
                warn!(error, server, failures, next_ms, "sync failed; what is held goes on being served");
            }
            Standing::Good => warn!(error, server, failures, next_ms, "sync failed; there is nothing to serve yet"),
        }
    }

    fn rest(&mut self) -> Duration {
        if self.failures > 0 {
            info!(failures = self.failures, "in sync with the server again");
        }
        (self.failures, self.standing) = (0, Standing::Good);
        let poll = poll_in(self.parts.sync_interval, self.ledger.shortest_lifetime(), unit());
        let due = self.ledger.next_due().into_iter().chain(self.agent.as_ref().map(|agent| agent.due)).min();
        due.map_or(poll, |due| poll.min(due.saturating_duration_since(Instant::now()))).max(SHORTEST_PAUSE)
    }

    /// After an answer that is not taken at least twice the base: the same would come again, and each costs memory.
    fn pause_after(&self, error: &SyncError) -> Duration {
        let shortest =
            if error.is_refused_answer() { BACKOFF_BASE.min(self.parts.sync_interval) * 2 } else { Duration::ZERO };
        self.pause_after_failure().max(shortest)
    }

    fn pause_after_failure(&self) -> Duration {
        let base = BACKOFF_BASE.min(self.parts.sync_interval);
        let (base, failures) = match self.standing {
            Standing::Good => (base, self.failures),
            Standing::Evicted | Standing::Banned => (base * BANNED_FACTOR, u32::MAX),
        };
        let pause = backoff(failures, base, base * BACKOFF_CAP_FACTOR, unit());
        let remaining =
            self.ledger.next_end_in(&self.parts.time.moment()).and_then(|seconds| u64::try_from(seconds).ok());
        before_the_end(pause, remaining.map(Duration::from_secs)).max(SHORTEST_PAUSE)
    }

    async fn fetch_bundle(&self, channel: Channel) -> Result<TrustBundle, SyncError> {
        let request = GetBundleRequest { output_mask: None };
        let answer = within(RPC_DEADLINE, BundleClient::new(channel).get_bundle(request)).await?;
        Ok(TrustBundle::from_answer(answer.get_ref(), &self.parts.trust_domain)?)
    }

    /// Makes `bundle` what everything is verified against, and publishes it if it is new: a prepared authority reaches
    /// workloads before anything it signed does.
    fn adopt_bundle(&mut self, bundle: TrustBundle) -> Result<(), SyncError> {
        if self.bundle.as_ref() == Some(&bundle) {
            return Ok(());
        }
        let authorities: Vec<_> = bundle.authorities().cloned().collect();
        self.anchors.replace(&authorities).map_err(crate::server_answers::AnswerRefusal::Authority)?;
        let moment = self.parts.time.moment();
        let marked = self.ledger.mark_untrusted(bundle.untainted_anchors(), Instant::now(), &moment);
        info!(authorities = authorities.len(), svids_to_replace = marked, "trust bundle changed");
        if self.agent_is_untrusted(&bundle) {
            self.rotate_certificate_now();
        }
        self.bundle = Some(bundle);
        self.changes.any = true;
        self.changes.must_not_be_undone = true;
        self.publish();
        Ok(())
    }

    async fn sync_entries(&mut self, channel: Channel) -> Result<(), SyncError> {
        let current = entries::authorized_entries(channel, &self.ledger, &self.parts.trust_domain).await?;
        self.tell_left_out(current.left_out);
        let change = self.ledger.replace_entries(current.terms, Instant::now());
        self.tell_undelivered(current.undelivered);
        if change != EntriesChange::None {
            info!(entries = self.ledger.entries().count(), "registration entries changed");
            self.changes.any = true;
            self.changes.must_not_be_undone = true;
            self.changes.removal |= change == EntriesChange::Removed;
            self.publish();
        }
        Ok(())
    }

    /// Once for each number of entries.
    fn tell_left_out(&mut self, left_out: usize) {
        if std::mem::replace(&mut self.said_left_out, left_out) == left_out {
            return;
        }
        match left_out {
            0 => info!(limit = MAX_ENTRIES, "all entries fit again"),
            _ => error!(
                left_out,
                limit = MAX_ENTRIES,
                "this node has more entries than an agent serves; the newest are left out: delete some, or spread them over nodes"
            ),
        }
    }

    /// Once for each revision of an entry.
    fn tell_undelivered(&mut self, undelivered: Vec<Undelivered>) {
        let ledger = &self.ledger;
        self.said_undelivered.retain(|entry_id, _| ledger.terms(entry_id).is_some());
        for Undelivered { entry_id, revision_number, what } in undelivered {
            let said = self.said_undelivered.get(&entry_id) == Some(&revision_number);
            if !said {
                warn!(entry_id, what, "this agent does not deliver everything that an entry asks for");
            }
            self.said_undelivered.insert(entry_id, revision_number);
        }
    }

    async fn sign_due(&mut self, channel: Channel) -> Result<(), SyncError> {
        let wanted = self.ledger.wanted(Instant::now(), &self.parts.time.moment());
        for batch in wanted.chunks(svids::BATCH) {
            let Some(bundle) = &self.bundle else { return Err(SyncError::NoBundle) };
            let signed = svids::sign(channel.clone(), batch.to_vec(), bundle, &self.parts.time).await?;
            let (now, moment) = (Instant::now(), self.parts.time.moment());
            for (wanted, svid) in signed {
                match svid.and_then(|svid| self.take_svid(&wanted, svid, now, &moment)) {
                    Ok(()) => self.changes.any = true,
                    Err(refusal) => {
                        warn!(entry_id = wanted.entry_id, spiffe_id = %wanted.spiffe_id, error = %describe(&refusal), "no SVID");
                        self.ledger.postpone(&wanted.entry_id, REFUSED_PAUSE, now, &moment);
                    }
                }
            }
            self.ready = true;
            self.publish();
        }
        Ok(())
    }

    fn take_svid(
        &mut self,
        wanted: &Wanted,
        svid: WorkloadSvid,
        now: Instant,
        moment: &Moment,
    ) -> Result<(), SigningRefusal> {
        let span = svid.lifetime.span();
        debug!(spiffe_id = %svid.spiffe_id, entry_id = wanted.entry_id, "SVID rotated");
        match self.ledger.put_svid(&wanted.entry_id, svid, now, moment) {
            true => Ok(()),
            false => Err(AnswerRefusal::Disputed { span, clock: moment.in_words() }.into()),
        }
    }

    async fn post_status_once(&mut self, channel: Channel) {
        if std::mem::replace(&mut self.status_posted, true) {
            return;
        }
        let agent_version = concat!("ironroot-agent ", env!("CARGO_PKG_VERSION")).to_owned();
        let request = PostStatusRequest { agent_version, ..PostStatusRequest::default() };
        if let Err(status) = within(RPC_DEADLINE, AgentClient::new(channel).post_status(request)).await {
            info!(code = ?status.code(), "the server takes no status; it may be an older one");
        }
    }

    /// An explicit ban: nothing is served or kept any more. The process stays, and asks now and then whether the ban was
    /// lifted.
    fn obey_ban(&mut self) {
        if std::mem::replace(&mut self.standing, Standing::Banned) == Standing::Banned {
            return;
        }
        error!("this agent is banned: its identities are withdrawn and its cache is wiped");
        self.agent = None;
        self.ledger.clear();
        self.changes = Changes::default();
        self.wipe_owed = true;
        self.ready = true;
        self.publish();
    }

    /// The server does not know this agent, and it cannot attest again: nothing is served any more, and what is kept goes. Its
    /// certificate stays: what a server forgot it may remember, such as after a restored database.
    fn evicted_if_final(&mut self, error: SyncError) -> SyncError {
        if !error.cannot_attest() || self.standing != Standing::Good {
            return error;
        }
        self.standing = Standing::Evicted;
        self.agent.iter_mut().for_each(|agent| agent.postpone(EVICTED_PAUSE));
        self.ledger.clear();
        self.changes = Changes { any: true, must_not_be_undone: true, removal: true, ..self.changes };
        self.ready = true;
        self.publish();
        error
    }

    /// Tried again until it succeeds: a chip that is away must not keep a ban from holding over a restart.
    async fn wipe_if_owed(&mut self) {
        if !self.wipe_owed {
            return;
        }
        match self.parts.memory.wipe().await {
            Ok(()) => self.wipe_owed = false,
            Err(error) => error!(error = %describe(&error), "cannot wipe what is kept"),
        }
    }

    /// Entries that no server has confirmed for too long.
    fn withdraw_if_too_old(&mut self) {
        let Some(max_age) = self.parts.max_age else { return };
        let age = self.parts.time.now_unix().saturating_sub(self.synced_unix);
        if self.ledger.entries().next().is_some() && age > i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX) {
            warn!(age_seconds = age, "no server has confirmed the identities for too long; they are withdrawn");
            self.ledger.clear();
            self.publish();
        }
    }
}
