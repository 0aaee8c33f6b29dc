//! A daemon's files that survive a power cut: the old content or the new, never neither, never half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces the file at `path`, which gets `mode` less the umask, and returns once the new content is on the disk: draft beside it, fsync,
/// rename, fsync of the directory. A draft that a crash has left goes, and a link in its place is not followed: the directory may be
/// another's, too.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let draft = draft_of(path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    //= FLT-A1 agent faults: "no file of it is half written"
    let written = write_synced(&draft, content, mode).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        //= FLT-A3 agent faults: "the file stays as it was"
        // The old file is untouched; a leftover would only be confusing.
        let _ = fs::remove_file(&draft);
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

/// Where the new content is until it is whole.
pub fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write_synced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Returns once it is on the disk that `path` is in its directory, or no more.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    //= FLT-A1
    #[test]
    fn the_whole_content_is_replaced_a_leftover_goes_and_a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, victim) = (directory.path().join("state.json"), directory.path().join("victim"));
        fs::write(&victim, "as it was").expect("written");
        fs::write(draft_of(&path), "left by a power cut, and longer").expect("leftover");
        replace(&path, b"one", 0o600).expect("written");
        symlink(&victim, draft_of(&path)).expect("linked");
        replace(&path, b"two", 0o640).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was");
        assert_eq!(fs::read_dir(directory.path()).expect("listing").count(), 2);
        remove(&path).and_then(|()| remove(&path)).expect("gone, and nothing to remove");
    }

    //= FLT-A3
    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("state");
        replace(&path, b"one", 0o600).expect("written");
        fs::create_dir(draft_of(&path)).expect("obstacle");
        replace(&path, b"two", 0o600).expect_err("the draft is a directory");
        assert_eq!(fs::read_to_string(&path).expect("read"), "one");
    }
}
