//! Attestation by a certificate, from the outside: what a device says, what is believed, and each reason not to.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaPssSaltLength};
use ironroot_attest::node::x509pop::{
    ANSWER_SECONDS, AttestedCertificate, Authorities, AuthoritiesError, Challenge, Evidence, Family, Holder,
    HolderError, MAX_CERTIFICATES, NamesKind, NoAuthority, Response, SizeLimits, X509PopRefusal,
};
use ironroot_fuzz::Target;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// 2026-12-01, UNIX seconds.
const NOW: i64 = 1_796_083_200;
const NONCE: [u8; 32] = [7; 32];
const OWN: [u8; 32] = [9; 32];
const LIMITS: SizeLimits = SizeLimits { intermediates: 4, rsa_bits: 8192 };

/// A root, an intermediate and a device.
struct Pki {
    authorities: Authorities,
    root: Vec<u8>,
    intermediate: Vec<u8>,
    leaf: Vec<u8>,
    key: KeyPair,
}

fn ca(name: &str) -> CertificateParams {
    let mut params = valid(CertificateParams::default());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn valid(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

fn device(name: &str) -> CertificateParams {
    let mut params = valid(CertificateParams::default());
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Of no matter, as in SPIRE.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0x1b, 0x2c]));
    params
}

impl Pki {
    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        Self::with(algorithm, device("device-1"))
    }

    fn with(algorithm: &'static SignatureAlgorithm, device: CertificateParams) -> Self {
        Self::of(algorithm, [ca("Toy Root"), ca("Toy Devices")], device)
    }

    /// Of P-256, with these certificates of a root and of an authority below it.
    fn below(authorities: [CertificateParams; 2]) -> Self {
        Self::of(&rcgen::PKCS_ECDSA_P256_SHA256, authorities, device("device-1"))
    }

    fn of(
        algorithm: &'static SignatureAlgorithm,
        [root_params, between]: [CertificateParams; 2],
        device: CertificateParams,
    ) -> Self {
        let [root_key, middle_key] = [(); 2].map(|()| KeyPair::generate().expect("key"));
        let key = KeyPair::generate_for(algorithm).expect("key");
        let root = root_params.self_signed(&root_key).expect("signs");
        let issuer = Issuer::new(root_params, root_key);
        let intermediate = between.signed_by(&middle_key, &issuer).expect("signs").der().to_vec();
        let issuer = Issuer::new(between, middle_key);
        let leaf = device.signed_by(&key, &issuer).expect("signs").der().to_vec();
        let authorities = Authorities::from_pem(&root.pem()).expect("authorities");
        Self { authorities, root: root.der().to_vec(), intermediate, leaf, key }
    }

    fn holder(&self) -> Holder {
        Holder::new(vec![self.leaf.clone(), self.intermediate.clone()], &private(&self.key)).expect("a device")
    }

    /// What a server makes of `answer` to its challenge, so many seconds later.
    fn judge(
        &self,
        seconds: i64,
        answer: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<AttestedCertificate, X509PopRefusal> {
        let evidence = Evidence::from_json(&self.holder().evidence())?;
        let (pending, challenge) = evidence.verify(&self.authorities, &LIMITS, NOW)?.challenge(NONCE, NOW);
        pending.complete(&answer(&challenge.to_json()), NOW + seconds)
    }
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn sha1(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verdict(pki: &Pki, certificates: &[&[u8]]) -> X509PopRefusal {
    let holder = Holder::new(certificates.iter().map(|der| der.to_vec()).collect(), &private(&pki.key)).expect("pair");
    let evidence = Evidence::from_json(&holder.evidence()).expect("parses");
    evidence.verify(&pki.authorities, &LIMITS, NOW).map(drop).expect_err("refused")
}

#[test]
fn a_device_with_the_key_of_its_certificate_attests_under_spires_names() {
    let curves = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA256];
    for algorithm in curves.into_iter().chain([&rcgen::PKCS_RSA_SHA256]) {
        let pki = Pki::new(algorithm);
        let attested = pki.judge(ANSWER_SECONDS, |challenge| pki.holder().respond(challenge, OWN).expect("answers"));
        let attested = attested.unwrap_or_else(|refusal| panic!("{algorithm:?}: {refusal}"));
        assert_eq!(attested.certificate().fingerprint(), sha1(&pki.leaf));
        let mut expected = [
            "x509pop:subject:cn:device-1".to_owned(),
            "x509pop:serialnumber:0a1b2c".to_owned(),
            format!("x509pop:ca:fingerprint:{}", sha1(&pki.intermediate)),
            format!("x509pop:ca:fingerprint:{}", sha1(&pki.root)),
        ];
        expected.sort();
        let selectors: Vec<String> = attested.selectors("example.org").iter().map(ToString::to_string).collect();
        assert_eq!(selectors, expected);
    }
}

#[test]
fn a_device_with_an_rsa_key_in_the_older_form_attests() {
    let pki = Pki::new(&rcgen::PKCS_RSA_SHA256);
    // Around it, PKCS#8 puts a version and the algorithm: 26 bytes in front of a key of 2048 bits.
    let pkcs1 = pki.key.serialize_der().split_off(26);
    let key = PrivateKeyDer::Pkcs1(pkcs1.into());
    let holder = Holder::new(vec![pki.leaf.clone(), pki.intermediate.clone()], &key).expect("a device");
    let attested = pki.judge(0, |challenge| holder.respond(challenge, OWN).expect("answers"));
    assert!(attested.is_ok(), "{attested:?}");
}

/// An ECDSA signature can be written anew by whoever has the certificate; a second one by the authority shows the same.
#[test]
fn a_certificate_is_the_same_however_its_signature_is_written_although_spires_id_is_not() {
    let [ca_key, key] = [(); 2].map(|()| KeyPair::generate().expect("key"));
    let root = ca("Toy Root").self_signed(&ca_key).expect("signs");
    let issuer = Issuer::new(ca("Toy Root"), ca_key);
    let authorities = Authorities::from_pem(&root.pem()).expect("authorities");
    let attested = |params: CertificateParams| {
        let leaf = params.signed_by(&key, &issuer).expect("signs").der().to_vec();
        let holder = Holder::new(vec![leaf], &private(&key)).expect("a device");
        let evidence = Evidence::from_json(&holder.evidence()).expect("parses");
        let claimed = evidence.certificate_sha256();
        let (pending, challenge) = evidence.verify(&authorities, &LIMITS, NOW).expect("trusted").challenge(NONCE, NOW);
        let answer = holder.respond(&challenge.to_json(), OWN).expect("answers");
        let attested = pending.complete(&answer, NOW).expect("attested");
        assert_eq!(claimed, Some(attested.certificate_sha256()));
        attested
    };
    let (first, again, renewed) =
        (attested(device("device-1")), attested(device("device-1")), attested(device("device-2")));
    assert_ne!(first.certificate().fingerprint(), again.certificate().fingerprint());
    assert_eq!(first.certificate_sha256(), again.certificate_sha256());
    assert_ne!(first.certificate_sha256(), renewed.certificate_sha256());
}

/// Whoever has a certificate with an ECDSA signature (r, s) can write (r, n - s): SPIRE's ID is another, and each form knows the other's.
#[test]
fn a_certificate_knows_what_it_is_called_when_its_signature_is_written_in_another_way() {
    let key = KeyPair::generate().expect("key");
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let ca_key = KeyPair::generate_for(algorithm).expect("key");
        let root = ca("Toy Root").self_signed(&ca_key).expect("signs");
        let issuer = Issuer::new(ca("Toy Root"), ca_key);
        let authorities = Authorities::from_pem(&root.pem()).expect("authorities");
        let attested = |leaf: Vec<u8>| {
            let holder = Holder::new(vec![leaf], &private(&key)).expect("a device");
            let evidence = Evidence::from_json(&holder.evidence()).expect("parses");
            let (pending, challenge) = evidence.verify(&authorities, &LIMITS, NOW).ok()?.challenge(NONCE, NOW);
            pending.complete(&holder.respond(&challenge.to_json(), OWN).expect("answers"), NOW).ok()
        };
        let leaf = device("device-1").signed_by(&key, &issuer).expect("signs").der().to_vec();
        let own = attested(leaf.clone()).expect("attested");
        let others = own.certificate().other_fingerprints();
        let Some(twin) = negated(&leaf, algorithm) else {
            assert_eq!(others, Vec::<String>::new(), "written in one way");
            continue;
        };
        assert!(others.contains(&sha1(&twin)) && !others.contains(&sha1(&leaf)), "{others:?}");
        let again = attested(twin).expect("as good");
        assert_eq!(again.certificate_sha256(), own.certificate_sha256());
        assert!(again.certificate().other_fingerprints().contains(&own.certificate().fingerprint()));
    }
}

