//! TPM2_MakeCredential in software (Part 1 §24 "Credential Protection", Annex B.10.4 for RSA, C.6.4 for ECC).

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512, OaepAlgorithm, OaepPublicEncryptingKey,
    PublicEncryptingKey, PublicKeyComponents,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::public_key::{Kind, RSA_EXPONENT, ecdh};
use super::{Curve, Hash, Name, Public, PublicKey};

/// Longest AES key, bytes.
const MAX_KEY_BYTES: usize = 32;
const AES_BLOCK_BYTES: usize = 16;

/// A secret that one TPM gives away to whoever may use one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPMS_ID_OBJECT: TPM2B integrity HMAC, then the encrypted identity.
    pub id_object: Vec<u8>,
    /// Content of TPM2B_ENCRYPTED_SECRET: RSA ciphertext, or TPMS_ECC_POINT.
    pub encrypted_secret: Vec<u8>,
}

/// Why no credential was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The key is no restricted decryption key with AES, or the secret is empty or longer than a digest of its nameAlg.
    #[error("a credential needs a storage key with AES, and a secret no longer than its name's digest")]
    Unsuitable,
    /// The library refused key, randomness or cipher.
    #[error("the cryptographic library cannot make a credential for this key")]
    Library,
}

impl From<Unspecified> for CredentialError {
    fn from(_: Unspecified) -> Self {
        CredentialError::Library
    }
}

/// Wraps `secret` so that only the TPM holding `ek` with an object named `name` loaded can recover it.
///
/// `secret`: 1 byte to the digest size of the EK's nameAlg. Draws a seed or an ephemeral key from the system's randomness.
//= TPM-10 TPM 2.0 Part 1, Credential Protection: "the secret comes out only where an object of that Name is"
pub fn make_credential(ek: &Public, name: &Name, secret: &[u8]) -> Result<Credential, CredentialError> {
    let key_bytes = usize::from(ek.symmetric_bits().ok_or(CredentialError::Unsuitable)? / 8);
    wrap(ek.key(), (ek.name_hash(), key_bytes), name, secret)
}

/// The same for an endorsement key of which the public key alone is known: with what the templates of the EK Credential Profile
/// give such a key, SHA-256 and AES-128 below RSA-3072 and P-384 (L-1, L-2), SHA-384 and AES-256 from there on (H-3, H-6, H-7).
pub(crate) fn make_credential_by_template(
    ek: &PublicKey,
    name: &Name,
    secret: &[u8],
) -> Result<Credential, CredentialError> {
    let is_high = match ek.kind() {
        Kind::Rsa { modulus } => modulus.len() > 256,
        Kind::Ecc { curve, .. } => *curve == Curve::P384,
    };
    wrap(ek, if is_high { (Hash::Sha384, 32) } else { (Hash::Sha256, 16) }, name, secret)
}

/// `hash`: the key's nameAlg; `key_bytes`: of the AES key that protects its children.
fn wrap(
    ek: &PublicKey,
    (hash, key_bytes): (Hash, usize),
    name: &Name,
    secret: &[u8],
) -> Result<Credential, CredentialError> {
    if secret.is_empty() || secret.len() > hash.bytes() || key_bytes > hash.bytes() {
        return Err(CredentialError::Unsuitable);
    }
    let (seed, encrypted_secret) = match ek.kind() {
        Kind::Rsa { modulus } => rsa_seed(hash, modulus)?,
        Kind::Ecc { curve, point } => ecc_seed(hash, *curve, point)?,
    };
    let key = kdfa(hash, &seed, b"STORAGE\0", name.as_bytes(), key_bytes);
    let mut identity = Zeroizing::new(Vec::with_capacity(2 + secret.len()));
    identity.extend((secret.len() as u16).to_be_bytes());
    identity.extend_from_slice(secret);
    let identity = aes_cfb(&key, &identity)?;

    let key = kdfa(hash, &seed, b"INTEGRITY\0", &[], hash.bytes());
    let mut integrity = hmac::Context::with_key(&hmac::Key::new(hash.hmac(), &key));
    integrity.update(&identity);
    integrity.update(name.as_bytes());
    let id_object = [sized(integrity.sign().as_ref()), identity].concat();
    Ok(Credential { id_object, encrypted_secret })
}

