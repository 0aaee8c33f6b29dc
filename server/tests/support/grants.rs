//! Grants and proofs as the server makes them, for tests that need one.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::LazyLock;

use ironroot_api::SpiffeId;
use ironroot_api::csr::Csr;
use ironroot_api::tls::{TlsPeer, TrustAnchors, VerifiedSvid};
use ironroot_api::unix_socket::PeerCredentials;
use ironroot_attest::node::tpm2::{Admission, AttestedTpm, Claim, EventLogPolicy, Expectation, PcrHash};
use ironroot_server::devices::AdmissionPolicy;
use ironroot_server::node_attestation::{
    AttestationError, AttestedNode, BootPolicy, Circumstances, NodeAttestation, Progress, Tpm2Policy, WeakFirmware,
};
use ironroot_server::rights::{
    Administrator, AgentStanding, AuthenticatedAgent, Caller, OwnAuthorities, Provenance, ShownCertificate,
};
use ironroot_software_tpm::SoftwareNode;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use webpki::KeyUsage;

/// Of a server that has signed nothing.
static NOBODYS: LazyLock<OwnAuthorities> = LazyLock::new(OwnAuthorities::default);

/// A node that attests at `now_unix` (UNIX seconds), from wherever.
pub fn at(now_unix: i64) -> Circumstances<'static> {
    let provenance = Provenance { own: &NOBODYS, is_through_banned_agent: &|_| false };
    Circumstances { now_unix, address: None, own_authorities: &[], provenance }
}

/// Whoever may open the admin socket.
pub fn administrator() -> Administrator {
    Administrator::local(PeerCredentials { pid: 1, uid: 0, gid: 0 })
}

/// A certificate of `id` with that serial, shown over TLS at the beginning of time.
pub fn shown(id: &SpiffeId, serial: u64) -> ShownCertificate {
    let (ca, leaf) = certificates(id, serial);
    let anchors = TrustAnchors::new(id.trust_domain(), &[ca]).expect("an authority");
    let svid = anchors.verify(&leaf, &[], KeyUsage::client_auth(), 0).expect("an honest certificate");
    let address = ([10, 0, 0, 1], 4000).into();
    let peer = TlsPeer { address, dialled: ([10, 0, 0, 9], 8081).into(), svid: Some(svid) };
    let caller = Caller::Remote(peer);
    let own = own_authorities(&caller);
    ShownCertificate::judge(caller, &own, 0).expect("has not ended")
}

/// Those of a server that has signed what `caller` shows.
pub fn own_authorities(caller: &Caller) -> OwnAuthorities {
    let own = OwnAuthorities::default();
    own.replace(caller.svid().map(VerifiedSvid::signer));
    own
}

/// The agent whose current certificate that is.
pub fn authenticated(id: &SpiffeId, serial: u64) -> AuthenticatedAgent {
    shown(id, serial).authenticate(AgentStanding::Active).expect("active")
}

/// The node of that chip, which `attestation` lets prove itself at `now_unix`.
pub async fn attested(attestation: &NodeAttestation, node: &SoftwareNode, now_unix: i64) -> AttestedNode {
    attempt(attestation, node, now_unix).await.expect("an honest answer")
}

/// The same, or why not.
pub async fn attempt(
    attestation: &NodeAttestation,
    node: &SoftwareNode,
    now_unix: i64,
) -> Result<AttestedNode, AttestationError> {
    let (key, evidence) = (KeyPair::generate().expect("a key"), node.evidence());
    let request = CertificateParams::default().serialize_request(&key).expect("a request");
    let csr = Csr::parse(request.der()).expect("an honest request");
    let begun = attestation.begin(attestation.read("tpm2", &evidence)?, csr, &at(now_unix)).await?;
    let (mut progress, spki) = (begun, key.subject_public_key_info());
    loop {
        match progress {
            Progress::Attested(node) => return Ok(*node),
            Progress::Challenge(challenge, bytes) => {
                progress = attestation.answer(challenge, &node.answer(&bytes, "td", &spki), now_unix).await?;
            }
        }
    }
}

/// What a server asks of TPMs: these PCRs, and nothing of how they came about.
pub fn tpm2(admission: AdmissionPolicy, pcrs: &str) -> Tpm2Policy {
    Tpm2Policy {
        admission,
        pcrs: pcrs.parse().expect("legal"),
        pcr_banks: vec![PcrHash::default()],
        event_log: EventLogPolicy::Ignored,
        ima_log: EventLogPolicy::Ignored,
        boot_policy: BootPolicy::default(),
        weak_firmware: WeakFirmware::default(),
        known_weaknesses: Default::default(),
        require_resident_key: true,
    }
}

/// A chip that has proven its key, on nobody's word.
pub fn unvouched(node: &SoftwareNode) -> AttestedTpm {
    let claim = Claim::parse(&node.evidence()).expect("honest evidence");
    let ek = claim.admit(Admission::Unvouched).expect("nobody is asked");
    let spki_der = node.tpm.leaf.spki_der();
    let expectation = Expectation {
        trust_domain: "td".into(),
        csr_spki_der: spki_der.clone(),
        pcrs: "0".parse().expect("legal"),
        pcr_banks: vec![PcrHash::default()],
        event_log: EventLogPolicy::Ignored,
        ima_log: EventLogPolicy::Ignored,
        require_resident_key: true,
        last_seen: None,
    };
    let (pending, challenge) = ek.challenge(expectation, [1; 32], [2; 32], 0).expect("challenged");
    pending.complete(&node.answer(&challenge.to_json(), "td", &spki_der), 0).expect("an honest answer")
}

fn certificates(
    id: &SpiffeId,
    serial: u64,
) -> (rustls_pki_types::CertificateDer<'static>, rustls_pki_types::CertificateDer<'static>) {
    let uri = |text: &str| SanType::URI(text.try_into().expect("ASCII"));
    let (ca_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.not_before = time::OffsetDateTime::UNIX_EPOCH;
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![uri(id.as_str())];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.serial_number = Some(serial.into());
    leaf.not_before = time::OffsetDateTime::UNIX_EPOCH;
    let ca_der = ca.self_signed(&ca_key).expect("signed").der().clone();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).expect("signed");
    (ca_der, leaf.der().clone())
}
