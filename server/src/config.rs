//! The server's configuration file: SPIRE's keys, and ours for the token and the TPMs.

mod acme;
mod attestors;
mod balancers;
mod composers;
mod data_store;
mod federation;
mod key_managers;
mod manufacturer;
mod oidc;
mod pkcs11;
mod plugins;
mod server_block;
mod token_exchange;
mod upstream;
mod upstream_token;
mod wit;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::tls::KeyExchanges;
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_hsm::{KeyKind, KeyName, TokenUri};
use ironroot_shell::logging::LogConfig;
use ironroot_shell::settings::{HealthChecks, Section, Settings, read_health_checks};
use ironroot_shell::telemetry::otlp::Otlp;
use ironroot_shell::telemetry::{Telemetry, read_telemetry};

use crate::ca::{CaSubject, JwtPolicy, ServerName, WitPolicy};
use crate::store::Location;

pub use acme::{AcmeConfig, MAX_NAMES as MAX_ACME_NAMES};
pub use attestors::{
    Admission, AttestorFileError, HttpChallengeConfig, NodeAttestors, SshPopConfig, Tpm2Config, TpmDevIdConfig,
    TpmPluginConfig, X509PopMode,
};
pub use balancers::Balancers;
pub use federation::{BundleEndpointConfig, FederationConfig, WebCertificate, WebIdentity};
pub use ironroot_hsm::settings::{LoginMode, PinSource};
pub use ironroot_shell::settings::{ConfigErrors, Override};
pub use manufacturer::{ManufacturerFileError, read_manufacturer_roots};
pub use oidc::{OidcConfig, OidcListener, OidcPolicy};
pub use token_exchange::{MAX_ISSUERS, TokenExchangeConfig};
pub use upstream::UpstreamConfig;
pub use upstream_token::{RootTokenConfig, UpstreamTokenConfig};

pub use key_managers::{KeyManagerConfig, KeyManagersConfig};

pub(crate) use server_block::{DEFAULT_SOCKET_PATH, key_kind};

/// Everything the server can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPIRE's keys by their names, where nothing more is to be said")]
pub struct ServerConfig {
    /// The trust domain it signs for.
    pub trust_domain: TrustDomain,
    /// Which of the trust domain's servers it is.
    pub server_name: ServerName,
    /// Its directory; made if missing.
    pub data_dir: PathBuf,
    /// Where it is kept how far the database has come, so that one that is put back is noticed.
    pub rollback_mark: Option<PathBuf>,
    /// Where agents connect. Port 0 lets the kernel choose.
    pub bind_address: SocketAddr,
    /// Who may say at any of the listeners whose a connection is.
    pub balancers: Balancers,
    pub socket_path: PathBuf,
    /// How long what it signs is valid.
    pub lifetimes: Lifetimes,
    pub ca_subject: CaSubject,
    /// What kind of key the next CA has.
    pub ca_key_type: KeyKind,
    /// What JWT-SVIDs say, and for how long; none: none are signed.
    pub jwt: Option<JwtPolicy>,
    /// WIT-SVIDs; none unless they are switched on.
    pub wit: Option<WitPolicy>,
    /// What TLS links may agree on: of listeners, and of clients.
    pub key_exchanges: KeyExchanges,
    /// Callers that may administer the server over TCP.
    pub admin_ids: Vec<SpiffeId>,
    /// Whether an agent's own ID is one of its selectors.
    pub agent_id_is_selector: bool,
    /// Whether entries may name a program and nobody who runs it.
    pub allow_executable_only: bool,
    /// Whether, and where, each issued, refused and changed thing leaves a line.
    pub audit: AuditConfig,
    /// Which calls are limited per source address.
    pub rate_limits: RateLimits,
    /// What is shown to other trust domains, and looked up there.
    pub federation: FederationConfig,
    /// Where verifiers that know no SPIFFE find the keys of JWT-SVIDs, if anywhere.
    pub oidc: Option<OidcConfig>,
    /// Where tokens of other issuers are exchanged for SVIDs, if anywhere.
    pub token_exchange: Option<TokenExchangeConfig>,
    /// Agents whose SVID expired longer ago than this are forgotten; never if none.
    pub prune_attested_nodes_expired_for: Option<Duration>,
    /// Those that cannot attest again, too.
    pub prune_tofu_nodes: bool,
    /// Where entries, agents, devices and the CA's journal are kept.
    pub data_store: Location,
    /// Where the CA's keys are, and where they were.
    pub key_managers: KeyManagersConfig,
    /// How devices may prove who they are.
    pub node_attestors: NodeAttestors,
    /// Who certifies this server's CAs, if not itself or a root of its own.
    pub upstream: Option<UpstreamConfig>,
    /// Whether the subjects of workloads' X.509-SVIDs have a unique identifier.
    pub unique_ids: bool,
    /// The HTTP health listener, if enabled.
    pub health_checks: Option<HealthChecks>,
    /// What is shown of metrics, if they are.
    pub telemetry: Option<Telemetry>,
    /// Where traces are sent.
    pub traces: Option<Otlp>,
    /// The least important level, the form, and the file if it is not standard error.
    pub log: LogConfig,
    /// What the operator should know about the file; for the log once there is one.
    pub warnings: Vec<String>,
}

