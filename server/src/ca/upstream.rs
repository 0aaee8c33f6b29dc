//! The authority above this server: it certifies the CA's keys, which stay in the token, and its roots are in the bundle.
//!
//! ```text
//!  key in the token ── CaRequest (name, key, signed request) ──► Upstream::mint ──► MintedCa (chain, roots)
//!                                                                                     └─ accept: a throw-away SVID verifies ──► Authority
//! ```
//! To ask it is a step of the rotation like any other: it may fail and is tried again, and the CA that is there goes on.

mod disk;
mod error;
mod minted;
mod request;
mod roots;
mod spire;
mod token;

pub use disk::{DiskAuthority, DiskError};
pub use error::UpstreamError;
pub(super) use minted::MintedCa;
pub(super) use request::CaRequest;
pub use roots::KeepError;
pub(super) use roots::keep_roots;
pub use spire::{SpireAuthority, SpireError, SpireServer};
pub use token::{Exchange, ExchangeError, ReadLogin, RootToken, RootTokenError, TokenAuthority, WaitingRequest};

use std::sync::Arc;

use ironroot_api::certificate::Certificate;

use super::issuer::Candidate;
use super::journal::{Authority, UpstreamChain, Verdict};
use super::orders::Orders;
use super::rotating::Published;
use super::{CaError, CaPolicy};
use crate::clock::Moment;
use crate::store::Store;

/// Who certifies the CAs of this server.
#[derive(Debug)]
pub enum Upstream {
    /// Files of another PKI's CA.
    Disk(DiskAuthority),
    /// A server above this one.
    Spire(SpireAuthority),
    /// A root on a token of its own, which is not always there.
    Token(TokenAuthority),
}

impl Upstream {
    async fn mint(&self, request: &CaRequest, now_unix: i64) -> Result<MintedCa, UpstreamError> {
        match self {
            Self::Disk(files) => files.mint(request, now_unix).await,
            Self::Spire(server) => server.mint(request).await,
            Self::Token(root) => root.mint(request, now_unix).await,
        }
    }

    /// Keeps what the authority above has in the bundle, and what this server has in the bundle there; for as long as it is polled. Never
    /// ends.
    pub(super) async fn follow(&self, followers: Followers) {
        match self {
            // Files tell of themselves when a CA is certified, and nothing of taints.
            Self::Disk(_) => std::future::pending().await,
            Self::Spire(server) => spire::follow(server, followers).await,
            Self::Token(root) => root.follow(followers.store).await,
        }
    }

    /// How its root is replaced, as the rest of a sentence.
    pub(super) fn renewed_by(&self) -> &'static str {
        match self {
            Self::Disk(_) => {
                "whoever has made the files of UpstreamAuthority \"disk\" makes the next root, and puts certificate and key there"
            }
            Self::Spire(_) => {
                "prepare it at the server above (UpstreamAuthority \"spire\"), and this one takes it into its bundle"
            }
            Self::Token(_) => {
                "make it with ca ceremony root and append it to roots_path (UpstreamAuthority \"pkcs11\"): see the handbook"
            }
        }
    }

    /// Whether who certifies is not there most of the time: the next CA is made long before it is needed.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// Whether a request for this key (DER SubjectPublicKeyInfo) waits: then no other key is made.
    pub(super) fn has_asked_for(&self, spki_der: &[u8]) -> bool {
        matches!(self, Self::Token(root) if root.has_asked_for(spki_der))
    }

    /// The key of this request has become a CA's.
    pub(super) fn has_got(&self, spki_der: &[u8]) {
        if let Self::Token(root) = self {
            root.has_got(spki_der);
        }
    }

    /// Whether the file of its roots has this one, DER: it would come back into the bundle.
    pub(super) fn lists(&self, root_der: &[u8]) -> bool {
        matches!(self, Self::Token(root) if root.lists(root_der))
    }
}

/// What is kept in step with the authority above.
pub(super) struct Followers {
    pub(super) store: Store,
    pub(super) published: Arc<Published>,
    pub(super) orders: Orders,
    pub(super) now: fn() -> i64,
}

/// Has `upstream` certify a key of the token, for the policy's lifetime or as long as it says. Returns the CA, and the roots that verify
/// it: they belong into the bundle before it signs.
pub(super) async fn certify(
    upstream: &Upstream,
    candidate: Candidate,
    policy: &CaPolicy,
    moment: Moment,
) -> Result<(Authority, Vec<Certificate>), CaError> {
    let request = CaRequest::signed(&candidate.key, policy).await?;
    let MintedCa { ca, chain, roots } = upstream.mint(&request, moment.now_unix).await?;
    let authority = Authority {
        issued_at: moment.now_unix,
        not_after: ca.not_after_unix(),
        issued_counted: moment.counted,
        key: candidate.number,
        in_token: candidate.record,
        root: None,
        upstream: Some(UpstreamChain::new(chain.into_iter().map(Into::into))),
        verdict: Verdict::None,
        credential: ca.into(),
    };
    minted::accept(&authority, candidate.key, &roots, policy, moment.now_unix).await?;
    Ok((authority, roots))
}
