//! PCR 7: what whoever has the device can write into a log that leads to the register all the same.

use ironroot_attest::event_log::{SecureBoot, SecureBootError, SecureBootVariable};
use ironroot_software_tpm::{BootLog, efi_variable, kind, vendor};

use crate::verify;

fn read(log: &BootLog) -> Result<SecureBoot, SecureBootError> {
    verify(log, &[7]).expect("it leads to the register").secure_boot()
}

/// A log with these events in PCR 7.
fn events(events: &[(u32, Vec<u8>)]) -> BootLog {
    let mut log = BootLog::new();
    events.iter().for_each(|(kind, data)| log.measure(7, *kind, data));
    log
}

fn setting(name: &str, content: &[u8]) -> (u32, Vec<u8>) {
    let vendor = if name.starts_with("db") { &vendor::IMAGE_SECURITY } else { &vendor::GLOBAL };
    (kind::EFI_VARIABLE_DRIVER_CONFIG, efi_variable(vendor, name, content))
}

fn separator() -> (u32, Vec<u8>) {
    (kind::SEPARATOR, vec![0; 4])
}

fn action(text: &str) -> (u32, Vec<u8>) {
    (kind::EFI_ACTION, text.as_bytes().to_vec())
}

fn authority(name: &str) -> (u32, Vec<u8>) {
    (kind::EFI_VARIABLE_AUTHORITY, efi_variable(&vendor::IMAGE_SECURITY, name, b"certificate"))
}

/// What firmware measures with Secure Boot on.
fn honest() -> Vec<(u32, Vec<u8>)> {
    let keys = ["PK", "KEK", "db", "dbx"].map(|name| setting(name, b"key"));
    [vec![setting("SecureBoot", &[1])], keys.to_vec(), vec![separator(), authority("db")]].concat()
}

#[test]
fn on_and_off_are_told_with_the_digests_of_the_keys() {
    let on = read(&events(&honest())).expect("told");
    assert!(on.enabled && SecureBootVariable::ALL.iter().all(|variable| on.variable(*variable).is_some()));
    assert!(read(&BootLog::booted(true, b"x")).expect("told").enabled);
    let off = read(&BootLog::booted(false, b"x")).expect("told");
    assert_eq!((off.enabled, off.variables.len()), (false, 4));
}

//= TPM-30
#[test]
fn types_rewritten_and_events_appended_do_not_turn_secure_boot_on() {
    let off = [vec![setting("SecureBoot", &[0])], honest()[1..6].to_vec()].concat();
    let lies = honest();
    // The true events under a type that a careless reader passes over, then those of a machine with Secure Boot on.
    for unused in [0x2, kind::EFI_BOOT_SERVICES_APPLICATION, kind::IPL, kind::EFI_VARIABLE_AUTHORITY] {
        let hidden = off.iter().map(|(_, data)| (unused, data.clone())).collect::<Vec<_>>();
        let refusal = read(&events(&[hidden, lies.clone()].concat())).expect_err("not told");
        assert!(
            matches!(refusal, SecureBootError::EventType { .. } | SecureBootError::Malformed { .. }),
            "{unused:#x}: {refusal}"
        );
    }
    let appended = [off.clone(), lies.clone()].concat();
    assert_eq!(read(&events(&appended)), Err(SecureBootError::Separators(2)));
    let appended = [off, lies[..1].to_vec()].concat();
    assert!(matches!(read(&events(&appended)), Err(SecureBootError::SettingBehindSeparator { event: 7 })));
}

//= TPM-30
#[test]
fn data_that_was_not_measured_counts_for_nothing() {
    let mut log = BootLog::new();
    for (place, (kind, data)) in honest().into_iter().enumerate() {
        // The digest of "off" beside data that says "on".
        let measured = if place == 0 { setting("SecureBoot", &[0]).1 } else { data.clone() };
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &measured);
        log.event(7, kind, hash.as_ref().try_into().expect("32 bytes"), &data);
    }
    assert_eq!(read(&log), Err(SecureBootError::Digest { event: 1 }));
}

//= TPM-32
#[test]
fn without_one_separator_or_with_a_variable_twice_nothing_is_told() {
    let without = honest().into_iter().filter(|event| *event != separator()).collect::<Vec<_>>();
    assert_eq!(read(&events(&without)), Err(SecureBootError::Separators(0)));
    let mut wrong = honest();
    wrong[5].1 = vec![0xff; 4];
    assert_eq!(read(&events(&wrong)), Err(SecureBootError::Malformed { event: 6 }));
    for name in ["SecureBoot", "db", "AuditMode"] {
        let twice = [vec![setting(name, &[0]), setting(name, &[1])], honest()].concat();
        assert_eq!(read(&events(&twice)), Err(SecureBootError::VariableTwice(name.into())), "{name}");
    }
}

#[test]
fn secure_boot_that_is_on_has_its_keys_and_somebody_who_vouched() {
    for missing in ["PK", "KEK", "db"] {
        let rest = honest().into_iter().filter(|event| *event != setting(missing, b"key")).collect::<Vec<_>>();
        assert_eq!(read(&events(&rest)), Err(SecureBootError::Without(missing)));
    }
    let unvouched = honest()[..6].to_vec();
    assert!(matches!(read(&events(&unvouched)), Err(SecureBootError::Without(_))));
    assert_eq!(read(&events(&[separator()])), Err(SecureBootError::NoVariable));
    let other = [vec![setting("SecureBoot", &[2])], honest()[1..].to_vec()].concat();
    assert_eq!(read(&events(&other)), Err(SecureBootError::Value));
}

#[test]
fn names_count_with_their_vendor_alone() {
    for (place, vendor) in [(0, &vendor::IMAGE_SECURITY), (1, &vendor::IMAGE_SECURITY), (3, &vendor::GLOBAL)] {
        let mut foreign = honest();
        foreign[place].1[..16].copy_from_slice(vendor);
        assert!(matches!(read(&events(&foreign)), Err(SecureBootError::Vendor { .. })), "event {place}");
    }
    let mut cut = honest();
    cut[1].1.pop();
    assert_eq!(read(&events(&cut)), Err(SecureBootError::Malformed { event: 2 }));
}

#[test]
fn a_machine_that_was_being_debugged_tells_nothing_and_open_memory_is_told() {
    let with = |text: &str| events(&[vec![action(text)], honest()].concat());
    assert_eq!(read(&with("UEFI Debug Mode")), Err(SecureBootError::DebugMode));
    assert!(read(&with("DMA Protection Disabled")).expect("told").dma_unprotected);
    assert!(!read(&events(&honest())).expect("told").dma_unprotected);
    assert!(matches!(read(&with("anything else")), Err(SecureBootError::Malformed { event: 1 })));
}

#[test]
fn shims_authorities_are_taken_although_it_measures_a_byte_less() {
    let (kind, data) = authority("Shim");
    let short = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &data[..data.len() - 1]);
    let mut log = events(&honest());
    log.event(7, kind, short.as_ref().try_into().expect("32 bytes"), &data);
    assert!(read(&log).expect("told").enabled);
}
