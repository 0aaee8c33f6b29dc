//! Keys of workloads in hardware: `ironroot-agent deliver -pkcs11` makes them in a token, an nginx and OpenSSL use them there.
//!
//! The token is SoftHSM's, the TPM swtpm's, the peers are those of Debian: nginx and OpenSSL with libp11's engine or the provider tpm2.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use ironroot_lab::child;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, as_uid, binary, expect_within, free_port,
};
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};
use ironroot_lab::swtpm::Swtpm;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// Whose the nginx and its token are, whose the clients, and somebody else.
const WEB: u32 = 60_021;
const CLIENT: u32 = 60_022;
const STRANGER: u32 = 60_023;
/// How often the key must be seen to change.
const ROTATIONS: usize = 3;
const IN_HARDWARE: &str = "ironroot:hardware_key";

struct Lab {
    server: Server,
    device: Device,
    token: SoftHsm,
    /// For what uses an identity.
    room: TempDir,
    /// Where the identity is delivered.
    identity: PathBuf,
}

impl Lab {
    /// A device on which `WEB` has an identity of `ttl` seconds whose key is to be in hardware, and a token; and `CLIENT` one as usual.
    fn start(ttl: &str) -> Self {
        let server = Server::start(&ServerOptions::default());
        let token: serde_json::Value =
            serde_json::from_str(&server.cli(&["token", "generate", "-output", "json"])).expect("JSON");
        let join_token = token["value"].as_str().expect("a token").to_owned();
        let agent = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{join_token}");
        let web = format!("unix:uid:{WEB}");
        server.create_entry(&agent, "/web", &[&web, IN_HARDWARE], &["-dns", "localhost", "-x509SVIDTTL", ttl]);
        server.create_entry(&agent, "/client", &[&format!("unix:uid:{CLIENT}")], &[]);
        let mut device = Device::without_tpm();
        let options = AgentOptions { join_token: Some(join_token), key_manager: "disk", ..AgentOptions::default() };
        device.provision(&server, &options);
        device.start();
        device.expect_identity(CLIENT);
        let room = tempfile::Builder::new().prefix("ironroot-hardware-").tempdir().expect("directory");
        fs::set_permissions(room.path(), fs::Permissions::from_mode(0o755)).expect("open");
        let identity = room.path().join("delivered").join("identity");
        let lab = Self { server, device, token: SoftHsm::new(), room, identity };
        lab.directory("delivered");
        lab.give_token_away();
        lab
    }

    /// The token is `WEB`'s, and usable for workers that nginx forks. Source: softhsm2.conf(5), library.reset_on_fork.
    fn give_token_away(&self) {
        let configuration = self.token.environment().1;
        let mut text = fs::read_to_string(&configuration).expect("its configuration");
        text += "library.reset_on_fork = true\n";
        fs::write(&configuration, text).expect("written");
        let home = configuration.parent().expect("a directory");
        let given = Command::new("chown").arg("-R").arg(format!("{WEB}:{WEB}")).arg(home).status();
        assert!(given.expect("chown runs").success());
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.room.path().join(name);
        if !path.exists() {
            fs::create_dir(&path).expect("made");
            chown(&path, Some(WEB), Some(WEB)).expect("root gives it away");
        }
        path
    }

    fn uri(&self) -> String {
        let (module, pin) = (SoftHsm::module_path(), self.token.pin_file());
        format!("pkcs11:token={LABEL}?module-path={}&pin-source=file:{}", module.display(), pin.display())
    }

    /// `program` as `uid`, which finds the token, and OpenSSL in it the engine.
    fn command(&self, uid: u32, program: &Path) -> Command {
        let engine = self.room.path().join("openssl.cnf");
        let module = SoftHsm::module_path();
        let text = "openssl_conf = init\n[init]\nengines = engines\n[engines]\npkcs11 = pkcs11\n[pkcs11]\nengine_id = pkcs11\ninit = 1\n";
        fs::write(&engine, format!("{text}MODULE_PATH = {}\n", module.display())).expect("written");
        let (variable, path) = self.token.environment();
        let mut command = as_uid(uid, program);
        command.env(variable, path).env("OPENSSL_CONF", engine).stdin(Stdio::null());
        command
    }

