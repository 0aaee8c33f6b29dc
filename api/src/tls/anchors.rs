//! The authorities that SVIDs of the trust domain must chain to, and the check itself.

mod authority_mark;
mod issuer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use crate::certificate::{Certificate, CertificateError};
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::utc;
pub use authority_mark::AuthorityMark;
use issuer::VerifiedIssuer;

/// Longest chain accepted from a peer, certificates. SPIRE's are one or two.
pub const MAX_CHAIN: usize = 8;

/// Why a peer's chain is not an X509-SVID of the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
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
        found: SpiffeId,
        /// The ID it must have.
        expected: SpiffeId,
    },
    /// No path from the leaf to an authority of the bundle.
    #[error("{0}")]
    UnknownAuthority(BundleEnd),
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

/// When the last certificate of the bundle ends that lacks the authority looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleEnd {
    /// UNIX seconds; none if the bundle is empty.
    pub not_after_unix: Option<i64>,
    /// When it was judged, UNIX seconds.
    pub now_unix: i64,
}

impl fmt::Display for BundleEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.not_after_unix {
            None => write!(f, "there is no trust bundle to verify the certificate with"),
            Some(end) if end <= self.now_unix => write!(
                f,
                "this trust bundle's last certificate ended on {}: it is too old to verify the certificate; a new one is needed",
                utc(end)
            ),
            Some(end) => write!(
                f,
                "the certificate is signed by an authority that is not in the trust bundle (its last certificate ends on {}): \
                 another server, or another server's bundle",
                utc(end)
            ),
        }
    }
}

/// What a verified peer certificate says. Only [`TrustAnchors::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSvid {
    spiffe_id: SpiffeId,
    serial: String,
    not_after_unix: i64,
    authority: AuthorityMark,
    signer: AuthorityMark,
}

impl VerifiedSvid {
    /// The peer's SPIFFE ID, a member of the anchors' trust domain and with a path.
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

    /// Whose key has signed it: a CA's between it and the bundle, or that of an authority of the bundle.
    pub fn signer(&self) -> AuthorityMark {
        self.signer
    }
}

/// The current authorities of one trust domain; replaced as a whole when its bundle changes.
#[derive(Debug)]
pub struct TrustAnchors {
    trust_domain: TrustDomain,
    authorities: ArcSwap<Authorities>,
}

#[derive(Debug)]
struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
    /// When the last of them ends, UNIX seconds.
    last_end_unix: Option<i64>,
    /// The issuer that a verified path had last: one, for one server has one.
    issuer: ArcSwapOption<VerifiedIssuer>,
}

