//! One server: SoftHSM token, configuration, process, and its command line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ironroot_api::TrustDomain;
use ironroot_server::store::Store;
use tempfile::TempDir;

use super::process::{Process, faked_clock, run};
use super::{DEADLINE, TRUST_DOMAIN, binary, expect_within, free_port, open_directory};
use crate::quirk::Quirks;
use crate::softhsm::SoftHsm;

/// Whose TPMs may attest.
#[derive(Clone, Debug, Default)]
pub enum Admission {
    /// Devices in the registry.
    #[default]
    Enrolled,
    /// Devices whose EK certificate chains to these PEM roots.
    Manufacturer(String),
    /// Devices that an operator approves.
    Approval,
}

/// Where the CA's keys are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// In the token.
    #[default]
    Token,
    /// In a file: [`Server::key_file`].
    File,
    /// They move from the file to the token.
    FromFileToToken,
}

/// What differs between deployments; durations as the configuration file has them.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `trust_domain`: [`TRUST_DOMAIN`] unless servers of two federate.
    pub trust_domain: &'static str,
    /// `ca_ttl`.
    pub ca_ttl: &'static str,
    /// `agent_ttl`.
    pub agent_ttl: &'static str,
    /// `default_x509_svid_ttl`.
    pub x509_svid_ttl: &'static str,
    /// Whether a join token alone attests.
    pub join_tokens: bool,
    /// The tpm2 attestor's `admission`.
    pub admission: Admission,
    /// The tpm2 attestor's `pcrs`.
    pub pcrs: &'static str,
    /// The tpm2 attestor's `pcr_banks`.
    pub pcr_banks: &'static str,
    /// Whether attestations and signatures are limited per address (the lab has one address for a whole fleet).
    pub rate_limits: bool,
    /// Further lines for the server's block.
    pub server_lines: String,
    /// Further blocks of the plugins.
    pub plugins: String,
    /// Of the process: names and paths.
    pub environment: Vec<(String, PathBuf)>,
    /// Whether the agent's key must have been made in the TPM.
    pub require_resident_key: bool,
    /// Further lines for the tpm2 attestor's block.
    pub tpm_lines: String,
    /// Whether the token is used through the quirk module: see [`Server::quirks`].
    pub quirky_token: bool,
    /// Where the CA's keys are.
    pub keys: Keys,
    /// `connection_string` of PostgreSQL; none: a file of SQLite.
    pub postgres: Option<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            trust_domain: TRUST_DOMAIN,
            ca_ttl: "24h",
            agent_ttl: "1h",
            x509_svid_ttl: "1h",
            join_tokens: true,
            admission: Admission::Enrolled,
            pcrs: "[0, 2, 4, 7]",
            pcr_banks: "[\"sha256\"]",
            rate_limits: false,
            server_lines: String::new(),
            plugins: String::new(),
            environment: Vec::new(),
            require_resident_key: true,
            tpm_lines: String::new(),
            quirky_token: false,
            keys: Keys::Token,
            postgres: None,
        }
    }
}

/// A server process and everything it keeps.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    token: SoftHsm,
    process: Option<Process>,
    port: u16,
    environment: Vec<(String, PathBuf)>,
    program: Option<PathBuf>,
}

impl Server {
    /// Initialises a token, writes a configuration, starts the process and waits until it answers.
    pub fn start(options: &ServerOptions) -> Self {
        let mut server = Self::prepare(options);
        server.restart();
        server
    }

    /// As [`Server::start`], without the process.
    pub fn prepare(options: &ServerOptions) -> Self {
        Self::prepare_at(free_port(), options)
    }

    /// The same, for agents that know this port.
    pub fn prepare_at(port: u16, options: &ServerOptions) -> Self {
        let directory = tempfile::Builder::new().prefix("ironroot-server-").tempdir().expect("directory");
        open_directory(directory.path());
        let environment = options.environment.clone();
        let server = Self { directory, token: SoftHsm::new(), process: None, port, environment, program: None };
        std::fs::write(server.config_path(), server.config(options)).expect("configuration written");
        server
    }

    /// Writes the configuration anew; the next start reads it.
    pub fn reconfigure(&self, options: &ServerOptions) {
        std::fs::write(self.config_path(), self.config(options)).expect("configuration written");
    }

