//! What one `tpm2` attestation costs the server: TLS handshake, evidence, certificate, rows.

use ironroot_agent::agent_key::{KeyOf, KeyPlace, KeyStore};
use ironroot_agent::node_attestation::{Attestor, BootLogFile, Device, ImaListFile, attest};
use ironroot_agent::server_channel::{Doubt, Server as Dialled};
use ironroot_agent::trusted_time::TrustedTime;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::tls::TrustAnchors;
use ironroot_attest::tpm::Tpm;
use ironroot_lab::deployment::TRUST_DOMAIN;

use super::{Lab, row, runtime};
use ironroot_lab::usage::cpu_ms;

const ATTESTATIONS: u32 = 100;

pub fn report(lab: &mut Lab) {
    lab.device.kill_agent();
    let pid = lab.server.process().expect("the server runs").pid();
    let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("trust domain");
    let authorities: Vec<_> =
        Certificate::parse_pem(&lab.server.bundle_pem()).expect("bundle").iter().map(|c| c.der().clone()).collect();
    let anchors = TrustAnchors::new(trust_domain.clone(), &authorities).expect("anchors");
    let address = lab.device.tpm().address();
    let port = lab.server.port();
    let used = runtime().block_on(async {
        let tpm = Tpm::open(address).await.expect("TPM opened");
        let directory = tempfile::tempdir().expect("directory");
        let place = KeyPlace::Tpm { tpm: tpm.clone(), directory: directory.path().to_owned() };
        let mut keys = KeyStore::open(place, KeyOf::Agent);
        let attestor = Attestor::Tpm2(Device {
            tpm,
            directory: directory.path().to_owned(),
            notes: directory.path().to_owned(),
            boot_log: BootLogFile::new(Vec::new()),
            ima_list: ImaListFile::new(None),
        });
        let dialled = Dialled::new("127.0.0.1", port, &trust_domain, TrustedTime::new());
        let mut before = 0.0;
        for round in 0..=ATTESTATIONS {
            let channel = dialled.bootstrap(anchors.clone(), Doubt::Refused).await.expect("dialled");
            attest(channel, &attestor, &mut keys, &trust_domain).await.expect("attested");
            if round == 0 {
                before = cpu_ms(pid);
            }
        }
        cpu_ms(pid) - before
    });
    let each = used / f64::from(ATTESTATIONS);
    row("server CPU per tpm2 attestation, handshake included", &format!("{each:.2} ms"), "≤ 1 ms");
    lab.device.start();
    lab.device.expect_identity(nix::unistd::geteuid().as_raw());
}
