//! A real Envoy on the configuration that operators are given: `docs/envoy.yaml`, with other ports, names and sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::deployment::{DEADLINE, Process, TRUST_DOMAIN, as_uid, expect_within, free_port, open_directory};

/// The file that the handbook gives to operators.
const CONFIGURATION: &str = include_str!("../../docs/envoy.yaml");

/// What differs from that file.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// Whose process it is, and so which entry applies.
    pub uid: u32,
    /// The agent's socket.
    pub agent: PathBuf,
    /// Who may come in, as a path of the lab's trust domain.
    pub lets_in: &'static str,
    /// Where what comes in goes, 127.0.0.1.
    pub program: u16,
    /// Where the peer listens, 127.0.0.1.
    pub peer: u16,
    /// Who the peer must be, as a path of the lab's trust domain.
    pub expects: &'static str,
    /// Whether it says of itself that it wants bundles as plain lists.
    pub plain_bundles: bool,
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    /// Where peers reach it.
    pub inbound: u16,
    /// Where its own program reaches the peer.
    pub outbound: u16,
    admin: u16,
    _directory: TempDir,
}

impl Envoy {
    /// Starts one, and waits until both its listeners have what they need from the agent.
    ///
    /// # Panics
    /// If it does not within the lab's deadline, with what it said.
    pub fn start(options: &EnvoyOptions) -> Self {
        let envoy = Self::start_without_waiting(options);
        envoy.expect_listening(envoy.inbound);
        envoy
    }

    /// Starts one.
    pub fn start_without_waiting(options: &EnvoyOptions) -> Self {
        let directory = tempfile::Builder::new().prefix("ironroot-envoy-").tempdir().expect("directory");
        open_directory(directory.path());
        let (inbound, outbound, admin) = (free_port(), free_port(), free_port());
        let text = configuration(options, inbound, outbound, admin);
        let file = directory.path().join("envoy.yaml");
        std::fs::write(&file, text).expect("configuration written");
        let program = program(directory.path());
        // The signal for the lab's death does not outlive a change of user.
        let mut command = as_uid(options.uid, Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).arg("-c").arg(&file);
        command.args(["--disable-hot-restart", "--concurrency", "1"]);
        let arguments: Vec<String> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let log = directory.path().join("envoy.log");
        let process = Process::start(Path::new(command.get_program()), &arguments, &[], &log);
        Self { process, inbound, outbound, admin, _directory: directory }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it takes connections on `port`: only once all secrets of the listener are there.
    fn expect_listening(&self, port: u16) {
        let connects = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        expect_within(DEADLINE, "Envoy has its secrets and listens", || self.log(), connects);
    }

    /// What its administration says at `path`: `/certs`, `/stats`. Empty while it does not answer.
    pub fn admin(&self, path: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.admin))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.split_once("\r\n\r\n").map(|(_, body)| unchunked(body)).unwrap_or_default())
        };
        ask().unwrap_or_default()
    }

    /// The sum of its counters whose names end so.
    pub fn counter(&self, name: &str) -> u64 {
        let stats = self.admin("/stats");
        let lines = stats.lines().filter_map(|line| line.rsplit_once(": "));
        lines.filter(|(found, _)| found.ends_with(name)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    /// The serial numbers of the certificates that it shows now.
    pub fn serials(&self) -> Vec<String> {
        let certs: serde_json::Value = serde_json::from_str(&self.admin("/certs")).unwrap_or_default();
        let contexts = certs["certificates"].as_array().cloned().unwrap_or_default();
        let chains = contexts.iter().filter_map(|context| context["cert_chain"].as_array());
        let serial = |certificate: &serde_json::Value| certificate["serial_number"].as_str().map(str::to_owned);
        chains.filter_map(|chain| serial(chain.first()?)).collect()
    }
}

/// The text of a chunked body. Source: RFC 9112 §7.1.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some((chunk, rest)) = rest.split_at_checked(size).filter(|_| size > 0) else { break };
        text.push_str(chunk);
        body = rest.trim_start_matches("\r\n");
    }
    text
}

fn configuration(options: &EnvoyOptions, inbound: u16, outbound: u16, admin: u16) -> String {
    let mut text = CONFIGURATION.to_owned();
    let agent = options.agent.display().to_string();
    for (old, new) in [
        ("address: 0.0.0.0, port_value: 8443", format!("address: 127.0.0.1, port_value: {inbound}")),
        ("address: 127.0.0.1, port_value: 9000", format!("address: 127.0.0.1, port_value: {outbound}")),
        ("address: 127.0.0.1, port_value: 8080", format!("address: 127.0.0.1, port_value: {}", options.program)),
        ("address: 192.0.2.1, port_value: 8443", format!("address: 127.0.0.1, port_value: {}", options.peer)),
        ("spiffe://example.org/front", format!("spiffe://{TRUST_DOMAIN}{}", options.lets_in)),
        ("spiffe://example.org/back", format!("spiffe://{TRUST_DOMAIN}{}", options.expects)),
        ("/run/ironroot-agent/public/api.sock", agent),
    ] {
        assert!(text.contains(old), "docs/envoy.yaml has no {old}");
        text = text.replace(old, &new);
    }
    if options.plain_bundles {
        text = text.replace("  # metadata:", "  metadata:");
    }
    text + &format!("\nadmin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {admin} }} }} }}\n")
}

/// The Envoy that `scripts/setup --tests` has prepared, where every user may run it.
fn program(directory: &Path) -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    let script = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let found = Command::new(&python).args(["-c", script]).output();
    let found = found.ok().filter(|output| output.status.success());
    let found = found.unwrap_or_else(|| panic!("{} has no envoy: run scripts/setup --tests", python.display()));
    let built = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    let here = directory.join("envoy");
    if std::fs::hard_link(&built, &here).is_err() {
        std::fs::copy(&built, &here).expect("Envoy copied");
    }
    here
}
