//! Real processes for the tests: a copy of the test's own binary that plays a role.
//!
//! These tests change users, namespaces and mounts: they need root.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironroot_attest::workload::{
    Attested, ConnectionWriter, Credentials, Demand, ExecutableSelectors, Peer, SecondWrite, UnixAttestor,
    UnixAttestorConfig, Witnessed, WorkloadRefusal, WriterRefusal,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{UnixAddr, setsockopt, sockopt};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

pub const ROLE: &str = "IRONROOT_ACTOR_ROLE";
pub const SOCKET: &str = "IRONROOT_ACTOR_SOCKET";
/// The test that every file with actors has, and that only does something in an actor.
const ENTRANCE: &str = "acts_as_a_process";
const PATIENCE: Duration = Duration::from_secs(30);

/// A user that no passwd file knows.
pub const STRANGER: u32 = 61_001;
pub const DISCOVER: UnixAttestorConfig = UnixAttestorConfig {
    discover_workload_path: true,
    workload_size_limit: 0,
    executable_selectors: ExecutableSelectors::Always,
    executable_in_other_mounts: false,
    discover_cgroup: false,
};

/// What an entry asks for that has a hash and nothing else.
pub fn hash_of_anybody() -> Demand {
    Demand::of(&[std::iter::once("unix:sha256:00".parse().expect("legal")).collect()])
}

/// A caller that has acknowledged our SETTINGS after it was accepted.
pub struct Heard {
    pub peer: Peer,
    pub write: SecondWrite,
    _connection: Witnessed,
    _runtime: Runtime,
}

/// Asks the process behind `stream`, which was just accepted, to acknowledge.
pub fn hear(stream: &UnixStream) -> Result<Heard, WorkloadRefusal> {
    let peer = Peer::of(stream, Credentials::of(stream)?, true)?;
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = stream.try_clone().expect("the same connection");
    stream.set_nonblocking(true).expect("does not block");
    let (connection, write) = runtime.block_on(async {
        let stream = tokio::net::UnixStream::from_std(stream).expect("a stream");
        let report = Arc::new(|refusal: &WriterRefusal| panic!("{refusal}"));
        let (mut connection, voice) =
            Witnessed::begin(stream, peer.clone(), ConnectionWriter::Peer, report).expect("nothing waits");
        connection.write_all(b"?").await.expect("writes");
        connection.read_exact(&mut [0; ACKNOWLEDGED.len()]).await.expect("answers");
        (connection, voice.second_write(PATIENCE).await.expect("it has written"))
    });
    Ok(Heard { peer, write, _connection: connection, _runtime: runtime })
}

/// Who connected; nothing is noted of what runs there.
pub fn peer_of(stream: &impl AsFd) -> Result<Peer, WorkloadRefusal> {
    Peer::of(stream, Credentials::of(stream)?, false)
}

impl Heard {
    pub fn attested(&self, attestor: &UnixAttestor, demand: &Demand) -> Result<Attested, WorkloadRefusal> {
        attestor.attest(&self.peer, demand, Ok(self.write))
    }
}

/// Plays the role this process was started for, if any.
pub fn act() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = std::env::var(SOCKET).expect("a socket");
    let (role, argument) = role.split_once(' ').unwrap_or((&role, ""));
    match role {
        "connect" => hold(connect(&socket)),
        "connect-then-become" => {
            let stream = connect(&socket);
            become_user(argument);
            hold(stream)
        }
        "become-then-connect" => {
            become_user(argument);
            hold(connect(&socket))
        }
        "become-then-lose-main-thread" => {
            become_user(argument);
            panic!("{}", Command::new("python3").args(["-c", LOSES_MAIN_THREAD]).exec());
        }
        "connect-then-exec" => {
            let mut stream = connect(&socket);
            answer_until(&mut stream, b'!');
            fcntl(&stream, FcntlArg::F_SETFD(FdFlag::empty())).expect("inherits");
            panic!("{}", Command::new(argument).arg("60").exec());
        }
        "connect-hand-over-and-exit" => {
            hand_over(connect(&socket));
        }
        "connect-from-memory" => run_from_memory(),
        "serve" => serve(&socket, argument),
        "lend" => lend(&socket),
        other => panic!("no role {other:?}"),
    }
    exit(0)
}

