//! Sets of files, of which one is current.
//!
//! ```text
//!  DIRECTORY/set-7/{svid.pem, svid.key, svid_and_key.pem, bundle.pem, bundle.NAME.pem}
//!  DIRECTORY/current ─► set-7          the link is replaced in one step: who opens files through it sees one set or the next
//! ```
//! The set before stays: who has opened the certificate still finds the key that belongs to it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::directory::{self, OPEN_TO_ALL};
use ironroot_shell::command_line::CommandError;
use ironroot_shell::durable_file::sync_directory_of;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Group, User};
use zeroize::Zeroizing;

use crate::cli::api::WorkloadSvid;
use crate::pem;

/// Who delivers into the directory has it locked.
const LOCK_FILE: &str = ".deliver.lock";
/// What is given away for a moment to see whether it can be.
const PROBE: &str = ".deliver.owner";
/// The link to the newest set.
const CURRENT: &str = "current";
/// The link to the set of which others have been told; kept where keys are in hardware.
const TOLD: &str = "told";
/// What a link is before it is renamed.
const NEXT: &str = "current.new";
/// What the name of a set begins with; its number follows.
const SET: &str = "set-";
/// Mode of what everybody may read.
const PUBLIC: u32 = 0o644;
/// Rights of users who are neither the file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// The files of a set, which may say in which directory they are.
pub(super) type FilesAt = dyn Fn(&Path) -> Vec<SetFile>;

/// One file of a set.
#[derive(Clone)]
pub(super) struct SetFile {
    name: String,
    content: Zeroizing<Vec<u8>>,
    is_secret: bool,
}

// Not derived: it may be a key, which stays out of logs.
impl fmt::Debug for SetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SetFile {
    /// One that everybody may read.
    pub(super) fn open(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), content: Zeroizing::new(content.into()), is_secret: false }
    }

    /// One for those alone who may use the key.
    pub(super) fn secret(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { is_secret: true, ..Self::open(name, content) }
    }

    /// The same content after `before`, under another name.
    pub(super) fn beside(&self, name: &str, before: &[u8]) -> Self {
        let content = Zeroizing::new([before, &self.content].concat());
        Self { name: name.to_owned(), content, is_secret: self.is_secret }
    }

    /// For those alone who may read `other`.
    pub(super) fn for_readers_of(self, other: &Self) -> Self {
        Self { is_secret: other.is_secret, ..self }
    }
}

/// The files for `svid`, and for each trust domain in `federated` (its SPIFFE ID) what its certificates are verified with.
pub(super) fn of(
    svid: &WorkloadSvid,
    federated: &BTreeMap<String, Vec<Certificate>>,
) -> Result<Vec<SetFile>, CommandError> {
    let secret = |name: &str, content| SetFile { name: name.to_owned(), content, is_secret: true };
    let (chain, key) = (in_pem(&svid.chain), Zeroizing::new(pem::private_key(&svid.key).as_bytes().to_vec()));
    let both = Zeroizing::new([chain.as_slice(), key.as_slice()].concat());
    let mut files = vec![secret("svid.key", key), secret("svid_and_key.pem", both), SetFile::open("svid.pem", chain)];
    files.extend(bundles(&svid.bundle, federated)?);
    Ok(files)
}

/// The files for the authorities of the own trust domain and of those in `federated`.
pub(super) fn bundles(
    own: &[Certificate],
    federated: &BTreeMap<String, Vec<Certificate>>,
) -> Result<Vec<SetFile>, CommandError> {
    let mut files = vec![SetFile::open("bundle.pem", in_pem(own))];
    for (id, bundle) in federated {
        let wrong = |error| CommandError::Malformed(format!("the agent's answer names trust domain {id:?}: {error}"));
        let trust_domain = TrustDomain::new(id.strip_prefix("spiffe://").unwrap_or(id)).map_err(wrong)?;
        files.push(SetFile::open(&format!("bundle.{trust_domain}.pem"), in_pem(bundle)));
    }
    Ok(files)
}

pub(super) fn in_pem(certificates: &[Certificate]) -> Vec<u8> {
    pem::certificates(certificates.iter().map(Certificate::der)).into_bytes()
}

/// A mode in octal for files with a key in them.
pub(super) fn key_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or("not a mode: give three octal digits, such as 0640")?;
    match mode & OTHERS {
        0 => Ok(mode),
        _ => Err("the key would be everybody's: give it to a group, with -group and 0640".to_owned()),
    }
}

