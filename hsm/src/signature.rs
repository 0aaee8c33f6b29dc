//! ECDSA signatures in the two forms that the world uses.

use std::fmt;

use der::asn1::UintRef;
use der::{Encode, Sequence};

/// A P-256 ECDSA signature as PKCS#11 and JWS have it: r‖s, 32 bytes each, big-endian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct P256Signature([u8; 64]);

impl P256Signature {
    /// r‖s, the form of JWS. Source: RFC 7518 §3.4.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// `ECDSA-Sig-Value`, the form of X.509 and TLS. Source: RFC 3279 §2.2.3.
    pub fn to_der(&self) -> Vec<u8> {
        ecdsa_to_der(&self.0)
    }
}

/// `ECDSA-Sig-Value` of r‖s, two halves of the same length.
pub(crate) fn ecdsa_to_der(r_and_s: &[u8]) -> Vec<u8> {
    let (r, s) = r_and_s.split_at(r_and_s.len() / 2);
    let value = UintRef::new(r).and_then(|r| EcdsaSigValue { r, s: UintRef::new(s)? }.to_der());
    value.expect("two integers of at most 48 bytes are far below DER's bounds")
}

#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl From<[u8; 64]> for P256Signature {
    fn from(r_and_s: [u8; 64]) -> Self {
        Self(r_and_s)
    }
}

impl fmt::Debug for P256Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Signature(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_integers_are_minimal_and_never_negative() {
        let mut raw = [0u8; 64];
        raw[31] = 0x7f;
        raw[32] = 0x80;
        let der = P256Signature::from(raw).to_der();
        assert_eq!(&der[..5], &[0x30, 0x26, 0x02, 0x01, 0x7f]);
        assert_eq!(&der[5..9], &[0x02, 0x21, 0x00, 0x80]);
        assert_eq!(der.len(), 2 + 3 + 2 + 33);
        assert_eq!(P256Signature::from([0; 64]).to_der(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(P256Signature::from([0xff; 64]).to_der().len(), 72);
    }
}
