//! One device: a TPM, an agent on it, and the processes that ask it for identities.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use ironroot_api::certificate::Certificate;
use ironroot_attest::tpm::TpmAddress;
use tempfile::TempDir;

use super::process::{Process, as_uid, faked_clock};
use super::server::{Server, path};
use super::{DEADLINE, TRUST_DOMAIN, binary, expect_within, open_directory, wait_for};
use crate::manufacturer::Manufacturer;
use crate::softhsm::SoftHsm;
use crate::swtpm::Swtpm;

/// What differs between devices.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// A join token, or none to attest with the TPM.
    pub join_token: Option<String>,
    /// The block of another node attestor than that of tokens or of the TPM.
    pub node_attestor: Option<String>,
    /// Where the agent's own key lives: `tpm`, `disk` or `memory`.
    pub key_manager: &'static str,
    /// The block of another key manager than these.
    pub key_manager_block: Option<String>,
    /// `experimental.sync_interval`.
    pub sync_interval: &'static str,
    /// `log_level`.
    pub log_level: &'static str,
    /// Whether the unix attestor gives `path` and `sha256`.
    pub discover_workload_path: bool,
    /// The server's TCP port, if another than that of the deployment's server.
    pub server_port: Option<u16>,
    /// Further lines for the unix attestor's `plugin_data`.
    pub attestor_lines: String,
    /// Further lines for the agent's block.
    pub agent_lines: String,
    /// Lines that say by what the server is known, if not by the file at [`Device::bundle_path`].
    pub bundle_source: Option<String>,
    /// Further lines for its `experimental` block.
    pub experimental_lines: String,
    /// `trust_domain` of its agent.conf.
    pub trust_domain: &'static str,
    /// Further lines for the tpm2 node attestor's block.
    pub tpm_lines: String,
    /// Where the agent finds the chip, if not at the chip's own address: an interposer's.
    pub tpm_address: Option<TpmAddress>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            join_token: None,
            node_attestor: None,
            key_manager: "tpm",
            key_manager_block: None,
            sync_interval: "1s",
            log_level: "DEBUG",
            discover_workload_path: false,
            server_port: None,
            attestor_lines: String::new(),
            agent_lines: String::new(),
            bundle_source: None,
            experimental_lines: String::new(),
            trust_domain: TRUST_DOMAIN,
            tpm_lines: String::new(),
            tpm_address: None,
        }
    }
}

/// What a workload got from `api fetch`.
#[derive(Debug)]
pub struct Fetched {
    /// The SPIFFE IDs, in the order served.
    pub ids: Vec<String>,
    /// The leaf certificates, in the same order.
    pub leaves: Vec<Certificate>,
    /// Where `svid.N.pem`, `svid.N.key` and `bundle.N.pem` are.
    pub directory: PathBuf,
}

/// A device with its own TPM, directories and socket.
#[derive(Debug)]
pub struct Device {
    process: Option<Process>,
    tpm: Option<Swtpm>,
    directory: TempDir,
    ek_sha256: String,
    fetches: AtomicU32,
    environment: Vec<(String, PathBuf)>,
}

