//! Certificates as SPIRE issues them: what is in them, and their DER. Pure: time and randomness are arguments.
//!
//! Source: SPIRE pkg/server/credtemplate/builder.go; X509-SVID.md; RFC 5280.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use const_oid::db::rfc5912::ECDSA_WITH_SHA_256;
use const_oid::{AssociatedOid, ObjectIdentifier};
use der::asn1::{AnyRef, BitStringRef, Ia5String, OctetString, UintRef};
use der::{DateTime, Decode, Encode, Sequence};
use ironroot_api::certificate::{Certificate, CertificateError};
use ironroot_api::csr::Spki;
use ironroot_api::utc;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_hsm::TokenKey;
use thiserror::Error;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::time::{Time, Validity};

use super::names;
use crate::ca::CaSubject;

/// notBefore lies this far back, seconds, for peers whose clocks are behind. Source: SPIRE `x509util.NotBeforeCushion`.
pub(super) const NOT_BEFORE_CUSHION: i64 = 10;

/// Why a certificate cannot be composed.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The authority has expired.
    #[error(
        "this server's clock says {}, the CA certificate was valid until {}: correct the clock if it is ahead, else look for \
         what kept the CA from rotating",
        utc(*now),
        utc(*not_after)
    )]
    AuthorityExpired {
        /// Its notAfter, UNIX seconds.
        not_after: i64,
        /// The time, UNIX seconds.
        now: i64,
    },
    /// The clock went back to before the authority began.
    #[error("this server's clock says {}, the CA certificate is valid from {}: correct the clock", utc(*now), utc(*not_before))]
    ClockBehind {
        /// Its notBefore, UNIX seconds.
        not_before: i64,
        /// The time, UNIX seconds.
        now: i64,
    },
    /// The authority's own certificate does not parse.
    #[error("the CA certificate does not parse")]
    Authority(#[from] CertificateError),
    /// A value that DER cannot hold.
    #[error("a field cannot be encoded")]
    Encoding(#[from] der::Error),
}

/// A certificate's serial number: 1 to 2^128 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serial(u128);

impl Serial {
    /// 128 random bits.
    pub(super) fn random() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the kernel's random numbers do not fail");
        //= X509-20 RFC 5280 4.1.2.2: "The serial number MUST be a positive integer"
        Self(u128::from_be_bytes(bytes).max(1))
    }

    /// In decimal, as SPIRE stores and prints it.
    pub(super) fn decimal(self) -> String {
        self.0.to_string()
    }
}

/// What issuing needs to know of an authority's certificate.
pub(super) struct AuthorityFacts {
    name: Vec<u8>,
    key_id: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl AuthorityFacts {
    pub(super) fn of(certificate: &Certificate) -> Result<Self, ProfileError> {
        Ok(Self {
            name: certificate.inner().tbs_certificate().subject().to_der()?,
            key_id: certificate.subject_key_id().ok_or(CertificateError::Malformed)?,
            not_before: certificate.not_before_unix(),
            not_after: certificate.not_after_unix(),
        })
    }

    /// Refuses to sign outside the authority's own time.
    pub(super) fn check(&self, now_unix: i64) -> Result<(), ProfileError> {
        if self.not_after <= now_unix {
            return Err(ProfileError::AuthorityExpired { not_after: self.not_after, now: now_unix });
        }
        if now_unix < self.not_before {
            return Err(ProfileError::ClockBehind { not_before: self.not_before, now: now_unix });
        }
        Ok(())
    }

    pub(super) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    pub(super) fn not_after(&self) -> i64 {
        self.not_after
    }
}

/// A public key to certify. It was parsed where it came from and is not parsed again.
#[derive(Clone, Copy)]
pub(super) struct SubjectKey<'a> {
    /// DER SubjectPublicKeyInfo.
    spki_der: &'a [u8],
    /// Its subjectPublicKey.
    key: &'a [u8],
}

impl SubjectKey<'_> {
    /// SHA-1 over the bits of the public key: a name, not a proof. Source: RFC 5280 §4.2.1.2 (1), as SPIRE does.
    fn id(self) -> Vec<u8> {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, self.key).as_ref().to_vec()
    }
}

