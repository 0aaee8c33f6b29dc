//! The list that is shipped: faults of firmware by which keys are lost, or the chip is. Each with who says so.

use super::{FirmwareVersion, ROCA, Weakness};

/// Microsoft's advisory has the versions as Infineon gives them; the fault is Nemec et al., "The Return of Coppersmith's Attack",
/// CCS 2017. RSA keys made by the chip can be computed from their public halves.
const ROCA_SOURCE: &str = "CVE-2017-15361, Microsoft ADV170012";
/// STMicroelectronics, "Information on ST's TPM firmware update – ECDSA signature generation" (st.com, campaigns/tpm-update); the fault
/// is Moghimi et al., "TPM-FAIL", USENIX Security 2020. P-256 keys can be computed from the time that signatures take.
const TPM_FAIL_SOURCE: &str = "CVE-2019-16863, STMicroelectronics";
/// Nuvoton's advisory SA-003. Whoever may send commands stops the chip until it is power cycled.
const NUVOTON_SOURCE: &str = "CVE-2023-1017, Nuvoton SA-003";

/// Maker, first and last version, name, source.
const LIST: [(&str, &str, &str, &str, &str); 17] = [
    ("IFX", "4.0", "4.33", ROCA, ROCA_SOURCE),
    ("IFX", "4.40", "4.42", ROCA, ROCA_SOURCE),
    ("IFX", "5.0", "5.61", ROCA, ROCA_SOURCE),
    ("IFX", "6.0", "6.42", ROCA, ROCA_SOURCE),
    ("IFX", "7.0", "7.61", ROCA, ROCA_SOURCE),
    ("IFX", "133.0", "133.32", ROCA, ROCA_SOURCE),
    ("STM", "71.0", "71.0", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "71.4", "71.4", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "71.12", "71.12", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "73.0", "73.0", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "73.4", "73.5", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "73.8", "73.9", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "74.0", "74.0", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "74.4", "74.5", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "74.8", "74.9", "tpm-fail", TPM_FAIL_SOURCE),
    ("STM", "74.16", "74.16", "tpm-fail", TPM_FAIL_SOURCE),
    ("NTC", "1.3.0.1", "1.3.2.8", "cve-2023-1017", NUVOTON_SOURCE),
];

pub(super) fn weaknesses() -> impl Iterator<Item = Weakness> {
    let version = |text: &str, is_last: bool| {
        let read = if is_last { FirmwareVersion::last_of(text) } else { FirmwareVersion::first_of(text) };
        read.expect("the list is tested")
    };
    LIST.into_iter().map(move |(maker, first, last, name, source)| Weakness {
        name: name.to_owned(),
        maker: maker.to_owned(),
        first: version(first, false),
        last: version(last, true),
        source: source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_operators_could_write() {
        let all: Vec<Weakness> = weaknesses().collect();
        assert_eq!(all.len(), LIST.len());
        for weakness in all {
            let Weakness { name, maker, first, last, .. } = &weakness;
            let read: Weakness = format!("{maker}:{first}-{last}:{name}").parse().expect("legal");
            assert_eq!((&read.name, read.first, read.last), (name, *first, *last));
        }
    }
}
