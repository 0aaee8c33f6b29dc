//! One agent for one data directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ironroot_api::directory::prepare_private;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::RunError;

/// Name of the lock file in the data directory.
const LOCK_FILE: &str = "agent.lock";
/// Rights of a directory by which users beside the owner and the group can open it.
const READABLE_BY_OTHERS: u32 = 0o004;

/// What keeps a second agent out of the data directory while it lives.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: Option<Flock<File>>,
    _directory: Option<Flock<File>>,
}

/// Makes the data directory if need be and locks it for this process.
///
/// | the lock file | what is locked |
/// |---|---|
/// | lies there, or the disk takes it | the file; and the directory, shared, where strangers cannot open it |
/// | cannot be made | the directory, alone: an agent that starts once there is room finds it taken |
pub(super) fn lock(directory: &Path) -> Result<DirectoryLock, RunError> {
    prepare_private(directory)?;
    let file = open_lock(&directory.join(LOCK_FILE)).map_err(unusable(directory))?;
    hold(directory, file)
}

fn hold(directory: &Path, file: Option<File>) -> Result<DirectoryLock, RunError> {
    let whole = File::open(directory).map_err(unusable(directory))?;
    let Some(file) = file else {
        let _directory = Some(take(whole, FlockArg::LockExclusiveNonblock, directory)?);
        return Ok(DirectoryLock { _file: None, _directory });
    };
    let _file = Some(take(file, FlockArg::LockExclusiveNonblock, directory)?);
    // A user who may open the directory could hold its lock, and would keep us from starting.
    let closed = whole.metadata().map_err(unusable(directory))?.mode() & READABLE_BY_OTHERS == 0;
    let _directory = closed.then(|| take(whole, FlockArg::LockSharedNonblock, directory)).transpose()?;
    Ok(DirectoryLock { _file, _directory })
}

fn take(file: File, how: FlockArg, directory: &Path) -> Result<Flock<File>, RunError> {
    Flock::lock(file, how).map_err(|(_, errno)| match errno {
        //= FLT-A20 agent faults: "the second ends and says why"
        Errno::EWOULDBLOCK => RunError::Locked(directory.to_owned()),
        other => unusable(directory)(other.into()),
    })
}

fn unusable(directory: &Path) -> impl Fn(io::Error) -> RunError {
    let path = directory.join(LOCK_FILE);
    move |error| RunError::Lock { path: path.clone(), error }
}

/// A file that only we can open. A disk that takes none (read-only, or full) stops no agent: then the file as it lies there, or none.
fn open_lock(path: &Path) -> io::Result<Option<File>> {
    // A link in its place would make us create or lock a file of somebody's choice.
    let open = |options: &mut OpenOptions| options.custom_flags(nix::libc::O_NOFOLLOW).open(path);
    match open(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600)) {
        Err(error) if takes_nothing(&error) => {}
        opened => return opened.map(Some),
    }
    match open(OpenOptions::new().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn takes_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), ReadOnlyFilesystem | StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use ironroot_api::directory::DirectoryError;

    use super::*;

    //= FLT-A20
    #[test]
    fn a_second_agent_on_the_same_directory_is_told_so() {
        let directory = tempfile::tempdir().expect("directory");
        let data_dir = directory.path().join("made").join("if missing");
        let held = lock(&data_dir).expect("first");
        assert!(matches!(lock(&data_dir), Err(RunError::Locked(path)) if path == data_dir));
        drop(held);
        lock(&data_dir).expect("free again");
    }

    //= FLT-A20
    #[test]
    fn an_agent_that_started_on_a_full_disk_and_one_that_starts_once_there_is_room_keep_each_other_out() {
        let directory = tempfile::tempdir().expect("directory");
        let data_dir = directory.path().join("data");
        prepare_private(&data_dir).expect("made");
        let without_a_file = hold(&data_dir, None).expect("the first, whose disk took no file");
        assert!(matches!(lock(&data_dir), Err(RunError::Locked(_))), "there is room again");
        drop(without_a_file);
        let _with_a_file = lock(&data_dir).expect("free again");
        assert!(matches!(hold(&data_dir, None), Err(RunError::Locked(_))));
    }

    #[test]
    fn an_unusable_directory_is_named() {
        let file = tempfile::NamedTempFile::new().expect("file");
        assert!(matches!(lock(&file.path().join("below")), Err(RunError::DataDirectory(_))));
    }

    //= FLT-A19
    #[test]
    fn a_directory_that_others_write_in_and_a_link_for_a_lock_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("directory");
        let (data_dir, elsewhere) = (directory.path().join("data"), directory.path().join("elsewhere"));
        drop(lock(&data_dir).expect("ours"));
        std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o777)).expect("opened");
        assert!(matches!(lock(&data_dir), Err(RunError::DataDirectory(DirectoryError::Unsafe { .. }))));
        std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o750)).expect("closed");
        std::fs::remove_file(data_dir.join(LOCK_FILE)).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, data_dir.join(LOCK_FILE)).expect("linked");
        assert!(matches!(lock(&data_dir), Err(RunError::Lock { .. })));
        assert!(!elsewhere.exists(), "nothing was made at the end of the link");
    }
}
