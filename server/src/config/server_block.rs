//! The `server` block.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::tls::KeyExchanges;
use ironroot_api::{MlDsa, SpiffeId, SpiffeIdError, TrustDomain};
use ironroot_hsm::KeyKind;
use ironroot_shell::settings::{Section, format_duration, places};

use super::{AuditConfig, Balancers, Lifetimes, PROGRAM, RateLimits, balancers, wit};
use crate::ca::{CaSubject, JwtPolicy, ServerName, WitPolicy};

/// Where the admin socket is unless the file says otherwise. Source: SPIRE.
pub(crate) const DEFAULT_SOCKET_PATH: &str = "/tmp/spire-server/private/api.sock";

const HOUR: Duration = Duration::from_secs(3600);
/// Longest lifetime accepted: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lifetime of the root unless the file says otherwise: that of an endorsement key's certificate, 20 years.
const ROOT_TTL: Duration = Duration::from_secs(175_200 * 3600);
/// Longest lifetime of a root accepted: 50 years.
const LONGEST_ROOT: Duration = Duration::from_secs(438_000 * 3600);
/// A root lives at least as long as so many CAs: in its last quarter it signs no more.
const CA_LIVES_PER_ROOT: u32 = 8;
/// Longest SVID that a CA rotation never cuts short. Source: SPIRE, which prepares the next CA at most 7 days ahead.
const LONGEST_SAFE_SVID: Duration = Duration::from_secs(7 * 24 * 3600);
/// A CA is replaced when a sixth of its life is left. Source: SPIRE.
const CA_LIVES_PER_SVID: u32 = 6;

pub(super) struct ServerBlock {
    pub(super) trust_domain: TrustDomain,
    pub(super) server_name: ServerName,
    pub(super) data_dir: PathBuf,
    pub(super) rollback_mark: Option<PathBuf>,
    pub(super) bind_address: SocketAddr,
    pub(super) balancers: Balancers,
    pub(super) socket_path: PathBuf,
    pub(super) lifetimes: Lifetimes,
    pub(super) ca_subject: CaSubject,
    key_kind: KeyKind,
    pub(super) jwt: JwtBlock,
    pub(super) wit: Option<WitPolicy>,
    pub(super) key_exchanges: KeyExchanges,
    pub(super) admin_ids: Vec<SpiffeId>,
    pub(super) agent_id_is_selector: bool,
    pub(super) allow_executable_only: bool,
    pub(super) audit: AuditConfig,
    pub(super) rate_limits: RateLimits,
    pub(super) prune_attested_nodes_expired_for: Option<Duration>,
    pub(super) prune_tofu_nodes: bool,
}

impl ServerBlock {
    /// Where an authority above certifies the CAs: a root of this server's own has nothing to sign.
    pub(super) fn without_root(&self, server: &Section<'_>) -> Lifetimes {
        if self.lifetimes.root.is_some() && server.has("root") {
            let reason = "an UpstreamAuthority signs the CAs already: remove the root block, or the UpstreamAuthority; what the root has \
                          signed stays good, since the root stays in the bundle until it ends";
            server.mistake("root", reason);
        }
        Lifetimes { root: None, ..self.lifetimes }
    }
}

