//! What changed between two boots, in words.

use std::collections::BTreeSet;

use super::{BootFacts, SecureBootFacts};

/// Longest command line quoted, characters; the rest is left out.
const MAX_QUOTED_CHARS: usize = 200;

/// A sentence for each difference, the lowest register first.
pub(super) fn between(before: &BootFacts, now: &BootFacts) -> Vec<String> {
    if before.bank != now.bank {
        return vec![format!(
            "the {} bank is quoted, it was {}: their values cannot be compared",
            now.bank, before.bank
        )];
    }
    let all: BTreeSet<u8> = before.pcrs.keys().chain(now.pcrs.keys()).copied().collect();
    let mut told: Vec<String> = all.into_iter().flat_map(|pcr| of_register(pcr, before, now)).collect();
    if before.missing != now.missing {
        told.push(match now.missing.as_str() {
            "" => "the boot log proves whether Secure Boot is on again".to_owned(),
            missing => missing.to_owned(),
        });
    }
    told
}

fn of_register(pcr: u8, before: &BootFacts, now: &BootFacts) -> Vec<String> {
    let what = match (before.pcrs.get(&pcr), now.pcrs.get(&pcr)) {
        (Some(before), Some(now)) if before == now => return Vec::new(),
        (None, _) => vec!["is quoted now".to_owned()],
        (_, None) => vec!["is not quoted any more".to_owned()],
        (Some(_), Some(_)) if pcr == 7 => of_secure_boot(before.secure_boot.as_ref(), now.secure_boot.as_ref()),
        (Some(_), Some(_)) => vec![match (pcr, &before.command_line, &now.command_line) {
            (8 | 12, Some(before), Some(now)) if before != now => {
                format!("the kernel command line was {:?}, is {:?}", quoted(before), quoted(now))
            }
            _ => format!("{} changed", held_by(pcr)),
        }],
    };
    what.into_iter().map(|what| format!("PCR {pcr}: {what}")).collect()
}

fn quoted(line: &str) -> String {
    line.chars().take(MAX_QUOTED_CHARS).collect()
}

/// What a register stands for. Source: TCG PC Client Platform Firmware Profile §3.3.4 for 0 to 7; for the others the UAPI
/// Group's registry of Linux TPM PCRs.
fn held_by(pcr: u8) -> &'static str {
    match pcr {
        0 => "the firmware",
        1 => "the firmware's settings or the machine's hardware",
        2 => "the firmware of an added card (option ROM)",
        3 => "the settings of an added card",
        4 => "the boot loader",
        5 => "the boot loader's settings or the partition table",
        6 => "something of the machine's maker",
        7 => "Secure Boot",
        8 => "the boot loader's commands or the kernel command line",
        9 => "a file that the boot loader read (kernel, initrd)",
        10 => "the measured files (IMA)",
        11 => "the unified kernel image, or how far it had started,",
        12 => "the kernel command line, or what was given to the kernel image,",
        13 => "the system extensions",
        14 => "the machine owner's keys (MOK)",
        15 => "the identity of the system's disks",
        _ => "the register",
    }
}

/// Why PCR 7 is another.
fn of_secure_boot(before: Option<&SecureBootFacts>, now: Option<&SecureBootFacts>) -> Vec<String> {
    let (Some(before), Some(now)) = (before, now) else {
        return vec!["Secure Boot's state or keys changed; no boot log says which".to_owned()];
    };
    let mut told = Vec::new();
    if before.enabled != now.enabled {
        let word = |state: &SecureBootFacts| if state.enabled { "on" } else { "off" };
        told.push(format!("Secure Boot was {}, is {}", word(before), word(now)));
    }
    let names: BTreeSet<&String> = before.variables.keys().chain(now.variables.keys()).collect();
    let other = names.into_iter().filter(|name| before.variables.get(*name) != now.variables.get(*name));
    told.extend(other.map(|name| format!("{} changed", variable(name))));
    if before.dma_unprotected != now.dma_unprotected {
        let word = if now.dma_unprotected { "off" } else { "no longer off" };
        told.push(format!("the protection of memory against devices (DMA) is {word}"));
    }
    if told.is_empty() {
        told.push("another key vouched for what was started".to_owned());
    }
    told
}

fn variable(name: &str) -> String {
    let what = match name {
        "PK" => "the platform key",
        "KEK" => "the keys that may change the lists",
        "db" => "the list of accepted keys",
        "dbx" => "the list of forbidden signatures",
        _ => "a variable",
    };
    format!("{what} ({name})")
}

