//! Every parser of this crate that takes other people's bytes, fed damaged input.

use ironroot_api::certificate::Certificate;
use ironroot_api::csr::Csr;
use ironroot_api::device::{NewDevice, parse_manifest};
use ironroot_api::entry::RegistrationEntry;
use ironroot_api::pb::{device as pb, types};
use ironroot_api::settings::{Settings, parse_duration};
use ironroot_api::unix_socket::authority::AuthorityFix;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_attest::Selector;
use ironroot_fuzz::Target;
use prost::Message;
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
        let _ = (TrustDomain::new(text), text.parse::<Selector>(), parse_duration(text));
    });
}

#[test]
fn manifests_survive_damage_and_what_is_read_is_sent_and_taken() {
    Target::new("manifest").corpus(corpus("manifest")).survives(|bytes| {
        let Ok(text) = ironroot_text::decode(bytes) else { return };
        for device in parse_manifest(&text).unwrap_or_default() {
            assert_eq!(NewDevice::from_pb(&device.to_pb()), Ok(device));
        }
        // The same without the door in front.
        let _ = std::str::from_utf8(bytes).map(parse_manifest);
    });
}

#[test]
fn configuration_files_survive_damage() {
    Target::new("HCL").corpus(corpus("hcl")).survives(|bytes| {
        let Ok(text) = ironroot_text::decode(bytes) else { return };
        let _ = Settings::parse("x.conf".as_ref(), &text);
        let _ = Settings::parse_expanded("x.conf".as_ref(), &text, |name| Some(name.to_owned()));
    });
}

#[test]
fn messages_of_administrators_survive_damage() {
    let id = |path: &str| Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() });
    let selectors = vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }];
    let entry =
        types::Entry { id: "e".into(), spiffe_id: id("/w"), parent_id: id("/p"), selectors, ..Default::default() };
    let device = pb::NewDevice { ek_sha256: "a".repeat(64), serial: Some("S".into()), ..Default::default() };
    let trust_domain = TrustDomain::new("example.org").expect("legal");
    Target::new("messages").seed(entry.encode_to_vec()).seed(device.encode_to_vec()).survives(|bytes| {
        if let Ok(entry) = types::Entry::decode(bytes) {
            let _ = RegistrationEntry::from_pb(&entry, &trust_domain);
        }
        if let Ok(device) = pb::NewDevice::decode(bytes) {
            let _ = NewDevice::from_pb(&device);
        }
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
