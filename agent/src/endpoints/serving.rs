//! What every API of the agent's sockets does for a caller: finds out who it is, finds what it may have, and goes on telling it.
//!
//! ```text
//!  caller ─► attest (turns of its user) ─► Seen: what is published, through its selectors ─► Question ─► answer
//!                                                                      ▲                        └── again on each change
//! ```
//! An API adds its messages (a [`Question`]) and nothing of this.

mod hidden;
mod nobody;
mod question;
mod referred;
mod seen;
mod subscription;
mod tokens;
mod turns;
mod view;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use ironroot_attest::SelectorSet;
use ironroot_attest::workload::{Demand, Peer, UnixAttestor, WithheldSelector, WorkloadRefusal};
use tokio::sync::watch;
use tonic::{Code, Request, Status};
use tracing::{info, warn};

pub(super) use question::{Heard, Question};
pub(super) use seen::Seen;
pub(super) use subscription::{NEVER, Subscription};
pub(super) use view::{Bundles, View, same_bundles, same_jwt_bundles};

use super::admission::{About, Admission};
use super::broker::AuthenticatedBroker;
use super::call_rates::CallBounds;
use super::caller::Known;
use super::door::Admitted;
use super::tally::Tally;
use super::{BoundedCall, CallRates, LoggedSelectors, NowUnix, Sources, VerifierPolicy};
use crate::hardware_keys::HardwareKeys;
use crate::identities::Identities;
use crate::jwt_svids::JwtSvids;
use crate::requests::Requests;
use crate::trusted_time::Jumps;
use turns::{Turn, Turns};

/// How long one attestation may take, and wait for its turn; longer means a file system or user database that hangs.
const ATTESTATION_DEADLINE: Duration = Duration::from_secs(5);
/// How long a caller may take to acknowledge our SETTINGS, where an entry asks for its executable. HTTP/2 clients do at once, on a
/// busy device within a second; who does not keeps what its user gives it.
const SECOND_WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// Somebody who could not be asked about a caller is asked again after this, as long as its stream is open.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// The answer to a caller of which too little is known.
const UNASKED: &str =
    "whoever knows this workload's container or unit (docker, podman, the kubelet, systemd) cannot be asked now";

/// What was found out of a process, and what was not.
pub(super) type Found = ironroot_attest::workload::Attested;

/// A message stream to a caller.
pub(super) type MessageStream<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// What the APIs share. Clones share everything.
#[derive(Clone)]
pub(super) struct Serving(Arc<State>);

struct State {
    attestor: Arc<UnixAttestor>,
    admission: Admission,
    verifiers: VerifierPolicy,
    logged_selectors: LoggedSelectors,
    bounds: CallBounds,
    identities: watch::Receiver<Arc<Identities>>,
    requests: Requests,
    jwt_svids: JwtSvids,
    hardware_keys: HardwareKeys,
    turns: Turns,
    now: NowUnix,
    jumps: Jumps,
    stopping: watch::Receiver<bool>,
    tally: Arc<Tally>,
}

/// What the operator has said of how callers are served.
pub(super) struct Manners {
    pub verifiers: VerifierPolicy,
    pub logged_selectors: LoggedSelectors,
    pub call_rates: CallRates,
}

/// What is known about a caller.
pub(super) struct Attested {
    /// All that was proven of it.
    pub selectors: Arc<SelectorSet>,
    /// Which entries' questions about its executable and unit were heard.
    demand: Demand,
    /// Whether it may have more than that: somebody who knows could not be asked.
    unasked: bool,
    /// When to ask again who could not be asked.
    again: Option<Instant>,
}

impl Attested {
    fn of(found: Found, demand: Demand) -> Self {
        let unasked = found.is_unasked();
        let again = (unasked || found.is_kept).then(|| Instant::now() + ASK_AGAIN);
        Self { selectors: Arc::new(found.selectors), demand, unasked, again }
    }