#[cfg(test)]
mod tests {
    use ironroot_attest::node::tpm2::PcrHash;

    use super::super::PcrValue;
    use super::*;

    fn secure_boot(enabled: bool, dbx: u8) -> Option<SecureBootFacts> {
        let variables = [("PK", 1), ("dbx", dbx)].map(|(name, byte)| (name.to_owned(), PcrValue(vec![byte; 4])));
        Some(SecureBootFacts { enabled, variables: variables.into(), dma_unprotected: false })
    }

    fn with(pcrs: &[(u8, u8)], secure_boot: Option<SecureBootFacts>) -> BootFacts {
        BootFacts { secure_boot, ..BootFacts::example(pcrs) }
    }

    #[test]
    fn what_changed_is_said_in_words_the_lowest_register_first() {
        let before = with(&[(0, 1), (4, 1), (7, 1)], secure_boot(true, 1));
        let now = with(&[(0, 1), (4, 2), (7, 2)], secure_boot(false, 1));
        assert_eq!(between(&before, &now), ["PCR 4: the boot loader changed", "PCR 7: Secure Boot was on, is off"]);
        assert_eq!(between(&now, &before)[1], "PCR 7: Secure Boot was off, is on");
        assert!(between(&now, &now).is_empty());
    }

    #[test]
    fn what_of_secure_boot_changed_is_said_as_far_as_the_log_knows() {
        let said = |before, now| between(&with(&[(7, 1)], before), &with(&[(7, 2)], now));
        let dbx = said(secure_boot(true, 1), secure_boot(true, 2));
        assert_eq!(dbx, ["PCR 7: the list of forbidden signatures (dbx) changed"]);
        let authority = said(secure_boot(true, 1), secure_boot(true, 1));
        assert_eq!(authority, ["PCR 7: another key vouched for what was started"]);
        let both = said(secure_boot(true, 1), secure_boot(false, 2));
        assert_eq!(both.len(), 2);
        let unknown = ["PCR 7: Secure Boot's state or keys changed; no boot log says which"];
        assert_eq!(said(None, secure_boot(true, 1)), unknown);
        let open = secure_boot(true, 1).map(|state| SecureBootFacts { dma_unprotected: true, ..state });
        assert_eq!(said(secure_boot(true, 1), open), ["PCR 7: the protection of memory against devices (DMA) is off"]);
    }

    #[test]
    fn a_command_line_is_quoted_beside_the_register_that_holds_it() {
        let line =
            |byte, text: &str| BootFacts { command_line: Some(text.to_owned()), ..BootFacts::example(&[(8, byte)]) };
        let said = between(&line(1, "quiet"), &line(2, "quiet init=/bin/sh"));
        assert_eq!(said, [r#"PCR 8: the kernel command line was "quiet", is "quiet init=/bin/sh""#]);
        let long = between(&line(1, &"x".repeat(5000)), &line(2, "quiet"));
        assert!(long[0].len() < 300);
        assert_eq!(
            between(&line(1, "quiet"), &line(2, "quiet"))[0],
            "PCR 8: the boot loader's commands or the kernel command line changed"
        );
    }

    #[test]
    fn registers_that_come_and_go_another_bank_and_a_missing_log_are_said() {
        let said = between(&with(&[(0, 1), (4, 1)], None), &with(&[(0, 1), (7, 1)], None));
        assert_eq!(said, ["PCR 4: is not quoted any more", "PCR 7: is quoted now"]);
        let other = BootFacts { bank: PcrHash::Sha384, ..with(&[(0, 2)], None) };
        assert!(between(&with(&[(0, 1)], None), &other)[0].contains("sha384 bank is quoted, it was sha256"));
        let without = BootFacts { missing: "the device sent no boot log".into(), ..with(&[(0, 1)], None) };
        assert_eq!(between(&with(&[(0, 1)], None), &without), ["the device sent no boot log"]);
        assert_eq!(between(&without, &with(&[(0, 1)], None)).len(), 1);
        let every: Vec<String> =
            (0..16).flat_map(|pcr| between(&with(&[(pcr, 1)], None), &with(&[(pcr, 2)], None))).collect();
        assert_eq!(every.len(), 16);
        assert!(every.iter().enumerate().all(|(pcr, said)| said.starts_with(&format!("PCR {pcr}: "))));
    }
}