impl Device {
    /// A device fresh from the factory: its TPM has a certificate of `manufacturer`.
    pub fn manufacture(manufacturer: &Manufacturer) -> Self {
        let tpm = Swtpm::start().expect("swtpm (package swtpm) starts");
        manufacturer.certify(&tpm).expect("endorsement key certified");
        let ek_sha256 = crate::manufacturer::ek_sha256(&tpm).expect("endorsement key read");
        Self::with(Some(tpm), ek_sha256.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A device with a chip of one's own making; `ek_sha256`: of the endorsement key that it is to be known by, hex.
    pub fn with_chip(chip: Swtpm, ek_sha256: String) -> Self {
        Self::with(Some(chip), ek_sha256)
    }

    /// A device that attests by join token and keeps its keys in files.
    pub fn without_tpm() -> Self {
        Self::with(None, String::new())
    }

    /// The same, whose agent is told `name` of its surroundings.
    pub fn with_environment(mut self, name: &str, path: PathBuf) -> Self {
        self.environment.push((name.to_owned(), path));
        self
    }

    /// The same, whose agent has `token` at hand.
    pub fn with_token(mut self, token: &SoftHsm) -> Self {
        let (variable, path) = token.environment();
        self.environment.push((variable.to_owned(), path));
        self
    }

    fn with(tpm: Option<Swtpm>, ek_sha256: String) -> Self {
        let directory = tempfile::Builder::new().prefix("ironroot-device-").tempdir().expect("directory");
        open_directory(directory.path());
        Self { process: None, tpm, directory, ek_sha256, fetches: AtomicU32::new(0), environment: Vec::new() }
    }

    /// SHA-256 of the endorsement key's SPKI, hex: the device's name in the registry.
    pub fn ek_sha256(&self) -> &str {
        &self.ek_sha256
    }

    /// The SPIFFE ID of its agent when it attests with the TPM.
    pub fn agent_id(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm2/{}", self.ek_sha256)
    }

    /// The swtpm that is its chip; panics for a device without one.
    pub fn tpm(&mut self) -> &mut Swtpm {
        self.tpm.as_mut().expect("this device has a TPM")
    }

    /// Gives the agent its configuration and `server`'s bundle, as an image would.
    pub fn provision(&self, server: &Server, options: &AgentOptions) {
        self.provision_with_bundle(&server.bundle_pem(), server.port(), options);
    }

    /// As [`Device::provision`], for another server than the lab's.
    pub fn provision_with_bundle(&self, bundle_pem: &str, port: u16, options: &AgentOptions) {
        std::fs::write(self.bundle_path(), bundle_pem).expect("bundle written");
        let port = options.server_port.unwrap_or(port);
        std::fs::write(self.config_path(), self.config(port, options)).expect("configuration written");
    }

    /// Starts the agent without waiting.
    pub fn start(&mut self) {
        self.start_at(None);
    }

    /// As [`start`](Self::start), but its clock shows what `clock` says, in libfaketime's words: `-2d`, or
    /// `@2020-01-01 00:00:00`. Elapsed time stays real.
    pub fn start_at(&mut self, clock: Option<&str>) {
        self.process = None;
        let mut environment = clock.map(faked_clock).unwrap_or_default();
        environment.extend(self.environment.iter().cloned());
        let arguments = ["run".to_owned(), "-config".to_owned(), path(&self.config_path())];
        self.process = Some(Process::start(&binary("ironroot-agent"), &arguments, &environment, &self.log_path()));
    }

    /// Starts the agent in a boot of that name: what the kernel calls this one is hidden from it. Needs root.
    pub fn start_in_boot(&mut self, boot_id: &str) {
        self.process = None;
        let file = self.directory.path().join("boot-id");
        std::fs::write(&file, format!("{boot_id}\n")).expect("written");
        let (agent, config) = (path(&binary("ironroot-agent")), path(&self.config_path()));
        let mount = format!("mount --bind {} /proc/sys/kernel/random/boot_id", path(&file));
        let script = format!("{mount} && exec {agent} run -config {config}");
        let arguments = ["--mount", "sh", "-c", &script].map(str::to_owned);
        self.process = Some(Process::start(Path::new("unshare"), &arguments, &[], &self.log_path()));
    }

    /// The machine starts: its chip is reset and extended with what `extended` says, and the firmware leaves its log.
    pub fn boot(&mut self, extended: &[(u32, [u8; 32])], log: &[u8]) {
        self.power_cycle();
        self.tpm().extend(extended).expect("the chip is extended");
        std::fs::write(self.boot_log_path(), log).expect("written");
    }

    /// Where its firmware leaves its log; the line for [`AgentOptions::tpm_lines`] names it.
    pub fn boot_log_path(&self) -> PathBuf {
        self.directory.path().join("binary_bios_measurements")
    }

    /// Options of an agent that reads the firmware's log.
    pub fn measured(&self) -> AgentOptions {
        let tpm_lines = format!("event_log_path = \"{}\"", path(&self.boot_log_path()));
        AgentOptions { tpm_lines, ..AgentOptions::default() }
    }

    /// `kill -9` of the agent.
    pub fn kill_agent(&mut self) {
        self.process = None;
    }

    /// The power goes and comes back: the agent dies, the TPM resets, its transient memory is gone. The agent stays down.
    pub fn power_cycle(&mut self) {
        self.kill_agent();
        self.tpm().power_cycle().expect("swtpm restarts on its state");
    }

    /// The running agent.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The Workload API socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/api.sock")
    }

    /// Where an admin socket may be.
    pub fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("admin/admin.sock")
    }

    /// Where the socket for brokers may be.
    pub fn broker_socket(&self) -> PathBuf {
        self.directory.path().join("brokers/broker.sock")
    }

