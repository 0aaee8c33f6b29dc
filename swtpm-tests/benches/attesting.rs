//! Server CPU of `tpm2` attestations by chips in software, one and many at once, and of mutual TLS handshakes, beside two limits of the
//! same run: the cryptographic operations that they cannot do without, and those with what a stranger costs who dials, asks for next to
//! nothing and leaves. Then a fleet behind one address after a power cut.
//!
//!   cargo bench -p ironroot-swtpm-tests --bench attesting

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
};
use ironroot_api::pb::bundle::GetBundleRequest;
use ironroot_api::pb::bundle::bundle_client::BundleClient;
use ironroot_api::pb::types::BundleMask;
use ironroot_lab::deployment::{Server, ServerOptions};
use ironroot_lab::server_client::{ServerClient, SoftwareDevice};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::sync::Semaphore;
use tonic::transport::Channel;

/// Attestations in a measurement, and devices after the power cut.
const ATTESTATIONS: usize = 400;
const FLEET: usize = 5000;
/// Devices at once: in the herd, and after the power cut.
const HERD: usize = 64;
/// Mutual handshakes in a measurement.
const HANDSHAKES: usize = 400;
/// How often each raw operation is timed.
const ROUNDS: u32 = 400;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let devices: Arc<Vec<_>> = Arc::new((0..FLEET).map(|_| SoftwareDevice::new()).collect());
    println!(
        "| what | measured | beside | of what the same calls need that do next to nothing | goal |\n|---|---|---|---|---|"
    );
    let mut server = enrolled(&devices, &ServerOptions::default());
    runtime.block_on(costs(&mut server, &devices));
    drop(server);
    let limited = enrolled(&devices, &ServerOptions { rate_limits: true, ..ServerOptions::default() });
    runtime.block_on(power_cut(&limited, &devices));
}

fn enrolled(devices: &[SoftwareDevice], options: &ServerOptions) -> Server {
    let server = Server::start(options);
    let lines: String = devices.iter().map(|device| device.ek_sha256() + "\n").collect();
    server.import_devices(&format!("ek_sha256\n{lines}"));
    server
}

async fn costs(server: &mut Server, devices: &Arc<Vec<SoftwareDevice>>) {
    let (client, pid) = (ServerClient::new(server).await, server.process().expect("it runs").pid());
    let raw = Raw::timed();
    attest_all(&client, devices, HERD, HERD).await;
    for (at_once, goal) in [(1, "≤ 1.2 ms"), (HERD, "≤ 0.6 ms")] {
        let stranger = server_cpu(pid, ATTESTATIONS, strangers(&client, ATTESTATIONS, at_once)).await;
        row(
            &format!("server CPU of a stranger's connection and one call, {at_once} at once"),
            stranger,
            raw.connection(),
            None,
            "-",
        );
        let each = server_cpu(pid, ATTESTATIONS, attest_all(&client, devices, ATTESTATIONS, at_once)).await;
        let limit = stranger - raw.connection() + raw.attestation();
        row(
            &format!("server CPU of a tpm2 attestation, {at_once} at once"),
            each,
            raw.attestation(),
            Some(limit),
            goal,
        );
    }
    let stranger = server_cpu(pid, HANDSHAKES, strangers(&client, HANDSHAKES, 1)).await;
    let credentials = devices[0].attest(&client).await.expect("attests");
    let each = server_cpu(pid, HANDSHAKES, async {
        for _ in 0..HANDSHAKES {
            ask_nothing(client.with(&credentials).await.expect("a good certificate")).await;
        }
    })
    .await;
    let limit = stranger - raw.connection() + raw.handshake();
    row("server CPU of a mutual handshake and one call", each, raw.handshake(), Some(limit), "≤ 400 µs");
}

/// µs of the server's CPU for each of `count`, while `work` is done.
async fn server_cpu<T>(pid: u32, count: usize, work: impl Future<Output = T>) -> f64 {
    let before = cpu_us(pid);
    work.await;
    (cpu_us(pid) - before) / count as f64
}

/// `count` connections without a certificate, each for one call, `at_once` of them at once.
async fn strangers(client: &ServerClient, count: usize, at_once: usize) {
    let (places, mut tasks) = (Arc::new(Semaphore::new(at_once)), tokio::task::JoinSet::new());
    for _ in 0..count {
        let (client, place) = (client.clone(), places.clone().acquire_owned().await.expect("open"));
        tasks.spawn(async move {
            ask_nothing(client.anonymous().await).await;
            drop(place);
        });
    }
    tasks.join_all().await;
}

