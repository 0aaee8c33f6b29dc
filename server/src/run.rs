//! The story of a server process: config, store, token, CA, sockets, signals, drain.

mod bans;
mod doors;
mod error;
mod exchange;
mod issuance;
mod older;
mod open_keys;
mod server_svid;
mod settled;
mod web_proof;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_api::directory::prepare_private;
use ironroot_api::tls::{KeyExchanges, SvidResolver, TrustAnchors, web_server_config};
use ironroot_hsm::{KeyName, Token};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::health::HealthListener;
use ironroot_shell::logging::{LevelControl, Log, LogOutput};
use ironroot_shell::process::{self, supervisor};
use ironroot_shell::telemetry::otlp::{Exporter, Sending, SpanCounts};
use ironroot_shell::telemetry::{Calls, MetricsListener, Telemetry, statsd};
use rustls_pki_types::CertificateDer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bundle_client::{Fetched, Poller, Refresher};
use crate::ca::{CaPolicy, CertificateAuthority, SpireAuthority, Upstream};
use crate::clock::ServerClock;
use crate::config::{AuditConfig, LoginMode, ServerConfig, UpstreamConfig};
use crate::endpoints::{
    self, Audit, AuditFile, BundleEndpoint, Forks, Heads, Limits, Looks, Occupancy, Oidc, Pushes, ServerState,
    StatusReport, Tally, Unbroken,
};
use crate::federation::Federation;
use crate::issuance_log::log_id;
use crate::node_attestation::{Attestor, NodeAttestation};
use crate::older_state::{keep_mark, note_of_mark};
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::status::{Configured, status};
use crate::store::Store;
use crate::telemetry::Sources;
use crate::web_shown::WebShown;
pub use error::RunError;

use bans::log_bans;
use doors::{BoundDiscovery, BoundEndpoint, Doors};
use issuance::{log_authorities, open_log};
use open_keys::{logins, read_pins_again};
use server_svid::ServerSvid;
use settled::Settled;