/// A certificate with (r, n - s), by another hand than ours; none if the signature is of another kind.
fn negated(leaf: &[u8], algorithm: &'static SignatureAlgorithm) -> Option<Vec<u8>> {
    let order = match algorithm {
        _ if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 => {
            "0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
        }
        _ if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 => {
            "0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"
        }
        _ => return None,
    };
    let script = "import sys\n\
                  def tlv(b):\n\
                  \x20n, h = b[1], 2\n\
                  \x20if n > 127: h = 2 + n - 128; n = int.from_bytes(b[2:h], 'big')\n\
                  \x20return b[:h + n], b[h:h + n], b[h + n:]\n\
                  def of(t, c):\n\
                  \x20l = len(c); k = (l.bit_length() + 7) // 8\n\
                  \x20return bytes([t]) + (bytes([l]) if l < 128 else bytes([128 + k]) + l.to_bytes(k, 'big')) + c\n\
                  number = lambda i: of(2, i.to_bytes(i.bit_length() // 8 + 1, 'big'))\n\
                  _, c, _ = tlv(sys.stdin.buffer.read())\n\
                  tbs, _, c = tlv(c); alg, _, c = tlv(c); _, bits, _ = tlv(c); _, both, _ = tlv(bits[1:])\n\
                  _, r, both = tlv(both); _, s, _ = tlv(both)\n\
                  r, s = [int.from_bytes(n, 'big') for n in (r, s)]\n\
                  new = of(3, b'\\0' + of(48, number(r) + number(int(sys.argv[1], 16) - s)))\n\
                  sys.stdout.buffer.write(of(48, tbs + alg + new))";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script, order]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut python = python.spawn().expect("python3 is there");
    std::io::Write::write_all(&mut python.stdin.take().expect("piped"), leaf).expect("written");
    let written = python.wait_with_output().expect("ended");
    assert!(written.status.success());
    Some(written.stdout)
}

