//! Puts a backup back: everything is read, compared and made ready beside its place before the first file is moved.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ironroot_api::TrustDomain;
use ironroot_shell::command_line::describe;

use super::carried::{Carried, Newer};
use super::container::Reading;
use super::draft::Draft;
use super::error::BackupError;
use super::manifest::{Manifest, PartName};
use super::operator_key::OperatorKey;
use super::origin::Standing;
use super::report::{RestoreReport, in_words};
use crate::facts::older_state::Evidence;
use crate::store::{Belonging, Location, StoppedStore, Store, StoreError};

/// What tells a copy of a backup's database that is only looked at.
const LOOKED_AT: &str = "look";

/// Where a backup is put.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose server it is.
    pub trust_domain: TrustDomain,
    /// Where the database is.
    pub data_store: Location,
    /// The file of KeyManager "disk", if the configuration has one.
    pub key_file: Option<PathBuf>,
}

/// A backup that is this trust domain's; its parts have not been read.
pub struct OpenBackup<'p> {
    path: &'p Path,
    reading: Reading<'p>,
    target: Target,
}

impl<'p> OpenBackup<'p> {
    /// Reads as far as the manifest. `key`: for one that is sealed.
    pub fn open(path: &'p Path, key: Option<&OperatorKey>, target: Target) -> Result<Self, BackupError> {
        let reading = Reading::open(path, key)?;
        let (found, expected) = (&reading.manifest.trust_domain, target.trust_domain.as_str());
        if found != expected {
            return Err(BackupError::OtherTrustDomain { found: found.clone(), expected: expected.to_owned() });
        }
        if reading.manifest.part(PartName::Keys).is_some() && target.key_file.is_none() {
            return Err(BackupError::NoPlaceForKeys);
        }
        Ok(Self { path, reading, target })
    }

    /// Reads all of it and compares every hash, and says what a restore would do. Changes nothing; a server may be running. The database is
    /// written beside its place for that, and gone again.
    pub async fn look(self) -> Result<RestoreReport, BackupError> {
        let (target, sealed) = (self.target.clone(), self.reading.is_sealed);
        // What is there may be the reason for the restore.
        let replaced = target.data_store.summary(&target.trust_domain).unwrap_or_default();
        let place = target.data_store.beside()?;
        // On a machine that has no server yet there is no directory for it.
        let own = if place.parent().is_some_and(Path::is_dir) { None } else { Some(OwnDirectory::make()?) };
        let elsewhere = own.as_ref().map(|own| own.0.join("backup"));
        let place = elsewhere.as_deref().unwrap_or(place);
        Draft::sweep(place, LOOKED_AT);
        let draft = Draft::held(place, LOOKED_AT).map_err(BackupError::io("write", place))?;
        let mut database = Unpacking::into(draft)?;
        let backup = self.reading.parts(|part, piece| match part.name {
            PartName::Datastore => database.write(piece),
            PartName::Keys => Ok(()),
        })?;
        let database = database.finish()?;
        let standing = Standing::of_draft(database.path(), &target.trust_domain).await?;
        let origin = standing.beside(Standing::here(&target.data_store, &target.trust_domain));
        Ok(RestoreReport { dry_run: true, sealed, backup, origin, replaced, kept_as: None, carried: None })
    }

    /// Puts it into its place. On an error everything is as it was, unless [`StoreError::RestoreCutOff`] keeps servers from starting
    /// until a restore has been whole.
    /// `now_unix`: the time; issuing waits from then on for [`accept`](crate::older_state::accept). `may_be_anothers`: also one that has no
    /// root of those that are here.
    pub async fn restore(self, now_unix: i64, may_be_anothers: bool) -> Result<RestoreReport, BackupError> {
        let stopped = self.target.data_store.stop().map_err(|error| match error {
            StoreError::InUse(_) => BackupError::Running(error),
            error => BackupError::Place(error),
        })?;
        let (target, sealed) = (self.target.clone(), self.reading.is_sealed);
        let replaced = Location::Sqlite(stopped.last_used()).summary(&target.trust_domain).unwrap_or_default();
        let (backup, drafts) = self.unpack(&stopped)?;
        let here = Standing::here(&Location::Sqlite(stopped.last_used()), &target.trust_domain);
        let origin = Standing::of_draft(drafts.database.path(), &target.trust_domain).await?.beside(here);
        if origin.is_anothers() && !may_be_anothers {
            let [found, here] = [&origin.roots, &origin.roots_here].map(in_words);
            return Err(BackupError::OtherServer { found, here });
        }
        let keeps_keys = target.key_file.as_deref().is_none_or(|place| stopped.has(place));
        let evidence = Evidence::Restored { made_at: backup.made_at, revision: backup.datastore.revision };
        let (newer, not_carried) = newer(&target, &stopped, keeps_keys);
        let there = stopped.last_used().exists();
        let carried = in_draft(drafts.database.path(), &target.trust_domain, newer, evidence, now_unix).await?;
        let carried = Carried { not_carried, ..carried };
        let keeps_keys = carried.authorities == super::Authorities::OfHere;
        let aside = stopped.aside();
        drafts.put(stopped, &target, keeps_keys)?;
        let kept_as = there.then_some(aside);
        Ok(RestoreReport { dry_run: false, sealed, backup, origin, replaced, kept_as, carried: Some(carried) })
    }

