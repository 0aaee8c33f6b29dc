//! Certificates as SPIRE issues them: what is in them, and their DER. Pure: time and randomness are arguments.
//!
//! Source: SPIRE pkg/server/credtemplate/builder.go; X509-SVID.md; RFC 5280.

mod authority_facts;
mod encoding;
mod error;
mod request;
mod subject_key;

use der::asn1::OctetString;
use ironroot_api::csr::Spki;
use ironroot_api::issuing::{self, SvidNames, ToSign, alternative_names, authority_key_id, extension, validity};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_hsm::KeyKind;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier};

pub(super) use authority_facts::AuthorityFacts;
pub(super) use encoding::assemble;
pub use error::ProfileError;
pub(super) use ironroot_api::issuing::{NOT_BEFORE_CUSHION, Serial, SubjectKey};
pub(super) use request::{ca_name, ca_request};

use encoding::algorithm;

use super::names;
use crate::ca::CaSubject;
use crate::rights::CaScope;

/// Who gets an SVID, for which key, for how long.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) id: SpiffeId,
    pub(super) dns_names: Vec<String>,
    /// Whether its subject has a unique identifier.
    pub(super) has_unique_id: bool,
    pub(super) spki: Spki,
    pub(super) ttl_seconds: i64,
}

/// A CA for a server below.
#[derive(Clone, Debug)]
pub(super) struct DownstreamCa {
    pub(super) spki: Spki,
    pub(super) ttl_seconds: i64,
    /// CAs above it that are no roots; 1 below a root.
    pub(super) tier: usize,
    pub(super) scope: CaScope,
}

impl Leaf {
    /// With no name but its ID.
    pub(super) fn plain(id: SpiffeId, spki: Spki, ttl_seconds: i64) -> Self {
        Self { id, dns_names: Vec::new(), has_unique_id: false, spki, ttl_seconds }
    }

