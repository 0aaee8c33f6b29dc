use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const NOW: i64 = 1_796_083_200;

/// A certificate to be, and who signs it.
struct Draft {
    kind: u32,
    principals: Vec<&'static str>,
    valid: (u64, u64),
    critical: Vec<u8>,
    key: Ed25519KeyPair,
    authority: Ed25519KeyPair,
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().expect("key")
}

fn blob_of(key: &Ed25519KeyPair) -> Vec<u8> {
    [wire::string(b"ssh-ed25519"), wire::string(key.public_key().as_ref())].concat()
}

fn signature(key: &Ed25519KeyPair, message: &[u8]) -> SshSignature {
    SshSignature { format: "ssh-ed25519".to_owned(), blob: key.sign(message).as_ref().to_vec() }
}

impl Draft {
    fn new() -> Self {
        let valid = (NOW.unsigned_abs() - 10, NOW.unsigned_abs() + 10);
        Self {
            kind: 2,
            principals: vec!["gw1.example.org"],
            valid,
            critical: Vec::new(),
            key: pair(),
            authority: pair(),
        }
    }

    fn signed(&self) -> Vec<u8> {
        let principals: Vec<u8> = self.principals.iter().flat_map(|name| wire::string(name.as_bytes())).collect();
        let body = [
            wire::string(b"ssh-ed25519-cert-v01@openssh.com"),
            wire::string(&[7; 32]),
            wire::string(self.key.public_key().as_ref()),
            5u64.to_be_bytes().to_vec(),
            self.kind.to_be_bytes().to_vec(),
            wire::string(b"gateway 1"),
            wire::string(&principals),
            self.valid.0.to_be_bytes().to_vec(),
            self.valid.1.to_be_bytes().to_vec(),
            wire::string(&self.critical),
            wire::string(b""),
            wire::string(b""),
            wire::string(&blob_of(&self.authority)),
        ]
        .concat();
        let signature = signature(&self.authority, &body).to_bytes();
        [body, wire::string(&signature)].concat()
    }

    fn authorities(&self) -> HostAuthorities {
        let line = format!("# ours\n\nssh-ed25519 {} ca@example.org\n", STANDARD.encode(blob_of(&self.authority)));
        HostAuthorities::from_lines(&line).expect("a key")
    }

    fn verified(&self) -> Result<Verified, SshPopRefusal> {
        ShownCertificate::parse(&self.signed())?.verified(&self.authorities(), NOW)
    }
}

#[test]
fn a_host_with_a_certificate_and_its_key_is_attested_by_what_the_certificate_says() {
    let draft = Draft::new();
    let (pending, challenge) = draft.verified().expect("believed").challenge([1; NONCE_BYTES], NOW);
    let signature = signature(&draft.key, &challenged_bytes(&challenge.nonce, &[2; NONCE_BYTES]));
    let response = Response { nonce: [2; NONCE_BYTES], signature };
    let attested = pending.complete(&response.to_json(), NOW + 1).expect("attested");
    let certificate = attested.certificate();
    assert_eq!((certificate.serial(), certificate.key_id()), (5, "gateway 1"));
    assert_eq!(certificate.principals(), ["gw1.example.org"]);
    assert_eq!(certificate.fingerprint().len(), 43);
}

/// Of an authority on P-256 there are two signatures that are as good, and SPIRE's ID is a hash of all of the certificate.
#[test]
fn a_certificate_knows_what_it_is_called_when_its_signature_is_written_in_another_way() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    let authority = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("key");
    let point = wire::string(authority.public_key().as_ref());
    let blob = [wire::string(b"ecdsa-sha2-nistp256"), wire::string(b"nistp256"), point].concat();
    let line = format!("ecdsa-sha2-nistp256 {} ca\n", STANDARD.encode(&blob));
    let authorities = HostAuthorities::from_lines(&line).expect("a key");
    let (draft, ed25519) = (Draft::new(), Draft::new().signed());
    let body_of = |whole: &[u8], authority: &[u8]| {
        let signature = wire::string(&signature(&draft.key, b"").to_bytes()).len();
        let before = whole.len() - signature - wire::string(&blob_of(&draft.key)).len();
        [&whole[..before], &wire::string(authority)].concat()
    };
    let body = body_of(&ed25519, &blob);
    let signed = authority.sign(&aws_lc_rs::rand::SystemRandom::new(), &body).expect("signs");
    let (r, s) = signed.as_ref().split_at(32);
    let with = |s: &[u8]| {
        let blob = [wire::positive(r), wire::positive(s)].concat();
        let signature = SshSignature { format: "ecdsa-sha2-nistp256".to_owned(), blob };
        [body.clone(), wire::string(&signature.to_bytes())].concat()
    };
    let believed = |blob: &[u8]| {
        let verified = ShownCertificate::parse(blob).expect("read").verified(&authorities, NOW).expect("believed");
        (verified.certificate().fingerprint(), verified.certificate().other_fingerprints())
    };
    let (own, others) = believed(&with(s));
    let twin = crate::other_forms::negated(s).find(|other| other.len() == 32).expect("one on P-256");
    let (other, back) = believed(&with(&twin));
    assert!(own != other && others.contains(&other) && back.contains(&own), "{own} {others:?}, {other} {back:?}");
    let plain = Draft::new();
    let verified = plain.verified().expect("believed");
    assert!(verified.certificate().other_fingerprints().is_empty(), "Ed25519 has one form");
}