/// A process whose second thread connects, and whose first one ends by SIGUSR1: what a process looks like in the middle of its end.
const LOSES_MAIN_THREAD: &str = r#"
import ctypes, os, platform, signal, socket, threading
EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
signal.signal(signal.SIGUSR1, lambda *_: ctypes.CDLL(None).syscall(EXIT, 0))
def live():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["IRONROOT_ACTOR_SOCKET"])
    connection.recv(1)
threading.Thread(target=live).start()
while True:
    signal.pause()
"#;

fn connect(socket: &str) -> UnixStream {
    UnixStream::connect(socket).expect("connects")
}

/// What an HTTP/2 client has written when it acknowledges SETTINGS. Source: RFC 9113 §3.4, §6.5.3.
const ACKNOWLEDGED: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\x01\0\0\0\0";

/// Until the other side closes; acknowledges whenever it is asked to.
fn hold(mut stream: UnixStream) {
    answer_until(&mut stream, 0);
}

fn answer_until(stream: &mut UnixStream, word: u8) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte[0] != word {
        if stream.write_all(ACKNOWLEDGED).is_err() {
            return;
        }
    }
}

/// To a process that outlives this one.
#[expect(clippy::zombie_processes, reason = "the heir is reaped by init")]
fn hand_over(stream: UnixStream) {
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(stream));
    Command::new("sleep").arg("20").stdin(stdin).spawn().expect("runs");
}

/// `uid gid group,group,...`
fn become_user(argument: &str) {
    let mut words = argument.split(' ');
    let mut number = || words.next().expect("a number").parse::<u32>().expect("a number");
    let (uid, gid) = (number(), number());
    let groups: Vec<Gid> =
        words.next().unwrap_or("").split(',').filter_map(|g| g.parse().ok()).map(Gid::from_raw).collect();
    let groups = if let [count] = groups[..] { (1..=count.as_raw()).map(Gid::from_raw).collect() } else { groups };
    setgroups(&groups)
        .and_then(|()| setgid(Gid::from_raw(gid)))
        .and_then(|()| setuid(Uid::from_raw(uid)))
        .expect("root");
}

fn run_from_memory() {
    let memory = memfd_create("legit", MFdFlags::empty()).expect("memory");
    let mut copy = File::from(memory);
    copy.write_all(&fs::read("/proc/self/exe").expect("reads itself")).expect("writes");
    let readable = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).expect("opens");
    drop(copy);
    fcntl(&readable, FcntlArg::F_SETFD(FdFlag::empty())).expect("inherits");
    let path = format!("/proc/self/fd/{}", readable.as_raw_fd());
    panic!("{}", Command::new(path).args(["--exact", ENTRANCE, "--nocapture"]).env(ROLE, "connect").exec());
}

/// Attests one caller and says what came out.
fn serve(socket: &str, argument: &str) {
    let listener = listen(Path::new(socket));
    let verdict = UnixAttestor::new(DISCOVER).map_err(|error| error.to_string()).and_then(|attestor| {
        let stream = listener.accept().expect("accepts").0;
        let heard = hear(&stream).map_err(|error| error.to_string())?;
        if argument == "without-descriptors" {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("reads");
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("lowers");
        }
        heard
            .attested(&attestor, &hash_of_anybody())
            .map(|attested| format!("{:?}", attested.selectors))
            .map_err(|error| error.to_string())
    });
    println!("\nVERDICT {verdict:?}");
}

/// Connects its standard input to itself, and says what becomes of what another process writes there.
fn lend(socket: &str) {
    let listener = listen(Path::new(socket));
    nix::sys::socket::connect(0, &UnixAddr::new(socket).expect("fits")).expect("connects");
    let stream = listener.accept().expect("accepts").0;
    let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::NONE).expect("waits");
    let peer = peer_of(&stream).expect("itself");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let verdict = runtime.block_on(async {
        stream.set_nonblocking(true).expect("does not block");
        let stream = tokio::net::UnixStream::from_std(stream).expect("a stream");
        let report = Arc::new(|_: &WriterRefusal| {});
        let (mut stream, _voice) = Witnessed::begin(stream, peer, ConnectionWriter::Peer, report).expect("counts");
        stream.read(&mut [0]).await
    });
    println!("\nVERDICT {:?}", verdict.map_err(|refusal| refusal.to_string()));
}

fn listen(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("binds");
    setsockopt(&listener, sockopt::PassCred, &true).expect("asks for writers");
    fs::set_permissions(path, Permissions::from_mode(0o777)).expect("opens it to all");
    listener
}

