//! Somebody sits on the bus between agent and chip: what he reads, what he achieves by changing it, and when he lets an answer through.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ironroot_attest::node::tpm2::PcrSelection;
use ironroot_attest::structures::{Public, make_credential};
use ironroot_attest::tpm::{Chip, CounterAt, KeyBlob, Tpm, TpmError};
use ironroot_lab::interposer::Interposer;
use ironroot_lab::storage_root::{STORAGE_ROOT_HANDLE, persist_storage_root, public_and_name, told};
use ironroot_lab::swtpm::Swtpm;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::NvIndexTpmHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, MaxNvBuffer, NvPublicBuilder};

/// TPM_CC_CreatePrimary.
const CREATE_PRIMARY: u32 = 0x131;
/// TPM_CC_Unseal.
const UNSEAL: u32 = 0x15e;
/// TPM_CC_NV_ReadPublic.
const NV_READ_PUBLIC: u32 = 0x169;
/// TPM_CC_NV_Read.
const NV_READ: u32 = 0x14e;
/// TPM_CC_FlushContext.
const FLUSH_CONTEXT: u32 = 0x165;

/// TPM_CC_StartAuthSession.
const START_AUTH_SESSION: u32 = 0x176;
/// TPM_CC_ReadPublic.
const READ_PUBLIC: u32 = 0x173;
/// Where he has a key of his own.
const HIS_HANDLE: u32 = 0x8100_0077;
/// Where the counter is.
const INDEX: u32 = 0x0180_0100;

fn replace(message: &mut [u8], old: &[u8], new: &[u8]) {
    for start in 0..message.len().saturating_sub(old.len() - 1) {
        if message[start..start + old.len()] == *old {
            message[start..start + old.len()].copy_from_slice(new);
        }
    }
}

//= TPM-13
#[test]
fn no_secret_crosses_the_bus_in_the_clear() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let (sealed_secret, activation_secret) = ([0xc5; 32], [0x3a; 32]);

    let sealed = tpm.run_blocking("seal", move |chip| chip.seal(&sealed_secret, PcrSelection::NONE)).expect("sealed");
    let unsealed = tpm.run_blocking("unseal", move |chip| chip.unseal(&sealed, PcrSelection::NONE)).expect("unsealed");
    assert_eq!(unsealed[..], sealed_secret);

    let ek = tpm.run_blocking("ek", Chip::endorsement_key).expect("EK");
    let ak = tpm.run_blocking("ak", Chip::create_attestation_key).expect("AK");
    let ak_public = Public::parse(&ak.public).expect("AK");
    let credential =
        make_credential(&Public::parse(&ek.public).expect("EK"), ak_public.name(), &activation_secret).expect("made");
    let activated = tpm
        .run_blocking("activate", move |chip| {
            chip.activate_credential(&ak, &credential.id_object, &credential.encrypted_secret)
        })
        .expect("activated");
    assert_eq!(activated[..], activation_secret);

    // What is public was seen, so the ear works.
    assert!(bus.has_seen(&ek.public));
    assert!(!bus.has_seen(&sealed_secret[..8]));
    assert!(!bus.has_seen(&activation_secret[..8]));
}

/// A chip with a storage root key at its handle, and one of his at another.
fn chip_with_two_roots() -> (Swtpm, Interposer) {
    let chip = Swtpm::start().expect("swtpm starts");
    persist_storage_root(&chip, 0x55, STORAGE_ROOT_HANDLE).expect("persistent");
    persist_storage_root(&chip, 0x77, HIS_HANDLE).expect("persistent");
    let bus = Interposer::before(&chip).expect("an interposer");
    (chip, bus)
}

// He tells of a persistent storage root key the point of another, under the name that the key has.
//= TPM-13
#[test]
fn no_session_is_salted_to_a_key_that_the_bus_tells_in_the_persistent_ones_place() {
    let (chip, bus) = chip_with_two_roots();
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = sealed(&chip, &tpm);
    drop(tpm);

    let ((_, name), (his, _)) = (keys(&chip, STORAGE_ROOT_HANDLE), keys(&chip, HIS_HANDLE));
    assert_eq!(name, sealed.parent);
    let tells = told(&his, &name);
    bus.tamper(move |code, response| {
        assert_ne!(code, START_AUTH_SESSION, "a session is salted");
        if code == READ_PUBLIC {
            *response = tells.clone();
        }
    });
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let (blob, known) = (sealed.clone(), sealed.clone());
    let unsealed = tpm.run_blocking("unseal", move |chip| chip.unseal(&blob, PcrSelection::NONE));
    assert!(matches!(unsealed, Err(TpmError::ForeignParent)), "{unsealed:?}");
    let counted = tpm.run_blocking("count", move |chip| chip.counter_read(INDEX, Some(&known)));
    assert!(matches!(counted, Ok(None)), "there is none: {counted:?}");
    drop(tpm);

    // Sealing asks for the policy of now in a session that protects nothing.
    let mut sessions = 0;
    let tells = told(&his, &name);
    bus.tamper(move |code, response| {
        sessions += usize::from(code == START_AUTH_SESSION);
        assert!(sessions < 2, "a session is salted");
        if code == READ_PUBLIC {
            *response = tells.clone();
        }
    });
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let seal = move |chip: &mut Chip| chip.seal_beside(Some(&sealed), b"secret", PcrSelection::NONE);
    let resealed = tpm.run_blocking("seal", seal);
    assert!(matches!(resealed, Err(TpmError::ForeignParent)), "{resealed:?}");
}

