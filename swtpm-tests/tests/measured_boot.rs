//! What devices boot, from the firmware's measurements in the chip to what their workloads get: real binaries. Registers are
//! extended, and logs written, as the firmware of a machine would do it.

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::manufacturer::{EkKind, Manufacturer, ek_sha256_of};
use ironroot_lab::swtpm::Swtpm;
use ironroot_software_tpm::{BootLog, kind};
use ironroot_text::hex::hex;
use serde_json::Value;

const ALICE: u32 = 60_001;
const GOLDEN_BOOT: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const LATER_BOOT: &str = "aaaaaaaa-0000-0000-0000-000000000002";

fn good() -> BootLog {
    BootLog::booted(true, b"loader")
}

fn insecure() -> BootLog {
    BootLog::booted(false, b"loader")
}

fn boot(device: &mut Device, log: &BootLog) {
    device.boot(log.extended(), log.bytes());
}

/// A device of the factory, enrolled, with an agent that reads the firmware's log.
fn device(server: &Server, serial: &str) -> Device {
    let maker = Manufacturer::new("Toy").expect("a maker");
    let device = Device::manufacture(&maker);
    server.import_devices(&format!("ek_sha256,serial\n{},{serial}\n", device.ek_sha256()));
    device.provision(server, &device.measured());
    device
}

/// Alice's entry on devices that meet the policy.
fn entries(server: &Server) {
    let parent = format!("spiffe://{TRUST_DOMAIN}/spire/server");
    server.create_entry(&parent, "/trusted", &["tpm2:policy:golden"], &[]);
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/trusted"), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
}

fn expect_attested(server: &Server, device: &Device) {
    let attested = || json(server, &["agent", "list"])["agents"].as_array().is_some_and(|agents| !agents.is_empty());
    expect_within(DEADLINE, "the agent attests", || device.log() + &server.log(), attested);
}

fn selectors(server: &Server) -> String {
    json(server, &["agent", "list"])["agents"].to_string()
}

fn expect_no_identity(device: &Device) {
    let refused = || device.fetch(ALICE).is_err_and(|said| said.contains("no identity issued"));
    expect_within(DEADLINE, "Alice gets nothing any more", || device.log(), refused);
}

