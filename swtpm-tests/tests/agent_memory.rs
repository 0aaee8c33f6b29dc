//! What others can make of a real agent's memory: local users without any entry, and a hostile server.

use std::process::{Child, Stdio};

use ironroot_lab::deployment::{self, AgentOptions, DEADLINE, Device, expect_within};
use ironroot_lab::scripted_server::{self, BundleLie, ScriptedServer, SvidLie, entry};

/// What one local user may add to an agent, MiB. The number stands in the handbook.
const ONE_USER_MIB: u64 = 48;
/// What all of them may add together, MiB. The number stands in the handbook.
const ALL_USERS_MIB: u64 = 160;
/// What a server's answers may add to an agent, MiB. The number stands in the handbook.
const SERVER_MIB: u64 = 64;
/// The longest request about JWT-SVIDs, bytes, as the agent bounds it; and one byte less, with which it does not end.
const LONGEST_OF_JWT: &str = "20480";
const LESS_THAN_THAT: &str = "20479";
/// The longest message of an Envoy, bytes, as the agent bounds it; and one byte less.
const LONGEST_OF_ENVOY: &str = "131072";
const LESS_THAN_ENVOYS: &str = "131071";
/// Bytes of headers beside those that every request has: none to speak of, and nearly as many as the agent takes.
const FEW_HEADERS: &str = "1";
const MOST_HEADERS: &str = "7168";
const STREAM_SECRETS: &str = "envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
/// A user without any entry.
const STRANGER: u32 = 60_009;

/// An agent that serves uid 1000 by a scripted server's word.
fn served(server: &ScriptedServer) -> Device {
    let mut device = Device::without_tpm();
    let options =
        AgentOptions { join_token: Some("token".to_owned()), key_manager: "memory", ..AgentOptions::default() };
    device.provision_with_bundle(&server.bundle_pem(), server.address().port(), &options);
    let config = std::fs::read_to_string(device.config_path()).expect("written");
    let config = config.replace(deployment::TRUST_DOMAIN, scripted_server::TRUST_DOMAIN);
    std::fs::write(device.config_path(), config).expect("written again");
    device.start();
    device.expect_identity(1000);
    device
}

/// `VmHWM` or `VmRSS` of the agent, MiB.
fn memory(device: &mut Device, line: &str) -> u64 {
    let pid = device.process().expect("runs").pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running agent");
    let value = status.lines().find_map(|text| text.strip_prefix(line)).expect("a line");
    value.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("kB") / 1024
}

/// Starts to besiege the agent as `uid`.
fn besiege(device: &Device, uid: u32, arguments: &[&str]) -> Child {
    let mut besieger = device.command_as(uid, "lab-workload");
    besieger.arg("besiege").arg(device.socket()).args(arguments).arg("6");
    besieger.stdout(Stdio::null()).spawn().expect("starts")
}

/// Besieges the agent as a stranger by METHOD CONNECTIONS STREAMS HEADERS ANNOUNCED SENT; what its memory grew by at most since it was `before`,
/// MiB: by this siege and those before it.
fn besieged(device: &mut Device, before: u64, siege: [&str; 6]) -> u64 {
    let mut besieger = besiege(device, STRANGER, &siege);
    expect_within(DEADLINE, "the siege ends", String::new, || besieger.try_wait().expect("waits").is_some());
    assert!(besieger.wait().expect("ended").success(), "the siege was laid");
    let grown = memory(device, "VmHWM:").saturating_sub(before);
    println!("{siege:?}: {grown} MiB");
    grown
}

//= FLT-A9
#[test]
fn a_local_user_without_any_entry_adds_no_more_memory_than_the_handbook_says() {
    let server = ScriptedServer::start();
    let mut device = served(&server);
    let before = memory(&mut device, "VmRSS:");
    for siege in [
        ["FetchX509SVID", "4", "50", FEW_HEADERS, "4194000", "4194000"],
        ["FetchX509SVID", "8", "64", FEW_HEADERS, "1024", "1000"],
        ["FetchX509SVID", "500", "1", FEW_HEADERS, "1024", "1000"],
        ["FetchX509SVID", "500", "1", MOST_HEADERS, "1024", "1000"],
        ["FetchJWTSVID", "8", "64", FEW_HEADERS, LONGEST_OF_JWT, LESS_THAN_THAT],
        ["ValidateJWTSVID", "500", "1", FEW_HEADERS, LONGEST_OF_JWT, LESS_THAN_THAT],
        ["FetchJWTSVID", "4", "50", FEW_HEADERS, "4194000", "4194000"],
        [STREAM_SECRETS, "8", "64", FEW_HEADERS, LONGEST_OF_ENVOY, LESS_THAN_ENVOYS],
    ] {
        let grown = besieged(&mut device, before, siege);
        assert!(grown <= ONE_USER_MIB, "{grown} MiB: {siege:?}");
        device.expect_identity(1000);
    }
}

