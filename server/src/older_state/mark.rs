//! A mark beside the database, on another path: how far it has come. A database that is put back does not take it along.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_shell::durable_file;
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
    #[error(
        "the mark {path} (rollback_mark_path) is gone: is the disk that it is on mounted? If it is lost and the database is the newest there is, \
         remove {note}, and another mark is begun"
    )]
    Gone { path: PathBuf, note: PathBuf },
    #[error("cannot note in {note} that there is a mark (rollback_mark_path)")]
    Note {
        note: PathBuf,
        #[source]
        error: io::Error,
    },
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

    /// The one at `path`, or none where none was begun yet. One that was, as `note` says beside the database, and is not there is an error:
    /// a disk that is not mounted must not look like a new one.
    pub fn expected(path: &Path, note: &Path, trust_domain: &TrustDomain) -> Result<Option<Self>, MarkError> {
        let was_begun = fs::read(note).is_ok_and(|begun| begun == path.as_os_str().as_encoded_bytes());
        match Self::read(path, trust_domain)? {
            None if was_begun => Err(MarkError::Gone { path: path.to_owned(), note: note.to_owned() }),
            mark => Ok(mark),
        }
    }

    /// Puts it at `path`, on the disk on return.
    pub fn write(&self, path: &Path) -> Result<(), MarkError> {
        let written = durable_file::replace(path, &serde_json::to_vec(self).expect("texts and numbers are JSON"), MODE);
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

/// Where it is noted, in the server's directory, which mark was begun.
pub fn note_of_mark(data_dir: &Path) -> PathBuf {
    data_dir.join("rollback-mark-begun")
}

/// Writes the mark after each change, and at the beginning; and, once it is there, that it is into `note`. Runs until dropped, or until the
/// store is closed.
pub async fn keep_mark(store: Store, path: PathBuf, note: PathBuf) {
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
        let (path, note) = (path.clone(), note.clone());
        let write = move || mark.map_or(Ok(()), |mark| mark.write(&path).and_then(|()| note_begun(&path, &note)));
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.expect("writing a file does not panic");
        tell(&written, was_written);
        was_written = written.is_ok();
        tokio::time::sleep(INTERVAL).await;
        if was_written && marks.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn note_begun(path: &Path, note: &Path) -> Result<(), MarkError> {
    let path = path.as_os_str().as_encoded_bytes();
    if fs::read(note).is_ok_and(|begun| begun == path) {
        return Ok(());
    }
    durable_file::replace(note, path, MODE).map_err(|error| MarkError::Note { note: note.to_owned(), error })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_was_begun_and_is_gone_is_told_and_not_begun_anew() {
        let (marks, data) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let (path, note) = (marks.path().join("mark.json"), note_of_mark(data.path()));
        let trust_domain = TrustDomain::new("td").expect("legal");
        let expected = |path: &Path| Mark::expected(path, &note, &trust_domain);
        assert_eq!(expected(&path).expect("none was begun"), None);
        let mark = Mark { trust_domain: "td".to_owned(), revision: 7, id: "00".to_owned() };
        mark.write(&path).and_then(|()| note_begun(&path, &note)).expect("begun");
        assert_eq!(expected(&path).expect("there"), Some(mark));
        fs::remove_file(&path).expect("removed");
        let gone = expected(&path).expect_err("not mounted");
        assert!(matches!(gone, MarkError::Gone { .. }) && gone.to_string().contains("mounted?"), "{gone}");
        assert_eq!(expected(&marks.path().join("another")).expect("another was not begun"), None);
        fs::remove_file(&note).expect("removed");
        assert_eq!(expected(&path).expect("begun anew"), None);
    }
}
