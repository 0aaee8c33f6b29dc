//! One call of NewJWTSVID: over the connection that the loop holds, tried again while the server comes back; or, while it is away, a signature of
//! the agent's own key for that, if it has one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_api::jwt::JwtRefusal;
use ironroot_api::pb::svid::NewJwtsvidRequest;
use ironroot_api::pb::svid::svid_client::SvidClient;
use ironroot_api::permission::denial_reason;
use ironroot_shell::describe;
use ironroot_shell::logging::LogLimit;
use tokio::sync::watch;
use tonic::{Code, Status};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::{FetchError, LINES_IN_ALL, LINES_PER_IDENTITY, Token, Wish};
use crate::identities::Identities;
use crate::local_authority::{TokenSigner, TokenToMint};
use crate::server_answers::TrustBundle;
use crate::server_channel::{Channel, RPC_DEADLINE, within};
use crate::server_number::ServerNumber;
use crate::trusted_time::utc;
use crate::upstreams::{Upstream, Upstreams};

/// First pause after a call that did not reach the server; doubles until [`RPC_DEADLINE`] is over. Source: SPIRE.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a token of a key that the bundle does not have waits for a bundle that does.
const BUNDLE_PATIENCE: Duration = Duration::from_secs(5);

/// What a call needs.
pub(super) struct Signing {
    pub identities: watch::Receiver<Arc<Identities>>,
    pub upstreams: Upstreams,
    /// About what is signed here: workloads can ask as often as they like.
    lines: LogLimit<SpiffeId>,
}

impl Signing {
    pub fn new(identities: watch::Receiver<Arc<Identities>>, upstreams: Upstreams) -> Self {
        Self { identities, upstreams, lines: LogLimit::new(LINES_PER_IDENTITY, LINES_IN_ALL) }
    }

    /// A new token, verified.
    pub async fn sign(&self, wish: &Wish) -> Result<Token, FetchError> {
        if let Some(signer) = self.local(wish.terms.server) {
            return self.sign_here(&signer, wish).await;
        }
        match (self.sign_there(wish).await, self.local(wish.terms.server)) {
            // That the server is away was found out meanwhile.
            (Err(_), Some(signer)) => self.sign_here(&signer, wish).await,
            (signed, _) => signed,
        }
    }

    /// What signs here, while that server is away.
    pub fn local(&self, server: ServerNumber) -> Option<TokenSigner> {
        self.upstreams.at(server).local_tokens.borrow().clone()
    }

    async fn sign_here(&self, signer: &TokenSigner, wish: &Wish) -> Result<Token, FetchError> {
        let wanted = TokenToMint::of(&wish.terms, &wish.audiences).ok_or(FetchError::ServerAway)?;
        let time = &self.upstreams.at(wish.terms.server).time;
        let mandate = signer.mandate(&time.moment()).map_err(|why| FetchError::Local(describe(&why)))?;
        let text = signer.sign(mandate, wanted).await.map_err(|why| FetchError::Local(describe(&why)))?;
        // A ban, or another bundle, may have come while the chip was at it.
        let all = self.identities.borrow().clone();
        if !all.holds(&wish.terms) {
            return Err(FetchError::ServerAway);
        }
        let bundle = all.bundle().ok_or(FetchError::ServerAway)?;
        let token = Token::from_answer(&text, wish, bundle, time)?;
        let (spiffe_id, entry_id, until) =
            (&wish.terms.spiffe_id, &wish.terms.id, utc(token.lifetime().span().not_after));
        if let Some(pass) = self.lines.admit(spiffe_id.clone(), Instant::now()) {
            let suppressed = pass.suppressed;
            info!(%spiffe_id, entry_id, until, suppressed, "the server is away: this agent's own key has signed a JWT-SVID");
        }
        Ok(token)
    }

    async fn sign_there(&self, wish: &Wish) -> Result<Token, FetchError> {
        let late = |_| FetchError::Late;
        let upstream = self.upstreams.at(wish.terms.server);
        let signed = tokio::time::timeout(RPC_DEADLINE, signed(upstream, wish));
        let text = Zeroizing::new(signed.await.map_err(late)??);
        let bundle = self.bundle()?;
        let token = match Token::from_answer(&text, wish, &bundle, &upstream.time) {
            Err(FetchError::Token(JwtRefusal::UnknownKey { key_id, .. })) => {
                let bundle = self.newer_bundle(&key_id, upstream).await?;
                Token::from_answer(&text, wish, &bundle, &upstream.time)
            }
            checked => checked,
        }?;
        debug!(spiffe_id = %wish.terms.spiffe_id, entry_id = wish.terms.id, "JWT-SVID signed");
        Ok(token)
    }

    fn bundle(&self) -> Result<Arc<TrustBundle>, FetchError> {
        self.identities.borrow().bundle().cloned().ok_or(FetchError::ServerAway)
    }

    /// A bundle with this key: the server has begun to sign with it since the last sync.
    async fn newer_bundle(&self, key_id: &str, upstream: &Upstream) -> Result<Arc<TrustBundle>, FetchError> {
        upstream.requests.refresh();
        let mut identities = self.identities.clone();
        let has_it = |all: &Arc<Identities>| all.bundle().is_some_and(|b| b.jwt_authorities().find(key_id).is_some());
        let waited = tokio::time::timeout(BUNDLE_PATIENCE, identities.wait_for(has_it)).await;
        drop(waited);
        self.bundle()
    }
}

async fn signed(upstream: &Upstream, wish: &Wish) -> Result<String, FetchError> {
    let mut pause = RETRY_PAUSE;
    loop {
        let channel = upstream.channel().await.ok_or(FetchError::ServerAway)?;
        match call(channel, wish).await {
            Ok(token) => return Ok(token),
            Err(status) if status.code() == Code::Unavailable => debug!(%status, "JWT-SVID not signed; trying again"),
            Err(status) => {
                // What the server has against this agent is the loop's to hear.
                if denial_reason(&status).is_some() {
                    upstream.requests.refresh();
                }
                return Err(status.into());
            }
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn call(channel: Channel, wish: &Wish) -> Result<String, Status> {
    let request = NewJwtsvidRequest { entry_id: wish.terms.id.clone(), audience: wish.audiences.as_slice().to_vec() };
    let answer = within(RPC_DEADLINE, SvidClient::new(channel).new_jwtsvid(request)).await?.into_inner();
    let svid = answer.svid.ok_or_else(|| Status::internal("JWTSVID response missing SVID"))?;
    Ok(svid.token)
}
