//! An agent whose clock is wrong, or whose server's is: `docs/trusted_time.md`, with real processes, TLS and a TPM.

use std::time::Duration;

use ironroot_api::certificate::Certificate;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::scripted_server::{ScriptedServer, TRUST_DOMAIN, entry};
use nix::time::{ClockId, clock_gettime, clock_settime};

const ALICE: u32 = 1000;
const THREE_HOURS: i64 = 10_800;
const TWO_DAYS: i64 = 172_800;
/// What a device without a clock shows after it was switched on.
const NO_CLOCK: Option<&str> = Some("@2020-01-01 00:00:00");

/// A device whose identities are sealed to its TPM, of `server`; its agent is not started.
fn device(server: &ScriptedServer) -> Device {
    let device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    let options =
        AgentOptions { join_token: Some("token".to_owned()), trust_domain: TRUST_DOMAIN, ..AgentOptions::default() };
    device.provision_with_bundle(&server.bundle_pem(), server.address().port(), &options);
    device
}

fn serial(device: &Device) -> String {
    device.expect_identity(ALICE).leaves[0].serial_decimal()
}

/// The server signs anew for its entry, or would.
fn ask_anew(server: &ScriptedServer, revision: i64) {
    server.play(|script| script.entries = vec![entry("workload", "/workload", revision)]);
}

fn until(device: &Device, claim: &str, holds: impl FnMut() -> bool) {
    expect_within(DEADLINE, claim, || device.log(), holds);
}

#[test]
fn a_device_without_a_clock_comes_back_from_a_server_that_was_hours_ahead() {
    let mut server = ScriptedServer::start();
    server.play(|script| script.entries.push(entry("other", "/other", 1)));
    server.play(|script| script.reattestable = true);
    let mut device = device(&server);
    device.start_at(NO_CLOCK);
    until(&device, "both are served", || device.fetch(ALICE).is_ok_and(|fetched| fetched.ids.len() == 2));
    // One new identity while the server is ahead; the other one, held, is good for an hour.
    server.stop();
    server.play(|script| script.clock_error = THREE_HOURS);
    server.start_again();
    let batches = server.asked().batches;
    server.play(|script| script.entries[1].revision_number = 2);
    until(&device, "it signs", || server.asked().batches > batches);
    // To this machine's clock, which is right here, it is one that is behind.
    until(&device, "what was signed ahead is shown, with a warning", || {
        let shown = device.fetch_output(ALICE, &[]);
        let warned = String::from_utf8_lossy(&shown.stderr).contains("Warning: this machine's clock shows");
        shown.status.success() && warned
    });
    assert!(!device.log().contains("OtherError"), "{}", device.log());
    server.stop();
    server.play(|script| script.clock_error = 0);
    server.start_again();
    let valid_again = |device: &Device| {
        let fetched = device.fetch(ALICE);
        let begun = |leaf: &Certificate| leaf.not_before_unix() <= time::OffsetDateTime::now_utc().unix_timestamp();
        fetched.is_ok_and(|fetched| fetched.ids.len() == 2 && fetched.leaves.iter().all(begun))
    };
    until(&device, "what was signed ahead is replaced", || valid_again(&device));
    // Not for good either: after a restart, with and without a clock.
    for clock in [NO_CLOCK, None] {
        device.kill_agent();
        device.start_at(clock);
        until(&device, "it serves", || valid_again(&device));
        ask_anew(&server, 7);
        let syncs = server.asked().syncs;
        until(&device, "it is in sync", || server.asked().syncs > syncs);
        server.play(|script| script.entries.push(entry("other", "/other", 1)));
    }
}

