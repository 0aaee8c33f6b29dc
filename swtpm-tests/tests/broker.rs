//! The SPIFFE Broker API on a whole device whose key is in its TPM, asked by go-spiffe: the broker's identity, the agent's and the
//! workload's are all of one server, which may be away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ironroot_lab::child;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use tempfile::TempDir;

const BROKER: u32 = 61_001;
const WORKLOAD: u32 = 61_002;
const NOBODY: u32 = 61_003;

/// A device with a broker and a workload, and the broker's program.
struct Lab {
    server: Server,
    device: Device,
    room: TempDir,
}

/// A process, killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

fn sleeper(uid: u32) -> Running {
    Running(Command::new("sleep").arg("300").uid(uid).gid(uid).stdin(Stdio::null()).spawn().expect("starts"))
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

impl Lab {
    fn start() -> Self {
        let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
        let server = Server::start(&ServerOptions::default());
        server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        for (path, uid) in [("/broker", BROKER), ("/web", WORKLOAD)] {
            server.create_entry(&device.agent_id(), path, &[&format!("unix:uid:{uid}")], &["-x509SVIDTTL", "600"]);
        }
        let types =
            "allowed_reference_types = [{ type_url = \"type.googleapis.com/spiffe.broker.WorkloadPIDReference\" }]";
        let brokers = format!("brokers = [{{ id = \"{}\" {types} }}]", id("/broker"));
        let socket = device.broker_socket();
        let experimental_lines = format!("broker {{ socket_path = \"{}\" {brokers} }}", socket.display());
        device.provision(&server, &AgentOptions { experimental_lines, ..AgentOptions::default() });
        device.start();
        device.expect_identity(BROKER);
        device.expect_identity(WORKLOAD);
        let room = tempfile::Builder::new().prefix("ironroot-broker-").tempdir().expect("a directory");
        fs::set_permissions(room.path(), fs::Permissions::from_mode(0o755)).expect("opens it to all");
        let lab = Self { server, device, room };
        lab.compile();
        lab
    }

    fn program(&self) -> PathBuf {
        self.room.path().join("broker")
    }

    fn compile(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sources = self.room.path().join("source");
        fs::create_dir(&sources).expect("made");
        for file in ["go-broker/main.go", "go/go.mod", "go/go.sum"] {
            let from = root.join("swtpm-tests/clients").join(file);
            fs::copy(&from, sources.join(from.file_name().expect("a name"))).expect("copied");
        }
        let (ours, prepared) = (root.join("target/python/bin/go"), root.join("target/go"));
        assert!(prepared.join("mod").exists(), "{} is missing: run scripts/setup --tests", prepared.display());
        let mut build = Command::new(if ours.exists() { ours.as_path() } else { Path::new("go") });
        build.args(["build", "-o"]).arg(self.program()).arg(".").current_dir(&sources);
        build.env("GOMODCACHE", prepared.join("mod")).env("GOCACHE", prepared.join("cache"));
        let built = build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").output().expect("go (package golang) runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    /// The broker's program as `uid`, of the agent's group.
    fn broker(&self, uid: u32, words: &[&str]) -> Command {
        let mut command = child::dies_with_us("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", "0", "--clear-groups", "--"]).arg(self.program());
        command.arg(self.device.agent_id()).args(words).stdin(Stdio::null());
        command.env("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", self.device.socket().display()));
        command.env("SPIFFE_BROKER_SOCKET", format!("unix://{}", self.device.broker_socket().display()));
        command
    }

    /// What it says first of all, whatever the outcome.
    fn said(&self, words: &[&str]) -> String {
        let Output { stdout, stderr, .. } = self.broker(BROKER, words).output().expect("it runs");
        let text = String::from_utf8_lossy(&stdout).trim().to_owned();
        assert!(!text.is_empty(), "{}\n{}", String::from_utf8_lossy(&stderr), self.device.log());
        text
    }

    /// A stream for `process`, and where what it says is written.
    fn subscribe(&self, process: &Running, log: &str) -> (Running, PathBuf) {
        let log = self.room.path().join(log);
        let mut command = self.broker(BROKER, &["x509", &process.0.id().to_string()]);
        command.stdout(fs::File::create(&log).expect("made"));
        (Running(command.spawn().expect("it starts")), log)
    }

    fn expect_said(&self, log: &Path, count: usize, line: &str) {
        let text = || fs::read_to_string(log).expect("reads");
        let explain = || format!("{}\n{}", text(), self.device.log());
        let said = || text().lines().filter(|found| *found == line).count() >= count;
        expect_within(DEADLINE, &format!("the broker is told {line:?}"), explain, said);
    }
}

