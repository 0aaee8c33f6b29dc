//! A TPM that vanishes, hangs, is reset, loses power or is full: every failure has its name, nothing stays loaded, and
//! the agent's handle works again when the chip does.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ironroot_attest::node::tpm2::{PcrHash, PcrSelection};
use ironroot_attest::structures::{Public, make_credential};
use ironroot_attest::tpm::{Chip, DEFAULT_COUNTER_INDEX, KeyBlob, Tpm, TpmAddress, TpmError};
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::abstraction::ek::create_ek_public_from_default_template;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::constants::{PropertyTag, SessionType};
use tss_esapi::interface_types::algorithm::{AsymmetricAlgorithm, HashingAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, Digest, EccScheme, HashScheme, HashcheckTicket, SignatureScheme, SymmetricDefinition,
};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;
use tss_esapi::utils::create_unrestricted_signing_ecc_public;

/// How long a condition may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn chip() -> Swtpm {
    Swtpm::start().expect("swtpm starts")
}

fn open(chip: &Swtpm) -> Tpm {
    Tpm::open_blocking(chip.address()).expect("the TPM answers")
}

fn run<T: Send + 'static>(tpm: &Tpm, job: impl FnOnce(&mut Chip) -> Result<T, TpmError> + Send + 'static) -> T {
    tpm.run_blocking("test", job).expect("the job succeeds")
}

fn left_loaded(chip: &Swtpm) -> Vec<u32> {
    chip.left_loaded().expect("the chip answers")
}

fn signs(tpm: &Tpm, key: &KeyBlob) -> Result<Vec<u8>, TpmError> {
    let key = key.clone();
    tpm.run_blocking("sign", move |chip| chip.sign_digest(&key, &[1; 32]))
}

/// Tries until it works.
fn eventually<T>(mut attempt: impl FnMut() -> Result<T, TpmError>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "still: {error}"),
        }
        thread::yield_now();
    }
}

#[test]
fn an_absent_tpm_is_named_at_once() {
    let mut chip = chip();
    chip.stop().expect("off");
    let started = Instant::now();
    let error = Tpm::open_blocking(chip.address()).expect_err("nothing is there");
    assert!(matches!(error, TpmError::Absent { .. }), "{error}");
    assert!(error.to_string().contains(&chip.tcti()), "{error}");
    assert!(started.elapsed() < DEADLINE);

    let missing: TpmAddress = "/dev/ironroot-no-such-tpm".parse().expect("an address");
    let error = Tpm::open_blocking(missing).expect_err("nothing is there");
    let reason = std::error::Error::source(&error).expect("the system's reason").to_string();
    assert!(reason.contains("No such file"), "{reason}");
}

//= FLT-T2
#[test]
fn works_again_when_a_vanished_tpm_comes_back() {
    let mut chip = chip();
    let tpm = open(&chip);
    let key = run(&tpm, Chip::create_signing_key);
    chip.stop().expect("off");
    for _ in 0..5 {
        let error = signs(&tpm, &key).expect_err("the TPM is off");
        assert!(matches!(error, TpmError::Absent { .. }), "{error}");
    }
    chip.start_again().expect("on");
    eventually(|| signs(&tpm, &key));
}

#[test]
fn a_restart_between_two_jobs_goes_unnoticed() {
    let mut chip = chip();
    let tpm = open(&chip);
    let key = run(&tpm, Chip::create_signing_key);
    for _ in 0..5 {
        chip.power_cycle().expect("power cycle");
        signs(&tpm, &key).expect("connects again by itself");
    }
}

//= FLT-T2
#[test]
fn a_tpm_that_dies_in_the_middle_of_a_command_fails_only_that_job() {
    let mut chip = chip();
    let tpm = open(&chip);
    let key = run(&tpm, Chip::create_signing_key);
    assert_eq!(left_loaded(&chip), [0u32; 0], "nothing is under way");

    chip.freeze().expect("frozen");
    let (began, begun) = mpsc::channel();
    let (hanging, blob) = (tpm.clone(), key.clone());
    let job = thread::spawn(move || {
        hanging.run_blocking("sign", move |chip| {
            began.send(()).expect("the test waits");
            chip.sign_digest(&blob, &[1; 32])
        })
    });
    begun.recv().expect("the command is on its way");
    let (waiting, blob) = (tpm.clone(), key.clone());
    let behind = thread::spawn(move || signs(&waiting, &blob));
    chip.stop().expect("off");
    for job in [job, behind] {
        let error = job.join().expect("no panic").expect_err("the TPM died");
        assert!(matches!(error, TpmError::Absent { .. } | TpmError::Transport(_)), "{error}");
    }

    chip.start_again().expect("on");
    eventually(|| signs(&tpm, &key));
    assert_eq!(left_loaded(&chip), [0u32; 0]);
}