impl TrustAnchors {
    /// Anchors for `trust_domain`. With no authorities every peer is refused, which is how "no bundle yet" looks.
    pub fn new(trust_domain: TrustDomain, authorities: &[CertificateDer<'_>]) -> Result<Arc<Self>, CertificateError> {
        let authorities = ArcSwap::from_pointee(parse_anchors(authorities)?);
        Ok(Arc::new(Self { trust_domain, authorities }))
    }

    /// The trust domain these anchors speak for: an SVID of another one is refused whoever signed it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Replaces the authorities (DER certificates). On error the old ones stay.
    pub fn replace(&self, authorities: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
        self.authorities.store(Arc::new(parse_anchors(authorities)?));
        Ok(())
    }

    /// From now on the authorities are those of `others`, which are of the same trust domain and parsed already.
    pub fn follow(&self, others: &Self) {
        self.authorities.store(others.authorities.load_full());
    }

    /// Whether the authority that `svid` was verified with is one still: what was verified once stays on a connection while bundles
    /// change.
    pub fn still_believe(&self, svid: &VerifiedSvid) -> bool {
        self.authorities.load().anchors.iter().any(|anchor| AuthorityMark::of(anchor) == svid.authority)
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
        self.verify_parsed(&Certificate::parse(leaf)?, intermediates, usage, now_unix)
    }

    /// As [`verify`](Self::verify), of a leaf that has been parsed.
    pub fn verify_parsed(
        &self,
        certificate: &Certificate,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        now_unix: i64,
    ) -> Result<VerifiedSvid, SvidRefusal> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(SvidRefusal::ChainTooLong);
        }
        let spiffe_id = certificate.leaf_spiffe_id()?;
        //= TDB-08 SPIFFE Federation 4.2: "from different trust domains MUST NOT be merged"
        if !spiffe_id.is_member_of(&self.trust_domain) {
            return Err(SvidRefusal::OtherTrustDomain(spiffe_id));
        }
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix.try_into().unwrap_or(0)));
        let authorities = self.authorities.load();
        let refusal = |error| refusal(error, BundleEnd { not_after_unix: authorities.last_end_unix, now_unix });
        let leaf = EndEntityCert::try_from(certificate.der()).map_err(refusal)?;
        let issuer = authorities.issuer.load();
        let known = issuer.as_ref().and_then(|issuer| issuer.stands_for(intermediates, usage, now_unix));
        let is_signed_by =
            |known: &&VerifiedIssuer| path(&leaf, std::slice::from_ref(known.anchor()), &[], now, usage).is_ok();
        let (authority, signer) = match known.filter(is_signed_by) {
            Some(known) => (known.authority(), known.mark()),
            None => {
                let path = path(&leaf, &authorities.anchors, intermediates, now, usage).map_err(refusal)?;
                if let Some(issuer) = VerifiedIssuer::on(&path, usage) {
                    authorities.issuer.store(Some(Arc::new(issuer)));
                }
                (AuthorityMark::of(path.anchor()), signer(&path)?)
            }
        };
        Ok(VerifiedSvid {
            authority,
            signer,
            spiffe_id,
            serial: certificate.serial_decimal(),
            not_after_unix: certificate.not_after_unix(),
        })
    }
}

/// The path from `leaf` over `others` to one of `anchors`.
fn path<'p>(
    leaf: &'p EndEntityCert<'p>,
    anchors: &'p [TrustAnchor<'p>],
    others: &'p [CertificateDer<'p>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<VerifiedPath<'p>, webpki::Error> {
    //= X509-14 X509-SVID 5.1: "MUST follow [RFC 5280] path validation semantics"
    //= X509-09 X509-SVID 4.2: "MUST either process the constraint or reject the certificate"
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, others, now, usage, None, None)
}

/// What on `path` has signed its leaf.
fn signer(path: &VerifiedPath<'_>) -> Result<AuthorityMark, CertificateError> {
    let Some(issuer) = path.intermediate_certificates().next() else { return Ok(AuthorityMark::of(path.anchor())) };
    let anchor = anchor_from_trusted_cert(&issuer.der()).map(|anchor| AuthorityMark::of(&anchor));
    anchor.map_err(|_| CertificateError::Malformed)
}

fn parse_anchors(authorities: &[CertificateDer<'_>]) -> Result<Authorities, CertificateError> {
    let owned = |der: &CertificateDer<'_>| anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned());
    let anchors = authorities.iter().map(|der| owned(der).map_err(|_| CertificateError::Malformed));
    let parsed = authorities.iter().filter_map(|der| Certificate::parse(der).ok());
    let last_end_unix = parsed.map(|certificate| certificate.not_after_unix()).max();
    Ok(Authorities { anchors: anchors.collect::<Result<_, _>>()?, last_end_unix, issuer: ArcSwapOption::empty() })
}

fn refusal(error: webpki::Error, bundle: BundleEnd) -> SvidRefusal {
    match error {
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            SvidRefusal::UnknownAuthority(bundle)
        }
        webpki::Error::CertExpired { .. } => SvidRefusal::Expired,
        webpki::Error::CertNotValidYet { .. } => SvidRefusal::NotYetValid,
        other => SvidRefusal::Path(other),
    }
}

#[cfg(test)]
mod tests;
