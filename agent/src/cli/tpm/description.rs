//! What a TPM shows, for people, for programs and for a manifest.

use std::fmt::Display;

use ironroot_api::spire_time;
use ironroot_attest::node::tpm2::{PcrHash, PcrSelection, list_banks};
use ironroot_attest::tpm::{Chip, ChipDescription, EndorsementKind, PcrValues, TpmError};
use ironroot_shell::command_line::labelled;
use ironroot_text::hex::hex;
use serde_json::{Map, Value, json};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// A TPM as `tpm show` shows it.
pub(super) struct Description {
    address: String,
    chip: ChipDescription,
    kind: EndorsementKind,
    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo, hex: what the server compares.
    pub(super) ek_sha256: String,
    certificates: Vec<FoundCertificate>,
    banks: Vec<PcrHash>,
    pcrs: Vec<(PcrHash, PcrValues)>,
    persistent_handles: Vec<u32>,
}

/// A certificate at one of the indices where makers put those of endorsement keys.
struct FoundCertificate {
    kind: EndorsementKind,
    fits: bool,
    /// None if it is in an encoding that cannot be read.
    details: Option<Details>,
}

struct Details {
    issuer: String,
    serial_number: String,
    not_before: i64,
    not_after: i64,
}

impl Description {
    /// Asks the chip; leaves nothing in it.
    pub(super) fn of(address: String, chip: &mut Chip) -> Result<Self, TpmError> {
        let ek = chip.endorsement_key()?;
        let found = chip.endorsement_certificates_in_nv()?;
        let certificates = found.into_iter().map(|(kind, der)| FoundCertificate {
            kind,
            fits: kind == ek.identity.kind && ek.certificates.first() == Some(&der),
            details: Details::read(&der),
        });
        let banks = chip.active_banks()?;
        let all = PcrSelection::from_indices(0..=15).expect("PCRs 0 to 15 may be selected");
        let values = banks.iter().map(|bank| Ok((*bank, chip.pcr_values(*bank, all)?)));
        Ok(Self {
            address,
            kind: ek.identity.kind,
            ek_sha256: hex(&ek.identity.ek_sha256),
            certificates: certificates.collect(),
            pcrs: values.collect::<Result<_, TpmError>>()?,
            banks,
            chip: chip.describe()?,
            persistent_handles: chip.persistent_handles_used()?,
        })
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let chip = &self.chip;
        line(&mut text, "TPM", &self.address);
        line(&mut text, "Maker", format_args!("{} {}", chip.manufacturer, chip.model));
        line(&mut text, "Firmware", format_args!("{:016x}", chip.firmware));
        line(&mut text, "EK kind", self.kind);
        line(&mut text, "EK SHA-256", &self.ek_sha256);
        for found in &self.certificates {
            found.describe(&mut text);
        }
        if self.certificates.is_empty() {
            line(&mut text, "EK certificate", "none in the TPM: enrol the device by the hash above");
        }
        let handles = self.persistent_handles.iter().map(|handle| format!("{handle:#010x}")).collect::<Vec<_>>();
        line(&mut text, "Persistent keys", if handles.is_empty() { "none used".into() } else { handles.join(", ") });
        line(&mut text, "PCR banks", list_banks(&self.banks));
        for (bank, values) in &self.pcrs {
            for (index, value) in values {
                line(&mut text, &format!("PCR {bank}:{index}"), hex(value));
            }
        }
        text
    }

    pub(super) fn to_json(&self) -> Value {
        let pcrs: Map<String, Value> =
            self.pcrs.iter().map(|(bank, values)| (bank.to_string(), by_index(values))).collect();
        json!({
            "address": self.address,
            "manufacturer": self.chip.manufacturer,
            "model": self.chip.model,
            "firmware_version": format!("{:016x}", self.chip.firmware),
            "ek_kind": self.kind.to_string(),
            "ek_sha256": self.ek_sha256,
            "ek_certificates": self.certificates.iter().map(FoundCertificate::to_json).collect::<Vec<_>>(),
            "persistent_handles": self.persistent_handles.iter().map(|h| format!("{h:#010x}")).collect::<Vec<_>>(),
            "pcrs": pcrs,
        })
    }
}

impl FoundCertificate {
    fn describe(&self, text: &mut String) {
        let fits = if self.fits { "for this key" } else { "for another key, not used" };
        line(text, "EK certificate", format_args!("{}, {fits}", self.kind));
        match &self.details {
            Some(details) => {
                line(text, "  Issuer", &details.issuer);
                line(text, "  Serial number", &details.serial_number);
                line(text, "  Valid from", spire_time(details.not_before));
                line(text, "  Valid until", spire_time(details.not_after));
            }
            None => line(text, "  Issuer", "unknown: its encoding cannot be read"),
        }
    }

    fn to_json(&self) -> Value {
        let mut json = json!({ "kind": self.kind.to_string(), "fits": self.fits });
        if let Some(details) = &self.details {
            json["issuer"] = json!(details.issuer);
            json["serial_number"] = json!(details.serial_number);
            json["not_before"] = json!(details.not_before);
            json["not_after"] = json!(details.not_after);
        }
        json
    }
}

impl Details {
    fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = certificate.tbs_certificate();
        let unix = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        Some(Self {
            issuer: tbs.issuer().to_string(),
            serial_number: hex(tbs.serial_number().as_bytes()),
            not_before: unix(tbs.validity().not_before),
            not_after: unix(tbs.validity().not_after),
        })
    }
}

/// A device in the form that `device import` takes.
pub(super) struct ManifestLine<'a> {
    pub(super) ek_sha256: &'a str,
    pub(super) serial: Option<&'a str>,
    pub(super) labels: &'a [(String, String)],
}

impl ManifestLine<'_> {
    /// A head line and the device's line. Columns that nothing was said about are left out: an import leaves them alone.
    pub(super) fn to_csv(&self) -> String {
        let mut columns = vec![("ek_sha256".to_owned(), self.ek_sha256)];
        columns.extend(self.serial.map(|serial| ("serial".to_owned(), serial)));
        columns.extend(self.labels.iter().map(|(name, value)| (format!("label:{name}"), value.as_str())));
        let (head, cells): (Vec<String>, Vec<&str>) = columns.into_iter().unzip();
        let mut csv = csv::Writer::from_writer(Vec::new());
        let written = csv.write_record(&head).and_then(|()| csv.write_record(&cells));
        written.expect("two lines of equal length are written into memory");
        let bytes = csv.into_inner().expect("memory takes what is written");
        String::from_utf8(bytes).expect("text stays text")
    }
}

fn by_index(values: &PcrValues) -> Value {
    values.iter().map(|(index, value)| (index.to_string(), json!(hex(value)))).collect::<Map<_, _>>().into()
}

fn line(text: &mut String, label: &str, value: impl Display) {
    labelled(text, 18, label, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_line_says_what_was_given_and_nothing_else() {
        let hash = "a5".repeat(32);
        let bare = ManifestLine { ek_sha256: &hash, serial: None, labels: &[] };
        assert_eq!(bare.to_csv(), format!("ek_sha256\n{hash}\n"));
        let labels = [("site".to_owned(), "berlin, hall 3".to_owned())];
        let full = ManifestLine { ek_sha256: &hash, serial: Some("SN-\"1\""), labels: &labels };
        assert_eq!(full.to_csv(), format!("ek_sha256,serial,label:site\n{hash},\"SN-\"\"1\"\"\",\"berlin, hall 3\"\n"));
    }
}
