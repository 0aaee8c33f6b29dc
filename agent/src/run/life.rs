//! Everything behind the socket: open the TPM, publish what is cached, then keep in sync.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ironroot_attest::tpm::{Tpm, TpmError, TpmSettings};
use ironroot_shell::describe;
use ironroot_shell::process::supervisor;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::agent_key::{KeyOf, KeyPlace, KeyStore};
use crate::config::{AgentConfig, KeyManager, PasswordError, ServerConfig, TpmConfig};
use crate::counted::Counted;
use crate::identities::Identities;
use crate::issuance_heads::IssuanceHeads;
use crate::local_authority::{LocalAuthority, TokenSigner};
use crate::node_attestation::{Attestor, remembered};
use crate::own_certificate::OwnCertificate;
use crate::report::Report;
use crate::sealed_cache::SealedCache;
use crate::server_channel::{Channel, Server};
use crate::server_number::ServerNumber;
use crate::sync::{Memory, Parts, Synchronizer, Wakes};
use crate::trusted_time::TrustedTime;
use crate::union::Bans;

/// First pause before a missing TPM is looked for again; doubles up to [`LONGEST_TPM_PAUSE`].
const FIRST_TPM_PAUSE: Duration = Duration::from_millis(500);
/// A chip that says nothing for so long is said to: a command may take minutes, and until then nobody would know why nothing happens.
const SILENT_TPM: Duration = Duration::from_secs(5);
/// See [`FIRST_TPM_PAUSE`].
const LONGEST_TPM_PAUSE: Duration = Duration::from_secs(30);

/// What the loop of one server tells, and what it hears.
pub(super) struct Ends {
    /// What may be served.
    pub identities: watch::Sender<Arc<Identities>>,
    /// What the loop says of itself.
    pub reporter: watch::Sender<Report>,
    /// The connection to the server.
    pub link: watch::Sender<Option<Channel>>,
    /// What signs JWT-SVIDs here while the server is away.
    pub local_tokens: watch::Sender<Option<TokenSigner>>,
    /// What is known of the time, by what this server says.
    pub time: TrustedTime,
    /// What wakes the loop.
    pub wakes: Wakes,
    /// Where the agent's certificate is found by what serves with it.
    pub shown: OwnCertificate,
}

/// What the loops of all servers share.
#[derive(Clone)]
pub(super) struct Shared {
    /// What the loops count of themselves.
    pub counted: Arc<Counted>,
    /// Which servers ban the agent.
    pub bans: Bans,
}

/// Lives until `stopping` says so: one loop for each server, in their order. A TPM that is away is waited for: the socket serves
/// nothing meanwhile. A loop that ends before is told by `broken`: the others go on until `stopping` says so, and keep what they have.
pub(super) async fn live(
    config: AgentConfig,
    ends: Vec<Ends>,
    shared: Shared,
    mut stopping: watch::Receiver<bool>,
    broken: watch::Sender<bool>,
) {
    let begun = async {
        let reporters = ends.iter().map(|ends| ends.reporter.clone()).collect();
        let (mut chips, mut loops) = (Chips::of(&config, reporters), Vec::new());
        let numbers = ServerNumber::up_to(config.servers.len());
        for ((server, number), ends) in config.servers.iter().zip(numbers).zip(ends) {
            loops.push(synchronizer((&config, server, number), &mut chips, ends, &shared).await);
        }
        // What each has kept is published before any server is asked.
        for (synchronizer, _) in &mut loops {
            synchronizer.restore().await;
        }
        loops
    };
    let loops = tokio::select! {
        biased;
        _ = stopping.wait_for(|stop| *stop) => return,
        loops = begun => loops,
    };
    until_all_end(loops.into_iter().map(|(synchronizer, wakes)| synchronizer.run(wakes)).collect(), &stopping, &broken)
        .await;
}

async fn until_all_end(mut running: JoinSet<()>, stopping: &watch::Receiver<bool>, broken: &watch::Sender<bool>) {
    while let Some(ended) = running.join_next().await {
        if ended.is_err() || !*stopping.borrow() {
            broken.send_replace(true);
        }
    }
}

/// The open chips, each opened when it is first needed: one for all its users.
struct Chips<'a> {
    config: &'a AgentConfig,
    opened: Vec<(&'a TpmConfig, Tpm)>,
    /// Who asks how the agent is while it waits for a chip, is told of that; each loop tells afterwards for itself.
    reporters: Vec<watch::Sender<Report>>,
}

impl<'a> Chips<'a> {
    fn of(config: &'a AgentConfig, reporters: Vec<watch::Sender<Report>>) -> Self {
        Self { config, opened: Vec::new(), reporters }
    }

    async fn open(&mut self, tpm: &'a TpmConfig) -> Tpm {
        if let Some((_, opened)) = self.opened.iter().find(|(known, _)| *known == tpm) {
            return opened.clone();
        }
        let opened = open_tpm(tpm, self.config, &self.reporters).await;
        self.opened.push((tpm, opened.clone()));
        opened
    }
}

async fn open_tpm(tpm: &TpmConfig, config: &AgentConfig, reporters: &[watch::Sender<Report>]) -> Tpm {
    let mut pause = FIRST_TPM_PAUSE;
    loop {
        let error = match try_open_tpm(tpm, config, reporters).await {
            Ok(opened) => {
                debug!(address = %tpm.address, "TPM opened");
                supervisor::status(&super::serving(config));
                return opened;
            }
            Err(error) => describe(&error),
        };
        error!(%error, retry_ms = pause.as_millis() as u64, "cannot open the TPM");
        tell_waiting(reporters, &error);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_TPM_PAUSE);
    }
}

