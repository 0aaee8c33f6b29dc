//! The cache file's outer form: sections, each AES-256-GCM under its own sealed key.
//!
//! ```text
//!  "IRCACHE\0"  u16 version  u64 generation  [32] SHA-256 of the EK's public area  u8 sections
//!  version 3 and 4: u32 NV index of the counter that makes older files worthless (1 and 2 said nothing of it)
//!  version 2 and 4, which also open in states that the operator has signed:
//!               [32] policy of the state it was sealed in  u32 first epoch  [34] Name of the operator's key
//!  per section: u8 kind  u32 PCR mask  u16+bytes sealed key (JSON)  [12] nonce  u32+bytes ciphertext
//! ```
//! Big-endian. Everything in front of a nonce is associated data of what follows it: version, generation, EK and the
//! sealed key cannot be exchanged. Pure: keys come in as arguments.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::pcr_policy::{BRANCHES_BYTES, Branches};
use ironroot_attest::tpm::KeyBlob;
use zeroize::Zeroizing;

use super::CacheRefusal;

/// Largest cache file, bytes: some 10,000 identities.
pub const MAX_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Largest sealed key, bytes of JSON.
const MAX_BLOB_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"IRCACHE\0";
/// Written by versions that did not bind a file to its counter's index; read until it is written again.
const UNBOUND: [u16; 2] = [1, 2];
const VERSION: u16 = 3;
const VERSION_WITH_BRANCHES: u16 = 4;
const TAG_BYTES: usize = 16;

/// A 32-byte key and the sealed form from which this TPM gives it back.
#[derive(Clone)]
pub struct SealedKey {
    /// The sealed form: safe at rest.
    pub blob: KeyBlob,
    /// The PCRs it is sealed to; none for a key that survives updates.
    pub pcrs: PcrSelection,
    /// What else opens it, if it is sealed to more than these PCRs.
    pub branches: Option<Branches>,
    /// In the clear, 32 bytes; wiped when dropped.
    pub key: Zeroizing<Vec<u8>>,
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// What the agent knows of itself.
    Record = 1,
    /// What workloads may have: sealed to the configured PCRs as well.
    Identities = 2,
}

/// A parsed file, still encrypted.
#[derive(Debug)]
pub struct Envelope {
    /// Compared with the TPM's counter.
    pub generation: u64,
    /// SHA-256 of the EK's TPMT_PUBLIC on the device that wrote the file.
    pub ek_sha256: [u8; 32],
    /// The NV index of that counter; another one, whoever made it and in whose name, says nothing of this file.
    pub counter_index: Option<u32>,
    /// What the key of the identities is sealed to, if states that the operator has signed open it too.
    pub branches: Option<Branches>,
    sections: Vec<Section>,
}

/// One encrypted section.
#[derive(Debug)]
pub struct Section {
    kind: u8,
    /// The key of the section, sealed by the chip to its policy.
    pub blob: KeyBlob,
    /// The PCRs it is sealed to.
    pub pcrs: PcrSelection,
    associated: Vec<u8>,
    nonce: [u8; NONCE_LEN],
    ciphertext: Vec<u8>,
}

/// Encrypts sections into a file's bytes. `None` if the crypto library fails or the file would be too large to read back.
pub fn encode(
    (generation, counter_index): (u64, u32),
    ek_sha256: &[u8; 32],
    sections: &[(SectionKind, &SealedKey, &[u8])],
) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    file.extend_from_slice(MAGIC);
    let branches = sections.iter().find_map(|(_, key, _)| key.branches.as_ref());
    let version = if branches.is_some() { VERSION_WITH_BRANCHES } else { VERSION };
    file.extend_from_slice(&version.to_be_bytes());
    file.extend_from_slice(&generation.to_be_bytes());
    file.extend_from_slice(ek_sha256);
    file.push(u8::try_from(sections.len()).ok()?);
    file.extend_from_slice(&counter_index.to_be_bytes());
    if let Some(branches) = branches {
        file.extend_from_slice(&branches.to_bytes()?);
    }
    let header = file.clone();
    for (kind, key, plaintext) in sections {
        file.extend(sealed_section(&header, *kind, key, plaintext)?);
    }
    (file.len() <= MAX_CACHE_BYTES).then_some(file)
}

