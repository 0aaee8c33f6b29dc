//! Attestation by a DevID, from the outside: what a device says, what is believed, and each reason not to.

#[path = "tpm2/manufacturer.rs"]
#[allow(dead_code, reason = "made for the tests of tpm2")]
mod manufacturer;

use ironroot_attest::node::tpm_devid::{AttestedDevId, Challenge, Claim, Evidence, Response, TpmDevIdRefusal};
use ironroot_attest::node::x509pop::Authorities;
use ironroot_attest::node::{Part, Refusal};
use ironroot_fuzz::Target;
use ironroot_software_tpm::{
    AttestFields, DECRYPT, Decryptor, FIXED_PARENT, FIXED_TPM, PublicFields, RESTRICTED, SENSITIVE_DATA_ORIGIN, SHA384,
    SIGN, SigningKey, SoftwareTpm, name,
};
use manufacturer::{NOW, ca, ek_params, issue};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

const NONCE: [u8; 32] = [7; 32];
const SECRET: [u8; 32] = [9; 32];

/// A chip with a DevID key (the chip's `leaf`), its maker, and whoever issues DevID certificates.
struct Device {
    tpm: SoftwareTpm,
    maker: Issuer<'static, KeyPair>,
    makers: String,
    issuer: Issuer<'static, KeyPair>,
    issuer_der: Vec<u8>,
    root_der: Vec<u8>,
    authorities: Authorities,
}

impl Device {
    fn new() -> Self {
        Self::with(Decryptor::p256(), SigningKey::p256(), SigningKey::p256())
    }

    fn with(ek: Decryptor, ak: SigningKey, devid: SigningKey) -> Self {
        let mut tpm = SoftwareTpm::with(ek, ak);
        tpm.leaf_public = PublicFields::signing(&devid, tpm.leaf_public.attributes);
        tpm.leaf = devid;
        let authority = |name: &str| (ca(name), KeyPair::generate().expect("key"));
        let (maker, maker_key) = authority("Toy Maker");
        let makers = maker.self_signed(&maker_key).expect("signs").pem();
        let ((root, root_key), (between, key)) = (authority("DevID Root"), authority("DevID CA"));
        let root_certificate = root.self_signed(&root_key).expect("signs");
        let issuer_der = between.signed_by(&key, &Issuer::new(root, root_key)).expect("signs").der().to_vec();
        Self {
            tpm,
            maker: Issuer::new(maker, maker_key),
            makers,
            issuer: Issuer::new(between, key),
            issuer_der,
            root_der: root_certificate.der().to_vec(),
            authorities: Authorities::from_pem(&root_certificate.pem()).expect("authorities"),
        }
    }

    fn leaf(&self) -> Vec<u8> {
        issue(&devid(), &self.tpm.leaf.spki_der(), &self.issuer)
    }

    fn evidence(&self) -> Evidence {
        self.evidence_of(&self.certify())
    }

    fn certify(&self) -> AttestFields {
        self.tpm.certify(&[], &self.tpm.leaf_public)
    }

    fn evidence_of(&self, certify: &AttestFields) -> Evidence {
        let (certify, ek_spki) = (certify.marshal(), self.tpm.ek.spki_der());
        Evidence {
            devid_certificates: vec![self.leaf(), self.issuer_der.clone()],
            devid_public: self.tpm.leaf_public.marshal(),
            ek_certificate: Some(issue(&ek_params(&ek_spki), &ek_spki, &self.maker)),
            ek_public: self.tpm.ek_public.marshal(),
            ak_public: self.tpm.ak_public.marshal(),
            certify_signature: self.tpm.ak.sign(&certify),
            certify,
        }
    }

    /// What a server makes of that evidence, and of the answer to its challenge so many seconds later.
    fn judge(
        &self,
        evidence: &Evidence,
        seconds: i64,
        lie: impl FnOnce(&mut Response),
    ) -> Result<AttestedDevId, TpmDevIdRefusal> {
        let makers = ironroot_attest::ek_certificate::ManufacturerRoots::from_pem(&self.makers).expect("roots");
        let verified = Claim::parse(&evidence.to_json())?.verify(&self.authorities, &makers, NOW)?;
        let (pending, challenge) = verified.challenge(NONCE, SECRET, NOW)?;
        let challenge = Challenge::from_json(&challenge.to_json()).expect("ours");
        let (public, ak) = (&self.tpm.ek_public, name(&self.tpm.ak_public));
        let secret =
            self.tpm.ek.activate(public, &ak, &challenge.credential, &challenge.secret).expect("our credential");
        let mut response = Response { signature: self.tpm.leaf.sign_plain(&challenge.nonce), secret };
        lie(&mut response);
        pending.complete(&response.to_json(), NOW + seconds)
    }

    fn refusal(&self, evidence: &Evidence) -> TpmDevIdRefusal {
        self.judge(evidence, 0, |_| {}).expect_err("refused")
    }
}

