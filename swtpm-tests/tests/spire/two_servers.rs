//! Two servers of one trust domain that share no database, one of them SPIRE's: a device with a TPM attests at both with its certificate.

use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, TRUST_DOMAIN, expect_within};
use ironroot_lab::device_pki::{DeviceIdentity, DevicePki};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::spire::Times;
use ironroot_lab::traffic::Traffic;
use ironroot_lab::workload_client;
use tokio::runtime::Runtime;

use crate::deployment::{AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "10s" };
/// More than two lives of an SVID.
const AWAY: Duration = Duration::from_secs(25);

fn create_entry(server: &AnyServer, agent_id: &str, path: &str) {
    let (id, uid) = (format!("spiffe://{TRUST_DOMAIN}{path}"), format!("unix:uid:{}", nix::unistd::geteuid()));
    server.cli(Maker::Spire, &["entry", "create", "-parentID", agent_id, "-spiffeID", &id, "-selector", &uid]);
}

fn start(maker: &Manufacturer, identity: &DeviceIdentity, ours: &AnyServer, spires: &AnyServer) -> Device {
    let mut device = Device::manufacture(maker);
    let bundle = device.bundle_path().with_file_name("spire.pem");
    std::fs::write(&bundle, spires.cli(Maker::Spire, &["bundle", "show"])).expect("written");
    let agent_lines = format!(
        "server \"spire\" {{ server_address = \"127.0.0.1\" server_port = {} trust_bundle_path = \"{}\" }}",
        spires.port(),
        bundle.display()
    );
    let node_attestor = Some(identity.agent_block());
    let options = AgentOptions { node_attestor, agent_lines, ..AgentOptions::default() };
    device.provision_with_bundle(&ours.cli(Maker::Ironroot, &["bundle", "show"]), ours.port(), &options);
    device.start();
    device
}

fn paths(runtime: &Runtime, device: &Device) -> Vec<String> {
    let own = format!("spiffe://{TRUST_DOMAIN}");
    let fetched = runtime.block_on(workload_client::fetch(&device.socket()));
    fetched.map(|all| all.svids.iter().map(|svid| svid.spiffe_id.replace(&own, "")).collect()).unwrap_or_default()
}

fn expect_paths(runtime: &Runtime, device: &Device, wanted: &[&str]) {
    let claim = format!("this process is {wanted:?}");
    expect_within(DEADLINE, &claim, || device.log(), || paths(runtime, device) == wanted);
}

/// Away, up again, and known again to both devices; what is made for the first at the other server meanwhile is served.
fn goes_away(
    runtime: &Runtime,
    (away, other): (&mut AnyServer, &AnyServer),
    devices: [&Device; 2],
    path: &str,
    agent_id: &str,
) {
    let device = devices[0];
    let served = || paths(runtime, device);
    let back = |device: &Device| device.log().matches("in sync with the server again").count();
    let in_sync = devices.map(back);
    away.kill();
    let began = Instant::now();
    create_entry(other, agent_id, path);
    expect_within(DEADLINE, "a new entry is issued", || device.log(), || served().iter().any(|served| served == path));
    expect_within(DEADLINE + AWAY, "it is away for long", || device.log(), || began.elapsed() >= AWAY);
    // Both know that one.
    assert!(served().iter().any(|served| served == "/web"), "{:?}\n{}", served(), device.log());
    away.crash();
    let known = || devices.iter().zip(in_sync).all(|(device, before)| back(device) > before);
    // The longest pause of a back-off is a minute.
    expect_within(2 * DEADLINE, "it is known again", || device.log(), known);
}

#[test]
#[ignore = "needs SPIRE's binaries: IRONROOT_SPIRE_BIN"]
fn either_of_ours_and_spires_server_is_away_and_no_fetch_and_no_handshake_fails_and_a_ban_reaches_from_either() {
    let (runtime, pki) = (Runtime::new().expect("runtime"), DevicePki::new());
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let [mut ours, mut spires] =
        [Maker::Ironroot, Maker::Spire].map(|maker| AnyServer::start_with(maker, TIMES, &pki.server_block()));
    let identities = ["device-1", "device-2"].map(|name| pki.issue(name, &rcgen::PKCS_ECDSA_P256_SHA256));
    for (identity, server) in identities.iter().flat_map(|identity| [(identity, &ours), (identity, &spires)]) {
        create_entry(server, &identity.agent_id, "/web");
    }
    let [mut one, other] = [0, 1].map(|place| start(&maker, &identities[place], &ours, &spires));
    for device in [&one, &other] {
        expect_paths(&runtime, device, &["/web"]);
        let both = || device.log().matches("SVID rotated").count() >= 2;
        expect_within(DEADLINE, "both have signed", || device.log(), both);
    }
    let traffic = Traffic::between(one.socket(), other.socket());
    goes_away(&runtime, (&mut ours, &spires), [&one, &other], "/while-ours-is-away", &identities[0].agent_id);
    goes_away(&runtime, (&mut spires, &ours), [&one, &other], "/while-spires-is-away", &identities[0].agent_id);
    let (done, failed) = traffic.end();
    println!("{done} rounds of fetch, handshake, token and validation; {} failed", failed.len());
    assert!(failed.is_empty() && done > 50, "{failed:#?}\n{}", one.log());

    spires.kill();
    one.power_cycle();
    one.start();
    expect_within(
        DEADLINE,
        "it has what was sealed, of both",
        || one.log(),
        || paths(&runtime, &one).contains(&"/web".to_owned()),
    );
    spires.crash();

    spires.cli(Maker::Spire, &["agent", "ban", "-spiffeID", &identities[0].agent_id]);
    expect_within(DEADLINE, "SPIRE's ban withdraws all", || one.log(), || paths(&runtime, &one).is_empty());
    ours.cli(Maker::Ironroot, &["agent", "ban", "-spiffeID", &identities[1].agent_id]);
    expect_within(DEADLINE, "and ours", || other.log(), || paths(&runtime, &other).is_empty());
}
