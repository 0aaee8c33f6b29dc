//! What chips and what stands between them and us do now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ironroot_attest::tpm::{Chip, Tpm, TpmError, TpmSettings};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::manufacturer::Manufacturer;

use crate::bench::{attest, chip, open, run, run_err};

const ACTIVATE_CREDENTIAL: u32 = 0x147;
const CREATE: u32 = 0x153;
const GET_CAPABILITY: u32 = 0x17a;
const NV_READ: u32 = 0x14e;
const POLICY_RESTART: u32 = 0x180;
const SELF_TEST: u32 = 0x143;
const SIGN: u32 = 0x15d;

const NEEDS_TEST: u32 = 0x153;
const CANCELED: u32 = 0x909;

/// A response without anything but this code.
fn code(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

/// Answers a command with a code, `times` times.
fn answer(bus: &Interposer, command: u32, with: u32, times: usize) -> Arc<AtomicUsize> {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    bus.tamper(move |sent, response| {
        if sent == command && counter.fetch_add(1, Ordering::Relaxed) < times {
            *response = code(with);
        }
    });
    seen
}

//= FLT-T1
#[test]
fn a_self_test_is_sent_once_when_the_chip_asks_for_it() {
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(bus.address());
    let (asked, tests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asking, testing) = (Arc::clone(&asked), Arc::clone(&tests));
    bus.tamper(move |sent, response| {
        if sent == SELF_TEST {
            testing.fetch_add(1, Ordering::Relaxed);
        } else if sent == CREATE && asking.fetch_add(1, Ordering::Relaxed) == 0 {
            *response = code(NEEDS_TEST);
        }
    });
    run(&tpm, Chip::create_signing_key);
    assert_eq!((asked.load(Ordering::Relaxed), tests.load(Ordering::Relaxed)), (2, 1));

    // One that asks for ever is told apart from one that works.
    let always = answer(&bus, CREATE, NEEDS_TEST, usize::MAX);
    let error = run_err(&tpm, Chip::create_signing_key);
    assert!(error.to_string().contains("TPM_RC_NEEDS_TEST"), "{error}");
    assert!(always.load(Ordering::Relaxed) <= 2);
}

//= FLT-T1
#[test]
fn a_cancelled_command_is_tried_again_a_few_times() {
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(bus.address());
    answer(&bus, CREATE, CANCELED, 1);
    run(&tpm, Chip::create_signing_key);
    let tries = answer(&bus, CREATE, CANCELED, usize::MAX);
    let error = run_err(&tpm, Chip::create_signing_key);
    assert!(matches!(error, TpmError::Busy(_)), "{error}");
    assert!((2..10).contains(&tries.load(Ordering::Relaxed)));
}

//= FLT-T2 FLT-T7
#[test]
fn an_answer_that_is_cut_does_not_hold_the_chip_up_for_ever() {
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    let settings = TpmSettings { command_deadline: Duration::from_secs(3), ..TpmSettings::from(bus.address()) };
    let tpm = Tpm::open_blocking(settings).expect("the TPM answers");
    let key = run(&tpm, Chip::create_signing_key);
    let cut = Arc::new(AtomicUsize::new(0));
    let cutting = Arc::clone(&cut);
    bus.tamper(move |sent, response| {
        if sent == SIGN && cutting.fetch_add(1, Ordering::Relaxed) == 0 {
            response.truncate(response.len() - 3);
        }
    });
    let begun = Instant::now();
    let blob = key.clone();
    let error = run_err(&tpm, move |chip| chip.sign_digest(&blob, &[1; 32]));
    assert!(matches!(error, TpmError::Hung { command: "TPM2_Sign", .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    // On the same thread, over a new connection.
    run(&tpm, move |chip| chip.sign_digest(&key, &[1; 32]));
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
}

#[test]
fn the_policy_is_started_over_before_the_endorsement_key_is_used_again_and_no_command_is_encrypted() {
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(bus.address());
    let restarts = answer(&bus, POLICY_RESTART, 0, 0);
    attest(&tpm);
    assert_eq!(restarts.load(Ordering::Relaxed), 1, "between TPM2_Load and TPM2_ActivateCredential");

    // A chip that did not reset it: what it says has nothing to do with PCRs.
    answer(&bus, ACTIVATE_CREDENTIAL, 0x9d, usize::MAX);
    let ek = run(&tpm, Chip::endorsement_key);
    let ak = run(&tpm, Chip::create_attestation_key);
    let ek = ironroot_attest::structures::Public::parse(&ek.public).expect("EK");
    let name = ironroot_attest::structures::Public::parse(&ak.public).expect("AK").name().clone();
    let credential = ironroot_attest::structures::make_credential(&ek, &name, &[7; 32]).expect("credential");
    let sent = credential.id_object.clone();
    let error =
        run_err(&tpm, move |chip| chip.activate_credential(&ak, &credential.id_object, &credential.encrypted_secret));
    assert!(matches!(error, TpmError::PolicyRefused(_)), "{error}");
    assert!(bus.has_seen(&sent), "the credential goes as it is: it is encrypted already");
}

#[test]
fn nobody_on_the_bus_can_tell_another_value_of_the_counter() {
    const INDEX: u32 = 0x0180_0100;
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(bus.address());
    let sealed = run(&tpm, |chip| chip.seal(b"secret", "".parse().expect("none")));
    let under = sealed.clone();
    let value = run(&tpm, move |chip| chip.counter_increment(INDEX, Some(&under)));
    let under = sealed.clone();
    assert_eq!(run(&tpm, move |chip| chip.counter_read(INDEX, Some(&under))), Some(value));
    // The plain value crosses nowhere: header, parameter size, TPM2B size, then the value, encrypted.
    bus.tamper(move |sent, response| {
        if sent == NV_READ && response.len() > 24 {
            response[16..24].copy_from_slice(&7u64.to_be_bytes());
        }
    });
    let error = run_err(&tpm, move |chip| chip.counter_read(INDEX, Some(&sealed)));
    assert!(matches!(error, TpmError::Forged(_)), "{error}");
}

/// As wolfTPM's fwTPM: asked for a property that it does not have, a TPM answers with the next one.
#[test]
fn a_chip_without_a_property_is_described_without_it() {
    let chip = chip();
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(bus.address());
    let whole = run(&tpm, Chip::describe);
    bus.tamper(|sent, response| {
        // After the header, moreData, the capability and the count.
        if sent == GET_CAPABILITY && response.get(19..23) == Some(&[0, 0, 1, 0x07]) {
            response[22] = 0x0a;
        }
    });
    let described = run(&tpm, Chip::describe);
    assert_eq!((described.manufacturer, described.firmware), (whole.manufacturer, whole.firmware));
    assert!(described.model.len() < whole.model.len(), "{:?} {:?}", described.model, whole.model);
}

#[test]
fn a_chip_that_does_not_say_how_much_it_reads_at_once_is_read_in_small_pieces() {
    let chip = chip();
    let certificate = Manufacturer::new("Toy").expect("a maker").certify(&chip).expect("certified");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = open(bus.address());
    bus.tamper(|sent, response| {
        // TPM2_PT_NV_BUFFER_MAX, answered by the property behind it.
        if sent == GET_CAPABILITY && response.get(19..23) == Some(&[0, 0, 1, 0x2c]) {
            response[22] = 0x2d;
        }
    });
    assert_eq!(run(&tpm, Chip::endorsement_key).certificates.first(), Some(&certificate));
}