// A chip that has his key where the storage root key is expected; the real one, which the sessions are salted to, is somewhere else, and
// whoever asks for it is led there. The name that goes into the HMAC of TPM2_Create is the one that was told.
//= TPM-13
#[test]
fn a_secret_that_was_wrapped_under_another_parent_is_not_used() {
    let (chip, bus) = chip_with_two_roots();
    let ((_, his_name), (public, name)) = (keys(&chip, STORAGE_ROOT_HANDLE), keys(&chip, HIS_HANDLE));
    let (lies, truth) = (told(&public, &his_name), told(&public, &name));
    let mut reads = 0;
    bus.tamper(move |code, response| {
        if code == READ_PUBLIC {
            reads += 1;
            *response = if reads == 1 { lies.clone() } else { truth.clone() };
        }
    });
    bus.tamper_with_commands(|code, command| {
        if code == START_AUTH_SESSION && command[10..14] == STORAGE_ROOT_HANDLE.to_be_bytes() {
            command[10..14].copy_from_slice(&HIS_HANDLE.to_be_bytes());
        }
    });
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = tpm.run_blocking("seal", |chip| chip.seal(b"secret", PcrSelection::NONE));
    assert!(matches!(sealed, Err(TpmError::Malformed { command: "TPM2_Create", .. })), "{sealed:?}");
}

fn keys(chip: &Swtpm, handle: u32) -> (Vec<u8>, Vec<u8>) {
    public_and_name(chip, handle).expect("a key")
}

//= TPM-14 TPM-42 FLT-T7
#[test]
fn a_changed_answer_is_named_a_forgery() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = tpm.run_blocking("seal", |chip| chip.seal(b"secret", PcrSelection::NONE)).expect("sealed");
    bus.tamper(|code, response| {
        if code == UNSEAL {
            // The first byte of the encrypted secret: header, parameterSize, TPM2B size.
            response[16] ^= 1;
        }
    });
    let blob = sealed.clone();
    let error = tpm.run_blocking("unseal", move |chip| chip.unseal(&blob, PcrSelection::NONE)).expect_err("forged");
    assert!(matches!(error, TpmError::Forged(_)), "{error}");

    // The library cannot even flush any more after that; what was loaded goes before the next task begins.
    bus.tamper(|_, _| ());
    tpm.run_blocking("unseal", move |chip| chip.unseal(&sealed, PcrSelection::NONE)).expect("works again");
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
}

/// Has the chip seal something, and nothing left to do.
fn sealed(chip: &Swtpm, tpm: &Tpm) -> KeyBlob {
    let sealed = tpm.run_blocking("seal", |chip| chip.seal(b"secret", PcrSelection::NONE)).expect("sealed");
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0]);
    sealed
}

#[test]
fn whoever_waits_for_the_chip_has_the_answer_before_its_slots_are_given_back() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = sealed(&chip, &tpm);

    // No flush is answered until this is dropped.
    let (held, until_dropped) = mpsc::channel::<()>();
    bus.tamper(move |code, _| {
        if code == FLUSH_CONTEXT {
            let _ = until_dropped.recv();
        }
    });
    let unsealed = tpm.run_blocking("unseal", move |chip| chip.unseal(&sealed, PcrSelection::NONE)).expect("unsealed");
    assert_eq!(unsealed[..], *b"secret");
    drop(held);
    assert_eq!(chip.left_loaded().expect("the chip answers"), [0u32; 0], "and given back they are");
}