    fn delivering(&self, uid: u32, uri: &str, directory: &Path, more: &[&str]) -> Command {
        let mut command = self.command(uid, &binary("ironroot-agent"));
        command.args(["deliver", "-pkcs11", uri, "-socketPath"]).arg(self.device.socket());
        command.arg("-directory").arg(directory).args(more);
        command
    }

    /// `deliver` for as long as the value lives.
    fn deliver(&self, more: &[&str]) -> Delivery {
        self.delivery(self.delivering(WEB, &self.uri(), &self.identity, more))
    }

    fn delivery(&self, mut command: Command) -> Delivery {
        let log = self.room.path().join("deliver.log");
        let output = fs::File::create(&log).expect("log");
        command.stdout(output.try_clone().expect("a handle")).stderr(output);
        Delivery { child: Running::start(command), log }
    }

    fn once(&self, uid: u32, uri: &str, directory: &Path, more: &[&str]) -> Output {
        self.delivering(uid, uri, directory, &[&["-once", "-timeout", "20s"], more].concat()).output().expect("runs")
    }

    fn current(&self) -> Option<PathBuf> {
        fs::read_link(self.identity.join("current")).ok()
    }

    fn expect_delivered(&self, before: Option<&Path>, delivery: &Delivery) -> PathBuf {
        let is_new = || self.current().is_some_and(|set| Some(set.as_path()) != before);
        expect_within(DEADLINE, "a set is delivered", || delivery.log() + &self.device.log(), is_new);
        self.current().expect("there")
    }

    /// Labels of the private keys in the token, each of which must be one that stays there.
    fn keys(&self) -> Vec<String> {
        let module = SoftHsm::module_path().display().to_string();
        let login = ["--module", &module, "--token-label", LABEL, "--login", "--pin", PIN];
        let list = [&login[..], &["--list-objects", "--type", "privkey"]].concat();
        let output = self.command(WEB, Path::new("/usr/bin/pkcs11-tool")).args(list).output().expect("runs");
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let access: Vec<&str> = listed.lines().filter_map(|line| line.trim().strip_prefix("Access:")).collect();
        assert!(access.iter().all(|access| access.contains("always sensitive, never extract")), "{listed}");
        let labels = listed.lines().filter_map(|line| line.trim().strip_prefix("label:"));
        let mut labels: Vec<String> = labels.map(|label| label.trim().to_owned()).collect();
        assert_eq!(labels.len(), access.len(), "{listed}");
        labels.sort();
        labels
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output = self.command(WEB, Path::new("/usr/bin/openssl")).args(arguments).output().expect("openssl runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
        said
    }

    /// What is delivered is a pair: OpenSSL signs by the URI with what the certificate verifies, and the certificate leads to the bundle.
    fn expect_usable(&self) {
        let set = fs::canonicalize(self.identity.join("current")).expect("a set is current");
        let text = |name: &str| set.join(name).display().to_string();
        let uri = fs::read_to_string(set.join("svid.uri")).expect("there");
        let work = self.directory("work");
        let [message, key, signature] =
            ["message", "key", "signature"].map(|name| work.join(name).display().to_string());
        fs::write(&message, "message").expect("written");
        let signing = ["-engine", "pkcs11", "-keyform", "engine", "-sign", uri.trim(), "-out", &signature, &message];
        self.openssl(&[&["dgst", "-sha256"], &signing[..]].concat());
        self.openssl(&["x509", "-in", &text("svid.pem"), "-noout", "-pubkey", "-out", &key]);
        self.openssl(&["dgst", "-sha256", "-verify", &key, "-signature", &signature, &message]);
        self.openssl(&["verify", "-CAfile", &text("bundle.pem"), "-untrusted", &text("svid.pem"), &text("svid.pem")]);
    }
}

struct Delivery {
    child: Running,
    log: PathBuf,
}

impl Delivery {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn expect_log(&self, text: &str) {
        expect_within(DEADLINE, text, || self.log(), || self.log().contains(text));
    }