impl<'a> From<&'a Spki> for SubjectKey<'a> {
    fn from(spki: &'a Spki) -> Self {
        Self { spki_der: spki.as_der(), key: spki.key() }
    }
}

impl<'a> From<&'a TokenKey> for SubjectKey<'a> {
    fn from(key: &'a TokenKey) -> Self {
        Self { spki_der: key.spki_der(), key: key.public_point() }
    }
}

/// Who gets an SVID, for which key, for how long.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) id: SpiffeId,
    pub(super) dns_names: Vec<String>,
    pub(super) spki: Spki,
    pub(super) ttl_seconds: i64,
}

impl Leaf {
    /// The end of its life under `authority`, UNIX seconds: no SVID outlives its authority.
    pub(super) fn not_after(&self, authority: &AuthorityFacts, now_unix: i64) -> i64 {
        //= FLT-S10 server faults: "the SVID ends with it"
        now_unix.saturating_add(self.ttl_seconds).min(authority.not_after)
    }
}

/// The to-be-signed part of an X509-SVID, DER.
pub(super) fn svid(
    leaf: &Leaf,
    authority: &AuthorityFacts,
    serial: Serial,
    now_unix: i64,
) -> Result<Vec<u8>, ProfileError> {
    authority.check(now_unix)?;
    let key = SubjectKey::from(&leaf.spki);
    let usages = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement;
    let extensions = vec![
        //= X509-10 X509-SVID 4.3: "The key usage extension MUST be set on all SVIDs, and MUST be marked critical."
        extension(true, &KeyUsage(usages))?,
        extension(false, &ExtendedKeyUsage(vec![ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH]))?,
        //= X509-08 X509-SVID 4.1: "leaf certificates MUST set the `cA` field to `false`"
        extension(true, &BasicConstraints { ca: false, path_len_constraint: None })?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key.id())?))?,
        extension(false, &authority_key_id(&authority.key_id)?)?,
        extension(false, &alternative_names(&leaf.dns_names, leaf.id.as_str())?)?,
    ];
    let subject = names::svid_subject(leaf.dns_names.first().map(String::as_str))?;
    let not_before = (now_unix - NOT_BEFORE_CUSHION).max(authority.not_before);
    let validity = validity(not_before, leaf.not_after(authority, now_unix))?;
    encode(serial, &authority.name, validity, &subject, key, extensions)
}

/// The to-be-signed part of a CA certificate for `key`, DER: signed by `root`, or by itself. Source: SPIRE, whose
/// CAs under an upstream authority have neither a path length nor name constraints, and the trust domain as URI.
pub(super) fn authority(
    subject: &CaSubject,
    trust_domain: &TrustDomain,
    key: SubjectKey<'_>,
    root: Option<&AuthorityFacts>,
    serial: Serial,
    now_unix: i64,
    not_after: i64,
) -> Result<Vec<u8>, ProfileError> {
    let mut extensions = vec![
        //= X509-11 X509-SVID 4.3: "SVID signing certificates MUST set `keyCertSign`. They MAY set `cRLSign`."
        extension(true, &KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
        extension(true, &BasicConstraints { ca: true, path_len_constraint: None })?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key.id())?))?,
    ];
    if let Some(root) = root {
        root.check(now_unix)?;
        extensions.push(extension(false, &authority_key_id(&root.key_id)?)?);
    }
    //= X509-06 X509-SVID 3.2: "the SPIFFE ID of a signing certificate MUST NOT have a path component"
    //= ID-12 SPIFFE-ID 3.1: "this signing authority MUST carry an SVID of its own"
    extensions.push(extension(false, &alternative_names(&[], trust_domain.id().as_str())?)?);
    let name = names::ca_subject(subject, &serial.decimal())?;
    let not_before = (now_unix - NOT_BEFORE_CUSHION).max(root.map_or(i64::MIN, |root| root.not_before));
    let validity = validity(not_before, not_after.min(root.map_or(i64::MAX, |root| root.not_after)))?;
    encode(serial, root.map_or(&name, |root| &root.name), validity, &name, key, extensions)
}

