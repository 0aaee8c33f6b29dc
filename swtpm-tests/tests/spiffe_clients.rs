//! SPIFFE client libraries, unchanged, on our socket: the Python one (gRPC C-core) and the Rust one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;
use spiffe::{BundleSource, TrustDomain, X509SourceBuilder};

/// A device that serves this process one SVID of a few seconds.
fn lab() -> (Server, Device) {
    let maker = Manufacturer::new("Toy TPM Works").expect("maker");
    let mut device = Device::manufacture(&maker);
    let server = Server::start(&ServerOptions::default());
    server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
    let own = nix::unistd::geteuid().as_raw();
    let uid = format!("unix:uid:{own}");
    server.create_entry(&device.agent_id(), "/probe", &[&uid], &["-x509SVIDTTL", "6", "-hint", "internal"]);
    device.provision(&server, &AgentOptions::default());
    device.start();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let served = runtime.block_on(workload_client::first_svid(&device.socket(), Instant::now(), DEADLINE));
    served.unwrap_or_else(|status| panic!("{status}\n{}", device.log()));
    (server, device)
}

/// The interpreter that `scripts/setup --tests` has prepared.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    assert!(path.exists(), "{} is missing: run scripts/setup --tests", path.display());
    path
}

//= WLE-02 WLE-04 WLA-01 WLA-03 WLA-06 WLA-11
#[test]
fn the_python_client_fetches_watches_and_validates() {
    let (_server, device) = lab();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spiffe_client.py");
    let output = Command::new(python()).arg(script).arg(device.socket()).output().expect("python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}\n{}", String::from_utf8_lossy(&output.stderr), device.log());
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["spiffe_id"], format!("spiffe://{TRUST_DOMAIN}/probe"));
    assert_eq!(answer["authorities"], 1);
    assert_eq!(answer["jwt_svid_of"], answer["spiffe_id"]);
    assert!(answer["jwt_authorities"].as_u64().is_some_and(|keys| keys >= 1), "{answer}");
    assert!(answer["rotations"].as_u64().expect("a number") >= 2, "{answer}");
}

//= WLE-02 WLE-04 WLA-06
#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_fetches_watches_and_validates() {
    let (_server, device) = tokio::task::spawn_blocking(lab).await.expect("lab");
    let endpoint = format!("unix:{}", device.socket().display());
    let source = X509SourceBuilder::new().endpoint(&endpoint).build().await.expect("a source with a first SVID");
    let first = source.svid().expect("an SVID");
    assert_eq!(first.spiffe_id().to_string(), format!("spiffe://{TRUST_DOMAIN}/probe"));
    assert_eq!(first.hint(), Some("internal"));
    let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("trust domain");
    let bundle = source.bundle_for_trust_domain(&trust_domain).expect("bundles").expect("own bundle");
    assert_eq!(bundle.authorities().len(), 1);
    let mut updates = source.updated();
    let rotated = async {
        while source.svid().expect("an SVID").leaf() == first.leaf() {
            updates.changed().await.expect("the stream goes on");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), rotated).await.expect("rotated on the open stream");
    source.shutdown().await;
}
