//! Everything behind the socket: open the TPM, publish what is cached, then keep in sync.

use std::sync::Arc;
use std::time::Duration;

use ironroot_attest::tpm::{Tpm, TpmAddress, TpmError, TpmSettings};
use ironroot_shell::describe;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{debug, error};

use crate::agent_key::{KeyPlace, KeyStore};
use crate::config::{AgentConfig, KeyManager, NodeAttestor, PasswordError};
use crate::identities::Identities;
use crate::node_attestation::{Attestor, remembered};
use crate::sealed_cache::SealedCache;
use crate::server_channel::Server;
use crate::sync::{Memory, Parts, Synchronizer, Wakes};
use crate::trusted_time::TrustedTime;

/// First pause before a missing TPM is looked for again; doubles up to [`LONGEST_TPM_PAUSE`].
const FIRST_TPM_PAUSE: Duration = Duration::from_millis(500);
/// See [`FIRST_TPM_PAUSE`].
const LONGEST_TPM_PAUSE: Duration = Duration::from_secs(30);

/// Lives until `stopping` says so. A TPM that is away is waited for: the socket serves nothing meanwhile.
pub(super) async fn live(
    config: AgentConfig,
    publisher: watch::Sender<Arc<Identities>>,
    time: TrustedTime,
    wakes: Wakes,
    mut stopping: watch::Receiver<bool>,
) {
    let begun = async {
        let tpm = match &config.tpm {
            Some(tpm) => Some(open_tpm(&tpm.address, &config).await),
            None => None,
        };
        let mut synchronizer = synchronizer(&config, tpm.as_ref(), publisher, time);
        synchronizer.restore().await;
        synchronizer
    };
    let synchronizer = tokio::select! {
        biased;
        _ = stopping.wait_for(|stop| *stop) => return,
        synchronizer = begun => synchronizer,
    };
    synchronizer.run(wakes).await;
}

async fn open_tpm(address: &TpmAddress, config: &AgentConfig) -> Tpm {
    let mut pause = FIRST_TPM_PAUSE;
    loop {
        let error = match try_open_tpm(address, config).await {
            Ok(opened) => {
                debug!(%address, "TPM opened");
                return opened;
            }
            Err(error) => error,
        };
        error!(error = %describe(&error), retry_ms = pause.as_millis() as u64, "cannot open the TPM");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_TPM_PAUSE);
    }
}

#[derive(Debug, Error)]
enum OpenError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

async fn try_open_tpm(address: &TpmAddress, config: &AgentConfig) -> Result<Tpm, OpenError> {
    let settings = tpm_settings(config)?.unwrap_or_else(|| TpmSettings::from(address.clone()));
    Ok(Tpm::open(settings).await?)
}

/// How an agent with this configuration works with its TPM, if it has one: passwords read, the endorsement key that the device is
/// known by looked up.
pub(crate) fn tpm_settings(config: &AgentConfig) -> Result<Option<TpmSettings>, PasswordError> {
    let Some(tpm) = &config.tpm else { return Ok(None) };
    Ok(Some(TpmSettings {
        endorsement: tpm.endorsement,
        remembered: remembered(&config.data_dir),
        owner_password: tpm.owner_password.read()?,
        endorsement_password: tpm.endorsement_password.read()?,
        sealing_bank: config.offline_cache.as_ref().and_then(|cache| cache.pcr_bank),
        ..TpmSettings::from(tpm.address.clone())
    }))
}

fn synchronizer(
    config: &AgentConfig,
    tpm: Option<&Tpm>,
    publisher: watch::Sender<Arc<Identities>>,
    time: TrustedTime,
) -> Synchronizer {
    let server = Server::new(&config.server_address, config.server_port, &config.trust_domain, time.clone());
    Synchronizer::new(Parts {
        trust_domain: config.trust_domain.clone(),
        server,
        bootstrap: config.bootstrap.clone(),
        attestor: attestor(config, tpm),
        keys: KeyStore::open(key_place(config, tpm)),
        memory: memory(config, tpm),
        time,
        sync_interval: config.sync_interval,
        max_age: config.offline_cache.as_ref().and_then(|cache| cache.max_age),
        allow_executable_only: config.workload_attestor.allow_executable_only,
        publisher,
    })
}

fn memory(config: &AgentConfig, tpm: Option<&Tpm>) -> Memory {
    match tpm.zip(config.offline_cache.as_ref()) {
        Some((tpm, cache)) => {
            Memory::sealed(SealedCache::new(tpm.clone(), &config.data_dir, cache.pcrs, cache.tpm_nv_index))
        }
        None => Memory::plain(config.data_dir.clone()),
    }
}

fn key_place(config: &AgentConfig, tpm: Option<&Tpm>) -> KeyPlace {
    match (&config.key_manager, tpm) {
        (KeyManager::Tpm, Some(tpm)) => KeyPlace::Tpm { tpm: tpm.clone(), directory: config.data_dir.clone() },
        (KeyManager::Disk { directory }, _) => KeyPlace::Disk { directory: directory.clone() },
        (KeyManager::Memory, _) | (KeyManager::Tpm, None) => KeyPlace::Memory,
    }
}

fn attestor(config: &AgentConfig, tpm: Option<&Tpm>) -> Attestor {
    match (&config.node_attestor, tpm) {
        (NodeAttestor::Tpm2, Some(tpm)) => Attestor::Tpm2 { tpm: tpm.clone(), directory: config.data_dir.clone() },
        (NodeAttestor::JoinToken(token), _) => Attestor::JoinToken(token.clone()),
        (NodeAttestor::Tpm2, None) => Attestor::JoinToken(None),
    }
}
