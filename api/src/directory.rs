//! Directories of ours: born with the mode that they are to have, and refused where another user could replace what we put
//! there.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use thiserror::Error;

/// Mode of a directory that local users of every kind pass through, as to the Workload API's socket.
pub const OPEN_TO_ALL: u32 = 0o755;
/// Mode of a directory for us and our group: a daemon's own files, the admin socket.
pub const OURS: u32 = 0o750;

const STICKY: u32 = 0o1000;
const GROUP_WRITABLE: u32 = 0o020;
const WORLD_WRITABLE: u32 = 0o002;

/// Why a directory cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum DirectoryError {
    /// Another user could replace what is put there.
    #[error("{path:?} {why}")]
    Unsafe {
        /// The offending directory or link.
        path: PathBuf,
        /// What is wrong with it and how it is mended, as the rest of a sentence.
        why: &'static str,
    },
    /// A system call on it or on a directory on the way failed.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// Which step, as a verb.
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Makes the directory if it is missing and refuses one in which others can move or replace files.
///
/// Where it refuses, nothing is made. Directories made on the way get `mode`, whatever the process's umask is. Every directory on the way, and on the way that
/// its links lead to, must belong to root or us and be writable by nobody else, unless it is sticky (`/tmp`).
pub fn prepare(directory: &Path, mode: u32) -> Result<(), DirectoryError> {
    could_be_prepared(directory)?;
    make(directory, mode)?;
    judge(directory)
}

/// What [`prepare`] would say of the part of `directory` that is there already; makes nothing.
pub fn could_be_prepared(directory: &Path) -> Result<(), DirectoryError> {
    // Where nothing of a relative path is there, it begins in the working directory.
    // A link to nothing is there: what it leads to is not mounted.
    let is_there = |path: &&Path| path.symlink_metadata().is_ok();
    let there = directory.ancestors().find(is_there).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(failed("use as a directory", there)(io::ErrorKind::NotADirectory.into()));
    }
    judge(there)
}

fn judge(directory: &Path) -> Result<(), DirectoryError> {
    let whole = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let real = fs::canonicalize(whole).map_err(failed("resolve", whole))?;
    for path in whole.ancestors().chain(real.ancestors()).filter(|path| !path.as_os_str().is_empty()) {
        let facts = fs::symlink_metadata(path).map_err(failed("inspect", path))?;
        //= FLT-A19 agent faults: "and names the place"
        if let Some(why) = fault(&facts) {
            return Err(DirectoryError::Unsafe { path: PathBuf::from(path), why });
        }
    }
    Ok(())
}

/// As [`prepare_ours`] with mode [`OURS`], for a daemon's own files.
pub fn prepare_private(directory: &Path) -> Result<(), DirectoryError> {
    prepare_ours(directory, OURS)
}

/// As [`prepare`], for files that only we write: nobody but root and us may even add one, so a sticky directory is refused too.
pub fn prepare_ours(directory: &Path, mode: u32) -> Result<(), DirectoryError> {
    refuse_everybodys(directory)?;
    prepare(directory, mode)?;
    refuse_everybodys(directory)
}

/// What [`prepare_ours`] would say of the part of `directory` that is there already; makes nothing.
pub fn could_be_ours(directory: &Path) -> Result<(), DirectoryError> {
    refuse_everybodys(directory)?;
    could_be_prepared(directory)
}

/// One that is not there yet is nobody's.
fn refuse_everybodys(directory: &Path) -> Result<(), DirectoryError> {
    let is_open = |facts: &Metadata| facts.is_dir() && facts.mode() & WORLD_WRITABLE != 0;
    if fs::metadata(directory).is_ok_and(|facts| is_open(&facts)) {
        let why = "is writable by everybody, and keys go there (chmod o-w, or name a directory of its own)";
        return Err(DirectoryError::Unsafe { path: directory.to_owned(), why });
    }
    Ok(())
}

/// The first directory on the way to `path` that this process may not pass; none if it may pass them all.
pub fn closed_on_the_way_to(path: &Path) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    ancestors.reverse();
    let closed = |directory: &&Path| {
        let looked = fs::symlink_metadata(directory.join("."));
        looked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    ancestors.into_iter().find(closed).map(Path::to_owned)
}

