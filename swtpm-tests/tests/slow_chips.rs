//! Chips that take long to make a key, and chips that say no, under a whole agent: real binaries, an interposer on the bus.
//!
//! The real delays, of 7.5 s (ST33) and 20 s a key, are for the nightly run: `--ignored`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ironroot_attest::node::tpm2::CHALLENGE_SECONDS;
use ironroot_lab::deployment::{AgentOptions, Device, Server, ServerOptions, wait_for};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::manufacturer::{EkKind, Manufacturer, ek_sha256_of};
use ironroot_lab::swtpm::Swtpm;

const ALICE: u32 = 60_001;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const SIGN: u32 = 0x15d;

/// The slowest chip that has to attest, seconds for each key.
const SLOWEST_SECONDS: i64 = 20;

/// A device whose chip has an RSA endorsement key alone, behind an interposer, and a server that knows it.
struct Bench {
    server: Server,
    device: Device,
    bus: Interposer,
}

impl Bench {
    fn new() -> Self {
        let chip = Swtpm::start().expect("swtpm (package swtpm) starts");
        Manufacturer::new("Toy TPM Works").expect("a maker").certify_rsa(&chip).expect("certified");
        let ek_sha256 = ek_sha256_of(&chip, EkKind::Rsa2048).expect("an endorsement key");
        let bus = Interposer::before(&chip).expect("an interposer");
        let device = Device::with_chip(chip, ek_sha256.iter().map(|byte| format!("{byte:02x}")).collect());
        let server = Server::start(&ServerOptions::default());
        server.import_devices(&format!("ek_sha256,label:site\n{},berlin\n", device.ek_sha256()));
        let parent = server.create_node_alias("/gateway", "site:berlin");
        server.create_entry(&parent, "/alice", &[&format!("unix:uid:{ALICE}")], &[]);
        let options = AgentOptions { tpm_address: Some(bus.address()), ..AgentOptions::default() };
        device.provision(&server, &options);
        Self { server, device, bus }
    }

    /// From now on each key takes `delay` more; how many were made.
    fn slow_down(&self, delay: Duration) -> Arc<AtomicUsize> {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        self.bus.tamper(move |command, _| {
            if matches!(command, CREATE_PRIMARY | CREATE) {
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(delay);
            }
        });
        made
    }

    /// How long it takes until Alice has her identity, and until it is kept; how many keys the chip made for the first.
    fn lives(&mut self, delay: Duration, within: Duration) -> (Duration, Duration, usize) {
        let (made, began) = (self.slow_down(delay), Instant::now());
        self.device.start();
        let served = wait_for(within, || self.device.fetch(ALICE).ok());
        assert!(served.is_some(), "nothing within {within:?}: {}", self.device.log());
        let (served, keys) = (began.elapsed(), made.load(Ordering::Relaxed));
        let sealed = wait_for(within, || self.device.log().contains("identities sealed").then_some(()));
        assert!(sealed.is_some(), "not kept within {within:?}: {}", self.device.log());
        (served, began.elapsed(), keys)
    }
}

//= FLT-T10
/// Scaled: the time is the chip's, in keys, so that what a chip with seconds for each needs is their number.
#[test]
fn attestation_makes_so_few_keys_that_the_slowest_chip_is_done_before_its_challenge_ends() {
    let mut bench = Bench::new();
    let (served, _, keys) = bench.lives(Duration::from_millis(200), Duration::from_secs(60));
    assert!(
        keys >= 2 && served >= Duration::from_millis(200) * keys as u32,
        "the delays count: {served:?}, {keys} keys"
    );
    // With room for as much again of other work.
    assert!(2 * SLOWEST_SECONDS * keys as i64 <= CHALLENGE_SECONDS, "{keys} keys");
}

//= FLT-T10
#[test]
#[ignore = "minutes: scripts/nightly"]
fn chips_that_take_seven_and_a_half_and_twenty_seconds_for_a_key_attest_and_keep_what_they_got() {
    for seconds in [7.5, 20.0] {
        let mut bench = Bench::new();
        let within = Duration::from_secs(CHALLENGE_SECONDS.unsigned_abs());
        let (served, sealed, keys) = bench.lives(Duration::from_secs_f64(seconds), within);
        println!("{seconds} s a key: an identity after {served:.1?} ({keys} keys made), kept after {sealed:.1?}");
        // The next boot makes no key of its own.
        bench.server.kill();
        bench.device.kill_agent();
        bench.device.start();
        assert!(wait_for(within, || bench.device.fetch(ALICE).ok()).is_some(), "{}", bench.device.log());
    }
}

#[test]
fn the_code_of_a_chip_that_refuses_to_sign_a_certificate_request_is_told() {
    let mut bench = Bench::new();
    bench.bus.tamper(|command, response| {
        if command == SIGN {
            // TPM_RC_LOCKOUT, without anything else. Source: TPM 2.0 Part 2, 6.6.3.
            *response = vec![0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x21];
        }
    });
    bench.device.start();
    bench.device.expect_log("TPM_RC_LOCKOUT");
    assert!(!bench.device.log().contains("could not sign a certificate request"), "{}", bench.device.log());
}
