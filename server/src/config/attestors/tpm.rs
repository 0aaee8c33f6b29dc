//! `NodeAttestor "tpm"`: the keys of a plugin of SPIRE's (spiffe/spire-tpm-plugin).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ironroot_attest::ek_certificate::ManufacturerRoots;
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::describe;
use ironroot_shell::settings::Section;
use thiserror::Error;
use tracing::warn;

use super::super::{ManufacturerFileError, read_manufacturer_roots};
use super::told_of_ended;
use crate::node_attestation::{Attestor, TpmPolicy};

/// Most files in a directory of makers' CAs: all makers' together are a few hundred.
const MAX_FILES: usize = 10_000;

/// Which endorsement keys count, besides those of devices in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmPluginConfig {
    /// A directory with a file for each, named by its hash.
    pub hash_path: Option<PathBuf>,
    /// A directory of PEM files: the CAs of chips' makers.
    pub ca_path: Option<PathBuf>,
}

/// Why a directory of makers' CAs cannot be used.
#[derive(Debug, Error)]
pub enum MakersDirectoryError {
    /// It cannot be read.
    #[error("cannot read {0}")]
    Directory(PathBuf, #[source] io::Error),
    /// Nobody could be believed.
    #[error("{0} holds no file of a TPM maker's CAs")]
    Empty(PathBuf),
    /// More than are read.
    #[error("{0} holds more than {MAX_FILES} files")]
    TooMany(PathBuf),
    /// One of its files cannot be used.
    #[error(transparent)]
    File(#[from] ManufacturerFileError),
}

impl TpmPluginConfig {
    pub(super) fn load(&self, now_unix: i64) -> Result<Attestor, MakersDirectoryError> {
        let told = |path: &Path, ended: &[String]| drop(told_of_ended(path, ended).inspect(|told| warn!("{told}")));
        let makers = self.ca_path.as_deref().map(|path| read_makers(path, now_unix, told)).transpose()?;
        Ok(Attestor::Tpm(Box::new(TpmPolicy { hashes: self.hash_path.clone(), makers })))
    }
}

/// Every file in it; `ended` is told of those that have authorities that have ended by `now_unix` (UNIX seconds).
fn read_makers(
    directory: &Path,
    now_unix: i64,
    ended: impl Fn(&Path, &[String]),
) -> Result<ManufacturerRoots, MakersDirectoryError> {
    let unreadable = |error| MakersDirectoryError::Directory(directory.to_owned(), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !path.is_dir() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(MakersDirectoryError::TooMany(directory.to_owned()));
        }
    }
    if files.is_empty() {
        return Err(MakersDirectoryError::Empty(directory.to_owned()));
    }
    files.sort();
    let mut all = ManufacturerRoots::default();
    for path in files {
        let roots = read_manufacturer_roots(&path)?;
        ended(&path, &roots.ended(now_unix));
        all = all.and(roots);
    }
    Ok(all)
}

/// What `NodeAttestor "tpm"` is told.
pub(super) fn read(data: &Section<'_>) -> Option<TpmPluginConfig> {
    let config = TpmPluginConfig { hash_path: data.path("hash_path"), ca_path: data.path("ca_path") };
    if let Some(path) = &config.hash_path {
        data.look("hash_path", || match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => Ok(()),
            Ok(_) => Err(format!("{} is not a directory", path.display())),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        });
    }
    if let Some(path) = &config.ca_path {
        data.look("ca_path", || {
            let ended = |path: &Path, ended: &[String]| {
                drop(told_of_ended(path, ended).inspect(|told| data.warn("ca_path", told.as_str())));
            };
            read_makers(path, wall_unix(), ended).map(drop).map_err(|error| describe(&error))
        });
    }
    data.finish();
    Some(config)
}
