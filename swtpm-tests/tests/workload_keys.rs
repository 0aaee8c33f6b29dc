//! Keys that the agent makes for workloads (workload_x509_svid_key_type): on a device with a TPM, also while the server is away, after a power cut
//! and after the file has been changed.

use ironroot_api::csr::{KeyKind, Spki};
use ironroot_api::tls::provider;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Fetched, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client::fetch_wit;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::runtime::Runtime;

const KINDS: [(&str, KeyKind); 2] = [("ec-p384", KeyKind::EcP384), ("rsa-2048", KeyKind::Rsa)];

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn options(kind: &str) -> AgentOptions {
    let agent_lines = format!("workload_x509_svid_key_type = \"{kind}\"\nenable_wit_svids = true");
    AgentOptions { agent_lines, ..AgentOptions::default() }
}

/// A device whose workload this process is.
fn lab(kind: &str, x509_svid_ttl: &'static str) -> (Server, Device) {
    let mut device = Device::manufacture(&Manufacturer::new("Toy TPM Works").expect("maker"));
    let server_lines = "enable_wit_svids = true".to_owned();
    let server = Server::start(&ServerOptions { server_lines, x509_svid_ttl, ..ServerOptions::default() });
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    server.create_entry(&device.agent_id(), "/app", &[&format!("unix:uid:{}", uid())], &[]);
    device.provision(&server, &options(kind));
    device.start();
    (server, device)
}

/// What kind of key the first certificate is for. Its private half is written beside it: rustls refuses another one.
fn kind(fetched: &Fetched) -> KeyKind {
    let file = |name: &str| fetched.directory.join(name);
    let chain = CertificateDer::pem_file_iter(file("svid.0.pem")).expect("there");
    let chain = chain.map(|certificate| certificate.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(file("svid.0.key")).expect("a key");
    CertifiedKey::from_der(chain, key, &provider()).expect("a pair");
    Spki::parse(&fetched.leaves[0].spki_der()).expect("a key").kind()
}

/// The WIT-SVID's key, a JWK.
fn expect_wit(runtime: &Runtime, device: &Device) -> Value {
    let mut last = None;
    let is_served = || {
        last = runtime.block_on(fetch_wit(&device.socket(), "")).ok().and_then(|svids| svids.into_iter().next());
        last.is_some()
    };
    expect_within(DEADLINE, "a WIT-SVID is served", || device.log(), is_served);
    serde_json::from_str(&last.expect("served").wit_svid_key).expect("a JWK")
}

#[test]
fn workloads_have_keys_of_the_kind_that_the_file_names_also_from_the_sealed_cache() {
    let runtime = Runtime::new().expect("runtime");
    for (name, expected) in KINDS {
        let (mut server, mut device) = lab(name, "1h");
        let first = device.expect_identity(uid());
        assert_eq!(kind(&first), expected, "{}", device.log());
        let wit = expect_wit(&runtime, &device);
        assert_eq!(wit["kty"], if expected == KeyKind::Rsa { "RSA" } else { "EC" });
        assert!(wit["crv"].is_null() || wit["crv"] == "P-384", "{}", wit["crv"]);
        device.expect_sealed(1);
        server.kill();
        device.power_cycle();
        device.start();
        let restored = device.expect_identity(uid());
        assert_eq!(
            (kind(&restored), restored.leaves[0].der()),
            (expected, first.leaves[0].der()),
            "from the sealed cache"
        );
        assert_eq!(expect_wit(&runtime, &device), wit);
    }
}

#[test]
fn a_kept_key_of_another_kind_is_served_until_its_renewal() {
    let (server, mut device) = lab("rsa-2048", "30s");
    let first = device.expect_identity(uid());
    assert_eq!(kind(&first), KeyKind::Rsa);
    device.expect_sealed(1);
    device.kill_agent();
    device.provision(&server, &options("ec-p384"));
    device.start();
    let kept = device.expect_identity(uid());
    assert_eq!(kind(&kept), KeyKind::Rsa, "what is held is good");
    let is_new = || device.fetch(uid()).is_ok_and(|fetched| kind(&fetched) == KeyKind::EcP384);
    expect_within(DEADLINE, "the next key is of the new kind", || device.log(), is_new);
}
