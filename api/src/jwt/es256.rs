//! A signature of a P-256 key in the form that JWS wants.

use der::asn1::UintRef;
use der::{Decode, Sequence};

/// Bytes of each of the two numbers.
const HALF: usize = 32;

/// Source: RFC 3279 §2.2.3.
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// r‖s, 32 bytes each, of a DER `ECDSA-Sig-Value`; `None` if it is none of such a key. Source: RFC 7518 §3.4.
pub fn es256_signature(der: &[u8]) -> Option<[u8; 2 * HALF]> {
    let EcdsaSigValue { r, s } = EcdsaSigValue::from_der(der).ok()?;
    let mut signature = [0; 2 * HALF];
    for (number, half) in [r, s].iter().zip(signature.chunks_exact_mut(HALF)) {
        let start = HALF.checked_sub(number.as_bytes().len())?;
        half.get_mut(start..)?.copy_from_slice(number.as_bytes());
    }
    Some(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_the_curve_and_longer_ones_are_refused() {
        let der = |r: &[u8], s: &[u8]| {
            let number = |bytes: &[u8]| [&[2, u8::try_from(bytes.len()).expect("short")][..], bytes].concat();
            let body = [number(r), number(s)].concat();
            [&[0x30, u8::try_from(body.len()).expect("short")][..], &body].concat()
        };
        let high = [&[0][..], &[0x80; 32]].concat();
        let signature = es256_signature(&der(&[0x7f], &high)).expect("one");
        assert_eq!((&signature[..31], signature[31], &signature[32..]), (&[0; 31][..], 0x7f, &[0x80; 32][..]));
        assert_eq!(es256_signature(&der(&[1; 33], &[1])), None);
        assert_eq!(es256_signature(b"0"), None);
        assert_eq!(es256_signature(&[]), None);
    }
}
