//! Could another user replace what we put at this path?

use std::fs::{self, DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};

use super::UnixSocketError;

const STICKY: u32 = 0o1000;
const GROUP_WRITABLE: u32 = 0o020;
const WORLD_WRITABLE: u32 = 0o002;

/// Makes the directory if it is missing (mode 0755) and refuses one in which others can move or replace files.
///
/// Every directory on the way, and on the way that its links lead to, must belong to root or us and be writable by
/// nobody else, unless it is sticky (`/tmp`).
pub(super) fn prepare(directory: &Path) -> Result<(), UnixSocketError> {
    let error = |doing| move |source| UnixSocketError::Io { doing, path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(error("create directory"))?;
    let real = fs::canonicalize(directory).map_err(error("resolve"))?;
    for path in directory.ancestors().chain(real.ancestors()) {
        let facts = fs::symlink_metadata(path).map_err(error("inspect"))?;
        if let Some(why) = fault(&facts) {
            return Err(UnixSocketError::UnsafeDirectory { path: PathBuf::from(path), why });
        }
    }
    Ok(())
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