//= TPM-44
#[test]
fn a_golden_device_teaches_the_policy_and_a_reboot_without_secure_boot_takes_identities_away() {
    let server = Server::start(&ServerOptions::default());
    let mut device = device(&server, "SN-1");
    entries(&server);
    boot(&mut device, &good());
    device.start_in_boot(GOLDEN_BOOT);
    expect_attested(&server, &device);
    let attested = selectors(&server);
    for selector in ["secureboot:on", "debug:off", "secureboot:dbx:sha256:", "pcr:sha256:7:"] {
        assert!(attested.contains(selector), "{selector} in {attested}");
    }
    assert!(device.fetch(ALICE).is_err(), "there is no policy yet");

    let learnt = server.cli(&["policy", "learn", "-device", "SN-1", "-name", "golden", "-note", "from the factory"]);
    assert!(learnt.contains("tpm2:policy:golden") && learnt.contains("from the factory"), "{learnt}");
    device.expect_identity(ALICE);
    device.expect_sealed(1);

    // A certificate of before is still good for most of an hour; the boot is proven anew all the same.
    boot(&mut device, &insecure());
    device.start_in_boot(LATER_BOOT);
    expect_no_identity(&device);
    let agents = selectors(&server);
    assert!(agents.contains("secureboot:off") && !agents.contains("policy:golden"), "{agents}");
    let shown = server.cli(&["device", "show", "SN-1"]);
    assert!(shown.contains("Changed         : PCR 7: Secure Boot was on, is off"), "{shown}");
    let shown = json(&server, &["device", "show", "SN-1"]);
    assert_eq!(shown["boots"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(shown["boots"][0]["secure_boot"]["enabled"], false, "{shown}");
    let listed = &json(&server, &["device", "list"])["devices"][0];
    assert_eq!(listed["booted_otherwise"], true, "{listed}");
    assert_eq!(listed["boot_changed_at"], shown["boots"][0]["first_at"], "{listed}");

    boot(&mut device, &good());
    device.start_in_boot(GOLDEN_BOOT);
    device.expect_identity(ALICE);
}

/// The device's first boot, from which a policy is made that gives its workload an identity.
fn learn_golden(server: &Server, device: &mut Device) {
    entries(server);
    boot(device, &good());
    device.start_in_boot(GOLDEN_BOOT);
    expect_attested(server, device);
    server.cli(&["policy", "learn", "-device", "SN-1", "-name", "golden"]);
    device.expect_identity(ALICE);
}

//= TPM-44
#[test]
fn a_device_that_attests_without_a_quote_has_no_identities_of_what_it_quoted_before() {
    let plugins = "NodeAttestor \"tpm\" { plugin_data { } }".to_owned();
    let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
    // `tpm` knows this endorsement key of a chip alone.
    let chip = Swtpm::start().expect("swtpm starts");
    let ek_sha256 = hex(&ek_sha256_of(&chip, EkKind::Rsa2048).expect("read"));
    let mut device = Device::with_chip(chip, ek_sha256);
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", device.ek_sha256()));
    let mut options = device.measured();
    options.tpm_lines += "\nek = \"rsa2048\"";
    device.provision(&server, &options);
    learn_golden(&server, &mut device);

    // Booted badly it shows its key alone, as another agent of the same chip.
    boot(&mut device, &insecure());
    std::fs::remove_dir_all(device.data_directory()).expect("the agent is new");
    let chip = device.tpm().address();
    let node_attestor = Some(format!("NodeAttestor \"tpm\" {{ plugin_data {{ tpm_device_path = \"{chip}\" }} }}"));
    device.provision(&server, &AgentOptions { node_attestor, key_manager: "memory", ..AgentOptions::default() });
    device.start_in_boot(LATER_BOOT);
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{}", device.ek_sha256());
    let attested = || server.log().contains(&id);
    expect_within(DEADLINE, "the agent attests", || device.log() + &server.log(), attested);
    let agent = json(&server, &["agent", "show", "-spiffeID", &id]).to_string();
    assert!(agent.contains("serial:SN-1"), "{agent}");
    assert!(!agent.contains("policy:golden"), "{agent}");
    expect_no_identity(&device);
}

//= TPM-44
#[test]
fn a_reboot_that_measures_the_same_is_proven_anew_and_a_restart_of_the_agent_is_not() {
    let server = Server::start(&ServerOptions::default());
    let mut device = device(&server, "SN-1");
    learn_golden(&server, &mut device);
    device.expect_sealed(1);
    let attestations = || server.log().matches("agent attested").count();

    // The agent alone: the chip has not been reset, and the kernel names the same boot.
    let before = device.log().matches("agent certificate restored").count();
    device.kill_agent();
    device.start_in_boot(GOLDEN_BOOT);
    let restored = || device.log().matches("agent certificate restored").count() > before;
    expect_within(DEADLINE, "the agent is back with what it had", || device.log(), restored);
    device.expect_identity(ALICE);
    assert_eq!(attestations(), 1, "{}", server.log());

    // The machine: its registers have the values of before, so the cache opens and its certificate is good.
    boot(&mut device, &good());
    device.start_in_boot(LATER_BOOT);
    expect_within(DEADLINE, "the boot is proven anew", || device.log() + &server.log(), || attestations() == 2);
    device.expect_identity(ALICE);
}

//= TPM-44
#[test]
fn a_policy_that_is_changed_or_deleted_takes_identities_away_without_a_new_attestation() {
    let server = Server::start(&ServerOptions::default());
    let mut device = device(&server, "SN-1");
    entries(&server);
    boot(&mut device, &good());
    device.start();
    expect_attested(&server, &device);
    server.cli(&["policy", "learn", "-device", "SN-1", "-name", "golden", "-pcrs", "0,4,7"]);
    device.expect_identity(ALICE);
    let policy = json(&server, &["policy", "show", "golden"]);
    assert_eq!(policy["alternatives"][0]["pcrs"].as_object().map(|pcrs| pcrs.len()), Some(3), "{policy}");

    let mut other = policy.clone();
    other["alternatives"][0]["pcrs"]["4"] = "ab".repeat(32).into();
    let file = server.directory().join("policy.json");
    std::fs::write(&file, other.to_string()).expect("written");
    let file = file.to_str().expect("UTF-8");
    server.cli(&["policy", "set", file]);
    expect_no_identity(&device);
    std::fs::write(file, policy.to_string()).expect("written");
    server.cli(&["policy", "set", file]);
    device.expect_identity(ALICE);
    assert!(server.cli(&["policy", "list"]).contains("Found 1 policy"));
    server.cli(&["policy", "delete", "golden"]);
    expect_no_identity(&device);
    assert_eq!(server.log().matches("agent attested").count(), 1, "{}", server.log());
}

//= TPM-43 TPM-31
#[test]
fn logs_that_lie_are_cut_off_or_of_another_version_are_refused_and_agent_and_server_live() {
    let server = Server::start(&ServerOptions::default());
    let mut device = device(&server, "SN-1");
    boot(&mut device, &insecure());
    let lie = good().bytes().to_vec();
    let honest = insecure().bytes().to_vec();
    let cut = honest[..honest.len() - 3].to_vec();
    let mut newer = honest.clone();
    newer[46] = b'9';
    let mut long = insecure();
    long.event(4, kind::SEPARATOR, [1; 32], &vec![0; 100_000]);
    for (log, said) in [
        (lie, "gives another PCR 7 than the chip quotes"),
        (cut, "it is truncated in event"),
        (newer, "names no specification"),
        (long.bytes().to_vec(), "gives another PCR 4 than the chip quotes"),
    ] {
        std::fs::write(device.boot_log_path(), log).expect("written");
        device.start();
        let told = || device.log().contains(said);
        expect_within(DEADLINE, said, || device.log() + &server.log(), told);
        assert!(device.process().expect("started").runs(), "the agent tries again");
    }
    assert!(server.log().contains("the boot log is not acceptable"), "{}", server.log());
    std::fs::write(device.boot_log_path(), honest).expect("written");
    device.start();
    expect_attested(&server, &device);
    assert!(selectors(&server).contains("secureboot:off"), "{}", selectors(&server));
}

#[test]
fn a_device_without_a_log_or_with_one_beyond_all_bounds_attests_without_it_and_says_so_once() {
    let server = Server::start(&ServerOptions { agent_ttl: "4s", ..ServerOptions::default() });
    let mut device = device(&server, "SN-1");
    for (log, said) in [(None, "there is no boot log to send"), (Some(vec![0; 300_000]), "the boot log cannot be read")]
    {
        boot(&mut device, &good());
        match log {
            None => std::fs::remove_file(device.boot_log_path()).expect("removed"),
            Some(bytes) => std::fs::write(device.boot_log_path(), bytes).expect("written"),
        }
        let before = server.log().matches("agent attested").count();
        device.start();
        let again = || server.log().matches("agent attested").count() >= before + 2;
        expect_within(DEADLINE, "it attests, and attests again", || device.log() + &server.log(), again);
        assert_eq!(device.log().matches(said).count(), 1, "{}", device.log());
        let attested = selectors(&server);
        assert!(attested.contains("pcr:sha256:7:") && !attested.contains("secureboot"), "{attested}");
    }
    let shown = server.cli(&["device", "show", "SN-1"]);
    assert!(shown.contains("Boot log        : the device sent no boot log"), "{shown}");
}

//= TPM-44
#[test]
fn where_policies_are_enforced_a_device_that_meets_none_is_refused_until_it_boots_what_is_allowed() {
    let server = Server::start(&ServerOptions { tpm_lines: "boot_policy = \"enforce\"".into(), ..Default::default() });
    let mut device = device(&server, "SN-1");
    let parent = device.agent_id();
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    boot(&mut device, &good());
    device.start_in_boot(GOLDEN_BOOT);
    device.expect_log("has booted what no policy allows");
    server.cli(&["policy", "learn", "-device", "SN-1", "-name", "golden"]);
    device.expect_identity(ALICE);
    device.expect_sealed(1);

    boot(&mut device, &insecure());
    device.start_in_boot(LATER_BOOT);
    let forgotten = || json(&server, &["agent", "list"])["agents"].as_array().is_some_and(Vec::is_empty);
    expect_within(DEADLINE, "its agent is forgotten", || device.log() + &server.log(), forgotten);
    assert!(device.fetch(ALICE).is_err(), "nothing is served");
    assert!(server.cli(&["device", "show", "SN-1"]).contains("Secure Boot was on, is off"));
    boot(&mut device, &good());
    device.start_in_boot(GOLDEN_BOOT);
    device.expect_identity(ALICE);
}
