//! A device boots, proves its TPM, and its workloads hold SVIDs, online and offline: real binaries, sockets and users.

use std::time::Instant;

use ironroot_lab::deployment::{
    Admission, AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;

const ALICE: u32 = 60_001;
const BOB: u32 = 60_002;
const STRANGER: u32 = 60_003;

struct Lab {
    maker: Manufacturer,
    server: Server,
    device: Device,
    parent: String,
}

/// A server, and one enrolled device with entries for Alice and Bob; its agent is not started.
fn lab(server: &ServerOptions, agent: &AgentOptions) -> Lab {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let device = Device::manufacture(&maker);
    let server = Server::start(server);
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-1,berlin\n", device.ek_sha256()));
    let parent = server.create_node_alias("/gateway", "site:berlin");
    server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    server.create_entry(&parent, "/bob", &[&format!("unix:uid:{BOB}")], &[]);
    device.provision(&server, agent);
    Lab { maker, server, device, parent }
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

//= TPM-19
#[test]
fn users_of_an_attested_device_get_their_own_svid_and_strangers_none() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    lab.device.start();
    let (alice, bob) = (lab.device.expect_identity(ALICE), lab.device.expect_identity(BOB));
    assert_eq!((alice.ids, bob.ids), (vec![id("/alice")], vec![id("/bob")]));
    let refused = lab.device.fetch(STRANGER).expect_err("no entry, no identity");
    assert!(refused.contains("PermissionDenied") || refused.contains("no identity"), "{refused}");
    let agent = lab.server.cli(&["agent", "show", "-spiffeID", &lab.device.agent_id()]);
    for selector in ["tpm2:key:resident", "tpm2:label:site:berlin", "tpm2:serial:SN-1", "tpm2:pcr:sha256:7:"] {
        assert!(agent.contains(selector), "{selector} in {agent}");
    }
    for line in ["AttestAgent", "BatchNewX509SVID", "ImportDevices", "BatchCreateEntry"] {
        assert!(lab.server.log().contains(line), "no audit line for {line}");
    }
}

#[test]
fn a_label_change_takes_effect_at_the_next_sync_without_another_attestation() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    let rome = lab.server.create_node_alias("/rome", "site:rome");
    lab.server.create_entry(&rome, "/carol", &[&format!("unix:uid:{STRANGER}")], &[]);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let attestations = |server: &Server| server.log().matches("AttestAgent").count();
    let before = attestations(&lab.server);
    lab.server.import_devices(&format!("ek_sha256,label:site\n{},rome\n", lab.device.ek_sha256()));
    assert_eq!(lab.device.expect_identity(STRANGER).ids, [id("/carol")]);
    let gone = || lab.device.fetch(ALICE).is_err();
    expect_within(DEADLINE, "an identity of the old site is gone", || lab.device.log(), gone);
    let agent = lab.server.cli(&["agent", "show", "-spiffeID", &lab.device.agent_id()]);
    assert!(agent.contains("tpm2:label:site:rome") && agent.contains("tpm2:serial:SN-1"), "{agent}");
    assert!(!agent.contains("berlin"), "{agent}");
    assert_eq!(attestations(&lab.server), before);
}

#[test]
fn an_agent_keeps_no_capability_that_it_has_no_use_for() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let pid = lab.device.process().expect("started").pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let held = |set: &str| {
        let line = status.lines().find(|line| line.starts_with(set)).expect("the set is listed");
        u64::from_str_radix(line.split_whitespace().nth(1).expect("a number"), 16).expect("hexadecimal")
    };
    let dac_override = 1 << 1;
    assert_eq!(held("CapEff:") & !dac_override, 0, "{status}");
    assert_eq!(held("CapPrm:") & !dac_override, 0, "{status}");
}

