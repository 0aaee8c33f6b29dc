//! The issuance log of this server, open, and what is written into it besides what callers have done.

use std::collections::BTreeSet;
use std::path::Path;

use ironroot_shell::clock::wall_unix;
use tracing::error;

use super::{RunError, blocking};
use crate::ca::{Journal, Place, ServerName, Slot};
use crate::config::ServerConfig;
use crate::issuance_log::{DIRECTORY, Event, ID_FILE_NAME, IssuanceLog, LogError};
use crate::store::{Changed, Facts, Follows, News, Store, StoreError};

/// Opens it. One that is broken is set aside, and another is begun, which every agent is told of: a server that signs nothing because of
/// its log helps nobody.
pub(super) async fn open_log(config: &ServerConfig, accepted: Option<u64>) -> Result<IssuanceLog, RunError> {
    let directory = config.data_dir.join(DIRECTORY);
    if is_missing(&config.data_dir) {
        error!(directory = %directory.display(), "the issuance log is missing, though this server has had one (issuance.id is there): is its disk mounted, was it removed? It is begun anew, and what was issued before is in no log of this server");
    }
    let log = blocking(move || open(&directory, accepted)).await?;
    if accepted.is_some() {
        let object = "an older state was accepted".to_owned();
        log.append(Event { method: "AcceptOlderState".to_owned(), object, by: "operator".to_owned() });
    }
    Ok(log)
}

/// Its ID is made once the log is open for the first time.
fn is_missing(data_dir: &Path) -> bool {
    let mut segments = std::fs::read_dir(data_dir.join(DIRECTORY)).into_iter().flatten();
    data_dir.join(ID_FILE_NAME).exists() && segments.next().is_none()
}

fn open(directory: &Path, accepted: Option<u64>) -> Result<IssuanceLog, LogError> {
    match IssuanceLog::open(directory, accepted) {
        Err(broken @ (LogError::Broken { .. } | LogError::Gap(_))) => {
            let mut aside = directory.as_os_str().to_owned();
            aside.push(format!(".broken-{}", wall_unix()));
            error!(error = &broken as &dyn std::error::Error, aside = %Path::new(&aside).display(), "the issuance log is set aside and begun anew");
            std::fs::rename(directory, &aside).map_err(|error| LogError::Io {
                doing: "set aside",
                path: directory.to_owned(),
                error,
            })?;
            IssuanceLog::open(directory, Some(accepted.unwrap_or_default()))
        }
        opened => opened,
    }
}

/// Has the log follow the data store: how far it has come, before anybody is answered; and what the CA does by itself, each authority of its
/// journal when it comes to another state.
pub(super) async fn log_authorities(store: &Store, log: IssuanceLog, server: ServerName) -> Result<(), StoreError> {
    let mut known = BTreeSet::new();
    let follower = move |facts: &Facts<'_>, news: &News| {
        log.data_store_at(facts.place()?.0);
        if matches!(news, News::Everything) || news.names(&Changed::CaJournal) {
            let now = authorities(facts, &server)?;
            now.difference(&known).for_each(|object| log.append(authority(object)));
            known = now;
        }
        Ok(Follows::On)
    };
    store.follow(follower).await
}

fn authorities(facts: &Facts<'_>, server: &ServerName) -> Result<BTreeSet<String>, StoreError> {
    let journal = facts.ca_journal(server.as_str())?;
    let journal = journal.and_then(|bytes| Journal::from_bytes(&bytes, facts.trust_domain(), server).ok());
    let told = |journal: &Journal, place: Place| {
        let slot = journal.slot(place);
        let state = match slot {
            Slot::Prepared(_) => "prepared",
            Slot::Active(_) => "active",
            _ => "old",
        };
        slot.authority().map(|authority| format!("{place} {} {state}", authority.credential.id()))
    };
    Ok(journal.iter().flat_map(|journal| Place::all().filter_map(|place| told(journal, place))).collect())
}

fn authority(object: &str) -> Event {
    Event { method: "Authority".to_owned(), object: object.to_owned(), by: "this server".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_there_and_is_not_is_missing_and_one_that_never_was_is_not() {
        let data_dir = tempfile::tempdir().expect("directory");
        assert!(!is_missing(data_dir.path()), "a first start");
        IssuanceLog::open(&data_dir.path().join(DIRECTORY), None).expect("begun");
        crate::issuance_log::log_id(data_dir.path()).expect("made");
        assert!(!is_missing(data_dir.path()));
        std::fs::remove_dir_all(data_dir.path().join(DIRECTORY)).expect("removed");
        assert!(is_missing(data_dir.path()));
    }
}