    fn kill(mut self) {
        self.child.0.kill().expect("it ran");
        self.child.0.wait().expect("it has ended");
    }
}

/// A daemon that is asked to stop when the test is over: killed, an nginx would leave its workers behind.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        // A shell that is asked to stop leaves what it runs behind.
        command.process_group(0);
        Self(
            child::spawn(command)
                .expect("it starts (packages nginx-light and libengine-pkcs11-openssl: scripts/setup --tests)"),
        )
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("waits").is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        let _ = killpg(pid, Signal::SIGTERM);
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// TLS as `CLIENT`, with what the Workload API gives it; the serial number of the server's certificate.
fn ask(identity: &ClientConfig, port: u16) -> Vec<u8> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    tcp.set_read_timeout(Some(DEADLINE)).expect("set");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(identity.clone()), name).expect("a client"), tcp);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a handshake, and sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered to its end");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("nginx heard SUCCESS\n"), "{answer}");
    stream.conn.peer_certificates().expect("a certificate")[0].as_ref().to_vec()
}

fn client_identity(lab: &Lab) -> ClientConfig {
    let directory = lab.room.path().join("client");
    fs::create_dir(&directory).expect("made");
    chown(&directory, Some(CLIENT), Some(CLIENT)).expect("given away");
    let written = lab.device.api(CLIENT, &["fetch", "x509", "-write", directory.to_str().expect("text")]);
    assert!(written.status.success(), "{written:?}");
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let file = CertificateDer::pem_file_iter(directory.join(name)).expect("there");
        file.map(|certificate| certificate.expect("a certificate")).collect()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("bundle.0.pem"));
    let key = PrivateKeyDer::from_pem_file(directory.join("svid.0.key")).expect("a key");
    let config = ClientConfig::builder().with_root_certificates(roots);
    config.with_client_auth_cert(certificates("svid.0.pem"), key).expect("a pair")
}

/// The blocks of docs/workloads.md in this language, for this lab's places, token and `port`.
fn snippets(lab: &Lab, language: &str, port: u16) -> Vec<String> {
    let page = include_str!("../../docs/workloads.md");
    let blocks = page.split("\n```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    let shop = lab.directory("shop").display().to_string();
    let here = |block: &str| {
        let text = block.replace("/run/shop", &shop).replace("/etc/shop", &shop).replace("8443", &port.to_string());
        text.replace("token=shop", &format!("token={LABEL}")) + "\n"
    };
    blocks.map(here).collect()
}

/// As docs/workloads.md has it.
#[test]
fn nginx_uses_keys_that_never_leave_their_token_and_no_request_is_lost_while_they_change() {
    let mut lab = Lab::start("8");
    let (shop, port) = (lab.directory("shop"), free_port());
    lab.identity = shop.join("identity");
    let [_, deliver, _] = &snippets(&lab, "sh", port)[..] else { panic!("three blocks of sh") };
    let [_, config] = &snippets(&lab, "nginx", port)[..] else { panic!("two blocks of nginx") };
    let [engine] = &snippets(&lab, "ini", port)[..] else { panic!("one block of ini") };
    fs::write(shop.join("nginx.conf"), config).expect("written");
    fs::write(shop.join("openssl.cnf"), engine).expect("written");
    fs::copy(lab.token.pin_file(), shop.join("hsm.pin")).expect("copied");
    chown(shop.join("hsm.pin"), Some(WEB), Some(WEB)).expect("given away");
    let programs = binary("ironroot-agent").parent().expect("a directory").display().to_string();
    let mut command = lab.command(WEB, Path::new("/bin/sh"));
    command.env("PATH", format!("{programs}:/usr/sbin:/usr/bin:/bin")).arg("-ec").arg(deliver);
    command.env("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", lab.device.socket().display()));
    let delivery = lab.delivery(command);
    lab.expect_delivered(None, &delivery);
    let nginx_log = fs::File::create(lab.room.path().join("nginx.log")).expect("log");
    let start = || {
        let mut command = lab.command(WEB, Path::new("/usr/sbin/nginx"));
        command.env("OPENSSL_CONF", shop.join("openssl.cnf")).arg("-c").arg(shop.join("nginx.conf"));
        command.stdout(Stdio::null()).stderr(nginx_log.try_clone().expect("log"));
        Running::start(command)
    };
    let mut nginx = start();
    let said = || {
        let logs = [shop.join("error.log"), lab.room.path().join("nginx.log")];
        logs.map(|log| fs::read_to_string(log).unwrap_or_default()).concat() + &delivery.log()
    };
    expect_within(DEADLINE, "nginx listens", said, || {
        // As systemd does with Restart=on-failure: SoftHSM at times finds no token while another process writes into it.
        if nginx.has_ended() {
            nginx = start();
        }
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let client = client_identity(&lab);
    let mut seen = vec![ask(&client, port)];
    let rotated = || {
        let certificate = ask(&client, port);
        if seen.last() != Some(&certificate) {
            seen.push(certificate);
        }
        seen.len() > ROTATIONS
    };
    expect_within(4 * DEADLINE, "keys are replaced", said, rotated);

    let directory = lab.identity.display().to_string();
    let label = |slot: u8| format!("ironroot {directory} {slot}");
    assert_eq!(lab.keys(), [label(1), label(2)], "the one in use, and the one before or after");
    for set in fs::read_dir(&lab.identity).expect("sets") {
        let set = set.expect("an entry").path();
        for file in fs::read_dir(&set).into_iter().flatten() {
            let content = fs::read(file.expect("an entry").path()).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&content).contains("PRIVATE KEY"), "{}", set.display());
        }
    }
}

