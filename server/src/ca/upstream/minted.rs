//! What the authority above has answered, and whether it is any good.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_api::certificate::Certificate;
use ironroot_api::csr::Spki;
use ironroot_api::tls::{SvidRefusal, TrustAnchors};
use rustls_pki_types::CertificateDer;
use webpki::KeyUsage;

use super::UpstreamError;
use crate::ca::issuer::{Issuer, MAX_INTERMEDIATES};
use crate::ca::journal::Authority;
use crate::ca::profile::{Leaf, Serial};
use crate::ca::sampling::Scrutiny;
use crate::ca::{CaError, CaPolicy, lint};
use crate::keys::Key;

/// Certificates of a CA's chain, the CA's own among them.
pub(super) const MAX_CHAIN: usize = MAX_INTERMEDIATES;
/// Roots that one answer may have. A trust domain has one or two, and more for a while when one is replaced.
pub(super) const MAX_ROOTS: usize = 64;

/// A certified CA.
#[derive(Debug)]
pub(in crate::ca) struct MintedCa {
    pub(super) ca: Certificate,
    /// What is between it and its root, its issuer first.
    pub(super) chain: Vec<Certificate>,
    pub(super) roots: Vec<Certificate>,
}

impl MintedCa {
    /// `chain`: the CA first; `roots`: what verifies it, among others.
    pub(super) fn new(chain: Vec<Certificate>, roots: Vec<Certificate>) -> Result<Self, UpstreamError> {
        match (chain.len(), roots.len()) {
            (0, _) => return Err(UpstreamError::NoChain),
            (_, 0) => return Err(UpstreamError::NoRoots),
            (long, _) if long > MAX_CHAIN => return Err(UpstreamError::LongChain(long)),
            (_, many) if many > MAX_ROOTS => return Err(UpstreamError::TooManyRoots(many)),
            _ => {}
        }
        let mut chain = chain.into_iter();
        let ca = chain.next().ok_or(UpstreamError::NoChain)?;
        Ok(Self { ca, chain: chain.collect(), roots })
    }
}

/// Refuses a CA unless it is one of ours for `key`, and unless peers take what it signs: a throw-away SVID finds out. Source: SPIRE
/// `ValidateUpstreamX509CA`.
pub(super) async fn accept(
    authority: &Authority,
    key: Key,
    roots: &[Certificate],
    policy: &CaPolicy,
    now_unix: i64,
) -> Result<(), CaError> {
    let Some(certificate) = authority.credential.certificate() else { return Ok(()) };
    lint::fields_of_a_ca(certificate, &policy.trust_domain, key.spki_der()).map_err(UpstreamError::NotOurs)?;
    let issuer = Issuer::new(key, authority, certificate)?;
    let leaf = Leaf::plain(policy.trust_domain.server_id(), throw_away(), 60);
    let svid = issuer.issue(&leaf, Serial::random(), Scrutiny::Full, now_unix).await?;
    let chain: Vec<_> = svid.chain.into_iter().map(CertificateDer::from).collect();
    Ok(verify(&chain, roots, policy, now_unix).map_err(UpstreamError::Invalid)?)
}

fn verify(
    chain: &[CertificateDer<'_>],
    roots: &[Certificate],
    policy: &CaPolicy,
    now_unix: i64,
) -> Result<(), SvidRefusal> {
    let roots: Vec<_> = roots.iter().map(|root| root.der().clone()).collect();
    let anchors = TrustAnchors::new(policy.trust_domain.clone(), &roots)?;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        anchors.verify(&chain[0], &chain[1..], usage, now_unix)?;
    }
    Ok(())
}

/// A key that signs nothing.
pub(super) fn throw_away() -> Spki {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key generation needs only randomness");
    let spki = key.public_key().as_der().expect("a P-256 key has a SubjectPublicKeyInfo");
    Spki::parse(spki.as_ref()).expect("a fresh P-256 key is an accepted key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificates(count: usize) -> Vec<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        let one = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        (0..count).map(|_| Certificate::parse(one.der()).unwrap()).collect()
    }

    #[test]
    fn an_answer_has_a_chain_and_roots_and_not_too_many_of_either() {
        let answer = |chain, roots| MintedCa::new(certificates(chain), certificates(roots));
        let minted = answer(MAX_CHAIN, MAX_ROOTS).unwrap();
        assert_eq!((minted.chain.len(), minted.roots.len()), (MAX_CHAIN - 1, MAX_ROOTS));
        assert!(matches!(answer(0, 1), Err(UpstreamError::NoChain)));
        assert!(matches!(answer(1, 0), Err(UpstreamError::NoRoots)));
        assert!(matches!(answer(MAX_CHAIN + 1, 1), Err(UpstreamError::LongChain(7))));
        assert!(matches!(answer(1, MAX_ROOTS + 1), Err(UpstreamError::TooManyRoots(65))));
    }
}
