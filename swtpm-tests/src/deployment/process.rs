//! A child process with a log file, killed on drop and when the lab dies.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::child;

/// A running program whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments`; output is appended to `log`.
    pub fn start(program: &Path, arguments: &[String], environment: &[(String, PathBuf)], log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("log file opened");
        let mut command = child::dies_with_us(program.to_str().expect("the lab's paths are UTF-8"));
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("log file handle"))
            .stderr(output);
        let child = child::spawn(command).expect("setpriv (package util-linux) starts the program");
        Self { child, log: log.to_owned() }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; whether it has ended well within the lab's deadline.
    pub fn terminate(&mut self) -> bool {
        self.terminated().is_some_and(|status| status.success())
    }

    /// How it ends at SIGTERM, if it does.
    pub fn terminated(&mut self) -> Option<ExitStatus> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        super::wait_for(super::DEADLINE, || self.child.try_wait().ok().flatten())
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where Debian and its kin put libfaketime.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// The environment in which a process's clock shows what `clock` says, in libfaketime's words: `-2d`. Elapsed time stays real.
pub(super) fn faked_clock(clock: &str) -> Vec<(String, PathBuf)> {
    preloaded([("FAKETIME", clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")])
}

fn preloaded(variables: [(&str, &str); 2]) -> Vec<(String, PathBuf)> {
    let library =
        FAKETIME.iter().find(|path| Path::new(path).exists()).expect("package faketime: scripts/setup --tests");
    let library = std::iter::once(("LD_PRELOAD", *library));
    library.chain(variables).map(|(name, value)| (name.to_owned(), PathBuf::from(value))).collect()
}

/// Time of a process, elapsed time too, that can be moved on while it runs. What it sleeps over already takes as long as it would have: it
/// looks at the clock when something else wakes it. Threads that wait on a condition variable for some time wait longer by what it was moved on.
#[derive(Debug)]
pub struct MovedOn(tempfile::NamedTempFile);

impl MovedOn {
    /// As it really is.
    pub fn new() -> Self {
        let this = Self(tempfile::NamedTempFile::new().expect("a file"));
        this.to(0);
        this
    }

    /// So many seconds after the real time, from now on.
    pub fn to(&self, seconds: u32) {
        std::fs::write(self.0.path(), format!("+{seconds}\n")).expect("written");
    }

    /// For the process.
    pub fn environment(&self) -> Vec<(String, PathBuf)> {
        let file = self.0.path().to_str().expect("UTF-8");
        preloaded([("FAKETIME_TIMESTAMP_FILE", file), ("FAKETIME_NO_CACHE", "1")])
    }
}

impl Default for MovedOn {
    fn default() -> Self {
        Self::new()
    }
}

/// A command that runs as another unix user: directly as root, by sudo otherwise.
pub fn as_uid(uid: u32, program: &Path) -> Command {
    let own = nix::unistd::geteuid();
    if own.as_raw() == uid {
        return Command::new(program);
    }
    let mut command = if own.is_root() { Command::new("setpriv") } else { Command::new("sudo") };
    if !own.is_root() {
        command.args(["-n", "setpriv"]);
    }
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]).arg(program);
    command
}

/// Runs to the end; standard output, or a panic with everything it said.
pub(super) fn run(mut command: Command) -> String {
    let output = command.output().expect("program starts");
    let Output { status, stdout, stderr } = &output;
    let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}{stderr}");
    stdout.into_owned()
}