pub(super) fn read(server: &Section<'_>) -> Option<ServerBlock> {
    let trust_domain = server.parsed("trust_domain", TrustDomain::new);
    let trust_domain =
        server.required("trust_domain", trust_domain, "give its name, such as trust_domain = \"example.org\"");
    let server_name = server.parsed("server_name", str::parse::<ServerName>).unwrap_or_default();
    let data_dir = server.required("data_dir", server.path("data_dir"), "give the directory the server may write to");
    let rollback_mark = read_rollback_mark(server, data_dir.as_deref());
    let address = server.ip_address("bind_address").unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let port = server.port("bind_port", 0).unwrap_or(8081);
    server.listens("bind_port", &address.to_string(), port);
    let socket_path = server.socket_path("socket_path").unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET_PATH));
    if let Some(data_dir) = &data_dir {
        server.look("data_dir", || places::usable_directory(data_dir));
    }
    server.look("socket_path", || places::usable_socket(&socket_path));
    let lifetimes = read_lifetimes(server);
    let ca_subject = read_ca_subject(&server.block("ca_subject"));
    let admin_ids = server.parsed_list("admin_ids", SpiffeId::parse).unwrap_or_default();
    let rate_limits = read_rate_limits(&server.block("ratelimit"));
    let prune_attested_nodes_expired_for = server.duration("prune_attested_nodes_expired_for");
    let prune_tofu_nodes = server.boolean("prune_tofu_nodes").unwrap_or(false);
    let allow_executable_only = server.boolean("allow_executable_only").unwrap_or(false);
    let audit = read_audit(server);
    let key_kind = server.parsed("ca_key_type", key_kind).unwrap_or_default();
    let jwt = read_jwt(server, lifetimes.jwt_svid, key_kind);
    let experimental = server.block("experimental");
    let wit = wit::read(server, &experimental, key_kind);
    let required = [server, &experimental].map(|section| section.boolean("require_pq_kem"));
    let key_exchanges = required.contains(&Some(true)).into();
    let agent_id_is_selector = experimental.boolean("agent_spiffe_id_as_selector").unwrap_or(false);
    refuse_unsupported(server, &experimental);
    Some(ServerBlock {
        admin_ids: own_admins(server, trust_domain.as_ref(), admin_ids),
        trust_domain: trust_domain?,
        server_name,
        data_dir: data_dir?,
        rollback_mark,
        bind_address: SocketAddr::new(address, port),
        balancers: balancers::read(server),
        socket_path,
        lifetimes,
        ca_subject: ca_subject?,
        key_kind,
        jwt,
        wit,
        key_exchanges,
        agent_id_is_selector,
        allow_executable_only,
        audit,
        rate_limits,
        prune_attested_nodes_expired_for,
        prune_tofu_nodes,
    })
}

/// Its directory is the operator's: it is to be another disk's, or another machine's.
fn read_rollback_mark(server: &Section<'_>, data_dir: Option<&Path>) -> Option<PathBuf> {
    let path = server.path("rollback_mark_path")?;
    server.look("rollback_mark_path", || places::usable_file(&path, data_dir.unwrap_or(&path)));
    Some(path)
}

/// SPIRE's keys that are understood there and not here yet. `experimental`: what is left of that block.
fn refuse_unsupported(server: &Section<'_>, experimental: &Section<'_>) {
    server.no_meaning(
        PROGRAM,
        &[
            "log_source_location",
            "max_attested_node_info_staleness",
            "profiling_enabled",
            "profiling_freq",
            "profiling_names",
            "profiling_port",
            "prune_attested_nodes_batch_size",
        ],
    );
    experimental.not_supported(PROGRAM, &["auth_opa_policy_engine", "named_pipe_name"]);
    experimental.no_meaning(
        PROGRAM,
        &[
            "cache_reload_interval",
            "event_timeout",
            "events_based_cache",
            "full_cache_reload_interval",
            "prune_events_older_than",
            "sql_transaction_timeout",
        ],
    );
    experimental.finish();
}

fn read_audit(server: &Section<'_>) -> AuditConfig {
    let enabled = server.boolean("audit_log_enabled").unwrap_or(true);
    let file = server.path("audit_log_file");
    if let Some(file) = &file {
        server.look("audit_log_file", || places::appendable_file(file));
    }
    let required = server.boolean("audit_log_required").unwrap_or(false);
    if required && !(enabled && file.is_some()) {
        server.mistake(
            "audit_log_required",
            "there must be a file to write to: audit_log_file, and no audit_log_enabled = false",
        );
    }
    AuditConfig { enabled, file, required }
}

fn read_lifetimes(server: &Section<'_>) -> Lifetimes {
    let ca = lifetime(server, "ca_ttl", 24 * HOUR);
    let x509_svid = lifetime(server, "default_x509_svid_ttl", HOUR);
    let jwt_svid = lifetime(server, "default_jwt_svid_ttl", Duration::from_secs(300));
    let agent = lifetime(server, "agent_ttl", x509_svid);
    for (key, svid) in [("default_x509_svid_ttl", x509_svid), ("default_jwt_svid_ttl", jwt_svid), ("agent_ttl", agent)]
    {
        if server.has(key) || key == "default_x509_svid_ttl" {
            warn_of_short_svids(server, key, svid, ca);
        }
    }
    Lifetimes { ca, root: read_root(&server.block("root"), ca), agent, x509_svid, jwt_svid }
}

