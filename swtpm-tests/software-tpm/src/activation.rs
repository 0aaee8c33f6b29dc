//! TPM2_ActivateCredential, written from Part 1 §24 and Annexes B and C, not from the code under test.

use aws_lc_rs::agreement::{ECDH_P256, ECDH_P384, UnparsedPublicKey, agree};
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey};
use ironroot_attest::structures::Curve;

use super::marshal::{Unique, digest, hash_bytes};
use super::{Decryptor, PublicFields, SHA384};

impl Decryptor {
    /// `name`: of the object that must be loaded. `None`: the integrity value is wrong.
    pub fn activate(&self, public: &PublicFields, name: &[u8], id_object: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
        let hash = public.name_hash;
        let seed = self.seed(public, secret)?;
        let (integrity, identity) = split_sized(id_object)?;
        let mac_key = kdfa(hash, &seed, b"INTEGRITY", &[], hash_bytes(hash) * 8);
        let mac = hmac::Key::new(hmac_algorithm(hash), &mac_key);
        hmac::verify(&mac, &[identity, name].concat(), integrity).ok()?;
        let bits = usize::from(public.symmetric_bits.expect("a storage key"));
        let plain = cfb_decrypt(&kdfa(hash, &seed, b"STORAGE", name, bits), identity);
        let (value, rest) = split_sized(&plain)?;
        rest.is_empty().then(|| value.to_vec())
    }

    fn seed(&self, public: &PublicFields, secret: &[u8]) -> Option<Vec<u8>> {
        match self {
            Decryptor::Rsa(key) => {
                let key = OaepPrivateDecryptingKey::new(key.clone()).expect("key");
                let mut out = vec![0; key.min_output_size()];
                let seed = key.decrypt(&OAEP_SHA256_MGF1SHA256, secret, &mut out, Some(b"IDENTITY\0")).ok()?;
                Some(seed.to_vec())
            }
            Decryptor::Ecc { curve, key } => {
                let (x, rest) = split_sized(secret)?;
                let (y, rest) = split_sized(rest)?;
                assert!(rest.is_empty() && x.len() == curve.coordinate_bytes());
                let algorithm = if *curve == Curve::P256 { &ECDH_P256 } else { &ECDH_P384 };
                let peer = UnparsedPublicKey::new(algorithm, [&[4], x, y].concat());
                let z = agree(key, peer, (), |z| Ok(z.to_vec())).ok()?;
                let Unique::Ecc { x: own_x, .. } = &public.unique else { panic!("an ECC key has a point") };
                Some(digest(public.name_hash, &[&[0, 0, 0, 1], &z[..], b"IDENTITY\0", x, own_x].concat()))
            }
        }
    }
}

fn kdfa(hash: u16, key: &[u8], label: &[u8], context: &[u8], bits: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac_algorithm(hash), key);
    let mut out = Vec::new();
    for counter in 1_u32.. {
        let bits = (bits as u32).to_be_bytes();
        let block = [&counter.to_be_bytes(), label, &[0], context, &bits].concat();
        out.extend_from_slice(hmac::sign(&key, &block).as_ref());
        if out.len() * 8 >= usize::from(u16::from_be_bytes([bits[2], bits[3]])) {
            break;
        }
    }
    out.truncate(bits / 8);
    out
}

fn hmac_algorithm(hash: u16) -> hmac::Algorithm {
    if hash == SHA384 { hmac::HMAC_SHA384 } else { hmac::HMAC_SHA256 }
}

fn cfb_decrypt(key: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        _ => &AES_256,
    };
    let iv = DecryptionContext::Iv128(FixedLength::from(&[0; 16]));
    let key = UnboundCipherKey::new(algorithm, key).expect("key");
    let mut cipher = StreamingDecryptingKey::cfb128(key, iv).expect("cipher");
    let mut out = vec![0; ciphertext.len() + 32];
    let written = cipher.update(ciphertext, &mut out).expect("decrypts").written().len();
    let rest = cipher.finish(&mut out[written..]).expect("decrypts").written().len();
    out.truncate(written + rest);
    out
}

fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*size).into())
}

#[test]
fn sized_is_what_split_sized_splits() {
    assert_eq!(split_sized(&super::marshal::sized(b"ab")), Some((&b"ab"[..], &b""[..])));
}
