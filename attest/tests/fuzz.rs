//! Every parser of this crate that takes a stranger's bytes, fed damaged input. The seeds are what a TPM emulator said.

use ironroot_attest::ek_certificate::EkCertificate;
use ironroot_attest::event_log::EventLog;
use ironroot_attest::ima::{Entry, Measured, Replay, read_part};
use ironroot_attest::node::tpm2::{Challenge, Claim, Evidence, ImaRequest, PcrHash, Response};
use ironroot_attest::structures::{Attest, Public, Signature};
use ironroot_fuzz::Target;
use ironroot_software_tpm::{BootLog, ImaList};

macro_rules! vector {
    ($name:literal) => {
        unhex(include_str!(concat!("tpm2/vectors/", $name, ".hex")))
    };
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

//= TPM-28 FLT-T7
#[test]
fn tpm_structures_survive_damage() {
    Target::new("TPM structures")
        .seed(vector!("ek_rsa"))
        .seed(vector!("ek_p256"))
        .seed(vector!("ak_p256"))
        .seed(vector!("quote_p256"))
        .seed(vector!("certify_rsa"))
        .seed(vector!("quote_p256_signature"))
        .seed(vector!("quote_rsa_signature"))
        .survives(|bytes| {
            let _ = (Public::parse(bytes), Attest::parse(bytes), Signature::parse(bytes));
        });
}

#[test]
fn endorsement_key_certificates_survive_damage() {
    Target::new("EK certificate").seed(vector!("leaf")).seed(vector!("ek_certificate_rsa")).survives(|bytes| {
        if let Ok(certificate) = EkCertificate::parse(bytes) {
            let _ = (certificate.ek_sha256(), certificate.tpm_model(), certificate.issuer_common_name());
        }
    });
}

//= FLT-T7
#[test]
fn claims_and_answers_survive_damage() {
    let evidence = |ek_public: Vec<u8>, ak_public: Vec<u8>| {
        let ek_certificates = vec![vector!("leaf")];
        Evidence {
            ek_certificates,
            ek_public,
            ak_public,
            boot_id: "b".into(),
            pcr_banks: vec![],
            event_log: true,
            ima_log: true,
        }
        .to_json()
    };
    Target::new("tpm2 claim")
        .seed(evidence(vector!("ek_rsa"), vector!("ak_rsa")))
        .seed(evidence(vector!("ek_p256"), vector!("ak_p256")))
        .survives(|bytes| {
            if let Ok(claim) = Claim::parse(bytes) {
                let _ = claim.ek_sha256();
            }
            let _ = (Evidence::from_json(bytes), Challenge::from_json(bytes), Response::from_json(bytes));
            let _ = ImaRequest::from_json(bytes);
        });
}

/// Read to the end: what leads to a quote of its own registers, and what Secure Boot makes of it.
//= TPM-31 FLT-T7
#[test]
fn boot_logs_survive_damage() {
    Target::new("boot log")
        .seed(*include_bytes!("boot_logs/seabios_direct_kernel/binary_bios_measurements"))
        .seed(*include_bytes!("boot_logs/ovmf_direct_banks_sha1_256_384/binary_bios_measurements"))
        .seed(*include_bytes!("boot_logs/ovmf_secureboot_ms_shim_grub/binary_bios_measurements"))
        .survives(|bytes| {
            let Ok(log) = EventLog::parse(bytes) else { return };
            for bank in PcrHash::ALL {
                let _ = log.clone().verify(bank, &[(7, vec![0; bank.bytes()])]);
                if let Ok(log) = log.clone().verify(bank, &[]) {
                    let _ = (log.secure_boot(), log.command_line());
                }
            }
        });
}

/// The kernel's list, damaged where the server reads it, and where the agent cuts it into parts.
//= TPM-47 FLT-T7
#[test]
fn lists_of_measured_files_survive_damage() {
    Target::new("IMA list")
        .seed(*include_bytes!("boot_logs/ovmf_direct_ima_tcb_ext4/ima_binary_runtime_measurements"))
        .survives(|bytes| {
            for bank in PcrHash::ALL {
                let mut told = 0_u64;
                let mut replay = Replay::new(bank, vec![0xff; bank.bytes()]);
                let _ = replay.extend(bytes, |_| told += 1);
                assert!(told <= replay.entries());
            }
            let _ = Entry::read(bytes, 1);
            let _ = (read_part(bytes, 0), read_part(bytes, 3));
        });
}

/// Behind the digest: data that was measured, whatever it says.
#[test]
fn measured_data_survives_damage() {
    Target::new("IMA template data")
        .seed([&[40, 0, 0, 0][..], b"sha256:\0", &[7; 32], &[3, 0, 0, 0], b"/a\0"].concat())
        .survives(|bytes| {
            let mut list = ImaList::default();
            list.entry(10, "ima-ng", bytes);
            if let Ok((entry, rest)) = Entry::read(list.bytes(), 1) {
                assert!(rest.is_empty() && Measured::of(&entry) != Measured::Violation);
            }
        });
}

/// The part behind the replay: a log that leads to its registers, whatever it says.
#[test]
fn secure_boot_survives_damaged_events() {
    Target::new("Secure Boot").seed(BootLog::booted(true, b"loader").bytes()).survives(|bytes| {
        let mut log = BootLog::new();
        for part in bytes.chunks(80) {
            let kind = [0x8000_0001, 0x8000_00e0, 0x4, 0x8000_0007, 0xd][part.len() % 5];
            log.measure(7, kind, part);
            log.measure(8, 0xd, part);
            log.measure(12, 0xd, part);
        }
        let quoted = [7, 8, 12].map(|pcr: u8| (pcr, log.pcrs()[usize::from(pcr)].to_vec()));
        let Ok(parsed) = EventLog::parse(log.bytes()) else { return };
        let verified = parsed.verify(PcrHash::Sha256, &quoted).expect("leads to its own registers");
        let _ = (verified.secure_boot(), verified.command_line());
    });
}

#[test]
fn selectors_survive_damage_and_are_written_as_they_were_read() {
    Target::new("selector").seed(*b"unix:uid:1000").seed(*b"tpm2:label:site:berlin").survives(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(selector) = text.parse::<ironroot_attest::Selector>() {
            assert_eq!(selector.to_string(), text);
        }
    });
}
