//! SPIRE's agent or server with the plugin "tpm" (spiffe/spire-tpm-plugin), both unchanged, and ours on the other side.
//!
//! The plugin is two programs of its own: `tpm_attestor_agent` and `tpm_attestor_server`, beside SPIRE's (scripts/spire builds them). The
//! agent's finds its chip in /sys and /dev alone, so the agent runs in mounts of its own, where a unix socket stands in for /dev/tpm0.

use std::path::Path;
use std::time::Instant;

use ironroot_lab::deployment::{DEADLINE, Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::devid_pki::DevIdPki;
use ironroot_lab::manufacturer::{EkKind, ek_sha256_of};
use ironroot_lab::spire::{SpireAgent, Times, spire_binary};
use ironroot_lab::workload_client;
use ironroot_text::hex::hex;
use tokio::runtime::Runtime;

use crate::deployment::{AnyAgent, AnyServer, Maker};

const TIMES: Times = Times { ca: "24h", agent: "1h", x509_svid: "1h" };

#[test]
#[ignore = "needs SPIRE's binaries and the plugin's: IRONROOT_SPIRE_BIN"]
fn the_agents_of_spires_tpm_plugin_attest_by_hash_by_maker_and_by_the_registry() {
    let runtime = Runtime::new().expect("runtime");
    let pki = DevIdPki::new();
    let place = tempfile::tempdir().expect("directory");
    let (hashes, makers) = (place.path().join("hashes"), place.path().join("makers"));
    for directory in [&hashes, &makers] {
        std::fs::create_dir(directory).expect("directory");
    }
    std::fs::write(makers.join("toy.pem"), pki.maker.authorities_pem()).expect("written");
    let by_hash = format!("hash_path = \"{}\"", hashes.display());
    let by_maker = format!("ca_path = \"{}\"", makers.display());
    for (line, enrolled) in [(by_hash.as_str(), false), (&by_maker, false), ("", true)] {
        let chip = pki.chip();
        let ek_sha256 = hex(&ek_sha256_of(&chip, EkKind::Rsa2048).expect("read"));
        let plugins = format!("NodeAttestor \"tpm\" {{ plugin_data {{ {line} }} }}");
        let server = Server::start(&ServerOptions { plugins, ..ServerOptions::default() });
        let (parent, node) = (format!("spiffe://{TRUST_DOMAIN}/spire/server"), format!("spiffe://{TRUST_DOMAIN}/node"));
        server.create_entry(&parent, "/node", &[&format!("tpm:pub_hash:{ek_sha256}")], &[]);
        server.create_entry(&node, "/app", &[&format!("unix:uid:{}", nix::unistd::geteuid())], &[]);
        if enrolled {
            let manifest = place.path().join("manifest.csv");
            std::fs::write(&manifest, format!("ek_sha256\n{ek_sha256}\n")).expect("written");
            server.cli(&["device", "import", &manifest.display().to_string()]);
        }
        if line == by_hash {
            std::fs::write(hashes.join(&ek_sha256), "").expect("written");
        }
        let chip = chip.behind_unix_socket().expect("swtpm answers at a unix socket");
        let mut agent = SpireAgent::new();
        let plugin = spire_binary("tpm_attestor_agent");
        let block = format!("NodeAttestor \"tpm\" {{\nplugin_cmd = \"{}\"\nplugin_data {{ }}\n}}", plugin.display());
        agent.provision_with(&server.bundle_pem(), server.port(), &block);
        agent.start_with_tpm(chip.socket());
        let socket = agent.socket();
        let served = runtime.block_on(workload_client::first_svid(&socket, Instant::now(), DEADLINE));
        let (served, _) = served.unwrap_or_else(|status| panic!("nothing served: {status}\n{}", agent.log()));
        assert_eq!(served.svids[0].spiffe_id, format!("spiffe://{TRUST_DOMAIN}/app"));
        let agents = server.cli(&["agent", "list"]);
        assert!(agents.contains(&format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{ek_sha256}")), "{agents}");
    }
}

#[test]
#[ignore = "needs SPIRE's binaries and the plugin's: IRONROOT_SPIRE_BIN"]
fn our_agent_attests_to_spires_server_with_the_tpm_plugin_by_hash_and_by_maker() {
    let (runtime, pki) = (Runtime::new().expect("runtime"), DevIdPki::new());
    let place = tempfile::tempdir().expect("directory");
    let (hashes, makers) = (place.path().join("hashes"), place.path().join("makers"));
    for directory in [&hashes, &makers] {
        std::fs::create_dir(directory).expect("directory");
    }
    std::fs::write(makers.join("toy.pem"), pki.maker.authorities_pem()).expect("written");
    for key in ["hash_path", "ca_path"] {
        let chip = pki.chip();
        let ek_sha256 = hex(&ek_sha256_of(&chip, EkKind::Rsa2048).expect("read"));
        let directory = if key == "hash_path" { &hashes } else { &makers };
        let server = AnyServer::start_with(Maker::Spire, TIMES, &server_block(key, directory));
        if directory == &hashes {
            std::fs::write(hashes.join(&ek_sha256), "").expect("written");
        }
        let (parent, node) = (format!("spiffe://{TRUST_DOMAIN}/spire/server"), format!("spiffe://{TRUST_DOMAIN}/node"));
        let selector = format!("tpm:pub_hash:{ek_sha256}");
        let alias = ["entry", "create", "-parentID", &parent, "-spiffeID", &node, "-selector", &selector];
        server.cli(Maker::Ironroot, &alias);
        server.create_own_entry(Maker::Ironroot, "/app", &[]);
        let mut agent = AnyAgent::new(Maker::Ironroot);
        let block = format!("NodeAttestor \"tpm\" {{ plugin_data {{ tpm_device_path = \"{}\" }} }}", chip.address());
        agent.start_with(&server, &block);
        let served = agent.expect_identity(&runtime);
        let id = format!("spiffe://{TRUST_DOMAIN}/app");
        assert!(served.svids.iter().any(|svid| svid.spiffe_id == id), "{}", agent.log());
        let agents = server.cli(Maker::Ironroot, &["agent", "list"]);
        assert!(agents.contains(&format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{ek_sha256}")), "{agents}");
    }
}

/// The plugin's configuration at SPIRE's server.
fn server_block(key: &str, directory: &Path) -> String {
    let plugin = spire_binary("tpm_attestor_server");
    let (plugin, directory) = (plugin.display(), directory.display());
    format!("NodeAttestor \"tpm\" {{\nplugin_cmd = \"{plugin}\"\nplugin_data {{ {key} = \"{directory}\" }}\n}}")
}
