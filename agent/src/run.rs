//! The story of an agent process.
//!
//! ```text
//!  lock ─► bind the Workload API ─► serve, drain                                  (this file)
//!     └──► open the TPM ─► unseal and publish ─► sync until told to stop          (life.rs; a loop for each server: loops.rs)
//! ```
//! Nothing on the way to the first identity waits for the network.

mod directory_lock;
mod life;
mod loops;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::directory::DirectoryError;
use ironroot_attest::workload::{
    AttestorConfig, AttestorError, BusAddressError, SystemBus, UnixAttestor, UnixAttestorConfig,
};
use ironroot_shell::health::{HealthListener, Ready};
use ironroot_shell::logging::{LevelControl, Log, LogOutput};
use ironroot_shell::process::{self, supervisor};
use ironroot_shell::telemetry::otlp::{Exporter, Sending};
use ironroot_shell::telemetry::{MetricsError, MetricsListener, statsd};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

pub(crate) use life::tpm_settings;

use crate::config::{AgentConfig, BrokerConfig, WorkloadAttestors};
use crate::endpoints::{
    AdminSocketConfig, BrokerSocketConfig, EndpointError, Limits, NowUnix, Sources, SubordinateUids, Tally,
    WorkloadApiConfig, serve_workload_api,
};
use crate::hardware_keys::HardwareKeys;
use crate::identities::Identities;
use crate::jwt_svids::JwtSvids;
use crate::own_certificate::OwnCertificates;
use crate::report::{Reports, Stands};
use crate::telemetry;
use crate::trusted_time::{Jumps, Listener, TrustedTime};

