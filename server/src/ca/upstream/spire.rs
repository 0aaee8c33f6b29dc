//! A server above this one: SPIRE's or ours. This server is a workload of an agent there, whose Workload API gives it its SVID.
//!
//! ```text
//!  Workload API ── SVID, bundle ──► Session (mTLS, the server's own ID) ──► NewDownstreamX509CA · GetBundle · PublishJWTAuthority
//! ```
//! Source: SPIRE pkg/server/plugin/upstreamauthority/spire.

mod above;
mod error;
mod following;
mod identity;
mod session;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::bundle::{GetBundleRequest, PublishJwtAuthorityRequest, PublishWitAuthorityRequest};
use ironroot_api::pb::svid::NewDownstreamX509caRequest;
use ironroot_api::pb::types;
use ironroot_api::tls::KeyExchanges;
use ironroot_shell::clock::wall_unix;
use tonic::{Response, Status};

use super::{CaRequest, MintedCa, UpstreamError};
use crate::ca::published::TokenKind;
use above::Above;
use session::Session;

pub use error::SpireError;
pub(super) use following::follow;

/// Longest wait for one answer, the connection included. The rotation goes on with other steps then, and tries again.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where the server above is, and who gives this server its SVID there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireServer {
    /// A name or an address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The Workload API's socket.
    pub workload_api_socket: PathBuf,
    /// What the link to it may agree on.
    pub key_exchanges: KeyExchanges,
}

/// The server above, and the connection to it.
pub struct SpireAuthority {
    server: SpireServer,
    trust_domain: TrustDomain,
    session: Mutex<Option<Session>>,
}

impl SpireAuthority {
    /// Nothing is dialled yet.
    pub fn new(server: SpireServer, trust_domain: TrustDomain) -> Self {
        Self { server, trust_domain, session: Mutex::default() }
    }

    pub(super) async fn mint(&self, request: &CaRequest) -> Result<MintedCa, UpstreamError> {
        let preferred_ttl = i32::try_from(request.ttl_seconds).unwrap_or(i32::MAX);
        let asked = NewDownstreamX509caRequest { csr: request.csr.clone().into(), preferred_ttl };
        let call = async { self.session().await?.svids().new_downstream_x509ca(asked).await.map_err(refused) };
        let answer = self.ask("unable to request a new Downstream X509CA", call).await?;
        let chain = answer.ca_cert_chain.iter().map(|der| Certificate::parse(der)).collect::<Result<_, _>>()?;
        // The roots in that answer do not say which of them are tainted.
        MintedCa::new(chain, self.above().await?.roots)
    }

    /// All that the server above has.
    async fn above(&self) -> Result<Above, UpstreamError> {
        let asked = GetBundleRequest::default();
        let call = async { self.session().await?.bundles().get_bundle(asked).await.map_err(refused) };
        let bundle = self.ask("failed to fetch bundle from upstream server", call).await?;
        Above::parse(&bundle, &self.trust_domain)
    }

    /// Whether a key of that kind was taken, as [`publish_wit`](Self::publish_wit) says.
    async fn publish(&self, kind: TokenKind, key: types::JwtKey) -> Result<bool, SpireError> {
        match kind {
            TokenKind::Jwt => self.publish_jwt(key).await.map(|()| true),
            TokenKind::Wit => {
                let types::JwtKey { public_key, key_id, expires_at, tainted } = key;
                self.publish_wit(types::WitKey { public_key, key_id, expires_at, tainted }).await
            }
        }
    }

    async fn publish_jwt(&self, key: types::JwtKey) -> Result<(), SpireError> {
        let asked = PublishJwtAuthorityRequest { jwt_authority: Some(key) };
        let call = async { self.session().await?.bundles().publish_jwt_authority(asked).await.map_err(refused) };
        self.ask("failed to push JWT authority", call).await.map(drop)
    }

    /// Whether it was taken: a server of SPIRE's takes none.
    async fn publish_wit(&self, key: types::WitKey) -> Result<bool, SpireError> {
        let asked = PublishWitAuthorityRequest { wit_authority: Some(key) };
        let call = async { self.session().await?.bundles().publish_wit_authority(asked).await.map_err(refused) };
        match self.ask("failed to push WIT authority", call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_unimplemented() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The answer to `call`; `what` went wrong if there is none in time. Source of the words: SPIRE.
    async fn ask<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, SpireError>>,
    ) -> Result<T, SpireError> {
        let answer = tokio::time::timeout(DEADLINE, call).await.unwrap_or(Err(SpireError::Late));
        answer.map(Response::into_inner).map_err(|error| {
            // Whatever was wrong with the connection: the next call begins with an SVID and a bundle of then.
            if !error.is_refusal() {
                *self.held() = None;
            }
            error.at(what)
        })
    }

    /// The connection that there is, or a new one.
    async fn session(&self) -> Result<Session, SpireError> {
        let held = self.held().clone().filter(|session| session.is_fresh(wall_unix()));
        if let Some(session) = held {
            return Ok(session);
        }
        let session = Session::begin(&self.server, &self.trust_domain).await?;
        *self.held() = Some(session.clone());
        Ok(session)
    }

    fn held(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(status: Status) -> SpireError {
    SpireError::Refused(status)
}

impl fmt::Debug for SpireAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpireAuthority({}:{})", self.server.host, self.server.port)
    }
}
