//! The data store and the CA, once nothing speaks for it that they are older than what was here before, or an operator has accepted that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ironroot_shell::clock::wall_unix;
use ironroot_shell::health::Ready;
use ironroot_shell::process::supervisor;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::doors::Doors;
use super::open_keys::open_keys;
use super::{RunError, blocking, ca_policy, part, upstream};
use crate::ca::{CertificateAuthority, KeptNameError, Rotation, ServerName, check_kept_name, keep_name};
use crate::clock::ClockSource;
use crate::config::ServerConfig;
use crate::endpoints;
use crate::facts::older_state::{Evidence, OlderState};
use crate::federation::Federation;
use crate::issuance_log::{DIRECTORY, Newest, read_newest};
use crate::keys::KeyManagers;
use crate::older_state::{Mark, RecoveredBans, note_of_mark, outrun, recover_bans};
use crate::registry::Registry;
use crate::store::{Location, Store, StoreError, Transaction};

/// How often it is looked whether the operator has spoken.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the server begins with.
pub(super) struct Settled {
    pub(super) store: Store,
    pub(super) registry: Arc<Registry>,
    pub(super) federation: Arc<Federation>,
    pub(super) keys: KeyManagers,
    pub(super) ca: Arc<CertificateAuthority>,
    pub(super) rotation: Rotation,
    /// Whether it begins with an older state that was accepted: up to which epoch heads of the issuance log count no more.
    pub(super) accepted: Option<u64>,
}

/// Opens all of it. While an older state waits for the operator's word, `doors` are shut, but for the question whether the server is
/// ready, and others come back.
pub(super) async fn settle(config: &ServerConfig, mut doors: Doors) -> Result<(Doors, Settled), RunError> {
    let (mut keys, mut waited) = (None, None);
    about_name(config, check_kept_name).await?;
    loop {
        let store = open_store(config).await?;
        let noted = store.change::<_, StoreError>(|tx| tx.older_state()).await?;
        if store.is_shared() && noted.is_none() && waited.is_none() {
            waited = accepted_while_away(config, &store).await?;
        }
        let older = match noted {
            // Another server has begun with it already.
            None if store.is_shared() && waited.is_some() => waited.clone().map(|(older, _)| accepted_for_all(older)),
            None => look_beside(config, &store).await?,
            older => older,
        };
        let accepted = older.as_ref().and_then(OlderState::given_up_epoch);
        let (revision, _) = store.change::<_, StoreError>(|tx| tx.place()).await?;
        let before = waited.take().or_else(|| older.clone().map(|older| (older, revision)));
        if let (Some(_), Some(before)) = (accepted, before.filter(|_| store.is_shared())) {
            give_own_bans(config, &store, before).await?;
        }
        let waiting = match older.filter(OlderState::waits) {
            Some(waiting) => waiting,
            None => match begin(config, &store, &mut keys, accepted).await? {
                Begun::Whole(settled) => {
                    about_name(config, keep_name).await?;
                    return Ok((doors, *settled));
                }
                Begun::Older(evidence) => note(&store, evidence).await?,
            },
        };
        let (revision, _) = store.change::<_, StoreError>(|tx| tx.place()).await?;
        store.close().await;
        doors = wait(config, doors, &waiting).await?;
        waited = Some((waiting, revision));
    }
}

/// A file of SQLite has one server, and knows its name itself.
async fn about_name(
    config: &ServerConfig,
    does: fn(&Path, &ServerName) -> Result<(), KeptNameError>,
) -> Result<(), RunError> {
    let (data_dir, server) = (config.data_dir.clone(), config.server_name.clone());
    match config.data_store {
        Location::Sqlite(_) => Ok(()),
        Location::Postgres(_) => Ok(blocking(move || does(&data_dir, &server)).await?),
    }
}

/// An older state that was accepted after the newest record of this server's log, and how far the database had come then: what this
/// server has issued since the history was lost is of before that word, and makes no other server wait once more.
async fn accepted_while_away(config: &ServerConfig, store: &Store) -> Result<Option<(OlderState, i64)>, RunError> {
    let Some((older, revision)) = store.change::<_, StoreError>(|tx| tx.settled_older_state()).await? else {
        return Ok(None);
    };
    let newest_and_word = newest_record(config).await.zip(older.accepted_at);
    let was_away = newest_and_word.is_some_and(|(newest, accepted_at)| newest.at < accepted_at);
    if !was_away {
        return Ok(None);
    }
    warn!(evidence = %older.evidence, "an older state was accepted while this server was away: it goes on with that");
    Ok(Some((older, revision)))
}

/// A log that cannot be read says nothing: it is told and set aside when it is opened.
async fn newest_record(config: &ServerConfig) -> Option<Newest> {
    let directory = config.data_dir.join(DIRECTORY);
    blocking(move || read_newest(&directory)).await.unwrap_or_default()
}

/// The word that was given at one of the servers is all servers'.
fn accepted_for_all(waited: OlderState) -> OlderState {
    OlderState { accepted_at: Some(wall_unix()), ..waited }
}

/// Whoever gave the word at one server has read that one's log alone.
async fn give_own_bans(
    config: &ServerConfig,
    store: &Store,
    (older, revision): (OlderState, i64),
) -> Result<(), RunError> {
    let directory = config.data_dir.join(DIRECTORY);
    let (bans, not_read) = recover_bans(store, &directory, (revision, &older.evidence), wall_unix()).await?;
    let RecoveredBans { agents, devices } = bans;
    if !agents.is_empty() || !devices.is_empty() {
        warn!(?agents, ?devices, "banned again, as this server's issuance log has it");
    }
    if let Some(why) = not_read {
        warn!(why, "the issuance log cannot be read: bans given at this server since must be given again");
    }
    Ok(())
}