fn devid() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "device-1");
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2049, 1, 1));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn sha1(der: &[u8]) -> String {
    ironroot_text::hex::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())
}

fn evidence_refused(refusal: Refusal) -> TpmDevIdRefusal {
    TpmDevIdRefusal::Tpm(refusal)
}

//= TPM-12
#[test]
fn a_device_with_a_devid_in_its_tpm_attests_under_spires_names() {
    for (ek, ak, devid) in [
        // As SPIRE's agents have them.
        (Decryptor::rsa(), SigningKey::rsa(), SigningKey::rsa()),
        (Decryptor::rsa(), SigningKey::rsa(), SigningKey::p256()),
        (Decryptor::p256(), SigningKey::p256(), SigningKey::p256()),
        (Decryptor::p384(), SigningKey::p384(), SigningKey::rsa()),
    ] {
        let device = Device::with(ek, ak, devid);
        let evidence = device.evidence();
        let attested = device.judge(&evidence, 300, |_| {}).expect("attests");
        let leaf = &evidence.devid_certificates[0];
        assert_eq!(attested.agent_path(), format!("/spire/agent/tpm_devid/{}", sha1(leaf)));
        let mut expected = [
            "tpm_devid:subject:cn:device-1".to_owned(),
            "tpm_devid:issuer:cn:DevID CA".to_owned(),
            format!("tpm_devid:ca:fingerprint:{}", sha1(&device.issuer_der)),
            format!("tpm_devid:ca:fingerprint:{}", sha1(&device.root_der)),
        ];
        expected.sort();
        let selectors: Vec<String> = attested.selectors().iter().map(ToString::to_string).collect();
        assert_eq!(selectors, expected);
        let claim = Claim::parse(&evidence.to_json()).expect("parses");
        assert_eq!(claim.ek_sha256(), attested.ek_sha256());
        assert_eq!(claim.certificate_sha256(), attested.certificate_sha256());
    }
}

//= TPM-12
#[test]
fn a_devid_certificate_for_a_key_in_a_file_is_refused_beside_a_genuine_chip() {
    let device = Device::new();
    let (file, honest) = (SigningKey::p256(), device.evidence());
    let stolen = issue(&devid(), &file.spki_der(), &device.issuer);
    let evidence = Evidence { devid_certificates: vec![stolen, device.issuer_der.clone()], ..honest };
    assert_eq!(device.refusal(&evidence), TpmDevIdRefusal::CertificateOfAnotherKey);
}

#[test]
fn an_attestation_key_that_signs_anything_or_may_leave_its_chip_is_refused() {
    let with = |attributes| {
        let mut device = Device::new();
        device.tpm.ak_public.attributes = attributes;
        let refusal = device.refusal(&device.evidence());
        assert_eq!(refusal, evidence_refused(Refusal::NotAnAttestationKey { attributes }));
    };
    let resident = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN;
    with(resident | SIGN);
    with(FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN);
    with(FIXED_TPM | FIXED_PARENT | RESTRICTED | SIGN);
    with(resident | RESTRICTED | DECRYPT);
}

#[test]
fn a_devid_key_that_may_leave_its_chip_or_was_put_there_is_refused() {
    for attributes in
        [FIXED_PARENT | SENSITIVE_DATA_ORIGIN | SIGN, FIXED_TPM | FIXED_PARENT | SIGN, FIXED_TPM | DECRYPT]
    {
        let mut device = Device::new();
        device.tpm.leaf_public.attributes = attributes;
        assert_eq!(device.refusal(&device.evidence()), TpmDevIdRefusal::NotADevIdKey { attributes });
    }
}

#[test]
fn a_devid_key_of_another_hash_than_the_protocols_is_refused() {
    let device = Device::with(Decryptor::p256(), SigningKey::p256(), SigningKey::p384());
    assert_eq!(device.tpm.leaf_public.scheme.expect("has one").1, SHA384);
    assert_eq!(device.refusal(&device.evidence()), TpmDevIdRefusal::OtherHash);
}

#[test]
fn the_endorsement_key_must_be_the_certified_one_of_a_known_maker() {
    let (device, other) = (Device::new(), Device::new());
    let honest = device.evidence();
    let without = Evidence { ek_certificate: None, ..honest.clone() };
    assert_eq!(device.refusal(&without), evidence_refused(Refusal::NoEkCertificate));
    let anothers = Evidence { ek_certificate: other.evidence().ek_certificate, ..honest.clone() };
    assert_eq!(device.refusal(&anothers), evidence_refused(Refusal::EkCertificateOfAnotherKey));
    let unknown = Device { makers: other.makers, ..device };
    assert!(matches!(unknown.refusal(&honest), TpmDevIdRefusal::Tpm(Refusal::EkCertificate(_))));
}

