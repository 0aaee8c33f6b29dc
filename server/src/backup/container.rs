//! The file's form: a header, the manifest, the parts.
//!
//! ```text
//!  plain:   "IRONROOT-BACKUP\n"  format u32  manifest's length u32  its SHA-256 [32]  manifest (JSON)  part  part
//!  sealed:  "IRONROOT-SEALED\n"  format u32  SHA-256 of the public key [32]  encapsulated secret [32]  chunks of the plain form
//! ```
//! Numbers are big-endian.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256, digest};
use ironroot_text::hex::hex;

use super::error::BackupError;
use super::manifest::{Manifest, Part, PartName};
use super::operator_key::OperatorKey;
use super::sealing::OpeningReader;

/// The format written, and the newest one read.
pub const FORMAT: u32 = 1;
/// Longest manifest accepted, bytes: one has less than 1 kB.
pub const MAX_MANIFEST_BYTES: u32 = 64 * 1024;
const PLAIN: &[u8; 16] = b"IRONROOT-BACKUP\n";
const SEALED: &[u8; 16] = b"IRONROOT-SEALED\n";
const FORMAT_BYTES: usize = 4;
/// Parts are copied in pieces of so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What stands before a sealed file's encapsulated secret.
pub(super) fn sealed_header(fingerprint: &[u8; 32]) -> Vec<u8> {
    [&SEALED[..], &FORMAT.to_be_bytes(), fingerprint].concat()
}

/// What stands before the parts.
pub(super) fn plain_header(manifest: &Manifest) -> Vec<u8> {
    let manifest = serde_json::to_vec(manifest).expect("numbers, strings and lists are JSON");
    let length = u32::try_from(manifest.len()).expect("a manifest has a few lines");
    let hash = digest(&SHA256, &manifest);
    [&PLAIN[..], &FORMAT.to_be_bytes(), &length.to_be_bytes(), hash.as_ref(), &manifest].concat()
}

/// A backup whose manifest has been read and believed; the parts come next.
pub(super) struct Reading<'p> {
    path: &'p Path,
    from: Box<dyn Read + Send>,
    pub manifest: Manifest,
    /// Whether it was sealed.
    pub is_sealed: bool,
}

impl<'p> Reading<'p> {
    /// Opens the file as far as its manifest. `key`: for one that is sealed.
    pub fn open(path: &'p Path, key: Option<&OperatorKey>) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io("open", path))?;
        let facts = file.metadata().map_err(BackupError::io("open", path))?;
        if !facts.is_file() {
            return Err(BackupError::NotABackup(path.to_owned()));
        }
        let mut from = BufReader::new(file);
        let (magic, header) = read_magic(path, &mut from)?;
        let (from, is_sealed): (Box<dyn Read + Send>, bool) = match magic {
            Magic::Plain => (Box::new(from), false),
            Magic::Sealed => (Box::new(unseal(path, from, header, key)?), true),
        };
        let mut reading = Unread { path, from, is_sealed };
        let manifest = reading.manifest(is_sealed, facts.len())?;
        let Unread { path, from, is_sealed } = reading;
        Ok(Self { path, from, manifest, is_sealed })
    }

    /// Gives each part's pieces to `take`, in order; afterwards its hash is compared. Nothing may follow the last one.
    pub fn parts(
        mut self,
        mut take: impl FnMut(&Part, &[u8]) -> Result<(), BackupError>,
    ) -> Result<Manifest, BackupError> {
        for part in &self.manifest.parts {
            copy_part(self.path, &mut self.from, part, &mut take)?;
        }
        match self.from.read(&mut [0]).map_err(|e| unreadable(self.path, e))? {
            0 => Ok(self.manifest),
            _ => Err(BackupError::damaged(self.path, "something follows its end")),
        }
    }
}

fn copy_part(
    path: &Path,
    from: &mut dyn Read,
    part: &Part,
    take: &mut impl FnMut(&Part, &[u8]) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let (mut hash, mut left, mut piece) = (Context::new(&SHA256), part.bytes, vec![0; PIECE_BYTES]);
    while left > 0 {
        let length = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        from.read_exact(&mut piece[..length]).map_err(|e| unreadable(path, e))?;
        hash.update(&piece[..length]);
        take(part, &piece[..length])?;
        left -= length as u64;
    }
    match hex(&hash.finish()) == part.sha256 {
        true => Ok(()),
        false => Err(BackupError::damaged(path, "a part has not the hash that its manifest says")),
    }
}

