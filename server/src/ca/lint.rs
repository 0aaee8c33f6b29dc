//! The last look at a certificate before it leaves: parsed back from its bytes, and its signature verified.
//!
//! A token that returns a wrong signature, or an encoder that was changed carelessly, is found here and not at a peer.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use der::Encode;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_api::csr::Spki;
use ironroot_hsm::KeyKind;
use thiserror::Error;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::key_kind::kind_of;
use super::profile::{AuthorityFacts, Leaf};
use crate::keys::Key;

/// What is wrong with a certificate that was just signed.
#[derive(Debug, Error)]
pub enum LintError {
    /// It does not parse, or is no X509-SVID.
    #[error("it is not what it must be")]
    Certificate(#[from] CertificateError),
    /// The signature does not verify with the authority's key: the token may be faulty.
    #[error("its signature does not verify; the token may be faulty")]
    Signature,
    /// JWT-SVIDs have no algorithm for its kind.
    #[error("an {0} key signs no tokens: set jwt_key_type, or wit_key_type, to ec-p256")]
    NoTokens(KeyKind),
    /// A field differs from what was to be issued.
    #[error("its {0} is not what was to be issued")]
    Field(&'static str),
}

/// The public half of a token key, ready to verify with.
pub(super) struct Verifier(ParsedPublicKey);

impl Verifier {
    /// Of a CA's key. It verifies what certificates have: DER `ECDSA-Sig-Value`, RSA's PKCS #1 v1.5, or ML-DSA's bytes.
    pub(super) fn of(key: &Key) -> Result<Self, LintError> {
        Self::new(algorithm(key.kind()), key)
    }

    /// Of a key that signs JWS, with its algorithm's name there. It verifies what the token returns: r‖s of fixed width, or RSA's PKCS #1
    /// v1.5.
    pub(super) fn of_jws(key: &Key) -> Result<(&'static str, Self), LintError> {
        let (name, algorithm) = jws_algorithm(key.kind())?;
        Ok((name, Self::new(algorithm, key)?))
    }

    fn new(algorithm: &'static dyn VerificationAlgorithm, key: &Key) -> Result<Self, LintError> {
        Self::with(algorithm, key.public_key())
    }

    fn with(algorithm: &'static dyn VerificationAlgorithm, public_key: &[u8]) -> Result<Self, LintError> {
        ParsedPublicKey::new(algorithm, public_key).map(Self).map_err(|_| LintError::Signature)
    }

    pub(super) fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), LintError> {
        self.0.verify_sig(signed, signature).map_err(|_| LintError::Signature)
    }

    fn verify_certificate(&self, tbs: &[u8], certificate: &Certificate) -> Result<(), LintError> {
        self.verify(tbs, certificate.inner().signature().as_bytes().ok_or(LintError::Signature)?)
    }
}

/// How tokens are signed with keys of this kind: none of the standard's algorithms is ML-DSA. Source: SPIRE
/// `cryptoutil.JoseAlgFromPublicKey`; RFC 7518 §3.1; JWT-SVID §2.1.
fn jws_algorithm(kind: KeyKind) -> Result<(&'static str, &'static dyn VerificationAlgorithm), LintError> {
    match kind {
        KeyKind::EcP256 => Ok(("ES256", &ECDSA_P256_SHA256_FIXED)),
        KeyKind::EcP384 => Ok(("ES384", &ECDSA_P384_SHA384_FIXED)),
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => Ok(("RS256", &RSA_PKCS1_2048_8192_SHA256)),
        KeyKind::MlDsa(_) => Err(LintError::NoTokens(kind)),
    }
}

/// How certificates are signed with keys of this kind.
fn algorithm(kind: KeyKind) -> &'static dyn VerificationAlgorithm {
    match kind {
        KeyKind::EcP256 => &ECDSA_P256_SHA256_ASN1,
        KeyKind::EcP384 => &ECDSA_P384_SHA384_ASN1,
        KeyKind::Rsa2048 | KeyKind::Rsa4096 => &RSA_PKCS1_2048_8192_SHA256,
        KeyKind::MlDsa(set) => set.verification(),
    }
}