/// The server has begun with what was accepted, and its issuance log with another epoch, on the disk: a start that is cut off before begins
/// with it once more.
pub(super) async fn end(store: &Store, accepted: Option<u64>) -> Result<(), StoreError> {
    if accepted.is_none() {
        return Ok(());
    }
    store.change::<_, StoreError>(|tx| tx.settle_older_state()).await?;
    warn!(
        "an older state was accepted: agents that it does not know attest anew; of the bans given since it was current it has those that were carried over or that the issuance log had, and no others"
    );
    Ok(())
}

enum Begun {
    Whole(Box<Settled>),
    Older(Evidence),
}

async fn begin(
    config: &ServerConfig,
    store: &Store,
    opened: &mut Option<KeyManagers>,
    accepted: Option<u64>,
) -> Result<Begun, RunError> {
    let registry = Arc::new(Registry::load(store.clone()).await?);
    let federation = Arc::new(Federation::load_beside(store.clone(), config.federation.federates_with.clone()).await?);
    let keys = match opened {
        Some(keys) => keys.clone(),
        None => opened.insert(open_keys(&config.key_managers).await?).clone(),
    };
    let (policy, upstream) = (ca_policy(config, accepted.is_some()), upstream(config));
    let has_journal = store.ca_journal(config.server_name.as_str()).await?.is_some();
    let started =
        CertificateAuthority::start(keys.clone(), store.clone(), policy, upstream, ClockSource::of_this_machine())
            .await;
    let (ca, rotation) = match started {
        Ok(started) => started,
        // Without a journal nothing is older: it is another server's token, or the database is not there.
        Err(error) => match error.shows_an_older_journal().filter(|_| has_journal && accepted.is_none()) {
            Some(evidence) => return Ok(Begun::Older(evidence)),
            None => return Err(error.into()),
        },
    };
    let ca = Arc::new(ca);
    Ok(Begun::Whole(Box::new(Settled { store: store.clone(), registry, federation, keys, ca, rotation, accepted })))
}

async fn open_store(config: &ServerConfig) -> Result<Store, RunError> {
    let (location, trust_domain) = (config.data_store.clone(), config.trust_domain.clone());
    let store = blocking(move || location.open(&trust_domain)).await?;
    store.claim(config.server_name.as_str()).await?;
    Ok(store)
}

/// What stands beside the database and speaks against it: the mark, or the log of what was issued.
async fn look_beside(config: &ServerConfig, store: &Store) -> Result<Option<OlderState>, RunError> {
    match look_at_mark(config, store).await? {
        None => look_at_log(config, store).await,
        older => Ok(older),
    }
}

/// A database without a CA is no older one.
async fn look_at_log(config: &ServerConfig, store: &Store) -> Result<Option<OlderState>, RunError> {
    let logged = newest_record(config).await.and_then(|newest| newest.revision);
    let server = config.server_name.as_str().to_owned();
    let place = move |tx: &Transaction<'_>| Ok((tx.ca_journal(&server)?.is_some(), tx.place()?.0));
    let (has_journal, revision) = store.change::<_, StoreError>(place).await?;
    match logged.filter(|logged| has_journal && *logged > revision) {
        Some(logged) => note(store, Evidence::Log { logged, revision }).await.map(Some),
        None => Ok(None),
    }
}

/// What the mark says, if there is one. It is written when the server has begun.
async fn look_at_mark(config: &ServerConfig, store: &Store) -> Result<Option<OlderState>, RunError> {
    let Some(path) = config.rollback_mark.clone() else { return Ok(None) };
    let Some(mark) = Mark::expected(&path, &note_of_mark(&config.data_dir), &config.trust_domain)? else {
        info!(path = %path.display(), "there is no mark of how far the database had come; one is begun");
        return Ok(None);
    };
    let outrun = store.change::<_, StoreError>(move |tx| outrun(&mark, &path, tx)).await?;
    match outrun {
        Some(evidence) => note(store, evidence).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn note(store: &Store, evidence: Evidence) -> Result<OlderState, RunError> {
    let noticed_at = wall_unix();
    let noted = evidence.clone();
    store.change::<_, StoreError>(move |tx| tx.note_older_state(&noted, noticed_at)).await?;
    Ok(OlderState { noticed_at, evidence, accepted_at: None })
}

/// Answers that the server is not ready, and why, until the operator has accepted the state. Agents find nobody, as while the server is
/// off: they keep what they have.
async fn wait(config: &ServerConfig, doors: Doors, waiting: &OlderState) -> Result<Doors, RunError> {
    let reason = waiting.to_string();
    error!(reason, "server waits for the operator's word");
    supervisor::started(&reason);
    let Doors { tcp, address: _, admin, health, endpoint, discovery, exchange } = doors;
    drop((tcp, endpoint, discovery, exchange));
    let ready: Ready = Arc::new(move || Some(reason.clone()));
    let (stop, stopped) = watch::channel(false);
    let mut background = JoinSet::new();
    let local = part("the admin endpoint", endpoints::serve_waiting(admin, ready.clone(), stopped));
    background.spawn(async move {
        let _ = local.await;
    });
    if let Some(health) = health {
        background.spawn(health.serve("server", ready));
    }
    background.spawn(supervisor::feed_watchdog());
    while is_waiting(config).await {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    stop.send_replace(true);
    background.shutdown().await;
    info!("the older state was accepted");
    Doors::open(config).await
}

/// Also while the database cannot be read: somebody is replacing it.
async fn is_waiting(config: &ServerConfig) -> bool {
    let (location, trust_domain) = (config.data_store.clone(), config.trust_domain.clone());
    let read = blocking(move || location.older_state(&trust_domain)).await;
    read.map_or(true, |older| older.is_some_and(|older| older.waits()))
}