/// Open calls get this long to finish after a signal.
const DRAIN: Duration = Duration::from_secs(10);
/// How often expired entries, tokens and agents are swept out.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// How often the data store is made to write something, and how often while it fails.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);
const TROUBLED_PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// Runs a server until SIGTERM or SIGINT. On SIGHUP it opens `log` and reads the PIN again.
pub async fn run(config: ServerConfig, log: Log, exporter: Option<Exporter>) -> Result<(), RunError> {
    let began = Instant::now();
    let traces = exporter.map(Exporter::begin);
    let reload_asked = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    raise_descriptor_limit();
    say_what_is_switched(&config);
    prepare_private(&config.data_dir)?;
    // Sockets and files first: who cannot use them has not founded a CA in somebody's token.
    let doors = Doors::open(&config).await?;
    let metrics = metrics_listener(&config).await?;
    let audit_file = audit_file(&config.audit)?;
    let attestors = config.node_attestors.clone();
    let attestors = blocking(move || attestors.load(wall_unix())).await?;
    let (doors, Settled { store, registry, federation, keys, ca, rotation, accepted }) =
        settled::settle(&config, doors).await?;
    let heads = issuance_heads(&config, &store, &registry, accepted).await?;
    settled::end(&store, accepted).await?;
    let web = doors.shown();
    let Doors { tcp, address, admin, health, endpoint, discovery, exchange } = doors;
    let audit = Arc::new(Audit::new(config.audit.enabled, audit_file.clone(), heads.log().clone()));
    let logins = logins(&keys, &config.key_managers);
    let tokens = logins.iter().map(|(token, _)| token.clone()).collect();
    let reloading = reload(reload_asked, (log.output, audit_file), logins);

    let anchors = trust_anchors(&config, &ca);
    let svid = ServerSvid::issue(ca.clone()).await;
    let (poller, refresher) = Poller::new(federation.clone(), ca.bundle(), config.key_exchanges);
    let known = Known { registry: registry.clone(), federation, refresher, heads: heads.clone() };
    let shown = (svid.resolver(), anchors.clone());
    let shared = Arc::new(server_state(&config, &ca, known, &store, attestors, (log.level, audit.clone()), shown));
    let unbroken = shared.unbroken.clone();
    let readiness = Readiness::new(ca.clone(), store.clone(), heads.log().clone(), audit.file().cloned());
    let (ready, balancers) = (readiness.ready(), config.balancers.clone());

    // Before anything answers: whoever has seen the server healthy may end it, and it ends in order. Until here a signal ended it at
    // once, which a token that hangs at the start must not put off.
    let stop_asked = process::stop_asked().map_err(RunError::Signals)?;
    let (stop, stopped) = watch::channel(false);
    let mut parts = JoinSet::new();
    parts.spawn(part("the TCP endpoint", endpoints::serve_remote(shared.clone(), tcp, balancers, stopped.clone())));
    let counted = (poller.fetched(), svid.rotations(), traces.as_ref().map(Sending::counts), began);
    let sources = sources(&config, (&shared, &readiness), (tokens, web), counted);
    let report = status_report(sources.clone(), Configured::new(&config, address));
    let exchanging = exchange.map(|exchange| (exchange, shared.clone()));
    let local = endpoints::serve_local(shared, admin, ready, report, stopped);
    parts.spawn(part("the admin endpoint", local));
    let mut background = JoinSet::new();
    serve_bundle(&mut background, endpoint, (&svid, &ca), config.key_exchanges);
    serve_discovery(&mut background, discovery, &ca, config.key_exchanges);
    exchange::serve(&mut background, exchanging);
    keep_up(&mut background, &config, &ca, &store, &heads);
    background.spawn(reloading);
    background.spawn(follow_bundle(ca.clone(), anchors));
    background.spawn(prune(registry, ca.clock(), (config.prune_attested_nodes_expired_for, config.prune_tofu_nodes)));
    background.spawn(rotation.run());
    background.spawn(poller.run());
    background.spawn(svid.keep_current());
    serve_metrics(&mut background, (metrics, config.telemetry.clone()), sources);
    serve_health(&mut background, health, &readiness);
    background.spawn(async move { readiness.keep().await });
    tracing::info!(%address, admin_socket = %config.socket_path.display(), trust_domain = %config.trust_domain, "server ready");
    supervisor::started(&format!("signing for {} on {address}", config.trust_domain));

    let ended = tokio::select! {
        ended = until_stopped(stop_asked, &mut parts, &mut background) => ended,
        older = older::noticed(&config, &store, &heads) => Err(RunError::OlderState(older?)),
    };
    supervisor::stopping();
    stop.send_replace(true);
    drain(parts, unbroken).await;
    background.shutdown().await;
    store.close().await;
    blocking(move || heads.log().close()).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    tracing::info!("server stopped");
    ended
}

/// The log of everything that is issued and changed, and the heads that agents are shown of it.
async fn issuance_heads(
    config: &ServerConfig,
    store: &Store,
    registry: &Arc<Registry>,
    accepted: Option<u64>,
) -> Result<Arc<Heads>, RunError> {
    let log = open_log(config, accepted).await?;
    log_authorities(store, log.clone(), config.server_name.clone()).await?;
    log_bans(store, log.clone(), registry).await?;
    let data_dir = config.data_dir.clone();
    let log_id = blocking(move || log_id(&data_dir)).await?;
    Ok(Heads::new(log, &config.server_name, &log_id))
}

/// What looks after the server's own state, as long as it runs.
fn keep_up(
    background: &mut JoinSet<()>,
    config: &ServerConfig,
    ca: &Arc<CertificateAuthority>,
    store: &Store,
    heads: &Arc<Heads>,
) {
    background.spawn(supervisor::feed_watchdog());
    background.spawn(follow_upstream(ca.clone()));
    background.spawn(probe_store(store.clone()));
    background.spawn(keep_heads(heads.clone(), ca.clone()));
    if let Some(mark) = config.rollback_mark.clone() {
        background.spawn(keep_mark(store.clone(), mark, note_of_mark(&config.data_dir)));
    }
}

/// Source of the words: SPIRE.
fn say_what_is_switched(config: &ServerConfig) {
    if config.jwt.is_none() {
        let given_keys = config.key_managers.given_keys();
        tracing::info!(given_keys, "JWT-SVID profile is disabled");
    }
    if config.key_exchanges == KeyExchanges::HybridOnly {
        tracing::debug!(
            "Experimental option 'require_pq_kem' is enabled; all TLS connections will require use of a post-quantum safe KEM"
        );
    }
}