    /// Whether nothing more must be known to tell what of `identities` is the caller's.
    fn suffices_for(&self, identities: &Identities) -> bool {
        let demand = identities.demand();
        let is_due = self.again.is_some_and(|at| at <= Instant::now());
        !is_due && (*demand == self.demand || !asks_for_more(demand, &self.selectors))
    }

    /// How long that is so, if nothing is published.
    fn lasts(&self) -> Duration {
        self.again.map_or(NEVER, |at| at.saturating_duration_since(Instant::now()))
    }

    /// The refusal of a caller that may have what it asks for.
    pub fn expect_asked(&self) -> Result<(), Status> {
        match self.unasked {
            true => Err(Status::unavailable(UNASKED)),
            false => Ok(()),
        }
    }
}

/// Whether anything but whose it is could decide about a caller: its executable, its unit, its container.
fn asks_for_more(demand: &Demand, known: &SelectorSet) -> bool {
    demand.concerns(known) || demand.concerns_unit(known) || demand.concerns_container(known)
}

impl Serving {
    pub fn new(
        attestor: Arc<UnixAttestor>,
        admission: Admission,
        manners: Manners,
        sources: Sources,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let Manners { verifiers, logged_selectors, call_rates } = manners;
        for (call, limit) in call_rates.bounded() {
            info!(method = call.path(), limit, "Workload API/SDS rate limiting enabled");
        }
        let bounds = CallBounds::new(call_rates);
        let turns = Turns::new(admission.clone(), ATTESTATION_DEADLINE);
        let Sources { identities, requests, jwt_svids, hardware_keys, now, jumps, tally } = sources;
        Self(Arc::new(State {
            attestor,
            admission,
            verifiers,
            logged_selectors,
            bounds,
            identities,
            requests,
            jwt_svids,
            hardware_keys,
            turns,
            now,
            jumps,
            stopping,
            tally,
        }))
    }

    /// JWT-SVIDs, which are made when they are asked for.
    pub fn jwt(&self) -> &JwtSvids {
        &self.0.jwt_svids
    }

    /// Certificates for keys in hardware, likewise.
    pub fn hardware_keys(&self) -> &HardwareKeys {
        &self.0.hardware_keys
    }

    /// The time that ends are measured by, seconds.
    pub fn now(&self) -> i64 {
        (self.0.now)()
    }

    /// Whether a line about this caller may be logged now.
    pub fn admission(&self) -> &Admission {
        &self.0.admission
    }

    /// Whoever sent a request that has passed the broker's door, and has proven to be it.
    pub fn broker(&self, request: &Request<impl Sized>) -> Result<Arc<AuthenticatedBroker>, Status> {
        let admitted = request.extensions().get::<Admitted>();
        let broker = admitted.and_then(|admitted| admitted.caller().broker().cloned());
        broker.ok_or_else(|| Status::unauthenticated("a connection that proved no broker"))
    }

    /// What those are told who verify SVIDs of others.
    pub fn verifiers(&self) -> &VerifierPolicy {
        &self.0.verifiers
    }

    /// One of the turns of the user behind `uid`, for work that is not done by [`in_turn`](Self::in_turn); given back on drop.
    pub async fn turn_of(&self, uid: u32) -> Result<Turn, Status> {
        self.0.turns.of_user(uid).await
    }

    /// Done once serving is to stop.
    pub async fn is_stopping(&self) {
        super::is_stopping(self.0.stopping.clone()).await;
    }

    /// Whoever sent a request that has passed the door.
    pub fn caller(&self, request: &Request<impl Sized>) -> Result<Known, Status> {
        let admitted = request.extensions().get::<Admitted>();
        let admitted = admitted.ok_or_else(|| Status::internal("a request that did not pass the door"))?;
        Ok(admitted.caller().known().map_err(attestation_failed)?.clone())
    }