#[test]
fn no_api_hands_out_a_key_for_an_identity_whose_key_is_to_be_in_hardware() {
    let lab = Lab::start("60");
    let refused = lab.device.fetch(WEB).expect_err("no key in software");
    assert!(refused.contains("no identity issued"), "{refused}");
    lab.device.expect_log("a key in hardware: no API hands one out");
    let token = lab.device.api(WEB, &["fetch", "jwt", "-audience", "a"]);
    assert!(!token.status.success(), "{token:?}");
    let explained = lab.device.api(WEB, &["explain"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("key in hardware") && explained.contains("deliver has one certified"), "{explained}");
    assert!(!lab.server.log().contains("/web\""), "nothing was ever signed for it: {}", lab.server.log());

    let stranger = lab.room.path().join("stranger");
    fs::create_dir(&stranger).expect("made");
    chown(&stranger, Some(STRANGER), Some(STRANGER)).expect("given away");
    let pin = stranger.join("pin");
    fs::copy(lab.token.pin_file(), &pin).expect("copied");
    chown(&pin, Some(STRANGER), Some(STRANGER)).expect("given away");
    let module = SoftHsm::module_path();
    let uri = format!("pkcs11:token={LABEL}?module-path={}&pin-source=file:{}", module.display(), pin.display());
    let web = format!("spiffe://{TRUST_DOMAIN}/web");
    let refused = lab.once(STRANGER, &uri, &stranger.join("identity"), &["-spiffeID", &web]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no identity issued"), "{said}");
    let refused = lab.once(WEB, &lab.uri(), &lab.identity, &["-spiffeID", "spiffe://other.org/web"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("is none of this process's identities: spiffe://"), "{said}");
    assert!(lab.keys().is_empty(), "no key was made for either");
}

#[test]
fn a_delivery_that_is_killed_between_key_and_certificate_leaves_a_usable_pair_and_no_heap_of_keys() {
    let mut lab = Lab::start("20");
    let delivery = lab.deliver(&[]);
    let first = lab.expect_delivered(None, &delivery);
    lab.expect_usable();
    lab.server.kill();
    delivery.expect_log("no certificate for spiffe://");
    delivery.kill();
    assert_eq!(lab.keys().len(), 2, "the next key is made");
    lab.expect_usable();
    assert_eq!(lab.current().as_deref(), Some(first.as_path()));

    // Killed again and again at that step: the keys stay two, and the pair is the same.
    for _ in 0..3 {
        let delivery = lab.deliver(&[]);
        delivery.expect_log("no certificate for spiffe://");
        delivery.kill();
        assert_eq!(lab.keys().len(), 2);
    }
    assert_eq!(lab.current().as_deref(), Some(first.as_path()));
    lab.server.spawn();
    let delivery = lab.deliver(&[]);
    let second = lab.expect_delivered(Some(&first), &delivery);
    lab.expect_usable();
    // Killed whenever a set has come, before or after somebody was told.
    delivery.kill();
    lab.expect_usable();
    let delivery = lab.deliver(&[]);
    lab.expect_delivered(Some(&second), &delivery);
    lab.expect_usable();
    assert_eq!(lab.keys().len(), 2);
}

#[test]
fn while_nobody_can_be_told_the_certificate_is_renewed_for_the_key_that_is_in_use() {
    let lab = Lab::start("8");
    let delivery = lab.deliver(&["--", "false"]);
    let mut set = lab.expect_delivered(None, &delivery);
    delivery.expect_log("nobody was told");
    let uri = || fs::read_to_string(lab.identity.join("current").join("svid.uri")).expect("there");
    let first = uri();
    for _ in 0..2 {
        set = lab.expect_delivered(Some(&set), &delivery);
        assert_eq!(uri(), first);
    }
    assert_eq!(lab.keys().len(), 1, "whoever has read it goes on using it");
    drop(delivery);
    let delivery = lab.deliver(&["--", "true"]);
    expect_within(2 * DEADLINE, "another key comes", || delivery.log(), || uri() != first);
    lab.expect_usable();
}

#[test]
fn an_entry_that_changes_has_another_certificate_at_once_and_a_lost_key_another_key() {
    let lab = Lab::start("3600");
    let delivery = lab.deliver(&[]);
    let first = lab.expect_delivered(None, &delivery);
    let shown =
        lab.server.cli(&["entry", "show", "-spiffeID", &format!("spiffe://{TRUST_DOMAIN}/web"), "-output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let entry = &shown["entries"][0];
    let id = |of: &serde_json::Value| {
        format!("spiffe://{}{}", of["trust_domain"].as_str().expect("text"), of["path"].as_str().expect("text"))
    };
    let entry_id = entry["id"].as_str().expect("an ID");
    let (parent, spiffe_id, uid) = (id(&entry["parent_id"]), id(&entry["spiffe_id"]), format!("unix:uid:{WEB}"));
    let same =
        ["entry", "update", "-entryID", entry_id, "-parentID", &parent, "-spiffeID", &spiffe_id, "-selector", &uid];
    lab.server.cli(&[&same[..], &["-selector", IN_HARDWARE, "-dns", "other.example.org"]].concat());
    let second = lab.expect_delivered(Some(&first), &delivery);
    let chain = lab.identity.join("current").join("svid.pem").display().to_string();
    assert!(lab.openssl(&["x509", "-in", &chain, "-noout", "-ext", "subjectAltName"]).contains("other.example.org"));
    lab.expect_usable();
    delivery.kill();

    let before = lab.keys();
    let module = SoftHsm::module_path().display().to_string();
    let login = ["--module", &module, "--token-label", LABEL, "--login", "--pin", PIN];
    for label in &before {
        let delete = [&login[..], &["--delete-object", "--type", "privkey", "--label", label]].concat();
        let output = lab.command(WEB, Path::new("/usr/bin/pkcs11-tool")).args(delete).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
    }
    let delivery = lab.deliver(&[]);
    lab.expect_delivered(Some(&second), &delivery);
    lab.expect_usable();
}

#[test]
fn what_is_wrong_with_the_token_is_said_plainly_and_what_was_delivered_stays_in_use() {
    let lab = Lab::start("8");
    let said = |output: Output| {
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let module = lab.uri().replace("libsofthsm2.so", "libnone.so");
    let missing = said(lab.once(WEB, &module, &lab.identity, &[]));
    assert!(missing.contains("-pkcs11: module-path: ") && missing.contains("libnone.so"), "{missing}");
    let other = lab.uri().replace(LABEL, "other");
    let absent = said(lab.once(WEB, &other, &lab.identity, &[]));
    assert!(absent.contains("no token matches pkcs11:token=other"), "{absent}");
    let pin = lab.room.path().join("wrong-pin");
    fs::write(&pin, "not-this").expect("written");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("closed");
    chown(&pin, Some(WEB), Some(WEB)).expect("given away");
    let wrong = lab.uri().replace(&lab.token.pin_file().display().to_string(), &pin.display().to_string());
    let refused = said(lab.once(WEB, &wrong, &lab.identity, &[]));
    assert!(refused.contains("PIN"), "{refused}");
    assert!(lab.current().is_none() && lab.keys().is_empty());

    let delivery = lab.deliver(&[]);
    lab.expect_delivered(None, &delivery);
    delivery.kill();
    let away = lab.token.file("away");
    fs::rename(lab.token.token_directory(), &away).expect("pulled out");
    fs::create_dir(lab.token.token_directory()).expect("an empty reader");
    chown(lab.token.token_directory(), Some(WEB), Some(WEB)).expect("given away");
    let set = lab.current();
    let delivery = lab.deliver(&[]);
    delivery.expect_log("no token matches");
    assert_eq!(lab.current(), set, "what was delivered stays");
    fs::remove_dir(lab.token.token_directory()).expect("nothing was made in it");
    fs::rename(&away, lab.token.token_directory()).expect("plugged in again");
    lab.expect_delivered(set.as_deref(), &delivery);
    lab.expect_usable();
}

/// What OpenSSL's provider tpm2 does with the delivered key file at this chip: it signs what the certificate verifies.
fn signs(lab: &Lab, chip: &Swtpm) -> Result<(), String> {
    let set = fs::canonicalize(lab.identity.join("current")).expect("a set is current");
    let text = |name: &str| set.join(name).display().to_string();
    let work = lab.directory("work");
    let [message, key, signature] = ["message", "key", "signature"].map(|name| work.join(name).display().to_string());
    fs::write(&message, "message").expect("written");
    let mut signing = as_uid(WEB, Path::new("/usr/bin/openssl"));
    signing.args(["dgst", "-sha256", "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2"]);
    signing.args(["-sign", &text("svid.key")]);
    let output = signing.args(["-out", &signature, &message]).env("TPM2OPENSSL_TCTI", chip.tcti()).stdin(Stdio::null());
    let output = output.output().expect("openssl runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    lab.openssl(&["x509", "-in", &text("svid.pem"), "-noout", "-pubkey", "-out", &key]);
    lab.openssl(&["dgst", "-sha256", "-verify", &key, "-signature", &signature, &message]);
    lab.openssl(&["verify", "-CAfile", &text("bundle.pem"), "-untrusted", &text("svid.pem"), &text("svid.pem")]);
    Ok(())
}

/// A storage root key of the usual template where others expect it. Source: TCG TPM 2.0 Provisioning Guidance, 7.5.1, 7.8.
fn persist_storage_root(lab: &Lab, chip: &Swtpm) {
    let context = lab.room.path().join("root.ctx").display().to_string();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda";
    let create = [
        "tpm2_createprimary",
        "-Q",
        "-C",
        "o",
        "-g",
        "sha256",
        "-G",
        "ecc256:aes128cfb",
        "-a",
        attributes,
        "-c",
        &context,
    ];
    let keep = ["tpm2_evictcontrol", "-Q", "-C", "o", "-c", &context, "0x81000001"];
    for words in [&create[..], &keep] {
        let output =
            Command::new(words[0]).args(&words[1..]).env("TPM2TOOLS_TCTI", chip.tcti()).output().expect("runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
}

#[test]
fn a_key_in_the_tpm_is_used_by_openssl_at_this_tpm_and_at_no_other() {
    for is_persistent in [false, true] {
        let lab = Lab::start("8");
        let (chip, other) = (Swtpm::start().expect("swtpm"), Swtpm::start().expect("swtpm"));
        if is_persistent {
            persist_storage_root(&lab, &chip);
        }
        let deliver = |chip: &Swtpm| {
            let mut command = as_uid(WEB, &binary("ironroot-agent"));
            command.args(["deliver", "-tpm", &chip.tcti(), "-socketPath"]).arg(lab.device.socket());
            command.arg("-directory").arg(&lab.identity).stdin(Stdio::null());
            lab.delivery(command)
        };
        let delivery = deliver(&chip);
        let first = lab.expect_delivered(None, &delivery);
        let key = |set: &Path| fs::read(lab.identity.join(set).join("svid.key")).expect("a key file");
        let of_the_first = key(&first);
        let second = lab.expect_delivered(Some(&first), &delivery);
        assert_ne!(key(&second), of_the_first, "each certificate has a key of its own");
        delivery.kill();
        signs(&lab, &chip).expect("it signs");
        signs(&lab, &other).expect_err("another TPM cannot load it");
        let rights = fs::metadata(lab.identity.join(&second).join("svid.key")).expect("there").permissions().mode();
        assert_eq!(rights & 0o777, 0o600, "on this device the file is all that one needs");

        // The board was replaced.
        let delivery = deliver(&other);
        lab.expect_delivered(Some(&second), &delivery);
        delivery.kill();
        signs(&lab, &other).expect("it signs");
    }
}
