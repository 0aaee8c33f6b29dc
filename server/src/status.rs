//! What an operator asks at three in the morning, in one answer.

use ironroot_api::pb::server_status::GetStatusResponse;
use ironroot_api::pb::server_status::get_status_response::{Authority, Listener, Trouble, WebCertificate};
use ironroot_shell::clock::wall_unix;

use crate::ca::{AuthorityState, Exchange, Purpose};
use crate::config::{KeyManagerConfig, OidcListener, ServerConfig, UpstreamConfig};
use crate::telemetry::Sources;
use crate::web_shown::{ShownCertificate, WebShown};

/// What is known of the server from its configuration, in words.
#[derive(Clone, Debug)]
pub struct Configured {
    keys: String,
    data_store: String,
    listeners: Vec<Listener>,
    warnings: Vec<String>,
    /// Where requests wait for a root that is away most of the time.
    ceremony: Option<Exchange>,
}

impl Configured {
    /// `address`: where agents connect, as it was bound.
    pub fn new(config: &ServerConfig, address: std::net::SocketAddr) -> Self {
        let keys = match &config.key_managers.current {
            KeyManagerConfig::Pkcs11(token) => format!("{} ({})", token.token, token.module_path.display()),
            KeyManagerConfig::Disk(path) => format!("{}, not in hardware", path.display()),
            KeyManagerConfig::Memory => "in memory, not in hardware".to_owned(),
        };
        let listener = |what: &str, address: String| Listener { what: what.to_owned(), address };
        let local =
            |what, place: Option<(&str, u16)>| place.map(|(host, port)| listener(what, format!("{host}:{port}")));
        let health = config.health_checks.as_ref().map(|checks| (checks.host.as_str(), checks.port));
        let metrics =
            config.telemetry.as_ref().and_then(|it| it.prometheus.as_ref()).map(|it| (it.host.as_str(), it.port));
        let bundle = config.federation.bundle_endpoint.as_ref();
        let discovery = config.oidc.as_ref().map(|oidc| match &oidc.listener {
            OidcListener::Https(address, _) => address.to_string(),
            OidcListener::Socket(path) => path.display().to_string(),
        });
        let always = [
            listener("agents", address.to_string()),
            listener("administrators", config.socket_path.display().to_string()),
        ];
        let sometimes = [
            bundle.map(|endpoint| listener("bundle", endpoint.address.to_string())),
            discovery.map(|place| listener("discovery", place)),
            config.token_exchange.as_ref().map(|it| listener("token exchange", it.address.to_string())),
            local("health", health),
            local("metrics", metrics),
        ];
        let listeners = always.into_iter().chain(sometimes.into_iter().flatten()).collect();
        let ceremony = config.upstream.as_ref().and_then(UpstreamConfig::ceremony);
        Self { keys, data_store: config.data_store.to_string(), listeners, warnings: config.warnings.clone(), ceremony }
    }
}

/// How the server is now.
pub fn status(sources: &Sources, configured: &Configured) -> GetStatusResponse {
    let server = &sources.server;
    let agents = server.registry.agent_census(wall_unix(), sources.late_below_seconds());
    let devices = server.devices.census();
    let awaits_root = configured.ceremony.as_ref().filter(|it| it.has_waiting()).map(Exchange::request_path);
    let awaits_root = awaits_root.map(|path| path.display().to_string()).unwrap_or_default();
    let authorities = Purpose::ALL.into_iter().filter_map(|purpose| authority(sources, purpose, &awaits_root));
    GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: sources.began.elapsed().as_secs().try_into().unwrap_or(i64::MAX),
        trust_domain: server.trust_domain.to_string(),
        troubles: troubles(sources),
        authorities: authorities.collect(),
        keys: configured.keys.clone(),
        token_queue: count(sources.waiting_for_token()),
        data_store: configured.data_store.clone(),
        agents_current: count(agents.current),
        agents_late: count(agents.late),
        agents_expired: count(agents.expired),
        agents_banned: count(agents.banned),
        devices_enrolled: count(devices.enrolled),
        devices_pending: count(devices.pending),
        devices_banned: count(devices.banned),
        devices_suspected: count(devices.suspected),
        devices_booted_otherwise: count(devices.boot_otherwise),
        entries: count(server.registry.entry_census()),
        federated_bundles: count(server.federation.count_bundles()),
        federation_failing: count(sources.fetched.failing()),
        listeners: configured.listeners.clone(),
        warnings: configured.warnings.iter().cloned().chain(root_warning(&awaits_root)).collect(),
        web_certificates: web_certificates(sources),
    }
}

fn web_certificates(sources: &Sources) -> Vec<WebCertificate> {
    let shown = sources.web.iter().flat_map(WebShown::certificates);
    let told = |ShownCertificate { listener, name, until }| WebCertificate {
        listener: listener.to_owned(),
        name,
        until: until.unwrap_or(0),
    };
    shown.map(told).collect()
}

fn troubles(sources: &Sources) -> Vec<Trouble> {
    let troubles = sources.readiness.troubles().into_iter();
    troubles.filter_map(|(what, why)| Some(Trouble { what: what.to_owned(), why: why? })).collect()
}

/// The rest of a sentence about what signs next where it is not there.
pub fn why_none_is_next(authority: &Authority, status: &GetStatusResponse) -> &'static str {
    match (authority.awaits_root.is_empty(), status.troubles.is_empty()) {
        (false, _) => "waits for the root",
        (true, true) => "is not due yet",
        (true, false) => "is not there",
    }
}

/// What a request in this file waits for, and what to do; none where none waits (empty).
fn root_warning(request: &str) -> Option<String> {
    (!request.is_empty()).then(|| {
        format!(
            "the next CA waits for the root, and its request in {request}: plug the root's token in, or carry the request to \
             `ironroot-server ca ceremony sign` and bring what it signs back with `ironroot-server ca ceremony take`"
        )
    })
}

/// None of a purpose that nothing signs for, and nothing will. `awaits_root`: the file with the CA's request, empty if none waits.
fn authority(sources: &Sources, purpose: Purpose, awaits_root: &str) -> Option<Authority> {
    let local = sources.server.ca.local_authorities(purpose);
    if local.active.is_none() && local.prepared.is_none() {
        return None;
    }
    let told = |state: Option<AuthorityState>| {
        state.map(|state| (state.id, state.since_unix.unwrap_or(0), state.expires_at_unix)).unwrap_or_default()
    };
    let (active_id, active_since, active_until) = told(local.active);
    let (prepared_id, prepared_since, prepared_until) = told(local.prepared);
    let awaits_root = if purpose == Purpose::X509Ca { awaits_root.to_owned() } else { String::new() };
    let purpose = purpose.word().to_owned();
    Some(Authority {
        purpose,
        active_id,
        active_until,
        prepared_id,
        prepared_until,
        active_since,
        prepared_since,
        awaits_root,
    })
}

fn count(number: usize) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
