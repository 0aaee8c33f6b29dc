//! An endorsement key certificate in the forms that tools and makers hand out.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ironroot_text::pem;

use super::NewDeviceError;

/// Longest EK certificate, bytes of DER.
pub(super) const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;
/// Longest text of one: `openssl x509 -text` writes about five times the DER.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Padding or none: Intel's certificate service and many JSON libraries leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(false),
);

/// The DER of the one certificate in `text`: PEM, with or without words around it; or DER in base64 (either alphabet, padded
/// or not) or in hexadecimal digits.
pub(super) fn certificate_der(text: &str) -> Result<Vec<u8>, NewDeviceError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(NewDeviceError::CertificateForm);
    }
    if pem::has_frame(text) {
        return match pem::certificates(text).map_err(NewDeviceError::CertificatePem)?.as_slice() {
            [only] => Ok(only.to_vec()),
            _ => Err(NewDeviceError::CertificateForm),
        };
    }
    let bare: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let der = match bare.get(..4) {
        // No base64 of DER begins so: the first byte of a certificate, 0x30, gives an M.
        Some("3081" | "3082") => from_hex(&bare),
        _ => from_base64(&bare),
    };
    Ok(unpadded(&der.ok_or(NewDeviceError::CertificateForm)?)?.to_vec())
}

/// Cuts off the 0xff or 0x00 that TPMs fill an NV index with behind the certificate; anything else behind it is refused.
fn unpadded(bytes: &[u8]) -> Result<&[u8], NewDeviceError> {
    let length = match bytes {
        [0x30, 0x81, a, ..] => 3 + usize::from(*a),
        [0x30, 0x82, a, b, ..] => 4 + usize::from(u16::from_be_bytes([*a, *b])),
        _ => return Ok(bytes),
    };
    let Some((certificate, rest)) = bytes.split_at_checked(length) else { return Ok(bytes) };
    let filled_with = |fill: u8| rest.iter().all(|byte| *byte == fill);
    if filled_with(0xff) || filled_with(0) {
        return Ok(certificate);
    }
    Err(NewDeviceError::CertificateRest(rest.len()))
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        u8::try_from(high? * 16 + low?).ok()
    };
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Also as part of a URL, where `=` became `%3D`.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/").replace('-', "+").replace('_', "/");
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        rcgen::CertificateParams::default().self_signed(&key).expect("certificate")
    }

    fn hex(bytes: &[u8], separator: &str) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(separator)
    }

    #[test]
    fn certificates_are_taken_in_the_forms_that_tools_hand_out() {
        let certificate = certificate();
        let der = certificate.der().to_vec();
        let filled = |fill: u8| [der.as_slice(), &[fill; 100]].concat();
        for (form, text) in [
            ("base64", BASE64_STANDARD.encode(&der)),
            ("no padding", BASE64_STANDARD_NO_PAD.encode(&der)),
            ("base64url", BASE64_URL_SAFE_NO_PAD.encode(&der)),
            ("in a URL", BASE64_STANDARD.encode(&der).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")),
            ("wrapped", BASE64_STANDARD.encode(&der).chars().flat_map(|c| [c, '\n']).collect()),
            ("hex", hex(&der, "")),
            ("hex with colons", hex(&der, ":").to_lowercase()),
            ("filled with 0xff", BASE64_STANDARD.encode(filled(0xff))),
            ("filled with 0x00", hex(&filled(0), "")),
            ("PEM", certificate.pem()),
            ("openssl x509 -text", format!("Certificate:\n    Data:\n        Version: 3 (0x2)\n{}", certificate.pem())),
        ] {
            assert_eq!(certificate_der(&text).as_ref(), Ok(&der), "{form}");
        }
    }

    #[test]
    fn what_is_no_single_certificate_is_named() {
        let pem = certificate().pem();
        let der = certificate().der().to_vec();
        let rest = [der.as_slice(), &[0xff, 0xff, 0x30]].concat();
        assert_eq!(certificate_der(&BASE64_STANDARD.encode(rest)), Err(NewDeviceError::CertificateRest(3)));
        assert_eq!(certificate_der(&format!("{pem}{pem}")), Err(NewDeviceError::CertificateForm));
        assert_eq!(certificate_der("ek.der"), Err(NewDeviceError::CertificateForm));
        assert_eq!(certificate_der(&"A".repeat(MAX_TEXT_BYTES + 1)), Err(NewDeviceError::CertificateForm));
        let open = pem.replace("-----END CERTIFICATE-----", "");
        assert!(matches!(certificate_der(&open), Err(NewDeviceError::CertificatePem(_))));
    }
}
