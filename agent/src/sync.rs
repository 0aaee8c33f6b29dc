//! The one loop that keeps identities current.
//!
//! ```text
//!  wakes:   poll (the interval, a back-off, an operator) · push, deltas (the server's) · due · request (a workload's) · shutdown (wake.rs)
//!  a poll,
//!  a push:  certificate (attest, renew) ─► listen (push.rs) ─► bundle ─► entries ─► others' bundles ─► SVIDs ─► publish ─► keep
//!  deltas:                        bundle and entries of the push (deltas.rs) ─► others' bundles ─► SVIDs ─► publish ─► keep
//!  due, request:                                              SVIDs ─► publish ─► keep
//!  what came of it ─► standing with the server (standing.rs), the next pause (outcome.rs)
//! ```
//! A server that is away, wrong or hostile changes nothing but the log: what is held goes on being served until it
//! expires. Only an explicit ban, or an eviction after which the agent cannot attest again, empties it. Schedules run on the monotonic clock, validity on [`TrustedTime`].

mod awake;
mod bundle;
mod certificate;
mod deltas;
mod distrust;
mod entries;
mod error;
mod executable_only;
mod federation;
mod introduction;
mod ledger;
mod local_authority;
mod local_tokens;
mod memory;
mod on_demand;
mod outcome;
mod publish;
mod push;
mod restore;
mod schedule;
mod sit_out;
mod standing;
mod svids;
mod told;
mod wake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::TrustDomain;
use ironroot_api::pb::agent::PostStatusRequest;
use ironroot_api::pb::agent::agent_client::AgentClient;
use ironroot_api::tls::TrustAnchors;
use ironroot_shell::telemetry::otlp::{self, SPANS};
use tokio::sync::watch;
use tracing::field::Empty;
use tracing::{Instrument, debug, info, info_span};

pub use error::{Denial, SyncError};
pub use ledger::{EntriesChange, Held, Ledger};
pub use memory::{Memory, MemoryError};
pub use wake::{Sleep, Wake, Wakes};

use crate::agent_key::{KeyStore, WorkloadKeyKind};
use crate::config::{Bootstrap, Rebootstrap};
use crate::counted::Counted;
use crate::federated_bundles::FederatedBundles;
use crate::identities::Identities;
use crate::issuance_heads::{IssuanceHeads, Verdict};
use crate::local_authority::{LocalAuthority, TokenSigner};
use crate::node_attestation::Attestor;
use crate::own_certificate::OwnCertificate;
use crate::report::Report;
use crate::sealed_cache::Changes;
use crate::server_answers::{EntryFields, TrustBundle};
use crate::server_channel::{Channel, RPC_DEADLINE, Server, within};
use crate::server_number::ServerNumber;
use crate::trusted_time::TrustedTime;
use crate::union::Bans;
use awake::Awake;
use deltas::Followed;
use distrust::Distrust;
use executable_only::ExecutableOnly;
use outcome::SHORTEST_PAUSE;
use publish::Kept;
use push::{DELTA_SPACING, Opened, Pushes};
pub(crate) use schedule::unit;
use standing::{Agent, Standing};
use svids::MissingWits;
use told::Told;

/// Pause before an entry is asked for again that the server would not sign for.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// What a [`Synchronizer`] is made of.
pub struct Parts {
    /// The agent's trust domain.
    pub trust_domain: TrustDomain,
    /// Its address, and the SPIFFE ID that it must prove.
    pub server: Server,
    /// Which of the agent's servers it is.
    pub number: ServerNumber,
    /// Which of them ban the agent.
    pub bans: Bans,
    /// How the server is known before there is a bundle.
    pub bootstrap: Bootstrap,
    /// When it is known anew by that.
    pub rebootstrap: Rebootstrap,
    /// How the device proves who it is.
    pub attestor: Attestor,
    /// The agent's own keys.
    pub keys: KeyStore,
    /// The agent's own CA, if it is to have one.
    pub local_authority: Option<LocalAuthority>,
    /// What outlives the process.
    pub memory: Memory,
    /// What servers have shown of their issuance logs.
    pub heads: IssuanceHeads,
    /// What is known of the time.
    pub time: TrustedTime,
    /// How often the server is asked for changes.
    pub sync_interval: Duration,
    /// Identities that no server has confirmed for this long are no longer served.
    pub max_age: Option<Duration>,
    /// Whether entries that name a program and nobody who runs it match anybody.
    pub allow_executable_only: bool,
    /// What kind of keys is made for workloads.
    pub workload_keys: WorkloadKeyKind,
    /// Whether workloads may ask for WIT-SVIDs.
    pub wit_svids: bool,
    /// Where every new state is published for the endpoints; they read the newest and never wait.
    pub publisher: watch::Sender<Arc<Identities>>,
    /// Where people who ask find what the loop says of itself.
    pub reporter: watch::Sender<Report>,
    /// The connection to the server, while there is one: what is signed on demand is signed over it, beside the loop.
    pub link: watch::Sender<Option<Channel>>,
    /// What signs JWT-SVIDs beside the loop while the server is away.
    pub local_tokens: watch::Sender<Option<TokenSigner>>,
    /// What the loop counts of itself.
    pub counted: Arc<Counted>,
    /// Where the agent's certificate is found by what serves with it.
    pub shown: OwnCertificate,
}

