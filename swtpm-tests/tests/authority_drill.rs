//! The drill: a CA's key is in other hands. Real agents, each with its chip, and workloads on each; how long until nobody holds anything
//! that the old CA signed is printed, never asserted: the machine is shared.

use std::time::Instant;

use ironroot_api::certificate::Certificate;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::jwt;
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::server_client::ServerClient;
use ironroot_lab::workload_client;
use serde_json::Value;
use tokio::runtime::Runtime;

const AGENTS: usize = 3;
/// Of each agent.
const IDENTITIES: usize = 20;
const AUDIENCE: &str = "https://vault.example.org";

struct Drill {
    server: Server,
    devices: Vec<Device>,
    runtime: Runtime,
}

impl Drill {
    /// A fleet that is attested and served.
    fn begin(lines: &str) -> Self {
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        let mut devices: Vec<Device> = (0..AGENTS).map(|_| Device::manufacture(&maker)).collect();
        let server = Server::start(&ServerOptions { server_lines: lines.to_owned(), ..ServerOptions::default() });
        let enrolled: String = devices.iter().map(|device| format!("{}\n", device.ek_sha256())).collect();
        server.import_devices(&format!("ek_sha256\n{enrolled}"));
        let own = format!("unix:uid:{}", nix::unistd::geteuid());
        for device in &devices {
            for number in 0..IDENTITIES {
                server.create_entry(&device.agent_id(), &format!("/app-{number}"), &[&own], &[]);
            }
        }
        for device in &mut devices {
            device.provision(&server, &AgentOptions::default());
            device.start();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let drill = Self { server, devices, runtime };
        drill.expect("every agent serves all its identities", |drill| {
            drill.devices.iter().all(|device| drill.issuers(device).len() == IDENTITIES)
        });
        drill
    }

    fn expect(&self, claim: &str, holds: impl Fn(&Self) -> bool) {
        let logs = || self.devices.iter().map(Device::log).chain([self.server.log()]).collect::<Vec<_>>().join("\n");
        expect_within(DEADLINE, claim, logs, || holds(self));
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.server.cli(&[arguments, &["-output", "json"]].concat())).expect("JSON")
    }

    /// Who signed each SVID that this device's workloads are served, hexadecimal: the CA's key ID.
    fn issuers(&self, device: &Device) -> Vec<String> {
        let served = self.runtime.block_on(workload_client::fetch(&device.socket()));
        let svids = served.map(|served| served.svids).unwrap_or_default();
        let issuer = |der: &[u8]| {
            let leaf = Certificate::parse_concatenated(der).expect("a chain").remove(0);
            leaf.authority_key_id().expect("AKI").iter().map(|byte| format!("{byte:02x}")).collect()
        };
        svids.iter().map(|svid| issuer(&svid.x509_svid)).collect()
    }

    /// The serial numbers of the agents' own certificates.
    fn serials(&self) -> Vec<String> {
        let agents = self.json(&["agent", "list"])["agents"].as_array().expect("agents").clone();
        agents.iter().map(|agent| agent["x509svid_serial_number"].as_str().expect("text").to_owned()).collect()
    }

    fn active(&self) -> String {
        text(&self.json(&["localauthority", "x509", "show"])["active"]["authority_id"])
    }

    fn replace_ca(&self) -> String {
        let prepared = self.json(&["localauthority", "x509", "prepare"]);
        let new = text(&prepared["prepared_authority"]["authority_id"]);
        self.server.cli(&["localauthority", "x509", "activate", "-authorityID", &new]);
        new
    }