/// What all endpoints work with; each of the daemon's own rooms is in it once. `shown`: the certificate that the server shows, and what
/// those of others must lead to.
fn server_state(
    config: &ServerConfig,
    ca: &Arc<CertificateAuthority>,
    Known { registry, federation, refresher, heads }: Known,
    store: &Store,
    attestors: Vec<Attestor>,
    (log_level, audit): (LevelControl, Arc<Audit>),
    shown: (Arc<SvidResolver>, Arc<TrustAnchors>),
) -> ServerState {
    let (svid, anchors) = shown;
    let (trust_domain, devices) = (config.trust_domain.clone(), registry.devices().clone());
    let issuers = config.token_exchange.iter().flat_map(|exchange| &exchange.issuers);
    ServerState {
        trust_domain: trust_domain.clone(),
        ca: ca.clone(),
        registry,
        devices: devices.clone(),
        federation,
        refresher,
        store: store.clone(),
        node_attestation: NodeAttestation::new(trust_domain, store.clone(), devices, attestors)
            .with_id_as_selector(config.agent_id_is_selector),
        limits: Limits::new(config.rate_limits.attestation, config.rate_limits.signing),
        forks: Forks::default(),
        occupancy: Occupancy::new(),
        looks: Looks::new(),
        pushes: Pushes::new(),
        audit,
        tally: Tally::new(),
        heads,
        log_level,
        svid,
        anchors,
        own: ca.own_authorities(),
        key_exchanges: config.key_exchanges,
        unbroken: Unbroken::new(),
        admin_ids: config.admin_ids.iter().cloned().collect(),
        allow_executable_only: config.allow_executable_only,
        exchange_parents: issuers.map(|issuer| issuer.parent.clone()).collect(),
        now: wall_unix,
    }
}

fn trust_anchors(config: &ServerConfig, ca: &CertificateAuthority) -> Arc<TrustAnchors> {
    let authorities: Vec<_> =
        ca.bundle().borrow().authorities.iter().map(|der| CertificateDer::from(der.clone())).collect();
    TrustAnchors::new(config.trust_domain.clone(), &authorities).expect("the CA's own certificates parse")
}

fn audit_file(config: &AuditConfig) -> Result<Option<Arc<AuditFile>>, RunError> {
    let path = config.file.as_deref().filter(|_| config.enabled);
    Ok(path.map(|path| AuditFile::open(path, config.required).map(Arc::new)).transpose()?)
}

async fn metrics_listener(config: &ServerConfig) -> Result<Option<MetricsListener>, RunError> {
    let prometheus = config.telemetry.as_ref().and_then(|telemetry| telemetry.prometheus.as_ref());
    match prometheus {
        Some(prometheus) => Ok(Some(MetricsListener::bind(prometheus).await?)),
        None => Ok(None),
    }
}

/// Where metrics and the status are read. `counted`: fetches of bundles, renewals of the server's certificate, spans of traces, and since when.
fn sources(
    config: &ServerConfig,
    (server, readiness): (&Arc<ServerState>, &Arc<Readiness>),
    (tokens, web): (Vec<Token>, Vec<WebShown>),
    counted: (Arc<Fetched>, Arc<Calls>, Option<Arc<SpanCounts>>, Instant),
) -> Arc<Sources> {
    let ((fetched, svid_rotations, spans, began), agent_ttl_seconds) = (counted, seconds(config.lifetimes.agent));
    let (server, readiness) = (server.clone(), readiness.clone());
    Arc::new(Sources { server, readiness, fetched, svid_rotations, tokens, web, spans, agent_ttl_seconds, began })
}

fn status_report(sources: Arc<Sources>, configured: Configured) -> StatusReport {
    Arc::new(move || status(&sources, &configured))
}

fn serve_metrics(
    background: &mut JoinSet<()>,
    (listener, telemetry): (Option<MetricsListener>, Option<Telemetry>),
    sources: Arc<Sources>,
) {
    let Some(telemetry) = telemetry.map(Arc::new) else { return };
    let collectors = telemetry.collectors.clone();
    if let Some(listener) = listener {
        let (sources, telemetry) = (sources.clone(), telemetry.clone());
        background.spawn(listener.serve(move || sources.page(&telemetry).into_text()));
    }
    if !collectors.is_empty() {
        background.spawn(statsd::send(collectors, move || sources.page(&telemetry)));
    }
}

