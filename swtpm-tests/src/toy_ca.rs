//! A toy SPIFFE authority: signs whatever it is told to, wrong things too.

use ironroot_api::csr::{Csr, KeyKind, Spki};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

/// A self-signed authority.
pub struct ToyCa {
    params: CertificateParams,
    key: KeyPair,
    der: CertificateDer<'static>,
}

/// What to sign. Defaults to an honest X509-SVID leaf.
#[derive(Clone, Debug)]
pub struct ToySvid {
    /// URI SAN.
    pub spiffe_id: String,
    /// UNIX seconds.
    pub not_before: i64,
    /// UNIX seconds.
    pub not_after: i64,
    /// basicConstraints CA and keyCertSign.
    pub is_ca: bool,
}

impl ToySvid {
    /// An honest leaf for `spiffe_id`, from ten seconds ago to `ttl` seconds from now.
    pub fn new(spiffe_id: &str, ttl: i64) -> Self {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Self { spiffe_id: spiffe_id.to_owned(), not_before: now - 10, not_after: now + ttl, is_ca: false }
    }

    /// As a signer dates it whose clock is wrong by so many seconds.
    pub fn moved(self, seconds: i64) -> Self {
        Self { not_before: self.not_before + seconds, not_after: self.not_after + seconds, ..self }
    }
}

/// A requester's public key, P-256 as all of our agents' are.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl ToyCa {
    /// A new authority of `trust_domain`, as of yesterday.
    pub fn new(trust_domain: &str) -> Self {
        Self::begun(trust_domain, time::Duration::days(1))
    }

    /// The same as of `ago`.
    pub fn begun(trust_domain: &str, ago: time::Duration) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names, none wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Toy CA");
        // Names alike, keys not: what a hostile authority would choose.
        params.serial_number = Some(vec![1].into());
        let now = OffsetDateTime::now_utc();
        params.not_before = now - ago;
        params.not_after = now + time::Duration::days(365);
        let der = params.self_signed(&key).expect("self-signed").der().clone();
        Self { params, key, der }
    }

    /// The self-signed certificate, DER, for bundles.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its certificate as PEM.
    pub fn pem(&self) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// Signs for the key of a PKCS#10 request.
    ///
    /// # Panics
    /// If the request does not verify or its key is not P-256.
    pub fn sign_request(&self, csr: &[u8], svid: &ToySvid) -> CertificateDer<'static> {
        self.sign(Csr::parse(csr).expect("an honest request").spki(), svid)
    }

    /// Signs for a P-256 public key.
    pub fn sign(&self, spki: &Spki, svid: &ToySvid) -> CertificateDer<'static> {
        assert_eq!(spki.kind(), KeyKind::EcP256);
        // The point is the last thing in a P-256 SubjectPublicKeyInfo.
        let point = spki.as_der()[spki.as_der().len() - 65..].to_vec();
        self.sign_point(&Point(point), svid)
    }

    /// Signs what `svid` asks for, be it wrong, for a new P-256 key.
    pub fn identity(&self, svid: &ToySvid) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        (self.sign_point(&key, svid), key)
    }

    fn sign_point(&self, key: &impl PublicKeyData, svid: &ToySvid) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, none wrong");
        params.subject_alt_names = vec![uri(&svid.spiffe_id)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "US");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        if svid.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions = Vec::<CustomExtension>::new();
        params.not_before = OffsetDateTime::from_unix_timestamp(svid.not_before).expect("a date");
        params.not_after = OffsetDateTime::from_unix_timestamp(svid.not_after).expect("a date");
        params.signed_by(key, &Issuer::from_params(&self.params, &self.key)).expect("signed").der().clone()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}