#[test]
fn a_reset_without_startup_is_a_finding_not_a_retry() {
    let chip = chip();
    let tpm = open(&chip);
    let key = run(&tpm, Chip::create_signing_key);
    chip.reset_without_startup().expect("reset");
    let error = signs(&tpm, &key).expect_err("no TPM2_Startup");
    assert!(matches!(error, TpmError::NotStarted(_)), "{error}");
    assert!(error.to_string().contains("TPM_RC_INITIALIZE (0x100)"), "{error}");

    chip.reset().expect("reset and startup");
    signs(&tpm, &key).expect("works again");
}

//= TPM-34
#[test]
fn twenty_power_cuts_after_use_do_not_lock_the_chip() {
    let mut chip = chip();
    let tpm = open(&chip);
    let (ak, key) = (run(&tpm, Chip::create_attestation_key), run(&tpm, Chip::create_signing_key));
    let sealed = run(&tpm, |chip| chip.seal(b"secret", PcrSelection::NONE));
    let counted = run(&tpm, |chip| chip.counter_increment(DEFAULT_COUNTER_INDEX, None));
    for _ in 0..20 {
        let (ak, key, sealed) = (ak.clone(), key.clone(), sealed.clone());
        run(&tpm, move |chip| {
            chip.quote(&ak, &[0; 32], PcrHash::Sha256, PcrSelection::NONE)?;
            chip.sign_digest(&key, &[0; 32])?;
            chip.counter_read(DEFAULT_COUNTER_INDEX, None)?;
            chip.unseal(&sealed, PcrSelection::NONE)
        });
        chip.power_cycle().expect("power cut");
    }
    let failed_tries = chip.esys().expect("ESYS").get_tpm_property(PropertyTag::LockoutCounter).expect("a property");
    assert_eq!(failed_tries, Some(0));
    assert_eq!(run(&tpm, |chip| chip.counter_read(DEFAULT_COUNTER_INDEX, None)), Some(counted));
}

//= TPM-34 FLT-T3
#[test]
fn a_locked_out_chip_still_serves_the_agent() {
    let chip = chip();
    let tpm = open(&chip);
    let ek = run(&tpm, Chip::endorsement_key);
    let (ak, key) = (run(&tpm, Chip::create_attestation_key), run(&tpm, Chip::create_signing_key));
    let sealed = run(&tpm, |chip| chip.seal(b"secret", PcrSelection::NONE));
    lock_out(&chip);

    signs(&tpm, &key).expect("noDA");
    let credential = {
        let (ek, ak) = (Public::parse(&ek.public).expect("EK"), Public::parse(&ak.public).expect("AK"));
        make_credential(&ek, ak.name(), &[7; 32]).expect("credential")
    };
    run(&tpm, move |chip| {
        chip.activate_credential(&ak, &credential.id_object, &credential.encrypted_secret)?;
        chip.quote(&ak, &[0; 32], PcrHash::Sha256, PcrSelection::NONE)?;
        chip.create_attestation_key()?;
        chip.counter_increment(DEFAULT_COUNTER_INDEX, None)?;
        chip.seal(b"another", PcrSelection::NONE)?;
        chip.unseal(&sealed, PcrSelection::NONE)
    });
}

/// Wrong passwords for a key without noDA, until TPM_RC_LOCKOUT.
fn lock_out(chip: &Swtpm) {
    let mut esys = chip.esys().expect("ESYS");
    let template = create_unrestricted_signing_ecc_public(
        EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)),
        EccCurve::NistP256,
    )
    .expect("template");
    assert!(!template.object_attributes().no_da());
    let right = Auth::try_from(b"right".as_slice()).expect("auth");
    let key = esys
        .execute_with_session(Some(AuthSession::Password), |esys| {
            esys.create_primary(Hierarchy::Owner, template, Some(right), None, None, None)
        })
        .expect("key")
        .key_handle;
    esys.tr_set_auth(key.into(), Auth::try_from(b"wrong".as_slice()).expect("auth")).expect("set");
    let ticket: HashcheckTicket =
        TPMT_TK_HASHCHECK { tag: TPM2_ST_HASHCHECK, hierarchy: TPM2_RH_NULL, digest: Default::default() }
            .try_into()
            .expect("ticket");
    let locked = (0..40).any(|_| {
        let digest = Digest::try_from([0; 32].as_slice()).expect("digest");
        let signed = esys.execute_with_session(Some(AuthSession::Password), |esys| {
            esys.sign(key, digest, SignatureScheme::Null, ticket.clone())
        });
        signed.expect_err("wrong password").to_string().contains("DA lockout mode")
    });
    assert!(locked, "wrong passwords lock the chip");
    esys.flush_context(key.into()).expect("flushed");
}