#[test]
fn a_clock_restored_from_the_last_shutdown_costs_nothing() {
    let mut server = ScriptedServer::start();
    let mut device = device(&server);
    device.start();
    let before = serial(&device);
    device.expect_sealed(1);
    server.stop();
    device.power_cycle();
    device.start_at(Some("-2d"));
    assert_eq!(serial(&device), before, "offline, what is held is served");
    server.start_again();
    let syncs = server.asked().syncs;
    until(&device, "the server is believed", || server.asked().syncs > syncs);
    ask_anew(&server, 2);
    until(&device, "and what it signs is taken", || serial(&device) != before);
    let log = device.log();
    assert!(!log.contains("not valid yet") && !log.contains("NotYetValid"), "{log}");
    assert!(log.contains("this device's clock is not the server's"), "{log}");
    assert_eq!(server.asked().attestations, 1, "the token is good for one only");
}

#[test]
fn a_server_that_is_ahead_replaces_nothing_that_lasts_where_a_good_clock_disputes_it() {
    let server = ScriptedServer::start();
    let mut device = device(&server);
    device.start();
    let before = serial(&device);
    server.play(|script| script.clock_error = THREE_HOURS);
    ask_anew(&server, 2);
    device.expect_log("what is held lasts longer");
    assert_eq!(serial(&device), before);
    server.play(|script| script.clock_error = 0);
    ask_anew(&server, 3);
    until(&device, "a right server is followed again", || serial(&device) != before);
}

#[test]
fn a_server_behind_the_devices_clock_must_sign_afresh_and_is_then_believed() {
    let server = ScriptedServer::start();
    let mut device = device(&server);
    device.start_at(Some("+2d"));
    device.expect_log("asking the server for a fresh signature");
    serial(&device);
    let log = device.log();
    let told = log.lines().find(|line| line.contains("asking the server")).expect("told");
    assert!(
        told.contains("the server's certificate is valid from 20") && told.contains("this device's clock says 20"),
        "{told}"
    );
}

#[test]
fn a_stolen_certificate_that_has_ended_opens_no_door() {
    let server = ScriptedServer::start();
    server.play(|script| (script.stolen, script.clock_error) = (true, -TWO_DAYS));
    let mut device = device(&server);
    device.start();
    until(&device, "it tries again", || server.asked().attestations > 2);
    assert_eq!(server.asked().bundles, 0, "its bundle is not even asked for");
    assert!(device.fetch(ALICE).is_err());
    assert!(device.log().contains("signed by an authority that is not in the trust bundle"), "{}", device.log());
}

//= FLT-A4
#[test]
fn what_ended_while_the_agent_was_down_is_not_served() {
    let mut server = ScriptedServer::start();
    server.play(|script| script.svid_ttl = 4);
    let mut device = device(&server);
    device.start();
    serial(&device);
    device.expect_sealed(1);
    assert!(device.process().expect("started").terminate(), "{}", device.log());
    server.stop();
    let down = std::time::Instant::now();
    until(&device, "it ends", || down.elapsed() > Duration::from_secs(5));
    device.start_at(Some("-2d"));
    device.expect_log("identities restored from the sealed cache");
    let refusal = device.fetch(ALICE).expect_err("ended by elapsed time, whatever the clock says");
    assert!(refusal.contains("has expired"), "{refusal}");
}

/// Sets this machine's clock to what it shows, which moves it by what that takes. Needs root.
fn set_clock() {
    let shown = clock_gettime(ClockId::CLOCK_REALTIME).expect("read");
    clock_settime(ClockId::CLOCK_REALTIME, shown).expect("root with CAP_SYS_TIME may set the clock");
}

/// What the agent does then is tried in `sync::tests`: a machine that tests run on cannot be put to sleep.
#[test]
fn an_agent_is_told_by_the_kernel_that_the_clock_was_set_each_time() {
    let server = ScriptedServer::start();
    let mut device = device(&server);
    device.start();
    serial(&device);
    let told = |device: &Device| device.log().matches("the device's clock was set").count();
    for _ in 0..3 {
        let before = told(&device);
        set_clock();
        until(&device, "it is told", || told(&device) > before);
    }
    serial(&device);
}