    /// Answers whoever sent `request`, now and on each change. A refusal is the answer to the call itself.
    pub async fn subscribe<Q: Question>(
        &self,
        request: &Request<impl Sized>,
        question: Q,
    ) -> Result<MessageStream<Q::Answer>, Status> {
        let caller = self.caller(request)?;
        let attested = self.attest(&caller).await?;
        Q::BOUNDED.map_or(Ok(()), |call| self.expect_in_rate(call, &caller.peer, &attested))?;
        Subscription::begin(self.clone(), caller, attested, question).await
    }

    /// Refuses a call of a caller that was attested, if those with its selectors call too often. The words are SPIRE's. Nobody is exempt:
    /// this agent does not call itself.
    pub fn expect_in_rate(&self, call: BoundedCall, peer: &Peer, caller: &Attested) -> Result<(), Status> {
        let (uid, pid, now) = (peer.uid(), peer.pid(), Instant::now());
        if self.0.bounds.admit(call, &caller.selectors, now) {
            return Ok(());
        }
        self.0.tally.over_rate(call);
        let method = call.path();
        if let Some(pass) = self.0.admission.should_log(uid, About::Rate, now) {
            info!(uid, pid, method, suppressed = pass.suppressed, "rate limit exceeded (experimental.ratelimit)");
        }
        Err(Status::unavailable(format!("rate limit exceeded for {method}")))
    }

    /// What is published, be it nothing yet.
    pub fn published(&self) -> Arc<Identities> {
        self.0.identities.borrow().clone()
    }

    /// What is published, once there is something.
    pub fn started(&self) -> Result<Arc<Identities>, Status> {
        let all = self.published();
        //= WLE-07 SPIFFE Workload Endpoint 6: "if it is still initializing or it is performing load shedding"
        if all.bundle().is_some() { Ok(all) } else { Err(Status::unavailable("the agent is still starting")) }
    }

    /// What is published, from now on.
    pub fn follow_published(&self) -> watch::Receiver<Arc<Identities>> {
        self.0.identities.clone()
    }

    /// Finds out who the caller is now; its executable only if an entry asks for it and the caller has spoken again.
    pub async fn attest(&self, caller: &Known) -> Result<Attested, Status> {
        let began = Instant::now();
        let looked = self.look_at(caller).await;
        let code = looked.as_ref().err().map_or(Code::Ok, Status::code);
        self.0.tally.attestations.ended(code, began.elapsed());
        let (found, demand) = looked?;
        Ok(self.noted(&caller.peer, found, demand))
    }

    fn noted(&self, process: &Peer, found: Found, demand: Demand) -> Attested {
        self.report(process, &found);
        Attested::of(found, demand)
    }

    /// The same with what was withheld, and the entries' questions that were heard.
    pub async fn look_at(&self, caller: &Known) -> Result<(Found, Demand), Status> {
        let (peer, attestor) = (&caller.peer, &self.0.attestor);
        let demand = self.0.identities.borrow().demand().clone();
        let heeded = demand.clone();
        let user = self.in_turn(peer, move |attestor, peer| attestor.attest_user(peer, &heeded)).await?;
        if !attestor.looks_at_executables() || !demand.concerns(&user.selectors) {
            return Ok((user, demand));
        }
        let heard = caller.voice.second_write(SECOND_WRITE_PATIENCE).await;
        let heeded = demand.clone();
        let found = self.in_turn(peer, move |attestor, peer| attestor.attest(peer, &heeded, heard)).await?;
        Ok((found, demand))
    }

    /// Finds out whose process has the number `pid` now, for a delegate, at the cost of the delegate's turns.
    pub async fn attest_numbered(&self, delegate: &Known, pid: i32) -> Result<(Peer, Attested), Status> {
        let demand = self.published().demand().clone();
        let (process, found) = self.look_at_numbered(delegate, pid).await?;
        let attested = self.noted(&process, found, demand);
        Ok((process, attested))
    }