/// A fresh seed, and it encrypted by OAEP with the label "IDENTITY".
fn rsa_seed(hash: Hash, modulus: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CredentialError> {
    let exponent = RSA_EXPONENT.to_be_bytes();
    let key: PublicEncryptingKey = PublicKeyComponents { n: modulus, e: &exponent[1..] }.try_into()?;
    let key = OaepPublicEncryptingKey::new(key)?;
    let mut seed = Zeroizing::new(vec![0; hash.bytes()]);
    rand::fill(&mut seed)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(oaep(hash), &seed, &mut ciphertext, Some(b"IDENTITY\0"))?;
    Ok((seed, ciphertext))
}

/// The seed agreed on with a fresh ephemeral key, and that key's public point.
fn ecc_seed(hash: Hash, curve: Curve, point: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CredentialError> {
    let ephemeral = PrivateKey::generate(ecdh(curve))?;
    let ephemeral_point = ephemeral.compute_public_key()?;
    let (x, y) = ephemeral_point.as_ref()[1..].split_at(curve.coordinate_bytes());
    let ek_x = &point[1..=curve.coordinate_bytes()];
    let peer = UnparsedPublicKey::new(ecdh(curve), point);
    let seed = agree(&ephemeral, peer, CredentialError::Library, |z| Ok(kdfe(hash, z, b"IDENTITY\0", x, ek_x)))?;
    Ok((seed, [sized(x), sized(y)].concat()))
}

/// KDFa (Part 1 §11.4.10.2, SP 800-108 in counter mode) for at most one digest, bytes; contextV is empty.
fn kdfa(hash: Hash, key: &[u8], label: &[u8], context: &[u8], bytes: usize) -> Zeroizing<Vec<u8>> {
    let mut block = hmac::Context::with_key(&hmac::Key::new(hash.hmac(), key));
    block.update(&1_u32.to_be_bytes());
    block.update(label);
    block.update(context);
    block.update(&(bytes as u32 * 8).to_be_bytes());
    Zeroizing::new(block.sign().as_ref()[..bytes].to_vec())
}

/// KDFe (Part 1 §11.4.10.3, SP 800-56A one step) for exactly one digest.
fn kdfe(hash: Hash, z: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(hash.digest(&[&1_u32.to_be_bytes(), z, label, party_u, party_v]).as_ref().to_vec())
}

/// AES in CFB mode with an IV of zeros: the key is used once.
fn aes_cfb(key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        MAX_KEY_BYTES => &AES_256,
        _ => return Err(CredentialError::Unsuitable),
    };
    let iv = EncryptionContext::Iv128(FixedLength::from(&[0; AES_BLOCK_BYTES]));
    let mut cipher = StreamingEncryptingKey::less_safe_cfb128(UnboundCipherKey::new(algorithm, key)?, iv)?;
    // The interface asks for a block to spare; CFB itself is as long as its input.
    let mut output = vec![0; plaintext.len() + 2 * AES_BLOCK_BYTES];
    let mut written = cipher.update(plaintext, &mut output)?.written().len();
    let (_, last) = cipher.finish(&mut output[written..])?;
    written += last.written().len();
    output.truncate(written);
    Ok(output)
}

fn oaep(hash: Hash) -> &'static OaepAlgorithm {
    match hash {
        Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        Hash::Sha384 => &OAEP_SHA384_MGF1SHA384,
        Hash::Sha512 => &OAEP_SHA512_MGF1SHA512,
    }
}

/// As a TPM2B.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}
