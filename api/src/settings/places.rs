//! What a configuration names besides values: files, directories, devices. Looked at only when asked: a file may be written on
//! another machine than the one it is for.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::directory::{DirectoryError, could_be_prepared};
use crate::unix_socket::MAX_PATH_BYTES;

/// Whether this process could make and use `directory`.
pub fn usable_directory(directory: &Path) -> Result<(), String> {
    let told = |error: DirectoryError| match &error {
        DirectoryError::Io { source, .. } => format!("{error}: {source}"),
        DirectoryError::Unsafe { .. } => error.to_string(),
    };
    could_be_prepared(directory).map_err(told)?;
    let there = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let refused = |errno: Errno| format!("this user cannot write to {}: {}", there.display(), errno.desc());
    access(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(refused)
}

/// Whether a socket could be bound at `path`: short enough for a socket address, in a usable directory.
pub fn usable_socket(path: &Path) -> Result<(), String> {
    path.parent().map_or(Ok(()), usable_directory)
}

/// Refuses a socket path that does not fit into a socket address. Source: unix(7), sun_path.
pub fn fits_a_socket_address(path: &Path) -> Result<(), String> {
    let length = path.as_os_str().len();
    match length > MAX_PATH_BYTES {
        true => Err(format!("the path has {length} bytes; a socket's path has at most {MAX_PATH_BYTES}")),
        false => Ok(()),
    }
}

/// Whether `path` is a file that this process can read.
pub fn readable_file(path: &Path) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let facts = fs::metadata(path).map_err(cannot)?;
    if facts.is_dir() {
        return Err(format!("{} is a directory", path.display()));
    }
    fs::File::open(path).map(drop).map_err(cannot)
}

/// Whether `path` is a shared library by its first bytes, so that it can at all be a PKCS#11 module. Source: elf(5).
pub fn shared_library(path: &Path) -> Result<(), String> {
    use std::io::Read;
    readable_file(path)?;
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read.is_ok() && magic == *b"\x7fELF" {
        true => Ok(()),
        false => Err(format!("{} is not a shared library", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_used_are_named() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(usable_directory(&directory.path().join("to/be/made")), Ok(()));
        assert!(usable_directory(&file.path().join("below")).is_err());
        assert_eq!(readable_file(file.path()), Ok(()));
        assert!(readable_file(directory.path()).expect_err("a directory").contains("is a directory"));
        assert!(readable_file(Path::new("/nowhere/x")).expect_err("absent").contains("/nowhere/x"));
        assert!(shared_library(file.path()).expect_err("empty").contains("not a shared library"));
        assert_eq!(shared_library(Path::new("/proc/self/exe")), Ok(()));
        let long = format!("/{}", "x".repeat(MAX_PATH_BYTES));
        assert!(fits_a_socket_address(Path::new(&long)).expect_err("too long").contains("108"));
    }
}