/// The subject of roots: the CAs' own, with a common name that says what it is.
pub(super) fn root_subject(subject: &CaSubject, trust_domain: &TrustDomain) -> CaSubject {
    let name = subject.common_name.as_deref().unwrap_or(trust_domain.as_str());
    // Source: RFC 5280 appendix A.1, ub-common-name: 64 characters.
    let name: String = name.chars().take(59).collect();
    CaSubject { common_name: Some(format!("{name} root")), ..subject.clone() }
}

/// The certificate: what was signed, and its signature as DER `ECDSA-Sig-Value`.
pub(super) fn assemble(tbs: &[u8], signature: &[u8]) -> Result<Vec<u8>, ProfileError> {
    #[derive(Sequence)]
    struct Signed<'a> {
        tbs: AnyRef<'a>,
        algorithm: Algorithm,
        signature: BitStringRef<'a>,
    }
    let signature = BitStringRef::from_bytes(signature)?;
    Ok(Signed { tbs: AnyRef::from_der(tbs)?, algorithm: ECDSA_SHA256, signature }.to_der()?)
}

/// Names and key are copied as they came: an issuer that is re-encoded may no longer match.
#[derive(Sequence)]
struct ToBeSigned<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial: UintRef<'a>,
    signature: Algorithm,
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    spki: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// An AlgorithmIdentifier without parameters. Source: RFC 5758 §3.2.
#[derive(Clone, Copy, Sequence)]
struct Algorithm {
    oid: ObjectIdentifier,
}

const ECDSA_SHA256: Algorithm = Algorithm { oid: ECDSA_WITH_SHA_256 };

