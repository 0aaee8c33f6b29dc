//! The CA as the rest of the server sees it: it signs, and it publishes its bundle.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::csr::Spki;
use ironroot_api::jwt::HolderKey;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::command_line::describe;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agent_to_sign::AgentToSign;
use super::appended::{AppendError, AppendedAuthorities};
use super::bundle::{TokenKey, TrustBundle};
use super::ca_to_sign::CaToSign;
use super::issuer::{IssuedCa, IssuedSvid};
use super::jwt::{Audience, Claims, IssuedToken, JwtError, JwtSubject};
use super::local_authorities::{AuthorityState, LocalAuthorities};
use super::minted::SvidToMint;
use super::orders::{OrderError, Orders};
use super::profile::{Leaf, Serial};
use super::published::{PublishError, PublishedKey, TokenKind, longest_published_life};
use super::purpose::Purpose;
use super::rotating::{Published, Rotation};
use super::rotation::by_hand::Order;
use super::sampling::Scrutiny;
use super::signed::{Signed, SignedFor};
use super::signers::Signers;
use super::steps_done::StepsDone;
use super::upstream::{Followers, Upstream};
use super::wit::{WitClaims, WitSubject};
use super::{CaError, CaPolicy};
use crate::clock::{ClockSource, ServerClock};
use crate::facts::through::serial_through;
use crate::keys::{KeyError, KeyManagers};
use crate::registry::AuthorizedEntry;
use crate::rights::{Administrator, OwnAuthorities};
use crate::store::Store;

/// What was stored is in the bundle within this time, unless the token keeps the rotation.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// Signs for one trust domain with keys that stay in the token.
pub struct CertificateAuthority {
    policy: Arc<CaPolicy>,
    clock: Arc<ServerClock>,
    published: Arc<Published>,
    store: Store,
    orders: Orders,
    upstream: Option<Arc<Upstream>>,
    signed: Arc<Signed>,
}

impl CertificateAuthority {
    /// Finds the CA's keys again, or makes the first CA if there never was one, and brings it to where it should be now, by the
    /// clocks of `source`. It signs from then on; the [`Rotation`] renews it for as long as it runs.
    ///
    /// Errors: the token or the store fails, or they do not belong together; see [`CaError`].
    pub async fn start(
        keys: impl Into<KeyManagers>,
        store: Store,
        policy: CaPolicy,
        upstream: Option<Upstream>,
        source: ClockSource,
    ) -> Result<(Self, Rotation), CaError> {
        let (policy, upstream) = (Arc::new(policy), upstream.map(Arc::new));
        let started =
            Rotation::start(keys.into(), store.clone(), Arc::clone(&policy), upstream.clone(), source).await?;
        let (rotation, orders) = started;
        let (clock, published) = (rotation.clock(), rotation.published());
        Ok((Self { policy, clock, published, store, orders, upstream, signed: Arc::default() }, rotation))
    }

    /// What was signed since the start.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What the rotation has done since the start.
    pub fn steps_done(&self) -> &StepsDone {
        self.published.done()
    }

