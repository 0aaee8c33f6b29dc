//! Certificates and keys as PEM text, for software that reads no DER.

use der::pem::{self, LineEnding};
use zeroize::Zeroizing;

/// Certificates (DER), one frame after the other.
pub(crate) fn certificates(ders: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    ders.into_iter().map(|der| frame("CERTIFICATE", der.as_ref())).collect()
}

/// A public key (DER SubjectPublicKeyInfo).
pub(crate) fn public_key(spki_der: &[u8]) -> String {
    frame("PUBLIC KEY", spki_der)
}

/// A private key (PKCS#8 DER).
pub(crate) fn private_key(pkcs8_der: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(frame("PRIVATE KEY", pkcs8_der))
}

fn frame(label: &'static str, der: &[u8]) -> String {
    pem::encode_string(label, LineEnding::LF, der).expect("a legal label, and far less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_stand_one_after_the_other_and_are_read_back() {
        let text = certificates([[1_u8; 60], [2; 60]]);
        let found = ironroot_text::pem::certificates(&text).expect("PEM");
        assert_eq!(found.iter().map(|der| der[0]).collect::<Vec<_>>(), [1, 2]);
        assert!(text.ends_with("-----END CERTIFICATE-----\n"));
        assert!(private_key(&[3; 40]).starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }
}