/// The only writer of identities.
pub struct Synchronizer {
    parts: Parts,
    standing: Standing,
    /// What the configured place had before there was a bundle of the server's.
    configured: Option<Arc<TrustBundle>>,
    /// The last good bundle, and the anchors that open channels judge by.
    bundle: Option<Arc<TrustBundle>>,
    anchors: Arc<TrustAnchors>,
    /// When the newest authority began of all bundles that were held, UNIX seconds.
    newest_authority: i64,
    distrust: Distrust,
    ledger: Ledger,
    federated: FederatedBundles,
    executable_only: ExecutableOnly,
    missing_wits: MissingWits,
    /// When workloads last brought about a poll.
    refreshed: Option<Instant>,
    /// What the server says over that channel by itself.
    pushes: Pushes,
    /// How far that was followed.
    followed: Followed,
    /// Turns that failed since the last that did not.
    failures: u32,
    /// Why the last of them did.
    last_failure: Option<String>,
    /// Whether the server was not there at all when the last turn failed.
    is_server_away: bool,
    next_poll: Instant,
    awake: Awake,
    synced_unix: i64,
    /// The kernel's name for the boot that the agent attested in; empty before that.
    attested_boot: String,
    /// What of all this is not kept yet, and when something was.
    changes: Changes,
    kept: Kept,
    /// What was known of the time when identities were last published, by its version.
    published: u64,
    told: Told,
    /// What the server is told of this agent, until it was.
    status: Option<PostStatusRequest>,
}

impl Synchronizer {
    /// Knows nothing yet.
    pub fn new(parts: Parts) -> Self {
        let anchors = TrustAnchors::new(parts.trust_domain.clone(), &[]).expect("no certificate, none malformed");
        let pushes = Pushes::new(parts.sync_interval);
        Self {
            executable_only: ExecutableOnly::new(parts.allow_executable_only),
            standing: Standing::New,
            configured: None,
            bundle: None,
            anchors,
            newest_authority: i64::MIN,
            distrust: Distrust::new(parts.rebootstrap),
            ledger: Ledger::of(parts.number),
            federated: FederatedBundles::default(),
            missing_wits: MissingWits::default(),
            refreshed: None,
            pushes,
            followed: Followed::default(),
            failures: 0,
            last_failure: None,
            is_server_away: false,
            next_poll: Instant::now(),
            awake: Awake::now(),
            synced_unix: 0,
            attested_boot: String::new(),
            changes: Changes::default(),
            kept: Kept::now(0, &parts.time.moment()),
            published: 0,
            told: Told::default(),
            status: Some(status()),
            parts,
        }
    }