    /// The end of its life under `authority`, UNIX seconds: no SVID outlives its authority.
    pub(super) fn not_after(&self, authority: &AuthorityFacts, now_unix: i64) -> i64 {
        //= FLT-S10 server faults: "the SVID ends with it"
        now_unix.saturating_add(self.ttl_seconds).min(authority.not_after())
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
    let not_before = (now_unix - NOT_BEFORE_CUSHION).max(authority.not_before);
    let span = (not_before, leaf.not_after(authority, now_unix));
    let names = SvidNames { id: &leaf.id, dns_names: &leaf.dns_names, has_unique_id: leaf.has_unique_id };
    Ok(issuing::svid(names, (&leaf.spki).into(), authority.signer(), serial, span)?)
}

/// Who signs a CA's certificate.
#[derive(Clone, Copy)]
pub(super) enum Certifier<'a> {
    /// Its own key, of this kind.
    Itself(KeyKind),
    /// The authority above it.
    Root(&'a AuthorityFacts),
    /// The authority above a CA that signs SVIDs alone: its path length is 0.
    RootOfSvidsAlone(&'a AuthorityFacts),
}

/// The to-be-signed part of a CA certificate for `key`, DER. Source: SPIRE, whose
/// CAs under an upstream authority have neither a path length nor name constraints, and the trust domain as URI.
pub(super) fn authority(
    subject: &CaSubject,
    trust_domain: &TrustDomain,
    key: SubjectKey<'_>,
    certifier: Certifier<'_>,
    serial: Serial,
    now_unix: i64,
    not_after: i64,
) -> Result<Vec<u8>, ProfileError> {
    let name = names::ca_subject(subject, None, &serial.decimal())?;
    signing_certificate(&name, trust_domain, key, certifier, serial, now_unix, not_after)
}

/// The to-be-signed part of the certificate of a CA of a server below, DER. Of its request only the key counts; its name says how many
/// CAs are above it, roots left out but for one that signs it. Source: SPIRE `BuildDownstreamX509CATemplate`, whose CAs of one issuer
/// all have the issuer's serial number in their names.
pub(super) fn downstream_authority(
    ca: &DownstreamCa,
    subject: &CaSubject,
    trust_domain: &TrustDomain,
    issuer: &AuthorityFacts,
    serial: Serial,
    now_unix: i64,
) -> Result<Vec<u8>, ProfileError> {
    let unit = format!("DOWNSTREAM-{}", ca.tier);
    let name = names::ca_subject(subject, Some(&unit), &serial.decimal())?;
    let not_after = now_unix.saturating_add(ca.ttl_seconds);
    let certifier = match ca.scope {
        CaScope::Server => Certifier::Root(issuer),
        CaScope::LocalAuthority => Certifier::RootOfSvidsAlone(issuer),
    };
    signing_certificate(&name, trust_domain, (&ca.spki).into(), certifier, serial, now_unix, not_after)
}

/// The same for any subject, a DER Name.
pub(super) fn signing_certificate(
    name: &[u8],
    trust_domain: &TrustDomain,
    key: SubjectKey<'_>,
    certifier: Certifier<'_>,
    serial: Serial,
    now_unix: i64,
    not_after: i64,
) -> Result<Vec<u8>, ProfileError> {
    let (root, signer, path_len_constraint) = match certifier {
        Certifier::Itself(kind) => (None, kind, None),
        Certifier::Root(root) => (Some(root), root.kind, None),
        Certifier::RootOfSvidsAlone(root) => (Some(root), root.kind, Some(0)),
    };
    let mut extensions = vec![
        //= X509-11 X509-SVID 4.3: "SVID signing certificates MUST set `keyCertSign`. They MAY set `cRLSign`."
        extension(true, &KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
        extension(true, &BasicConstraints { ca: true, path_len_constraint })?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key.id())?))?,
    ];
    if let Some(root) = root {
        root.check(now_unix)?;
        extensions.push(extension(false, &authority_key_id(root.key_id())?)?);
    }
    //= X509-06 X509-SVID 3.2: "the SPIFFE ID of a signing certificate MUST NOT have a path component"
    //= ID-12 SPIFFE-ID 3.1: "this signing authority MUST carry an SVID of its own"
    extensions.push(extension(false, &alternative_names(&[], trust_domain.id().as_str())?)?);
    let not_before = (now_unix - NOT_BEFORE_CUSHION).max(root.map_or(i64::MIN, |root| root.not_before));
    let validity = validity(not_before, not_after.min(root.map_or(i64::MAX, AuthorityFacts::not_after)))?;
    let (issuer, algorithm) = (root.map_or(name, |root| &root.name), algorithm(signer));
    Ok(ToSign { serial, algorithm, issuer, validity, subject: name, key, extensions }.to_der()?)
}

