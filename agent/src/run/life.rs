//! Everything behind the socket: open the TPM, publish what is cached, then keep in sync.

use std::sync::Arc;
use std::time::Duration;

use ironroot_attest::tpm::{Tpm, TpmError, TpmSettings};
use ironroot_shell::describe;
use ironroot_shell::process::supervisor;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{debug, error};

use crate::agent_key::{KeyPlace, KeyStore};
use crate::config::{AgentConfig, KeyManager, PasswordError, TpmConfig};
use crate::counted::Counted;
use crate::identities::Identities;
use crate::issuance_heads::IssuanceHeads;
use crate::node_attestation::{Attestor, remembered};
use crate::report::Report;
use crate::sealed_cache::SealedCache;
use crate::server_channel::{Channel, Server};
use crate::sync::{Memory, Parts, Synchronizer, Wakes};
use crate::trusted_time::TrustedTime;

/// First pause before a missing TPM is looked for again; doubles up to [`LONGEST_TPM_PAUSE`].
const FIRST_TPM_PAUSE: Duration = Duration::from_millis(500);
/// See [`FIRST_TPM_PAUSE`].
const LONGEST_TPM_PAUSE: Duration = Duration::from_secs(30);

/// What the endpoints follow.
pub(super) struct Published {
    /// What may be served.
    pub identities: watch::Sender<Arc<Identities>>,
    /// What the loop says of itself.
    pub reporter: watch::Sender<Report>,
    /// The connection to the server.
    pub link: watch::Sender<Option<Channel>>,
    /// What the loop counts of itself.
    pub counted: Arc<Counted>,
}

/// Lives until `stopping` says so. A TPM that is away is waited for: the socket serves nothing meanwhile.
pub(super) async fn live(
    config: AgentConfig,
    published: Published,
    time: TrustedTime,
    wakes: Wakes,
    mut stopping: watch::Receiver<bool>,
) {
    let begun = async {
        let mut synchronizer = synchronizer(&config, published, time).await;
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

/// The open chips, each opened when it is first needed: one for all its users.
struct Chips<'a> {
    config: &'a AgentConfig,
    opened: Vec<(&'a TpmConfig, Tpm)>,
}

impl<'a> Chips<'a> {
    fn of(config: &'a AgentConfig) -> Self {
        Self { config, opened: Vec::new() }
    }

    async fn open(&mut self, tpm: &'a TpmConfig) -> Tpm {
        if let Some((_, opened)) = self.opened.iter().find(|(known, _)| *known == tpm) {
            return opened.clone();
        }
        let opened = open_tpm(tpm, self.config).await;
        self.opened.push((tpm, opened.clone()));
        opened
    }
}

async fn open_tpm(tpm: &TpmConfig, config: &AgentConfig) -> Tpm {
    let mut pause = FIRST_TPM_PAUSE;
    loop {
        let error = match try_open_tpm(tpm, config).await {
            Ok(opened) => {
                debug!(address = %tpm.address, "TPM opened");
                supervisor::status(&super::serving(config));
                return opened;
            }
            Err(error) => describe(&error),
        };
        error!(%error, retry_ms = pause.as_millis() as u64, "cannot open the TPM");
        supervisor::status(&format!("waiting for the TPM: {error}"));
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

async fn try_open_tpm(tpm: &TpmConfig, config: &AgentConfig) -> Result<Tpm, OpenError> {
    Ok(Tpm::open(tpm_settings(tpm, config)?).await?)
}

/// How an agent with this configuration works with its TPM: passwords read, the endorsement key that the device is known by
/// looked up.
pub(crate) fn tpm_settings(tpm: &TpmConfig, config: &AgentConfig) -> Result<TpmSettings, PasswordError> {
    Ok(TpmSettings {
        endorsement: tpm.endorsement,
        remembered: remembered(&config.data_dir),
        owner_password: tpm.owner_password.read()?,
        endorsement_password: tpm.endorsement_password.read()?,
        sealing_bank: config.offline_cache.as_ref().and_then(|cache| cache.pcr_bank),
        ..TpmSettings::from(tpm.address.clone())
    })
}

async fn synchronizer(config: &AgentConfig, published: Published, time: TrustedTime) -> Synchronizer {
    let mut chips = Chips::of(config);
    let server = Server::new(&config.server_address, config.server_port, &config.trust_domain, time.clone());
    Synchronizer::new(Parts {
        trust_domain: config.trust_domain.clone(),
        server,
        bootstrap: config.bootstrap.clone(),
        attestor: attestor(config, &mut chips).await,
        keys: KeyStore::open(key_place(config, &mut chips).await),
        memory: memory(config, &mut chips).await,
        heads: IssuanceHeads::open(&config.data_dir),
        time,
        sync_interval: config.sync_interval,
        max_age: config.offline_cache.as_ref().and_then(|cache| cache.max_age),
        allow_executable_only: config.workload_attestor.allow_executable_only,
        wit_svids: config.wit_svids,
        publisher: published.identities,
        reporter: published.reporter,
        link: published.link,
        counted: published.counted,
    })
}

async fn memory<'a>(config: &'a AgentConfig, chips: &mut Chips<'a>) -> Memory {
    let Some(cache) = &config.offline_cache else { return Memory::plain(config.data_dir.clone()) };
    let tpm = chips.open(&cache.tpm).await;
    Memory::sealed(SealedCache::new(tpm, &config.data_dir, cache.pcrs, cache.tpm_nv_index))
}

async fn key_place<'a>(config: &'a AgentConfig, chips: &mut Chips<'a>) -> KeyPlace {
    match &config.key_manager {
        KeyManager::Tpm(tpm) => KeyPlace::Tpm { tpm: chips.open(tpm).await, directory: config.data_dir.clone() },
        KeyManager::Token { token, label } => {
            KeyPlace::Token { token: token.clone(), label: label.clone(), directory: config.data_dir.clone() }
        }
        KeyManager::Disk { directory } => KeyPlace::Disk { directory: directory.clone() },
        KeyManager::Memory => KeyPlace::Memory,
    }
}

async fn attestor<'a>(config: &'a AgentConfig, chips: &mut Chips<'a>) -> Attestor {
    config.node_attestor.open(&config.data_dir, move |tpm| chips.open(tpm)).await
}