//= FLT-A9
#[test]
fn many_local_users_together_add_no_more_memory_than_the_handbook_says_and_one_more_is_served() {
    let server = ScriptedServer::start();
    let mut device = served(&server);
    let before = memory(&mut device, "VmRSS:");
    for siege in [
        ["FetchX509SVID", "500", "1", FEW_HEADERS, "1024", "1000"],
        ["FetchX509SVID", "500", "1", MOST_HEADERS, "1024", "1000"],
        ["ValidateJWTSVID", "500", "1", FEW_HEADERS, LONGEST_OF_JWT, LESS_THAN_THAT],
        ["FetchJWTSVID", "500", "1", FEW_HEADERS, LONGEST_OF_JWT, LONGEST_OF_JWT],
        [STREAM_SECRETS, "500", "1", FEW_HEADERS, LONGEST_OF_ENVOY, LESS_THAN_ENVOYS],
    ] {
        let grown = besieged_by_nine(&mut device, before, siege);
        assert!(grown <= ALL_USERS_MIB, "{grown} MiB: {siege:?}");
        device.expect_identity(1000);
    }
}

/// Nine users besiege the agent, and a tenth is served meanwhile; what its memory grew by at most since it was `before`, MiB.
fn besieged_by_nine(device: &mut Device, before: u64, siege: [&str; 6]) -> u64 {
    let crowd = STRANGER..STRANGER + 9;
    let mut crowd: Vec<Child> = crowd.map(|uid| besiege(device, uid, &siege)).collect();
    device.expect_identity(1000);
    expect_within(DEADLINE, "the siege ends", String::new, || {
        crowd.iter_mut().all(|child| child.try_wait().expect("waits").is_some())
    });
    assert!(crowd.iter_mut().all(|child| child.wait().expect("ended").success()), "each siege was laid");
    let grown = memory(device, "VmHWM:").saturating_sub(before);
    println!("nine users, {siege:?}: {grown} MiB");
    grown
}

#[test]
fn the_handbook_names_the_bounds_that_are_measured_here() {
    let handbook = include_str!("../../docs/handbook.md");
    for number in [ONE_USER_MIB, ALL_USERS_MIB, SERVER_MIB] {
        assert!(handbook.contains(&format!("at most {number} MiB")), "{number}");
    }
}

//= FLT-A25
#[test]
fn a_hostile_servers_answers_add_no_more_memory_than_the_handbook_says() {
    let server = ScriptedServer::start();
    let mut device = served(&server);
    let before = memory(&mut device, "VmRSS:");
    let bundles = server.asked().bundles;
    server.play(|script| script.bundle = BundleLie::Amplified);
    expect_within(DEADLINE, "the bundle is asked for again", String::new, || server.asked().bundles > bundles + 2);
    let many_selectors = || {
        let mut entry = entry("workload", "/workload", 7);
        entry.selectors = vec![ironroot_api::pb::types::Selector::default(); 2_000_000];
        entry
    };
    let syncs = server.asked().syncs;
    server.play(|script| (script.bundle, script.entries) = (BundleLie::Honest, vec![many_selectors()]));
    expect_within(DEADLINE, "the entries are asked for again", String::new, || server.asked().syncs > syncs + 1);
    let batches = server.asked().batches;
    let changed = vec![entry("workload", "/workload", 8)];
    server.play(|script| (script.svid, script.entries) = (SvidLie::Amplified, changed));
    expect_within(DEADLINE, "SVIDs are asked for again", String::new, || server.asked().batches > batches + 1);
    let grown = memory(&mut device, "VmHWM:").saturating_sub(before);
    println!("a hostile server: {grown} MiB");
    assert!(grown <= SERVER_MIB, "{grown} MiB");
    device.expect_identity(1000);
    let log = device.log();
    assert!(log.contains("the server's answer is refused"), "{log}");
}