    /// Where its keys are if they are in a file.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("data/keys.json")
    }

    /// Starts the process (again) and waits until it answers.
    pub fn restart(&mut self) {
        self.restart_within(DEADLINE);
    }

    /// The same of one that has so much to read that it takes longer.
    pub fn restart_within(&mut self, deadline: Duration) {
        self.spawn();
        self.expect_healthy_within(deadline);
    }

    /// The same on a machine that was started anew, and whose clock shows what `clock` says, in libfaketime's words: `+3d`.
    pub fn reboot_at(&mut self, clock: &str) {
        self.kill();
        self.forget_boot();
        self.spawn_at(clock);
        self.expect_healthy();
    }

    /// Starts the process (again) without waiting; the machine's clock has been set to what `clock` says.
    pub fn spawn_at(&mut self, clock: &str) {
        self.spawn_in(faked_clock(clock));
    }

    fn expect_healthy(&self) {
        self.expect_healthy_within(DEADLINE);
    }

    fn expect_healthy_within(&self, deadline: Duration) {
        let answers = || self.cli_output(&["healthcheck"]).status.success();
        expect_within(deadline, "the server is healthy", || self.log(), answers);
    }

    /// The kernel's name for this boot cannot be faked: the server's memory of it is.
    fn forget_boot(&self) {
        let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("legal");
        let store = Store::open(&self.directory.path().join("data/datastore.sqlite3"), &trust_domain).expect("opened");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let journal = store.ca_journal("").await.expect("read").expect("a CA was founded");
            let mut journal: serde_json::Value = serde_json::from_slice(&journal).expect("JSON");
            journal["clock"]["boot_id"] = "the boot before".into();
            store.put_ca_journal("", journal.to_string().into_bytes()).await.expect("written");
            store.close().await;
        });
    }

    /// Starts the process (again) without waiting.
    pub fn spawn(&mut self) {
        self.spawn_in(Vec::new());
    }

    fn spawn_in(&mut self, mut environment: Vec<(String, PathBuf)>) {
        self.process = None;
        let (name, value) = self.token.environment();
        let arguments = ["run", "-config"].map(str::to_owned).into_iter().chain([path(&self.config_path())]);
        environment.push((name.to_owned(), value));
        environment.extend(self.environment.clone());
        let program = self.program.clone().unwrap_or_else(|| binary("ironroot-server"));
        let process = Process::start(&program, &arguments.collect::<Vec<_>>(), &environment, &self.log_path());
        self.process = Some(process);
    }

    /// The next start is of that program; none: of this tree's `ironroot-server`.
    pub fn run_by(&mut self, program: Option<PathBuf>) {
        self.program = program;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The running process.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's PKCS#11 token.
    pub fn token(&self) -> &SoftHsm {
        &self.token
    }

    /// The quirk module of its token, for servers that were started with it.
    pub fn quirks(&self) -> Quirks {
        Quirks::of(&self.token)
    }

    /// The directory with its configuration, data store, token and sockets; gone when this is dropped.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("server.conf")
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs `ironroot-server` with `arguments` against this server; its output, or a panic with what it said.
    pub fn cli(&self, arguments: &[&str]) -> String {
        run(self.cli_command(arguments))
    }

    /// The same, whatever the outcome.
    pub fn cli_output(&self, arguments: &[&str]) -> Output {
        self.cli_command(arguments).output().expect("ironroot-server starts")
    }

    /// Runs a verb of `ca ceremony` with this server's configuration; its output, or a panic with what it said.
    pub fn ceremony(&self, arguments: &[&str]) -> String {
        run(self.ceremony_command(arguments))
    }

    /// The same, whatever the outcome.
    pub fn ceremony_output(&self, arguments: &[&str]) -> Output {
        self.ceremony_command(arguments).output().expect("ironroot-server starts")
    }

    /// What `validate` says of its configuration.
    pub fn validate(&self) -> String {
        let mut command = Command::new(binary("ironroot-server"));
        let output = command.args(["validate", "-config"]).arg(self.config_path()).output().expect("it starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What `hsm probe` finds in the token of its configuration, as JSON.
    pub fn probe(&self) -> Output {
        let (name, value) = self.token.environment();
        let mut command = Command::new(binary("ironroot-server"));
        command.args(["hsm", "probe", "-output", "json", "-config"]).arg(self.config_path()).env(name, value);
        command.output().expect("ironroot-server starts")
    }

    fn ceremony_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("ironroot-server"));
        command.args(["ca", "ceremony"]).args(arguments).arg("-config").arg(self.config_path());
        command
    }

    fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("ironroot-server"));
        command.args(arguments).arg("-socketPath").arg(self.socket());
        command
    }

    /// Registers an entry; its ID.
    pub fn create_entry(&self, parent: &str, spiffe_path: &str, selectors: &[&str], more: &[&str]) -> String {
        let id = format!("spiffe://{TRUST_DOMAIN}{spiffe_path}");
        let mut arguments = vec!["entry", "create", "-output", "json", "-parentID", parent, "-spiffeID", &id];
        for selector in selectors {
            arguments.extend(["-selector", selector]);
        }
        arguments.extend(more);
        let answer: serde_json::Value = serde_json::from_str(&self.cli(&arguments)).expect("JSON answer");
        answer["results"][0]["entry"]["id"].as_str().expect("an entry ID").to_owned()
    }

    /// An entry for every device that is enrolled with `label`, such as `site:berlin`; the devices' common alias ID.
    pub fn create_node_alias(&self, spiffe_path: &str, label: &str) -> String {
        let selector = format!("tpm2:label:{label}");
        self.create_entry(&format!("spiffe://{TRUST_DOMAIN}/spire/server"), spiffe_path, &[&selector], &[]);
        format!("spiffe://{TRUST_DOMAIN}{spiffe_path}")
    }

    /// Imports what a factory's command has printed, through a pipe; what the server's command said.
    pub fn import_from_pipe(&self, manifest: &[u8]) -> String {
        let mut command = self.cli_command(&["device", "import", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut import = command.spawn().expect("ironroot-server starts");
        import.stdin.take().expect("piped").write_all(manifest).expect("written");
        let output = import.wait_with_output().expect("ended");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Imports a manifest of devices.
    pub fn import_devices(&self, csv: &str) {
        let manifest = self.directory.path().join("manifest.csv");
        std::fs::write(&manifest, csv).expect("manifest written");
        self.cli(&["device", "import", &path(&manifest)]);
    }

    /// The trust bundle as PEM.
    pub fn bundle_pem(&self) -> String {
        self.cli(&["bundle", "show"])
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn config(&self, options: &ServerOptions) -> String {
        let directory = path(self.directory.path());
        let module = match options.quirky_token {
            true => self.quirks().module_path().to_owned(),
            false => SoftHsm::module_path(),
        };
        let key_managers = self.key_managers(options.keys, &module);
        let (database_type, connection_string) = match &options.postgres {
            Some(text) => ("postgres", text.clone()),
            None => ("sqlite3", path(&self.directory.path().join("data/datastore.sqlite3"))),
        };
        let mut admission = options.tpm_lines.clone() + "\n";
        match &options.admission {
            Admission::Enrolled => admission.push_str("admission = \"enrolled\""),
            Admission::Approval => admission.push_str("admission = \"approval\""),
            Admission::Manufacturer(pem) => {
                let file = self.directory.path().join("manufacturers.pem");
                std::fs::write(&file, pem).expect("roots written");
                let _ = write!(admission, "admission = \"manufacturer\"\n manufacturer_ca_path = \"{}\"", path(&file));
            }
        }
        format!(
            r#"server {{
    trust_domain = "{trust_domain}"
    data_dir = "{directory}/data"
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{socket}"
    log_level = "DEBUG"
    audit_log_enabled = true
    ca_ttl = "{ca_ttl}"
    agent_ttl = "{agent_ttl}"
    default_x509_svid_ttl = "{x509_svid_ttl}"
    {server_lines}
    ratelimit {{
        attestation = {rate_limits}
        signing = {rate_limits}
    }}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "{database_type}"
            connection_string = "{connection_string}"
        }}
    }}
    {key_managers}
    NodeAttestor "join_token" {{
        enabled = {join_tokens}
        plugin_data {{ }}
    }}
    NodeAttestor "tpm2" {{
        plugin_data {{
            {admission}
            pcrs = {pcrs}
            pcr_banks = {pcr_banks}
            require_resident_key = {require_resident_key}
        }}
    }}
    {plugins}
}}
"#,
            trust_domain = options.trust_domain,
            port = self.port,
            socket = path(&self.socket()),
            ca_ttl = options.ca_ttl,
            agent_ttl = options.agent_ttl,
            x509_svid_ttl = options.x509_svid_ttl,
            rate_limits = options.rate_limits,
            server_lines = options.server_lines,
            plugins = options.plugins,
            join_tokens = options.join_tokens,
            pcrs = options.pcrs,
            pcr_banks = options.pcr_banks,
            require_resident_key = options.require_resident_key,
        )
    }

    fn key_managers(&self, keys: Keys, module: &Path) -> String {
        let (module, pin_file) = (path(module), path(&self.token.pin_file()));
        let token = format!(
            "KeyManager \"pkcs11\" {{ plugin_data {{\n module_path = \"{module}\"\n token_label = \"{}\"\n pin_file = \"{pin_file}\"\n \
             sessions = 4\n }} }}",
            crate::softhsm::LABEL
        );
        let file = |more| {
            format!("KeyManager \"disk\" {{ plugin_data {{\n keys_path = \"{}\"\n {more} }} }}", path(&self.key_file()))
        };
        match keys {
            Keys::Token => token,
            Keys::File => file(""),
            Keys::FromFileToToken => token + "\n" + &file("previous = true"),
        }
    }
}

pub(super) fn path(path: &Path) -> String {
    path.to_str().expect("the lab's paths are UTF-8").to_owned()
}
