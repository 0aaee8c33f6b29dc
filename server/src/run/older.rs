//! An older state that is noticed while the server runs. The server ends, and its next start waits for the operator's word.

use ironroot_shell::clock::wall_unix;
use tokio::sync::watch;
use tracing::error;

use super::{RunError, settled};
use crate::config::ServerConfig;
use crate::endpoints::Heads;
use crate::facts::older_state::{Evidence, OlderState};
use crate::store::{Changed, Facts, Follows, News, Store, StoreError};

/// Waits until an agent shows it, until the database has another history than the one that was followed, or until another server
/// says it.
pub(super) async fn noticed(config: &ServerConfig, store: &Store, heads: &Heads) -> Result<OlderState, RunError> {
    let began = wall_unix();
    tokio::select! {
        evidence = heads.contradicted() => settled::note(store, evidence).await,
        evidence = store.went_back() => Ok(lost(config, evidence, began).await),
        older = another_says(store) => Ok(older?),
    }
}

/// The store that has followed the other history writes no more: another connection notes it, so that all servers wait. Where that
/// fails, each of them still has what it followed. `began`: when this server did.
async fn lost(config: &ServerConfig, evidence: Evidence, began: i64) -> OlderState {
    match note_anew(config, evidence.clone(), began).await {
        Ok(older) => older,
        Err(why) => {
            error!(error = &why as &dyn std::error::Error, "that the database went back could not be written into it");
            OlderState { noticed_at: wall_unix(), evidence, accepted_at: None }
        }
    }
}

async fn note_anew(config: &ServerConfig, evidence: Evidence, began: i64) -> Result<OlderState, RunError> {
    let (location, trust_domain) = (config.data_store.clone(), config.trust_domain.clone());
    let store = super::blocking(move || location.open(&trust_domain)).await?;
    let noted = match accepted_since(&store, began).await {
        Ok(Some(accepted_at)) => Ok(OlderState { noticed_at: wall_unix(), evidence, accepted_at: Some(accepted_at) }),
        Ok(None) => settled::note(&store, evidence).await,
        Err(error) => Err(error.into()),
    };
    store.close().await;
    noted
}

/// When an older state was accepted, if that was after this server began: then it was cut off while the others heard of it, and what it
/// followed is of before.
async fn accepted_since(store: &Store, began: i64) -> Result<Option<i64>, StoreError> {
    let accepted = store.change::<_, StoreError>(|tx| {
        let settled = tx.settled_older_state()?.map(|(older, _)| older);
        Ok(settled.or(tx.older_state()?).and_then(|older| older.accepted_at))
    });
    Ok(accepted.await?.filter(|accepted_at| *accepted_at > began))
}

async fn another_says(store: &Store) -> Result<OlderState, StoreError> {
    let (said, mut older) = watch::channel(None);
    let follower = move |facts: &Facts<'_>, news: &News| {
        //= FLT-S28 server faults: "every server of the database waits"
        if matches!(news, News::Everything) || news.names(&Changed::OlderState) {
            said.send_replace(facts.older_state()?.filter(OlderState::waits));
        }
        Ok(if said.is_closed() { Follows::Ended } else { Follows::On })
    };
    store.follow(follower).await?;
    loop {
        if let Some(older) = older.borrow_and_update().clone() {
            return Ok(older);
        }
        if older.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
