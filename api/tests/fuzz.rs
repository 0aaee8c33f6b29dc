//! Every parser of this crate that takes other people's bytes, fed damaged input.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironroot_api::bundle::{Bundle, document};
use ironroot_api::certificate::Certificate;
use ironroot_api::csr::Csr;
use ironroot_api::jwt::{HolderKey, JwtAuthorities, WitSvid};
use ironroot_api::pb::types;
use ironroot_api::unix_socket::authority::AuthorityFix;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_fuzz::Target;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use serde_json::json;

fn corpus(name: &str) -> String {
    format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["web.example.org".to_owned()]).expect("legal");
    params.subject_alt_names.push(SanType::URI("spiffe://example.org/web".try_into().expect("ASCII")));
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key")
}

#[test]
fn certificates_survive_damage() {
    let der = params().self_signed(&key()).expect("certificate").der().to_vec();
    let two = [der.clone(), der.clone()].concat();
    Target::new("certificate").seed(der).seed(two).survives(|bytes| {
        if let Ok(certificate) = Certificate::parse(bytes) {
            let _ = (certificate.spiffe_id(), certificate.leaf_spiffe_id());
        }
        let _ = Certificate::parse_concatenated(bytes);
    });
}

//= FLT-S12
#[test]
fn signing_requests_survive_damage() {
    let der = params().serialize_request(&key()).expect("CSR").der().to_vec();
    Target::new("CSR").seed(der).survives(|bytes| drop(Csr::parse(bytes)));
}

//= FED-14
#[test]
fn bundle_documents_survive_damage_and_what_is_taken_is_written_and_read_alike() {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let asn1 = ca.self_signed(&key()).expect("root").der().to_vec().into();
    let jwt = types::JwtKey {
        public_key: key().subject_public_key_info().into(),
        key_id: "k".to_owned(),
        ..types::JwtKey::default()
    };
    let wire = types::Bundle {
        trust_domain: "td".to_owned(),
        x509_authorities: vec![types::X509Certificate { asn1, tainted: false }],
        jwt_authorities: vec![jwt],
        refresh_hint: 300,
        sequence_number: 7,
        wit_authorities: Vec::new(),
    };
    let td = || TrustDomain::new("td").expect("legal");
    let seed = document(&wire).expect("P-256 keys");
    Target::new("bundle document").seed(seed.into_bytes()).survives(|bytes| {
        let Ok(read) = Bundle::from_document(td(), bytes) else { return };
        let Ok(written) = document(read.bundle.to_pb()) else { return };
        let again = Bundle::from_document(td(), written.as_bytes()).expect("what was written");
        assert_eq!((again.bundle, again.passed_over), (read.bundle, 0));
    });
}

/// A WIT-SVID of `spiffe://td/a`, and the key that it verifies by.
fn wit_svid() -> (String, JwtAuthorities) {
    let (signer, holder) = (key(), key());
    let wire = types::JwtKey {
        public_key: signer.subject_public_key_info().into(),
        key_id: "k".to_owned(),
        ..types::JwtKey::default()
    };
    let holder = HolderKey::new(&holder.subject_public_key_info(), "ES256").expect("P-256");
    let header = json!({ "alg": "ES256", "kid": "k", "typ": "wit+jwt" });
    let claims = json!({ "sub": "spiffe://td/a", "iat": 5, "exp": 9, "cnf": { "jwk": holder } });
    let part = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &signer.serialize_der()).expect("P-256");
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    (token, JwtAuthorities::from_wire(&TrustDomain::new("td").expect("legal"), &[wire]))
}

#[test]
fn wit_svids_survive_damage_and_verify_only_as_they_were_signed() {
    let (token, authorities) = wit_svid();
    WitSvid::verify(&token, &authorities).expect("as it was signed");
    let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
    Target::new("WIT-SVID").seed(token.clone().into_bytes()).survives(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if WitSvid::verify(text, &authorities).is_ok() {
            assert_eq!(signed(text), signed(&token));
        }
    });
}

//= ID-06
#[test]
fn spiffe_ids_survive_damage_and_are_written_as_they_were_read() {
    Target::new("SPIFFE ID").corpus(corpus("spiffe_id")).survives(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(id) = SpiffeId::parse(text) {
            assert_eq!(id.as_str(), text);
        }
        let _ = TrustDomain::new(text);
    });
}

/// The preface, SETTINGS, and a HEADERS frame with pseudo-headers as gRPC clients send them.
fn http2() -> Vec<u8> {
    let block = b"\x83\x86\x44\x0a/a.B/Method\x41\x09localhost\x40\x02te\x08trailers";
    let length = u8::try_from(block.len()).expect("short");
    let headers = [&[0, 0, length, 1, 4, 0, 0, 0, 1][..], block].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0], &headers].concat()
}

#[test]
fn the_authority_walker_makes_progress_with_any_bytes_in_any_pieces() {
    Target::new("authority").seed(http2()).survives(|bytes| {
        for piece in [1, 7, 64, usize::MAX] {
            let mut fix = AuthorityFix::default();
            let mut held: Vec<u8> = Vec::new();
            for part in bytes.chunks(piece.min(bytes.len().max(1))) {
                held.extend_from_slice(part);
                let done = fix.fix(&mut held);
                assert!(done <= held.len());
                held.drain(..done);
                assert!(
                    held.len() <= ironroot_api::unix_socket::authority::MAX_HELD_BYTES,
                    "{} bytes held",
                    held.len()
                );
            }
        }
    });
}

#[test]
fn signed_heads_survive_damage() {
    use ironroot_api::issuance_head::{self, IssuanceHead};
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    let (trust_domain, server, hash) = ("td".to_owned(), String::new(), "0".repeat(64));
    let head = IssuanceHead { trust_domain, server, epoch: 1, sequence: 2, hash, at: 3 };
    let statement = serde_json::to_vec(&head).expect("JSON");
    let signed = rcgen::SigningKey::sign(&key, &issuance_head::signed_bytes(&statement)).expect("signed");
    let seed = issuance_head::encode(statement, signed, vec![certificate.to_vec()]).expect("short");
    Target::new("signed head").seed(seed).survives(|bytes| {
        let _ = issuance_head::read(bytes);
        let _ = issuance_head::verify(bytes, std::slice::from_ref(&certificate));
    });
}
