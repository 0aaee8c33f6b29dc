//! A certificate as its holder can write it without its issuer: of an ECDSA signature (r, s) there is (r, n - s), and it is as good.
//!
//! Names that are hashes of a whole certificate, as SPIRE gives them, are different then: who looks for one of them looks for each.

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode, Reader, SliceReader, Tag};

use crate::link::contents;

/// Orders of the groups that certificates are signed in, big-endian. Source: FIPS 186-4, D.1.2.
const ORDERS: [&[u8]; 3] = [&P256, &P384, &P521];
const P256: [u8; 32] = hex_literal("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
const P384: [u8; 48] =
    hex_literal("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973");
const P521: [u8; 66] = hex_literal(
    "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
);

/// Of a certificate, DER. The signature does not say which curve it is on, so there is one for each that it can be on; those that are on
/// another are nobody's. None of a signature that has one form.
pub(crate) fn of_certificate(der: &[u8]) -> Vec<Vec<u8>> {
    rewritten(der).unwrap_or_default()
}

/// What `s`, big-endian, is as good as, for each order that it can be of.
pub(crate) fn negated(s: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    ORDERS.into_iter().filter_map(move |order| difference(order, s))
}

fn rewritten(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut outer = SliceReader::new(contents(der)?).ok()?;
    let (tbs, algorithm) = (outer.tlv_bytes().ok()?, outer.tlv_bytes().ok()?);
    let signature = BitStringRef::decode(&mut outer).ok()?.as_bytes()?;
    let mut numbers = SliceReader::new(contents(signature)?).ok()?;
    let (r, s) = (UintRef::decode(&mut numbers).ok()?, UintRef::decode(&mut numbers).ok()?);
    let written = |s: Vec<u8>| {
        let signature = sequence(&[r.to_der().ok()?, UintRef::new(&s).ok()?.to_der().ok()?].concat())?;
        let signature = BitStringRef::from_bytes(&signature).ok()?.to_der().ok()?;
        sequence(&[tbs, algorithm, &signature].concat())
    };
    Some(negated(s.as_bytes()).filter_map(written).collect())
}

fn sequence(contents: &[u8]) -> Option<Vec<u8>> {
    AnyRef::new(Tag::Sequence, contents).ok()?.to_der().ok()
}

/// `order` - `s`; none if `s` is not from 1 to `order` - 1.
fn difference(order: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let s = &s[s.iter().take_while(|byte| **byte == 0).count()..];
    let padding = order.len().checked_sub(s.len())?;
    let (mut difference, mut borrow) = (order.to_vec(), false);
    for (at, byte) in difference.iter_mut().enumerate().rev() {
        let subtrahend = at.checked_sub(padding).map_or(0, |at| s[at]);
        let (once, first) = byte.overflowing_sub(subtrahend);
        let (twice, second) = once.overflowing_sub(borrow.into());
        (*byte, borrow) = (twice, first || second);
    }
    let is_between = !s.is_empty() && !borrow && difference.iter().any(|byte| *byte != 0);
    is_between.then_some(difference)
}

const fn hex_literal<const N: usize>(text: &str) -> [u8; N] {
    let (text, mut bytes, mut at) = (text.as_bytes(), [0; N], 0);
    assert!(text.len() == 2 * N, "two digits a byte");
    while at < N {
        bytes[at] = digit(text[2 * at]) << 4 | digit(text[2 * at + 1]);
        at += 1;
    }
    bytes
}

const fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
        KeyPair, UnparsedPublicKey,
    };

    use super::*;

    #[test]
    fn a_signature_with_the_other_number_is_as_good() {
        for (signing, verifying, order) in [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED, &P256[..]),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED, &P384),
            (&ECDSA_P521_SHA512_FIXED_SIGNING, &ECDSA_P521_SHA512_FIXED, &P521),
        ] {
            let key = EcdsaKeyPair::generate(signing).expect("a key");
            let signature = key.sign(&SystemRandom::new(), b"signed").expect("signs");
            let (r, s) = signature.as_ref().split_at(order.len());
            let other = negated(s).find(|other| other.len() == order.len()).expect("of this curve");
            let key = UnparsedPublicKey::new(verifying, key.public_key().as_ref());
            key.verify(b"signed", &[r, &other].concat()).expect("as good");
            assert_ne!(other, s);
            assert_eq!(difference(order, &other).as_deref(), Some(s), "and back");
        }
    }

    #[test]
    fn numbers_that_no_signature_has_have_none() {
        for s in [&[][..], &[0], &P256, &[0xff; 32], &[1; 33]] {
            assert_eq!(difference(&P256, s), None, "{s:?}");
        }
        assert_eq!(negated(&[0xff; 67]).count(), 0);
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        for der in [&b""[..], &[0x30, 0], &[0x30, 3, 2, 1, 1]] {
            assert!(of_certificate(der).is_empty());
        }
    }
}