fn read_root(root: &Section<'_>, ca: Duration) -> Option<Duration> {
    let enabled = root.boolean("enabled").unwrap_or(true);
    let ttl = root.duration("ttl");
    let shortest = ca.saturating_mul(CA_LIVES_PER_ROOT).min(LONGEST_ROOT);
    let ttl = ttl.unwrap_or(ROOT_TTL.max(shortest));
    if ttl < shortest || ttl > LONGEST_ROOT {
        let (shortest, longest) = (format_duration(shortest), format_duration(LONGEST_ROOT));
        root.mistake("ttl", format!("must be from {shortest} (eight times ca_ttl) to {longest}"));
    }
    root.finish();
    enabled.then_some(ttl)
}

fn lifetime(server: &Section<'_>, key: &str, default: Duration) -> Duration {
    let Some(lifetime) = server.duration(key) else { return default };
    if lifetime < Duration::from_secs(1) || lifetime > LONGEST {
        server.mistake(key, format!("must be from 1s to {}", format_duration(LONGEST)));
        return default;
    }
    lifetime
}

/// An SVID ends with the CA that signed it, and a CA signs until a sixth of its life is left, at most 7 days.
fn warn_of_short_svids(server: &Section<'_>, key: &str, svid: Duration, ca: Duration) {
    let safe = (ca / CA_LIVES_PER_SVID).min(LONGEST_SAFE_SVID);
    if svid <= safe {
        return;
    }
    let cure = if svid <= LONGEST_SAFE_SVID {
        let ca = format_duration(svid * CA_LIVES_PER_SVID);
        format!("set {key} to {} or less, or ca_ttl to {ca} or more", format_duration(safe))
    } else {
        format!("set {key} to {} or less", format_duration(safe))
    };
    server.warn(
        key,
        format!(
            "{} is not always possible before a CA rotation, some SVIDs will be shorter: {cure}",
            format_duration(svid)
        ),
    );
}

/// JWT-SVIDs as the file has them.
#[derive(Debug)]
pub(super) struct JwtBlock {
    policy: JwtPolicy,
    is_disabled: Option<bool>,
}

impl JwtBlock {
    /// What they say, and for how long; none if they are switched off. Where an administrator makes the keys, they are off unless the
    /// file says otherwise: keys that were made for CAs would go to them. Those are on P-256.
    pub(super) fn policy(self, server: &Section<'_>, has_given_keys: bool) -> Option<JwtPolicy> {
        let is_disabled = self.is_disabled.unwrap_or(has_given_keys);
        if !is_disabled && has_given_keys && self.policy.key_kind != KeyKind::EcP256 {
            server.mistake("jwt_key_type", "keys that key_labels and key_ids name are P-256: use ec-p256");
        }
        (!is_disabled).then_some(self.policy)
    }
}

/// Those of JWT-SVIDs are of the same kind as CAs unless the file says otherwise. Source: SPIRE.
fn read_jwt(server: &Section<'_>, svid_ttl: Duration, ca_key_kind: KeyKind) -> JwtBlock {
    let key_kind = server.parsed("jwt_key_type", token_key_kind).unwrap_or(for_tokens(ca_key_kind));
    let issuer = server.string("jwt_issuer");
    let svid_ttl_seconds = svid_ttl.as_secs().try_into().unwrap_or(i64::MAX);
    JwtBlock {
        policy: JwtPolicy { issuer, svid_ttl_seconds, key_kind },
        is_disabled: server.boolean("disable_jwt_svids"),
    }
}

