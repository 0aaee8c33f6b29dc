//! Writing TPM structures, right and wrong.

use aws_lc_rs::digest;

use super::{ECDSA, RSASSA, SHA256, SHA384, SigningKey};

/// TPMT_PUBLIC, every field as the test wants it.
#[derive(Clone)]
pub struct PublicFields {
    pub kind: u16,
    pub name_hash: u16,
    pub attributes: u32,
    pub policy: Vec<u8>,
    /// Bits of AES-CFB; `None` for TPM_ALG_NULL.
    pub symmetric_bits: Option<u16>,
    /// Scheme and hash; `None` for TPM_ALG_NULL.
    pub scheme: Option<(u16, u16)>,
    pub unique: Unique,
}

#[derive(Clone)]
pub enum Unique {
    Rsa { bits: u16, exponent: u32, modulus: Vec<u8> },
    Ecc { curve: u16, x: Vec<u8>, y: Vec<u8> },
}

impl PublicFields {
    /// An EK by its template.
    pub fn storage(unique: Unique, name_hash: u16, attributes: u32) -> Self {
        let symmetric_bits = Some(if name_hash == SHA384 { 256 } else { 128 });
        let policy = vec![0x83; hash_bytes(name_hash)];
        Self { kind: unique.kind(), name_hash, attributes, policy, symmetric_bits, scheme: None, unique }
    }

    /// The public area of a key that signs, with RSASSA or ECDSA as its kind is; its Name is over SHA-256.
    pub fn signing(key: &SigningKey, attributes: u32) -> Self {
        let unique = key.unique();
        let algorithm = if matches!(unique, Unique::Rsa { .. }) { RSASSA } else { ECDSA };
        let scheme = Some((algorithm, key.hash()));
        let policy = Vec::new();
        Self { kind: unique.kind(), name_hash: SHA256, attributes, policy, symmetric_bits: None, scheme, unique }
    }

    pub fn marshal(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.kind.to_be_bytes());
        out.extend(self.name_hash.to_be_bytes());
        out.extend(self.attributes.to_be_bytes());
        out.extend(sized(&self.policy));
        match self.symmetric_bits {
            None => out.extend([0x00, 0x10]),
            Some(bits) => {
                out.extend([0x00, 0x06]);
                out.extend(bits.to_be_bytes());
                out.extend([0x00, 0x43]);
            }
        }
        match self.scheme {
            None => out.extend([0x00, 0x10]),
            Some((scheme, hash)) => {
                out.extend(scheme.to_be_bytes());
                out.extend(hash.to_be_bytes());
            }
        }
        match &self.unique {
            Unique::Rsa { bits, exponent, modulus } => {
                out.extend(bits.to_be_bytes());
                out.extend(exponent.to_be_bytes());
                out.extend(sized(modulus));
            }
            Unique::Ecc { curve, x, y } => {
                out.extend(curve.to_be_bytes());
                out.extend([0x00, 0x10]);
                out.extend(sized(x));
                out.extend(sized(y));
            }
        }
        out
    }
}

impl Unique {
    fn kind(&self) -> u16 {
        if matches!(self, Unique::Rsa { .. }) { 0x0001 } else { 0x0023 }
    }
}

/// TPMS_ATTEST, every field as the test wants it.
#[derive(Clone)]
pub struct AttestFields {
    pub magic: u32,
    pub kind: u16,
    pub qualified_signer: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub clock: u64,
    pub reset_count: u32,
    pub restart_count: u32,
    pub safe: u8,
    pub firmware_version: u64,
    pub info: Vec<u8>,
}

impl AttestFields {
    pub fn new(kind: u16, qualified_signer: Vec<u8>, extra_data: &[u8], info: Vec<u8>) -> Self {
        Self {
            magic: 0xff54_4347,
            kind,
            qualified_signer,
            extra_data: extra_data.to_vec(),
            clock: 1_000_000,
            reset_count: 7,
            restart_count: 1,
            safe: 1,
            firmware_version: 0x2016_0511_0016_2800,
            info,
        }
    }

    pub fn marshal(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.magic.to_be_bytes());
        out.extend(self.kind.to_be_bytes());
        out.extend(sized(&self.qualified_signer));
        out.extend(sized(&self.extra_data));
        out.extend(self.clock.to_be_bytes());
        out.extend(self.reset_count.to_be_bytes());
        out.extend(self.restart_count.to_be_bytes());
        out.push(self.safe);
        out.extend(self.firmware_version.to_be_bytes());
        out.extend(&self.info);
        out
    }
}

/// TPMS_QUOTE_INFO over (bank, mask) pairs.
pub fn quote_info(banks: &[(u16, u32)], digest: &[u8]) -> Vec<u8> {
    let mut out = (banks.len() as u32).to_be_bytes().to_vec();
    for (hash, mask) in banks {
        out.extend(hash.to_be_bytes());
        out.push(3);
        out.extend(&mask.to_le_bytes()[..3]);
    }
    out.extend(sized(digest));
    out
}

/// TPMS_CERTIFY_INFO; the qualified name is any, nobody can check it.
pub fn certify_info(name: &[u8]) -> Vec<u8> {
    [sized(name), sized(name)].concat()
}

/// nameAlg || H(public area).
pub fn name(public: &PublicFields) -> Vec<u8> {
    let digest = digest(public.name_hash, &public.marshal());
    [public.name_hash.to_be_bytes().to_vec(), digest].concat()
}

/// nameAlg || H(parent || Name).
pub fn qualified_name(parent: &[u8], public: &PublicFields) -> Vec<u8> {
    let digest = digest(public.name_hash, &[parent, &name(public)].concat());
    [public.name_hash.to_be_bytes().to_vec(), digest].concat()
}

pub fn digest(hash: u16, bytes: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        SHA256 => &digest::SHA256,
        SHA384 => &digest::SHA384,
        _ => &digest::SHA1_FOR_LEGACY_USE_ONLY,
    };
    digest::digest(algorithm, bytes).as_ref().to_vec()
}

pub fn hash_bytes(hash: u16) -> usize {
    digest(hash, b"").len()
}

/// TPM2B.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}