/// What the server knows of this trust domain and of others, and who fetches more.
struct Known {
    registry: Arc<Registry>,
    federation: Arc<Federation>,
    refresher: Refresher,
    heads: Arc<Heads>,
}

fn serve_bundle(
    background: &mut JoinSet<()>,
    endpoint: Option<BoundEndpoint>,
    (svid, ca): (&ServerSvid, &CertificateAuthority),
    exchanges: KeyExchanges,
) {
    let Some((listener, endpoint, certificate)) = endpoint else { return };
    let tls = certificate
        .as_ref()
        .map_or_else(|| web_server_config(svid.resolver(), exchanges), |proof| proof.tls(exchanges));
    let answers = BundleEndpoint::answers(ca.bundle(), endpoint.refresh_hint);
    background.spawn(listener.serve(tls, answers));
    if let Some(certificate) = certificate {
        background.spawn(certificate.keep_current());
    }
}

fn serve_discovery(
    background: &mut JoinSet<()>,
    discovery: Option<BoundDiscovery>,
    ca: &CertificateAuthority,
    exchanges: KeyExchanges,
) {
    let Some((listener, policy, certificate)) = discovery else { return };
    let tls = certificate
        .as_ref()
        .map_or_else(|| web_server_config(SvidResolver::empty(), exchanges), |proof| proof.tls(exchanges));
    let port = listener.address().map(|address| address.port());
    background.spawn(listener.serve(tls, Oidc::answers(ca.bundle(), policy, port)));
    if let Some(certificate) = certificate {
        background.spawn(certificate.keep_current());
    }
}

/// Waits for a signal, or for what must not end.
async fn until_stopped(
    asked: impl Future<Output = ()>,
    parts: &mut JoinSet<&'static str>,
    background: &mut JoinSet<()>,
) -> Result<(), RunError> {
    let ended = tokio::select! {
        () = asked => Ok(()),
        ended = parts.join_next() => Err(RunError::Stopped(ended.and_then(Result::ok).unwrap_or("an endpoint"))),
        _ = background.join_next() => Err(RunError::Stopped("a background task")),
    };
    tracing::info!("server stopping");
    ended
}

/// Open calls get their time, and so do changes whose callers have gone.
async fn drain(mut parts: JoinSet<&'static str>, unbroken: Unbroken) {
    let all = async {
        while parts.join_next().await.is_some() {}
        unbroken.ended().await;
    };
    let drained = tokio::time::timeout(DRAIN, all).await;
    if drained.is_err() {
        tracing::warn!("open calls cut off after {} s", DRAIN.as_secs());
    }
}

fn serve_health(background: &mut JoinSet<()>, door: Option<HealthListener>, readiness: &Arc<Readiness>) {
    if let Some(door) = door {
        background.spawn(door.serve("server", readiness.ready_for_callers()));
    }
}

