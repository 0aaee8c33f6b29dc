//! The files of `tpm provision`, none of which is ever overwritten.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ironroot_attest::tpm::DevIdKey;
use ironroot_shell::command_line::CommandError;

pub(super) const PUBLIC: &str = "devid.pub";
pub(super) const PRIVATE: &str = "devid.priv";
pub(super) const PKCS10: &str = "devid.csr";
pub(super) const TCG: &str = "devid.tcg-csr";
/// The CA's answer: not ours to write or to remove.
pub(super) const CERTIFICATE: &str = "devid.pem";

/// What we write, in that order.
const WRITTEN: [&str; 4] = [PUBLIC, PRIVATE, PKCS10, TCG];
/// Requests and the public half are nobody's secret.
const FILE_MODE: u32 = 0o644;
/// The wrapped key is of use in this chip alone, and there to whoever may use the chip: it is its owner's, who is to be the agent's user.
const KEY_MODE: u32 = 0o600;

/// A directory with the files of one DevID.
pub(super) struct DevIdDirectory {
    path: PathBuf,
    /// Whether it was made for them.
    is_new: bool,
}

impl DevIdDirectory {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), is_new: false }
    }

    /// One that has none of the files yet, the certificate included.
    pub(super) fn for_new_files(path: &Path) -> Result<Self, CommandError> {
        let directory = Self { is_new: !path.exists(), ..Self::of(path) };
        let there = WRITTEN.into_iter().chain([CERTIFICATE]).map(|name| directory.path(name));
        if let Some(there) = there.into_iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(CommandError::Malformed(format!(
                "{} is there already and is not overwritten: name another directory, or move the device's earlier DevID away \
                 (-undo removes its key for good)",
                there.display()
            )));
        }
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|source| failed("make", path, source))?;
        Ok(directory)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// All of them, or none.
    pub(super) fn write(&self, key: &DevIdKey, csr: &str, tcg: &[u8]) -> Result<(), CommandError> {
        let contents = [key.public(), key.private(), csr.as_bytes(), tcg];
        for (at, (name, content)) in WRITTEN.into_iter().zip(contents).enumerate() {
            let path = self.path(name);
            let mode = if name == PRIVATE { KEY_MODE } else { FILE_MODE };
            if let Err(source) = write_new(&path, content, mode) {
                // What is already there is of no use alone; the first error is the one that counts.
                for earlier in &WRITTEN[..at] {
                    let _ = fs::remove_file(self.path(earlier));
                }
                return Err(failed("write", &path, source));
            }
        }
        fs::File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|e| failed("write", &self.path, e))
    }

    /// Nothing came of it: a directory that was made for the files does not stay without them.
    pub(super) fn give_up(&self) {
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Removes what we write, and the directory if nothing else is in it. What was removed.
    pub(super) fn remove(&self) -> Result<Vec<PathBuf>, CommandError> {
        let mut removed = Vec::new();
        for path in WRITTEN.map(|name| self.path(name)) {
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("remove", &path, source)),
            }
        }
        // It stays where somebody else has put something into it.
        let _ = fs::remove_dir(&self.path);
        Ok(removed)
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> CommandError {
    CommandError::File { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_made_in_vain_goes_away_and_one_that_was_there_stays() {
        let place = tempfile::tempdir().expect("directory");
        let (made, there) = (place.path().join("made"), place.path().join("there"));
        fs::create_dir(&there).expect("made");
        for path in [&made, &there] {
            DevIdDirectory::for_new_files(path).expect("usable").give_up();
        }
        assert!(!made.exists() && there.exists());
    }
}
