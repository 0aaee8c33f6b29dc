//! The agent's configuration file: SPIRE's keys, and ours for the TPM and the offline cache.

mod admin_socket;
mod agent_block;
mod broker;
mod bundle_source;
mod call_rates;
mod containers;
mod local_authority;
mod logged_selectors;
mod password;
mod plugins;
mod sds;
mod servers;
mod tpm;
mod verifiers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_api::tls::KeyExchanges;
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use ironroot_attest::workload::{ConnectionWriter, ContainerConfig, DEFAULT_SIZE_LIMIT, ExecutableSelectors};
use ironroot_shell::logging::LogConfig;
use ironroot_shell::settings::{HealthChecks, Section, Settings, read_health_checks, read_logging};
use ironroot_shell::telemetry::otlp::Otlp;
use ironroot_shell::telemetry::{Telemetry, read_telemetry};

pub(crate) use broker::PID_REFERENCE;
pub use ironroot_shell::settings::{ConfigErrors, Override};

pub use crate::agent_key::WorkloadKeyKind;
pub use crate::bundle_source::{BundleSource, TrustBundleFormat};
pub use crate::endpoints::{
    BoundedCall, Brokers, CallRates, Delegates, LoggedSelectors, ReferenceTypes, SdsConfig, VerifierPolicy,
};
pub use crate::jwt_svids::RenewalPatience;
pub use crate::node_attestation::{JoinToken, NodeAttestor};
use crate::sealed_cache::SignedStates;
use crate::token::LazyToken;
pub(crate) use admin_socket::DEFAULT_ADMIN_SOCKET_PATH;
pub(crate) use agent_block::DEFAULT_SOCKET_PATH;
pub(crate) use containers::unreachable_docker;
pub use local_authority::{LocalAuthorityConfig, LocalJwtConfig};
pub use password::{PasswordError, PasswordSource};
pub use servers::{ServerConfig, ServerName};
pub use tpm::TpmConfig;
pub(crate) use tpm::{DEFAULT_TPM, TpmKeys, read_password};

/// Everything the agent can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The trust domain it belongs to.
    pub trust_domain: TrustDomain,
    /// Its servers, at least one. Several are servers of one trust domain that share no database.
    pub servers: Vec<ServerConfig>,
    /// When it seeks another bundle because a server is not believed.
    pub rebootstrap: Rebootstrap,
    /// Its directory; made if missing.
    pub data_dir: PathBuf,
    /// The Workload API's socket.
    pub socket_path: PathBuf,
    /// Whether it serves the Workload API there.
    pub workload_api: bool,
    /// What kind of keys it makes for workloads.
    pub workload_keys: WorkloadKeyKind,
    /// Whether workloads may ask for WIT-SVIDs.
    pub wit_svids: bool,
    /// What links to the server, and to a kubelet, may agree on.
    pub key_exchanges: KeyExchanges,
    /// What those are told there who verify SVIDs of others.
    pub verifiers: VerifierPolicy,
    /// How often workloads of one kind may call there.
    pub call_rates: CallRates,
    /// Which selectors of local processes stand in its log.
    pub logged_selectors: LoggedSelectors,
    /// How it serves Envoy's secrets there, if it does.
    pub secrets: Option<SdsConfig>,
    /// The admin socket, if there is one.
    pub admin_socket_path: Option<PathBuf>,
    /// Who may ask there for identities of others.
    pub delegates: Delegates,
    /// The brokers' socket, if there is one.
    pub broker: Option<BrokerConfig>,
    /// How the device proves who it is.
    pub node_attestor: NodeAttestor,
    /// Where the agent's own key lives.
    pub key_manager: KeyManager,
    /// The sealed cache; only with a TPM.
    pub offline_cache: Option<OfflineCacheConfig>,
    /// The agent's own CA, if it is to have one.
    pub local_authority: Option<LocalAuthorityConfig>,
    /// How local processes are told apart.
    pub workload_attestor: UnixAttestorConfig,
    /// Who is asked for their containers.
    pub containers: ContainerConfig,
    /// How long workloads with a valid JWT-SVID wait for a newer one.
    pub renewal_patience: RenewalPatience,
    /// How often the server is asked for changes.
    pub sync_interval: Duration,
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

/// Where brokers ask for identities of others, and who they are. Source: SPIRE's `experimental { broker { } }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// The socket.
    pub socket_path: PathBuf,
    /// Who may ask there for whom.
    pub brokers: Brokers,
}

/// How the agent knows the server before it has a trust bundle of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// By the authorities that are found there, at each first contact.
    TrustBundle(BundleSource),
    /// Not at all: whoever answers first is believed.
    Insecure,
}

