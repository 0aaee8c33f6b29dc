//! What a supervisor is told: the server is ready while it can do its work, and it says what is wrong when it cannot.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use std::io::{Read, Write};
use std::net::TcpStream;

use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, expect_within};
use ironroot_lab::quirk::Quirks;
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};

/// A server on a token with quirks, none of them on yet, and the port of its health listener.
fn server(options: ServerOptions) -> (Server, Quirks, u16) {
    let server = Server::prepare(&ServerOptions { quirky_token: true, ..options });
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let checks =
        format!("health_checks {{ listener_enabled = true bind_address = \"127.0.0.1\" bind_port = {port} }}\n");
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), config + &checks).unwrap();
    let quirks = server.quirks();
    (server, quirks, port)
}

/// Status line and body of `/ready`.
fn ready(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Both doors say that the server is not ready, because of this.
fn expect_not_ready(server: &Server, port: u16, reason: &str) {
    expect_within(
        DEADLINE,
        &format!("not ready: {reason}"),
        || server.log(),
        || {
            let output = server.cli_output(&["healthcheck"]);
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(reason)
        },
    );
    let answer = ready(port);
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains(reason), "{answer}");
}

fn expect_ready(server: &Server, port: u16) {
    let answers = || server.cli_output(&["healthcheck"]).status.success() && ready(port).starts_with("HTTP/1.1 200");
    expect_within(DEADLINE, "ready", || server.log(), answers);
}

fn short_ca(ca_ttl: &'static str) -> ServerOptions {
    ServerOptions { ca_ttl, agent_ttl: "2s", x509_svid_ttl: "2s", ..ServerOptions::default() }
}

#[test]
fn no_join_token_is_made_for_a_time_that_is_known_to_be_wrong() {
    let mut server = Server::start(&ServerOptions::default());
    server.cli(&["token", "generate"]);
    server.kill();
    server.spawn_at("+10h");
    let refused = || server.cli_output(&["token", "generate"]);
    let told =
        || String::from_utf8_lossy(&refused().stderr).contains("good for a wrong time: this server's clock says");
    expect_within(DEADLINE, "it is refused", || server.log(), told);
    server.kill();
    server.restart();
    server.cli(&["token", "generate"]);
}

//= FLT-H3
#[test]
fn a_token_that_is_gone_is_told_with_its_code_and_forgotten_when_it_is_back() {
    let (mut server, quirks, port) = server(ServerOptions::default());
    server.restart();
    expect_ready(&server, port);
    quirks.set(&["gone"]);
    expect_not_ready(&server, port, "the token does not sign");
    quirks.set(&[]);
    expect_ready(&server, port);
    assert!(server.log().contains("server is ready again"), "{}", server.log());
}

#[test]
fn a_token_that_hangs_is_told() {
    let (mut server, quirks, port) = server(ServerOptions::default());
    server.restart();
    quirks.set(&["hang C_Sign"]);
    expect_not_ready(&server, port, "the token does not sign: it has not answered for 10 s");
    quirks.set(&[]);
    expect_ready(&server, port);
}

/// Also with the two sessions that a small token has, where four are configured.
#[test]
fn a_ca_whose_key_could_not_be_made_until_the_module_is_started_anew_does_not_end() {
    let (mut server, quirks, port) = server(short_ca("12s"));
    quirks.set(&["max_sessions 2"]);
    server.restart();
    assert_eq!(quirks.count("C_Initialize"), 1);
    quirks.set(&["max_sessions 2", "fail C_GenerateKeyPair 0x5 1"]);
    let rotations = || server.log().matches("CA activated").count();
    expect_within(DEADLINE, "two rotations", || server.log(), || rotations() >= 3);
    assert!(server.log().contains("C_GenerateKeyPair returned CKR_GENERAL_ERROR"), "{}", server.log());
    assert!(quirks.count("C_Initialize") > 1 && quirks.count("C_OpenSession refused") > 0);
    assert!(!server.log().contains("the CA certificate expired"), "{}", server.log());
    expect_ready(&server, port);
}

#[test]
fn a_rotation_that_keeps_failing_is_told_while_the_ca_still_signs() {
    let (mut server, quirks, port) = server(short_ca("40s"));
    server.restart();
    quirks.set(&["fail C_GenerateKeyPair 0x30"]);
    expect_not_ready(&server, port, "the CA rotation has failed");
    let log = server.log();
    assert!(log.contains("CRITICAL: the rotation keeps failing") && log.contains("CKR_DEVICE_ERROR"), "{log}");
    assert!(log.contains("and every identity with it"), "{log}");
    let answer = ready(port);
    assert!(!answer.contains("the token does not sign") && !answer.contains("expired"), "{answer}");
    quirks.set(&[]);
    expect_ready(&server, port);
    assert!(!server.log().contains("the CA certificate expired"), "{}", server.log());
}

/// In a ceremony: another process, with the token's own module.
fn make_key(hsm: &SoftHsm, number: &str) {
    let module = SoftHsm::module_path();
    let token = ["--module", module.to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", PIN];
    let key = ["--keypairgen", "--key-type", "EC:prime256v1", "--sensitive", "--usage-sign"];
    hsm.run("pkcs11-tool", &[&token[..], &key, &["--label", number, "--id", number]].concat());
}

/// The HSM's administrator makes the keys, and has made no third one.
#[test]
fn a_missing_key_of_the_administrator_is_told_before_the_rotation_that_needs_it() {
    let (mut server, quirks, port) = server(ServerOptions::default());
    for number in ["01", "02"] {
        make_key(server.token(), number);
    }
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    let named = config.replace("sessions = 4", "sessions = 4\n key_labels = [\"01\", \"02\", \"03\"]");
    std::fs::write(server.config_path(), named).unwrap();
    quirks.set(&["fail C_GenerateKeyPair 0x101", "fail C_DestroyObject 0x1B"]);
    server.spawn();
    expect_not_ready(&server, port, "no key is free for the next authority, which is due at");
    let log = server.log();
    assert!(log.contains("no key is left for the next rotation") && log.contains("restart the server"), "{log}");
    assert!(log.contains("a key that the configuration names is not in the token") && log.contains("03"), "{log}");
    make_key(server.token(), "03");
    server.restart();
    expect_ready(&server, port);
    assert_eq!(quirks.count("C_GenerateKeyPair"), 0);
}