#[test]
fn who_has_not_the_key_or_is_late_is_not() {
    let draft = Draft::new();
    let answer = |key: &Ed25519KeyPair, over: [u8; NONCE_BYTES]| {
        let signature = signature(key, &challenged_bytes(&over, &[2; NONCE_BYTES]));
        Response { nonce: [2; NONCE_BYTES], signature }
    };
    let judged = |response: &Response, now: i64| {
        let (pending, _) = draft.verified().expect("believed").challenge([1; NONCE_BYTES], NOW);
        pending.complete(&response.to_json(), now).map(drop)
    };
    assert_eq!(judged(&answer(&draft.key, [1; 32]), NOW), Ok(()));
    assert_eq!(judged(&answer(&pair(), [1; 32]), NOW), Err(SshPopRefusal::Signature));
    assert_eq!(judged(&answer(&draft.key, [9; 32]), NOW), Err(SshPopRefusal::Signature));
    for late in [ANSWER_SECONDS + 1, -1] {
        assert_eq!(judged(&answer(&draft.key, [1; 32]), NOW + late), Err(SshPopRefusal::Late(late)));
    }
    let (mut pending, _) = draft.verified().expect("believed").challenge([1; NONCE_BYTES], NOW);
    // It is proven together with what may take longer.
    pending.wait_for(300);
    let slow = pending.complete(&answer(&draft.key, [1; 32]).to_json(), NOW + 300);
    assert_eq!(slow.map(drop), Ok(()));
    let mut other = answer(&draft.key, [1; 32]);
    other.signature.format = "ssh-rsa".to_owned();
    assert_eq!(judged(&other, NOW), Err(SshPopRefusal::Algorithm("ssh-rsa".to_owned())));
}

#[test]
fn each_thing_that_a_certificate_must_be_is_asked() {
    let of = |change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new();
        change(&mut draft);
        draft.verified().map(drop)
    };
    let now = NOW.unsigned_abs();
    assert_eq!(of(&|_| {}), Ok(()));
    assert_eq!(of(&|draft| draft.valid = (0, u64::MAX)), Ok(()));
    assert_eq!(of(&|draft| draft.kind = 1), Err(SshPopRefusal::NotAHost));
    assert_eq!(of(&|draft| draft.principals.clear()), Err(SshPopRefusal::NoPrincipal));
    assert_eq!(of(&|draft| draft.principals = vec!["a"; 257]), Err(SshPopRefusal::TooManyPrincipals));
    assert_eq!(of(&|draft| draft.critical = wire::string(b"x")), Err(SshPopRefusal::CriticalOption));
    for valid in [(now + 1, now + 2), (now - 2, now), (now + 2, now - 2)] {
        assert_eq!(of(&|draft| draft.valid = valid), Err(SshPopRefusal::Ended), "{valid:?}");
    }
    let draft = Draft::new();
    let of_others = ShownCertificate::parse(&draft.signed()).expect("read").verified(&Draft::new().authorities(), NOW);
    assert_eq!(of_others.map(drop), Err(SshPopRefusal::UnknownAuthority));
    let mut forged = draft.signed();
    let at = forged.windows(9).position(|bytes| bytes == b"gateway 1").expect("its ID");
    forged[at] = b'G';
    let forged = ShownCertificate::parse(&forged).expect("read").verified(&draft.authorities(), NOW);
    assert_eq!(forged.map(drop), Err(SshPopRefusal::CertificateSignature));
    assert_eq!(ShownCertificate::parse(&blob_of(&draft.key)), Err(SshPopRefusal::NoCertificate));
    let whole = draft.signed();
    let damaged = |bytes: &[u8]| matches!(ShownCertificate::parse(bytes), Err(SshPopRefusal::Damaged(_)));
    assert!(damaged(&whole[..whole.len() - 1]) && damaged(&[&whole[..], b"x"].concat()));
}