/// Whether, and when, an agent gives up the bundle that it holds for the configured one, because the server is not believed by it.
/// Source: SPIRE, `rebootstrap_mode` and `rebootstrap_delay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebootstrap {
    /// Whether.
    pub mode: RebootstrapMode,
    /// After the server was not believed for so long.
    pub delay: Duration,
}

/// See [`Rebootstrap`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RebootstrapMode {
    /// Only for a bundle that is newer than any that was held.
    #[default]
    Never,
    /// Where the agent may attest again.
    Auto,
    /// The same; an agent that may not attest again is a mistake of the operator's.
    Always,
}

/// Where the agent's own key lives. `Chip`: as in [`NodeAttestor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManager<Chip = TpmConfig> {
    /// In the TPM, which never gives it out.
    Tpm(Chip),
    /// In a PKCS#11 token, which never gives it out.
    Token {
        /// Opened when the agent first signs.
        token: LazyToken,
        /// How the labels of the agent's keys begin in it.
        label: String,
    },
    /// In a file of this directory.
    Disk {
        /// Where SPIRE's `keys.json` lies, mode 0600.
        directory: PathBuf,
    },
    /// Nowhere: made anew at each start.
    Memory,
}

/// The cache of identities, sealed to the TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineCacheConfig {
    /// The chip that it is sealed to.
    pub tpm: TpmConfig,
    /// PCRs that must be as they were when the cache was written. May be empty.
    pub pcrs: PcrSelection,
    /// Boot states that open it although it was sealed in another.
    pub signed_states: Option<SignedStates>,
    /// Identities that came from the server longer ago than this are not served, even if they are still valid.
    pub max_age: Option<Duration>,
    /// The bank of these PCRs; none: the best that is active, SHA-1 never.
    pub pcr_bank: Option<PcrHash>,
    /// The NV counter that makes an older copy of the cache worthless.
    pub tpm_nv_index: u32,
}

/// How local processes are told apart. Source: SPIRE's `WorkloadAttestor "unix"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixAttestorConfig {
    /// Whether the executable is looked at: selectors `unix:path`, `unix:sha256` and `unix:fs_verity`.
    pub discover_workload_path: bool,
    /// Executables above this many bytes get no hash; 0: no limit, below 0: never hash.
    pub workload_size_limit: i64,
    /// Whether these two are told where users can forge them.
    pub executable_selectors: ExecutableSelectors,
    /// Whether they are told of processes in another mount namespace than the agent's.
    pub executable_in_other_mounts: bool,
    /// Whether the control group is looked at: selector `unix:cgroup`.
    pub discover_cgroup: bool,
    /// Which of SPIRE's attestors tell selectors.
    pub attestors: WorkloadAttestors,
    /// Whether entries that name a program and nobody who runs it match anybody.
    pub allow_executable_only: bool,
    /// Who may write into a workload's connection.
    pub connection_writer: ConnectionWriter,
}

impl Default for UnixAttestorConfig {
    /// What counts where the file says nothing.
    fn default() -> Self {
        Self {
            discover_workload_path: false,
            workload_size_limit: DEFAULT_SIZE_LIMIT,
            executable_selectors: ExecutableSelectors::default(),
            executable_in_other_mounts: false,
            discover_cgroup: false,
            attestors: WorkloadAttestors { unix: true, ..WorkloadAttestors::default() },
            allow_executable_only: false,
            connection_writer: ConnectionWriter::default(),
        }
    }
}

/// What selectors of local processes there are besides those of its container, in the names of SPIRE's plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkloadAttestors {
    /// `unix`: user, groups, executable.
    pub unix: bool,
    /// `slurm`: the job.
    pub slurm: bool,
    /// `systemd`: the unit.
    pub systemd: bool,
}

impl AgentConfig {
    /// The TPM, if attestation or the key needs one.
    pub fn tpm(&self) -> Option<&TpmConfig> {
        tpm_of(&self.node_attestor, &self.key_manager)
    }

    /// Reads and checks the file at `path`. `overrides` are the command line's and win over the file; `expand_env` replaces
    /// `$NAME` and `${NAME}` in the file from the environment.
    pub fn load(path: &Path, overrides: &[Override], expand_env: bool) -> Result<Self, ConfigErrors> {
        Self::from_settings(Settings::load(path, expand_env)?, overrides)
    }