    /// The agent's data directory, with the sealed cache.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The agent's configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("agent.conf")
    }

    /// Everything the agent has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Asks as a process of `uid`; what it got, or what the agent's command line said.
    pub fn fetch(&self, uid: u32) -> Result<Fetched, String> {
        let number = self.fetches.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.path().join(format!("fetch-{uid}-{number}"));
        open_directory(&directory);
        let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&directory, anyone).map_err(|e| e.to_string())?;
        let output = self.fetch_output(uid, &["-write", &path(&directory), "-timeout", "5s"]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout));
        }
        let leaves = leaves(&directory);
        let ids = leaves.iter().map(|leaf| leaf.leaf_spiffe_id().expect("an X509-SVID").to_string()).collect();
        Ok(Fetched { ids, leaves, directory })
    }

    /// Runs `ironroot-agent api fetch x509` as `uid`.
    pub fn fetch_output(&self, uid: u32, more: &[&str]) -> Output {
        let mut command = self.command_as(uid, "ironroot-agent");
        command.args(["api", "fetch", "x509", "-socketPath"]).arg(self.socket()).args(more);
        command.output().expect("ironroot-agent starts")
    }

    /// Runs `ironroot-agent api ...` as `uid`, whatever the outcome.
    pub fn api(&self, uid: u32, arguments: &[&str]) -> Output {
        let mut command = self.command_as(uid, "ironroot-agent");
        command.arg("api").args(arguments).arg("-socketPath").arg(self.socket()).output().expect("it starts")
    }

    /// A binary of this tree as another user. It is linked into the device's directory first: the tree itself may be
    /// somewhere that only its owner can enter.
    pub fn command_as(&self, uid: u32, name: &str) -> Command {
        let (built, here) = (binary(name), self.directory.path().join(name));
        if !here.exists() && std::fs::hard_link(&built, &here).is_err() {
            std::fs::copy(&built, &here).expect("binary copied");
        }
        as_uid(uid, &here)
    }

    /// Asks as `uid` until there is an identity.
    ///
    /// # Panics
    /// After the lab's deadline, with the agent's log.
    pub fn expect_identity(&self, uid: u32) -> Fetched {
        let mut last = String::new();
        let fetched = wait_for(DEADLINE, || self.fetch(uid).map_err(|said| last = said).ok());
        fetched.unwrap_or_else(|| panic!("uid {uid} gets no identity: {last}\n{}", self.log()))
    }

    /// Waits until the cache on flash holds this many identities.
    pub fn expect_sealed(&self, identities: usize) {
        self.expect_log(&format!("identities sealed identities={identities}"));
    }

    /// Waits until the agent has logged `text`.
    pub fn expect_log(&self, text: &str) {
        expect_within(DEADLINE, &format!("the agent logs {text:?}"), || self.log(), || self.log().contains(text));
    }

    /// The trust bundle that its image was given.
    pub fn bundle_path(&self) -> PathBuf {
        self.directory.path().join("bundle.pem")
    }

    /// The agent's log file.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    fn config(&self, port: u16, options: &AgentOptions) -> String {
        let directory = path(self.directory.path());
        let bundle_source =
            options.bundle_source.clone().unwrap_or_else(|| format!("trust_bundle_path = \"{directory}/bundle.pem\""));
        let token = options.join_token.as_ref().map(|token| format!("join_token = \"{token}\"")).unwrap_or_default();
        let tpm_address = options.tpm_address.clone().or_else(|| self.tpm.as_ref().map(Swtpm::address));
        let tpm_address = tpm_address.map(|address| format!("tpm_address = \"{address}\"")).unwrap_or_default();
        let attestor = match (&options.node_attestor, &options.join_token) {
            (Some(block), _) => block.clone(),
            (None, Some(_)) => "NodeAttestor \"join_token\" { plugin_data { } }".to_owned(),
            (None, None) => {
                format!("NodeAttestor \"tpm2\" {{ plugin_data {{ {tpm_address}\n{} }} }}", options.tpm_lines)
            }
        };
        let key_manager = match options.key_manager {
            _ if options.key_manager_block.is_some() => options.key_manager_block.clone().unwrap_or_default(),
            "tpm" => format!("KeyManager \"tpm\" {{ plugin_data {{ {tpm_address} }} }}"),
            "disk" => format!("KeyManager \"disk\" {{ plugin_data {{ directory = \"{directory}/data\" }} }}"),
            other => format!("KeyManager \"{other}\" {{ plugin_data {{ }} }}"),
        };
        format!(
            r#"agent {{
    trust_domain = "{trust_domain}"
    data_dir = "{directory}/data"
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{socket}"
    {bundle_source}
    log_level = "{log_level}"
    {token}
    {agent_lines}
    experimental {{
        sync_interval = "{sync_interval}"
        {experimental_lines}
    }}
}}
plugins {{
    {attestor}
    {key_manager}
    WorkloadAttestor "unix" {{
        plugin_data {{
            discover_workload_path = {discover}
            {attestor_lines}
        }}
    }}
}}
"#,
            trust_domain = options.trust_domain,
            socket = path(&self.socket()),
            bundle_source = bundle_source,
            agent_lines = options.agent_lines,
            experimental_lines = options.experimental_lines,
            attestor_lines = options.attestor_lines,
            sync_interval = options.sync_interval,
            log_level = options.log_level,
            discover = options.discover_workload_path,
        )
    }
}

/// The leaf of each `svid.N.pem`, in order.
fn leaves(directory: &Path) -> Vec<Certificate> {
    let read = |number: u32| std::fs::read_to_string(directory.join(format!("svid.{number}.pem"))).ok();
    let parse = |pem: String| Certificate::parse_pem(&pem).expect("PEM of certificates").swap_remove(0);
    (0..).map_while(read).map(parse).collect()
}
