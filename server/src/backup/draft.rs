//! A file that is gone again unless it was finished.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Backups and their parts hold join tokens, some hold keys: nobody but their owner reads them.
const MODE: u32 = 0o600;

/// A file under a name that is not its last one; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Draft {
    /// Of `path`, told apart by `what` and by this process.
    pub fn beside(path: &Path, what: &str) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{what}", std::process::id()));
        Self(path.with_file_name(name))
    }

    /// At that path, over whatever an earlier process that was cut off has left there.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let draft = Self(path);
        match fs::remove_file(&draft.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(draft),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the file.
    pub fn create(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(&self.0)
    }

    /// Gives the file, which is written and on the disk, its last name.
    pub fn publish(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has its last name there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}