fn encode(
    serial: Serial,
    issuer: &[u8],
    validity: Validity,
    subject: &[u8],
    key: SubjectKey<'_>,
    extensions: Vec<Extension>,
) -> Result<Vec<u8>, ProfileError> {
    let serial = serial.0.to_be_bytes();
    let tbs = ToBeSigned {
        version: Version::V3,
        serial: UintRef::new(&serial)?,
        signature: ECDSA_SHA256,
        issuer: AnyRef::from_der(issuer)?,
        validity,
        subject: AnyRef::from_der(subject)?,
        spki: AnyRef::from_der(key.spki_der)?,
        extensions,
    };
    Ok(tbs.to_der()?)
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, der::Error> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

fn authority_key_id(key_id: &[u8]) -> Result<AuthorityKeyIdentifier, der::Error> {
    let key_identifier = Some(OctetString::new(key_id)?);
    Ok(AuthorityKeyIdentifier { key_identifier, authority_cert_issuer: None, authority_cert_serial_number: None })
}

/// DNS names first, then the ID, as Go writes them.
fn alternative_names(dns_names: &[String], id: &str) -> Result<SubjectAltName, der::Error> {
    let mut names = Vec::with_capacity(dns_names.len() + 1);
    for dns_name in dns_names {
        //= X509-03 X509-SVID 2: "MAY contain any number of other SAN field types, including DNS SANs"
        names.push(GeneralName::DnsName(Ia5String::new(dns_name)?));
    }
    names.push(GeneralName::UniformResourceIdentifier(Ia5String::new(id)?));
    Ok(SubjectAltName(names))
}

fn validity(not_before: i64, not_after: i64) -> Result<Validity, der::Error> {
    Ok(Validity::new(time(not_before)?, time(not_after)?))
}

/// UTCTime until 2049, GeneralizedTime from 2050. Source: RFC 5280 §4.1.2.5.
fn time(unix: i64) -> Result<Time, der::Error> {
    let since_1970 = Duration::from_secs(unix.max(0).unsigned_abs());
    //= X509-21 RFC 5280 4.1.2.5: "MUST always encode certificate validity dates through the year 2049 as UTCTime"
    Ok(Time::from(DateTime::from_unix_duration(since_1970)?))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn spki() -> Spki {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Spki::parse(key.public_key().as_der().unwrap().as_ref()).unwrap()
    }

    fn subject() -> CaSubject {
        CaSubject { country: vec!["US".into()], organization: vec!["SPIFFE".into()], common_name: None }
    }

    /// The lint and the peers verify signatures; here only the fields matter.
    fn parsed(tbs: &[u8]) -> Certificate {
        Certificate::parse(&assemble(tbs, &[0x30, 0]).unwrap()).unwrap()
    }

    fn ca(ttl: i64) -> Certificate {
        let td = TrustDomain::new("example.org").unwrap();
        parsed(&authority(&subject(), &td, SubjectKey::from(&spki()), None, Serial(77), NOW, NOW + ttl).unwrap())
    }

    fn leaf(ttl_seconds: i64, dns_names: &[&str]) -> Leaf {
        let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
        Leaf { id, dns_names: dns_names.iter().map(|d| (*d).to_owned()).collect(), spki: spki(), ttl_seconds }
    }

    //= X509-01 X509-03 X509-08 X509-10 X509-12 X509-13
    #[test]
    fn an_svid_has_the_fields_of_spires_template() {
        let ca = ca(3600);
        let facts = AuthorityFacts::of(&ca).unwrap();
        let leaf = leaf(600, &["web.example.org", "*.example.org"]);
        let svid = parsed(&svid(&leaf, &facts, Serial(u128::MAX), NOW).unwrap());
        let tbs = svid.inner().tbs_certificate();
        assert_eq!(svid.serial_decimal(), u128::MAX.to_string());
        assert_eq!((svid.not_before_unix(), svid.not_after_unix()), (NOW - 10, NOW + 600));
        assert_eq!(tbs.issuer().to_der().unwrap(), ca.inner().tbs_certificate().subject().to_der().unwrap());
        assert_eq!(tbs.subject().to_string(), "CN=web.example.org,O=SPIRE,C=US");
        assert_eq!((svid.leaf_spiffe_id().unwrap(), &svid.spki_der()[..]), (leaf.id, leaf.spki.as_der()));
        assert_eq!(svid.authority_key_id(), ca.subject_key_id());
        let point = &leaf.spki.as_der()[leaf.spki.as_der().len() - 65..];
        assert_eq!(svid.subject_key_id().unwrap(), digest(&SHA1_FOR_LEGACY_USE_ONLY, point).as_ref());
        let critical: Vec<_> = tbs.extensions().unwrap().iter().map(|e| (e.extn_id.to_string(), e.critical)).collect();
        let expected = [
            ("2.5.29.15", true),
            ("2.5.29.37", false),
            ("2.5.29.19", true),
            ("2.5.29.14", false),
            ("2.5.29.35", false),
            ("2.5.29.17", false),
        ];
        assert_eq!(critical, expected.map(|(oid, critical)| (oid.to_owned(), critical)));
        let usage = svid.key_usage().unwrap();
        assert!(
            usage.digital_signature() && usage.key_encipherment() && usage.key_agreement() && !usage.key_cert_sign()
        );
    }

    //= ID-12 X509-06 X509-08 X509-11 X509-17
    #[test]
    fn a_ca_certificate_has_the_fields_of_spires_template() {
        let ca = ca(3600);
        let tbs = ca.inner().tbs_certificate();
        assert!(ca.is_ca() && ca.authority_key_id().is_none());
        assert_eq!(ca.spiffe_id().unwrap().as_str(), "spiffe://example.org");
        assert_eq!(tbs.subject(), tbs.issuer());
        assert!(tbs.subject().to_string().contains("SPIFFE"));
        assert_eq!((ca.not_before_unix(), ca.not_after_unix()), (NOW - 10, NOW + 3600));
        assert!(tbs.get_extension::<ExtendedKeyUsage>().unwrap().is_none());
        let usage = ca.key_usage().unwrap();
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    }

    #[test]
    fn a_ca_under_a_root_names_it_and_does_not_outlive_it() {
        let td = TrustDomain::new("example.org").unwrap();
        let subject = root_subject(&subject(), &td);
        let key = spki();
        let key = SubjectKey::from(&key);
        let root = parsed(&authority(&subject, &td, key, None, Serial(7), NOW, NOW + 7200).unwrap());
        let facts = AuthorityFacts::of(&root).unwrap();
        let under = |now, end| {
            parsed(&authority(&super::tests::subject(), &td, key, Some(&facts), Serial(8), now, end).unwrap())
        };
        let ca = under(NOW, NOW + 3600);
        let (issuer, name) = (ca.inner().tbs_certificate().issuer(), ca.inner().tbs_certificate().subject());
        assert_eq!(issuer, root.inner().tbs_certificate().subject());
        assert!(issuer.to_string().contains("CN=example.org root") && issuer != name, "{issuer} {name}");
        assert_eq!(ca.authority_key_id(), root.subject_key_id());
        assert_eq!(ca.spiffe_id().unwrap(), root.spiffe_id().unwrap());
        assert!(ca.is_ca() && root.is_ca() && root.authority_key_id().is_none());
        for (now, end) in [(NOW - 10, NOW + 10), (NOW, NOW + 7200), (NOW + 7199, NOW + 100_000)] {
            let ca = under(now, end);
            assert!(ca.not_before_unix() >= root.not_before_unix() && ca.not_after_unix() <= root.not_after_unix());
        }
        let late = authority(&subject, &td, key, Some(&facts), Serial(9), NOW + 7200, NOW + 9000);
        assert!(matches!(late, Err(ProfileError::AuthorityExpired { .. })));
        let long = TrustDomain::new(&"a".repeat(200)).unwrap();
        assert_eq!(root_subject(&super::tests::subject(), &long).common_name.unwrap().len(), 64);
    }

    //= X509-20
    #[test]
    fn invariant_no_svid_outlives_its_authority() {
        let facts = AuthorityFacts::of(&ca(300)).unwrap();
        for (ttl, end) in [(10, NOW + 10), (299, NOW + 299), (300, NOW + 300), (301, NOW + 300), (i64::MAX, NOW + 300)]
        {
            let svid = parsed(&svid(&leaf(ttl, &[]), &facts, Serial(1), NOW).unwrap());
            assert_eq!(svid.not_after_unix(), end, "ttl {ttl}");
        }
        assert!(matches!(
            svid(&leaf(10, &[]), &facts, Serial(1), NOW + 300),
            Err(ProfileError::AuthorityExpired { .. })
        ));
        assert!(matches!(svid(&leaf(10, &[]), &facts, Serial(1), NOW - 11), Err(ProfileError::ClockBehind { .. })));
        for now in [NOW - 10, NOW - 1, NOW, NOW + 299] {
            let svid = parsed(&svid(&leaf(600, &[]), &facts, Serial(1), now).unwrap());
            assert!(svid.not_before_unix() >= NOW - 10 && svid.not_after_unix() <= NOW + 300, "signed at {now}");
        }
    }

    #[test]
    fn a_refusal_for_the_time_names_both_clocks() {
        let facts = AuthorityFacts::of(&ca(300)).unwrap();
        let said = |now| svid(&leaf(10, &[]), &facts, Serial(1), now).unwrap_err().to_string();
        let (early, late) = (said(NOW - 3600), said(NOW + 3600));
        assert!(
            early.contains("clock says 2027-01-15T07:00:00") && early.contains("from 2027-01-15T07:59:50"),
            "{early}"
        );
        assert!(
            late.contains("clock says 2027-01-15T09:00:00") && late.contains("until 2027-01-15T08:05:00"),
            "{late}"
        );
    }

    //= X509-21 FLT-S11
    #[test]
    fn years_from_2050_are_written_as_generalized_time() {
        for (unix, generalized) in [(2_524_607_999, false), (2_524_608_000, true), (0, false)] {
            assert_eq!(matches!(time(unix).unwrap(), Time::GeneralTime(_)), generalized, "{unix}");
        }
        assert!(time(i64::MAX).is_err(), "beyond year 9999");
    }

    //= X509-20 FLT-S8
    #[test]
    fn serial_numbers_are_never_zero_and_never_repeat() {
        let serials: std::collections::HashSet<String> = (0..10_000).map(|_| Serial::random().decimal()).collect();
        assert_eq!(serials.len(), 10_000);
        assert!(!serials.contains("0"));
    }
}
