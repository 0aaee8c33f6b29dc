//! `spire-server`, keys in memory or on disk, join tokens.

use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use super::{spire_binary, spire_command};
use crate::deployment::{DEADLINE, Process, TRUST_DOMAIN, expect_within, free_port, open_directory};

/// How long what a server signs is valid, as the configuration file has it.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `ca_ttl`.
    pub ca: &'static str,
    /// `agent_ttl`.
    pub agent: &'static str,
    /// `default_x509_svid_ttl`.
    pub x509_svid: &'static str,
}

/// A server process and everything it keeps.
#[derive(Debug)]
pub struct SpireServer {
    directory: TempDir,
    process: Option<Process>,
    port: u16,
    environment: Vec<(String, PathBuf)>,
    /// `database_type` and `connection_string`; none for a SQLite file.
    data_store: Option<(&'static str, String)>,
}

impl SpireServer {
    /// Writes a configuration, starts the process and waits until it answers.
    pub fn start(times: Times) -> Self {
        Self::start_with(times, "")
    }

    /// As [`start`](Self::start), with feature flags.
    pub fn start_with_flags(times: Times, flags: &[&str]) -> Self {
        Self::start_flagged(TRUST_DOMAIN, times, ("", ""), &[], flags)
    }

    /// As [`start`](Self::start), with further blocks of the plugins.
    pub fn start_with(times: Times, plugins: &str) -> Self {
        Self::start_in(TRUST_DOMAIN, times, ("", plugins), &[])
    }

    /// In any trust domain, with further lines of the server's block, further blocks of the plugins, and an environment.
    pub fn start_in(
        trust_domain: &str,
        times: Times,
        (server_lines, plugins): (&str, &str),
        environment: &[(String, PathBuf)],
    ) -> Self {
        Self::start_flagged(trust_domain, times, (server_lines, plugins), environment, &[])
    }

    /// As [`start`](Self::start), with its tables in a database of PostgreSQL.
    pub fn start_on_postgres(times: Times, connection_string: &str) -> Self {
        let data_store = Some(("postgres", connection_string.to_owned()));
        Self::started(TRUST_DOMAIN, times, ("", ""), Self::unconfigured(&[], data_store), &[])
    }

    fn start_flagged(
        trust_domain: &str,
        times: Times,
        more: (&str, &str),
        environment: &[(String, PathBuf)],
        flags: &[&str],
    ) -> Self {
        Self::started(trust_domain, times, more, Self::unconfigured(environment, None), flags)
    }

    fn unconfigured(environment: &[(String, PathBuf)], data_store: Option<(&'static str, String)>) -> Self {
        let directory = tempfile::Builder::new().prefix("spire-server-").tempdir().expect("directory");
        open_directory(directory.path());
        let environment = environment.to_vec();
        Self { directory, process: None, port: free_port(), environment, data_store }
    }

    fn started(
        trust_domain: &str,
        times: Times,
        (server_lines, plugins): (&str, &str),
        mut server: Self,
        flags: &[&str],
    ) -> Self {
        std::fs::create_dir_all(server.directory.path().join("data")).expect("directory");
        let config = server.config(trust_domain, times, (server_lines, plugins), flags);
        std::fs::write(server.at("server.conf"), config).expect("configuration written");
        server.restart();
        server
    }

    /// Starts the process (again) and waits until it answers.
    pub fn restart(&mut self) {
        self.process = None;
        let arguments = ["run".to_owned(), "-config".to_owned(), self.at("server.conf").display().to_string()];
        self.process =
            Some(Process::start(&spire_binary("spire-server"), &arguments, &self.environment, &self.at("server.log")));
        let answers = || self.cli_output(&["healthcheck"]).status.success();
        expect_within(DEADLINE, "SPIRE's server is healthy", || self.log(), answers);
    }

    /// Adds blocks to its configuration, and starts it again.
    pub fn add_blocks(&mut self, blocks: &str) {
        let text = std::fs::read_to_string(self.at("server.conf")).expect("its configuration");
        std::fs::write(self.at("server.conf"), text + blocks).expect("configuration written");
        self.restart();
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

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.at("api.sock")
    }

    /// Its SQLite file.
    pub fn database(&self) -> PathBuf {
        self.at("data/datastore.sqlite3")
    }

    /// The keys of its KeyManager "disk".
    pub fn key_file(&self) -> PathBuf {
        self.at("data/keys.json")
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.at("server.log")).unwrap_or_default()
    }

    /// Runs `spire-server` with `arguments` against this server, whatever the outcome.
    pub fn cli_output(&self, arguments: &[&str]) -> Output {
        let mut command = spire_command("spire-server", arguments);
        command.arg("-socketPath").arg(self.socket()).output().expect("spire-server starts")
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(
        &self,
        trust_domain: &str,
        times: Times,
        (server_lines, plugins): (&str, &str),
        flags: &[&str],
    ) -> String {
        let directory = self.directory.path().display();
        let sqlite = || ("sqlite3", format!("{directory}/data/datastore.sqlite3"));
        let (database_type, connection_string) = self.data_store.clone().unwrap_or_else(sqlite);
        format!(
            r#"server {{
    trust_domain = "{trust_domain}"
    {server_lines}
    data_dir = "{directory}/data"
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{directory}/api.sock"
    log_level = "DEBUG"
    ca_ttl = "{ca}"
    agent_ttl = "{agent}"
    default_x509_svid_ttl = "{x509_svid}"
    ratelimit {{
        attestation = false
        signing = false
    }}
    experimental {{
        cache_reload_interval = "1s"
        feature_flags = {flags:?}
    }}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "{database_type}"
            connection_string = "{connection_string}"
        }}
    }}
    KeyManager "disk" {{
        plugin_data {{
            keys_path = "{directory}/data/keys.json"
        }}
    }}
    NodeAttestor "join_token" {{
        plugin_data {{ }}
    }}
    {plugins}
}}
"#,
            port = self.port,
            ca = times.ca,
            agent = times.agent,
            x509_svid = times.x509_svid,
        )
    }
}