/// Checks an X509-SVID against what was asked for and who signed it, and its signature if there is a `verifier`; returns
/// the certificate's notAfter, UNIX seconds.
pub(super) fn svid(
    der: &[u8],
    leaf: &Leaf,
    authority: &AuthorityFacts,
    verifier: Option<&Verifier>,
) -> Result<i64, LintError> {
    let certificate = Certificate::parse(der)?;
    //= ID-13 SPIFFE-ID 3.2: "MUST be included in a portion of the payload which is signed"
    check("SPIFFE ID", certificate.leaf_spiffe_id()? == leaf.id)?;
    check("public key", certificate.spki_der() == leaf.spki.as_der())?;
    check("authority key identifier", certificate.authority_key_id().as_deref() == Some(authority.key_id()))?;
    check("end of life", certificate.not_after_unix() <= authority.not_after())?;
    check("DNS names", dns_names(&certificate)? == leaf.dns_names)?;
    if let Some(verifier) = verifier {
        verifier.verify_certificate(&signed_part(&certificate)?, &certificate)?;
    }
    Ok(certificate.not_after_unix())
}

/// Checks a CA certificate for `key` against who signed it: a root, or itself. Returns it parsed.
pub(super) fn authority(
    der: &[u8],
    trust_domain: &TrustDomain,
    key: &Key,
    root: Option<(&Key, &AuthorityFacts)>,
) -> Result<Certificate, LintError> {
    let signer = Verifier::of(root.map_or(key, |(key, _)| key))?;
    signing_certificate(der, trust_domain, key.spki_der(), root.map(|(_, facts)| facts), &signer)
}

/// Checks a CA certificate for the key `spki_der` against who signed it: `issuer`, or itself if there is none. Returns it parsed.
pub(super) fn signing_certificate(
    der: &[u8],
    trust_domain: &TrustDomain,
    spki_der: &[u8],
    issuer: Option<&AuthorityFacts>,
    signer: &Verifier,
) -> Result<Certificate, LintError> {
    let certificate = Certificate::parse(der)?;
    fields_of_a_ca(&certificate, trust_domain, spki_der)?;
    if let Some(issuer) = issuer {
        check("authority key identifier", certificate.authority_key_id().as_deref() == Some(issuer.key_id()))?;
        check("end of life", certificate.not_after_unix() <= issuer.not_after())?;
    }
    signer.verify_certificate(&signed_part(&certificate)?, &certificate)?;
    Ok(certificate)
}

/// Checks what the certificate of a CA for the key `spki_der` says, whoever has signed it.
pub(super) fn fields_of_a_ca(
    certificate: &Certificate,
    trust_domain: &TrustDomain,
    spki_der: &[u8],
) -> Result<(), LintError> {
    let usage = certificate.key_usage().ok_or(LintError::Field("key usage"))?;
    check("basic constraints", certificate.is_ca())?;
    check("key usage", usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature())?;
    check("SPIFFE ID", certificate.spiffe_id()? == trust_domain.id())?;
    check("public key", certificate.spki_der() == spki_der)
}

/// Whether the key of `issuer` has signed `certificate`, which names it as its issuer. Of kinds of keys that no server of ours has: no.
pub(super) fn is_signed_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let names_it = certificate.inner().tbs_certificate().issuer() == issuer.inner().tbs_certificate().subject();
    let verified = || {
        let spki = Spki::parse(&issuer.spki_der()).ok()?;
        let verifier = Verifier::with(algorithm(kind_of(&spki)), spki.key()).ok()?;
        verifier.verify_certificate(&signed_part(certificate).ok()?, certificate).ok()
    };
    names_it && verified().is_some()
}

fn check(field: &'static str, holds: bool) -> Result<(), LintError> {
    if holds { Ok(()) } else { Err(LintError::Field(field)) }
}

/// The signed part as the parser understood it: if it re-encodes otherwise than it was signed, the signature fails.
fn signed_part(certificate: &Certificate) -> Result<Vec<u8>, LintError> {
    certificate.inner().tbs_certificate().to_der().map_err(|_| LintError::Certificate(CertificateError::Malformed))
}