/// What SPIRE's agents sign with: Go's PSS takes the longest salt that fits.
#[test]
fn an_rsa_signature_with_the_longest_salt_is_as_good_as_one_with_the_hashs() {
    let pki = Pki::new(&rcgen::PKCS_RSA_SHA256);
    let key = aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&pki.key.serialize_der()).expect("key");
    for salt in [RsaPssSaltLength::Max, RsaPssSaltLength::Digest, RsaPssSaltLength::Custom(20)] {
        let signed = |_: &[u8]| {
            let mut signature = vec![0; key.public_modulus_len()];
            let encoding: &'static _ = Box::leak(Box::new(RSA_PSS_SHA256.with_pss_salt_length(salt)));
            key.sign(encoding, &SystemRandom::new(), &[NONCE, OWN].concat(), &mut signature).expect("signs");
            Response::Rsa { nonce: OWN, signature }.to_json()
        };
        let expected = if salt == RsaPssSaltLength::Custom(20) { Err(X509PopRefusal::Signature) } else { Ok(()) };
        assert_eq!(pki.judge(0, signed).map(drop), expected, "{salt:?}");
    }
}

#[test]
fn refuses_a_signature_by_another_key_or_over_other_nonces() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
        let (pki, other) = (Pki::new(algorithm), Pki::new(algorithm));
        let by_another = pki.judge(0, |challenge| other.holder().respond(challenge, OWN).expect("answers"));
        assert_eq!(by_another.map(drop), Err(X509PopRefusal::Signature));
        let family = if algorithm == &rcgen::PKCS_RSA_SHA256 { Family::Rsa } else { Family::Ecdsa };
        let replayed = Challenge { family, nonce: [8; 32] }.to_json();
        let replayed = pki.judge(0, |_| pki.holder().respond(&replayed, OWN).expect("answers"));
        assert_eq!(replayed.map(drop), Err(X509PopRefusal::Signature));
        let other_own = pki.judge(0, |challenge| {
            let answer = pki.holder().respond(challenge, OWN).expect("answers");
            match Response::from_json(&answer, family).expect("parses") {
                Response::Rsa { signature, .. } => Response::Rsa { nonce: NONCE, signature },
                Response::Ecdsa { r, s, .. } => Response::Ecdsa { nonce: NONCE, r, s },
            }
            .to_json()
        });
        assert_eq!(other_own.map(drop), Err(X509PopRefusal::Signature));
    }
}