/// The missing directories on the way, outermost first, each with its mode set after it was made: a umask takes bits away.
fn make(directory: &Path, mode: u32) -> Result<(), DirectoryError> {
    let mut missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    missing.reverse();
    for path in missing {
        match DirBuilder::new().mode(mode).create(path) {
            Ok(()) => {
                fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
            }
            // Somebody else made it meanwhile; whether it may be used is judged below.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create directory", path)(error)),
        }
    }
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    Err(failed("use as a directory", directory)(io::ErrorKind::NotADirectory.into()))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io { doing, path: path.to_owned(), source }
}

fn fault(facts: &Metadata) -> Option<&'static str> {
    let others = |bit| facts.mode() & bit != 0 && facts.mode() & STICKY == 0 && !facts.is_symlink();
    if facts.uid() != 0 && facts.uid() != geteuid().as_raw() {
        return Some("belongs to another user than root or us");
    }
    if others(WORLD_WRITABLE) {
        return Some("is writable by everybody (chmod o-w, or +t)");
    }
    if others(GROUP_WRITABLE) && facts.gid() != 0 && facts.gid() != getegid().as_raw() {
        return Some("is writable by a group that is not ours (chmod g-w, or +t)");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").mode() & 0o7777
    }

    #[test]
    fn a_directory_for_all_is_open_to_all_and_what_was_there_is_left_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let (there, made) = (directory.path().join("there"), directory.path().join("there/made/public"));
        DirBuilder::new().mode(0o711).create(&there).expect("made");
        let before = mode(&there);
        prepare(&made, OPEN_TO_ALL).expect("made");
        assert_eq!((mode(&there), mode(&made), mode(made.parent().expect("above"))), (before, 0o755, 0o755));
    }

    #[test]
    fn a_private_directory_is_nobody_elses_to_write_in() {
        let directory = tempfile::tempdir().expect("directory");
        let data = directory.path().join("data");
        prepare_private(&data).expect("made");
        assert_eq!(mode(&data), OURS);
        for open in [0o777, 0o1777] {
            fs::set_permissions(&data, Permissions::from_mode(open)).expect("opened");
            let refused = prepare_private(&data).expect_err("anybody could put a file there");
            assert!(matches!(&refused, DirectoryError::Unsafe { path, .. } if *path == data), "{refused}");
            // What is told to do is not refused the next time, and a look says the same.
            assert!(!refused.to_string().contains("+t"), "{refused}");
            assert_eq!(could_be_ours(&data).expect_err("as well").to_string(), refused.to_string());
        }
    }

    #[test]
    fn a_link_to_what_is_not_mounted_is_no_directory_to_be_made() {
        let directory = tempfile::tempdir().expect("directory");
        let link = directory.path().join("data");
        std::os::unix::fs::symlink("nowhere", &link).expect("linked");
        for path in [link.clone(), link.join("below")] {
            let looked = could_be_ours(&path).expect_err("leads nowhere").to_string();
            assert_eq!(looked, prepare_private(&path).expect_err("likewise").to_string());
            assert!(looked.contains(&link.display().to_string()), "{looked}");
        }
    }

    #[test]
    fn where_others_may_write_nothing_is_made() {
        let directory = tempfile::tempdir().expect("directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("opened");
        let refused = prepare(&directory.path().join("made/below"), OURS).expect_err("anybody could replace it");
        assert!(matches!(&refused, DirectoryError::Unsafe { path, .. } if path == directory.path()), "{refused}");
        assert!(fs::read_dir(directory.path()).expect("listed").next().is_none(), "nothing was made");
    }

    #[test]
    fn a_relative_directory_that_is_not_there_yet_could_be_made_in_the_working_directory() {
        for path in ["not-there", "not-there/below", "./not-there"] {
            could_be_prepared(Path::new(path)).expect(path);
        }
        let refused = could_be_prepared(Path::new("Cargo.toml/below")).expect_err("a file");
        assert!(matches!(refused, DirectoryError::Io { .. }), "{refused}");
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_named() {
        let file = tempfile::NamedTempFile::new().expect("file");
        for path in [file.path().to_owned(), file.path().join("below")] {
            let refused = prepare(&path, OURS).expect_err("a file");
            assert!(matches!(refused, DirectoryError::Io { .. }), "{refused}");
        }
    }
}
