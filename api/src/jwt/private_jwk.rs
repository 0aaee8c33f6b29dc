//! A private key as a JWK: what the holder of a WIT-SVID gets it in.

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::{AnyRef, OctetStringRef, UintRef};
use der::{Decode, Reader, SliceReader};
use serde::Serialize;
use zeroize::Zeroizing;

/// Numbers of an RSA private key after its version: n, e, d, p, q, dp, dq, qi. Source: RFC 8017 A.1.2.
const RSA_NUMBERS: usize = 8;

/// Of a PKCS#8 private key on P-256 or P-384, or of RSA with two primes: JSON; `None` of any other. Source: RFC 7517 §4, RFC 7518 §6.2,
/// §6.3.
pub fn private_jwk(pkcs8: &[u8]) -> Option<Zeroizing<String>> {
    ec(pkcs8, &ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
        .or_else(|| ec(pkcs8, &ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"))
        .or_else(|| rsa(pkcs8))
}

#[derive(Serialize)]
struct Ec<'a> {
    kty: &'static str,
    crv: &'static str,
    x: Text,
    y: Text,
    d: &'a Text,
}

#[derive(Serialize)]
struct Rsa<'a> {
    kty: &'static str,
    n: &'a Text,
    e: &'a Text,
    d: &'a Text,
    p: &'a Text,
    q: &'a Text,
    dp: &'a Text,
    dq: &'a Text,
    qi: &'a Text,
}

/// Base64 as JOSE has it, in memory that is wiped. Source: RFC 7515 §2.
struct Text(Zeroizing<String>);

impl Text {
    fn of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn ec(pkcs8: &[u8], algorithm: &'static EcdsaSigningAlgorithm, crv: &'static str) -> Option<Zeroizing<String>> {
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok()?;
    let secret: EcPrivateKeyBin<'_> = key.private_key().as_be_bytes().ok()?;
    let (_, point) = key.public_key().as_ref().split_first()?;
    let (x, y) = point.split_at(point.len() / 2);
    json(&Ec { kty: "EC", crv, x: Text::of(x), y: Text::of(y), d: &Text::of(secret.as_ref()) })
}

fn rsa(pkcs8: &[u8]) -> Option<Zeroizing<String>> {
    let outer = |fields: &mut SliceReader<'_>| {
        UintRef::decode(fields)?;
        AnyRef::decode(fields)?;
        let key = <&OctetStringRef>::decode(fields)?;
        fields.read_slice(fields.remaining_len())?;
        Ok::<_, der::Error>(key.as_bytes().to_vec())
    };
    let key = Zeroizing::new(sequence(pkcs8, outer)?);
    let numbers = |fields: &mut SliceReader<'_>| {
        UintRef::decode(fields)?;
        let numbers = (0..RSA_NUMBERS).map(|_| UintRef::decode(fields).map(|number| Text::of(number.as_bytes())));
        numbers.collect::<Result<Vec<_>, _>>()
    };
    let numbers = sequence(&key, numbers)?;
    let [n, e, d, p, q, dp, dq, qi] = numbers.as_slice() else { return None };
    json(&Rsa { kty: "RSA", n, e, d, p, q, dp, dq, qi })
}

/// What `read` makes of the fields of a DER SEQUENCE.
fn sequence<T>(der: &[u8], read: impl FnOnce(&mut SliceReader<'_>) -> Result<T, der::Error>) -> Option<T> {
    let content = AnyRef::from_der(der).ok()?;
    let mut fields = SliceReader::new(content.value()).ok()?;
    read(&mut fields).ok()
}

fn json(jwk: &impl Serialize) -> Option<Zeroizing<String>> {
    serde_json::to_string(jwk).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, RsaKeySize};
    use serde_json::Value;

    use super::*;

    fn jwk(key: &KeyPair) -> Value {
        serde_json::from_str(&private_jwk(&key.serialize_der()).unwrap()).unwrap()
    }

    fn bytes(jwk: &Value, member: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap()
    }

    #[test]
    fn keys_of_each_kind_have_all_members_and_what_is_no_key_has_none() {
        let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let shown = jwk(&p256);
        assert_eq!((&shown["kty"], &shown["crv"]), (&"EC".into(), &"P-256".into()));
        let point = [&[4], &bytes(&shown, "x")[..], &bytes(&shown, "y")].concat();
        assert_eq!((point, bytes(&shown, "d").len()), (p256.public_key_raw().to_vec(), 32));
        let shown = jwk(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        assert_eq!((&shown["crv"], bytes(&shown, "d").len()), (&"P-384".into(), 48));
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let shown = jwk(&rsa);
        assert_eq!((bytes(&shown, "n").len(), bytes(&shown, "e"), bytes(&shown, "p").len()), (256, vec![1, 0, 1], 128));
        assert!(["d", "q", "dp", "dq", "qi"].iter().all(|member| !bytes(&shown, member).is_empty()));
        assert!(private_jwk(b"").is_none() && private_jwk(&p256.serialize_der()[1..]).is_none());
    }
}
