//! Attestation as the agents of SPIRE's plugin "tpm" do it, from the outside: what a device says, what is believed, and each
//! reason not to.

#[path = "tpm2/manufacturer.rs"]
#[allow(dead_code, reason = "made for the tests of tpm2")]
mod manufacturer;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironroot_attest::ek_certificate::{EkCertificateError, ManufacturerRoots};
use ironroot_attest::node::tpm::{Admission, AttestedKey, Challenge, Claim, Evidence, Response, TpmRefusal};
use ironroot_attest::node::{Part, Refusal};
use ironroot_attest::structures::KeyError;
use ironroot_fuzz::Target;
use ironroot_software_tpm::{AttestFields, Decryptor, RESTRICTED, SIGN, SigningKey, SoftwareTpm, name};
use ironroot_text::hex::hex;
use manufacturer::{NOW, ca, ek_params, issue};
use rcgen::{Issuer, KeyPair};

const SECRET: [u8; 32] = [9; 32];
const CREATION: u16 = 0x801a;
const CREATION_DATA: &[u8] = b"TPMS_CREATION_DATA, of which nothing is read";

/// A chip and its maker.
struct Device {
    tpm: SoftwareTpm,
    maker: Issuer<'static, KeyPair>,
    roots: ManufacturerRoots,
}

impl Device {
    fn new() -> Self {
        Self::with(Decryptor::rsa(), SigningKey::rsa())
    }

    fn with(ek: Decryptor, ak: SigningKey) -> Self {
        let (params, key) = (ca("Toy Maker"), KeyPair::generate().expect("key"));
        let roots = ManufacturerRoots::from_pem(&params.self_signed(&key).expect("signs").pem()).expect("roots");
        Self { tpm: SoftwareTpm::with(ek, ak), maker: Issuer::new(params, key), roots }
    }

    fn certificate(&self) -> String {
        let spki = self.tpm.ek.spki_der();
        pem("CERTIFICATE", &issue(&ek_params(&spki), &spki, &self.maker))
    }

    fn key(&self) -> String {
        pem("PUBLIC KEY", &self.tpm.ek.spki_der())
    }

    fn creation(&self) -> AttestFields {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, CREATION_DATA);
        let info = [sized(&name(&self.tpm.ak_public)), sized(digest.as_ref())].concat();
        AttestFields::new(CREATION, self.tpm.qualified_ak(ironroot_software_tpm::OWNER), &[], info)
    }

    fn evidence(&self) -> Evidence {
        self.evidence_of(&self.creation())
    }

    fn evidence_of(&self, creation: &AttestFields) -> Evidence {
        let creation = creation.marshal();
        Evidence {
            ek_pem: (self.certificate() + &self.key()).into_bytes(),
            ak_public: self.tpm.ak_public.marshal(),
            as_tpm12: false,
            creation_data: CREATION_DATA.to_vec(),
            creation_signature: self.tpm.ak.sign(&creation),
            creation,
        }
    }

    fn makers(&self) -> Admission<'_> {
        Admission::Manufacturer { roots: &self.roots, now_unix: NOW }
    }

    fn judge(&self, evidence: &Evidence, admission: Admission<'_>, seconds: i64) -> Result<AttestedKey, TpmRefusal> {
        let admitted = Claim::parse(&evidence.to_json())?.admit(admission)?;
        let (pending, challenge) = admitted.challenge(SECRET, NOW)?;
        let challenge = Challenge::from_json(&challenge.to_json()).expect("ours");
        // Both parts have their sizes before them.
        let (credential, secret) = (&challenge.credential[2..], &challenge.secret[2..]);
        assert_eq!(usize::from(u16::from_be_bytes([challenge.secret[0], challenge.secret[1]])), secret.len());
        let secret = self.tpm.ek.activate(&self.tpm.ek_public, &name(&self.tpm.ak_public), credential, secret);
        pending.complete(&Response { secret: secret.expect("our credential") }.to_json(), NOW + seconds)
    }

    fn refusal(&self, evidence: &Evidence) -> TpmRefusal {
        self.judge(evidence, Admission::Known, 0).map(drop).expect_err("refused")
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

fn tpm(refusal: Refusal) -> TpmRefusal {
    TpmRefusal::Tpm(refusal)
}

#[test]
fn a_tpm_that_is_known_by_its_key_or_by_its_maker_attests_under_the_plugins_names() {
    for (ek, ak) in [
        (Decryptor::rsa(), SigningKey::rsa()),
        (Decryptor::p256(), SigningKey::p256()),
        (Decryptor::p384(), SigningKey::p256()),
    ] {
        let device = Device::with(ek, ak);
        let evidence = device.evidence();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &device.tpm.ek.spki_der());
        for admission in [Admission::Known, device.makers()] {
            let attested = device.judge(&evidence, admission, 300).expect("attests");
            assert_eq!(attested.agent_path(), format!("/spire/agent/tpm/{}", hex(hash.as_ref())));
            let selectors: Vec<String> = attested.selectors().iter().map(ToString::to_string).collect();
            assert_eq!(selectors, [format!("tpm:pub_hash:{}", hex(hash.as_ref()))]);
        }
        let bare = Evidence { ek_pem: device.key().into_bytes(), ..evidence.clone() };
        device.judge(&bare, Admission::Known, 0).expect("a chip without a certificate");
        let turned = Evidence { ek_pem: (device.key() + &device.certificate()).into_bytes(), ..evidence };
        device.judge(&turned, device.makers(), 0).expect("in either order");
    }
}

