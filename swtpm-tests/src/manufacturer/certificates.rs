//! The maker's certificates, after the TCG EK Credential Profile 2.5 §3.2.

use der::asn1::{ObjectIdentifier, SetOfVec, Utf8StringRef};
use der::{Any, Decode, Encode};
use ironroot_attest::structures::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, date_time_ymd,
};
use spki::SubjectPublicKeyInfoRef;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

use super::LabResult;

/// tcg-at-tpmManufacturer.
const MANUFACTURER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.1");
/// tcg-at-tpmModel.
const MODEL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.2");
/// tcg-at-tpmVersion.
const VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.2.3");
/// tcg-kp-EKCertificate.
const EKU_EK_CERTIFICATE: &[u64] = &[2, 23, 133, 8, 1];
/// subjectAltName, RFC 5280 §4.2.1.6.
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
/// subjectDirectoryAttributes, RFC 5280 §4.2.1.8: DER of { tcg-at-tpmSpecification, { "2.0", level 0, revision 164 } }.
const SUBJECT_DIRECTORY_ATTRIBUTES: (&[u64], &[u8]) = (
    &[2, 5, 29, 9],
    &[
        0x30, 0x19, 0x30, 0x17, 0x06, 0x05, 0x67, 0x81, 0x05, 0x02, 0x10, 0x31, 0x0e, 0x30, 0x0c, 0x0c, 0x03, b'2',
        b'.', b'0', 0x02, 0x01, 0x00, 0x02, 0x02, 0x00, 0xa4,
    ],
);

/// What an EK certificate says about its chip.
#[derive(Clone, Debug)]
pub struct EkProfile {
    /// As in the TCG's vendor ID registry: `id:` and eight hex digits of four ASCII letters.
    pub manufacturer: String,
    /// The part number.
    pub model: String,
    /// `id:` and the firmware version in hex.
    pub version: String,
}

impl Default for EkProfile {
    /// The ID of IBM's software TPM, whose code swtpm runs.
    fn default() -> Self {
        Self { manufacturer: "id:49424D00".into(), model: "ironroot-lab".into(), version: "id:20240126".into() }
    }
}

/// A self-signed root.
pub fn root(name: &str) -> LabResult<CertifiedIssuer<'static, KeyPair>> {
    Ok(CertifiedIssuer::self_signed(authority(&format!("{name} root"))?, ca_key()?)?)
}

/// An issuing CA under `root`.
pub fn issuing(name: &str, root: &CertifiedIssuer<'static, KeyPair>) -> LabResult<CertifiedIssuer<'static, KeyPair>> {
    Ok(CertifiedIssuer::signed_by(authority(&format!("{name} issuing"))?, ca_key()?, root)?)
}

/// An EK certificate: empty subject, critical subjectAltName with the chip's model, valid as long as makers say.
pub fn endorsement_key(
    key: &PublicKey,
    profile: &EkProfile,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> LabResult<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![match Subject::of(key)?.algorithm {
        Algorithm::Rsa => KeyUsagePurpose::KeyEncipherment,
        Algorithm::P256 | Algorithm::P384 => KeyUsagePurpose::KeyAgreement,
    }];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EKU_EK_CERTIFICATE.to_vec())];
    let mut alt_name = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, subject_alt_name(profile)?);
    alt_name.set_criticality(true);
    let (oid, content) = SUBJECT_DIRECTORY_ATTRIBUTES;
    params.custom_extensions = vec![alt_name, CustomExtension::from_oid_content(oid, content.to_vec())];
    raw(key, &params, issuer)
}

/// Signs `params` for `key`.
pub fn raw(
    key: &PublicKey,
    params: &CertificateParams,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> LabResult<Vec<u8>> {
    Ok(params.signed_by(&Subject::of(key)?, issuer)?.der().to_vec())
}

fn authority(common_name: &str) -> LabResult<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Ironroot lab");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 12, 31);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn ca_key() -> LabResult<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// One directoryName with one multi-valued RDN, as real makers write it.
fn subject_alt_name(profile: &EkProfile) -> LabResult<Vec<u8>> {
    let mut attributes = SetOfVec::new();
    for (oid, value) in [(MANUFACTURER, &profile.manufacturer), (MODEL, &profile.model), (VERSION, &profile.version)] {
        attributes.insert(AttributeTypeAndValue { oid, value: Any::from(Utf8StringRef::new(value)?) })?;
    }
    let rdns = RdnSequence::from(vec![RelativeDistinguishedName::from(attributes)]);
    // A Name is a checked RDNSequence: it is made by parsing one.
    let name = Name::from_der(&rdns.to_der()?)?;
    Ok(SubjectAltName(vec![GeneralName::DirectoryName(name)]).to_der()?)
}

enum Algorithm {
    Rsa,
    P256,
    P384,
}

/// A subject's key as rcgen takes it.
struct Subject {
    algorithm: Algorithm,
    bits: Vec<u8>,
}

impl Subject {
    fn of(key: &PublicKey) -> LabResult<Self> {
        let der = key.to_spki_der();
        let spki = SubjectPublicKeyInfoRef::try_from(der.as_slice())?;
        // rsaEncryption, RFC 3279 §2.3.1; anything else here is P-256 (65 bytes of point) or P-384.
        let is_rsa = spki.algorithm.oid == ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        let bits = spki.subject_public_key.raw_bytes().to_vec();
        let algorithm = match bits.len() {
            _ if is_rsa => Algorithm::Rsa,
            65 => Algorithm::P256,
            _ => Algorithm::P384,
        };
        Ok(Self { algorithm, bits })
    }
}

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.algorithm {
            Algorithm::Rsa => &PKCS_RSA_SHA256,
            Algorithm::P256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::P384 => &PKCS_ECDSA_P384_SHA384,
        }
    }
}