    /// Runs until one of the `wakes` is the end.
    pub async fn run(mut self, mut wakes: Wakes) {
        if !self.pushes.are_wanted() {
            info!("sync_interval is long: the server is asked at that pace, and does not tell of changes meanwhile");
        }
        let mut wake = Wake::Poll;
        let mut shutdown = wakes.shutdown();
        let (bans, number) = (self.parts.bans.clone(), self.parts.number);
        while !matches!(wake, Wake::Shutdown) {
            // A turn that is cut short leaves nothing half done: what it learned is in `self`, and kept below.
            let sleep = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                () = bans.by_another(number) => None,
                sleep = self.turn(wake, &mut wakes) => Some(sleep),
            };
            wake = match sleep {
                None => self.sit_out(&mut shutdown).await,
                Some(sleep) => tokio::select! {
                    wake = wakes.next(sleep, &mut self.pushes) => wake,
                    () = bans.by_another(number) => Wake::Poll,
                },
            };
        }
        self.keep(true).await;
    }

    /// Does what `wake` is about; until when to sleep.
    async fn turn(&mut self, wake: Wake, wakes: &mut Wakes) -> Sleep {
        match self.after_a_sleep(wake) {
            Wake::Poll => self.poll().await,
            Wake::Push(revision) => {
                debug!(revision, "the server tells of a change");
                self.poll().await;
            }
            Wake::Deltas(deltas) => {
                let outcome = self.follow(deltas).await;
                self.pushes.rest(DELTA_SPACING);
                self.go_on_after(outcome).await;
            }
            Wake::PushesEnded => {
                self.next_poll = self.next_poll.min(Instant::now() + self.pushes.come_back().mul_f64(unit()))
            }
            Wake::Due | Wake::Jump if self.is_poll_due() => self.poll().await,
            Wake::Due => self.sign_what_is_due().await,
            Wake::Jump if self.failures == 0 => {
                debug!("the device's clock was set, or the device has slept");
                self.sign_what_is_due().await;
            }
            Wake::Request(request) => {
                let outcome = self.answer(request, wakes).await;
                self.go_on_after(outcome).await;
            }
            // While the server is away the back-off decides when it is asked; what ends is published below.
            Wake::Jump | Wake::Shutdown => {}
        }
        self.publish_if_time_changed();
        self.publish_if_cast_out_or_let_in();
        self.report();
        let unwritten = self.keep(false).await.map(|pause| Instant::now() + pause);
        let renewal = self.standing.agent().filter(|_| self.failures == 0).map(Agent::due);
        // Only a renewal is held back: a poll that each turn moves away would never come while workloads ask.
        let soonest = Instant::now() + SHORTEST_PAUSE;
        let poll = renewal.map_or(self.next_poll, |due| self.next_poll.min(due.max(soonest)));
        self.keep_silence_if_told_nothing();
        Sleep { poll, due: self.next_due().into_iter().chain(unwritten).chain(self.next_overdue()).min() }
    }

    /// After a long sleep of the device the server is asked anew, whatever the schedule of before it says: also one that was away then.
    fn after_a_sleep(&mut self, wake: Wake) -> Wake {
        let Some(slept) = self.awake.long_sleep() else { return wake };
        info!(seconds = slept.as_secs(), "the device has slept; the server is asked over a new connection");
        self.hang_up();
        self.next_poll = Instant::now();
        match wake {
            Wake::Request(_) | Wake::Shutdown => wake,
            _ => Wake::Poll,
        }
    }

    /// Whether the agent's certificate, or a CA or key of its own, is to be replaced: as after a sleep of the device, over which its timers
    /// stood still. Not while the server is away: the back-off decides.
    fn is_poll_due(&self) -> bool {
        let (now, moment) = (Instant::now(), self.parts.time.moment());
        let agent = self.standing.agent().filter(|_| self.failures == 0);
        let is_due = |authority: &LocalAuthority| authority.is_due(&moment) || authority.is_jwt_key_due(&moment);
        agent.is_some_and(|agent| agent.is_due(now, &moment) || self.parts.local_authority.as_ref().is_some_and(is_due))
    }

    /// Whoever is asked rarely is asked over a connection of its own each time: the server would send a PING over one that is
    /// kept, once a minute, and wake a radio with it.
    fn keep_silence_if_told_nothing(&mut self) {
        if !self.pushes.are_wanted() {
            self.hang_up();
        }
    }

    async fn poll(&mut self) {
        // One that drops what it is sent costs a turn's whole time before it counts as away once more.
        self.mint_while_away().await;
        let span = info_span!(target: SPANS, "synchronize", server = self.parts.server.address(), error = Empty);
        let outcome = self.sync_or_attest().instrument(span.clone()).await;
        otlp::done(&span, &outcome);
        self.next_poll = self.judge(outcome).await;
        self.pushes.rest_after_sync(self.parts.sync_interval);
    }

    async fn sign_what_is_due(&mut self) {
        let outcome = self.sign_only().await;
        self.go_on_after(outcome).await;
    }

    /// After something smaller than a poll. What the server says against this agent is a poll's to hear.
    async fn go_on_after(&mut self, outcome: Result<(), SyncError>) {
        let Err(error) = outcome else { return };
        let outcome = if error.denial().is_some() { self.sync_or_attest().await } else { Err(error) };
        self.next_poll = self.judge(outcome).await;
    }

    async fn sync_or_attest(&mut self) -> Result<(), SyncError> {
        match self.sync().await {
            // The agent had no certificate any more, and attested at once.
            Err(error) if error.denial() == Some(Denial::NotAttested) && error.is_of_an_attestation() => {
                Err(self.evicted_if_final(error))
            }
            Err(error) if error.denial() == Some(Denial::NotAttested) => {
                self.give_up_local_authority().await;
                match self.attest().await {
                    Ok(()) => self.sync().await,
                    Err(error) => Err(self.evicted_if_final(error)),
                }
            }
            outcome => outcome,
        }
    }

    async fn sync(&mut self) -> Result<(), SyncError> {
        self.ensure_certificate().await?;
        let channel = self.trusted_channel().await?;
        if !self.goes_on(&channel).await? {
            self.sync_bundle(channel.clone()).await?;
            self.sync_entries(channel.clone()).await?;
            self.sync_federated(channel.clone()).await?;
        }
        self.synced_unix = self.parts.time.now_unix();
        self.sign_due(channel.clone(), self.poll_pause(1.0)).await?;
        self.publish_first();
        self.tend_local_authority(channel.clone()).await;
        // What a workload may have got by now must survive a power cut as soon as possible.
        self.keep(false).await;
        self.post_status_once(channel).await;
        Ok(())
    }

    /// Listens for what changes from now on. True if the server has said what has changed since it was last heard, so that nothing
    /// needs to be asked for.
    async fn goes_on(&mut self, channel: &Channel) -> Result<bool, SyncError> {
        let (held, kept) = (self.what_is_held(), self.parts.heads.to_show());
        let Some(Opened { delta, head }) = self.pushes.listen(channel, held, &kept).await else { return Ok(false) };
        let goes_on = self.go_on_from(delta).await?;
        self.take_head(head.as_deref());
        Ok(goes_on)
    }

    async fn sync_entries(&mut self, channel: Channel) -> Result<(), SyncError> {
        let (kept, fields) = (self.parts.heads.to_show(), self.fields());
        let began = Instant::now();
        let span = info_span!(target: SPANS, "fetch entries", error = Empty);
        let asked = entries::authorized_entries(channel, &self.ledger, &self.parts.trust_domain, fields, &kept);
        let asked = asked.instrument(span.clone()).await;
        otlp::done(&span, &asked);
        self.parts.counted.entries.done(&asked, began.elapsed());
        let current = asked?;
        self.take_head(current.head.as_deref());
        self.told.left_out(current.left_out);
        let change = self.ledger.replace_entries(current.terms, Instant::now());
        self.ledger.pass_over(current.passed_over);
        self.followed.note_sync(change, self.pushes.are_deltas());
        self.entries_changed(change);
        Ok(())
    }

    fn entries_changed(&mut self, change: EntriesChange) {
        if change == EntriesChange::None {
            return;
        }
        let (entries, server) = (self.ledger.entries().count(), self.parts.server.address());
        info!(entries, server, "registration entries changed");
        self.parts.local_authority.iter_mut().for_each(LocalAuthority::ask_soon);
        self.changes.any = true;
        self.changes.must_not_be_undone = true;
        self.changes.removal |= change == EntriesChange::Removed;
        self.publish();
    }

    /// What of its entries the agent asks for.
    fn fields(&self) -> EntryFields {
        if self.parts.local_authority.is_some() { EntryFields::Signed } else { EntryFields::Served }
    }

    /// What the server has shown of its issuance log, and what that is beside what was kept; none of SPIRE's servers does.
    fn take_head(&mut self, head: Option<&[u8]>) -> Option<Verdict> {
        let (head, bundle) = head.zip(self.bundle.as_ref())?;
        let authorities: Vec<_> = bundle.authorities().collect();
        self.parts.heads.take(head, self.parts.trust_domain.as_str(), &authorities)
    }

    async fn post_status_once(&mut self, channel: Channel) {
        let Some(request) = self.status.take() else { return };
        if let Err(status) = within(RPC_DEADLINE, AgentClient::new(channel).post_status(request)).await {
            info!(code = ?status.code(), "the server takes no status; it may be an older one");
        }
    }
}

fn status() -> PostStatusRequest {
    let agent_version = concat!("ironroot-agent ", env!("CARGO_PKG_VERSION")).to_owned();
    PostStatusRequest { agent_version, ..PostStatusRequest::default() }
}

#[cfg(test)]
mod device_years;
#[cfg(test)]
mod tests;