/// Whose the files are, where that is not simply this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileOwner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl FileOwner {
    /// Looks the names up; what is no name may be a number, as chown takes it.
    pub(super) fn named(user: Option<&str>, group: Option<&str>) -> Result<Self, CommandError> {
        let nobody =
            |what: &str, name: &str| CommandError::Usage(format!("there is no {what} {name:?} on this machine"));
        let uid = user.map(|name| {
            let found = User::from_name(name).ok().flatten();
            found.map(|user| user.uid.as_raw()).or_else(|| number(name)).ok_or_else(|| nobody("user", name))
        });
        let gid = group.map(|name| {
            let found = Group::from_name(name).ok().flatten();
            found.map(|group| group.gid.as_raw()).or_else(|| number(name)).ok_or_else(|| nobody("group", name))
        });
        Ok(Self { uid: uid.transpose()?, gid: gid.transpose()? })
    }

    /// Whether this process may give files in `directory` away; what it may not now it may never. A disk that takes nothing now may take
    /// something later.
    fn may_be_given(&self, directory: &Path) -> Result<(), CommandError> {
        if self.uid.is_none() && self.gid.is_none() {
            return Ok(());
        }
        let path = directory.join(PROBE);
        let _ = fs::remove_file(&path);
        let Ok(file) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) else { return Ok(()) };
        let given = fchown(&file, self.uid, self.gid);
        let _ = fs::remove_file(&path);
        match given {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(CommandError::Usage(not_given_away(error).to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// The number that means "as it is" is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn not_given_away(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            "-owner and -group give files away: only root may to any user, and others to a group that they are in",
        ),
        _ => error,
    }
}

/// Two that deliver into one directory would each make its own identity the current one, and remove the other's sets.
fn lock(directory: &Path) -> Result<Flock<File>, CommandError> {
    let path = directory.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    // A disk that takes nothing now may take something later.
    let file = options.open(&path).or_else(|_| File::open(directory));
    let file = file.map_err(|source| CommandError::File { doing: "lock", path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => CommandError::Malformed(format!(
            "another \"deliver\" delivers into {}: give each a directory of its own",
            directory.display()
        )),
        other => CommandError::File { doing: "lock", path, source: other.into() },
    })
}

/// What became of a set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The newest set has this very content.
    AsItWas,
    /// It is current now.
    New,
}

/// A directory of sets.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Keeps a second one out while this one lives.
    lock: Flock<File>,
    owner: FileOwner,
    key_mode: u32,
}

impl Directory {
    /// Makes it if it is missing; refuses one where others could put files of theirs.
    pub(super) fn open(path: PathBuf, owner: FileOwner, key_mode: u32) -> Result<Self, CommandError> {
        directory::prepare_ours(&path, OPEN_TO_ALL).map_err(CommandError::run)?;
        let link = path.join(CURRENT);
        match fs::symlink_metadata(&link) {
            Ok(facts) if !facts.is_symlink() => {
                let why =
                    format!("{} is not a link that this command made: give it a directory of its own", link.display());
                Err(CommandError::Usage(why))
            }
            _ => {
                let lock = lock(&path)?;
                owner.may_be_given(&path)?;
                Ok(Self { path, lock, owner, key_mode })
            }
        }
    }

    /// Makes it and locks it anew if it, or its lock, was removed meanwhile: another could deliver into it, and its sets are gone.
    pub(super) fn hold(&mut self) -> Result<(), CommandError> {
        if !self.is_held() {
            directory::prepare_ours(&self.path, OPEN_TO_ALL).map_err(CommandError::run)?;
            self.lock = lock(&self.path)?;
        }
        Ok(())
    }

