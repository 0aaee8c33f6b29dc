//! What SPIRE's server once got wrong and another test does not stage already: the rows REG of docs/requirements.md name all of them.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::server_client::ServerClient;
use nix::sys::signal::Signal;

/// The moment from which on somebody may have seen it.
const AT_WORK: &str = "its health";

/// What is asked of a server.
type Holds<'a> = &'a dyn Fn(&Server) -> bool;

//= REG-08
/// SPIRE 1.15.2: a journal that could not be read for a moment was taken for none, and a new one was begun.
#[test]
fn a_database_that_is_locked_for_a_while_costs_no_authority_neither_at_work_nor_at_the_start() {
    let mut server = Server::start(&ServerOptions::default());
    let (bundle, show) = (server.bundle_pem(), ["localauthority", "x509", "show"]);
    let authorities = server.cli(&show);
    let database = server.directory().join("data/datastore.sqlite3");
    let locked = || {
        let other = rusqlite::Connection::open(&database).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        other
    };
    let other = locked();
    let refused = server.cli_output(&["localauthority", "x509", "prepare"]);
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
    assert_eq!((server.bundle_pem(), server.cli(&show)), (bundle.clone(), authorities.clone()));
    server.kill();
    let said = |server: &Server| server.log().matches("locked by another program").count();
    let before = said(&server);
    server.spawn();
    let has_met_it = || said(&server) > before || server.cli_output(&["healthcheck"]).status.success();
    expect_within(DEADLINE, "the start has met the lock", || server.log(), has_met_it);
    other.execute_batch("ROLLBACK").expect("lets go");
    server.kill();
    server.restart();
    assert_eq!((server.bundle_pem(), server.cli(&show)), (bundle, authorities));
    server.cli(&["localauthority", "x509", "prepare"]);
}

//= REG-09 FLT-S24
/// SPIRE 1.15.3: SIGTERM during the start was a crash. Here it ends the process at once before anything answers (a token that hangs must
/// not put that off), and in order from then on.
#[test]
fn sigterm_at_any_moment_of_a_servers_start_is_no_crash_and_at_work_an_orderly_end() {
    let mut server = Server::prepare(&ServerOptions::default());
    let (database, socket) = (server.directory().join("data/datastore.sqlite3"), server.socket());
    let moments: [(&str, Holds); 4] = [
        ("its first line", &|server: &Server| !server.log().is_empty()),
        ("its database", &|_: &Server| database.exists()),
        ("its socket", &|_: &Server| socket.exists()),
        (AT_WORK, &|server: &Server| server.cli_output(&["healthcheck"]).status.success()),
    ];
    for (moment, is_there) in moments {
        server.spawn();
        expect_within(DEADLINE, moment, || server.log(), || is_there(&server));
        let status = server.process().expect("started").terminated().expect("it ends");
        let at_once = moment != AT_WORK && status.signal() == Some(Signal::SIGTERM as i32);
        assert!(status.success() || at_once, "{moment}: {status}: {}", server.log());
        assert!(!server.log().contains("panicked"), "{moment}: {}", server.log());
    }
    server.restart();
}

//= REG-17
/// SPIRE 0.12.0: tokens were logged when something failed.
#[tokio::test]
async fn no_token_is_in_the_log_whether_it_is_good_or_refused() {
    // It logs at DEBUG.
    let server = Server::start(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    let (good, wrong) = (client.join_token().await, "5f0d6a52-wrong-token-of-nobody".to_owned());
    client.attest_with_token(&good).await.expect("a fresh token attests");
    for refused in [&good, &wrong] {
        client.attest_with_token(refused).await.err().expect("spent, or of nobody");
    }
    let workload = format!("spiffe://{TRUST_DOMAIN}/app");
    let minted = server.cli(&["jwt", "mint", "-spiffeID", &workload, "-audience", "a"]);
    let signature = minted.trim().rsplit('.').next().expect("a JWT");
    let log = server.log();
    assert!(log.contains("join_token") && signature.len() > 80, "there is something to be seen: {minted}");
    assert!(!log.contains(&wrong) && !log.contains(signature), "{log}");
    // The agent's own ID has it, which is good for nothing once it is spent: nothing else does.
    let rest = log.replace(&format!("/spire/agent/join_token/{good}"), "");
    assert!(!rest.contains(&good), "{log}");
}

//= REG-18
/// SPIRE 0.12.1 and 0.8.1: each connection to its socket cost a descriptor, and a caller that was gone already ended it.
#[test]
fn callers_of_the_admin_socket_that_are_gone_at_once_cost_no_descriptor() {
    let mut server = Server::start(&ServerOptions::default());
    let pid = server.process().expect("runs").pid();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let before = open();
    for number in 0..500 {
        let mut caller = UnixStream::connect(server.socket()).expect("the admin socket");
        // Half of HTTP/2's first words, or none.
        let _ = caller.write_all(&b"PRI * HTTP/2.0"[..number % 15]);
    }
    let are_gone = || open() <= before + 2;
    expect_within(DEADLINE, "their descriptors are gone", || format!("{} of {before}", open()), are_gone);
    server.cli(&["healthcheck"]);
}