#[test]
fn keys_of_other_kinds_and_lines_that_are_none_are_refused_by_name() {
    let key = |kind: &[u8], rest: &[Vec<u8>]| SshKey::parse(&[wire::string(kind), rest.concat()].concat());
    assert_eq!(key(b"ssh-dss", &[]), Err(SshPopRefusal::KeyKind("ssh-dss".to_owned())));
    assert_eq!(key(b"ecdsa-sha2-nistp192", &[]), Err(SshPopRefusal::KeyKind("ecdsa-sha2-nistp192".to_owned())));
    assert_eq!(key(b"ssh-ed25519", &[wire::string(&[1; 31])]), Err(SshPopRefusal::Key));
    for bytes in [255, 1025] {
        let (e, n) = (wire::positive(&[1, 0, 1]), wire::positive(&vec![0x81; bytes]));
        assert_eq!(key(b"ssh-rsa", &[e, n]), Err(SshPopRefusal::Key));
    }
    let point = wire::string(&[vec![4], vec![1; 64]].concat());
    let of_curve = |name: &[u8]| key(b"ecdsa-sha2-nistp256", &[wire::string(name), point.clone()]);
    assert!(of_curve(b"nistp256").is_ok());
    assert_eq!(of_curve(b"nistp384"), Err(SshPopRefusal::Key));
    for (lines, line) in [("ssh-ed25519", 1), ("\nssh-ed25519 !!", 2), ("ssh-rsa AAAA", 1)] {
        let refused = HostAuthorities::from_lines(lines);
        assert!(matches!(refused, Err(AuthoritiesError::Line { line: at, .. }) if at == line), "{lines}: {refused:?}");
    }
    assert_eq!(HostAuthorities::from_lines("# nobody\n"), Err(AuthoritiesError::Empty));
    let one = format!("ssh-ed25519 {}\n", STANDARD.encode(blob_of(&pair())));
    assert_eq!(HostAuthorities::from_lines(&one.repeat(1025)), Err(AuthoritiesError::TooMany));
}

#[test]
fn what_is_only_possession_takes_sha_1_and_a_certificate_does_not() {
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("key");
    // RSAPublicKey, DER: nine bytes in front of a modulus of 256, then the exponent 65537.
    let n = &rsa.public_key().as_ref()[9..265];
    let blob = [wire::string(b"ssh-rsa"), wire::positive(&[1, 0, 1]), wire::positive(n)].concat();
    let key = SshKey::parse(&blob).expect("a key");
    assert_eq!(key.to_blob(), blob);
    let sha_1 = SshSignature { format: "ssh-rsa".to_owned(), blob: vec![1; 256] };
    let refused = |purpose| key.verify(b"text", &sha_1, purpose).expect_err("not signed");
    assert_eq!(refused(key::Purpose::Certificate), SshPopRefusal::Algorithm("ssh-rsa".to_owned()));
    assert_eq!(refused(key::Purpose::Possession), SshPopRefusal::Signature);
    for (format, padding) in [
        ("rsa-sha2-256", &aws_lc_rs::signature::RSA_PKCS1_SHA256),
        ("rsa-sha2-512", &aws_lc_rs::signature::RSA_PKCS1_SHA512),
    ] {
        let mut blob = vec![0; 256];
        rsa.sign(padding, &aws_lc_rs::rand::SystemRandom::new(), b"text", &mut blob).expect("signed");
        let signature = SshSignature { format: format.to_owned(), blob };
        assert_eq!(key.verify(b"text", &signature, key::Purpose::Certificate), Ok(()), "{format}");
    }
}

#[test]
fn certificates_and_messages_survive_damage() {
    let certificate = Draft::new().signed();
    let response = Response { nonce: [1; 32], signature: signature(&pair(), b"x") };
    ironroot_fuzz::Target::new("sshpop: certificates and messages")
        .seed(certificate.clone())
        .seed(Evidence { certificate }.to_json())
        .seed(response.to_json())
        .survives(|bytes| {
            let _ = (ShownCertificate::parse(bytes), SshKey::parse(bytes));
            let _ = (Evidence::from_json(bytes), Challenge::from_json(bytes), Response::from_json(bytes));
        });
}
