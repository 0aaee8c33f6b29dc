//! JWT-SVIDs that the agent signs while its server is away. What hands them out holds a [`TokenSigner`] for as long as that is so.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ironroot_api::SpiffeId;
use ironroot_api::jwt::{Audiences, JoseHeader, SvidClaims, compact, es256_signature, signing_input};
use ironroot_shell::logging::clipped;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::allowances::Allowances;
use super::journal::{Issued, IssuedJwt, Journal};
use super::{AuthorityError, Mandate, NoMandate, lock};
use crate::agent_key::AgentKey;
use crate::config::LocalJwtConfig;
use crate::server_answers::EntryTerms;
use crate::trusted_time::{Lifetime, Moment};

/// The key that signs, and its bounds. Clones share it.
#[derive(Clone)]
pub struct TokenSigner(Arc<State>);

struct State {
    key: AgentKey,
    key_id: String,
    header: JoseHeader,
    lifetime: Lifetime,
    /// When the server was last heard, UNIX seconds.
    synced_unix: i64,
    max_offline: Duration,
    config: LocalJwtConfig,
    journal: Arc<Mutex<Journal>>,
    allowances: Arc<Allowances>,
}

/// The right to sign a JWT-SVID: only [`TokenSigner::mandate`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct TokenMandate(Mandate);

/// What is to be signed: all of it is an entry's, but for whom. Only [`TokenToMint::of`] makes one.
#[derive(Clone, Debug)]
pub struct TokenToMint {
    entry_id: String,
    spiffe_id: SpiffeId,
    /// 0: as long as the configuration says.
    ttl_seconds: i32,
    has_token_id: bool,
    audiences: Audiences,
}

impl TokenToMint {
    /// Of an entry that an agent may sign for: not of one that gives its workload power over the server, nor of one whose key is to be in
    /// hardware, nor where it is not known whether it is such.
    pub fn of(terms: &EntryTerms, audiences: &Audiences) -> Option<Self> {
        let is_signable =
            terms.is_privileged == Some(false) && !terms.asks_for_hardware_key() && !terms.is_of_local_authority();
        let ttl_seconds = terms.certificate.as_ref().and_then(|certificate| certificate.jwt_ttl_seconds)?;
        is_signable.then(|| Self {
            entry_id: terms.id.clone(),
            spiffe_id: terms.spiffe_id.clone(),
            ttl_seconds,
            has_token_id: terms.unique_tokens != Some(false),
            audiences: audiences.clone(),
        })
    }
}

impl TokenSigner {
    pub(super) fn new(
        (key, key_id): (AgentKey, String),
        (lifetime, synced_unix, max_offline): (Lifetime, i64, Duration),
        config: LocalJwtConfig,
        journal: Arc<Mutex<Journal>>,
        allowances: Arc<Allowances>,
    ) -> Self {
        let header = JoseHeader::new("ES256", &key_id, "JWT");
        let state = State { key, key_id, header, lifetime, synced_unix, max_offline, config, journal, allowances };
        Self(Arc::new(state))
    }

    /// Whether and until when it may sign now: the bounds are those of the agent's own CA, with the key's published end in the place of the CA's.
    pub fn mandate(&self, moment: &Moment) -> Result<TokenMandate, NoMandate> {
        let State { lifetime, synced_unix, max_offline, .. } = &*self.0;
        let judged = Mandate::judge(moment, lifetime, *synced_unix, *max_offline);
        judged.map(TokenMandate).map_err(|why| match why {
            NoMandate::AuthorityEnds { not_after } => NoMandate::JwtKeyEnds { not_after },
            other => other,
        })
    }

    /// Signs what `mandate` allows, and notes it on the disk before it is handed out. JWS Compact Serialization.
    pub async fn sign(&self, mandate: TokenMandate, wanted: TokenToMint) -> Result<Zeroizing<String>, AuthorityError> {
        if !self.0.allowances.take(&wanted.entry_id, Instant::now()) {
            return Err(AuthorityError::TooOften);
        }
        let (state, runtime) = (self.0.clone(), Handle::current());
        let signed = spawn_blocking(move || state.sign(mandate.0, wanted, &runtime));
        signed.await.map_err(|_| AuthorityError::Interrupted)?
    }
}

impl State {
    fn sign(
        &self,
        mandate: Mandate,
        wanted: TokenToMint,
        runtime: &Handle,
    ) -> Result<Zeroizing<String>, AuthorityError> {
        let TokenToMint { entry_id, spiffe_id, ttl_seconds, has_token_id, audiences } = wanted;
        let default_ttl = i64::try_from(self.config.default_ttl.as_secs()).unwrap_or(i64::MAX);
        let ttl_seconds = if ttl_seconds > 0 { i64::from(ttl_seconds) } else { default_ttl };
        let (issued_at, expires_at) = (mandate.now(), mandate.span(ttl_seconds).1);
        let token_id = has_token_id.then(random);
        let issuer = self.config.issuer.as_deref();
        let claims = SvidClaims::new(&spiffe_id, audiences.as_slice(), issuer, (issued_at, expires_at), token_id);
        let input = Zeroizing::new(signing_input(&self.header, &claims));
        let signature = self.key.sign_blocking(runtime, input.as_bytes())?;
        let signature = es256_signature(&signature).ok_or(AuthorityError::Signature)?;
        let jwt = Some(IssuedJwt { audience: noted(&audiences), count: 1 });
        let (spiffe_id, serial) = (spiffe_id.to_string(), self.key_id.clone());
        lock(&self.journal).append_token(Issued { entry_id, spiffe_id, serial, issued_at, expires_at, jwt })?;
        Ok(Zeroizing::new(compact(&input, &signature)))
    }
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel's random numbers do not fail");
    bytes
}

/// The beginning of what a workload has asked for, fit for a log.
fn noted(audiences: &Audiences) -> String {
    let all = audiences.as_slice().join(",").replace(char::is_control, "\u{fffd}");
    clipped(&all).to_string()
}
