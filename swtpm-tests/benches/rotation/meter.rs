//! What is measured, and beside what.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use nix::sys::resource::{UsageWho, getrusage};

/// Rounds of the bare cryptography.
const ROUNDS: u32 = 2_000;

/// CPU time of all threads of a process that lives, ms, of those that have ended too.
pub fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
    // utime and stime: fields 14 and 15 of proc(5), which counts from 1; the first three are before the bracket or follow it.
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    ticks * 1e3 / per_second as f64
}

/// CPU time of what no agent can save for one SVID, us: a key is made, a request signed, a certificate verified.
pub fn bare_crypto_us() -> f64 {
    let (random, message) = (SystemRandom::new(), [7; 300]);
    let began = own_cpu_us();
    for _ in 0..ROUNDS {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        let signature = key.sign(&random, &message).expect("a signature");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
        public.verify(&message, signature.as_ref()).expect("verifies");
    }
    (own_cpu_us() - began) / f64::from(ROUNDS)
}

fn own_cpu_us() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("usage").user_time();
    usage.tv_sec() as f64 * 1e6 + usage.tv_usec() as f64
}

/// Passes bytes on to a port of this machine, and counts them.
pub struct CountingProxy {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl CountingProxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let (port, bytes) = (listener.local_addr().expect("bound").port(), Arc::new(AtomicU64::new(0)));
        let counted = bytes.clone();
        thread::spawn(move || {
            for inside in listener.incoming().map_while(Result::ok) {
                let Ok(outside) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                pass(inside.try_clone(), outside.try_clone(), &counted);
                pass(Ok(outside), Ok(inside), &counted);
            }
        });
        Self { port, bytes }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn pass(from: std::io::Result<TcpStream>, to: std::io::Result<TcpStream>, counted: &Arc<AtomicU64>) {
    let (Ok(mut from), Ok(mut to)) = (from, to) else { return };
    let counted = counted.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            counted.fetch_add(length as u64, Ordering::Relaxed);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // The other side has gone already, or goes now.
        let _ = to.shutdown(Shutdown::Write);
    });
}
