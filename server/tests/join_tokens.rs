//! Join tokens attest where they are configured, and nowhere else.

#[path = "support/grants.rs"]
mod grants;

use ironroot_api::TrustDomain;
use ironroot_api::csr::Csr;
use ironroot_server::node_attestation::{AttestationError, Attestor, JOIN_TOKEN, NodeAttestation, Progress};
use ironroot_server::registry::Registry;
use ironroot_server::store::Store;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

use grants::{administrator, at};

const NOW: i64 = 1_000;

fn csr() -> Csr {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
    let der = CertificateParams::default().serialize_request(&key).expect("CSR").der().to_vec();
    Csr::parse(&der).expect("legal")
}

#[tokio::test]
async fn a_join_token_attests_only_where_that_is_configured_and_is_not_used_up_otherwise() {
    let directory = tempfile::tempdir().expect("directory");
    let trust_domain = TrustDomain::new("td").expect("legal");
    let store = Store::open(&directory.path().join("datastore.sqlite3"), &trust_domain).expect("opens");
    let registry = Registry::load(store.clone()).await.expect("loads");
    registry.create_join_token(&administrator(), "t", NOW + 10, None, NOW).await.expect("adds");
    let attestation =
        |attestors| NodeAttestation::new(trust_domain.clone(), store.clone(), registry.devices().clone(), attestors);
    let refusing = attestation(vec![]);
    assert!(!refusing.takes_join_tokens());
    assert!(matches!(refusing.read(JOIN_TOKEN, b"t"), Err(AttestationError::Type(kind)) if kind == JOIN_TOKEN));
    let accepting = attestation(vec![Attestor::JoinToken]);
    assert!(accepting.takes_join_tokens());
    let evidence = accepting.read(JOIN_TOKEN, b"t").expect("a token");
    assert!(matches!(accepting.begin(evidence, csr(), &at(NOW)).await, Ok(Progress::Attested(_))));
}
