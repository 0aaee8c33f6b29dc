//! What is above a CA of SPIRE's: a root of the bundle, and what is between them.

use ironroot_api::certificate::Certificate;

use super::error::TakeoverError;
use crate::ca::MAX_INTERMEDIATES;
use crate::facts::tier::{TierAuthority, TierCredential, TierOrigin};

/// An X.509 authority of the bundle.
pub(super) struct RootOfBundle {
    pub(super) certificate: Certificate,
    pub(super) is_tainted: bool,
}

impl RootOfBundle {
    /// As one that came from above: it is tainted and revoked there.
    pub(super) fn of_the_authority_above(self) -> TierAuthority {
        let expires_at = self.certificate.not_after_unix();
        let credential = TierCredential::Certificate(self.certificate.der().to_vec());
        TierAuthority { origin: TierOrigin::Above, credential, expires_at, tainted: self.is_tainted }
    }
}

/// What is above a CA.
pub(super) struct Above {
    /// Which of the bundle's roots, by number.
    pub(super) root: usize,
    /// What is between them, the CA's issuer first.
    pub(super) between: Vec<Certificate>,
}

/// What is above `ca`: nothing if it has signed itself and is in the bundle; or why it cannot sign here. `chain`: the CA, and what is
/// between it and its root; empty if it has signed itself.
pub(super) fn chain_above(
    chain: &[Vec<u8>],
    ca: &Certificate,
    roots: &[RootOfBundle],
) -> Result<Result<Option<Above>, &'static str>, TakeoverError> {
    if chain.is_empty() {
        let is_there = roots.iter().any(|root| root.certificate.der() == ca.der());
        return Ok(if is_there { Ok(None) } else { Err("it is not in the trust domain's bundle") });
    }
    if chain.len() > MAX_INTERMEDIATES {
        return Ok(Err("there are more authorities between it and its upstream root than verifiers take"));
    }
    let between = chain[1..].iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>();
    let between = between.map_err(|error| TakeoverError::Authority(error.to_string()))?;
    let lower = || std::iter::once(ca).chain(&between);
    if lower().zip(&between).any(|(lower, upper)| !has_signed(upper, lower)) {
        return Ok(Err("the authorities between it and its upstream root are not each other's"));
    }
    let last = between.last().unwrap_or(ca);
    let root = roots.iter().position(|root| has_signed(&root.certificate, last));
    let root = root.ok_or("the upstream authority that signed it is not in the trust domain's bundle");
    Ok(root.map(|root| Some(Above { root, between })))
}

/// By its names and key IDs; what is said by them is proven when SVIDs are verified.
fn has_signed(upper: &Certificate, lower: &Certificate) -> bool {
    let (wanted, found) = (lower.authority_key_id(), upper.subject_key_id());
    let is_key = wanted.is_none() || found.is_none() || wanted == found;
    is_key && upper.inner().tbs_certificate().subject() == lower.inner().tbs_certificate().issuer()
}
