//! A Workload API socket with identities made for the test, and clients in other processes and of other users.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ironroot_agent::agent_key::WorkloadKey;
use ironroot_agent::endpoints::{
    AdminSocketConfig, CallRates, Delegates, EndpointError, Limits, LoggedSelectors, NowUnix, SdsConfig, Sources,
    SubordinateUids, Tally, VerifierPolicy, WorkloadApiConfig, serve_workload_api,
};
use ironroot_agent::hardware_keys::HardwareKeys;
use ironroot_agent::identities::{Identities, Identity};
use ironroot_agent::jwt_svids::{JwtSvids, RenewalPatience};
use ironroot_agent::report::{Report, Reports};
use ironroot_agent::requests::{self, Requests};
use ironroot_agent::server_answers::{EntryTerms, TrustBundle, restored_workload_svid};
use ironroot_agent::server_number::ServerNumber;
use ironroot_agent::trusted_time::{Jumps, TrustedTime};
use ironroot_agent::upstreams::{Upstream, Upstreams};
use ironroot_api::TrustDomain;
use ironroot_api::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ironroot_api::pb::workload::{X509svidRequest, X509svidResponse};
use ironroot_api::unix_socket::connect;
use ironroot_attest::workload::{ConnectionWriter, DEFAULT_SIZE_LIMIT, UnixAttestor, UnixAttestorConfig};
use ironroot_shell::logging::{LevelControl, LogLevel};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tower::service_fn;
use zeroize::Zeroizing;

const ROLE: &str = "IRONROOT_WORKLOAD_ROLE";
const SAYS: &str = "IRONROOT_WORKLOAD_SAYS";
const SOCKET: &str = "IRONROOT_WORKLOAD_SOCKET";
/// The test that every file with actors has, and that only does something in an actor.
const ENTRANCE: &str = "acts_as_a_workload";

/// The time at the start of every test.
pub const NOW: i64 = 1_800_000_000;
/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).expect("legal")
}

/// A toy CA of trust domain `td`.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).expect("signs").der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        Arc::new(TrustBundle::new(&td("td"), [(&self.der[..], false)]).expect("an authority"))
    }

    /// `path`'s identity for processes of `uid`, until `NOW + ttl`.
    pub fn issue(&self, path: &str, uid: u32, ttl: i64) -> Arc<Identity> {
        self.issue_to(path, &[&format!("unix:uid:{uid}")], ttl)
    }

    /// `path`'s identity for processes that have `selectors`, until `NOW + ttl`.
    pub fn issue_to(&self, path: &str, selectors: &[&str], ttl: i64) -> Arc<Identity> {
        self.issue_for(terms(path, selectors), NOW - 60..NOW + ttl)
    }

    /// The identity of an entry with these terms, valid in this span of UNIX seconds.
    pub fn issue_for(&self, terms: EntryTerms, valid: Range<i64>) -> Arc<Identity> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(terms.spiffe_id.as_str().try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::from_unix_timestamp(valid.start).expect("in range");
        params.not_after = OffsetDateTime::from_unix_timestamp(valid.end).expect("in range");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs").der().clone();
        let key = WorkloadKey::new(Zeroizing::new(key.serialize_der()));
        let svid = restored_workload_svid([&certificate[..]], &terms.spiffe_id, key, None).expect("a pair");
        Arc::new(Identity::try_new(Arc::new(terms), Arc::new(svid)).expect("fits"))
    }

    pub fn snapshot(&self, identities: Vec<Arc<Identity>>) -> Arc<Identities> {
        Arc::new(Identities::try_new(td("td"), identities, self.bundle()).expect("sound"))
    }
}

/// The entry of `path` for processes that have `selectors`.
pub fn terms(path: &str, selectors: &[&str]) -> EntryTerms {
    EntryTerms {
        server: ServerNumber::FIRST,
        id: format!("entry of {path}"),
        spiffe_id: td("td").id_with_path(path).expect("legal"),
        selectors: selectors.iter().map(|text| text.parse().expect("legal")).collect(),
        hint: String::new(),
        created_at: 1,
        revision_number: 0,
        on_demand: false,
        unique_tokens: Some(false),
        is_privileged: Some(false),
        federates_with: Some(Vec::new()),
        certificate: None,
    }
}

/// A served socket.
pub struct Served {
    pub authority: Authority,
    pub publisher: watch::Sender<Arc<Identities>>,
    /// What workloads ask for.
    pub asked: Receiver<requests::Request>,
    clock: Arc<AtomicI64>,
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), EndpointError>>,
}

impl Served {
    pub fn new(limits: Limits) -> Self {
        Self::with(|config| config.limits = limits)
    }

