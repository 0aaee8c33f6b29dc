//! Whom the brokers' socket believes: who shows an X509-SVID that leads to a bundle of this agent, and stands in the configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_api::tls::{Judge, SvidRefusal, TrustAnchors, VerifiedSvid};
use rustls::{CertificateError as TlsCertificateError, OtherError};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::watch;
use webpki::KeyUsage;

use super::brokers::{Brokers, ReferenceTypes};
use crate::endpoints::Sources;
use crate::identities::Identities;
use crate::jwt_svids::JwtSvids;
use crate::server_answers::ShownBundle;

/// Why somebody is no broker, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::endpoints) enum BrokerUnproven {
    #[error("it showed no certificate")]
    NoCertificate,
    #[error("its certificate is no X509-SVID")]
    Malformed(#[from] CertificateError),
    #[error("this agent has no bundle of the trust domain of {0}")]
    NoBundle(SpiffeId),
    #[error("its certificate is refused")]
    Svid(#[from] SvidRefusal),
    #[error("{0} is no broker of this agent: experimental {{ broker {{ brokers }} }} does not name it")]
    NotConfigured(SpiffeId),
}

/// A broker that has proven to be one that is configured. Only [`BrokerTrust`] makes one.
#[derive(Debug)]
pub(in crate::endpoints) struct AuthenticatedBroker {
    svid: VerifiedSvid,
    chain: Vec<CertificateDer<'static>>,
    types: ReferenceTypes,
}

impl AuthenticatedBroker {
    /// Who it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        self.svid.spiffe_id()
    }

    /// By what it may name workloads.
    pub(super) fn types(&self) -> &ReferenceTypes {
        &self.types
    }
}

/// See the module.
pub(in crate::endpoints) struct BrokerTrust {
    brokers: Brokers,
    identities: watch::Receiver<Arc<Identities>>,
    /// Knows the time, as far as it is known here.
    jwt_svids: JwtSvids,
}

impl fmt::Debug for BrokerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerTrust").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl BrokerTrust {
    pub fn new(brokers: Brokers, sources: &Sources) -> Arc<Self> {
        let (identities, jwt_svids) = (sources.identities.clone(), sources.jwt_svids.clone());
        Arc::new(Self { brokers, identities, jwt_svids })
    }

    /// Whoever showed this chain, leaf first, in a handshake that is over.
    pub fn admit(&self, chain: &[CertificateDer<'_>]) -> Result<AuthenticatedBroker, BrokerUnproven> {
        let (leaf, others) = chain.split_first().ok_or(BrokerUnproven::NoCertificate)?;
        let (svid, types) = self.verify(leaf, others)?;
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Ok(AuthenticatedBroker { svid, chain, types })
    }

    /// Whether `broker` would be let in now: bundles change, and certificates end, while connections stay.
    pub fn still_believes(&self, broker: &AuthenticatedBroker) -> Result<(), BrokerUnproven> {
        let (leaf, others) = broker.chain.split_first().ok_or(BrokerUnproven::NoCertificate)?;
        self.verify(leaf, others).map(drop)
    }

    /// How long `broker`'s certificate lasts.
    pub fn lasts(&self, broker: &AuthenticatedBroker) -> Duration {
        let left = broker.svid.not_after_unix().saturating_sub(self.now());
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(VerifiedSvid, ReferenceTypes), BrokerUnproven> {
        let certificate = Certificate::parse(leaf)?;
        let claimed = certificate.leaf_spiffe_id()?;
        let anchors = self.anchors_for(&claimed)?;
        let svid = anchors.verify_parsed(&certificate, others, KeyUsage::client_auth(), self.now())?;
        match self.brokers.types_of(svid.spiffe_id()).cloned() {
            Some(types) => Ok((svid, types)),
            None => Err(BrokerUnproven::NotConfigured(claimed)),
        }
    }

    /// The authorities of the trust domain that an ID claims to be of.
    fn anchors_for(&self, claimed: &SpiffeId) -> Result<Arc<TrustAnchors>, BrokerUnproven> {
        let all = self.identities.borrow().clone();
        let bundle = all.bundles().find(|(domain, _)| claimed.is_member_of(domain));
        match bundle {
            Some((_, ShownBundle::Own(own))) => Ok(own.anchors().clone()),
            Some((domain, ShownBundle::Foreign(foreign))) => {
                let authorities: Vec<_> = foreign.x509_authorities().collect();
                Ok(TrustAnchors::new(domain.clone(), &authorities)?)
            }
            None => Err(BrokerUnproven::NoBundle(claimed.clone())),
        }
    }

    fn now(&self) -> i64 {
        self.jwt_svids.moment().estimate()
    }
}

/// Whoever is no broker learns it from the handshake. rustls's own clock is passed over.
#[derive(Debug)]
pub(super) struct BrokerJudge(pub Arc<BrokerTrust>);

impl Judge for BrokerJudge {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], _: i64) -> Result<(), rustls::Error> {
        self.0.verify(leaf, others).map(drop).map_err(|unproven| match unproven {
            BrokerUnproven::Svid(SvidRefusal::Expired) => TlsCertificateError::Expired.into(),
            other => TlsCertificateError::Other(OtherError(Arc::new(other))).into(),
        })
    }
}
