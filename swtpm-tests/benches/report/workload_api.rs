//! FetchX509SVID on a warm agent.

use std::time::Instant;

use ironroot_lab::samples::percentile;
use ironroot_lab::workload_client;

use super::{Lab, row, runtime};

/// A new connection and its request cost two of the 4,096 that one user may spend at once.
const ROUNDS: usize = 1000;

pub fn report(lab: &Lab) {
    let socket = lab.device.socket();
    let (mut fresh, mut reused) = runtime().block_on(async {
        let mut fresh = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            workload_client::fetch(&socket).await.expect("served");
            fresh.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let mut client = workload_client::client(&socket).await.expect("connected");
        let mut reused = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let mut stream = workload_client::watch(&mut client).await.expect("open");
            stream.message().await.expect("served").expect("a message");
            reused.push(began.elapsed().as_secs_f64() * 1e3);
        }
        (fresh, reused)
    });
    let figures = |samples: &mut Vec<f64>| {
        format!("p50 {:.2} ms, p99 {:.2} ms", percentile(samples, 0.5), percentile(samples, 0.99))
    };
    row("FetchX509SVID, new connection, attestation and first message", &figures(&mut fresh), "p50 ≤ 1 ms");
    row("FetchX509SVID, new stream on an open connection", &figures(&mut reused), "-");
}