    /// Of the usual kind, but for what `change` does.
    pub fn with(change: impl FnOnce(&mut WorkloadApiConfig)) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests run workloads of several users: run them as root");
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("opens it to all");
        let (publisher, identities) = watch::channel(Arc::new(Identities::starting(td("td"))));
        let clock = Arc::new(AtomicI64::new(NOW));
        let (stop, stopped) = oneshot::channel();
        let mut config = config(directory.path().join("public/api.sock"), Limits::default());
        change(&mut config);
        let now = clock.clone();
        let (requests, asked) = Requests::channel();
        let now = Arc::new(move || now.load(Ordering::Relaxed));
        let sources = sources(identities, requests, now);
        let serving = serve_workload_api(config, sources, async { drop(stopped.await) }).expect("binds");
        let server = tokio::spawn(serving);
        Self { authority: Authority::new(), publisher, asked, clock, directory, stop: Some(stop), server }
    }

    /// With one identity, `/test`, for processes of our own user.
    pub fn ours() -> Self {
        let served = Self::new(Limits::default());
        served.publish(vec![served.authority.issue("/test", 0, 3600)]);
        served
    }

    /// Whoever runs as `delegate`, a path of the trust domain, may ask on the admin socket for others.
    pub fn with_delegate(delegate: &str) -> Self {
        let delegates = [td("td").id_with_path(delegate).expect("legal")].into_iter().collect();
        Self::with(|config| {
            let directory = config.socket_path.parent().expect("public").with_file_name("private");
            let socket_path = directory.join("admin.sock");
            config.admin = Some(admin(socket_path, delegates));
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("public/api.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("private/admin.sock")
    }

    pub fn publish(&self, identities: Vec<Arc<Identity>>) {
        self.publisher.send_replace(self.authority.snapshot(identities));
    }

    pub fn set_clock(&self, now_unix: i64) {
        self.clock.store(now_unix, Ordering::Relaxed);
    }

    pub async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(connect(&self.socket()).await.expect("connects"))
    }

    /// A client that grants the server no more than `window` bytes in advance.
    pub async fn client_with_window(&self, window: u32) -> SpiffeWorkloadApiClient<Channel> {
        let socket = self.socket();
        let connector = service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(window);
        SpiffeWorkloadApiClient::new(endpoint.connect_with_connector(connector).await.expect("connects"))
    }

    pub async fn fetch(&self) -> Result<Streaming<X509svidResponse>, Status> {
        self.client().await.fetch_x509svid(asking(X509svidRequest {})).await.map(tonic::Response::into_inner)
    }

    /// Stops serving and returns how it ended.
    pub async fn stop(&mut self) -> Result<(), EndpointError> {
        drop(self.stop.take());
        patiently(&mut self.server).await.expect("does not panic")
    }

    /// Starts this binary in `role` as `uid`.
    pub fn start(&self, role: &str, uid: u32, stdin: Stdio) -> Workload {
        self.start_saying(role, uid, stdin, &[])
    }

    /// The same, with something to say.
    pub fn start_saying(&self, role: &str, uid: u32, stdin: Stdio, says: &[u8]) -> Workload {
        let mut command = Command::new(self.program());
        command
            .env(SAYS, hex(says))
            .args(["--exact", ENTRANCE, "--nocapture"])
            .env(ROLE, role)
            .env(SOCKET, self.socket());
        Workload(command.uid(uid).gid(uid).stdin(stdin).stdout(Stdio::piped()).spawn().expect("starts"))
    }

    /// Starts another agent of this kind at `socket`, in a PID namespace of its own.
    pub fn start_agent_in_pid_namespace(&self, socket: &Path) -> Workload {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(self.program());
        command.args(["--exact", ENTRANCE, "--nocapture"]).env(ROLE, "serve").env(SOCKET, socket);
        Workload(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("starts"))
    }

    fn program(&self) -> PathBuf {
        let program = self.directory.path().join("workload");
        if !program.exists() {
            // By another process: a child forked meanwhile would inherit our descriptor and keep the copy busy.
            let this = std::env::current_exe().expect("a path");
            let install = Command::new("install").args(["-m", "0755"]).arg(this).arg(&program).status();
            assert!(install.expect("install runs").success());
        }
        program
    }

    /// What a workload of `uid` is told.
    pub async fn told(&self, uid: u32) -> String {
        let workload = self.start("fetch", uid, Stdio::null());
        let output = tokio::task::spawn_blocking(move || workload.output()).await.expect("reads");
        let told = output.lines().find_map(|line| line.strip_prefix("TOLD "));
        told.unwrap_or_else(|| panic!("told nothing: {output:?}")).to_owned()
    }
}

pub fn config(socket_path: PathBuf, limits: Limits) -> WorkloadApiConfig {
    let discover = UnixAttestorConfig {
        discover_workload_path: true,
        workload_size_limit: DEFAULT_SIZE_LIMIT,
        ..UnixAttestorConfig::default()
    };
    let attestor = UnixAttestor::new(discover).expect("our own /proc");
    WorkloadApiConfig {
        socket_path,
        attestor,
        connection_writer: ConnectionWriter::Peer,
        limits,
        subordinate_uids: SubordinateUids::default(),
        workload_api: true,
        wit_svids: false,
        verifiers: VerifierPolicy::default(),
        call_rates: CallRates::default(),
        logged_selectors: LoggedSelectors::default(),
        secrets: Some(SdsConfig::default()),
        admin: None,
        broker: None,
    }
}

/// An admin socket of an agent that has not attested.
pub fn admin(socket_path: PathBuf, delegates: Delegates) -> AdminSocketConfig {
    let log_level = LevelControl::new(LogLevel::Info).0;
    let reports = Reports::new(vec![watch::channel(Report::default()).1]);
    AdminSocketConfig { socket_path, delegates, log_level, reports, chip: None }
}

/// What is served from, without a server behind it.
pub fn sources(identities: watch::Receiver<Arc<Identities>>, requests: Requests, now: NowUnix) -> Sources {
    let (_, linked) = watch::channel(None);
    let upstream = Upstream {
        link: linked,
        requests: requests.clone(),
        time: TrustedTime::new(),
        local_tokens: tokio::sync::watch::channel(None).1,
    };
    let upstreams = Upstreams::of(vec![upstream]).expect("one");
    let hardware_keys = HardwareKeys::new(identities.clone(), upstreams.clone());
    let jwt_svids = JwtSvids::new(identities.clone(), upstreams, RenewalPatience::default());
    Sources { identities, requests, jwt_svids, hardware_keys, now, jumps: Jumps::channel().1, tally: Tally::new() }
}

/// A request with the security header.
pub fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().expect("ASCII"));
    request
}