/// To whoever asks the service manager, and to whoever asks the agent.
fn tell_waiting(reporters: &[watch::Sender<Report>], why: &str) {
    let waiting = format!("waiting for the TPM: {why}");
    supervisor::status(&waiting);
    let fails = |report: &mut Report| {
        report.failures = report.failures.saturating_add(1);
        report.last_failure = Some(waiting.clone());
    };
    reporters.iter().for_each(|reporter| reporter.send_modify(fails));
}

#[derive(Debug, Error)]
enum OpenError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

async fn try_open_tpm(
    tpm: &TpmConfig,
    config: &AgentConfig,
    reporters: &[watch::Sender<Report>],
) -> Result<Tpm, OpenError> {
    let opening = Tpm::open(tpm_settings(tpm, config)?);
    tokio::pin!(opening);
    match tokio::time::timeout(SILENT_TPM, &mut opening).await {
        Ok(opened) => Ok(opened?),
        Err(_) => {
            let seconds = SILENT_TPM.as_secs();
            warn!(address = %tpm.address, seconds, "the TPM has not answered yet; it is waited for");
            tell_waiting(reporters, &format!("it has not answered for {seconds} s"));
            Ok(opening.await?)
        }
    }
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

async fn synchronizer<'a>(
    (config, to, number): (&'a AgentConfig, &ServerConfig, ServerNumber),
    chips: &mut Chips<'a>,
    ends: Ends,
    shared: &Shared,
) -> (Synchronizer, Wakes) {
    let Ends { identities, reporter, link, local_tokens, time, wakes, shown } = ends;
    let directory = to.directory(&config.data_dir);
    let server =
        Server::new(&to.address, to.port, &config.trust_domain, time.clone()).agreeing_on(config.key_exchanges);
    let synchronizer = Synchronizer::new(Parts {
        trust_domain: config.trust_domain.clone(),
        server,
        number,
        bootstrap: to.bootstrap.clone(),
        rebootstrap: config.rebootstrap,
        attestor: attestor(config, to, chips).await,
        keys: KeyStore::open(key_place(config, to, chips).await, KeyOf::Agent),
        local_authority: local_authority(config, to, chips).await,
        memory: memory(config, &directory, chips).await,
        heads: IssuanceHeads::open(&directory),
        time,
        sync_interval: config.sync_interval,
        max_age: config.offline_cache.as_ref().and_then(|cache| cache.max_age),
        allow_executable_only: config.workload_attestor.allow_executable_only,
        workload_keys: config.workload_keys,
        wit_svids: config.wit_svids,
        publisher: identities,
        reporter,
        link,
        local_tokens,
        counted: shared.counted.clone(),
        bans: shared.bans.clone(),
        shown,
    });
    (synchronizer, wakes)
}

async fn memory<'a>(config: &'a AgentConfig, directory: &Path, chips: &mut Chips<'a>) -> Memory {
    let Some(cache) = &config.offline_cache else { return Memory::plain(directory.to_owned()) };
    let tpm = chips.open(&cache.tpm).await;
    let sealed = SealedCache::new(tpm, directory, cache.pcrs, cache.tpm_nv_index);
    Memory::sealed(sealed.with_signed_states(cache.signed_states.clone()))
}

async fn key_place<'a>(config: &'a AgentConfig, server: &ServerConfig, chips: &mut Chips<'a>) -> KeyPlace {
    let directory = server.directory(&config.data_dir);
    match &config.key_manager {
        KeyManager::Tpm(tpm) => KeyPlace::Tpm { tpm: chips.open(tpm).await, directory },
        KeyManager::Token { token, label } => {
            KeyPlace::Token { token: token.clone(), label: server.key_label(label), directory }
        }
        KeyManager::Disk { directory } => KeyPlace::Disk { directory: server.directory(directory) },
        KeyManager::Memory => KeyPlace::Memory,
    }
}

/// An agent whose directory cannot be used goes on without: its server signs.
async fn local_authority<'a>(
    config: &'a AgentConfig,
    server: &ServerConfig,
    chips: &mut Chips<'a>,
) -> Option<LocalAuthority> {
    let (terms, place) = (config.local_authority.clone()?, key_place(config, server, chips).await);
    let opened = LocalAuthority::open(terms, place, &server.directory(&config.data_dir));
    let told = |error| error!(error = %describe(&error), "this agent has no CA of its own");
    opened.map_err(told).ok()
}

async fn attestor<'a>(config: &'a AgentConfig, server: &ServerConfig, chips: &mut Chips<'a>) -> Attestor {
    let attestor = server.node_attestor(&config.node_attestor);
    let device = match config.node_attestor.chip() {
        Some(tpm) => Some((tpm, chips.open(tpm).await)),
        None => None,
    };
    attestor.open(&server.directory(&config.data_dir), &config.data_dir, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_ends_by_a_fault_is_told_at_once_and_the_others_go_on_until_they_are_stopped() {
        let (stop, stopping) = watch::channel(false);
        let (breaks, mut broken) = watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(async { panic!("a fault, on purpose") });
        let mut other = stopping.clone();
        running.spawn(async move { drop(other.wait_for(|stop| *stop).await) });
        let all = tokio::spawn(async move { until_all_end(running, &stopping, &breaks).await });
        broken.wait_for(|broken| *broken).await.expect("told while the other runs");
        stop.send_replace(true);
        all.await.expect("the other has ended in order");
    }

    #[tokio::test]
    async fn loops_that_were_stopped_are_no_fault() {
        let (_stop, stopping) = watch::channel(true);
        let (breaks, broken) = watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(async {});
        until_all_end(running, &stopping, &breaks).await;
        assert!(!*broken.borrow());
    }
}