/// The subject of roots: the CAs' own, with a common name that says what it is.
pub(super) fn root_subject(subject: &CaSubject, trust_domain: &TrustDomain) -> CaSubject {
    let name = subject.common_name.as_deref().unwrap_or(trust_domain.as_str());
    // Source: RFC 5280 appendix A.1, ub-common-name: 64 characters.
    let name: String = name.chars().take(59).collect();
    CaSubject { common_name: Some(format!("{name} root")), ..subject.clone() }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use der::Encode;
    use ironroot_api::certificate::Certificate;
    use x509_cert::ext::pkix::ExtendedKeyUsage;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn spki() -> Spki {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Spki::parse(key.public_key().as_der().unwrap().as_ref()).unwrap()
    }

    fn subject() -> CaSubject {
        CaSubject { country: vec!["US".into()], organization: vec!["SPIFFE".into()], common_name: None }
    }

    const ITSELF: Certifier<'static> = Certifier::Itself(KeyKind::EcP256);

    /// The lint and the peers verify signatures; here only the fields matter.
    fn parsed(tbs: &[u8]) -> Certificate {
        Certificate::parse(&assemble(tbs, KeyKind::EcP256, &[0x30, 0]).unwrap()).unwrap()
    }

    fn ca(ttl: i64) -> Certificate {
        let td = TrustDomain::new("example.org").unwrap();
        parsed(
            &authority(&subject(), &td, SubjectKey::from(&spki()), ITSELF, Serial::from(77), NOW, NOW + ttl).unwrap(),
        )
    }

    fn leaf(ttl_seconds: i64, dns_names: &[&str]) -> Leaf {
        let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
        let dns_names = dns_names.iter().map(|d| (*d).to_owned()).collect();
        Leaf { id, dns_names, has_unique_id: false, spki: spki(), ttl_seconds }
    }

    //= X509-01 X509-03 X509-08 X509-10 X509-12 X509-13
    #[test]
    fn an_svid_has_the_fields_of_spires_template() {
        let ca = ca(3600);
        let facts = AuthorityFacts::of(&ca).unwrap();
        let leaf = leaf(600, &["web.example.org", "*.example.org"]);
        let svid = parsed(&svid(&leaf, &facts, Serial::from(u128::MAX), NOW).unwrap());
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

    // Vector: Go's pkix.Name with SPIRE's x509svid.UniqueIDAttribute in its ExtraNames.
    #[test]
    fn a_unique_identifier_of_the_id_stands_last_in_the_subject_where_it_is_wanted() {
        let facts = AuthorityFacts::of(&ca(3600)).unwrap();
        let subject = |dns_names: &[&str]| {
            let leaf = Leaf { has_unique_id: true, ..leaf(600, dns_names) };
            let svid = parsed(&svid(&leaf, &facts, Serial::from(7), NOW).unwrap());
            ironroot_text::hex::hex(&svid.inner().tbs_certificate().subject().to_der().unwrap())
        };
        assert_eq!(
            subject(&[]),
            "3048310b3009060355040613025553310e300c060355040a1305535049524531293027060355042d13203534333561643733363537376231633630313036383462613035396531313731"
        );
        assert_eq!(
            subject(&["web.example.org"]),
            "3062310b3009060355040613025553310e300c060355040a13055350495245311830160603550403130f7765622e6578616d706c652e6f726731293027060355042d13203534333561643733363537376231633630313036383462613035396531313731"
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
        let root = parsed(&authority(&subject, &td, key, ITSELF, Serial::from(7), NOW, NOW + 7200).unwrap());
        let facts = AuthorityFacts::of(&root).unwrap();
        let under = |now, end| {
            parsed(
                &authority(&super::tests::subject(), &td, key, Certifier::Root(&facts), Serial::from(8), now, end)
                    .unwrap(),
            )
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
        let late = authority(&subject, &td, key, Certifier::Root(&facts), Serial::from(9), NOW + 7200, NOW + 9000);
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
            let svid = parsed(&svid(&leaf(ttl, &[]), &facts, Serial::from(1), NOW).unwrap());
            assert_eq!(svid.not_after_unix(), end, "ttl {ttl}");
        }
        assert!(matches!(
            svid(&leaf(10, &[]), &facts, Serial::from(1), NOW + 300),
            Err(ProfileError::AuthorityExpired { .. })
        ));
        assert!(matches!(
            svid(&leaf(10, &[]), &facts, Serial::from(1), NOW - 11),
            Err(ProfileError::ClockBehind { .. })
        ));
        for now in [NOW - 10, NOW - 1, NOW, NOW + 299] {
            let svid = parsed(&svid(&leaf(600, &[]), &facts, Serial::from(1), now).unwrap());
            assert!(svid.not_before_unix() >= NOW - 10 && svid.not_after_unix() <= NOW + 300, "signed at {now}");
        }
    }

    #[test]
    fn a_refusal_for_the_time_names_both_clocks() {
        let facts = AuthorityFacts::of(&ca(300)).unwrap();
        let said = |now| svid(&leaf(10, &[]), &facts, Serial::from(1), now).unwrap_err().to_string();
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
}
