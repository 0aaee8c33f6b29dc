//! The server's certificate against the trust bundle, on a device whose clock may be wrong. See `docs/trusted_time.md`.

use std::io;
use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::{Judge, ServerTrust, SvidRefusal};
use ironroot_api::{SpiffeId, TrustDomain};
use rustls::{CertificateError, Error, OtherError};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::agent_key::NotSigned;
use crate::server_answers::span;
use crate::trusted_time::{Span, TrustedTime, utc};

/// Why a server is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum ServerRefusal {
    /// It is of another trust domain than this agent.
    #[error("the server is {found}, but this agent's configuration says trust_domain = \"{configured}\"")]
    OtherTrustDomain {
        /// The ID in its certificate.
        found: SpiffeId,
        configured: TrustDomain,
    },
    /// Its certificate ended before now, as far as this device knows. Somebody may have stolen it.
    #[error(
        "the server's certificate is valid from {} to {}; this device's clock says {clock}",
        utc(span.not_before),
        utc(span.not_after)
    )]
    InDoubt {
        span: Span,
        /// What the clock says, in words.
        clock: String,
    },
    /// Anything else that is wrong with its certificate.
    #[error("the server's certificate is refused")]
    Svid(#[from] SvidRefusal),
}

/// What becomes of a server whose certificate ended before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The handshake fails; the error says what the clock here is known by.
    Refused,
    /// It is talked to, so that it can prove by a fresh signature that its CA is alive.
    Heard,
}

/// The plain refusal out of rustls's layers, which people cannot read: of the server, or of the key that should have signed.
pub(super) fn plain(error: io::Error) -> io::Error {
    let tls = error.get_ref().and_then(|inside| inside.downcast_ref::<Error>());
    match tls {
        Some(Error::Other(OtherError(inside))) => match inside.downcast_ref::<NotSigned>() {
            Some(not_signed) => io::Error::other(not_signed.clone()),
            None => error,
        },
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) => {
            match refusal.downcast_ref::<ServerRefusal>() {
                Some(refusal) => io::Error::new(io::ErrorKind::InvalidData, refusal.clone()),
                None => io::Error::new(io::ErrorKind::InvalidData, refusal.to_string()),
            }
        }
        _ => error,
    }
}

/// The server that the bundle proves, by the agent's own notion of now.
#[derive(Debug)]
pub(super) struct ClockedTrust {
    pub(super) server: ServerTrust,
    /// The trust domain that `agent.conf` says; a server of another one is told apart from a stranger.
    pub(super) configured: TrustDomain,
    pub(super) doubt: Doubt,
    pub(super) time: TrustedTime,
}

impl ClockedTrust {
    fn verify(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), ServerRefusal> {
        let moment = self.time.moment();
        let span = chain_span(leaf, others)?;
        // A chain that is never valid is refused for that by the verification itself.
        let judged = moment.judge(span);
        let at = judged.map_or_else(|| moment.estimate(), |judged| judged.at);
        self.server.verify(leaf, others, at).map_err(|refusal| self.plain(refusal))?;
        match judged.is_some_and(|judged| judged.in_doubt) {
            true if self.doubt == Doubt::Refused => Err(ServerRefusal::InDoubt { span, clock: moment.in_words() }),
            true => Ok(()),
            false => {
                self.time.lift(span.not_before);
                Ok(())
            }
        }
    }

    fn plain(&self, refusal: SvidRefusal) -> ServerRefusal {
        match refusal {
            SvidRefusal::OtherTrustDomain(found) => {
                ServerRefusal::OtherTrustDomain { found, configured: self.configured.clone() }
            }
            other => other.into(),
        }
    }
}

impl Judge for ClockedTrust {
    /// rustls's own clock is passed over.
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], _now_unix: i64) -> Result<(), Error> {
        self.verify(leaf, others).map_err(|refusal| CertificateError::Other(OtherError(Arc::new(refusal))).into())
    }
}

/// When the whole chain is valid; what does not parse is left to the verification.
fn chain_span(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<Span, ServerRefusal> {
    let leaf = Certificate::parse(leaf).map_err(SvidRefusal::from)?;
    let others = others.iter().filter_map(|der| Certificate::parse(der).ok());
    Ok(span(&std::iter::once(leaf).chain(others).collect::<Vec<_>>()))
}
