//! A listening unix socket that is ours alone.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, setsockopt, sockopt};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};

use super::UnixSocketError;
use crate::directory;

/// Longest socket path, bytes. Source: unix(7), sun_path without its terminator.
pub const MAX_PATH_BYTES: usize = 107;
/// How many connections may wait for `accept`; the kernel caps it at net.core.somaxconn (4096 by default). When it is full,
/// clients are refused whoever they are, so it is as large as can be.
const BACKLOG: i32 = 4096;

/// A bound socket. Its file goes away with it.
///
/// Holds a lock on `PATH.lock`, so that a second server of the same path fails instead of taking over.
#[derive(Debug)]
pub struct SocketListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file, to remove no other.
    file: (u64, u64),
    _lock: File,
}

impl SocketListener {
    /// Binds `path` with permission bits `mode` (0o777: every local user may connect; 0o770: owner and group).
    ///
    /// Creates the directory if needed, so that whoever may connect can get there. A socket left by a dead process is replaced; a live one, another user's, or a
    /// file that is no socket is refused, and so is a directory in which others could replace the socket. Must be called
    /// within a tokio runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, UnixSocketError> {
        let all = mode & 0o007 != 0;
        let parent = path.parent().filter(|_| path.is_absolute() && path.file_name().is_some());
        let Some(parent) = parent.filter(|_| path.as_os_str().len() <= MAX_PATH_BYTES) else {
            return Err(UnixSocketError::Path(path.to_owned()));
        };
        directory::prepare(parent, if all { directory::OPEN_TO_ALL } else { directory::OURS })?;
        // Before the lock, whose file would stay beside somebody's.
        what_is_there(path)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let socket = bind(path).map_err(failed("bind", path))?;
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
        let facts = fs::symlink_metadata(path).map_err(failed("inspect", path))?;
        let listener = UnixListener::from_std(socket).map_err(failed("listen on", path))?;
        Ok(Self { listener, path: path.to_owned(), file: (facts.dev(), facts.ino()), _lock: lock })
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// The absolute path of its file, which is removed when the listener is dropped.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        let ours = |facts: fs::Metadata| (facts.dev(), facts.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nothing to do about a failure: the next start removes the file as stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UnixSocketError {
    move |source| UnixSocketError::Io { doing, path: path.to_owned(), source }
}

fn lock(path: &Path) -> Result<File, UnixSocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    let file = options.open(&name).map_err(failed("open", &name))?;
    let uid = file.metadata().map_err(failed("inspect", &name))?.uid();
    if uid != geteuid().as_raw() {
        return Err(UnixSocketError::OtherOwner { path: name, uid });
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(UnixSocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &name)(source)),
    }
}

/// A socket's facts; none if nothing is there, an error if it is no socket.
fn what_is_there(path: &Path) -> Result<Option<fs::Metadata>, UnixSocketError> {
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.file_type().is_socket() => Ok(Some(facts)),
        Ok(_) => Err(UnixSocketError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("inspect", path)(error)),
    }
}

fn remove_stale(path: &Path) -> Result<(), UnixSocketError> {
    let Some(facts) = what_is_there(path)? else { return Ok(()) };
    if facts.uid() != geteuid().as_raw() && facts.uid() != 0 {
        return Err(UnixSocketError::OtherOwner { path: path.to_owned(), uid: facts.uid() });
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed("remove the stale", path)),
        Err(Errno::ENOENT) => Ok(()),
        // It answers, or its queue is full: somebody serves it without our lock.
        Ok(()) | Err(Errno::EAGAIN) => Err(UnixSocketError::InUse(path.to_owned())),
        Err(errno) => Err(failed("connect to the old", path)(errno.into())),
    }
}

/// Connects without waiting.
fn probe(path: &Path) -> nix::Result<()> {
    let socket = unbound()?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn bind(path: &Path) -> io::Result<StdUnixListener> {
    let socket = unbound()?;
    // Every read of an accepted connection can then ask who wrote, from the first byte on: connections inherit it.
    setsockopt(&socket, sockopt::PassCred, &true)?;
    // The file is born with these bits, so nobody else can connect before its mode is set.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

fn unbound() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}
