//! The device's side: the entries that the server has not seen, as many as travel at once.

use std::io::{self, ErrorKind, Read};

use super::{MAX_DATA_BYTES, MAX_PART_BYTES, MAX_TEMPLATE_NAME_BYTES};

/// Register, digest, and the length of the template's name.
const HEAD_BYTES: usize = 4 + 20 + 4;

/// The entries of `list` behind the first `known`, whole ones, at most [`MAX_PART_BYTES`] of them. Empty if there are none.
///
/// An entry that is cut off by the list's end is left out: the kernel shows whole ones, and what it adds later is shown later.
pub fn read_part(mut list: impl Read, known: u64) -> io::Result<Vec<u8>> {
    let mut entry = Vec::new();
    for _ in 0..known {
        if !read_entry(&mut list, &mut entry)? {
            return Ok(Vec::new());
        }
    }
    let mut part = Vec::new();
    while read_entry(&mut list, &mut entry)? && part.len() + entry.len() <= MAX_PART_BYTES {
        part.append(&mut entry);
    }
    Ok(part)
}

/// Puts the next entry into `entry`; false if there is no whole one.
fn read_entry(list: &mut impl Read, entry: &mut Vec<u8>) -> io::Result<bool> {
    entry.clear();
    let read = read_more(list, entry, HEAD_BYTES)
        .and_then(|()| read_counted(list, entry, MAX_TEMPLATE_NAME_BYTES, 0))
        .and_then(|()| read_counted(list, entry, MAX_DATA_BYTES, 4));
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Appends as many bytes as the last four say, or the next four if there are `behind` of them to come.
fn read_counted(list: &mut impl Read, entry: &mut Vec<u8>, limit: usize, behind: usize) -> io::Result<()> {
    read_more(list, entry, behind)?;
    let length = entry.last_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    if length > limit {
        let said =
            format!("an entry has a field of {length} bytes, at most {limit} are known: it is no list of the kernel's");
        return Err(io::Error::new(ErrorKind::InvalidData, said));
    }
    read_more(list, entry, length)
}

fn read_more(list: &mut impl Read, entry: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    let end = entry.len();
    entry.resize(end + bytes, 0);
    list.read_exact(&mut entry[end..])
}
