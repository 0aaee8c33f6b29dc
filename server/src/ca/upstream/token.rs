//! A root on a token of its own, which is there for a rotation or a ceremony only. Its certificate is known all the time.
//!
//! ```text
//!  key in the server's token ── CaRequest ──► certificate in the exchange, for this very key?   ── yes ─► MintedCa
//!                                              └ no: the root's token is plugged in?            ── yes ─► signed by it
//!                                                     └ no: the request waits in the exchange; the CA that is there goes on
//! ```
//! Nothing fails meanwhile: to wait is a state ([`UpstreamError::AwaitsRoot`]), told with the day by which it must end.

mod exchange;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_hsm::{HsmError, KeyName, PinError, Token, TokenConfig, TokenUri, UserLogin};
use ironroot_shell::command_line::describe;
use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};

use super::disk::{CertificateFileError, certificates};
use super::roots::keep_roots;
use super::{CaRequest, MintedCa, UpstreamError};
use crate::ca::CaError;
use crate::ca::ceremony::{CeremonyRefusal, Delivery, RootToSign, WantedCa, refuse_no_root};
use crate::keys::{Key, KeyManager};
use crate::store::Store;

pub use exchange::{Exchange, ExchangeError, WaitingRequest};

/// How often the file with the roots is looked at: a root that joins it is in the bundle soon.
const LOOK_AT_ROOTS: Duration = Duration::from_secs(5);

/// Where the root is.
#[derive(Clone)]
pub struct TokenAuthority {
    /// Whose CAs it signs.
    pub trust_domain: TrustDomain,
    /// PEM: its certificate, and that of the next root once there is one. They are the bundle.
    pub roots_path: PathBuf,
    /// Where requests wait, and where certificates for them are put.
    pub exchange: Exchange,
    /// Its token, if that is ever plugged in here.
    pub token: Option<RootToken>,
}

/// How a PIN is read when it is needed: where it comes from may be plugged in with the token.
pub type ReadLogin = Arc<dyn Fn() -> Result<UserLogin, PinError> + Send + Sync>;

/// The token that holds the root's key.
#[derive(Clone)]
pub struct RootToken {
    /// Its maker's library.
    pub module_path: PathBuf,
    /// Which of the library's tokens.
    pub token: TokenUri,
    /// How to log in.
    pub login: ReadLogin,
    /// The root's key, as the ceremony named it.
    pub key: KeyName,
}

