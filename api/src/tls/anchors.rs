//! The authorities that SVIDs of the trust domain must chain to, and the check itself.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::{Certificate, CertificateError};
use crate::spiffe_id::{SpiffeId, TrustDomain};

/// Longest chain accepted from a peer, certificates. SPIRE's are one or two.
pub const MAX_CHAIN: usize = 8;

/// Why a peer's chain is not an X509-SVID of the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SvidRefusal {
    /// The leaf breaks the X509-SVID profile or does not parse.
    #[error("not an X509-SVID")]
    Leaf(#[from] CertificateError),
    /// The chain is longer than [`MAX_CHAIN`].
    #[error("chain is longer than {MAX_CHAIN} certificates")]
    ChainTooLong,
    /// The ID belongs to another trust domain than the one these anchors are for.
    #[error("{0} is not a member of the trust domain")]
    OtherTrustDomain(SpiffeId),
    /// The ID is not the one required of this peer.
    #[error("peer is {found}, not {expected}")]
    OtherId {
        /// The peer's ID.
        found: SpiffeId,
        /// The ID it must have.
        expected: SpiffeId,
    },
    /// No path from the leaf to an authority of the bundle.
    #[error("no authority in the trust bundle has signed the certificate")]
    UnknownAuthority,
    /// Past its notAfter (its own, or an intermediate's).
    #[error("certificate has expired")]
    Expired,
    /// Before its notBefore.
    #[error("certificate is not valid yet")]
    NotYetValid,
    /// Any other rule of RFC 5280 §6 that the path breaks.
    #[error("certificate path is not valid: {0}")]
    Path(webpki::Error),
}

/// What a verified peer certificate says. Only [`TrustAnchors::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSvid {
    spiffe_id: SpiffeId,
    serial: String,
    not_after_unix: i64,
}

impl VerifiedSvid {
    /// The peer's SPIFFE ID.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The certificate's serial number in decimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The certificate's notAfter, UNIX seconds.
    pub fn not_after_unix(&self) -> i64 {
        self.not_after_unix
    }
}

/// The current authorities of one trust domain; replaced as a whole when its bundle changes.
#[derive(Debug)]
pub struct TrustAnchors {
    trust_domain: TrustDomain,
    authorities: ArcSwap<Vec<TrustAnchor<'static>>>,
}

impl TrustAnchors {
    /// Anchors for `trust_domain`. With no authorities every peer is refused, which is how "no bundle yet" looks.
    pub fn new(trust_domain: TrustDomain, authorities: &[CertificateDer<'_>]) -> Result<Arc<Self>, CertificateError> {
        let authorities = ArcSwap::from_pointee(parse_anchors(authorities)?);
        Ok(Arc::new(Self { trust_domain, authorities }))
    }

    /// The trust domain these anchors are for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Replaces the authorities (DER certificates). On error the old ones stay.
    pub fn replace(&self, authorities: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
        self.authorities.store(Arc::new(parse_anchors(authorities)?));
        Ok(())
    }

    /// Verifies that `leaf` is an X509-SVID of the trust domain with a path over `intermediates` to an authority, valid
    /// at `now_unix`, for server or client authentication. Source: X509-SVID.md §5, RFC 5280 §6.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        now_unix: i64,
    ) -> Result<VerifiedSvid, SvidRefusal> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(SvidRefusal::ChainTooLong);
        }
        let certificate = Certificate::parse(leaf)?;
        let spiffe_id = certificate.leaf_spiffe_id()?;
        if !spiffe_id.is_member_of(&self.trust_domain) {
            return Err(SvidRefusal::OtherTrustDomain(spiffe_id));
        }
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix.try_into().unwrap_or(0)));
        let anchors = self.authorities.load();
        EndEntityCert::try_from(certificate.der())
            .map_err(refusal)?
            .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, intermediates, now, usage, None, None)
            .map_err(refusal)?;
        Ok(VerifiedSvid {
            spiffe_id,
            serial: certificate.serial_decimal(),
            not_after_unix: certificate.not_after_unix(),
        })
    }
}

fn parse_anchors(authorities: &[CertificateDer<'_>]) -> Result<Vec<TrustAnchor<'static>>, CertificateError> {
    let owned = |der: &CertificateDer<'_>| anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned());
    authorities.iter().map(|der| owned(der).map_err(|_| CertificateError::Malformed)).collect()
}

fn refusal(error: webpki::Error) -> SvidRefusal {
    match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => SvidRefusal::UnknownAuthority,
        webpki::Error::CertExpired { .. } => SvidRefusal::Expired,
        webpki::Error::CertNotValidYet { .. } => SvidRefusal::NotYetValid,
        other => SvidRefusal::Path(other),
    }
}
