//! Where PostgreSQL's programs are, and who runs them: it refuses to be run by root.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian has a directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// That program of the newest version.
///
/// # Panics
/// There is none.
pub(crate) fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.max_by_key(|path| number(path)).expect("PostgreSQL is installed: scripts/setup --tests");
    newest.join("bin").join(name)
}

/// A user and group that own nothing else of ours; none if this process is not root's and may be the one itself.
pub(crate) fn unprivileged() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let named = ["postgres", "nobody"].into_iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    let user = named.expect("a user who is not root");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// What is run by that user.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command.env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}
