//! What a root is asked to sign.

use der::{Decode, Encode};
use ironroot_api::TrustDomain;
use ironroot_api::csr::{Csr, CsrError, Spki};
use x509_cert::request::CertReq;

use super::CeremonyRefusal;

/// A CA of this trust domain, for a key whose holder has asked.
#[derive(Clone, Debug)]
pub struct WantedCa {
    pub(super) trust_domain: TrustDomain,
    /// DER Name.
    pub(super) name: Vec<u8>,
    pub(super) spki: Spki,
}

impl WantedCa {
    /// What this request (PKCS #10, DER) asks for. Refused: a signature that is not its key's, another trust domain's name, or none.
    pub fn asked(request: &[u8], trust_domain: &TrustDomain) -> Result<Self, CeremonyRefusal> {
        let (csr, names) = Csr::parse_with_names(request)?;
        let wanted = trust_domain.id().to_string();
        if names.uris != [wanted.clone()] || !names.dns_names.is_empty() {
            let found = if names.uris.is_empty() { "nobody".to_owned() } else { names.uris.join(", ") };
            return Err(CeremonyRefusal::RequestOfAnotherTrustDomain { found, wanted });
        }
        let name = CertReq::from_der(request).and_then(|request| request.info.subject.to_der());
        let name = name.map_err(|_| CsrError::Malformed)?;
        Ok(Self { trust_domain: trust_domain.clone(), name, spki: csr.spki().clone() })
    }

    /// The key that it is for.
    pub fn spki(&self) -> &Spki {
        &self.spki
    }

    /// As the server's own step has it.
    pub(in crate::ca) fn of_parts(trust_domain: TrustDomain, name: Vec<u8>, spki: Spki) -> Self {
        Self { trust_domain, name, spki }
    }
}