#[test]
fn refuses_an_answer_that_comes_too_late_or_before_its_challenge() {
    let pki = Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    for seconds in [ANSWER_SECONDS + 1, -1] {
        let late = pki.judge(seconds, |challenge| pki.holder().respond(challenge, OWN).expect("answers"));
        assert_eq!(late.map(drop), Err(X509PopRefusal::Late(seconds)));
    }
}

#[test]
fn waits_as_long_as_for_what_is_proven_together_with_it() {
    let pki = Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    for (asked, seconds, is_late) in [(300, 300, false), (300, 301, true), (10, ANSWER_SECONDS, false)] {
        let evidence = Evidence::from_json(&pki.holder().evidence()).expect("parses");
        let verified = evidence.verify(&pki.authorities, &LIMITS, NOW).expect("trusted");
        let (mut pending, challenge) = verified.challenge(NONCE, NOW);
        pending.wait_for(asked);
        let response = pki.holder().respond(&challenge.to_json(), OWN).expect("answers");
        assert_eq!(pending.complete(&response, NOW + seconds).is_err(), is_late, "{asked} {seconds}");
    }
}

#[test]
fn refuses_a_certificate_that_no_authority_of_ours_answers_for() {
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let (pki, stranger) = (Pki::new(p256), Pki::new(p256));
    let untrusted = |refusal| matches!(refusal, X509PopRefusal::Untrusted(_));
    assert!(untrusted(verdict(&stranger, &[&stranger.leaf])), "its intermediate is missing");
    let foreign = Evidence::from_json(&stranger.holder().evidence()).expect("parses");
    let refusal = foreign.verify(&pki.authorities, &LIMITS, NOW).map(drop).expect_err("of another root");
    assert!(untrusted(refusal));
    for (year, what) in [(2020, "expired"), (2030, "not valid yet")] {
        let mut params = device("device-1");
        (params.not_before, params.not_after) = (date_time_ymd(year, 1, 1), date_time_ymd(year + 1, 1, 1));
        let pki = Pki::with(p256, params);
        assert!(untrusted(verdict(&pki, &[&pki.leaf, &pki.intermediate])), "{what}");
    }
    let mut authority = device("device-1");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pki = Pki::with(p256, authority);
    assert!(untrusted(verdict(&pki, &[&pki.leaf, &pki.intermediate])), "an authority is no device");
}

#[test]
fn refuses_a_certificate_whose_key_is_for_something_else() {
    let mut params = device("device-1");
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let pki = Pki::with(&rcgen::PKCS_RSA_SHA256, params);
    let refused = |pki: &Pki| Holder::new(vec![pki.leaf.clone()], &private(&pki.key)).map(drop).expect_err("refused");
    assert_eq!(refused(&pki), X509PopRefusal::KeyUsage.into());
    let pki = Pki::new(&rcgen::PKCS_ED25519);
    assert_eq!(refused(&pki), X509PopRefusal::Key.into());
    assert_eq!(
        Holder::new(vec![b"no certificate".to_vec()], &private(&pki.key)).map(drop),
        Err(X509PopRefusal::Malformed.into())
    );
    assert_eq!(Holder::new(Vec::new(), &private(&pki.key)).map(drop), Err(X509PopRefusal::NoCertificate.into()));
}

#[test]
fn a_holder_has_the_key_of_its_first_certificate() {
    let (pki, other) = (Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256), Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256));
    let with = |key| Holder::new(vec![pki.leaf.clone()], &private(key)).map(drop);
    assert_eq!(with(&other.key), Err(HolderError::OtherKey));
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("key");
    assert_eq!(with(&rsa), Err(HolderError::Key));
    let (sent, most) = (MAX_CERTIFICATES + 1, MAX_CERTIFICATES);
    let refused = Holder::new(vec![pki.leaf.clone(); sent], &private(&pki.key)).map(drop);
    assert_eq!(refused, Err(X509PopRefusal::TooManyCertificates { sent, most }.into()));
    let asked = Challenge { family: Family::Rsa, nonce: NONCE }.to_json();
    assert_eq!(pki.holder().respond(&asked, OWN), Err(X509PopRefusal::OtherChallenge.into()));
}

