//! Small C programs (in `tests/callers/`) that ask the Workload API as they should not, each compiled for its test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use ironroot_attest::workload::{ConnectionWriter, UnixAttestor, UnixAttestorConfig};

use crate::served::{PATIENCE, Served, patiently};

/// The user of most callers.
pub const USER: u32 = 61_001;
/// Another one.
pub const OTHER_USER: u32 = 61_002;
/// The honest program that others pretend to be.
pub const HONEST: &str = "/usr/bin/sleep";

/// A served socket with an agent that looks at executables, and room for programs.
pub struct Callers {
    pub served: Served,
    programs: tempfile::TempDir,
}

impl Callers {
    /// Looks at executables, whatever the kernel allows users to forge; takes the peer's bytes only.
    pub fn new() -> Self {
        let attestor = UnixAttestorConfig { discover_workload_path: true, ..UnixAttestorConfig::default() };
        Self::with(attestor, ConnectionWriter::Peer)
    }

    pub fn with(attestor: UnixAttestorConfig, connection_writer: ConnectionWriter) -> Self {
        let served = Served::with(|config| {
            config.attestor = UnixAttestor::new(attestor).expect("our own /proc");
            config.connection_writer = connection_writer;
        });
        let programs = tempfile::tempdir().expect("a directory");
        let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(programs.path(), anyone).expect("opens it to all");
        Self { served, programs }
    }

    /// Compiles `tests/callers/NAME.c`; `flags` such as `-shared`.
    pub fn compile(&self, name: &str, flags: &[&str]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/callers").join(format!("{name}.c"));
        let program = self.programs.path().join(name);
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]).args(flags).arg("-o").arg(&program);
        assert!(compiler.arg(&source).status().expect("cc (package build-essential) runs").success(), "{source:?}");
        program
    }

    /// `/user` for whoever is [`USER`], `/other` for [`OTHER_USER`], and `/app` for [`USER`] running `executable`.
    pub fn publish(&self, executable: &Path) {
        let (user, path) = (format!("unix:uid:{USER}"), format!("unix:path:{}", executable.display()));
        let authority = &self.served.authority;
        self.served.publish(vec![
            authority.issue("/user", USER, 3600),
            authority.issue("/other", OTHER_USER, 3600),
            authority.issue_to("/app", &[&user, &path], 3600),
        ]);
    }

    /// Starts `program SOCKET arguments...` as `uid`.
    pub fn start(&self, program: &Path, uid: u32, arguments: &[&str]) -> Caller {
        self.spawn(Command::new(program), uid, arguments)
    }

    /// Starts `program` as [`USER`] with the library `name` in it.
    pub fn start_preloaded(&self, program: &str, name: &str, arguments: &[&str]) -> Caller {
        let library = self.compile(name, &["-shared", "-fPIC", "-Wl,-z,now"]);
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", library);
        self.spawn(command, USER, arguments)
    }

    /// The same with `/usr/bin/true`, in a user namespace and behind a shell command in which `$0` and `$@` are the program.
    pub fn start_preloaded_in(&self, shell: &str, name: &str, arguments: &[&str]) -> Caller {
        let library = self.compile(name, &["-shared", "-fPIC", "-Wl,-z,now"]);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", shell, "env"]);
        command.arg(format!("LD_PRELOAD={}", library.display())).arg("/usr/bin/true");
        self.spawn(command, USER, arguments)
    }

    /// Starts `program SOCKET` as `uid` in namespaces that root made, as systemd does for a service.
    pub fn start_behind(&self, unshare: &[&str], program: &Path, uid: u32) -> Caller {
        let mut command = Command::new(unshare[0]);
        let uid = uid.to_string();
        command.args(&unshare[1..]).args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]).arg(program);
        self.spawn(command, 0, &[])
    }

    fn spawn(&self, mut command: Command, uid: u32, arguments: &[&str]) -> Caller {
        command.arg(self.served.socket()).args(arguments).uid(uid).gid(uid).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let ear = child.stdin.take().expect("piped");
        Caller { child, said: Some(said), ear }
    }

    /// Compiles and starts `name` as [`USER`], where `/app` is for that very program, and returns what it got.
    pub async fn told(&self, name: &str, arguments: &[&str]) -> String {
        let program = self.compile(name, &[]);
        self.publish(&program);
        self.start(&program, USER, arguments).verdict().await
    }
}

/// A started program; it and what it started are killed on drop.
pub struct Caller {
    child: Child,
    said: Option<BufReader<ChildStdout>>,
    ear: ChildStdin,
}

impl Caller {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits, with the whole runtime standing still, until the program says `word`: the agent accepts nothing meanwhile.
    pub fn says_while_the_agent_sleeps(&mut self, word: &str) {
        assert_eq!(self.next_line_while_the_agent_sleeps(), word);
    }

    /// The next line it says, waited for in the same way.
    pub fn next_line_while_the_agent_sleeps(&mut self) -> String {
        next_line(self.said.as_mut().expect("not being read"))
    }

    /// Waits in the same way until the process runs `program`.
    pub fn runs_while_the_agent_sleeps(&self, program: &str) {
        let (exe, program) = (format!("/proc/{}/exe", self.pid()), std::fs::canonicalize(program).expect("there"));
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read_link(&exe).expect("reads") != program {
            assert!(Instant::now() < deadline, "{exe} is not {program:?}");
            std::thread::yield_now();
        }
    }

    /// Lets the program go on.
    pub fn go_on(&mut self) {
        self.ear.write_all(b"\n").expect("writes");
    }

    /// The next line it says, while the agent works.
    pub async fn says(&mut self) -> String {
        let mut said = self.said.take().expect("not being read");
        let reading = tokio::task::spawn_blocking(move || (next_line(&mut said), said));
        let (line, said) = patiently(reading).await.expect("reads");
        self.said = Some(said);
        line
    }

    /// What came out: `got /user`, `refused`, `ended`, `reset`.
    pub async fn verdict(&mut self) -> String {
        loop {
            let line = self.says().await;
            let words = ["got ", "refused", "ended", "reset"];
            if words.iter().any(|word| line.starts_with(word)) {
                return line.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            assert!(!line.is_empty() && !line.starts_with("cannot "), "it says {line:?}");
        }
    }
}

fn next_line(said: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}

impl Drop for Caller {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.pid());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
