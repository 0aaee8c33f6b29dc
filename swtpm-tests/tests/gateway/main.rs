//! Gateway mode: an agent with a CA of its own signs for its workloads while its server is away, and says so afterwards. Real binaries, a
//! software TPM, and peers that know the trust bundle alone.

mod bounds;
mod kept;
mod key_kinds;
mod tokens;

use std::path::Path;

use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::csr::{KeyKind, Spki};
use ironroot_api::tls::TrustAnchors;
use ironroot_lab::deployment::{
    AgentOptions, DEADLINE, Device, Fetched, Server, ServerOptions, TRUST_DOMAIN, expect_within, wait_for,
};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::softhsm::SoftHsm;
use webpki::KeyUsage;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};

const ALICE: u32 = 60_001;
const BOB: u32 = 60_002;
/// `-x509SVIDTTL` of the workloads' entries, seconds: soon over, and long enough for a busy machine.
const TTL: &str = "15";
const OWN_CA: &str = "ironroot:local_authority";

struct Lab {
    server: Server,
    device: Device,
    parent: String,
}

/// A server, and a device whose agent is to have a CA of its own by these lines; it is not started. Alice is the device's workload, and
/// Bob one whose SVID nobody has asked for yet.
fn lab(local_authority: &str, own_ca: Option<&[&str]>) -> Lab {
    lab_on(ServerOptions::default(), Device::manufacture, AgentOptions::default(), local_authority, own_ca)
}

fn lab_on(
    server: ServerOptions,
    device: impl FnOnce(&Manufacturer) -> Device,
    agent: AgentOptions,
    local_authority: &str,
    own_ca: Option<&[&str]>,
) -> Lab {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let (server, device) = (Server::start(&server), device(&maker));
    server.import_devices(&format!("ek_sha256,serial,label:site\n{},SN-1,berlin\n", device.ek_sha256()));
    let parent = server.create_node_alias("/gateway", "site:berlin");
    let lasts = ["-x509SVIDTTL", TTL];
    server.create_entry(
        &parent,
        "/alice",
        &[&format!("unix:uid:{ALICE}")],
        &[&lasts[..], &["-dns", "alice.example"]].concat(),
    );
    let asked = [&lasts[..], &["-disableX509SVIDPrefetch"]].concat();
    server.create_entry(&parent, "/bob", &[&format!("unix:uid:{BOB}")], &asked);
    if let Some(flags) = own_ca {
        server.create_entry(&parent, "/gateway-ca", &[OWN_CA], flags);
    }
    let admin = format!("admin_socket_path = \"{}\"", device.admin_socket().display());
    let agent_lines = format!("{admin}\n{}\nlocal_authority {{ {local_authority} }}", agent.agent_lines);
    device.provision(&server, &AgentOptions { agent_lines, ..agent });
    Lab { server, device, parent }
}

/// Further flags of the entry that is the agent's own.
const DOWNSTREAM: Option<&[&str]> = Some(&["-downstream"]);

impl Lab {
    fn expect_ca(&self) {
        self.device.expect_log("has a CA of its own");
    }

    /// What Alice is served once it is another SVID than `before`, verified as a peer does.
    fn expect_another(&self, before: &Fetched) -> Fetched {
        let old = before.leaves[0].serial_decimal();
        let another = || self.device.fetch(ALICE).ok().filter(|fetched| fetched.leaves[0].serial_decimal() != old);
        let now =
            wait_for(DEADLINE, another).unwrap_or_else(|| panic!("Alice has what she had\n{}", self.device.log()));
        verify(&now);
        now
    }

    fn own_serials(&self) -> usize {
        self.device.log().matches("own CA has signed an SVID").count()
    }
}

fn pem(path: &Path) -> Vec<Certificate> {
    Certificate::parse_pem(&std::fs::read_to_string(path).expect("written")).expect("certificates")
}

/// The chain that was served first, leaf first.
fn chain(fetched: &Fetched) -> Vec<Certificate> {
    pem(&fetched.directory.join("svid.0.pem"))
}

/// As a peer that has the trust bundle and nothing else; the ID that it sees.
fn verify(fetched: &Fetched) -> String {
    let (chain, bundle) = (chain(fetched), pem(&fetched.directory.join("bundle.0.pem")));
    let bundle: Vec<_> = bundle.iter().map(|authority| authority.der().clone()).collect();
    let anchors = TrustAnchors::new(TrustDomain::new(TRUST_DOMAIN).expect("legal"), &bundle).expect("authorities");
    let others: Vec<_> = chain[1..].iter().map(|certificate| certificate.der().clone()).collect();
    let now = ironroot_agent::trusted_time::system_unix();
    let verified = anchors.verify_parsed(&chain[0], &others, KeyUsage::client_auth(), now).expect("a peer takes it");
    verified.spiffe_id().to_string()
}