/// By openssl, since our own agent has its own way to SHA-256 on this curve: x509 -req, and dgst -sha256 -sign over the nonces.
#[test]
fn a_p384_key_of_spires_agent_attests() {
    let leaf = pem(P384_LEAF);
    let evidence = serde_json::json!({ "certificates": [base64(&leaf)] }).to_string();
    let evidence = Evidence::from_json(evidence.as_bytes()).expect("parses");
    let authorities = Authorities::from_pem(P384_CA).expect("authorities");
    let (pending, challenge) = evidence.verify(&authorities, &LIMITS, NOW).expect("trusted").challenge(NONCE, NOW);
    assert_eq!(challenge.family, Family::Ecdsa);
    let response = Response::Ecdsa { nonce: OWN, r: bytes(P384_R), s: bytes(P384_S) }.to_json();
    let attested = pending.complete(&response, NOW).expect("attested");
    assert_eq!(attested.certificate().fingerprint(), "59ae5a876497a47a2b4682910aa265d3b540ea0e");
    let ca = "x509pop:ca:fingerprint:65cb7fd2b3a7ba88f66cb13ff08338f6ad3a8e47".parse().expect("legal");
    assert!(attested.selectors("example.org").contains(&ca));
}

//= REG-03
/// Before a signature is verified: none of these certificates leads anywhere.
#[test]
fn what_is_larger_than_the_operator_allows_is_refused_before_anything_is_computed() {
    let pki = Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let refused = |certificates: Vec<Vec<u8>>, limits: SizeLimits| {
        let evidence =
            serde_json::json!({ "certificates": certificates.iter().map(|der| base64(der)).collect::<Vec<_>>() });
        let evidence = Evidence::from_json(evidence.to_string().as_bytes()).expect("parses");
        evidence.verify(&Authorities::default(), &limits, NOW).map(drop).expect_err("refused")
    };
    let untrusted = |refusal| matches!(refusal, X509PopRefusal::Untrusted(_));
    let behind = |number: usize| vec![pki.leaf.clone(); 1 + number];
    assert!(untrusted(refused(behind(4), LIMITS)), "as many as SPIRE allows");
    assert_eq!(refused(behind(5), LIMITS), X509PopRefusal::TooManyCertificates { sent: 6, most: 5 });
    let one = SizeLimits { intermediates: 1, ..LIMITS };
    assert_eq!(refused(behind(2), one), X509PopRefusal::TooManyCertificates { sent: 3, most: 2 });

    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096).expect("key");
    let large = device("device-1").self_signed(&rsa).expect("signs").der().to_vec();
    let short = SizeLimits { rsa_bits: 4095, ..LIMITS };
    for certificates in [vec![large.clone()], vec![pki.leaf.clone(), large.clone()]] {
        assert_eq!(refused(certificates.clone(), short), X509PopRefusal::KeySize { bits: 4096, most: 4095 });
        assert!(untrusted(refused(certificates, SizeLimits { rsa_bits: 4096, ..LIMITS })));
    }
    assert_eq!(refused(vec![pki.leaf.clone(), b"none".to_vec()], LIMITS), X509PopRefusal::Intermediate(1));
    assert_eq!(refused(vec![b"none".to_vec()], LIMITS), X509PopRefusal::Malformed);
}

#[test]
fn what_a_certificate_says_of_its_device_is_told_and_uris_of_the_trust_domain_are_selectors() {
    let mut params = device("device-1");
    params.distinguished_name.push(DnType::OrganizationName, "Toy Works");
    let uri = |text: &str| SanType::URI(text.try_into().expect("a URI"));
    params.subject_alt_names = vec![
        SanType::DnsName("device-1.example.org".try_into().expect("a name")),
        SanType::IpAddress([192, 0, 2, 7].into()),
        uri("x509pop://example.org/datacenter/us-east-1"),
        uri("x509pop://other.org/datacenter/elsewhere"),
    ];
    let pki = Pki::with(&rcgen::PKCS_ECDSA_P256_SHA256, params);
    let evidence = Evidence::from_json(&pki.holder().evidence()).expect("parses");
    let verified = evidence.verify(&pki.authorities, &LIMITS, NOW).expect("trusted");
    assert!(verified.is_for([192, 0, 2, 7].into()) && !verified.is_for([192, 0, 2, 8].into()));
    let attested = pki.judge(0, |challenge| pki.holder().respond(challenge, OWN).expect("answers")).expect("attested");
    let certificate = attested.certificate();
    assert_eq!(certificate.subject().all(NamesKind::Organization).collect::<Vec<_>>(), ["Toy Works"]);
    assert_eq!(certificate.issuer().last(NamesKind::CommonName), Some("Toy Devices"));
    assert_eq!(certificate.alternative_names().dns_names, ["device-1.example.org"]);
    let san = "x509pop:san:datacenter:us-east-1".parse().expect("legal");
    assert!(attested.selectors("example.org").contains(&san));
    assert!(!attested.selectors("example.com").contains(&san));
}