    /// As [`load`](Self::load), and looks at the files, directories and devices that the file names, with this user's rights.
    pub fn validate(path: &Path, overrides: &[Override], expand_env: bool) -> Result<Self, ConfigErrors> {
        Self::from_settings(Settings::load(path, expand_env)?.looking(), overrides)
    }

    /// Checks what the file says and opens nothing that it names; the warnings.
    pub fn check_syntax(path: &Path, overrides: &[Override], expand_env: bool) -> Result<Vec<String>, ConfigErrors> {
        let settings = Settings::load(path, expand_env)?.of_another_machine();
        Self::from_settings(settings, overrides).map(|config| config.warnings)
    }

    /// Checks a file that has been read.
    pub fn from_settings(mut settings: Settings, overrides: &[Override]) -> Result<Self, ConfigErrors> {
        settings.override_with("agent", overrides);
        let checked = settings.check(read)?;
        Ok(Self { warnings: checked.warnings, ..checked.value })
    }
}

/// The TPM that either needs; both have the same.
fn tpm_of<'a, Chip>(node_attestor: &'a NodeAttestor<Chip>, key_manager: &'a KeyManager<Chip>) -> Option<&'a Chip> {
    match key_manager {
        KeyManager::Tpm(chip) => Some(chip),
        KeyManager::Token { .. } | KeyManager::Disk { .. } | KeyManager::Memory => node_attestor.chip(),
    }
}

fn read(root: &Section<'_>) -> Option<AgentConfig> {
    let health_checks = read_health_checks(root);
    let (telemetry, traces) = read_telemetry(root, PROGRAM, "spire_agent");
    let agent = root.block("agent");
    let block = agent_block::read(&agent);
    let log = read_logging(&agent);
    let token = block.as_ref().and_then(|block| block.servers.first()?.join_token.clone());
    let plugins = plugins::read(&root.block("plugins"), token);
    let tpm = plugins.as_ref().map(|plugins| tpm_of(&plugins.node_attestor, &plugins.key_manager));
    let cache = agent_block::read_offline_cache(&agent.block("offline_cache"), tpm);
    let local_authority = local_authority::read(&agent);
    let secrets = sds::read(&agent);
    let admin_socket_path = admin_socket::read_path(&agent);
    let delegates = admin_socket::read_delegates(&agent, block.as_ref().map(|block| &block.trust_domain));
    let rebootstrap = bundle_source::read_rebootstrap(&agent);
    let workload_api = !agent.boolean("disable_workload_api").unwrap_or(false);
    let (verifiers, logged_selectors) = (verifiers::read(&agent), logged_selectors::read(&agent));
    agent_block::warn_of_what_has_no_meaning(&agent);
    agent.finish();
    let (block, plugins) = block.zip(plugins)?;
    servers::refuse_long_labels(root, &block.servers, &plugins.key_manager);
    servers::refuse_one_port_for_several(root, &block.servers, &plugins.node_attestor);
    bundle_source::refuse_to_rebootstrap(&agent, rebootstrap, &block.servers, &plugins.node_attestor);
    if let Some(local_authority) = &local_authority {
        local_authority::refuse_what_does_not_go(local_authority, &agent, &block.servers, &plugins.key_manager);
    }
    Some(AgentConfig {
        trust_domain: block.trust_domain,
        servers: block.servers,
        rebootstrap,
        data_dir: block.data_dir,
        socket_path: block.socket_path,
        workload_api,
        workload_keys: block.workload_keys,
        wit_svids: block.wit_svids,
        verifiers,
        call_rates: block.call_rates,
        logged_selectors,
        key_exchanges: block.key_exchanges,
        secrets,
        admin_socket_path,
        delegates,
        broker: block.broker,
        node_attestor: plugins.node_attestor,
        key_manager: plugins.key_manager,
        offline_cache: cache,
        local_authority,
        workload_attestor: plugins.workload_attestor,
        containers: agreeing_on(block.key_exchanges, plugins.containers),
        renewal_patience: block.renewal_patience,
        sync_interval: block.sync_interval,
        health_checks,
        telemetry: telemetry.map(|telemetry| telemetry.agreeing_on(block.key_exchanges)),
        traces: traces.map(|traces| traces.agreeing_on(block.key_exchanges)),
        log,
        warnings: Vec::new(),
    })
}

/// The kubelet is asked over TLS, too.
fn agreeing_on(exchanges: KeyExchanges, mut containers: ContainerConfig) -> ContainerConfig {
    if let Some(kubelet) = &mut containers.kubelet {
        kubelet.only_hybrid_key_exchange = exchanges == KeyExchanges::HybridOnly;
    }
    containers
}

const PROGRAM: &str = "ironroot-agent";