/// One section below such a header.
fn sealed_section(header: &[u8], kind: SectionKind, key: &SealedKey, plaintext: &[u8]) -> Option<Vec<u8>> {
    let mut section = section_header(kind, key)?;
    let associated = [header, &section].concat();
    let mut sealed = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG_BYTES));
    sealed.extend_from_slice(plaintext);
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key.key).ok()?;
    let nonce = cipher.seal_in_place_append_tag(Aad::from(&associated), &mut *sealed).ok()?;
    section.extend_from_slice(nonce.as_ref());
    section.extend_from_slice(&u32::try_from(sealed.len()).ok()?.to_be_bytes());
    section.extend_from_slice(&sealed);
    Some(section)
}

fn section_header(kind: SectionKind, key: &SealedKey) -> Option<Vec<u8>> {
    let mut header = vec![kind as u8];
    header.extend_from_slice(&key.pcrs.mask().to_be_bytes());
    let blob = serde_json::to_vec(&key.blob).ok()?;
    header.extend_from_slice(&u16::try_from(blob.len()).ok()?.to_be_bytes());
    header.extend_from_slice(&blob);
    Some(header)
}

impl Envelope {
    /// Parses a file. Nothing is decrypted and nothing is believed yet.
    pub fn parse(file: &[u8]) -> Result<Self, CacheRefusal> {
        if file.len() > MAX_CACHE_BYTES {
            return Err(CacheRefusal::TooLarge);
        }
        let mut reader = Reader { rest: file };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(CacheRefusal::Format);
        }
        let version = reader.u16()?;
        let is_bound = !UNBOUND.contains(&version);
        if is_bound && version != VERSION && version != VERSION_WITH_BRANCHES {
            return Err(CacheRefusal::Version);
        }
        let generation = u64::from_be_bytes(reader.array()?);
        let ek_sha256 = reader.array()?;
        let count = reader.array::<1>()?[0];
        let counter_index = is_bound.then(|| reader.array().map(u32::from_be_bytes)).transpose()?;
        let has_branches = version == VERSION_WITH_BRANCHES || version == UNBOUND[1];
        let branches = has_branches.then(|| reader.branches()).transpose()?;
        let header = &file[..file.len() - reader.rest.len()];
        let sections = (0..count).map(|_| Section::read(header, &mut reader)).collect::<Result<_, _>>()?;
        if reader.rest.is_empty() {
            Ok(Self { generation, ek_sha256, counter_index, branches, sections })
        } else {
            Err(CacheRefusal::Format)
        }
    }

    /// The first section of this kind; [`CacheRefusal::Format`] if there is none.
    pub fn section(&self, kind: SectionKind) -> Result<&Section, CacheRefusal> {
        self.sections.iter().find(|s| s.kind == kind as u8).ok_or(CacheRefusal::Format)
    }
}

impl Section {
    fn read(header: &[u8], reader: &mut Reader<'_>) -> Result<Self, CacheRefusal> {
        let start = reader.rest;
        let kind = reader.array::<1>()?[0];
        let mask = u32::from_be_bytes(reader.array()?);
        let pcrs = PcrSelection::from_mask(mask).map_err(|_| CacheRefusal::Format)?;
        let blob = reader.blob()?;
        let associated = [header, &start[..start.len() - reader.rest.len()]].concat();
        let nonce = reader.array()?;
        let length = u32::from_be_bytes(reader.array()?);
        let ciphertext = reader.take(length as usize)?.to_vec();
        Ok(Self { kind, blob, pcrs, associated, nonce, ciphertext })
    }

