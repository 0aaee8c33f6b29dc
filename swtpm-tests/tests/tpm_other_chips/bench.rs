//! A chip, its user, and a count of what crosses the bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ironroot_attest::node::Refusal;
use ironroot_attest::node::tpm2::{
    Admission, AttestedTpm, CertifiedKey, Claim, EventLogPolicy, Evidence, Expectation, PcrHash, Response, binding,
};
use ironroot_attest::tpm::{Chip, EndorsementKey, Tpm, TpmError, TpmSettings};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::swtpm::Swtpm;

pub const CREATE_PRIMARY: u32 = 0x131;

const TRUST_DOMAIN: &str = "fleet.example";
/// Any moment: the verifier takes the time as an argument.
const NOW: i64 = 1_795_000_000;

pub fn chip() -> Swtpm {
    Swtpm::start().expect("swtpm starts")
}

pub fn open(settings: impl Into<TpmSettings>) -> Tpm {
    Tpm::open_blocking(settings).expect("the TPM answers")
}

pub fn run<T: Send + 'static>(tpm: &Tpm, job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static) -> T {
    tpm.run_blocking("test", job).expect("the job succeeds")
}

pub fn run_err<T: Send + 'static>(
    tpm: &Tpm,
    job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static,
) -> TpmError {
    tpm.run_blocking("test", job).err().expect("the job fails")
}

pub fn endorsement_key(chip: &Swtpm) -> EndorsementKey {
    run(&open(chip.address()), Chip::endorsement_key)
}

/// How often a command crosses the bus from now on.
pub fn count(bus: &Interposer, command: u32) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    bus.tamper(move |code, _| {
        if code == command {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}

/// One whole attestation as an agent makes it, each step a job of its own; judged as a server does.
pub fn attest(tpm: &Tpm) -> AttestedTpm {
    attest_with(tpm, vec![PcrHash::Sha256]).expect("admitted")
}

/// As [`attest`], by a server that accepts these PCR banks.
pub fn attest_with(tpm: &Tpm, accepted: Vec<PcrHash>) -> Result<AttestedTpm, Refusal> {
    let (ek, banks) = run(tpm, |chip| Ok((chip.endorsement_key()?, chip.active_banks()?)));
    let (ak, key) = (run(tpm, Chip::create_attestation_key), run(tpm, Chip::create_signing_key));
    assert_eq!(ak.parent, ek.name);
    let evidence = Evidence {
        ek_certificates: ek.certificates,
        ek_public: ek.public,
        ak_public: ak.public.clone(),
        boot_id: String::new(),
        pcr_banks: banks,
        event_log: false,
        ima_log: false,
    };
    let claim = Claim::parse(&evidence.to_json())?;
    assert_eq!(claim.ek_sha256(), ek.identity.ek_sha256);
    let ek_sha256 = claim.ek_sha256();
    let spki = key.spki_der().expect("P-256");
    let expectation = Expectation {
        trust_domain: TRUST_DOMAIN.into(),
        csr_spki_der: spki.clone(),
        pcrs: "0,2,4,7".parse().expect("legal"),
        pcr_banks: accepted,
        event_log: EventLogPolicy::Ignored,
        ima_log: EventLogPolicy::Ignored,
        require_resident_key: true,
        last_seen: None,
    };
    let admitted = claim.admit(Admission::Enrolled { ek_sha256 })?;
    let (pending, challenge) = admitted.challenge(expectation, [3; 32], [7; 32], NOW)?;
    let extra = binding(TRUST_DOMAIN, &challenge.nonce, &spki);
    let (blob, wrapped, secret) = (ak.clone(), challenge.credential.clone(), challenge.secret.clone());
    let secret = run(tpm, move |chip| chip.activate_credential(&blob, &wrapped, &secret));
    let (blob, bank, pcrs) = (ak.clone(), challenge.pcr_bank, challenge.pcrs);
    let quote = run(tpm, move |chip| chip.quote(&blob, &extra, bank, pcrs));
    let public = key.public.clone();
    let (attest, signature) = run(tpm, move |chip| chip.certify(&key, &ak, &extra));
    let response = Response {
        secret: secret.to_vec(),
        quote: quote.attest,
        quote_signature: quote.signature,
        pcr_values: quote.pcr_values,
        key: Some(CertifiedKey { public, attest, signature }),
        event_log: None,
    };
    pending.complete(&response.to_json(), NOW)
}
