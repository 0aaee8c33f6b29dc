//! Logs of real boots: `../boot_logs/README.md` says of which.

use ironroot_attest::event_log::{EventLog, EventLogError, SecureBootError, SecureBootVariable, VerifiedLog};
use ironroot_attest::node::tpm2::PcrHash;

macro_rules! boot {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../boot_logs/", $name, "/binary_bios_measurements")) as &[u8],
            include_bytes!(concat!("../boot_logs/", $name, "/pcrs_sha256.bin")) as &[u8],
        )
    };
}

type Boot = (&'static str, &'static [u8], &'static [u8]);

const BOOTS: [Boot; 6] = [
    boot!("seabios_direct_kernel"),
    boot!("ovmf_direct_kernel_sha256"),
    boot!("ovmf_direct_banks_sha1_256_384"),
    boot!("ovmf_direct_ima_tcb_ext4"),
    boot!("ovmf_secureboot_snakeoil_uki_sha256"),
    boot!("ovmf_secureboot_ms_shim_grub"),
];
const SHIM_GRUB: Boot = BOOTS[5];

/// PCRs 0 to 15 of that boot.
fn quoted(pcrs: &[u8]) -> Vec<(u8, Vec<u8>)> {
    pcrs.chunks(32).take(16).enumerate().map(|(index, value)| (index as u8, value.to_vec())).collect()
}

fn verified((name, log, pcrs): Boot) -> VerifiedLog {
    let log = EventLog::parse(log).unwrap_or_else(|error| panic!("{name}: {error}"));
    log.verify(PcrHash::Sha256, &quoted(pcrs)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_log_leads_to_the_registers_of_its_boot() {
    for boot in BOOTS {
        let (name, log) = (boot.0, verified(boot));
        for pcr in (0..10).chain(11..16) {
            assert!(log.proves(pcr), "{name}: PCR {pcr}");
        }
        assert!(!log.proves(10), "{name}: IMA extends PCR 10 after the log");
    }
}

#[test]
fn the_log_of_an_arm64_boot_leads_to_what_sysfs_told_of_its_registers() {
    let log = include_bytes!("../boot_logs/aavmf_arm64_direct_kernel/binary_bios_measurements");
    let told = include_str!("../boot_logs/aavmf_arm64_direct_kernel/pcrs_sha256.txt");
    let quoted: Vec<(u8, Vec<u8>)> =
        told.lines().filter_map(|line| line.strip_prefix("pcr")?.split_once(' ')).map(value).collect();
    assert!(quoted.len() >= 5);
    let log = EventLog::parse(log).expect("parses").verify(PcrHash::Sha256, &quoted).expect("leads there");
    assert!(quoted.iter().all(|(pcr, _)| log.proves(*pcr)));
    assert!(!log.secure_boot().expect("told").enabled);
}

#[test]
fn each_active_bank_is_led_to() {
    let (_, log, _) = BOOTS[2];
    let told = include_str!("../boot_logs/ovmf_direct_banks_sha1_256_384/pcrs_sha1.txt");
    let sha1: Vec<(u8, Vec<u8>)> =
        told.lines().filter_map(|line| line.split_once(": 0x")).map(value).filter(|(pcr, _)| *pcr < 10).collect();
    assert_eq!(sha1.len(), 10);
    let log = EventLog::parse(log).expect("parses");
    let proven = log.clone().verify(PcrHash::Sha1, &sha1).expect("leads there");
    assert!(!proven.secure_boot().expect("told").enabled);
    assert_eq!(log.verify(PcrHash::Sha512, &[]).err(), Some(EventLogError::OtherBank { bank: PcrHash::Sha512 }));
}

fn value((pcr, hex): (&str, &str)) -> (u8, Vec<u8>) {
    let digit = |c: char| c.to_digit(16).expect("hex") as u8;
    let digits: Vec<u8> = hex.trim().chars().map(digit).collect();
    (pcr.trim().parse().expect("an index"), digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[test]
fn secure_boot_is_read_off_pcr_7_with_the_digest_of_each_variable() {
    for (boot, expected) in BOOTS.into_iter().zip([None, Some(false), Some(false), Some(false), Some(true), Some(true)])
    {
        let (name, read) = (boot.0, verified(boot).secure_boot());
        match expected {
            None => {
                assert!(matches!(read, Err(SecureBootError::Malformed { .. })), "{name}: a BIOS has another separator")
            }
            Some(enabled) => {
                let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!((read.enabled, read.dma_unprotected), (enabled, false), "{name}");
                assert!(
                    SecureBootVariable::ALL.iter().all(|v| read.variable(*v).is_some_and(|d| d.len() == 32)),
                    "{name}"
                );
            }
        }
    }
    let [test_keys, microsoft] = [BOOTS[4], BOOTS[5]].map(|boot| verified(boot).secure_boot().expect("told"));
    let same = |variable| test_keys.variable(variable) == microsoft.variable(variable);
    assert_eq!(SecureBootVariable::ALL.map(same), [false, false, false, true]);
    // As `sha256sum` of the event's data says.
    assert_eq!(
        microsoft.variable(SecureBootVariable::Pk).map(|digest| &digest[..4]),
        Some(&[0x3e, 0x98, 0xda, 0xfa][..])
    );
}

#[test]
fn grubs_command_line_is_read_off_pcr_8() {
    let line = "/vmlinuz console=ttyS0 panic=-1 quiet ima_policy=tcb";
    assert_eq!(verified(SHIM_GRUB).command_line().as_deref(), Some(line));
    assert_eq!(verified(BOOTS[1]).command_line(), None);
}

#[test]
fn no_byte_of_a_real_log_can_change_unnoticed_where_it_is_measured() {
    let (_, log, pcrs) = BOOTS[1];
    let honest = EventLog::parse(log).expect("parses").verify(PcrHash::Sha256, &quoted(pcrs)).expect("leads there");
    let honest = (honest.secure_boot().expect("told"), honest.command_line());
    for place in 0..log.len() {
        let mut damaged = log.to_vec();
        damaged[place] ^= 1;
        let Ok(read) = EventLog::parse(&damaged).and_then(|log| log.verify(PcrHash::Sha256, &quoted(pcrs))) else {
            continue;
        };
        if let Ok(secure_boot) = read.secure_boot() {
            assert_eq!((secure_boot, read.command_line()), honest, "byte {place}");
        }
    }
}
