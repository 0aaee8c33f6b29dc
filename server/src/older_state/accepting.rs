//! The operator's word: the older state is what there is.

use std::path::Path;

use ironroot_shell::command_line::describe;
use serde::Serialize;
use thiserror::Error;

use super::bans::{LoggedBans, Past, RecoveredBans};
use super::mark::{Mark, MarkError};
use crate::facts::older_state::{Evidence, OlderState};
use crate::registry::{Registry, RegistryError};
use crate::store::{Store, StoreError};

/// What was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// How it was known that the state is older: the rest of a sentence that begins with "the database".
    pub evidence: String,
    /// How many join tokens are good no more: some of them may have been used.
    pub burnt_join_tokens: usize,
    /// Bans that the issuance log has and the older state did not.
    pub recovered_bans: RecoveredBans,
    /// Why the log said nothing of bans, if it could not be read.
    pub log_not_read: Option<String>,
}

/// Why nothing was accepted.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum AcceptError {
    #[error("no older state waits to be accepted")]
    NothingWaits,
    #[error("the data store cannot be used")]
    Store(#[from] StoreError),
    #[error("the registry cannot be used")]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Mark(#[from] MarkError),
}

/// Accepts the state that `store` has and waits with, burns its join tokens, and gives bans again that the log in `issuance` has. `mark`:
/// where one is kept; it goes back too.
pub async fn accept(
    store: &Store,
    mark: Option<&Path>,
    issuance: &Path,
    now_unix: i64,
) -> Result<Accepted, AcceptError> {
    let waiting = store.change::<_, StoreError>(|tx| tx.older_state()).await?.filter(OlderState::waits);
    let Some(OlderState { evidence, .. }) = waiting else { return Err(AcceptError::NothingWaits) };
    // First, since what follows lets the server go on.
    let (revision, _) = store.change::<_, StoreError>(|tx| tx.place()).await?;
    let (recovered_bans, log_not_read) = recover_bans(store, issuance, (revision, &evidence), now_unix).await?;
    let burnt_join_tokens = Registry::load(store.clone()).await?.prune_join_tokens(i64::MAX).await?;
    store.change::<_, StoreError>(move |tx| tx.accept_older_state(now_unix)).await?;
    if let Some(path) = mark {
        store.change::<_, StoreError>(|tx| Mark::of(tx)).await?.write(path)?;
    }
    Ok(Accepted { evidence: evidence.to_string(), burnt_join_tokens, recovered_bans, log_not_read })
}

/// Gives bans again that the log in `issuance` has, to a database that had come to that revision when it was known by that evidence to be
/// older. Why the log said nothing, if it could not be read.
pub async fn recover_bans(
    store: &Store,
    issuance: &Path,
    (revision, evidence): (i64, &Evidence),
    now_unix: i64,
) -> Result<(RecoveredBans, Option<String>), StoreError> {
    let (issuance, past) = (issuance.to_owned(), Past::of(revision, evidence));
    let read = tokio::task::spawn_blocking(move || LoggedBans::since(&issuance, past)).await;
    match read.expect("reading a log does not panic") {
        Ok(bans) => Ok((store.change(move |tx| bans.give(tx, now_unix)).await?, None)),
        Err(error) => Ok((RecoveredBans::default(), Some(describe(&error)))),
    }
}
