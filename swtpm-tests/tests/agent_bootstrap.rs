//! By what an agent knows its server: before there is a bundle, and after the one that it holds has failed.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::stand_in_web::{StandInWeb, answer};
use ironroot_lab::web_certificate::WebCertificate;

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A program of the operator's that hands out `bundle` behind a socket; the first line of each question.
fn program(socket: &Path, bundle: String) -> Receiver<String> {
    let listener = UnixListener::bind(socket).expect("bound");
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let _ = asked.send(head.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(answer(&bundle).as_bytes());
        }
    });
    questions
}

fn enrol(server: &Server, device: &Device) {
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/probe", &[&format!("unix:uid:{}", uid())], &[]);
}

fn known_by(lines: String) -> AgentOptions {
    AgentOptions { bundle_source: Some(lines), ..Default::default() }
}

#[test]
fn a_new_device_finds_the_bundle_at_a_web_server_behind_a_socket_or_at_another_agent() {
    let server = Server::start(&ServerOptions::default());
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let web = WebCertificate::new();
    let stand_in = StandInWeb::start(&web, vec![answer(&server.bundle_pem())]);
    let mut first = Device::manufacture(&maker).with_environment("SSL_CERT_FILE", web.authority());
    enrol(&server, &first);
    let url = format!("trust_bundle_url = \"https://localhost:{}/td.pem\"", stand_in.port());
    first.provision(&server, &known_by(url));
    first.start();
    first.expect_identity(uid());

    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("bundles.sock");
    let questions = program(&socket, server.cli(&["bundle", "show", "-format", "spiffe"]));
    let mut second = Device::manufacture(&maker);
    enrol(&server, &second);
    second.provision(
        &server,
        &known_by(format!(
            "trust_bundle_url = \"http://localhost/td\"
             trust_bundle_unix_socket = \"{}\"
             trust_bundle_format = \"spiffe\"",
            socket.display()
        )),
    );
    second.start();
    second.expect_identity(uid());
    let line = questions.recv_timeout(DEADLINE).expect("asked");
    let port =
        format!("&spire-connection-attempts=1&spire-server-address=127.0.0.1&spire-server-port={}", server.port());
    assert!(line.contains("?spiffe-trust-domain=") && line.contains("&spire-attest-mode=bootstrap&"), "{line}");
    assert!(line.contains(&port), "{line}");

    let mut third = Device::manufacture(&maker);
    enrol(&server, &third);
    let api = format!("trust_bundle_spiffe_workload_api = \"unix://{}\"", first.socket().display());
    third.provision(&server, &known_by(api));
    third.start();
    third.expect_identity(uid());
}

#[test]
fn a_device_whose_bundle_cannot_be_fetched_says_where_it_asks_and_comes_up_when_it_can() {
    let server = Server::start(&ServerOptions::default());
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    enrol(&server, &device);
    let directory = tempfile::tempdir().expect("directory");
    let socket: PathBuf = directory.path().join("bundles.sock");
    device.provision(
        &server,
        &known_by(format!(
            "trust_bundle_url = \"http://localhost/td\"\ntrust_bundle_unix_socket = \"{}\"",
            socket.display()
        )),
    );
    device.start();
    device.expect_log("there is no way to know the server: trust_bundle_url http://localhost/td at ");
    let _questions = program(&socket, server.bundle_pem());
    device.expect_identity(uid());
}

/// Two servers of one trust domain, one after the other at one port, that share nothing. The one that comes second is the older.
struct Reinstalled {
    older: Server,
    _newer: Server,
    device: Device,
}

impl Reinstalled {
    /// The device is in sync with the newer, which is stopped; the older, which knows the device too, runs, and its bundle is there.
    fn new(lines: &str) -> Self {
        Self::of(lines, enrol)
    }

    /// The same of an older one at which this is done with the device.
    fn of(lines: &str, at_the_older: impl Fn(&Server, &Device)) -> Self {
        let mut older = Server::start(&ServerOptions::default());
        let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
        at_the_older(&older, &device);
        let image = older.bundle_pem();
        older.kill();
        let mut newer = Server::prepare_at(older.port(), &ServerOptions::default());
        newer.restart();
        enrol(&newer, &device);
        let options = AgentOptions { agent_lines: lines.to_owned(), ..Default::default() };
        device.provision(&newer, &options);
        device.start();
        device.expect_identity(uid());
        newer.kill();
        std::fs::write(device.bundle_path(), image).expect("bundle written");
        older.restart();
        Self { older, _newer: newer, device }
    }
}