/// Why the root's token has signed nothing, though it is there.
#[derive(Debug, Error)]
pub enum RootTokenError {
    /// The file with the roots.
    #[error("the roots' certificates cannot be read")]
    Roots(#[source] CertificateFileError),
    /// One of them is no root of this trust domain.
    #[error("{0} holds a certificate that cannot be a root here")]
    NoRoot(String, #[source] CeremonyRefusal),
    /// The files that go to and fro.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It is another token, what was delivered is none of ours, or the root can sign nothing.
    #[error(transparent)]
    Refused(#[from] CeremonyRefusal),
    /// It has failed.
    #[error("the root's token has failed")]
    Failed(#[source] Box<CaError>),
    /// The task that opens it ended early.
    #[error("the root's token was not opened to its end")]
    Interrupted,
}

impl TokenAuthority {
    /// Reads the roots, as for a CA.
    pub fn look(&self) -> Result<(), RootTokenError> {
        self.roots().map(drop)
    }

    /// Puts what the root has signed where the server finds it; the CA, and where it is now. Refused unless it belongs to the key that waits
    /// and leads to a root of the file.
    pub fn take(&self, path: &Path, now_unix: i64) -> Result<(Certificate, PathBuf), RootTokenError> {
        let roots = self.roots()?;
        let waiting = self.exchange.waiting()?;
        let place = || self.exchange.request_path().display().to_string();
        let waiting = waiting.ok_or_else(|| CeremonyRefusal::NothingWaits(place()))?;
        let chain = certificates(path).map_err(ExchangeError::from)?;
        let known = (&roots[..], &*self.roots_path);
        let delivery = Delivery::judge(chain, waiting.spki_der(), known, &self.trust_domain, now_unix)?;
        let ca = delivery.chain()[0].clone();
        Ok((ca, self.exchange.deliver(&delivery)?))
    }

    pub(super) async fn mint(&self, request: &CaRequest, now_unix: i64) -> Result<MintedCa, UpstreamError> {
        let roots = self.roots()?;
        if let Some(chain) = self.exchange.delivered(&request.spki).map_err(RootTokenError::from)? {
            let is_between = |one: &Certificate| roots.iter().all(|root| root.der() != one.der());
            return MintedCa::new(chain.into_iter().filter(is_between).collect(), roots);
        }
        let absent = match &self.token {
            None => None,
            Some(root) => match root.open().await? {
                Ok(token) => return root.sign(&token, request, roots, now_unix).await,
                Err(why) => Some(why),
            },
        };
        let path = self.exchange.ask(request).map_err(RootTokenError::from)?;
        Err(UpstreamError::AwaitsRoot { request: path, absent })
    }

    /// Whether this key's request is in the exchange: it is not made anew then.
    pub(super) fn has_asked_for(&self, spki_der: &[u8]) -> bool {
        self.exchange.waiting().is_ok_and(|waiting| waiting.is_some_and(|waiting| waiting.spki_der() == spki_der))
    }

    /// What was asked for is there.
    pub(super) fn has_got(&self, spki_der: &[u8]) {
        if self.has_asked_for(spki_der)
            && let Err(error) = self.exchange.clear()
        {
            warn!(error = &error as &dyn std::error::Error, "a request that was answered stays in the exchange");
        }
    }

    /// Whether the file with the roots has this one, DER.
    pub(in crate::ca) fn lists(&self, root_der: &[u8]) -> bool {
        self.roots().is_ok_and(|roots| roots.iter().any(|root| root.der().as_ref() == root_der))
    }

    /// Takes roots in that join the file. Never ends.
    pub(super) async fn follow(&self, store: Store) {
        let mut known: Option<Vec<Certificate>> = None;
        loop {
            match self.roots() {
                Ok(roots) if known.as_ref().is_none_or(|known| !same(known, &roots)) => {
                    let told = roots.clone();
                    match store.change(move |tx| keep_roots(tx, &told)).await {
                        Ok(()) => {
                            info!(roots = roots.len(), file = %self.roots_path.display(), "the roots of the file are in the bundle");
                            known = Some(roots);
                        }
                        Err(error) => warn!(error = &error as &dyn std::error::Error, "a root is not taken in yet"),
                    }
                }
                Ok(_) => {}
                // Who reads it for a CA tells of it.
                Err(_) => known = None,
            }
            sleep(LOOK_AT_ROOTS).await;
        }
    }

    fn roots(&self) -> Result<Vec<Certificate>, RootTokenError> {
        let roots = certificates(&self.roots_path).map_err(RootTokenError::Roots)?;
        let no_root = |refusal| RootTokenError::NoRoot(self.roots_path.display().to_string(), refusal);
        roots.iter().try_for_each(|root| refuse_no_root(root, &self.trust_domain).map_err(no_root))?;
        Ok(roots)
    }
}

fn same(one: &[Certificate], other: &[Certificate]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.der() == b.der())
}

impl RootToken {
    /// The token, or in words why it is not there.
    async fn open(&self) -> Result<Result<Token, String>, RootTokenError> {
        let root = self.clone();
        let opened = tokio::task::spawn_blocking(move || root.open_now()).await;
        opened.map_err(|_| RootTokenError::Interrupted)
    }

    fn open_now(&self) -> Result<Token, String> {
        let login = (self.login)().map_err(|error| describe(&error))?;
        let (module_path, token) = (self.module_path.clone(), self.token.clone());
        let opened = Token::open_if_present(TokenConfig { module_path, token, login, sessions: 1 });
        match opened {
            Ok(Some(token)) => Ok(token),
            Ok(None) if ironroot_hsm::is_in_use(&self.module_path) => Err(format!(
                "{} is not plugged in; if it is, restart the server: its own token has the same module, which may see only what is there when it \
                 starts",
                self.token
            )),
            Ok(None) => Err(format!("{} is not plugged in", self.token)),
            Err(error) => Err(describe(&error)),
        }
    }

    async fn sign(
        &self,
        token: &Token,
        request: &CaRequest,
        roots: Vec<Certificate>,
        now_unix: i64,
    ) -> Result<MintedCa, UpstreamError> {
        let root = self.root_in(token, &roots, &request.trust_domain, now_unix).await?;
        let wanted = WantedCa::of_parts(request.trust_domain.clone(), request.name.clone(), request.spki.clone());
        let failed = |error| RootTokenError::Failed(Box::new(error));
        let ca = root.sign(&wanted, request.ttl_seconds, now_unix).await.map_err(failed)?;
        info!(token = %self.token, not_after = ironroot_api::utc(ca.not_after_unix()), "the root has certified the next CA: its token may be unplugged");
        MintedCa::new(vec![ca], roots)
    }

    /// The one of the roots whose key is in the token.
    async fn root_in(
        &self,
        token: &Token,
        roots: &[Certificate],
        trust_domain: &TrustDomain,
        now_unix: i64,
    ) -> Result<RootToSign, RootTokenError> {
        let manager = KeyManager::Token(token.clone());
        let mut refusal = CeremonyRefusal::NoKey(self.key.clone());
        for root in roots {
            match find(&manager, &self.key, root).await {
                Ok(Some(key)) => match RootToSign::of(key, root, trust_domain, now_unix) {
                    Ok(root) => return Ok(root),
                    Err(other) => refusal = other,
                },
                Ok(None) => {}
                Err(error) => return Err(RootTokenError::Failed(Box::new(error))),
            }
        }
        Err(refusal.into())
    }
}

/// The key of this name, if it is of the kind that this root's is.
async fn find(manager: &KeyManager, name: &KeyName, root: &Certificate) -> Result<Option<Key>, CaError> {
    match manager.find(crate::ca::key_kind::certified_kind(root), name).await.map_err(CaError::from) {
        // It is another root's.
        Err(CaError::Token(HsmError::KeyUnusable { .. } | HsmError::KeyOfAnotherKind { .. })) => Ok(None),
        found => found,
    }
}

impl fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenAuthority({})", self.roots_path.display())
    }
}