#[test]
fn certificates_and_messages_survive_damage() {
    let pki = Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let challenge = Challenge { family: Family::Ecdsa, nonce: NONCE }.to_json();
    let answer = pki.holder().respond(&challenge, OWN).expect("answers");
    let authorities = pki.authorities.clone();
    Target::new("x509pop").seed(pki.holder().evidence()).seed(answer).seed(challenge).seed(pki.leaf.clone()).survives(
        move |bytes| {
            let as_leaf = serde_json::json!({ "certificates": [base64(bytes)] }).to_string();
            for message in [bytes, as_leaf.as_bytes()] {
                if let Ok(evidence) = Evidence::from_json(message) {
                    let _ = evidence.verify(&authorities, &LIMITS, NOW);
                }
            }
            for family in [Family::Rsa, Family::Ecdsa] {
                let _ = (Challenge::from_json(bytes, family), Response::from_json(bytes, family));
            }
        },
    );
}

#[test]
fn an_authority_in_a_bundle_that_is_none_is_named() {
    let error = Authorities::from_pem("no PEM").map(drop).expect_err("refused");
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Whoever has the key of a device's certificate could else issue certificates to others.
#[test]
fn a_certificate_in_a_bundle_that_is_no_authoritys_is_named_with_its_reason() {
    let key = KeyPair::generate().expect("key");
    let good = ca("Toy Root").self_signed(&key).expect("signs").pem();
    let refused = |bad: &str| match Authorities::from_pem(&format!("{good}{bad}")).map(drop) {
        Err(AuthoritiesError::NotAnAuthority(refused)) => refused,
        other => panic!("{other:?}"),
    };
    let of_a_device = device("device-1").self_signed(&key).expect("signs").pem();
    let no_ca = refused(&of_a_device);
    assert_eq!((no_ca.number, no_ca.subject.as_str(), no_ca.reason), (2, "CN=device-1", NoAuthority::BasicConstraints));
    assert!(no_ca.to_string().contains("take it out of the file"), "{no_ca}");
    let mut no_signer = ca("Toy Root");
    no_signer.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(refused(&no_signer.self_signed(&key).expect("signs").pem()).reason, NoAuthority::KeyUsage);
    assert_eq!(refused(VERSION_1).reason, NoAuthority::Version);
    let mut signer = ca("Toy Root");
    signer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Authorities::from_pem(&signer.self_signed(&key).expect("signs").pem()).expect("an authority");
}

#[test]
fn refuses_a_path_over_an_authority_that_may_not_sign_certificates() {
    let mut between = ca("Toy Devices");
    between.key_usages = vec![KeyUsagePurpose::CrlSign];
    let pki = Pki::below([ca("Toy Root"), between]);
    let refusal = verdict(&pki, &[&pki.leaf, &pki.intermediate]);
    assert_eq!(refusal, X509PopRefusal::Untrusted(webpki::Error::EndEntityUsedAsCa));
}

#[test]
fn an_authority_vouches_while_it_is_valid_and_for_no_longer_a_path_than_it_says() {
    let refused = |change: &dyn Fn(&mut CertificateParams)| {
        let mut root = ca("Toy Root");
        change(&mut root);
        let pki = Pki::below([root, ca("Toy Devices")]);
        (verdict(&pki, &[&pki.leaf, &pki.intermediate]), pki.authorities.ended(NOW))
    };
    let (refusal, told) = refused(&|root| root.not_after = date_time_ymd(2026, 6, 1));
    assert!(matches!(refusal, X509PopRefusal::Untrusted(webpki::Error::CertExpired { .. })), "{refusal}");
    assert!(told.len() == 1 && told[0].contains("CN=Toy Root") && told[0].contains("2026-06-01"), "{told:?}");
    let (refusal, told) = refused(&|root| {
        (root.not_before, root.not_after) = (date_time_ymd(2026, 12, 15), date_time_ymd(2027, 6, 1));
    });
    assert!(matches!(refusal, X509PopRefusal::Untrusted(webpki::Error::CertNotValidYet { .. })), "{refusal}");
    assert!(told.is_empty(), "{told:?}");
    let (refusal, _) = refused(&|root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(refusal, X509PopRefusal::Untrusted(webpki::Error::PathLenConstraintViolated));
    let mut one_below = ca("Toy Root");
    one_below.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let pki = Pki::below([one_below, ca("Toy Devices")]);
    pki.judge(0, |challenge| pki.holder().respond(challenge, OWN).expect("answers")).expect("one authority between");
}

/// As SPIRE, which gives those of each path that Go finds.
#[test]
fn the_fingerprints_are_those_of_every_path_and_of_every_certificate_of_a_renewed_authority_that_is_valid() {
    let [root_key, other_key, middle_key, key] = [(); 4].map(|()| KeyPair::generate().expect("key"));
    let root = |year| {
        let mut params = ca("Toy Root");
        (params.not_before, params.not_after) = (date_time_ymd(year, 1, 1), date_time_ymd(year + 2, 1, 1));
        params.self_signed(&root_key).expect("signs")
    };
    let (ended, older, newer) = (root(2023), root(2025), root(2026));
    let other = ca("Other Root").self_signed(&other_key).expect("signs");
    let by = |name, key| ca("Toy Devices").signed_by(&middle_key, &Issuer::new(ca(name), key)).expect("signs");
    let (between, crossed) = (by("Toy Root", &root_key), by("Other Root", &other_key));
    let leaf = device("device-1").signed_by(&key, &Issuer::new(ca("Toy Devices"), &middle_key)).expect("signs");
    let bundle = [&ended, &older, &newer, &other].map(|root| root.pem()).concat();
    let authorities = Authorities::from_pem(&bundle).expect("authorities");
    let sent = vec![leaf.der().to_vec(), between.der().to_vec(), crossed.der().to_vec()];
    let holder = Holder::new(sent, &private(&key)).expect("a device");
    let evidence = Evidence::from_json(&holder.evidence()).expect("parses");
    let (pending, challenge) = evidence.verify(&authorities, &LIMITS, NOW).expect("trusted").challenge(NONCE, NOW);
    let attested = pending.complete(&holder.respond(&challenge.to_json(), OWN).expect("answers"), NOW).expect("proven");
    let mut expected = [&older, &newer, &other, &between, &crossed]
        .map(|certificate| format!("x509pop:ca:fingerprint:{}", sha1(certificate.der())));
    expected.sort();
    let selectors: Vec<String> = attested.selectors("example.org").iter().map(ToString::to_string).collect();
    let found: Vec<_> = selectors.into_iter().filter(|selector| selector.contains(":ca:")).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_in_words() {
    let (pki, stranger) = (Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256), Pki::new(&rcgen::PKCS_ECDSA_P256_SHA256));
    let foreign = Evidence::from_json(&stranger.holder().evidence()).expect("parses");
    let refusal = foreign.verify(&pki.authorities, &LIMITS, NOW).map(drop).expect_err("of another root").to_string();
    assert!(!refusal.contains("InvalidSignature") && refusal.contains("not by the issuer"), "{refusal}");
    for error in [
        webpki::Error::UnknownIssuer,
        webpki::Error::UnsupportedCriticalExtension,
        webpki::Error::EndEntityUsedAsCa,
        webpki::Error::PathLenConstraintViolated,
        webpki::Error::BadDer,
    ] {
        let text = X509PopRefusal::Untrusted(error.clone()).to_string();
        assert!(!text.contains(&format!("{error:?}")), "{text}");
    }
}

fn pem(text: &str) -> Vec<u8> {
    ironroot_text::pem::certificates(text).expect("PEM")[0].to_vec()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).expect("hex") as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const P384_R: &str = "03adef0a246d0a4130225a3bbba80c24faebed88128e36d8df18dd28851694119407353290d6837b0e06c964374c74d6";
const P384_S: &str = "7737e83c8550a51f9e978c19e3bace74eb1349f42831886d4118e87fded5a6b0ab0d8b724a7577d1849e9aee6762a9e9";
const P384_CA: &str = "-----BEGIN CERTIFICATE-----
MIIBwjCCAUigAwIBAgIUKyyXTQ8qMwQ9IuzOhqPHBeq7+r8wCgYIKoZIzj0EAwMw
FzEVMBMGA1UEAwwMVG95IFAtMzg0IENBMCAXDTI2MTEyNjA2NTAyOFoYDzIxMjYx
MTAyMDY1MDI4WjAXMRUwEwYDVQQDDAxUb3kgUC0zODQgQ0EwdjAQBgcqhkjOPQIB
BgUrgQQAIgNiAAR0UeBEqTA2mEJaYHnIhItuhZnz77ilJEKsuVzHbfsl8zAmxd/h
J8gHyrJWi78xbWl64DUZE6+qY7mH29ggG8TmV+M9OEhtX8C4Rby6MhKuAPtEEqML
xfjGhIbBvpY/6COjUzBRMB0GA1UdDgQWBBRa2E9csRz6xdacT9oMTdUtT7XtuDAf
BgNVHSMEGDAWgBRa2E9csRz6xdacT9oMTdUtT7XtuDAPBgNVHRMBAf8EBTADAQH/
MAoGCCqGSM49BAMDA2gAMGUCMBH5e19K+yd1EBdlqoPOUCK+qOg4ACs2czL05rTs
KhU3I7cE0ubHzhZ8qUZm/I209AIxANVtkVT/9yhMA3ayaJJxkdHPNN2DVVULtkGi
GX0jYmtDM0Gov3iMiVloHHPeZcP55g==
-----END CERTIFICATE-----
";
const P384_LEAF: &str = "-----BEGIN CERTIFICATE-----
MIIBvDCCAUKgAwIBAgIDChssMAoGCCqGSM49BAMDMBcxFTATBgNVBAMMDFRveSBQ
LTM4NCBDQTAgFw0yNjExMjYwNjUwMjlaGA8yMTI2MTEwMTA2NTAyOVowFTETMBEG
A1UEAwwKZGV2aWNlLTM4NDB2MBAGByqGSM49AgEGBSuBBAAiA2IABILkMcP7YivN
hAp7zALrn/7R0LJczlsdLpu3DHw1OxA2xV3hCAT8mSBtyz3hTsmZY57s9m1ClpnV
IfDh7I3uWXXuVeoRJ3Vt+7qH852F8Q5EVaojGYuFfgyv7YAKz5DrDqNgMF4wDgYD
VR0PAQH/BAQDAgeAMAwGA1UdEwEB/wQCMAAwHQYDVR0OBBYEFAmNznD5whLUyeAY
7jWdz1yKkVbsMB8GA1UdIwQYMBaAFFrYT1yxHPrF1pxP2gxN1S1Pte24MAoGCCqG
SM49BAMDA2gAMGUCMG/8pEzCVD3/tYVWRjwC42oC4bqAsPXC6jkkO38oj7lL2HHN
n+Wh4PnWQEVOiKGNJQIxAJWYvmQpgR7CleHWDY9woIz5ogkzj0JzdCcZPQxDYfLy
RoVm2oKPjNNAlhNrxGbcUA==
-----END CERTIFICATE-----
";
/// By openssl: x509 -req -signkey without extensions.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBKzCB0wIURczRt43f1qliSjWNfr3JMBk9Qo8wCgYIKoZIzj0EAwIwGDEWMBQG
A1UEAwwNVG95IFZlcnNpb24gMTAgFw0yNjExMjYwOTM2NTFaGA8yMTI2MTEwMjA5
MzY1MVowGDEWMBQGA1UEAwwNVG95IFZlcnNpb24gMTBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABBaopNhYn3IuMBkubTLLXSzwRML468T8loZq2V2XJ0LZLA0wDZjS
VzdrFjsFMuI0eJKlDjwolCLmzngjOD3OCEgwCgYIKoZIzj0EAwIDRwAwRAIgPP3x
4r7m4b03xpNa4EM8ers9XdL4Bz1VQ1EWDa+Vz+4CIDgp0Cnc7CyQjOedzY1bwZZn
/4gyr8BSOSJ244tF/s+5
-----END CERTIFICATE-----
";