#[test]
fn an_entry_without_prefetch_is_signed_when_a_workload_first_asks_and_kept_over_a_reboot() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    let uid = format!("unix:uid:{STRANGER}");
    lab.server.create_entry(&lab.parent, "/rare", &[&uid], &["-disableX509SVIDPrefetch"]);
    lab.device.start();
    lab.device.expect_identity(ALICE);
    let signed = |server: &Server| {
        server.log().lines().any(|line| line.contains("BatchNewX509SVID") && line.contains("/rare serial"))
    };
    lab.device.expect_sealed(2);
    assert!(!signed(&lab.server), "{}", lab.server.log());
    assert_eq!(lab.device.fetch(STRANGER).expect("served at the first try").ids, [id("/rare")]);
    assert!(signed(&lab.server), "{}", lab.server.log());
    lab.device.expect_sealed(3);
    lab.server.kill();
    lab.device.power_cycle();
    lab.device.start();
    assert_eq!(lab.device.expect_identity(STRANGER).ids, [id("/rare")]);
}

//= FLT-A4
#[test]
fn reboot_without_a_server_serves_the_same_svids_from_the_sealed_cache() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    lab.device.start();
    let before = lab.device.expect_identity(ALICE).leaves[0].serial_decimal();
    lab.device.expect_sealed(2);
    lab.server.kill();
    lab.device.power_cycle();
    assert!(lab.device.fetch(ALICE).is_err(), "nothing serves while the agent is down");
    lab.device.start();
    let again = lab.device.expect_identity(ALICE);
    assert_eq!((again.ids, again.leaves[0].serial_decimal()), (vec![id("/alice")], before));
    assert!(lab.device.fetch(STRANGER).is_err());
    lab.server.restart();
    lab.server.create_entry(&lab.parent, "/carol", &[&format!("unix:uid:{STRANGER}")], &[]);
    assert_eq!(lab.device.expect_identity(STRANGER).ids, [id("/carol")]);
}

//= TPM-16
#[test]
fn a_device_that_is_not_enrolled_gets_nothing_and_its_agent_lives() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions::default());
    device.provision(&server, &AgentOptions::default());
    device.start();
    device.expect_log("not enrolled");
    assert!(device.process().expect("started").runs());
    assert!(device.fetch(ALICE).is_err());
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    assert_eq!(device.expect_identity(ALICE).ids, [id("/alice")]);
}

//= TPM-01
#[test]
fn a_manufacturers_word_admits_its_devices_and_no_others() {
    let (trusted, other) = (Manufacturer::new("Trusted").expect("maker"), Manufacturer::new("Other").expect("maker"));
    let options = ServerOptions { admission: Admission::Manufacturer(trusted.root_pem()), ..Default::default() };
    let server = Server::start(&options);
    let (mut ours, mut theirs) = (Device::manufacture(&trusted), Device::manufacture(&other));
    for device in [&mut ours, &mut theirs] {
        server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
        device.provision(&server, &AgentOptions::default());
        device.start();
    }
    assert_eq!(ours.expect_identity(ALICE).ids, [id("/alice")]);
    theirs.expect_log("failed to attest");
    assert!(theirs.fetch(ALICE).is_err());
}

