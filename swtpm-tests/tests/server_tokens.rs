//! The CA's life on tokens with other manners than SoftHSM's, from its founding over rotations and a restart.
#![allow(clippy::unwrap_used, reason = "in a test whatever is not there is the failure")]

use ironroot_lab::ceremony::Ceremony;
use ironroot_lab::deployment::{DEADLINE, Keys, Server, ServerOptions, expect_within, wait_for};
use ironroot_lab::softhsm::{LABEL, PIN, SoftHsm};

/// Rotates every half minute and less.
fn server() -> Server {
    let options = ServerOptions { ca_ttl: "12s", agent_ttl: "2s", x509_svid_ttl: "2s", ..ServerOptions::default() };
    Server::prepare(&ServerOptions { quirky_token: true, ..options })
}

/// Puts `login` in the place of the PIN file.
fn set_login(server: &Server, login: &str) {
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    let line = config.lines().find(|line| line.contains("pin_file")).unwrap();
    std::fs::write(server.config_path(), config.replace(line, login)).unwrap();
}

fn expect_rotations(server: &Server, count: usize) {
    let activated = || server.log().matches("CA activated").count();
    expect_within(DEADLINE, &format!("{count} CAs activated"), || server.log(), || activated() >= count);
}

fn keys_in(token: &SoftHsm) -> usize {
    let module = SoftHsm::module_path();
    let arguments =
        ["--module", module.to_str().unwrap(), "--token-label", LABEL, "--login", "--pin", PIN, "--list-objects"];
    token.run("pkcs11-tool", &arguments).matches("Private Key Object").count()
}

//= FLT-H6
#[test]
fn a_ca_rotates_and_is_found_again_on_a_token_with_every_other_manner_at_once() {
    let mut server = server();
    let quirks = server.quirks();
    let manners =
        ["own_id", "local_false", "no_read_only", "nul_label", "max_sessions 1", "declare_sessions 1", "one_handle 1"];
    quirks.set(&manners);
    server.restart();
    expect_rotations(&server, 3);
    server.kill();
    server.restart();
    expect_rotations(&server, 5);
    let log = server.log();
    assert!(!log.contains(" ERROR ") && !log.contains("CRITICAL"), "{log}");
    assert_eq!(log.matches("CKA_LOCAL").count(), 2, "once for each start\n{log}");
    assert!(
        keys_in(server.token()) <= 5,
        "one for the root, one for each slot of CAs and JWT-SVIDs, and no stray ones\n{log}"
    );
}

#[test]
fn a_server_logs_in_at_the_tokens_own_pad() {
    let mut server = server();
    let quirks = server.quirks();
    quirks.set(&[&format!("protected_path {PIN}")]);
    server.spawn();
    let refused = || server.log().contains("so no PIN was sent to it; set login");
    expect_within(DEADLINE, "the server says what to set", || server.log(), refused);
    assert_eq!(quirks.count("C_Login"), 0, "a PIN was sent");
    set_login(&server, "login = \"pinpad\"");
    server.restart();
    assert_eq!((quirks.count("C_Login null"), quirks.count("C_Login pin")), (1, 0));
}

#[test]
fn a_server_works_with_a_token_that_needs_no_login() {
    let mut server = server();
    let quirks = server.quirks();
    quirks.set(&[&format!("no_login {PIN}")]);
    set_login(&server, "login = \"none\"");
    server.restart();
    expect_rotations(&server, 2);
    assert_eq!(quirks.count("C_Login"), 0);
}

//= FLT-H1
#[test]
fn a_server_whose_pin_is_refused_ends_with_a_code_that_keeps_supervisors_from_trying_again() {
    let mut server = server();
    let wrong = wrong_pin(&server);
    set_login(&server, &format!("pin_file = \"{wrong}\""));
    assert_eq!(exit_code(&mut server), Some(77), "{}", server.log());
}

fn wrong_pin(server: &Server) -> String {
    let path = server.directory().join("wrong.pin");
    std::fs::write(&path, "wrong").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
    path.display().to_string()
}

/// With which code a start ends.
fn exit_code(server: &mut Server) -> Option<i32> {
    server.spawn();
    wait_for(DEADLINE, || server.process().and_then(|process| process.exit_code()))
}

/// The lines of a block that name the lab's token, with that PIN.
fn token_with(pin: &str) -> String {
    format!(
        "module_path = \"{}\"\n token_label = \"{LABEL}\"\n pin_file = \"{pin}\"\n",
        SoftHsm::module_path().display()
    )
}

//= FLT-H1
#[test]
fn so_does_one_whose_token_of_before_or_whose_roots_token_refuses_the_pin() {
    let mut moving = Server::start(&ServerOptions::default());
    moving.kill();
    let wrong = wrong_pin(&moving);
    let plugins = format!("KeyManager \"pkcs11\" {{ plugin_data {{\n {} previous = true\n }} }}", token_with(&wrong));
    moving.reconfigure(&ServerOptions { keys: Keys::File, plugins, ..ServerOptions::default() });
    assert_eq!(exit_code(&mut moving), Some(77), "{}", moving.log());
    assert!(moving.log().contains("cannot be opened: make it reachable"), "{}", moving.log());

    let ceremony = Ceremony::new();
    let root = ceremony.root("first", &[]);
    let mut below = Server::prepare(&ServerOptions::default());
    let wrong = wrong_pin(&below);
    let plugins = format!(
        "UpstreamAuthority \"pkcs11\" {{ plugin_data {{\n roots_path = \"{}\"\n {} key_label = \"first\"\n }} }}",
        root.display(),
        token_with(&wrong)
    );
    below.reconfigure(&ServerOptions { keys: Keys::File, plugins, ..ServerOptions::default() });
    assert_eq!(exit_code(&mut below), Some(77), "{}", below.log());
    assert!(below.log().contains("the root has to certify this CA"), "{}", below.log());
}

#[test]
fn a_module_that_hangs_at_the_start_is_told_of() {
    let mut server = server();
    server.quirks().set(&["hang C_Login"]);
    server.spawn();
    let told = || server.log().contains("waiting for the PKCS#11 module");
    expect_within(DEADLINE, "the log says what the server waits for", || server.log(), told);
    server.quirks().set(&[]);
    let ready = || server.log().contains("server ready");
    expect_within(DEADLINE, "it goes on", || server.log(), ready);
}