#[test]
fn a_process_that_ends_with_its_answer_leaves_nothing_in_the_chip() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = sealed(&chip, &tpm);
    let ((first, begun), (held, until_dropped)) = (mpsc::channel(), mpsc::channel::<()>());
    bus.tamper(move |code, _| {
        if code == FLUSH_CONTEXT {
            let _ = first.send(());
            let _ = until_dropped.recv();
        }
    });
    tpm.run_blocking("unseal", move |chip| chip.unseal(&sealed, PcrSelection::NONE)).expect("unsealed");
    begun.recv().expect("the first flush is under way");
    let ending = thread::spawn(move || drop(tpm));
    let deadline = Instant::now() + Duration::from_millis(100);
    while !ending.is_finished() && Instant::now() < deadline {
        thread::yield_now();
    }
    assert!(!ending.is_finished(), "it waits for what is to be flushed");
    drop(held);
    ending.join().expect("no panic");
    assert_eq!(chip.loaded_handles().expect("the chip answers"), [0u32; 0]);
}

// He has put an index in the counter's place that holds what he likes, and tells whoever asks that it is the counter: that nobody can count
// it back, or whose it is.
//= TPM-14
#[test]
fn an_index_that_is_no_counter_is_not_taken_for_one_whatever_the_bus_says_of_it() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let owner = [7; 32];
    define(&chip, INDEX, &owner);
    // After header, sizes, index and nameAlg the attributes: TPM_NT_COUNTER in bits 4 to 7 of the last byte (Part 2 §13.4).
    bus.tamper(|code, response| {
        if code == NV_READ_PUBLIC {
            response[21] |= 0x10;
        }
    });
    let error = tpm.run_blocking("look", move |chip| chip.counter_of(INDEX, &owner, None)).expect_err("a lie");
    assert!(matches!(error, TpmError::Malformed { command: "TPM2_NV_ReadPublic", .. }), "{error}");
    let error = tpm.run_blocking("read", |chip| chip.counter_read(INDEX, None)).expect_err("a lie");
    assert!(matches!(error, TpmError::Malformed { command: "TPM2_NV_ReadPublic", .. }), "{error}");

    // The policy follows its length: here another owner is named.
    bus.tamper(|code, response| {
        if code == NV_READ_PUBLIC {
            response[24] ^= 1;
        }
    });
    let error = tpm.run_blocking("look", move |chip| chip.counter_of(INDEX, &owner, None)).expect_err("a lie");
    assert!(matches!(error, TpmError::Malformed { command: "TPM2_NV_ReadPublic", .. }), "{error}");

    bus.tamper(|_, _| ());
    let found = tpm.run_blocking("look", |chip| chip.counter_of(INDEX, &[8; 32], None)).expect("the truth");
    assert_eq!(found, CounterAt::Others(owner.to_vec()));
}

/// What a chip says whose index is the counter of `owner`, to whoever asks.
fn word_of_an_honest_chip(index: u32, owner: [u8; 32]) -> Vec<u8> {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    tpm.run_blocking("define", move |chip| chip.counter_define(index, &owner)).expect("defined");
    tpm.run_blocking("count", move |chip| chip.counter_increment(index, None)).expect("counted");
    let (heard, said) = mpsc::channel();
    bus.tamper(move |code, response| {
        if code == NV_READ_PUBLIC {
            let _ = heard.send(response.to_vec());
        }
    });
    tpm.run_blocking("look", move |chip| chip.counter_of(index, &owner, None)).expect("the truth");
    said.recv().expect("it was asked")
}

