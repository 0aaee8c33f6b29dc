//! A mark beside the database, on another path: how far it has come. A database that is put back does not take it along.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_text::HumanFile;
use ironroot_text::hex::hex;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info};

use crate::facts::older_state::Evidence;
use crate::store::{Facts, Follows, News, Store, StoreError};

/// Longest mark accepted, bytes: one has some 150.
pub const MAX_MARK_BYTES: usize = 4096;
/// A mark is written this often at most: what a machine that loses its power, and then its database, can lose unnoticed.
const INTERVAL: Duration = Duration::from_secs(1);
const MODE: u32 = 0o600;

/// How far a database had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    trust_domain: String,
    revision: i64,
    /// Of the change log's row of that revision, in hexadecimal.
    id: String,
}

/// Why a mark cannot be used.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum MarkError {
    #[error("cannot read the mark {path} (rollback_mark_path)")]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("cannot write the mark {path} (rollback_mark_path)")]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error(
        "{0} is no mark of an Ironroot server (rollback_mark_path): remove it if the database is the newest there is"
    )]
    Malformed(PathBuf),
    #[error(
        "the mark {path} (rollback_mark_path) belongs to trust domain {found:?}: give each server a mark of its own"
    )]
    OtherTrustDomain { path: PathBuf, found: String },
}

impl Mark {
    /// Of a database as it is now.
    pub fn of(facts: &Facts<'_>) -> Result<Self, StoreError> {
        let (revision, id) = facts.place()?;
        Ok(Self { trust_domain: facts.trust_domain().as_str().to_owned(), revision, id: hex(&id) })
    }

    /// The one at `path`; none if there is none.
    pub fn read(path: &Path, trust_domain: &TrustDomain) -> Result<Option<Self>, MarkError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(MarkError::Read { path: path.to_owned(), error }),
            Ok(_) => {}
        }
        let malformed = || MarkError::Malformed(path.to_owned());
        let file = HumanFile::regular(path, MAX_MARK_BYTES).map_err(|_| malformed())?;
        let mark: Self = serde_json::from_str(file.text()).map_err(|_| malformed())?;
        match mark.trust_domain == trust_domain.as_str() {
            true => Ok(Some(mark)),
            false => Err(MarkError::OtherTrustDomain { path: path.to_owned(), found: mark.trust_domain }),
        }
    }

    /// Puts it at `path`, on the disk on return.
    pub fn write(&self, path: &Path) -> Result<(), MarkError> {
        let written = replace(path, &serde_json::to_vec(self).expect("texts and numbers are JSON"));
        written.map_err(|error| MarkError::Write { path: path.to_owned(), error })
    }
}

/// What a mark says against a database, if it does.
pub fn outrun(mark: &Mark, path: &Path, facts: &Facts<'_>) -> Result<Option<Evidence>, StoreError> {
    let (revision, _) = facts.place()?;
    // A row that is gone was pruned: the database has come far beyond it.
    let is_same = mark.revision <= revision && facts.id_at(mark.revision)?.is_none_or(|id| hex(&id) == mark.id);
    let path = path.display().to_string();
    Ok((!is_same).then_some(Evidence::Mark { path, marked: mark.revision, revision }))
}

/// Writes the mark after each change, and at the beginning. Runs until dropped, or until the store is closed.
pub async fn keep_mark(store: Store, path: PathBuf) {
    let (changes, mut marks) = watch::channel(None);
    let follower = move |facts: &Facts<'_>, _: &News| {
        changes.send_replace(Some(Mark::of(facts)?));
        Ok(if changes.is_closed() { Follows::Ended } else { Follows::On })
    };
    if let Err(error) = store.follow(follower).await {
        error!(error = &error as &dyn std::error::Error, "the mark is not kept");
        return;
    }
    let mut was_written = true;
    loop {
        let mark = marks.borrow_and_update().clone();
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || mark.map_or(Ok(()), |mark| mark.write(&path))).await;
        let written = written.expect("writing a file does not panic");
        tell(&written, was_written);
        was_written = written.is_ok();
        tokio::time::sleep(INTERVAL).await;
        if was_written && marks.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn tell(written: &Result<(), MarkError>, was_written: bool) {
    match written {
        Err(error) if was_written => error!(
            error = error as &dyn std::error::Error,
            "the mark cannot be written: a database that is put back may go unnoticed"
        ),
        Ok(()) if !was_written => info!("the mark is written again"),
        _ => {}
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
