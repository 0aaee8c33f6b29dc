//! The door of human files, fed damaged text.

use ironroot_fuzz::Target;
use ironroot_text::{decode, pem};

fn pem_text() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
    rcgen::CertificateParams::default().self_signed(&key).expect("certificate").pem()
}

#[test]
fn decoding_survives_damaged_text_and_leaves_no_mark_and_no_carriage_return() {
    let utf16: Vec<u8> = "\u{feff}key = \"wert\"\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    Target::new("decode").seed("\u{feff}a,b\r\nc,d\r").seed(utf16).survives(|bytes| {
        if let Ok(text) = decode(bytes) {
            assert!(!text.contains('\r') && !text.starts_with('\u{feff}'));
            // Behind a mark text may begin as what is refused without one: as UTF-16 with its NULs, as an archive.
            let needs_its_mark = text.contains(['\0', '\u{3}']);
            assert!(needs_its_mark || decode(text.as_bytes()).as_deref() == Ok(&*text), "decoded text is decoded");
        }
    });
}

#[test]
fn pem_survives_damaged_text_and_returns_as_many_certificates_as_there_are_frames() {
    let (one, two) = (pem_text(), format!("{}{}", pem_text(), pem_text()));
    Target::new("PEM").seed(one).seed(two).survives(|bytes| {
        let Ok(text) = decode(bytes) else { return };
        if let Ok(found) = pem::certificates(&text) {
            let frames = text.lines().filter(|line| line.trim().starts_with("-----BEGIN ")).count();
            assert_eq!(found.len(), frames);
        }
    });
}