#[test]
fn a_genuine_certificate_beside_a_key_in_a_file_is_refused() {
    let (device, attacker) = (Device::new(), Device::new());
    let mixed = (device.certificate() + &attacker.key()).into_bytes();
    let evidence = Evidence { ek_pem: mixed, ..attacker.evidence() };
    assert_eq!(attacker.refusal(&evidence), tpm(Refusal::EkCertificateOfAnotherKey));
}

#[test]
fn a_key_that_nobody_vouches_for_is_refused_by_its_hash() {
    let (device, other) = (Device::new(), Device::new());
    let bare = Evidence { ek_pem: device.key().into_bytes(), ..device.evidence() };
    let refused = device.judge(&bare, device.makers(), 0).map(drop).expect_err("refused");
    assert!(matches!(refused, TpmRefusal::Unknown { certificate: None, .. }), "{refused}");
    let refused = device.judge(&device.evidence(), other.makers(), 0).map(drop).expect_err("refused");
    let TpmRefusal::Unknown { ek_sha256, certificate: Some(EkCertificateError::Untrusted(_)) } = &refused else {
        panic!("{refused}")
    };
    assert!(refused.to_string().contains(ek_sha256));
    let odd = (pem("CERTIFICATE", &[0x30, 0]) + &device.key()).into_bytes();
    let odd = Evidence { ek_pem: odd, ..device.evidence() };
    device.judge(&odd, Admission::Known, 0).expect("known by its key, whatever stands beside it");
    let refused = device.judge(&odd, device.makers(), 0).map(drop).expect_err("refused");
    assert!(matches!(refused, TpmRefusal::Unknown { certificate: Some(EkCertificateError::Malformed(_)), .. }));
}

#[test]
fn what_is_no_endorsement_key_is_refused() {
    let device = Device::new();
    let with = |text: &str| device.refusal(&Evidence { ek_pem: text.into(), ..device.evidence() });
    assert_eq!(with(""), TpmRefusal::NoKey);
    assert_eq!(with(&device.certificate()), TpmRefusal::NoKey);
    assert_eq!(with(&(device.key() + &device.key())), TpmRefusal::Pem);
    assert_eq!(with(&(device.key() + &pem("PRIVATE KEY", &[0x30, 0]))), TpmRefusal::Pem);
    assert_eq!(with("-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----\n"), TpmRefusal::Pem);
    assert_eq!(with(&pem("PUBLIC KEY", &[0x30, 0])), TpmRefusal::Key(KeyError::Malformed));
}

#[test]
fn an_attestation_key_that_no_tpm_made_as_one_is_refused() {
    let device = Device::new();
    let honest = device.evidence();
    assert_eq!(device.refusal(&Evidence { as_tpm12: true, ..honest.clone() }), TpmRefusal::Tpm12);
    let other_data = Evidence { creation_data: b"other".to_vec(), ..honest.clone() };
    assert_eq!(device.refusal(&other_data), TpmRefusal::CreationData);
    let forged = Evidence { creation_signature: SigningKey::rsa().sign(&honest.creation), ..honest.clone() };
    assert_eq!(device.refusal(&forged), tpm(Refusal::Signature(Part::Creation)));
    let scheme = Evidence { creation_signature: SigningKey::p256().sign(&honest.creation), ..honest };
    assert_eq!(device.refusal(&scheme), tpm(Refusal::SignatureAlgorithm(Part::Creation)));
    let software = device.evidence_of(&AttestFields { magic: 0, ..device.creation() });
    assert_eq!(device.refusal(&software), tpm(Refusal::NotTpmGenerated(Part::Creation)));
    let certify = device.evidence_of(&device.tpm.certify(&[], &device.tpm.ak_public));
    assert_eq!(device.refusal(&certify), tpm(Refusal::AttestationKind(Part::Creation)));
    let mut info = sized(&name(&device.tpm.leaf_public));
    info.extend(sized(&[0; 32]));
    let another = device.evidence_of(&AttestFields { info, ..device.creation() });
    assert_eq!(device.refusal(&another), tpm(Refusal::CertifiedAnotherKey));
    let mut unrestricted = Device::new();
    unrestricted.tpm.ak_public.attributes &= !RESTRICTED;
    let attributes = unrestricted.tpm.ak_public.attributes;
    assert_eq!(attributes & SIGN, SIGN);
    assert_eq!(unrestricted.refusal(&unrestricted.evidence()), tpm(Refusal::NotAnAttestationKey { attributes }));
}

#[test]
fn an_answer_without_the_chip_or_too_late_is_refused() {
    let device = Device::new();
    for seconds in [-1, 301] {
        let late = device.judge(&device.evidence(), Admission::Known, seconds).map(drop).expect_err("late");
        assert_eq!(late, tpm(Refusal::ChallengeExpired { seconds, limit: 300 }));
    }
    for secret in [vec![0; 32], Vec::new()] {
        let admitted = Claim::parse(&device.evidence().to_json()).expect("parses").admit(Admission::Known);
        let (pending, _) = admitted.expect("admitted").challenge(SECRET, NOW).expect("challenged");
        let refused = pending.complete(&Response { secret }.to_json(), NOW).map(drop).expect_err("refused");
        assert_eq!(refused, tpm(Refusal::WrongSecret));
    }
}

#[test]
fn claims_and_answers_survive_damage() {
    let (rsa, p256) = (Device::new(), Device::with(Decryptor::p256(), SigningKey::p256()));
    Target::new("tpm claim")
        .seed(rsa.evidence().to_json())
        .seed(p256.evidence().to_json())
        .seed(Response { secret: vec![2; 32] }.to_json())
        .survives(|bytes| {
            if let Ok(claim) = Claim::parse(bytes) {
                let _ = claim.ek_sha256();
            }
            let _ = (Evidence::from_json(bytes), Challenge::from_json(bytes), Response::from_json(bytes));
        });
}
