//! Servers of before boot logs, and of before lists of measured files.

use ironroot_agent::agent_key::{KeyOf, KeyPlace, KeyStore};
use ironroot_agent::node_attestation::{Attestor, BootLogFile, Device, ImaListFile, attest};
use ironroot_agent::server_channel::{Doubt, Server as Dialled};
use ironroot_agent::trusted_time::TrustedTime;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_api::tls::TrustAnchors;
use ironroot_attest::tpm::Tpm;
use ironroot_lab::scripted_server::{AgentLie, ScriptedServer, TRUST_DOMAIN};
use ironroot_lab::swtpm::Swtpm;

#[tokio::test]
async fn a_server_that_knows_no_boot_logs_is_asked_again_without_one() {
    is_asked_again_without("event_log").await;
}

#[tokio::test]
async fn a_server_that_knows_no_lists_of_files_is_asked_again_without_one() {
    is_asked_again_without("ima_log").await;
}

async fn is_asked_again_without(field: &'static str) {
    let server = ScriptedServer::start();
    server.play(|script| script.agent = AgentLie::KnowsNo(field));
    let chip = Swtpm::start().expect("swtpm (package swtpm) starts");
    let tpm = Tpm::open(chip.address()).await.expect("the TPM answers");
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("log");
    let list = directory.path().join("list");
    std::fs::write(&log, b"a log").expect("written");
    std::fs::write(&list, b"a list").expect("written");
    let mut keys =
        KeyStore::open(KeyPlace::Tpm { tpm: tpm.clone(), directory: directory.path().to_owned() }, KeyOf::Agent);
    let boot_log = BootLogFile::new(vec![log]);
    let attestor = Attestor::Tpm2(Device {
        tpm,
        directory: directory.path().to_owned(),
        notes: directory.path().to_owned(),
        boot_log,
        ima_list: ImaListFile::new(Some(list)),
    });
    let trust_domain = TrustDomain::new(TRUST_DOMAIN).expect("legal");
    let authorities: Vec<_> =
        Certificate::parse_pem(&server.bundle_pem()).expect("bundle").iter().map(|c| c.der().clone()).collect();
    let anchors = TrustAnchors::new(trust_domain.clone(), &authorities).expect("anchors");
    let address = server.address();
    let dialled = Dialled::new(&address.ip().to_string(), address.port(), &trust_domain, TrustedTime::new());
    let channel = dialled.bootstrap(anchors, Doubt::Refused).await.expect("dialled");
    attest(channel, &attestor, &mut keys, &trust_domain).await.map(drop).expect("attested");
    assert_eq!(server.asked().attestations, 2, "refused once");
}