#[test]
fn a_devid_of_another_authority_one_for_something_else_and_one_of_another_kind_are_refused() {
    let (device, other) = (Device::new(), Device::new());
    let honest = device.evidence();
    let strangers = issue(&devid(), &device.tpm.leaf.spki_der(), &other.issuer);
    let evidence = Evidence { devid_certificates: vec![strangers, other.issuer_der.clone()], ..honest.clone() };
    // Both roots have one name, so that it is the signature that does not fit.
    let refused = TpmDevIdRefusal::Untrusted(webpki::Error::InvalidSignatureForPublicKey);
    assert_eq!(device.refusal(&evidence), refused);
    let (mut ended, mut agrees, mut no_usage) = (devid(), devid(), devid());
    ended.not_after = date_time_ymd(2026, 2, 1);
    agrees.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    no_usage.key_usages.clear();
    let with = |params: &CertificateParams| {
        let leaf = issue(params, &device.tpm.leaf.spki_der(), &device.issuer);
        Evidence { devid_certificates: vec![leaf, device.issuer_der.clone()], ..honest.clone() }
    };
    assert!(matches!(device.refusal(&with(&ended)), TpmDevIdRefusal::Untrusted(webpki::Error::CertExpired { .. })));
    assert_eq!(device.refusal(&with(&agrees)), TpmDevIdRefusal::KeyUsage);
    device.judge(&with(&no_usage), 0, |_| {}).expect("says nothing of its use");
    let malformed = Evidence { devid_certificates: vec![vec![0x30, 0]], ..honest.clone() };
    assert_eq!(device.refusal(&malformed), TpmDevIdRefusal::Malformed);
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA256).expect("key");
    let odd = devid().signed_by(&p521, &device.issuer).expect("signs").der().to_vec();
    let odd = Evidence { devid_certificates: vec![odd, device.issuer_der.clone()], ..honest };
    assert!(matches!(device.refusal(&odd), TpmDevIdRefusal::CertifiedKey(_)));
}

#[test]
fn a_certification_that_is_forged_of_another_key_or_of_another_kind_is_refused() {
    let device = Device::new();
    let honest = device.evidence();
    let forged = Evidence { certify_signature: SigningKey::p256().sign(&honest.certify), ..honest.clone() };
    assert_eq!(device.refusal(&forged), evidence_refused(Refusal::Signature(Part::Certify)));
    let other_scheme = Evidence { certify_signature: SigningKey::rsa().sign(&honest.certify), ..honest.clone() };
    assert_eq!(device.refusal(&other_scheme), evidence_refused(Refusal::SignatureAlgorithm(Part::Certify)));
    let another = device.evidence_of(&device.tpm.certify(&[], &device.tpm.ak_public));
    assert_eq!(device.refusal(&another), evidence_refused(Refusal::CertifiedAnotherKey));
    let quote = device.evidence_of(&device.tpm.quote(&[], 1));
    assert_eq!(device.refusal(&quote), evidence_refused(Refusal::AttestationKind(Part::Certify)));
    let software = device.evidence_of(&AttestFields { magic: 0, ..device.certify() });
    assert_eq!(device.refusal(&software), evidence_refused(Refusal::NotTpmGenerated(Part::Certify)));
}

#[test]
fn an_answer_without_the_chip_without_the_key_or_too_late_is_refused() {
    let device = Device::new();
    let evidence = device.evidence();
    let refused =
        |seconds, lie: fn(&mut Response)| device.judge(&evidence, seconds, lie).map(drop).expect_err("refused");
    assert_eq!(refused(0, |answer| answer.secret = vec![0; 32]), evidence_refused(Refusal::WrongSecret));
    assert_eq!(refused(0, |answer| answer.secret.clear()), evidence_refused(Refusal::WrongSecret));
    let replayed = |answer: &mut Response| answer.signature = SigningKey::p256().sign_plain(&NONCE);
    assert_eq!(refused(0, replayed), TpmDevIdRefusal::Possession);
    assert_eq!(refused(0, |answer| answer.signature.clear()), TpmDevIdRefusal::Possession);
    for seconds in [-1, 301] {
        let late = refused(seconds, |_| {});
        assert_eq!(late, evidence_refused(Refusal::ChallengeExpired { seconds, limit: 300 }));
    }
}

#[test]
fn claims_and_answers_survive_damage() {
    let (p256, rsa) = (Device::new(), Device::with(Decryptor::rsa(), SigningKey::rsa(), SigningKey::rsa()));
    let response = Response { signature: vec![1; 70], secret: vec![2; 32] };
    Target::new("tpm_devid claim")
        .seed(p256.evidence().to_json())
        .seed(rsa.evidence().to_json())
        .seed(response.to_json())
        .survives(|bytes| {
            if let Ok(claim) = Claim::parse(bytes) {
                let _ = (claim.ek_sha256(), claim.certificate_sha256());
            }
            let _ = (Evidence::from_json(bytes), Challenge::from_json(bytes), Response::from_json(bytes));
        });
}
