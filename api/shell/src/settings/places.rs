//! What a configuration names besides values: files, directories, devices. Looked at only when asked: a file may be written on
//! another machine than the one it is for.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use ironroot_api::directory::{DirectoryError, could_be_ours, could_be_prepared};
use ironroot_api::unix_socket::{MAX_PATH_BYTES, UnixSocketError};

/// Whether this process could make and use `directory` for files of its own, which nobody else may add to.
pub fn usable_directory(directory: &Path) -> Result<(), String> {
    usable(directory, could_be_ours)
}

/// The same of a directory that the daemon reads although it can add nothing: where the file system is read-only,
/// [`read_only_directory`] says so.
pub fn usable_or_read_only_directory(directory: &Path) -> Result<(), String> {
    match read_only_directory(directory) {
        Some(_) => could_be_ours(directory).map_err(told),
        None => usable_directory(directory),
    }
}

/// What is to be said of a directory on a read-only file system.
pub fn read_only_directory(directory: &Path) -> Option<String> {
    let is_read_only = directory.is_dir() && access(directory, AccessFlags::W_OK) == Err(Errno::EROFS);
    is_read_only.then(|| {
        let directory = directory.display();
        format!("{directory} is on a read-only file system: what is kept there is used, and nothing new is kept")
    })
}

fn told(error: DirectoryError) -> String {
    match &error {
        DirectoryError::Io { source, .. } => format!("{error}: {source}"),
        DirectoryError::Unsafe { .. } => error.to_string(),
    }
}

fn usable(directory: &Path, judged: impl FnOnce(&Path) -> Result<(), DirectoryError>) -> Result<(), String> {
    judged(directory).map_err(told)?;
    let there = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    if is_the_kernels(there) {
        return Err(format!("{} belongs to the kernel: nobody can make files there", there.display()));
    }
    let refused = |errno: Errno| format!("this user cannot write to {}: {}", there.display(), errno.desc());
    access(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(refused)
}

/// Whether a socket could be bound at `path`: in a usable directory, with nothing but another socket in its place.
pub fn usable_socket(path: &Path) -> Result<(), String> {
    path.parent().map_or(Ok(()), |directory| usable(directory, could_be_prepared))?;
    match fs::symlink_metadata(path) {
        Ok(facts) if !facts.file_type().is_socket() => Err(UnixSocketError::NotASocket(path.to_owned()).to_string()),
        _ => Ok(()),
    }
}

/// Whether a file could be made and replaced at `path`. A directory that is not there is a mistake, or a disk that is not mounted, and
/// nobody makes it; but for `made`, which the daemon makes at its start.
pub fn usable_file(path: &Path, made: &Path) -> Result<(), String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if directory != made {
        existing_directory(directory)?;
    }
    usable(directory, could_be_prepared)
}

/// Whether lines could be appended to a file at `path`: nothing else is in its place, and its directory is there.
pub fn appendable_file(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err(format!("{} is a directory: give the path of a file", path.display()));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    existing_directory(directory)
}

/// Whether `directory` is there.
pub fn existing_directory(directory: &Path) -> Result<(), String> {
    match directory.is_dir() {
        true => Ok(()),
        false => Err(format!("there is no directory {}: make it", directory.display())),
    }
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

/// Most of a library that is looked through, bytes.
const MAX_LIBRARY_BYTES: u64 = 256 * 1024 * 1024;
/// The one function that every PKCS#11 module exports. Source: PKCS#11 v3.0 §5.4.
const ENTRY_POINT: &[u8] = b"C_GetFunctionList";

/// Whether `path` is a shared library that names the functions of PKCS#11. It is not loaded: that would run it. Source: elf(5).
pub fn pkcs11_module(path: &Path) -> Result<(), String> {
    readable_file(path)?;
    let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut library = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_LIBRARY_BYTES).read_to_end(&mut library)).map_err(cannot)?;
    if !library.starts_with(b"\x7fELF") {
        return Err(format!("{} is not a shared library", path.display()));
    }
    match library.windows(ENTRY_POINT.len()).any(|name| name == ENTRY_POINT) {
        true => Ok(()),
        false => Err(format!("{} is not a PKCS#11 module: it has no C_GetFunctionList", path.display())),
    }
}

/// File systems of the kernel, in which nobody makes a file. Source: statfs(2).
fn is_the_kernels(directory: &Path) -> bool {
    let magic = statfs(directory).map(|facts| facts.filesystem_type());
    magic.is_ok_and(|magic| [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&magic))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn places_that_cannot_be_used_are_named() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let directory = tempfile::tempdir().expect("directory");
        assert_eq!(usable_directory(&directory.path().join("to/be/made")), Ok(()));
        assert!(usable_directory(&file.path().join("below")).is_err());
        let everybodys = directory.path().join("everybodys");
        fs::create_dir(&everybodys).expect("made");
        fs::set_permissions(&everybodys, fs::Permissions::from_mode(0o1777)).expect("opened");
        assert!(usable_directory(&everybodys).expect_err("keys go there").contains("name a directory of its own"));
        assert_eq!(readable_file(file.path()), Ok(()));
        assert!(readable_file(directory.path()).expect_err("a directory").contains("is a directory"));
        assert!(readable_file(Path::new("/nowhere/x")).expect_err("absent").contains("/nowhere/x"));
        assert!(pkcs11_module(file.path()).expect_err("empty").contains("not a shared library"));
        assert!(usable_directory(Path::new("/proc/ironroot")).expect_err("procfs").contains("belongs to the kernel"));
        fs::write(file.path(), b"\x7fELF without it").expect("written");
        assert!(pkcs11_module(file.path()).expect_err("as the C library").contains("not a PKCS#11 module"));
        fs::write(file.path(), b"\x7fELF and C_GetFunctionList").expect("written");
        assert_eq!(pkcs11_module(file.path()), Ok(()));
        let told = usable_socket(file.path()).expect_err("a file is in its place");
        assert!(told.contains("is not a socket"), "{told}");
        assert_eq!(usable_socket(&directory.path().join("api.sock")), Ok(()));
        let long = format!("/{}", "x".repeat(MAX_PATH_BYTES));
        assert!(fits_a_socket_address(Path::new(&long)).expect_err("too long").contains("108"));
    }

    #[test]
    fn a_file_has_a_directory_that_is_there_or_is_made_at_the_start() {
        let there = tempfile::tempdir().expect("directory");
        let made = there.path().join("data");
        assert_eq!(usable_file(&there.path().join("database"), &made), Ok(()));
        assert_eq!(usable_file(&made.join("database"), &made), Ok(()));
        assert_eq!(usable_file(Path::new("database"), &made), Ok(()));
        let told = usable_file(&there.path().join("mnt/database"), &made).expect_err("not mounted");
        assert!(told.contains("there is no directory") && told.contains("/mnt"), "{told}");
    }
}