/// Every agent holds a connection; the usual soft limit is 1024 descriptors, the hard one what the operator grants.
fn raise_descriptor_limit() {
    match process::raise_descriptor_limit(u64::MAX) {
        Ok(descriptors) => tracing::debug!(descriptors, "descriptor limit raised"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files; fewer connections are possible"),
    }
}

fn ca_policy(config: &ServerConfig, accepts_older_journal: bool) -> CaPolicy {
    CaPolicy {
        accepts_older_journal,
        trust_domain: config.trust_domain.clone(),
        server: config.server_name.clone(),
        given_keys: given_keys(config),
        key_kind: config.ca_key_type,
        subject: config.ca_subject.clone(),
        ca_ttl_seconds: seconds(config.lifetimes.ca),
        root_ttl_seconds: config.lifetimes.root.map(seconds),
        agent_ttl_seconds: seconds(config.lifetimes.agent),
        x509_svid_ttl_seconds: seconds(config.lifetimes.x509_svid),
        unique_ids: config.unique_ids,
        jwt: config.jwt.clone(),
        wit: config.wit.clone(),
    }
}

fn given_keys(config: &ServerConfig) -> Vec<KeyName> {
    config.key_managers.current.pkcs11().map(|token| token.given_keys.clone()).unwrap_or_default()
}

/// Who certifies the CAs, if not this server.
fn upstream(config: &ServerConfig) -> Option<Upstream> {
    config.upstream.clone().map(|upstream| match upstream {
        UpstreamConfig::Disk(files) => Upstream::Disk(files),
        UpstreamConfig::Spire(server) => Upstream::Spire(SpireAuthority::new(server, config.trust_domain.clone())),
        UpstreamConfig::Token(root) => Upstream::Token(root.authority(&config.trust_domain)),
    })
}

/// What a SIGHUP does.
async fn reload(mut asked: Signal, (log, audit): (LogOutput, Option<Arc<AuditFile>>), logins: Vec<(Token, LoginMode)>) {
    while asked.recv().await.is_some() {
        log.reopen_and_say();
        audit.iter().for_each(|audit| audit.reopen());
        tracing::info!(
            "reload asked for (SIGHUP): the PIN is read again; other changes of the configuration need a restart"
        );
        read_pins_again(&logins).await;
    }
}

/// Keeps the heads of the log signed.
async fn keep_heads(heads: Arc<Heads>, ca: Arc<CertificateAuthority>) {
    heads.keep(ca).await;
}

/// Keeps the bundle and that of the authority above in step.
async fn follow_upstream(ca: Arc<CertificateAuthority>) {
    ca.follow_upstream(wall_unix).await;
}

/// Each new bundle becomes what clients must chain to.
async fn follow_bundle(ca: Arc<CertificateAuthority>, anchors: Arc<TrustAnchors>) {
    let mut bundle = ca.bundle();
    while bundle.changed().await.is_ok() {
        let authorities: Vec<_> =
            bundle.borrow_and_update().authorities.iter().map(|der| CertificateDer::from(der.clone())).collect();
        anchors.replace(&authorities).expect("the CA's own certificates parse");
    }
}

/// Keeps what [`Store::trouble`] says true while nobody changes anything, and ends it soon after the disk takes changes again.
async fn probe_store(store: Store) {
    let mut tick = tokio::time::interval(TROUBLED_PROBE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut probed = tokio::time::Instant::now();
    loop {
        tick.tick().await;
        if store.trouble().is_some() || probed.elapsed() >= PROBE_INTERVAL {
            // The store remembers and logs a failure itself.
            let _ = store.probe().await;
            probed = tokio::time::Instant::now();
        }
    }
}

/// Sweeps out what has expired, unless that is only the word of a clock that has just been set.
async fn prune(registry: Arc<Registry>, clock: Arc<ServerClock>, (agents_expired_for, tofu): (Option<Duration>, bool)) {
    let mut tick = tokio::time::interval(PRUNE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let moment = clock.moment();
        if !moment.may_destroy() {
            continue;
        }
        let now = moment.now_unix;
        let entries = registry.prune_expired_entries(now).await;
        let tokens = registry.prune_join_tokens(now).await;
        let agents = match agents_expired_for {
            Some(age) => registry.prune_expired_agents(now - seconds(age), tofu).await,
            None => Ok(0),
        };
        match (entries, tokens, agents) {
            (Ok(0), Ok(0), Ok(0)) => {}
            (Ok(entries), Ok(tokens), Ok(agents)) => {
                tracing::info!(entries, tokens, agents, "expired entries, join tokens and agents removed")
            }
            (entries, tokens, agents) => {
                let failed = [entries.err(), tokens.err(), agents.err()].into_iter().flatten().next();
                tracing::warn!(
                    error = failed.as_ref().map(|e| e as &dyn std::error::Error),
                    "expired entries, join tokens and agents are not removed yet; the next try is in a minute"
                );
            }
        }
    }
}

/// Blocking work (a file, a token) off the async workers.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("start-up work does not panic")
}

async fn part(name: &'static str, serving: impl Future<Output = Result<(), tonic::transport::Error>>) -> &'static str {
    if let Err(error) = serving.await {
        tracing::error!(error = &error as &dyn std::error::Error, "{name} failed");
    }
    name
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap_or(i64::MAX)
}
