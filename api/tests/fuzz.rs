//! Every parser of this crate that takes other people's bytes, fed damaged input.

use ironroot_api::certificate::Certificate;
use ironroot_api::csr::Csr;
use ironroot_api::unix_socket::authority::AuthorityFix;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_fuzz::Target;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

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