#[test]
fn a_device_whose_server_was_installed_anew_serves_what_it_has_and_comes_back_by_itself_after_the_delay() {
    let mut lab = Reinstalled::new("rebootstrap_mode = \"auto\"\nrebootstrap_delay = \"8s\"");
    lab.device.expect_log("Trust Bundle and Server don't agree, ignoring for now");
    lab.device.expect_identity(uid());
    // The delay goes on over a restart.
    lab.device.power_cycle();
    lab.device.start();
    lab.device.expect_log("Trust Bundle and Server don't agree, rebootstrapping");
    let log = lab.device.log();
    let since = |line: &&str| line.split("since=").nth(1).map(|rest| rest.trim_matches('"')[..20].to_owned());
    let said = log.lines().filter(|line| line.contains("Trust Bundle and Server don't agree"));
    let since: std::collections::BTreeSet<_> = said.filter_map(|line| since(&line)).collect();
    assert_eq!(since.len(), 1, "{log}");
    let attested = || lab.device.log().matches("agent attested").count() == 2;
    expect_within(DEADLINE, "it attests at the other server", || lab.device.log(), attested);
    let root = ironroot_api::certificate::Certificate::parse_pem(&lab.older.bundle_pem()).expect("PEM");
    let believed = || {
        let fetched = lab.device.expect_identity(uid());
        let bundle = std::fs::read_to_string(fetched.directory.join("bundle.0.pem")).expect("a bundle");
        ironroot_api::certificate::Certificate::parse_pem(&bundle).expect("PEM")[0].der() == root[0].der()
    };
    expect_within(DEADLINE, "workloads believe it", || lab.device.log(), believed);
}

#[test]
fn a_server_that_was_installed_anew_and_does_not_know_the_device_yet_takes_nothing_from_it() {
    let lab = Reinstalled::of("rebootstrap_mode = \"auto\"\nrebootstrap_delay = \"1s\"", |_, _| {});
    let refusal = "the server that the configured trust bundle proves does not let this agent in";
    let is_refused_again = || lab.device.log().matches(refusal).count() > 2;
    expect_within(DEADLINE, "it is refused again and again", || lab.device.log(), is_refused_again);
    lab.device.expect_identity(uid());
    assert!(!lab.device.log().contains("nothing is served"), "{}", lab.device.log());
    enrol(&lab.older, &lab.device);
    let attested = || lab.device.log().matches("agent attested").count() == 2;
    expect_within(DEADLINE, "it attests once it is known", || lab.device.log(), attested);
    lab.device.expect_identity(uid());
}

#[test]
fn a_device_that_does_not_believe_its_server_says_why_there_is_no_other_bundle_and_waits_without_advice() {
    let lab = Reinstalled::new("rebootstrap_mode = \"auto\"\nrebootstrap_delay = \"1h\"");
    lab.device.expect_log("Trust Bundle and Server don't agree, ignoring for now");
    let (other, waits) = (Server::start(&ServerOptions::default()).bundle_pem(), lab.device.log());
    assert!(!waits.contains("is not taken instead"), "the mode is set: {waits}");
    std::fs::write(lab.device.bundle_path(), "no bundle").expect("bundle written");
    lab.device.expect_log("the configured trust bundle cannot be had");
    let turns = || lab.device.log().matches("ignoring for now").count();
    let before = turns();
    expect_within(DEADLINE, "further turns", || lab.device.log(), || turns() > before + 2);
    assert_eq!(
        lab.device.log().matches("the configured trust bundle cannot be had").count(),
        1,
        "once for each reason"
    );
    std::fs::write(lab.device.bundle_path(), other).expect("bundle written");
    lab.device.expect_identity(uid());
}

#[test]
fn by_default_a_device_does_not_go_back_to_a_bundle_that_is_older_than_what_it_has_held() {
    let lab = Reinstalled::new("");
    lab.device.expect_log("and the configured bundle is not taken instead");
    lab.device.expect_identity(uid());
    assert_eq!(lab.device.log().matches("agent attested").count(), 1);
}

#[test]
fn an_agent_that_may_attest_once_says_that_it_does_not_rebootstrap() {
    let server = Server::start(&ServerOptions::default());
    let mut device = Device::without_tpm();
    let token = server.cli(&["token", "generate", "-output", "json"]);
    let token: serde_json::Value = serde_json::from_str(&token).expect("JSON");
    let token = token["value"].as_str().expect("a token").to_owned();
    let options = AgentOptions {
        join_token: Some(token),
        key_manager: "disk",
        agent_lines: "rebootstrap_mode = \"auto\"".to_owned(),
        ..Default::default()
    };
    device.provision(&server, &options);
    device.start();
    device.expect_log("you have requested rebootstrap support");
}
