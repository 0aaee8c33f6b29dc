//! What the authority above is asked for.

use ironroot_api::TrustDomain;
use ironroot_api::csr::Spki;
use ironroot_hsm::Urgency;

use crate::ca::profile::{self, SubjectKey};
use crate::ca::{CaError, CaPolicy, JwtError};
use crate::keys::Key;

/// A CA to certify.
#[derive(Debug)]
pub(in crate::ca) struct CaRequest {
    pub(super) trust_domain: TrustDomain,
    /// DER Name.
    pub(super) name: Vec<u8>,
    pub(super) spki: Spki,
    pub(super) ttl_seconds: i64,
    /// PKCS #10, DER: the same, signed inside the token.
    pub(super) csr: Vec<u8>,
}

impl CaRequest {
    /// For `key`, which signs the request.
    pub(super) async fn signed(key: &Key, policy: &CaPolicy) -> Result<Self, CaError> {
        let name = profile::ca_name(&policy.subject)?;
        let info = profile::ca_request(&name, &policy.trust_domain, SubjectKey::from(key))?;
        let signature = key.kind().x509_signature(key.sign_message(&info, Urgency::FIRST).await?);
        Ok(Self {
            trust_domain: policy.trust_domain.clone(),
            name,
            spki: Spki::parse(key.spki_der()).map_err(JwtError::Key)?,
            ttl_seconds: policy.ca_ttl_seconds,
            csr: profile::assemble(&info, key.kind(), &signature)?,
        })
    }
}
