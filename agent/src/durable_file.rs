//! Files that survive a power cut: the old content or the new, never neither, never half.

#[cfg(test)]
pub mod slow_disk;
mod writes;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ironroot_shell::durable_file;
use nix::fcntl::OFlag;

pub use ironroot_shell::durable_file::remove;
pub use writes::Writes;

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

/// Replaces the file (mode 0600); see [`durable_file::replace`].
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable_file::replace(path, bytes, 0o600)
}

/// What helps where the disk has not taken a file.
pub fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        ReadOnlyFilesystem => "the file system is read-only: mount it writable",
        StorageFull | QuotaExceeded => "make room on the disk",
        _ => "see to the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_a_disk_is_said_of_its_own_trouble() {
        use nix::libc::{EDQUOT, EIO, ENOSPC, EROFS};
        let [full, quota, read_only, broken] =
            [ENOSPC, EDQUOT, EROFS, EIO].map(|code| remedy(&io::Error::from_raw_os_error(code)));
        assert_eq!([full, quota], ["make room on the disk"; 2]);
        assert!(read_only.contains("read-only") && broken == "see to the disk");
    }

    #[test]
    fn refuses_links_directories_and_oversized_files() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, link) = (directory.path().join("state"), directory.path().join("link"));
        assert_eq!(read(&path, 10).expect("no file is no error"), None);
        replace(&path, b"four").expect("written");
        assert_eq!(read(&path, 4).expect("read").as_deref(), Some(b"four".as_slice()));
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(read(&path, 3).is_err());
        assert!(read(&link, 10).is_err());
        assert!(read(directory.path(), 10).is_err());
    }
}
