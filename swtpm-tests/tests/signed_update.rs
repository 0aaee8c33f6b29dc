//! A firmware update from the operator's signature to what workloads get offline: real binaries.

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::policy_operator::{P256, PolicyOperator};
use ironroot_software_tpm::BootLog;
use serde_json::Value;

const ALICE: u32 = 60_001;

/// What the three versions of a device's firmware measure.
fn firmware() -> [BootLog; 3] {
    let mut third = BootLog::booted(false, b"loader");
    third.measure(7, ironroot_software_tpm::kind::SEPARATOR, b"third");
    [BootLog::booted(true, b"loader"), BootLog::booted(false, b"loader"), third]
}

fn boot(device: &mut Device, log: &BootLog) {
    device.boot(log.extended(), log.bytes());
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

//= FLT-T6 TPM-45
#[test]
fn a_signed_update_keeps_identities_offline_and_after_another_one_the_server_gives_them_again() {
    let (mut server, operator) = (Server::start(&ServerOptions::default()), PolicyOperator::new(&P256));
    let maker = Manufacturer::new("Toy").expect("a maker");
    let mut device = Device::manufacture(&maker);
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    let policies = tempfile::tempdir().expect("directory");
    let agent_lines = format!(
        "offline_cache {{ policy_key_path = \"{}\"\npolicy_directory = \"{}\" }}",
        text(&operator.path("policy.pub")),
        text(policies.path())
    );
    let options = AgentOptions { agent_lines, ..device.measured() };
    device.provision(&server, &options);
    let [first, second, third] = firmware();
    boot(&mut device, &first);
    device.start();
    device.expect_identity(ALICE);
    device.expect_sealed(1);

    // The next version: its log is what a golden device has written.
    let (log, signed) = (operator.path("golden.log"), policies.path().join("second.json"));
    std::fs::write(&log, second.bytes()).expect("written");
    let said =
        operator.command(&signed, &["-eventLog", "golden.log", "-name", "second", "-epoch", "1", "-key", "policy.key"]);
    assert!(said.status.success(), "{said:?}");
    server.kill();
    boot(&mut device, &second);
    device.start();
    device.expect_identity(ALICE);
    device.expect_log("the device booted what the operator has signed");
    let sealed_twice = || device.log().matches("identities sealed").count() >= 2;
    expect_within(DEADLINE, "it is sealed anew", || device.log(), sealed_twice);
    std::fs::remove_file(&signed).expect("removed");
    boot(&mut device, &second);
    device.start();
    device.expect_identity(ALICE);

    // A version that nobody has signed: no identities until the server is asked again.
    boot(&mut device, &third);
    device.start();
    device.expect_log("did not boot as it did when the file was sealed");
    device.fetch(ALICE).expect_err("nothing offline");
    server.restart();
    device.expect_identity(ALICE);
    let sealed_again = || {
        let log = device.log();
        let refused = log.rfind("did not boot as it did").unwrap_or_default();
        log[refused..].contains("identities sealed")
    };
    expect_within(DEADLINE, "it is sealed to what booted", || device.log(), sealed_again);

    // The fleet learns it from this device, and the operator signs what was learned.
    server.cli(&["policy", "learn", "-device", "SN-1", "-name", "third"]);
    let learned = operator.path("third.json");
    std::fs::write(&learned, server.cli(&["policy", "show", "third", "-output", "json"])).expect("written");
    let signed = policies.path().join("third.json");
    let said =
        operator.command(&signed, &["-values", text(&learned), "-name", "third", "-epoch", "2", "-key", "policy.key"]);
    assert!(said.status.success(), "{said:?}");
    server.kill();
    boot(&mut device, &third);
    device.start();
    device.expect_identity(ALICE);
}

#[test]
fn a_policy_is_signed_by_a_key_elsewhere_and_what_is_no_state_or_no_key_is_refused() {
    let operator = PolicyOperator::new(&P256);
    let register = format!("7={}", "5a".repeat(32));
    let state = ["-name", "1.3", "-epoch", "2", "-pcr", &register];
    let run = |into: &str, more: &[&str]| operator.command(&operator.path(into), &[&state[..], more].concat());
    assert!(run("tbs", &["-toBeSigned"]).status.success());
    operator.openssl("dgst", &["-sha256", "-sign", "policy.key", "-out", "signature", "tbs"]);
    let said = run("a.json", &["-signature", "signature", "-publicKey", "policy.pub", "-output", "json"]);
    assert!(said.status.success(), "{said:?}");
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!((&said["registers"], &said["epoch"]), (&"sha256:7".into(), &2.into()));
    let read = operator
        .states(operator.path("").as_path())
        .read(ironroot_attest::node::tpm2::PcrHash::Sha256, "7".parse().expect("legal"));
    assert_eq!(read.good.len(), 1, "{read:?}");

    std::fs::write(operator.path("signature"), b"no signature").expect("written");
    let refused = |more: &[&str], said: &str| {
        let output = run("b.json", more);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{said}: {error}");
        assert!(!operator.path("b.json").exists());
    };
    refused(&["-signature", "signature", "-publicKey", "policy.pub"], "the signature is not one of the operator's key");
    refused(&["-key", "policy.pub"], "policy.pub");
    operator.openssl("genpkey", &["-algorithm", "X25519", "-out", "other.key"]);
    refused(&["-key", "other.key"], "no private key of P-256 or RSA");
    for (register, said) in [("7=5a", "PCR 7 must be 32 bytes"), ("16=00", "16 is not a PCR index")] {
        let arguments = ["-name", "1.3", "-epoch", "2", "-pcr", register, "-key", "policy.key"];
        let output = operator.command(&operator.path("b.json"), &arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(said), "{said}: {error}");
    }
}