    /// Whether what is locked is what is there.
    fn is_held(&self) -> bool {
        let Ok(locked) = self.lock.metadata() else { return false };
        let there = if locked.is_dir() { self.path.clone() } else { self.path.join(LOCK_FILE) };
        fs::symlink_metadata(there).is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The set that is current.
    pub(super) fn current(&self) -> Option<PathBuf> {
        fs::read_link(self.path.join(CURRENT)).ok().map(|set| self.path.join(set))
    }

    /// Notes that whoever uses the files has been told of the current set.
    pub(super) fn note_told(&self) -> io::Result<()> {
        if self.is_told() {
            return Ok(());
        }
        let current = fs::read_link(self.path.join(CURRENT))?;
        self.link(TOLD, &current)
    }

    /// Whether whoever uses the files has been told of the current set, in whichever run.
    pub(super) fn is_told(&self) -> bool {
        let of = |link: &str| fs::read_link(self.path.join(link)).ok();
        of(CURRENT).is_some_and(|current| of(TOLD) == Some(current))
    }

    /// Makes the files of `set` the current set; they may say in which directory they are.
    pub(super) fn put(&self, set: &FilesAt) -> Result<Delivered, CommandError> {
        let current = fs::read_link(self.path.join(CURRENT)).ok();
        if current.as_ref().is_some_and(|current| self.holds(current, &set(&self.path.join(current)))) {
            return Ok(Delivered::AsItWas);
        }
        let failed =
            |source| CommandError::File { doing: "write a set of files into", path: self.path.clone(), source };
        let numbers = self.numbers().map_err(failed)?;
        let name = format!("{SET}{}", numbers.last().map_or(1, |last| last.saturating_add(1)));
        let files = set(&self.path.join(&name));
        let written = self.write(&name, &files).and_then(|()| self.link(CURRENT, Path::new(&name)));
        if written.is_err() {
            // What could not be written whole is nobody's; the first error is the one that tells.
            let _ = fs::remove_dir_all(self.path.join(&name));
        }
        written.map_err(failed)?;
        self.forget(numbers, current.as_deref());
        Ok(Delivered::New)
    }

    /// Whether that set is `files`, and is readable for whom it should be.
    fn holds(&self, set: &Path, files: &[SetFile]) -> bool {
        let set = self.path.join(set);
        let count = fs::read_dir(&set).map_or(0, Iterator::count);
        count == files.len() && files.iter().all(|file| self.is(&set.join(&file.name), file).unwrap_or(false))
    }

    fn is(&self, path: &Path, wanted: &SetFile) -> io::Result<bool> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        let owned =
            self.owner.uid.is_none_or(|uid| uid == facts.uid()) && self.owner.gid.is_none_or(|gid| gid == facts.gid());
        let mut bytes = Zeroizing::new(Vec::with_capacity(wanted.content.len() + 1));
        file.take(wanted.content.len() as u64 + 1).read_to_end(&mut bytes)?;
        Ok(owned && facts.mode() & 0o777 == self.mode_of(wanted) && *bytes == *wanted.content)
    }

    fn mode_of(&self, file: &SetFile) -> u32 {
        if file.is_secret { self.key_mode } else { PUBLIC }
    }

    /// The numbers of the sets that are there, ascending.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_prefix(SET)).and_then(|n| n.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn write(&self, set: &str, files: &[SetFile]) -> io::Result<()> {
        let path = self.path.join(set);
        DirBuilder::new().mode(OPEN_TO_ALL).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(OPEN_TO_ALL))?;
        for file in files {
            self.write_file(&path.join(&file.name), file)?;
        }
        File::open(&path)?.sync_all()
    }

    /// A key is nobody else's for a moment either: it gets its owner before its rights, and both before its content.
    fn write_file(&self, path: &Path, file: &SetFile) -> io::Result<()> {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if self.owner.uid.is_some() || self.owner.gid.is_some() {
            fchown(&opened, self.owner.uid, self.owner.gid).map_err(not_given_away)?;
        }
        opened.set_permissions(Permissions::from_mode(self.mode_of(file)))?;
        opened.write_all(&file.content)?;
        opened.sync_all()
    }

    /// Lets `link` lead to `set`, in one step.
    fn link(&self, link: &str, set: &Path) -> io::Result<()> {
        let next = self.path.join(NEXT);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(set, &next)?;
        fs::rename(&next, self.path.join(link))?;
        sync_directory_of(&next)
    }

    /// Removes the sets of `numbers` but the one that was current until now. One that stays is removed the next time.
    fn forget(&self, numbers: Vec<u64>, before: Option<&Path>) {
        let names = numbers.into_iter().map(|number| format!("{SET}{number}"));
        for name in names.filter(|name| before != Some(Path::new(name))) {
            let _ = fs::remove_dir_all(self.path.join(name));
        }
    }
}

#[cfg(test)]
mod tests;