/// The next message, which must come.
pub async fn next(stream: &mut Streaming<X509svidResponse>) -> X509svidResponse {
    patiently(stream.message()).await.expect("no error").expect("no end")
}

/// How the stream ends; it must, and without another message.
pub async fn ending(stream: &mut Streaming<X509svidResponse>) -> Status {
    patiently(stream.message()).await.expect_err("an error")
}

pub fn ids(message: &X509svidResponse) -> Vec<&str> {
    message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Text for an actor's environment.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().expect("hex")
}

/// Plays the role this process was started for, if any.
pub fn act() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = PathBuf::from(std::env::var(SOCKET).expect("a socket"));
    match role.as_str() {
        "fetch" => println!("\nTOLD {}", fetch(socket)),
        "connect-stdin" => {
            // The socket is the test's; that it was this process that connected is what the kernel records.
            let address = nix::sys::socket::UnixAddr::new(&socket).expect("fits");
            nix::sys::socket::connect(0, &address).expect("connects");
            // Only this process may write. It reads nothing: what comes back is the test's to read.
            let said = unhex(&std::env::var(SAYS).expect("something to say"));
            std::io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map(std::fs::File::from)
                .expect("the socket")
                .write_all(&said)
                .expect("writes");
            std::thread::sleep(PATIENCE);
        }
        "serve" => serve(socket),
        role if role.starts_with("hold ") => hold(&socket, role["hold ".len()..].parse().expect("a number")),
        other => panic!("no role {other:?}"),
    }
    exit(0)
}

/// Serves the Workload API from inside this process until it is killed.
fn serve(socket: PathBuf) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_publisher, identities) = watch::channel(Arc::new(Identities::starting(td("td"))));
        let config = config(socket, Limits::default());
        let serving = serve_workload_api(
            config,
            sources(identities, Requests::channel().0, Arc::new(|| NOW)),
            std::future::pending(),
        )
        .expect("binds");
        serving.await.expect("serves");
    });
}

/// Opens connections and says nothing on them, until this process is killed.
fn hold(socket: &Path, connections: usize) {
    let held: Vec<_> = (0..connections).map(|_| std::os::unix::net::UnixStream::connect(socket)).collect();
    println!("\nTOLD {} held", held.iter().flatten().count());
    std::thread::sleep(PATIENCE);
}

fn fetch(socket: PathBuf) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = SpiffeWorkloadApiClient::new(connect(&socket).await.expect("connects"));
        match client.fetch_x509svid(asking(X509svidRequest {})).await {
            Ok(stream) => ids(&next(&mut stream.into_inner()).await).join(","),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        }
    })
}

/// A process of ours, killed on drop.
pub struct Workload(Child);

impl Workload {
    pub fn kill(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("ends");
    }

    /// Waits until it has said something that starts with `beginning`.
    pub fn says(&mut self, beginning: &str) {
        let lines = BufReader::new(self.0.stdout.as_mut().expect("piped")).lines();
        let said = lines.map_while(Result::ok).any(|line| line.starts_with(&format!("TOLD {beginning}")));
        assert!(said, "it has not said {beginning:?}");
    }

    fn output(mut self) -> String {
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
