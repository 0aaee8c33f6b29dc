//! `ironroot-agent deliver`: software that knows no SPIFFE serves and asks with this device's identities, from files.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::csr::{KeyKind, Spki};
use ironroot_api::tls::provider;
use ironroot_lab::child;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, as_uid, binary, expect_within, free_port,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// Whose the nginx is, and whose the clients.
const WEB: u32 = 60_011;
const CLIENT: u32 = 60_012;
/// How often an identity must be seen to change.
const ROTATIONS: usize = 3;

struct Lab {
    _server: Server,
    device: Device,
    /// Where identities are delivered, and what uses them keeps its files.
    room: TempDir,
}

impl Lab {
    /// A device on which `WEB` and `CLIENT` have identities of a few seconds each.
    fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more lines in the agent's block.
    fn start_with(agent_lines: &str) -> Self {
        let agent_lines = agent_lines.to_owned();
        let server = Server::start(&ServerOptions::default());
        let token: serde_json::Value =
            serde_json::from_str(&server.cli(&["token", "generate", "-output", "json"])).expect("JSON");
        let token = token["value"].as_str().expect("a token").to_owned();
        let agent = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
        for (path, uid) in [("/web", WEB), ("/client", CLIENT)] {
            let more = ["-dns", "localhost", "-x509SVIDTTL", "8"];
            server.create_entry(&agent, path, &[&format!("unix:uid:{uid}")], &more);
        }
        let mut device = Device::without_tpm();
        device.provision(
            &server,
            &AgentOptions { join_token: Some(token), key_manager: "memory", agent_lines, ..AgentOptions::default() },
        );
        device.start();
        device.expect_identity(WEB);
        let room = tempfile::Builder::new().prefix("ironroot-deliver-").tempdir().expect("directory");
        fs::set_permissions(room.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open");
        Self { _server: server, device, room }
    }

    /// A directory that is `uid`'s.
    fn directory_of(&self, uid: u32, name: &str) -> PathBuf {
        let path = self.room.path().join(name);
        fs::create_dir(&path).expect("made");
        std::os::unix::fs::chown(&path, Some(uid), Some(uid)).expect("root gives it away");
        path
    }

    /// `deliver` as `uid`, for as long as the value lives.
    fn deliver(&self, uid: u32, directory: &Path, more: &[&str]) -> Delivery {
        let log = self.room.path().join(format!("deliver-{uid}.log"));
        let output = fs::File::create(&log).expect("log");
        let socket = self.device.socket();
        let mut command = as_uid(uid, &binary("ironroot-agent"));
        command.args(["deliver", "-socketPath"]).arg(socket).arg("-directory").arg(directory).args(more);
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a handle")).stderr(output);
        let delivery = Delivery { _child: Running::start(command), log };
        let current = directory.join("current");
        expect_within(DEADLINE, "an identity is delivered", || delivery.log(), || current.join("svid.pem").exists());
        delivery
    }
}

struct Delivery {
    _child: Running,
    log: PathBuf,
}

impl Delivery {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A daemon that is asked to stop when the test is over: killed, an nginx would leave its workers behind.
struct Running(Child);

impl Running {
    fn start(command: Command) -> Self {
        Self(child::spawn(command).expect("it starts (packages nginx-light and mosquitto: scripts/setup --tests)"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A certificate and its key, as a program reads them that opens the current set once.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
}

fn identity(directory: &Path) -> Identity {
    let set = fs::canonicalize(directory.join("current")).expect("a set is current");
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let file = CertificateDer::pem_file_iter(set.join(name)).expect("there");
        file.map(|certificate| certificate.expect("a certificate")).collect()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("bundle.pem"));
    let key = PrivateKeyDer::from_pem_file(set.join("svid.key")).expect("a key");
    Identity { chain: certificates("svid.pem"), key, roots }
}

/// TLS to `port` with what is current in `directory`; rustls refuses a key that is not the certificate's.
fn connect(directory: &Path, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    let Identity { chain, key, roots } = identity(directory);
    let config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key);
    let config = Arc::new(config.expect("the key is the certificate's"));
    let name = ServerName::try_from("localhost").expect("a name");
    let tcp = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    tcp.set_read_timeout(Some(DEADLINE)).expect("set");
    StreamOwned::new(ClientConnection::new(config, name).expect("a client"), tcp)
}

/// One request; fails where the connection ends before the answer.
fn ask(stream: &mut StreamOwned<ClientConnection, TcpStream>, connection: &str) -> std::io::Result<()> {
    write!(stream, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n")?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    if length == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn current_set(directory: &Path) -> PathBuf {
    fs::read_link(directory.join("current")).expect("a set is current")
}

/// Does `work` until the set in each of `directories` has changed [`ROTATIONS`] times.
fn through_rotations(directories: &[&Path], mut work: impl FnMut(), said: impl Fn() -> String) {
    let mut seen: Vec<Vec<PathBuf>> = directories.iter().map(|directory| vec![current_set(directory)]).collect();
    let rotated = || {
        work();
        for (seen, directory) in seen.iter_mut().zip(directories) {
            let now = current_set(directory);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        seen.iter().all(|seen| seen.len() > ROTATIONS)
    };
    expect_within(4 * DEADLINE, "identities are renewed", said, rotated);
}

#[test]
fn nginx_serves_and_verifies_with_delivered_identities_and_no_request_is_lost_while_they_change() {
    let lab = Lab::start();
    let (web, client) = (lab.directory_of(WEB, "web"), lab.directory_of(CLIENT, "client"));
    let port = free_port();
    let home = lab.directory_of(WEB, "nginx");
    let config = home.join("nginx.conf");
    let (set, prefix) = (web.join("current"), home.display());
    let set = set.display();
    fs::write(
        &config,
        format!(
            "daemon off; worker_processes 1; pid {prefix}/nginx.pid; error_log {prefix}/error.log; events {{}}\n\
             http {{ access_log off; client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy; \
             fastcgi_temp_path {prefix}/fastcgi; uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_certificate {set}/svid.pem; ssl_certificate_key {set}/svid.key;\n\
             ssl_client_certificate {set}/bundle.pem; ssl_verify_client on; ssl_verify_depth 3;\n\
             location / {{ return 200 $ssl_client_s_dn; }} }} }}\n"
        ),
    )
    .expect("written");
    let nginx = ["-p", home.to_str().expect("text"), "-c", config.to_str().expect("text")];
    // The first reload has nobody to hear it: it is tried again until nginx is there.
    let reload = [&["--", "/usr/sbin/nginx"], &nginx[..], &["-s", "reload"]].concat();
    let delivery = lab.deliver(WEB, &web, &reload);
    let _client = lab.deliver(CLIENT, &client, &[]);
    expect_within(
        DEADLINE,
        "it is said that nobody hears",
        || delivery.log(),
        || delivery.log().contains("nobody was told"),
    );
    let mut command = as_uid(WEB, Path::new("/usr/sbin/nginx"));
    let errors = fs::File::create(lab.room.path().join("nginx.log")).expect("log");
    command.args(nginx).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let _nginx = Running::start(command);
    let said = || fs::read_to_string(home.join("error.log")).unwrap_or_default() + &delivery.log();
    expect_within(DEADLINE, "nginx listens", said, || listens(port));
    let mut answered = 0;
    let mut kept = connect(&client, port);
    let work = || {
        ask(&mut connect(&client, port), "close").expect("a new connection is answered");
        // A worker that has been replaced closes a connection between two requests: clients then ask on a new one.
        if ask(&mut kept, "keep-alive").is_err() {
            kept = connect(&client, port);
            ask(&mut kept, "keep-alive").expect("a new connection is answered");
        }
        answered += 2;
    };
    through_rotations(&[&web, &client], work, said);
    assert!(answered > ROTATIONS, "{answered}");
}

#[test]
fn a_broker_reads_delivered_identities_anew_when_it_is_signalled_and_clients_are_known_by_theirs() {
    let lab = Lab::start();
    let (web, client) = (lab.directory_of(WEB, "web"), lab.directory_of(CLIENT, "client"));
    let port = free_port();
    let home = lab.directory_of(WEB, "mosquitto");
    let (config, pid) = (home.join("mosquitto.conf"), home.join("mosquitto.pid"));
    let set = web.join("current");
    fs::write(
        &config,
        format!(
            "listener {port} 127.0.0.1\npid_file {}\ncafile {set}/bundle.pem\ncertfile {set}/svid.pem\nkeyfile {set}/svid.key\n\
             require_certificate true\nallow_anonymous true\n",
            pid.display(),
            set = set.display()
        ),
    )
    .expect("written");
    let delivery = lab.deliver(WEB, &web, &["-signal", "HUP", "-pidFile", pid.to_str().expect("text")]);
    let _client = lab.deliver(CLIENT, &client, &[]);
    let mut command = as_uid(WEB, Path::new("/usr/sbin/mosquitto"));
    let log = lab.room.path().join("mosquitto.log");
    command.arg("-c").arg(&config).stdin(Stdio::null()).stderr(fs::File::create(&log).expect("log"));
    let _broker = Running::start(command);
    let said = || fs::read_to_string(&log).unwrap_or_default() + &delivery.log();
    expect_within(DEADLINE, "the broker listens", said, || listens(port));
    let work = || {
        let mut stream = connect(&client, port);
        // CONNECT with protocol MQTT 3.1.1, a clean session, a minute of keep-alive, client "x". Source: MQTT 3.1.1, 3.1.
        stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x").expect("sent");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}: {}", said()));
        assert_eq!(answer, *b"\x20\x02\x00\x00", "CONNACK: accepted");
    };
    through_rotations(&[&web, &client], work, said);
}

#[test]
fn a_unit_is_started_once_the_files_are_there_though_nobody_could_be_told_and_it_is_said_when_that_works_again() {
    let lab = Lab::start();
    let web = lab.directory_of(WEB, "web");
    let supervisor = lab.room.path().join("notify.sock");
    let heard = std::os::unix::net::UnixDatagram::bind(&supervisor).expect("binds");
    fs::set_permissions(&supervisor, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("open");
    heard.set_read_timeout(Some(DEADLINE)).expect("set");
    let (log, there) = (lab.room.path().join("deliver.log"), lab.room.path().join("there"));
    let output = fs::File::create(&log).expect("log");
    let mut command = as_uid(WEB, &binary("ironroot-agent"));
    command.args(["deliver", "-socketPath"]).arg(lab.device.socket()).arg("-directory").arg(&web);
    command.args(["--", "test", "-e"]).arg(&there).env("NOTIFY_SOCKET", &supervisor);
    command.stdin(Stdio::null()).stdout(output.try_clone().expect("a handle")).stderr(output);
    let _delivery = Running::start(command);
    let mut message = [0; 4096];
    let length = heard.recv(&mut message).expect("it counts as started");
    assert!(String::from_utf8_lossy(&message[..length]).starts_with("READY=1"));
    assert!(web.join("current").join("svid.pem").exists(), "what starts after it finds the files");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    expect_within(DEADLINE, "it is said that nobody was told", said, || said().contains("nobody was told"));
    assert!(!said().contains("works again"), "{}", said());
    fs::write(&there, "").expect("written");
    expect_within(4 * DEADLINE, "it is said that it works again", said, || said().contains("works again"));
}

/// rustls refuses a key that is not the certificate's.
#[test]
fn a_delivered_key_is_of_the_kind_that_the_agent_makes() {
    for kind in ["ec-p384", "rsa-2048"] {
        let lab = Lab::start_with(&format!("workload_x509_svid_key_type = \"{kind}\""));
        let web = lab.directory_of(WEB, "web");
        let _delivery = lab.deliver(WEB, &web, &[]);
        let Identity { chain, key, .. } = identity(&web);
        let leaf = Certificate::parse(&chain[0]).expect("a certificate");
        let found = Spki::parse(&leaf.spki_der()).expect("a key").kind();
        assert_eq!(found, if kind == "ec-p384" { KeyKind::EcP384 } else { KeyKind::Rsa });
        CertifiedKey::from_der(chain, key, &provider()).expect("a pair");
    }
}

#[test]
fn one_delivery_ends_and_a_process_without_an_identity_is_told_so_and_gets_no_files() {
    let lab = Lab::start();
    let run = |uid: u32, directory: &Path, more: &[&str]| {
        let mut command = as_uid(uid, &binary("ironroot-agent"));
        command.args(["deliver", "-once", "-socketPath"]).arg(lab.device.socket());
        command.arg("-directory").arg(directory).args(more).output().expect("runs")
    };
    let web = lab.directory_of(WEB, "web");
    let told = web.join("told");
    let output = run(WEB, &web, &["-mode", "0640", "--", "touch", told.to_str().expect("text")]);
    assert!(output.status.success() && told.exists(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&format!("spiffe://{TRUST_DOMAIN}/web until ")), "{said}");
    let key = fs::metadata(web.join("current").join("svid.key")).expect("there");
    assert_eq!((key.mode() & 0o777, key.uid()), (0o640, WEB));
    assert!(!identity(&web).chain.is_empty());

    let nobodys = lab.directory_of(60_013, "nobody");
    let output = run(60_013, &nobodys, &["-timeout", "2s"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no identity issued"), "{said}");
    assert!(!nobodys.join("current").exists());
    let output = run(WEB, &web, &["-spiffeID", "spiffe://other.org/web"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is none of this process's identities: spiffe://"), "{said}");
}
