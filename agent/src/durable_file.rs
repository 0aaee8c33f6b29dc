//! Files that survive a power cut: the old content or the new, never neither, never half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Reads a regular file of at most `max_bytes`; `None` if there is none. A symbolic link is not followed.
pub fn read(path: &Path, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > max_bytes as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file, or too large"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "file grew while it was read"));
    }
    Ok(Some(bytes))
}

/// Replaces the file (mode 0600) and returns once the new content is on the disk: temporary file, fsync, rename, fsync
/// of the directory.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    //= FLT-A1 agent faults: "no file of it is half written"
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        //= FLT-A3 agent faults: "the file stays as it was"
        // The old file is untouched; a leftover would only be confusing.
        let _ = fs::remove_file(&temporary);
    }
    //= FLT-A2 agent faults: "the old state is there or the new one, never neither"
    written?;
    sync_directory_of(path)
}

/// Removes the file, if there, and returns once that is on the disk.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    //= FLT-A1
    #[test]
    fn replaces_the_whole_content_and_keeps_others_out() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("state");
        assert_eq!(read(&path, 10).expect("no file is no error"), None);
        fs::write(path.with_extension("new"), b"left by a power cut").expect("leftover");
        replace(&path, b"one").expect("written");
        replace(&path, b"two").expect("written");
        assert_eq!(read(&path, 3).expect("read").as_deref(), Some(b"two".as_slice()));
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("listing").count(), 1);
    }

    #[test]
    fn refuses_links_directories_and_oversized_files() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, link) = (directory.path().join("state"), directory.path().join("link"));
        replace(&path, b"four").expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(read(&path, 3).is_err());
        assert!(read(&link, 10).is_err());
        assert!(read(directory.path(), 10).is_err());
    }

    //= FLT-A3
    #[test]
    fn what_cannot_be_written_leaves_the_old_content() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("state");
        replace(&path, b"old").expect("written");
        // A directory where the temporary file should go: the write cannot begin.
        fs::create_dir(path.with_extension("new")).expect("obstacle");
        assert!(replace(&path, b"new").is_err());
        assert_eq!(read(&path, 3).expect("read").as_deref(), Some(b"old".as_slice()));
        remove(&path).expect("removed");
        remove(&path).expect("removing nothing is no error");
    }
}
