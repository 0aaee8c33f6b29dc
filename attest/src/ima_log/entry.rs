//! One measured file: PCR, SHA-1 of the template's fields, name of the template, the fields.

use super::{ImaLogError, MAX_TEMPLATE_BYTES};
use crate::node::tpm2::PcrHash;

/// The register that IMA extends, unless the kernel was built for another.
const PCR: u32 = 10;
/// Longest name of a template that is known, and some.
const MAX_NAME_BYTES: usize = 32;
/// The first template, whose fields have no length before them.
const OLDEST: &str = "ima";
/// Templates whose fields are hashed as they stand.
const TEMPLATES: [&str; 4] = ["ima-ng", "ima-sig", "ima-buf", "ima-modsig"];
/// Bytes that the oldest template's name is filled up to before it is hashed (IMA_EVENT_NAME_LEN_MAX + 1).
const OLDEST_NAME_BYTES: usize = 256;
/// Bytes of the digest beside each entry: SHA-1, whatever the register's bank.
const DIGEST_BYTES: usize = 20;

/// An entry whose digest is that of its fields, or a violation, which has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes of the list that it takes.
    pub(super) length: usize,
    /// What is hashed; none for a violation: the file was open for writing, so that nobody knows what was read.
    pub(super) hashed: Option<Vec<u8>>,
    /// The fields as they stand.
    fields: Vec<u8>,
}

impl Entry {
    /// The first entry of `bytes`, which is number `place`, and what follows it; none if it is not there as a whole.
    pub(super) fn read(bytes: &[u8], place: usize) -> Result<Option<(Self, &[u8])>, ImaLogError> {
        let mut rest = bytes;
        let Some(pcr) = u32(&mut rest) else { return Ok(None) };
        if pcr != PCR as usize {
            return Err(ImaLogError::PcrIndex { entry: place, pcr: pcr as u32 });
        }
        let (Some(digest), Some(name_bytes)) = (take(&mut rest, DIGEST_BYTES), u32(&mut rest)) else { return Ok(None) };
        if name_bytes > MAX_NAME_BYTES {
            return Err(ImaLogError::EntryTooLong { entry: place, bytes: name_bytes });
        }
        let Some(name) = take(&mut rest, name_bytes) else { return Ok(None) };
        let name = String::from_utf8_lossy(name).into_owned();
        let Some((fields, hashed)) = read_fields(&mut rest, &name, place)? else { return Ok(None) };
        let is_violation = digest == [0; DIGEST_BYTES];
        if !is_violation && PcrHash::Sha1.digest(&[&hashed]).as_ref() != digest {
            return Err(ImaLogError::Digest { entry: place });
        }
        let entry = Self { length: bytes.len() - rest.len(), hashed: (!is_violation).then_some(hashed), fields };
        Ok(Some((entry, rest)))
    }

    /// What the register is extended with in that bank. A violation extends ones, so that nothing is proven by it.
    pub(super) fn digest(&self, bank: PcrHash) -> Vec<u8> {
        match &self.hashed {
            Some(hashed) => bank.digest(&[hashed]).as_ref().to_vec(),
            None => vec![0xff; bank.bytes()],
        }
    }

    /// Whether it is the entry that begins every list, with the digest of what was booted, and that digest is `aggregate`.
    pub(super) fn is_boot_aggregate(&self, aggregate: &[u8]) -> bool {
        let holds = |wanted: &[u8]| self.fields.windows(wanted.len()).any(|window| window == wanted);
        holds(b"boot_aggregate") && holds(aggregate)
    }
}

/// The fields as they stand, and what of them is hashed.
type Fields = (Vec<u8>, Vec<u8>);

/// None if they are not there as a whole.
fn read_fields(rest: &mut &[u8], name: &str, place: usize) -> Result<Option<Fields>, ImaLogError> {
    let too_long = |bytes| ImaLogError::EntryTooLong { entry: place, bytes };
    if name == OLDEST {
        let (Some(digest), Some(bytes)) = (take(rest, DIGEST_BYTES), u32(rest)) else { return Ok(None) };
        if bytes >= OLDEST_NAME_BYTES {
            return Err(too_long(bytes));
        }
        let Some(file) = take(rest, bytes) else { return Ok(None) };
        let fields = [digest, file].concat();
        let mut hashed = fields.clone();
        hashed.resize(DIGEST_BYTES + OLDEST_NAME_BYTES, 0);
        return Ok(Some((fields, hashed)));
    }
    if !TEMPLATES.contains(&name) {
        return Err(ImaLogError::Template { entry: place, name: name.escape_debug().to_string() });
    }
    let Some(bytes) = u32(rest) else { return Ok(None) };
    if bytes > MAX_TEMPLATE_BYTES {
        return Err(too_long(bytes));
    }
    Ok(take(rest, bytes).map(|fields| (fields.to_vec(), fields.to_vec())))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn u32(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}