    /// Decrypts. Fails when any bit of the section, the header or the key differs from what was written.
    pub fn open(&self, key: &[u8]) -> Result<Zeroizing<Vec<u8>>, CacheRefusal> {
        let altered = |_| CacheRefusal::Altered;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(altered)?;
        let mut buffer = Zeroizing::new(self.ciphertext.clone());
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let length = cipher.open_in_place(nonce, Aad::from(&self.associated), &mut buffer).map_err(altered)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CacheRefusal> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CacheRefusal::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CacheRefusal> {
        Ok(self.take(N)?.try_into().expect("take gives exactly N bytes"))
    }

    fn u16(&mut self) -> Result<u16, CacheRefusal> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn branches(&mut self) -> Result<Branches, CacheRefusal> {
        Branches::from_bytes(&self.array::<BRANCHES_BYTES>()?).ok_or(CacheRefusal::Format)
    }

    fn blob(&mut self) -> Result<KeyBlob, CacheRefusal> {
        let length = usize::from(self.u16()?);
        if length > MAX_BLOB_BYTES {
            return Err(CacheRefusal::Format);
        }
        serde_json::from_slice(self.take(length)?).map_err(|_| CacheRefusal::Format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: u32 = 0x0180_0100;

    fn key(byte: u8) -> SealedKey {
        let blob = KeyBlob { public: vec![byte; 40], private: vec![byte; 60], parent: vec![byte; 34] };
        let pcrs = PcrSelection::from_mask(0x81).expect("legal");
        SealedKey { blob, pcrs, branches: None, key: Zeroizing::new(vec![byte; 32]) }
    }

    fn file() -> Vec<u8> {
        file_with(None)
    }

    fn file_with(branches: Option<Branches>) -> Vec<u8> {
        let identities = SealedKey { branches, ..key(2) };
        let sections =
            [(SectionKind::Record, &key(1), b"record".as_slice()), (SectionKind::Identities, &identities, b"ids")];
        encode((7, INDEX), &[9; 32], &sections).expect("encoded")
    }

    /// As versions before wrote it: nothing between the number of sections and what comes after the index.
    fn unbound(branches: Option<Branches>) -> Vec<u8> {
        let sections = [(SectionKind::Record, &key(1), b"record".as_slice())];
        let identities = SealedKey { branches: branches.clone(), ..key(2) };
        let sections = [sections[0], (SectionKind::Identities, &identities, b"ids")];
        let (version, header) = (if branches.is_some() { 2_u16 } else { 1 }, MAGIC.len() + 2 + 8 + 32 + 1);
        let mut file = encode((7, INDEX), &[9; 32], &sections).expect("encoded")[..header].to_vec();
        file[MAGIC.len()..][..2].copy_from_slice(&version.to_be_bytes());
        file.extend(branches.iter().flat_map(|branches| branches.to_bytes().expect("70 bytes")));
        let above = file.clone();
        for (kind, key, plaintext) in sections {
            file.extend(sealed_section(&above, kind, key, plaintext).expect("sealed"));
        }
        file
    }

    fn branches() -> Branches {
        let stored = [&[0x5a; 32][..], &3_u32.to_be_bytes(), &[0, 0x0b], &[6; 32]].concat();
        Branches::from_bytes(&stored.try_into().expect("70 bytes")).expect("an epoch and a name")
    }

    type Plaintext = Zeroizing<Vec<u8>>;

    fn open(file: &[u8]) -> Result<(Plaintext, Plaintext), CacheRefusal> {
        let envelope = Envelope::parse(file)?;
        let record = envelope.section(SectionKind::Record)?.open(&[1; 32])?;
        Ok((record, envelope.section(SectionKind::Identities)?.open(&[2; 32])?))
    }

    #[test]
    fn reads_what_it_writes() {
        let envelope = Envelope::parse(&file()).expect("parsed");
        assert_eq!((envelope.generation, envelope.ek_sha256, envelope.counter_index), (7, [9; 32], Some(INDEX)));
        assert_eq!(envelope.section(SectionKind::Record).expect("there").pcrs.mask(), 0x81);
        assert_eq!(envelope.section(SectionKind::Record).expect("there").blob.private, vec![1; 60]);
        let (record, identities) = open(&file()).expect("opened");
        assert_eq!((record.as_slice(), identities.as_slice()), (b"record".as_slice(), b"ids".as_slice()));
    }

    #[test]
    fn envelopes_survive_damage_and_what_opens_is_what_was_sealed() {
        ironroot_fuzz::Target::new("sealed cache envelope").seed(file()).seed(file_with(Some(branches()))).survives(
            |bytes| {
                if let Ok((record, identities)) = open(bytes) {
                    assert_eq!((record.as_slice(), identities.as_slice()), (b"record".as_slice(), b"ids".as_slice()));
                }
            },
        );
    }

    #[test]
    fn what_signed_states_open_is_kept_in_a_version_of_its_own() {
        assert_eq!(file()[8..10], [0, 3]);
        assert_eq!(Envelope::parse(&file()).expect("parsed").branches, None);
        let file = file_with(Some(branches()));
        assert_eq!(file[8..10], [0, 4]);
        assert_eq!(Envelope::parse(&file).expect("parsed").branches, Some(branches()));
        open(&file).expect("opened");
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_and_is_bound_to_no_index() {
        for branches in [None, Some(branches())] {
            let file = unbound(branches.clone());
            let envelope = Envelope::parse(&file).expect("parsed");
            assert_eq!((envelope.counter_index, envelope.branches), (None, branches));
            open(&file).expect("opened");
        }
        // Nobody makes one of the present version such a one.
        let mut file = file();
        file[9] = 1;
        file.drain(51..55);
        assert!(matches!(open(&file), Err(CacheRefusal::Altered)));
    }

    #[test]
    fn refuses_every_truncation() {
        for file in [file(), file_with(Some(branches()))] {
            for end in 0..file.len() {
                assert!(matches!(Envelope::parse(&file[..end]), Err(CacheRefusal::Truncated)), "{end}");
            }
            assert!(matches!(Envelope::parse(&[file.as_slice(), b"x"].concat()), Err(CacheRefusal::Format)));
        }
    }

    #[test]
    fn refuses_every_bit_flip() {
        for file in [file(), file_with(Some(branches()))] {
            for bit in 0..file.len() * 8 {
                let mut flipped = file.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&flipped).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn refuses_a_section_of_another_generation() {
        let sections =
            [(SectionKind::Record, &key(1), b"record".as_slice()), (SectionKind::Identities, &key(2), b"ids")];
        let mut newer = encode((8, INDEX), &[9; 32], &sections).expect("encoded");
        let header = MAGIC.len() + 2 + 8 + 32 + 1 + 4;
        newer.truncate(header);
        newer.extend_from_slice(&file()[header..]);
        assert!(matches!(open(&newer), Err(CacheRefusal::Altered)));
    }

    #[test]
    fn refuses_other_files_versions_and_sizes() {
        assert!(matches!(Envelope::parse(b"something else entirely"), Err(CacheRefusal::Format)));
        let mut version = file();
        version[9] = 5;
        assert!(matches!(Envelope::parse(&version), Err(CacheRefusal::Version)));
        assert!(matches!(Envelope::parse(&vec![0; MAX_CACHE_BYTES + 1]), Err(CacheRefusal::TooLarge)));
        let large = vec![0; MAX_CACHE_BYTES];
        assert!(encode((1, INDEX), &[0; 32], &[(SectionKind::Record, &key(1), &large)]).is_none());
    }

    #[test]
    fn same_content_never_gives_the_same_bytes() {
        assert_ne!(file(), file());
    }
}
