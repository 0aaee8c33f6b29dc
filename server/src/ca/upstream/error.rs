//! Why the authority above has not certified a CA.

use std::path::PathBuf;

use ironroot_api::certificate::CertificateError;
use ironroot_api::tls::SvidRefusal;
use thiserror::Error;

use super::minted::{MAX_CHAIN, MAX_ROOTS};
use super::{DiskError, KeepError, RootTokenError, SpireError};
use crate::ca::lint::LintError;
use crate::ca::orders::OrderError;

/// Why the authority above has not certified a CA.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Its files.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The server above.
    #[error(transparent)]
    Spire(#[from] SpireError),
    /// The root on its own token.
    #[error(transparent)]
    Token(#[from] RootTokenError),
    /// The root is away: nothing has failed. Somebody carries the request to it, or plugs its token in.
    #[error(
        "the root has to certify this CA, and it is not here{}: its request waits in {}; plug the root's token in, or carry the request to the \
         ceremony (ironroot-server ca ceremony sign) and bring back what it signs (ironroot-server ca ceremony take)",
        absent.as_ref().map_or_else(String::new, |why| format!(" ({why})")), request.display()
    )]
    AwaitsRoot {
        /// The file with the request.
        request: PathBuf,
        /// Why its token was not used, if one is configured.
        absent: Option<String>,
    },
    /// What it has is not kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// It has called a root tainted on which a CA here hangs, and that CA is not replaced.
    #[error("the CA is not replaced although the upstream authority has tainted its root; it goes on signing")]
    Leave(#[source] Box<OrderError>),
    /// It has sent no certificates.
    #[error("the upstream authority's answer has no X.509 CA chain")]
    NoChain,
    /// It has sent no roots.
    #[error("the upstream authority's answer has no X.509 roots")]
    NoRoots,
    /// SVIDs of such a CA are taken by nobody.
    #[error("the upstream authority's X.509 CA chain has {0} certificates, at most {MAX_CHAIN} are accepted")]
    LongChain(usize),
    /// More than bundles should have.
    #[error("the upstream authority has {0} X.509 roots, at most {MAX_ROOTS} are accepted")]
    TooManyRoots(usize),
    /// One of the certificates that it has sent.
    #[error("the upstream authority has sent a certificate that does not parse")]
    Certificate(#[from] CertificateError),
    /// It has signed something else.
    #[error("X509 CA minted by upstream authority is not the one that was asked for")]
    NotOurs(#[source] LintError),
    /// An SVID of that CA would be refused by its peers. Source of the words: SPIRE.
    #[error("X509 CA minted by upstream authority is invalid")]
    Invalid(#[source] SvidRefusal),
}