#[test]
fn approval_admits_what_an_operator_has_looked_at() {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let server = Server::start(&ServerOptions { admission: Admission::Approval, ..Default::default() });
    let mut device = Device::manufacture(&maker);
    server.create_entry(&device.agent_id(), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
    device.provision(&server, &AgentOptions::default());
    device.start();
    let listed = || server.cli(&["device", "list"]).contains(device.ek_sha256());
    expect_within(DEADLINE, "the device waits for approval", || server.log(), listed);
    assert!(device.fetch(ALICE).is_err());
    server.cli(&["device", "approve", device.ek_sha256()]);
    assert_eq!(device.expect_identity(ALICE).ids, [id("/alice")]);
}

//= FLT-A22
#[test]
fn a_banned_device_stops_serving_and_wipes_its_cache() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.device.expect_sealed(2);
    let health = || {
        let mut command = lab.device.command_as(STRANGER, "ironroot-agent");
        command.args(["healthcheck", "-socketPath"]).arg(lab.device.socket()).output().expect("it starts")
    };
    assert!(health().status.success(), "who has no identity finds it healthy");
    lab.server.cli(&["device", "ban", lab.device.ek_sha256()]);
    let gone = || lab.device.fetch(ALICE).is_err();
    expect_within(DEADLINE, "a banned device serves nothing", || lab.device.log(), gone);
    let says = || String::from_utf8_lossy(&health().stderr).contains("its server has banned or evicted it");
    expect_within(DEADLINE, "and is not healthy", || lab.device.log(), says);
    // What is served goes first, what is kept a few commands of the chip later.
    let cache = lab.device.data_directory().join("identities.sealed");
    expect_within(DEADLINE, "nothing is kept", || lab.device.log(), || !cache.exists());
    lab.device.power_cycle();
    lab.server.kill();
    lab.device.start();
    let answers = || lab.device.fetch_output(ALICE, &[]).status.code().is_some() && lab.device.socket().exists();
    expect_within(DEADLINE, "the agent is up again", || lab.device.log(), answers);
    assert!(lab.device.fetch(ALICE).is_err(), "the cache must be gone");
}

//= WLA-14
#[test]
fn a_deleted_entry_ends_the_identity() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    let entry = lab.server.create_entry(&lab.parent, "/carol", &[&format!("unix:uid:{STRANGER}")], &[]);
    lab.device.start();
    assert_eq!(lab.device.expect_identity(STRANGER).ids, [id("/carol")]);
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    let gone = || lab.device.fetch(STRANGER).is_err();
    expect_within(DEADLINE, "a deleted entry's identity is gone", || lab.device.log(), gone);
}

//= TPM-19 FLT-T5
#[test]
fn a_copied_cache_yields_nothing_on_another_device() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    lab.device.start();
    lab.device.expect_identity(ALICE);
    lab.device.expect_sealed(2);
    lab.server.kill();
    let mut thief = Device::manufacture(&lab.maker);
    let bundle = std::fs::read_to_string(lab.device.bundle_path()).expect("bundle");
    thief.provision_with_bundle(&bundle, lab.server.port(), &AgentOptions::default());
    std::fs::create_dir_all(thief.data_directory()).expect("directory");
    for file in std::fs::read_dir(lab.device.data_directory()).expect("data directory") {
        let file = file.expect("entry");
        if file.file_type().expect("type").is_file() {
            std::fs::copy(file.path(), thief.data_directory().join(file.file_name())).expect("copied");
        }
    }
    thief.start();
    thief.expect_log("the sealed cache is refused");
    assert!(thief.fetch(ALICE).is_err());
}

//= FLT-A1
#[test]
fn agent_survives_a_hundred_kills_with_a_client_attached() {
    let mut lab = lab(&ServerOptions::default(), &AgentOptions::default());
    let own = nix::unistd::geteuid().as_raw();
    lab.server.create_entry(&lab.parent, "/probe", &[&format!("unix:uid:{own}")], &[]);
    lab.device.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let (first, _) =
        runtime.block_on(workload_client::first_svid(&lab.device.socket(), Instant::now(), DEADLINE)).expect("served");
    lab.device.expect_sealed(3);
    lab.server.kill();
    for round in 0..100 {
        let socket = lab.device.socket();
        let mut attached = runtime.block_on(workload_client::client(&socket)).ok();
        lab.device.kill_agent();
        lab.device.start();
        let served = runtime.block_on(workload_client::first_svid(&socket, Instant::now(), DEADLINE));
        let (response, _) = served.unwrap_or_else(|status| panic!("round {round}: {status}\n{}", lab.device.log()));
        assert_eq!(response.svids, first.svids, "round {round}: the same SVIDs after each restart");
        drop(attached.take());
    }
}
