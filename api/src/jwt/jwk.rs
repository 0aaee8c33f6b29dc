//! The public key in a JWK, as the SubjectPublicKeyInfo that everything else works with.
//!
//! Source: RFC 7517 §4, RFC 7518 §6.2.1, §6.3.1; RFC 5480 §2; RFC 8017 A.1.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use const_oid::db::rfc5912;
use der::asn1::{Any, BitString, ObjectIdentifier, UintRef};
use der::{Encode, Sequence};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// Longest number of a key, base64url: an RSA modulus of 8192 bits, and some.
const MAX_NUMBER_TEXT: usize = 1500;

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// The DER SubjectPublicKeyInfo of the key whose members `member` gives; `None` for a kind of key that is not known here. Whether
/// it is a key at all, whoever uses it finds out.
///
/// Errors: what is wrong with it, as the rest of a sentence about it.
pub(crate) fn spki_of_jwk<'a>(member: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Vec<u8>>, &'static str> {
    let number = |name: &str| {
        let text = member(name).filter(|text| text.len() <= MAX_NUMBER_TEXT);
        text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
            .ok_or("has a number that is missing, too long or not base64url")
    };
    match member("kty") {
        Some("RSA") => rsa(&number("n")?, &number("e")?).map(Some).ok_or("is no RSA key"),
        Some("EC") => {
            let Some((curve, bytes)) = member("crv").and_then(curve) else { return Ok(None) };
            let (x, y) = (number("x")?, number("y")?);
            match x.len() == bytes && y.len() == bytes {
                true => Ok(ec(curve, &x, &y)),
                false => Err("has a coordinate of another length than its curve's"),
            }
        }
        _ => Ok(None),
    }
}

/// The curve of that name, and bytes of a coordinate.
fn curve(name: &str) -> Option<(ObjectIdentifier, usize)> {
    match name {
        "P-256" => Some((rfc5912::SECP_256_R_1, 32)),
        "P-384" => Some((rfc5912::SECP_384_R_1, 48)),
        "P-521" => Some((rfc5912::SECP_521_R_1, 66)),
        _ => None,
    }
}

fn ec(curve: ObjectIdentifier, x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    let point = [&[4], x, y].concat();
    spki(rfc5912::ID_EC_PUBLIC_KEY, Any::encode_from(&curve).ok()?, &point)
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let key = RsaPublicKey { modulus: UintRef::new(modulus).ok()?, exponent: UintRef::new(exponent).ok()? };
    spki(rfc5912::RSA_ENCRYPTION, Any::null(), &key.to_der().ok()?)
}

fn spki(oid: ObjectIdentifier, parameters: Any, key: &[u8]) -> Option<Vec<u8>> {
    let algorithm = AlgorithmIdentifierOwned { oid, parameters: Some(parameters) };
    let subject_public_key = BitString::from_bytes(key).ok()?;
    SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().ok()
}
