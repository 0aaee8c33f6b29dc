//! Chips with known faults, from the quote to what an operator sees: real binaries. The lab's chips are IBM's software TPM by their
//! certificates, and every version of it is said to have a fault.

use ironroot_lab::deployment::{Admission, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use serde_json::Value;

/// A fault that the lab's chips are said to have.
const FAULT: &str = "weak_firmware_also = [\"IBM:0-65535:lab-fault\"]";

/// A device, known to the server by its key.
fn enrolled(server: &Server) -> Device {
    let device = Device::manufacture(&Manufacturer::new("Toy").expect("a maker"));
    server.import_devices(&format!("ek_sha256,serial\n{},SN-1\n", device.ek_sha256()));
    device.provision(server, &device.measured());
    device
}

fn agents(server: &Server) -> Value {
    let listed: Value = serde_json::from_str(&server.cli(&["agent", "list", "-output", "json"])).expect("JSON");
    listed["agents"].clone()
}

fn expect_attested(server: &Server, device: &Device) {
    let attested = || agents(server).as_array().is_some_and(|agents| !agents.is_empty());
    expect_within(DEADLINE, "the agent attests", || device.log() + &server.log(), attested);
}

//= TPM-40
#[test]
fn a_fault_is_a_selector_and_is_shown_with_the_device() {
    let server = Server::start(&ServerOptions { tpm_lines: FAULT.into(), ..Default::default() });
    let mut device = enrolled(&server);
    device.start();
    expect_attested(&server, &device);
    assert!(agents(&server).to_string().contains("weakness:lab-fault"), "{}", agents(&server));
    let shown = server.cli(&["device", "show", "SN-1"]);
    assert!(shown.contains("Known fault       : lab-fault") && shown.contains("TPM firmware      : "), "{shown}");
    let shown: Value = serde_json::from_str(&server.cli(&["device", "show", "SN-1", "-output", "json"])).expect("JSON");
    assert_eq!(shown["weaknesses"], serde_json::json!(["lab-fault"]), "{shown}");
}

//= TPM-40
#[test]
fn a_chip_with_a_known_fault_is_refused_where_the_server_says_so_and_no_other_is() {
    let refusing =
        |also: &str| ServerOptions { tpm_lines: format!("weak_firmware = \"refuse\"\n{also}"), ..Default::default() };
    let server = Server::start(&refusing(FAULT));
    let mut device = enrolled(&server);
    device.start();
    device.expect_log("has a chip with a known fault: lab-fault");
    assert_eq!(agents(&server).as_array().map(Vec::len), Some(0), "{}", agents(&server));
    assert!(device.process().expect("started").runs(), "the agent tries again");
    let server = Server::start(&refusing("weak_firmware_also = [\"IBM:0-1.0:lab-fault\", \"IFX:0-65535:lab-fault\"]"));
    let mut device = enrolled(&server);
    device.start();
    expect_attested(&server, &device);
    assert!(
        !agents(&server).to_string().contains("weakness:"),
        "its certificate was not verified, so nothing clears it"
    );
}

//= TPM-40
#[test]
fn a_chip_whose_maker_is_proven_is_said_to_have_no_known_fault_at_each_attestation() {
    let maker = Manufacturer::new("Trusted").expect("a maker");
    let admission = Admission::Manufacturer(maker.root_pem());
    let server = Server::start(&ServerOptions { admission, agent_ttl: "4s", ..Default::default() });
    let mut device = Device::manufacture(&maker);
    device.provision(&server, &device.measured());
    device.start();
    let attested_twice = || server.log().matches("agent attested").count() >= 2;
    expect_within(DEADLINE, "it attests, and attests again", || device.log() + &server.log(), attested_twice);
    assert!(agents(&server).to_string().contains("weakness:none"), "{}", agents(&server));
    let shown = server.cli(&["device", "show", device.ek_sha256()]);
    assert!(shown.contains("Manufacturer      : IBM") && !shown.contains("Known fault"), "{shown}");
}