    /// The clock that the CA decides by.
    pub fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.clock)
    }

    /// Why nothing can be signed or decided now, whatever the token does; none if nothing speaks against it.
    pub fn trouble(&self) -> Option<String> {
        let now_unix = self.clock.moment().now_unix;
        self.clock.alarm().or_else(|| self.signers().trouble(now_unix).map(|error| describe(&error)))
    }

    /// Why the CA may end without a successor; none if nothing speaks for it.
    pub fn rotation_trouble(&self) -> Option<String> {
        self.published.rotation_trouble(self.clock.moment().now_unix)
    }

    /// Has the token sign something with the key of the CA, unless that has signed within this time.
    pub async fn probe(&self, unless_within: Duration) -> Result<(), KeyError> {
        match self.signers().at(self.clock.moment().now_unix) {
            Ok(issuer) => issuer.probe(unless_within).await,
            // What is wrong then is not the token's.
            Err(_) => Ok(()),
        }
    }

    /// Whose CA it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.policy.trust_domain
    }

    /// Has the CA sign a statement, which is no certificate: see [`Issuer`](super::issuer::Issuer).
    pub(crate) async fn sign_statement(&self, statement: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), CaError> {
        self.signers().at(self.clock.moment().now_unix)?.sign_statement(statement).await
    }

    /// The trust bundle, now and after each change.
    pub fn bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.published.bundle()
    }

    /// The CAs that sign SVIDs for the servers of this data store, now and after each change.
    pub fn own_authorities(&self) -> Arc<OwnAuthorities> {
        self.published.own()
    }

    /// Waits until [`own_authorities`](Self::own_authorities) has what the store's followers have been told by now: the [`Rotation`] reads it
    /// after them. For ever while that does not run.
    pub async fn shows_own_authorities(&self) {
        self.published.shows_journals().await;
    }

    /// How long an authority of that purpose is to live, seconds; none if there is none.
    pub fn lifetime_seconds(&self, purpose: Purpose) -> Option<i64> {
        match purpose {
            Purpose::Root => self.policy.root_ttl_seconds,
            Purpose::X509Ca => Some(self.policy.ca_ttl_seconds),
            Purpose::Jwt => self.policy.jwt.as_ref().map(|_| self.policy.ca_ttl_seconds),
            Purpose::Wit => self.policy.wit.as_ref().map(|_| self.policy.ca_ttl_seconds),
        }
    }

    /// Whether a root signs the CAs.
    pub fn has_root(&self) -> bool {
        self.policy.root_ttl_seconds.is_some()
    }

    /// Who makes the roots of the authority above, and how; none where there is none above.
    pub fn renewed_above(&self) -> Option<&'static str> {
        self.upstream.as_ref().map(|upstream| upstream.renewed_by())
    }

    /// The authorities of that purpose: which signs, which comes next, which signed before.
    pub fn local_authorities(&self, purpose: Purpose) -> LocalAuthorities {
        self.published.local_authorities(purpose)
    }

    /// Has the [`Rotation`] carry out an order, after those that came before; which authority it was about. What was done is on disk and
    /// published by then. The order is carried out to its end although the future is dropped.
    pub async fn obey(&self, _by: &Administrator, order: Order) -> Result<AuthorityState, OrderError> {
        self.orders.give(order).await
    }

    /// Keeps the bundle and that of the authority above in step, if there is one, for as long as it is polled. Never ends.
    pub async fn follow_upstream(&self, now: fn() -> i64) {
        match &self.upstream {
            Some(upstream) => {
                let (store, published, orders) = (self.store.clone(), self.published.clone(), self.orders.clone());
                upstream.follow(Followers { store, published, orders, now }).await;
            }
            None => std::future::pending().await,
        }
    }

    fn signers(&self) -> Arc<Signers> {
        self.published.signers()
    }

    /// Signs SVIDs for workloads of these entries, which the agent `through` asks for, on all sessions of the token at once; one result for
    /// each request, in order.
    /// Dropping the future takes what is not signed yet out of the token's queue.
    pub async fn sign_workload_svids(
        &self,
        through: &SpiffeId,
        requests: Vec<(AuthorizedEntry, Spki)>,
        now_unix: i64,
    ) -> Vec<Result<IssuedSvid, CaError>> {
        let signers = self.signers();
        let mut results: Vec<_> = requests.iter().map(|_| Err(CaError::Interrupted)).collect();
        let mut tasks = JoinSet::new();
        for (number, (entry, spki)) in requests.into_iter().enumerate() {
            let (issuer, leaf) = (signers.at(now_unix), self.workload(&entry, spki));
            let serial = serial_through(through, Serial::random().into()).into();
            let (signed, began) = (Arc::clone(&self.signed), Instant::now());
            tasks.spawn(async move {
                let issued = match issuer {
                    Ok(issuer) => issuer.issue(&leaf, serial, Scrutiny::Sampled, now_unix).await,
                    Err(error) => Err(error),
                };
                (number, signed.note(SignedFor::Workload, began, issued))
            });
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((number, result)) = done {
                results[number] = result;
            }
        }
        results
    }

    /// Signs an SVID for whoever has shown something that stands for the entry until `ends_by`, UNIX seconds: it lasts no longer. The
    /// signature is verified before it leaves.
    pub async fn sign_svid_until(
        &self,
        entry: &AuthorizedEntry,
        spki: Spki,
        ends_by: i64,
        now_unix: i64,
    ) -> Result<IssuedSvid, CaError> {
        let leaf = self.workload(entry, spki);
        let ttl_seconds = leaf.ttl_seconds.min(ends_by.saturating_sub(now_unix));
        self.issue(SignedFor::Workload, &Leaf { ttl_seconds, ..leaf }, now_unix).await
    }

    /// Signs for an agent, `agent_ttl` long at most and no longer than the CA lives. The signature is verified before it leaves.
    pub async fn sign_agent_svid(&self, agent: AgentToSign<'_>, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let leaf = Leaf::plain(agent.id.clone(), agent.spki.clone(), self.policy.agent_ttl_seconds);
        self.issue(SignedFor::Agent, &leaf, now_unix).await
    }

    /// Signs what an administrator asks for, `default_x509_svid_ttl` long if it does not say how long, and no longer than the CA
    /// lives. The signature is verified before it leaves.
    pub async fn sign_minted_svid(&self, svid: SvidToMint, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let SvidToMint { id, dns_names, spki, ttl_seconds } = svid;
        let ttl_seconds = if ttl_seconds == 0 { self.policy.x509_svid_ttl_seconds } else { ttl_seconds };
        let leaf = Leaf { id, dns_names, has_unique_id: self.policy.unique_ids, spki, ttl_seconds };
        self.issue(SignedFor::Administrator, &leaf, now_unix).await
    }

    /// Certifies the CA of a server below, as long as it asks for or `ca_ttl`, and no longer than the CA that signs it lives.
    pub async fn sign_downstream_ca(&self, ca: CaToSign, now_unix: i64) -> Result<IssuedCa, CaError> {
        let (began, signers) = (Instant::now(), self.signers());
        let certified = async { signers.at(now_unix)?.certify_downstream(&ca, &self.policy, now_unix).await };
        self.signed.note(SignedFor::DownstreamCa, began, certified.await)
    }

    /// Puts authorities into the bundle, beside what is there. Returns the bundle that has them.
    pub async fn append_authorities(&self, appended: AppendedAuthorities) -> Result<Arc<TrustBundle>, AppendError> {
        let mut bundle = self.bundle();
        let (known, stored) = (bundle.borrow().clone(), appended.clone());
        self.store.change(move |tx| stored.store(tx, &known)).await?;
        let shown = bundle.wait_for(|bundle| appended.are_in(bundle));
        match tokio::time::timeout(SHOWN_WITHIN, shown).await {
            Ok(Ok(bundle)) => Ok(Arc::clone(&bundle)),
            _ => Err(AppendError::NotShownYet),
        }
    }

    /// For how long a key of a server below may be good, seconds.
    pub fn longest_published_life(&self) -> i64 {
        longest_published_life(self.policy.ca_ttl_seconds)
    }

    /// Puts a key of a server below into the bundle, before that server signs with it. Returns the keys of the trust domain of its kind.
    pub async fn publish_key(&self, key: PublishedKey) -> Result<Vec<TokenKey>, PublishError> {
        let bundle = self.bundle().borrow().clone();
        let mut all = match key.kind() {
            TokenKind::Jwt => bundle.jwt_authorities.clone(),
            TokenKind::Wit => bundle.wit_authorities.clone(),
        };
        key.check_name(&all)?;
        let published = key.in_bundle();
        self.store.change(move |tx| key.store(tx)).await?;
        if all.iter().all(|known| known.key_id != published.key_id) {
            all.push(published);
        }
        Ok(all)
    }

    /// Signs this server's own TLS certificate for the key `spki`, `default_x509_svid_ttl` long at most; verified likewise.
    pub async fn sign_server_svid(&self, spki: &Spki, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let leaf = Leaf::plain(self.policy.trust_domain.server_id(), spki.clone(), self.policy.x509_svid_ttl_seconds);
        self.issue(SignedFor::Server, &leaf, now_unix).await
    }

    async fn issue(&self, what: SignedFor, leaf: &Leaf, now_unix: i64) -> Result<IssuedSvid, CaError> {
        let (began, signers) = (Instant::now(), self.signers());
        let issued = async { signers.at(now_unix)?.issue(leaf, Serial::random(), Scrutiny::Full, now_unix).await };
        self.signed.note(what, began, issued.await)
    }

    /// Whether the configuration has JWT-SVIDs signed.
    ///
    /// Errors: [`JwtError::Disabled`].
    pub fn offers_jwt_svids(&self) -> Result<(), JwtError> {
        self.policy.jwt.as_ref().map(drop).ok_or(JwtError::Disabled)
    }

    /// Signs a JWT-SVID, as long as its subject or the policy says and no longer than its key lives.
    pub async fn sign_jwt_svid(
        &self,
        subject: &JwtSubject,
        audience: &Audience,
        now_unix: i64,
    ) -> Result<IssuedToken, CaError> {
        let policy = self.policy.jwt.as_ref().ok_or(JwtError::Disabled)?;
        let signer = self.signers().jwt_at(now_unix)?;
        let mut token_id = [0; 16];
        aws_lc_rs::rand::fill(&mut token_id).expect("the kernel's random numbers do not fail");
        let (began, claims) = (Instant::now(), Claims::new(subject, audience, policy, now_unix, token_id));
        self.signed.note(SignedFor::JwtSvid, began, signer.sign(claims).await)
    }

    /// Whether the configuration has WIT-SVIDs signed.
    ///
    /// Errors: [`JwtError::WitDisabled`].
    pub fn offers_wit_svids(&self) -> Result<(), JwtError> {
        self.policy.wit.as_ref().map(drop).ok_or(JwtError::WitDisabled)
    }

    /// Signs a WIT-SVID for `subject` and its key, as long as the subject says and no longer than the key that signs lives.
    pub async fn sign_wit_svid(
        &self,
        subject: &WitSubject,
        holder: &HolderKey,
        now_unix: i64,
    ) -> Result<IssuedToken, CaError> {
        let policy = self.policy.wit.as_ref().ok_or(JwtError::WitDisabled)?;
        let signer = self.signers().wit_at(now_unix)?;
        let (began, claims) = (Instant::now(), WitClaims::new(subject, holder, policy, now_unix));
        self.signed.note(SignedFor::WitSvid, began, signer.sign(claims).await)
    }

    fn workload(&self, entry: &AuthorizedEntry, spki: Spki) -> Leaf {
        let entry = entry.entry();
        let ttl_seconds = match entry.x509_svid_ttl() {
            0 => self.policy.x509_svid_ttl_seconds,
            seconds => i64::from(seconds),
        };
        let dns_names = entry.dns_names().to_vec();
        let has_unique_id = self.policy.unique_ids;
        Leaf { id: entry.spiffe_id().clone(), dns_names, has_unique_id, spki, ttl_seconds }
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({})", self.policy.trust_domain)
    }
}
