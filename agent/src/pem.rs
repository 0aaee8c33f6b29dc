//! Certificates and keys as PEM text, for software that reads no DER.

use der::asn1::Utf8StringRef;
use der::pem::{self, LineEnding};
use der::{Encode, Sequence};
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

/// Where a private key is that OpenSSL's pkcs11-provider is to use, for who reads keys from PEM. `uri`: RFC 7512. Source: pkcs11-provider,
/// tools/uri2pem.py.
pub(crate) fn provider_uri(uri: &str) -> Result<String, der::Error> {
    let what = der::asn1::Any::new(der::Tag::VisibleString, PROVIDER_URI.as_bytes())?;
    let uri = Utf8StringRef::new(uri)?;
    Ok(frame("PKCS#11 PROVIDER URI", &ProviderUri { what, uri }.to_der()?))
}

/// What such a file begins with.
const PROVIDER_URI: &str = "PKCS#11 Provider URI v1.0";

#[derive(Sequence)]
struct ProviderUri<'a> {
    what: der::asn1::Any,
    uri: Utf8StringRef<'a>,
}

/// A key that a TPM has wrapped (DER TPMKey), as tpm2-openssl reads it.
pub(crate) fn tpm_key(der: &[u8]) -> String {
    frame("TSS2 PRIVATE KEY", der)
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
        assert_eq!(
            provider_uri("pkcs11:token=a").expect("short"),
            "-----BEGIN PKCS#11 PROVIDER URI-----\nMCsaGVBLQ1MjMTEgUHJvdmlkZXIgVVJJIHYxLjAMDnBrY3MxMTp0b2tlbj1h\n-----END PKCS#11 PROVIDER URI-----\n"
        );
        assert!(private_key(&[3; 40]).starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }
}