/// How long what the server signs is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// X.509 CA certificates, which are replaced when a sixth of this is left.
    pub ca: Duration,
    /// The root above them; none if each CA signs itself.
    pub root: Option<Duration>,
    /// Agents' SVIDs: the time an agent may be offline before it must attest again.
    pub agent: Duration,
    /// Workloads' X.509-SVIDs whose entry does not say.
    pub x509_svid: Duration,
    /// Workloads' JWT-SVIDs whose entry does not say.
    pub jwt_svid: Duration,
}

/// Lines about what is issued, refused and changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Whether there are any.
    pub enabled: bool,
    /// A file that they go to beside the log, as JSON.
    pub file: Option<PathBuf>,
    /// Whether nothing is changed or signed while that file takes no lines.
    pub required: bool,
}

/// Which calls are limited per source address. Source: SPIRE's `ratelimit` block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SPIRE's keys by their names")]
pub struct RateLimits {
    pub attestation: bool,
    pub signing: bool,
}

/// The PKCS#11 token with the CA's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Config {
    /// The maker's PKCS#11 library, which is loaded into this process.
    pub module_path: PathBuf,
    /// By label, serial number, maker or slot; exactly one token must fit.
    pub token: TokenUri,
    /// With what the CA's keys are unlocked at the start and after each epoch.
    pub login: LoginMode,
    /// Sessions, so signatures at the same time.
    pub sessions: usize,
    /// Keys that the token's administrator has made, in the order in which they are used; none: the server makes its keys.
    pub given_keys: Vec<KeyName>,
}

impl ServerConfig {
    /// Reads and checks the file at `path`. `overrides` are the command line's and win over the file; `expand_env` replaces
    /// `$NAME` and `${NAME}` in the file from the environment.
    pub fn load(path: &Path, overrides: &[Override], expand_env: bool) -> Result<Self, ConfigErrors> {
        Self::from_settings(Settings::load(path, expand_env)?, overrides)
    }

    /// As [`load`](Self::load), and looks at the files and directories that the file names, with this user's rights.
    pub fn validate(path: &Path, overrides: &[Override], expand_env: bool) -> Result<Self, ConfigErrors> {
        Self::from_settings(Settings::load(path, expand_env)?.looking(), overrides)
    }

    /// Checks a file that has been read.
    pub fn from_settings(mut settings: Settings, overrides: &[Override]) -> Result<Self, ConfigErrors> {
        settings.override_with("server", overrides);
        let checked = settings.check(read)?;
        Ok(Self { warnings: checked.warnings, ..checked.value })
    }
}

fn read(root: &Section<'_>) -> Option<ServerConfig> {
    let health_checks = read_health_checks(root);
    let (telemetry, traces) = read_telemetry(root, PROGRAM, "spire_server");
    let server = root.block("server");
    let block = server_block::read(&server);
    let log = ironroot_shell::settings::read_logging(&server);
    let federation = federation::read(&server.block("federation"), block.as_ref().map(|block| &block.trust_domain));
    let jwt_issuer = server.string("jwt_issuer");
    let oidc = oidc::read(&server.block("oidc_discovery"), jwt_issuer.as_deref());
    let trust_domain = block.as_ref().map(|block| &block.trust_domain);
    let token_exchange = token_exchange::read(&server.block("token_exchange"), trust_domain);
    server.finish();
    let plugins = plugins::read(&root.block("plugins"), block.as_ref());
    let (block, plugins) = block.zip(plugins)?;
    let has_given_keys = plugins.key_managers.given_keys() > 0;
    let ca_key_type = block.ca_key_kind(&server, has_given_keys);
    let lifetimes = match plugins.upstream {
        Some(_) => block.without_root(&server),
        None => block.lifetimes,
    };
    Some(ServerConfig {
        trust_domain: block.trust_domain,
        server_name: block.server_name,
        data_dir: block.data_dir,
        rollback_mark: block.rollback_mark,
        bind_address: block.bind_address,
        balancers: block.balancers,
        socket_path: block.socket_path,
        lifetimes,
        ca_subject: block.ca_subject,
        ca_key_type,
        jwt: block.jwt.policy(&server, has_given_keys),
        wit: wit::with_given_keys(&server, block.wit, has_given_keys),
        key_exchanges: block.key_exchanges,
        admin_ids: block.admin_ids,
        agent_id_is_selector: block.agent_id_is_selector,
        allow_executable_only: block.allow_executable_only,
        audit: block.audit,
        rate_limits: block.rate_limits,
        federation,
        oidc,
        token_exchange,
        prune_attested_nodes_expired_for: block.prune_attested_nodes_expired_for,
        prune_tofu_nodes: block.prune_tofu_nodes,
        data_store: plugins.data_store,
        key_managers: plugins.key_managers,
        node_attestors: plugins.node_attestors,
        upstream: plugins.upstream,
        unique_ids: plugins.unique_ids,
        health_checks,
        telemetry: telemetry.map(|telemetry| telemetry.agreeing_on(block.key_exchanges)),
        traces: traces.map(|traces| traces.agreeing_on(block.key_exchanges)),
        log,
        warnings: Vec::new(),
    })
}

const PROGRAM: &str = "ironroot-server";