/// The trust domain's name: GetBundle that leaves out all else.
async fn ask_nothing(channel: Channel) {
    let request = GetBundleRequest { output_mask: Some(BundleMask::default()) };
    BundleClient::new(channel).get_bundle(request).await.expect("a name");
}

/// All devices dial at once, as the network lets them; those that are refused try again.
async fn power_cut(server: &Server, devices: &Arc<Vec<SoftwareDevice>>) {
    let client = ServerClient::new(server).await;
    let began = Instant::now();
    let refused = attest_all(&client, devices, FLEET, HERD).await;
    let took = began.elapsed().as_secs_f64();
    println!(
        "| {FLEET} devices behind one address back after a power cut | {took:.1} s | {refused} refused once | - | ≤ 10 s |"
    );
}

/// The first `count` devices, `at_once` of them at once; how often one was refused.
async fn attest_all(client: &ServerClient, devices: &Arc<Vec<SoftwareDevice>>, count: usize, at_once: usize) -> usize {
    let (places, mut tasks) = (Arc::new(Semaphore::new(at_once)), tokio::task::JoinSet::new());
    for index in 0..count {
        let (client, devices) = (client.clone(), devices.clone());
        let place = places.clone().acquire_owned().await.expect("open");
        tasks.spawn(async move {
            let mut refusals = 0;
            while let Err(status) = devices[index].attest(&client).await {
                assert!(refusals < 5, "{status}");
                refusals += 1;
            }
            drop(place);
            refusals
        });
    }
    tasks.join_all().await.into_iter().sum()
}

fn row(what: &str, measured_us: f64, raw_us: f64, limit_us: Option<f64>, goal: &str) {
    let of_limit = limit_us.map_or("-".to_owned(), |limit| format!("{:.2} x {limit:.0} µs", measured_us / limit));
    let ratio = measured_us / raw_us;
    println!("| {what} | {measured_us:.0} µs | {ratio:.2} x {raw_us:.0} µs of raw operations | {of_limit} | {goal} |");
}

/// CPU time of all threads, µs.
fn cpu_us(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let used = |thread: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.filter_map(used).sum::<f64>() / 1e3
}

/// What the operations cost here and now, µs each.
struct Raw {
    sign: f64,
    verify: f64,
    credential: f64,
    exchange: f64,
}

impl Raw {
    fn timed() -> Self {
        let (random, key) = (SystemRandom::new(), EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING));
        let key = key.expect("a key");
        let signature = key.sign(&random, b"message").expect("signs");
        let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref()).expect("a key");
        Self {
            sign: timed(|| assert!(key.sign(&random, b"message").is_ok())),
            verify: timed(|| public.verify_sig(b"message", signature.as_ref()).expect("verifies")),
            credential: timed(|| exchange(&ECDH_P256)),
            exchange: timed(|| exchange(&X25519)),
        }
    }

    /// Quote, certify and request verified, a credential made, a key exchange and a signature for TLS, one for the certificate.
    fn attestation(&self) -> f64 {
        3.0 * self.verify + self.credential + self.exchange + 2.0 * self.sign
    }

    /// A key exchange and a signature.
    fn connection(&self) -> f64 {
        self.exchange + self.sign
    }

    /// The chain and the client's signature verified, a key exchange, and a signature.
    fn handshake(&self) -> f64 {
        2.0 * self.verify + self.exchange + self.sign
    }
}

/// A fresh key, and agreement with itself.
fn exchange(algorithm: &'static agreement::Algorithm) {
    let key = PrivateKey::generate(algorithm).expect("a key");
    let public = key.compute_public_key().expect("a point");
    let peer = UnparsedPublicKey::new(algorithm, public);
    agreement::agree(&key, peer, (), |_| Ok(())).expect("agrees");
}

/// CPU time, as that of the server: neighbours on the machine are not in it.
fn timed(mut operation: impl FnMut()) -> f64 {
    let used = || {
        let time = getrusage(UsageWho::RUSAGE_THREAD).expect("our own usage").user_time();
        time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64
    };
    let began = used();
    (0..ROUNDS).for_each(|_| operation());
    (used() - began) / f64::from(ROUNDS)
}
