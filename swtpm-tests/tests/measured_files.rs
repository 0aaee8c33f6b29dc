//! What devices run, from the kernel's list (IMA) and the chip's PCR 10 to what their workloads get: real binaries, a chip in software.
//! The chip is extended, and the list written, as a kernel would do it.

use std::path::PathBuf;

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_software_tpm::{BootLog, ImaList};
use serde_json::Value;

const ALICE: u32 = 60_001;

/// A machine that booted and goes on measuring.
struct Machine {
    device: Device,
    list: ImaList,
    extended: usize,
}

impl Machine {
    /// Of the factory, enrolled and booted; its agent reads both lists.
    fn new(server: &Server) -> Self {
        let maker = Manufacturer::new("Toy").expect("a maker");
        let mut device = Device::manufacture(&maker);
        server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", device.ek_sha256()));
        let log = BootLog::booted(true, b"loader");
        device.boot(log.extended(), log.bytes());
        let list = ImaList::begun(log.pcrs());
        let mut machine = Self { device, list, extended: 0 };
        let measured = machine.device.measured();
        let tpm_lines = format!("{}\nima_log_path = \"{}\"", measured.tpm_lines, machine.list_path().display());
        machine.device.provision(server, &AgentOptions { tpm_lines, ..measured });
        machine.runs("/sbin/init", b"init");
        machine.runs("/bin/sh", b"a shell");
        machine
    }

    fn list_path(&self) -> PathBuf {
        self.device.data_directory().with_file_name("binary_runtime_measurements")
    }

    /// The kernel measures a file, before it is used.
    fn runs(&mut self, path: &str, content: &[u8]) {
        self.list.measure(path, content);
        std::fs::write(self.list_path(), self.list.bytes()).expect("written");
        self.extend();
    }

    fn extend(&mut self) {
        let new = &self.list.extended()[self.extended..];
        self.device.tpm().extend(new).expect("the chip is extended");
        self.extended = self.list.extended().len();
    }
}

fn server() -> Server {
    let tpm_lines = "ima_log = \"verified\"".into();
    Server::start(&ServerOptions { agent_ttl: "6s", tpm_lines, ..ServerOptions::default() })
}

/// Alice's entry on devices that run what the policy allows.
fn entries(server: &Server) {
    let parent = format!("spiffe://{TRUST_DOMAIN}/spire/server");
    server.create_entry(&parent, "/trusted", &["tpm2:ima:golden"], &[]);
    server.create_entry(&format!("spiffe://{TRUST_DOMAIN}/trusted"), "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
}

fn selectors(server: &Server) -> String {
    json(server, &["agent", "list"])["agents"].to_string()
}

fn expect_attested(server: &Server, device: &Device) {
    let attested = || json(server, &["agent", "list"])["agents"].as_array().is_some_and(|agents| !agents.is_empty());
    expect_within(DEADLINE, "the agent attests", || device.log() + &server.log(), attested);
}

//= TPM-49
#[test]
fn a_golden_device_teaches_its_files_and_a_program_that_is_not_among_them_takes_identities_away() {
    let server = server();
    let mut machine = Machine::new(&server);
    entries(&server);
    machine.device.start();
    expect_attested(&server, &machine.device);
    let list = machine.list_path();
    let list = list.to_str().expect("UTF-8");
    let learnt = server.cli(&["policy", "learn", "-device", "SN-1", "-name", "golden", "-imaList", list]);
    assert!(learnt.contains("tpm2:ima:golden") && learnt.contains("2 allowed"), "{learnt}");
    machine.device.expect_identity(ALICE);

    machine.runs("/tmp/evil", b"evil");
    let refused = || machine.device.fetch(ALICE).is_err_and(|said| said.contains("no identity issued"));
    expect_within(DEADLINE, "Alice gets nothing any more", || machine.device.log() + &server.log(), refused);
    let agents = selectors(&server);
    assert!(agents.contains("tpm2") && !agents.contains("ima:golden"), "{agents}");
    let shown = server.cli(&["device", "show", "SN-1"]);
    assert!(shown.contains(&format!("did not allow /tmp/evil {}", ImaList::digest_of(b"evil"))), "{shown}");
    assert_eq!(json(&server, &["device", "show", "SN-1"])["boots"].as_array().map(Vec::len), Some(1), "one boot");

    // An operator decides that it is good after all: from the policy, edited.
    let mut policy = json(&server, &["policy", "show", "golden"]);
    let evil = serde_json::json!({ "path": "/tmp/evil", "digest": ImaList::digest_of(b"evil") });
    policy["ima"]["allowed"].as_array_mut().expect("files").push(evil);
    let file = server.directory().join("policy.json");
    std::fs::write(&file, policy.to_string()).expect("written");
    server.cli(&["policy", "set", file.to_str().expect("UTF-8")]);
    machine.device.expect_identity(ALICE);
}

//= TPM-48
#[test]
fn a_list_that_hides_a_program_is_refused_one_that_is_away_costs_the_selectors_and_both_live() {
    let server = server();
    let mut machine = Machine::new(&server);
    let honest = machine.list.bytes().to_vec();
    machine.runs("/tmp/evil", b"evil");
    let whole = std::fs::read(machine.list_path()).expect("read");
    std::fs::write(machine.list_path(), honest).expect("written");
    machine.device.start();
    machine.device.expect_log("the list of measured files (IMA) is not acceptable");
    assert!(machine.device.process().expect("started").runs(), "the agent tries again");

    std::fs::remove_file(machine.list_path()).expect("removed");
    machine.device.start();
    expect_attested(&server, &machine.device);
    let shown = server.cli(&["device", "show", "SN-1"]);
    assert!(shown.contains("the device sent no list of the files"), "{shown}");
    std::fs::write(machine.list_path(), whole).expect("written");
    let proven = || server.cli(&["device", "show", "SN-1"]).contains("4 entries proven");
    expect_within(DEADLINE, "it shows the list again", || machine.device.log() + &server.log(), proven);
}

#[test]
fn a_list_that_grows_while_the_quote_is_made_is_proven_as_far_as_the_quote_goes() {
    let server = server();
    let mut machine = Machine::new(&server);
    // In the list already, and not yet in the chip: as when the quote came first.
    machine.list.measure("/bin/late", b"late");
    std::fs::write(machine.list_path(), machine.list.bytes()).expect("written");
    machine.device.start();
    expect_attested(&server, &machine.device);
    let proven = |server: &Server, entries: &str| server.cli(&["device", "show", "SN-1"]).contains(entries);
    assert!(proven(&server, "3 entries proven"), "{}", server.cli(&["device", "show", "SN-1"]));
    machine.extend();
    let shown = || proven(&server, "4 entries proven");
    expect_within(DEADLINE, "the next attestation goes on", || machine.device.log() + &server.log(), shown);
}
