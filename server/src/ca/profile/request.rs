//! What a CA asks of the authority above it.

use const_oid::db::rfc5912::ID_EXTENSION_REQ;
use der::asn1::{AnyRef, SetOfVec};
use der::{Any, Decode, Encode, Sequence};
use ironroot_api::TrustDomain;
use ironroot_api::issuing::{Serial, SubjectKey, alternative_names, extension};
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;

use super::error::ProfileError;
use super::names;
use crate::ca::CaSubject;

/// The name of a CA that the authority above signs, DER: the configured subject, and a random number, which keeps CA names apart.
pub(in crate::ca) fn ca_name(subject: &CaSubject) -> Result<Vec<u8>, ProfileError> {
    Ok(names::ca_subject(subject, None, &Serial::random().decimal())?)
}

/// The to-be-signed part of a PKCS #10 request, DER: this name, this key, the trust domain's ID. Source: RFC 2986 §4.1; SPIRE
/// `BuildUpstreamSignedX509CACSR`.
pub(in crate::ca) fn ca_request(
    name: &[u8],
    trust_domain: &TrustDomain,
    key: SubjectKey<'_>,
) -> Result<Vec<u8>, ProfileError> {
    #[derive(Sequence)]
    struct Info<'a> {
        version: u8,
        subject: AnyRef<'a>,
        spki: AnyRef<'a>,
        #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
        attributes: SetOfVec<Attribute>,
    }
    let names: Vec<Extension> = vec![extension(false, &alternative_names(&[], trust_domain.id().as_str())?)?];
    let values = SetOfVec::try_from(vec![Any::from_der(&names.to_der()?)?])?;
    let attributes = SetOfVec::try_from(vec![Attribute { oid: ID_EXTENSION_REQ, values }])?;
    let (subject, spki) = (AnyRef::from_der(name)?, AnyRef::from_der(key.spki_der())?);
    Ok(Info { version: 0, subject, spki, attributes }.to_der()?)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use ironroot_api::csr::{Csr, Spki};

    use super::*;
    use crate::ca::profile::assemble;

    #[test]
    fn what_is_asked_above_is_a_request_that_servers_read() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = Spki::parse(key.public_key().as_der().unwrap().as_ref()).unwrap();
        let subject = CaSubject { country: vec!["US".into()], organization: vec!["SPIFFE".into()], common_name: None };
        let name = ca_name(&subject).unwrap();
        assert_ne!(name, ca_name(&subject).unwrap());
        let info = ca_request(&name, &TrustDomain::new("example.org").unwrap(), (&spki).into()).unwrap();
        let signature = key.sign(&SystemRandom::new(), &info).unwrap();
        let request = assemble(&info, ironroot_hsm::KeyKind::EcP256, signature.as_ref()).unwrap();
        let (csr, names) = Csr::parse_with_names(&request).unwrap();
        assert_eq!((csr.spki(), &names.uris[..]), (&spki, &["spiffe://example.org".to_owned()][..]));
    }
}