/// A directory that every user can reach, with a copy of this binary in it.
pub struct Lab {
    directory: tempfile::TempDir,
    listener: Option<UnixListener>,
}

impl Lab {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests change users and namespaces: run them as root");
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("opens it to all");
        let lab = Self { directory, listener: None };
        // By another process: a child that another test forks meanwhile would inherit our descriptor and keep the copy
        // busy ("Text file busy").
        let this = std::env::current_exe().expect("a path");
        let install = Command::new("install").args(["-m", "0755"]).arg(this).arg(lab.program()).status();
        assert!(install.expect("install runs").success());
        let listener = listen(&lab.socket());
        listener.set_nonblocking(true).expect("does not block");
        Self { listener: Some(listener), ..lab }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn program(&self) -> PathBuf {
        self.path("workload")
    }

    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// Starts `program`, a copy of this binary, in `role`.
    pub fn start(&self, program: &Path, role: &str) -> Actor {
        let mut command = Command::new(program);
        command.args(["--exact", ENTRANCE, "--nocapture"]);
        self.spawn(command, role)
    }

    /// Starts this binary in `role` behind a shell command such as `unshare -m`: `$0` is the binary, `$@` its arguments.
    pub fn start_in(&self, shell: &str, role: &str) -> Actor {
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(self.program()).args(["--exact", ENTRANCE, "--nocapture"]);
        self.spawn(command, role)
    }

    fn spawn(&self, mut command: Command, role: &str) -> Actor {
        let socket = if role.starts_with("serve") { self.path("served") } else { self.socket() };
        command.env(ROLE, role).env(SOCKET, socket).stdin(Stdio::null()).stdout(Stdio::piped());
        Actor(command.spawn().expect("starts"))
    }

    /// Starts this binary behind `shell` as one that lends its connection, writes into that, and returns its verdict.
    pub fn verdict_of_lender(&self, shell: &str) -> String {
        let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
        let kind = nix::sys::socket::SockType::Stream;
        let ours =
            nix::sys::socket::socket(nix::sys::socket::AddressFamily::Unix, kind, flags, None).expect("a socket");
        let theirs = ours.try_clone().expect("the same socket");
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(self.program()).args(["--exact", ENTRANCE, "--nocapture"]);
        command.env(ROLE, "lend").env(SOCKET, self.path("lent")).stdin(theirs).stdout(Stdio::piped());
        let lender = Actor(command.spawn().expect("starts"));
        let mut ours = UnixStream::from(ours);
        within_patience("it does not connect", || ours.peer_addr().ok());
        ours.write_all(b"!").expect("writes");
        verdict_in(&lender.output())
    }

    /// The next connection.
    pub fn accept(&self) -> UnixStream {
        let listener = self.listener.as_ref().expect("listens");
        let stream = within_patience("nobody connected", || listener.accept().ok()).0;
        stream.set_nonblocking(false).expect("blocks");
        stream
    }

    /// Starts this binary behind `shell` as the one who attests, connects to it as `uid`, and returns its verdict.
    pub fn verdict_of(&self, shell: &str, role: &str, uid: u32) -> String {
        let server = self.start_in(shell, role);
        let served = self.path("served");
        within_patience("nobody serves", || served.exists().then_some(()));
        let mut caller = Command::new(self.program());
        caller.args(["--exact", ENTRANCE]).env(ROLE, "connect").env(SOCKET, &served).uid(uid).gid(uid);
        let caller = Actor(caller.stdout(Stdio::null()).spawn().expect("starts"));
        let output = server.output();
        drop(caller);
        verdict_in(&output)
    }
}

fn verdict_in(output: &str) -> String {
    let verdict = output.lines().find_map(|line| line.strip_prefix("VERDICT "));
    verdict.unwrap_or_else(|| panic!("no verdict in {output:?}")).to_owned()
}

/// A process of ours, killed on drop.
pub struct Actor(Child);

impl Actor {
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn kill(&mut self) {
        self.0.kill().expect("kills");
    }

    pub fn reap(&mut self) {
        self.0.wait().expect("reaps");
    }

    fn output(mut self) -> String {
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls until `probe` has something, or fails with `complaint`.
pub fn within_patience<T>(complaint: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{complaint}");
        std::thread::yield_now();
    }
}