//= TPM-14
#[test]
fn the_counter_that_is_read_beside_the_secret_is_the_chips_own_and_its_value_the_chips_word() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = sealed(&chip, &tpm);
    let open = |index: u32, owner: [u8; 32]| {
        let sealed = sealed.clone();
        tpm.run_blocking("open", move |chip| chip.counter_and_unseal((index, &owner), (&sealed, PcrSelection::NONE)))
    };
    let (owner, other) = ([7; 32], [8; 32]);
    define(&chip, INDEX, &owner);
    tpm.run_blocking("define", move |chip| chip.counter_define(INDEX + 1, &owner)).expect("defined");

    for (index, owner, what) in [
        (INDEX, owner, "an ordinary index"),
        (INDEX + 1, owner, "a counter that was never raised"),
        (INDEX + 2, owner, "nothing at all"),
    ] {
        let (counter, secret) = open(index, owner).expect("unsealed");
        assert_eq!((counter, &secret[..]), (None, b"secret".as_slice()), "{what}");
    }
    let raised = tpm.run_blocking("count", move |chip| chip.counter_increment(INDEX + 1, None)).expect("counted");
    assert_eq!(open(INDEX + 1, owner).expect("unsealed").0, Some(raised));
    assert_eq!(open(INDEX + 1, other).expect("unsealed").0, None, "of another agent");

    // The name that the counter would have, of the index that is none.
    let word = word_of_an_honest_chip(INDEX, owner);
    bus.tamper(move |code, response| {
        if code == NV_READ_PUBLIC {
            response.copy_from_slice(&word);
        }
    });
    open(INDEX, owner).expect_err("the chip hears of another index than it has");
    // What the counter would be, and the name of what is there, which goes into the HMAC: size and area, then size and name.
    let word = word_of_an_honest_chip(INDEX, owner);
    bus.tamper(move |code, response| {
        if code == NV_READ_PUBLIC {
            let area = 12 + usize::from(u16::from_be_bytes([response[10], response[11]]));
            response[..area].copy_from_slice(&word[..area]);
        }
    });
    let lie = open(INDEX, owner).expect_err("an area and a name that do not belong together");
    assert!(matches!(lie, TpmError::Malformed { command: "TPM2_NV_ReadPublic", .. }), "{lie}");

    bus.tamper(|code, response| {
        if code == NV_READ {
            *response.last_mut().expect("an answer") ^= 1;
        }
    });
    let error = open(INDEX + 1, owner).expect_err("a changed answer");
    assert!(matches!(error, TpmError::Forged(_)), "{error}");
    // After header and size of the parameters: the length of the value, and the value.
    bus.tamper(|code, response| {
        if code == NV_READ {
            response[16] ^= 1;
        }
    });
    let error = open(INDEX + 1, owner).expect_err("a changed value");
    assert!(matches!(error, TpmError::Forged(_)), "{error}");
    bus.tamper(|_, _| ());
    assert_eq!(open(INDEX + 1, owner).expect("unsealed").0, Some(raised));
}

/// An ordinary index of eight bytes, in the name of `owner`, written once.
fn define(chip: &Swtpm, index: u32, owner: &[u8; 32]) {
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Ordinary)
        .with_owner_read(true)
        .with_owner_write(true)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .build()
        .expect("legal");
    let public = NvPublicBuilder::new()
        .with_nv_index(NvIndexTpmHandle::new(index).expect("an NV index"))
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_index_auth_policy(Digest::try_from(owner.as_slice()).expect("a digest"))
        .with_data_area_size(8)
        .build()
        .expect("legal");
    let mut esys = chip.esys().expect("the TPM answers");
    esys.execute_with_session(Some(AuthSession::Password), |esys| {
        let handle = esys.nv_define_space(Provision::Owner, None, public)?;
        esys.nv_write(NvAuth::NvIndex(handle), handle, MaxNvBuffer::try_from([0xff; 8].as_slice())?, 0)
    })
    .expect("defined and written");
}

// Row 14 of the attack table: he puts his own key in the place of the storage root key, so that the session's salt is
// encrypted to him. The root key's name is in the blob, and his has another.
//= TPM-14
#[test]
fn a_swapped_root_key_is_noticed_before_anything_is_encrypted_to_it() {
    let chip = Swtpm::start().expect("swtpm starts");
    let bus = Interposer::before(&chip).expect("an interposer");
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let sealed = tpm.run_blocking("seal", |chip| chip.seal(b"secret", PcrSelection::NONE)).expect("sealed");

    // The victim starts again: it has to make the root key anew, for which it kept nothing but the name.
    drop(tpm);
    let tpm = Tpm::open_blocking(bus.address()).expect("the TPM answers");
    let his_key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let his_point = his_key.public_key().as_ref()[1..].to_vec();
    bus.tamper(move |code, response| {
        if code == CREATE_PRIMARY {
            swap_public(response, &his_point);
        }
    });
    let error = tpm.run_blocking("unseal", move |chip| chip.unseal(&sealed, PcrSelection::NONE)).expect_err("swapped");
    assert!(matches!(error, TpmError::ForeignParent), "{error}");
}

/// Replaces the point of outPublic, and the name that belongs to it, in a response to TPM2_CreatePrimary.
fn swap_public(response: &mut [u8], point: &[u8]) {
    // Header, handle, parameterSize; then TPM2B_PUBLIC.
    let length = usize::from(u16::from_be_bytes([response[18], response[19]]));
    let public = response[20..20 + length].to_vec();
    let mut swapped = public.clone();
    // A P-256 public area ends with x and y, each with its length before it.
    let x = length - 66;
    swapped[x..x + 32].copy_from_slice(&point[..32]);
    swapped[x + 34..].copy_from_slice(&point[32..]);
    replace(response, &public, &swapped);
    replace(response, digest(&SHA256, &public).as_ref(), digest(&SHA256, &swapped).as_ref());
}
