//! `spire-agent` with a join token and its keys on disk.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::spire_binary;
use crate::deployment::{Process, TRUST_DOMAIN, open_directory};

/// An agent process and everything it keeps.
#[derive(Debug)]
pub struct SpireAgent {
    directory: TempDir,
    /// `log_level` and `sync_interval`.
    manners: (&'static str, &'static str),
    /// Further lines of its block.
    lines: String,
    /// Further lines of its `experimental` block.
    experimental_lines: String,
    trust_domain: &'static str,
    process: Option<Process>,
}

impl SpireAgent {
    /// An agent that has not been started, in a directory of its own.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("spire-agent-").tempdir().expect("directory");
        open_directory(directory.path());
        std::fs::create_dir_all(directory.path().join("data")).expect("directory");
        let (lines, experimental_lines) = (String::new(), String::new());
        let (manners, trust_domain) = (("DEBUG", "1s"), TRUST_DOMAIN);
        Self { directory, manners, lines, experimental_lines, trust_domain, process: None }
    }

    /// The same, but it says and asks no more than one that is in use.
    pub fn as_in_use(self) -> Self {
        Self { manners: ("INFO", "5s"), ..self }
    }

    /// The same in another trust domain.
    pub fn in_trust_domain(self, trust_domain: &'static str) -> Self {
        Self { trust_domain, ..self }
    }

    /// The same with an admin socket, and further lines of the agent's block.
    pub fn with_admin_socket(self, more: &str) -> Self {
        let lines = format!("admin_socket_path = \"{}\"\n{more}", self.admin_socket().display());
        Self { lines, ..self }
    }

    /// The same with further lines of its `experimental` block.
    pub fn with_experimental(self, more: &str) -> Self {
        Self { experimental_lines: more.to_owned(), ..self }
    }

    /// Gives it its configuration, with the bundle and the port of its server.
    pub fn provision(&self, bundle_pem: &str, port: u16) {
        self.provision_with(bundle_pem, port, "NodeAttestor \"join_token\" { plugin_data { } }");
    }

    /// As [`provision`](Self::provision), with the block of the node attestor.
    pub fn provision_with(&self, bundle_pem: &str, port: u16, node_attestor: &str) {
        std::fs::write(self.at("bundle.pem"), bundle_pem).expect("bundle written");
        std::fs::write(self.at("agent.conf"), self.config(port, node_attestor)).expect("configuration written");
    }

    /// Adds blocks to the configuration that it was given.
    pub fn add_blocks(&self, blocks: &str) {
        let text = std::fs::read_to_string(self.at("agent.conf")).expect("its configuration");
        std::fs::write(self.at("agent.conf"), text + blocks).expect("configuration written");
    }

    /// Starts it (again) without waiting; with a token if it has to attest.
    pub fn start(&mut self, join_token: Option<&str>) {
        self.process = None;
        let mut arguments = vec!["run".to_owned(), "-config".to_owned(), self.at("agent.conf").display().to_string()];
        arguments.extend(join_token.into_iter().flat_map(|token| ["-joinToken".to_owned(), token.to_owned()]));
        self.process = Some(Process::start(&spire_binary("spire-agent"), &arguments, &[], &self.at("agent.log")));
    }

    /// Starts it in mounts of its own, where the unix socket of a software TPM stands in for `/dev/tpm0`, and nothing else of the
    /// machine's devices but what programs need. For plugins that are told of no path. Needs root.
    pub fn start_with_tpm(&mut self, socket: &Path) {
        self.process = None;
        let (agent, config) = (spire_binary("spire-agent"), self.at("agent.conf"));
        let devices = self.at("devices");
        let script = format!(
            "set -e
            mount -t tmpfs tmpfs /sys/class && mkdir -p /sys/class/tpm/tpm0
            mkdir -p {devices} && mount -t tmpfs tmpfs {devices}
            for name in null zero random urandom; do touch {devices}/$name; mount --bind /dev/$name {devices}/$name; done
            ln -s {socket} {devices}/tpm0
            mount --move {devices} /dev
            exec {agent} run -config {config}",
            devices = devices.display(),
            socket = socket.display(),
            agent = agent.display(),
            config = config.display(),
        );
        let arguments = ["--mount", "sh", "-c", &script].map(str::to_owned);
        self.process = Some(Process::start(Path::new("unshare"), &arguments, &[], &self.at("agent.log")));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The running process.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The Workload API's socket.
    pub fn socket(&self) -> PathBuf {
        self.at("run/api.sock")
    }

    /// The admin socket, if it has one.
    pub fn admin_socket(&self) -> PathBuf {
        self.at("admin/admin.sock")
    }

    /// Where `agent-data.json` and `keys.json` are.
    pub fn data_directory(&self) -> PathBuf {
        self.at("data")
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.at("agent.log")).unwrap_or_default()
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, port: u16, node_attestor: &str) -> String {
        let directory = self.directory.path().display();
        let ((log_level, sync_interval), trust_domain) = (self.manners, self.trust_domain);
        let (lines, experimental_lines) = (&self.lines, &self.experimental_lines);
        format!(
            r#"agent {{
    trust_domain = "{trust_domain}"
    data_dir = "{directory}/data"
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{directory}/run/api.sock"
    trust_bundle_path = "{directory}/bundle.pem"
    log_level = "{log_level}"
    {lines}
    experimental {{
        sync_interval = "{sync_interval}"
        {experimental_lines}
    }}
}}
plugins {{
    {node_attestor}
    KeyManager "disk" {{
        plugin_data {{
            directory = "{directory}/data"
        }}
    }}
    WorkloadAttestor "unix" {{
        plugin_data {{ }}
    }}
}}
"#
        )
    }
}

impl Default for SpireAgent {
    fn default() -> Self {
        Self::new()
    }
}
