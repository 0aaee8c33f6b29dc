//! A key that somebody made and left at a persistent handle, such as that of a device's certificate.

use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest, HashScheme, Public, Signature, SignatureScheme};

use super::chip::Chip;
use super::connection::{Connection, EMPTY_PASSWORD, NO_SESSION};
use super::error::TpmError;
use super::signing_key::no_ticket;

/// Longest scalar of a signature, bytes: one of P-521.
const MAX_SCALAR_BYTES: usize = 66;

/// A signature over a SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersistentSignature {
    /// ECDSA: r and s, each as long as the other, big-endian.
    Ecdsa(Vec<u8>),
    /// RSASSA-PSS; how long the salt is, the chip decides.
    RsaPss(Vec<u8>),
}

impl Chip {
    /// Signs a SHA-256 digest with the key at `handle` (0x81000000 to 0x81ffffff), which has no password: by ECDSA, or by RSASSA-PSS.
    pub fn sign_with_persistent(&mut self, handle: u32, digest: &[u8; 32]) -> Result<PersistentSignature, TpmError> {
        let digest = Digest::try_from(digest.as_slice()).expect("TPM2B_DIGEST holds at least a SHA-512 digest");
        let ticket = no_ticket()?;
        self.task(|tpm| {
            tpm.with_persistent(handle, |tpm, key| {
                let (public, _, _) = tpm.command("TPM2_ReadPublic", NO_SESSION, |esys| esys.read_public(key))?;
                let scheme = scheme_of(&public)?;
                let signature = tpm.command("TPM2_Sign", EMPTY_PASSWORD, |esys| {
                    esys.sign(key, digest.clone(), scheme, ticket.clone())
                })?;
                persistent_signature(&signature)
            })
        })
    }
}

impl Connection {
    /// Runs `body` with the library's handle of a key at a persistent handle.
    fn with_persistent<T>(
        &mut self,
        handle: u32,
        body: impl FnOnce(&mut Self, KeyHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let outside = |_| TpmError::Argument("a persistent handle lies from 0x81000000 to 0x81ffffff");
        let handle = TpmHandle::Persistent(PersistentTpmHandle::new(handle).map_err(outside)?);
        let object: ObjectHandle =
            self.command("TPM2_ReadPublic", NO_SESSION, |esys| esys.tr_from_tpm_public(handle))?;
        let result = body(self, KeyHandle::from(object));
        self.close(object);
        result
    }
}

fn scheme_of(public: &Public) -> Result<SignatureScheme, TpmError> {
    let scheme = HashScheme::new(HashingAlgorithm::Sha256);
    match public {
        Public::Ecc { .. } => Ok(SignatureScheme::EcDsa { hash_scheme: scheme }),
        Public::Rsa { .. } => Ok(SignatureScheme::RsaPss { hash_scheme: scheme }),
        _ => Err(TpmError::Argument("the key at that handle is neither an elliptic curve's nor RSA's")),
    }
}

fn persistent_signature(signature: &Signature) -> Result<PersistentSignature, TpmError> {
    let malformed = |reason| TpmError::Malformed { command: "TPM2_Sign", reason };
    match signature {
        Signature::RsaPss(rsa) => Ok(PersistentSignature::RsaPss(rsa.signature().value().to_vec())),
        Signature::EcDsa(ecdsa) => {
            let scalars = [ecdsa.signature_r().value(), ecdsa.signature_s().value()];
            // Some chips strip leading zeros.
            let length = scalars.map(<[u8]>::len).into_iter().max().filter(|length| *length <= MAX_SCALAR_BYTES);
            let length = length.ok_or(malformed("a signature scalar is too long"))?;
            let padded = |scalar: &[u8]| [&vec![0; length - scalar.len()], scalar].concat();
            Ok(PersistentSignature::Ecdsa(scalars.map(padded).concat()))
        }
        _ => Err(malformed("neither an ECDSA signature nor one of RSASSA-PSS")),
    }
}
