//! A cluster of databases and the server process on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::ports::free_port;
use crate::programs::{command, program, unprivileged};
use crate::proof;

/// Who owns the databases, and is no superuser.
const OWNER: &str = "ironroot";
/// Its password over loopback.
pub(crate) const PASSWORD: &str = "pass word";

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the server, and ends it without a farewell when whoever holds the other end of the pipe is gone; `$2` is removed then.
const KEEPER: &str = r#"d=$1; shift; r=$1; shift; "$@" & p=$!; read -r _; kill -QUIT $p 2>/dev/null; wait $p; [ -z "$r" ] || rm -rf "$r""#;

/// Settings for tests: what is written need not outlive the machine.
const SETTINGS: &str = "fsync = off\nfull_page_writes = off\nmax_connections = 300\nshared_buffers = 32MB\nssl = on\n\
                        logging_collector = off\nlog_min_messages = fatal\n";

const ACCESS: &str = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";

/// A cluster; its server runs until it is dropped or stopped.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    port: u16,
    keeper: Option<Child>,
}

impl Cluster {
    /// Makes one and starts its server.
    pub fn start() -> Self {
        Self::make(false)
    }

    /// The one that all tests of this process share, each with a database of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::make(true))
    }

    fn make(is_shared: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("pg").tempdir().expect("temporary directory");
        if let Some((uid, gid)) = unprivileged() {
            chown(directory.path(), Some(uid), Some(gid)).expect("owner");
        }
        // The daemons of a test may be run by somebody else.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let data = directory.path().join("data");
        let made = command(program("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        proof::write(directory.path());
        let mut cluster = Self { port: free_port(), directory, keeper: None };
        cluster.configure();
        cluster.run(is_shared);
        cluster.sql("postgres", &format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}'"));
        cluster
    }

    fn configure(&self) {
        let place = self.directory.path().display();
        let settings = format!(
            "{SETTINGS}port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{place}'\n\
             ssl_cert_file = '{place}/server.crt'\nssl_key_file = '{place}/server.key'\n",
            self.port
        );
        let file = self.directory.path().join("data/postgresql.auto.conf");
        fs::write(file, settings).expect("written");
        fs::write(self.directory.path().join("data/pg_hba.conf"), ACCESS).expect("written");
    }

    fn run(&mut self, removes_all: bool) {
        let removed = if removes_all { self.directory.path() } else { Path::new("") };
        let keeper = command("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(self.directory.path())
            .arg(removed)
            .arg(program("postgres"))
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.keeper = Some(keeper.expect("starts"));
        let deadline = Instant::now() + PATIENCE;
        while self.psql("postgres", "SELECT 1").is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not come up");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server at once, as a crash would.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            self.freeze(false);
            drop(keeper.stdin.take());
            keeper.wait().expect("ended");
        }
    }

    /// Starts the server again after [`stop`](Self::stop).
    pub fn restart(&mut self) {
        self.run(false);
    }

    /// Stops every process of the server where it is, or lets them go on. What is sent to it is acknowledged, and not answered.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        let pid = fs::read_to_string(self.directory.path().join("data/postmaster.pid")).unwrap_or_default();
        let Some(postmaster) = pid.lines().next().and_then(|pid| pid.trim().parse().ok()) else { return };
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in std::iter::once(postmaster).chain(children) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// A new database, by its name.
    pub fn create_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {OWNER}"));
        name
    }

    /// How to connect to that database over the unix socket.
    pub fn connection_string(&self, database: &str) -> String {
        format!("host={} port={} user={OWNER} dbname={database}", self.directory.path().display(), self.port)
    }

    /// How to connect to that database over loopback and TLS.
    pub fn connection_string_over_tls(&self, database: &str) -> String {
        let (port, roots) = (self.port, self.roots().display().to_string());
        format!(
            "host=localhost port={port} user={OWNER} password='{PASSWORD}' dbname={database} sslmode=verify-full sslrootcert={roots}"
        )
    }

    /// The authority that says who `localhost` is, PEM.
    pub fn roots(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Its port, of the socket and over loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the statements answer, by the superuser's hand; several are one transaction.
    ///
    /// # Panics
    /// One is refused.
    pub fn sql(&self, database: &str, text: &str) -> String {
        self.psql(database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn psql(&self, database: &str, text: &str) -> Result<String, String> {
        let mut psql = command(program("psql"));
        psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", text]);
        psql.arg("-h").arg(self.directory.path()).arg("-p").arg(self.port.to_string());
        let done = psql.output().map_err(|error| error.to_string())?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}