fn dns_names(certificate: &Certificate) -> Result<Vec<String>, LintError> {
    let names = certificate.inner().tbs_certificate().get_extension::<SubjectAltName>();
    let names = names.map_err(|_| CertificateError::Malformed)?.map(|(_, names)| names.0).unwrap_or_default();
    let dns = |name: GeneralName| if let GeneralName::DnsName(dns) = name { Some(dns.to_string()) } else { None };
    Ok(names.into_iter().filter_map(dns).collect())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use ironroot_api::SpiffeId;
    use ironroot_api::csr::Spki;

    use super::super::profile::Certifier;
    use super::*;
    use crate::ca::CaSubject;
    use crate::ca::profile::{self, Serial};

    const NOW: i64 = 1_800_000_000;

    struct Toy {
        key: EcdsaKeyPair,
        facts: AuthorityFacts,
    }

    fn key() -> (EcdsaKeyPair, Spki) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = Spki::parse(key.public_key().as_der().unwrap().as_ref()).unwrap();
        (key, spki)
    }

    fn toy() -> Toy {
        let (key, spki) = key();
        let subject = CaSubject { country: Vec::new(), organization: vec!["toy".to_owned()], common_name: None };
        let td = TrustDomain::new("example.org").unwrap();
        let tbs = profile::authority(
            &subject,
            &td,
            (&spki).into(),
            Certifier::Itself(KeyKind::EcP256),
            Serial::random(),
            NOW,
            NOW + 600,
        )
        .unwrap();
        let der =
            profile::assemble(&tbs, KeyKind::EcP256, key.sign(&SystemRandom::new(), &tbs).unwrap().as_ref()).unwrap();
        Toy { key, facts: AuthorityFacts::of(&Certificate::parse(&der).unwrap()).unwrap() }
    }

    fn leaf() -> Leaf {
        let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
        Leaf { id, dns_names: vec!["web.example.org".to_owned()], has_unique_id: false, spki: key().1, ttl_seconds: 60 }
    }

    impl Toy {
        fn sign(&self, leaf: &Leaf) -> Vec<u8> {
            let tbs = profile::svid(leaf, &self.facts, Serial::random(), NOW).unwrap();
            profile::assemble(&tbs, KeyKind::EcP256, self.key.sign(&SystemRandom::new(), &tbs).unwrap().as_ref())
                .unwrap()
        }

        fn verifier(&self) -> Verifier {
            let public = self.key.public_key().as_ref();
            Verifier(ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public).unwrap())
        }
    }

    #[test]
    fn keys_that_the_standard_has_no_algorithm_for_sign_no_tokens() {
        for set in ironroot_api::MlDsa::ALL {
            assert!(matches!(jws_algorithm(KeyKind::MlDsa(set)), Err(LintError::NoTokens(_))));
        }
    }

    #[test]
    fn lets_pass_what_was_asked_for() {
        let (toy, leaf) = (toy(), leaf());
        assert_eq!(svid(&toy.sign(&leaf), &leaf, &toy.facts, Some(&toy.verifier())).unwrap(), NOW + 60);
    }

    #[test]
    fn withholds_a_certificate_whose_signature_is_wrong() {
        let (toy, leaf) = (toy(), leaf());
        let der = toy.sign(&leaf);
        for bit in 0..8 {
            let mut wrong = der.clone();
            *wrong.last_mut().unwrap() ^= 1 << bit;
            assert!(matches!(svid(&wrong, &leaf, &toy.facts, Some(&toy.verifier())), Err(LintError::Signature)));
        }
        let other = self::toy().verifier();
        assert!(matches!(svid(&der, &leaf, &toy.facts, Some(&other)), Err(LintError::Signature)));
    }

    #[test]
    fn withholds_a_certificate_for_anything_else() {
        let (toy, asked) = (toy(), leaf());
        let signed = |change: &dyn Fn(&mut Leaf)| {
            let mut other = asked.clone();
            change(&mut other);
            svid(&toy.sign(&other), &asked, &toy.facts, None)
        };
        let id = SpiffeId::parse("spiffe://example.org/db").unwrap();
        assert!(matches!(signed(&|l| l.id = id.clone()), Err(LintError::Field("SPIFFE ID"))));
        assert!(matches!(signed(&|l| l.spki = key().1), Err(LintError::Field("public key"))));
        assert!(matches!(signed(&|l| l.dns_names.clear()), Err(LintError::Field("DNS names"))));
        let other = self::toy();
        let foreign = svid(&toy.sign(&asked), &asked, &other.facts, None);
        assert!(matches!(foreign, Err(LintError::Field("authority key identifier"))));
        assert!(matches!(svid(b"0", &asked, &toy.facts, None), Err(LintError::Certificate(_))));
    }
}