/// Kinds of keys, as the file and the command line call them.
pub(crate) fn key_kind(text: &str) -> Result<KeyKind, &'static str> {
    match text {
        "ec-p256" => Ok(KeyKind::EcP256),
        "ec-p384" => Ok(KeyKind::EcP384),
        "rsa-2048" => Ok(KeyKind::Rsa2048),
        "rsa-4096" => Ok(KeyKind::Rsa4096),
        "ml-dsa-44" => Ok(KeyKind::MlDsa(MlDsa::MlDsa44)),
        "ml-dsa-65" => Ok(KeyKind::MlDsa(MlDsa::MlDsa65)),
        "ml-dsa-87" => Ok(KeyKind::MlDsa(MlDsa::MlDsa87)),
        _ => Err("not a key type: use ec-p256, ec-p384, rsa-2048, rsa-4096, ml-dsa-44, ml-dsa-65 or ml-dsa-87"),
    }
}

/// Those of them that tokens are signed with.
pub(super) fn token_key_kind(text: &str) -> Result<KeyKind, &'static str> {
    match key_kind(text) {
        Ok(KeyKind::MlDsa(_)) => Err(
            "tokens are not signed with ML-DSA, for which their standard has no algorithm: use ec-p256, ec-p384, rsa-2048 or rsa-4096",
        ),
        Ok(kind) => Ok(kind),
        Err(_) => Err("not a key type: use ec-p256, ec-p384, rsa-2048 or rsa-4096"),
    }
}

/// What tokens are signed with beside CAs of this kind, unless the file says otherwise: the same, or what every token makes.
pub(super) fn for_tokens(ca_key_kind: KeyKind) -> KeyKind {
    if matches!(ca_key_kind, KeyKind::MlDsa(_)) { KeyKind::EcP256 } else { ca_key_kind }
}

impl ServerBlock {
    /// What kind of key the next CA has. Those of an administrator are on P-256.
    pub(super) fn ca_key_kind(&self, server: &Section<'_>, has_given_keys: bool) -> KeyKind {
        if has_given_keys && self.key_kind != KeyKind::EcP256 {
            server.mistake("ca_key_type", "keys that key_labels and key_ids name are P-256: use ec-p256");
        }
        self.key_kind
    }
}

fn read_ca_subject(section: &Section<'_>) -> Option<CaSubject> {
    let country = section.strings("country").unwrap_or_default();
    if country.iter().any(|c| c.len() != 2 || !c.bytes().all(|b| b.is_ascii_alphabetic())) {
        section.mistake("country", "a country has two letters, such as \"DE\"");
    }
    let organization = section.strings("organization").unwrap_or_default();
    let common_name = section.string("common_name");
    for (key, longest) in [
        ("organization", organization.iter().map(|o| o.chars().count()).max()),
        ("common_name", common_name.as_ref().map(|c| c.chars().count())),
    ] {
        // Source: RFC 5280 appendix A.1, ub-organization-name and ub-common-name.
        if longest.is_some_and(|longest| longest > 64) {
            section.mistake(key, "longer than the 64 characters a certificate can hold");
        }
    }
    section.finish();
    if country.is_empty() && organization.is_empty() && common_name.is_none() {
        if section.is_present() {
            section.own_warn("is empty: C=US, O=SPIFFE is used");
        }
        return Some(CaSubject {
            country: vec!["US".to_owned()],
            organization: vec!["SPIFFE".to_owned()],
            common_name: None,
        });
    }
    Some(CaSubject { country, organization, common_name })
}

fn read_rate_limits(section: &Section<'_>) -> RateLimits {
    let limits = RateLimits {
        attestation: section.boolean("attestation").unwrap_or(true),
        signing: section.boolean("signing").unwrap_or(true),
    };
    section.finish();
    limits
}

/// Those of other trust domains would have rights by certificates that no CA of this data store has signed.
fn own_admins(server: &Section<'_>, trust_domain: Option<&TrustDomain>, ids: Vec<SpiffeId>) -> Vec<SpiffeId> {
    let Some(trust_domain) = trust_domain else { return ids };
    let own = |id: SpiffeId| {
        let refused = |error| match error {
            SpiffeIdError::OtherTrustDomain { .. } => {
                server
                    .mistake("admin_ids", format!("{error}: administrators of other trust domains are not supported"));
            }
            _ => server.mistake("admin_ids", error.to_string()),
        };
        id.as_member_of(trust_domain).map_err(refused).ok()
    };
    ids.into_iter().filter_map(own).collect()
}
