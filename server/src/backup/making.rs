//! Makes a backup of a server that may be running.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use ironroot_api::TrustDomain;
use ironroot_text::hex::hex;
use ironroot_text::secret_file::{self, Readers, SecretFileError};
use zeroize::Zeroizing;

use super::container::{plain_header, sealed_header};
use super::draft::Draft;
use super::error::BackupError;
use super::manifest::{Manifest, Part, PartName};
use super::operator_key::OperatorPublicKey;
use super::sealing::{SealingError, SealingWriter};
use crate::ca::ServerName;
use crate::keys::{KeyFileError, MAX_KEY_FILE_BYTES};
use crate::store::{Location, Summary};

/// How often the database is copied again because the key file changed meanwhile: it does when a CA rotates, twice a day.
const MAX_TRIES: usize = 5;

/// What tells a copy of the database that is to be gone again.
const COPY: &str = "backup";

/// What a backup is made of.
#[derive(Clone, Debug)]
pub struct Source {
    /// Whose it is.
    pub trust_domain: TrustDomain,
    /// Which of the trust domain's servers.
    pub server_name: ServerName,
    /// The database.
    pub data_store: Location,
    /// The file of KeyManager "disk", if there is one: only a sealed backup has it.
    pub key_file: Option<PathBuf>,
}

type Secret = Zeroizing<Vec<u8>>;

/// Writes the backup to `file`, which may not be there: whole and on the disk on return, or not there under that name.
///
/// `now_unix`: when it is made. `seal_to`: the operator's key; without one whoever reads the file reads what is in it.
pub fn make(
    source: &Source,
    file: &Path,
    seal_to: Option<&OperatorPublicKey>,
    now_unix: i64,
) -> Result<Manifest, BackupError> {
    if file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let key_file = source.key_file.as_deref().filter(|_| seal_to.is_some());
    let (database, datastore, keys) = copy(source, file, key_file)?;
    let mut parts = vec![part_of_file(database.path())?];
    let keys = keys.filter(|keys| !keys.is_empty());
    parts.extend(keys.as_ref().map(|keys| part_of(keys)));
    let manifest = Manifest {
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: now_unix,
        trust_domain: source.trust_domain.as_str().to_owned(),
        server_name: source.server_name.as_str().to_owned(),
        datastore,
        parts,
    };
    let draft = Draft::unswept(file, "part");
    let written = write(&draft, seal_to, &manifest, &database, keys.as_ref());
    written.map_err(|error| error.of(file))?;
    draft.publish(file).map_err(BackupError::io("write", file))?;
    Ok(manifest)
}

/// The database as it was at a moment at which the key file was what is returned. The copy lies beside the database: where the backup
/// goes, nobody may read what is sealed in it.
fn copy(
    source: &Source,
    file: &Path,
    key_file: Option<&Path>,
) -> Result<(Draft, Summary, Option<Secret>), BackupError> {
    let mut before = key_file.map(read_keys).transpose()?;
    let beside = source.data_store.beside()?;
    Draft::sweep(beside, COPY);
    for _ in 0..MAX_TRIES {
        let database = Draft::held(beside, COPY).map_err(BackupError::io("write", beside))?;
        let summary = source.data_store.copy(database.path(), &source.trust_domain)?;
        let after = key_file.map(read_keys).transpose()?;
        if before == after {
            return Ok((database, summary, after));
        }
        before = after;
    }
    Err(BackupError::KeysKeepChanging(key_file.unwrap_or(file).to_owned()))
}

/// Empty if there is no file yet.
fn read_keys(path: &Path) -> Result<Secret, BackupError> {
    match secret_file::read(path, MAX_KEY_FILE_BYTES, Readers::Owner) {
        Err(SecretFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(Secret::default()),
        read => Ok(read.map_err(|error| KeyFileError::from(std::sync::Arc::new(error)))?),
    }
}

fn part_of_file(path: &Path) -> Result<Part, BackupError> {
    let (mut hash, mut bytes, mut piece) = (Context::new(&SHA256), 0, vec![0; 64 * 1024]);
    let mut file = File::open(path).map_err(BackupError::io("read", path))?;
    loop {
        match file.read(&mut piece).map_err(BackupError::io("read", path))? {
            0 => break,
            length => {
                hash.update(&piece[..length]);
                bytes += length as u64;
            }
        }
    }
    Ok(Part { name: PartName::Datastore, bytes, sha256: hex(&hash.finish()) })
}

fn part_of(keys: &[u8]) -> Part {
    Part { name: PartName::Keys, bytes: keys.len() as u64, sha256: hex(&digest(&SHA256, keys)) }
}

fn write(
    draft: &Draft,
    seal_to: Option<&OperatorPublicKey>,
    manifest: &Manifest,
    database: &Draft,
    keys: Option<&Secret>,
) -> Result<(), SealingError> {
    let mut out = BufWriter::new(draft.writer().map_err(SealingError::Io)?);
    let content = |out: &mut dyn Write| content(out, manifest, database.path(), keys);
    let out = match seal_to {
        None => content(&mut out).map(|()| out),
        Some(key) => {
            let header = sealed_header(&key.fingerprint());
            out.write_all(&header).map_err(SealingError::Io)?;
            let mut sealing = SealingWriter::begin(out, &header, key)?;
            content(&mut sealing).and_then(|()| sealing.finish())
        }
    };
    let synced = out.and_then(|out| out.into_inner().map_err(|e| e.into_error())).and_then(|file| file.sync_all());
    synced.map_err(SealingError::Io)
}

fn content(out: &mut dyn Write, manifest: &Manifest, database: &Path, keys: Option<&Secret>) -> io::Result<()> {
    out.write_all(&plain_header(manifest))?;
    io::copy(&mut File::open(database)?, out)?;
    keys.map_or(Ok(()), |keys| out.write_all(keys))
}

impl SealingError {
    fn of(self, file: &Path) -> BackupError {
        match self {
            Self::Io(error) => BackupError::io("write", file)(error),
            Self::Provider(error) => BackupError::Seal(error),
        }
    }
}