/// How long a stopping agent takes to keep what it holds. A slow chip and a slow disk need a second each.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why an agent cannot run. A server or a TPM that is away is no reason.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum RunError {
    /// The data directory cannot be made or used, or is not ours alone.
    #[error("cannot use the data directory; let this user write there, or name another in data_dir")]
    DataDirectory(#[from] DirectoryError),
    /// The lock file in it cannot be opened.
    #[error("cannot lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// Another agent runs on the same data directory.
    #[error("another agent is using the data directory {0}; stop it, or give this one a data_dir of its own")]
    Locked(PathBuf),
    /// There is no server to speak to.
    #[error("the configuration names no server")]
    NoServer,
    /// Local processes cannot be told apart.
    #[error("cannot attest workloads")]
    Attestor(#[from] AttestorError),
    /// The environment names a system bus that is none.
    #[error("cannot ask systemd for units")]
    SystemBus(#[from] BusAddressError),
    /// The Workload API cannot be served.
    #[error("cannot serve the Workload API")]
    WorkloadApi(#[from] EndpointError),
    /// The health listener cannot be bound.
    #[error(
        "cannot listen for health checks on {address}; health_checks {{ bind_address, bind_port }} names another place"
    )]
    Health {
        address: String,
        #[source]
        error: io::Error,
    },
    /// The listener for metrics cannot be bound.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// What must not end did, by a fault of ours. Whoever supervises the agent starts it again.
    #[error(
        "a part of the agent that must not end has ended by a fault of the program; the agent must be started again"
    )]
    Fault,
    /// The kernel gives no timer by which it tells that its clock was set.
    #[error("cannot listen for a clock that is set; the process may have too many files open")]
    Clock(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

/// Runs an agent until SIGTERM or SIGINT. On SIGHUP it opens `log` again and asks the server at once, a first contact by the
/// trust bundle file as it is then.
pub async fn run(config: AgentConfig, log: Log, exporter: Option<Exporter>) -> Result<(), RunError> {
    let began = Instant::now();
    let _lock = directory_lock::lock(&config.data_dir)?;
    // Before anything else happens, so that a signal during the start ends the agent in order.
    let stop_asked = process::stop_asked().map_err(RunError::Signals)?;
    let reload_asked = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let (stop, stopping) = watch::channel(false);
    let time = TrustedTime::new();

    let traces = exporter.map(Exporter::begin);
    // First of all: while the socket is being bound, the chip unseals.
    let mut background = JoinSet::new();
    let jumps = listen_for_jumps(&mut background)?;
    let loops = loops::prepare(&config, &time, &jumps, &stopping, &mut background)?;
    background.spawn(reload(reload_asked, log.output, loops.ask_now));
    let (identities, counted) = (loops.identities, loops.shared.counted.clone());
    let (breaks, broken) = watch::channel(false);
    let life = tokio::spawn(life::live(config.clone(), loops.ends, loops.shared, stopping.clone(), breaks));
    let jwt_svids = JwtSvids::new(identities.clone(), loops.upstreams.clone(), config.renewal_patience);
    background.spawn(jwt_svids.clone().follow());
    let tally = Tally::new();
    serve_metrics(
        &config,
        telemetry::Sources {
            identities: identities.clone(),
            reports: loops.reports.clone(),
            jwt_svids: jwt_svids.clone(),
            tally: tally.clone(),
            counted,
            attestor: config.node_attestor.name(),
            spans: traces.as_ref().map(Sending::counts),
            began,
        },
        &mut background,
    )
    .await?;
    let sources = Sources {
        identities: identities.clone(),
        requests: loops.requests,
        jwt_svids,
        hardware_keys: HardwareKeys::new(identities.clone(), loops.upstreams),
        now: now(time),
        jumps,
        tally,
    };
    let served = WorkloadApiConfig {
        admin: admin_socket(&config, log.level, loops.reports),
        broker: broker_socket(&config, OwnCertificates::new(loops.certificates)),
        ..workload_api(&config)?
    };
    let workload_api = serve_workload_api(served, sources, asked(stopping.clone()))?;
    let mut workload_api = tokio::spawn(workload_api);
    serve_health(&config, identities, &mut background).await?;
    info!(socket = %config.socket_path.display(), trust_domain = %config.trust_domain, "agent started");
    background.spawn(supervisor::feed_watchdog());
    supervisor::started(&serving(&config));

    let (mut is_broken, mut ended) = (false, None);
    tokio::select! {
        () = stop_asked => {}
        () = fault(broken, &mut background) => is_broken = true,
        served = &mut workload_api => ended = Some(served),
    }
    info!("agent stopping");
    supervisor::stopping();
    stop.send_replace(true);
    let drained = match ended {
        Some(ended) => ended,
        None => workload_api.await,
    };
    if tokio::time::timeout(LAST_WORDS, life).await.is_err() {
        warn!("the agent stops before everything was kept");
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
    drained.unwrap_or(Ok(()))?;
    if is_broken { Err(RunError::Fault) } else { Ok(()) }
}

async fn serve_health(
    config: &AgentConfig,
    identities: watch::Receiver<Arc<Identities>>,
    background: &mut JoinSet<()>,
) -> Result<(), RunError> {
    let Some(checks) = &config.health_checks else { return Ok(()) };
    let address = format!("{}:{}", checks.host, checks.port);
    let listener = HealthListener::bind(checks.clone()).await;
    let listener = listener.map_err(|error| RunError::Health { address, error })?;
    background.spawn(listener.serve("agent", ready(identities)));
    Ok(())
}

fn listen_for_jumps(background: &mut JoinSet<()>) -> Result<Jumps, RunError> {
    let (listener, jumps) = Listener::begin().map_err(RunError::Clock)?;
    background.spawn(async {
        if let Err(error) = listener.follow().await {
            error!(%error, "the kernel does not tell any more when its clock is set");
        }
    });
    Ok(jumps)
}

async fn serve_metrics(
    config: &AgentConfig,
    sources: telemetry::Sources,
    background: &mut JoinSet<()>,
) -> Result<(), RunError> {
    let Some(telemetry) = config.telemetry.clone().map(Arc::new) else { return Ok(()) };
    let (sources, collectors) = (Arc::new(sources), telemetry.collectors.clone());
    if let Some(prometheus) = &telemetry.prometheus {
        let listener = MetricsListener::bind(prometheus).await?;
        let (sources, telemetry) = (sources.clone(), telemetry.clone());
        background.spawn(listener.serve(move || sources.page(&telemetry).into_text()));
    }
    if !collectors.is_empty() {
        background.spawn(statsd::send(collectors, move || sources.page(&telemetry)));
    }
    Ok(())
}

/// Done once something has ended that does not end by itself: a server's loop, or what works beside the loops.
async fn fault(broken: watch::Receiver<bool>, background: &mut JoinSet<()>) {
    tokio::select! {
        () = asked(broken) => {}
        _ = background.join_next() => {}
    }
}

/// What `systemctl status` shows of an agent that has all it needs.
fn serving(config: &AgentConfig) -> String {
    format!("serving {} on {}", config.trust_domain, config.socket_path.display())
}

/// What a SIGHUP does; ends with the process.
async fn reload(mut asked: Signal, log: LogOutput, ask_now: Vec<Arc<Notify>>) {
    while asked.recv().await.is_some() {
        log.reopen_and_say();
        info!("reload asked for (SIGHUP): asking the server now; other changes of the configuration need a restart");
        ask_now.iter().for_each(|one| one.notify_one());
    }
}

/// Of the workloads' socket alone.
fn workload_api(config: &AgentConfig) -> Result<WorkloadApiConfig, RunError> {
    let unix = || UnixAttestorConfig {
        discover_workload_path: config.workload_attestor.discover_workload_path,
        workload_size_limit: config.workload_attestor.workload_size_limit,
        executable_selectors: config.workload_attestor.executable_selectors,
        executable_in_other_mounts: config.workload_attestor.executable_in_other_mounts,
        discover_cgroup: config.workload_attestor.discover_cgroup,
    };
    let WorkloadAttestors { unix: of_users, slurm, systemd: of_units } = config.workload_attestor.attestors;
    let unix = of_users.then(unix);
    let systemd = of_units.then(SystemBus::of_environment).transpose()?;
    let attestor = UnixAttestor::new(AttestorConfig { unix, slurm, systemd, containers: config.containers.clone() })?;
    if let Some(warning) = attestor.warning() {
        warn!("{warning}");
    }
    Ok(WorkloadApiConfig {
        socket_path: config.socket_path.clone(),
        attestor,
        connection_writer: config.workload_attestor.connection_writer,
        limits: Limits::default(),
        subordinate_uids: SubordinateUids::of_system(),
        workload_api: config.workload_api,
        wit_svids: config.wit_svids,
        verifiers: config.verifiers.clone(),
        call_rates: config.call_rates,
        logged_selectors: config.logged_selectors.clone(),
        secrets: config.secrets.clone(),
        admin: None,
        broker: None,
    })
}

fn broker_socket(config: &AgentConfig, certificate: Arc<OwnCertificates>) -> Option<BrokerSocketConfig> {
    let (BrokerConfig { socket_path, brokers }, key_exchanges) = (config.broker.clone()?, config.key_exchanges);
    Some(BrokerSocketConfig { socket_path, brokers, certificate, key_exchanges })
}

fn admin_socket(config: &AgentConfig, log_level: LevelControl, reports: Reports) -> Option<AdminSocketConfig> {
    let (socket_path, delegates) = (config.admin_socket_path.clone()?, config.delegates.clone());
    let chip = config.tpm().map(|tpm| tpm.address.to_string());
    Some(AdminSocketConfig { socket_path, delegates, log_level, reports, chip })
}

fn now(time: TrustedTime) -> NowUnix {
    Arc::new(move || time.moment().own())
}

/// Ready once there is something to serve from, a server's answer or the cache, and not while nobody is served since the agent is cast out.
fn ready(identities: watch::Receiver<Arc<Identities>>) -> Ready {
    Arc::new(move || {
        let all = identities.borrow();
        match all.bundle() {
            Some(_) => all.cast_out().and_then(Stands::why_nothing_is_served).map(str::to_owned),
            None => Some("neither the server nor the cache has given identities yet".to_owned()),
        }
    })
}

/// Done once `stopping` says so, or nobody is left to say it.
async fn asked(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_a_fault_is_noticed_as_a_loop_is() {
        let (breaks, broken) = watch::channel(false);
        let mut background = JoinSet::new();
        background.spawn(std::future::pending());
        assert!(futures_util::FutureExt::now_or_never(fault(broken.clone(), &mut background)).is_none());
        background.spawn(async { panic!("a fault, on purpose") });
        fault(broken.clone(), &mut background).await;
        let mut background = JoinSet::new();
        background.spawn(std::future::pending());
        breaks.send_replace(true);
        fault(broken, &mut background).await;
    }

    #[test]
    fn a_starting_agent_is_not_ready_and_says_why() {
        let trust_domain = ironroot_api::TrustDomain::new("td").expect("legal");
        let (_, identities) = watch::channel(Arc::new(Identities::starting(trust_domain)));
        let reason = ready(identities)().expect("nothing to serve from");
        assert_eq!(reason, "neither the server nor the cache has given identities yet");
    }

    #[test]
    fn whoever_is_cast_out_is_told_why_nothing_is_served_and_what_ends_it() {
        for stands in Stands::ALL {
            let why = stands.why_nothing_is_served();
            assert_eq!(why.is_some(), [Stands::Evicted, Stands::Banned].contains(&stands), "{stands}");
            assert!(why.is_none_or(|why| why.contains("(agent evict)") && why.contains("serves nothing")), "{stands}");
        }
    }
}