    /// Until every agent and every workload has what `new` signed, and only that.
    fn expect_only(&self, new: &str, serials_before: &[String]) {
        self.expect("no SVID of the old authority is held", |drill| {
            let served = drill.devices.iter().flat_map(|device| {
                let issuers = drill.issuers(device);
                assert_eq!(issuers.len(), IDENTITIES, "nobody is without an identity meanwhile");
                issuers
            });
            served.into_iter().all(|issuer| issuer == new)
        });
        self.expect("every agent has a new certificate", |drill| {
            drill.serials().iter().all(|serial| !serials_before.contains(serial))
        });
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[test]
fn after_a_taint_every_agent_and_every_workload_has_the_new_authority_and_after_the_revocation_nothing_is_left() {
    let drill = Drill::begin("root { enabled = false }");
    // A caller with the old authority's certificate, whose connection outlives everything.
    let client = drill.runtime.block_on(ServerClient::new(&drill.server));
    let thief = drill.runtime.block_on(client.agent());
    let calls = |drill: &Drill| {
        let request = ironroot_api::pb::entry::GetAuthorizedEntriesRequest::default();
        drill.runtime.block_on(async { thief.entries().get_authorized_entries(request).await.map(drop) })
    };
    calls(&drill).expect("as long as its authority is one");
    let (old, serials) = (drill.active(), drill.serials());
    let new = drill.replace_ca();
    assert!(drill.devices.iter().all(|device| drill.issuers(device).iter().all(|issuer| *issuer == old)));
    let tainted_at = Instant::now();
    drill.server.cli(&["localauthority", "x509", "taint", "-authorityID", &old]);
    let of_the_thief = thief.credentials.leaf().serial_decimal();
    let before: Vec<_> = serials.into_iter().filter(|serial| *serial != of_the_thief).collect();
    drill.expect_only(&new, &before);
    println!(
        "from taint until {AGENTS} agents and {} workloads' SVIDs have the new authority: {:.1} s",
        AGENTS * IDENTITIES,
        tainted_at.elapsed().as_secs_f64()
    );
    calls(&drill).expect("tainted is not revoked");
    drill.server.cli(&["localauthority", "x509", "revoke", "-authorityID", &old]);
    let refused = calls(&drill).expect_err("nothing of it is accepted, on an open connection neither");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
    drill.expect("workloads have the new authority alone", |drill| {
        drill.devices.iter().all(|device| {
            let served = drill.runtime.block_on(workload_client::fetch(&device.socket())).expect("served");
            served.svids.iter().all(|svid| Certificate::parse_concatenated(&svid.bundle).expect("a bundle").len() == 1)
        })
    });
    assert!(drill.devices.iter().all(|device| drill.issuers(device).iter().all(|issuer| *issuer == new)));
}

#[test]
fn a_root_that_is_tainted_takes_everything_below_it_along() {
    let drill = Drill::begin("");
    let serials = drill.serials();
    let old = text(&drill.json(&["upstreamauthority", "show"])["active"]["authority_id"]);
    let next = text(&drill.json(&["upstreamauthority", "prepare"])["prepared_authority"]["authority_id"]);
    drill.server.cli(&["upstreamauthority", "activate", "-subjectKeyID", &next]);
    let new = drill.replace_ca();
    let tainted_at = Instant::now();
    drill.server.cli(&["upstreamauthority", "taint", "-subjectKeyID", &old]);
    drill.expect_only(&new, &serials);
    println!("from taint of a root until all have the new one: {:.1} s", tainted_at.elapsed().as_secs_f64());
    drill.server.cli(&["upstreamauthority", "revoke", "-subjectKeyID", &old]);
    drill.expect("the old root is out of the bundle", |drill| {
        let bundle = drill.json(&["bundle", "show"])["x509_authorities"].clone();
        bundle.as_array().is_some_and(|authorities| authorities.len() == 1)
    });
    assert!(drill.devices.iter().all(|device| drill.issuers(device).iter().all(|issuer| *issuer == new)));
}

#[test]
fn tokens_of_a_tainted_key_are_dropped_and_new_ones_are_of_the_active_key() {
    let drill = Drill::begin("");
    let device = &drill.devices[0];
    let fetch = || {
        let output =
            device.api(nix::unistd::geteuid().as_raw(), &["fetch", "jwt", "-audience", AUDIENCE, "-output", "json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(text(&answer[0]["svids"][0]["svid"]))
    };
    let key_of = |token: &str| text(&jwt::parts(token).0["kid"]);
    let first = fetch().expect("a token");
    let prepared = drill.json(&["localauthority", "jwt", "prepare"]);
    let new = text(&prepared["prepared_authority"]["authority_id"]);
    drill.server.cli(&["localauthority", "jwt", "activate", "-authorityID", &new]);
    assert_eq!(fetch().as_deref(), Some(&*first), "it is held, and good");
    drill.server.cli(&["localauthority", "jwt", "taint", "-authorityID", &key_of(&first)]);
    drill.expect("the token is of the active key", |_| fetch().is_some_and(|token| key_of(&token) == new));
    device.expect_log("JWT-SVIDs dropped");
    drill.server.cli(&["localauthority", "jwt", "revoke", "-authorityID", &key_of(&first)]);
    let uid = nix::unistd::geteuid().as_raw();
    let validates =
        |token: &str| device.api(uid, &["validate", "jwt", "-audience", AUDIENCE, "-svid", token]).status.success();
    drill.expect("nothing that it signed is accepted", |_| !validates(&first));
    assert!(fetch().is_some_and(|token| validates(&token)));
}
