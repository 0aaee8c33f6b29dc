//! Names and qualified names (Part 1 §16): what a TPM calls an object, and where it hangs.

use super::algorithm::Hash;
use super::wire::{Reader, StructureError};

/// TPM_RH_ENDORSEMENT.
pub(super) const ENDORSEMENT_HIERARCHY: [u8; 4] = 0x4000_000b_u32.to_be_bytes();
/// Longest name, bytes: algorithm and SHA-512 digest.
const MAX_NAME_BYTES: usize = 2 + Hash::MAX_BYTES;

/// Name of an object: its nameAlg, then that hash of its public area. Also a qualified name, which has the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(heapless::Vec<u8, MAX_NAME_BYTES>);

impl Name {
    /// The bytes, as they go into an HMAC or a hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From its bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, StructureError> {
        let (id, digest) = bytes.split_first_chunk::<2>().ok_or(StructureError::Name)?;
        let hash = Hash::from_id(u16::from_be_bytes(*id))?;
        if digest.len() != hash.bytes() {
            return Err(StructureError::DigestLength(digest.len()));
        }
        heapless::Vec::from_slice(bytes).map(Self).map_err(|_| StructureError::Name)
    }

    /// The name of a public area, of an object or of an NV index, over the bytes received.
    pub(crate) fn of_public_area(hash: Hash, public_area: &[u8]) -> Self {
        Self::new(hash, &[public_area])
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, StructureError> {
        Self::parse(reader.sized(MAX_NAME_BYTES)?)
    }

    /// `hash`, then that hash of `parts`.
    pub(super) fn new(hash: Hash, parts: &[&[u8]]) -> Self {
        let mut name = heapless::Vec::new();
        name.extend(hash.id().to_be_bytes());
        name.extend_from_slice(hash.digest(parts).as_ref()).expect("the buffer holds the longest digest");
        Self(name)
    }
}