//= FLT-T1
#[test]
fn nothing_stays_loaded_after_fifty_jobs_that_work_and_fail() {
    let chip = chip();
    let tpm = open(&chip);
    let (ak, key) = (run(&tpm, Chip::create_attestation_key), run(&tpm, Chip::create_signing_key));
    let none = PcrSelection::NONE;
    let boot: PcrSelection = "0,7".parse().expect("PCRs");
    let sealed = run(&tpm, move |chip| chip.seal(b"secret", boot));
    let mut failed = 0;
    for number in 0..50 {
        let (ak, key, sealed) = (ak.clone(), key.clone(), sealed.clone());
        let result = tpm.run_blocking("mixed", move |chip| match number % 10 {
            0 => chip.quote(&ak, &[0; 32], PcrHash::Sha256, none).map(drop),
            1 => chip.certify(&key, &ak, &[0; 32]).map(drop),
            2 => chip.unseal(&sealed, boot).map(drop),
            // Wrong policy, wrong credential, wrong parent, restricted key for a digest, damaged blob.
            3 => chip.unseal(&sealed, none).map(drop),
            4 => chip.activate_credential(&ak, &[0; 50], &[0; 70]).map(drop),
            5 => chip.quote(&key, &[0; 32], PcrHash::Sha256, none).map(drop),
            6 => chip.sign_digest(&KeyBlob { parent: key.parent.clone(), ..ak.clone() }, &[0; 32]).map(drop),
            7 => chip.certify(&sealed, &ak, &[0; 32]).map(drop),
            8 => chip.clock(&ak).map(drop),
            _ => chip.sign_digest(&key, &[0; 32]).map(drop),
        });
        failed += usize::from(result.is_err());
        assert_eq!(left_loaded(&chip), [0u32; 0], "after job {number}: {result:?}");
    }
    assert!((20..50).contains(&failed), "{failed} of 50 were to fail");
}

//= FLT-T1 FLT-T11
#[test]
fn frees_the_slots_that_a_killed_process_left_full() {
    let chip = chip();
    let mut dead = chip.esys().expect("ESYS");
    let template = create_ek_public_from_default_template(AsymmetricAlgorithm::Ecc, None).expect("template");
    for _ in 0..3 {
        dead.execute_with_session(Some(AuthSession::Password), |esys| {
            esys.create_primary(Hierarchy::Endorsement, template.clone(), None, None, None, None)
        })
        .expect("a slot");
        dead.start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .expect("a session");
    }
    // A killed process flushes nothing.
    std::mem::forget(dead);
    assert_eq!(chip.loaded_handles().expect("the chip answers").len(), 6);

    let tpm = open(&chip);
    let ak = run(&tpm, Chip::create_attestation_key);
    run(&tpm, move |chip| chip.quote(&ak, &[0; 32], PcrHash::Sha256, PcrSelection::NONE));
    assert_eq!(left_loaded(&chip), [0u32; 0]);
}

#[test]
fn a_job_that_panics_takes_nobody_with_it() {
    let chip = chip();
    let tpm = open(&chip);
    let error = tpm.run_blocking::<()>("broken", |_| panic!("a bug in a job")).expect_err("no answer");
    assert!(matches!(error, TpmError::Stopped { what: "broken" }), "{error}");
    run(&tpm, Chip::create_signing_key);
    assert_eq!(left_loaded(&chip), [0u32; 0]);
}

#[test]
fn a_dropped_future_withdraws_its_job() {
    let chip = chip();
    let tpm = open(&chip);
    let (began, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let holder = tpm.clone();
    let holding = thread::spawn(move || {
        holder.run_blocking("hold", move |_| {
            began.send(()).expect("the test waits");
            released.recv().expect("the test releases");
            Ok(())
        })
    });
    begun.recv().expect("the TPM's thread is busy");

    let (ran, runs) = mpsc::channel();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let withdrawn = tpm.run("withdrawn", move |_| {
            ran.send(()).expect("the test reads");
            Ok(())
        });
        // Polled once, so it is queued; then dropped.
        tokio::time::timeout(Duration::ZERO, withdrawn).await.expect_err("the thread is busy");
    });
    release.send(()).expect("the job waits");
    holding.join().expect("no panic").expect("held");
    run(&tpm, Chip::probe);
    assert_eq!(runs.recv(), Err(mpsc::RecvError), "the job was dropped without being run");
}

#[tokio::test]
async fn signs_inside_block_on_where_tls_asks_for_it() {
    let chip = chip();
    let tpm = Tpm::open(chip.address()).await.expect("the TPM answers");
    let key = tpm.run("key", Chip::create_signing_key).await.expect("a key");
    let handle = tokio::runtime::Handle::current();
    let signature = tokio::task::spawn_blocking(move || handle.block_on(async move { signs(&tpm, &key) }));
    signature.await.expect("no panic").expect("a signature");
}
