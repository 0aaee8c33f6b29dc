//! Offline boot: no server, a TPM that has just been powered up, the sealed cache.

use std::time::{Duration, Instant};

use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::tpm::Tpm;
use ironroot_lab::samples::percentile;
use ironroot_lab::workload_client;

use super::{Lab, row, runtime};

const BOOTS: usize = 20;

pub fn report(lab: &mut Lab) {
    lab.device.expect_sealed(1);
    lab.server.kill();
    let (mut boots, mut unseals) = (Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        lab.device.power_cycle();
        unseals.push(unseal_ms(lab));
        lab.device.power_cycle();
        let began = Instant::now();
        lab.device.start();
        let served =
            runtime().block_on(workload_client::first_svid(&lab.device.socket(), began, Duration::from_secs(30)));
        boots.push(served.expect("served offline").1.as_secs_f64() * 1e3);
    }
    let (boot, unseal) = (percentile(&mut boots, 0.5), percentile(&mut unseals, 0.5));
    row(
        "offline boot: exec to first SVID on the socket, median",
        &format!("{boot:.0} ms, of which the chip's own unseal {unseal:.0} ms"),
        "≤ 200 ms + unseal",
    );
}

/// Opening the chip and one unseal, alone.
fn unseal_ms(lab: &mut Lab) -> f64 {
    let address = lab.device.tpm().address();
    runtime().block_on(async {
        let tpm = Tpm::open(address).await.expect("TPM opened");
        let pcrs = PcrSelection::from_indices([0, 2, 4, 7]).expect("selection");
        let blob = tpm.run("seal", move |chip| chip.seal(&[7; 32], pcrs)).await.expect("sealed");
        let began = Instant::now();
        tpm.run("unseal", move |chip| chip.unseal(&blob, pcrs)).await.expect("unsealed");
        began.elapsed().as_secs_f64() * 1e3
    })
}
