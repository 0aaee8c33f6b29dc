//! A bundle as workloads see it, of whichever trust domain.

use std::sync::Arc;

use ironroot_api::jwt::JwtAuthorities;
use prost::bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::{ForeignBundle, TrustBundle};

/// By reference: cheap to hand around, and to compare with what was sent last.
#[derive(Clone, Debug)]
pub enum ShownBundle {
    /// The agent's own trust domain's.
    Own(Arc<TrustBundle>),
    /// Another one's, which may be empty.
    Foreign(Arc<ForeignBundle>),
}

impl ShownBundle {
    /// The X.509 authorities' DER certificates laid end to end, as the Workload API sends them.
    pub fn concatenated(&self) -> &Bytes {
        match self {
            Self::Own(bundle) => bundle.concatenated(),
            Self::Foreign(bundle) => bundle.concatenated(),
        }
    }

    /// The X.509 authorities.
    pub fn authorities(&self) -> Vec<CertificateDer<'_>> {
        match self {
            Self::Own(bundle) => bundle.authorities().collect(),
            Self::Foreign(bundle) => bundle.x509_authorities().collect(),
        }
    }

    /// The keys that sign the trust domain's JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &JwtAuthorities {
        match self {
            Self::Own(bundle) => bundle.jwt_authorities(),
            Self::Foreign(bundle) => bundle.jwt_authorities(),
        }
    }

    /// Whether X.509 clients are shown it: not another trust domain's without an authority, of which nobody is to be believed. JWT clients
    /// are shown each, as at SPIRE's agent, be it without a key.
    //= TDB-04 SPIFFE Trust Domain and Bundle 4.1.3: "workloads MUST treat all SVIDs from the trust domain as invalid and untrusted"
    pub fn is_for_x509(&self) -> bool {
        matches!(self, Self::Own(_)) || !self.concatenated().is_empty()
    }

    /// Whether both are one and the same.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(one), Self::Own(other)) => Arc::ptr_eq(one, other),
            (Self::Foreign(one), Self::Foreign(other)) => Arc::ptr_eq(one, other),
            (Self::Own(_), Self::Foreign(_)) | (Self::Foreign(_), Self::Own(_)) => false,
        }
    }
}