    /// The same, with what was withheld.
    async fn look_at_numbered(&self, asking: &Known, pid: i32) -> Result<(Peer, Found), Status> {
        let looked = self.look_at_named(asking, pid).await?;
        looked.map_err(|refusal| self.refused(&asking.peer, &refusal))
    }

    /// The same, for whoever asks. The outer error is the caller's.
    pub async fn look_at_named(
        &self,
        asking: &Known,
        pid: i32,
    ) -> Result<Result<(Peer, Found), WorkloadRefusal>, Status> {
        let demand = self.0.identities.borrow().demand().clone();
        self.in_turn(&asking.peer, move |attestor, _| Ok(attestor.attest_numbered(pid, &demand))).await
    }

    /// Before an update: the caller as it is now. Whoever's user and groups are the same, and whose unit, container and
    /// executable decide nothing, is not attested anew: a publication wakes every stream at once.
    pub async fn attest_again(&self, caller: &Known, before: &Attested) -> Result<Attested, Status> {
        let (attestor, peer, known) = (&self.0.attestor, &caller.peer, &before.selectors);
        let demand = self.0.identities.borrow().demand().clone();
        let decides_nothing_else = !asks_for_more(&demand, known);
        // On this thread: handing it to another one and back costs more than the look itself.
        let is_still = || attestor.is_still(peer, known).map_err(|refusal| self.refused(peer, &refusal));
        match attestor.knows_again() && decides_nothing_else && is_still()? {
            true => Ok(Attested { selectors: known.clone(), demand, unasked: false, again: None }),
            false => self.attest(caller).await,
        }
    }

    /// Does a piece of work for a caller off the runtime's threads, when it is its user's turn.
    pub async fn in_turn<T: Send + 'static>(
        &self,
        peer: &Peer,
        work: impl FnOnce(&UnixAttestor, &Peer) -> Result<T, WorkloadRefusal> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.0.turns.of_user(peer.uid()).await?;
        let (attestor, caller) = (self.0.attestor.clone(), peer.clone());
        let job = tokio::task::spawn_blocking(move || {
            let done = work(&attestor, &caller);
            // Held until the thread is really free, also when nobody waits any more.
            drop(turn);
            done
        });
        match tokio::time::timeout(ATTESTATION_DEADLINE, job).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(refusal))) => Err(self.refused(peer, &refusal)),
            Ok(Err(_)) => Err(Status::unavailable("workload attestation failed")),
            Err(_) => Err(Status::unavailable("workload attestation takes too long")),
        }
    }

    /// Says, once in a while, what an entry asked for and could not be told, and what is told of an earlier proof.
    fn report(&self, peer: &Peer, attested: &Found) {
        let (pid, uid) = (peer.pid(), peer.uid());
        if attested.withheld.is_empty() && attested.replaced_on_disk.is_none() {
            return;
        }
        let Some(pass) = self.0.admission.should_log(uid, About::Withheld, Instant::now()) else { return };
        let suppressed = pass.suppressed;
        for WithheldSelector { selector, why } in &attested.withheld {
            info!(pid, uid, selector, reason = why as &dyn Error, suppressed, "withheld a selector");
        }
        if let Some(path) = &attested.replaced_on_disk {
            warn!(
                pid,
                uid,
                %path,
                "the executable was replaced on disk: this connection keeps the selector, a new one would not get it; restart the workload"
            );
        }
    }

    fn refused(&self, peer: &Peer, refusal: &WorkloadRefusal) -> Status {
        let (uid, pid, error) = (peer.uid(), peer.pid(), refusal as &dyn Error);
        if let Some(pass) = self.0.admission.should_log(uid, About::Attestation, Instant::now()) {
            warn!(uid, pid, error, suppressed = pass.suppressed, "workload not attested");
        }
        attestation_failed(refusal)
    }
}

pub(super) fn attestation_failed(refusal: &WorkloadRefusal) -> Status {
    Status::unavailable(format!("workload attestation failed: {refusal}"))
}
