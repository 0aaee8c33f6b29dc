//! Keys and signatures of others in the form in which a TPM verifies: TPM2_LoadExternal, TPM2_VerifySignature.

use der::asn1::UintRef;
use der::{Decode, Sequence};

use super::algorithm::ALG_NULL;
use super::name::Name;
use super::public::{ALG_ECC, ALG_RSA, Attributes};
use super::public_key::Kind;
use super::signature::{ALG_ECDSA, ALG_RSASSA};
use super::{Curve, Hash, PublicKey, sized};

/// Ecdsa-Sig-Value of RFC 3279 §2.2.3.
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl PublicKey {
    /// The curve; none for RSA.
    pub fn curve(&self) -> Option<Curve> {
        match self.kind() {
            Kind::Rsa { .. } => None,
            Kind::Ecc { curve, .. } => Some(*curve),
        }
    }

    /// TPMT_PUBLIC (Part 2 §12.2.4) that verifies with SHA-256: RSASSA or ECDSA, userWithAuth and sign, no policy.
    pub(crate) fn verifying_area(&self) -> Vec<u8> {
        let attributes = (Attributes::USER_WITH_AUTH | Attributes::SIGN).to_be_bytes();
        let hash = Hash::Sha256.id();
        let begin = |kind: u16, scheme: u16| {
            [&words(&[kind, hash])[..], &attributes, &words(&[0, ALG_NULL, scheme, hash])].concat()
        };
        match self.kind() {
            Kind::Rsa { modulus } => {
                let bits = u16::try_from(8 * modulus.len()).unwrap_or(u16::MAX);
                // Exponent 0: the default, 65537.
                [begin(ALG_RSA, ALG_RSASSA), words(&[bits, 0, 0]), sized(modulus)].concat()
            }
            Kind::Ecc { curve, point } => {
                let (x, y) = point[1..].split_at(curve.coordinate_bytes());
                [begin(ALG_ECC, ALG_ECDSA), words(&[curve.id(), ALG_NULL]), sized(x), sized(y)].concat()
            }
        }
    }

    /// TPMT_SIGNATURE (Part 2 §11.3.4) of one with SHA-256 as certificates have it. Of ECDSA: `None` if it is not DER.
    pub(crate) fn tpm_signature_of(&self, signature: &[u8]) -> Option<Vec<u8>> {
        let hash = Hash::Sha256.id();
        match self.kind() {
            Kind::Rsa { .. } => Some([words(&[ALG_RSASSA, hash]), sized(signature)].concat()),
            Kind::Ecc { .. } => {
                let EcdsaSignature { r, s } = EcdsaSignature::from_der(signature).ok()?;
                Some([words(&[ALG_ECDSA, hash]), sized(r.as_bytes()), sized(s.as_bytes())].concat())
            }
        }
    }
}

impl Name {
    /// What a TPM calls the key of [`PublicKey::verifying_area`].
    pub(crate) fn of_verifying_area(area: &[u8]) -> Self {
        Self::of_public_area(Hash::Sha256, area)
    }
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
