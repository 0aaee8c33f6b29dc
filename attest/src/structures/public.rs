//! TPMT_PUBLIC (Part 2 §12.2.4): the public area of an RSA or ECC key.

use std::fmt;

use thiserror::Error;

use super::algorithm::ALG_NULL;
use super::name::{ENDORSEMENT_HIERARCHY, Name};
use super::public_key::{KeyError, MAX_RSA_BITS, PublicKey, RSA_EXPONENT};
use super::wire::{Reader, StructureError};
use super::{Curve, Hash, Scheme};

pub(super) const ALG_RSA: u16 = 0x0001;
pub(super) const ALG_ECC: u16 = 0x0023;
const ALG_AES: u16 = 0x0006;
const ALG_CFB: u16 = 0x0043;

/// Why a public area is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublicError {
    /// Malformed, or with an algorithm that is not accepted.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// Well-formed, but the key is weak or none.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The public area of a key, its [`Name`] taken over the bytes received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    name_hash: Hash,
    name: Name,
    attributes: Attributes,
    symmetric_bits: Option<u16>,
    scheme: Option<Scheme>,
    key: PublicKey,
}

impl Public {
    /// Parses one whole TPMT_PUBLIC.
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicError> {
        Reader::whole(bytes, |reader| Self::read(reader, bytes))
    }

    /// Hash algorithm of the name (nameAlg); for a parent also that of credential protection.
    pub fn name_hash(&self) -> Hash {
        self.name_hash
    }

    /// What the TPM calls the object.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What the object may be used for, and whether it can leave its TPM.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// AES key size, bits, of a parent's protection (CFB mode). `None`: TPM_ALG_NULL, the key is no parent.
    pub fn symmetric_bits(&self) -> Option<u16> {
        self.symmetric_bits
    }

    /// The only scheme the key signs with. `None`: TPM_ALG_NULL.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The key itself.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    fn read(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<Self, PublicError> {
        let object_type = reader.u16()?;
        if object_type != ALG_RSA && object_type != ALG_ECC {
            return Err(StructureError::ObjectType(object_type).into());
        }
        let name_hash = Hash::from_id(reader.u16()?)?;
        let attributes = Attributes::read(reader)?;
        let _policy = reader.sized(Hash::MAX_BYTES)?;
        let symmetric_bits = read_symmetric(reader)?;
        let scheme = Scheme::read(reader)?;
        let key = if object_type == ALG_RSA { read_rsa(reader)? } else { read_ecc(reader)? };
        let name = Name::of_public_area(name_hash, bytes);
        Ok(Self { name_hash, name, attributes, symmetric_bits, scheme, key })
    }
}

impl Public {
    /// The qualified name of this key as a primary key of the endorsement hierarchy: nameAlg || H(handle || Name).
    pub fn qualified_name_in_endorsement_hierarchy(&self) -> Name {
        Name::new(self.name_hash(), &[&ENDORSEMENT_HIERARCHY, self.name().as_bytes()])
    }

    /// The qualified name of this key as a child of the one whose qualified name is `parent`: nameAlg || H(parent || Name).
    pub fn qualified_name_under(&self, parent: &Name) -> Name {
        Name::new(self.name_hash(), &[parent.as_bytes(), self.name().as_bytes()])
    }
}

/// TPMA_OBJECT (Part 2 §8.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u32);

impl Attributes {
    /// The key cannot be duplicated on its own.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// The key cannot be moved under another parent.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM made the key; it was not imported.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// Its own password, empty or not, authorizes its use.
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    /// If duplicated, then only encrypted.
    pub const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
    /// Signs only what the TPM made; decrypts only what the TPM will act on.
    pub const RESTRICTED: u32 = 1 << 16;
    /// Its private part may decrypt, or, for a storage key, protect children.
    pub const DECRYPT: u32 = 1 << 17;
    /// Its private part may sign, or, for a symmetric key, encrypt.
    pub const SIGN: u32 = 1 << 18;
    /// Signs certificates through TPM2_CertifyX509 only.
    pub const X509_SIGN: u32 = 1 << 19;
    /// Fixed to its TPM and its parent, and made there.
    pub const RESIDENT: u32 = Self::FIXED_TPM | Self::FIXED_PARENT | Self::SENSITIVE_DATA_ORIGIN;

    /// Bits 0, 3, 12 to 15 and 20 to 31.
    const RESERVED: u32 = 0xfff0_f009;

    /// The TPMA_OBJECT as it is on the wire.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `required` are set and none of `forbidden`.
    pub fn are(self, required: u32, forbidden: u32) -> bool {
        self.0 & required == required && self.0 & forbidden == 0
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, StructureError> {
        let bits = reader.u32()?;
        if bits & Self::RESERVED == 0 { Ok(Self(bits)) } else { Err(StructureError::Attributes(bits)) }
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// TPMT_SYM_DEF_OBJECT: none, or AES in CFB mode.
fn read_symmetric(reader: &mut Reader<'_>) -> Result<Option<u16>, StructureError> {
    let algorithm = reader.u16()?;
    if algorithm == ALG_NULL {
        return Ok(None);
    }
    let refusal = |bits| Err(StructureError::Symmetric { algorithm, bits });
    if algorithm != ALG_AES {
        return refusal(0);
    }
    let bits = reader.u16()?;
    if reader.u16()? != ALG_CFB || !matches!(bits, 128 | 192 | 256) { refusal(bits) } else { Ok(Some(bits)) }
}

/// The rest of TPMS_RSA_PARMS, and TPM2B_PUBLIC_KEY_RSA.
fn read_rsa(reader: &mut Reader<'_>) -> Result<PublicKey, PublicError> {
    let bits = reader.u16()?;
    let exponent = reader.u32()?;
    if exponent != 0 && exponent != RSA_EXPONENT {
        return Err(StructureError::RsaExponent(exponent).into());
    }
    let modulus = reader.sized(MAX_RSA_BITS / 8)?;
    if modulus.len() * 8 != usize::from(bits) {
        return Err(StructureError::RsaModulus { bytes: modulus.len(), bits }.into());
    }
    Ok(PublicKey::rsa(modulus)?)
}

/// The rest of TPMS_ECC_PARMS, and TPMS_ECC_POINT.
fn read_ecc(reader: &mut Reader<'_>) -> Result<PublicKey, PublicError> {
    let curve = Curve::from_id(reader.u16()?)?;
    let kdf = reader.u16()?;
    if kdf != ALG_NULL {
        return Err(StructureError::Scheme(kdf).into());
    }
    let x = reader.sized(Curve::MAX_COORDINATE_BYTES)?;
    let y = reader.sized(Curve::MAX_COORDINATE_BYTES)?;
    Ok(PublicKey::ecc(curve, x, y)?)
}
