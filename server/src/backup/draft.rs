//! A file that is gone again unless it was finished.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ironroot_shell::durable_file::sync_directory_of;
use uuid::Uuid;

/// Backups and their parts hold join tokens, some hold keys: nobody but their owner reads them.
const MODE: u32 = 0o600;

/// A file under a name that is not its last one; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    /// Its lock says that it is still worked on, to whoever sees the file, in whichever container.
    held: Option<File>,
}

impl Draft {
    /// Of `path`, told apart by `what` and by a number that nobody else has. Not for what is swept: the place may be a share without locks.
    pub fn unswept(path: &Path, what: &str) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{what}", Uuid::new_v4().simple()));
        Self { path: path.with_file_name(name), held: None }
    }

    /// The same, as an empty file that no [`sweep`](Self::sweep) removes as long as this is there.
    pub fn held(path: &Path, what: &str) -> io::Result<Self> {
        loop {
            let mut draft = Self::unswept(path, what);
            let file = draft.create()?;
            file.lock()?;
            // A sweep may have come before the lock.
            if file.metadata()?.nlink() > 0 {
                draft.held = Some(file);
                return Ok(draft);
            }
        }
    }

    /// Removes those of `path` and `what` that nobody works on any more.
    pub fn sweep(path: &Path, what: &str) {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return;
        };
        let number_of = |file: &str| -> Option<u128> {
            let number = file.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(what)?.strip_suffix('.')?;
            u128::from_str_radix(number, 16).ok()
        };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().and_then(number_of).is_some() {
                // What cannot be removed is tried again with the next backup.
                let _ = remove_unless_held(&entry.path());
            }
        }
    }

    /// At that path, over whatever an earlier process that was cut off has left there.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let draft = Self { path, held: None };
        match fs::remove_file(&draft.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(draft),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, empty, to write into it.
    pub fn writer(&self) -> io::Result<File> {
        match &self.held {
            Some(file) => file.try_clone(),
            None => self.create(),
        }
    }

    fn create(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(&self.path)
    }

    /// Gives the file, which is written and on the disk, its last name.
    pub fn publish(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        sync_directory_of(path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has its last name there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_unless_held(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)?;
    match file.try_lock() {
        Ok(()) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_that_nobody_works_on_go_and_nothing_else() {
        let place = tempfile::tempdir().expect("directory");
        let path = place.path().join("db");
        // As another container has it, in which no process of this one can be seen.
        let held = Draft::held(&path, "backup").expect("made");
        let all = ["db.4194305.backup", "db", "db.x.backup", "other.4194305.backup", "db.4194305.part"];
        all.iter().for_each(|name| fs::write(place.path().join(name), "").expect("written"));
        Draft::sweep(&path, "backup");
        let left: Vec<_> = all.into_iter().filter(|name| place.path().join(name).exists()).collect();
        assert_eq!(left, all[1..]);
        assert!(held.path().exists(), "somebody works on it");
        let (path_of_it, number) = (held.path().to_owned(), held.path().metadata().expect("there").ino());
        fs::write(&path_of_it, "copied").expect("written");
        Draft::sweep(&path, "backup");
        assert_eq!(path_of_it.metadata().expect("there").ino(), number);
        drop(held);
        assert!(!path_of_it.exists());
    }
}