/// Whether the agent itself has signed it: there is a CA that may have no other below it.
fn own_ca(fetched: &Fetched) -> Option<Certificate> {
    let path_length = |certificate: &Certificate| {
        let constraints = certificate.inner().tbs_certificate().get_extension::<BasicConstraints>().expect("parses");
        constraints.and_then(|(_, constraints)| constraints.path_len_constraint)
    };
    chain(fetched).into_iter().find(|certificate| path_length(certificate) == Some(0))
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// The server is away, and what was signed by the server runs out.
fn goes_on_by_itself(lab: &mut Lab) -> Fetched {
    let before = lab.device.expect_identity(ALICE);
    lab.expect_ca();
    assert!(own_ca(&before).is_none(), "the server has signed it");
    lab.server.kill();
    let own = lab.expect_another(&before);
    assert!(own_ca(&own).is_some(), "{}", lab.device.log());
    assert_eq!(verify(&own), id("/alice"));
    own
}

#[test]
fn a_workload_is_renewed_by_the_agents_own_ca_while_the_server_is_away_and_the_server_hears_of_it() {
    let mut lab = lab("", DOWNSTREAM);
    lab.device.start();
    let own = goes_on_by_itself(&mut lab);
    let leaf = &own.leaves[0];
    let names =
        leaf.inner().tbs_certificate().get_extension::<SubjectAltName>().expect("parses").expect("there are some");
    let is_alice = |name: &GeneralName| matches!(name, GeneralName::DnsName(name) if name.as_str() == "alice.example");
    assert!(names.1.0.iter().any(is_alice), "names are the entry's: {names:?}");
    let life = leaf.not_after_unix() - leaf.not_before_unix();
    assert!(life <= 15 + 10, "so is the life: {life} s");
    assert_eq!(lab.device.fetch(BOB).map(|bob| verify(&bob)), Ok(id("/bob")), "nobody had asked for his before");
    let again = lab.expect_another(&own);
    assert!(own_ca(&again).is_some());

    let serials = [leaf.serial_decimal(), again.leaves[0].serial_decimal()];
    lab.server.restart();
    lab.device.expect_log("the server knows what this agent has signed");
    for serial in &serials {
        let line = |line: &str| line.contains("ReportIssued") && line.contains(serial) && line.contains("/alice");
        assert!(lab.server.log().lines().any(line), "{serial} in {}", lab.server.log());
    }
    let config = lab.server.config_path();
    let kept = lab.server.cli(&["log", "show", "-last", "100", "-config", config.to_str().expect("UTF-8")]);
    assert!(kept.contains("ReportIssued") && kept.contains(&serials[0]), "{kept}");
    let journal = lab.device.data_directory().join("local-authority/issued.json");
    assert!(!journal.exists(), "nothing is left to report");
    let mut last = again;
    while own_ca(&last).is_some() {
        last = lab.expect_another(&last);
    }
    let before = lab.own_serials();
    lab.expect_another(&last);
    assert_eq!(lab.own_serials(), before, "the server signs again");
}

#[test]
fn a_device_that_is_rebooted_without_its_server_has_its_ca_from_the_chip_again() {
    let mut lab = lab("", DOWNSTREAM);
    lab.device.start();
    let own = goes_on_by_itself(&mut lab);
    assert!(lab.device.process().expect("it runs").terminate(), "{}", lab.device.log());
    lab.device.power_cycle();
    lab.device.start();
    lab.device.expect_log("own CA is taken up again");
    let after = lab.expect_another(&own);
    let serial = |fetched: &Fetched| own_ca(fetched).expect("the agent's own").serial_decimal();
    assert_eq!(serial(&after), serial(&own), "the same CA");
    lab.server.restart();
    let told = || lab.server.log().contains(&own.leaves[0].serial_decimal());
    expect_within(DEADLINE, "what was signed before the reboot is reported too", || lab.device.log(), told);
}

#[test]
fn an_agent_with_its_keys_in_a_token_has_its_ca_there() {
    let token = SoftHsm::new();
    let agent = AgentOptions { key_manager_block: Some(token.key_manager()), ..AgentOptions::default() };
    let device = |maker: &Manufacturer| Device::manufacture(maker).with_token(&token);
    let server = ServerOptions { require_resident_key: false, ..ServerOptions::default() };
    let mut lab = lab_on(server, device, agent, "", DOWNSTREAM);
    lab.device.start();
    goes_on_by_itself(&mut lab);
}

#[test]
fn an_agent_with_its_keys_on_disk_has_its_ca_there() {
    let agent = AgentOptions { key_manager: "disk", ..AgentOptions::default() };
    let server = ServerOptions { require_resident_key: false, ..ServerOptions::default() };
    let mut lab = lab_on(server, Device::manufacture, agent, "", DOWNSTREAM);
    lab.device.start();
    goes_on_by_itself(&mut lab);
    assert!(lab.device.data_directory().join("local-authority/keys.json").exists());
}