enum Magic {
    Plain,
    Sealed,
}

/// What kind of file it is, and the bytes that said so.
fn read_magic(path: &Path, from: &mut impl Read) -> Result<(Magic, Vec<u8>), BackupError> {
    let mut header = vec![0; PLAIN.len() + FORMAT_BYTES];
    let too_short = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => BackupError::NotABackup(path.to_owned()),
        _ => unreadable(path, error),
    };
    from.read_exact(&mut header[..PLAIN.len()]).map_err(too_short)?;
    let magic = match &header[..PLAIN.len()] {
        magic if magic == PLAIN => Magic::Plain,
        magic if magic == SEALED => Magic::Sealed,
        _ => return Err(BackupError::NotABackup(path.to_owned())),
    };
    from.read_exact(&mut header[PLAIN.len()..]).map_err(|e| unreadable(path, e))?;
    check_format(path, &header[PLAIN.len()..])?;
    Ok((magic, header))
}

fn check_format(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    match number(bytes) {
        FORMAT => Ok(()),
        0 => Err(BackupError::damaged(path, "it has no format")),
        found => Err(BackupError::NewerFormat { path: path.to_owned(), found }),
    }
}

fn unseal(
    path: &Path,
    mut from: BufReader<File>,
    mut header: Vec<u8>,
    key: Option<&OperatorKey>,
) -> Result<OpeningReader<BufReader<File>>, BackupError> {
    let mut fingerprint = [0; 32];
    from.read_exact(&mut fingerprint).map_err(|e| unreadable(path, e))?;
    header.extend(fingerprint);
    let (path_name, sealed_to) = (path.to_owned(), hex(&fingerprint));
    let Some(key) = key else { return Err(BackupError::Sealed { path: path_name, fingerprint: sealed_to }) };
    let given = key.public().fingerprint();
    if given != fingerprint {
        return Err(BackupError::OtherKey { path: path_name, sealed_to, given: hex(&given) });
    }
    OpeningReader::begin(from, &header, key).map_err(|e| unreadable(path, e))
}

/// A backup that nothing is known of yet.
struct Unread<'p> {
    path: &'p Path,
    from: Box<dyn Read + Send>,
    is_sealed: bool,
}

impl Unread<'_> {
    /// `file_bytes`: how long the whole file is; no parts are longer than that together.
    fn manifest(&mut self, is_sealed: bool, file_bytes: u64) -> Result<Manifest, BackupError> {
        if is_sealed {
            let (magic, _) = read_magic(self.path, &mut self.from)?;
            if matches!(magic, Magic::Sealed) {
                return Err(BackupError::damaged(self.path, "it is sealed twice"));
            }
        }
        let mut fixed = [0; FORMAT_BYTES + 32];
        self.read(&mut fixed)?;
        let (length, hash) = fixed.split_at(FORMAT_BYTES);
        let length = number(length);
        if length > MAX_MANIFEST_BYTES {
            return Err(BackupError::damaged(self.path, "its manifest is too long"));
        }
        let mut manifest = vec![0; length as usize];
        self.read(&mut manifest)?;
        if digest(&SHA256, &manifest).as_ref() != hash {
            return Err(BackupError::damaged(self.path, "its manifest has not the hash that its header says"));
        }
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|_| BackupError::damaged(self.path, "its manifest does not parse"))?;
        check_parts(self.path, &manifest, file_bytes)?;
        Ok(manifest)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), BackupError> {
        self.from.read_exact(into).map_err(|e| unreadable(self.path, e))
    }
}

fn check_parts(path: &Path, manifest: &Manifest, file_bytes: u64) -> Result<(), BackupError> {
    let names: Vec<PartName> = manifest.parts.iter().map(|part| part.name).collect();
    if !matches!(names.as_slice(), [PartName::Datastore] | [PartName::Datastore, PartName::Keys]) {
        return Err(BackupError::damaged(path, "it has not the parts that a backup has"));
    }
    let total = manifest.parts.iter().try_fold(0_u64, |total, part| total.checked_add(part.bytes));
    match total.is_some_and(|total| total < file_bytes) {
        true => Ok(()),
        false => Err(BackupError::Truncated(path.to_owned())),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> BackupError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => BackupError::Truncated(path.to_owned()),
        std::io::ErrorKind::InvalidData => BackupError::DoesNotOpen(path.to_owned()),
        _ => BackupError::io("read", path)(error),
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map(u32::from_be_bytes).unwrap_or_default()
}
