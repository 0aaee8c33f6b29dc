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

    /// Removes those of `path` and `what` that processes have left which are no more.
    pub fn sweep(path: &Path, what: &str) {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return;
        };
        let pid_of = |file: &str| -> Option<u32> {
            file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(what)?.strip_suffix('.')?.parse().ok()
        };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(pid_of);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // What cannot be removed is tried again with the next backup.
                let _ = fs::remove_file(entry.path());
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_of_processes_that_are_no_more_go_and_nothing_else() {
        let place = tempfile::tempdir().expect("directory");
        let path = place.path().join("db");
        // No process has so high a number: see PID_MAX_LIMIT in the kernel.
        let (gone, own) = ("db.4194305.backup".to_owned(), format!("db.{}.backup", std::process::id()));
        let all = [gone.as_str(), own.as_str(), "db", "db.x.backup", "other.4194305.backup", "db.4194305.part"];
        all.iter().for_each(|name| fs::write(place.path().join(name), "").expect("written"));
        Draft::sweep(&path, "backup");
        let left: Vec<_> = all.into_iter().filter(|name| place.path().join(name).exists()).collect();
        assert_eq!(left, all[1..]);
    }
}