    /// Writes the parts beside their places.
    fn unpack(self, stopped: &StoppedStore) -> Result<(Manifest, Drafts), BackupError> {
        let database = Unpacking::at(stopped.draft())?;
        let keys = self.target.key_file.as_deref().map(|path| Unpacking::at(beside_keys(path))).transpose()?;
        let (mut database, mut keys) = (database, keys);
        let path = self.path;
        let manifest = self.reading.parts(|part, piece| match (part.name, &mut keys) {
            (PartName::Datastore, _) => database.write(piece),
            (PartName::Keys, Some(keys)) => keys.write(piece),
            (PartName::Keys, None) => Err(BackupError::NoPlaceForKeys),
        })?;
        let has_keys = manifest.part(PartName::Keys).is_some();
        let keys = keys.filter(|_| has_keys).map(Unpacking::finish).transpose()?;
        let drafts = Drafts { database: database.finish()?, keys };
        if manifest.datastore.schema <= 0 {
            return Err(BackupError::damaged(path, "its manifest names no schema"));
        }
        Ok((manifest, drafts))
    }
}

/// What goes into place.
struct Drafts {
    database: Draft,
    keys: Option<Draft>,
}

impl Drafts {
    fn put(self, stopped: StoppedStore, target: &Target, keeps_keys: bool) -> Result<(), BackupError> {
        let keys = self.keys.as_ref().filter(|_| !keeps_keys).map(|draft| draft.path().to_owned());
        let keys = target.key_file.clone().map(|place| Belonging { place, new: keys });
        let others: Vec<_> = keys.into_iter().collect();
        stopped.replace(self.database.path(), &others).map_err(BackupError::Place)
    }
}

/// A directory for temporary files that is this process's alone; removed when this is dropped.
struct OwnDirectory(PathBuf);

impl OwnDirectory {
    /// Whatever stands in its place is somebody else's.
    fn make() -> Result<Self, BackupError> {
        let path = std::env::temp_dir().join(format!("ironroot-backup.{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(BackupError::io("make", &path))?;
        Ok(Self(path))
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A part that is being written.
struct Unpacking {
    draft: Draft,
    file: File,
}

impl Unpacking {
    fn at(path: PathBuf) -> Result<Self, BackupError> {
        Self::into(Draft::at(path.clone()).map_err(BackupError::io("write", &path))?)
    }

    fn into(draft: Draft) -> Result<Self, BackupError> {
        let file = draft.writer().map_err(BackupError::io("write", draft.path()))?;
        Ok(Self { draft, file })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(piece).map_err(BackupError::io("write", self.draft.path()))
    }

    fn finish(self) -> Result<Draft, BackupError> {
        self.file.sync_all().map_err(BackupError::io("write", self.draft.path()))?;
        Ok(self.draft)
    }
}

fn beside_keys(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".restored");
    path.with_file_name(name)
}

/// What is newer in the database that was here, or why that is not known. `with_journals`: the keys of its CA are here still.
fn newer(target: &Target, stopped: &StoppedStore, with_journals: bool) -> (Newer, Option<String>) {
    let last_used = stopped.last_used();
    if !last_used.exists() {
        return (Newer::default(), None);
    }
    match Newer::read(&last_used, &target.trust_domain, with_journals) {
        Ok(newer) => (newer, None),
        Err(error) => (Newer::default(), Some(describe(&error))),
    }
}

/// Makes today's tables of the draft's, and puts into it what is newer.
async fn in_draft(
    path: &Path,
    trust_domain: &TrustDomain,
    newer: Newer,
    evidence: Evidence,
    now_unix: i64,
) -> Result<Carried, BackupError> {
    let store = Store::open(path, trust_domain).map_err(BackupError::Place)?;
    let carried = newer.carry_into(&store, evidence, now_unix).await;
    store.close().await;
    sweep_beside(path);
    File::open(path).and_then(|file| file.sync_all()).map_err(BackupError::io("write", path))?;
    carried.map_err(BackupError::Place)
}

/// Removes what opening a draft has left beside it.
pub(super) fn sweep_beside(path: &Path) {
    for left in left_beside(path) {
        let _ = fs::remove_file(left);
    }
}

/// The draft's lock, and the copy that was made of it before its tables were brought to today's form.
fn left_beside(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let is_left = |other: &str| other.strip_prefix(name).is_some_and(|rest| rest == ".lock" || rest.starts_with(".v"));
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_left)).map(|entry| entry.path()).collect()
}
