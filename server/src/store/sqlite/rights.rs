//! Who may read and write the database's files: its owner alone. They hold join tokens and the CA's journal.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::file::{MODE, beside};

/// Rights of the group, and of everybody.
const OTHERS: u32 = 0o077;
/// The file, and what SQLite makes beside it with the file's own rights.
const FILES: [&str; 3] = ["", "-wal", "-shm"];

/// The database's files to which others have rights.
pub(in crate::store) fn open_to_others(path: &Path) -> Vec<PathBuf> {
    found(path).map(|(file, _)| file).collect()
}

/// Takes others' rights away where the file is ours, and says so; of another user's it says that they are there.
pub(super) fn keep_to_owner(path: &Path) {
    for (file, facts) in found(path) {
        let mode = format!("{:04o}", facts.mode() & 0o7777);
        let (path, kept) = (file.display(), fs::set_permissions(&file, Permissions::from_mode(MODE)));
        match kept {
            Ok(()) => {
                warn!(%path, mode, "others had rights to the database, which holds join tokens; they are taken away: whoever read it may have tokens that are not used yet")
            }
            Err(error) => {
                warn!(%path, mode, %error, "others have rights to the database, which holds join tokens, and they cannot be taken away")
            }
        }
    }
}

fn found(path: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let files = FILES.map(|suffix| beside(path, suffix));
    let looked = files.into_iter().filter_map(|file| fs::metadata(&file).ok().map(|facts| (file, facts)));
    looked.filter(|(_, facts)| facts.is_file() && facts.mode() & OTHERS != 0)
}