//= BRK-01 BRK-06 BRK-07
#[test]
fn a_broker_on_go_spiffe_gets_what_is_its_workloads_while_that_lives() {
    let lab = Lab::start();
    let mut process = sleeper(WORKLOAD);
    let pid = process.0.id().to_string();
    let (_broker, log) = lab.subscribe(&process, "stream");
    let svids = format!("SVIDS {}", id("/web"));
    lab.expect_said(&log, 1, &svids);
    assert_eq!(lab.said(&["bundles", &pid]), format!("BUNDLE spiffe://{TRUST_DOMAIN} true"));
    let told = lab.said(&["jwt", &pid, "us"]);
    let token = told.strip_prefix(&format!("TOKEN {} ", id("/web"))).unwrap_or_else(|| panic!("{told}"));
    let valid = lab.device.api(NOBODY, &["validate", "jwt", "-audience", "us", "-svid", token]);
    assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stderr));
    assert!(lab.said(&["jwt", &pid, "us", &id("/web")]).starts_with("TOKEN"));
    let not_entitled = "REFUSED PermissionDenied spiffe.io/WORKLOAD_NOT_ENTITLED";
    assert_eq!(lab.said(&["jwt", &pid, "us", &id("/broker")]), not_entitled, "not the broker's own");
    let nobody = sleeper(NOBODY);
    assert_eq!(lab.said(&["x509", &nobody.0.id().to_string()]), not_entitled);
    assert_eq!(lab.said(&["x509", "0"]), "REFUSED InvalidArgument spiffe.io/WORKLOAD_REFERENCE_INVALID");
    // An entry that comes reaches the open stream, behind the other: they go by entry ID, and the other's is a UUID.
    let last = ["-entryID", "z"];
    lab.server.create_entry(&lab.device.agent_id(), "/web2", &[&format!("unix:uid:{WORKLOAD}")], &last);
    lab.expect_said(&log, 1, &format!("{svids},{}", id("/web2")));
    process.0.kill().and_then(|()| process.0.wait()).expect("ends");
    lab.expect_said(&log, 1, "REFUSED NotFound spiffe.io/WORKLOAD_NOT_FOUND");
    assert_eq!(lab.said(&["x509", &pid]), "REFUSED NotFound spiffe.io/WORKLOAD_NOT_FOUND");
}

//= BRK-02
#[test]
fn a_workload_that_is_no_broker_is_told_nothing_though_its_svid_is_good() {
    let lab = Lab::start();
    let process = sleeper(WORKLOAD);
    let said = lab.broker(WORKLOAD, &["x509", &process.0.id().to_string()]).output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.trim(), "REFUSED Unavailable -", "{}", lab.device.log());
    lab.device.expect_log("is no broker of this agent");
}

#[test]
fn after_a_power_cut_without_the_server_a_broker_is_served_from_the_sealed_cache_with_the_key_in_the_chip() {
    let mut lab = Lab::start();
    lab.device.expect_sealed(2);
    lab.server.kill();
    lab.device.power_cycle();
    lab.device.start();
    lab.device.expect_identity(BROKER);
    let process = sleeper(WORKLOAD);
    let (_broker, log) = lab.subscribe(&process, "offline");
    lab.expect_said(&log, 1, &format!("SVIDS {}", id("/web")));
}
