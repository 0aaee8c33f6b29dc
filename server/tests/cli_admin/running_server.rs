//! A server of one's own: binary, SoftHSM token, directories. Killed on drop.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_ironroot-server");
const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];
const DEADLINE: Duration = Duration::from_secs(60);

pub struct RunningServer {
    directory: TempDir,
    child: Child,
}

pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl RunningServer {
    pub fn start() -> Self {
        Self::start_upon(|_| ())
    }

    /// Over what `prepare` has put into its data directory.
    pub fn start_upon(prepare: impl FnOnce(&Path)) -> Self {
        Self::start_with(prepare, |configuration| configuration)
    }

    /// With another configuration.
    pub fn start_as(configured: impl FnOnce(String) -> String) -> Self {
        Self::start_with(|_| (), configured)
    }

    fn start_with(prepare: impl FnOnce(&Path), configured: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        make_token(root);
        let data = root.join("data");
        fs::DirBuilder::new().mode(0o700).create(&data).expect("made");
        prepare(&data);
        fs::write(root.join("server.conf"), configured(configuration(root))).expect("written");
        let child = Command::new(BINARY)
            .args(["run", "-logFormat=json", "-config"])
            .arg(root.join("server.conf"))
            .arg("-logFile")
            .arg(root.join("log"))
            .env("SOFTHSM2_CONF", root.join("softhsm2.conf"))
            .stderr(Stdio::from(File::create(root.join("stderr")).expect("a file")))
            .spawn()
            .expect("the server starts");
        let mut server = Self { directory, child };
        server.wait_until_healthy();
        server
    }

    /// Runs an admin command against this server.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        let socket = self.path("api.sock");
        let output = Command::new(BINARY).args(arguments).args(["-socketPath", &socket]).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Answer { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs an admin command against this server with `input` on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Answer {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .args(["-socketPath", &self.path("api.sock")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        child.stdin.take().expect("piped").write_all(input).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Answer { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What a command that works prints.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        // What the server advises of entries has tests of its own.
        let complaints: Vec<&str> =
            answer.err.lines().filter(|line| !line.starts_with("Warning: ") && !line.starts_with("Note: ")).collect();
        assert_eq!((answer.code, complaints), (0, Vec::new()), "{arguments:?}");
        answer.out
    }

    /// What a command that works prints for programs.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ok(&[arguments, &["-output", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// System calls with which the server has written so far.
    pub fn writes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id())).expect("its counters");
        let line = io.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("a line");
        line.parse().expect("a number")
    }

    /// A file of this server's directory.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("text").to_owned()
    }

    /// Waits until `healthcheck` says so.
    pub fn becomes_healthy(&self) {
        let since = Instant::now();
        while self.run(&["healthcheck"]).code != 0 {
            assert!(since.elapsed() < DEADLINE, "not healthy: {}", self.everything_it_said());
            sleep(Duration::from_millis(20));
        }
    }

    /// Moves the log away and asks for a new one.
    pub fn reopens_its_log(&self) {
        let (log, moved) = (self.path("log"), self.path("log.1"));
        fs::rename(&log, moved).expect("moved");
        self.signal(Signal::SIGUSR2);
        let since = Instant::now();
        while !fs::read_to_string(&log).is_ok_and(|text| text.contains("log file reopened")) {
            assert!(since.elapsed() < DEADLINE, "the log is not reopened");
            sleep(Duration::from_millis(10));
        }
        let mode = fs::metadata(&log).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    /// Ends the server as an init system does, and gives its whole log.
    pub fn stop(&mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        ["log.1", "log"].iter().filter_map(|name| fs::read_to_string(self.path(name)).ok()).collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process ID");
        kill(Pid::from_raw(pid), signal).expect("it lives");
    }

    fn wait_until_healthy(&mut self) {
        let since = Instant::now();
        while self.run(&["healthcheck"]).code != 0 {
            let ended = self.child.try_wait().expect("its status");
            assert!(ended.is_none() && since.elapsed() < DEADLINE, "no server: {}", self.everything_it_said());
            sleep(Duration::from_millis(20));
        }
    }

    fn everything_it_said(&self) -> String {
        ["stderr", "log"].iter().filter_map(|name| fs::read_to_string(self.path(name)).ok()).collect()
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_token(root: &Path) {
    let conf = root.join("softhsm2.conf");
    let tokens = root.join("tokens");
    fs::create_dir(&tokens).expect("made");
    fs::write(&conf, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).expect("written");
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "test", "--so-pin", "so-pin", "--pin", "user-pin"])
        .env("SOFTHSM2_CONF", &conf)
        .output()
        .expect("SoftHSM is missing; run: apt-get install softhsm2");
    assert!(made.status.success(), "{made:?}");
    let pin = root.join("pin");
    fs::write(&pin, "user-pin\n").expect("written");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("changed");
}

fn configuration(root: &Path) -> String {
    let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    let module = module.expect("SoftHSM is missing; run: apt-get install softhsm2");
    let (module, root) = (module.display(), root.display());
    format!(
        r#"server {{
    trust_domain = "example.org"
    data_dir = "{root}/data"
    bind_address = "127.0.0.1"
    bind_port = 0
    socket_path = "{root}/api.sock"
    audit_log_enabled = true
}}
plugins {{
    KeyManager "pkcs11" {{ plugin_data {{ module_path = "{module}" token_label = "test" pin_file = "{root}/pin" }} }}
    NodeAttestor "join_token" {{ }}
    NodeAttestor "tpm2" {{ }}
}}
"#
    )
}
