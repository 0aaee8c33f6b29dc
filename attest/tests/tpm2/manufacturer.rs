//! A toy TPM manufacturer: root, intermediate, and EK certificates right and wrong.

use der::asn1::{Any, Utf8StringRef};
use der::{Decode, Encode};
use ironroot_attest::ek_certificate::ManufacturerRoots;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

pub const NOW: i64 = 1_795_000_000; // 2026-11-18

const EK_CERTIFICATE: &[u64] = &[2, 23, 133, 8, 1];

pub struct Manufacturer {
    root_pem: String,
    intermediate_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Manufacturer {
    pub fn new(name: &str) -> Self {
        Self::with_keys(name, &rcgen::PKCS_ECDSA_P384_SHA384)
    }

    pub fn with_keys(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = || KeyPair::generate_for(algorithm).expect("key");
        let (root_key, intermediate_key) = (key(), key());
        let root = ca(&format!("{name} Root"));
        let root_pem = root.self_signed(&root_key).expect("signs").pem();
        let root = Issuer::new(root, root_key);
        let intermediate = ca(&format!("{name} EK CA"));
        let intermediate_der = intermediate.signed_by(&intermediate_key, &root).expect("signs").der().to_vec();
        Self { root_pem, intermediate_der, issuer: Issuer::new(intermediate, intermediate_key) }
    }

    pub fn roots(&self) -> ManufacturerRoots {
        ManufacturerRoots::from_pem(&self.root_pem).expect("roots")
    }

    /// The chain of a correct EK certificate for the key.
    pub fn certify(&self, spki: &[u8]) -> Vec<Vec<u8>> {
        self.certify_with(spki, ek_params(spki))
    }

    pub fn certify_with(&self, spki: &[u8], params: CertificateParams) -> Vec<Vec<u8>> {
        vec![issue(&params, spki, &self.issuer), self.intermediate_der.clone()]
    }
}

/// A certificate for any key by any issuer, DER.
pub fn issue(params: &CertificateParams, spki: &[u8], issuer: &Issuer<'_, KeyPair>) -> Vec<u8> {
    params.signed_by(&SubjectKey::of(spki), issuer).expect("signs").der().to_vec()
}

/// What a manufacturer writes into a correct EK certificate: empty subject, critical directoryName.
pub fn ek_params(spki: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params.is_ca = IsCa::ExplicitNoCa;
    let usage =
        if SubjectKey::of(spki).is_rsa() { KeyUsagePurpose::KeyEncipherment } else { KeyUsagePurpose::KeyAgreement };
    params.key_usages = vec![usage];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK_CERTIFICATE.to_vec())];
    let names = [("2.23.133.2.1", "id:49465800"), ("2.23.133.2.2", "SLB 9670"), ("2.23.133.2.3", "id:00070055")];
    params.custom_extensions = vec![directory_name(&names)];
    params
}

/// A critical subjectAltName with one directoryName of these attributes.
pub fn directory_name(attributes: &[(&str, &str)]) -> CustomExtension {
    let rdns = attributes.iter().map(|(oid, value)| {
        let value = Any::from(Utf8StringRef::new(value).expect("text"));
        let attribute = AttributeTypeAndValue { oid: oid.parse().expect("OID"), value };
        RelativeDistinguishedName::try_from(vec![attribute]).expect("one value")
    });
    let name = RdnSequence::from(rdns.collect::<Vec<_>>()).to_der().expect("encodes");
    let directory_name = tagged(0xa4, &name);
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], tagged(0x30, &directory_name));
    extension.set_criticality(true);
    extension
}

pub fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length: u8 = content.len().try_into().ok().filter(|length| *length < 128).expect("short form");
    [&[tag, length], content].concat()
}

/// A public key to be certified, as rcgen wants it.
struct SubjectKey {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl SubjectKey {
    fn of(spki: &[u8]) -> Self {
        let spki = spki::SubjectPublicKeyInfo::<der::asn1::AnyRef<'_>, der::asn1::BitStringRef<'_>>::from_der(spki);
        let bits = spki.expect("SPKI").subject_public_key.raw_bytes().to_vec();
        let algorithm = match bits.len() {
            65 => &rcgen::PKCS_ECDSA_P256_SHA256,
            97 => &rcgen::PKCS_ECDSA_P384_SHA384,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        Self { bits, algorithm }
    }

    fn is_rsa(&self) -> bool {
        self.bits.len() > 97
    }
}

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}
