//! The issuance log of this server, open, and what is written into it besides what callers have done.

use std::collections::BTreeSet;
use std::path::Path;

use ironroot_shell::clock::wall_unix;
use tracing::error;

use super::{RunError, blocking};
use crate::ca::{Journal, Place, ServerName, Slot};
use crate::config::ServerConfig;
use crate::issuance_log::{DIRECTORY, Event, IssuanceLog, LogError};
use crate::store::{Changed, Facts, Follows, News, Store, StoreError};

/// Opens it. One that is broken is set aside, and another is begun, which every agent is told of: a server that signs nothing because of
/// its log helps nobody.
pub(super) async fn open_log(config: &ServerConfig, accepted: Option<u64>) -> Result<IssuanceLog, RunError> {
    let directory = config.data_dir.join(DIRECTORY);
    let log = blocking(move || open(&directory, accepted)).await?;
    if accepted.is_some() {
        let object = "an older state was accepted".to_owned();
        log.append(Event { method: "AcceptOlderState".to_owned(), object, by: "operator".to_owned() });
    }
    Ok(log)
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
